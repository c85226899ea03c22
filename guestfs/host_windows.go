package guestfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// safeFlags: os.Root opens reparse points as such, and nothing blocks.
const safeFlags = 0

// foldsNames says that the file system takes "A" and "a" for one name.
const foldsNames = true

// nameable refuses names with a meaning of their own: devices, streams
// ("file:stream") and other separators; and names that the system would change
// by cutting dots and spaces at their end.
func nameable(part string) bool {
	return filepath.IsLocal(part) && !strings.ContainsAny(part, `\:*?"<>|`) && strings.TrimRight(part, ". ") == part
}

// identify opens the file, because a name alone does not give the number of
// its links.
func identify(root *os.Root, name string, info fs.FileInfo) (facts, error) {
	if !info.Mode().IsRegular() && !info.IsDir() {
		return facts{mode: info.Mode().Type()}, nil
	}
	f, err := root.Open(name)
	if err != nil {
		return facts{}, err
	}
	defer f.Close() //nolint:errcheck // only read
	if info, err = f.Stat(); err != nil {
		return facts{}, err
	}
	return identifyOpen(f, info)
}

func identifyOpen(f *os.File, info fs.FileInfo) (facts, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return facts{}, err
	}
	var data syscall.ByHandleFileInformation
	if control := conn.Control(func(h uintptr) {
		err = syscall.GetFileInformationByHandle(syscall.Handle(h), &data)
	}); control != nil {
		err = control
	}
	if err != nil {
		return facts{}, err
	}
	return facts{
		key:      key{uint64(data.VolumeSerialNumber), uint64(data.FileIndexHigh)<<32 | uint64(data.FileIndexLow)},
		mode:     info.Mode().Type(),
		links:    uint64(data.NumberOfLinks),
		size:     info.Size(),
		accessed: data.LastAccessTime.Nanoseconds(),
		changed:  data.LastWriteTime.Nanoseconds(),
		edited:   data.LastWriteTime.Nanoseconds(),
	}, nil
}

// Errors of Windows that package syscall has no name for.
const (
	errorSharingViolation = syscall.Errno(32)
	errorDiskFull         = syscall.Errno(112)
	errorInvalidName      = syscall.Errno(123)
	errorDirNotEmpty      = syscall.Errno(145)
	errorFilenameTooLong  = syscall.Errno(206)
	errorDirectory        = syscall.Errno(267)
)

func classifyOS(err error) error {
	var no syscall.Errno
	if !errors.As(err, &no) {
		return nil
	}
	switch no {
	case syscall.ENOTDIR, errorDirectory:
		return ErrNotDirectory
	case syscall.EISDIR:
		return ErrIsDirectory
	case syscall.ENOTEMPTY, errorDirNotEmpty:
		return ErrNotEmpty
	case syscall.ENAMETOOLONG, errorFilenameTooLong:
		return ErrNameTooLong
	case syscall.ELOOP:
		return ErrLoop
	case syscall.EINVAL, errorInvalidName:
		return ErrInvalid
	case errorSharingViolation:
		return ErrBusy
	case errorDiskFull:
		return ErrNoSpace
	}
	return nil
}
