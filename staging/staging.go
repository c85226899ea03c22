// Package staging gives every work item a directory of its own, brings its
// source file there, and removes everything when the item ends. Directories are
// named by the host, opened as os.Root, and never shared.
package staging

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
)

const prefix = "worker-"

// A Store holds the directories of one worker's items, in a folder that may be
// shared with other workers. It is safe for concurrent use.
type Store struct {
	path string
	lock *os.File

	mu      sync.Mutex // held for no call of the system: one tenant's disk is not to stop another
	open    int
	folders map[string]*folder // by path
	unused  int                // folders without users
	free    int                // directories in all folder.free
	apart   bool               // the default tenant has a folder of its own, too
}

// A folder holds the directories of a tenant's items. That of the default tenant
// is the store's own, unless it is apart.
type folder struct {
	path string
	// shared is true if others may write to it: a process for the tenant's modules.
	shared bool
	// making is held while the folder is made or removed, made is true between.
	making sync.Mutex
	made   bool

	// Guarded by the store's mu:
	users int    // directories in it, and who holds it
	free  []kept // empty directories for the next items
}

// Open prepares a store under folder, which is created if need be, and removes
// what workers left there that were killed. Close it.
func Open(folder string) (*Store, error) {
	folder, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("find the staging folder: %w", err)
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("create the staging folder: %w", err)
	}
	if err := sweep(folder); err != nil {
		return nil, err
	}
	// The lock comes first, so that no other worker takes the folder for a
	// leftover. One that starts at this moment may sweep the lock away before it
	// is taken; then the next name is tried.
	for range 10 {
		path := filepath.Join(folder, prefix+random())
		lock, err := acquire(path + ".lock")
		if err != nil {
			return nil, fmt.Errorf("lock the staging folder: %w", err)
		}
		if lock == nil {
			continue
		}
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, errors.Join(fmt.Errorf("create the staging folder: %w", err), release(lock))
		}
		return &Store{path: path, lock: lock}, nil
	}
	return nil, fmt.Errorf("lock the staging folder %s: other workers kept taking the lock", folder)
}

// acquire makes and takes a new lock; nil if somebody swept it away meanwhile.
func acquire(path string) (*os.File, error) {
	lock, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	taken, err := tryLock(lock)
	if err != nil {
		return nil, errors.Join(err, release(lock))
	}
	if taken {
		mine, err := lock.Stat()
		if err != nil {
			return nil, errors.Join(err, release(lock))
		}
		if there, err := os.Lstat(path); err == nil && os.SameFile(mine, there) {
			return lock, nil
		}
	}
	return nil, lock.Close()
}

// sweep removes the folders whose worker does not live any more: its lock can
// be taken.
func sweep(folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("read the staging folder: %w", err)
	}
	for _, e := range entries {
		name, isLock := strings.CutSuffix(e.Name(), ".lock")
		if !isLock || !strings.HasPrefix(name, prefix) || !e.Type().IsRegular() {
			continue
		}
		if err := sweepOne(filepath.Join(folder, name)); err != nil {
			return fmt.Errorf("remove what a killed worker left: %w", err)
		}
	}
	return nil
}

func sweepOne(path string) error {
	lock, err := os.OpenFile(path+".lock", os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // another worker was quicker
	}
	if err != nil {
		return err
	}
	free, err := tryLock(lock)
	if err != nil || !free {
		return errors.Join(err, lock.Close())
	}
	// The folder goes before the lock: whoever finds a folder finds its lock.
	if err := remove(path); err != nil {
		return errors.Join(err, lock.Close())
	}
	return release(lock)
}

// Close removes everything. No item's directory may be in use.
func (s *Store) Close() error {
	s.mu.Lock()
	open := s.open
	s.mu.Unlock()
	err := remove(s.path)
	if err == nil {
		err = release(s.lock)
	} else {
		err = errors.Join(err, s.lock.Close())
	}
	if open > 0 {
		err = errors.Join(err, fmt.Errorf("%d work items still had a directory", open))
	}
	return err
}

// A Dir is the directory of one work item.
type Dir struct {
	*os.Root
	store  *Store
	folder *folder // of the tenant
}

// Separate gives the default tenant a folder of its own, too. It comes before the
// first item.
func (s *Store) Separate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apart = true
}

// Folder returns the folder that the directories of a tenant's items are made in,
// after Separate with no other tenant's. It stays until release is called.
func (s *Store) Folder(tenant string) (path string, release func() error, err error) {
	f, err := s.enter(tenant)
	if err != nil {
		return "", nil, err
	}
	return f.path, func() error {
		if err := s.leave(f); !errors.Is(err, fs.ErrNotExist) { // the store may be closed
			return err
		}
		return nil
	}, nil
}

// enter makes sure that the tenant's folder is there, and counts one more user of
// it.
func (s *Store) enter(tenant string) (*folder, error) {
	s.mu.Lock()
	path := s.path
	if tenant != beacon.DefaultTenant || s.apart {
		path = filepath.Join(s.path, digest(tenant))
	}
	f := s.folders[path]
	switch {
	case f == nil:
		f = &folder{path: path, shared: s.apart, made: path == s.path}
		if s.folders == nil {
			s.folders = map[string]*folder{}
		}
		s.folders[path] = f
	case f.users == 0:
		s.unused--
	}
	f.users++
	s.mu.Unlock()

	f.making.Lock()
	var err error
	if !f.made {
		if err = os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
		f.made = err == nil
	}
	f.making.Unlock()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create the tenant's directory: %w", hostless(err)), s.leave(f))
	}
	return f, nil
}

// maxUnused is how many folders without items are kept: to make one is most of
// what an item without files costs.
const maxUnused = 64

// leave ends what enter began. Where there are many folders without items, one
// goes after its last item.
func (s *Store) leave(f *folder) error {
	s.mu.Lock()
	if f.users--; f.users > 0 {
		s.mu.Unlock()
		return nil
	}
	s.unused++
	stays := f.path == s.path || s.unused <= maxUnused
	s.mu.Unlock()
	if stays {
		return nil
	}
	f.making.Lock()
	defer f.making.Unlock()
	s.mu.Lock()
	if f.users > 0 || s.folders[f.path] != f { // somebody has come, or was quicker
		s.mu.Unlock()
		return nil
	}
	free := f.free
	s.free -= len(free)
	f.free = nil
	s.mu.Unlock()
	var errs []error
	for _, k := range free {
		errs = append(errs, hostless(remove(k.path)))
	}
	if f.made { // who comes now makes it again, when this is done
		f.made = false
		errs = append(errs, hostless(os.Remove(f.path)))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.users == 0 {
		s.unused--
		delete(s.folders, f.path)
	}
	return errors.Join(errs...)
}

// Create makes an empty directory for a work item. Its name has nothing of the
// item's: a hash from a server is not a file name. Close it.
func (s *Store) Create() (*Dir, error) { return s.CreateFor(beacon.DefaultTenant) }

// CreateFor makes a directory for an item of a tenant, below one that has no
// other tenant's.
func (s *Store) CreateFor(tenant string) (*Dir, error) {
	f, err := s.enter(tenant)
	if err != nil {
		return nil, err
	}
	d := &Dir{store: s, folder: f}
	if d.Root, err = s.directory(f); err != nil {
		return nil, errors.Join(fmt.Errorf("create the item's directory: %w", spaceless(hostless(err))), s.leave(f))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return d, nil
}

// directory opens one that was kept, or makes one.
func (s *Store) directory(f *folder) (*os.Root, error) {
	for k := s.reuse(f); k != nil; k = s.reuse(f) {
		root, err := os.OpenRoot(k.path)
		if err != nil {
			continue // somebody has moved it away
		}
		if !f.shared || k.is(root) && untouched(root) {
			return root, nil
		}
		if err := errors.Join(root.Close(), remove(k.path)); err != nil {
			return nil, err
		}
	}
	path := filepath.Join(f.path, random())
	if err := os.Mkdir(path, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, errors.Join(err, os.Remove(path))
	}
	return root, nil
}

// Close removes the directory and all that is in it.
func (d *Dir) Close() error {
	var k kept
	pristine := untouched(d.Root)
	if pristine && d.folder.shared {
		var err error
		k.info, err = d.Stat(".")
		pristine = err == nil
	}
	err := d.Root.Close()
	if !pristine || !d.recycle(k) {
		err = errors.Join(err, remove(d.Name()))
	}
	d.store.mu.Lock()
	d.store.open--
	d.store.mu.Unlock()
	if err = errors.Join(err, d.store.leave(d.folder)); err != nil {
		return fmt.Errorf("remove the item's directory: %w", err)
	}
	return nil
}

// To make a directory is most of what an item without files costs, on file
// systems that look for an inode that was not used lately. So some that are as
// they were made are kept, for items of the same tenant. They get another name
// when an item ends: what somebody remembers of the item leads nowhere. They stay
// in their tenant's folder: what moves something between folders, or into one that
// all tenants have in common, waits for whoever else does.
const (
	maxFree    = 16  // of a tenant
	maxFreeAll = 256 // of all
)

// A kept directory is empty, and in a folder that others may write to still what it
// was if its identity says so.
type kept struct {
	path string
	info fs.FileInfo // its identity, in such a folder
}

// is reports whether the root is that directory, and not what somebody has put in
// its place.
func (k *kept) is(root *os.Root) bool {
	info, err := root.Stat(".")
	return err == nil && os.SameFile(info, k.info)
}

// recycle keeps a directory that is untouched, if there is room for it.
func (d *Dir) recycle(k kept) bool {
	s, f := d.store, d.folder
	s.mu.Lock()
	room := len(f.free) < maxFree && s.free < maxFreeAll
	if room {
		s.free++
	}
	s.mu.Unlock()
	if !room {
		return false
	}
	k.path = filepath.Join(f.path, random())
	err := rename(d.Name(), k.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.free--
		return false
	}
	f.free = append(f.free, k)
	return true
}

// reuse takes one of the directories that were kept, nil if there is none.
func (s *Store) reuse(f *folder) *kept {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(f.free)
	if n == 0 {
		return nil
	}
	k := f.free[n-1]
	f.free = f.free[:n-1]
	s.free--
	return &k
}

// remove removes a directory, if it is there, and all that providers left in
// it, who may have taken its permissions away.
func remove(path string) error {
	// What is empty, a file or a link is gone with this.
	if err := os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.Chmod(path, 0o700); err != nil { //nolint:gosec // a directory needs its execute bit
		return err
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return err
	}
	if err := errors.Join(guestfs.Empty(root), root.Close()); err != nil {
		return err
	}
	return os.Remove(path)
}

// hostless takes the path out of an error that may reach a tenant.
func hostless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// linkless does the same for an error that has two paths.
func linkless(err error) error {
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}

// Import copies a local file into the directory under name, until ctx ends.
func (d *Dir) Import(ctx context.Context, name string, file *os.File) error {
	to, err := d.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("stage %s: %w", name, hostless(err))
	}
	// Between files the kernel copies, and shares the blocks where it can. It
	// does so piece by piece, since it cannot be interrupted.
	const piece = 64 << 20
	for err == nil {
		if err = context.Cause(ctx); err == nil {
			_, err = io.CopyN(to, file, piece)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err := errors.Join(err, to.Close()); err != nil {
		return fmt.Errorf("stage %s: %w", name, hostless(err))
	}
	return nil
}

// Output opens a file that a provider wrote. Anything but a regular file with
// one name is refused: a link could show a file of the host.
func (d *Dir) Output(name string) (*os.File, fs.FileInfo, error) {
	name = filepath.FromSlash(name)
	before, err := d.Lstat(name)
	if err != nil {
		return nil, nil, hostless(err)
	}
	if !before.Mode().IsRegular() || links(before) > 1 {
		return nil, nil, beacon.Errorf(beacon.Denied, "output %s is not a regular file", name)
	}
	f, err := d.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, hostless(err)
	}
	after, err := f.Stat()
	if err != nil {
		return nil, nil, errors.Join(hostless(err), f.Close())
	}
	if !os.SameFile(before, after) {
		return nil, nil, errors.Join(beacon.Errorf(beacon.Denied, "output %s changed while it was opened", name), f.Close())
	}
	return f, after, nil
}

// Keep takes a file out of the directory for good: what Output gave for its
// name, as it was then. Whoever gets the file removes it; otherwise it goes with
// the store.
func (d *Dir) Keep(name string, f *os.File, info fs.FileInfo) (path string, err error) {
	// Inside of the root no link leads astray; from its top the file is moved
	// away under a name that nobody knows.
	moving, kept := "."+random(), filepath.Join(d.store.path, "kept-"+random())
	if err := detach(f); err != nil {
		return "", fmt.Errorf("keep %s: %w", name, hostless(err))
	}
	if err = d.Rename(filepath.FromSlash(name), moving); err == nil {
		err = os.Rename(filepath.Join(d.Name(), moving), kept)
	}
	if err != nil {
		return "", fmt.Errorf("keep %s: %w", name, hostless(linkless(err)))
	}
	// By then the name may have been another file's.
	if there, err := os.Lstat(kept); err != nil || !os.SameFile(there, info) {
		return "", errors.Join(beacon.Errorf(beacon.Denied, "output %s changed while it was collected", name), remove(kept))
	}
	if err := readable(f); err != nil {
		return "", errors.Join(fmt.Errorf("keep %s: %w", name, hostless(err)), os.Remove(kept))
	}
	return kept, nil
}

// CheckPath admits the names of outputs: file names with folders before them,
// separated by slashes.
func CheckPath(what, path string) error {
	if len(path) > 1024 {
		return beacon.Errorf(beacon.Invalid, "%s has %d bytes, limit 1024", what, len(path))
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." {
			return beacon.Errorf(beacon.Invalid, "%s %q must be a path inside of the item's directory, without . and ..", what, beacon.Excerpt(path, 200))
		}
		if err := CheckName(what, part); err != nil {
			return err
		}
	}
	return nil
}

// CheckName admits the names that work items may give to files: one part, with
// nothing in it that a file system or a terminal takes for something else.
func CheckName(what, name string) error {
	switch {
	case name == "" || name == "." || name == "..":
		return beacon.Errorf(beacon.Invalid, "%s %q is not a file name", what, name)
	case len(name) > 255:
		return beacon.Errorf(beacon.Invalid, "%s has %d bytes, limit 255", what, len(name))
	case strings.ContainsAny(name, `/\:`) || !filepath.IsLocal(name):
		return beacon.Errorf(beacon.Invalid, "%s %q must be a plain file name, without a folder", what, beacon.Excerpt(name, 80))
	case beacon.Excerpt(name, 255) != name || strings.ContainsRune(name, '\t'):
		return beacon.Errorf(beacon.Invalid, "%s %q has characters that a file name cannot have", what, beacon.Excerpt(name, 80))
	}
	return nil
}

func random() string {
	var b [12]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}
