package worker_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/worker"
)

// What the Node worker does wrong and no other test is about; docs/compatibility.md
// has all of it.

// A refused upgrade, at the start and at a reconnection, means one registration
// and polls at their interval. The Node worker registered 224 times and polled
// 737 times a second.
func TestRefusedUpgradeIsNoStorm(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	cfg := config(c, 1)
	cfg.PollInterval, cfg.HeartbeatInterval = 50*time.Millisecond, time.Hour
	registered := make(chan string, 100)
	stop := serve(t, dialAny(cfg), echo, worker.Config{OnRegistered: func(_, way string) { registered <- way }})
	require.Equal(t, "websocket", <-registered)
	c.AllowUpgrade(false)
	began := time.Now()
	c.CutSockets()
	require.Equal(t, "http", <-registered)
	count := func(request string) (n int) {
		for _, r := range c.Requests() {
			if r == request {
				n++
			}
		}
		return n
	}
	polled := count("POST /Beacon/Work/Poll")
	require.NoError(t, c.Until(within(t), func() bool {
		push(c) // has it look again
		return count("POST /Beacon/Work/Poll") >= polled+10
	}))
	require.GreaterOrEqual(t, time.Since(began), 9*cfg.PollInterval, "polls follow faster on each other than they are to")
	require.Equal(t, 1, count("POST /Beacon/Register"))
	require.Len(t, c.Beacons(), 1)
	require.NoError(t, stop())
	require.Empty(t, registered)
	require.NoError(t, c.Until(within(t), func() bool { return !c.Connected() }))
}

// A worker that is stopped while it waits to connect again stays stopped.
func TestStopEndsReconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := beacontest.NewServer()
		server.Refuse(errors.New("away"))
		var dials atomic.Int32
		dial := func(ctx context.Context) (transport.Session, error) {
			dials.Add(1)
			return server.Dial(ctx)
		}
		r := startWith(t, server, dial, echo, worker.Config{})
		time.Sleep(10 * time.Minute)
		require.NoError(t, r.end())
		before := dials.Load()
		server.Refuse(nil)
		time.Sleep(24 * time.Hour)
		require.Equal(t, before, dials.Load())
		require.Zero(t, server.Sessions())
	})
}

// A provider that hands back nothing has done so, and the worker lives on.
func TestNoResult(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	stop := serve(t, dialAny(config(c, 1)), func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
		return beacon.Result{}, nil
	}, worker.Config{})
	for _, hash := range []string{"a", "b"} {
		push(c, hash)
		r := next(t, c)
		require.False(t, r.Failed)
		require.Empty(t, r.Result.Outputs)
	}
	require.NoError(t, stop())
	require.Contains(t, strings.Join(c.Frames(), "\n"), `"Outputs":{},"Log":[]`)
}

// What a provider reports after its item has ended changes nothing: there is one
// result, and one slot.
func TestReportsAfterTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var keep func(beacon.Progress)
		r := start(t, func(ctx context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
			keep = progress
			return echo(ctx, item, progress)
		}, worker.Config{})
		r.push("a")
		require.Equal(t, "a", r.report().Hash)
		for range 1000 {
			keep(beacon.Progress{Message: "late", Log: []string{"late"}})
		}
		time.Sleep(time.Hour)
		require.Empty(t, r.server.Progress("a"))
		r.push("b")
		require.Equal(t, "b", r.report().Hash)
	})
}
