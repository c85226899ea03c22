package guestfs_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/guestfs"
)

// S19: what is mounted inside stays closed where openat2 sees to it.
func TestS19MountsAreNotCrossed(t *testing.T) {
	f, dir := stage(t, guestfs.New, guestfs.Config{})
	mounted := filepath.Join(dir, "mounted")
	outside := t.TempDir()
	require.NoError(t, os.Mkdir(mounted, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	if err := unix.Mount(outside, mounted, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mounting is not permitted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(mounted, 0)) })
	_, err := f.Open("mounted/secret", guestfs.Read)
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = f.Open("mounted/new", guestfs.Write|guestfs.Create)
	require.ErrorIs(t, err, fs.ErrPermission)
	_, err = f.ReadDir("mounted")
	require.ErrorIs(t, err, fs.ErrPermission)
	require.Error(t, f.Rename("mounted", "elsewhere"))
	require.Error(t, f.RemoveDir("mounted"))
	require.Error(t, f.Rename("input", "mounted/x"))
}
