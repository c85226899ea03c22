// Package egress makes HTTP requests to places that strangers name: the
// sources of work items, what a guest asks for. A policy decides what may be
// reached. It is asked about every URL, also of redirects, and about every
// address at the moment when it is dialled, so that neither a name, nor the way
// an address is written, nor an answer of the DNS that changes gets around it.
package egress

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ultravisor/beacon"
)

// Defaults of Config.
const (
	DefaultMaxBody      = 64 << 20
	DefaultMaxRedirects = 3
	DefaultMinRate      = 1 << 10
)

// Errors of a response's body. What is too slow may go away by itself.
var (
	ErrTooLarge = errors.New("the response is too large")
	ErrTooSlow  = errors.New("the server sends too slowly")
)

// Config has what a client may do. The zero value works.
type Config struct {
	Policy Policy
	// MaxBody bounds the body of a response, in bytes, as it is sent and after
	// it is decoded; 0 means 64 MiB.
	MaxBody int64
	// MinRate is how many bytes per second a body must bring on average over
	// RateWindow, counted only while somebody waits for them; 0 means 1 KiB/s,
	// less than 0 any. RateWindow is 10 s unless set.
	MinRate    int64
	RateWindow time.Duration
	// MaxRedirects is how often a server may send a request elsewhere; 0 means
	// 3, less than 0 never: then the redirect itself is the response.
	MaxRedirects int
	// Decode decodes bodies that are gzipped. It does not ask for it: who wants
	// that sets the header Accept-Encoding. With any other encoding, Do fails.
	Decode bool
	// Timeouts for connecting with TLS (30 s and 15 s) and for the header of the
	// response (60 s) have these defaults. For the header, less than 0 means none.
	DialTimeout, TLSTimeout, HeaderTimeout time.Duration
	// TLS and Resolver replace those of the system. Servers replaces TLS for some
	// servers, by their names or addresses with ports ("hub.example:443").
	TLS      *tls.Config
	Servers  map[string]*tls.Config
	Resolver *net.Resolver
}

// A Client makes requests under one policy. Connections are never shared with
// another client. It has no proxy, no cookies and no credentials of its own. It
// is safe for concurrent use; CloseIdle frees what it keeps.
type Client struct {
	cfg  Config
	http http.Client
	idle func()
}

// New makes a client.
func New(cfg Config) *Client {
	defaults(&cfg.MaxBody, DefaultMaxBody)
	defaults(&cfg.MinRate, DefaultMinRate)
	defaults(&cfg.MaxRedirects, DefaultMaxRedirects)
	defaults(&cfg.RateWindow, 10*time.Second)
	defaults(&cfg.DialTimeout, 30*time.Second)
	defaults(&cfg.TLSTimeout, 15*time.Second)
	defaults(&cfg.HeaderTimeout, 60*time.Second)
	cfg.Policy.Allow = slices.Clone(cfg.Policy.Allow)
	cfg.Policy.Networks = slices.Clone(cfg.Policy.Networks)
	c := &Client{cfg: cfg}
	dialer := &net.Dialer{Timeout: cfg.DialTimeout, Resolver: cfg.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		return c.checkDial(address)
	}}
	transport := &http.Transport{
		// No proxy: through one, the address that is dialled says nothing.
		DialContext:            dialer.DialContext,
		TLSClientConfig:        cfg.TLS.Clone(),
		TLSHandshakeTimeout:    cfg.TLSTimeout,
		ResponseHeaderTimeout:  max(cfg.HeaderTimeout, 0), // HTTP/2 takes less than 0 for a time that is over
		IdleConnTimeout:        30 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
		// Otherwise bodies are inflated without a limit.
		DisableCompression: true,
	}
	all := transports{others: transport, own: map[string]*http.Transport{}}
	for server, config := range cfg.Servers {
		own := transport.Clone()
		own.TLSClientConfig = config.Clone()
		all.own[strings.ToLower(server)] = own
	}
	c.idle = all.closeIdle
	c.http = http.Client{Transport: checkedRedirects{all}, CheckRedirect: c.redirect}
	return c
}

// transports are those of the servers that have one of their own, and of all
// others.
type transports struct {
	others *http.Transport
	own    map[string]*http.Transport
}

// RoundTrip implements http.RoundTripper.
func (t transports) RoundTrip(r *http.Request) (*http.Response, error) {
	port := r.URL.Port()
	if port == "" {
		port = "443"
	}
	if own := t.own[net.JoinHostPort(strings.ToLower(r.URL.Hostname()), port)]; own != nil && r.URL.Scheme == "https" {
		return own.RoundTrip(r)
	}
	return t.others.RoundTrip(r)
}

func (t transports) closeIdle() {
	t.others.CloseIdleConnections()
	for _, own := range t.own {
		own.CloseIdleConnections()
	}
}

func defaults[N int | int64 | time.Duration](value *N, fallback N) {
	if *value == 0 {
		*value = fallback
	}
}

// CloseIdle frees connections that are kept for reuse.
func (c *Client) CloseIdle() { c.idle() }

// Check says whether the policy allows a request; see Policy.Check.
func (c *Client) Check(method string, u *url.URL) error { return c.cfg.Policy.Check(method, u) }

func (c *Client) checkDial(address string) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return beacon.Errorf(beacon.Denied, "address %s is not one", beacon.Excerpt(address, 100))
	}
	return c.cfg.Policy.checkAddress(to.Addr())
}

// Options say about one request what http.Request has no words for.
type Options struct {
	// NoRedirects makes a redirect the response. MaxRedirects, if it is above 0,
	// bounds redirects more tightly than the client's does.
	NoRedirects  bool
	MaxRedirects int
	// OnRequest, if any, is asked about every request that the policy has allowed,
	// also after redirects, before it is made. An error ends the exchange.
	OnRequest func(method string, u *url.URL) error
}

type optionsKey struct{}

func optionsOf(ctx context.Context) Options {
	o, _ := ctx.Value(optionsKey{}).(Options)
	return o
}

// Do makes a request; see DoWith.
func (c *Client) Do(req *http.Request) (*http.Response, error) { return c.DoWith(req, Options{}) }

// DoWith makes a request; the context of req bounds it and the reading of the
// body, which is to be closed. The request itself is left as it is. Refusals of
// the policy have code beacon.Denied. No error shows the query of a URL, a
// password in it, or a path behind a redirect.
func (c *Client) DoWith(req *http.Request, o Options) (*http.Response, error) {
	if err := c.Check(req.Method, req.URL); err != nil {
		return nil, err
	}
	if o.OnRequest != nil {
		if err := o.OnRequest(req.Method, req.URL); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(req.Context(), optionsKey{}, o))
	req = req.Clone(ctx)
	// Whatever it says, the host that was allowed is the host that is asked.
	req.Host = ""
	for _, name := range hopByHop {
		req.Header.Del(name)
	}
	if req.Header.Get("User-Agent") == "" {
		req.Header.Set("User-Agent", "beacon")
	}
	res, err := c.http.Do(req)
	if err != nil {
		err = clean(context.Cause(ctx), err)
		cancel(nil)
		return nil, err
	}
	raw := &body{
		from: res.Body, cancel: cancel, cause: func() error { return context.Cause(ctx) },
		limit: c.cfg.MaxBody, window: c.cfg.RateWindow, rate: c.cfg.MinRate,
	}
	if err := c.wrap(res, raw); err != nil {
		_ = raw.Close() // nothing of it is wanted
		return nil, err
	}
	return res, nil
}

// wrap puts the limits around the body.
func (c *Client) wrap(res *http.Response, raw *body) error {
	if res.ContentLength > c.cfg.MaxBody {
		return fmt.Errorf("%w: %d bytes, limit %d", ErrTooLarge, res.ContentLength, c.cfg.MaxBody)
	}
	res.Body = raw
	if !c.cfg.Decode {
		return nil
	}
	return Decode(res, c.cfg.MaxBody)
}

// Decode has the body of a response decoded if it is gzipped, to limit bytes at
// most. With any other encoding it fails.
func Decode(res *http.Response, limit int64) error {
	switch encoding := strings.ToLower(strings.TrimSpace(strings.Join(res.Header.Values("Content-Encoding"), ","))); encoding {
	case "", "identity":
	case "gzip", "x-gzip":
		raw := res.Body
		res.Body = &inflated{from: raw, limit: limit, open: func() (*gzip.Reader, error) { return gzip.NewReader(raw) }}
		res.Header.Del("Content-Encoding")
		res.Header.Del("Content-Length")
		res.ContentLength = -1
		res.Uncompressed = true
	default:
		return beacon.Errorf(beacon.Failed, "the response is encoded as %q, which was not asked for", beacon.Excerpt(encoding, 40))
	}
	return nil
}

// hopByHop are headers of a connection, which are not the caller's to say.
var hopByHop = []string{
	"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Proxy-Connection",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Host", "Content-Length",
}

// portable are the headers that go along to another host. Whatever else a
// caller set may be a credential.
var portable = []string{
	"Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "If-Match", "If-Modified-Since",
	"If-None-Match", "If-Range", "If-Unmodified-Since", "Range", "User-Agent",
}

// Portable reports whether a header goes along when a request is sent on to
// another host.
func Portable(name string) bool {
	return slices.Contains(portable, http.CanonicalHeaderKey(name))
}

func (c *Client) redirect(req *http.Request, via []*http.Request) error {
	o, most := optionsOf(req.Context()), c.cfg.MaxRedirects
	if most < 0 || o.NoRedirects {
		return http.ErrUseLastResponse
	}
	if o.MaxRedirects > 0 {
		most = min(most, o.MaxRedirects)
	}
	if len(via) > most {
		return beacon.Errorf(beacon.Denied, "more than %d redirects", most)
	}
	if via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return beacon.Errorf(beacon.Denied, "a redirect from https to http")
	}
	// It would show the first server's query to the second.
	req.Header.Del("Referer")
	req.URL.User = nil
	first := via[0].URL
	away := func(r *http.Request) bool {
		return r.URL.Scheme != first.Scheme || !strings.EqualFold(r.URL.Host, first.Host)
	}
	if away(req) || slices.ContainsFunc(via, away) {
		for name := range req.Header {
			if !Portable(name) {
				delete(req.Header, name)
			}
		}
	}
	if err := c.Check(req.Method, req.URL); err != nil || o.OnRequest == nil {
		return err
	}
	return o.OnRequest(req.Method, req.URL)
}

// checkedRedirects keeps net/http from putting a location that it cannot parse,
// and what is secret in it, into an error.
type checkedRedirects struct{ transports }

func (c checkedRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.transports.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		// What follows is a connection and no body: it would not end with the request.
		_ = res.Body.Close() // nothing of it is wanted
		return nil, beacon.Errorf(beacon.Failed, "the server answers with another protocol, which it was not asked for")
	}
	if _, err := res.Location(); err != nil && !errors.Is(err, http.ErrNoLocation) {
		_ = res.Body.Close() // nothing of it is wanted
		return nil, beacon.Errorf(beacon.Failed, "a redirect to something that is not a URL")
	}
	return res, nil
}

// clean takes out of an error what tells too much: the URL, which may hold
// secrets, and the addresses of this network.
func clean(cause, err error) error {
	if cause != nil {
		return cause
	}
	// An error of ours comes wrapped in those of dialling and of the client.
	var ours *beacon.Error
	if errors.As(err, &ours) {
		return ours
	}
	var name *net.DNSError
	var op *net.OpError
	var ue *url.Error
	switch {
	case errors.As(err, &name):
		return &told{fmt.Sprintf("the name %s cannot be resolved: %s", beacon.Excerpt(name.Name, 100), unresolved(name)), err}
	case errors.As(err, &op) && op.Op == "dial":
		return &told{"cannot connect: " + op.Err.Error(), err}
	case errors.As(err, &op):
		return &told{op.Op + ": " + op.Err.Error(), err}
	case errors.As(err, &ue):
		return ue.Err
	}
	return err
}

// unresolved says why a name is unknown. The resolver's own words may have its
// address and ours.
func unresolved(err *net.DNSError) string {
	switch {
	case err.IsNotFound:
		return "no such host"
	case err.IsTimeout:
		return "the name server did not answer in time"
	}
	return "the name server does not answer it"
}

// A told error has a text of its own and keeps its cause for errors.Is.
type told struct {
	text  string
	cause error
}

func (t *told) Error() string { return t.text }
func (t *told) Unwrap() error { return t.cause }
