package worker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/fallback"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// The tests in this file run a worker against a server over real sockets.

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func config(c *coordinator.Coordinator, slots int) session.Config {
	return session.Config{
		ServerURL:    c.URL(),
		Registration: protocol.Registration{Name: "n", Capabilities: []string{"Test"}, MaxConcurrent: slots},
		PollInterval: 20 * time.Millisecond, HeartbeatInterval: 50 * time.Millisecond,
		Logger: quiet,
	}
}

func dialAny(cfg session.Config) transport.Dial {
	return fallback.Dial(fallback.Config{ProbeInterval: 50 * time.Millisecond, Logger: quiet},
		fallback.Way{Name: "websocket", Dial: ws.Dial(cfg), Probe: ws.Probe(cfg)},
		fallback.Way{Name: "http", Dial: poll.Dial(cfg)},
	)
}

// serve runs a worker until the returned function is called, which gives what
// Run returned.
func serve(t testing.TB, dial transport.Dial, execute beacon.Execute, cfg worker.Config) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	cfg.Logger = quiet
	if cfg.ReconnectInterval == 0 {
		cfg.ReconnectInterval = 10 * time.Millisecond
		cfg.ReconnectMax = 50 * time.Millisecond
	}
	done := make(chan error, 1)
	go func() { done <- worker.Run(ctx, dial, execute, cfg) }()
	var once sync.Once
	var err error
	stop = func() error {
		once.Do(func() { cancel(); err = <-done })
		return err
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

func push(c *coordinator.Coordinator, hashes ...string) {
	for _, hash := range hashes {
		c.Push(beacon.WorkItem{Hash: hash, Capability: "Test", Action: "Run", Settings: beacon.Settings{}})
	}
}

var servers = map[string]coordinator.Config{
	"ERA":  {Flavour: coordinator.ERA, Sessions: true},
	"HEAD": {Flavour: coordinator.HEAD, NoLogin: true},
}

// Every item is carried out once, within the capacity, whatever happens to the
// links: cuts, restarts that forget beacons and sessions, changes of transport.
func TestEveryItemOnce(t *testing.T) {
	const n = 200
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, server)
			var mu sync.Mutex
			runs := map[string]int{}
			stop := serve(t, dialAny(config(c, 4)), func(_ context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
				mu.Lock()
				runs[item.Hash]++
				mu.Unlock()
				progress(beacon.Progress{Message: "begun"})
				return beacon.Result{Outputs: beacon.Outputs{"Result": item.Hash}}, nil
			}, worker.Config{MaxConcurrent: 4})
			got := map[string]bool{}
			for i := range n {
				push(c, fmt.Sprint("wi-", i))
				switch i % 40 {
				case 5:
					c.CutSockets()
				case 13:
					c.ForgetBeacons(true)
				case 21:
					c.AllowUpgrade(false)
					c.CutSockets()
				case 29:
					c.AllowUpgrade(true)
				}
				if i%4 == 3 {
					for range 4 {
						r, err := c.Report(within(t))
						require.NoError(t, err, "%d results of %d", len(got), i+1)
						require.False(t, got[r.Hash])
						require.Equal(t, r.Hash, r.Result.Outputs["Result"])
						got[r.Hash] = true
					}
				}
			}
			require.Len(t, got, n)
			require.NoError(t, stop())
			require.NoError(t, c.Until(within(t), func() bool { return len(c.Beacons()) == 0 }), "the beacon did not leave")
			again := 0
			for _, k := range runs {
				again += k - 1
			}
			t.Logf("%d items, %d executed again after a result that no server confirmed", n, again)
		})
	}
}

func TestUpgradeRefusedMeansPolling(t *testing.T) {
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, server)
			c.AllowUpgrade(false)
			ways := make(chan string, 10)
			stop := serve(t, dialAny(config(c, 1)), echo, worker.Config{OnRegistered: func(_, way string) { ways <- way }})
			push(c, "a", "b", "c")
			for range 3 {
				_, err := c.Report(within(t))
				require.NoError(t, err)
			}
			require.Equal(t, "http", <-ways)
			require.Equal(t, 1, c.MaxLoad())
			c.AllowUpgrade(true)
			require.Equal(t, "websocket", <-ways)
			push(c, "d")
			_, err := c.Report(within(t))
			require.NoError(t, err)
			require.NoError(t, stop())
		})
	}
}

func TestRejectedEndsRun(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Reject: "Bootstrap auth secret mismatch"})
	err := worker.Run(within(t), dialAny(config(c, 1)), echo, worker.Config{Logger: quiet})
	require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
	require.ErrorContains(t, err, "Bootstrap auth secret mismatch")
	require.Equal(t, 1, c.Logins(), "a rejected beacon came again")
}

// A server pushes the same item twice, and one more while it runs.
func TestDuplicateDelivery(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	var runs atomic.Int32
	begun, finish := make(chan struct{}), make(chan struct{})
	stop := serve(t, ws.Dial(config(c, 4)), func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
		if runs.Add(1) == 1 {
			close(begun)
		}
		<-finish
		return beacon.Result{}, nil
	}, worker.Config{MaxConcurrent: 4})
	push(c, "a")
	<-begun
	c.Redeliver("a")
	c.Redeliver("a")
	push(c, "b") // arrives after those
	require.Eventually(t, func() bool { return runs.Load() == 2 }, 5*time.Minute, time.Millisecond)
	close(finish)
	for range 2 {
		_, err := c.Report(within(t))
		require.NoError(t, err)
	}
	require.NoError(t, stop())
	require.EqualValues(t, 2, runs.Load())
}

// The server answers reports with errors for a while.
func TestServerErrorsOnReports(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusBadGateway, http.StatusUnauthorized, http.StatusTooManyRequests, 0} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
			var failures atomic.Int32
			c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/Complete") || failures.Add(1) > 1 {
					return false
				}
				coordinator.Discard(r)
				if status == 0 {
					panic(http.ErrAbortHandler)
				}
				w.WriteHeader(status)
				return true
			})
			var runs atomic.Int32
			stop := serve(t, poll.Dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
				runs.Add(1)
				return echo(ctx, item, p)
			}, worker.Config{})
			push(c, "a")
			r, err := c.Report(within(t))
			require.NoError(t, err)
			require.Equal(t, "a", r.Result.Outputs["Result"])
			require.NoError(t, stop())
			require.EqualValues(t, 1, runs.Load())
		})
	}
}

// A result that no server took is delivered by the next process.
func TestOutboxOnDisk(t *testing.T) {
	dir := t.TempDir()
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/Complete") {
			return false
		}
		coordinator.Discard(r)
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	box, err := outbox.Open(dir, quiet)
	require.NoError(t, err)
	ran, abort := make(chan struct{}), make(chan struct{})
	stop := serve(t, poll.Dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
		defer close(ran)
		return echo(ctx, item, p)
	}, worker.Config{Outbox: box, Abort: abort})
	push(c, "a")
	<-ran
	require.NoError(t, c.Until(within(t), func() bool {
		waits, err := box.Pending()
		return err == nil && len(waits) == 1
	}))
	close(abort)
	var left *worker.UndeliveredError
	require.ErrorAs(t, stop(), &left)
	require.Equal(t, []string{"a"}, left.Hashes)
	require.NoError(t, box.Close())

	c.Intercept(nil)
	box, err = outbox.Open(dir, quiet)
	require.NoError(t, err)
	stop = serve(t, ws.Dial(config(c, 1)), func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
		return beacon.Result{}, errors.New("executed again")
	}, worker.Config{Outbox: box})
	r, err := c.Report(within(t))
	require.NoError(t, err)
	require.Equal(t, "a", r.Result.Outputs["Result"])
	require.NoError(t, stop())
	require.NoError(t, box.Close())
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, files, 1)
	require.Equal(t, "lock", files[0].Name())
}

func BenchmarkItems(b *testing.B) {
	for _, way := range []string{"websocket", "http"} {
		for _, slots := range []int{1, 4, 16} {
			for _, durable := range []bool{false, true} {
				name := fmt.Sprintf("%s/slots=%d", way, slots)
				if durable {
					name += "/outbox"
				}
				b.Run(name, func(b *testing.B) {
					c := coordinator.Start(b, coordinator.Config{Generous: true})
					cfg := config(c, slots)
					cfg.Queue = 1 << 20
					cfg.HeartbeatInterval = time.Minute
					dial := ws.Dial(cfg)
					if way == "http" {
						dial = poll.Dial(cfg)
					}
					run := worker.Config{MaxConcurrent: slots}
					if durable {
						box, err := outbox.Open(b.TempDir(), quiet)
						require.NoError(b, err)
						defer box.Close()
						run.Outbox = box
					}
					registered := make(chan struct{})
					run.OnRegistered = func(string, string) { close(registered) }
					stop := serve(b, dial, echo, run)
					<-registered
					b.ResetTimer()
					go func() {
						for i := range b.N {
							push(c, fmt.Sprint("wi-", i))
						}
					}()
					for range b.N {
						if _, err := c.Report(context.Background()); err != nil {
							b.Fatal(err)
						}
					}
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
					b.StopTimer()
					require.NoError(b, stop())
				})
			}
		}
	}
}
