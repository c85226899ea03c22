package runtime

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
)

// A cache is a folder with what was made of modules: for each one a folder
// that is named by its digest. What is in it is executed, so nothing is believed
// that was not written with the key.
type cache struct {
	dir string // "" for none
	own []byte // the key, if it was given

	mu sync.Mutex // while the key is made
}

func (c *cache) folder(digest string) string { return filepath.Join(c.dir, digest) }

// keyFile holds the key of a cache. Whoever can read it can write to the cache,
// too: it guards against files that came from elsewhere, and against those that
// are damaged.
const keyFile = "key"

const keySize = 32

// keyOf returns the key of what belongs to one module. Each has another, so that
// a process that makes one module ready can speak for no other.
func (c *cache) keyOf(digest string) ([]byte, error) {
	if c.own != nil {
		return c.own, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// It may be removed and made again while a worker runs.
	key, err := readKey(c.dir)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = makeKey(c.dir)
	}
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(digest))
	return mac.Sum(nil), nil
}

const (
	// lockSuffix ends the name of the file whose lock stands for a module's folder.
	lockSuffix = ".lock"
	// lockPause is how long to wait before a lock is asked for again.
	lockPause = 5 * time.Millisecond
)

// lock keeps other processes away from a module's folder, until unlock: what is
// registered is several files, which belong together.
func (c *cache) lock(ctx context.Context, digest string) (unlock func() error, err error) {
	if c.own != nil { // the folder is nobody else's
		return func() error { return nil }, nil
	}
	l := flock.New(c.folder(digest)+lockSuffix, flock.SetPermissions(0o600))
	if _, err := l.TryLockContext(ctx, lockPause); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("lock the cache of modules: %w", err)
	}
	return l.Unlock, nil
}

// lockShared keeps others from changing what is kept of a module, until unlock.
func (c *cache) lockShared(ctx context.Context, digest string) (unlock func() error, err error) {
	if c.own != nil {
		return func() error { return nil }, nil
	}
	l := flock.New(c.folder(digest)+lockSuffix, flock.SetPermissions(0o600))
	_, err = l.TryRLockContext(ctx, lockPause)
	switch {
	case err == nil:
		return l.Unlock, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	// A cache that can only be read is one that is not changed.
	return func() error { return nil }, nil
}

func readKey(dir string) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("read the key of the cache: %w", err)
	}
	if len(key) != keySize {
		return nil, fmt.Errorf("the key of the cache, %s, has %d bytes instead of %d: remove it", filepath.Join(dir, keyFile), len(key), keySize)
	}
	return key, nil
}

func makeKey(dir string) ([]byte, error) {
	file := filepath.Join(dir, keyFile)
	key := make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	temporary, err := os.CreateTemp(dir, keyFile+".*")
	if err != nil {
		return nil, fmt.Errorf("make a key for the cache: %w", err)
	}
	_, err = temporary.Write(key)
	// Of two processes that do this at a time one wins: a link never replaces.
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Link(temporary.Name(), file)
		if errors.Is(err, fs.ErrExist) {
			err = nil
		} else if err != nil { // a file system without links
			err = os.Rename(temporary.Name(), file)
		}
	}
	if removed := os.Remove(temporary.Name()); err != nil && removed != nil {
		err = errors.Join(err, removed)
	}
	if err != nil {
		return nil, fmt.Errorf("make a key for the cache: %w", err)
	}
	return readKey(dir)
}

// compile translates the module, or takes the translation from the cache: one
// folder a module, in which the engine has files for its version and platform.
func (m *Module) compile(ctx context.Context, binary []byte) error {
	if m.cache.dir == "" {
		return m.build(ctx, binary, "")
	}
	kept := m.compiled // of one that was recalled
	dir := m.cache.folder(m.digest)
	var before string
	key, err := m.cache.keyOf(m.digest)
	if m.opened {
		if err == nil {
			before, err = m.unspoiled(dir, key)
		}
		if err != nil || before == "" {
			return fmt.Errorf("%w: %w", ErrDamaged, cmp.Or(err, errors.New("the seal is missing or wrong")))
		}
		err = m.build(ctx, binary, dir)
		m.compiled = kept
		return err
	}
	if err == nil {
		before, err = m.unspoiled(dir, key)
	}
	if err == nil {
		err = m.build(ctx, binary, dir)
	}
	if before != "" {
		m.compiled = kept
	}
	if err == nil {
		if err := seal(dir, before, key); err != nil {
			m.log.Warn("the compiled module stays out of the cache", "module", m.name, "err", err)
		}
		return nil
	}
	if ctx.Err() != nil {
		return err
	}
	// Whether the module or the cache is at fault shows without the cache.
	failed := m.build(ctx, binary, "")
	if failed == nil {
		m.log.Warn("the compilation cache cannot be used", "module", m.name, "err", err)
	}
	if err := m.discard(dir); err != nil {
		m.log.Warn("removing a compiled module from the cache", "module", m.name, "err", err)
	}
	return failed
}

// sealFile authenticates a module's folder. The engine has a checksum for code
// only, believes the other numbers of a damaged file, and some of them make it
// ask for more memory than there is, which ends the process.
const sealFile = "seal"

// unspoiled removes a folder that is not as seal has left it, and returns the
// seal of what is there: "" when there is nothing.
func (m *Module) unspoiled(dir string, key []byte) (sum string, err error) {
	want, err := os.ReadFile(filepath.Join(dir, sealFile))
	if errors.Is(err, fs.ErrNotExist) {
		// Not there, or left half-finished.
		return "", m.discard(dir)
	}
	if err != nil {
		return "", fmt.Errorf("read the seal of a cached module: %w", err)
	}
	if sum, err = sealOf(dir, key); err != nil {
		return "", err
	}
	if !hmac.Equal([]byte(sum), want) {
		m.log.Warn("compiling anew: the cached module is damaged", "module", m.name)
		return "", m.discard(dir)
	}
	return sum, nil
}

// discard removes what the engine has in a module's folder; snapshots have seals
// of their own.
func (m *Module) discard(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || m.opened {
		return nil // an opened module's folder is not its own to write to
	}
	if err != nil {
		return fmt.Errorf("read the folder of a cached module: %w", err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == sealFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// seal stores the seal of a folder in which before was the last one.
func seal(dir, before string, key []byte) error {
	sum, err := sealOf(dir, key)
	if err != nil || sum == before {
		return err
	}
	temporary, err := os.CreateTemp(dir, sealFile+".*")
	if err != nil {
		return fmt.Errorf("seal a compiled module: %w", err)
	}
	_, err = temporary.WriteString(sum)
	err = errors.Join(err, temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), filepath.Join(dir, sealFile))
	}
	if err != nil {
		err = errors.Join(err, os.Remove(temporary.Name()))
		return fmt.Errorf("seal a compiled module: %w", err)
	}
	return nil
}

// sealOf authenticates all files in the folders of a folder, with their names.
func sealOf(dir string, key []byte) (string, error) {
	root := os.DirFS(dir)
	sum := hmac.New(sha256.New, key)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Dir(name) == "." {
			return err
		}
		file, err := root.Open(name)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // only read
		info, err := file.Stat()
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%q %d\n", name, info.Size())
		n, err := io.Copy(sum, file)
		if err == nil && n != info.Size() {
			err = errors.New("it changes while it is read")
		}
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the cached module: %w", err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
