// Package pace cuts off clients that send or read so slowly that they would hold
// a connection, and what it takes in memory, for as long as they like. Whoever
// has a link that is slow and works is served.
package pace

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"
)

const (
	// Grace is the time that everybody has, whatever they do with it.
	Grace = time.Minute
	// Slowest is how many bytes per second have to pass on average from then on.
	Slowest = 16 << 10
)

// Time is how long so many bytes may take.
func Time(bytes int64) time.Duration {
	return Grace + time.Duration(bytes)*time.Second/Slowest
}

// Limit bounds the time in which the next so many bytes of an answer have to go
// out. Where the connection knows no deadlines there is none.
func Limit(w http.ResponseWriter, bytes int64) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(Time(bytes)))
}

// ErrSlow says that a body came too slowly.
var ErrSlow = errors.New("the body came too slowly")

// A Body is a request's that has to come in time. Once it is there in full, the
// request may take as long as it likes; one that came too slowly costs the client
// its connection. It is for one goroutine.
type Body struct {
	w       http.ResponseWriter
	control *http.ResponseController
	ctx     context.Context //nolint:containedctx // ends all reading
	body    io.ReadCloser
	began   time.Time
	bytes   int64
}

// Watch has a request's body come in time, from now on, whoever reads it and
// even if nobody does: then a server reads some of it when all is done, and waits
// for it. The end of ctx ends reading at the next call.
func Watch(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 {
		return
	}
	b := &Body{w: w, control: http.NewResponseController(w), ctx: ctx, body: r.Body, began: time.Now()}
	b.until(b.began.Add(Grace))
	r.Body = b
}

func (b *Body) until(deadline time.Time) { _ = b.control.SetReadDeadline(deadline) }

// Read implements io.Reader.
func (b *Body) Read(p []byte) (int, error) {
	b.until(b.began.Add(Time(b.bytes)))
	if err := context.Cause(b.ctx); err != nil { // whoever ends it may set a deadline, too
		b.until(time.Unix(1, 0))
		return 0, err
	}
	n, err := b.body.Read(p)
	b.bytes += int64(n)
	switch {
	case err == nil:
	case errors.Is(err, io.EOF):
		b.until(time.Time{})
	default:
		// The server would read on when all is done.
		b.until(time.Unix(1, 0))
		b.w.Header().Set("Connection", "close")
		if errors.Is(err, os.ErrDeadlineExceeded) && b.ctx.Err() == nil {
			err = errors.Join(ErrSlow, err)
		}
	}
	return n, err
}

// Close implements io.Closer.
func (b *Body) Close() error { return b.body.Close() }
