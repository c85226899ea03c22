package runtime

import (
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
	"github.com/ultravisor/beacon/runtime/source"
)

const (
	// recordPrefix begins the names of snapshots in a module's folder of the cache.
	recordPrefix = "snapshot-"
	// linePrefix begins those of what tells source lines.
	linePrefix = "lines-"
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
	Lasting  string
	Lines    bool // there is a file with what tells source lines
	Entries  map[string]int32
	Globals  []module.MutableGlobal
	Taints   bool
	Granule  int
	Manifest []byte
	Values   []uint64 // of Globals; null for what they begin with
	Flags    []uint16
	Random   []int
	Cheap    int
	Renewal  Random
	WarmedUp bool
	Took     time.Duration
	Taken    time.Time
	Compiled time.Duration
	// Initialized is false if the state is the one before anything has run.
	Initialized bool
	// Unready says why it could not be initialised in advance; "" if that was not
	// tried, or went well.
	Unready string `json:",omitempty"`
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
		Fresh    bool
	}{
		program, info.Size(), info.ModTime().UnixNano(), goruntime.GOOS + "/" + goruntime.GOARCH, fmt.Sprintf("%T", m.engine),
		m.digest, m.name, m.limits, src.Config, src.WarmUp, src.Pool.Fresh,
	})
	if err != nil {
		return nil
	}
	sum := sha256.Sum256(raw)
	return sum[:]
}

func (m *Module) recordFile(prefix string) string {
	return filepath.Join(m.cache.folder(m.digest), prefix+hex.EncodeToString(m.madeOf[:8]))
}

// keepsRecords reports whether what the module is made of is kept on disk.
func (m *Module) keepsRecords() bool {
	return m.cache.dir != "" && m.madeOf != nil && (!m.poolConfig.Fresh || m.keepsAll)
}

// recall takes the module as an earlier process has left it, ready to run. It is
// false if there is nothing of use.
func (m *Module) recall() bool {
	if !m.keepsRecords() && !m.opened {
		return false
	}
	r, kept, err := m.readRecord()
	if errors.Is(err, fs.ErrNotExist) {
		return false
	}
	if err != nil {
		m.log.Warn("a kept snapshot cannot be used", "module", m.name, "err", err)
		return false
	}
	now := time.Now()
	if string(r.Source) != string(m.madeOf) || kept.Taken.After(now) || now.Sub(kept.Taken) > recordAge && !m.opened {
		return false
	}
	s := &state{
		globals: kept.Values, flags: kept.Flags, initialized: kept.Initialized, random: goRandom{kept.Random, kept.Cheap},
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
		Entries:   kept.Entries, Globals: kept.Globals, Taints: kept.Taints, Granule: kept.Granule, Lasting: kept.Lasting,
	}
	m.facts, m.base, m.rawManifest, m.unready = kept.Facts, s, kept.Manifest, kept.Unready
	m.hasLines = kept.Lines
	m.compiled = kept.Compiled
	m.recalled = true
	return true
}

// readRecord reads what an earlier process has left. The error is that of the
// file system if there is nothing.
func (m *Module) readRecord() (*snapshot.Record, *record, error) {
	if _, err := os.Lstat(m.recordFile(recordPrefix)); err != nil {
		return nil, nil, err
	}
	key, err := m.cache.keyOf(m.digest)
	if err != nil {
		return nil, nil, err
	}
	r, err := snapshot.ReadRecord(m.recordFile(recordPrefix), key)
	if err != nil {
		return nil, nil, err
	}
	var kept record
	if err := json.Unmarshal(r.Meta, &kept); err != nil {
		return nil, nil, fmt.Errorf("read a snapshot: %w", err)
	}
	return r, &kept, nil
}

// remember keeps a state on disk for the next process, if it may be kept; if
// not, and all is to be kept, the one before anything has run.
func (m *Module) remember(s *state) error {
	m.keeping.Lock()
	defer m.keeping.Unlock()
	binary := m.prepared.Binary
	m.prepared.Binary = nil
	if m.recalled || binary == nil || !m.keepsRecords() {
		return nil
	}
	fit := s.initialized && !s.fixed && !m.poolConfig.Fresh && m.prepared.Lasting == "" && s.size() <= recordMemory
	if !m.keepsAll && !fit {
		return nil
	}
	key, err := m.cache.keyOf(m.digest)
	if err != nil {
		return err
	}
	r := snapshot.Record{Source: m.madeOf, Binary: binary}
	if !fit {
		s = m.base
	}
	switch {
	case s.image == nil:
	case s == m.base && m.keepsAll: // the image may be large and empty
		for _, d := range m.data {
			r.Pieces = append(r.Pieces, snapshot.Piece{Offset: d.Offset, Bytes: d.Bytes})
		}
	default:
		r.Pieces = []snapshot.Piece{{Bytes: s.image.Bytes()}}
	}
	r.Size = int(s.size())
	r.Meta, err = json.Marshal(record{
		Facts: m.facts, Lasting: m.prepared.Lasting, Lines: m.hasLines, Entries: m.prepared.Entries, Globals: m.prepared.Globals,
		Taints: m.prepared.Taints, Granule: m.prepared.Granule, Manifest: m.rawManifest, Initialized: s.initialized,
		Values: s.globals, Flags: s.flags, Random: s.random.states, Cheap: s.random.cheap,
		Renewal: s.renewal, WarmedUp: s.warmedUp, Took: s.took, Taken: s.taken, Compiled: m.compiled, Unready: m.unready,
	})
	if err != nil {
		return fmt.Errorf("keep a snapshot: %w", err)
	}
	m.forget()
	if m.hasLines {
		if err := m.keepLines(key); err != nil {
			return err
		}
	}
	return r.Write(m.recordFile(recordPrefix), key)
}

// A lineTable finds the source lines of places in the rewritten code.
type lineTable struct {
	places module.Places
	tables source.Tables
}

// lines finds what tells the module's source lines; it is empty if nothing does.
func (m *Module) lines() lineTable {
	m.lineOnce.Do(func() {
		if !m.recalled || !m.hasLines {
			return
		}
		key, err := m.cache.keyOf(m.digest)
		var r *snapshot.Record
		if err == nil {
			r, err = snapshot.ReadRecord(m.recordFile(linePrefix), key)
		}
		var kept lineTable
		if err == nil {
			kept.places, err = module.ParsePlaces(r.Meta)
		}
		if err != nil {
			m.log.Warn("source lines cannot be told", "module", m.name, "err", err)
			return
		}
		if len(r.Pieces) == 3 {
			kept.tables = source.Tables{Line: r.Pieces[0].Bytes, LineStr: r.Pieces[1].Bytes, Str: r.Pieces[2].Bytes}
		}
		m.lineTable = kept
	})
	return m.lineTable
}

// keepLines keeps what tells source lines, in a file that is only read when a
// guest breaks down.
func (m *Module) keepLines(key []byte) error {
	t := m.lineTable.tables
	r := snapshot.Record{Source: m.madeOf, Meta: m.lineTable.places.Append(nil), Verbatim: true, Pieces: []snapshot.Piece{
		{Bytes: t.Line}, {Bytes: t.LineStr}, {Bytes: t.Str},
	}}
	return r.Write(m.recordFile(linePrefix), key)
}

// forget removes snapshots of the module that are too old to be used.
func (m *Module) forget() {
	dir := m.cache.folder(m.digest)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // there is nothing yet
	}
	for _, e := range entries {
		info, err := e.Info()
		if kept(e.Name()) && err == nil && time.Since(info.ModTime()) > recordAge {
			m.note(os.Remove(filepath.Join(dir, e.Name())))
		}
	}
}

// kept reports whether a file of that name in a module's folder is what remember
// or refuse has left.
func kept(name string) bool {
	for _, prefix := range []string{recordPrefix, linePrefix, refusalPrefix} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
