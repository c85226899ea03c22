// Package outbox keeps the reports of a worker on disk until they are
// delivered, so that they survive the end of the process, however it ends.
package outbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// A Dir is a worker.Outbox in a directory: a log of what was put and what was
// delivered, in files that are removed as soon as no report in them waits.
// Reports that are put at the same time reach the disk together. It is safe for
// concurrent use, but calls about one item must not overlap.
type Dir struct {
	root     *os.Root
	log      *slog.Logger
	lock     *os.File
	rotation int64

	mu      sync.Mutex
	settled *sync.Cond // something reached the disk, or failed to
	putting int        // calls of Put
	closed  bool
	loaded  bool             // before that, files are left alone
	reports map[string]place // that wait, by the hash of their item
	old     []*segment       // that are only read, in the order of their numbers
	current *segment         // that is written; nil before the first record
	number  uint64           // of the segment that was made last
	put     uint64           // numbers reports
	buffer  []byte           // of append
}

// A place is where a report is in the log.
type place struct {
	segment *segment
	offset  int64 // of its frame
	length  int64 // with the frame
	order   uint64
	files   []string // that the report refers to
}

// Names of files: of the lock, of segments, and of segments with damage, which
// are kept for a person to look at.
const (
	lockName = "lock"
	ending   = ".log"
	broken   = ".broken"
)

var segmentName = regexp.MustCompile(`^([0-9]{16})\.log(\.broken)?$`)

// rotation is the size from which on a segment is not written any more. The
// log takes at most some segments more than twice what the reports that wait
// take.
const rotation = 4 << 20

// Open makes the directory, if need be with mode 0700, and reads what earlier
// processes left. What a crash cut off at the end of a file goes; a file with
// damage inside is set aside, after its whole reports have been copied; both
// are logged. A nil logger is slog.Default().
//
// Two processes cannot have the same directory open: that is a beacon.Error
// with code beacon.Invalid.
func Open(path string, log *slog.Logger) (*Dir, error) {
	if log == nil {
		log = slog.Default()
	}
	return open(path, log, rotation)
}

func open(path string, log *slog.Logger, rotation int64) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, fmt.Errorf("open outbox: %w", err)
	}
	d := &Dir{root: root, log: log, rotation: rotation, reports: map[string]place{}}
	d.settled = sync.NewCond(&d.mu)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.take(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open outbox: %w", err), d.release())
	}
	return d, nil
}

// take takes the lock, whose file stays for good: removing it would be a race.
func (d *Dir) take() error {
	lock, err := d.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open outbox: %w", err)
	}
	taken, err := tryLock(lock)
	if err != nil {
		return errors.Join(fmt.Errorf("lock outbox %s: %w", d.root.Name(), err), lock.Close())
	}
	if !taken {
		return errors.Join(
			beacon.Errorf(beacon.Invalid, "the outbox %s is in use by another process: end that beacon, or give this one a directory of its own", d.root.Name()),
			lock.Close())
	}
	d.lock = lock
	return nil
}

// load reads all segments.
func (d *Dir) load() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	var damaged *segment // the last one
	for _, name := range names {
		m := segmentName.FindStringSubmatch(name)
		if m == nil {
			continue
		}
		if d.number, err = strconv.ParseUint(m[1], 10, 64); err != nil {
			return fmt.Errorf("number of file %s: %w", name, err) // impossible with 16 digits
		}
		if m[2] != "" {
			continue
		}
		s, err := d.replay(name)
		if err != nil {
			return err
		}
		if s == nil {
			continue
		}
		d.old = append(d.old, s)
		if s.damaged {
			damaged = s
		}
	}
	// What comes after a damaged segment is read with it, so all before it
	// must be copied, too: it may say that they are delivered.
	for damaged != nil && slices.Contains(d.old, damaged) {
		if _, err := d.evacuate(); err != nil {
			d.log.Error("cannot copy the whole reports out of a damaged file; it stays in the outbox", "file", d.path(damaged.name), "err", err)
			break
		}
	}
	d.tidy()
	d.loaded = true
	d.sweep(names)
	return nil
}

// replay reads one segment. It is nil if there is nothing in the file.
func (d *Dir) replay(name string) (_ *segment, err error) {
	if info, err := d.root.Lstat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, beacon.Errorf(beacon.Invalid, "%s is not a regular file: move it away", d.path(name))
	}
	file, err := d.root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	content, err := d.root.ReadFile(name)
	if err != nil {
		return nil, err
	}
	_, headless := parseHead(content)
	if headless != nil && isZero(content[min(headSize, len(content)):]) {
		// The head reaches the disk before any report does.
		d.log.Info("removing an outbox file that a crash left without content", "file", d.path(name))
		return nil, errors.Join(file.Close(), d.root.Remove(name))
	}
	records, gaps, end, err := scan(content)
	if err != nil {
		d.log.Error("a file in the outbox cannot be read; setting it aside", "file", d.path(name+broken), "err", err)
		return nil, errors.Join(file.Close(), d.root.Rename(name, name+broken))
	}
	s := &segment{name: name, file: file, size: end, synced: end}
	copy(s.marker[:], content[len(magic):])
	for _, g := range gaps {
		s.damaged = true
		d.log.Error("a file in the outbox is damaged; setting it aside without the bytes that make no sense",
			"file", d.path(name+broken), "offset", g.offset, "bytes", g.length, "err", g.err)
	}
	if cut := int64(len(content)) - end; cut > 0 && !s.damaged && !isZero(content[end:]) {
		d.log.Info("cutting off a record that a crash left unfinished", "file", d.path(name), "bytes", cut)
		if err := file.Truncate(end); err != nil {
			return nil, err
		}
	}
	for _, r := range records {
		if r.kind == kindReport {
			s.live++
			d.enter(r.hash, place{segment: s, offset: r.offset, length: r.length, order: d.next(), files: r.files})
		} else {
			d.forget(r.hash)
		}
	}
	return s, nil
}

func (d *Dir) next() uint64 {
	d.put++
	return d.put
}

// enter notes that a report waits. Its segment counts it already.
func (d *Dir) enter(hash string, p place) {
	if before, ok := d.reports[hash]; ok {
		if before.order > p.order { // overtaken by one that was put later
			p.segment.live--
			d.dropUnshared(p.files, before.files)
			return
		}
		before.segment.live--
		d.dropUnshared(before.files, p.files)
	}
	d.reports[hash] = p
}

// forget ends the wait of a report. Its files are for the caller to remove,
// once the log says that it is delivered.
func (d *Dir) forget(hash string) (files []string) {
	if p, ok := d.reports[hash]; ok {
		p.segment.live--
		delete(d.reports, hash)
		files = p.files
	}
	return files
}

// dropUnshared removes files that one report refers to and the other does not.
func (d *Dir) dropUnshared(files, others []string) {
	if d.loaded {
		d.drop(without(files, others))
	}
}

// Len is how many reports wait to be delivered.
func (d *Dir) Len() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.reports)
}

// Close ends the use of the directory; the reports in it stay.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	for d.putting > 0 {
		d.settled.Wait()
	}
	if d.current != nil {
		d.retire()
	}
	d.tidy()
	return d.release()
}

// release closes everything, the lock last.
func (d *Dir) release() error {
	var err error
	if d.current != nil {
		d.retire()
	}
	for _, s := range d.old {
		err = errors.Join(err, s.file.Close())
	}
	d.old = nil
	return errors.Join(err, d.lock.Close(), d.root.Close())
}

// Put returns after the reports have reached the disk; that takes one flush,
// which it shares with others. When it fails, nothing is left of them, and those
// that were put before on the same items still wait.
func (d *Dir) Put(reports ...worker.Report) error {
	if len(reports) == 0 {
		return nil
	}
	if err := d.putAll(reports); err != nil {
		return fmt.Errorf("keep %d reports: %w", len(reports), err)
	}
	return nil
}

func (d *Dir) putAll(reports []worker.Report) (err error) {
	contents, files := make([][]byte, len(reports)), make([][]string, len(reports))
	defer func() {
		if err != nil {
			for _, names := range files {
				d.drop(names)
			}
		}
	}()
	for i, r := range reports {
		if r, files[i], err = d.adopt(r); err != nil {
			return err
		}
		if contents[i], err = encode(r); err != nil {
			return err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	places, err := d.append(kindReport, contents...)
	if err != nil {
		return err
	}
	s := places[0].segment
	s.live += len(places)
	d.putting++
	err = d.commit(places[len(places)-1])
	d.putting--
	d.settled.Broadcast()
	if err != nil {
		s.live -= len(places)
		for _, r := range reports {
			d.revoke(r.Hash)
		}
		return err
	}
	for i, r := range reports {
		places[i].files = files[i]
		d.enter(r.Hash, places[i])
	}
	return nil
}

// append writes records, which need not reach the disk, one after the other in
// one segment. A record has its frame before the content. When it fails, nothing
// is left of them.
func (d *Dir) append(kind byte, contents ...[]byte) ([]place, error) {
	if d.closed {
		return nil, fs.ErrClosed
	}
	if d.current != nil && (d.current.size >= d.rotation || d.current.failed != nil) {
		d.retire()
	}
	if d.current == nil {
		if err := d.create(); err != nil {
			return nil, err
		}
	}
	s := d.current
	places := make([]place, len(contents))
	all := contents[0]
	if len(contents) > 1 {
		all = d.buffer[:0]
	}
	at := s.size
	for i, content := range contents {
		frame(content, s.marker, kind)
		places[i] = place{segment: s, offset: at, length: int64(len(content)), order: d.next()}
		at += int64(len(content))
		if len(contents) > 1 {
			all = append(all, content...)
		}
	}
	if len(contents) > 1 && cap(all) <= keptBuffer {
		d.buffer = all
	}
	if _, err := s.file.WriteAt(all, s.size); err != nil {
		s.room = s.size
		if cut := s.file.Truncate(s.size); cut != nil {
			// What was written is at the end of the file, where the reader
			// will cut it off, if nothing more is written.
			d.retire()
			err = errors.Join(err, cut)
		}
		return nil, err
	}
	s.size = at
	if at > s.room {
		s.grow()
	}
	return places, nil
}

// ahead is how much of a file is made before it is needed, in bytes.
const ahead = 256 << 10

// grow makes room for the records to come. To flush records into a file that
// does not grow by them takes the disk half the time: only they are written, and
// nothing about the file.
func (s *segment) grow() {
	s.grown, s.room = true, s.size
	if _, err := s.file.WriteAt(zeros[:], s.size); err != nil {
		_ = s.file.Truncate(s.size) // then it grows record by record, and zeros do no harm
		return
	}
	s.room += ahead
}

var zeros [ahead]byte

// keptBuffer is the size up to which the buffer of append is used again.
const keptBuffer = 8 << 20

// retire has the next record begin a new segment.
func (d *Dir) retire() {
	d.old = append(d.old, d.current)
	d.current = nil
}

// create makes a segment, whose head has reached the disk.
func (d *Dir) create() error {
	d.number++
	s := &segment{name: fmt.Sprintf("%016d%s", d.number, ending), size: int64(headSize), synced: int64(headSize)}
	file, err := d.root.OpenFile(s.name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	head, marker := newHead()
	s.file, s.marker = file, marker
	_, err = file.Write(head[:])
	if err == nil {
		s.grow()
		s.grown = false
		err = file.Sync()
	}
	if err == nil {
		err = d.sync()
	}
	if err != nil {
		return errors.Join(err, file.Close(), d.root.Remove(s.name))
	}
	d.current = s
	return nil
}

// commit returns when the record has reached the disk. One of those who wait
// flushes for all whose records are written by then.
func (d *Dir) commit(p place) error {
	s, end := p.segment, p.offset+p.length
	for s.synced < end {
		if s.failed != nil {
			return s.failed
		}
		if s.syncing {
			d.settled.Wait()
			continue
		}
		s.syncing = true
		written, grown := s.size, s.grown
		s.grown = false
		d.mu.Unlock()
		var err error
		if grown {
			err = s.file.Sync()
		} else {
			err = syncData(s.file)
		}
		d.mu.Lock()
		s.syncing = false
		if err != nil {
			// What the disk has of the segment is unknown from here on, and
			// another flush may say that all is well.
			s.failed = err
		} else {
			s.synced = written
		}
		d.settled.Broadcast()
	}
	return nil
}

// revoke makes up for a report that may be on the disk, or not.
func (d *Dir) revoke(hash string) {
	before, ok := d.reports[hash]
	var err error
	if ok {
		// The record stays where it is, too, and counts there: the copy need
		// not reach the disk.
		var content []byte
		if content, err = d.read(before); err == nil {
			_, err = d.append(kindReport, content)
		}
	} else {
		_, err = d.append(kindDelivered, delivered(hash))
	}
	if err != nil {
		d.log.Warn("a report that could not be kept may come back after a restart", "item", beacon.Excerpt(hash, 200), "err", err)
	}
}

func delivered(hash string) []byte { return append(make([]byte, frameSize), hash...) }

// read reads a record with its frame.
func (d *Dir) read(p place) ([]byte, error) {
	b := make([]byte, p.length)
	if _, err := p.segment.file.ReadAt(b, p.offset); err != nil {
		return nil, err
	}
	if r, err := readRecord(b, p.segment.marker); err != nil {
		return nil, fmt.Errorf("%s at %d: %w", d.path(p.segment.name), p.offset, err)
	} else if r.length != p.length || r.kind != kindReport {
		return nil, fmt.Errorf("%s at %d: another record than before", d.path(p.segment.name), p.offset)
	}
	return b, nil
}

// Pending reads the reports that wait, in the order in which they were put;
// those that were copied since count as put then.
func (d *Dir) Pending() ([]worker.Report, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, fmt.Errorf("read outbox: %w", fs.ErrClosed)
	}
	places := make([]place, 0, len(d.reports))
	for _, p := range d.reports {
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.order, b.order) })
	reports := make([]worker.Report, len(places))
	for i, p := range places {
		b, err := d.read(p)
		if err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		if reports[i], err = decode(b[frameSize:]); err != nil {
			return nil, fmt.Errorf("read outbox: %w", err)
		}
		for output, f := range reports[i].Result.Outputs.Files() {
			f.Path = d.path(f.Path)
			reports[i].Result.Outputs[output] = f
		}
	}
	return reports, nil
}

// Delivered forgets reports. That survives the end of the process but need not
// reach the disk at once: a report that is sent twice does no harm.
func (d *Dir) Delivered(hashes ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return fmt.Errorf("remove delivered reports: %w", fs.ErrClosed)
	}
	var records [][]byte
	var files []string
	for _, hash := range hashes {
		if _, ok := d.reports[hash]; ok {
			files = append(files, d.forget(hash)...)
			records = append(records, delivered(hash))
		}
	}
	if len(records) == 0 {
		return nil
	}
	defer d.drop(files)
	_, err := d.append(kindDelivered, records...)
	if err != nil && len(d.reports) == 0 && d.current != nil {
		// There is no room even for this, but also nothing left to keep.
		d.retire()
	}
	d.tidy()
	if err != nil && len(d.old) == 0 && d.current == nil {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("remove delivered reports: %w", err)
	}
	return nil
}

// tidy removes the oldest segments as long as no report in them waits: a later
// one may say of an older one what was delivered, never the other way round.
// When reports that wait hold up too much, it copies them.
func (d *Dir) tidy() {
	for {
		for len(d.old) > 0 && d.old[0].live == 0 {
			if err := d.remove(); err != nil {
				d.log.Error("cannot remove a file of delivered reports from the outbox", "err", err)
				return
			}
		}
		if len(d.old) == 0 || d.closed || !d.wasteful() {
			return
		}
		if done, err := d.evacuate(); err != nil {
			d.log.Error("cannot compact the outbox", "err", err)
			return
		} else if !done {
			return
		}
	}
}

func (d *Dir) wasteful() bool {
	var total, waiting int64
	for _, s := range d.old {
		total += s.size
	}
	for _, p := range d.reports {
		waiting += p.length
	}
	return total > 4*d.rotation+2*waiting
}

// evacuate copies what waits in the oldest segment to the current one, then
// removes it, unless somebody is putting a report there.
func (d *Dir) evacuate() (bool, error) {
	oldest := d.old[0]
	var moved []string
	for hash, p := range d.reports {
		if p.segment == oldest {
			moved = append(moved, hash)
		}
	}
	if len(moved) != oldest.live {
		return false, nil
	}
	slices.SortFunc(moved, func(a, b string) int { return cmp.Compare(d.reports[a].order, d.reports[b].order) })
	to := make([]place, len(moved))
	for i, hash := range moved {
		content, err := d.read(d.reports[hash])
		if err != nil {
			return false, err
		}
		copied, err := d.append(kindReport, content)
		if err != nil {
			return false, err
		}
		to[i] = copied[0]
		to[i].order, to[i].files = d.reports[hash].order, d.reports[hash].files
	}
	// No other may come in between, so the lock is not given back meanwhile.
	for i, p := range to {
		if i+1 < len(to) && to[i+1].segment == p.segment {
			continue
		}
		if err := p.segment.file.Sync(); err != nil {
			return false, err
		}
	}
	for i, hash := range moved {
		to[i].segment.live++
		oldest.live--
		d.reports[hash] = to[i]
	}
	return true, d.remove()
}

// remove removes the oldest segment; a damaged one it sets aside.
func (d *Dir) remove() error {
	s := d.old[0]
	if err := s.file.Close(); err != nil && !errors.Is(err, fs.ErrClosed) {
		return err
	}
	var err error
	if s.damaged {
		err = d.root.Rename(s.name, s.name+broken)
	} else if err = d.root.Remove(s.name); errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return err
	}
	d.old = slices.Delete(d.old, 0, 1)
	return nil
}

func (d *Dir) path(name string) string { return filepath.Join(d.root.Name(), name) }

func (d *Dir) names() ([]string, error) {
	f, err := d.root.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}
