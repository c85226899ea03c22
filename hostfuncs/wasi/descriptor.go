package wasi

import (
	"encoding/binary"
	"errors"
	"io"
	"math"
	"time"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

type kind uint8

const (
	kindNone kind = iota
	kindStdin
	kindOutput
	kindPreopen
	kindFile // or a directory
)

// A descriptor is one entry of a process's table.
type descriptor struct {
	kind    kind
	flags   uint16 // as the guest set them
	writer  io.Writer
	preopen string        // the guest's name
	file    *guestfs.File // of a preopen only once it was listed
}

func (d *descriptor) close() error {
	file := d.file
	*d = descriptor{}
	if file == nil {
		return nil
	}
	return file.Close()
}

func (d *descriptor) isDirectory() bool {
	return d.kind == kindPreopen || d.kind == kindFile && d.file.IsDirectory()
}

// regular returns the file, or why there is none.
func (d *descriptor) regular(otherwise abi.Errno) (*guestfs.File, abi.Errno) {
	switch {
	case d.isDirectory():
		return nil, eIsDirectory
	case d.kind != kindFile:
		return nil, otherwise
	}
	return d.file, success
}

// file finds the regular file behind a descriptor; otherwise answers for
// descriptors that are none.
func (p *Process) file(fd uint32, otherwise abi.Errno) (*guestfs.File, abi.Errno) {
	d, errno := p.lookup(fd)
	if errno != success {
		return nil, errno
	}
	return d.regular(otherwise)
}

func (p *Process) lookup(fd uint32) (*descriptor, abi.Errno) {
	p.open()
	if fd >= uint32(len(p.table)) || p.table[fd].kind == kindNone { //nolint:gosec // at most maxDescriptors
		return nil, eBadDescriptor
	}
	return &p.table[fd], success
}

// room finds the lowest free number.
func (p *Process) room() (fd uint32, ok bool) {
	p.open()
	for i := range p.table {
		if p.table[i].kind == kindNone {
			return uint32(i), true //nolint:gosec // at most maxDescriptors
		}
	}
	if len(p.table) >= p.cfg.Descriptors {
		return 0, false
	}
	p.table = append(p.table, descriptor{})
	return uint32(len(p.table) - 1), true //nolint:gosec // at most maxDescriptors
}

func fdClose(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	return errnoOf(d.close())
}

// fdRenumber moves a descriptor over another one, which must be open: so the
// table does not grow.
func fdRenumber(p *Process, c *abi.Call) abi.Errno {
	from, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	to, errno := p.lookup(c.U32(1))
	if errno != success || from == to {
		return errno
	}
	err := to.close()
	*to, *from = *from, descriptor{}
	return errnoOf(err)
}

// Types of files.
const (
	typeUnknown   = 0
	typeDirectory = 3
	typeRegular   = 4
)

// Flags of descriptors.
const (
	flagAppend   = 1 << 0
	flagNonblock = 1 << 2
	flagsKnown   = 1<<5 - 1
)

// Rights.
const (
	rightRead  = 1 << 1
	rightWrite = 1 << 6

	rightsAll       = 1<<30 - 1
	rightsSockets   = 1<<28 | 1<<29
	rightsFile      = 1<<0 | rightRead | 1<<2 | 1<<3 | 1<<4 | 1<<5 | rightWrite | 1<<7 | 1<<8 | 1<<21 | 1<<22 | 1<<23 | 1<<27
	rightsChanging  = 1<<0 | rightWrite | 1<<8 | 1<<22
	rightsStream    = 1<<3 | 1<<21 | 1<<27
	rightsDirectory = rightsAll &^ rightsSockets &^ (1<<0 | rightRead | 1<<2 | 1<<5 | rightWrite | 1<<7 | 1<<8 | 1<<22 | 1<<27)
)

func (d *descriptor) rights() (base, inheriting uint64) {
	switch {
	case d.kind == kindStdin:
		return rightsStream | rightRead, 0
	case d.kind == kindOutput:
		return rightsStream | rightWrite, 0
	case d.isDirectory():
		return rightsDirectory, rightsAll &^ rightsSockets
	}
	base = rightsFile
	if !d.file.Readable() {
		base &^= rightRead
	}
	if !d.file.Writable() {
		base &^= rightsChanging
	}
	return base, 0
}

func (d *descriptor) fileType() byte {
	switch {
	case d.isDirectory():
		return typeDirectory
	case d.kind == kindFile:
		return typeRegular
	}
	return typeUnknown // a stream that is no terminal
}

func fdFdstatGet(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	b := c.Bytes(1)
	clear(b)
	base, inheriting := d.rights()
	b[0] = d.fileType()
	binary.LittleEndian.PutUint16(b[2:], d.flags)
	binary.LittleEndian.PutUint64(b[8:], base)
	binary.LittleEndian.PutUint64(b[16:], inheriting)
	return success
}

func fdFdstatSetFlags(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	flags := c.U32(1)
	if flags > flagsKnown {
		return eInvalid
	}
	d.flags = uint16(flags)
	if d.kind == kindFile {
		d.file.SetAppend(flags&flagAppend != 0)
	}
	return success
}

func fdFdstatSetRights(p *Process, c *abi.Call) abi.Errno {
	if _, errno := p.lookup(c.U32(0)); errno != success {
		return errno
	}
	return eNotSupported
}

func notSocket(p *Process, c *abi.Call) abi.Errno {
	if _, errno := p.lookup(c.U32(0)); errno != success {
		return errno
	}
	return eNotSocket
}

func fdAdvise(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	if d.kind != kindFile {
		return eBadDescriptor
	}
	const lastAdvice = 5
	if c.U32(3) > lastAdvice || c.I64(1) < 0 || c.I64(2) < 0 {
		return eInvalid
	}
	return success
}

func fdAllocate(p *Process, c *abi.Call) abi.Errno {
	file, errno := p.file(c.U32(0), eNotSeekable)
	if errno != success {
		return errno
	}
	return errnoOf(file.Allocate(c.I64(1), c.I64(2)))
}

func fdSync(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success || d.kind != kindFile {
		return errno
	}
	return errnoOf(d.file.Sync())
}

func putStat(b []byte, fileType byte, info guestfs.Info) {
	clear(b)
	const device, links = 1, 1 // the host's are nobody's business
	binary.LittleEndian.PutUint64(b, device)
	binary.LittleEndian.PutUint64(b[8:], info.Inode)
	b[16] = fileType
	binary.LittleEndian.PutUint64(b[24:], links)
	binary.LittleEndian.PutUint64(b[32:], uint64(info.Size)) //nolint:gosec // not negative
	for i, t := range []time.Time{info.Accessed, info.Modified, info.Changed} {
		if !t.IsZero() {
			binary.LittleEndian.PutUint64(b[40+8*i:], nanoseconds(t))
		}
	}
}

func typeOf(info guestfs.Info) byte {
	if info.Directory {
		return typeDirectory
	}
	return typeRegular
}

func fdFilestatGet(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	var info guestfs.Info
	var err error
	switch d.kind {
	case kindPreopen:
		info, err = p.cfg.FS.Stat(".")
	case kindFile:
		info, err = d.file.Stat()
	}
	if err == nil {
		putStat(c.Bytes(1), d.fileType(), info)
	}
	return errnoOf(err)
}

func fdFilestatSetSize(p *Process, c *abi.Call) abi.Errno {
	file, errno := p.file(c.U32(0), eInvalid)
	if errno != success {
		return errno
	}
	return errnoOf(file.Truncate(c.I64(1)))
}

// timesOf decodes the times to set; zero leaves one as it is. Now is what the
// guest's clock shows, since it reads the times again as they were set.
func (p *Process) timesOf(accessed, modified uint64, flags uint32) (a, m time.Time, errno abi.Errno) {
	const accessedSet, accessedNow, modifiedSet, modifiedNow = 1, 2, 4, 8
	if flags > 15 || flags&(accessedSet|accessedNow) == accessedSet|accessedNow ||
		flags&(modifiedSet|modifiedNow) == modifiedSet|modifiedNow ||
		accessed > math.MaxInt64 || modified > math.MaxInt64 {
		return a, m, eInvalid
	}
	ns := time.Now().UnixNano()
	now := time.Unix(0, ns-ns%int64(p.cfg.Resolution))
	if flags&accessedSet != 0 {
		a = time.Unix(0, int64(accessed))
	}
	if flags&accessedNow != 0 {
		a = now
	}
	if flags&modifiedSet != 0 {
		m = time.Unix(0, int64(modified))
	}
	if flags&modifiedNow != 0 {
		m = now
	}
	return a, m, success
}

func fdFilestatSetTimes(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	accessed, modified, errno := p.timesOf(c.U64(1), c.U64(2), c.U32(3))
	if errno != success {
		return errno
	}
	switch d.kind {
	case kindPreopen:
		return errnoOf(p.cfg.FS.SetTimes(".", accessed, modified))
	case kindFile:
		return errnoOf(d.file.SetTimes(accessed, modified))
	}
	return eInvalid
}

func fdPrestatGet(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success || d.kind != kindPreopen {
		return eBadDescriptor
	}
	b := c.Bytes(1)
	clear(b)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(d.preopen))) //nolint:gosec // given by the host
	return success
}

func fdPrestatDirName(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success || d.kind != kindPreopen {
		return eBadDescriptor
	}
	b := c.Bytes(1)
	if len(b) < len(d.preopen) {
		return eNameTooLong
	}
	copy(b, d.preopen)
	return success
}

func fdSeek(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	return p.seek(d, c, c.I64(1), c.U32(2), 3)
}

func fdTell(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	return p.seek(d, c, 0, io.SeekCurrent, 1)
}

func (p *Process) seek(d *descriptor, c *abi.Call, offset int64, whence uint32, result int) abi.Errno {
	if d.isDirectory() {
		return eBadDescriptor // there is no right to seek in a directory
	}
	file, errno := d.regular(eNotSeekable)
	if errno != success {
		return errno
	}
	if whence > io.SeekEnd {
		return eInvalid
	}
	position, err := file.Seek(offset, int(whence))
	if err == nil {
		c.PutU64(result, uint64(position)) //nolint:gosec // not negative
	}
	return errnoOf(err)
}

// transfer calls move for each buffer until one is not used fully. Once
// something was moved, an error waits for the next call.
func transfer(buffers [][]byte, move func(b []byte) (int, error)) (moved uint32, err error) {
	for _, b := range buffers {
		var n int
		n, err = move(b)
		moved += uint32(n) //nolint:gosec // at most abi.MaxVectorBytes
		if err != nil || n < len(b) {
			break
		}
	}
	if moved > 0 || errors.Is(err, io.EOF) {
		err = nil
	}
	return moved, err
}

func (p *Process) read(d *descriptor, buffers [][]byte) (uint32, abi.Errno) {
	if d.kind == kindStdin {
		if p.cfg.Stdin == nil {
			return 0, success
		}
		n, err := transfer(buffers, p.readInput)
		return n, errnoOf(err)
	}
	file, errno := d.regular(eBadDescriptor)
	if errno != success {
		return 0, errno
	}
	n, err := transfer(buffers, file.Read)
	return n, errnoOf(err)
}

// readInput reads from standard input. A reader that gives neither bytes nor
// an error is asked a few times again, as bufio does: no bytes would mean the
// end.
func (p *Process) readInput(b []byte) (n int, err error) {
	for range 100 {
		n, err = p.cfg.Stdin.Read(b)
		if n != 0 || err != nil {
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

func fdRead(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	n, errno := p.read(d, c.Vectors())
	if errno == success {
		c.PutU32(2, n)
	}
	return errno
}

// transferAt moves the vectors of fd_pread and fd_pwrite.
func transferAt(c *abi.Call, move func([]byte, int64) (int, error)) abi.Errno {
	offset := c.I64(2)
	n, err := transfer(c.Vectors(), func(b []byte) (int, error) {
		n, err := move(b, offset)
		offset += int64(n)
		return n, err
	})
	if err == nil {
		c.PutU32(3, n)
	}
	return errnoOf(err)
}

func fdPread(p *Process, c *abi.Call) abi.Errno {
	file, errno := p.file(c.U32(0), eNotSeekable)
	if errno != success {
		return errno
	}
	return transferAt(c, file.ReadAt)
}

func fdWrite(p *Process, c *abi.Call) abi.Errno {
	d, errno := p.lookup(c.U32(0))
	if errno != success {
		return errno
	}
	var n uint32
	if d.kind == kindOutput {
		for _, b := range c.Vectors() {
			if _, err := d.writer.Write(b); err != nil {
				panic(&abi.Stop{Cause: err})
			}
			n += uint32(len(b)) //nolint:gosec // at most abi.MaxVectorBytes
		}
		c.PutU32(2, n)
		return success
	}
	file, errno := d.regular(eBadDescriptor)
	if errno != success {
		return errno
	}
	n, err := transfer(c.Vectors(), file.Write)
	if err == nil {
		c.PutU32(2, n)
	}
	return errnoOf(err)
}

func fdPwrite(p *Process, c *abi.Call) abi.Errno {
	file, errno := p.file(c.U32(0), eNotSeekable)
	if errno != success {
		return errno
	}
	return transferAt(c, file.WriteAt)
}
