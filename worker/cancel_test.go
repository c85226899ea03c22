package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(time.Hour), worker.Config{MaxConcurrent: 3})
		r.push("a", "b")
		synctest.Wait()
		require.Equal(t, []string{"a", "b"}, r.server.Active())
		began := time.Now()
		r.server.Cancel("a", "enough\nof it")
		r.server.Cancel("a", "again")
		report := r.report()
		require.Zero(t, time.Since(began))
		require.Equal(t, "a", report.Hash)
		require.True(t, report.Failed)
		require.Equal(t, `canceled: enough\u000aof it`, report.Message)
		require.Equal(t, []string{"interrupted"}, report.Result.Log)
		synctest.Wait()
		require.Equal(t, []string{"b"}, r.server.Active(), "only that item is canceled")
		r.server.Cancel("unheard of", "")
		require.Equal(t, "b", r.report().Hash)
		require.Equal(t, time.Hour, time.Since(began))

		// A later attempt at the same item is none that was canceled.
		r.push("a")
		require.False(t, r.report().Failed)
	})
}

// A cancellation that overtakes its item is not forgotten, for a while.
func TestCancelOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ran := 0
		r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			ran++
			return echo(ctx, item, p)
		}, worker.Config{})
		synctest.Wait()
		for range 5000 {
			r.server.Cancel("flood", "")
		}
		r.server.Cancel("a", "too late for you")
		r.push("a")
		report := r.report()
		require.True(t, report.Failed)
		require.Equal(t, "canceled: too late for you", report.Message)
		require.Zero(t, ran, "it was executed")
		synctest.Wait()
		r.push("a")
		require.False(t, r.report().Failed)

		r.server.Cancel("b", "long ago")
		time.Sleep(time.Hour)
		r.push("b")
		require.False(t, r.report().Failed)
		require.Equal(t, 2, ran)
	})
}

// A provider that finishes nevertheless has its result reported: the work is
// done.
func TestCancelTooLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			<-ctx.Done()
			return echo(ctx, item, p)
		}, worker.Config{})
		r.push("a")
		synctest.Wait()
		r.server.Cancel("a", "")
		require.Equal(t, "a", r.report().Result.Outputs["Result"])
	})
}

// A worker that stops says so at once, to every server that it reaches.
func TestDrainIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(time.Minute), worker.Config{DrainTimeout: time.Hour})
		r.push("a")
		synctest.Wait()
		require.False(t, r.server.Drained())
		r.stop()
		synctest.Wait()
		require.True(t, r.server.Drained())
		require.Equal(t, []string{"a"}, r.server.Active())
		r.server.Drop() // which gives the item to others, or to us again
		time.Sleep(10 * time.Second)
		require.True(t, r.server.Drained(), "not told to the next server")
		require.NoError(t, r.end())
		require.Equal(t, "a", r.report().Hash)
	})
}

// Over real sockets: items that run, that wait in the session, and that nobody
// has heard of.
func TestCancelOverTheWire(t *testing.T) {
	ways := map[string]func(session.Config) transport.Dial{"websocket": ws.Dial, "http": poll.Dial}
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Generous: true})
			begun := make(chan string, 2)
			stop := serve(t, dial(config(c, 1)), func(ctx context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
				begun <- item.Hash
				<-ctx.Done()
				return beacon.Result{}, ctx.Err()
			}, worker.Config{})
			push(c, "a", "b")
			first := <-begun
			c.SendRaw(`{"EventType":"WorkCancel"}`)
			c.SendRaw(`{"EventType":"WorkCancel","WorkItemHash":7,"Reason":{}}`)
			second := map[string]string{"a": "b", "b": "a"}[first]
			if name == "websocket" { // there it waits in the session already
				require.NoError(t, c.Until(within(t), func() bool { return len(c.Active()) == 2 }))
				c.Cancel(second, "while it waits")
				c.Cancel(first, "while it runs")
			} else {
				c.Cancel(first, "while it runs")
				require.Equal(t, second, <-begun)
				c.Cancel(second, "while it waits")
			}
			got := map[string]string{}
			for range 2 {
				r, err := c.Report(within(t))
				require.NoError(t, err)
				require.True(t, r.Failed)
				got[r.Hash] = r.Message
			}
			require.Equal(t, map[string]string{first: "canceled: while it runs", second: "canceled: while it waits"}, got)
			require.NoError(t, stop())
			require.LessOrEqual(t, len(begun), 0, "an item was executed although it was canceled while it waited")
		})
	}
}

// A draining worker can do nothing any more in the eyes of servers that keep
// one record for a name; of those of March 2026 it must not become a second.
func TestDrainOnEachServer(t *testing.T) {
	for name, attempt := range map[string]int{"ERA": 0, "HEAD": 1} {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.Flavour(name)})
			begun, finish := make(chan struct{}), make(chan struct{})
			done := sync.OnceFunc(func() { close(finish) })
			cfg := config(c, 2)
			cfg.Registration = protocol.NewRegistration("n", 2, []beacon.Capability{{Name: "Test", Actions: []beacon.Action{{Name: "Run"}}}})
			stop := serve(t, ws.Dial(cfg), func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
				close(begun)
				<-finish
				return beacon.Result{}, nil
			}, worker.Config{DrainTimeout: time.Minute})
			t.Cleanup(done)
			c.Push(beacon.WorkItem{Hash: "a", Capability: "Test", Settings: beacon.Settings{}, Attempt: attempt})
			<-begun
			ended := make(chan error)
			go func() { ended <- stop() }()
			require.NoError(t, c.Until(within(t), c.Drained))
			require.Len(t, c.Beacons(), 1)
			registrations := func() (frames []string) {
				for _, f := range c.Frames() {
					if strings.HasPrefix(f, `{"Action":"BeaconRegister",`) {
						frames = append(frames, f)
					}
				}
				return frames
			}
			require.NoError(t, c.Until(within(t), func() bool { return len(registrations()) > attempt }))
			if attempt > 0 {
				require.Contains(t, registrations()[1], `"Capabilities":[],"MaxConcurrent":2`)
			}
			done()
			require.NoError(t, <-ended)
			require.Len(t, registrations(), 1+attempt)
			r, err := c.Report(within(t))
			require.NoError(t, err)
			require.False(t, r.Failed)
			require.NoError(t, c.Until(within(t), func() bool { return !c.Connected() }))
		})
	}
}

var errOdd = errors.New("odd")

// An error that only looks like the cancellation's is reported as it is.
func TestCancelAndOtherErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, func(ctx context.Context, _ beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			<-ctx.Done()
			return beacon.Result{}, beacon.Errorf(beacon.Failed, "odd: %w", errOdd)
		}, worker.Config{})
		r.push("a")
		synctest.Wait()
		r.server.Cancel("a", "")
		require.Equal(t, "odd: odd", r.report().Message)
	})
}
