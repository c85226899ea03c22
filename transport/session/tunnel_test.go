package session_test

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
)

// A proxy leads every host to one server. It wants a password, and like most
// proxies it passes no upgrade on.
func startProxy(t *testing.T, server string) (address string, seen func() []string) {
	var mu sync.Mutex
	var requests []string
	forward := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.Out.URL.Host = server
		r.Out.Header.Del("Upgrade")
	}}
	var tunnels sync.WaitGroup
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		requests = append(requests, r.Method+" "+r.Host)
		mu.Unlock()
		if r.Header.Get("Proxy-Authorization") != "Basic dXNlcjpzZWNyZXQ=" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		if r.Method != http.MethodConnect {
			forward.ServeHTTP(w, r)
			return
		}
		up, err := net.Dial("tcp", server)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		down, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			up.Close()
			return
		}
		tunnels.Go(func() { _, _ = io.Copy(up, early); up.Close() })
		tunnels.Go(func() { _, _ = io.Copy(down, up); down.Close() })
	}))
	t.Cleanup(func() { proxy.Close(); tunnels.Wait() })
	return strings.TrimPrefix(proxy.URL, "http://"), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), requests...)
	}
}

// Proxies come from the environment, which the standard library reads once in a
// process: the client is in another one.
func TestProxyFromTheEnvironment(t *testing.T) {
	if url := os.Getenv("BEACON_TEST_PROXIED"); url != "" {
		throughProxy(t, url)
		return
	}
	for name, secure := range map[string]bool{"http": false, "https": true} {
		t.Run(name, func(t *testing.T) {
			var cfg coordinator.Config
			if secure {
				cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
			}
			c := coordinator.Start(t, cfg)
			c.Push(beacon.WorkItem{Hash: "a", Capability: "Test", Settings: beacon.Settings{}})
			_, address, _ := strings.Cut(c.URL(), "://")
			proxy, seen := startProxy(t, address)
			self, err := os.Executable()
			require.NoError(t, err)
			cmd := exec.CommandContext(t.Context(), self, "-test.run=^TestProxyFromTheEnvironment$", "-test.v")
			cmd.Env = append(os.Environ(), "BEACON_TEST_PROXIED="+name+"://ultravisor.invalid:54321",
				"HTTP_PROXY=http://user:secret@"+proxy, "HTTPS_PROXY=http://user:secret@"+proxy, "http_proxy=", "https_proxy=", "NO_PROXY=", "no_proxy=")
			said, err := cmd.CombinedOutput()
			require.NoError(t, err, string(said))
			require.Contains(t, string(said), "PASS: TestProxyFromTheEnvironment")
			require.Contains(t, seen(), "CONNECT ultravisor.invalid:54321")
			if !secure {
				require.Contains(t, seen(), "POST ultravisor.invalid:54321")
			}
			r, err := c.Report(t.Context())
			require.NoError(t, err)
			require.Equal(t, "a", r.Hash)
			for _, f := range c.Frames() {
				require.NotContains(t, f, "secret")
			}
		})
	}
}

func throughProxy(t *testing.T, url string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cfg := session.Config{ServerURL: url, Registration: protocol.Registration{Name: "n", Capabilities: []string{"Test"}}, Logger: quiet, TLS: &tls.Config{InsecureSkipVerify: true}}
	s, err := ws.Dial(cfg)(ctx)
	require.NoError(t, err)
	item, err := s.Next(ctx)
	require.NoError(t, err)
	require.NoError(t, s.Complete(ctx, item.Hash, beacon.Result{}))
	require.NoError(t, s.Close(ctx))
}
