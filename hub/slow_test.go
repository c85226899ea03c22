package hub_test

import (
	"context"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
)

// small is a listener whose connections keep little of what is sent on them.
type small struct{ net.Listener }

func (l small) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		err = tcp.SetWriteBuffer(64 << 10)
	}
	return conn, err
}

// A worker whose link needs long for a large item keeps it, although it pings
// meanwhile: the answers wait their turn.
func TestLargeItemsOnASlowLink(t *testing.T) {
	t.Parallel()
	web := httptest.NewUnstartedServer(nil)
	web.Listener = small{web.Listener}
	s := startOn(t, web, hub.Config{})
	link, stuck, resume := slowLink(t, strings.TrimPrefix(s.url, "http://"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "ws://"+link, nil) //nolint:bodyclose // it is none
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.CloseNow() })
	conn.SetReadLimit(8 << 20)
	w := &worker{t: t, conn: conn}
	w.register("w", 1, "A")
	large := strings.Repeat("x", 900<<10)
	hash := s.enqueue(`{"Capability":"A","Settings":{"Text":"` + large + `"}}`)
	<-stuck
	var pinging sync.WaitGroup
	pinging.Go(func() {
		if err := conn.Ping(ctx); err != nil {
			t.Error(err)
		}
	})
	time.AfterFunc(7*time.Second, func() { close(resume) }) // longer than the library gives an answer
	item := w.item()
	require.Equal(t, hash, item.WorkItemHash)
	require.Equal(t, large, item.Settings.Text("Text"))
	w.complete(hash)
	s.eventually("done", func() bool { return s.record(hash).Status == "Complete" })
	go func() { _, _, _ = conn.Read(ctx) }() // or else nobody hears the answer to the ping
	pinging.Wait()
	require.Len(t, s.record(hash).Log, 1)
}

// slowLink is a proxy that stops reading from a server once it has sent much, and
// says so, until resume is closed.
func slowLink(t *testing.T, server string) (address string, stuck, resume chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	stuck, resume = make(chan struct{}), make(chan struct{})
	var passing sync.WaitGroup
	t.Cleanup(func() {
		_ = l.Close()
		passing.Wait()
	})
	passing.Go(func() {
		near, err := l.Accept()
		if err != nil {
			return
		}
		defer near.Close()
		dialer := net.Dialer{}
		far, err := dialer.Dial("tcp", server)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		_ = far.(*net.TCPConn).SetReadBuffer(64 << 10) //nolint:forcetypeassert // it was dialed
		passing.Go(func() {
			_, _ = io.Copy(far, near)
			_ = far.Close()
		})
		_, _ = io.CopyN(near, far, 64<<10)
		close(stuck)
		<-resume
		_ = far.(*net.TCPConn).SetReadBuffer(1 << 20) //nolint:forcetypeassert // it was dialed
		_, _ = io.Copy(near, far)
	})
	return l.Addr().String(), stuck, resume
}
