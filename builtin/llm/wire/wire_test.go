package wire_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/builtin/llm/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, cfg wire.Config) *http.Client {
	c := wire.NewClient(cfg)
	t.Cleanup(c.CloseIdle)
	return c.HTTP()
}

func post(t *testing.T, c *http.Client, url string, body io.Reader) (*http.Response, *wire.Error) {
	t.Helper()
	ctx, failure := wire.Keep(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, body)
	require.NoError(t, err)
	resp, err := c.Do(req)
	if err == nil {
		t.Cleanup(func() { resp.Body.Close() })
		return resp, nil
	}
	var failed *wire.Error
	require.ErrorAs(t, failure(err), &failed)
	return nil, failed
}

// raw serves connections by hand.
func raw(t *testing.T, serve func(net.Conn)) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serve(c)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "http://" + l.Addr().String()
}

// A request that did not leave us whole was carried out by nobody.
func TestUnsentRequest(t *testing.T) {
	url := raw(t, func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 100)) // of 64 MiB
		_ = c.(*net.TCPConn).SetLinger(0)
	})
	_, failed := post(t, client(t, wire.Config{}), url, bytes.NewReader(make([]byte, 64<<20)))
	require.False(t, failed.Lost)
	require.True(t, failed.Retry)
}

// One that did may have been carried out, whatever happens then.
func TestSentRequest(t *testing.T) {
	for name, answer := range map[string]string{
		"closed":     "",
		"in a head":  "HTTP/1.1 200 OK\r\nContent-",
		"no HTTP":    "SSH-2.0-OpenSSH\r\n\r\n",
		"a bad size": "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
	} {
		url := raw(t, func(c net.Conn) {
			head := make([]byte, 4096)
			for n := 0; !bytes.HasSuffix(head[:n], []byte("\r\n\r\n{}")); {
				m, err := c.Read(head[n:])
				if err != nil {
					return
				}
				n += m
			}
			_, _ = io.WriteString(c, answer)
		})
		_, failed := post(t, client(t, wire.Config{}), url, strings.NewReader("{}"))
		require.True(t, failed.Lost, name)
		require.True(t, failed.Retry, name)
		require.Zero(t, failed.Status, name)
	}
}

// net/http repeats requests by itself that carry a certain header. Not here.
func TestNotRepeated(t *testing.T) {
	requests := 0
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if requests++; requests == 2 {
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	c := client(t, wire.Config{})
	for i := range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL, strings.NewReader("{}"))
		require.NoError(t, err)
		req.Header.Set("Idempotency-Key", "1")
		resp, err := c.Do(req)
		if i == 0 {
			require.NoError(t, err)
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			continue
		}
		var failed *wire.Error
		require.ErrorAs(t, err, &failed)
		require.True(t, failed.Lost)
	}
	s.CloseClientConnections()
	require.Equal(t, 2, requests)
}

// The size of an answer is bounded, also of one that was small while it was
// compressed.
func TestLargeAnswer(t *testing.T) {
	var small bytes.Buffer
	z := gzip.NewWriter(&small)
	_, err := z.Write(make([]byte, 10<<20))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(small.Bytes())
			return
		}
		_, _ = w.Write(make([]byte, 10<<20))
	}))
	defer s.Close()
	for _, path := range []string{"/", "/gzip"} {
		resp, failed := post(t, client(t, wire.Config{MaxBody: 1 << 20}), s.URL+path, nil)
		require.Nil(t, failed)
		body, err := io.ReadAll(resp.Body)
		require.ErrorAs(t, err, &failed)
		require.Contains(t, failed.Message, "the answer is larger than 1048576 bytes")
		require.True(t, failed.Lost)
		require.False(t, failed.Retry)
		require.LessOrEqual(t, len(body), 1<<20+1)
		_, again := resp.Body.Read(make([]byte, 1))
		require.Equal(t, err, again)
	}
	resp, failed := post(t, client(t, wire.Config{MaxBody: 10 << 20}), s.URL, nil)
	require.Nil(t, failed)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Len(t, body, 10<<20)
}

func TestRetryAfter(t *testing.T) {
	for header, want := range map[[2]string]time.Duration{
		{"Retry-After", "2"}:                             2 * time.Second,
		{"Retry-After", "0.5"}:                           500 * time.Millisecond,
		{"Retry-After-Ms", "1500"}:                       1500 * time.Millisecond,
		{"Retry-After", "Mon, 02 Jan 2006 15:04:05 GMT"}: 0,
		{"Retry-After", "-1"}:                            -1,
		{"Retry-After", "NaN"}:                           -1,
		{"Retry-After", "1e300"}:                         -1,
		{"Retry-After", "soon"}:                          -1,
		{"X", "1"}:                                       -1,
	} {
		e := wire.StatusError(429, http.Header{header[0]: {header[1]}}, nil)
		require.Equal(t, want, e.RetryAfter, header)
	}
	later := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	e := wire.StatusError(429, http.Header{"Retry-After": {later}}, nil)
	require.InDelta(t, time.Hour, e.RetryAfter, float64(time.Minute))
}

// A request that is canceled says whether it had left, even through a library
// that only says that it was canceled.
func TestKeep(t *testing.T) {
	release := make(chan struct{})
	arrived := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(arrived)
		<-release
	}))
	defer s.Close()
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	kept, failure := wire.Keep(ctx)
	req, err := http.NewRequestWithContext(kept, http.MethodPost, s.URL, strings.NewReader("{}"))
	require.NoError(t, err)
	go func() {
		<-arrived
		cancel()
	}()
	_, err = client(t, wire.Config{}).Do(req)
	require.Error(t, err)
	var failed *wire.Error
	require.ErrorAs(t, failure(context.Canceled), &failed)
	require.True(t, failed.Lost)
	require.False(t, failed.Retry)
	require.ErrorIs(t, failed, context.Canceled)
	require.NoError(t, failure(nil))
	_, failure = wire.Keep(t.Context())
	require.ErrorContains(t, failure(errors.New("odd")), "the request could not be made: odd")
}

func FuzzStatusError(f *testing.F) {
	f.Add(429, `{"error":{"message":"m","type":"t","code":null}}`, "application/json", "1")
	f.Add(502, "<html><title>x", "text/html", "")
	f.Add(422, `{"detail":[{"msg":"m"}]}`, "", "-1")
	f.Fuzz(func(t *testing.T, status int, body, kind, after string) {
		e := wire.StatusError(status, http.Header{"Content-Type": {kind}, "Retry-After": {after}}, []byte(body))
		require.NotEmpty(t, e.Message)
		require.LessOrEqual(t, len(e.Message), 25000) // escapes make an excerpt longer
		for _, r := range e.Message {
			require.False(t, r < ' ' && r != '\t', "%q", e.Message)
		}
		require.NotContains(t, fmt.Sprint(wire.StreamError([]byte(body))), "\n")
	})
}
