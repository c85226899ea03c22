//go:build unix && !beacon_portable

package snapshot

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A space is the addresses of one memory: reserved for all that it may ever
// have, so that growing moves nothing, with a page after it that is never used.
type space struct {
	base     unsafe.Pointer
	reserved int
	mapped   bool // the image is mapped, not copied
}

const private = unix.MAP_PRIVATE | unix.MAP_ANON | unix.MAP_NORESERVE

func (s *space) open(i *Image, max int) error {
	s.reserved = (max+pageSize-1)/pageSize*pageSize + pageSize
	base, err := unix.MmapPtr(-1, 0, nil, uintptr(s.reserved), unix.PROT_NONE, private)
	if err != nil {
		return fmt.Errorf("reserve %d bytes of addresses: %w", s.reserved, err)
	}
	s.base = base
	if i.size == 0 {
		return nil
	}
	if s.mapped, err = s.mapImage(i); err == nil && !s.mapped {
		if err = s.extend(0, i.size); err == nil {
			fill(s.bytes(i.size), []Piece{{Bytes: i.bytes}})
		}
	}
	if err != nil {
		_ = s.close() // the first error counts
		return fmt.Errorf("make a memory of %d bytes: %w", i.size, err)
	}
	return nil
}

func (s *space) bytes(size int) []byte {
	return unsafe.Slice((*byte)(s.base), s.reserved)[:size:size]
}

func (s *space) at(offset int) unsafe.Pointer { return unsafe.Add(s.base, offset) }

func (s *space) extend(from, to int) error {
	from, to = up(from), up(to)
	if from >= to {
		return nil
	}
	return unix.Mprotect(unsafe.Slice((*byte)(s.at(from)), to-from), unix.PROT_READ|unix.PROT_WRITE)
}

// shrink makes addresses unusable and their content zero.
func (s *space) shrink(from, to int) error {
	from, to = up(from), up(to)
	if from >= to {
		return nil
	}
	_, err := unix.MmapPtr(-1, 0, s.at(from), uintptr(to-from), unix.PROT_NONE, private|unix.MAP_FIXED)
	return err
}

func (s *space) close() error {
	if s.base == nil {
		return nil
	}
	err := unix.MunmapPtr(s.base, uintptr(s.reserved))
	s.base = nil
	return err
}
