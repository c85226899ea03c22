// Package cork keeps what is written to a connection from waiting for a slow
// link, at either end of a WebSocket.
package cork

import (
	"net"
	"os"
	"sync"
	"time"
)

// A Conn is a connection that keeps what is written and sends it when it may:
// many small messages leave together, and nobody who only has something small to
// say waits for a link that is slow. It is a connection like any other until Pull.
//
// A library of WebSockets gives a ping, or the answer to one, five seconds to be
// written, and then ends the connection. On a link that takes longer for what is
// ahead of it, every large message would end that way.
type Conn struct {
	net.Conn

	mu     sync.Mutex
	pulled bool
	held   bool
	closed bool
	busy   bool   // somebody sends what was kept
	kept   []byte // in order
	spare  []byte // to be kept next
	err    error  // of sending
	moved  chan struct{}
	tasks  sync.WaitGroup
}

// maxKept is how much a Conn keeps in memory, apart from what is written without
// making room for it; and it keeps a buffer of that size.
const maxKept = 256 << 10

// parting is for what was written last, when a connection is closed.
const parting = 100 * time.Millisecond

// Pull has writes not wait any more, from now on. Those who write much have to
// wait with Room and Release.
func (c *Conn) Pull() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pulled = true
}

// Write implements net.Conn. Errors of sending come with one of the next calls.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !c.pulled:
		return c.Conn.Write(p)
	case c.closed:
		return 0, net.ErrClosed
	case c.err != nil:
		return 0, c.err
	}
	c.kept = append(c.kept, p...)
	if !c.held && !c.busy {
		c.busy = true
		c.tasks.Go(func() {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.send()
		})
	}
	return len(p), nil
}

// send sends what is kept, and what is written meanwhile. Mu is held, and busy
// set.
func (c *Conn) send() {
	for len(c.kept) > 0 && c.err == nil {
		p := c.kept
		c.kept = c.spare[:0]
		c.mu.Unlock()
		_, err := c.Conn.Write(p)
		c.mu.Lock()
		c.err = err
		c.spare = nil
		if cap(p) <= maxKept {
			c.spare = p
		}
	}
	c.busy = false
	if c.moved != nil {
		close(c.moved)
		c.moved = nil
	}
}

// Hold keeps what is written from now on until Room and Release.
func (c *Conn) Hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
}

// Room sends what is kept, if that is much, and fails after the deadline.
func (c *Conn) Room(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) < maxKept {
		return c.err
	}
	return c.flush(deadline)
}

// Release lets everything go, and fails after the deadline.
func (c *Conn) Release(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	return c.flush(deadline)
}

// flush sends what is kept, or waits for somebody else to do that; mu is held.
func (c *Conn) flush(deadline time.Time) error {
	var over <-chan time.Time
	for c.busy && c.err == nil {
		if over == nil {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			over = timer.C
		}
		if c.moved == nil {
			c.moved = make(chan struct{})
		}
		moved := c.moved
		c.mu.Unlock()
		select {
		case <-moved:
		case <-over:
			c.mu.Lock()
			return os.ErrDeadlineExceeded
		}
		c.mu.Lock()
	}
	if c.err != nil || len(c.kept) == 0 {
		return c.err
	}
	if c.err = c.SetWriteDeadline(deadline); c.err != nil {
		return c.err
	}
	c.busy = true
	c.send()
	if c.err == nil {
		c.err = c.SetWriteDeadline(time.Time{})
	}
	return c.err
}

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.mu.Lock()
	c.closed = true
	busy := c.busy
	c.mu.Unlock()
	if busy {
		// What was said last, such as that the connection ends, is on its way
		// unless the link is stuck.
		_ = c.SetWriteDeadline(time.Now().Add(parting))
		c.tasks.Wait()
	}
	err := c.Conn.Close()
	c.tasks.Wait()
	return err
}
