package runtime

import (
	"sync/atomic"

	"github.com/tetratelabs/wazero/experimental"
)

// An allocator makes the linear memory of one instance. It, and not wazero's
// own limit, bounds the memory, because wazero refuses to grow without a word:
// only the allocator can tell later that a guest broke down for want of memory.
//
// The memory is kept until release: an instance that failed may still be looked
// at by wazero when it closes.
type allocator struct {
	limit    uint64 // bytes
	memory   *linearMemory
	exceeded atomic.Bool
}

func (a *allocator) Allocate(_, _ uint64) experimental.LinearMemory {
	a.memory = &linearMemory{owner: a}
	return a.memory
}

func (a *allocator) release() {
	if a.memory != nil {
		a.memory.unmap()
	}
}

// Reallocate is asked for the new size when the guest grows its memory; nil
// refuses.
func (m *linearMemory) Reallocate(size uint64) []byte {
	if size > m.owner.limit {
		m.owner.exceeded.Store(true)
		return nil
	}
	return m.resize(size)
}

// Free is wazero's call when the instance closes; release is ours.
func (m *linearMemory) Free() {}
