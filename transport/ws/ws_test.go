package ws_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, cfg session.Config) transport.Session {
	t.Helper()
	s, err := ws.Dial(cfg)(within(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(within(t)) })
	return s
}

func item(hash string) beacon.WorkItem {
	return beacon.WorkItem{Hash: hash, Capability: "Shell", Action: "Execute", Settings: beacon.Settings{}}
}

func TestFramesOnTheWire(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := open(t, config(c))
	c.Push(item("wi-1"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	require.NoError(t, s.Progress(within(t), "wi-1", beacon.Progress{Percent: 33, HasPercent: true, Message: "step 1", Step: 1, TotalSteps: 3, Log: []string{"log 1"}}))
	require.NoError(t, s.Complete(within(t), "wi-1", beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0}, Log: []string{"l"}}))
	require.NoError(t, s.Fail(within(t), "wi-2", "provider says no", nil))
	id := s.BeaconID()
	require.NoError(t, s.Close(within(t)))
	require.Equal(t, []string{
		`{"Action":"BeaconRegister","Name":"n002","Capabilities":["Shell","FileSystem","Bench"],"MaxConcurrent":1,"Tags":{},"SharedMounts":[]}`,
		`{"Action":"WorkProgress","WorkItemHash":"wi-1","ProgressData":{"Percent":33,"Message":"step 1","Step":1,"TotalSteps":3,"Log":["log 1"]}}`,
		`{"Action":"WorkComplete","WorkItemHash":"wi-1","Outputs":{"ExitCode":0},"Log":["l"]}`,
		`{"Action":"WorkError","WorkItemHash":"wi-2","ErrorMessage":"provider says no","Log":[]}`,
		`{"Action":"Deregister","BeaconID":"` + id + `"}`,
	}, c.Frames())
}

// A beacon that leaves sends no sign of life any more: the answer that it is not
// known would have it register again.
func TestHeartbeatsEndBeforeTheLeave(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	cfg.HeartbeatInterval = 10 * time.Millisecond
	again := make(chan struct{})
	cfg.Logger = slog.New(slog.NewTextHandler(writer(func(line []byte) {
		if strings.Contains(string(line), "registering again") {
			close(again)
		}
	}), nil))
	inFlight, left, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.OnFrame(func(raw []byte) bool {
		if strings.Contains(string(raw), `"Deregister"`) {
			close(left)
			<-answered
		}
		return false
	})
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/Heartbeat") {
			return false
		}
		once.Do(func() {
			defer close(answered)
			coordinator.Discard(r) // only then it is seen that the client is gone
			close(inFlight)
			<-left
			const unknown = `{"Error":"Beacon not found."}`
			w.Header().Set("Content-Length", fmt.Sprint(len(unknown)))
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, unknown)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
			case <-again:
			}
		})
		return true
	})
	s := open(t, cfg)
	<-inFlight
	require.NoError(t, s.Close(within(t)))
	select {
	case <-again:
		require.Fail(t, "it registered again")
	default:
	}
	require.Empty(t, c.Beacons())
}

type writer func([]byte)

func (w writer) Write(b []byte) (int, error) { w(b); return len(b), nil }

// A server that pushes far beyond the capacity gets its link read no further,
// and no item is dropped; reports that cannot be confirmed go by HTTP.
func TestNothingPushedIsDropped(t *testing.T) {
	const n = 100
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	cfg := config(c)
	cfg.Queue = 4
	s := open(t, cfg)
	for i := range n {
		c.Push(item(fmt.Sprint("wi-", i)))
	}
	for i := range n {
		got, err := s.Next(within(t))
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint("wi-", i), got.Hash)
		if i == n/2 { // in the middle of it, with the queue full
			require.NoError(t, s.Complete(within(t), got.Hash, beacon.Result{}))
		}
	}
	require.NoError(t, s.Close(within(t)))
}

// Items that had to wait are never pushed by the server of March 2026.
func TestWaitingItemsArePolledFor(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	c.Push(item("before"))
	cfg := config(c)
	cfg.PollInterval = time.Hour // what comes, comes after a report
	s := open(t, cfg)
	for i := range 10 {
		c.Push(item(fmt.Sprint("wi-", i)))
	}
	for range 11 {
		got, err := s.Next(within(t))
		require.NoError(t, err)
		require.NoError(t, s.Complete(within(t), got.Hash, beacon.Result{}))
	}
	require.Equal(t, 1, c.MaxLoad(), "more items were taken than slots are free")
	require.Equal(t, 1, c.Logins())
}

// The id in a poll is that of the socket, and a session that ended is renewed.
func TestPollLogsInAgain(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.PollInterval = 10 * time.Millisecond
	s := open(t, cfg)
	c.Push(item("a"), item("b"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	c.ForgetSessions()
	require.NoError(t, s.Complete(within(t), "a", beacon.Result{}))
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "b", got.Hash)
	require.Equal(t, 2, c.Logins())
	require.Len(t, c.Beacons(), 1, "a second identity was registered")
}

// A server that is slow to register the beacon again gets one registration.
func TestRegistersAgainOnce(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA})
	cfg := config(c)
	cfg.HeartbeatInterval = 10 * time.Millisecond
	registrations := 0
	again, asked := make(chan struct{}), make(chan struct{}, 1)
	c.OnFrame(func(raw []byte) bool {
		if strings.Contains(string(raw), `"BeaconRegister"`) {
			if registrations++; registrations == 2 {
				close(again)
				select { // meanwhile it may ask for its beacon once more
				case <-asked:
				case <-time.After(50 * time.Millisecond):
				}
			}
		}
		return false
	})
	c.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/Heartbeat") {
			select {
			case <-again:
				signal(asked)
			default:
			}
		}
		return false
	})
	s := open(t, cfg)
	first := s.BeaconID()
	c.ForgetBeacons(false)
	<-again
	require.NoError(t, c.Until(within(t), func() bool { return c.Sockets() > 0 && s.BeaconID() != first }))
	c.Push(item("a"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	require.NoError(t, s.Close(within(t)))
	require.Equal(t, 2, registrations)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func TestRegistersAgainOnTheSameSocket(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.HeartbeatInterval = 10 * time.Millisecond
	s := open(t, cfg)
	first := s.BeaconID()
	c.ForgetBeacons(true)
	require.NoError(t, c.Until(within(t), func() bool { return c.Sockets() == 1 }))
	c.Push(item("a"))
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "a", got.Hash)
	require.NotEqual(t, first, s.BeaconID())
	upgrades := 0
	for _, r := range c.Requests() {
		if r == "GET /" {
			upgrades++
		}
	}
	require.Equal(t, 1, upgrades)
	require.Contains(t, strings.Join(c.Frames(), "\n"), `{"Action":"BeaconHeartbeat","BeaconID":"`+first+`"}`)
}

func TestRejected(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Reject: "Bootstrap auth secret mismatch"})
	cfg := config(c)
	cfg.Registration.JoinSecret = "open sesame"
	_, err := ws.Dial(cfg)(within(t))
	require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
	require.ErrorContains(t, err, "Bootstrap auth secret mismatch")
	require.NotContains(t, err.Error(), "sesame")
}

func TestDeadPeer(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	cfg.PingInterval, cfg.PingTimeout = 10*time.Millisecond, 50*time.Millisecond
	s := open(t, cfg)
	c.Push(item("a"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	thaw := make(chan struct{})
	defer close(thaw)
	c.OnFrame(func([]byte) bool { <-thaw; return true })
	// The socket takes the report, but nobody is there who would have it.
	err = s.Complete(within(t), "a", beacon.Result{})
	require.ErrorIs(t, err, transport.ErrDisconnected)
	require.ErrorContains(t, err, "silent")
	_, err = s.Next(within(t))
	require.ErrorIs(t, err, transport.ErrDisconnected)
}

func TestHostileFrames(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	cfg.MaxMessage = 64 << 10
	s := open(t, cfg)
	for _, raw := range []string{
		``, `null`, `[]`, `{`, `"x"`, `{"EventType":7}`, `{"EventType":"Party"}`, `{"EventType":"WorkItem"}`,
		`{"EventType":"WorkItem","WorkItem":null}`, `{"EventType":"WorkItem","WorkItem":"x"}`,
		`{"EventType":"WorkItem","WorkItem":{"Capability":"Shell"}}`, `{"EventType":"BeaconRegistered","BeaconID":"` + s.BeaconID() + `"}`,
		`{"EventType":"WorkItem","WorkItem":{"WorkItemHash":"bad","Settings":[1]}}`,
		`{"EventType":"WorkItem","WorkItem":{"WorkItemHash":"good","Settings":null,"TimeoutMs":"-3"}}`,
	} {
		c.SendRaw(raw)
	}
	_, err := s.Next(within(t))
	var malformed *transport.ItemError
	require.ErrorAs(t, err, &malformed)
	require.Equal(t, "bad", malformed.Hash)
	require.ErrorContains(t, err, "Settings is an array")
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "good", got.Hash)

	c.SendRaw(`{"EventType":"` + strings.Repeat("x", 64<<10) + `"}`)
	_, err = s.Next(within(t))
	require.ErrorIs(t, err, transport.ErrDisconnected)
	require.ErrorContains(t, err, "larger than the limit of 65536 bytes")
}

func TestLargeReportsGoByHTTP(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	cfg.MaxFrame = 64 << 10
	s := open(t, cfg)
	c.Push(item("big"), item("log"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	big := strings.Repeat("x", cfg.MaxFrame)
	require.NoError(t, s.Progress(within(t), "big", beacon.Progress{Message: big}))
	require.NoError(t, s.Complete(within(t), "big", beacon.Result{Outputs: beacon.Outputs{"Result": big}}))
	require.NoError(t, s.Fail(within(t), "log", "no", []string{big}))
	r, err := c.Report(within(t))
	require.NoError(t, err)
	require.Equal(t, big, r.Result.Outputs["Result"])
	require.Equal(t, big, c.Progress("big")[0].Message)
	require.Subset(t, c.Requests(), []string{"POST /Beacon/Work/big/Progress", "POST /Beacon/Work/big/Complete", "POST /Beacon/Work/log/Error"})
	for _, f := range c.Frames() {
		require.NotContains(t, f, `"Action":"Work`, "a frame beyond the limit was sent")
	}
}

func TestFramesAreLimited(t *testing.T) {
	client, err := session.NewClient(session.Config{ServerURL: "http://h", Registration: protocol.Registration{Name: "n"}, MaxFrame: 1 << 30})
	require.NoError(t, err)
	require.Equal(t, protocol.MaxFrame, client.Config().MaxFrame)
}

func TestUpgradeRefused(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{NoLogin: true})
	c.AllowUpgrade(false)
	_, err := ws.Dial(config(c))(within(t))
	require.ErrorContains(t, err, "upgrade refused with status 400")
	require.Error(t, ws.Probe(config(c))(within(t)))
	c.AllowUpgrade(true)
	require.NoError(t, ws.Probe(config(c))(within(t)))
	require.Empty(t, c.Beacons(), "a probe registered")
	s := open(t, config(c)) // although the server logs nobody in
	require.NotEmpty(t, s.BeaconID())
}

func TestRegistrationWithoutAnswer(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	c.OnFrame(func([]byte) bool { return true })
	cfg := config(c)
	// A busy machine may need longer than that to get as far as to register.
	for timeout := 100 * time.Millisecond; ; timeout *= 2 {
		cfg.RequestTimeout = timeout
		_, err := ws.Dial(cfg)(within(t))
		require.Error(t, err)
		if strings.Contains(err.Error(), "did not answer") {
			return
		}
		require.Less(t, timeout, time.Minute, "%v", err)
	}
}

// A server that accepts connections and says nothing holds nobody up.
func TestServerThatSaysNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	cfg := session.Config{ServerURL: "http://" + l.Addr().String(), Registration: protocol.Registration{Name: "n"}, RequestTimeout: 50 * time.Millisecond, Logger: quiet}
	_, err = ws.Dial(cfg)(within(t))
	require.ErrorContains(t, err, "no answer within 50ms")
}

func TestPollFailureDoesNotEndTheSession(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	polls := make(chan struct{}, 1000)
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/Poll") {
			return false
		}
		select {
		case polls <- struct{}{}:
		default:
		}
		w.WriteHeader(http.StatusBadGateway)
		return true
	})
	cfg := config(c)
	cfg.PollInterval = 5 * time.Millisecond
	s := open(t, cfg)
	ended := make(chan error)
	go func() {
		_, err := s.Next(within(t))
		ended <- err
	}()
	for range 5 {
		<-polls
	}
	c.Push(item("pushed"))
	require.NoError(t, <-ended)
}

// A canceled call ends; the link lives on.
func TestCanceledReport(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := open(t, config(c))
	ctx, cancel := context.WithCancel(within(t))
	entered := make(chan struct{}, 1)
	thaw := make(chan struct{})
	c.OnFrame(func([]byte) bool { entered <- struct{}{}; <-thaw; return false })
	ended := make(chan error)
	go func() { ended <- s.Complete(ctx, "a", beacon.Result{}) }()
	<-entered
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	c.OnFrame(nil)
	close(thaw)
	c.Push(item("b"))
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "b", got.Hash)
}

func TestConfigIsChecked(t *testing.T) {
	for url, want := range map[string]string{
		"localhost:54321":               "does not begin with http://",
		"":                              "does not begin with http://",
		"http://":                       "must have a host",
		"http://h/?a=b":                 "neither query",
		"http://u:hunter2@h:port/%zz":   "cannot be parsed",
		"ftp://operator:hunter2@h/path": "does not begin with http://",
	} {
		_, err := ws.Dial(session.Config{ServerURL: url, Registration: protocol.Registration{Name: "n"}})(within(t))
		require.ErrorContains(t, err, want, url)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), url)
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err := ws.Dial(session.Config{ServerURL: "http://h"})(within(t))
	require.ErrorContains(t, err, "needs a name")
}

func TestCloseOfAStalledLink(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	cfg := config(c)
	cfg.Queue = 1
	s := open(t, cfg)
	for i := range 20 {
		c.Push(item(fmt.Sprint(i)))
	}
	require.NoError(t, s.Close(within(t)))
	require.Empty(t, c.Beacons())
	require.True(t, slices.ContainsFunc(c.Frames(), func(f string) bool { return strings.Contains(f, "Deregister") }))
	_, err := s.Next(context.Background())
	for err == nil { // what had arrived
		_, err = s.Next(context.Background())
	}
	require.True(t, errors.Is(err, transport.ErrDisconnected))
}

// A slowLink is a proxy that stops reading what the worker sends, for a while.
type slowLink struct {
	net.Listener
	stop    chan struct{} // closed: it reads no more
	resume  chan struct{} // closed: it reads again
	stopped chan struct{} // closed when the proxy has stopped
	conns   sync.WaitGroup
}

func startSlowLink(t *testing.T, target string) *slowLink {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	p := &slowLink{Listener: l, stop: make(chan struct{}), resume: make(chan struct{}), stopped: make(chan struct{})}
	once := sync.OnceFunc(func() { close(p.stopped) })
	p.conns.Go(func() {
		for {
			worker, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", target)
			if err != nil {
				worker.Close()
				continue
			}
			p.conns.Go(func() { _, _ = io.Copy(worker, server); worker.Close() })
			p.conns.Go(func() {
				defer server.Close()
				buffer := make([]byte, 16<<10)
				total := 0
				for {
					n, err := worker.Read(buffer)
					if err != nil {
						return
					}
					if _, err := server.Write(buffer[:n]); err != nil {
						return
					}
					if total += n; total > 1<<20 { // the large message, not a heartbeat
						select {
						case <-p.stop:
							once()
							<-p.resume
						default:
						}
					}
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); p.conns.Wait() })
	return p
}

// A link that needs long for a large message is not lost, although pings are
// due meanwhile: they wait their turn, and the server is not silent but busy.
func TestLargeMessagesOnASlowLink(t *testing.T) {
	for _, what := range []string{"result", "file"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD})
			p := startSlowLink(t, strings.TrimPrefix(c.URL(), "http://"))
			cfg := config(c)
			cfg.ServerURL = "http://" + p.Addr().String()
			cfg.PingInterval, cfg.PingTimeout = 200*time.Millisecond, 5*time.Minute
			s := open(t, cfg)
			c.Push(beacon.WorkItem{Hash: "wi", Capability: "Shell", OperationHash: "OPR", Attempt: 1, Settings: beacon.Settings{}})
			_, err := s.Next(within(t))
			require.NoError(t, err)
			var output any = strings.Repeat("x", 20<<20)
			if what == "file" {
				path := filepath.Join(t.TempDir(), "f")
				require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 20<<20), 0o600))
				output = beacon.File{Path: path, Name: "f", Size: 20 << 20, Upload: true}
			}
			close(p.stop)
			done := make(chan error, 1)
			ctx := within(t)
			go func() { done <- s.Complete(ctx, "wi", beacon.Result{Outputs: beacon.Outputs{"OutputData": output}}) }()
			<-p.stopped
			// Longer than the library gives a ping to be written.
			select {
			case <-s.Done():
				_, err := s.Next(ctx)
				t.Errorf("the link was given up: %v", err)
			case <-time.After(7 * time.Second):
			}
			close(p.resume)
			require.NoError(t, <-done)
			r, err := c.Report(within(t))
			require.NoError(t, err)
			require.Equal(t, "wi", r.Hash)
			require.Len(t, c.Beacons(), 1)
		})
	}
}

// A server that once took long to confirm results is asked again as soon as there
// are more: they pile up until they are confirmed.
func TestSlowConfirmation(t *testing.T) {
	t.Parallel()
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	cfg := config(c)
	cfg.HeartbeatInterval = time.Hour
	s := open(t, cfg)
	c.Push(item("a"), item("b"))
	for range 2 {
		_, err := s.Next(within(t))
		require.NoError(t, err)
	}
	var once sync.Once
	c.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/Heartbeat") {
			once.Do(func() { time.Sleep(12 * time.Second) })
		}
		return false
	})
	require.NoError(t, s.Complete(within(t), "a", beacon.Result{}))
	soon, cancel := context.WithTimeout(t.Context(), 110*time.Second) // it waited for ten times as long as the answer had taken
	defer cancel()
	require.NoError(t, s.Complete(soon, "b", beacon.Result{}))
}
