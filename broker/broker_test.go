package broker_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/nameserver"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-0123456789abcdef" // a secret

// A world is servers, names for them, and a policy.
type world struct {
	t         *testing.T
	server    *httptest.Server // with TLS
	plain     *httptest.Server
	resolver  *net.Resolver
	port      string // of server
	plainPort string
	tls       *tls.Config
	policy    *policy.Policy
	visits    atomic.Int64
	log       *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// newWorld makes one with a server, and more names with their addresses.
func newWorld(t *testing.T, handle http.HandlerFunc, names ...map[string][][]string) *world {
	w := &world{t: t, log: &safeBuffer{}}
	answers := map[string][][]string{
		"api.example.com": {{"127.0.0.1"}}, "other.example.com": {{"127.0.0.1"}}, "example.com": {{"127.0.0.1"}},
	}
	for _, more := range names {
		maps.Copy(answers, more)
	}
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.visits.Add(1)
		handle(rw, r)
	})
	w.server, w.plain = httptest.NewTLSServer(handler), httptest.NewServer(handler)
	t.Cleanup(w.server.Close)
	t.Cleanup(w.plain.Close)
	_, w.port, _ = net.SplitHostPort(w.server.Listener.Addr().String())
	_, w.plainPort, _ = net.SplitHostPort(w.plain.Listener.Addr().String())
	roots := x509.NewCertPool()
	roots.AddCert(w.server.Certificate())
	w.tls = &tls.Config{RootCAs: roots} // whose certificate is for example.com and what is below it
	w.resolver = nameserver.Start(t, answers)
	w.allow(`{"Secrets": {"key": {"Value": "` + key + `", "For": ["https://api.example.com:` + w.port + `", "http://127.0.0.1:` + w.plainPort + `"]}},
		"Tenants": {"acme": {"Secrets": {"key": {"Value": "acme-0123456789", "For": ["https://api.example.com:` + w.port + `"]}}},
			"strict": {"Permissions": ["http https://api.example.com:` + w.port + `/v1", "address 127.0.0.1"]}}}`)
	return w
}

func (w *world) allow(text string) {
	p, err := policy.Parse([]byte(text), func(s string) (string, error) { return s, nil })
	require.NoError(w.t, err)
	w.policy = p
}

// provider has grants, in which {port} and {plain} stand for the servers'.
func (w *world) provider(limits broker.Limits, grants ...string) *broker.Provider {
	for i := range grants {
		grants[i] = strings.NewReplacer("{port}", w.port, "{plain}", w.plainPort).Replace(grants[i])
	}
	g, err := policy.ParseGrants(grants)
	require.NoError(w.t, err)
	p := broker.New(broker.Config{
		Name: "test", Grants: g, Limits: limits, Tenant: w.policy.Tenant, TLS: w.tls, Resolver: w.resolver,
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	w.t.Cleanup(p.Close)
	return p
}

// url makes one of a host, and of a path on it.
func (w *world) url(host, path string) string { return "https://" + host + ":" + w.port + path }

func get(url string) hostfuncs.Request {
	return hostfuncs.Request{Method: "GET", URL: url, Redirects: 3, Header: map[string][]string{}}
}

func with(r hostfuncs.Request, name, value string) hostfuncs.Request {
	r.Header[name] = append(r.Header[name], value)
	return r
}

// fetch makes a request and returns the whole response.
func fetch(t *testing.T, b hostfuncs.Broker, r hostfuncs.Request) (*hostfuncs.Response, string, error) {
	t.Helper()
	res, err := b.Fetch(t.Context(), r)
	if err != nil {
		return nil, "", err
	}
	body, err := io.ReadAll(res.Body)
	require.NoError(t, res.Body.Close())
	return res, string(body), err
}

// echo shows what it got.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	fmt.Fprintf(w, "%s %s %s auth=%q cookie=%q x=%q body=%q", r.Method, r.Host, r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("Cookie"), r.Header.Get("X-Key"), body)
}

// S23: a guest asks for what was granted, and gets nothing else; what would
// have permitted it is said.
func TestS23Permissions(t *testing.T) {
	w := newWorld(t, echo)
	p := w.provider(broker.Limits{}, "http GET,POST https://api.example.com:{port}/v1", "address 127.0.0.1", "call LLM")
	account := beacon.NewAccount(nil)
	b := p.Job(&beacon.Job{Account: account})
	_, body, err := fetch(t, b, get(w.url("api.example.com", "/v1/x?q=1")))
	require.NoError(t, err)
	require.Contains(t, body, "GET api.example.com:"+w.port+" /v1/x")
	r := get(w.url("api.example.com", "/v1"))
	r.Method, r.Body, r.BodyLength = "POST", io.NopCloser(strings.NewReader("hello")), 5
	_, body, err = fetch(t, b, with(r, "content-type", "text/plain"))
	require.NoError(t, err)
	require.Contains(t, body, `body="hello"`)
	s := account.Statement()
	require.Equal(t, []string{"http GET,POST https://api.example.com:" + w.port + "/v1"}, s.Permissions)
	require.Equal(t, []string{"api.example.com:" + w.port}, s.Hosts)
	require.EqualValues(t, 5, s.Usage.Sent)
	require.Greater(t, s.Usage.Received, int64(100))

	visits := w.visits.Load()
	for name, tt := range map[string]struct {
		r    hostfuncs.Request
		code beacon.Code
		want string
	}{
		"path":       {get(w.url("api.example.com", "/v2")), beacon.Denied, `grant "http GET https://api.example.com:` + w.port + `"`},
		"dots":       {get(w.url("api.example.com", "/v1/../v2")), beacon.Denied, "is not permitted"},
		"encoded":    {get(w.url("api.example.com", "/v1/%2e%2e/v2")), beacon.Denied, "is not permitted"},
		"slashes":    {get(w.url("api.example.com", "/v1%2f..%2fv2")), beacon.Denied, "is not permitted"},
		"host":       {get(w.url("other.example.com", "/v1")), beacon.Denied, "other.example.com"},
		"below":      {get(w.url("x.api.example.com", "/v1")), beacon.Denied, "is not permitted"},
		"port":       {get("https://api.example.com/v1"), beacon.Denied, "is not permitted"},
		"clear text": {get("http://api.example.com:" + w.port + "/v1"), beacon.Denied, "is not permitted"},
		"address":    {get(w.url("127.0.0.1", "/v1")), beacon.Denied, "is not permitted"},
		"user":       {get("https://api.example.com@127.0.0.1:" + w.port + "/v1"), beacon.Invalid, "a user in it"},
		"user, host": {get("https://u:p@api.example.com:" + w.port + "/v1"), beacon.Invalid, "a user in it"},
		"fragment":   {get(w.url("api.example.com", "/v1#x")), beacon.Invalid, "fragment"},
		"unicode":    {get("https://apı.example.com:" + w.port + "/v1"), beacon.Denied, "Punycode"},
		"file":       {get("file:///etc/passwd"), beacon.Denied, "only http and https"},
		"gopher":     {get("gopher://api.example.com/v1"), beacon.Denied, "only http and https"},
		"no URL":     {get("::"), beacon.Invalid, "not one"},
		"relative":   {get("/v1"), beacon.Denied, "only http and https"},
		"empty":      {get(""), beacon.Denied, "only http and https"},
		"line":       {get(w.url("api.example.com", "/v1\r\nHost: x")), beacon.Invalid, "not one"},
		"method":     {func() hostfuncs.Request { r := get(w.url("api.example.com", "/v1")); r.Method = "DELETE"; return r }(), beacon.Denied, `grant "http DELETE`},
		"lower case": {func() hostfuncs.Request { r := get(w.url("api.example.com", "/v1")); r.Method = "get"; return r }(), beacon.Invalid, "in capitals"},
		"smuggled": {func() hostfuncs.Request {
			r := get(w.url("api.example.com", "/v1"))
			r.Method = "GET / HTTP/1.1\r\nX:"
			return r
		}(), beacon.Invalid, "in capitals"},
		"connect":     {func() hostfuncs.Request { r := get(w.url("api.example.com", "/v1")); r.Method = "CONNECT"; return r }(), beacon.Invalid, "in capitals"},
		"Host":        {with(get(w.url("api.example.com", "/v1")), "host", "inside"), beacon.Invalid, "cannot be set"},
		"override":    {with(get(w.url("api.example.com", "/v1")), "X-HTTP-Method-Override", "DELETE"), beacon.Invalid, "cannot be set"},
		"upgrade":     {with(get(w.url("api.example.com", "/v1")), "Upgrade", "websocket"), beacon.Invalid, "cannot be set"},
		"chunked":     {with(get(w.url("api.example.com", "/v1")), "Transfer-Encoding", "chunked"), beacon.Invalid, "cannot be set"},
		"header name": {with(get(w.url("api.example.com", "/v1")), "X Y", "a"), beacon.Invalid, "cannot be set"},
		"header line": {with(get(w.url("api.example.com", "/v1")), "X", "a\r\nHost: b"), beacon.Invalid, "cannot be sent"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := fetch(t, b, tt.r)
			require.Equal(t, tt.code, beacon.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, tt.want)
			require.Equal(t, beacon.Excerpt(err.Error(), 4096), err.Error(), "S24")
		})
	}
	require.Equal(t, visits, w.visits.Load(), "none of them arrived")

	_, _, err = fetch(t, w.provider(broker.Limits{}).Job(&beacon.Job{}), get(w.url("api.example.com", "/v1")))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err), "without grants there is nothing")
}

// S23: whatever loopback is called, no connection is made; what a name leads to
// is not told to the guest.
func TestS23SSRF(t *testing.T) {
	w := newWorld(t, echo, map[string][][]string{
		"inside.test": {{"127.0.0.1"}}, "any.test": {{"0.0.0.0"}}, "metadata.test": {{"169.254.169.254"}}, "ten.test": {{"10.9.8.7"}},
		"mapped.test": {{"::ffff:127.0.0.1"}}, "six.test": {{"::1"}}, "nat64.test": {{"64:ff9b::7f00:1"}}, "mixed.test": {{"127.0.0.1", "::1"}}, "ula.test": {{"fd00::1"}},
	})
	var connections atomic.Int64
	listener, err := net.Listen("tcp", ":0") // on every address of this machine
	require.NoError(t, err)
	var task sync.WaitGroup
	task.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			conn.Close()
		}
	})
	t.Cleanup(func() { listener.Close(); task.Wait() })
	_, port, err := net.SplitHostPort(listener.Addr().String())
	require.NoError(t, err)
	// A provider that may ask every host there is still gets to public addresses
	// only.
	b := w.provider(broker.Limits{}, "http * *://*:*").Job(&beacon.Job{})
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "[::]", "[::1]", "[::1%25lo]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
		"[64:ff9b::7f00:1]", "[2002:7f00:1::]", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0", "127.0.0.1.",
		"127。0。0。1", "①②⑦.⓪.⓪.①", "169.254.169.254", "[fe80::1]", "10.0.0.1", "192.168.0.1", "[fd00:ec2::254]",
		"inside.test", "inside.test.", "any.test", "metadata.test", "ten.test", "mapped.test", "six.test", "nat64.test", "mixed.test", "ula.test",
	} {
		_, _, err := fetch(t, b, get("http://"+host+":"+port+"/?token=x"))
		require.NotEmpty(t, beacon.CodeOf(err), host)
		codes := []beacon.Code{beacon.Denied}
		if strings.Contains(host, ":") || strings.Contains("localhost mapped.test six.test nat64.test ula.test", strings.ToLower(host)) {
			codes = append(codes, beacon.Unreachable) // a machine may have neither IPv6 nor that name
		}
		require.Contains(t, codes, beacon.CodeOf(err), "%s: %v", host, err)
		require.NotContains(t, err.Error(), "token")
		if strings.HasSuffix(host, ".test") {
			for _, address := range []string{"127.0.0.1", "10.9.8.7", "::1", "169.254"} {
				require.NotContains(t, err.Error(), address, "where a name leads to is the operator's to know")
			}
		}
	}
	require.Zero(t, connections.Load())
	require.Contains(t, w.log.String(), "10.9.8.7", "who is told")

	// Granted by address, each of them and no other.
	_, body, err := fetch(t, w.provider(broker.Limits{}, "http http://127.0.0.1:{plain}").Job(&beacon.Job{}), get("http://127.0.0.1:"+w.plainPort+"/x"))
	require.NoError(t, err)
	require.Contains(t, body, "GET 127.0.0.1")
	_, _, err = fetch(t, w.provider(broker.Limits{}, "http http://127.0.0.1:{plain}", "http *:*").Job(&beacon.Job{}), get("http://inside.test:"+port+"/x"))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err), "a name that leads to a granted address is not granted, nor are its other ports")
	_, _, err = fetch(t, w.provider(broker.Limits{}, "http http://inside.test:{plain}", "address 127.0.0.0/8").Job(&beacon.Job{}), get("http://inside.test:"+w.plainPort+"/x"))
	require.NoError(t, err)
	_, _, err = fetch(t, w.provider(broker.Limits{}, "http http://ten.test:{plain}", "address 127.0.0.0/8").Job(&beacon.Job{}), get("http://ten.test:"+w.plainPort+"/x"))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	_, _, err = fetch(t, w.provider(broker.Limits{}, "http http://metadata.test:{plain}", "address 0.0.0.0/0").Job(&beacon.Job{}), get("http://metadata.test:"+w.plainPort+"/x"))
	require.ErrorContains(t, err, "never requested")
}

// S23: the answer of the DNS that is checked is the one that is dialled.
func TestS23Rebinding(t *testing.T) {
	// The first answer is one that may be reached and is not there, the second is
	// the server, which may not be reached.
	w := newWorld(t, echo, map[string][][]string{"rebind.test": {{"127.0.0.3"}, {"127.0.0.1"}}})
	b := w.provider(broker.Limits{}, "http http://rebind.test:{plain}", "address 127.0.0.3").Job(&beacon.Job{})
	for range 6 {
		_, _, err := fetch(t, b, get("http://rebind.test:"+w.plainPort+"/"))
		require.Contains(t, []beacon.Code{beacon.Denied, beacon.Unreachable}, beacon.CodeOf(err), "%v", err)
	}
	require.Zero(t, w.visits.Load())
}

// S23: every hop is checked, and credentials stay with the origin that they are
// for.
func TestS23Redirects(t *testing.T) {
	var w *world
	w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/v1/same":      "/v1/end",
			"/v1/out":       "/v2/secret",
			"/v1/other":     w.url("other.example.com", "/v1/end"),
			"/v1/loopback":  "https://127.0.0.1:" + w.port + "/v1/end",
			"/v1/plain":     "http://api.example.com:" + w.plainPort + "/v1/end",
			"/v1/metadata":  "http://169.254.169.254/latest/meta-data",
			"/v1/file":      "file:///etc/passwd",
			"/v1/user":      "https://u:p@api.example.com:" + w.port + "/v1/end",
			"/v1/loop":      "/v1/loop",
			"/v1/leak":      "/v1/end?key=" + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
			"/v1/leak-out":  "/v2/" + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
			"/v1/leak-host": "https://" + strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") + ".example.org/",
		}[r.URL.Path]
		if to == "" {
			echo(rw, r)
			return
		}
		rw.Header().Set("Location", to)
		rw.WriteHeader(http.StatusTemporaryRedirect)
	})
	p := w.provider(broker.Limits{}, "http https://*.example.com:{port}/v1", "address 127.0.0.1", "secret key")
	b := p.Job(&beacon.Job{})
	ask := func(path string) hostfuncs.Request {
		return with(with(with(get(w.url("api.example.com", path)), "Authorization", "Bearer {{secret:key}}"), "Cookie", "a=b"), "X-Key", "x")
	}
	_, body, err := fetch(t, b, ask("/v1/same"))
	require.NoError(t, err)
	require.Contains(t, body, `/v1/end auth="Bearer *******************" cookie="a=b" x="x"`, "the same origin gets it, and what it says again is starred out")
	_, body, err = fetch(t, b, ask("/v1/other"))
	require.NoError(t, err)
	require.Contains(t, body, `auth="" cookie="" x=""`)
	res, _, err := fetch(t, b, ask("/v1/user"))
	require.NoError(t, err)
	require.Equal(t, w.url("api.example.com", "/v1/end"), res.URL)
	for path, want := range map[string]string{
		"/v1/out": "is not among what", "/v1/loopback": "is not among what", "/v1/plain": "from https to http", "/v1/metadata": "from https to http",
		"/v1/file": "from https to http", "/v1/loop": "more than 3 redirects", "/v1/leak-out": "is not among what", "/v1/leak-host": "is not among what",
	} {
		_, _, err := fetch(t, b, ask(path))
		require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%s: %v", path, err)
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), key)
	}
	// Not followed, a redirect is a response, without the secret that is in it.
	r := ask("/v1/leak")
	r.Redirects = 0
	res, _, err = fetch(t, b, r)
	require.NoError(t, err)
	require.Equal(t, http.StatusTemporaryRedirect, res.Status)
	require.Equal(t, "/v1/end?key="+strings.Repeat("*", len(key)), res.Header["Location"][0])
	res, _, err = fetch(t, b, ask("/v1/leak"))
	require.NoError(t, err)
	require.Equal(t, w.url("api.example.com", "/v1/end?key="+strings.Repeat("*", len(key))), res.URL)
}

// S26: secrets go where they are for, and nowhere else.
func TestS26Secrets(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		rw.Header().Set("X-Encoding", r.Header.Get("Accept-Encoding"))
		echo(rw, r)
	})
	grants := []string{"http *://*.example.com:*", "http http://127.0.0.1:{plain}", "address 127.0.0.1", "secret key", "secret gone"}
	b := w.provider(broker.Limits{}, grants...).Job(&beacon.Job{})
	require.True(t, b.HasSecret("key"))
	require.False(t, b.HasSecret("gone"), "granted, but there is none")
	require.False(t, b.HasSecret("other"))
	require.False(t, w.provider(broker.Limits{}, "http https://api.example.com:{port}").Job(&beacon.Job{}).HasSecret("key"), "not granted")

	var got string // by the last request
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		got = r.Header.Get("Authorization")
		rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		rw.Header().Set("X-Encoding", r.Header.Get("Accept-Encoding"))
		echo(rw, r)
	})
	api := w.url("api.example.com", "/")
	res, body, err := fetch(t, b, with(with(get(api), "Authorization", "Bearer {{secret:key}} {{secret:key}}"), "Accept-Encoding", "gzip"))
	require.NoError(t, err)
	require.Equal(t, "Bearer "+key+" "+key, got)
	stars := strings.Repeat("*", len(key))
	require.Equal(t, "Bearer "+stars+" "+stars, res.Header["X-Echo"][0])
	require.Equal(t, "identity", res.Header["X-Encoding"][0])
	require.Contains(t, body, stars)
	require.NotContains(t, body, key)
	_, _, err = fetch(t, b, with(get("http://127.0.0.1:"+w.plainPort), "Authorization", "{{secret:key}}"))
	require.NoError(t, err, "in clear text, where that is said")

	for name, tt := range map[string]struct {
		r    hostfuncs.Request
		code beacon.Code
		want string
	}{
		"other host":   {with(get(w.url("other.example.com", "/")), "Authorization", "{{secret:key}}"), beacon.Denied, "is not for https://other.example.com"},
		"clear text":   {with(get("http://api.example.com:"+w.port), "Authorization", "{{secret:key}}"), beacon.Denied, "is not for http://api.example.com"},
		"other port":   {with(get("https://api.example.com:9"), "Authorization", "{{secret:key}}"), beacon.Denied, "is not for"},
		"not granted":  {with(get(api), "Authorization", "{{secret:other}}"), beacon.Denied, `grant "secret other"`},
		"none":         {with(get(api), "Authorization", "{{secret:gone}}"), beacon.Denied, "there is no secret gone"},
		"not closed":   {with(get(api), "Authorization", "{{secret:key"), beacon.Invalid, "without }}"},
		"no name":      {with(get(api), "Authorization", "{{secret:}}"), beacon.Denied, "not permitted"},
		"nested":       {with(get(api), "Authorization", "{{secret:{{secret:key}}}}"), beacon.Denied, "not permitted"},
		"carried away": {with(get(api), "User-Agent", "{{secret:key}}"), beacon.Invalid, "cannot carry a secret"},
	} {
		t.Run(name, func(t *testing.T) {
			got = ""
			_, _, err := fetch(t, b, tt.r)
			require.Equal(t, tt.code, beacon.CodeOf(err), "%v", err)
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), key)
			require.Empty(t, got)
		})
	}
	// Not in a URL, not in the name of a header, not in a body.
	_, body, err = fetch(t, b, get(api+"{{secret:key}}"))
	require.NoError(t, err)
	require.Contains(t, body, "/{{secret:key}}")
	_, _, err = fetch(t, b, with(get(api), "{{secret:key}}", "x"))
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	r := get(api)
	r.Method, r.Body, r.BodyLength = "GET", io.NopCloser(strings.NewReader("{{secret:key}}")), -1
	_, body, err = fetch(t, b, r)
	require.NoError(t, err)
	require.Contains(t, body, `body="{{secret:key}}"`)
	require.NotContains(t, w.log.String(), key)
}

// S26: a redirect takes a secret no further than it is for, not even on its own
// server; what has left the server has it no more.
func TestS26SecretsOfAPath(t *testing.T) {
	var w *world
	var got []string
	w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		got = append(got, r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/a/inside":
			http.Redirect(rw, r, "/a/end", http.StatusFound)
		case "/a/outside":
			http.Redirect(rw, r, "/b/end", http.StatusFound)
		case "/a/away":
			http.Redirect(rw, r, w.url("other.example.com", "/b/end"), http.StatusFound)
		}
	})
	w.allow(`{"Secrets": {"key": {"Value": "0123456789", "For": ["https://api.example.com:` + w.port + `/a"]},
		"long": {"Value": "0123456789abcdef", "For": ["https://api.example.com:` + w.port + `/a"]}}}`)
	b := w.provider(broker.Limits{}, "http https://*.example.com:{port}", "address 127.0.0.1", "secret key", "secret long").Job(&beacon.Job{})
	ask := func(path string) error {
		got = nil
		_, _, err := fetch(t, b, with(get(w.url("api.example.com", path)), "Authorization", "{{secret:key}}"))
		return err
	}
	require.NoError(t, ask("/a/inside"))
	require.Equal(t, []string{"/a/inside 0123456789", "/a/end 0123456789"}, got)
	err := ask("/a/outside")
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	require.ErrorContains(t, err, "the secret key is not for https://api.example.com:"+w.port+"/b/end")
	require.Equal(t, []string{"/a/outside 0123456789"}, got)
	require.NoError(t, ask("/a/away"))
	require.Equal(t, []string{"/a/away 0123456789", "/b/end "}, got)
	require.Equal(t, beacon.Denied, beacon.CodeOf(ask("/b/end")))

	// One that is a part of another one leaves nothing of that to be seen.
	w.server.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, r.Header.Get("A")+" "+r.Header.Get("B"))
	})
	for range 10 {
		_, body, err := fetch(t, b, with(with(get(w.url("api.example.com", "/a/x")), "A", "{{secret:key}}"), "B", "{{secret:long}}"))
		require.NoError(t, err)
		require.Equal(t, "********** ****************", body)
	}
}

// What is one tenant's is never another's: secrets, connections, permissions.
func TestTenants(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.RemoteAddr+" "+r.Header.Get("Authorization"))
		mu.Unlock()
	})
	p := w.provider(broker.Limits{}, "http https://api.example.com:{port}", "http https://other.example.com:{port}", "address 127.0.0.0/8", "secret key")
	for _, tenant := range []string{"", "acme", "acme", "default"} {
		_, _, err := fetch(t, p.Job(&beacon.Job{Tenant: tenant}), with(get(w.url("api.example.com", "/")), "Authorization", "{{secret:key}}"))
		require.NoError(t, err)
	}
	connection := func(n int) string { c, _, _ := strings.Cut(seen[n], " "); return c }
	require.Equal(t, connection(1), connection(2), "a connection is kept")
	require.Equal(t, connection(0), connection(3))
	require.NotEqual(t, connection(0), connection(1), "but not for another tenant")
	require.Contains(t, seen[0], key)
	require.Contains(t, seen[1], "acme-0123456789")

	// The tenant's ceiling counts beside the provider's grants.
	strict := p.Job(&beacon.Job{Tenant: "strict"})
	_, _, err := fetch(t, strict, get(w.url("api.example.com", "/v1/x")))
	require.NoError(t, err)
	for _, url := range []string{w.url("api.example.com", "/v2"), w.url("other.example.com", "/v1")} {
		_, _, err = fetch(t, strict, get(url))
		require.ErrorContains(t, err, "not among the Permissions of the tenant")
	}
	require.False(t, strict.HasSecret("key"))
	_, err = strict.Call(t.Context(), beacon.Call{Capability: "LLM"})
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	_, _, err = fetch(t, p.Job(&beacon.Job{Tenant: "nobody"}), get(w.url("api.example.com", "/v1")))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
}

func TestS23Limits(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		if r.URL.Path == "/big" {
			_, _ = rw.Write(make([]byte, 100_000))
		}
	})
	grants := []string{"http * https://api.example.com:{port}", "address 127.0.0.1"}
	b := w.provider(broker.Limits{Requests: 3}, grants...).Job(&beacon.Job{})
	for range 3 {
		_, _, err := fetch(t, b, get(w.url("api.example.com", "/")))
		require.NoError(t, err)
	}
	_, _, err := fetch(t, b, get(w.url("api.example.com", "/")))
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err))
	require.ErrorContains(t, err, "more than 3 requests")

	b = w.provider(broker.Limits{Received: 150_000}, grants...).Job(&beacon.Job{})
	_, _, err = fetch(t, b, get(w.url("api.example.com", "/big")))
	require.NoError(t, err)
	_, body, err := fetch(t, b, get(w.url("api.example.com", "/big")))
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err))
	require.Less(t, len(body), 60_000)
	b = w.provider(broker.Limits{Sent: 1000}, grants...).Job(&beacon.Job{})
	post := func(n int) error {
		r := get(w.url("api.example.com", "/"))
		r.Method, r.Body, r.BodyLength = "POST", io.NopCloser(strings.NewReader(strings.Repeat("x", n))), -1
		_, _, err := fetch(t, b, r)
		return err
	}
	require.NoError(t, post(900))
	err = post(200)
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "more than 1000 bytes sent")

	// A response that says that it is too large is not read at all.
	b = w.provider(broker.Limits{Received: 1000}, grants...).Job(&beacon.Job{})
	_, _, err = fetch(t, b, get(w.url("api.example.com", "/big")))
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err))
}

// S23: a certificate that nobody vouches for is no connection.
func TestS23TLSIsVerified(t *testing.T) {
	w := newWorld(t, echo)
	w.tls = nil // the authorities of the system
	b := w.provider(broker.Limits{}, "http https://api.example.com:{port}", "address 127.0.0.1").Job(&beacon.Job{})
	_, _, err := fetch(t, b, get(w.url("api.example.com", "/")))
	require.Equal(t, beacon.Unreachable, beacon.CodeOf(err))
	require.ErrorContains(t, err, "certificate")
	require.Zero(t, w.visits.Load())
}

// S23: what the environment says about proxies is not for guests.
func TestS23NoProxy(t *testing.T) {
	proxied := false
	proxy := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { proxied = true }))
	defer proxy.Close()
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY"} {
		t.Setenv(name, proxy.URL)
	}
	w := newWorld(t, echo)
	b := w.provider(broker.Limits{}, "http *://api.example.com:*", "address 127.0.0.1").Job(&beacon.Job{})
	_, _, err := fetch(t, b, get(w.url("api.example.com", "/")))
	require.NoError(t, err)
	_, _, err = fetch(t, b, get("http://api.example.com:"+w.plainPort))
	require.NoError(t, err)
	require.False(t, proxied)
}

// An exchange ends with its context, and with the tenant's quota it waits.
func TestEnds(t *testing.T) {
	release := make(chan struct{})
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drip" {
			_, _ = rw.Write([]byte("x"))
			if http.NewResponseController(rw).Flush() != nil {
				return
			}
		}
		if r.URL.Path != "/" {
			<-release
		}
	})
	t.Cleanup(func() { close(release) })
	p := w.provider(broker.Limits{}, "http * https://api.example.com:{port}", "address 127.0.0.1")
	over := beacon.Errorf(beacon.Timeout, "over")
	for _, path := range []string{"/hang", "/drip"} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, over)
		defer cancel()
		res, err := p.Job(&beacon.Job{}).Fetch(ctx, get(w.url("api.example.com", path)))
		if err == nil {
			_, err = io.ReadAll(res.Body)
			require.NoError(t, res.Body.Close())
		}
		require.ErrorIs(t, err, over, path)
	}
	_, _, err := fetch(t, p.Job(&beacon.Job{}), get("https://api.example.com:1/"))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	gone := w.provider(broker.Limits{}, "http http://api.example.com:1", "address 127.0.0.1", "http http://nowhere.example.com:1")
	_, _, err = fetch(t, gone.Job(&beacon.Job{}), get("http://api.example.com:1/"))
	require.Equal(t, beacon.Unreachable, beacon.CodeOf(err))
	require.NotContains(t, err.Error(), "127.0.0.1")
	_, _, err = fetch(t, gone.Job(&beacon.Job{}), get("http://nowhere.example.com:1/"))
	require.Equal(t, beacon.Unreachable, beacon.CodeOf(err))

	broke := errors.New("used up")
	_, _, err = fetch(t, p.Job(&beacon.Job{Account: beacon.NewAccount(payer{broke})}), get(w.url("api.example.com", "/")))
	require.ErrorIs(t, err, broke)
}

type payer struct{ err error }

func (payer) Used(beacon.Usage)            {}
func (p payer) Pace(context.Context) error { return p.err }
func (payer) Hold(int64) error             { return nil }

func TestCalls(t *testing.T) {
	var permits []string
	account := beacon.NewAccount(nil)
	p := broker.New(broker.Config{
		Name: "test", Limits: broker.Limits{Depth: 2, Requests: 3},
		Grants: func() policy.Grants { g, _ := policy.ParseGrants([]string{"call LLM/Chat", "call Files"}); return g }(),
		Call: func(_ context.Context, job *beacon.Job, c beacon.Call, permit func(string, string) error) (beacon.Result, error) {
			permits = append(permits, c.Capability+"/"+c.Action)
			if c.Action == "" {
				c.Action = "Default"
			}
			if err := permit(c.Capability, c.Action); err != nil {
				return beacon.Result{}, err
			}
			return beacon.Result{Outputs: beacon.Outputs{"Depth": job.Depth}}, nil
		},
	})
	defer p.Close()
	b := p.Job(&beacon.Job{Account: account, Depth: 1})
	result, err := b.Call(t.Context(), beacon.Call{Capability: "LLM", Action: "Chat"})
	require.NoError(t, err)
	require.Equal(t, 1, result.Outputs["Depth"])
	_, err = b.Call(t.Context(), beacon.Call{Capability: "LLM"})
	require.Equal(t, beacon.Denied, beacon.CodeOf(err), "what it comes to counts")
	require.ErrorContains(t, err, `calling LLM/Default is not permitted: grant "call LLM/Default" to provider test`)
	_, err = b.Call(t.Context(), beacon.Call{Capability: "Files"})
	require.NoError(t, err)
	_, err = b.Call(t.Context(), beacon.Call{Capability: "Files"})
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err))
	require.Equal(t, []string{"call LLM/Chat", "call Files"}, account.Statement().Permissions)
	_, err = p.Job(&beacon.Job{Depth: 2}).Call(t.Context(), beacon.Call{Capability: "Files"})
	require.Equal(t, beacon.CallLimit, beacon.CodeOf(err))
	none := broker.New(broker.Config{})
	_, err = none.Job(&beacon.Job{}).Call(t.Context(), beacon.Call{Capability: "Files\x1b"})
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	require.Len(t, permits, 3)
}

// Calls of one item do not run all at once.
func TestParallelCalls(t *testing.T) {
	var running, most atomic.Int64
	p := broker.New(broker.Config{
		Limits: broker.Limits{Parallel: 2}, Grants: policy.NewGrants(),
		Call: func(context.Context, *beacon.Job, beacon.Call, func(string, string) error) (beacon.Result, error) {
			n := running.Add(1)
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
			time.Sleep(time.Millisecond)
			running.Add(-1)
			return beacon.Result{}, nil
		},
	})
	defer p.Close()
	b := p.Job(&beacon.Job{})
	var tasks sync.WaitGroup
	for range 20 {
		tasks.Go(func() {
			_, err := b.Call(t.Context(), beacon.Call{})
			require.NoError(t, err)
		})
	}
	tasks.Wait()
	require.LessOrEqual(t, most.Load(), int64(2))
}

// What is called asks on behalf of the same item, and what it asks for counts
// as its caller's.
func TestLimitsOfTheItem(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write(make([]byte, 60_000)) })
	account := beacon.NewAccount(nil)
	limits := broker.Limits{Requests: 3, Received: 150_000}
	job := func(depth int) hostfuncs.Broker { // each by a provider of its own
		return w.provider(limits, "http https://api.example.com:{port}", "address 127.0.0.1").Job(&beacon.Job{Account: account, Depth: depth})
	}
	for depth := range 2 {
		_, _, err := fetch(t, job(depth), get(w.url("api.example.com", "/")))
		require.NoError(t, err)
	}
	_, _, err := fetch(t, job(2), get(w.url("api.example.com", "/")))
	require.Equal(t, beacon.WebLimit, beacon.CodeOf(err))
	require.ErrorContains(t, err, "more than 150000 bytes received")
	_, _, err = fetch(t, job(0), get(w.url("api.example.com", "/")))
	require.ErrorContains(t, err, "more than 3 requests")
}
