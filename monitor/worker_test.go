package monitor_test

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/monitor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// ask is what is answered at a path.
func ask(t *testing.T, h http.Handler, path string) (status int, body string) {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
	return answer.Code, answer.Body.String()
}

func TestWorker(t *testing.T) {
	undelivered := 3
	w := monitor.NewWorker("v1", 4, func() int { return undelivered })
	h := w.Handler(quiet())
	turn := w.Arrived("acme", "Shell")
	running := w.Arrived("acme", "Shell")(nil)
	defer running()
	w.Arrived("acme", "Shell")(beacon.Errorf(beacon.MemoryLimit, "too much"))()
	w.Ended(monitor.Item{Tenant: "acme", Capability: "Shell", Waited: time.Second, Took: 20 * time.Millisecond, Usage: beacon.Usage{
		Fuel: 7, Memory: 100, Staged: 5, Sent: 1, Received: 2, Tokens: 3, Cost: 0.5,
	}})
	w.Ended(monitor.Item{Tenant: "acme", Capability: "Shell", ExitCode: 2, Usage: beacon.Usage{Memory: 50}})
	w.Ended(monitor.Item{Tenant: "acme", Capability: "Shell", Code: beacon.Timeout, ExitCode: 2})
	_, figures := ask(t, h, "/metrics")
	for _, line := range []string{
		`beacon_build_info{version="v1"} 1`,
		`beacon_slots 4`,
		`beacon_items_waiting{capability="Shell",tenant="acme"} 1`,
		`beacon_items_running{capability="Shell",tenant="acme"} 1`,
		`beacon_items_refused_total{capability="Shell",outcome="memory_limit",tenant="acme"} 1`,
		`beacon_items_total{capability="Shell",outcome="ok",tenant="acme"} 1`,
		`beacon_items_total{capability="Shell",outcome="exit_code",tenant="acme"} 1`,
		`beacon_items_total{capability="Shell",outcome="timeout",tenant="acme"} 1`,
		`beacon_item_duration_seconds_bucket{capability="Shell",tenant="acme",le="0.025"} 3`,
		`beacon_item_duration_seconds_bucket{capability="Shell",tenant="acme",le="0.005"} 2`,
		`beacon_item_wait_seconds_sum{capability="Shell",tenant="acme"} 1`,
		`beacon_fuel_total{capability="Shell",tenant="acme"} 7`,
		`beacon_staged_bytes_total{capability="Shell",tenant="acme"} 5`,
		`beacon_network_bytes_total{capability="Shell",direction="sent",tenant="acme"} 1`,
		`beacon_network_bytes_total{capability="Shell",direction="received",tenant="acme"} 2`,
		`beacon_llm_tokens_total{capability="Shell",tenant="acme"} 3`,
		`beacon_llm_cost_total{capability="Shell",tenant="acme"} 0.5`,
		`beacon_guest_memory_peak_bytes{tenant="acme"} 100`,
		`beacon_results_undelivered 3`,
	} {
		require.Contains(t, figures, line+"\n")
	}
	require.Contains(t, figures, "\ngo_goroutines ")
	turn(errors.New("gone"))()
	_, figures = ask(t, h, "/metrics")
	require.Contains(t, figures, `beacon_items_waiting{capability="Shell",tenant="acme"} 0`+"\n")
	problems, err := promlint.New(strings.NewReader(figures)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
}

// However many tenants a server invents, the figures stay within bounds.
func TestManyTenants(t *testing.T) {
	w := monitor.NewWorker("v1", 1, nil)
	for n := range 1000 {
		w.Ended(monitor.Item{Tenant: fmt.Sprint("tenant-", n), Capability: "Shell"})
	}
	_, figures := ask(t, w.Handler(quiet()), "/metrics")
	require.Equal(t, 201, strings.Count(figures, "\nbeacon_items_total{"))
	require.Contains(t, figures, `beacon_items_total{capability="Shell",outcome="ok",tenant="(others)"} 800`)
}

func TestReady(t *testing.T) {
	w := monitor.NewWorker("v1", 1, nil)
	h := w.Handler(quiet())
	is := func(status int, text string) {
		t.Helper()
		code, body := ask(t, h, "/readyz")
		require.Equal(t, status, code)
		require.Equal(t, text+"\n", body)
		code, body = ask(t, h, "/healthz")
		require.Equal(t, http.StatusOK, code, body)
	}
	is(http.StatusServiceUnavailable, "it has no link to its server")
	w.Registered("websocket")
	is(http.StatusOK, "ok")
	w.Lost()
	is(http.StatusServiceUnavailable, "it has no link to its server")
	w.Registered("http")
	is(http.StatusOK, "ok")
	_, figures := ask(t, h, "/metrics")
	require.Contains(t, figures, `beacon_connected{transport="websocket"} 0`+"\n")
	require.Contains(t, figures, `beacon_connected{transport="http"} 1`+"\n")
	require.Contains(t, figures, "beacon_registrations_total 2\n")
	require.Contains(t, figures, "beacon_link_losses_total 1\n")
	w.Draining()
	is(http.StatusServiceUnavailable, "it takes no more work: it is stopping")
}

func TestListen(t *testing.T) {
	w := monitor.NewWorker("v1", 1, nil)
	s, err := monitor.Listen(t.Context(), "127.0.0.1:0", w.Handler(quiet()), quiet())
	require.NoError(t, err)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get(s.URL() + "/metrics")
	require.NoError(t, err)
	body, err := io.ReadAll(answer.Body)
	require.NoError(t, errors.Join(err, answer.Body.Close()))
	require.Contains(t, string(body), "# HELP beacon_slots ")
	answer, err = client.Post(s.URL()+"/metrics", "text/plain", nil)
	require.NoError(t, err)
	require.NoError(t, answer.Body.Close())
	require.Equal(t, http.StatusMethodNotAllowed, answer.StatusCode)
	_, err = monitor.Listen(t.Context(), strings.TrimPrefix(s.URL(), "http://"), w.Handler(quiet()), quiet())
	require.Error(t, err)
	require.NoError(t, s.Close())
	_, err = client.Get(s.URL() + "/healthz") //nolint:bodyclose // there is none
	require.Error(t, err)
}
