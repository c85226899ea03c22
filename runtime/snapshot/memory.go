package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/bits"
)

// A Method is a way to put a memory back to its image. All have the same effect
// and differ in what they cost.
type Method int

// The methods. Compare works everywhere, the others on Linux.
const (
	// Compare looks at every page and copies those that differ.
	Compare Method = iota
	// Discard lets the kernel drop everything that was written: nothing to copy,
	// but each page that the next item writes to must be made again.
	Discard
	// Pagemap asks the kernel page by page which were written to, and copies them.
	Pagemap
	// Scan is Pagemap with one call for all pages (Linux 6.7).
	Scan
	// Track has the kernel mark pages when they are first written to, and asks for
	// the marks: unlike Scan it need not look at what the pages are, which takes
	// longer than copying, of the many that a guest only reads (Linux 6.7).
	Track
)

func (m Method) String() string {
	switch m {
	case Compare:
		return "compare"
	case Discard:
		return "discard"
	case Pagemap:
		return "pagemap"
	case Scan:
		return "scan"
	case Track:
		return "track"
	}
	return fmt.Sprintf("method %d", int(m))
}

const (
	// keepBytes is how much of its own memory Restore leaves a Memory at most,
	// so that the next item finds its pages there.
	keepBytes = 4 << 20
	// keepGrown is how much more than the image stays usable: for a guest that
	// grows its memory in every item that saves calls to the kernel.
	keepGrown = 4 << 20
	// trackAfter so many times a memory begins to be tracked: that takes as long as
	// many scans, and some memories serve a single item.
	trackAfter = 2
	// forgetEvery so many times all marks are taken back. A page that was once
	// written to keeps its mark, and is copied each time, until then.
	forgetEvery = 256
)

// A Memory is the memory of one guest. Its methods must not be called at the
// same time.
type Memory struct {
	image  *Image
	method Method
	space  space
	// size is what the guest has. All bytes from there to usable are addresses
	// that can be written to, and after Restore zero.
	size, usable int
	max          int
	own          int
	restored     uint // how often
	// marked are marks of RestoreMarked since the memory was made or cooled.
	marked uint64
	// tracked is where the part of the memory ends in which the kernel marks pages.
	tracked int
}

// NewMemory makes a memory with the image's content that can grow to max bytes.
func (i *Image) NewMemory(max int, method Method) (*Memory, error) {
	if max < i.size {
		return nil, fmt.Errorf("a memory of at most %d bytes cannot hold an image of %d bytes", max, i.size)
	}
	if !i.supports(method) {
		return nil, fmt.Errorf("method %s: %w", method, errors.ErrUnsupported)
	}
	return i.newMemory(max, method)
}

func (i *Image) newMemory(max int, method Method) (*Memory, error) {
	m := &Memory{image: i, method: method, size: i.size, usable: i.size, max: max}
	if err := m.space.open(i, max); err != nil {
		return nil, err
	}
	i.users.Add(1)
	return m, nil
}

// Bytes is the memory as it is. A later Resize may move it.
func (m *Memory) Bytes() []byte { return m.space.bytes(m.size) }

// Size is the number of bytes that the guest has.
func (m *Memory) Size() int { return m.size }

// Max is what the memory can grow to, in bytes.
func (m *Memory) Max() int { return m.max }

// Use makes Restore work in another way, if the image has it among its Methods.
func (m *Memory) Use(method Method) {
	if m.method != method && m.image.supports(method) {
		m.method = method
	}
}

// Grow makes the memory larger; what is new is zero. It is false when size is
// more than the maximum, or the machine has no memory left.
func (m *Memory) Grow(size int) bool {
	if size < m.size || size > m.max {
		return false
	}
	if size > m.usable {
		if m.space.extend(m.usable, size) != nil {
			return false
		}
		m.usable = size
	}
	m.size = size
	return true
}

// Restore puts the memory back to its image, its size included. After an error
// the memory may only be closed.
func (m *Memory) Restore() error {
	var err error
	m.own = 0
	switch m.method {
	case Compare:
		m.compare()
	case Discard:
		err = m.space.discard(0, m.usable)
	case Pagemap:
		err = m.restoreWritten(pagemap, 0, m.usable)
	case Scan:
		err = m.restoreWritten(scan, 0, m.usable)
	case Track:
		err = m.restoreTracked()
	}
	if err == nil && m.usable > m.image.size+keepGrown {
		err = m.space.shrink(m.image.size+keepGrown, m.usable)
		m.usable = m.image.size + keepGrown
		m.tracked = min(m.tracked, m.usable)
	}
	m.size = m.image.size
	if err != nil {
		return fmt.Errorf("restore a memory (%s): %w", m.method, err)
	}
	if m.method == Compare { // which sees for itself
		m.restored++
		return nil
	}
	return m.verify()
}

// Markable reports whether there are enough marks for a memory of that size.
func Markable(size, granule int) bool { return size <= 64*granule }

// RestoreMarked is Restore for a memory of which somebody has marked what was written
// to since the last time: one bit for each granule of so many bytes, behind which as
// many bytes more may have been written to as slack says. The marks are of no use, and
// Restore is what is done, when all are set, the memory has grown, or it has more
// granules than there are bits.
func (m *Memory) RestoreMarked(marks uint64, granule, slack int) error {
	if marks == math.MaxUint64 || m.size != m.image.size || !Markable(m.size, granule) {
		return m.Restore()
	}
	m.marked |= marks
	m.own = max(m.own, min(bits.OnesCount64(m.marked)*granule, m.size))
	b := m.space.bytes(m.size)
	for marks != 0 {
		first := bits.TrailingZeros64(marks)
		n := bits.TrailingZeros64(^(marks >> first))
		marks &^= (1<<n - 1) << first
		if from, to := first*granule, min((first+n)*granule+slack, m.size); from < to {
			copy(b[from:to], m.image.bytes[from:to])
		}
	}
	return m.verify()
}

const (
	// verifyEvery so many times, and the first time, what the kernel or the guest said
	// of a memory is checked.
	verifyEvery = 1024
	// verifyMost is how large a memory may be that is checked after the first time.
	verifyMost = 16 << 20
)

// ErrNotRestored is an error of Restore: the memory is not as its image is,
// although the system, or what its guest has marked, said so.
var ErrNotRestored = errors.New("the memory is not as its image")

// verify looks at the whole memory now and then: a system that only looks like
// Linux might forget pages.
func (m *Memory) verify() error {
	n := m.restored
	m.restored++
	if n%verifyEvery != 0 || n > 0 && m.usable > verifyMost {
		return nil
	}
	if pages := m.Changed(); len(pages) > 0 {
		return fmt.Errorf("%w: %d pages differ, method %s", ErrNotRestored, len(pages), m.method)
	}
	return nil
}

// Own is about how many bytes the memory has that it shares with no other, as
// far as the last Restore could tell.
func (m *Memory) Own() int { return m.own }

// Cool gives back to the system what a restored memory holds for its next item.
func (m *Memory) Cool() error {
	err := m.space.cool(m.image, m.usable)
	if err == nil && m.tracked > 0 {
		err = m.space.track(0, m.tracked)
	}
	if err != nil {
		return fmt.Errorf("cool a memory: %w", err)
	}
	m.own, m.marked = 0, 0
	return nil
}

// Close gives the memory back. Whatever may still look at it must have ended.
func (m *Memory) Close() error {
	return errors.Join(m.space.close(), m.image.release())
}

// Changed lists the pages, by number, that are not as in the image.
func (m *Memory) Changed() []int {
	var pages []int
	b := m.space.bytes(m.usable)
	for at := 0; at < len(b); at += pageSize {
		if !m.same(b, at, min(at+pageSize, len(b))) {
			pages = append(pages, at/pageSize)
		}
	}
	return pages
}

// Written lists the pages, by number, that the memory has for itself since it was
// made or cooled: those that somebody has written to, even if nothing has changed
// by that. Where the system cannot tell it is Changed.
func (m *Memory) Written() []int {
	for _, ask := range []struct {
		method  Method
		written query
	}{{Scan, scan}, {Pagemap, pagemap}} {
		if !m.image.supports(ask.method) {
			continue
		}
		if pages, err := m.list(ask.written); err == nil {
			return pages
		}
	}
	return m.Changed()
}

// Present lists the pages, by number, that somebody has read or written since the
// memory was made or cooled, and some beside them. Where the system cannot tell it
// is Written.
func (m *Memory) Present() []int {
	if m.image.supports(Scan) {
		if pages, err := m.list(present); err == nil {
			return pages
		}
	}
	return m.Written()
}

func (m *Memory) list(ask query) (pages []int, err error) {
	err = ask(m.space.bytes(m.usable), func(from, to int) error {
		for ; from < to; from += pageSize {
			pages = append(pages, from/pageSize)
		}
		return nil
	})
	return pages, err
}

// A query finds pages of a memory, and visits ranges of them.
type query func(memory []byte, visit func(from, to int) error) error

// up rounds up to a page.
func up(n int) int { return (n + pageSize - 1) / pageSize * pageSize }

// same compares a part of a page with the image.
func (m *Memory) same(b []byte, from, to int) bool {
	if inside := min(to, m.image.size); from < inside {
		if !bytes.Equal(b[from:inside], m.image.bytes[from:inside]) {
			return false
		}
		from = inside
	}
	return zero(b[from:to])
}

// put restores a range.
func (m *Memory) put(b []byte, from, to int) {
	if inside := min(to, m.image.size); from < inside {
		copy(b[from:inside], m.image.bytes[from:inside])
		from = inside
	}
	clear(b[from:to])
}

func (m *Memory) compare() {
	b := m.space.bytes(m.usable)
	for at := 0; at < m.image.size; at += pageSize {
		end := min(at+pageSize, m.image.size)
		if !bytes.Equal(b[at:end], m.image.bytes[at:end]) {
			copy(b[at:end], m.image.bytes[at:end])
		}
	}
	m.own = m.usable
	clear(b[m.image.size:])
}

// restoreWritten puts back what written finds: ranges of pages that are the
// memory's own. Of the ones beyond keepBytes it makes shared ones again.
func (m *Memory) restoreWritten(written query, begin, end int) error {
	b := m.space.bytes(m.usable)
	return written(b[begin:end], func(from, to int) error {
		from, to = begin+from, begin+to
		if m.own+to-from > keepBytes {
			if err := m.space.discard(from, to); err != nil || from >= m.tracked {
				return err
			}
			return m.space.track(from, min(to, m.tracked))
		}
		m.own += to - from
		m.put(b, from, to)
		return nil
	})
}

// restoreTracked puts back what is marked, and all that was written to of what
// is not tracked yet.
func (m *Memory) restoreTracked() error {
	if m.tracked > 0 {
		if err := m.restoreWritten(marked, 0, min(m.tracked, m.usable)); err != nil {
			return err
		}
	}
	if m.tracked < m.usable {
		if err := m.restoreWritten(scan, m.tracked, m.usable); err != nil || m.restored < trackAfter {
			return err
		}
		if err := m.space.register(m.tracked, m.usable); err != nil {
			return err
		}
		m.tracked = up(m.usable)
	}
	if m.tracked > 0 && m.restored%forgetEvery == 0 {
		return m.space.track(0, m.tracked)
	}
	return nil
}
