package hostfuncs

import (
	"errors"
	"io/fs"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// refuse answers the guest with the number of an error, and keeps its text for
// last_error. Nil is ok.
func (i *Item) refuse(err error) abi.Errno {
	errno := errnoOf(err)
	if errno != ok {
		i.lastError = excerpt(err.Error(), maxMessage)
	}
	return errno
}

// deny is like refuse, and leaves a line in the log: whoever runs the item
// wants to know that something was asked for and what would have permitted it.
func (i *Item) deny(err error) abi.Errno {
	errno := i.refuse(err)
	if code := beacon.CodeOf(err); i.limit == nil && (code == beacon.WebLimit || code == beacon.CallLimit) {
		i.limit = err
	}
	if errno == denied || errno == limit {
		i.log.flush()
		i.log.write([]byte("beacon: " + i.lastError + "\n"))
	}
	return errno
}

// errnoOf gives the error number of ABI.md for an error of the file system or
// of the broker.
func errnoOf(err error) abi.Errno {
	var coded *beacon.Error
	switch {
	case err == nil:
		return ok
	case errors.As(err, &coded):
		return errnoOfCode(coded.Code)
	case errors.Is(err, fs.ErrNotExist):
		return notFound
	case errors.Is(err, fs.ErrExist), errors.Is(err, guestfs.ErrNotEmpty):
		return exists
	case errors.Is(err, guestfs.ErrLimit), errors.Is(err, guestfs.ErrNameTooLong), errors.Is(err, guestfs.ErrNoSpace):
		return limit
	case errors.Is(err, fs.ErrPermission), errors.Is(err, guestfs.ErrReadOnly), errors.Is(err, guestfs.ErrLoop), errors.Is(err, guestfs.ErrAccess):
		return denied
	case errors.Is(err, guestfs.ErrInvalid), errors.Is(err, guestfs.ErrIsDirectory), errors.Is(err, guestfs.ErrNotDirectory):
		return invalid
	case errors.Is(err, guestfs.ErrClosed):
		return badDescriptor
	}
	return ioError
}

func errnoOfCode(code beacon.Code) abi.Errno {
	switch code {
	case beacon.Invalid:
		return invalid
	case beacon.NotFound:
		return notFound
	case beacon.Denied, beacon.Refused, beacon.Rejected:
		return denied
	case beacon.Unreachable:
		return network
	case beacon.Timeout:
		return timeout
	case beacon.Canceled:
		return canceled
	case beacon.Failed, beacon.Trapped:
		return failed
	}
	if code.Limit() {
		return limit
	}
	return ioError
}

func lastError(i *Item, c *abi.Call) abi.Errno {
	if i.lastError == "" {
		return notFound
	}
	return fill(c, 0, []byte(i.lastError))
}
