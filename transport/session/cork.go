package session

import (
	"net"
	"sync"
	"time"
)

// A Cork is a connection that can hold back what is written, so that many small
// messages leave together. It is what a Client's Upgrader connects with.
type Cork struct {
	net.Conn

	mu   sync.Mutex // also keeps writes in order
	held bool
	kept []byte
}

// maxKept is how much a Cork keeps in memory; more passes through it.
const maxKept = 256 << 10

// Write implements net.Conn.
func (c *Cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.held {
		return c.Conn.Write(p)
	}
	if len(c.kept)+len(p) > maxKept {
		if err := c.flush(); err != nil {
			return 0, err
		}
		if len(p) > maxKept {
			return c.Conn.Write(p)
		}
	}
	c.kept = append(c.kept, p...)
	return len(p), nil
}

func (c *Cork) flush() error {
	if len(c.kept) == 0 {
		return nil
	}
	_, err := c.Conn.Write(c.kept)
	c.kept = c.kept[:0]
	return err
}

// Hold keeps what is written from now on until Release. What has to leave before
// that, and Release itself, fail after the deadline.
func (c *Cork) Hold(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = true
	return c.SetWriteDeadline(deadline)
}

// Release lets everything go.
func (c *Cork) Release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = false
	if err := c.flush(); err != nil {
		return err
	}
	return c.SetWriteDeadline(time.Time{})
}
