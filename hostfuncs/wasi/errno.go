package wasi

import (
	"errors"
	"io/fs"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// The error numbers of WASI preview 1 that we use.
const (
	success        abi.Errno = 0
	eTooBig        abi.Errno = 1
	eBadDescriptor abi.Errno = 8
	eBusy          abi.Errno = 10
	eExist         abi.Errno = 20
	eFault         abi.Errno = 21
	eFileTooBig    abi.Errno = 22
	eInvalid       abi.Errno = 28
	eIO            abi.Errno = 29
	eIsDirectory   abi.Errno = 31
	eLoop          abi.Errno = 32
	eTooManyOpen   abi.Errno = 33
	eNameTooLong   abi.Errno = 37
	eNotFound      abi.Errno = 44
	eNoMemory      abi.Errno = 48
	eNoSpace       abi.Errno = 51
	eNotImplement  abi.Errno = 52
	eNotDirectory  abi.Errno = 54
	eNotEmpty      abi.Errno = 55
	eNotSocket     abi.Errno = 57
	eNotSupported  abi.Errno = 58
	eNotPermitted  abi.Errno = 63
	eReadOnly      abi.Errno = 69
	eNotSeekable   abi.Errno = 70
)

// errnoOf is the one table from errors of files to numbers. What it does not
// know is a failure of the host: EIO.
func errnoOf(err error) abi.Errno {
	if err == nil {
		return success
	}
	var limit *guestfs.LimitError
	if errors.As(err, &limit) {
		switch limit.Limit {
		case guestfs.LimitFileSize:
			return eFileTooBig
		case guestfs.LimitOpenFiles:
			return eTooManyOpen
		case guestfs.LimitDepth:
			return eNameTooLong
		case guestfs.LimitListings:
			return eNoMemory
		}
		return eNoSpace // bytes, written, entries
	}
	for _, known := range []struct {
		err error
		no  abi.Errno
	}{
		{fs.ErrNotExist, eNotFound},
		{fs.ErrExist, eExist},
		{fs.ErrPermission, eNotPermitted},
		{guestfs.ErrReadOnly, eReadOnly},
		{guestfs.ErrIsDirectory, eIsDirectory},
		{guestfs.ErrNotDirectory, eNotDirectory},
		{guestfs.ErrNotEmpty, eNotEmpty},
		{guestfs.ErrNameTooLong, eNameTooLong},
		{guestfs.ErrInvalid, eInvalid},
		{guestfs.ErrLoop, eLoop},
		{guestfs.ErrAccess, eBadDescriptor},
		{guestfs.ErrClosed, eBadDescriptor},
		{guestfs.ErrBusy, eBusy},
		{guestfs.ErrNoSpace, eNoSpace},
	} {
		if errors.Is(err, known.err) {
			return known.no
		}
	}
	return eIO
}
