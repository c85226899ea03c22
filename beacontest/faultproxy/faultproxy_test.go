package faultproxy_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/beacontest/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo answers a request with its body, and on a socket first pushes items 1 to
// 4, then sends back what it gets, then says that the other side is gone.
func echo(t *testing.T) (url string, arrived chan string) {
	arrived = make(chan string, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			body, _ := io.ReadAll(r.Body)
			arrived <- string(body)
			w.Header().Set("X-Seen", r.Header.Get("Cookie"))
			_, _ = w.Write(body)
			return
		}
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer conn.CloseNow()
		ctx := context.Background()
		for i := range 4 {
			if conn.Write(ctx, websocket.MessageText, item(i+1)) != nil {
				return
			}
		}
		for {
			kind, raw, err := conn.Read(ctx)
			if err != nil {
				arrived <- "gone"
				return
			}
			if conn.Write(ctx, kind, raw) != nil {
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return server.URL, arrived
}

func item(n int) []byte { return fmt.Appendf(nil, `{"EventType":"WorkItem","N":%d}`, n) }

func start(t *testing.T, cfg faultproxy.Config) (p *faultproxy.Proxy, arrived chan string) {
	url, arrived := echo(t)
	p, err := faultproxy.Start(url, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, arrived
}

func post(t *testing.T, p *faultproxy.Proxy) (int, string, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	request, err := http.NewRequest(http.MethodPost, p.URL()+"/path", strings.NewReader("hello"))
	require.NoError(t, err)
	request.Header.Set("Cookie", "SessionID=s")
	r, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// talk gives what a beacon reads until an error, which it gives, too, or until
// what it said itself comes back.
func talk(t *testing.T, p *faultproxy.Proxy, timeout time.Duration) (read []string, err error) {
	conn, _, err := websocket.Dial(within(t), p.URL(), nil)
	if err != nil {
		return nil, err
	}
	defer conn.CloseNow()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if err := conn.Write(ctx, websocket.MessageText, []byte("over")); err != nil {
		return nil, err
	}
	for {
		_, raw, err := conn.Read(ctx)
		if err != nil {
			return read, err
		}
		read = append(read, string(raw))
		if string(raw) == "over" {
			return read, nil
		}
	}
}

func numbers(read []string) string {
	var b strings.Builder
	for _, r := range read {
		_, n, _ := strings.Cut(r, `"N":`)
		b.WriteString(strings.TrimSuffix(n, "}"))
	}
	return b.String()
}

func TestNothingHappens(t *testing.T) {
	p, _ := start(t, faultproxy.Config{})
	status, body, err := post(t, p)
	require.NoError(t, err)
	require.Equal(t, []any{200, "hello"}, []any{status, body})
	read, err := talk(t, p, time.Minute)
	require.NoError(t, err)
	require.Equal(t, "1234", numbers(read))
	require.Empty(t, p.Counts())

	require.NoError(t, p.Retarget(""))
	_, _, err = post(t, p)
	require.Error(t, err, "a server that is down answered")
	other, _ := echo(t)
	require.NoError(t, p.Retarget(other))
	_, _, err = post(t, p)
	require.NoError(t, err)
	require.Error(t, p.Retarget("ftp://x"))
	_, err = faultproxy.Start("nowhere", faultproxy.Config{})
	require.Error(t, err)
}

func TestRequestFaults(t *testing.T) {
	tests := map[faultproxy.Fault]struct {
		status  int
		fails   bool
		arrives bool
	}{
		faultproxy.Cut:          {fails: true},
		faultproxy.Truncate:     {status: 200, fails: true, arrives: true},
		faultproxy.HalfOpen:     {fails: true},
		faultproxy.Delay:        {status: 200, arrives: true},
		faultproxy.Unauthorized: {status: 401},
		faultproxy.Unavailable:  {status: 503},
		faultproxy.BadGateway:   {status: 502, arrives: true},
	}
	for fault, tt := range tests {
		t.Run(string(fault), func(t *testing.T) {
			p, arrived := start(t, faultproxy.Config{Requests: faultproxy.Rates{fault: 1}, HalfOpenTime: 10 * time.Millisecond})
			status, _, err := post(t, p)
			require.Equal(t, tt.fails, err != nil, "%v", err)
			require.Equal(t, tt.status, status)
			if fault != faultproxy.Cut { // there it is up to the seed
				require.Equal(t, tt.arrives, len(arrived) == 1)
			}
			require.Equal(t, map[faultproxy.Fault]int{fault: 1}, p.Counts())
			p.Calm()
			status, body, err := post(t, p)
			require.NoError(t, err)
			require.Equal(t, []any{200, "hello"}, []any{status, body})
		})
	}
}

func TestFrameFaults(t *testing.T) {
	for fault, check := range map[faultproxy.Fault]func(t *testing.T, read []string, err error){
		faultproxy.Cut: func(t *testing.T, read []string, err error) {
			require.Error(t, err)
			require.Empty(t, read)
		},
		faultproxy.Truncate: func(t *testing.T, read []string, err error) {
			require.Error(t, err)
			require.Empty(t, read)
		},
		faultproxy.Delay: func(t *testing.T, read []string, err error) {
			require.NoError(t, err)
			require.Equal(t, "1234", numbers(read))
		},
		faultproxy.Duplicate: func(t *testing.T, read []string, err error) {
			require.NoError(t, err)
			require.Equal(t, "11223344", numbers(read))
			require.Equal(t, "over", read[8], "what is no work item is not doubled")
		},
		faultproxy.Reorder: func(t *testing.T, read []string, err error) {
			require.NoError(t, err)
			require.Len(t, read, 5)
			require.NotEqual(t, "1234", numbers(read))
			require.Equal(t, "over", read[4], "what is no work item is overtaken")
		},
	} {
		t.Run(string(fault), func(t *testing.T) {
			p, _ := start(t, faultproxy.Config{Frames: faultproxy.Rates{fault: 1}, MaxDelay: time.Millisecond})
			read, err := talk(t, p, time.Minute)
			check(t, read, err)
			require.NotZero(t, p.Counts()[fault])
		})
	}
}

// Nothing comes, and neither side learns why: the beacon gives up by itself,
// the server keeps a connection to nobody for a while.
func TestHalfOpen(t *testing.T) {
	p, arrived := start(t, faultproxy.Config{Frames: faultproxy.Rates{faultproxy.HalfOpen: 1}, HalfOpenTime: time.Hour})
	read, err := talk(t, p, 200*time.Millisecond)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Empty(t, read)
	require.Empty(t, arrived, "the server was told")
	require.NoError(t, p.Close())
	require.Equal(t, "gone", <-arrived)
}

// A seed means the same in every run.
func TestSeed(t *testing.T) {
	run := func(seed uint64) string {
		p, _ := start(t, faultproxy.Config{Seed: seed, Requests: faultproxy.Rates{faultproxy.Unauthorized: 0.3, faultproxy.Unavailable: 0.3}})
		var b strings.Builder
		for range 40 {
			status, _, err := post(t, p)
			require.NoError(t, err)
			fmt.Fprint(&b, status, " ")
		}
		return b.String()
	}
	require.Equal(t, run(7), run(7))
	require.NotEqual(t, run(7), run(8))
}
