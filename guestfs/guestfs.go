// Package guestfs is the file system that a guest sees: one directory of the
// host, with a policy and quotas.
//
// Only directories and regular files with a single link exist in it. Symbolic
// links, hard links, FIFOs, devices and sockets are never opened, followed,
// listed, replaced or removed, whoever put them there, and mount points are not
// crossed on Linux. Nothing blocks. No operation and no error reveals a path,
// an owner or an identity of the host.
//
// On Linux a name is found by openat2 and every other step is relative to its
// directory; elsewhere, and where openat2 is not allowed, os.Root does the
// same. Differences of the latter: mount points are crossed, a directory on
// the way that is exchanged for a symbolic link during an operation is followed
// (never out of the root), times of access are those of the last change, and
// Windows refuses to remove what is open.
package guestfs

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits are the quotas of one FS. Zero means the default, a negative number
// none at all.
type Limits struct {
	// Bytes that the guest's files may have at any time, by their size: holes
	// count. A file that was there before counts with what the guest adds. A
	// removed file counts as long as it is open. Default 4 GiB.
	Bytes int64
	// Written bytes in total, also over others. Default 16 GiB.
	Written int64
	// FileSize in bytes. Default: Bytes.
	FileSize int64
	// Entries are files and directories that the guest may have made. Default 10,000.
	Entries int
	// OpenFiles are files and directories open at once. Default 256.
	OpenFiles int
	// Depth is the number of parts of a path. Default 64.
	Depth int
	// Syncs that reach the disk; later ones succeed and do nothing. Default 64.
	Syncs int
}

func (l Limits) withDefaults() Limits {
	bytes := func(n *int64, otherwise int64) {
		if *n == 0 {
			*n = otherwise
		}
		*n = max(*n, 0)
	}
	count := func(n *int, otherwise int) {
		if *n == 0 {
			*n = otherwise
		}
		*n = max(*n, 0)
	}
	bytes(&l.Bytes, 4<<30)
	bytes(&l.Written, 16<<30)
	if l.FileSize == 0 {
		l.FileSize = l.Bytes
	}
	bytes(&l.FileSize, 0)
	count(&l.Entries, 10_000)
	count(&l.OpenFiles, 256)
	count(&l.Depth, 64)
	count(&l.Syncs, 64)
	return l
}

// Config says what a guest may do. Its zero value is usable.
type Config struct {
	Limits Limits
	// ReadOnly are the names of inputs, relative to the root: files, or
	// directories with all that is in them; "." is everything. They, and the
	// directories that lead to them, are not changed, moved or removed. They
	// should be there before the first operation.
	ReadOnly []string
	// Hold, if any, is asked for every byte that the guest's files grow by, and
	// told with a negative number what they give back; its error refuses the
	// growth. It is for quotas that several guests share. What is held at Close is
	// not given back.
	Hold func(bytes int64) error
}

// listingBytes limits what the listings of open directories take of the host's
// memory.
const listingBytes = 16 << 20

// granularity of times that guests see. A finer one would be a finer clock
// than they are given.
const granularity = int64(time.Millisecond)

// An FS is a guest's file system. All methods may be called concurrently.
type FS struct {
	root     *os.Root
	openTree func(*os.Root) (tree, error)
	limits   Limits
	hold     func(int64) error // never nil

	inputs  map[string]bool // by name
	holders map[string]bool // directories on the way to inputs, by name

	// life is held for reading while the tree is used.
	life    sync.RWMutex
	closed  bool
	opening sync.Once
	tree    tree
	broken  error
	// The inputs and holders once more, by identity: names may have aliases.
	inputKeys, holderKeys map[key]bool

	// names is held while names change, so that the accounts fit them.
	names sync.Mutex

	mu        sync.Mutex // guards what follows
	nodes     map[key]*node
	open      map[*File]struct{}
	opens     int // open, or about to be
	nextInode uint64
	used      int64
	written   int64
	entries   int
	syncs     int
	listed    int64
	hit       *LimitError
}

// A node is a file or directory that the guest has seen.
type node struct {
	writing sync.Mutex // held while the content changes

	// The rest is guarded by FS.mu.
	inode    uint64
	size     int64
	original int64 // what was there before the guest came
	opens    int
	created  bool // by the guest
	gone     bool // has no name any more
	// Times that the guest set, which it reads as it wrote them.
	accessed, edited int64
}

// charge is what a file of that size costs the guest.
func (n *node) charge(size int64) int64 { return max(0, size-n.original) }

// New returns the file system of root, which must stay open until Close.
func New(root *os.Root, cfg Config) *FS {
	f := &FS{root: root, openTree: openTree, limits: cfg.Limits.withDefaults(), hold: cfg.Hold}
	if f.hold == nil {
		f.hold = func(int64) error { return nil }
	}
	if len(cfg.ReadOnly) > 0 {
		f.inputs, f.holders = map[string]bool{}, map[string]bool{}
	}
	for _, name := range cfg.ReadOnly {
		name, _, err := clean(name, len(name))
		if err != nil {
			continue // it cannot be named by the guest either
		}
		f.inputs[folded(name)] = true
		for {
			cut := strings.LastIndexByte(name, '/')
			if cut < 0 {
				break
			}
			name = name[:cut]
			f.holders[folded(name)] = true
		}
	}
	return f
}

func folded(name string) string {
	if foldsNames {
		return strings.ToLower(name)
	}
	return name
}

// enter begins an operation; it must be followed by f.life.RUnlock if it
// returns nil.
func (f *FS) enter() error {
	f.life.RLock()
	if f.closed {
		f.life.RUnlock()
		return ErrClosed
	}
	f.opening.Do(f.begin)
	if f.broken != nil {
		f.life.RUnlock()
		return f.broken
	}
	return nil
}

// begin prepares for the first operation; many guests never have one.
func (f *FS) begin() {
	f.nodes, f.open = map[key]*node{}, map[*File]struct{}{}
	if f.tree, f.broken = f.openTree(f.root); f.broken != nil {
		return
	}
	f.inputKeys, f.holderKeys = f.identities(f.inputs), f.identities(f.holders)
}

func (f *FS) identities(names map[string]bool) map[key]bool {
	keys := make(map[key]bool, len(names))
	for name := range names {
		p, err := f.tree.at(name)
		if err != nil {
			continue
		}
		if found, err := f.tree.lstat(p); err == nil {
			keys[found.key] = true
		}
		f.tree.release(p)
	}
	return keys
}

// allowed is the policy on types.
func allowed(found facts) error {
	switch {
	case found.mode.IsDir():
	case found.mode.IsRegular():
		if found.links > 1 {
			return fs.ErrPermission
		}
	case found.mode&fs.ModeSymlink != 0:
		return ErrLoop
	default:
		return fs.ErrPermission
	}
	return nil
}

// protected reports whether the content of p must not change. found is what
// has the name, or nil.
func (f *FS) protected(p place, found *facts) bool {
	if len(f.inputs) == 0 {
		return false
	}
	if found != nil && f.inputKeys[found.key] {
		return true
	}
	for _, k := range p.above {
		if f.inputKeys[k] {
			return true
		}
	}
	name := folded(p.name)
	if f.inputs[name] || f.inputs["."] {
		return true
	}
	for i := range len(name) {
		if name[i] == '/' && f.inputs[name[:i]] {
			return true
		}
	}
	return false
}

// pinned reports whether the name of p must not change.
func (f *FS) pinned(p place, found *facts) bool {
	return f.protected(p, found) || f.holders[folded(p.name)] || found != nil && f.holderKeys[found.key]
}

// exceeded notes the first limit that was hit. f.mu is held.
func (f *FS) exceeded(limit Limit, value int64) error {
	err := &LimitError{limit, value}
	if f.hit == nil {
		f.hit = err
	}
	return err
}

// clean checks a name against the limits.
func (f *FS) clean(name string) (cleaned string, directory bool, err error) {
	cleaned, directory, err = clean(name, f.limits.Depth)
	var limit *LimitError
	if errors.As(err, &limit) {
		f.mu.Lock()
		defer f.mu.Unlock()
		err = f.exceeded(limit.Limit, limit.Value)
	}
	return cleaned, directory, err
}

// find begins an operation on a name. If it returns nil, leave must follow.
func (f *FS) find(name string) (p place, directory bool, err error) {
	cleaned, directory, err := f.clean(name)
	if err != nil {
		return place{}, false, err
	}
	if err := f.enter(); err != nil {
		return place{}, false, err
	}
	if p, err = f.tree.at(cleaned); err != nil {
		f.life.RUnlock()
	}
	return p, directory, err
}

func (f *FS) leave(p place) {
	f.tree.release(p)
	f.life.RUnlock()
}

// look is lstat under the policy.
func (f *FS) look(p place) (facts, error) {
	found, err := f.tree.lstat(p)
	if err == nil {
		err = allowed(found)
	}
	return found, err
}

// node returns the node of what was found. f.mu is held.
func (f *FS) node(found facts) *node {
	n := f.nodes[found.key]
	if n == nil {
		f.nextInode++
		n = &node{inode: f.nextInode}
		if !found.mode.IsDir() {
			n.size, n.original = found.size, found.size
		}
		f.nodes[found.key] = n
	}
	return n
}

// resize books a new size of a file. f.mu is held.
func (f *FS) resize(n *node, size int64) {
	more := n.charge(size) - n.charge(n.size)
	f.used += more
	n.size = size
	if more < 0 {
		_ = f.hold(more) // giving back is never refused
	}
}

// forget books that a name is gone. f.mu is held.
func (f *FS) forget(k key) {
	n := f.nodes[k]
	if n == nil {
		return
	}
	if n.created {
		f.entries--
	}
	n.gone = true
	f.reap(k, n)
}

// created returns the node of what the guest made just now. f.mu is held.
func (f *FS) created(found facts) *node {
	if stale := f.nodes[found.key]; stale != nil && stale.opens == 0 { // of a file that the host removed
		f.forget(found.key)
	}
	n := f.node(found)
	before := n.charge(n.size)
	n.created, n.original = true, 0
	f.used += n.charge(n.size) - before
	return n
}

// reap drops a node that has neither a name nor a user. f.mu is held.
func (f *FS) reap(k key, n *node) {
	if !n.gone || n.opens > 0 {
		return
	}
	f.resize(n, 0)
	if f.nodes[k] == n {
		delete(f.nodes, k)
	}
}

// reserveEntry takes one of the entries.
func (f *FS) reserveEntry() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.entries >= f.limits.Entries {
		return f.exceeded(LimitEntries, int64(f.limits.Entries))
	}
	f.entries++
	return nil
}

func (f *FS) returnEntry() {
	f.mu.Lock()
	f.entries--
	f.mu.Unlock()
}

// Mkdir makes a directory.
func (f *FS) Mkdir(name string) error { return fail("mkdir", name, f.makeDirectory(name)) }

func (f *FS) makeDirectory(name string) error {
	p, _, err := f.find(name)
	if err != nil {
		return err
	}
	defer f.leave(p)
	f.names.Lock()
	defer f.names.Unlock()
	switch _, err := f.tree.lstat(p); {
	case err == nil:
		return fs.ErrExist
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if f.protected(p, nil) {
		return ErrReadOnly
	}
	if err := f.reserveEntry(); err != nil {
		return err
	}
	if err := f.tree.mkdir(p); err != nil {
		f.returnEntry()
		return err
	}
	found, err := f.look(p)
	if err != nil {
		f.returnEntry()
		return err
	}
	f.mu.Lock()
	f.created(found)
	f.mu.Unlock()
	return nil
}

// Remove removes a file.
func (f *FS) Remove(name string) error { return fail("remove", name, f.remove(name, false)) }

// RemoveDir removes an empty directory.
func (f *FS) RemoveDir(name string) error { return fail("remove", name, f.remove(name, true)) }

func (f *FS) remove(name string, asDirectory bool) error {
	p, directory, err := f.find(name)
	if err != nil {
		return err
	}
	defer f.leave(p)
	f.names.Lock()
	defer f.names.Unlock()
	found, err := f.look(p)
	switch {
	case err != nil:
		return err
	case found.mode.IsDir() && !asDirectory:
		return ErrIsDirectory
	case !found.mode.IsDir() && (asDirectory || directory):
		return ErrNotDirectory
	case p.name == ".":
		return ErrBusy
	case f.pinned(p, &found):
		return ErrReadOnly
	}
	if asDirectory {
		err = f.tree.rmdir(p)
	} else {
		err = f.tree.unlink(p)
	}
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forget(found.key)
	f.moved(p.name, "")
	return nil
}

// Rename gives a file or directory another name. It replaces a file, or an
// empty directory by a directory.
func (f *FS) Rename(from, to string) error { return fail("rename", from, f.rename(from, to)) }

func (f *FS) rename(from, to string) error {
	p, oldDirectory, err := f.find(from)
	if err != nil {
		return err
	}
	defer f.leave(p)
	cleaned, newDirectory, err := f.clean(to)
	if err != nil {
		return err
	}
	q, err := f.tree.at(cleaned)
	if err != nil {
		return err
	}
	defer f.tree.release(q)
	f.names.Lock()
	defer f.names.Unlock()

	old, err := f.look(p)
	if err != nil {
		return err
	}
	directory := old.mode.IsDir()
	if !directory && (oldDirectory || newDirectory) {
		return ErrNotDirectory
	}
	if p.name == "." || q.name == "." {
		return ErrBusy
	}
	replaced, err := f.look(q)
	replaces := err == nil
	switch {
	case !replaces && !errors.Is(err, fs.ErrNotExist):
		return err
	case f.pinned(p, &old) || f.pinned(q, nil) || replaces && f.pinned(q, &replaced):
		return ErrReadOnly
	case replaces && replaced.key == old.key:
		return nil
	case replaces && directory && !replaced.mode.IsDir():
		return ErrNotDirectory
	case replaces && !directory && replaced.mode.IsDir():
		return ErrIsDirectory
	case directory && isBelow(q.name, p.name):
		return ErrInvalid
	}
	if directory && depthOf(q.name) > depthOf(p.name) {
		if err := f.checkDepth(p.name, f.limits.Depth-depthOf(q.name)); err != nil {
			return err
		}
	}
	if err := f.tree.rename(p, q, directory, replaces); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if replaces {
		f.forget(replaced.key)
		f.moved(q.name, "")
	}
	f.moved(p.name, q.name)
	return nil
}

// moved tells open files and directories their new name; "" when it is
// removed. f.mu is held.
func (f *FS) moved(from, to string) {
	for file := range f.open {
		if file.name != "" && isBelow(file.name, from) {
			if to == "" {
				file.name = ""
			} else {
				file.name = to + file.name[len(from):]
			}
		}
	}
}

// checkDepth sees to it that nothing in a directory is more than allowance
// levels below it.
func (f *FS) checkDepth(name string, allowance int) error {
	type directory struct {
		name  string
		level int
	}
	for todo := []directory{{name, 0}}; len(todo) > 0; {
		dir := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		err := f.list(dir.name, func(child string, found facts) error {
			if dir.level >= allowance {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.exceeded(LimitDepth, int64(f.limits.Depth))
			}
			if found.mode.IsDir() {
				todo = append(todo, directory{dir.name + "/" + child, dir.level + 1})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// list visits what is in a directory, outside of all quotas.
func (f *FS) list(name string, visit func(child string, found facts) error) error {
	p, err := f.tree.at(name)
	if err != nil {
		return err
	}
	defer f.tree.release(p)
	if found, err := f.look(p); err != nil || !found.mode.IsDir() {
		return errors.Join(err, ErrNotDirectory)
	}
	h, err := f.tree.open(p, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer h.Close() //nolint:errcheck // only read
	return h.names(func(child string) error {
		if child == "." || child == ".." {
			return nil
		}
		found, err := h.child(name, child)
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if err != nil {
			return err
		}
		return visit(child, found)
	})
}

// An Info describes a file or directory. The numbers of inodes are stable and
// belong to this FS alone. Times are cut to milliseconds, unless the guest set
// them.
type Info struct {
	Directory                   bool
	Size                        int64 // 0 for directories
	Inode                       uint64
	Accessed, Modified, Changed time.Time
}

// Stat describes a name.
func (f *FS) Stat(name string) (Info, error) {
	info, err := f.stat(name)
	return info, fail("stat", name, err)
}

func (f *FS) stat(name string) (Info, error) {
	p, directory, err := f.find(name)
	if err != nil {
		return Info{}, err
	}
	defer f.leave(p)
	found, err := f.look(p)
	if err != nil {
		return Info{}, err
	}
	if directory && !found.mode.IsDir() {
		return Info{}, ErrNotDirectory
	}
	return f.describe(found), nil
}

func (f *FS) describe(found facts) Info {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.node(found)
	shown := func(t, set int64) time.Time {
		if t != set {
			t -= ((t % granularity) + granularity) % granularity
		}
		return time.Unix(0, t)
	}
	info := Info{
		Directory: found.mode.IsDir(),
		Inode:     n.inode,
		Accessed:  shown(found.accessed, n.accessed),
		Modified:  shown(found.edited, n.edited),
		Changed:   shown(found.changed, 0),
	}
	if !info.Directory {
		info.Size = found.size
	}
	return info
}

// SetTimes changes the times of a name. A time that is zero stays as it is.
func (f *FS) SetTimes(name string, accessed, modified time.Time) error {
	return fail("set times of", name, f.setTimes(name, accessed, modified))
}

func (f *FS) setTimes(name string, accessed, modified time.Time) error {
	p, directory, err := f.find(name)
	if err != nil {
		return err
	}
	defer f.leave(p)
	found, err := f.look(p)
	switch {
	case err != nil:
		return err
	case directory && !found.mode.IsDir():
		return ErrNotDirectory
	case f.protected(p, &found):
		return ErrReadOnly
	}
	if err := f.tree.chtimes(p, accessed, modified); err != nil {
		return err
	}
	f.mu.Lock()
	f.node(found).remember(accessed, modified)
	f.mu.Unlock()
	return nil
}

// remember keeps times that the guest set.
func (n *node) remember(accessed, modified time.Time) {
	if !accessed.IsZero() {
		n.accessed = accessed.UnixNano()
	}
	if !modified.IsZero() {
		n.edited = modified.UnixNano()
	}
}

// An Entry is one entry of a directory.
type Entry struct {
	Name string
	Info Info
	// Next is the cookie that continues after this entry.
	Next uint64
}

// ReadDir lists a directory, sorted by name.
func (f *FS) ReadDir(name string) ([]Entry, error) {
	dir, err := f.Open(name, Read|Directory)
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // only read
	var all []Entry
	for cookie := uint64(0); ; {
		some, err := dir.ReadDir(cookie, maxEntries)
		if err != nil || len(some) == 0 {
			return all, err
		}
		all = append(all, some...)
		cookie = some[len(some)-1].Next
	}
}

// A Usage is how much of the quotas is used.
type Usage struct {
	Bytes     int64 // live
	Written   int64
	Entries   int
	OpenFiles int
}

// Usage returns what the guest uses.
func (f *FS) Usage() Usage {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Usage{Bytes: f.used, Written: f.written, Entries: f.entries, OpenFiles: f.opens}
}

// Limits returns the quotas, with the defaults filled in.
func (f *FS) Limits() Limits { return f.limits }

// Limit returns the first quota that was hit, a *LimitError, or nil.
func (f *FS) Limit() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hit == nil {
		return nil
	}
	return f.hit
}

// Close closes what the guest left open. It does not close the root. Later
// operations answer ErrClosed.
func (f *FS) Close() error {
	f.life.Lock()
	defer f.life.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	f.mu.Lock()
	left := slices.Collect(func(yield func(*File) bool) {
		for file := range f.open {
			if !yield(file) {
				return
			}
		}
	})
	f.mu.Unlock()
	var failed []error
	for _, file := range left {
		failed = append(failed, file.Close())
	}
	if f.tree != nil {
		failed = append(failed, f.tree.close())
	}
	return errors.Join(failed...)
}
