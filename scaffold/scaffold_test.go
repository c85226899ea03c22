package scaffold_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/golden"
	"github.com/ultravisor/beacon/scaffold"
)

// That projects build and their cases pass is tested with the command.
func TestCreate(t *testing.T) {
	for _, lang := range scaffold.Languages() {
		t.Run(lang, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "resize-images")
			names, err := scaffold.Create(folder, lang)
			require.NoError(t, err)
			require.Contains(t, names, "README.md")
			require.Contains(t, names, ".gitignore")
			capability := false
			for _, name := range names {
				text, err := os.ReadFile(filepath.Join(folder, name))
				require.NoError(t, err)
				require.NotContains(t, string(text), "__NAME__", name)
				require.NotContains(t, string(text), "__CAPABILITY__", name)
				require.NotRegexp(t, `\.tmpl$|^gitignore$`, name)
				capability = capability || bytes.Contains(text, []byte("ResizeImages"))
			}
			require.True(t, capability, "the source names the capability")
			cases, err := golden.Read(filepath.Join(folder, "testdata"))
			require.NoError(t, err)
			require.NotEmpty(t, cases)

			_, err = scaffold.Create(folder, lang)
			require.ErrorContains(t, err, "there already and not empty")
		})
	}
}

func TestNames(t *testing.T) {
	for _, good := range []string{"a", "hello", "resize-images", "utf8", "a_b", "x2-y3"} {
		_, err := scaffold.Create(filepath.Join(t.TempDir(), good), "go")
		require.NoError(t, err, good)
	}
	for _, bad := range []string{"Hello", "8bit", "a b", "-x", "x-", "a--b", "ü", "a.b", "x\ny"} {
		folder := filepath.Join(t.TempDir(), bad)
		_, err := scaffold.Create(folder, "go")
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), bad)
		require.NoDirExists(t, folder)
	}
}
