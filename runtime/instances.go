package runtime

import (
	"context"
	"time"

	"github.com/ultravisor/beacon/runtime/snapshot"
)

// Instances say how a module's items get their instances.
type Instances struct {
	// Restored is true if an instance is put back after an item that ended well,
	// for the next one. If not, every item gets a new one, for the Reason.
	Restored bool
	Reason   string
	// Initialized is true if new instances begin as after initialisation, too, and
	// WarmedUp if that includes a warm-up item.
	Initialized, WarmedUp bool
	// Memory is the size of the memory that they begin with, in bytes.
	Memory int64
	// Took is how long the initialisation took, with its warm-up.
	Took time.Duration
	// Method is how memory is put back: mark if the guest marks what it writes to, else,
	// and if it does not tell, track, scan, pagemap, discard or compare. Timings are what
	// that took in each way but mark, with the pages that the first item wrote to; nil
	// before there was one.
	Method  string
	Timings map[string]time.Duration
	// Taints is true if the module has instructions that change tables or drop
	// segments: after an item that uses them, its instance is thrown away.
	Taints bool
	// Random says what becomes of random numbers from before the first item.
	Random Random
}

// Random says what becomes of what a guest has made of random bytes while it
// initialised.
type Random string

// The ways.
const (
	RandomNone    Random = "none"    // it has not asked for any
	RandomHost    Random = "host"    // the host renews it before each item: a Go program
	RandomGuest   Random = "guest"   // the guest does, in beacon_reseed
	RandomAge     Random = "age"     // snapshots are taken again, every Pool.Age
	RandomPerItem Random = "peritem" // every item initialises itself
)

// Instances says how items get their instances. It waits until that is known,
// for which the module initialises itself.
func (m *Module) Instances(ctx context.Context) (Instances, error) {
	m.use.RLock()
	defer m.use.RUnlock()
	if m.closed {
		return Instances{}, m.errClosed()
	}
	s, err := m.pool.state(ctx)
	if err != nil {
		return Instances{}, err
	}
	i := m.pool.instances(s)
	return i, s.release()
}

func (p *pool) instances(s *state) Instances {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := Instances{
		Restored: s.initialized, Initialized: s.initialized, WarmedUp: s.warmedUp, Memory: s.size(), Took: s.took,
		Method: p.method.String(), Taints: p.module.prepared.Taints, Random: s.renewal,
	}
	switch reason := p.lasting(); {
	case p.config.Fresh:
		i.Reason = "the configuration says so"
	case reason != "":
		i.Reason = reason
	case !s.initialized && p.problem != nil:
		i.Reason = p.problem.Error()
	}
	i.Restored = i.Reason == ""
	if s == p.module.base && !s.initialized {
		i.Random = RandomPerItem
	}
	if s.image == nil {
		i.Method = ""
	} else if granule := p.module.prepared.Granule; !p.module.distrust.Load() && snapshot.Markable(s.image.Size(), granule) {
		i.Method = "mark"
	}
	for _, t := range p.timings {
		if i.Timings == nil {
			i.Timings = map[string]time.Duration{}
		}
		i.Timings[t.Method.String()] = t.Time
	}
	return i
}
