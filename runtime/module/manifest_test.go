package module_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/module"
)

func TestWithManifest(t *testing.T) {
	bare := header + function + code + named("name", "") + named("other", "kept")
	with, err := module.WithManifest([]byte(bare), []byte(" {\"Name\":\"a\"}\n"))
	require.NoError(t, err)
	require.Equal(t, bare+named(module.ManifestSection, `{"Name":"a"}`), string(with))

	again, err := module.WithManifest(with, []byte("{}"))
	require.NoError(t, err)
	require.Equal(t, bare+named(module.ManifestSection, "{}"), string(again), "it takes the place of the one before")

	without, err := module.WithManifest(again, nil)
	require.NoError(t, err)
	require.Equal(t, bare, string(without))
}

func TestWithManifestOfNoModule(t *testing.T) {
	for name, file := range map[string]string{
		"text":        "hello",
		"component":   "\x00asm\x0d\x00\x01\x00",
		"cut off":     header + "\x00",
		"cut short":   header + "\x01\x05\x01",
		"no name":     header + "\x00\x00",
		"long length": header + "\x00\xff\xff\xff\xff\xff\xff",
	} {
		_, err := module.WithManifest([]byte(file), []byte("{}"))
		var refusal *module.Error
		require.ErrorAs(t, err, &refusal, name)
	}
}
