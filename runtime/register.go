package runtime

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// A Registrar makes modules ready in a process that can be killed: it has a
// Runtime of its own Register the module there.
type Registrar interface {
	// Register returns when what there is to know of the module lies in r.Dir, or
	// with the reason why it cannot be run: a *beacon.Error with code Refused,
	// Timeout or MemoryLimit, which are remembered. Other errors are of the host.
	Register(ctx context.Context, r Registration) error
}

// A Registration is what a Registrar's process needs: Config.CacheDir and
// CacheKey, and what to register. It may write to Dir, and nowhere else.
type Registration struct {
	Source Source // without Admit
	Dir    string
	Key    []byte
}

// Kept is a module that was made ready and left in a folder, for Open.
type Kept struct {
	// Digest is that of the module, which names a folder in Dir. What is there is
	// authenticated with Key, and Of says what it depended on.
	Dir    string
	Key    []byte
	Digest string
	Of     []byte
}

// Registered is what is known of a module that was made ready.
type Registered struct {
	Kept
	Name     string
	Manifest hostfuncs.Manifest
	Facts    *module.Facts
	Command  bool // a plain WASI program

	temporary bool
}

// Discard removes what was left of the module if it is in no cache.
func (r *Registered) Discard() error {
	if !r.temporary {
		return nil
	}
	return os.RemoveAll(r.Dir)
}

// ErrDamaged is wrapped by errors about a kept module that is not as it was
// left, or is gone. Forget and Register it again.
var ErrDamaged = errors.New("what was kept of the module is damaged")

// Register makes a module ready to be opened, unless that was done before: it is
// checked, rewritten and compiled, it describes and initialises itself, and what
// comes of that is left in the cache. Without a cache it lies in a temporary
// folder, until Discard. src.Admit is not asked.
func (r *Runtime) Register(ctx context.Context, src Source) (_ *Registered, err error) {
	src.Admit = nil
	m := r.module(src)
	m.keepsAll = true
	if m.madeOf == nil {
		return nil, beacon.Errorf(beacon.Internal, "module %s: the file of this program cannot be found", m.name)
	}
	temporary := m.cache.dir == ""
	if temporary {
		dir, err := os.MkdirTemp("", "beacon-module-")
		if err != nil {
			return nil, fmt.Errorf("make a folder for module %s: %w", m.name, err)
		}
		key := make([]byte, keySize)
		_, _ = rand.Read(key) // never fails
		m.cache = &cache{dir: dir, own: key}
		defer func() {
			if err != nil {
				err = errors.Join(err, os.RemoveAll(dir))
			}
		}()
	}
	unlock, err := m.cache.lockShared(ctx, m.digest)
	if err != nil {
		return nil, err
	}
	found, err := m.registered()
	err = errors.Join(err, unlock())
	if err == nil && found == nil {
		found, err = m.registerAlone(ctx, r.registrar, src)
	}
	if err != nil {
		return nil, err
	}
	found.temporary = temporary
	return found, nil
}

// registerAlone registers the module when no other process does, which may have
// been done when this one's turn comes.
func (m *Module) registerAlone(ctx context.Context, registrar Registrar, src Source) (_ *Registered, err error) {
	unlock, err := m.cache.lock(ctx, m.digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	// What was just made can be taken away by hand: it is made again.
	for range 3 {
		found, err := m.registered()
		if err != nil {
			return nil, err
		}
		if found != nil {
			return found, nil
		}
		if err := m.refused(); err != nil {
			return nil, err
		}
		if registrar != nil {
			err = m.registerElsewhere(ctx, registrar, src)
		} else {
			err = m.register(ctx, src)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, beacon.Errorf(beacon.Internal, "module %s: what was made of it does not last", m.name)
}

// registerAndOpen is Load with a Registrar.
func (r *Runtime) registerAndOpen(ctx context.Context, src Source) (m *Module, err error) {
	for range 3 {
		kept, err := r.Register(ctx, src)
		if err != nil {
			return nil, err
		}
		m, err = r.openLocked(ctx, kept.Kept, src)
		if errors.Is(err, ErrDamaged) {
			r.log.Warn("a kept module is made again", "module", kept.Name, "err", err)
			err = r.Forget(ctx, kept.Kept)
			if err == nil {
				continue
			}
		}
		if kept.temporary && m != nil {
			m.temporary = kept
			return m, err
		}
		return m, errors.Join(err, kept.Discard())
	}
	return nil, fmt.Errorf("module %s: %w, again and again", beacon.Excerpt(src.Name, 128), ErrDamaged)
}

// openLocked is Open where others may register the same module.
func (r *Runtime) openLocked(ctx context.Context, k Kept, src Source) (*Module, error) {
	unlock, err := (&cache{dir: k.Dir}).lockShared(ctx, k.Digest)
	if err != nil {
		return nil, err
	}
	m, err := r.Open(ctx, k, src)
	return m, errors.Join(err, unlock())
}

// registered finds the module as it was left; nil if it was not.
func (m *Module) registered() (*Registered, error) {
	r, kept, err := m.readRecord()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		m.log.Warn("a kept module cannot be used", "module", m.name, "err", err)
		return nil, m.forgetAll()
	case string(r.Source) != string(m.madeOf) || kept.Taken.After(time.Now()) || time.Since(kept.Taken) > recordAge || kept.Facts == nil:
		return nil, m.forgetAll()
	}
	m.rawManifest, m.recalled = kept.Manifest, true
	defer func() { m.recalled = false }()
	if err := m.describe(context.Background()); err != nil {
		return nil, err
	}
	e, err := check(kept.Facts, m.limits.Memory)
	if err != nil {
		return nil, m.refusal(err)
	}
	key, err := m.cache.keyOf(m.digest)
	if err != nil {
		return nil, err
	}
	return &Registered{
		Kept: Kept{Dir: m.cache.dir, Key: key, Digest: m.digest, Of: m.madeOf},
		Name: m.name, Manifest: m.manifest, Facts: kept.Facts, Command: e.command,
	}, nil
}

// register does it here.
func (m *Module) register(ctx context.Context, src Source) error {
	if err := m.makeReady(ctx, src.Binary); err != nil {
		return m.refusal(err)
	}
	_, err := m.finish(ctx, src, nil) // which closes it after an error
	if err != nil {
		return err
	}
	kept := m.base.retain()
	if !m.base.initialized && !m.poolConfig.Fresh && m.prepared.Lasting == "" {
		var lasting *lastingError
		switch s, err := m.snapshot(ctx); {
		case err == nil:
			kept, err = s, kept.release()
			m.note(err)
		case errors.As(err, &lasting):
			m.prepared.Lasting = lasting.reason
		case ctx.Err() == nil:
			m.log.Warn("instances cannot be had initialised", "module", m.name, "err", err)
			m.unready = err.Error()
		}
	}
	if ctx.Err() == nil {
		err = m.remember(kept)
	}
	return errors.Join(err, kept.release(), m.Close(ctx))
}

// registerElsewhere has a registrar do it, in a folder of its own whose content
// comes into the cache when it has ended.
func (m *Module) registerElsewhere(ctx context.Context, registrar Registrar, src Source) (err error) {
	key, err := m.cache.keyOf(m.digest)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(m.cache.dir, "register-")
	if err != nil {
		return fmt.Errorf("make a folder to register module %s in: %w", m.name, err)
	}
	defer func() {
		if gone := os.RemoveAll(dir); err == nil {
			err = gone
		}
	}()
	folder := filepath.Join(dir, m.digest)
	if err := os.Mkdir(folder, 0o700); err != nil {
		return fmt.Errorf("make a folder to register module %s in: %w", m.name, err)
	}
	// What was compiled for other limits or another configuration need not be
	// compiled again.
	if sum, err := m.unspoiled(m.cache.folder(m.digest), key); err != nil || sum != "" {
		if err == nil {
			err = copyCode(m.cache.folder(m.digest), folder)
		}
		m.note(err)
	}
	if err := registrar.Register(ctx, Registration{Source: src, Dir: dir, Key: key}); err != nil {
		if ctx.Err() == nil {
			m.refuse(err)
		}
		return err
	}
	return m.install(folder)
}

// copyCode copies what the engine has in a module's folder, and its seal.
func copyCode(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		name, rerr := filepath.Rel(from, path)
		if err = errors.Join(err, rerr); err != nil || name == "." {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.Mkdir(target, 0o700)
		case filepath.Dir(name) == "." && name != sealFile:
			return nil
		}
		return copyFile(path, target)
	})
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// install moves what a registrar's process has left into the cache. The process
// has looked at a module that nobody vouches for.
func (m *Module) install(folder string) error {
	err := filepath.WalkDir(folder, func(_ string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && !entry.Type().IsRegular() {
			err = errors.New("it has left something else than files")
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("register module %s: %w", m.name, err)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return fmt.Errorf("register module %s: %w", m.name, err)
	}
	target := m.cache.folder(m.digest)
	if err := os.MkdirAll(target, 0o700); err != nil {
		return fmt.Errorf("keep module %s: %w", m.name, err)
	}
	m.forget()
	for _, e := range entries {
		if !e.IsDir() && e.Name() != sealFile && !kept(e.Name()) {
			continue
		}
		to := filepath.Join(target, e.Name())
		if e.IsDir() {
			if err := os.RemoveAll(to); err != nil {
				return fmt.Errorf("keep module %s: %w", m.name, err)
			}
		}
		if err := os.Rename(filepath.Join(folder, e.Name()), to); err != nil {
			return fmt.Errorf("keep module %s: %w", m.name, err)
		}
	}
	return nil
}

const (
	// refusalPrefix begins the names of files that say why a module was refused.
	refusalPrefix = "refused-"
	// refusalAge is how long that counts.
	refusalAge = time.Hour
)

// A refusalRecord is why a module was refused.
type refusalRecord struct {
	Code    beacon.Code
	Message string
	At      time.Time
}

// refuse remembers that a module cannot be run.
func (m *Module) refuse(err error) {
	var ours *beacon.Error
	if !errors.As(err, &ours) {
		return
	}
	switch ours.Code {
	case beacon.Refused, beacon.Timeout, beacon.MemoryLimit:
	default:
		return
	}
	key, err := m.cache.keyOf(m.digest)
	if err == nil {
		r := snapshot.Record{Source: m.madeOf}
		if r.Meta, err = json.Marshal(refusalRecord{ours.Code, ours.Message, time.Now()}); err == nil {
			if err = os.MkdirAll(m.cache.folder(m.digest), 0o700); err == nil {
				err = r.Write(m.recordFile(refusalPrefix), key)
			}
		}
	}
	m.note(err)
}

// refused is why the module was refused not long ago; nil if it was not.
func (m *Module) refused() error {
	if _, err := os.Lstat(m.recordFile(refusalPrefix)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	key, err := m.cache.keyOf(m.digest)
	if err != nil {
		return err
	}
	r, err := snapshot.ReadRecord(m.recordFile(refusalPrefix), key)
	var why refusalRecord
	if err == nil && json.Unmarshal(r.Meta, &why) == nil && string(r.Source) == string(m.madeOf) {
		if age := time.Since(why.At); age >= 0 && age < refusalAge {
			return beacon.Errorf(why.Code, "%s (found %s ago, and remembered for an hour; --no-cache tries again)", why.Message, max(age, time.Second).Round(time.Second))
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		_ = os.Remove(m.recordFile(refusalPrefix)) // it only delays
	}
	return nil
}

// forgetAll removes what is kept of the module.
func (m *Module) forgetAll() error {
	for _, prefix := range []string{recordPrefix, linePrefix} {
		if err := os.Remove(m.recordFile(prefix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove what is kept of module %s: %w", m.name, err)
		}
	}
	return nil
}

// Forget removes a module that Open has found damaged.
func (r *Runtime) Forget(ctx context.Context, k Kept) error {
	unlock, err := (&cache{dir: k.Dir}).lock(ctx, k.Digest)
	if err != nil {
		return err
	}
	err = os.RemoveAll(filepath.Join(k.Dir, k.Digest))
	if err = errors.Join(err, unlock()); err != nil {
		return fmt.Errorf("remove what is kept of a module: %w", err)
	}
	return nil
}

// Open loads a module that was made ready. Nothing is compiled. src is what it
// was registered with; its Binary is not needed.
func (r *Runtime) Open(ctx context.Context, k Kept, src Source) (*Module, error) {
	src.Binary = nil
	m := r.module(src)
	m.digest, m.madeOf, m.cache, m.opened = k.Digest, k.Of, &cache{dir: k.Dir, own: k.Key}, true
	if !m.recall() {
		return nil, fmt.Errorf("module %s: %w", m.name, ErrDamaged)
	}
	if err := m.translate(ctx); err != nil {
		err = errors.Join(err, m.base.release())
		return nil, cmp.Or(context.Cause(ctx), fmt.Errorf("module %s: %w", m.name, err))
	}
	return m.finish(ctx, src, r.memory)
}

// Link makes a kept module available in another folder, which must be on the
// same file system if copying is to be avoided.
func (k Kept) Link(ctx context.Context, dir string) (_ Kept, err error) {
	unlock, err := (&cache{dir: k.Dir}).lockShared(ctx, k.Digest)
	if err != nil {
		return Kept{}, err
	}
	from, to := filepath.Join(k.Dir, k.Digest), filepath.Join(dir, k.Digest)
	err = filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		name, rerr := filepath.Rel(from, path)
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		target := filepath.Join(to, name)
		switch {
		case entry.IsDir():
			return os.Mkdir(target, 0o700)
		case !entry.Type().IsRegular():
			return nil
		case os.Link(path, target) == nil:
			return nil
		}
		return copyFile(path, target)
	})
	if err = errors.Join(err, unlock()); err != nil {
		return Kept{}, fmt.Errorf("link what is kept of a module: %w", err)
	}
	k.Dir = dir
	return k, nil
}
