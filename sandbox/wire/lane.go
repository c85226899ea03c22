package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// MaxLane is how long the payload of a request or reply in a Lane may be, in bytes.
const MaxLane = 16 << 10

// laneHeader is the number of the request (8 bytes, little endian) and one byte
// that says what a reply is; zero in requests.
const laneHeader = 9

// What a reply in a lane says.
const (
	laneHere  = iota // the payload is the reply
	laneThere        // the reply comes over the connection
)

// ErrUnread says that the other end was closed before it has read the request: it
// is as if it had not been sent. It is an ErrClosed.
var ErrUnread = fmt.Errorf("%w before it has read what it was sent", ErrClosed)

// A Lane carries one request at a time, and its reply: a packet each. Whoever
// asks waits for the reply in the system call that reads it, and whoever answers
// does so where the request was read. So an exchange has two switches between the
// processes, and none between threads and goroutines, which cost more than the
// switches.
type Lane struct {
	fd  int
	buf []byte
}

// Serve answers requests, one after the other, until the other end is closed,
// and returns why it does not go on. reply appends the reply to b; if it returns
// nil, the reply comes over the connection, under the same number. It is called
// on the goroutine that Serve is.
func (l *Lane) Serve(reply func(id uint64, payload, b []byte) ([]byte, error)) error {
	out := make([]byte, 0, laneHeader+MaxLane)
	for {
		n, err := l.read()
		if err != nil {
			return err
		}
		if n < laneHeader || l.buf[8] != 0 {
			return fmt.Errorf("%w: a packet that is no request", ErrProtocol)
		}
		id := binary.LittleEndian.Uint64(l.buf)
		b, err := reply(id, l.buf[laneHeader:n], append(binary.LittleEndian.AppendUint64(out[:0], id), laneHere))
		if err != nil {
			return err
		}
		if b == nil {
			b = append(binary.LittleEndian.AppendUint64(out[:0], id), laneThere)
		}
		if err := l.write(b); err != nil {
			return err
		}
	}
}

// Lanes are those of one process, for whoever asks.
type Lanes struct {
	mu     sync.Mutex
	free   []*Lane
	all    []*Lane
	closed bool
}

// Len is how many there are.
func (l *Lanes) Len() int { return len(l.all) }

// Take returns a lane that nobody uses, or nil if there is none. Put follows.
func (l *Lanes) Take() *Lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.free) == 0 {
		return nil
	}
	lane := l.free[len(l.free)-1] // the one that was used last: its thread is warm
	l.free = l.free[:len(l.free)-1]
	return lane
}

// Put gives a lane back.
func (l *Lanes) Put(lane *Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = lane.close() // nothing was written that is not lost anyway
		return
	}
	l.free = append(l.free, lane)
}

// Close ends the lanes, for whoever waits in them, too.
func (l *Lanes) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	var errs []error
	for _, lane := range l.all {
		errs = append(errs, lane.shutdown())
	}
	for _, lane := range l.free {
		errs = append(errs, lane.close())
	}
	l.free = nil
	return errors.Join(errs...)
}

// Ask sends a request and waits for its reply, which use gets; it is not valid
// any more when use returns. here is false if the reply comes over the connection.
// An error means that the lane is of no use any more, or is use's; ErrUnread is one.
func (l *Lane) Ask(id uint64, payload []byte, use func(reply []byte) error) (here bool, err error) {
	if cap(l.buf) == 0 {
		l.buf = make([]byte, laneHeader+MaxLane)
	}
	b := append(binary.LittleEndian.AppendUint64(l.buf[:0], id), 0)
	if err := l.write(append(b, payload...)); err != nil {
		return false, err
	}
	n, err := l.read()
	if err != nil {
		return false, err
	}
	if n < laneHeader || binary.LittleEndian.Uint64(l.buf) != id || l.buf[8] > laneThere || l.buf[8] == laneThere && n > laneHeader {
		return false, fmt.Errorf("%w: a packet that is no reply", ErrProtocol)
	}
	if l.buf[8] == laneThere {
		return false, nil
	}
	return true, use(l.buf[laneHeader:n])
}
