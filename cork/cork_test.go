package cork_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/cork"
)

func TestCork(t *testing.T) {
	near, far := net.Pipe() // on which a write waits for its reader
	c := &cork.Conn{Conn: near}
	c.Pull()
	c.Hold()
	_, err := c.Write([]byte("a"))
	require.NoError(t, err)
	_, err = c.Write([]byte("b"))
	require.NoError(t, err)
	var done sync.WaitGroup
	done.Go(func() { require.NoError(t, c.Release(time.Now().Add(time.Hour))) })
	got := make([]byte, 10)
	n, err := far.Read(got)
	require.NoError(t, err)
	require.Equal(t, "ab", string(got[:n]), "what is held leaves together")
	done.Wait()
	_, err = c.Write([]byte("c")) // does not wait for a reader
	require.NoError(t, err)
	_, err = c.Write([]byte("d"))
	require.NoError(t, err)
	_, err = io.ReadFull(far, got[:2])
	require.NoError(t, err)
	require.Equal(t, "cd", string(got[:2]))
	require.NoError(t, c.Close())
	_, err = c.Write([]byte("e"))
	require.ErrorIs(t, err, net.ErrClosed)
}

func TestCorkOnAStuckLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := &cork.Conn{Conn: near}
		c.Pull()
		_, err := c.Write([]byte("a")) // is sent in the background, for ever
		require.NoError(t, err)
		synctest.Wait()
		c.Hold()
		large := bytes.Repeat([]byte("x"), 1<<20)
		_, err = c.Write(large)
		require.NoError(t, err)
		begin := time.Now()
		require.ErrorIs(t, c.Room(begin.Add(time.Minute)), os.ErrDeadlineExceeded)
		require.ErrorIs(t, c.Release(begin.Add(2*time.Minute)), os.ErrDeadlineExceeded)
		require.Equal(t, 2*time.Minute, time.Since(begin))
		require.NoError(t, c.Close()) // which waits for nobody
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		defer far.Close()
		c := &cork.Conn{Conn: near}
		c.Pull()
		c.Hold()
		_, err := c.Write([]byte("a"))
		require.NoError(t, err)
		require.ErrorIs(t, c.Release(time.Now().Add(time.Minute)), os.ErrDeadlineExceeded)
		_, err = c.Write([]byte("b"))
		require.Error(t, err, "after half a message nothing can follow")
		require.NoError(t, c.Close())
	})
	near, far := net.Pipe()
	c := &cork.Conn{Conn: near}
	c.Pull()
	require.NoError(t, far.Close())
	_, err := c.Write([]byte("a"))
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, err := c.Write([]byte("b")); return errors.Is(err, io.ErrClosedPipe) }, time.Minute, time.Millisecond)
	require.NoError(t, c.Close())
}

// Everything arrives once and in order, whoever writes.
func TestCorkKeepsOrder(t *testing.T) {
	near, far := net.Pipe()
	c := &cork.Conn{Conn: near}
	c.Pull()
	var got bytes.Buffer
	var reader sync.WaitGroup
	reader.Go(func() { _, _ = io.Copy(&got, far) })
	var want bytes.Buffer
	var order sync.Mutex
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 500 {
				if w == 0 && i%10 == 0 {
					c.Hold()
				}
				p := bytes.Repeat([]byte{byte('a' + w)}, 1+i*7%1000)
				order.Lock()
				want.Write(p)
				_, err := c.Write(p)
				order.Unlock()
				require.NoError(t, err)
				if w == 0 && i%10 == 9 {
					require.NoError(t, c.Release(time.Now().Add(time.Hour)))
				} else if w == 0 {
					require.NoError(t, c.Room(time.Now().Add(time.Hour)))
				}
			}
		})
	}
	writers.Wait()
	require.NoError(t, c.Release(time.Now().Add(time.Hour)))
	require.NoError(t, c.Close())
	reader.Wait()
	require.Equal(t, want.String(), got.String())
}
