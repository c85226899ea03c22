package wire

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// NewLanes makes lanes, and returns the other ends for the process that is to
// answer. They are to be closed once they were handed on.
func NewLanes(n int) (lanes *Lanes, theirs []*os.File, err error) {
	lanes = &Lanes{}
	for range n {
		// A process that is started between the calls would inherit our end.
		syscall.ForkLock.RLock()
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		syscall.ForkLock.RUnlock()
		if err != nil {
			err = errors.Join(fmt.Errorf("make a pair of sockets: %w", err), lanes.Close())
			for _, f := range theirs {
				err = errors.Join(err, f.Close())
			}
			return nil, nil, err
		}
		lane := &Lane{fd: pair[0]}
		lanes.all, lanes.free = append(lanes.all, lane), append(lanes.free, lane)
		theirs = append(theirs, os.NewFile(uintptr(pair[1]), "lane"))
	}
	return lanes, theirs, nil
}

// OpenLane is the end of a lane that was inherited as a descriptor.
func OpenLane(fd int) (*Lane, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_SEQPACKET {
		return nil, errors.New("there is no lane")
	}
	unix.CloseOnExec(fd)
	return &Lane{fd: fd, buf: make([]byte, laneHeader+MaxLane)}, nil
}

func (l *Lane) read() (int, error) {
	b := l.buf[:cap(l.buf)]
	for {
		n, err := unix.Read(l.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECONNRESET):
			// The other end is gone, and what was sent to it lies there; see unix(7). If
			// it had been read, this would be the end of the stream.
			return 0, ErrUnread
		case err != nil:
			return 0, fmt.Errorf("%w: %w", ErrClosed, err)
		case n == 0:
			return 0, ErrClosed
		default:
			l.buf = b
			return n, nil
		}
	}
}

func (l *Lane) write(b []byte) error {
	for {
		_, err := unix.Write(l.fd, b) // all or nothing; that the other end is gone is no signal in Go
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return fmt.Errorf("%w: %w", ErrUnread, err)
		default:
			return nil
		}
	}
}

func (l *Lane) shutdown() error {
	if err := unix.Shutdown(l.fd, unix.SHUT_RDWR); err != nil && !errors.Is(err, unix.ENOTCONN) {
		return err
	}
	return nil
}

func (l *Lane) close() error { return unix.Close(l.fd) }
