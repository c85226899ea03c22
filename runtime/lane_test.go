package runtime

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// A track is a lane and the guests in it, in a bubble of its own time.
type track struct {
	t    *testing.T
	lane *lane
}

func onTrack(t *testing.T, processors int, f func(x *track)) {
	synctest.Test(t, func(t *testing.T) {
		x := &track{t: t, lane: newLane()}
		x.lane.processors = func() int { return processors }
		f(x)
		require.Empty(t, x.lane.holders)
		require.Empty(t, x.lane.queues)
		require.Zero(t, x.lane.waiting)
		require.False(t, x.lane.busy.Load())
	})
}

func (x *track) lease(tenant string) *lease { return &lease{lane: x.lane, tenant: tenant} }

// pass has a guest come by that takes long, and reports whether it waits.
func (x *track) pass(ctx context.Context, l *lease) (waits bool, passed <-chan struct{}) {
	done := make(chan struct{})
	go func() {
		l.pass(ctx, briefTime, time.Now())
		close(done)
	}()
	synctest.Wait()
	select {
	case <-done:
		return false, done
	default:
		return true, done
	}
}

// brief has an item of the tenant end that was brief.
func (x *track) brief(tenant string) {
	l := x.lease(tenant)
	require.False(x.t, l.pass(x.t.Context(), briefTime-1, time.Now()))
	l.end()
}

func (x *track) requirePasses(l *lease) {
	x.t.Helper()
	waits, _ := x.pass(x.t.Context(), l)
	require.False(x.t, waits)
}

func (x *track) requireWaits(l *lease) <-chan struct{} {
	x.t.Helper()
	waits, passed := x.pass(x.t.Context(), l)
	require.True(x.t, waits)
	return passed
}

// S11: guests that take long leave a processor to other tenants' brief items, and
// use it where there are none.
func TestLaneLeavesRoom(t *testing.T) {
	onTrack(t, 2, func(x *track) {
		a, b, c := x.lease("a"), x.lease("a"), x.lease("a")
		x.requirePasses(a)
		x.requirePasses(b)
		passed := x.requireWaits(c)
		a.end()
		<-passed

		x.brief("a") // one's own are no reason
		time.Sleep(quantum / 2)
		x.requirePasses(b)
		x.requirePasses(c)
		x.brief("b")
		begin := time.Now()
		waitsFor := x.requireWaits(b)
		x.requirePasses(c) // the other one goes on, alone
		x.requirePasses(c)
		<-waitsFor // until nobody has been brief for a while
		require.GreaterOrEqual(x.t, time.Since(begin), quantum)
		c.end()
		b.end()
	})
}

func TestLaneReserve(t *testing.T) {
	onTrack(t, 4, func(x *track) {
		var all []*lease
		for range 4 {
			l := x.lease("a")
			x.requirePasses(l)
			all = append(all, l)
		}
		x.brief("b")
		x.brief("a")
		passed := x.requireWaits(all[0])
		begin := time.Now()
		for range 3 {
			time.Sleep(reserveTime / 2)
			x.brief("b")
			select {
			case <-passed:
				require.Fail(x.t, "the last processor is reserved")
			default:
			}
		}
		<-passed
		require.InDelta(x.t, 2.5*float64(reserveTime), float64(time.Since(begin)), float64(20*time.Millisecond))
		for _, l := range all {
			l.end()
		}
	})
}

// S11: tenants take turns, however many guests each has.
func TestLaneTurns(t *testing.T) {
	onTrack(t, 1, func(x *track) {
		ran := map[string]time.Duration{}
		ctx, cancel := context.WithTimeout(x.t.Context(), time.Second)
		defer cancel()
		guests := 0
		ended := make(chan struct{})
		for tenant, many := range map[string]int{"a": 7, "b": 1, "c": 2} {
			for range many {
				guests++
				go func() {
					l := x.lease(tenant)
					for l.pass(ctx, time.Hour, time.Now()); ctx.Err() == nil; l.pass(ctx, time.Hour, time.Now()) {
						time.Sleep(sliceTime) // it runs
						x.lane.mu.Lock()
						ran[tenant] += sliceTime
						x.lane.mu.Unlock()
					}
					l.end()
					ended <- struct{}{}
				}()
			}
		}
		for range guests {
			<-ended
		}
		for tenant, got := range ran {
			require.InDelta(x.t, float64(time.Second)/3, float64(got), float64(20*time.Millisecond), fmt.Sprint(tenant, ran))
		}
	})
}

// A guest that waits for the host does not keep others from running, one that
// works there does for a while.
func TestLaneHost(t *testing.T) {
	for waits, least := range map[bool]time.Duration{true: lookAfter, false: workTime} {
		t.Run(fmt.Sprint(waits), func(t *testing.T) {
			onTrack(t, 1, func(x *track) {
				a, b := x.lease("a"), x.lease("b")
				x.requirePasses(a)
				a.enterHost(waits)
				begin := time.Now()
				<-x.requireWaits(b)
				require.GreaterOrEqual(x.t, time.Since(begin), least)
				require.LessOrEqual(x.t, time.Since(begin), least+3*lookAfter)
				a.leaveHost()
				passed := x.requireWaits(a) // it has lost its place
				b.end()
				<-passed
				a.end()
			})
		})
	}
}

// Short visits to the host cost no place.
func TestLaneHostShortly(t *testing.T) {
	onTrack(t, 1, func(x *track) {
		a, b := x.lease("a"), x.lease("b")
		x.requirePasses(a)
		passed := x.requireWaits(b)
		for range 10 * workTime / lookAfter {
			a.enterHost(true)
			time.Sleep(lookAfter / 4)
			a.leaveHost()
			time.Sleep(lookAfter / 4)
			x.lane.mu.Lock()
			require.True(x.t, a.held)
			x.lane.mu.Unlock()
		}
		a.end()
		<-passed
		b.end()
	})
}

// Who is cancelled stops waiting, and takes no place.
func TestLaneCanceled(t *testing.T) {
	onTrack(t, 1, func(x *track) {
		a, b, c := x.lease("a"), x.lease("b"), x.lease("b")
		x.requirePasses(a)
		ctx, cancel := context.WithCancel(x.t.Context())
		_, canceled := x.pass(ctx, b)
		passed := x.requireWaits(c)
		cancel()
		<-canceled
		b.end()
		a.end()
		<-passed
		c.end()
	})
}

// Slices follow the time that units take, and the next guest of a module begins
// with what the one before has come to.
func TestSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &Module{lane: newLane()}
		run := func(unit time.Duration, slices int) (first, last int64) {
			g := m.gauge(nil)
			defer g.end()
			next, err := g.begin(t.Context())
			require.NoError(t, err)
			for first = next; slices > 0; slices-- {
				time.Sleep(time.Duration(next) * unit)
				next, err = g.refill(t.Context(), -1)
				require.NoError(t, err)
			}
			return first, next
		}
		usual := paces[m.grade()].first
		first, last := run(10*time.Nanosecond, 10) // 80 us for the first slice
		require.Equal(t, usual, first)
		require.InDelta(t, usual, last, float64(usual))
		first, last = run(time.Microsecond, 10) // pages
		require.Equal(t, usual, first)
		require.Less(t, last, usual/4)
		first, _ = run(time.Microsecond, 0)
		require.Equal(t, last, first)
		first, last = run(time.Nanosecond, 10)
		require.Less(t, first, usual)
		require.Greater(t, last, usual)
		first, _ = run(time.Nanosecond, 0)
		require.Equal(t, usual, first)
	})
}

// S11: guests that take long, and nobody else, offer their processor to other
// threads of the system if they are told to.
func TestLaneGivesWay(t *testing.T) {
	onTrack(t, 2, func(x *track) {
		times := 0
		x.lane.yield = func() { times++ }
		a := x.lease("a")
		x.requirePasses(a) // and gets its place
		x.requirePasses(a)
		require.Zero(t, times)
		x.lane.giveWay.Store(true)
		x.brief("b")
		require.Zero(t, times)
		x.requirePasses(a)
		x.requirePasses(a)
		require.Equal(t, 1, times, "it has just done so")
		time.Sleep(sliceTime)
		x.requirePasses(a)
		require.Equal(t, 2, times)
		x.lane.giveWay.Store(false)
		time.Sleep(sliceTime)
		x.requirePasses(a)
		require.Equal(t, 2, times)
		a.end()
	})
}
