//go:build unix

package runtime

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/ultravisor/beacon"
)

// checkOwner refuses a directory that another user owns or may write to.
func checkOwner(dir string, info fs.FileInfo) error {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return beacon.Errorf(beacon.Denied, "compilation cache %s belongs to another user: what is in it would be executed; remove it or set another cache directory", dir)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return beacon.Errorf(beacon.Denied, "compilation cache %s is open to others (mode %04o): what is in it would be executed; chmod 700 it", dir, mode)
	}
	return nil
}

// checkParent refuses a folder in which another user could exchange the cache.
// In one with the sticky bit, such as /tmp, only owners can.
func checkParent(dir string, info fs.FileInfo) error {
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return beacon.Errorf(beacon.Denied, "folder %s of the compilation cache is open to others (mode %04o): what is in the cache would be executed; chmod go-w it",
			dir, info.Mode().Perm())
	}
	return nil
}
