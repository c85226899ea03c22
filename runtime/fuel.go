package runtime

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/profile"
)

// A Budget is asked, again and again while a guest runs, whether it may go on:
// where a tenant's share of the processor is kept. It is safe for concurrent use.
type Budget interface {
	// Spend is told of instructions that the job's guest has executed since the
	// last call: exactly where its fuel is limited, roughly and too many
	// otherwise. It is called on the guest's way, every millisecond at most,
	// and may wait to slow the guest down; it returns soon after ctx is done. An
	// error ends the item and is its outcome: a *beacon.Error is shown to the
	// submitter. What a guest used after the last call in its run is told when the
	// run is over; an error is ignored then.
	Spend(ctx context.Context, job *beacon.Job, instructions int64) error
}

const (
	// sliceTime is how long a guest should execute between two visits to the host.
	// Compiled code cannot be interrupted, so this is also how long a guest keeps
	// the garbage collector waiting, and with it everybody else.
	sliceTime = 100 * time.Microsecond
	// tellTime is how often the budget is told at most.
	tellTime = time.Millisecond
)

// A pace bounds the slices that guests get of fuel. Their size follows the time
// they take: a unit may be one instruction or a page that is touched first.
type pace struct {
	first, least, most int64
	instructions       int64 // in a unit
}

var paces = map[module.Grade]pace{
	module.Deadline: {first: 8 << 10, least: 1 << 10, most: 1 << 20, instructions: 16},
	module.Exact:    {first: 128 << 10, least: 16 << 10, most: 8 << 20, instructions: 1},
}

// errStack breaks a guest down that has called too deeply. It is what the engine
// says at its own limit.
var errStack = errors.New("stack overflow")

// A gauge watches the fuel of one guest. It belongs to the guest's goroutine.
type gauge struct {
	job    *beacon.Job
	name   string // of the module
	budget Budget // may be nil
	slow   *atomic.Int64
	pace   pace
	limit  int64 // units; 0 for no limit

	granted int64 // units in all
	told    int64 // units that the budget knows of
	toldAt  time.Time
	slice   int64
	// recorder follows where it goes; nil unless the module is profiled.
	recorder *profile.Recorder
	since    time.Time     // when the guest got the last slice
	ran      time.Duration // guest and host, but for waiting, until looked
	looked   time.Time
	yielded  time.Time
	calls    int // of functions of the host's
	lease    lease
	view     view // of the guest's memory
}

func (m *Module) gauge(job *beacon.Job) *gauge {
	p := paces[m.grade()]
	g := &gauge{job: job, name: m.name, budget: m.budget, slow: &m.slow, pace: p, slice: p.first, lease: lease{lane: m.lane}}
	if job != nil {
		g.lease.tenant = cmp.Or(job.Tenant, beacon.DefaultTenant)
	}
	if m.grade() == module.Exact {
		g.limit = m.limits.Fuel
	}
	if slow := m.slow.Load(); slow > 0 {
		g.slice = slow
	}
	return g
}

// begin returns the guest's first slice. It looks at no clock, which most items
// are too short for.
func (g *gauge) begin(ctx context.Context) (int64, error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	if g.slice < g.pace.first {
		g.since = time.Now()
	}
	if err := g.tell(ctx, 0); err != nil {
		return 0, err
	}
	g.granted = g.slice
	if g.limit > 0 {
		g.granted = min(g.slice, g.limit)
	}
	return g.granted, nil
}

// refill looks at the guest when its fuel is used up, left being negative then,
// and returns its next slice.
func (g *gauge) refill(ctx context.Context, left int64) (int64, error) {
	now := time.Now()
	if !g.since.IsZero() {
		g.adapt(now.Sub(g.since))
	}
	g.look(now)
	// Guests cannot be interrupted. Whoever waits for the processor gets it here,
	// not least the timer of the deadline.
	g.yielded = now
	goruntime.Gosched()
	used := g.granted - left
	if err := g.check(ctx, used, now); err != nil {
		return 0, &abi.Stop{Cause: err}
	}
	g.lease.pass(ctx, g.ran, now)
	if ctx.Err() != nil {
		return 0, &abi.Stop{Cause: context.Cause(ctx)}
	}
	next := g.slice
	if g.limit > 0 {
		next = min(next, g.limit-used)
	}
	g.granted = used + next
	g.since = time.Now()
	g.looked = g.since
	return next, nil
}

// check says why the guest, which has used so much, may not go on.
func (g *gauge) check(ctx context.Context, used int64, now time.Time) error {
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case g.limit > 0 && used > g.limit:
		return g.exceeded()
	case now.Sub(g.toldAt) < tellTime:
		return nil
	}
	g.toldAt = now
	g.lease.enterHost(true)
	defer g.lease.leaveHost()
	return g.tell(ctx, used)
}

// adapt makes the next slice as large as the last one should have been. It grows
// slowly: what comes may take longer.
func (g *gauge) adapt(took time.Duration) {
	switch {
	case took < sliceTime/2:
		g.slice = min(2*g.slice, g.pace.most)
	case took > 2*sliceTime:
		g.slice = max(int64(float64(g.slice)*float64(sliceTime)/float64(took)), g.pace.least)
	}
}

func (g *gauge) tell(ctx context.Context, used int64) error {
	if g.budget == nil || g.job == nil {
		return nil
	}
	spent := used - g.told
	g.told = used
	return g.budget.Spend(ctx, g.job, spent*g.pace.instructions)
}

// done is for a guest that has ended, with what is left of its fuel. The error
// says that it used too much.
func (g *gauge) done(ctx context.Context, left int64) (used int64, err error) {
	used = g.granted - left
	if g.recorder != nil {
		g.recorder.End(used)
	}
	// Whatever the budget says now comes too late.
	_ = g.tell(ctx, used)
	if g.limit > 0 && used > g.limit {
		return used, g.exceeded()
	}
	return used, nil
}

func (g *gauge) exceeded() error {
	return beacon.Errorf(beacon.FuelLimit, "module %s used more than %d units of fuel; raise it with --fuel or the provider's Fuel", g.name, g.limit)
}

// end gives back what the guest holds besides its fuel, and has the module's next
// guest begin with small slices if this one ended with them.
func (g *gauge) end() {
	g.lease.end()
	if !g.since.IsZero() {
		if g.slice >= g.pace.first {
			g.slice = 0
		}
		g.slow.Store(g.slice)
	}
}

// look notes how long the guest has run.
func (g *gauge) look(now time.Time) {
	if !g.looked.IsZero() {
		g.ran += now.Sub(g.looked)
	}
	g.looked = now
}

// lookEvery so many calls of the host's functions the clock is looked at.
const lookEvery = 8

// outside has a library's functions leave the guest's place in the lane to others
// while they wait, and counts what they do as the guest's time. What they get hold of
// of the guest's memory is marked.
func outside(l abi.Library) abi.Library {
	l.Functions = slices.Clone(l.Functions)
	for n := range l.Functions {
		f := &l.Functions[n]
		call, waits := f.Call, f.Waits
		f.Call = func(ctx context.Context, memory abi.Memory, stack []uint64) {
			g, ok := abi.State[*gauge](ctx)
			if ok {
				g.calls++
				if memory != nil && g.view.of != nil {
					g.view.Memory = memory
					memory = &g.view
				}
			}
			if !ok || !g.lease.wanted && g.calls%lookEvery != 0 {
				call(ctx, memory, stack)
				return
			}
			g.visit(ctx, waits, func() { call(ctx, memory, stack) })
		}
	}
	return l
}

// visit is a call of a function of the host's that is looked at.
func (g *gauge) visit(ctx context.Context, waits bool, call func()) {
	if waits {
		g.look(time.Now())
	}
	g.lease.enterHost(waits)
	call()
	g.lease.leaveHost()
	now := time.Now()
	if waits {
		g.looked = now
	} else {
		g.look(now)
	}
	if now.Sub(g.yielded) >= sliceTime {
		g.yielded = now
		goruntime.Gosched()
	}
	if g.lease.pass(ctx, g.ran, now) {
		g.looked = time.Now()
	}
}

// fuel is the function that guests call when their fuel is used up. There a
// guest whose item is over ends.
func fuel() abi.Library {
	refill := func(ctx context.Context, _ abi.Memory, stack []uint64) {
		if int64(stack[1]) < 0 {
			panic(errStack)
		}
		g, ok := abi.State[*gauge](ctx)
		if !ok {
			panic(&abi.Stop{Cause: fmt.Errorf("%w: no gauge", abi.ErrHost)})
		}
		next, err := g.refill(ctx, int64(stack[0]))
		if err != nil {
			panic(err)
		}
		stack[0] = uint64(next)
	}
	mark := func(ctx context.Context, _ abi.Memory, stack []uint64) {
		if g, ok := abi.State[*gauge](ctx); ok && g.recorder != nil {
			g.recorder.Mark(int32(uint32(stack[0])), g.granted-int64(stack[1])) //nolint:gosec // numbers with a sign
		}
	}
	i32, i64 := abi.TypeI32, abi.TypeI64
	return abi.Library{Name: module.MeterModule, Functions: []abi.Native{{
		Name: module.MeterRefill, Params: []abi.ValueType{i64, i64}, Results: []abi.ValueType{i64}, Call: refill,
	}, {
		Name: module.MeterMark, Params: []abi.ValueType{i32, i64}, Call: mark,
	}}}
}
