//go:build !unix

package runtime

// linearMemory is an ordinary slice where there is no mmap.
type linearMemory struct {
	owner *allocator
	bytes []byte
}

func (m *linearMemory) resize(size uint64) []byte {
	if size <= uint64(cap(m.bytes)) {
		m.bytes = m.bytes[:size]
		return m.bytes
	}
	grown := make([]byte, size, min(max(size, 2*uint64(cap(m.bytes))), m.owner.limit))
	copy(grown, m.bytes)
	m.bytes = grown
	return m.bytes
}

func (m *linearMemory) unmap() { m.bytes = nil }
