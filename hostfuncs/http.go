package hostfuncs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/textproto"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

const (
	maxRedirects = 3
	// readAhead is how much of a response is read before the guest asks, once it
	// has waited for it with handle_wait.
	readAhead = 16 << 10
	// maxPart is how much of a request's body is handed over at once.
	maxPart = 64 << 10
)

// An exchange is a request and its response. Its methods are called by the
// guest's thread only; answer runs beside it.
type exchange struct {
	cancel   context.CancelFunc
	ctx      context.Context
	tasks    sync.WaitGroup
	body     *body // nil when the request has none
	answered chan struct{}
	response *Response // valid once answered
	err      error     // the same
	waited   bool      // http_wait has returned, which it does when the response is there
	ahead    *ahead    // nil unless the guest has waited for the body
}

// An ahead is one read before the guest asks for it.
type ahead struct {
	done chan struct{}
	buf  []byte
	err  error
}

// A body is the request's body, handed over part by part.
type body struct {
	parts  chan []byte
	gone   chan struct{} // closed when nobody reads on
	close1 sync.Once
	part   []byte // of which the reader has not read all
	left   int64  // the guest's bytes to come, -1 when not known
	ended  bool   // by the guest
}

// Read is called by the broker.
func (b *body) Read(p []byte) (int, error) {
	if len(b.part) == 0 {
		select {
		case part, more := <-b.parts:
			if !more {
				return 0, io.EOF
			}
			b.part = part
		case <-b.gone:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(p, b.part)
	b.part = b.part[n:]
	return n, nil
}

// Close is called by the broker when it reads no more.
func (b *body) Close() error {
	b.close1.Do(func() { close(b.gone) })
	return nil
}

// unwanted reports whether nobody reads on.
func (b *body) unwanted() bool {
	select {
	case <-b.gone:
		return true
	default:
		return false
	}
}

// end says that the guest sends no more.
func (b *body) end() {
	if !b.ended {
		b.ended = true
		close(b.parts)
	}
}

// values are a header's: one text or several.
type values []string

func (v *values) UnmarshalJSON(raw []byte) error {
	if len(raw) > 0 && raw[0] == '"' {
		*v = make(values, 1)
		return json.Unmarshal(raw, &(*v)[0])
	}
	return json.Unmarshal(raw, (*[]string)(v))
}

// strictly decodes a request: a member that is not known would be one that does
// not work. Bytes that are no text would take more room than they did.
func strictly(raw []byte, into any) error {
	if !utf8.Valid(raw) {
		return beacon.Errorf(beacon.Invalid, "the request is not UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	err := dec.Decode(into)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("more than one JSON value")
		}
	}
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "the request is not the JSON that is expected: %s", beacon.Excerpt(err.Error(), 200))
	}
	return nil
}

func httpOpen(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	var asked struct {
		URL        string
		Method     string
		Headers    map[string]values
		BodyLength *int64
		TimeoutMs  int64
		Redirects  *int
	}
	if err := strictly(c.Bytes(0), &asked); err != nil {
		return i.refuse(err)
	}
	r := Request{Method: asked.Method, URL: asked.URL, Header: make(map[string][]string, len(asked.Headers)), Redirects: maxRedirects}
	for name, texts := range asked.Headers {
		r.Header[name] = texts
	}
	if r.Method == "" {
		r.Method = "GET"
	}
	if asked.Redirects != nil {
		if r.Redirects = *asked.Redirects; r.Redirects < 0 || r.Redirects > maxRedirects {
			return i.refuse(beacon.Errorf(beacon.Invalid, "Redirects is %d: want 0 to %d", r.Redirects, maxRedirects))
		}
	}
	e := &exchange{answered: make(chan struct{})}
	if asked.BodyLength != nil {
		if r.BodyLength = *asked.BodyLength; r.BodyLength < -1 {
			return i.refuse(beacon.Errorf(beacon.Invalid, "BodyLength is %d: want a number of bytes, or -1 when it is not known", r.BodyLength))
		}
		if r.BodyLength != 0 {
			e.body = &body{parts: make(chan []byte), gone: make(chan struct{}), left: r.BodyLength}
			r.Body = e.body
		}
	}
	n, err := i.freeHandle()
	if err != nil {
		return i.deny(err)
	}
	e.ctx, e.cancel, err = bounded(c.Ctx, asked.TimeoutMs, "the request")
	if err != nil {
		return i.refuse(err)
	}
	broker := i.broker
	e.tasks.Go(func() {
		defer close(e.answered)
		e.response, e.err = broker.Fetch(e.ctx, r)
	})
	i.handles[n] = e
	c.PutU32(1, n)
	return ok
}

// bounded is a context for something that goes on beside the guest.
func bounded(ctx context.Context, ms int64, what string) (context.Context, context.CancelFunc, error) {
	switch {
	case ms < 0:
		return nil, nil, beacon.Errorf(beacon.Invalid, "TimeoutMs is %d: want a number above zero, or none", ms)
	case ms == 0:
		ctx, cancel := context.WithCancel(ctx)
		return ctx, cancel, nil
	}
	bounded, cancel := context.WithTimeoutCause(ctx, time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond)))*time.Millisecond,
		beacon.Errorf(beacon.Timeout, "%s took longer than its TimeoutMs of %d", what, ms))
	return bounded, cancel, nil
}

// why prefers the reason that the context gives for an error.
func why(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && beacon.CodeOf(context.Cause(ctx)) == beacon.Timeout {
		return context.Cause(ctx)
	}
	return err
}

// ready is closed when http_wait, or after it http_read, would not wait.
func (e *exchange) ready() <-chan struct{} {
	if !e.waited || e.err != nil {
		return e.answered
	}
	if e.ahead == nil {
		a := &ahead{done: make(chan struct{}), buf: make([]byte, readAhead)}
		e.ahead = a
		from := e.response.Body
		e.tasks.Go(func() {
			defer close(a.done)
			n, err := from.Read(a.buf)
			a.buf, a.err = a.buf[:n], err
		})
	}
	return e.ahead.done
}

func (e *exchange) close() {
	e.cancel()
	if e.body != nil {
		_ = e.body.Close() // which cannot fail
	}
	<-e.answered
	if e.err == nil {
		_ = e.response.Body.Close() // nothing of it is wanted any more
	}
	e.tasks.Wait()
}

// over reports whether the response is there.
func (e *exchange) over() bool {
	select {
	case <-e.answered:
		return true
	default:
		return false
	}
}

func httpWrite(i *Item, c *abi.Call) abi.Errno {
	e, found := handleOf[*exchange](i, c, 0)
	if !found {
		return badDescriptor
	}
	b := e.body
	if b == nil || b.ended {
		return i.refuse(beacon.Errorf(beacon.Invalid, "the request has no body to be sent on: give it a BodyLength, and write before http_wait"))
	}
	data := c.Bytes(1)
	if b.left >= 0 && int64(len(data)) > b.left {
		return i.refuse(beacon.Errorf(beacon.Invalid, "more than the request's BodyLength: %d bytes are left of it", b.left))
	}
	sent := 0
	for sent < len(data) {
		// The guest may change its memory as soon as this returns.
		part := bytes.Clone(data[sent:min(len(data), sent+maxPart)])
		select {
		case b.parts <- part:
			sent += len(part)
			continue
		case <-b.gone:
		case <-e.answered:
		case <-e.ctx.Done(): // with the item's, if not before
		}
		switch {
		case c.Ctx.Err() != nil:
			panic(&abi.Stop{Cause: context.Cause(c.Ctx)})
		case e.ctx.Err() != nil:
			return i.refuse(context.Cause(e.ctx))
		}
		break
	}
	if b.left >= 0 {
		if b.left -= int64(sent); b.left == 0 {
			b.end()
		}
	}
	c.PutU32(2, uint32(sent))
	return ok
}

func httpWait(i *Item, c *abi.Call) abi.Errno {
	e, found := handleOf[*exchange](i, c, 0)
	if !found {
		return badDescriptor
	}
	// A server that has answered before it read the whole body would take the
	// body's early end for a lost connection.
	if e.body != nil && !e.over() && !e.body.unwanted() {
		if e.body.left > 0 {
			return i.refuse(beacon.Errorf(beacon.Invalid, "%d bytes of the request's BodyLength were not written", e.body.left))
		}
		e.body.end()
	}
	await(c.Ctx, e.answered)
	e.waited = true
	if e.err != nil {
		return i.deny(why(e.ctx, e.err))
	}
	c.PutU32(1, uint32(e.response.Status))
	return ok
}

// answeredExchange finds an exchange whose response the guest has waited for. That
// it is there is not enough: what a guest finds must not depend on who is faster.
func answeredExchange(i *Item, c *abi.Call) (*exchange, abi.Errno) {
	e, found := handleOf[*exchange](i, c, 0)
	switch {
	case !found:
		return nil, badDescriptor
	case !e.waited:
		return nil, notNow
	case e.err != nil:
		return nil, i.refuse(why(e.ctx, e.err))
	}
	return e, ok
}

func httpResponse(i *Item, c *abi.Call) abi.Errno {
	e, errno := answeredExchange(i, c)
	if errno != ok {
		return errno
	}
	r := e.response
	if r.Header == nil {
		r.Header = map[string][]string{}
	}
	raw, err := json.Marshal(struct {
		Status  int
		URL     string
		Proto   string
		Headers map[string][]string
		Length  int64
	}{r.Status, r.URL, r.Proto, r.Header, r.Length})
	if err != nil {
		return ioError
	}
	return fill(c, 1, raw)
}

func httpHeader(i *Item, c *abi.Call) abi.Errno {
	e, errno := answeredExchange(i, c)
	if errno != ok {
		return errno
	}
	texts, present := e.response.Header[textproto.CanonicalMIMEHeaderKey(text(c, 1))]
	if !present {
		return notFound
	}
	return fill(c, 2, []byte(strings.ToValidUTF8(strings.Join(texts, ", "), "\uFFFD")))
}

func httpRead(i *Item, c *abi.Call) abi.Errno {
	e, errno := answeredExchange(i, c)
	if errno != ok {
		return errno
	}
	into := c.Bytes(1)
	if len(into) == 0 {
		c.PutU32(2, 0)
		return ok
	}
	var n int
	var err error
	if a := e.ahead; a != nil {
		await(c.Ctx, a.done)
		n = copy(into, a.buf)
		a.buf = a.buf[n:]
		if len(a.buf) == 0 {
			err = a.err
			if err == nil {
				e.ahead = nil
			}
		}
	}
	for n == 0 && err == nil {
		n, err = e.response.Body.Read(into)
	}
	if c.Ctx.Err() != nil {
		panic(&abi.Stop{Cause: context.Cause(c.Ctx)})
	}
	if err != nil && !errors.Is(err, io.EOF) && n == 0 {
		return i.deny(why(e.ctx, err))
	}
	c.PutU32(2, uint32(n))
	return ok
}
