// Package wire is how a supervisor and a process that it does not trust talk:
// requests with one reply each, and notices, both ways, over one stream.
//
// A frame is a header of 16 bytes and a payload. The header holds, little
// endian, the length of the payload (4 bytes), the kind (1), the method or, in a
// reply, whether it is an error (1), two bytes of zeros, and the number of the
// request (8). Numbers are chosen by whoever asks. Anything else ends the
// connection.
package wire

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const headerSize = 16

// The kinds of frames.
const (
	kindRequest = 1 + iota
	kindReply
	kindNotice
)

// What the second byte of a reply says.
const (
	replyOK = iota
	replyFailed
)

const (
	// bufferSize is what is read at once, and kept between frames.
	bufferSize = 64 << 10
	// queueSize is how much may wait to be written before those who send wait.
	queueSize = 4 << 20
)

// ErrClosed is wrapped by the errors of a connection that has ended.
var ErrClosed = errors.New("the connection has ended")

// ErrProtocol is wrapped by errors about a peer that does not keep to the rules.
var ErrProtocol = errors.New("the peer does not keep to the protocol")

// A Failure is an error of the other side.
type Failure struct{ Code, Message string }

func (f *Failure) Error() string { return f.Message }

// A Method is a number of a request or notice.
type Method byte

// A Handler answers the peer. Its methods are called by Serve one after the
// other, and must not block; payloads are valid until they return. Of two peers
// one may send in them: if both did, each could wait for the other to read.
type Handler interface {
	// Most is how long the payload of a request or notice may be; negative for
	// one that there is not.
	Most(method Method, notice bool) int
	// Request is to be answered by one Reply or Fail with its number, now or later.
	// An error ends the connection.
	Request(id uint64, method Method, payload []byte) error
	// Notice is like Request without an answer.
	Notice(method Method, payload []byte) error
}

// A Conn is one end. All methods but Serve may be called concurrently.
type Conn struct {
	stream io.ReadWriteCloser

	mu      sync.Mutex
	room    sync.Cond // there may be room in out
	out     []byte    // to be written
	spare   []byte
	writing bool
	err     error // why it has ended
	next    uint64
	waiters map[uint64]*Waiter
}

// New makes an end of a connection. Serve must be running for it to work.
func New(stream io.ReadWriteCloser) *Conn {
	c := &Conn{stream: stream, waiters: map[uint64]*Waiter{}}
	c.room.L = &c.mu
	return c
}

// A Waiter waits for one reply.
type Waiter struct {
	// Done gets one value when the reply is there.
	Done    chan struct{}
	id      uint64
	most    int
	payload []byte
	err     error
	gone    bool // nobody waits any more
}

var waiters = sync.Pool{New: func() any { return &Waiter{Done: make(chan struct{}, 1)} }}

// Number chooses the number of a request.
func (c *Conn) Number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.next++
	return c.next
}

// Ask sends a request whose reply is most bytes long at most. Result follows,
// after Done, or Abandon.
func (c *Conn) Ask(id uint64, method Method, payload []byte, most int) *Waiter {
	w := c.Expect(id, most)
	c.send(kindRequest, byte(method), id, payload) // if it fails, so does the waiter
	return w
}

// Expect is Ask for a request that is sent another way.
func (c *Conn) Expect(id uint64, most int) *Waiter {
	w, _ := waiters.Get().(*Waiter) // the pool holds nothing else
	w.id, w.most = id, most
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		w.err = c.err
		w.Done <- struct{}{}
		return w
	}
	c.waiters[id] = w
	return w
}

// Forget ends what Expect began if the reply has come another way. If it has come
// this way, too, that is an error of the peer.
func (c *Conn) Forget(w *Waiter) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiters, w.id)
	var err error
	select {
	case <-w.Done:
		if !errors.Is(w.err, ErrClosed) {
			err = fmt.Errorf("%w: two replies", ErrProtocol)
		}
	default:
	}
	w.free()
	return err
}

// Result is the reply, or a *Failure, or why the connection has ended. use gets
// the payload, which is not valid any more when Result returns.
func (w *Waiter) Result(use func(payload []byte) error) error {
	err := w.err
	if err == nil && use != nil {
		err = use(w.payload)
	}
	w.free()
	return err
}

func (w *Waiter) free() {
	if cap(w.payload) > bufferSize {
		w.payload = nil
	}
	w.payload, w.err, w.gone = w.payload[:0], nil, false
	waiters.Put(w)
}

// Abandon stops waiting. The reply, if it comes, is dropped.
func (c *Conn) Abandon(w *Waiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-w.Done: // it was there
		w.free()
	default:
		w.gone = true
	}
}

// Call asks and waits.
func (c *Conn) Call(method Method, payload []byte, most int, use func(payload []byte) error) error {
	w := c.Ask(c.Number(), method, payload, most)
	<-w.Done
	return w.Result(use)
}

// Notify sends a notice.
func (c *Conn) Notify(method Method, payload []byte) {
	c.send(kindNotice, byte(method), 0, payload)
}

// Reply answers a request.
func (c *Conn) Reply(id uint64, payload []byte) {
	c.send(kindReply, replyOK, id, payload)
}

// Fail answers a request with an error.
func (c *Conn) Fail(id uint64, f Failure) {
	b := AppendString(AppendString(nil, f.Code), f.Message)
	c.send(kindReply, replyFailed, id, b)
}

// send queues a frame, and writes what is queued unless somebody does.
func (c *Conn) send(kind, method byte, id uint64, payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.err == nil && c.writing && len(c.out) > queueSize {
		c.room.Wait()
	}
	// What is long is not copied: who sends it writes it.
	long := len(payload) > bufferSize
	for long && c.err == nil && c.writing {
		c.room.Wait()
	}
	if c.err != nil {
		return
	}
	c.out = binary.LittleEndian.AppendUint32(c.out, uint32(len(payload))) //nolint:gosec // far below 4 GiB
	c.out = append(c.out, kind, method, 0, 0)
	c.out = binary.LittleEndian.AppendUint64(c.out, id)
	if !long {
		c.out = append(c.out, payload...)
	}
	if c.writing {
		return
	}
	c.writing = true
	for len(c.out) > 0 && c.err == nil {
		out := c.out
		c.out = c.spare[:0]
		c.mu.Unlock()
		_, err := c.stream.Write(out)
		if long && err == nil {
			_, err = c.stream.Write(payload)
		}
		long = false
		c.mu.Lock()
		c.spare = nil
		if cap(out) <= 2*bufferSize {
			c.spare = out[:0]
		}
		if err != nil {
			c.end(fmt.Errorf("%w: %w", ErrClosed, err))
		}
		c.room.Broadcast()
	}
	c.writing = false
	c.room.Broadcast()
}

// end makes everybody who waits get the error. c.mu is held.
func (c *Conn) end(err error) {
	if c.err != nil {
		return
	}
	c.err = err
	for id, w := range c.waiters {
		delete(c.waiters, id)
		c.answer(w, err)
	}
	c.room.Broadcast()
}

// answer ends the waiting of a waiter. c.mu is held.
func (c *Conn) answer(w *Waiter, err error) {
	if w.gone {
		w.free()
		return
	}
	w.err = err
	w.Done <- struct{}{}
}

// Close ends the connection, for whoever waits and for Serve.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.end(ErrClosed)
	c.mu.Unlock()
	return c.stream.Close()
}

// Serve reads what the peer sends, until the connection ends, and returns why. It
// returns ErrClosed after Close and when the peer has closed its end.
func (c *Conn) Serve(h Handler) error {
	err := c.serve(h)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end(err)
	return c.err
}

func (c *Conn) serve(h Handler) error {
	buf := make([]byte, bufferSize)
	begin, end := 0, 0 // of what was read and not looked at
	for {
		for end-begin >= headerSize {
			f, err := c.header(buf[begin:end], h)
			if err != nil {
				return err
			}
			total := headerSize + f.length
			if end-begin < total {
				// A long payload gets more room as it comes, not because it was announced.
				if end == len(buf) && begin == 0 {
					buf = append(buf, make([]byte, min(len(buf), total-len(buf)))...)
				}
				break
			}
			if err := c.frame(f, buf[begin+headerSize:begin+total], total > bufferSize, h); err != nil {
				return err
			}
			if begin += total; total > bufferSize { // it is somebody else's now
				rest := make([]byte, max(bufferSize, end-begin))
				begin, end, buf = 0, copy(rest, buf[begin:end]), rest
			}
		}
		if begin > 0 {
			end = copy(buf, buf[begin:end])
			begin = 0
			if len(buf) > bufferSize && end <= bufferSize {
				buf = append(make([]byte, 0, bufferSize), buf[:bufferSize]...)
			}
		}
		n, err := c.stream.Read(buf[end:])
		end += n
		if err != nil && n == 0 {
			return fmt.Errorf("%w: %w", ErrClosed, err)
		}
	}
}

// A frame's header, and of a reply whoever waits for it.
type frame struct {
	length       int
	kind, method byte
	id           uint64
}

// header reads and checks a header.
func (c *Conn) header(b []byte, h Handler) (frame, error) {
	f := frame{int(binary.LittleEndian.Uint32(b)), b[4], b[5], binary.LittleEndian.Uint64(b[8:])}
	if b[6] != 0 || b[7] != 0 {
		return f, fmt.Errorf("%w: a header that is none", ErrProtocol)
	}
	most := -1
	switch f.kind {
	case kindRequest, kindNotice:
		most = h.Most(Method(f.method), f.kind == kindNotice)
	case kindReply:
		c.mu.Lock()
		if w := c.waiters[f.id]; w != nil {
			most = max(w.most, maxFailure)
		}
		c.mu.Unlock()
	}
	if f.length > most {
		return f, fmt.Errorf("%w: %d bytes for method %d of kind %d", ErrProtocol, f.length, f.method, f.kind)
	}
	return f, nil
}

// maxFailure is how long the text of an error may be, with its code.
const maxFailure = 8 << 10

// frame handles what has come. Of what is kept the reply to a request needs no copy.
func (c *Conn) frame(f frame, payload []byte, kept bool, h Handler) error {
	switch f.kind {
	case kindRequest:
		return h.Request(f.id, Method(f.method), payload)
	case kindNotice:
		return h.Notice(Method(f.method), payload)
	}
	var failed error
	switch f.method {
	case replyOK:
	case replyFailed:
		d := NewDecoder(payload)
		failure := &Failure{d.String(), d.String()}
		if err := d.End(); err != nil {
			return err
		}
		failed = failure
	default:
		return fmt.Errorf("%w: a reply of kind %d", ErrProtocol, f.method)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiters[f.id]
	if w == nil { // since the header was looked at
		return fmt.Errorf("%w: a reply that nobody waits for", cmp.Or(c.err, ErrProtocol))
	}
	delete(c.waiters, f.id)
	switch {
	case failed != nil || w.gone:
	case kept:
		w.payload = payload
	default:
		w.payload = append(w.payload[:0], payload...)
	}
	c.answer(w, failed)
	return nil
}
