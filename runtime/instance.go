package runtime

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/engine"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// A state is what instances of a module begin with and are put back to: the
// content of the memory and all mutable globals. It never changes.
type state struct {
	image   *snapshot.Image // nil without a memory
	globals []uint64        // in the order of Prepared.Globals; nil for what they begin with
	flags   []uint16        // of the guest's first descriptors
	// initialized is true when the guest has run its initialisation. If not, every
	// instance has to, for each item.
	initialized bool
	random      goRandom
	// fixed is true when the guest has asked for random bytes while initialising
	// and nobody renews what it has made of them: then the state must not get old.
	fixed    bool
	renewal  Random
	warmedUp bool
	took     time.Duration
	taken    time.Time
}

// stale reports whether the state is too old to be used.
func (s *state) stale(age time.Duration) bool { return s.fixed && time.Since(s.taken) > age }

func (s *state) size() int64 {
	if s.image == nil {
		return 0
	}
	return int64(s.image.Size())
}

// retain makes the state last until one more release.
func (s *state) retain() *state {
	if s.image != nil {
		s.image.Retain()
	}
	return s
}

func (s *state) release() error {
	if s == nil || s.image == nil {
		return nil
	}
	return s.image.Close()
}

// An instance is one instance of a module and the memory it stands on. It works
// on one item at a time, and for one tenant only.
type instance struct {
	module *Module
	state  *state
	guest  engine.Instance
	call   engine.Function
	memory *guestMemory // nil without one
	// globals are those of the guest; taint is nil in a module that has none.
	globals            []engine.Global
	initial            []uint64 // what they are put back to
	fuel, stack, taint engine.Global
	marks              engine.Global // nil unless the guest marks what it writes to
	depth              uint64        // what stack is put back to
	frame              [1]uint64

	tenant string // "" before the first item
	// reserved and kept are bytes of the budget: while it works, while it is idle.
	reserved, kept int64
	since          time.Time // idle
	cooled         bool
}

// instantiate makes an instance in the given state, which method puts back.
func (m *Module) instantiate(ctx context.Context, s *state, method snapshot.Method) (_ *instance, err error) {
	i := &instance{module: m, state: s}
	var memory engine.Memory
	if s.image != nil {
		most := int(m.limits.Memory)
		if declared := m.facts.MemoryMax; declared >= 0 {
			most = min(most, declared*module.PageSize)
		}
		linear, err := s.image.NewMemory(most, method)
		if err != nil {
			return nil, err
		}
		i.memory = &guestMemory{Memory: linear, declared: m.facts.MemoryMax}
		memory = i.memory
	}
	defer func() {
		if err != nil && i.memory != nil {
			err = errors.Join(err, i.memory.Close())
		}
	}()
	if i.guest, err = m.code.Instantiate(ctx, memory); err != nil {
		return nil, err
	}
	i.call = i.guest.Function(module.ExportCall)
	i.fuel, i.stack = i.guest.Global(module.MeterFuel), i.guest.Global(module.MeterStack)
	i.taint = i.guest.Global(module.ExportTaint)
	if m.prepared.Granule > 0 {
		i.marks, i.memory.granule = i.guest.Global(module.ExportMarks), m.prepared.Granule
	}
	i.depth = i.stack.Get()
	i.initial = make([]uint64, 0, len(m.prepared.Globals))
	for n, g := range m.prepared.Globals {
		global := i.guest.Global(g.Export)
		if s.globals != nil {
			global.Set(s.globals[n])
		}
		i.globals = append(i.globals, global)
		i.initial = append(i.initial, global.Get())
	}
	return i, nil
}

// enter calls one of the module's entries. What it returns is the guest's word.
func (i *instance) enter(ctx context.Context, entry string) (int32, error) {
	number, ok := i.module.prepared.Entries[entry]
	if !ok {
		return 0, nil
	}
	i.frame[0] = uint64(uint32(number)) //nolint:gosec // not negative
	if err := i.call.Call(ctx, i.frame[:]); err != nil {
		return 0, err
	}
	return int32(uint32(i.frame[0])), nil //nolint:gosec // an i32
}

// begin readies the instance for an item. refuel follows.
func (i *instance) begin(ctx context.Context, tenant string) {
	i.tenant, i.cooled = tenant, false
	if i.call == nil {
		i.call = i.guest.Function(module.ExportCall)
	}
	if i.memory != nil {
		i.memory.begin(ctx)
		if i.state.random.renew(i.memory.Bytes()) {
			i.memory.touched = module.MarksUnknown
		}
	}
}

// refuel gives the guest its first fuel, which g watches.
func (i *instance) refuel(ctx context.Context, g *gauge) error {
	fuel, err := g.begin(ctx)
	if err != nil {
		return err
	}
	if i.memory != nil {
		i.memory.lease = &g.lease
		if i.marks != nil {
			g.view.of = i.memory
		}
	}
	i.fuel.Set(uint64(fuel)) //nolint:gosec // not negative
	return nil
}

// tainted reports whether the guest has changed what cannot be put back.
func (i *instance) tainted() bool { return i.taint != nil && i.taint.Get() != 0 }

var errTainted = errors.New("it changes a table or drops a segment, which cannot be put back")

// restore puts the instance back to its state.
func (i *instance) restore() error {
	if i.tainted() {
		return errTainted
	}
	if i.memory != nil {
		size := i.memory.Size()
		if err := i.restoreMemory(); err != nil {
			return err
		}
		if i.memory.Size() != size && !i.guest.Resized() {
			return errors.New("its memory cannot be made smaller")
		}
	}
	for n, g := range i.globals {
		g.Set(i.initial[n])
	}
	i.stack.Set(i.depth)
	return nil
}

func (i *instance) restoreMemory() error {
	if i.marks == nil {
		return i.memory.Restore()
	}
	marks := i.marks.Get() | i.memory.touched
	i.marks.Set(0)
	i.memory.touched = 0
	if i.module.distrust.Load() {
		return i.memory.Restore()
	}
	return i.memory.RestoreMarked(marks, i.memory.granule, module.MarkSlack)
}

// rest ends an item.
func (i *instance) rest() {
	i.reserved, i.kept, i.since = 0, idleBytes, time.Now()
	if i.memory != nil {
		i.kept += int64(i.memory.Own())
		i.memory.rest()
	}
}

// cool gives back what makes the next item faster.
func (i *instance) cool() error {
	i.cooled = true
	// The engine keeps a stack with the function, as deep as it was ever needed.
	i.call = nil
	if i.memory == nil {
		return nil
	}
	return i.memory.Cool()
}

// close ends the instance. It must not be running.
func (i *instance) close(ctx context.Context) error {
	err := i.guest.Close(context.WithoutCancel(ctx))
	if i.memory != nil {
		err = errors.Join(err, i.memory.Close())
	}
	if err != nil {
		return fmt.Errorf("close an instance of %s: %w", i.module.name, err)
	}
	return nil
}

// A guestMemory is the memory of an instance. It, and not the engine, bounds
// it, because an engine refuses to grow without a word: only the memory can tell
// later that a guest broke down for want of it.
type guestMemory struct {
	*snapshot.Memory
	declared int // pages that the module wants at most, -1 all it can get

	// touched are granules that the host has written to, or may have, if the guest
	// marks others.
	touched uint64
	granule int

	ctx    context.Context //nolint:containedctx // of the item that it works on
	budget *memoryBudget   // nil where nobody counts
	lease  *lease          // of the guest
	// covered is what the item has of the budget, grown how much of that it has
	// taken as it grew.
	covered, grown int64
	// exceeded is true when the guest has wanted more than its limit, starved when
	// there was no more of the budget.
	exceeded, starved bool
}

func (m *guestMemory) begin(ctx context.Context) {
	m.ctx, m.exceeded, m.starved = ctx, false, false
}

// short reports whether the guest has wanted more memory than it could get.
func (m *guestMemory) short() bool { return m != nil && (m.exceeded || m.starved) }

func (m *guestMemory) rest() { m.ctx, m.budget, m.lease = nil, nil, nil }

// touch marks what the host gets hold of.
func (m *guestMemory) touch(offset, size uint32) {
	if m.granule == 0 || size == 0 {
		return
	}
	first, last := int(offset)/m.granule, (int(offset)+int(size)-1)/m.granule
	if last >= 64 {
		m.touched = module.MarksUnknown
		return
	}
	m.touched |= (1<<(last-first+1) - 1) << first
}

// A view is a guest's memory as functions of the host see it. What they read they may
// have written to.
type view struct {
	abi.Memory
	of *guestMemory // nil while nobody wants to know
}

func (v *view) Read(offset, size uint32) ([]byte, bool) {
	b, ok := v.Memory.Read(offset, size)
	if ok {
		v.of.touch(offset, size)
	}
	return b, ok
}

// Grow is asked for the new size when the guest grows its memory.
func (m *guestMemory) Grow(size int) bool {
	if size > m.Max() {
		m.exceeded = m.exceeded || m.declared < 0 || size <= m.declared*module.PageSize
		return false
	}
	if more := int64(size) - m.covered; m.budget != nil && more > 0 {
		m.lease.enterHost(true)
		ok := m.budget.grow(m.ctx, more)
		m.lease.leaveHost()
		if !ok {
			m.starved = m.ctx.Err() == nil
			return false
		}
		m.covered += more
		m.grown += more
	}
	return m.Memory.Grow(size)
}

// callContext gives the call of a guest what its host functions work on.
func callContext(ctx context.Context, item *hostfuncs.Item, process *wasi.Process, g *gauge) context.Context {
	return abi.WithStates(ctx, item, process, g)
}
