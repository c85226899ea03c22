// Package wire brings requests to services and answers back. All backends use
// it, so that there is one policy of time limits, sizes and errors, and one
// place that knows whether a request may have been charged for.
package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// Defaults of Config.
const (
	DefaultConnect = 10 * time.Second
	DefaultIdle    = 60 * time.Second
	DefaultMaxBody = 64 << 20
)

// Config has the limits of requests. The zero value works.
type Config struct {
	// Connect bounds the way to the service: its name, the connection, TLS.
	// 0 means 10 s.
	Connect time.Duration
	// FirstByte bounds the wait, once connected, for the first byte of the
	// answer's body; 0 means only the request's context does. A service that
	// does not stream is silent until it has finished.
	FirstByte time.Duration
	// Idle bounds the time between two bytes of the answer after that; 0 means
	// 60 s.
	Idle time.Duration
	// MaxBody bounds the answer, in bytes as they are read, not as they are
	// compressed; 0 means 64 MiB.
	MaxBody int64
	// Header is sent with every request.
	Header http.Header
}

// A Client is an http.RoundTripper. It does not follow redirects, since keys
// would go with them; it never sends a request a second time; and whatever goes
// wrong, it returns an *Error. An answer that is not a success is an error.
type Client struct {
	cfg  Config
	base *http.Transport
}

// NewClient makes a client of its own connections. Close them with CloseIdle.
func NewClient(cfg Config) *Client {
	cfg.Connect = cmp.Or(cfg.Connect, DefaultConnect)
	cfg.Idle = cmp.Or(cfg.Idle, DefaultIdle)
	cfg.MaxBody = cmp.Or(cfg.MaxBody, DefaultMaxBody)
	dialer := &net.Dialer{Timeout: cfg.Connect, KeepAlive: 30 * time.Second}
	return &Client{cfg: cfg, base: &http.Transport{
		// The operator names the service, so the operator's proxy is right.
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   cfg.Connect,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		ExpectContinueTimeout: time.Second,
		// Many servers of this kind close a connection that is idle for 5 s. A
		// request that meets the closing is lost, and then it is not known
		// whether it was charged for.
		IdleConnTimeout: 4 * time.Second,
	}}
}

// HTTP is an http.Client that uses the Client.
func (c *Client) HTTP() *http.Client {
	return &http.Client{Transport: c, CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
}

// CloseIdle closes connections that nobody uses.
func (c *Client) CloseIdle() { c.base.CloseIdleConnections() }

// RoundTrip implements http.RoundTripper. The request's body must be readable
// at once: it is taken to have been sent as soon as it was read to its end.
func (c *Client) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	watch := &watch{cancel: cancel, first: c.cfg.FirstByte, idle: c.cfg.Idle}
	outgoing := &outgoing{body: req.Body, length: req.ContentLength}
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { watch.start() }})
	sent := req.Clone(ctx)
	for name, values := range c.cfg.Header {
		sent.Header[name] = values
	}
	if req.Body != nil {
		sent.Body = outgoing
		// Without it net/http cannot send the body a second time by itself.
		sent.GetBody = nil
	}
	resp, err := c.base.RoundTrip(sent)
	if err != nil {
		err = c.failure(ctx, err, outgoing.seal(), "")
		watch.stop()
		return nil, kept(ctx, err)
	}
	resp.Body = &incoming{body: resp.Body, watch: watch, limit: c.cfg.MaxBody, fail: func(err error) error {
		return c.failure(ctx, err, true, RequestID(resp.Header))
	}}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	var failed *Error
	if errors.As(err, &failed) && len(body) == 0 {
		// The status is the answer; what it means is in it.
		body = nil
	}
	return nil, kept(ctx, StatusError(resp.StatusCode, resp.Header, body))
}

type keepKey struct{}

// Keep returns a context for one request, and a function that finds the Error of
// that request. Libraries between a backend and the Client do not always return
// the error that they got: of a request that is canceled they return only that
// it was, and not whether it may have been charged for.
func Keep(ctx context.Context) (context.Context, func(error) error) {
	keep := new(error)
	return context.WithValue(ctx, keepKey{}, keep), func(err error) error {
		var failed *Error
		switch {
		case err == nil:
			return nil
		case errors.As(err, &failed):
			return failed
		case *keep != nil:
			return *keep
		}
		return beacon.Errorf(beacon.Internal, "the request could not be made: %w", err)
	}
}

// kept keeps an error for Keep.
func kept(ctx context.Context, err error) error {
	if keep, ok := ctx.Value(keepKey{}).(*error); ok {
		*keep = err
	}
	return err
}

// The causes that our time limits cancel a request with.
var (
	errFirstByte = errors.New("no answer")
	errIdle      = errors.New("the answer stopped")
)

// failure words what went wrong on the way.
func (c *Client) failure(ctx context.Context, err error, lost bool, requestID string) error {
	var failed *Error
	if errors.As(err, &failed) {
		return err
	}
	e := &Error{RetryAfter: -1, Retry: true, Lost: lost, RequestID: requestID, cause: err}
	var network net.Error
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errFirstByte):
		e.Timeout = true
		e.Message = fmt.Sprintf("LLM request failed: no byte of an answer within %s (FirstByteTimeoutMs)", c.cfg.FirstByte)
	case errors.Is(cause, errIdle):
		e.Timeout = true
		e.Message = fmt.Sprintf("LLM request failed: the answer stopped for %s (IdleTimeoutMs)", c.cfg.Idle)
	case ctx.Err() != nil:
		// The caller knows why.
		e.Retry, e.cause = false, ctx.Err()
		e.Message = "LLM request failed: canceled"
	case errors.Is(err, errTooLarge):
		e.Retry = false
		e.Message = fmt.Sprintf("LLM request failed: the answer is larger than %d bytes", c.cfg.MaxBody)
	case !lost && errors.As(err, &network) && network.Timeout():
		e.Timeout = true
		e.Message = fmt.Sprintf("LLM request failed: no connection within %s (ConnectTimeoutMs)", c.cfg.Connect)
	case lost && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF)):
		e.Message = "LLM request failed: the answer was cut off"
	default:
		e.Message = "LLM request failed: " + beacon.Excerpt(err.Error(), 500)
	}
	return e
}

// A watch cancels a request whose answer does not come or does not go on.
type watch struct {
	cancel      context.CancelCauseFunc
	first, idle time.Duration

	mu      sync.Mutex
	timer   *time.Timer
	started bool
	stopped bool
}

func (w *watch) start() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped || w.started || w.first <= 0 {
		return
	}
	w.started = true
	w.timer = time.AfterFunc(w.first, func() { w.cancel(errFirstByte) })
}

// progress notes that a byte has come.
func (w *watch) progress() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped {
		return
	}
	if w.timer != nil {
		w.timer.Stop()
	}
	w.timer = time.AfterFunc(w.idle, func() { w.cancel(errIdle) })
}

func (w *watch) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer != nil {
		w.timer.Stop()
	}
	w.stopped = true
	w.cancel(context.Canceled)
}

// outgoing is the body of a request. It knows whether all of it was handed to
// the transport, and can be shut so that nothing more is: a request that misses
// its end can have been neither carried out nor charged for.
type outgoing struct {
	body   io.ReadCloser
	length int64

	mu     sync.Mutex
	read   int64
	ended  bool
	sealed bool
}

var errSealed = errors.New("the request has failed")

func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sealed {
		return 0, errSealed
	}
	n, err := o.body.Read(p)
	o.read += int64(n)
	if err == io.EOF || o.length > 0 && o.read >= o.length {
		o.ended = true
	}
	return n, err
}

// Close implements io.Closer.
func (o *outgoing) Close() error { return o.body.Close() }

// seal shuts the body and reports whether all of it is gone.
func (o *outgoing) seal() (gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sealed = true
	return o.ended && o.body != nil
}

var errTooLarge = errors.New("the answer is too large")

// incoming is the body of an answer, watched and bounded.
type incoming struct {
	body  io.ReadCloser
	watch *watch
	limit int64
	fail  func(error) error
	err   error
}

func (i *incoming) Read(p []byte) (int, error) {
	if i.err != nil {
		return 0, i.err
	}
	if int64(len(p)) > i.limit+1 {
		p = p[:i.limit+1]
	}
	n, err := i.body.Read(p)
	if n > 0 {
		i.watch.progress()
	}
	i.limit -= int64(n)
	switch {
	case i.limit < 0:
		err = errTooLarge
	case err == nil || err == io.EOF:
		return n, err
	}
	i.err = i.fail(err)
	i.watch.stop()
	return n, i.err
}

// Close implements io.Closer. It ends the request if the answer was not read
// to its end.
func (i *incoming) Close() error {
	err := i.body.Close()
	i.watch.stop()
	return err
}
