package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/sandbox/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	methodEcho wire.Method = 1 + iota
	methodFail
	methodNever
	methodNote
)

// A peer answers with what it is asked.
type peer struct {
	conn  *wire.Conn
	notes chan string
	work  sync.WaitGroup
}

func (p *peer) Most(method wire.Method, notice bool) int {
	switch {
	case notice && method == methodNote:
		return 100
	case !notice && (method == methodEcho || method == methodFail || method == methodNever):
		return 1 << 20
	}
	return -1
}

func (p *peer) Request(id uint64, method wire.Method, payload []byte) error {
	switch method {
	case methodEcho:
		payload = bytes.Clone(payload)
		p.work.Go(func() { p.conn.Reply(id, payload) })
	case methodFail:
		message := string(payload)
		p.work.Go(func() { p.conn.Fail(id, wire.Failure{Code: "code", Message: message}) })
	}
	return nil
}

func (p *peer) Notice(_ wire.Method, payload []byte) error {
	if p.notes != nil {
		p.notes <- string(payload)
	}
	return nil
}

// pair connects two peers; ended gives what their Serve has returned.
func pair(t *testing.T) (a, b *peer, ended func() (error, error)) {
	t.Helper()
	ours, theirs := net.Pipe()
	a, b = &peer{conn: wire.New(ours)}, &peer{conn: wire.New(theirs), notes: make(chan string, 10)}
	var work sync.WaitGroup
	var first, second error
	work.Go(func() { first = a.conn.Serve(a) })
	work.Go(func() { second = b.conn.Serve(b); _ = b.conn.Close() })
	ended = func() (error, error) {
		work.Wait()
		a.work.Wait()
		b.work.Wait()
		return first, second
	}
	t.Cleanup(func() { _ = a.conn.Close(); ended() })
	return a, b, ended
}

func TestConn(t *testing.T) {
	a, b, ended := pair(t)
	var work sync.WaitGroup
	for n := range 20 {
		work.Go(func() {
			for size := range 50 {
				want := strings.Repeat(fmt.Sprint(n), size*1500) // to both sides of what is copied
				for _, from := range []*peer{a, b} {
					got := ""
					require.NoError(t, from.conn.Call(methodEcho, []byte(want), 1<<20, func(payload []byte) error { got = string(payload); return nil }))
					require.Equal(t, want, got)
				}
			}
		})
	}
	work.Wait()
	var failure *wire.Failure
	require.ErrorAs(t, a.conn.Call(methodFail, []byte("no"), 0, nil), &failure)
	require.Equal(t, wire.Failure{Code: "code", Message: "no"}, *failure)
	a.conn.Notify(methodNote, []byte("hello"))
	require.Equal(t, "hello", <-b.notes)

	// Whoever gives up does not take the reply of the next.
	w := a.conn.Ask(a.conn.Number(), methodEcho, []byte("late"), 10)
	a.conn.Abandon(w)
	require.NoError(t, a.conn.Call(methodEcho, []byte("next"), 10, func(payload []byte) error {
		require.Equal(t, "next", string(payload))
		return nil
	}))

	// The end comes to all who wait, and to those who come later.
	w = a.conn.Ask(a.conn.Number(), methodNever, nil, 10)
	require.NoError(t, b.conn.Close())
	<-w.Done
	require.ErrorIs(t, w.Result(nil), wire.ErrClosed)
	require.ErrorIs(t, a.conn.Call(methodEcho, nil, 10, nil), wire.ErrClosed)
	one, two := ended()
	require.ErrorIs(t, one, wire.ErrClosed)
	require.ErrorIs(t, two, wire.ErrClosed)
}

// A peer that does not keep to the rules is left.
func TestProtocol(t *testing.T) {
	frame := func(length uint32, kind, method byte, zero uint16, id uint64, payload string) string {
		b := []byte{byte(length), byte(length >> 8), byte(length >> 16), byte(length >> 24), kind, method, byte(zero), byte(zero >> 8)}
		for shift := 0; shift < 64; shift += 8 {
			b = append(b, byte(id>>shift))
		}
		return string(b) + payload
	}
	for name, sent := range map[string]string{
		"no such kind":         frame(0, 9, 1, 0, 1, ""),
		"no such method":       frame(0, 1, 9, 0, 1, ""),
		"no such notice":       frame(0, 3, byte(methodEcho), 0, 0, ""),
		"a long request":       frame(1<<20+1, 1, byte(methodEcho), 0, 1, ""),
		"a very long one":      frame(math.MaxUint32, 1, byte(methodEcho), 0, 1, ""),
		"a long notice":        frame(101, 3, byte(methodNote), 0, 0, strings.Repeat("x", 101)),
		"something else":       frame(0, 1, 1, 7, 1, ""),
		"a reply to nothing":   frame(0, 2, 0, 0, 7, ""),
		"a reply of no kind":   frame(0, 2, 9, 0, 1, ""),
		"a long reply":         frame(9<<10, 2, 0, 0, 1, ""),
		"a failure of no form": frame(1, 2, 1, 0, 1, "\xff"),
		"text":                 "GET / HTTP/1.1\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			p := &peer{conn: wire.New(ours)}
			var work sync.WaitGroup
			work.Go(func() {
				_, _ = io.CopyN(io.Discard, theirs, 16)
				_, _ = io.WriteString(theirs, sent)
				_, _ = io.Copy(io.Discard, theirs)
			})
			work.Go(func() { // request 1
				require.ErrorIs(t, p.conn.Call(methodEcho, nil, 5<<10, nil), wire.ErrProtocol)
			})
			require.ErrorIs(t, p.conn.Serve(p), wire.ErrProtocol)
			require.NoError(t, p.conn.Close())
			work.Wait()
			_ = theirs.Close() // the other end is closed
		})
	}
}

func TestCodec(t *testing.T) {
	b := wire.AppendUint(nil, math.MaxUint64)
	b = wire.AppendInt(b, math.MinInt64)
	b = wire.AppendFloat(b, math.Pi)
	b = wire.AppendBool(b, true)
	b = wire.AppendString(b, "text")
	b = wire.AppendBytes(b, []byte{0, 1})
	b = wire.AppendStrings(b, []string{"a", ""})
	read := func(b []byte) error {
		d := wire.NewDecoder(b)
		if d.Uint() != math.MaxUint64 || d.Int() != math.MinInt64 || d.Float() != math.Pi || !d.Bool() || d.String() != "text" ||
			!bytes.Equal(d.Bytes(), []byte{0, 1}) || len(d.Strings()) != 2 {
			return errors.Join(errors.New("other values"), d.End())
		}
		return d.End()
	}
	require.NoError(t, read(b))
	for n := range b {
		require.ErrorIs(t, read(b[:n]), wire.ErrProtocol, "%d bytes", n)
	}
	require.ErrorIs(t, read(append(b, 0)), wire.ErrProtocol)
}

// A stream reads what it was made of and drops what is written.
type stream struct{ io.Reader }

func (stream) Write(p []byte) (int, error) { return len(p), nil }
func (stream) Close() error                { return nil }

// Whatever a peer sends, it is a protocol error or the end, and takes no more
// memory than was sent.
func FuzzServe(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x04\x00\x00\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00echo"))
	f.Add([]byte("\x02\x00\x00\x00\x03\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00hi\x03\x00\x00\x00\x02\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01a\x00"))
	f.Add([]byte("\xff\xff\x0f\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		p := &peer{}
		p.conn = wire.New(stream{bytes.NewReader(sent)})
		w := p.conn.Ask(1, methodEcho, nil, 100)
		err := p.conn.Serve(p)
		if !errors.Is(err, wire.ErrClosed) && !errors.Is(err, wire.ErrProtocol) {
			t.Fatal(err)
		}
		p.work.Wait()
		<-w.Done
		_ = w.Result(func(payload []byte) error { // whatever it is
			if len(payload) > 8<<10 {
				t.Fatal("a long reply")
			}
			return nil
		})
	})
}

// Whatever a payload holds, decoding ends, and says so if it was not all.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x01\x02\x00\x00\x00\x00\x00\x00\x00\x00\x01\x01a\x02\x01a\x01b"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d := wire.NewDecoder(payload)
		u, i, x, b, s, list := d.Uint(), d.Int(), d.Float(), d.Bool(), d.String(), d.Strings()
		if d.End() != nil {
			return
		}
		again := wire.AppendStrings(wire.AppendString(wire.AppendBool(wire.AppendFloat(wire.AppendInt(wire.AppendUint(nil, u), i), x), b), s), list)
		if len(again) > len(payload) { // numbers may be written longer than they need
			t.Fatalf("%x became %x", payload, again)
		}
	})
}
