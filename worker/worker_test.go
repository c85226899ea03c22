package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/worker"
)

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// A run is a worker under test.
type run struct {
	t      *testing.T
	server *beacontest.Server
	stop   context.CancelFunc
	began  time.Time
	done   chan error
	err    error
	ended  bool
}

func start(t *testing.T, execute beacon.Execute, cfg worker.Config) *run {
	server := beacontest.NewServer()
	return startWith(t, server, server.Dial, execute, cfg)
}

func startWith(t *testing.T, server *beacontest.Server, dial transport.Dial, execute beacon.Execute, cfg worker.Config) *run {
	ctx, stop := context.WithCancel(context.Background())
	r := &run{t: t, server: server, stop: stop, began: time.Now(), done: make(chan error, 1)}
	if cfg.Logger == nil {
		cfg.Logger = quiet
	}
	go func() { r.done <- worker.Run(ctx, dial, execute, cfg) }()
	t.Cleanup(func() { r.end() })
	return r
}

// end stops the worker and returns what Run returned.
func (r *run) end() error {
	r.stop()
	if !r.ended {
		r.err, r.ended = <-r.done, true
	}
	return r.err
}

func (r *run) push(hashes ...string) {
	for _, hash := range hashes {
		r.server.Push(beacon.WorkItem{Hash: hash, Capability: "Test", Action: "Run", Settings: beacon.Settings{}})
	}
}

// report waits for a report, and until the worker knows, too, that it is
// delivered: an item that comes again before that is taken for the same one.
func (r *run) report() beacontest.Report {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 24*time.Hour)
	defer cancel()
	report, err := r.server.Report(ctx)
	require.NoError(r.t, err, "no report")
	synctest.Wait()
	return report
}

func echo(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
	return beacon.Result{Outputs: beacon.Outputs{"Result": item.Hash}}, nil
}

func takes(d time.Duration) beacon.Execute {
	return func(ctx context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
		select {
		case <-time.After(d):
			return beacon.Result{Outputs: beacon.Outputs{"Result": item.Hash}}, nil
		case <-ctx.Done():
			return beacon.Result{Log: []string{"interrupted"}}, ctx.Err()
		}
	}
}

func TestRunsAsManyAsAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int32
		r := start(t, func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			n := running.Add(1)
			defer running.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			return beacon.Result{}, nil
		}, worker.Config{MaxConcurrent: 3})
		begin := time.Now()
		for i := range 9 {
			r.push(fmt.Sprint(i))
		}
		for range 9 {
			r.report()
		}
		require.EqualValues(t, 3, most.Load())
		require.Equal(t, 3*time.Second, time.Since(begin))
		require.NoError(t, r.end())
		require.False(t, r.server.Connected(), "the beacon did not leave")
	})
}

func TestJobsOutliveLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		var lost []error
		var registered []string
		r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			runs.Add(1)
			return takes(time.Hour)(ctx, item, p)
		}, worker.Config{
			MaxConcurrent: 2,
			OnRegistered:  func(id, way string) { registered = append(registered, id+" "+way) },
			OnLost:        func(err error) { lost = append(lost, err) },
		})
		r.push("a")
		time.Sleep(time.Minute)
		for range 3 { // with each of them the server delivers the item again
			r.server.Drop()
			time.Sleep(time.Minute)
		}
		report := r.report()
		require.Equal(t, "a", report.Hash)
		require.Equal(t, "a", report.Result.Outputs["Result"])
		require.EqualValues(t, 1, runs.Load())
		require.NoError(t, r.end())
		require.Len(t, lost, 3)
		require.ErrorIs(t, lost[0], transport.ErrDisconnected)
		require.Equal(t, []string{"bcn-memory-1 memory", "bcn-memory-2 memory", "bcn-memory-3 memory", "bcn-memory-4 memory"}, registered)
	})
}

// An item that ends while there is no server is reported to the next one.
func TestResultsWaitForALink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(time.Minute), worker.Config{MaxConcurrent: 2})
		r.push("a", "b")
		time.Sleep(time.Second)
		r.server.Refuse(errors.New("away"))
		r.server.Drop()
		time.Sleep(time.Hour)
		r.server.Refuse(nil)
		got := []string{r.report().Hash, r.report().Hash}
		slices.Sort(got)
		require.Equal(t, []string{"a", "b"}, got)
		r.push("a") // this is another attempt, and runs
		require.Equal(t, "a", r.report().Hash)
	})
}

func TestBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		server.Refuse(errors.New("refused"))
		var mu sync.Mutex
		var attempts []time.Time
		dial := func(ctx context.Context) (transport.Session, error) {
			mu.Lock()
			attempts = append(attempts, time.Now())
			mu.Unlock()
			return server.Dial(ctx)
		}
		dialed := func() []time.Time {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(attempts)
		}
		r := startWith(t, server, dial, echo, worker.Config{})
		time.Sleep(10 * time.Hour)
		dials := dialed()
		n := len(dials)
		bound, equal := worker.DefaultReconnectInterval, 0
		for i := 1; i < n; i++ {
			wait := dials[i].Sub(dials[i-1])
			require.LessOrEqual(t, wait, bound+1)
			if wait == bound {
				equal++
			}
			bound = min(2*bound, worker.DefaultReconnectMax)
		}
		require.Less(t, equal, n/2, "the waits are not random")
		require.Greater(t, n, 100, "fewer attempts than one in five minutes")
		require.Less(t, n, 1000)

		// After a success the waits begin anew.
		server.Refuse(nil)
		r.push("a")
		r.report()
		server.Refuse(errors.New("refused"))
		synctest.Wait()
		lost := time.Now()
		server.Drop()
		time.Sleep(time.Second)
		dials = dialed()
		require.LessOrEqual(t, dials[len(dials)-1].Sub(lost), time.Second)
		require.Greater(t, len(dials), n+1)
		require.NoError(t, r.end())
	})
}

// A link that always breaks at once is no success.
func TestBackoffOfAPoisonousServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		dials := 0
		dial := func(ctx context.Context) (transport.Session, error) {
			dials++
			s, err := server.Dial(ctx)
			server.Drop()
			return s, err
		}
		startWith(t, server, dial, echo, worker.Config{})
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Less(t, dials, 100)
	})
}

func TestRejectedIsFinal(t *testing.T) {
	for _, code := range []beacon.Code{beacon.Rejected, beacon.Invalid} {
		t.Run(string(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				canceled := make(chan struct{})
				r := start(t, func(ctx context.Context, _ beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
					<-ctx.Done()
					close(canceled)
					return beacon.Result{}, ctx.Err()
				}, worker.Config{})
				r.push("a")
				time.Sleep(time.Second)
				r.server.Refuse(fmt.Errorf("connect: %w", beacon.Errorf(code, "bootstrap secret mismatch")))
				r.server.Drop()
				err := <-r.done
				r.ended = true
				require.Equal(t, code, beacon.CodeOf(err))
				<-canceled
				var left *worker.UndeliveredError
				require.ErrorAs(t, err, &left)
				require.Equal(t, []string{"a"}, left.Hashes)
			})
		})
	}
}

func TestDrain(t *testing.T) {
	tests := map[string]struct {
		takes   time.Duration
		timeout time.Duration
		failed  bool
		after   time.Duration
	}{
		"finishes":       {20 * time.Second, 0, false, 19 * time.Second},
		"default":        {time.Hour, 0, true, 30 * time.Second},
		"own timeout":    {time.Hour, time.Minute, true, time.Minute},
		"no time at all": {time.Hour, -1, true, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, takes(tt.takes), worker.Config{DrainTimeout: tt.timeout, MaxConcurrent: 2})
				r.push("a")
				time.Sleep(time.Second)
				r.stop()
				begin := time.Now()
				synctest.Wait()
				r.push("too late")
				require.NoError(t, r.end())
				require.Equal(t, tt.after, time.Since(begin))
				report := r.report()
				require.Equal(t, "a", report.Hash)
				require.Equal(t, tt.failed, report.Failed)
				if tt.failed {
					require.Contains(t, report.Message, "canceled")
					require.Equal(t, []string{"interrupted"}, report.Result.Log)
				}
				require.False(t, r.server.Connected())
				require.Equal(t, 1, r.server.Sessions())
			})
		})
	}
}

// A drain goes on without a link: the result leaves by one that is opened for
// it.
func TestDrainReconnects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(10*time.Second), worker.Config{})
		r.push("a")
		time.Sleep(time.Second)
		r.server.Refuse(errors.New("away"))
		r.server.Drop()
		r.stop()
		time.Sleep(5 * time.Second)
		r.server.Refuse(nil)
		require.NoError(t, r.end())
		require.Equal(t, "a", r.report().Hash)
		require.False(t, r.server.Connected())
	})
}

func TestDrainWithoutServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(10*time.Second), worker.Config{})
		r.push("a")
		time.Sleep(time.Second)
		r.server.Refuse(errors.New("away"))
		r.server.Drop()
		begin := time.Now()
		var left *worker.UndeliveredError
		require.ErrorAs(t, r.end(), &left)
		require.Equal(t, []string{"a"}, left.Hashes)
		require.Less(t, time.Since(begin), time.Minute)
	})
}

func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		abort := make(chan struct{})
		r := start(t, takes(time.Hour), worker.Config{Abort: abort, DrainTimeout: time.Hour})
		r.push("a")
		time.Sleep(time.Second)
		r.stop()
		time.Sleep(time.Minute)
		begin := time.Now()
		close(abort)
		err := r.end()
		require.Zero(t, time.Since(begin))
		if err != nil { // the report may or may not have got through
			var left *worker.UndeliveredError
			require.ErrorAs(t, err, &left)
		}
	})
}

// An abort needs no stop before it.
func TestAbortAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		abort := make(chan struct{})
		var runs atomic.Int32
		r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			runs.Add(1)
			return takes(time.Hour)(ctx, item, p)
		}, worker.Config{Abort: abort})
		r.push("a", "b", "c")
		time.Sleep(time.Second)
		close(abort)
		err := <-r.done
		r.ended = true
		if err != nil {
			var left *worker.UndeliveredError
			require.ErrorAs(t, err, &left)
		}
		require.EqualValues(t, 1, runs.Load(), "items were taken after the abort")
	})
}

// An item that ignores its context cannot keep the process alive.
func TestDrainLeavesTheDeafBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wake := make(chan struct{})
		r := start(t, func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			<-wake
			return beacon.Result{}, nil
		}, worker.Config{DrainTimeout: time.Minute})
		r.push("a")
		time.Sleep(time.Second)
		require.NoError(t, r.end())
		report := r.report()
		require.True(t, report.Failed)
		require.Contains(t, report.Message, "did not end")
		close(wake)
		synctest.Wait() // its late end does no harm
	})
}

func TestFailures(t *testing.T) {
	tests := map[string]struct {
		execute beacon.Execute
		message string
	}{
		"a beacon error": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Log: []string{"l"}}, fmt.Errorf("secret path: %w", beacon.Errorf(beacon.Failed, "provider says no"))
		}, "provider says no"},
		"another error": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Log: []string{"l"}}, errors.New("open /home/secret: no")
		}, "the provider failed (the details are in the beacon's log)"},
		"a panic": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			panic("secret")
		}, "the provider broke down (the details are in the beacon's log)"},
		"a runtime error": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			var none []error
			return beacon.Result{}, none[0]
		}, "the provider broke down (the details are in the beacon's log)"},
		"goexit": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			runtime.Goexit()
			return beacon.Result{}, nil
		}, "the provider broke down (the details are in the beacon's log)"},
		"a channel as output": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"StdOut": "", "Odd": make(chan int)}, Log: []string{"l"}}, nil
		}, "output Odd is not representable in JSON: json: unsupported type: chan int"},
		"infinity as output": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"Odd": math.Inf(1)}}, nil
		}, "output Odd is not representable in JSON: json: unsupported value: +Inf"},
		"an output that panics": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"Odd": explosive{}}}, nil
		}, "output Odd is not representable in JSON: encoding panicked: boom"},
		"an output that no hub reads": {func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"Odd": json.RawMessage(strings.Repeat("[", 1001) + strings.Repeat("]", 1001))}}, nil
		}, "output Odd is nested more than 1000 deep"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
					if item.Hash == "good" {
						return echo(ctx, item, p)
					}
					return tt.execute(ctx, item, p)
				}, worker.Config{})
				r.push("bad")
				report := r.report()
				require.True(t, report.Failed)
				require.Equal(t, tt.message, report.Message)
				r.push("good")
				require.Equal(t, "good", r.report().Hash, "the worker did not live on")
			})
		})
	}
}

type explosive struct{}

func (explosive) MarshalJSON() ([]byte, error) { panic("boom") }

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(_ context.Context, _ beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
			for i := range 1000 { // for a second, with a step back now and then
				percent := float64(i) / 10
				if i%100 == 99 {
					percent = 0
				}
				progress(beacon.Progress{Percent: percent, HasPercent: true, Message: fmt.Sprint(i), Log: []string{fmt.Sprint("line ", i)}})
				time.Sleep(time.Millisecond)
			}
			progress(beacon.Progress{Percent: math.NaN(), HasPercent: true, Step: 3})
			progress(beacon.Progress{Percent: 5000, HasPercent: true, Message: "last"})
			return beacon.Result{Log: []string{"end"}}, nil
		}, worker.Config{})
		r.push("a")
		report := r.report()
		got := r.server.Progress("a")
		require.GreaterOrEqual(t, len(got), 5)
		require.LessOrEqual(t, len(got), 7, "more than five a second")
		var lines []string
		percent := -1.0
		for _, p := range got {
			lines = append(lines, p.Log...)
			require.GreaterOrEqual(t, p.Percent, percent, "the percentage fell")
			percent = p.Percent
		}
		lines = append(lines, report.Result.Log...)
		require.Len(t, lines, 1001, "log lines were lost")
		require.Equal(t, "line 0", lines[0])
		require.Equal(t, "end", lines[1000])
		last := got[len(got)-1]
		require.Equal(t, 100.0, last.Percent)
		require.Equal(t, "last", last.Message)
		require.Equal(t, 3, last.Step)
	})
}

func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(_ context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
			if item.Hash == "talks" {
				progress(beacon.Progress{Percent: 7, HasPercent: true, Message: "here", Log: []string{"once"}})
			}
			time.Sleep(10 * time.Minute)
			return beacon.Result{}, nil
		}, worker.Config{MaxConcurrent: 2})
		r.push("silent", "talks")
		r.report()
		r.report()
		require.Len(t, r.server.Progress("silent"), 13)
		require.Equal(t, "running", r.server.Progress("silent")[0].Message)
		talks := r.server.Progress("talks")
		require.Len(t, talks, 14)
		require.Equal(t, beacon.Progress{Percent: 7, HasPercent: true, Message: "here", Log: []string{"once"}}, talks[0])
		require.Equal(t, beacon.Progress{Percent: 7, HasPercent: true, Message: "here", Log: []string{}}, normalLog(talks[13]))
	})
}

func normalLog(p beacon.Progress) beacon.Progress {
	if p.Log == nil {
		p.Log = []string{}
	}
	return p
}

// Log lines of a time without a link leave with the next progress, or with the
// result.
func TestProgressOffline(t *testing.T) {
	for name, back := range map[string]time.Duration{"link returns": 10 * time.Minute, "after the end": 2 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var runs atomic.Int32
				r := start(t, func(_ context.Context, _ beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
					if runs.Add(1) > 1 {
						return beacon.Result{}, nil // delivered again after the link was lost
					}
					time.Sleep(time.Minute)
					progress(beacon.Progress{Log: []string{"1"}})
					progress(beacon.Progress{Log: []string{"2"}})
					time.Sleep(time.Hour)
					return beacon.Result{Log: []string{"3"}}, nil
				}, worker.Config{})
				r.push("a")
				time.Sleep(30 * time.Second)
				r.server.Refuse(errors.New("away"))
				r.server.Drop()
				time.Sleep(back)
				r.server.Refuse(nil)
				report := r.report()
				var lines []string
				for _, p := range r.server.Progress("a") {
					lines = append(lines, p.Log...)
				}
				require.Equal(t, []string{"1", "2", "3"}, append(lines, report.Result.Log...))
			})
		})
	}
}

// flaky wraps sessions, so that reports go wrong.
type flaky struct {
	transport.Session
	complete func(hash string) error
	next     func() error
}

func (f flaky) Complete(ctx context.Context, hash string, r beacon.Result) error {
	if err := f.complete(hash); err != nil {
		return err
	}
	return f.Session.Complete(ctx, hash, r)
}

func (f flaky) Next(ctx context.Context) (beacon.WorkItem, error) {
	if f.next != nil {
		if err := f.next(); err != nil {
			return beacon.WorkItem{}, err
		}
	}
	return f.Session.Next(ctx)
}

func TestDeliveryIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		var tries atomic.Int32
		dial := func(ctx context.Context) (transport.Session, error) {
			s, err := server.Dial(ctx)
			return flaky{Session: s, complete: func(hash string) error {
				if hash == "a" && tries.Add(1) < 10 {
					return errors.New("503")
				}
				return nil
			}}, err
		}
		r := startWith(t, server, dial, echo, worker.Config{})
		r.push("a", "b")
		require.Equal(t, "b", r.report().Hash, "the slot was not freed")
		require.Equal(t, "a", r.report().Hash)
		require.EqualValues(t, 10, tries.Load())
		require.Equal(t, 1, server.Sessions())
		require.NoError(t, r.end())
	})
}

func TestBacklogIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		var ok atomic.Bool
		var runs atomic.Int32
		dial := func(ctx context.Context) (transport.Session, error) {
			s, err := server.Dial(ctx)
			return flaky{Session: s, complete: func(string) error {
				if !ok.Load() {
					return errors.New("503")
				}
				return nil
			}}, err
		}
		r := startWith(t, server, dial, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			runs.Add(1)
			return echo(ctx, item, p)
		}, worker.Config{})
		for i := range 200 {
			r.push(fmt.Sprint(i))
			time.Sleep(time.Second) // in which the server refuses the result
		}
		require.InDelta(t, 64+4, runs.Load(), 2)
		ok.Store(true)
		seen := map[string]bool{}
		for range 200 {
			seen[r.report().Hash] = true
		}
		require.Len(t, seen, 200)
	})
}

// The next item does not wait for the delivery of the one before, but neither
// do deliveries pile up.
func TestSlowDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		var runs, running, most, sending, mostSending atomic.Int32
		note := func(n int32, most *atomic.Int32) {
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
		}
		dial := func(ctx context.Context) (transport.Session, error) {
			s, err := server.Dial(ctx)
			return flaky{Session: s, complete: func(string) error {
				note(sending.Add(1), &mostSending)
				defer sending.Add(-1)
				time.Sleep(time.Hour)
				return nil
			}}, err
		}
		r := startWith(t, server, dial, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			runs.Add(1)
			note(running.Add(1), &most)
			defer running.Add(-1)
			return takes(time.Minute)(ctx, item, p)
		}, worker.Config{})
		for i := range 50 {
			r.push(fmt.Sprint(i))
		}
		time.Sleep(5*time.Minute + time.Second)
		require.EqualValues(t, 6, runs.Load())
		for range 50 {
			r.report()
		}
		require.EqualValues(t, 1, most.Load())
		require.Less(t, mostSending.Load(), int32(40))
	})
}

func TestRefusedResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		dial := func(ctx context.Context) (transport.Session, error) {
			s, err := server.Dial(ctx)
			return flaky{Session: s, complete: func(string) error {
				return fmt.Errorf("%w: 413 too large", transport.ErrRefused)
			}}, err
		}
		r := startWith(t, server, dial, echo, worker.Config{})
		r.push("a")
		report := r.report()
		require.True(t, report.Failed)
		require.Contains(t, report.Message, "the server refused the result")
		require.Contains(t, report.Message, "413")
	})
}

func TestMalformedItemFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		first := true
		dial := func(ctx context.Context) (transport.Session, error) {
			s, err := server.Dial(ctx)
			return flaky{Session: s, complete: func(string) error { return nil }, next: func() error {
				if first {
					first = false
					return &transport.ItemError{Hash: "bad", Err: beacon.Errorf(beacon.Invalid, "Settings is text")}
				}
				return nil
			}}, err
		}
		r := startWith(t, server, dial, echo, worker.Config{})
		report := r.report()
		require.Equal(t, beacontest.Report{Hash: "bad", Failed: true, Message: "Settings is text"}, report)
		r.push("good")
		require.Equal(t, "good", r.report().Hash)
		require.Equal(t, 1, server.Sessions())
	})
}

// full is an outbox without room for results.
type full struct {
	mu        sync.Mutex
	put       []worker.Report
	kept      []worker.Report
	delivered []string
	limit     func(worker.Report) error
	noted     func([]worker.Report) // if any
}

func (f *full) Put(reports ...worker.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.put = append(f.put, reports...)
	if f.noted != nil {
		f.noted(reports)
	}
	for _, r := range reports {
		if err := f.limit(r); err != nil {
			return err
		}
	}
	return nil
}
func (f *full) Pending() ([]worker.Report, error) { return f.kept, nil }
func (f *full) Delivered(hashes ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delivered = append(f.delivered, hashes...)
	return nil
}

func TestFullOutbox(t *testing.T) {
	for name, limit := range map[string]func(worker.Report) error{
		"room for failures": func(r worker.Report) error {
			if r.Failed {
				return nil
			}
			return errors.New("no space left on device")
		},
		"no room at all": func(worker.Report) error { return errors.New("no space left on device") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := start(t, echo, worker.Config{Outbox: &full{limit: limit}})
				r.push("a")
				report := r.report()
				require.True(t, report.Failed)
				require.Contains(t, report.Message, "could not store the result")
			})
		})
	}
}

// What an earlier process left is delivered, and not executed again.
func TestPendingReports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &full{
			limit: func(worker.Report) error { return nil },
			kept: []worker.Report{
				{Hash: "a", Result: beacon.Result{Outputs: beacon.Outputs{"Result": "kept"}}},
				{Hash: "b", Failed: true, Message: "kept, too"},
			},
		}
		server := beacontest.NewServer()
		server.Push(beacon.WorkItem{Hash: "a"})
		r := startWith(t, server, server.Dial, takes(time.Hour), worker.Config{Outbox: box, MaxConcurrent: 4})
		got := map[string]beacontest.Report{}
		for range 2 {
			report := r.report()
			got[report.Hash] = report
		}
		require.Equal(t, "kept", got["a"].Result.Outputs["Result"])
		require.Equal(t, "kept, too", got["b"].Message)
		synctest.Wait()
		slices.Sort(box.delivered)
		require.Equal(t, []string{"a", "b"}, box.delivered)
	})
}

// A report waits for those of the other items that run, if they are likely to end
// soon, and never for longer than half of what its item took.
func TestReportsAreKeptTogether(t *testing.T) {
	type kept struct {
		at     time.Duration
		hashes string
	}
	const ms = time.Millisecond
	for name, tt := range map[string]struct {
		takes map[string]time.Duration
		want  []kept
	}{
		"alone":               {map[string]time.Duration{"a": 4 * ms}, []kept{{4 * ms, "a"}}},
		"together":            {map[string]time.Duration{"a": 4 * ms, "b": 5 * ms}, []kept{{5 * ms, "a b"}}},
		"until all have":      {map[string]time.Duration{"a": 4 * ms, "b": 5 * ms, "c": 5500 * time.Microsecond}, []kept{{5500 * time.Microsecond, "a b c"}}},
		"half of its time":    {map[string]time.Duration{"a": 4 * ms, "b": 8 * ms}, []kept{{6 * ms, "a"}, {8 * ms, "b"}}},
		"the shortest counts": {map[string]time.Duration{"a": 8 * ms, "b": 9 * ms, "c": time.Hour}, []kept{{12 * ms, "a b"}, {time.Hour, "c"}}},
		"quick ones":          {map[string]time.Duration{"a": 500 * time.Microsecond, "b": 501 * time.Microsecond}, []kept{{500 * time.Microsecond, "a"}, {501 * time.Microsecond, "b"}}},
		"slow ones":           {map[string]time.Duration{"a": time.Second, "b": time.Second + ms}, []kept{{time.Second, "a"}, {time.Second + ms, "b"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var began time.Time
				var got []kept
				box := &full{limit: func(worker.Report) error { return nil }, noted: func(reports []worker.Report) {
					var hashes []string
					for _, r := range reports {
						hashes = append(hashes, r.Hash)
					}
					got = append(got, kept{time.Since(began), strings.Join(hashes, " ")})
				}}
				r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
					return takes(tt.takes[item.Hash])(ctx, item, p)
				}, worker.Config{MaxConcurrent: 4, Outbox: box})
				synctest.Wait()
				began = time.Now()
				for hash := range tt.takes {
					r.push(hash)
				}
				for range tt.takes {
					r.report()
				}
				require.NoError(t, r.end())
				require.Equal(t, tt.want, got)
			})
		})
	}
}

// The goroutine of an item that has ended serves the next one, unless it is gone.
func TestGoroutinesAreUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var served []string
		r := start(t, func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			stack := make([]byte, 100)
			name, _, _ := strings.Cut(string(stack[:runtime.Stack(stack, false)]), " [")
			served = append(served, name)
			switch item.Hash {
			case "ends it":
				runtime.Goexit()
			case "panics":
				panic("no")
			}
			return beacon.Result{}, nil
		}, worker.Config{})
		for _, hash := range []string{"a", "panics", "b", "ends it", "c", "d"} {
			r.push(hash)
			require.Equal(t, hash, r.report().Hash)
		}
		require.NoError(t, r.end())
		first, second := served[0], served[4]
		require.NotEqual(t, first, second)
		require.Equal(t, []string{first, first, first, first, second, second}, served)
	})
}
