package runtime

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon/runtime/snapshot"
)

// Pool says how many instances of a module there are. Zero fields mean the
// defaults.
type Pool struct {
	// Ready instances are made in the background, before an item asks; default 1,
	// negative for none.
	Ready int
	// Most instances work at a time; further items wait. Default: as many as the
	// Runtime's Memory allows.
	Most int
	// Idle is how long an instance is kept that no item needs, beyond those that
	// are to be ready; default one minute.
	Idle time.Duration
	// Age is how old a snapshot gets of a module that keeps what it has made of
	// random bytes while initialising; then a new one is taken. Default 5 minutes.
	Age time.Duration
	// Fresh gives every item a new instance, which initialises itself.
	Fresh bool
}

func (p Pool) withDefaults() Pool {
	p.Ready = max(cmp.Or(p.Ready, 1), 0)
	if p.Fresh {
		p.Ready = 0
	}
	p.Idle = cmp.Or(max(p.Idle, 0), time.Minute)
	p.Age = cmp.Or(max(p.Age, 0), 5*time.Minute)
	return p
}

const (
	// coolAfter is how long an idle instance keeps pages for its next item.
	coolAfter = 2 * time.Second
	// idleBytes is about what an instance takes besides its memory.
	idleBytes = 16 << 10
	// retryAfter a snapshot that could not be taken the next try is made; after the
	// next failure it is twice that, up to retryMost.
	retryAfter = 30 * time.Second
	retryMost  = time.Hour
)

// PoolStats are numbers of one module's instances.
type PoolStats struct {
	// Idle and Working instances there are now.
	Idle, Working int
	// Made instances since the module was loaded; Restored, how often one was put
	// back after an item; Dropped, how many were thrown away after one: something
	// else than a clean return ended it, or it could not be put back.
	Made, Restored, Dropped int64
	// Snapshots taken.
	Snapshots int64
}

// A pool hands out instances of one module and puts them back into their state
// before anybody else can have them. An instance that has worked for one tenant
// never works for another.
type pool struct {
	module *Module
	config Pool
	budget *memoryBudget

	// life ends when the pool closes; work are the goroutines in the background.
	life context.Context //nolint:containedctx // the pool's own
	end  context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	current  *state        // the snapshot; nil as long as there is none
	taking   chan struct{} // closed when the one that is being taken is there, or is not
	retry    time.Time     // when to try again to take one
	failures int           // to take one, since the last success
	problem  error         // why it could not be taken
	idle     []*instance   // the one used last is the last
	waiting  []chan struct{}
	filling  bool
	tending  bool
	care     time.Time     // when who tends looks again
	hurry    chan struct{} // has it look earlier
	expected int64         // bytes of memory that an item needs, as far as is known
	// method is how memories are put back: the most promising way, until it is
	// measured with the pages that an item writes to.
	method   snapshot.Method
	measured bool
	timings  []snapshot.Timing
	stats    PoolStats
}

func newPool(m *Module, config Pool, b *memoryBudget) *pool {
	p := &pool{module: m, config: config.withDefaults(), budget: b, expected: m.base.size(), hurry: make(chan struct{}, 1)}
	if m.base.image != nil {
		p.method = m.base.image.Methods()[0]
	}
	if m.unready != "" {
		// It had its time to initialise itself, in a process of its own, and nobody
		// would be charged for trying that again here.
		p.problem, p.retry = errors.New(m.unready), time.Now().Add(recordAge)
	}
	p.life, p.end = context.WithCancel(context.Background())
	b.join(p, func() { p.trim(0) })
	return p
}

// close ends what the pool does in the background and frees its instances, of
// which none may be at work.
func (p *pool) close() error {
	p.budget.part(p)
	p.end()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.work.Wait()
	p.trim(0)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current == nil {
		return nil
	}
	return p.current.release()
}

// get returns an instance for an item of the tenant; put must follow. It waits
// for the snapshot, for memory, and for its turn if there is a most.
func (p *pool) get(ctx context.Context, tenant string) (*instance, error) {
	s, err := p.state(ctx)
	if err != nil {
		return nil, err
	}
	expected, err := p.enter(ctx)
	if err != nil {
		return nil, errors.Join(err, s.release())
	}
	// What a larger item once needed is no reason to refuse this one.
	reserved := min(expected+idleBytes, max(p.budget.total, s.size()+idleBytes))
	if err := p.budget.enter(ctx, reserved); err != nil {
		p.leave()
		return nil, errors.Join(err, s.release())
	}
	i, err := p.find(ctx, s, tenant)
	if err != nil {
		p.budget.leave(reserved)
		p.leave()
		return nil, err
	}
	i.reserved = reserved
	if i.memory != nil {
		i.memory.budget, i.memory.covered, i.memory.grown = p.budget, reserved-idleBytes, 0
	}
	return i, nil
}

// state returns the state for new items, for which release must be called.
func (p *pool) state(ctx context.Context) (*state, error) {
	asked := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.config.Fresh || p.module.base.initialized || p.lasting() != "":
			return p.module.base.retain(), nil
		case p.current != nil && (!p.current.stale(p.config.Age) || p.current.taken.After(asked)):
			return p.current.retain(), nil
		case p.current == nil && p.problem != nil && time.Now().Before(p.retry):
			return p.module.base.retain(), nil
		}
		p.take()
		taken := p.taking
		p.mu.Unlock()
		select {
		case <-taken:
		case <-ctx.Done():
		}
		p.mu.Lock()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
}

// lasting says why instances cannot be had initialised and put back; "" if they
// can. p.mu is held.
func (p *pool) lasting() string {
	if p.module.prepared.Lasting != "" {
		return p.module.prepared.Lasting
	}
	if p.problem == nil {
		return ""
	}
	var lasting *lastingError
	if errors.As(p.problem, &lasting) {
		return lasting.reason
	}
	return ""
}

// take begins to take a snapshot, unless somebody has. p.mu is held.
func (p *pool) take() {
	if p.taking != nil {
		return
	}
	p.taking = make(chan struct{})
	p.work.Go(func() {
		s, err := p.module.snapshot(p.life)
		p.mu.Lock()
		defer p.mu.Unlock()
		old := p.current
		p.current, p.problem = s, err
		if err == nil {
			kept := s.retain()
			p.work.Go(func() { p.module.note(errors.Join(p.module.remember(kept), kept.release())) })
			p.stats.Snapshots++
			p.failures = 0
			p.expected = max(p.expected, s.size())
		} else if p.life.Err() == nil {
			p.retry = time.Now().Add(min(retryAfter<<min(p.failures, 10), retryMost))
			p.failures++
			p.module.log.Warn("instances cannot be had initialised", "module", p.module.name, "err", err)
		}
		if old != nil {
			p.module.note(old.release())
		}
		close(p.taking)
		p.taking = nil
	})
}

// enter waits until there are fewer than Pool.Most instances at work, and says
// how much memory one needs.
func (p *pool) enter(ctx context.Context) (expected int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.config.Most <= 0 || p.stats.Working < p.config.Most {
		p.stats.Working++
		return p.expected, nil
	}
	turn := make(chan struct{})
	p.waiting = append(p.waiting, turn)
	p.mu.Unlock()
	select {
	case <-turn:
	case <-ctx.Done():
	}
	p.mu.Lock()
	at := slices.Index(p.waiting, turn)
	switch {
	case at >= 0:
		p.waiting = slices.Delete(p.waiting, at, at+1)
		return 0, context.Cause(ctx)
	case ctx.Err() != nil:
		p.passOn()
		return 0, context.Cause(ctx)
	}
	return p.expected, nil
}

// leave ends what enter began.
func (p *pool) leave() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.passOn()
}

// passOn gives a place to who waits for one. p.mu is held.
func (p *pool) passOn() {
	if len(p.waiting) == 0 {
		p.stats.Working--
		return
	}
	close(p.waiting[0])
	p.waiting = p.waiting[1:]
}

// find returns an idle instance in that state, or makes one. The state is
// released.
func (p *pool) find(ctx context.Context, s *state, tenant string) (*instance, error) {
	defer func() { p.module.note(s.release()) }()
	p.mu.Lock()
	// The one used last has its pages at hand; then one that nobody has used.
	for _, owner := range [...]string{tenant, ""} {
		for n := len(p.idle) - 1; n >= 0; n-- {
			if i := p.idle[n]; i.tenant == owner && i.state == s {
				p.idle = slices.Delete(p.idle, n, n+1)
				p.fill()
				p.mu.Unlock()
				p.budget.give(i.kept)
				i.kept = 0
				return i, nil
			}
		}
	}
	p.stats.Made++
	p.fill()
	method := p.method
	p.mu.Unlock()
	return p.module.instantiate(ctx, s, method)
}

// put takes an instance back. clean is true when the guest has returned from
// all that it was called for.
func (p *pool) put(ctx context.Context, i *instance, clean bool) {
	reserved, size := i.reserved, int64(0)
	if i.memory != nil {
		reserved += i.memory.grown
		size = int64(i.memory.Size())
	}
	clean = clean && i.state.initialized && !p.config.Fresh && p.module.prepared.Lasting == ""
	if clean {
		p.measure(i)
		clean = p.restored(i)
	}
	i.rest()
	p.budget.leave(reserved)
	if clean {
		clean = p.budget.keep(i.kept)
	}
	p.mu.Lock()
	p.passOn()
	// What one item needed, the next may need; what none needs is forgotten.
	p.expected = max(size, p.expected-(p.expected-i.state.size())/64)
	if clean && !p.closed && (i.state == p.current || i.state == p.module.base) {
		p.stats.Restored++
		p.idle = append(p.idle, i)
		p.tend()
		p.mu.Unlock()
		return
	}
	p.stats.Dropped++
	p.fill()
	p.mu.Unlock()
	if clean {
		p.budget.give(i.kept)
	}
	p.module.note(i.close(ctx))
}

// restored puts an instance back, and reports whether it is.
func (p *pool) restored(i *instance) bool {
	err := i.restore()
	if errors.Is(err, snapshot.ErrNotRestored) {
		// Nobody has seen it, and nobody will.
		p.module.log.Error("from now on all of a memory is compared", "module", p.module.name, "err", err)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.method = snapshot.Compare
		p.module.distrust.Store(true)
	}
	return err == nil
}

// measure finds out, after the first item, which way is the fastest to put back
// what it has written. Until then, and if it is known, memories use what seems
// to be.
func (p *pool) measure(i *instance) {
	if i.memory == nil {
		return
	}
	p.mu.Lock()
	i.memory.Use(p.method)
	measured := p.measured
	p.measured = true
	p.mu.Unlock()
	if measured {
		return
	}
	read, written := i.memory.Present(), i.memory.Written()
	s := i.state.retain()
	p.work.Go(func() {
		method, timings, err := s.image.Fastest(read, written)
		p.module.note(errors.Join(err, s.release()))
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.timings = timings; !p.module.distrust.Load() {
			p.method = method
		}
	})
}

// warm makes the first snapshot and instances in the background.
func (p *pool) warm() {
	if p.module.base.initialized {
		p.work.Go(func() { p.module.note(p.module.remember(p.module.base)) })
	} else if p.config.Fresh || p.module.prepared.Lasting != "" {
		p.module.prepared.Binary = nil // has served
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fill()
}

// fill makes instances in the background, if fewer are ready than should be.
// p.mu is held.
func (p *pool) fill() {
	if p.filling || p.closed || len(p.idle) >= p.config.Ready {
		return
	}
	p.filling = true
	p.work.Go(func() {
		for p.makeReady() {
			continue
		}
	})
}

// makeReady makes one instance and reports whether there should be another.
func (p *pool) makeReady() bool {
	s, err := p.state(p.life)
	p.mu.Lock()
	method := p.method
	p.mu.Unlock()
	var i *instance
	if err == nil {
		if s.initialized && p.module.prepared.Lasting == "" && p.budget.keep(idleBytes) {
			if i, err = p.module.instantiate(p.life, s, method); err != nil {
				p.budget.give(idleBytes)
			}
		}
		err = errors.Join(err, s.release())
	}
	if err != nil && p.life.Err() == nil {
		p.module.note(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if i == nil {
		p.filling = false
		return false
	}
	i.kept, i.since, i.cooled = idleBytes, time.Now(), true
	// The oldest: those that have worked have their pages at hand.
	p.idle = slices.Insert(p.idle, 0, i)
	p.stats.Made++
	p.tend()
	p.filling = len(p.idle) < p.config.Ready && !p.closed
	return p.filling
}

// tend looks after idle instances in the background, as long as there is
// something to do. p.mu is held.
func (p *pool) tend() {
	if p.tending && time.Until(p.care) > coolAfter {
		select {
		case p.hurry <- struct{}{}:
		default:
		}
	}
	if p.tending || p.closed {
		return
	}
	p.tending = true
	p.work.Go(func() {
		for {
			p.mu.Lock()
			wait := p.nextCare()
			if wait < 0 || p.closed {
				p.tending = false
				p.mu.Unlock()
				return
			}
			p.care = time.Now().Add(wait)
			p.mu.Unlock()
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-p.hurry:
			case <-p.life.Done():
			}
			timer.Stop()
			p.cool()
			p.trim(p.config.Idle)
		}
	})
}

// nextCare says when an idle instance next wants something; negative for never.
// p.mu is held.
func (p *pool) nextCare() time.Duration {
	next := time.Duration(-1)
	for n, i := range p.idle {
		wait := p.config.Idle
		switch {
		case i.state != p.current && i.state != p.module.base:
			wait = 0
		case !i.cooled:
			wait = min(wait, coolAfter)
		case len(p.idle)-n <= p.config.Ready:
			continue
		}
		if left := max(wait-time.Since(i.since), 0); next < 0 || left < next {
			next = left
		}
	}
	return next
}

// cool has instances that nobody has wanted for a while give back their pages.
func (p *pool) cool() {
	for {
		p.mu.Lock()
		at := slices.IndexFunc(p.idle, func(i *instance) bool { return !i.cooled && time.Since(i.since) >= coolAfter })
		if at < 0 {
			p.mu.Unlock()
			return
		}
		i := p.idle[at]
		p.idle = slices.Delete(p.idle, at, at+1)
		p.mu.Unlock()
		err := i.cool()
		if err == nil {
			p.budget.give(i.kept - idleBytes)
			i.kept = idleBytes
			p.mu.Lock()
			p.idle = slices.Insert(p.idle, min(at, len(p.idle)), i)
			p.mu.Unlock()
			continue
		}
		p.budget.give(i.kept)
		p.module.note(errors.Join(err, i.close(p.life)))
	}
}

// trim closes instances that have been idle for so long, but leaves those that
// are to be ready; with 0 all are closed.
func (p *pool) trim(idle time.Duration) {
	p.mu.Lock()
	var gone []*instance
	left := p.idle[:0]
	for n, i := range p.idle {
		ready := idle > 0 && len(p.idle)-n <= p.config.Ready
		old := i.state != p.current && i.state != p.module.base
		if old || !ready && time.Since(i.since) >= idle {
			gone = append(gone, i)
			continue
		}
		left = append(left, i)
	}
	clear(p.idle[len(left):])
	p.idle = left
	p.mu.Unlock()
	for _, i := range gone {
		p.budget.give(i.kept)
		p.module.note(i.close(p.life))
	}
}

// numbers returns what is known of the pool.
func (p *pool) numbers() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	stats := p.stats
	stats.Idle = len(p.idle)
	return stats
}
