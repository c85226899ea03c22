package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	goruntime "runtime"

	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// Differences compares all idle instances with ones that are newly made in the
// same state: memory, its size, and globals.
func (m *Module) Differences(ctx context.Context) (found []string, err error) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	for n, i := range m.pool.idle {
		fresh, ferr := m.instantiate(ctx, i.state, snapshot.Compare)
		if ferr != nil {
			return nil, ferr
		}
		found = append(found, i.differences(n, fresh)...)
		err = errors.Join(err, fresh.close(ctx))
	}
	return found, err
}

func (i *instance) differences(n int, fresh *instance) (found []string) {
	differs := func(what string, got, want any) {
		if got != want {
			found = append(found, fmt.Sprintf("instance %d: %s is %v, want %v", n, what, got, want))
		}
	}
	if i.memory != nil {
		differs("the size of the memory", i.memory.Size(), fresh.memory.Size())
		got, want := i.memory.Bytes(), fresh.memory.Bytes()
		if !bytes.Equal(got, want) {
			for at := range min(len(got), len(want)) {
				if got[at] != want[at] {
					differs(fmt.Sprintf("byte %d", at), got[at], want[at])
					break
				}
			}
		}
	}
	for at, g := range i.globals {
		differs(fmt.Sprintf("global %d", at), g.Get(), fresh.globals[at].Get())
	}
	differs("the stack", i.stack.Get(), fresh.stack.Get())
	differs("the taint", i.tainted(), false)
	if i.marks != nil {
		differs("what is marked", i.marks.Get()|i.memory.touched, uint64(0))
	}
	return found
}

// Tenants lists whose idle instances are.
func (m *Module) Tenants() map[string]int {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	all := map[string]int{}
	for _, i := range m.pool.idle {
		all[i.tenant]++
	}
	return all
}

// RandomFound says how many generators of the Go runtime were found in the
// snapshot; RandomFixed whether it may not get old.
func (m *Module) RandomFound() int {
	s := m.snapshotted()
	if s.random.cheap > 0 {
		return len(s.random.states) + 1
	}
	return len(s.random.states)
}

func (m *Module) RandomFixed() bool { return m.snapshotted().fixed }

func (m *Module) snapshotted() *state {
	if m.recalled {
		return m.base
	}
	return m.pool.current
}

// SnapshotFreed reports whether nothing has a hold on the last snapshot any more.
func (m *Module) SnapshotFreed() bool { return m.pool.current.image.Bytes() == nil }

// Cooled is how many idle instances have given back their pages.
func (m *Module) Cooled() (n int) {
	m.pool.mu.Lock()
	defer m.pool.mu.Unlock()
	for _, i := range m.pool.idle {
		if i.cooled {
			n++
		}
	}
	return n
}

// Used is how much of the Runtime's Memory is taken.
func (r *Runtime) Used() int64 {
	r.memory.mu.Lock()
	defer r.memory.mu.Unlock()
	return r.memory.used
}

// Await waits for what the module does in the background.
func (m *Module) Await() {
	for {
		m.pool.mu.Lock()
		busy := m.pool.filling || m.pool.taking != nil
		m.pool.mu.Unlock()
		if !busy {
			return
		}
		goruntime.Gosched()
	}
}

// Recalled reports whether the module is as an earlier process left it.
func (m *Module) Recalled() bool { return m.recalled }

// Graceful is the context of a guest that asks whether it is cancelled.
func Graceful(ctx context.Context, item *hostfuncs.Item) (context.Context, func()) {
	return (&Module{entry: entry{asksCancelled: true}}).graceful(ctx, item)
}
