package worker_test

import (
	"context"
	"errors"
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

// ends waits until Run returns by itself, and returns when.
func (r *run) ends() time.Time {
	r.t.Helper()
	r.err, r.ended = <-r.done, true
	require.NoError(r.t, r.err)
	require.False(r.t, r.server.Connected(), "the beacon did not leave")
	return time.Now()
}

func TestOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var runs atomic.Int32
		r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
			runs.Add(1)
			return takes(time.Hour)(ctx, item, p)
		}, worker.Config{Once: true, MaxConcurrent: 4})
		time.Sleep(time.Hour) // it waits for its item
		r.push("a", "b", "c")
		begin := time.Now()
		require.Equal(t, time.Hour, r.ends().Sub(begin), "longer than a drain may take, and not canceled")
		require.EqualValues(t, 1, runs.Load())
		report := r.report()
		require.Equal(t, "a", report.Hash)
		require.False(t, report.Failed)
	})
}

// A failure counts, and what an earlier run left does not.
func TestOnceCountsWhatItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		box := &full{
			limit: func(worker.Report) error { return nil },
			kept:  []worker.Report{{Hash: "kept", Failed: true, Message: "m"}},
		}
		r := start(t, func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{}, errors.New("no")
		}, worker.Config{Once: true, Outbox: box})
		require.Equal(t, "kept", r.report().Hash)
		time.Sleep(time.Hour)
		r.push("a", "b")
		r.ends()
		report := r.report()
		require.Equal(t, "a", report.Hash)
		require.True(t, report.Failed)
	})
}

// It ends when the result is delivered and not before, be it over another link
// and after the server has delivered the item again.
func TestOnceDelivers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, takes(time.Minute), worker.Config{Once: true, ReconnectMax: time.Minute})
		r.push("a", "b")
		time.Sleep(time.Second)
		r.server.Drop()
		time.Sleep(10 * time.Second)
		r.server.Refuse(errors.New("away"))
		r.server.Drop()
		time.Sleep(24 * time.Hour)
		r.server.Refuse(nil)
		begin := time.Now()
		require.LessOrEqual(t, r.ends().Sub(begin), time.Minute)
		require.Equal(t, "a", r.report().Hash)
	})
}

func TestExitIdle(t *testing.T) {
	tests := map[string]struct {
		events func(*run)
		after  time.Duration // of the start
	}{
		"nothing comes": {func(*run) {}, 10 * time.Minute},
		"no server": {func(r *run) {
			r.server.Refuse(errors.New("away"))
			r.server.Drop()
		}, 10 * time.Minute},
		"short items": {func(r *run) {
			for range 3 {
				time.Sleep(9 * time.Minute)
				r.push("short")
				r.report()
			}
		}, 3*9*time.Minute + 10*time.Minute},
		"a long item": {func(r *run) {
			r.push("long")
			require.False(r.t, r.report().Failed)
		}, time.Hour + 10*time.Minute},
		"a result that waits": {func(r *run) {
			r.push("long")
			time.Sleep(time.Minute)
			r.server.Refuse(errors.New("away"))
			r.server.Drop()
			time.Sleep(3*time.Hour - time.Minute)
			r.server.Refuse(nil)
			r.report()
			time.Sleep(3*time.Hour + 5*time.Minute - time.Since(r.began))
			r.push("short") // so that the end does not depend on a random wait
			r.report()
		}, 3*time.Hour + 15*time.Minute},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var long atomic.Int32
				r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
					// Delivered again after the link was lost, it takes no time.
					if item.Hash == "long" && long.Add(1) == 1 {
						return takes(time.Hour)(ctx, item, p)
					}
					return beacon.Result{}, nil
				}, worker.Config{ExitIdle: 10 * time.Minute, MaxConcurrent: 2})
				synctest.Wait()
				tt.events(r)
				require.Equal(t, tt.after, r.ends().Sub(r.began))
			})
		})
	}
}

// A worker is not idle before it has been able to take anything.
func TestExitIdleWhileConnecting(t *testing.T) {
	for name, refused := range map[string]error{"a slow server": nil, "no server": errors.New("away")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := beacontest.NewServer()
				server.Refuse(refused)
				registered := false
				began := time.Now()
				err := worker.Run(t.Context(), func(ctx context.Context) (transport.Session, error) {
					time.Sleep(15 * time.Minute)
					return server.Dial(ctx)
				}, echo, worker.Config{
					ExitIdle: 10 * time.Minute, Logger: quiet,
					OnRegistered: func(string, string) { registered = true },
				})
				require.NoError(t, err)
				require.Equal(t, refused == nil, registered)
				require.GreaterOrEqual(t, time.Since(began), 25*time.Minute)
			})
		})
	}
}

func TestMaxUptime(t *testing.T) {
	tests := map[string]struct {
		takes  time.Duration
		after  time.Duration
		failed bool
	}{
		"idle":         {0, time.Hour, false},
		"within drain": {time.Hour + 10*time.Minute, time.Hour + 10*time.Minute, false},
		"beyond drain": {2 * time.Hour, time.Hour + 15*time.Minute, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var runs atomic.Int32
				r := start(t, func(ctx context.Context, item beacon.WorkItem, p func(beacon.Progress)) (beacon.Result, error) {
					runs.Add(1)
					return takes(tt.takes)(ctx, item, p)
				}, worker.Config{MaxUptime: time.Hour, DrainTimeout: 15 * time.Minute, MaxConcurrent: 2})
				r.push("a")
				time.Sleep(time.Hour)
				synctest.Wait()
				r.push("too late")
				require.Equal(t, tt.after, r.ends().Sub(r.began))
				report := r.report()
				require.Equal(t, "a", report.Hash)
				require.Equal(t, tt.failed, report.Failed)
				require.EqualValues(t, 1, runs.Load(), "an item was taken after the time was up")
			})
		})
	}
}

// A stop comes before all of them, and an error that is final is one.
func TestModesAndOtherEnds(t *testing.T) {
	cfg := worker.Config{Once: true, ExitIdle: time.Hour, MaxUptime: 2 * time.Hour}
	t.Run("stop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := start(t, echo, cfg)
			time.Sleep(time.Minute)
			require.NoError(t, r.end())
			require.Equal(t, time.Minute, time.Since(r.began))
		})
	})
	t.Run("rejected", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			err := worker.Run(context.Background(), func(context.Context) (transport.Session, error) {
				return nil, beacon.Errorf(beacon.Rejected, "no")
			}, echo, cfg)
			require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
		})
	})
}
