package egress_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/nameserver"
	"github.com/ultravisor/beacon/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, cfg egress.Config) *egress.Client {
	t.Helper()
	c := egress.New(cfg)
	t.Cleanup(c.CloseIdle)
	return c
}

func get(t *testing.T, c *egress.Client, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	res, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	content, err := io.ReadAll(res.Body)
	return string(content), err
}

func serve(t *testing.T, handle http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s
}

func says(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }
}

// A host that is not allowed is never connected to, whatever it is called.
func TestLoopbackIsRefusedByEveryName(t *testing.T) {
	var connections atomic.Int32
	s := httptest.NewUnstartedServer(says("the secret"))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	s.Start()
	defer s.Close()
	_, port, err := net.SplitHostPort(s.Listener.Addr().String())
	require.NoError(t, err)

	resolver := nameserver.Start(t, map[string][][]string{
		"inside.test": {{"127.0.0.1"}}, "metadata.test": {{"169.254.169.254"}}, "any.test": {{"0.0.0.0"}}, "localhost": {{"127.0.0.1"}},
	})
	c := client(t, egress.Config{Resolver: resolver})
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST", "inside.test", "inside.test.", "any.test", "metadata.test", "0.0.0.0", "[::]", "[::1]",
		"[::1%25lo]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "127.1", "2130706433", "0x7f.1",
		"0x7f000001", "0177.0.0.1", "0", "127.0.0.1.", "127。0。0。1", "①②⑦.⓪.⓪.①", "169.254.169.254", "[fe80::1]",
	} {
		_, err := get(t, c, "http://"+host+":"+port+"/?token=x")
		require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%s: %v", host, err)
		require.NotContains(t, err.Error(), "token")
	}
	require.Zero(t, connections.Load())

	content, err := get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}}), s.URL)
	require.NoError(t, err)
	require.Equal(t, "the secret", content)
}

// The answer of the DNS that is checked is the one that is used.
func TestRebinding(t *testing.T) {
	var secrets atomic.Int32
	l, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("this system has one loopback address only: ", err)
	}
	open := httptest.NewUnstartedServer(says("open"))
	_ = open.Listener.Close()
	open.Listener = l
	open.Config.SetKeepAlivesEnabled(false)
	open.Start()
	defer open.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	inner, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Skip("the port is taken on the other address: ", err)
	}
	secret := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { secrets.Add(1) }))
	_ = secret.Listener.Close()
	secret.Listener = inner
	secret.Start()
	defer secret.Close()

	policy := egress.Policy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}}
	resolver := nameserver.Start(t, map[string][][]string{
		"rebind.test": {{"127.0.0.2"}, {"127.0.0.1"}},
		"mixed.test":  {{"127.0.0.1", "127.0.0.2"}},
	})
	c := client(t, egress.Config{Policy: policy, Resolver: resolver})
	content, err := get(t, c, "http://rebind.test:"+port)
	require.NoError(t, err)
	require.Equal(t, "open", content)
	_, err = get(t, c, "http://rebind.test:"+port)
	require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%v", err)

	content, err = get(t, c, "http://mixed.test:"+port)
	require.NoError(t, err, "one of the addresses is allowed")
	require.Equal(t, "open", content)
	require.Zero(t, secrets.Load())

	_, err = get(t, c, "http://nowhere.test:"+port)
	require.ErrorContains(t, err, "nowhere.test cannot be resolved")
	require.NotContains(t, err.Error(), "127.0.0.1", "where the DNS is, is nobody's business")
	// Nobody is there: the resolver's own error has both ends of the attempt.
	nobody := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", "127.0.0.1:1")
	}}
	_, err = get(t, client(t, egress.Config{Policy: policy, Resolver: nobody}), "http://silent.test:"+port)
	require.ErrorContains(t, err, "silent.test cannot be resolved")
	require.NotContains(t, err.Error(), "127.0.0.1")
}

// A connection that is no HTTP any more would not end with its request.
func TestOtherProtocols(t *testing.T) {
	gone := make(chan error, 1)
	s := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			gone <- err
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
		_, err = io.ReadAll(conn)
		gone <- err
	})
	_, err := get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}}), s.URL)
	require.Equal(t, beacon.Failed, beacon.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "another protocol")
	require.NoError(t, <-gone, "the connection is closed")
}

func TestRedirects(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	other := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r)
		fmt.Fprint(w, "other ", r.URL.Path)
	})
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r)
		switch path := r.URL.Path; path {
		case "/relative":
			w.Header().Set("Location", "end?q=1")
		case "/away":
			w.Header().Set("Location", other.URL+"/end")
		case "/password":
			w.Header().Set("Location", strings.Replace(other.URL, "://", "://user:pass@", 1)+"/end")
		case "/back":
			w.Header().Set("Location", other.URL+"/back")
		case "/loop":
			w.Header().Set("Location", "/loop")
		case "/file":
			w.Header().Set("Location", "file:///etc/passwd")
		case "/metadata":
			w.Header().Set("Location", "http://169.254.169.254/latest?secret")
		case "/broken":
			w.Header().Set("Location", "http://[secret")
		default:
			fmt.Fprint(w, "first ", path)
			return
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	rule, err := egress.ParseRule("GET,POST " + first.URL)
	require.NoError(t, err)
	local := egress.Policy{Private: true}
	tests := map[string]struct {
		policy egress.Policy
		path   string
		want   string
		fails  string
		code   beacon.Code
	}{
		"relative":        {local, "/relative", "first /end", "", ""},
		"away":            {local, "/away", "other /end", "", ""},
		"with password":   {local, "/password", "other /end", "", ""},
		"for ever":        {local, "/loop", "", "more than 3 redirects", beacon.Denied},
		"to a file":       {local, "/file", "", `scheme "file"`, beacon.Denied},
		"to metadata":     {local, "/metadata", "", "metadata service", beacon.Denied},
		"not a URL":       {local, "/broken", "", "not a URL", beacon.Failed},
		"not on the list": {egress.Policy{Private: true, Allow: []egress.Rule{rule}}, "/away", "", "not among what the policy allows", beacon.Denied},
		"on the list":     {egress.Policy{Private: true, Allow: []egress.Rule{rule}}, "/relative", "first /end", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := client(t, egress.Config{Policy: tt.policy})
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, first.URL+tt.path+"?token=t", strings.NewReader("body"))
			require.NoError(t, err)
			req.Header = http.Header{"Authorization": {"secret"}, "Cookie": {"a=b"}, "X-Api-Key": {"secret"}, "Accept": {"text/plain"}}
			req.Host = "elsewhere.test"
			res, err := c.Do(req)
			if tt.fails != "" {
				require.ErrorContains(t, err, tt.fails)
				require.Equal(t, tt.code, beacon.CodeOf(err))
				require.NotContains(t, err.Error(), "secret")
				require.NotContains(t, err.Error(), "token")
				return
			}
			require.NoError(t, err)
			defer res.Body.Close()
			content, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.Equal(t, tt.want, string(content))
			last := seen.Load()
			require.NotEqual(t, "elsewhere.test", last.Host)
			require.Empty(t, last.Header.Get("Referer"))
			require.Equal(t, "text/plain", last.Header.Get("Accept"))
			if strings.HasPrefix(tt.want, "other") {
				for _, secret := range []string{"Authorization", "Cookie", "X-Api-Key"} {
					require.Empty(t, last.Header.Get(secret), secret)
				}
			} else {
				require.Equal(t, "secret", last.Header.Get("Authorization"))
			}
		})
	}
	t.Run("not followed", func(t *testing.T) {
		c := client(t, egress.Config{Policy: local, MaxRedirects: -1})
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, first.URL+"/away", nil)
		require.NoError(t, err)
		res, err := c.Do(req)
		require.NoError(t, err)
		defer res.Body.Close()
		require.Equal(t, http.StatusTemporaryRedirect, res.StatusCode)
	})
}

// Options narrow what the client may do, for one request.
func TestOptions(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if n, err := strconv.Atoi(r.URL.Path[1:]); err == nil && n > 0 {
			http.Redirect(w, r, fmt.Sprintf("/%d", n-1), http.StatusFound)
		}
	})
	c := client(t, egress.Config{Policy: egress.Policy{Private: true}})
	do := func(path string, o egress.Options) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		require.NoError(t, err)
		res, err := c.DoWith(req, o)
		if err != nil {
			return 0, err
		}
		return res.StatusCode, res.Body.Close()
	}
	var asked []string
	status, err := do("/2", egress.Options{OnRequest: func(method string, u *url.URL) error {
		asked = append(asked, method+" "+u.Path)
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, []string{"GET /2", "GET /1", "GET /0"}, asked)
	status, err = do("/2", egress.Options{NoRedirects: true})
	require.NoError(t, err)
	require.Equal(t, http.StatusFound, status)
	_, err = do("/2", egress.Options{MaxRedirects: 1})
	require.ErrorContains(t, err, "more than 1 redirects")
	_, err = do("/5", egress.Options{MaxRedirects: 100})
	require.ErrorContains(t, err, "more than 3 redirects")
	for _, last := range []string{"/2", "/1"} {
		_, err = do("/2", egress.Options{OnRequest: func(_ string, u *url.URL) error {
			if u.Path == last {
				return beacon.Errorf(beacon.Denied, "not there")
			}
			return nil
		}})
		require.Equal(t, beacon.Denied, beacon.CodeOf(err))
		require.EqualError(t, err, "not there")
	}
	require.True(t, egress.Portable("accept"))
	require.False(t, egress.Portable("Authorization"))
}

func TestNoDowngrade(t *testing.T) {
	plain := serve(t, says("plain"))
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	trust := secure.Client().Transport.(*http.Transport).TLSClientConfig
	_, err := get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}, TLS: trust}), secure.URL)
	require.ErrorContains(t, err, "from https to http")
	_, err = get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}}), secure.URL)
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown, "certificates are verified")
}

// What is trusted of one server is trusted of no other, nor of the same at another
// port.
func TestTrustOfOneServer(t *testing.T) {
	first, second := httptest.NewTLSServer(says("first")), httptest.NewTLSServer(says("second"))
	defer first.Close()
	defer second.Close()
	trust := first.Client().Transport.(*http.Transport).TLSClientConfig
	c := client(t, egress.Config{Policy: egress.Policy{Private: true}, Servers: map[string]*tls.Config{first.Listener.Addr().String(): trust}})
	body, err := get(t, c, first.URL)
	require.NoError(t, err)
	require.Equal(t, "first", body)
	_, err = get(t, c, second.URL)
	var unknown *tls.CertificateVerificationError
	require.ErrorAs(t, err, &unknown)
}

func TestEnvironmentProxyIsNotUsed(t *testing.T) {
	var proxied atomic.Int32
	proxy := serve(t, func(http.ResponseWriter, *http.Request) { proxied.Add(1) })
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	// net/http never uses a proxy for loopback, hence a name.
	resolver := nameserver.Start(t, map[string][][]string{"far.test": {{"127.0.0.1"}}})
	s := serve(t, says("direct"))
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	content, err := get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}, Resolver: resolver}), "http://far.test:"+u.Port())
	require.NoError(t, err)
	require.Equal(t, "direct", content)
	require.Zero(t, proxied.Load())
}

func zipped(t *testing.T, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func TestBodies(t *testing.T) {
	const limit = 1 << 20
	encoded := func(encoding string, content []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", encoding)
			_, _ = w.Write(content)
		}
	}
	endless := func(header string, chunk []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if header != "" {
				w.Header().Set("Content-Encoding", header)
			}
			for r.Context().Err() == nil {
				_, _ = w.Write(chunk)
			}
		}
	}
	text := bytes.Repeat([]byte("abcd"), limit/4)
	tests := map[string]struct {
		handle http.HandlerFunc
		want   int
		fails  error
		text   string
	}{
		"at the limit":       {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(text) }, limit, nil, ""},
		"announces too much": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", fmt.Sprint(limit+1)) }, 0, egress.ErrTooLarge, "1048577 bytes, limit 1048576"},
		"without end":        {endless("", make([]byte, 4096)), 0, egress.ErrTooLarge, "more than 1048576"},
		"gzip":               {encoded("gzip", zipped(t, text)), limit, nil, ""},
		"gzip of nothing":    {encoded("gzip", nil), 0, nil, ""},
		"bomb":               {encoded("GZIP", zipped(t, make([]byte, 4*limit))), 0, egress.ErrTooLarge, "after decoding"},
		"members of nothing": {endless("gzip", zipped(t, nil)), 0, egress.ErrTooLarge, "more than 1048576 bytes"},
		"gzip, cut off":      {encoded("gzip", zipped(t, text)[:50]), 0, io.ErrUnexpectedEOF, ""},
		"not gzip":           {encoded("gzip", []byte("plain text, plain text")), 0, gzip.ErrHeader, "decode"},
		"other encoding":     {encoded("br", text[:10]), 0, nil, `encoded as "br"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := client(t, egress.Config{Policy: egress.Policy{Private: true}, MaxBody: limit, Decode: true})
			content, err := get(t, c, serve(t, tt.handle).URL)
			if tt.fails != nil {
				require.ErrorIs(t, err, tt.fails)
			}
			if tt.fails != nil || tt.text != "" {
				require.ErrorContains(t, err, tt.text)
				return
			}
			require.NoError(t, err)
			require.Len(t, content, tt.want)
		})
	}
	t.Run("left as it is", func(t *testing.T) {
		content, err := get(t, client(t, egress.Config{Policy: egress.Policy{Private: true}}), serve(t, encoded("gzip", zipped(t, text))).URL)
		require.NoError(t, err)
		require.Equal(t, string(zipped(t, text)), content)
	})
}

// A server that stalls is given up, in the header and in the body.
func TestSlowServers(t *testing.T) {
	for name, sent := range map[string]string{"header": "", "body": "ten bytes!"} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if sent != "" {
					_, _ = io.WriteString(w, sent)
					w.(http.Flusher).Flush()
				}
				<-r.Context().Done()
			})
			c := client(t, egress.Config{Policy: egress.Policy{Private: true}, HeaderTimeout: 50 * time.Millisecond, RateWindow: 50 * time.Millisecond})
			_, err := get(t, c, s.URL)
			require.Error(t, err)
			if sent != "" {
				require.ErrorIs(t, err, egress.ErrTooSlow)
			}
			require.NoError(t, t.Context().Err())
		})
	}
}

// The time that the reader takes is not the server's.
func TestRate(t *testing.T) {
	tests := map[string]struct {
		piece      int
		every, use time.Duration
		slow       bool
	}{
		"fast":                  {4096, 10 * time.Millisecond, 0, false},
		"just fast enough":      {1200, time.Second, 0, false},
		"drips":                 {100, time.Second, 0, true},
		"stalls":                {4096, time.Minute, 0, true},
		"the reader takes ages": {100, 0, time.Hour, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				from := &dripping{piece: tt.piece, every: tt.every, left: 50, ctx: ctx}
				b := egress.WatchedBody(ctx, from, cancel, 1<<30, 1<<10, 10*time.Second)
				var err error
				buffer := make([]byte, 1<<20)
				for err == nil {
					_, err = b.Read(buffer)
					time.Sleep(tt.use)
				}
				if tt.slow {
					require.ErrorIs(t, err, egress.ErrTooSlow)
				} else {
					require.ErrorIs(t, err, io.EOF)
				}
				require.NoError(t, b.Close())
			})
		})
	}
}

type dripping struct {
	piece, left int
	every       time.Duration
	ctx         context.Context
}

func (d *dripping) Read(p []byte) (int, error) {
	if d.left--; d.left < 0 {
		return 0, io.EOF
	}
	select {
	case <-time.After(d.every):
		return min(d.piece, len(p)), nil
	case <-d.ctx.Done():
		return 0, errors.New("the connection was closed")
	}
}

func (d *dripping) Close() error { return nil }
