//go:build unix

package guestfs

import (
	"errors"
	"io/fs"
	"os"
	"runtime"
	"syscall"
)

// safeFlags keep open from blocking on a FIFO or a terminal that took a file's
// place, and from following a link.
const safeFlags = syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_NOCTTY

// foldsNames says that the file system usually takes "A" and "a" for one name.
const foldsNames = runtime.GOOS == "darwin" || runtime.GOOS == "ios"

// nameable refuses names with a meaning of their own. On macOS
// "file/..namedfork/rsrc" is a second content of a file.
func nameable(part string) bool { return !foldsNames || part != "..namedfork" }

func identify(_ *os.Root, _ string, info fs.FileInfo) (facts, error) { return factsFrom(info) }

func identifyOpen(_ *os.File, info fs.FileInfo) (facts, error) { return factsFrom(info) }

// factsFrom reports the time of the last change of content for the other
// times: where they are differs from system to system.
func factsFrom(info fs.FileInfo) (facts, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return facts{}, fs.ErrInvalid
	}
	edited := info.ModTime().UnixNano()
	return facts{
		key:      key{uint64(st.Dev), st.Ino}, //nolint:unconvert,gosec // other types elsewhere
		mode:     info.Mode().Type(),
		links:    uint64(st.Nlink), //nolint:unconvert // other types elsewhere
		size:     info.Size(),
		accessed: edited, changed: edited, edited: edited,
	}, nil
}

func classifyOS(err error) error {
	var no syscall.Errno
	if !errors.As(err, &no) {
		return nil
	}
	switch no {
	case syscall.ENOTDIR:
		return ErrNotDirectory
	case syscall.EISDIR:
		return ErrIsDirectory
	case syscall.ENOTEMPTY:
		return ErrNotEmpty
	case syscall.ENAMETOOLONG:
		return ErrNameTooLong
	case syscall.ELOOP:
		return ErrLoop
	case syscall.EINVAL, syscall.EILSEQ:
		return ErrInvalid
	case syscall.EXDEV: // a mount point
		return fs.ErrPermission
	case syscall.EROFS:
		return ErrReadOnly
	case syscall.EBUSY, syscall.ETXTBSY:
		return ErrBusy
	case syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG:
		return ErrNoSpace
	case syscall.ENXIO: // a FIFO or a device
		return fs.ErrPermission
	}
	return nil
}
