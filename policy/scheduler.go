package policy

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// Prices turn what an item uses into one number, its cost, so that tenants share
// the worker by what their items take and not by how many there are. 0 is the
// default.
type Prices struct {
	// Second is one second of a slot; default 1.
	Second float64
	// GigaFuel is a thousand million instructions, which take about a second of a
	// processor; default 1.
	GigaFuel float64
	// StagedGiB is for files, NetworkGiB for what is sent and received; default 2
	// and 8.
	StagedGiB, NetworkGiB float64
	// KiloToken is a thousand tokens of a language model; default 1.
	KiloToken float64
}

func (p Prices) lowest() float64 {
	return min(p.Second, p.GigaFuel, p.StagedGiB, p.NetworkGiB, p.KiloToken)
}

func (p Prices) withDefaults() Prices {
	return Prices{
		cmp.Or(p.Second, 1), cmp.Or(p.GigaFuel, 1), cmp.Or(p.StagedGiB, 2), cmp.Or(p.NetworkGiB, 8), cmp.Or(p.KiloToken, 1),
	}
}

// cost is that of what was used, without the time.
func (p Prices) cost(u beacon.Usage) float64 {
	const giga, gib = 1e9, 1 << 30
	return p.GigaFuel*float64(u.Fuel)/giga + p.StagedGiB*float64(u.Staged)/gib +
		p.NetworkGiB*float64(u.Sent+u.Received)/gib + p.KiloToken*float64(u.Tokens)/1000
}

// A Scheduler shares the slots of a worker between tenants, by weight and by
// what their items cost, and holds each tenant to its quotas. A slot is never
// left empty while an item waits that may run. It is safe for concurrent use.
//
// It is start-time fair queueing: every tenant has a virtual time, which grows
// by the cost of its items divided by its weight, and the tenant that is furthest
// behind is next. What an item costs is known when it has ended; until then it
// counts with what it has cost so far, and at least with what the tenant's items
// usually do. A tenant that comes back starts where the others are: it has
// neither credit nor debt for the time it was away.
type Scheduler struct {
	policy *Policy
	prices Prices

	mu      sync.Mutex
	free    int
	ledgers map[string]*ledger
	queued  []*ledger // that have waiting items
	running int       // turns
	clock   float64   // virtual time
	latest  float64   // the latest that any tenant has come to
	arrival uint64
	wake    *time.Timer // for tenants that wait for their next minute; nil if none
	closed  bool
}

// A ledger is what a scheduler knows of one tenant.
type ledger struct {
	tenant  *Tenant
	virtual float64
	usual   float64 // cost of an item, averaged
	running map[*Turn]struct{}
	waiting []*waiter
	memory  int64
	staged  int64
	fuel    bucket
	egress  bucket
	total   beacon.Usage
	cost    float64
	items   int64
}

// A waiter is an item that waits for its turn.
type waiter struct {
	arrival uint64
	memory  int64
	turn    *Turn         // once it has one
	started chan struct{} // closed then
}

// NewScheduler makes a scheduler for a number of slots.
func NewScheduler(p *Policy, slots int) *Scheduler {
	return &Scheduler{policy: p, prices: p.Prices.withDefaults(), free: slots, ledgers: map[string]*ledger{}}
}

// Close ends the scheduler, which nobody may use any more.
func (s *Scheduler) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.wake != nil {
		s.wake.Stop()
	}
}

// A Turn is the leave of one item to run. It pays for the item's account.
type Turn struct {
	scheduler *Scheduler
	ledger    *ledger
	memory    int64
	began     time.Time
	cost      float64 // without the time
	staged    int64
	left      bool
}

// Enter waits until an item of the tenant may run. memory is what its guest may
// have, in bytes. Leave must be called on the turn. An item that can never run
// within the quotas is an error, and so is ctx, when it is done first.
func (s *Scheduler) Enter(ctx context.Context, tenant string, memory int64) (*Turn, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	l, err := s.ledger(tenant)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	if q := l.tenant.Quota; q.Memory > 0 && memory > q.Memory {
		s.mu.Unlock()
		return nil, beacon.Errorf(beacon.MemoryLimit, "the module may have %.4g MiB of memory, its tenant %.4g MiB at a time; raise the tenant's Memory, or lower the provider's",
			float64(memory)/(1<<20), float64(q.Memory)/(1<<20))
	}
	if len(l.running)+len(l.waiting) == 0 {
		l.virtual = max(l.virtual, s.clock)
	}
	s.arrival++
	w := &waiter{arrival: s.arrival, memory: memory, started: make(chan struct{})}
	s.queue(l, w)
	s.dispatch()
	s.mu.Unlock()

	select {
	case <-w.started:
		return w.turn, nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.turn != nil { // both at the same time
		s.leave(w.turn)
		return nil, context.Cause(ctx)
	}
	s.unqueue(l, w)
	s.dispatch() // another tenant's wait may have been for this one's turn
	err = context.Cause(ctx)
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = beacon.Errorf(beacon.Timeout, "the item waited for its turn longer than it may take: %s", l.shortage(memory))
	}
	return nil, err
}

// ledger finds that of a tenant; s.mu is held.
func (s *Scheduler) ledger(name string) (*ledger, error) {
	if l := s.ledgers[name]; l != nil {
		return l, nil
	}
	t, err := s.policy.Tenant(name)
	if err != nil {
		return nil, err
	}
	const many = 1024
	if len(s.ledgers) >= many { // tenants that are not listed can be any number
		now := time.Now()
		maps.DeleteFunc(s.ledgers, func(_ string, l *ledger) bool { return l.idle(now) })
	}
	now := time.Now()
	l := &ledger{tenant: t, running: map[*Turn]struct{}{}, fuel: newBucket(t.Quota.FuelPerMinute, now), egress: newBucket(t.Quota.EgressPerMinute, now)}
	s.ledgers[name] = l
	return l, nil
}

// idle reports whether nothing is lost with the ledger.
func (l *ledger) idle(now time.Time) bool {
	return len(l.running)+len(l.waiting) == 0 && l.fuel.full(now) && l.egress.full(now)
}

// queue adds a waiting item; s.mu is held.
func (s *Scheduler) queue(l *ledger, w *waiter) {
	if len(l.waiting) == 0 {
		s.queued = append(s.queued, l)
	}
	l.waiting = append(l.waiting, w)
}

// unqueue takes a waiting item away; s.mu is held.
func (s *Scheduler) unqueue(l *ledger, w *waiter) {
	l.waiting = slices.DeleteFunc(l.waiting, func(other *waiter) bool { return other == w })
	if len(l.waiting) == 0 {
		s.queued = slices.DeleteFunc(s.queued, func(other *ledger) bool { return other == l })
	}
}

// dispatch gives free slots to those that wait; s.mu is held.
func (s *Scheduler) dispatch() {
	now := time.Now()
	for s.free > 0 && !s.closed {
		var next *ledger
		var least float64
		for _, l := range s.queued {
			if !l.fits(now) {
				continue
			}
			v := s.standing(l, now)
			if next == nil || v < least || v == least && l.waiting[0].arrival < next.waiting[0].arrival {
				next, least = l, v
			}
		}
		if next == nil {
			break
		}
		w := next.waiting[0]
		s.unqueue(next, w)
		w.turn = &Turn{scheduler: s, ledger: next, memory: w.memory, began: now}
		next.running[w.turn] = struct{}{}
		next.memory += w.memory
		s.clock = max(s.clock, least)
		s.free--
		s.running++
		close(w.started)
	}
	s.rouse(now)
}

// fits reports whether the quotas let the tenant's next item run.
func (l *ledger) fits(now time.Time) bool {
	q := l.tenant.Quota
	return (q.Concurrency == 0 || len(l.running) < q.Concurrency) &&
		(q.Memory == 0 || l.memory+l.waiting[0].memory <= q.Memory) &&
		l.fuel.wait(now) == 0 && l.egress.wait(now) == 0
}

// shortage words what the tenant waits for.
func (l *ledger) shortage(memory int64) string {
	q, now := l.tenant.Quota, time.Now()
	switch {
	case q.Concurrency > 0 && len(l.running) >= q.Concurrency:
		return "the tenant's Concurrency is in use"
	case q.Memory > 0 && l.memory+memory > q.Memory:
		return "the tenant's Memory is in use"
	case l.fuel.wait(now) > 0:
		return "the tenant's FuelPerMinute is used up"
	case l.egress.wait(now) > 0:
		return "the tenant's EgressPerMinute is used up"
	}
	return "all slots are in use"
}

// standing is how far a tenant has come, with what its running items count.
func (s *Scheduler) standing(l *ledger, now time.Time) float64 {
	v := l.virtual
	for t := range l.running {
		v += max(s.costOf(t, now), l.usual) / l.tenant.Weight
	}
	return v
}

func (s *Scheduler) costOf(t *Turn, now time.Time) float64 {
	return t.cost + s.prices.Second*now.Sub(t.began).Seconds()
}

// rouse has dispatch look again when the first tenant's next minute begins, if
// that is all that is waited for; s.mu is held.
func (s *Scheduler) rouse(now time.Time) {
	if s.wake != nil {
		s.wake.Stop()
		s.wake = nil
	}
	if s.free == 0 || s.closed {
		return
	}
	var first time.Duration
	for _, l := range s.queued {
		if wait := max(l.fuel.wait(now), l.egress.wait(now)); wait > 0 && (first == 0 || wait < first) {
			first = wait
		}
	}
	if first > 0 {
		s.wake = time.AfterFunc(first, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.dispatch()
		})
	}
}

// Leave ends the turn. The second time it does nothing.
func (t *Turn) Leave() {
	t.scheduler.mu.Lock()
	defer t.scheduler.mu.Unlock()
	t.scheduler.leave(t)
}

// leave books the end of a turn; s.mu is held.
func (s *Scheduler) leave(t *Turn) {
	if t.left {
		return
	}
	t.left = true
	l := t.ledger
	cost := s.costOf(t, time.Now())
	const inertia = 0.8
	if l.items == 0 {
		l.usual = cost
	}
	l.usual = inertia*l.usual + (1-inertia)*cost
	l.items++
	l.cost += cost
	l.virtual += cost / l.tenant.Weight
	l.memory -= t.memory
	l.staged -= t.staged
	delete(l.running, t)
	s.latest = max(s.latest, l.virtual)
	s.free++
	s.running--
	if s.running+len(s.queued) == 0 {
		s.clock = max(s.clock, s.latest) // nobody was kept waiting, so nobody owes anything
	}
	s.dispatch()
}

// Used implements beacon.Payer.
func (t *Turn) Used(u beacon.Usage) {
	s, now := t.scheduler, time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	t.cost += s.prices.cost(u)
	l := t.ledger
	l.total.Fuel += u.Fuel
	l.total.Staged += u.Staged
	l.total.Sent += u.Sent
	l.total.Received += u.Received
	l.total.Tokens += u.Tokens
	l.total.Cost += u.Cost
	l.total.Memory = max(l.total.Memory, u.Memory)
	l.fuel.take(float64(u.Fuel), now)
	l.egress.take(float64(u.Sent+u.Received), now)
}

// Pace implements beacon.Payer: it waits while the tenant's fuel or egress for
// the minute is used up.
func (t *Turn) Pace(ctx context.Context) error {
	for {
		t.scheduler.mu.Lock()
		now := time.Now()
		wait := max(t.ledger.fuel.wait(now), t.ledger.egress.wait(now))
		t.scheduler.mu.Unlock()
		if wait == 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// Hold implements beacon.Payer.
func (t *Turn) Hold(bytes int64) error {
	t.scheduler.mu.Lock()
	defer t.scheduler.mu.Unlock()
	if t.left {
		return nil
	}
	l := t.ledger
	if limit := l.tenant.Quota.Staged; limit > 0 && bytes > 0 && l.staged+bytes > limit {
		return beacon.Errorf(beacon.FileLimit, "the files of the tenant's running items would take more than %d bytes; raise the tenant's Staged", limit)
	}
	bytes = max(bytes, -t.staged)
	l.staged += bytes
	t.staged += bytes
	return nil
}

// A Standing is how a tenant is doing.
type Standing struct {
	Tenant           string
	Running, Waiting int
	Items            int64        // that have ended
	Usage            beacon.Usage // of all items, also running ones; its Memory is the most that one had
	Cost             float64      // of those that have ended, by the Prices
	Staged, Memory   int64        // held by running items, in bytes
}

// Standings lists the tenants that have had items lately, by name.
func (s *Scheduler) Standings() []Standing {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Standing
	for _, name := range slices.Sorted(maps.Keys(s.ledgers)) {
		l := s.ledgers[name]
		all = append(all, Standing{name, len(l.running), len(l.waiting), l.items, l.total, l.cost, l.staged, l.memory})
	}
	return all
}

// A bucket is what may be used of something per minute. It may go below zero:
// what something costs is known afterwards.
type bucket struct {
	rate, size, level float64 // per second, and at most; 0 has no bound
	at                time.Time
}

func newBucket(perMinute int64, now time.Time) bucket {
	size := float64(perMinute)
	return bucket{size / 60, size, size, now}
}

func (b *bucket) fill(now time.Time) {
	if d := now.Sub(b.at).Seconds(); d > 0 {
		b.level = min(b.size, b.level+d*b.rate)
		b.at = now
	}
}

func (b *bucket) take(n float64, now time.Time) {
	if b.rate > 0 {
		b.fill(now)
		b.level -= n
	}
}

// wait is how long there is nothing.
func (b *bucket) wait(now time.Time) time.Duration {
	if b.rate == 0 {
		return 0
	}
	if b.fill(now); b.level > 0 {
		return 0
	}
	// A little more than nothing, so that it is not for nothing that one wakes.
	return time.Duration((-b.level/b.rate)*float64(time.Second)) + time.Millisecond
}

func (b *bucket) full(now time.Time) bool {
	if b.rate == 0 {
		return true
	}
	b.fill(now)
	return b.level >= b.size
}
