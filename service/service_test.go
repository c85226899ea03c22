package service_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/service"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

var transports = []service.Transport{service.Auto, service.WebSocket, service.HTTP}

func TestEnableAndDisable(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			hub := startHub(t)
			s := newService(t, hub.url, func(c *service.Config) {
				c.Transport, c.Tags, c.HostID = transport, map[string]any{"zone": "a"}, "here"
			})
			ctx := within(t)
			require.NoError(t, s.RegisterCapability(ctx, echo("B")))
			require.NoError(t, s.RegisterCapability(ctx, echo("A")))
			require.Equal(t, []string{"A", "B"}, s.CapabilityNames())
			require.False(t, s.Enabled())
			require.Empty(t, s.BeaconID())
			require.Empty(t, hub.beacons())

			for range 2 { // it can be enabled again
				require.NoError(t, s.Enable(ctx))
				require.NoError(t, s.Enable(ctx)) // as it is
				require.True(t, s.Enabled())
				list := hub.beacons()
				require.Len(t, list, 1)
				require.Equal(t, known{
					BeaconID: s.BeaconID(), Name: "app", Capabilities: []string{"A", "B"}, CurrentWorkItems: []string{},
					MaxConcurrent: 2, Tags: map[string]any{"zone": "a"}, HostID: "here",
				}, list[0])
				result, err := hub.do("A", "Echo", map[string]string{"Text": "hello"}, 0)
				require.NoError(t, err)
				require.Equal(t, "hello", result.Outputs["Result"])
				require.Equal(t, []string{"echoed"}, result.Log)

				require.NoError(t, s.Disable(ctx))
				require.NoError(t, s.Disable(ctx))
				require.False(t, s.Enabled())
				require.Empty(t, s.BeaconID())
				require.Empty(t, hub.beacons())
				require.NoError(t, s.Wait(ctx))
			}
		})
	}
}

// What runs goes on while the server learns of other capabilities: on the same
// registration, without the item being given away.
func TestChangeWhileAnItemRuns(t *testing.T) {
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			hub := startHub(t)
			s := newService(t, hub.url, func(c *service.Config) { c.Transport = transport })
			ctx := within(t)
			g := newGate("Gate")
			require.NoError(t, s.RegisterCapability(ctx, g.capability))
			require.NoError(t, s.Enable(ctx))
			id := s.BeaconID()
			item := later(func() (beacon.Result, error) { return hub.do("Gate", "Wait", nil, 0) })
			<-g.began

			require.NoError(t, s.RegisterCapability(ctx, echo("Echo")))
			list := hub.beacons()
			require.Len(t, list, 1)
			require.Equal(t, []string{"Echo", "Gate"}, list[0].Capabilities)
			require.Equal(t, id, list[0].BeaconID)
			require.Len(t, list[0].CurrentWorkItems, 1)
			result, err := hub.do("Echo", "Echo", map[string]string{"Text": "new"}, 0)
			require.NoError(t, err)
			require.Equal(t, "new", result.Outputs["Result"])

			require.NoError(t, s.RemoveCapability(ctx, "Gate"))
			require.Equal(t, []string{"Echo"}, s.CapabilityNames())
			list = hub.beacons()
			require.Len(t, list, 1)
			require.Equal(t, []string{"Echo"}, list[0].Capabilities)
			require.Len(t, list[0].CurrentWorkItems, 1)

			close(g.pass)
			result, err = item()
			require.NoError(t, err)
			require.Equal(t, "through", result.Outputs["Result"])
			began, canceled := g.counts()
			require.Equal(t, 1, began)
			require.Zero(t, canceled)

			require.NoError(t, s.RemoveCapability(ctx, "Echo"))
			require.NoError(t, s.RegisterCapability(ctx, echo("Gate"))) // the name is free again
			require.Equal(t, []string{"Gate"}, hub.beacons()[0].Capabilities)
			result, err = hub.do("Gate", "Echo", map[string]string{"Text": "other"}, 0)
			require.NoError(t, err)
			require.Equal(t, "other", result.Outputs["Result"])
		})
	}
}

// Servers that push what was asked for before a removal get a clear result.
func TestRemovedCapabilityIsNotRouted(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := newService(t, c.URL(), nil)
	ctx := within(t)
	require.NoError(t, s.RegisterCapability(ctx, echo("Gone")))
	require.NoError(t, s.Enable(ctx))
	require.NoError(t, s.RemoveCapability(ctx, "Gone"))
	c.Push(beacon.WorkItem{Hash: "late", Capability: "Gone", Action: "Echo", Settings: beacon.Settings{}})
	report, err := c.Report(ctx)
	require.NoError(t, err)
	require.Equal(t, "late", report.Hash)
	require.False(t, report.Failed)
	require.Contains(t, fmt.Sprint(report.Result.Outputs["StdOut"]), "Unknown capability: Gone/Echo")
	require.EqualValues(t, -1, report.Result.Outputs["ExitCode"])
}

// The server of March 2026 makes a record of every registration: the earlier
// one has to go, or it would be given work for capabilities that are gone.
func TestOneRecordOnEveryServer(t *testing.T) {
	for _, flavour := range []coordinator.Flavour{coordinator.ERA, coordinator.HEAD} {
		for _, transport := range transports {
			t.Run(fmt.Sprint(flavour, " ", transport), func(t *testing.T) {
				c := coordinator.Start(t, coordinator.Config{Flavour: flavour, Sessions: true})
				s := newService(t, c.URL(), func(c *service.Config) { c.Transport = transport })
				ctx := within(t)
				require.NoError(t, s.RegisterCapability(ctx, echo("A")))
				require.NoError(t, s.Enable(ctx))
				require.NoError(t, s.RegisterCapability(ctx, echo("B")))
				require.NoError(t, c.Until(ctx, func() bool { return len(c.Beacons()) == 1 }))
				require.Equal(t, []string{s.BeaconID()}, c.Beacons())
				c.Push(beacon.WorkItem{Hash: "b", Capability: "B", Action: "Echo", Settings: beacon.Settings{"Text": []byte(`"b"`)}})
				report, err := c.Report(ctx)
				require.NoError(t, err)
				require.Equal(t, "b", fmt.Sprint(report.Result.Outputs["Result"]))
			})
		}
	}
}

// A change while the link is lost is told with the next link.
func TestChangeWhileDisconnected(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := newService(t, c.URL(), func(c *service.Config) { c.Transport = service.WebSocket })
	ctx := within(t)
	require.NoError(t, s.RegisterCapability(ctx, echo("A")))
	require.NoError(t, s.Enable(ctx))
	c.AllowUpgrade(false)
	c.CutSockets()
	require.NoError(t, c.Until(ctx, func() bool { return c.Sockets() == 0 }))
	require.NoError(t, s.RegisterCapability(ctx, echo("B")))
	require.NoError(t, s.RemoveCapability(ctx, "A"))
	require.True(t, s.Enabled())
	c.AllowUpgrade(true)
	// An attempt that had begun before tells the rest right after it.
	require.NoError(t, c.Until(ctx, func() bool {
		last := ""
		for _, frame := range c.Frames() {
			if strings.Contains(frame, `"BeaconRegister"`) {
				last = frame
			}
		}
		return c.Connected() && strings.Contains(last, `"Capabilities":["B"]`)
	}))
}

// A server that does not answer a registration is left and joined anew.
func TestChangeThatIsNotConfirmed(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := newService(t, c.URL(), func(c *service.Config) {
		c.Transport, c.RequestTimeout = service.WebSocket, 200*time.Millisecond
	})
	ctx := within(t)
	require.NoError(t, s.RegisterCapability(ctx, echo("A")))
	require.NoError(t, s.Enable(ctx))
	var swallowed atomic.Bool
	c.OnFrame(func(raw []byte) bool {
		return strings.Contains(string(raw), `"BeaconRegister"`) && swallowed.CompareAndSwap(false, true)
	})
	require.NoError(t, s.RegisterCapability(ctx, echo("B")))
	require.True(t, swallowed.Load())
	c.Push(beacon.WorkItem{Hash: "b", Capability: "B", Settings: beacon.Settings{}})
	report, err := c.Report(ctx)
	require.NoError(t, err)
	require.Equal(t, "b", report.Hash)
	require.False(t, report.Failed)
}

func TestEnableFails(t *testing.T) {
	t.Run("no server", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		address := listener.Addr().String()
		require.NoError(t, listener.Close())
		for _, transport := range transports {
			s := newService(t, "http://"+address, func(c *service.Config) { c.Transport = transport })
			p := &resource{name: "R"}
			require.NoError(t, s.RegisterProvider(within(t), p))
			err = s.Enable(within(t))
			require.Equal(t, beacon.Unreachable, beacon.CodeOf(err), "%v", err)
			require.Contains(t, err.Error(), address)
			require.False(t, s.Enabled())
			require.Equal(t, "init shutdown", p.story())
		}
	})
	t.Run("the server comes later", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{})
		c.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		})
		s := newService(t, c.URL(), nil)
		require.NoError(t, s.RegisterCapability(within(t), echo("A")))
		require.Equal(t, beacon.Unreachable, beacon.CodeOf(s.Enable(within(t))))
		c.Intercept(nil)
		require.NoError(t, s.Enable(within(t)))
	})
	t.Run("rejected", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{Reject: "who are you"})
		s := newService(t, c.URL(), func(c *service.Config) { c.JoinSecret = "s3cret" })
		require.NoError(t, s.RegisterCapability(within(t), echo("A")))
		err := s.Enable(within(t))
		require.Equal(t, beacon.Rejected, beacon.CodeOf(err), "%v", err)
		require.Contains(t, err.Error(), "who are you")
		require.NotContains(t, err.Error(), "s3cret")
		require.Contains(t, strings.Join(c.Frames(), ""), `"JoinSecret":"s3cret"`)
		require.Equal(t, beacon.Rejected, beacon.CodeOf(s.Wait(within(t))))
	})
	t.Run("wrong password", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{})
		c.Intercept(func(w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		s := newService(t, c.URL(), func(c *service.Config) { c.Transport, c.Password = service.HTTP, "s3cret" })
		err := s.Enable(within(t))
		require.Equal(t, beacon.Rejected, beacon.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "check user name and password")
		require.NotContains(t, err.Error(), "s3cret")
	})
	t.Run("a server that says nothing", func(t *testing.T) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer listener.Close()
		s := newService(t, "http://"+listener.Addr().String(), nil)
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, s.Enable(ctx), context.DeadlineExceeded)
		require.False(t, s.Enabled())
	})
	t.Run("no folder", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "file")
		require.NoError(t, os.WriteFile(file, nil, 0o600))
		s, err := service.New(service.Config{ServerURL: "http://127.0.0.1:1", Name: "app", StagingPath: filepath.Join(file, "x"), Logger: quiet})
		require.NoError(t, err)
		p := &resource{name: "R"}
		require.NoError(t, s.RegisterProvider(within(t), p))
		require.Error(t, s.Enable(within(t)))
		require.Equal(t, "init shutdown", p.story())
	})
}

// The server may end it at any time.
func TestRejectedLater(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := newService(t, c.URL(), nil)
	p := &resource{name: "R"}
	require.NoError(t, s.RegisterProvider(within(t), p))
	require.NoError(t, s.Enable(within(t)))
	c.SendRaw(`{"EventType":"BeaconRejected","Reason":"not any more"}`)
	err := s.Wait(within(t))
	require.Equal(t, beacon.Rejected, beacon.CodeOf(err), "%v", err)
	require.False(t, s.Enabled())
	require.Equal(t, "init shutdown", p.story())
	require.NoError(t, s.Enable(within(t))) // and it can be tried again
	require.Equal(t, "init shutdown init", p.story())
}

func TestDisableWhileAnItemRuns(t *testing.T) {
	for _, transport := range transports {
		t.Run("waits "+string(transport), func(t *testing.T) {
			hub := startHub(t)
			s := newService(t, hub.url, func(c *service.Config) { c.Transport = transport })
			g := newGate("Gate")
			require.NoError(t, s.RegisterCapability(within(t), g.capability))
			require.NoError(t, s.Enable(within(t)))
			item := later(func() (beacon.Result, error) { return hub.do("Gate", "Wait", nil, 0) })
			<-g.began
			disabled := later(func() (any, error) { return nil, s.Disable(within(t)) })
			require.Eventually(t, func() bool { return !s.Enabled() }, time.Minute, time.Millisecond)
			close(g.pass)
			result, err := item()
			require.NoError(t, err)
			require.Equal(t, "through", result.Outputs["Result"])
			_, err = disabled()
			require.NoError(t, err)
			require.Empty(t, hub.beacons())
			_, canceled := g.counts()
			require.Zero(t, canceled)
		})
	}
	t.Run("no longer than its context", func(t *testing.T) {
		hub := startHub(t)
		s := newService(t, hub.url, nil)
		g := newGate("Gate")
		require.NoError(t, s.RegisterCapability(within(t), g.capability))
		require.NoError(t, s.Enable(within(t)))
		item := later(func() (beacon.Result, error) { return hub.do("Gate", "Wait", nil, time.Hour) })
		<-g.began
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		require.ErrorIs(t, s.Disable(ctx), context.Canceled)
		require.False(t, s.Enabled())
		_, canceled := g.counts()
		require.Equal(t, 1, canceled)
		hub.close()
		_, err := item()
		require.Error(t, err)
	})
	t.Run("no longer than DrainTimeout", func(t *testing.T) {
		hub := startHub(t)
		s := newService(t, hub.url, func(c *service.Config) { c.DrainTimeout = -1 })
		g := newGate("Gate")
		require.NoError(t, s.RegisterCapability(within(t), g.capability))
		require.NoError(t, s.Enable(within(t)))
		item := later(func() (beacon.Result, error) { return hub.do("Gate", "Wait", nil, 0) })
		<-g.began
		require.NoError(t, s.Disable(within(t)))
		_, err := item()
		require.ErrorContains(t, err, "the beacon is shutting down")
	})
}

// What a handler does is its item's misfortune and nobody else's.
func TestHostileHandlers(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	actions := map[string]struct {
		handler service.Handler
		want    string
	}{
		"Panic": {func(context.Context, *beacon.Job) (beacon.Result, error) { panic("at the disco") }, "panicked"},
		"NilPanic": {func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			job.Dir = nil
			return beacon.Result{}, job.Dir.Close()
		}, "panicked"},
		"Goexit": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			runtime.Goexit()
			return beacon.Result{}, nil
		}, "ended its goroutine"},
		"Channel": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"X": make(chan int)}}, nil
		}, "output X is not representable in JSON"},
		"NaN": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"X": math.NaN()}}, nil
		}, "output X is not representable in JSON"},
		"Marshal": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"X": explosive{}}}, nil
		}, "output X is not representable in JSON"},
		"Secretive": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{}, errors.New("password is 1234")
		}, "the provider failed"},
		"Plain": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{}, beacon.Errorf(beacon.Failed, "no paper left")
		}, "no paper left"},
		"Deaf": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			<-forever
			return beacon.Result{}, nil
		}, "longer than its limit"},
	}
	c := service.Capability{Name: "Hostile"}
	for name, action := range actions {
		c.Actions = append(c.Actions, service.Action{Name: name, Handler: action.handler})
	}
	for _, transport := range transports {
		t.Run(string(transport), func(t *testing.T) {
			server := coordinator.Start(t, coordinator.Config{})
			s := newService(t, server.URL(), func(c *service.Config) {
				c.Transport, c.MaxConcurrent, c.CancelGrace = transport, 1, 10*time.Millisecond
			})
			require.NoError(t, s.RegisterCapability(within(t), c))
			require.NoError(t, s.RegisterCapability(within(t), echo("Echo")))
			require.NoError(t, s.Enable(within(t)))
			for name, action := range actions {
				item := beacon.WorkItem{Hash: name, Capability: "Hostile", Action: name, Settings: beacon.Settings{}}
				if name == "Deaf" {
					item.Timeout = 20 * time.Millisecond
				}
				server.Push(item)
				report, err := server.Report(within(t))
				require.NoError(t, err)
				require.Equal(t, name, report.Hash)
				require.True(t, report.Failed, name)
				require.Contains(t, report.Message, action.want, name)
				require.NotContains(t, report.Message, "1234")
			}
			server.Push(beacon.WorkItem{Hash: "after", Capability: "Echo", Settings: beacon.Settings{}})
			report, err := server.Report(within(t))
			require.NoError(t, err)
			require.False(t, report.Failed)
			require.True(t, s.Enabled())
		})
	}
}

type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("boom") }

// A resource is a provider with a life.
type resource struct {
	name                string
	failInit, panicInit bool
	failShutdown        bool
	run                 service.Handler

	mu     sync.Mutex
	events []string
}

func (r *resource) note(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}

func (r *resource) story() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.events, " ")
}

func (r *resource) Capability() beacon.Capability {
	return beacon.Capability{Name: r.name, Actions: []beacon.Action{{Name: "Run"}}}
}

func (r *resource) Initialize(context.Context) error {
	if r.panicInit {
		panic("not today")
	}
	if r.failInit {
		return errors.New("no such table")
	}
	r.note("init")
	return nil
}

func (r *resource) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	defer r.note("ran")
	return r.run(ctx, job)
}

func (r *resource) Shutdown(context.Context) error {
	r.note("shutdown")
	if r.failShutdown {
		panic("stuck")
	}
	return nil
}

func TestProviderLifecycle(t *testing.T) {
	t.Run("enabled, disabled", func(t *testing.T) {
		hub := startHub(t)
		s := newService(t, hub.url, nil)
		before, during := &resource{name: "Before", failShutdown: true}, &resource{name: "During"}
		require.NoError(t, s.RegisterProvider(within(t), before))
		require.Empty(t, before.story())
		require.NoError(t, s.Enable(within(t)))
		require.NoError(t, s.RegisterProvider(within(t), during))
		require.Equal(t, "init", before.story())
		require.Equal(t, "init", during.story())
		require.NoError(t, s.Disable(within(t)))
		require.Equal(t, "init shutdown", before.story())
		require.Equal(t, "init shutdown", during.story())
		require.NoError(t, s.RemoveCapability(within(t), "During"))
		require.NoError(t, s.Enable(within(t)))
		require.Equal(t, "init shutdown init", before.story())
		require.Equal(t, "init shutdown", during.story())
	})
	t.Run("removed while an item runs", func(t *testing.T) {
		hub := startHub(t)
		s := newService(t, hub.url, nil)
		g := newGate("")
		p := &resource{name: "R", run: g.handle}
		require.NoError(t, s.RegisterProvider(within(t), p))
		require.NoError(t, s.Enable(within(t)))
		item := later(func() (beacon.Result, error) { return hub.do("R", "Run", nil, 0) })
		<-g.began
		require.NoError(t, s.RemoveCapability(within(t), "R"))
		require.Equal(t, "init", p.story())
		close(g.pass)
		_, err := item()
		require.NoError(t, err)
		require.NoError(t, s.Disable(within(t)))
		require.Equal(t, "init ran shutdown", p.story())
	})
	t.Run("removed while an item's source is downloaded", func(t *testing.T) {
		asked, pass := make(chan struct{}), make(chan struct{})
		files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			close(asked)
			<-pass
			_, _ = w.Write([]byte("content"))
		}))
		t.Cleanup(files.Close)
		hub := startHub(t)
		s := newService(t, hub.url, nil)
		p := &resource{name: "R", run: func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			content, err := job.Dir.ReadFile(job.Source)
			return beacon.Result{Outputs: beacon.Outputs{"Result": string(content)}}, err
		}}
		require.NoError(t, s.RegisterProvider(within(t), p))
		require.NoError(t, s.Enable(within(t)))
		item := later(func() (beacon.Result, error) {
			return hub.do("R", "Run", map[string]string{"SourceURL": files.URL, "SourceFilename": "in.txt"}, 0)
		})
		<-asked
		require.NoError(t, s.RemoveCapability(within(t), "R"))
		require.Equal(t, "init", p.story())
		close(pass)
		result, err := item()
		require.NoError(t, err)
		require.Equal(t, "content", result.Outputs["Result"])
		require.NoError(t, s.Disable(within(t)))
		require.Equal(t, "init ran shutdown", p.story())
	})
	t.Run("fails to begin", func(t *testing.T) {
		hub := startHub(t)
		for _, bad := range []*resource{{name: "Z", failInit: true}, {name: "Z", panicInit: true}} {
			s := newService(t, hub.url, nil)
			good := &resource{name: "A"}
			require.NoError(t, s.RegisterProvider(within(t), good))
			require.NoError(t, s.RegisterProvider(within(t), bad))
			require.ErrorContains(t, s.Enable(within(t)), "initialize Z")
			require.Equal(t, "init shutdown", good.story())
			require.NoError(t, s.RemoveCapability(within(t), "Z"))
			require.NoError(t, s.Enable(within(t)))
			require.ErrorContains(t, s.RegisterProvider(within(t), bad), "initialize Z")
			require.Equal(t, []string{"A"}, s.CapabilityNames())
			require.Equal(t, []string{"A"}, hub.beacons()[0].Capabilities)
			require.NoError(t, s.Disable(within(t)))
		}
	})
	// Not shut down under the feet of a function that goes on, nor initialised
	// again while it does.
	t.Run("does not end", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{})
		s := newService(t, c.URL(), func(c *service.Config) { c.CancelGrace, c.DrainTimeout = 10*time.Millisecond, -1 })
		began, pass := make(chan struct{}), make(chan struct{})
		p := &resource{name: "R", run: func(context.Context, *beacon.Job) (beacon.Result, error) {
			close(began)
			<-pass
			return beacon.Result{}, nil
		}}
		require.NoError(t, s.RegisterProvider(within(t), p))
		require.NoError(t, s.Enable(within(t)))
		c.Push(beacon.WorkItem{Hash: "deaf", Capability: "R", Settings: beacon.Settings{}})
		<-began
		require.NoError(t, s.Disable(within(t)))
		report, err := c.Report(within(t))
		require.NoError(t, err)
		require.True(t, report.Failed)
		require.Equal(t, "init", p.story())
		require.NoError(t, s.Enable(within(t)))
		require.Equal(t, "init", p.story())
		require.NoError(t, s.Disable(within(t)))
		require.Equal(t, "init", p.story())
		close(pass)
		require.Eventually(t, func() bool { return p.story() == "init ran shutdown" }, time.Minute, time.Millisecond)
	})
}

// A change that waits for a silent server does not hold up the end.
func TestDisableDuringAChange(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	s := newService(t, c.URL(), func(c *service.Config) { c.Transport = service.WebSocket })
	p := &resource{name: "B"}
	require.NoError(t, s.RegisterCapability(within(t), echo("A")))
	require.NoError(t, s.Enable(within(t)))
	swallowed := make(chan struct{})
	c.OnFrame(func(raw []byte) bool {
		if !strings.Contains(string(raw), `"BeaconRegister"`) {
			return false
		}
		close(swallowed)
		return true
	})
	change := later(func() (any, error) { return nil, s.RegisterProvider(within(t), p) })
	<-swallowed
	require.NoError(t, s.Disable(within(t)))
	_, err := change()
	require.NoError(t, err)
	require.Equal(t, "init shutdown", p.story())
	require.Equal(t, []string{"A", "B"}, s.CapabilityNames())
}

// Results that the server does not take stay in the outbox, if there is one, and
// go out when the service is enabled again.
func TestUndelivered(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	box, err := outbox.Open(t.TempDir(), quiet)
	require.NoError(t, err)
	defer box.Close()
	s := newService(t, c.URL(), func(c *service.Config) { c.Transport, c.Outbox = service.HTTP, box })
	require.NoError(t, s.RegisterCapability(within(t), echo("A")))
	require.NoError(t, s.Enable(within(t)))
	tried := make(chan struct{}, 100)
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/Complete") {
			return false
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		tried <- struct{}{}
		return true
	})
	c.Push(beacon.WorkItem{Hash: "kept", Capability: "A", Settings: beacon.Settings{"Text": []byte(`"precious"`)}})
	<-tried
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err = s.Disable(ctx)
	var undelivered *worker.UndeliveredError
	require.ErrorAs(t, err, &undelivered)
	require.Equal(t, []string{"kept"}, undelivered.Hashes)
	c.Intercept(nil)
	require.NoError(t, s.Enable(within(t)))
	report, err := c.Report(within(t))
	require.NoError(t, err)
	require.Equal(t, "kept", report.Hash)
	require.Equal(t, "precious", fmt.Sprint(report.Result.Outputs["Result"]))
}

// Handlers may change the service that they are part of.
func TestHandlerChangesTheService(t *testing.T) {
	hub := startHub(t)
	s := newService(t, hub.url, nil)
	require.NoError(t, s.RegisterCapability(within(t), service.Capability{Name: "Self", Actions: []service.Action{{
		Name: "Replace", Handler: func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
			return beacon.Result{}, errors.Join(s.RegisterCapability(ctx, echo("Next")), s.RemoveCapability(ctx, "Self"))
		},
	}}}))
	require.NoError(t, s.Enable(within(t)))
	_, err := hub.do("Self", "Replace", nil, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"Next"}, hub.beacons()[0].Capabilities)
}

func TestConcurrentUse(t *testing.T) {
	hub := startHub(t)
	s := newService(t, hub.url, func(c *service.Config) { c.MaxConcurrent = 4 })
	require.NoError(t, s.RegisterCapability(within(t), echo("Fixed")))
	require.NoError(t, s.Enable(within(t)))
	var all sync.WaitGroup
	for i := range 8 {
		name := fmt.Sprint("C", i)
		all.Go(func() {
			for range 3 {
				if err := errors.Join(s.RegisterCapability(within(t), echo(name)), s.RemoveCapability(within(t), name)); err != nil {
					t.Error(err)
				}
			}
		})
		all.Go(func() {
			for n := range 5 {
				text := fmt.Sprint(i, n)
				result, err := hub.do("Fixed", "Echo", map[string]string{"Text": text}, 0)
				if err != nil || result.Outputs["Result"] != text {
					t.Errorf("%v %v", result, err)
				}
				s.CapabilityNames()
				s.BeaconID()
			}
		})
	}
	all.Wait()
	require.Equal(t, []string{"Fixed"}, s.CapabilityNames())
	require.Equal(t, []string{"Fixed"}, hub.beacons()[0].Capabilities)

	// And enabled and disabled from everywhere.
	for range 4 {
		all.Go(func() {
			if err := s.Enable(within(t)); err != nil && beacon.CodeOf(err) != beacon.Canceled { // by another's Disable
				t.Error(err)
			}
			if err := s.Disable(within(t)); err != nil {
				t.Error(err)
			}
		})
		all.Go(func() {
			_ = s.RegisterCapability(within(t), echo("Now"))
			_ = s.RemoveCapability(within(t), "Now")
		})
	}
	all.Wait()
	require.NoError(t, s.Disable(within(t)))
	require.Empty(t, hub.beacons())
}

func TestInvalid(t *testing.T) {
	for name, change := range map[string]func(*service.Config){
		"Name":          func(c *service.Config) { c.Name = "" },
		"ServerURL":     func(c *service.Config) { c.ServerURL = "ftp://example.com" },
		"no ServerURL":  func(c *service.Config) { c.ServerURL = "" },
		"Transport":     func(c *service.Config) { c.Transport = "pigeon" },
		"MaxConcurrent": func(c *service.Config) { c.MaxConcurrent = -1 },
		"Tags":          func(c *service.Config) { c.Tags = map[string]any{"x": make(chan int)} },
	} {
		t.Run("config: "+name, func(t *testing.T) {
			cfg := service.Config{ServerURL: "http://127.0.0.1:1", Name: "app"}
			change(&cfg)
			_, err := service.New(cfg)
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err), "%v", err)
		})
	}
	s := newService(t, "http://127.0.0.1:1", nil)
	handler := echo("").Actions[0].Handler
	for name, c := range map[string]service.Capability{
		"no name":        echo(""),
		"no actions":     {Name: "A"},
		"no handler":     {Name: "A", Actions: []service.Action{{Name: "Do"}}},
		"unnamed action": {Name: "A", Actions: []service.Action{{Handler: handler}}},
		"action twice":   {Name: "A", Actions: []service.Action{{Name: "Do", Handler: handler}, {Name: "Do", Handler: handler}}},
	} {
		t.Run("capability: "+name, func(t *testing.T) {
			require.Equal(t, beacon.Invalid, beacon.CodeOf(s.RegisterCapability(within(t), c)))
		})
	}
	require.Equal(t, beacon.Invalid, beacon.CodeOf(s.RegisterProvider(within(t), nil)))
	require.Equal(t, beacon.Internal, beacon.CodeOf(s.RegisterProvider(within(t), (*resource)(nil)))) // it panics
	require.Empty(t, s.CapabilityNames())
	require.NoError(t, s.RegisterCapability(within(t), echo("A")))
	require.ErrorContains(t, s.RegisterCapability(within(t), echo("A")), "registered already")
	err := s.RemoveCapability(within(t), "B")
	require.Equal(t, beacon.NotFound, beacon.CodeOf(err))
	require.ErrorContains(t, err, `["A"]`)
}

func TestNoSecrets(t *testing.T) {
	cfg := service.Config{ServerURL: "http://user:hidden1@example.com", Name: "app", Password: "hidden2", JoinSecret: "hidden3"}
	for _, text := range []string{fmt.Sprint(cfg), fmt.Sprintf("%+v", cfg), fmt.Sprintf("%#v", cfg), cfg.LogValue().String()} {
		require.NotContains(t, text, "hidden")
		require.Contains(t, text, "app")
	}
}

// Everything that a service is told about itself and its server counts; the Node
// worker drops the join secret, the reconnect interval and the transport.
func TestConfigCounts(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	s := newService(t, c.URL(), func(cfg *service.Config) {
		cfg.Transport, cfg.JoinSecret, cfg.UserName, cfg.Password = service.WebSocket, "open sesame", "somebody", "p"
		cfg.MaxConcurrent, cfg.HostID = 3, "host-1"
		cfg.Tags = map[string]any{"gpu": true}
		cfg.Contexts = map[string]any{"File": map[string]any{"BaseURL": "http://host-1/files/"}}
		cfg.Operations = []json.RawMessage{[]byte(`{"Hash":"op"}`)}
		cfg.BindAddresses = []json.RawMessage{[]byte(`{"IP":"10.0.0.5","Port":80}`)}
		cfg.SharedMounts = []protocol.SharedMount{{MountID: "m", Root: "/media"}}
		cfg.ReconnectInterval, cfg.ReconnectMax = time.Millisecond, time.Millisecond
	})
	ctx := within(t)
	require.NoError(t, s.RegisterCapability(ctx, echo("A")))
	require.NoError(t, s.Enable(ctx))
	require.Contains(t, strings.Join(c.Frames(), "\n"), `"MaxConcurrent":3,"Tags":{"gpu":true},"Contexts":{"File":{"BaseURL":"http://host-1/files/"}},`+
		`"Operations":[{"Hash":"op"}],"BindAddresses":[{"IP":"10.0.0.5","Port":80}],"HostID":"host-1","SharedMounts":[{"MountID":"m","Root":"/media"}],"JoinSecret":"open sesame"}`)
	require.NotContains(t, c.Requests(), "POST /Beacon/Register", "it came by HTTP, too")

	// With the usual intervals so many attempts would take hours.
	c.AllowUpgrade(false)
	c.CutSockets()
	upgrades := func() (n int) {
		for _, r := range c.Requests() {
			if r == "GET /" {
				n++
			}
		}
		return n
	}
	require.NoError(t, c.Until(ctx, func() bool { return upgrades() > 40 }))
	require.NoError(t, s.Disable(ctx))

	c = coordinator.Start(t, coordinator.Config{})
	s = newService(t, c.URL(), func(cfg *service.Config) { cfg.Transport = service.HTTP })
	require.NoError(t, s.RegisterCapability(ctx, echo("A")))
	require.NoError(t, s.Enable(ctx))
	require.NotContains(t, c.Requests(), "GET /", "an upgrade was tried")
	require.NoError(t, s.Disable(ctx))
}

// An item's source may be a file of the beacon itself, or of another one.
func TestUniversalAddresses(t *testing.T) {
	hub := startHub(t)
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a b.txt"), []byte("of its own"), 0o600))
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "of another: "+r.URL.Path) }))
	t.Cleanup(files.Close)
	content := func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		text, err := job.Dir.ReadFile(job.Source)
		return beacon.Result{Outputs: beacon.Outputs{"Result": string(text)}}, err
	}
	ctx := within(t)
	for name, at := range map[string]map[string]any{"reader": {"BasePath": dir}, "other": {"BaseURL": files.URL + "/files/"}} {
		s := newService(t, hub.url, func(c *service.Config) {
			c.Name, c.Contexts = name, map[string]any{"File": at}
		})
		if name == "reader" {
			require.NoError(t, s.RegisterCapability(ctx, service.Capability{Name: "Reader", Actions: []service.Action{{Name: "Read", Handler: content}}}))
		}
		require.NoError(t, s.Enable(ctx))
	}
	for address, want := range map[string]string{
		">reader/File/a b.txt":   "of its own",
		">*/File/a b.txt":        "of its own",
		">other/File/x/y z":      "of another: /files/x/y z",
		">reader/File/../secret": "",
		">nobody/File/x":         "",
	} {
		result, err := hub.do("Reader", "Read", map[string]string{"SourceURL": address}, time.Minute)
		require.NoError(t, err)
		if want == "" {
			require.NotZero(t, result.ExitCode(), address)
			require.Contains(t, result.Outputs["StdOut"], address)
			continue
		}
		require.Equal(t, want, result.Outputs["Result"], "%s: %v", address, result)
	}
}
