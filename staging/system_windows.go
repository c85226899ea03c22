package staging

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

const nonblock = 0

// tryLock takes the lock if nobody has it. The system frees it when the
// process ends, however it ends.
func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return false, nil
	}
	return err == nil, err
}

// release removes a lock file that we hold; another worker may have been quicker. It closes first: an open file cannot
// be removed here.
func release(f *os.File) error {
	closed := f.Close()
	err := os.Remove(f.Name())
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(closed, err)
}

// links is 1: a link count takes another system call, and guests cannot make
// hard links.
func links(fs.FileInfo) uint64 { return 1 }

// detach makes an open file one that can be renamed: an open file keeps its
// name, so it is closed.
func detach(f *os.File) error { return f.Close() }

func readable(*os.File) error { return nil }

// isFull reports whether an error says that there is no room on the disk.
func isFull(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

func rename(from, to string) error { return os.Rename(from, to) }

// untouched is never: what a directory has beside of its entries takes more
// calls than making another.
func untouched(*os.Root) bool { return false }
