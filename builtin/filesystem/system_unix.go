//go:build unix

package filesystem

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// nonblock keeps an open from waiting for the other end of a pipe.
const nonblock = syscall.O_NONBLOCK

// keepOwner gives a new file the owner of the one that it replaces, as far as
// the worker may.
func keepOwner(f *os.File, before os.FileInfo) {
	if stat, ok := before.Sys().(*syscall.Stat_t); ok {
		_ = f.Chown(int(stat.Uid), int(stat.Gid)) // only root may give files away
	}
}

// syncFolder has the name of a file reach the disk.
func syncFolder(at *place) error {
	folder, err := at.tree.OpenFile(filepath.Dir(at.name), os.O_RDONLY, 0)
	if err != nil {
		return nil //nolint:nilerr // who may write in a folder may not always read it
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}

func isOtherDevice(err error) bool { return errors.Is(err, syscall.EXDEV) }
