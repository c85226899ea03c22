//go:build unix

package staging

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// nonblock keeps an open from waiting for the other end of a pipe.
const nonblock = unix.O_NONBLOCK

// tryLock takes the lock if nobody has it. The system frees it when the
// process ends, however it ends.
func tryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor fits
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// release removes a lock file that we hold; another worker may have been quicker.
func release(f *os.File) error {
	err := os.Remove(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, f.Close())
}

// rename is os.Rename for a name that nobody has: that looks first.
func rename(from, to string) error { return unix.Rename(from, to) }

func links(info fs.FileInfo) uint64 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return uint64(stat.Nlink) //nolint:unconvert // its type differs between systems
	}
	return 1
}

// detach makes an open file one that can be renamed: here every file is.
func detach(*os.File) error { return nil }

// readable lets the file's owner read it, and nobody else, whatever the provider
// had in mind.
func readable(f *os.File) error { return f.Chmod(0o600) }

// isFull reports whether an error says that there is no room on the disk.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// untouched reports whether a directory is as it was made: empty, our own, and
// nobody else's to use.
func untouched(root *os.Root) bool {
	f, err := root.Open(".")
	if err != nil {
		return false
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Mode() != fs.ModeDir|0o700 {
		return false
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); !ok || int(stat.Uid) != os.Geteuid() {
		return false
	}
	_, err = f.Readdirnames(1)
	return errors.Is(err, io.EOF) && plain(f)
}
