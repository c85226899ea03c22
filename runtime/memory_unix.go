//go:build unix

package runtime

import "golang.org/x/sys/unix"

// linearMemory reserves addresses for all that the guest may ever have, so that
// growing copies nothing, and gives the pages back to the system at the end.
type linearMemory struct {
	owner    *allocator
	reserved []byte
}

func (m *linearMemory) resize(size uint64) []byte {
	if m.reserved == nil {
		b, err := unix.Mmap(-1, 0, int(max(m.owner.limit, 1)), unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
		if err != nil {
			return nil
		}
		m.reserved = b
	}
	if size > 0 {
		if err := unix.Mprotect(m.reserved[:size], unix.PROT_READ|unix.PROT_WRITE); err != nil {
			return nil
		}
	}
	return m.reserved[:size:len(m.reserved)]
}

func (m *linearMemory) unmap() {
	if m.reserved != nil {
		_ = unix.Munmap(m.reserved) // fails only for addresses that are not ours
		m.reserved = nil
	}
}
