//go:build linux && !beacon_portable

package snapshot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A store is a sealed file in memory that all memories of an image map.
type store struct {
	fd   int
	file bool
}

func (i *Image) keep(pieces []Piece) error {
	fd, err := unix.MemfdCreate("beacon-image", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return i.keepAnonymous(pieces)
	}
	if err != nil {
		return fmt.Errorf("make a file in memory for an image: %w", err)
	}
	if err := i.write(fd, pieces); err != nil {
		return errors.Join(fmt.Errorf("write an image of %d bytes: %w", i.size, err), unix.Close(fd))
	}
	i.store = store{fd: fd, file: true}
	return nil
}

func (i *Image) write(fd int, pieces []Piece) error {
	if err := unix.Ftruncate(fd, int64(up(i.size))); err != nil {
		return err
	}
	b, err := unix.Mmap(fd, 0, i.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	fill(b, pieces)
	// While it can be written to, it cannot be sealed.
	if err := unix.Munmap(b); err != nil {
		return err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS,
		unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return err
	}
	i.bytes, err = unix.Mmap(fd, 0, i.size, unix.PROT_READ, unix.MAP_SHARED)
	return err
}

func (i *Image) keepAnonymous(pieces []Piece) error {
	b, err := unix.Mmap(-1, 0, i.size, unix.PROT_READ|unix.PROT_WRITE, private)
	if err != nil {
		return fmt.Errorf("make an image of %d bytes: %w", i.size, err)
	}
	fill(b, pieces)
	i.bytes = b
	return nil
}

func (i *Image) free() error {
	if i.size == 0 {
		return nil
	}
	err := unix.Munmap(i.bytes)
	if i.store.file {
		err = errors.Join(err, unix.Close(i.store.fd))
	}
	i.bytes = nil
	return err
}

// mapImage makes the start of the space a copy of the image that is made page
// by page, by the kernel, as the guest writes.
func (s *space) mapImage(i *Image) (bool, error) {
	if !i.store.file {
		return false, nil
	}
	_, err := unix.MmapPtr(i.store.fd, 0, s.base, uintptr(up(i.size)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_FIXED|unix.MAP_NORESERVE)
	return true, err
}

func (s *space) discard(from, to int) error {
	if from >= to {
		return nil
	}
	return unix.Madvise(unsafe.Slice((*byte)(s.at(from)), up(to)-from), unix.MADV_DONTNEED)
}

func (s *space) cool(_ *Image, usable int) error {
	if !s.mapped {
		return nil // nothing is shared, so nothing can be had again
	}
	return s.discard(0, usable)
}

// supports reports whether a method works for memories of this image.
func (i *Image) supports(m Method) bool {
	switch m {
	case Compare:
		return true
	case Discard:
		return i.mappable()
	case Pagemap, Scan, Track:
		return i.mappable() && tells(m)
	}
	return false
}

// mappable is true if memories of the image share its pages. An empty one has
// none, and the pages that a memory grows by are like those of any other.
func (i *Image) mappable() bool { return i.store.file || i.size == 0 }

// Methods lists the methods that work here, the most promising first.
func (i *Image) Methods() []Method {
	var out []Method
	for _, m := range []Method{Track, Scan, Pagemap, Discard, Compare} {
		if i.supports(m) {
			out = append(out, m)
		}
	}
	return out
}

// The interface of PAGEMAP_SCAN, from the kernel's linux/fs.h.
type (
	scanArgument struct {
		size, flags, start, end, walkEnd, vec, vecLen, maxPages       uint64
		categoryInverted, categoryMask, categoryAnyofMask, returnMask uint64
	}
	scanRegion struct{ start, end, _ uint64 } // the last are the categories
)

const (
	pagemapScan   = 0xc0606610 // _IOWR('f', 16, struct pm_scan_arg)
	pageIsWritten = 1 << 1
	pageIsFile    = 1 << 2
	pageIsPresent = 1 << 3
	pageIsSwapped = 1 << 4
)

// smallBytes is what the kernel looks through in less than a microsecond.
const smallBytes = 256 << 10

// A question is room for one call: the kernel writes to it, and stacks move.
type question struct {
	argument scanArgument
	regions  [64]scanRegion
	entries  [512]byte // of Pagemap
}

var questions = sync.Pool{New: func() any { return new(question) }}

// scan visits the pages that were written to. In a private mapping of a file
// these are the ones that are there, in memory or in swap, and are not the
// file's; in memory without a file, all that are there.
func scan(b []byte, visit func(from, to int) error) error {
	return ask(scanArgument{
		categoryMask: pageIsFile, categoryInverted: pageIsFile,
		categoryAnyofMask: pageIsPresent | pageIsSwapped, returnMask: pageIsPresent,
	}, b, visit)
}

// present visits the pages that are there.
func present(b []byte, visit func(from, to int) error) error {
	return ask(scanArgument{categoryAnyofMask: pageIsPresent | pageIsSwapped, returnMask: pageIsPresent}, b, visit)
}

// marked visits the pages that were written to since track was called for them.
// The kernel has a short way for exactly these categories.
func marked(b []byte, visit func(from, to int) error) error {
	return ask(scanArgument{categoryMask: pageIsWritten, returnMask: pageIsWritten}, b, visit)
}

func ask(argument scanArgument, b []byte, visit func(from, to int) error) error {
	fd, err := pagemapFile()
	if err != nil || len(b) == 0 {
		return err
	}
	q, _ := questions.Get().(*question) // the pool holds nothing else
	defer questions.Put(q)
	base := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(b))))
	end := base + uint64(up(len(b)))
	// The kernel makes room for as many regions as are asked for. What a small
	// memory takes is over before it would have helped to tell the scheduler.
	small, most := len(b) <= smallBytes, len(q.regions)
	if small {
		most = 8
	}
	for at := base; at < end; {
		q.argument = argument
		q.argument.size = uint64(unsafe.Sizeof(q.argument))
		q.argument.start, q.argument.end = at, end
		q.argument.vec, q.argument.vecLen = uint64(uintptr(unsafe.Pointer(&q.regions))), uint64(most)
		var n uintptr
		var errno unix.Errno
		if small {
			n, _, errno = unix.RawSyscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&q.argument)))
		} else {
			n, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), pagemapScan, uintptr(unsafe.Pointer(&q.argument)))
		}
		if errno != 0 {
			return fmt.Errorf("ask for pages: %w", errno)
		}
		for _, r := range q.regions[:n] {
			if err := visit(int(r.start-base), min(int(r.end-base), len(b))); err != nil {
				return err
			}
		}
		if q.argument.walkEnd <= at {
			return errors.New("ask for pages: no progress")
		}
		at = q.argument.walkEnd
	}
	return nil
}

// The interface of userfaultfd, from the kernel's linux/userfaultfd.h. With
// asynchronous write protection nobody has to answer faults: the kernel lets the
// write happen and remembers that it did.
const (
	faultUserModeOnly = 1
	faultAPI          = 0xc018aa3f // _IOWR(0xaa, 0x3f, struct uffdio_api)
	faultRegister     = 0xc020aa00 // _IOWR(0xaa, 0, struct uffdio_register)
	faultProtect      = 0xc018aa06 // _IOWR(0xaa, 6, struct uffdio_writeprotect)
	faultVersion      = 0xaa
	faultRegisterWP   = 1 << 1
	faultProtectWP    = 1 << 0
	// features: of pages that are written to, of files in memory, of pages that are
	// not there yet, without answers
	faultFeatures = 1<<0 | 1<<12 | 1<<13 | 1<<15
)

// faults is what this process tracks its memories with. It stays open as long as
// the process runs.
var faults = sync.OnceValues(func() (int, error) {
	fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK|faultUserModeOnly, 0, 0)
	if errno != 0 {
		return -1, fmt.Errorf("track memory: %w", errno)
	}
	api := struct{ version, features, ioctls uint64 }{version: faultVersion, features: faultFeatures}
	if err := control(int(fd), faultAPI, unsafe.Pointer(&api)); err != nil {
		return -1, errors.Join(fmt.Errorf("track memory: %w", err), unix.Close(int(fd)))
	}
	return int(fd), nil
})

func control(fd int, request uintptr, argument unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(argument)); errno != 0 {
		return errno
	}
	return nil
}

// register has the kernel mark pages that are written to from now on, and one
// that is not written to is not marked. A page is there only once it was touched:
// the kernel makes no others beside it.
func (s *space) register(from, to int) error {
	fd, err := faults()
	if err != nil {
		return err
	}
	from, to = from/pageSize*pageSize, up(to)
	r := struct{ start, size, mode, ioctls uint64 }{start: s.address(from), size: uint64(to - from), mode: faultRegisterWP}
	if err := control(fd, faultRegister, unsafe.Pointer(&r)); err != nil {
		return fmt.Errorf("track %d bytes of memory: %w", to-from, err)
	}
	return s.track(from, to)
}

// track takes the marks of pages that are registered back.
func (s *space) track(from, to int) error {
	fd, err := faults()
	if err != nil {
		return err
	}
	from, to = from/pageSize*pageSize, up(to)
	p := struct{ start, size, mode uint64 }{start: s.address(from), size: uint64(to - from), mode: faultProtectWP}
	if err := control(fd, faultProtect, unsafe.Pointer(&p)); err != nil {
		return fmt.Errorf("track %d bytes of memory again: %w", to-from, err)
	}
	return nil
}

func (s *space) address(offset int) uint64 { return uint64(uintptr(s.at(offset))) }

// pagemap visits the same pages as scan.
func pagemap(b []byte, visit func(from, to int) error) error {
	fd, err := pagemapFile()
	if err != nil || len(b) == 0 {
		return err
	}
	q, _ := questions.Get().(*question) // the pool holds nothing else
	defer questions.Put(q)
	first := int64(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) / int64(pageSize)
	pages := up(len(b)) / pageSize
	for at := 0; at < pages; {
		n, err := unix.Pread(fd, q.entries[:min(pages-at, len(q.entries)/8)*8], (first+int64(at))*8)
		if err == nil && n < 8 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fmt.Errorf("read the page map: %w", err)
		}
		for i := range n / 8 {
			entry := binary.LittleEndian.Uint64(q.entries[i*8:])
			there, file := entry>>62 != 0, entry>>61&1 != 0
			if there && !file {
				from := (at + i) * pageSize
				if err := visit(from, min(from+pageSize, len(b))); err != nil {
					return err
				}
			}
		}
		at += n / 8
	}
	return nil
}

// pagemapFile is what this process asks about its own pages. It stays open as
// long as the process runs.
var pagemapFile = sync.OnceValues(func() (int, error) {
	fd, err := unix.Open("/proc/self/pagemap", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open the page map: %w", err)
	}
	return fd, nil
})

var (
	scanTells    = sync.OnceValue(func() bool { return tried(scan, nil) })
	pagemapTells = sync.OnceValue(func() bool { return tried(pagemap, nil) })
	trackTells   = sync.OnceValue(func() bool { return scanTells() && tried(marked, (*space).register) })
)

// tells reports whether the kernel answers, and rightly: a system that only
// looks like Linux may not.
func tells(m Method) bool {
	switch m {
	case Scan:
		return scanTells()
	case Track:
		return trackTells()
	}
	return pagemapTells()
}

// Prepare opens what memories need of the kernel, for a process that is about to
// give up opening anything.
func Prepare() {
	pagemapTells()
	trackTells() // which asks scanTells
}

// tried makes a memory, writes to some pages and asks which.
func tried(written query, prepare func(s *space, from, to int) error) bool {
	const pages = 8
	content := make([]byte, pages*pageSize)
	for i := 1; i < pages; i++ { // the first one is a hole in the file
		content[i*pageSize] = byte(i)
	}
	image, err := NewImage(len(content), Piece{Bytes: content})
	if err != nil {
		return false
	}
	defer image.Close() //nolint:errcheck // a trial
	m, err := image.newMemory(2*len(content), Compare)
	if err != nil {
		return false
	}
	defer m.Close() //nolint:errcheck // a trial
	if !m.space.mapped || !m.Grow(2*len(content)) {
		return false
	}
	b := m.Bytes()
	if prepare != nil {
		b[pageSize] = 2 // before it is tracked, so not counted
		if prepare(&m.space, 0, len(b)) != nil {
			return false
		}
	}
	read, wrote := 0, map[int]bool{0: true, 3: true, 6: true, pages + 2: true}
	for i := range 2 * pages {
		if read += int(b[i*pageSize]); wrote[i] { // every page is looked at
			b[i*pageSize+1] = 1
		}
	}
	found := 0
	err = written(b, func(from, to int) error {
		for ; from < to; from += pageSize {
			switch i := from / pageSize; {
			case wrote[i]:
				found++
			case i < pages || prepare != nil:
				return errors.New("a page that was not written to")
			}
		}
		return nil
	})
	return err == nil && found == len(wrote) && read > 0
}
