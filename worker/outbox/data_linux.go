package outbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// syncData has what was written into a file reach the disk, without what is
// known about the file, which has not changed but for the time.
func syncData(f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		for {
			if failed = unix.Fdatasync(int(fd)); failed != unix.EINTR { //nolint:errorlint // it comes straight from the system
				return
			}
		}
	})
	switch {
	case err != nil: // there is only one reason
		return os.ErrClosed
	case failed != nil:
		return os.NewSyscallError("fdatasync", failed)
	}
	return nil
}
