package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
)

// Fetch implements hostfuncs.Broker.
func (b *broker) Fetch(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	if err := b.count(); err != nil {
		return nil, err
	}
	c, err := b.provider.client(b.tenant())
	if err != nil {
		return nil, err
	}
	req, carried, err := b.request(ctx, c, r)
	if err != nil {
		return nil, err
	}
	known := knownBy(c, carried)
	known.server(req.URL)
	if len(known.secrets) > 0 && req.Header.Get("Accept-Encoding") != "" {
		// In something that is compressed a secret would not be found.
		req.Header.Set("Accept-Encoding", "identity")
	}
	res, err := c.web(req.URL).DoWith(req, egress.Options{ //nolint:bodyclose // whoever gets the response does
		NoRedirects: r.Redirects == 0, MaxRedirects: r.Redirects, OnRequest: b.permitted(c, req.URL, carried, known),
	})
	secrets := known.masks()
	if err == nil && !secrets.empty() && r.Method != http.MethodHead {
		// Servers may compress all the same.
		if err = egress.Decode(res, max(b.provider.cfg.Limits.Received, 1)); err != nil {
			_ = res.Body.Close() // nothing of it is wanted
		}
	}
	if err != nil {
		return nil, b.unreached(ctx, req.URL, secrets, err)
	}
	header := make(map[string][]string, len(res.Header))
	for name, values := range res.Header {
		name = secrets.mask(name)
		for _, v := range values {
			header[name] = append(header[name], secrets.mask(v))
		}
	}
	return &hostfuncs.Response{
		Status: res.StatusCode, URL: secrets.mask(res.Request.URL.String()), Proto: res.Proto,
		Header: header, Length: res.ContentLength,
		Body: &received{b: b, ctx: ctx, from: res.Body, clean: secrets.reader(res.Body), secrets: secrets},
	}, nil
}

// unreached words why there is no response. Where a name leads to is the
// operator's to know.
func (b *broker) unreached(ctx context.Context, u *url.URL, secrets masks, err error) error {
	var address *egress.AddressError
	if _, literal := netip.ParseAddr(u.Hostname()); literal == nil || !errors.As(err, &address) {
		return secrets.error(ctx, err)
	}
	b.provider.cfg.Log.Warn("a guest's request leads to an address that it may not reach", "provider", b.provider.cfg.Name,
		"tenant", b.tenant(), "item", b.job.Item.Hash, "host", hostOf(u), "err", address)
	if address.Never {
		return beacon.Errorf(beacon.Denied, "the host, or one that it redirects to, has an address that is never requested")
	}
	return beacon.Errorf(beacon.Denied, "the host, or one that it redirects to, has a private address: grant its \"address\" to provider %s", b.provider.cfg.Name)
}

// request makes the request that a guest asks for, with the secrets in it that
// it names.
func (b *broker) request(ctx context.Context, c *client, r hostfuncs.Request) (*http.Request, carried, error) {
	u, err := url.Parse(r.URL)
	switch {
	case err != nil:
		return nil, nil, beacon.Errorf(beacon.Invalid, "the URL is not one")
	case u.User != nil:
		return nil, nil, beacon.Errorf(beacon.Invalid, "the URL has a user in it: use the header Authorization")
	case u.Fragment != "":
		return nil, nil, beacon.Errorf(beacon.Invalid, "the URL has a fragment, which is never sent: leave it out")
	case r.Method != strings.ToUpper(r.Method) || !isToken(r.Method) || r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return nil, nil, beacon.Errorf(beacon.Invalid, "method %q: want one such as GET or POST, in capitals", beacon.Excerpt(r.Method, 40))
	}
	// What the policy would say comes first: about a host that is not permitted
	// there is nothing else to say.
	if err := c.web(u).Check(r.Method, u); err != nil {
		if _, known := b.provider.cfg.Grants.HTTP(allows(r.Method, u)); beacon.CodeOf(err) == beacon.Denied && !known && plainURL(u) {
			err = b.refused(r.Method, u)
		}
		return nil, nil, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, nil)
	if err != nil {
		return nil, nil, beacon.Errorf(beacon.Invalid, "the URL is not one")
	}
	secrets := carried{}
	for name, values := range r.Header {
		name = textproto.CanonicalMIMEHeaderKey(name)
		if !isToken(name) || isForbidden(name) {
			return nil, nil, beacon.Errorf(beacon.Invalid, "header %s cannot be set", beacon.Excerpt(name, 80))
		}
		for _, value := range values {
			value, used, err := b.insert(c, req, name, value)
			if err != nil {
				return nil, nil, err
			}
			maps.Copy(secrets, used)
			if !isValue(value) {
				return nil, nil, beacon.Errorf(beacon.Invalid, "header %s has a value that cannot be sent", beacon.Excerpt(name, 80))
			}
			req.Header.Add(name, value)
		}
	}
	if r.Body != nil {
		req.Body, req.ContentLength = &sent{b: b, ctx: ctx, from: r.Body}, r.BodyLength
	}
	return req, secrets, nil
}

// plainURL reports whether it makes sense to name what would permit a URL.
func plainURL(u *url.URL) bool {
	return (&egress.Policy{}).Check(http.MethodGet, u) == nil
}

// The marks around the name of a secret in a header's value.
const (
	opening = "{{secret:"
	closing = "}}"
)

// carried are the secrets in a request's headers, by name.
type carried map[string]policy.Secret

// known are the secrets that those may know who take part in one exchange: what
// the request carries, and what other requests to the same hosts may have carried,
// or may yet.
type known struct {
	client  *client
	secrets map[string]policy.Secret
	made    masks // of so many of them
	many    int
}

func knownBy(c *client, carried carried) *known {
	k := &known{client: c, secrets: map[string]policy.Secret{}}
	maps.Copy(k.secrets, carried)
	return k
}

// server adds what the host of a URL may know.
func (k *known) server(u *url.URL) {
	for _, name := range k.client.tenant.Secrets() {
		secret, _ := k.client.tenant.Secret(name)
		if secret.For(func(r egress.Rule) bool { return allows(http.MethodGet, u)(egress.Rule{Host: r.Host, Port: -1}) }) {
			k.secrets[name] = secret
		}
	}
}

func (k *known) masks() masks {
	if k.many != len(k.secrets) {
		secrets := make([]string, 0, len(k.secrets))
		for _, secret := range k.secrets {
			secrets = append(secrets, secret.Reveal())
		}
		k.made, k.many = masksOf(secrets), len(secrets)
	}
	return k.made
}

// insert puts secrets into a header's value.
func (b *broker) insert(c *client, req *http.Request, header, value string) (string, carried, error) {
	var out strings.Builder
	used := carried{}
	for {
		before, rest, found := strings.Cut(value, opening)
		out.WriteString(before)
		if !found {
			return out.String(), used, nil
		}
		name, after, closed := strings.Cut(rest, closing)
		if !closed {
			return "", nil, beacon.Errorf(beacon.Invalid, "header %s: %s without %s", beacon.Excerpt(header, 80), opening, closing)
		}
		secret, granted, err := b.secret(c, name)
		switch {
		case err != nil:
			return "", nil, err
		case egress.Portable(header):
			return "", nil, beacon.Errorf(beacon.Invalid, "header %s cannot carry a secret: it is sent on to other hosts; use Authorization or one of the server's own", header)
		case !secret.For(allows(req.Method, req.URL)):
			return "", nil, notFor(name, req.URL)
		}
		b.job.Account.Used(granted.String())
		out.WriteString(secret.Reveal())
		used[name] = secret
		value = after
	}
}

func notFor(name string, u *url.URL) error {
	return beacon.Errorf(beacon.Denied, "the secret %s is not for %s: add it to the secret's For", name, egress.Redact(&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}))
}

// sent is the body of a request, counted.
type sent struct {
	b    *broker
	ctx  context.Context
	from io.ReadCloser
}

func (s *sent) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if limit := s.b.provider.cfg.Limits.Sent; max(s.b.sent.Add(int64(n)), s.b.job.Account.Ask(beacon.Traffic{Sent: int64(n)}).Sent) > limit {
		return 0, beacon.Errorf(beacon.WebLimit, "more than %d bytes sent; raise the provider's Sent limit", limit)
	}
	if paceErr := s.b.job.Account.Spend(s.ctx, beacon.Usage{Sent: int64(n)}); paceErr != nil {
		return 0, paceErr
	}
	return n, err
}

func (s *sent) Close() error { return s.from.Close() }

// received is the body of a response, counted, without secrets.
type received struct {
	b       *broker
	ctx     context.Context
	from    io.Closer
	clean   io.Reader
	secrets masks
}

func (r *received) Read(p []byte) (int, error) {
	n, err := r.clean.Read(p)
	if limit := r.b.provider.cfg.Limits.Received; max(r.b.received.Add(int64(n)), r.b.job.Account.Ask(beacon.Traffic{Received: int64(n)}).Received) > limit {
		return 0, beacon.Errorf(beacon.WebLimit, "more than %d bytes received; raise the provider's Received limit", limit)
	}
	if paceErr := r.b.job.Account.Spend(r.ctx, beacon.Usage{Received: int64(n)}); paceErr != nil {
		return 0, paceErr
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.secrets.error(r.ctx, err)
	}
	return n, err
}

func (r *received) Close() error { return r.from.Close() }

// error turns what went wrong with an exchange into what a guest may know.
func (m masks) error(ctx context.Context, err error) error {
	var ours *beacon.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &ours):
		return beacon.Errorf(ours.Code, "%s", m.mask(ours.Message))
	case errors.Is(err, egress.ErrTooLarge), errors.Is(err, egress.ErrTooSlow):
		return beacon.Errorf(beacon.WebLimit, "%s", m.mask(err.Error()))
	}
	return beacon.Errorf(beacon.Unreachable, "%s", beacon.Excerpt(m.mask(fmt.Sprint(err)), 500))
}

// isToken reports whether text can be a method or a header's name.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune("()<>@,;:\\\"/[]?={}", r)
	})
}

// isValue reports whether text can be a header's value.
func isValue(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}
