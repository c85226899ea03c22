package runtime

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

const (
	// recordPrefix begins the names of snapshots in a module's folder of the cache.
	recordPrefix = "snapshot-"
	// recordAge is how long one is used. What a guest has made of random bytes, and
	// nobody renews, such as the keys with which Go hashes, is no older than that.
	recordAge = 24 * time.Hour
	// recordMemory is how large the memory of a snapshot may be that is kept, in
	// bytes.
	recordMemory = 64 << 20
)

// A record is what is known of a module that is ready to run, besides its binary
// and its memory.
type record struct {
	Facts    *module.Facts
	Entries  map[string]int32
	Globals  []module.MutableGlobal
	Taints   bool
	Manifest []byte
	Values   []uint64 // of Globals; null for what they begin with
	Flags    []uint16
	Random   []int
	Cheap    int
	Renewal  Random
	WarmedUp bool
	Took     time.Duration
	Taken    time.Time
}

// origin is what a snapshot depends on. Any difference makes another one.
func (m *Module) origin(src Source) []byte {
	program, err := os.Executable()
	if err != nil {
		return nil
	}
	info, err := os.Stat(program)
	if err != nil {
		return nil
	}
	raw, err := json.Marshal(struct {
		// The program, whose every version may rewrite modules differently.
		Program  string
		Size     int64
		Modified int64
		Platform string
		Engine   string
		Module   string
		Name     string
		Limits   Limits
		Config   beacon.Settings
		WarmUp   *hostfuncs.WarmUp
	}{
		program, info.Size(), info.ModTime().UnixNano(), goruntime.GOOS + "/" + goruntime.GOARCH, fmt.Sprintf("%T", m.engine),
		m.digest, m.name, m.limits, src.Config, src.WarmUp,
	})
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

func (m *Module) recordFile() string {
	return filepath.Join(m.cacheDir, m.digest, recordPrefix+hex.EncodeToString(m.madeOf[:8]))
}

// keepsRecords reports whether the module's snapshots are kept on disk.
func (m *Module) keepsRecords() bool {
	return m.cacheDir != "" && m.madeOf != nil && !m.poolConfig.Fresh
}

// recall takes the module as an earlier process has left it, ready to run. It is
// false if there is nothing of use.
func (m *Module) recall() bool {
	if !m.keepsRecords() {
		return false
	}
	var r *snapshot.Record
	key, err := readKey(m.cacheDir)
	if err == nil {
		r, err = snapshot.ReadRecord(m.recordFile(), key)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	var kept record
	if err == nil {
		err = json.Unmarshal(r.Meta, &kept)
	}
	if err != nil {
		m.log.Warn("a kept snapshot cannot be used", "module", m.name, "err", err)
		return false
	}
	now := time.Now()
	if string(r.Source) != string(m.madeOf) || kept.Taken.After(now) || now.Sub(kept.Taken) > recordAge {
		return false
	}
	s := &state{
		globals: kept.Values, flags: kept.Flags, initialized: true, random: goRandom{kept.Random, kept.Cheap},
		renewal: kept.Renewal, warmedUp: kept.WarmedUp, took: kept.Took, taken: kept.Taken,
	}
	if kept.Facts == nil || kept.Values != nil && len(kept.Values) != len(kept.Globals) || !s.random.within(r.Size) {
		return false
	}
	if kept.Facts.HasMemory {
		if s.image, err = snapshot.NewImage(r.Size, r.Pieces...); err != nil {
			m.log.Warn("a kept snapshot cannot be used", "module", m.name, "err", err)
			return false
		}
	}
	m.prepared = &module.Prepared{
		Rewritten: module.Rewritten{Binary: r.Binary, Facts: kept.Facts},
		Entries:   kept.Entries, Globals: kept.Globals, Taints: kept.Taints,
	}
	m.facts, m.base, m.rawManifest = kept.Facts, s, kept.Manifest
	m.recalled = true
	return true
}

// remember keeps a state on disk for the next process, if it may be kept.
func (m *Module) remember(s *state) error {
	binary := m.prepared.Binary
	m.prepared.Binary = nil
	if m.recalled || binary == nil || !m.keepsRecords() || !s.initialized || s.fixed || m.prepared.Lasting != "" ||
		m.prepared.Places != nil || s.size() > recordMemory {
		return nil
	}
	key, err := cacheKey(m.cacheDir)
	if err != nil {
		return err
	}
	meta, err := json.Marshal(record{
		Facts: m.facts, Entries: m.prepared.Entries, Globals: m.prepared.Globals, Taints: m.prepared.Taints, Manifest: m.rawManifest,
		Values: s.globals, Flags: s.flags, Random: s.random.states, Cheap: s.random.cheap,
		Renewal: s.renewal, WarmedUp: s.warmedUp, Took: s.took, Taken: s.taken,
	})
	if err != nil {
		return fmt.Errorf("keep a snapshot: %w", err)
	}
	r := snapshot.Record{Source: m.madeOf, Meta: meta, Binary: binary, Size: int(s.size())}
	if s.image != nil {
		r.Pieces = []snapshot.Piece{{Bytes: s.image.Bytes()}}
	}
	m.forget()
	return r.Write(m.recordFile(), key)
}

// forget removes snapshots of the module that are too old to be used.
func (m *Module) forget() {
	dir := filepath.Join(m.cacheDir, m.digest)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is nothing yet
	}
	for _, e := range entries {
		info, err := e.Info()
		if strings.HasPrefix(e.Name(), recordPrefix) && err == nil && time.Since(info.ModTime()) > recordAge {
			m.note(os.Remove(filepath.Join(dir, e.Name())))
		}
	}
}

// keyFile holds the key of the snapshots in a cache. Whoever can read it can
// write to the cache, too: it guards against files that came from elsewhere, and
// against those that are damaged.
const keyFile = "key"

const keySize = 32

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

// cacheKey returns the key of a cache, and makes one if there is none.
func cacheKey(dir string) ([]byte, error) {
	key, err := readKey(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	file := filepath.Join(dir, keyFile)
	key = make([]byte, keySize)
	_, _ = rand.Read(key) // never fails
	temporary, err := os.CreateTemp(dir, keyFile+".*")
	if err != nil {
		return nil, fmt.Errorf("make a key for the cache: %w", err)
	}
	_, err = temporary.Write(key)
	// Of two processes that do this at a time one wins, and the other's snapshots
	// cannot be read.
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(temporary.Name(), file)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make a key for the cache: %w", err), os.Remove(temporary.Name()))
	}
	return readKey(dir)
}
