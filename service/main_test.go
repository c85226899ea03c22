package service_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/service"
	"github.com/ultravisor/beacon/submit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A server is a hub behind a real socket, and a submitter.
type server struct {
	t      testing.TB
	url    string
	client *submit.Client
	http   *http.Client
	close  func() // before the end of the test
}

func startHub(t testing.TB) *server {
	h := hub.New(hub.Config{Log: quiet})
	listening := httptest.NewServer(h)
	client, err := submit.New(submit.Config{ServerURL: listening.URL})
	require.NoError(t, err)
	s := &server{t: t, url: listening.URL, client: client, http: &http.Client{Transport: &http.Transport{}}}
	s.close = sync.OnceFunc(func() {
		client.CloseIdle()
		s.http.CloseIdleConnections()
		require.NoError(t, h.Close(context.Background()))
		listening.Close()
	})
	t.Cleanup(s.close)
	return s
}

// do hands in an item and waits for what becomes of it.
func (s *server) do(capability, action string, settings map[string]string, timeout time.Duration) (beacon.Result, error) {
	item := protocol.Submission{Capability: capability, Action: action, Settings: beacon.Settings{}, TimeoutMs: float64(timeout.Milliseconds())}
	for name, value := range settings {
		item.Settings.SetText(name, value)
	}
	return s.client.Dispatch(within(s.t), item, nil, nil)
}

type known struct {
	BeaconID         string
	Name             string
	Capabilities     []string
	CurrentWorkItems []string
	MaxConcurrent    int
	Tags             map[string]any
	HostID           string
}

// beacons is what the hub knows of its beacons.
func (s *server) beacons() []known {
	answer, err := s.http.Get(s.url + "/Beacon")
	require.NoError(s.t, err)
	defer answer.Body.Close()
	var list []known
	require.NoError(s.t, json.NewDecoder(answer.Body).Decode(&list))
	return list
}

// newService makes a service that is disabled at the end of the test, and whose
// files are gone then.
func newService(t testing.TB, url string, change func(*service.Config)) *service.Service {
	cfg := service.Config{
		ServerURL: url, Name: "app", MaxConcurrent: 2, StagingPath: t.TempDir(), Logger: quiet,
		PollInterval: 10 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond,
		ReconnectInterval: 5 * time.Millisecond, ReconnectMax: 20 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := service.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Disable(within(t)))
		require.False(t, s.Enabled())
		left, err := os.ReadDir(cfg.StagingPath)
		require.NoError(t, err)
		for _, entry := range left {
			require.False(t, entry.IsDir(), "the directory %s stays behind", entry.Name())
		}
	})
	return s
}

// echo answers with a setting.
func echo(name string) service.Capability {
	return service.Capability{Name: name, Actions: []service.Action{{Name: "Echo", Handler: func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"Result": job.Item.Settings.Text("Text")}, Log: []string{"echoed"}}, nil
	}}}}
}

// A gate is a capability whose items begin and wait to be let through.
type gate struct {
	capability service.Capability
	began      chan struct{}
	pass       chan struct{}
	mu         sync.Mutex
	count      int
	canceled   int
}

func newGate(name string) *gate {
	g := &gate{began: make(chan struct{}, 100), pass: make(chan struct{})}
	g.capability = service.Capability{Name: name, Actions: []service.Action{{Name: "Wait", Handler: g.handle}}}
	return g
}

func (g *gate) handle(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
	g.note(&g.count)
	g.began <- struct{}{}
	select {
	case <-g.pass:
		return beacon.Result{Outputs: beacon.Outputs{"Result": "through"}}, nil
	case <-ctx.Done():
		g.note(&g.canceled)
		return beacon.Result{}, ctx.Err()
	}
}

func (g *gate) note(n *int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	*n++
}

func (g *gate) counts() (began, canceled int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count, g.canceled
}

// later runs a function and gives what it returned.
func later[T any](f func() (T, error)) func() (T, error) {
	var value T
	var err error
	done := make(chan struct{})
	go func() { defer close(done); value, err = f() }()
	return func() (T, error) { <-done; return value, err }
}
