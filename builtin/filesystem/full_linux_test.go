package filesystem_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/builtin/filesystem"
)

// A write for which there is no room leaves the file as it was, and nothing
// beside it.
func TestFullDisk(t *testing.T) {
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, "size=1048576"); err != nil {
		t.Skipf("mounting a small disk takes root: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(folder, 0)) })
	b := prepare(t, filesystem.Config{AllowedPaths: []string{folder}})
	path := filepath.Join(folder, "f")
	require.Equal(t, 0, b.does("Write", "FilePath", path, "Content", "before").ExitCode())
	result := b.does("Write", "FilePath", path, "Content", strings.Repeat("x", 2<<20))
	require.Equal(t, "Write failed: ENOSPC: no space left on device, write '"+path+"'", result.Outputs["StdOut"])
	require.Equal(t, "before", content(t, path))
	require.Equal(t, []string{"f"}, list(t, folder))
	require.Equal(t, 0, b.does("Write", "FilePath", path, "Content", "after").ExitCode())
}
