package policy_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A load is a tenant that always has items waiting.
type load struct {
	tenant string
	length func() time.Duration // of an item
	use    beacon.Usage         // of an item
}

// share runs loads against each other and returns the time that each held slots.
func share(t *testing.T, s *policy.Scheduler, span time.Duration, loads ...load) map[string]time.Duration {
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	var mu sync.Mutex
	held := map[string]time.Duration{}
	var tasks sync.WaitGroup
	for _, l := range loads {
		for range 20 { // items of the tenant that are there at a time
			tasks.Go(func() {
				for {
					turn, err := s.Enter(ctx, l.tenant, 0)
					if err != nil {
						return
					}
					began := time.Now()
					time.Sleep(l.length())
					turn.Used(l.use)
					turn.Leave()
					mu.Lock()
					held[l.tenant] += time.Since(began)
					mu.Unlock()
				}
			})
		}
	}
	tasks.Wait()
	return held
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// Tenants share by weight and by what their items cost, not by their number.
func TestFairShare(t *testing.T) {
	var turn atomic.Int64
	changing := func() time.Duration { // from one second to nearly two minutes, in no order
		return time.Duration(1+turn.Add(1)*7919%113) * time.Second
	}
	for name, tt := range map[string]struct {
		loads []load
		want  float64 // of the first, to the second
	}{
		"equal":            {[]load{{"a", always(time.Second), beacon.Usage{}}, {"b", always(time.Second), beacon.Usage{}}}, 1},
		"long and short":   {[]load{{"a", always(time.Minute), beacon.Usage{}}, {"b", always(time.Second), beacon.Usage{}}}, 1},
		"weights":          {[]load{{"heavy", always(time.Second), beacon.Usage{}}, {"b", always(time.Second), beacon.Usage{}}}, 3},
		"weights, lengths": {[]load{{"heavy", always(10 * time.Second), beacon.Usage{}}, {"b", always(time.Second), beacon.Usage{}}}, 3},
		"changing lengths": {[]load{{"a", changing, beacon.Usage{}}, {"b", always(time.Second), beacon.Usage{}}}, 1},
		// An item that costs as much again in fuel gets half the time.
		"fuel": {[]load{{"a", always(time.Second), beacon.Usage{Fuel: 1e9}}, {"b", always(time.Second), beacon.Usage{}}}, 0.5},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := policy.NewScheduler(parse(t, `{"Tenants": {"heavy": {"Weight": 3}, "*": {}}}`), 4)
				defer s.Close()
				held := share(t, s, 4*time.Hour, tt.loads...)
				ratio := held[tt.loads[0].tenant].Seconds() / held[tt.loads[1].tenant].Seconds()
				require.InEpsilon(t, tt.want, ratio, 0.1)
				total := held[tt.loads[0].tenant] + held[tt.loads[1].tenant]
				require.InEpsilon(t, (4 * 4 * time.Hour).Seconds(), total.Seconds(), 0.05, "no slot is left empty")
			})
		})
	}
}

// A tenant alone has the whole worker, and one that comes later does not wait
// until an hour of the first's use is made up for; nor does it starve the first.
func TestNewcomer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := policy.NewScheduler(parse(t, `{"Tenants": {"*": {}}}`), 2)
		defer s.Close()
		held := share(t, s, time.Hour, load{"old", always(time.Second), beacon.Usage{}})
		require.InEpsilon(t, (2 * time.Hour).Seconds(), held["old"].Seconds(), 0.01, "work-conserving")
		held = share(t, s, time.Minute, load{"old", always(time.Second), beacon.Usage{}}, load{"new", always(time.Second), beacon.Usage{}})
		require.InDelta(t, 1, held["new"].Seconds()/held["old"].Seconds(), 0.15)
		// In the middle of the work of the others, too.
		var tasks sync.WaitGroup
		var first time.Duration
		tasks.Go(func() {
			time.Sleep(30 * time.Second)
			began := time.Now()
			turn, err := s.Enter(t.Context(), "late", 0)
			require.NoError(t, err)
			first = time.Since(began)
			turn.Leave()
		})
		share(t, s, time.Minute, load{"old", always(time.Second), beacon.Usage{}}, load{"new", always(time.Second), beacon.Usage{}})
		tasks.Wait()
		require.LessOrEqual(t, first, time.Second, "the next slot that is free")
	})
}

// Within a tenant the first that came is the first that runs.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := policy.NewScheduler(&policy.Policy{}, 1)
		defer s.Close()
		turn, err := s.Enter(t.Context(), beacon.DefaultTenant, 0)
		require.NoError(t, err)
		var mu sync.Mutex
		var order []int
		var tasks sync.WaitGroup
		for n := range 10 {
			tasks.Go(func() {
				turn, err := s.Enter(t.Context(), beacon.DefaultTenant, 0)
				require.NoError(t, err)
				mu.Lock()
				order = append(order, n)
				mu.Unlock()
				turn.Leave()
				turn.Leave()
			})
			synctest.Wait()
		}
		turn.Leave()
		tasks.Wait()
		require.Equal(t, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, order)
		require.Equal(t, int64(11), s.Standings()[0].Items)
	})
}

// S18: a tenant at its limit waits; others do not notice.
func TestQuotas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := policy.NewScheduler(parse(t, `{"Tenants": {
			"few": {"Concurrency": 1}, "small": {"Memory": "100M"}, "slow": {"FuelPerMinute": "60G"}, "far": {"EgressPerMinute": "60M"}, "*": {}}}`), 8)
		defer s.Close()
		enter := func(tenant string, memory int64) *policy.Turn {
			turn, err := s.Enter(t.Context(), tenant, memory)
			require.NoError(t, err)
			return turn
		}
		blocked := func(tenant string, memory int64) string {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := s.Enter(ctx, tenant, memory)
			require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
			return err.Error()
		}
		few := enter("few", 0)
		require.Contains(t, blocked("few", 0), "Concurrency is in use")
		enter("other", 0).Leave()
		few.Leave()
		enter("few", 0).Leave()

		small := enter("small", 60<<20)
		require.Contains(t, blocked("small", 60<<20), "Memory is in use")
		enter("small", 40<<20).Leave()
		small.Leave()
		_, err := s.Enter(t.Context(), "small", 200<<20)
		require.Equal(t, beacon.MemoryLimit, beacon.CodeOf(err), "which could never run")
		require.ErrorContains(t, err, "MiB of memory, its tenant 100 MiB at a time; raise the tenant's Memory")

		// A minute's fuel is there at once, then it comes by the second; an item
		// that uses it up is slowed down, and others of the tenant wait.
		slow := enter("slow", 0)
		began := time.Now()
		slow.Used(beacon.Usage{Fuel: 60e9})
		require.NoError(t, slow.Pace(t.Context()))
		slow.Used(beacon.Usage{Fuel: 30e9})
		require.Contains(t, blocked("slow", 0), "FuelPerMinute is used up")
		enter("other", 0).Leave()
		require.NoError(t, slow.Pace(t.Context()))
		require.InDelta(t, 30, time.Since(began).Seconds(), 0.1)
		slow.Used(beacon.Usage{Fuel: 10e9})
		slow.Leave()
		began = time.Now()
		enter("slow", 0).Leave() // is woken in time
		require.InDelta(t, 10, time.Since(began).Seconds(), 0.1)

		far := enter("far", 0)
		far.Used(beacon.Usage{Sent: 50 << 20, Received: 30 << 20})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, far.Pace(ctx), context.DeadlineExceeded)
		began = time.Now()
		require.NoError(t, far.Pace(t.Context()))
		require.InDelta(t, 19, time.Since(began).Seconds(), 0.1)
		far.Leave()

		_, err = s.Enter(t.Context(), "a b", 0)
		require.Equal(t, beacon.Denied, beacon.CodeOf(err))
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		_, err = s.Enter(ctx, "other", 0)
		require.ErrorIs(t, err, context.Canceled)
	})
}

func TestStaged(t *testing.T) {
	s := policy.NewScheduler(parse(t, `{"Tenants": {"a": {"Staged": 100}, "b": {}}}`), 8)
	defer s.Close()
	one, err := s.Enter(t.Context(), "a", 0)
	require.NoError(t, err)
	two, err := s.Enter(t.Context(), "a", 0)
	require.NoError(t, err)
	other, err := s.Enter(t.Context(), "b", 0)
	require.NoError(t, err)
	require.NoError(t, one.Hold(60))
	require.Equal(t, beacon.FileLimit, beacon.CodeOf(two.Hold(41)))
	require.NoError(t, two.Hold(40))
	require.NoError(t, other.Hold(1<<40))
	require.NoError(t, one.Hold(-1000), "no more than it has")
	require.NoError(t, two.Hold(60))
	two.Leave()
	require.NoError(t, two.Hold(-10), "afterwards it is nobody's business")
	require.NoError(t, one.Hold(100))
	require.Error(t, one.Hold(1))
	one.Leave()
	other.Leave()
	for _, standing := range s.Standings() {
		require.Zero(t, standing.Staged, standing.Tenant)
		require.Zero(t, standing.Running)
	}
}

// Servers may name any number of tenants, which cost nothing once they are gone.
func TestManyTenants(t *testing.T) {
	s := policy.NewScheduler(parse(t, `{"Tenants": {"*": {}}}`), 2)
	defer s.Close()
	for n := range 10_000 {
		turn, err := s.Enter(t.Context(), fmt.Sprintf("tenant-%d", n), 0)
		require.NoError(t, err)
		turn.Leave()
	}
	require.LessOrEqual(t, len(s.Standings()), 1024)
}

// Waiting ends with the context, whenever that is, and no slot is lost.
func TestGivingUp(t *testing.T) {
	s := policy.NewScheduler(parse(t, `{"Tenants": {"*": {"Concurrency": 2}}}`), 3)
	defer s.Close()
	var tasks sync.WaitGroup
	for n := range 200 {
		tasks.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(n%20)*time.Millisecond/10)
			defer cancel()
			turn, err := s.Enter(ctx, fmt.Sprint("t", n%3), 0)
			if err == nil {
				turn.Used(beacon.Usage{Fuel: 1000})
				turn.Leave()
			}
		})
	}
	tasks.Wait()
	for _, standing := range s.Standings() {
		require.Zero(t, standing.Running)
		require.Zero(t, standing.Waiting)
	}
	for n := range 3 { // all three are free
		_, err := s.Enter(t.Context(), fmt.Sprint("t", n), 0)
		require.NoError(t, err)
	}
}

func BenchmarkScheduler(b *testing.B) {
	s := policy.NewScheduler(parse(b, `{"Tenants": {"*": {"FuelPerMinute": "1T"}}}`), 4)
	defer s.Close()
	for n := range 100 { // tenants that it knows
		turn, err := s.Enter(b.Context(), fmt.Sprint("t", n), 0)
		require.NoError(b, err)
		turn.Leave()
	}
	for b.Loop() {
		turn, err := s.Enter(b.Context(), "t1", 0)
		if err != nil {
			b.Fatal(err)
		}
		turn.Used(beacon.Usage{Fuel: 1000})
		turn.Leave()
	}
}
