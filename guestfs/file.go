package guestfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"slices"
	"sync"
	"time"
)

// Flags say how Open opens.
type Flags uint8

// Without Read or Write a file is opened for reading. Create makes a file where
// there is none, and with Exclusive fails where there is one. Append writes at
// the end, wherever the position is. Directory opens nothing but a directory;
// directories are only read.
const (
	Read Flags = 1 << iota
	Write
	Create
	Exclusive
	Truncate
	Append
	Directory
)

// A File is an open file or directory. All methods may be called concurrently.
// Positions are its own: the host's descriptor is used without one.
type File struct {
	fs        *FS
	handle    handle
	key       key
	node      *node
	directory bool
	readable  bool
	writable  bool
	protected bool
	fresh     bool   // made by Open
	name      string // guarded by FS.mu; "" when removed

	mu       sync.Mutex // guards what follows, and the use of the handle
	closed   bool
	append   bool
	position int64
	listing  []string
	listed   int64 // bytes accounted for listing
}

// Open opens a file or a directory.
func (f *FS) Open(name string, flags Flags) (*File, error) {
	file, err := f.openFile(name, flags)
	if err != nil {
		return nil, fail("open", name, err)
	}
	return file, nil
}

func (f *FS) openFile(name string, flags Flags) (*File, error) {
	if flags&Directory != 0 && flags&Create != 0 {
		return nil, ErrInvalid
	}
	p, directory, err := f.find(name)
	if err != nil {
		return nil, err
	}
	defer f.leave(p)
	if flags&(Read|Write) == 0 {
		flags |= Read
	}
	if err := f.reserveOpen(); err != nil {
		return nil, err
	}
	file, err := f.openAt(p, flags, directory)
	if err != nil {
		f.mu.Lock()
		f.opens--
		f.mu.Unlock()
		return nil, err
	}
	if flags&Truncate != 0 && !file.directory && !file.fresh {
		if err := file.resize(0); err != nil {
			return nil, errors.Join(err, file.Close())
		}
	}
	return file, nil
}

func (f *FS) reserveOpen() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.opens >= f.limits.OpenFiles {
		return f.exceeded(LimitOpenFiles, int64(f.limits.OpenFiles))
	}
	f.opens++
	return nil
}

func (f *FS) openAt(p place, flags Flags, directory bool) (*File, error) {
	// A file that lost its name between the look and the booking would be booked
	// as one that has it.
	f.names.Lock()
	defer f.names.Unlock()
	found, err := f.tree.lstat(p)
	switch {
	case err == nil && flags&(Create|Exclusive) == Create|Exclusive:
		return nil, fs.ErrExist
	case err == nil:
		err = allowed(found)
	case errors.Is(err, fs.ErrNotExist) && flags&Create != 0:
		if directory {
			return nil, ErrIsDirectory
		}
		return f.create(p, flags)
	}
	if err != nil {
		return nil, err
	}
	access := os.O_RDONLY
	protected := f.protected(p, &found)
	if found.mode.IsDir() {
		if flags&Directory == 0 && flags&(Write|Truncate|Create) != 0 {
			return nil, ErrIsDirectory
		}
		flags &^= Write | Truncate
	} else {
		if directory || flags&Directory != 0 {
			return nil, ErrNotDirectory
		}
		if flags&(Write|Truncate) != 0 {
			if protected {
				return nil, ErrReadOnly
			}
			access = accessOf(flags)
		}
	}
	h, err := f.tree.open(p, access)
	if err != nil {
		return nil, err
	}
	file, err := f.adopt(p, h, &found, flags)
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	file.protected = protected
	return file, nil
}

func accessOf(flags Flags) int {
	switch {
	case flags&(Write|Truncate) == 0:
		return os.O_RDONLY
	case flags&Read == 0:
		return os.O_WRONLY
	}
	return os.O_RDWR
}

// create makes a file. f.names is held.
func (f *FS) create(p place, flags Flags) (*File, error) {
	if f.protected(p, nil) {
		return nil, ErrReadOnly
	}
	if err := f.reserveEntry(); err != nil {
		return nil, err
	}
	h, err := f.tree.open(p, accessOf(flags)|os.O_CREATE|os.O_EXCL)
	if err != nil {
		f.returnEntry()
		return nil, err
	}
	file, err := f.adopt(p, h, nil, flags)
	if err != nil {
		f.returnEntry()
		return nil, errors.Join(err, h.Close())
	}
	return file, nil
}

// adopt makes a File of what was opened, if that is what was looked at; nil
// means that it was created.
func (f *FS) adopt(p place, h handle, looked *facts, flags Flags) (*File, error) {
	opened, err := h.stat()
	if err != nil {
		return nil, err
	}
	if err := allowed(opened); err != nil {
		return nil, err
	}
	if looked != nil && (looked.key != opened.key || looked.mode != opened.mode) {
		return nil, fs.ErrPermission
	}
	file := &File{
		fs: f, handle: h, key: opened.key, name: p.name,
		directory: opened.mode.IsDir(),
		readable:  flags&Read != 0,
		writable:  flags&Write != 0,
		append:    flags&Append != 0,
		fresh:     looked == nil,
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if looked == nil {
		file.node = f.created(opened)
	} else {
		file.node = f.node(opened)
	}
	if !file.directory && file.node.opens == 0 {
		f.resize(file.node, opened.size) // the host may have changed it
	}
	file.node.opens++
	f.open[file] = struct{}{}
	return file, nil
}

// use begins an operation; file.mu.Unlock must follow if it returns nil.
func (x *File) use(onDirectory bool) error {
	x.mu.Lock()
	switch {
	case x.closed:
		x.mu.Unlock()
		return ErrClosed
	case x.directory && !onDirectory:
		x.mu.Unlock()
		return ErrIsDirectory
	}
	return nil
}

// Close closes the file. Closing it again does nothing.
func (x *File) Close() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return nil
	}
	x.closed = true
	f := x.fs
	// The node goes first: once the handle is closed, the host may give the
	// number of a removed file to a new one.
	f.mu.Lock()
	delete(f.open, x)
	f.listed -= x.listed
	x.listing, x.listed = nil, 0
	x.node.opens--
	f.reap(x.key, x.node)
	f.mu.Unlock()
	err := x.handle.Close()
	f.mu.Lock()
	f.opens--
	f.mu.Unlock()
	return err
}

// IsDirectory reports whether it is a directory.
func (x *File) IsDirectory() bool { return x.directory }

// Readable reports whether it was opened for reading.
func (x *File) Readable() bool { return x.readable }

// Writable reports whether it was opened for writing.
func (x *File) Writable() bool { return x.writable }

// Name returns the present name, relative to the root. ok is false when it was
// removed.
func (x *File) Name() (name string, ok bool) {
	x.fs.mu.Lock()
	defer x.fs.mu.Unlock()
	return x.name, x.name != ""
}

// SetAppend changes whether writes go to the end.
func (x *File) SetAppend(on bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.append = on
}

// Stat describes the file.
func (x *File) Stat() (Info, error) {
	if err := x.use(true); err != nil {
		return Info{}, err
	}
	defer x.mu.Unlock()
	found, err := x.handle.stat()
	if err != nil {
		return Info{}, err
	}
	return x.fs.describe(found), nil
}

// Size returns the size in bytes.
func (x *File) Size() (int64, error) {
	info, err := x.Stat()
	return info.Size, err
}

// SetTimes changes the times. A time that is zero stays as it is.
func (x *File) SetTimes(accessed, modified time.Time) error {
	if err := x.use(true); err != nil {
		return err
	}
	defer x.mu.Unlock()
	if x.protected {
		return ErrReadOnly
	}
	name, _ := x.Name()
	if err := x.handle.chtimes(name, accessed, modified); err != nil {
		return err
	}
	x.fs.mu.Lock()
	x.node.remember(accessed, modified)
	x.fs.mu.Unlock()
	return nil
}

// Read reads at the position, as io.Reader.
func (x *File) Read(b []byte) (int, error) {
	if err := x.use(false); err != nil {
		return 0, err
	}
	defer x.mu.Unlock()
	n, err := x.readAt(b, x.position)
	x.position += int64(n)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// ReadAt reads at an offset, as io.ReaderAt.
func (x *File) ReadAt(b []byte, offset int64) (int, error) {
	if err := x.use(false); err != nil {
		return 0, err
	}
	defer x.mu.Unlock()
	return x.readAt(b, offset)
}

func (x *File) readAt(b []byte, offset int64) (int, error) {
	switch {
	case !x.readable:
		return 0, ErrAccess
	case offset < 0:
		return 0, ErrInvalid
	case len(b) == 0:
		return 0, nil
	case offset > math.MaxInt64-int64(len(b)):
		return 0, io.EOF
	}
	return x.handle.ReadAt(b, offset)
}

// Write writes at the position, or at the end of a file opened with Append.
// Where a quota does not allow all of it, nothing is written.
func (x *File) Write(b []byte) (int, error) {
	if err := x.use(false); err != nil {
		return 0, err
	}
	defer x.mu.Unlock()
	offset := x.position
	if x.append {
		offset = -1
	}
	n, end, err := x.writeAt(b, offset)
	if n > 0 {
		x.position = end
	}
	return n, err
}

// WriteAt writes at an offset, whether or not the file was opened with Append.
func (x *File) WriteAt(b []byte, offset int64) (int, error) {
	if err := x.use(false); err != nil {
		return 0, err
	}
	defer x.mu.Unlock()
	if offset < 0 {
		return 0, ErrInvalid
	}
	n, _, err := x.writeAt(b, offset)
	return n, err
}

// writeAt writes; a negative offset is the end. It returns where it ended.
func (x *File) writeAt(b []byte, offset int64) (n int, end int64, err error) {
	if !x.writable {
		return 0, 0, ErrAccess
	}
	if len(b) == 0 {
		return 0, 0, nil
	}
	x.node.writing.Lock()
	defer x.node.writing.Unlock()
	if offset < 0 {
		found, err := x.handle.stat()
		if err != nil {
			return 0, 0, err
		}
		offset = found.size
	}
	if offset > math.MaxInt64-int64(len(b)) {
		return 0, 0, ErrInvalid
	}
	if err := x.book(offset+int64(len(b)), int64(len(b))); err != nil {
		return 0, 0, err
	}
	n, err = x.handle.WriteAt(b, offset)
	if n < len(b) {
		x.settle(int64(len(b) - n))
	}
	return n, offset + int64(n), err
}

// book accounts for a write of n bytes that ends at end, before it is made.
func (x *File) book(end, n int64) error {
	f := x.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	if end > x.node.size && end > f.limits.FileSize {
		return f.exceeded(LimitFileSize, f.limits.FileSize)
	}
	if n > f.limits.Written-f.written {
		return f.exceeded(LimitWritten, f.limits.Written)
	}
	if end > x.node.size {
		more := x.node.charge(end) - x.node.charge(x.node.size)
		if more > f.limits.Bytes-f.used {
			return f.exceeded(LimitBytes, f.limits.Bytes)
		}
		if more > 0 && f.hold(more) != nil {
			return f.exceeded(LimitShared, 0)
		}
		f.resize(x.node, end)
	}
	f.written += n
	return nil
}

// settle corrects the accounts after a write or change of size that failed,
// wholly or in part.
func (x *File) settle(unwritten int64) {
	found, err := x.handle.stat()
	f := x.fs
	f.mu.Lock()
	defer f.mu.Unlock()
	f.written -= unwritten
	if err == nil { // else it stays charged
		f.resize(x.node, found.size)
	}
}

// Truncate sets the size. A hole is charged like any content.
func (x *File) Truncate(size int64) error {
	if err := x.use(false); err != nil {
		return err
	}
	defer x.mu.Unlock()
	if !x.writable {
		return ErrAccess
	}
	return x.resize(size)
}

func (x *File) resize(size int64) error {
	if size < 0 {
		return ErrInvalid
	}
	x.node.writing.Lock()
	defer x.node.writing.Unlock()
	if err := x.book(size, 0); err != nil {
		return err
	}
	if err := x.handle.Truncate(size); err != nil {
		x.settle(0)
		return err
	}
	x.fs.mu.Lock()
	x.fs.resize(x.node, size)
	x.fs.mu.Unlock()
	return nil
}

// Allocate makes the file at least as large as offset+size. It is charged, but
// not taken from the host's disk before it is written.
func (x *File) Allocate(offset, size int64) error {
	if err := x.use(false); err != nil {
		return err
	}
	defer x.mu.Unlock()
	switch {
	case !x.writable:
		return ErrAccess
	case offset < 0 || size <= 0 || offset > math.MaxInt64-size:
		return ErrInvalid
	}
	found, err := x.handle.stat()
	if err != nil || offset+size <= found.size {
		return err
	}
	return x.resize(offset + size)
}

// Seek moves the position, as io.Seeker.
func (x *File) Seek(offset int64, whence int) (int64, error) {
	if err := x.use(false); err != nil {
		return 0, err
	}
	defer x.mu.Unlock()
	base := int64(0)
	switch whence {
	case io.SeekStart:
	case io.SeekCurrent:
		base = x.position
	case io.SeekEnd:
		found, err := x.handle.stat()
		if err != nil {
			return 0, err
		}
		base = found.size
	default:
		return 0, ErrInvalid
	}
	if offset > 0 && base > math.MaxInt64-offset || base+offset < 0 {
		return 0, ErrInvalid
	}
	x.position = base + offset
	return x.position, nil
}

// Sync writes the file to the disk, as often as the limit allows.
func (x *File) Sync() error {
	if err := x.use(true); err != nil {
		return err
	}
	defer x.mu.Unlock()
	if x.directory || !x.writable {
		return nil
	}
	f := x.fs
	f.mu.Lock()
	f.syncs++
	skip := f.syncs > f.limits.Syncs
	f.mu.Unlock()
	if skip {
		return nil
	}
	return x.handle.Sync()
}

// maxEntries is the most that one ReadDir of a File returns.
const maxEntries = 1024

// ReadDir returns up to n entries of a directory, at most 1,024, sorted by
// name. Cookie 0 starts, with what is in the directory then; each entry has the
// cookie that continues after it. What was removed meanwhile is left out. No
// entries means the end.
func (x *File) ReadDir(cookie uint64, n int) ([]Entry, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.closed:
		return nil, ErrClosed
	case !x.directory:
		return nil, ErrNotDirectory
	}
	if cookie == 0 || x.listing == nil {
		if err := x.list(); err != nil {
			return nil, err
		}
	}
	dir, _ := x.Name()
	n = max(0, min(n, maxEntries))
	var entries []Entry
	for cookie < uint64(len(x.listing)) && len(entries) < n {
		name := x.listing[cookie]
		cookie++
		found, err := x.handle.child(dir, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return entries, err
		}
		if allowed(found) == nil {
			entries = append(entries, Entry{Name: name, Info: x.fs.describe(found), Next: cookie})
		}
	}
	return entries, nil
}

// list takes the names in the directory, within the limit on memory.
func (x *File) list() error {
	const perName = 16 // bytes of a string, besides its content
	f := x.fs
	release := func() {
		f.mu.Lock()
		f.listed -= x.listed
		f.mu.Unlock()
		x.listing, x.listed = nil, 0
	}
	release()
	x.listing = []string{}
	err := x.handle.names(func(name string) error {
		if name == "." || name == ".." {
			return nil
		}
		cost := int64(len(name) + perName)
		f.mu.Lock()
		defer f.mu.Unlock()
		if cost > listingBytes-f.listed {
			return f.exceeded(LimitListings, listingBytes)
		}
		f.listed += cost
		x.listed += cost
		x.listing = append(x.listing, name)
		return nil
	})
	if err != nil {
		release()
		return err
	}
	slices.Sort(x.listing)
	return nil
}
