package poll_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, cfg session.Config) transport.Session {
	t.Helper()
	s, err := poll.Dial(cfg)(within(t))
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close(within(t)) })
	return s
}

func item(hash string) beacon.WorkItem {
	return beacon.WorkItem{Hash: hash, Capability: "Shell", Action: "Execute", Settings: beacon.Settings{}}
}

// The next item is asked for at once, whatever the interval: after an item,
// and after a report when the server had none.
func TestAsksAgainAtOnce(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.PollInterval = time.Hour
	cfg.Registration.MaxConcurrent = 3
	for _, hash := range []string{"a", "b", "c", "d", "e", "f"} {
		c.Push(item(hash))
	}
	s := open(t, cfg)
	for range 3 {
		_, err := s.Next(within(t))
		require.NoError(t, err)
	}
	got := make(chan string)
	go func() {
		for range 3 {
			item, err := s.Next(within(t))
			if err != nil {
				item.Hash = err.Error()
			}
			got <- item.Hash
		}
	}()
	for i, done := range []string{"a", "b", "c"} {
		require.NoError(t, s.Complete(within(t), done, beacon.Result{}))
		require.Equal(t, []string{"d", "e", "f"}[i], <-got)
	}
	require.Equal(t, 3, c.MaxLoad())
}

// A server that was restarted knows neither login nor beacon.
func TestServerRestart(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.PollInterval = 10 * time.Millisecond
	s := open(t, cfg)
	c.Push(item("a/b"), item("b"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	first := s.BeaconID()
	c.ForgetBeacons(true)
	// The call that found out is repeated, under the new identity.
	require.NoError(t, s.Complete(within(t), "a/b", beacon.Result{Outputs: beacon.Outputs{"Result": 1}}))
	r, err := c.Report(within(t))
	require.NoError(t, err)
	require.Equal(t, "a/b", r.Hash)
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "b", got.Hash)
	require.NotEqual(t, first, s.BeaconID())
	require.Equal(t, 2, c.Logins())
	require.Contains(t, c.Requests(), "POST /Beacon/Work/a%2Fb/Complete")
}

// Without logins only the heartbeat finds out.
func TestHeartbeatRegistersAgain(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{NoLogin: true})
	cfg := config(c)
	cfg.HeartbeatInterval, cfg.PollInterval = 10*time.Millisecond, 10*time.Millisecond
	s := open(t, cfg)
	first := s.BeaconID()
	c.ForgetBeacons(false)
	c.Push(item("a"))
	got, err := s.Next(within(t))
	require.NoError(t, err)
	require.Equal(t, "a", got.Hash)
	require.NotEqual(t, first, s.BeaconID())
}

// Both the login and the heartbeat find out that the server was restarted: one
// of them registers. A second identity would stay behind.
func TestOneIdentityAfterARestart(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.HeartbeatInterval, cfg.PollInterval = 10*time.Millisecond, 10*time.Millisecond
	s := open(t, cfg)
	var registering, once sync.Once
	held, told, later := make(chan struct{}), make(chan struct{}), make(chan struct{})
	closed := func(ch chan struct{}) bool {
		select {
		case <-ch:
			return true
		default:
			return false
		}
	}
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/Beacon/Register":
			registering.Do(func() { // the one after the login
				close(held)
				<-told
			})
		case !strings.HasSuffix(r.URL.Path, "/Heartbeat"):
		case !closed(held): // the login is what finds out first
			_, _ = w.Write([]byte(`{}`))
			return true
		case !closed(told): // and while it registers, the heartbeat
			w.WriteHeader(http.StatusNotFound)
			_, _ = w.Write([]byte(`{"Error":"Beacon not found."}`))
			close(told)
			return true
		default: // what followed from that is done
			once.Do(func() { close(later) })
		}
		return false
	})
	c.ForgetBeacons(true)
	go func() {
		<-later
		c.Push(item("a"))
	}()
	got, err := s.Next(within(t)) // while it waits there are polls
	require.NoError(t, err)
	require.Equal(t, "a", got.Hash)
	require.Equal(t, []string{s.BeaconID()}, c.Beacons())
}

// A session that ends while the beacon registers again leaves under the identity
// that it gets.
func TestCloseWhileRegistering(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c)
	cfg.PollInterval = 10 * time.Millisecond
	s := open(t, cfg)
	first := s.BeaconID()
	held, release := make(chan struct{}), make(chan struct{})
	c.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path == "/Beacon/Register" {
			close(held)
			<-release
		}
		return false
	})
	ended := make(chan error)
	go func() {
		_, err := s.Next(within(t)) // while it waits there are polls
		ended <- err
	}()
	c.ForgetBeacons(true)
	<-held
	time.AfterFunc(50*time.Millisecond, func() { close(release) }) // during Close; it may as well be earlier
	require.NoError(t, s.Close(within(t)))
	require.ErrorIs(t, <-ended, transport.ErrDisconnected)
	require.NotEqual(t, first, s.BeaconID())
	require.Contains(t, c.Requests(), "DELETE /Beacon/"+s.BeaconID())
	require.Empty(t, c.Beacons())
}

func TestReports(t *testing.T) {
	tests := map[string]struct {
		status  int
		body    string
		refused bool
		ok      bool
	}{
		"not found":         {400, `{"Error":"BeaconCoordinator: work item [x] not found."}`, false, true},
		"already finalized": {400, `{"Error":"BeaconCoordinator: work item [x] already finalized (Complete)."}`, false, true},
		"unavailable":       {503, `busy`, false, false},
		"too many":          {429, `{}`, false, false},
		"no such path":      {404, `<html>not found</html>`, false, false},
		"too large":         {413, ``, true, false},
		"malformed":         {400, `{"code":"InvalidContent","message":"no"}`, true, false},
		"forbidden":         {403, `{}`, false, false},
		"still no login":    {401, `{"Error":"Authentication required.","LoggedIn":false}`, false, false},
		"redirect":          {302, ``, false, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{})
			s := open(t, config(c))
			c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/Complete") && !strings.HasSuffix(r.URL.Path, "/Error") {
					return false
				}
				coordinator.Discard(r)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = w.Write([]byte(tt.body))
				return true
			})
			for _, err := range []error{
				s.Complete(within(t), "x", beacon.Result{}),
				s.Fail(within(t), "x", "no", nil),
			} {
				if tt.ok {
					require.NoError(t, err)
					continue
				}
				require.Error(t, err)
				require.Equal(t, tt.refused, isRefused(err), "%v", err)
			}
		})
	}
}

func TestNoAnswerToReport(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	s := open(t, cfg)
	var cut atomic.Int32
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/Complete") && cut.Add(1) == 1 {
			coordinator.Discard(r)
			panic(http.ErrAbortHandler) // the connection is cut in the middle
		}
		return false
	})
	c.Push(item("a"))
	_, err := s.Next(within(t))
	require.NoError(t, err)
	err = s.Complete(within(t), "a", beacon.Result{})
	require.Error(t, err)
	require.False(t, isRefused(err))
	require.NoError(t, s.Complete(within(t), "a", beacon.Result{}))
}

func TestOversizedAnswer(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	cfg := config(c)
	cfg.MaxMessage, cfg.PollInterval = 1000, time.Millisecond
	s := open(t, cfg)
	c.PushRaw("x", `{"WorkItemHash":"x","Settings":{"a":"`+strings.Repeat("x", 1000)+`"}}`)
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/Poll") {
			_, _ = w.Write(make([]byte, 2000))
			return true
		}
		return false
	})
	_, err := s.Next(within(t))
	require.ErrorIs(t, err, transport.ErrDisconnected)
	require.ErrorContains(t, err, "larger than the limit of 1000 bytes")
}

func TestMalformedItems(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	cfg := config(c)
	cfg.PollInterval = time.Millisecond
	s := open(t, cfg)
	c.PushRaw("none", `{"Capability":"Shell"}`)
	c.PushRaw("bad", `{"WorkItemHash":"bad","Action":{}}`)
	_, err := s.Next(within(t))
	var malformed *transport.ItemError
	require.ErrorAs(t, err, &malformed)
	require.Equal(t, "bad", malformed.Hash)
}
