package egress

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// A body is a response's as it comes from the server, counted and watched.
type body struct {
	from   io.ReadCloser
	cancel context.CancelCauseFunc // of the request
	cause  func() error            // why it was canceled, if it was

	limit, read int64

	// The rate is looked at whenever somebody has waited for a whole window.
	rate   int64
	window time.Duration
	waited time.Duration
	came   int64

	once sync.Once
}

func (b *body) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	// One more than the limit shows that there is more.
	if room := b.limit - b.read + 1; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := b.wait(p)
	b.read += int64(n)
	if b.read > b.limit {
		return 0, fmt.Errorf("%w: more than %d bytes, which is the limit", ErrTooLarge, b.limit)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = clean(b.cause(), err)
	}
	return n, err
}

// wait reads, and gives up on a server that drips.
func (b *body) wait(p []byte) (int, error) {
	if b.rate < 0 {
		return b.from.Read(p)
	}
	started, came := time.Now(), b.came
	timer := time.AfterFunc(b.window-b.waited, func() {
		if came < b.due() {
			b.cancel(b.slow())
		}
	})
	n, err := b.from.Read(p)
	timer.Stop()
	b.came += int64(n)
	if b.waited += time.Since(started); b.waited >= b.window {
		if err == nil && b.came < b.due() {
			err = b.slow()
		}
		b.waited, b.came = 0, 0
	}
	return n, err
}

// due is how many bytes a window must bring.
func (b *body) due() int64 { return int64(float64(b.rate) * b.window.Seconds()) }

func (b *body) slow() error {
	return fmt.Errorf("%w: less than %d bytes per second for %s", ErrTooSlow, b.rate, b.window)
}

func (b *body) Close() (err error) {
	b.once.Do(func() {
		b.cancel(nil)
		err = b.from.Close()
	})
	return err
}

// inflated is a body after gzip, counted again.
type inflated struct {
	from        io.Closer
	open        func() (*gzip.Reader, error)
	gz          *gzip.Reader
	limit, read int64
}

func (f *inflated) Read(p []byte) (int, error) {
	if f.gz == nil {
		gz, err := f.open()
		if errors.Is(err, io.EOF) {
			return 0, io.EOF // an empty body is an empty file
		}
		if err != nil {
			return 0, fmt.Errorf("decode the response: %w", err)
		}
		f.gz = gz
	}
	if len(p) == 0 {
		return 0, nil
	}
	if room := f.limit - f.read + 1; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := f.gz.Read(p)
	f.read += int64(n)
	if f.read > f.limit {
		return 0, fmt.Errorf("%w: more than %d bytes after decoding, which is the limit", ErrTooLarge, f.limit)
	}
	return n, err
}

func (f *inflated) Close() error { return f.from.Close() }
