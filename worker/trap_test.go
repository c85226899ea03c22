package worker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// The traps in the real servers, each reproduced by the scripted coordinator.

// ways are the two ways to connect.
var ways = map[string]func(session.Config) transport.Dial{"websocket": ws.Dial, "http": poll.Dial}

func next(t *testing.T, c *coordinator.Coordinator) beacontest.Report {
	t.Helper()
	r, err := c.Report(within(t))
	require.NoError(t, err, "no report arrived")
	return r
}

// The server of March 2026 pushes an item when it arrives and there is room at
// that moment, and never later.
func TestTrapWhatWaitsIsNeverPushed(t *testing.T) {
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
			push(c, "before anybody was there")
			serve(t, dial(config(c, 2)), echo, worker.Config{MaxConcurrent: 2})
			for i := range 20 {
				push(c, fmt.Sprint("wi-", i))
			}
			for range 21 {
				next(t, c)
			}
			require.LessOrEqual(t, c.MaxLoad(), 2)
		})
	}
}

// The scheduler of later servers gives to anybody what waits. On a socket it
// arrives, and its progress is refused.
func TestTrapSchedulerPushes(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD, NoLogin: true})
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool { // the scheduler is quicker than any poll
		polls := strings.HasSuffix(r.URL.Path, "/Poll")
		if polls {
			fmt.Fprint(w, `{"WorkItem":null}`)
		}
		return polls
	})
	cfg := config(c, 2)
	registered, progressed := make(chan struct{}), make(chan struct{})
	serve(t, ws.Dial(cfg), func(ctx context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
		progress(beacon.Progress{Message: "begun"})
		<-progressed
		return echo(ctx, item, progress)
	}, worker.Config{MaxConcurrent: 2, ProgressInterval: time.Millisecond, OnRegistered: func(string, string) { close(registered) }})
	<-registered
	c.Queue(beacon.WorkItem{Hash: "a", Capability: "Test", Settings: beacon.Settings{}})
	c.Tick()
	require.NoError(t, c.Until(within(t), func() bool { return strings.Contains(strings.Join(c.Frames(), "\n"), "WorkProgress") }))
	close(progressed)
	require.Equal(t, "a", next(t, c).Result.Outputs["Result"])
	require.Empty(t, c.Progress("a"), "the trap is none: the server accepts progress")
}

// From a beacon that polls, what the scheduler gives it is gone: so it must ask
// before, and more often than it is told to.
func TestTrapSchedulerStarvesPollers(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD, NoLogin: true})
	cfg := config(c, 1)
	cfg.PollInterval = time.Hour
	serve(t, poll.Dial(cfg), echo, worker.Config{})
	for i := range 3 {
		push(c, fmt.Sprint("wi-", i))
		require.Equal(t, fmt.Sprint("wi-", i), next(t, c).Hash)
	}
}

// Later servers drop an item that shows no sign of life.
func TestTrapStall(t *testing.T) {
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD})
			begun, finish := make(chan struct{}), make(chan struct{})
			done := sync.OnceFunc(func() { close(finish) })
			serve(t, dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
				close(begun)
				<-finish
				return echo(ctx, item, p)
			}, worker.Config{KeepAlive: time.Millisecond})
			t.Cleanup(done)
			push(c, "long")
			<-begun
			for range 5 {
				c.Stall()
				seen := len(c.Progress("long"))
				require.NoError(t, c.Until(within(t), func() bool { return len(c.Progress("long")) > seen }), "no sign of life")
			}
			require.False(t, c.Stalled("long"))
			done()
			require.False(t, next(t, c).Failed)
		})
	}
	require.Less(t, worker.DefaultKeepAlive, 120*time.Second/2, "less than half of the time that servers wait")
}

// Later servers have one record for a name. When a second connection has taken
// it over and the first ends, the record goes, and the second stays open but
// unknown. Nothing says so on the socket.
func TestTrapSameName(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD})
	// The first connection: of an earlier process, half open.
	first, _, err := websocket.Dial(within(t), c.URL(), nil)
	require.NoError(t, err)
	frame, err := protocol.EncodeRegister(protocol.Registration{Name: "n", Capabilities: []string{"Test"}, MaxConcurrent: 1})
	require.NoError(t, err)
	require.NoError(t, first.Write(within(t), websocket.MessageText, frame))
	require.NoError(t, c.Until(within(t), c.Connected))

	registered := make(chan string, 10)
	serve(t, ws.Dial(config(c, 1)), echo, worker.Config{OnRegistered: func(id, _ string) { registered <- id }})
	<-registered
	push(c, "a")
	require.Equal(t, "a", next(t, c).Hash)
	require.NoError(t, first.CloseNow())
	push(c, "b", "c")
	require.Equal(t, "b", next(t, c).Hash)
	require.Equal(t, "c", next(t, c).Hash)
	require.Len(t, c.Beacons(), 1)
	require.Empty(t, registered, "it connected anew, although the same socket would do")
}

// A session can end at any call; the call is repeated with a new one.
func TestTrapSessionEnds(t *testing.T) {
	for _, call := range []string{"/Poll", "/Heartbeat", "/Progress", "/Complete", "/Error"} {
		for name, dial := range ways {
			if name == "websocket" && (call == "/Progress" || call == "/Complete" || call == "/Error") {
				continue // these are frames there
			}
			t.Run(name+call, func(t *testing.T) {
				c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
				cfg := config(c, 1)
				cfg.HeartbeatInterval = 20 * time.Millisecond
				var ended atomic.Int32
				c.Intercept(func(_ http.ResponseWriter, r *http.Request) bool {
					if strings.HasSuffix(r.URL.Path, call) && ended.CompareAndSwap(0, 1) {
						c.ForgetSessions()
					}
					return false
				})
				var runs atomic.Int32
				stop := serve(t, dial(cfg), func(ctx context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
					runs.Add(1)
					progress(beacon.Progress{Message: "begun"})
					if call == "/Heartbeat" { // during which the item is active
						if err := c.Until(ctx, func() bool { return ended.Load() == 1 }); err != nil {
							return beacon.Result{}, err
						}
					}
					if call == "/Error" {
						return beacon.Result{}, errors.New("no")
					}
					return echo(ctx, item, progress)
				}, worker.Config{})
				push(c, "a")
				r := next(t, c)
				require.Equal(t, call == "/Error", r.Failed)
				require.NoError(t, c.Until(within(t), func() bool { return ended.Load() == 1 && c.Logins() > 1 }))
				require.EqualValues(t, 1, runs.Load())
				require.NoError(t, stop())
				require.NoError(t, c.Until(within(t), func() bool { return !c.Connected() }), "an identity was left behind")
			})
		}
	}
}

// Everything is forgotten, and the connection lives on: a server that was
// restarted behind a proxy.
func TestTrapRestartBehindAProxy(t *testing.T) {
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
			stop := serve(t, dial(config(c, 1)), echo, worker.Config{})
			for i := range 5 {
				push(c, fmt.Sprint("wi-", i))
				next(t, c)
				c.ForgetBeacons(true)
			}
			require.NoError(t, stop())
			require.NoError(t, c.Until(within(t), func() bool { return !c.Connected() }))
		})
	}
}

// Frames that are too large, or no UTF-8, end the real server; the coordinator
// fails the test instead.
func TestTrapFrames(t *testing.T) {
	const deadly = 10 << 20 // a tenth of the real one
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, MaxFrame: deadly})
	cfg := config(c, 1)
	cfg.MaxFrame = deadly - deadly/10
	cfg.RequestTimeout = time.Minute
	serve(t, ws.Dial(cfg), func(_ context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
		progress(beacon.Progress{Message: "\xff\xfe", Log: []string{"\xc3\x28"}})
		switch item.Hash {
		case "large":
			return beacon.Result{Outputs: beacon.Outputs{"Result": strings.Repeat("x", deadly+1)}}, nil
		case "no UTF-8 \xf0\x28":
			return beacon.Result{}, errors.New("\xf0\x28\x8c\x28")
		}
		return beacon.Result{Outputs: beacon.Outputs{"a\xffb": "a\xffb", "Raw": []byte{0xff}}, Log: []string{"\xff"}}, nil
	}, worker.Config{})
	push(c, "odd", "large")
	got := map[string]beacontest.Report{}
	for range 2 {
		r := next(t, c)
		got[r.Hash] = r
	}
	require.Len(t, got["large"].Result.Outputs["Result"], deadly+1)
	require.Less(t, protocol.MaxFrame, 100<<20)
	require.Equal(t, "a\ufffdb", got["odd"].Result.Outputs["a\ufffdb"])
	require.Contains(t, c.Requests(), "POST /Beacon/Work/large/Complete")
}

// The server of March 2026 gives two items of one millisecond the same hash: the
// later overwrites the earlier, whose submitter is never answered. Then the
// later must get its own result.
func TestTrapSameHash(t *testing.T) {
	item := func(n int) beacon.WorkItem {
		return beacon.WorkItem{Hash: "wi-unknown-unknown-1795346382219", Capability: "Test", Settings: beacon.Settings{"N": fmt.Appendf(nil, "%d", n)}}
	}
	t.Run("while the first runs", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Generous: true})
		begun := make(chan struct{})
		var canceled atomic.Bool
		stop := serve(t, ws.Dial(config(c, 2)), func(ctx context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			if item.Settings.Text("N") == "1" {
				close(begun)
				<-ctx.Done()
				canceled.Store(true)
			}
			return beacon.Result{Outputs: beacon.Outputs{"Result": item.Settings.Text("N")}}, nil
		}, worker.Config{MaxConcurrent: 2})
		c.Push(item(1))
		<-begun
		c.Push(item(2))
		c.Push(item(2)) // the same once more is no collision
		require.Equal(t, "2", next(t, c).Result.Outputs["Result"])
		require.NoError(t, stop())
		require.True(t, canceled.Load(), "the first was not given up")
	})
	t.Run("while its result is delivered", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Generous: true})
		box, err := outbox.Open(t.TempDir(), quiet)
		require.NoError(t, err)
		defer box.Close()
		entered, thaw := make(chan struct{}), make(chan struct{})
		c.OnFrame(func(raw []byte) bool {
			if strings.Contains(string(raw), "WorkComplete") {
				close(entered)
				<-thaw
				c.OnFrame(nil)
			}
			return false
		})
		cfg := config(c, 2)
		cfg.PollInterval = 10 * time.Millisecond
		stop := serve(t, ws.Dial(cfg), func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"Result": item.Settings.Text("N")}}, nil
		}, worker.Config{MaxConcurrent: 2, Outbox: box})
		c.Push(item(1))
		<-entered
		c.Push(item(2))
		close(thaw)
		// The first one's result was on its way before the server had the second
		// item; which of them it counts for is the server's affair.
		next(t, c)
		require.NoError(t, stop())
		waits, err := box.Pending()
		require.NoError(t, err)
		require.Empty(t, waits)
	})
	t.Run("of servers that count", func(t *testing.T) {
		c := coordinator.Start(t, coordinator.Config{Generous: true})
		var runs atomic.Int32
		begun, finish := make(chan struct{}), make(chan struct{})
		stop := serve(t, ws.Dial(config(c, 2)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			if runs.Add(1) == 1 {
				close(begun)
			}
			<-finish
			return echo(ctx, item, p)
		}, worker.Config{MaxConcurrent: 2})
		again := item(1)
		again.Attempt = 1
		c.Push(again)
		<-begun
		// The next attempt has settings of its own, and is still the same item.
		again.Attempt, again.Settings = 2, beacon.Settings{"N": []byte("1"), "QueueMetadata": []byte(`{"AttemptNumber":2}`)}
		c.Push(again)
		require.NoError(t, c.Until(within(t), func() bool { return len(c.Active()) == 1 }))
		close(finish)
		next(t, c)
		require.NoError(t, stop())
		require.EqualValues(t, 1, runs.Load())
	})
}

// An item comes again after its result, and after another beacon has finished
// it.
func TestTrapLate(t *testing.T) {
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD})
			box, err := outbox.Open(t.TempDir(), quiet)
			require.NoError(t, err)
			defer box.Close()
			begun, finish := make(chan struct{}), make(chan struct{})
			done := sync.OnceFunc(func() { close(finish) })
			stop := serve(t, dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
				close(begun)
				<-finish
				return echo(ctx, item, p)
			}, worker.Config{Outbox: box})
			t.Cleanup(done)
			push(c, "a")
			<-begun
			// Another beacon is quicker.
			answer, err := http.Post(c.URL()+"/Beacon/Work/a/Complete", "application/json", strings.NewReader(`{"Outputs":{"Result":"of another"},"Log":[]}`))
			require.NoError(t, err)
			answer.Body.Close()
			http.DefaultClient.CloseIdleConnections()
			require.Equal(t, "of another", next(t, c).Result.Outputs["Result"])
			done()
			require.NoError(t, stop())
			waits, err := box.Pending()
			require.NoError(t, err)
			require.Empty(t, waits, "a result that nobody wants is kept for ever")
		})
	}
}

// The frame with the result arrives nowhere, although the connection is fine and
// pings are answered: somebody in between lost it. The server goes on to list
// the item, until it gets the result by HTTP.
func TestTrapResultsAreLostOnTheWay(t *testing.T) {
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("failure=", fails), func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD})
			c.OnFrame(func(raw []byte) bool {
				return strings.Contains(string(raw), "WorkComplete") || strings.Contains(string(raw), "WorkError")
			})
			var refused atomic.Int32
			c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				// By HTTP it is confirmed late, too.
				if !strings.Contains(r.URL.Path, "/Work/a/") || refused.Add(1) > 1 {
					return false
				}
				coordinator.Discard(r)
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			})
			var runs atomic.Int32
			box, err := outbox.Open(t.TempDir(), quiet)
			require.NoError(t, err)
			defer box.Close()
			stop := serve(t, ws.Dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
				runs.Add(1)
				if fails {
					return beacon.Result{}, errors.New("no")
				}
				return echo(ctx, item, p)
			}, worker.Config{Outbox: box})
			push(c, "a")
			require.Equal(t, fails, next(t, c).Failed)
			require.NoError(t, stop())
			require.EqualValues(t, 1, runs.Load())
			waits, err := box.Pending()
			require.NoError(t, err)
			require.Empty(t, waits)
		})
	}
}

// A server that tries a failure again at once delivers the next attempt before
// it has confirmed the failure: that is no duplicate.
func TestTrapRetryAtOnce(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.HEAD, Generous: true})
	item := beacon.WorkItem{Hash: "a", Capability: "Test", Settings: beacon.Settings{}, Attempt: 1}
	c.OnFrame(func(raw []byte) bool {
		if strings.Contains(string(raw), "WorkError") && item.Attempt < 3 {
			item.Attempt++
			c.Push(item)
			return true
		}
		return false
	})
	var runs atomic.Int32
	box, err := outbox.Open(t.TempDir(), quiet)
	require.NoError(t, err)
	defer box.Close()
	stop := serve(t, ws.Dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
		if runs.Add(1) < 3 {
			return beacon.Result{}, errors.New("not yet")
		}
		return echo(ctx, item, p)
	}, worker.Config{Outbox: box})
	c.Push(item)
	require.False(t, next(t, c).Failed)
	require.NoError(t, stop())
	require.EqualValues(t, 3, runs.Load())
	waits, err := box.Pending()
	require.NoError(t, err)
	require.Empty(t, waits)
}
