package sandbox_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// What an item costs here and in a process.
func BenchmarkItem(b *testing.B) {
	s, err := sandbox.New(sandbox.Config{Runtime: wasmrt.Config{CacheDir: b.TempDir() + "/cache"}})
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	src := wasmrt.Source{Name: "tiny", Binary: guest(b, "tiny")}
	here, err := s.Runtime().Load(b.Context(), src)
	require.NoError(b, err)
	defer func() { require.NoError(b, here.Close(context.Background())) }()
	there, err := s.Load(b.Context(), src)
	require.NoError(b, err)
	defer func() { require.NoError(b, there.Close(context.Background())) }()
	for name, p := range map[string]beacon.Provider{"here": here, "process": there} {
		b.Run(name, func(b *testing.B) {
			job := jobOf(b, nil)
			for range b.N {
				if _, err := p.Run(b.Context(), job); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
