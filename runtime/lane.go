package runtime

import (
	"context"
	goruntime "runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// briefTime is how long a guest runs before it needs a place in the lane. Most
	// items end sooner and never come there.
	briefTime = 500 * time.Microsecond
	// quantum is how long a guest keeps its place while others wait.
	quantum = 2 * time.Millisecond
	// reserveTime is how long the last processor is kept free for a tenant's next
	// brief item.
	reserveTime = 100 * time.Millisecond
	// lookAfter is how often who waits looks whether there is a place: nobody tells
	// when a guest has gone to wait for the host, or the reserve is over.
	lookAfter = time.Millisecond
	// workTime is how long a function of the host's may keep the guest's place that
	// should have work to do, and not wait.
	workTime = 10 * time.Millisecond
)

// A lane is where guests run on that take long, so that they leave room for brief
// ones: two levels of a feedback queue. A guest that has run for briefTime needs a
// place; there is one less than processors. Who waits gets its turn after a
// quantum, tenant by tenant. The last processor, too, is used as long as that
// hinders no other tenant's brief items. A guest that waits, in a function of the
// host's, loses its place to who needs one.
//
// Nobody is interrupted: guests come by when their slice of fuel is used up, and
// after functions of the host's.
type lane struct {
	processors func() int
	// giveWay has guests that take long offer their processor to other threads of
	// the system, by yield, whenever they come by.
	giveWay atomic.Bool
	yield   func()

	// busy is true if anybody holds or wants a place.
	busy atomic.Bool

	mu      sync.Mutex
	holders []*lease
	queues  []*laneQueue // of tenants that wait, in turn
	waiting int
	// brief are the last two tenants whose item has ended without a place; the
	// latest first.
	brief [2]struct {
		tenant string
		at     time.Time
	}
}

type laneQueue struct {
	tenant string
	leases []*lease
}

func newLane() *lane {
	return &lane{processors: func() int { return goruntime.GOMAXPROCS(0) }, yield: yieldProcessor}
}

// A lease is one guest's place in the lane. It belongs to the guest's goroutine,
// but for what the lane's mu guards.
type lease struct {
	lane   *lane
	tenant string // "" for what is done on no item's behalf
	wanted bool   // the guest takes long
	// offered is when its processor was offered to other threads the last time.
	offered time.Time
	// host says whether the guest is in a function of the host's: its number, in
	// which bit 0 is set then, and bit 1, too, if the function waits.
	host atomic.Uint64

	// Guarded by lane.mu:
	held   bool
	since  time.Time
	turn   chan struct{}
	seen   uint64 // of host
	seenAt time.Time
}

// pass is called when the guest has used up a slice, ran being how long it has
// run so far. It waits if it is somebody else's turn, until ctx ends, and reports
// whether it has.
func (l *lease) pass(ctx context.Context, ran time.Duration, now time.Time) (waited bool) {
	if !l.wanted && ran < briefTime {
		return false
	}
	l.wanted = true
	a := l.lane
	a.mu.Lock()
	if l.held && !a.over(l, now) {
		a.mu.Unlock()
		if a.giveWay.Load() && now.Sub(l.offered) >= sliceTime {
			l.offered = now
			a.yield()
		}
		return false
	}
	a.drop(l)
	a.queue(l)
	a.serve(now)
	for !l.held && ctx.Err() == nil {
		wait := lookAfter * time.Duration(a.waiting) // together they look so often
		a.mu.Unlock()
		timer := time.NewTimer(wait)
		select {
		case <-l.turn:
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
		a.mu.Lock()
		a.serve(time.Now())
	}
	if !l.held {
		a.unqueue(l)
	}
	a.mu.Unlock()
	return true
}

// end gives the place back, if there is one. The guest has ended.
func (l *lease) end() {
	a := l.lane
	if l.wanted {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.drop(l)
		a.serve(time.Now())
	} else if l.tenant != "" && a.busy.Load() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.brief[0].tenant != l.tenant {
			a.brief[1] = a.brief[0]
			a.brief[0].tenant = l.tenant
		}
		a.brief[0].at = time.Now()
	}
}

// over reports whether a holder has to go. a.mu is held.
func (a *lane) over(l *lease, now time.Time) bool {
	if len(a.holders) > a.places() && (a.reserved(l.tenant, now) || len(a.holders) > a.processors()) {
		return true
	}
	return a.waiting > 0 && now.Sub(l.since) >= quantum
}

// places are those that are there for anybody.
func (a *lane) places() int { return max(a.processors()-1, 1) }

// reserved reports whether the last processor is kept free of a tenant's guests.
// a.mu is held.
func (a *lane) reserved(tenant string, now time.Time) bool {
	for _, b := range a.brief {
		if b.tenant != tenant && now.Sub(b.at) < reserveTime {
			return true
		}
	}
	return false
}

// serve gives places to those who wait, as far as there are any. a.mu is held.
func (a *lane) serve(now time.Time) {
	if a.waiting > 0 {
		a.reclaim(now)
	}
	for a.next(now) {
		continue
	}
	a.busy.Store(a.waiting+len(a.holders) > 0)
}

// next gives a place to the next who may have one. a.mu is held.
func (a *lane) next(now time.Time) bool {
	n := len(a.holders)
	for at, q := range a.queues {
		if n >= a.places() && (n >= a.processors() || a.reserved(q.tenant, now)) {
			continue
		}
		l := q.leases[0]
		a.waiting--
		q.leases = q.leases[1:]
		a.queues = slices.Delete(a.queues, at, at+1)
		if len(q.leases) > 0 {
			a.queues = append(a.queues, q)
		}
		l.held, l.since, l.seen = true, now, 0
		a.holders = append(a.holders, l)
		select {
		case l.turn <- struct{}{}:
		default:
		}
		return true
	}
	return false
}

// reclaim takes places from guests that wait for the host. a.mu is held.
func (a *lane) reclaim(now time.Time) {
	a.holders = slices.DeleteFunc(a.holders, func(l *lease) bool {
		patience := workTime
		if host := l.host.Load(); host != l.seen {
			l.seen, l.seenAt = host, now
		} else if host&hostWaits != 0 {
			patience = lookAfter
		}
		if l.seen&hostWorks == 0 || now.Sub(l.seenAt) < patience {
			return false
		}
		l.held = false
		return true
	})
}

// drop takes a lease off those that hold a place. a.mu is held.
func (a *lane) drop(l *lease) {
	if l.held {
		l.held = false
		a.holders = slices.DeleteFunc(a.holders, func(h *lease) bool { return h == l })
	}
}

// queue has a lease wait, behind those of its tenant. a.mu is held.
func (a *lane) queue(l *lease) {
	if l.turn == nil {
		l.turn = make(chan struct{}, 1)
	}
	select {
	case <-l.turn: // what it was told before
	default:
	}
	a.waiting++
	for _, q := range a.queues {
		if q.tenant == l.tenant {
			q.leases = append(q.leases, l)
			return
		}
	}
	a.queues = append(a.queues, &laneQueue{l.tenant, []*lease{l}})
}

// unqueue ends the waiting of a lease. a.mu is held.
func (a *lane) unqueue(l *lease) {
	for n, q := range a.queues {
		if at := slices.Index(q.leases, l); at >= 0 {
			a.waiting--
			if q.leases = slices.Delete(q.leases, at, at+1); len(q.leases) == 0 {
				a.queues = slices.Delete(a.queues, n, n+1)
			}
			return
		}
	}
}

const (
	hostWorks  = 1
	hostWaits  = 2
	hostNumber = 4
)

// enterHost and leaveHost surround a function of the host's.
func (l *lease) enterHost(waits bool) {
	if !l.wanted {
		return
	}
	state := l.host.Load()/hostNumber*hostNumber + hostNumber + hostWorks
	if waits {
		state += hostWaits
	}
	l.host.Store(state)
}

func (l *lease) leaveHost() {
	if l.wanted {
		l.host.Store(l.host.Load() / hostNumber * hostNumber)
	}
}
