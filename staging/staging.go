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

	mu      sync.Mutex
	open    int
	tenants map[string]int // directories of items, by the folder that they are in
	apart   bool           // the default tenant has a folder of its own, too
	free    []string       // empty directories of the default tenant that are kept for its next items
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
	folder string // of the tenant
	home   bool   // it is the default tenant's
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
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.enter(tenant)
	if err != nil {
		return "", nil, err
	}
	return d.folder, func() error {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.tenants[d.folder]--
		if err := d.leave(); !errors.Is(err, fs.ErrNotExist) { // the store may be closed
			return err
		}
		return nil
	}, nil
}

// enter makes sure that the tenant's folder is there, and counts one more user of
// it; mu is held.
func (s *Store) enter(tenant string) (*Dir, error) {
	d := &Dir{store: s, folder: s.path, home: tenant == beacon.DefaultTenant}
	if !d.home || s.apart {
		d.folder = filepath.Join(s.path, digest(tenant))
		if err := os.Mkdir(d.folder, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("create the tenant's directory: %w", hostless(err))
		}
	}
	if s.tenants == nil {
		s.tenants = map[string]int{}
	}
	s.tenants[d.folder]++
	return d, nil
}

// Create makes an empty directory for a work item. Its name has nothing of the
// item's: a hash from a server is not a file name. Close it.
func (s *Store) Create() (*Dir, error) { return s.CreateFor(beacon.DefaultTenant) }

// CreateFor makes a directory for an item of a tenant, below one that has no
// other tenant's.
func (s *Store) CreateFor(tenant string) (*Dir, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, err := s.enter(tenant)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(d.folder, random())
	if !d.home || !s.reuse(path) {
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		if d.Root, err = os.OpenRoot(path); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil {
		s.tenants[d.folder]--
		return nil, errors.Join(fmt.Errorf("create the item's directory: %w", spaceless(hostless(err))), d.leave())
	}
	s.open++
	return d, nil
}

// leave removes the tenant's folder after its last item; the store's mu is held.
func (d *Dir) leave() error {
	if d.folder == d.store.path || d.store.tenants[d.folder] > 0 {
		return nil
	}
	delete(d.store.tenants, d.folder)
	return hostless(os.Remove(d.folder))
}

// Close removes the directory and all that is in it.
func (d *Dir) Close() error {
	pristine := d.home && untouched(d.Root)
	err := d.Root.Close()
	if !pristine || !d.recycle() {
		err = errors.Join(err, remove(d.Name()))
	}
	d.store.mu.Lock()
	defer d.store.mu.Unlock()
	d.store.open--
	d.store.tenants[d.folder]--
	if err == nil {
		err = d.leave()
	}
	if err != nil {
		return fmt.Errorf("remove the item's directory: %w", err)
	}
	return nil
}

// To make a directory is most of what an item without files costs, on file
// systems that look for an inode that was not used lately. So some that are as
// they were made are kept. They get another name when an item ends and when the
// next begins: what somebody remembers of the item leads nowhere.
const (
	freePrefix = "free-"
	maxFree    = 16
)

// recycle keeps a directory that is untouched, if there is room for it.
func (d *Dir) recycle() bool {
	s := d.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) >= maxFree || s.apart && d.folder == s.path {
		return false
	}
	free := filepath.Join(s.path, freePrefix+random())
	if os.Rename(d.Name(), free) != nil {
		return false
	}
	s.free = append(s.free, free)
	return true
}

// reuse gives a directory that was kept its new name; mu is held.
func (s *Store) reuse(path string) bool {
	for len(s.free) > 0 {
		free := s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		if os.Rename(free, path) == nil {
			return true
		}
	}
	return false
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
