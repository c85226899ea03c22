package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

const (
	// commitTimeout is how long a request waits for its entry to be durable.
	commitTimeout = 20 * time.Second
	// mostBatch is how large a record becomes before the next is begun, mostWait
	// how many bytes of entries may wait for their turn.
	mostRecord = 1 << 20
	mostWait   = 256 << 20
)

// Errors of a coordinator.
var (
	errUnavailable = errors.New("the hub cannot write this down now")
	errClosing     = errors.New("the hub is shutting down")
	errTaken       = errors.New("another hub has begun to use the journal, which is for one")
)

// A coordinator is this hub's part in the ledger that all hubs share: it writes
// down what its callers ask for, applies what everybody has written down, in the
// journal's order, and acts on what concerns its own connections and callers.
//
// There is one way in: an entry is proposed, becomes durable together with
// others, comes back from the journal, is applied, and whoever proposed it gets
// the answer. Nothing is decided outside of the ledger, so a hub may die between
// any two of these steps.
type coordinator struct {
	cfg     Config
	life    context.Context //nolint:containedctx // that of run, for what is begun by the journal
	log     *slog.Logger
	journal journal.Journal
	files   *files
	ready   chan struct{} // closed when the ledger is up to date
	failed  chan struct{} // closed when the hub cannot go on

	mu       sync.RWMutex
	name     string // of this hub in the journal
	ledger   *ledger.Ledger
	applied  uint64
	series   *series
	changed  chan struct{} // closed, and replaced, when something is applied
	grown    int64         // bytes of records since the snapshot
	compact  int64         // how many of them make a new one worth it
	sockets  map[uint64]*socket
	lastLink uint64
	watchers map[string][]*watcher
	broken   error // for good
	leaving  bool
	lost     bool // another hub has the journal, which is for one

	pmu     sync.Mutex
	waiting []*proposal
	bytes   int
	flight  map[uint64][]*proposal // written, by the number of their record
	n       uint64                 // of the last record
	early   []early                // applied, and not written yet
	called  string                 // name, for those who write
	closed  bool

	wake   chan struct{} // there are proposals
	alarm  chan struct{} // something is due at another time
	landed chan struct{} // a record of ours has come back
	wrote  atomic.Int64  // when a record was last appended
	full   atomic.Bool   // there is no room in the journal
	saving chan uint64   // a snapshot is wanted

	loading sync.WaitGroup // items whose settings are fetched

	seen   sync.Mutex
	polled map[string]time.Time // beacons that polled here
}

// A proposal is an entry on its way.
type proposal struct {
	entry ledger.Entry
	raw   []byte
	// applied is called with the answer, with mu held, before anybody else acts
	// on the entry; it may be nil.
	applied func(ledger.Answer)
	// done gets the error that kept the entry from being applied, or nil.
	done func(error)
}

func newCoordinator(cfg Config, files *files) *coordinator {
	name := instanceName()
	return &coordinator{
		cfg: cfg, log: cfg.Log, journal: cfg.Journal, files: files, name: name, called: name, flight: map[uint64][]*proposal{},
		ledger: ledger.New(), series: newSeries(), changed: make(chan struct{}), ready: make(chan struct{}), failed: make(chan struct{}), compact: cfg.SnapshotBytes,
		sockets: map[uint64]*socket{}, watchers: map[string][]*watcher{}, polled: map[string]time.Time{},
		wake: make(chan struct{}, 1), alarm: make(chan struct{}, 1), landed: make(chan struct{}, 1), saving: make(chan uint64, 1),
	}
}

// instanceName is how this hub is named in what it writes.
func instanceName() string {
	return ledger.Normalise(hostName()) + "-" + strings.ToLower(rand.Text()[:10])
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run is the coordinator's life: it brings the ledger up to date, then takes
// part, until ctx is done.
func (c *coordinator) run(ctx context.Context) {
	var tasks sync.WaitGroup
	defer c.loading.Wait()
	defer tasks.Wait()
	c.life = ctx
	if err := c.begin(ctx, &tasks); err != nil && ctx.Err() == nil {
		c.fail(err)
	}
	<-ctx.Done()
	c.close()
}

// fail has the hub refuse everything from now on.
func (c *coordinator) fail(err error) {
	c.mu.Lock()
	if c.broken == nil {
		c.broken = err
		c.log.Error("the hub cannot go on and refuses all requests", "error", err)
		close(c.failed)
	}
	for _, s := range c.sockets {
		s.stop(closeAway, "the hub has failed")
	}
	c.mu.Unlock()
	c.close()
}

// failure is why the hub cannot go on; nil while it can.
func (c *coordinator) failure() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.broken
}

// leave takes this hub out of the ledger, in time for others to take over, and
// sends everybody away who waits for an item.
func (c *coordinator) leave(ctx context.Context) {
	c.mu.Lock()
	c.leaving = true
	c.abort()
	c.mu.Unlock()
	select {
	case <-c.ready:
	default:
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTimeout)
	defer cancel()
	done := make(chan struct{})
	p := c.offer(ledger.Entry{Stop: &ledger.Stop{}}, nil, func(error) { close(done) })
	select {
	case <-done:
	case <-ctx.Done():
		c.withdraw(p)
	}
}

// leaveTimeout bounds the last entry.
const leaveTimeout = 3 * time.Second

// abort sends those away who wait for an item. It is called with mu held.
func (c *coordinator) abort() {
	for _, list := range c.watchers {
		for _, w := range list {
			w.abort()
		}
	}
	clear(c.watchers)
}

// close answers everybody whose entry is not durable yet, and all to come.
func (c *coordinator) close() {
	c.pmu.Lock()
	c.closed = true
	left := c.waiting
	for _, proposals := range c.flight {
		left = append(left, proposals...)
	}
	clear(c.flight)
	c.waiting, c.bytes = nil, 0
	c.pmu.Unlock()
	for _, p := range left {
		p.done(errClosing)
	}
	c.mu.Lock()
	c.abort()
	c.mu.Unlock()
}

func (c *coordinator) begin(ctx context.Context, tasks *sync.WaitGroup) error {
	after, err := c.load(ctx)
	if err != nil {
		return err
	}
	last, err := c.journal.Last(ctx)
	if err != nil {
		return fmt.Errorf("open the journal: %w", err)
	}
	if last < after {
		return fmt.Errorf("%w: it ends with record %d, and a snapshot was made after record %d", journal.ErrDamaged, last, after)
	}
	caught := make(chan struct{})
	tasks.Go(func() { c.follow(ctx, after, last, caught) })
	select {
	case <-caught:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.failure(); err != nil {
		return err
	}
	tasks.Go(func() { c.commit(ctx) })
	started := make(chan error, 1)
	c.mu.RLock()
	c.enlist(func(err error) { started <- err })
	c.mu.RUnlock()
	select {
	case err := <-started:
		if err != nil {
			return fmt.Errorf("begin in the journal: %w", err)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	tasks.Go(func() { c.clock(ctx) })
	tasks.Go(func() { c.snapshots(ctx) })
	close(c.ready)
	return nil
}

// load begins with the newest snapshot.
func (c *coordinator) load(ctx context.Context) (uint64, error) {
	r, seq, err := c.journal.Snapshot(ctx)
	if err != nil {
		return 0, fmt.Errorf("open the newest snapshot: %w", err)
	}
	l := ledger.New()
	if r != nil {
		l, err = ledger.Restore(r)
		if cerr := r.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return 0, fmt.Errorf("read the newest snapshot: %w", err)
		}
	}
	c.mu.Lock()
	c.ledger, c.applied, c.grown, c.series = l, seq, 0, seriesOf(l)
	c.change()
	c.mu.Unlock()
	return seq, nil
}

// enlist makes this hub one of those that the ledger knows, before anything
// else that waits. It is called with mu held, for reading at least.
func (c *coordinator) enlist(done func(error)) {
	entries := []ledger.Entry{{Start: &ledger.Start{URL: c.cfg.URL, Files: c.files.name(), Alone: !c.journal.Shared()}}}
	if settings := c.cfg.settings(); !c.cfg.Guest && !settings.Same(c.ledger.Settings()) {
		if len(c.ledger.Hubs()) > 0 {
			c.log.Warn("the settings of this hub differ from those in force, and replace them for all hubs")
		}
		entries = append(entries, ledger.Entry{Configure: &settings})
	}
	if c.ledger.Secret() == nil {
		entries = append(entries, ledger.Entry{Secret: &ledger.NewSecret{Key: []byte(rand.Text() + rand.Text())}})
	}
	proposals := make([]*proposal, len(entries), len(entries)+8)
	for i, e := range entries {
		proposals[i] = &proposal{entry: e, raw: encodeEntry(e), done: func(error) {}}
	}
	proposals[len(entries)-1].done = done
	c.pmu.Lock()
	c.waiting = append(proposals, c.waiting...)
	c.pmu.Unlock()
	signal(c.wake)
}

func encodeEntry(e ledger.Entry) []byte {
	raw, err := json.Marshal(e)
	if err != nil {
		panic(fmt.Sprintf("hub: an entry does not marshal: %v", err)) // raw JSON in it was checked
	}
	return raw
}

// propose writes an entry down and returns when it is applied. What was begun
// is finished, even if the caller's context ends. The answer is given to
// applied; an error means that the entry has no effect, or, if it is
// errUnavailable, perhaps none.
func (c *coordinator) propose(e ledger.Entry, applied func(ledger.Answer)) error {
	done := make(chan error, 1)
	p := c.offer(e, applied, func(err error) { done <- err })
	timer := time.NewTimer(commitTimeout)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		if c.withdraw(p) {
			return errUnavailable
		}
		return fmt.Errorf("%w: it may be written down later", errUnavailable)
	}
}

// offer is propose for callers who do not wait. Entries that are offered one
// after the other are applied in that order. Done is called once, from any
// goroutine, perhaps before offer returns; it must not wait.
func (c *coordinator) offer(e ledger.Entry, applied func(ledger.Answer), done func(error)) *proposal {
	p := &proposal{entry: e, raw: encodeEntry(e), applied: applied, done: done}
	if len(p.raw) > c.mostEntry() {
		done(fmt.Errorf("%w: %d bytes", journal.ErrTooLarge, len(p.raw)))
		return p
	}
	c.pmu.Lock()
	switch {
	case c.closed:
		c.pmu.Unlock()
		done(errClosing)
		return p
	case e.Submit != nil && c.full.Load():
		c.pmu.Unlock()
		done(journal.ErrFull)
		return p
	case c.bytes+len(p.raw) > mostWait && c.bytes > 0:
		c.pmu.Unlock()
		done(errUnavailable)
		return p
	}
	c.waiting = append(c.waiting, p)
	c.bytes += len(p.raw)
	c.pmu.Unlock()
	signal(c.wake)
	return p
}

// mostEntry is the size of the largest entry.
func (c *coordinator) mostEntry() int { return c.journal.Most() - 1024 }

// withdraw takes a proposal back that is not being written yet.
func (c *coordinator) withdraw(p *proposal) bool {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	for i, other := range c.waiting {
		if other == p {
			c.waiting = append(c.waiting[:i:i], c.waiting[i+1:]...)
			c.bytes -= len(p.raw)
			return true
		}
	}
	return false
}

// commit writes proposals down, all that have come together while the record
// before was on its way: so the disk is asked once for many. What nobody has been
// told of need not be written at once.
func (c *coordinator) commit(ctx context.Context) {
	overdue := time.NewTimer(0)
	defer overdue.Stop()
	armed := false
	for {
		switch early := c.hasEarly(); {
		case !early:
			armed = false
		case !armed:
			overdue.Reset(mostEarliness)
			armed = true
		}
		late := false
		select {
		case <-c.wake:
		case <-overdue.C:
			late = true
		case <-ctx.Done():
			return
		}
		for late || !c.anticipate() {
			r := c.collect(late)
			if r == nil {
				break
			}
			if !c.write(ctx, r) {
				return
			}
			late = false
		}
	}
}

// Bounds on what is applied before it is written: its time, and its bytes.
const (
	mostEarliness  = 5 * time.Millisecond
	mostEarly      = 64 << 10
	mostEarlyEntry = 16 << 10
)

// early is a record that is applied and not written: what it says was submitted,
// the submitters wait and were told nothing yet, and should the hub end before it
// is written, they know that they have to submit it again. It is written with the
// next one, which is usually the result, so that a single item costs the disk one
// turn, not two.
type early struct {
	at  int64 // milliseconds since 1970
	n   uint64
	raw []byte // its entries
}

func (c *coordinator) hasEarly() bool {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	return len(c.early) > 0
}

// anticipate applies what waits without writing it first, if nothing else can
// come of it than that a beacon gets it, and nobody else writes.
func (c *coordinator) anticipate() bool {
	if c.journal.Shared() {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	proposals, record := c.earliest(now)
	if record == nil {
		return false
	}
	answers, events, err := c.ledger.Apply(now, *record)
	if err != nil || len(answers) != len(proposals) {
		panic(fmt.Sprintf("hub: a record of its own is refused: %v", err)) // it is of this version, and the next one
	}
	next := c.ledger.Next()
	for i, p := range proposals {
		if p.applied != nil {
			p.applied(answers[i])
		}
	}
	c.act(events)
	for _, p := range proposals {
		p.done(nil)
	}
	if !next.IsZero() {
		signal(c.alarm)
	}
	return true
}

// earliest takes what waits, if all of it may be applied before it is written.
// It is called with mu held.
func (c *coordinator) earliest(now time.Time) ([]*proposal, *ledger.Record) {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	hub := c.ledger.Hub(c.name)
	if c.closed || len(c.waiting) == 0 || c.broken != nil || c.leaving || c.full.Load() ||
		hub == nil || hub.N != c.n /* something is on its way */ || !c.ledger.Idle(now) {
		return nil, nil
	}
	size := 0
	for _, e := range c.early {
		size += len(e.raw)
	}
	for _, p := range c.waiting {
		size += len(p.raw) + 1
		if s := p.entry.Submit; s == nil || s.Spec == nil || !s.Spec.Waited || s.Spec.Live || len(p.raw) > mostEarlyEntry || size > mostEarly {
			return nil, nil
		}
	}
	proposals := c.waiting
	c.waiting = nil
	c.n++
	record := &ledger.Record{Version: ledger.PlainVersion, Hub: c.called, N: c.n}
	var raw []byte
	for _, p := range proposals {
		// From what is written, not from what was proposed, since the ledger
		// changes what it is given.
		var e ledger.Entry
		if err := json.Unmarshal(p.raw, &e); err != nil {
			panic(fmt.Sprintf("hub: an entry does not unmarshal: %v", err)) // it was marshalled here
		}
		record.Entries = append(record.Entries, e)
		raw = append(append(raw, p.raw...), ',')
		c.bytes -= len(p.raw)
		p.raw = nil
	}
	c.early = append(c.early, early{now.UnixMilli(), c.n, raw[:len(raw)-1]})
	return proposals, record
}

// mostFlight bounds the records that are written and have not come back.
const mostFlight = 64

// A written record is one on its way into the journal.
type written struct {
	hub    string
	n      uint64
	before []early
	raw    []byte // its entries
}

func (w *written) id() string { return fmt.Sprintf("%s-%d", w.hub, w.n) }

// data is what is written.
func (w *written) data() []byte {
	hub := strconv.Quote(w.hub)
	size := len(w.raw) + len(hub) + 128
	for _, e := range w.before {
		size += len(e.raw) + len(hub) + 128
	}
	b := bytes.NewBuffer(make([]byte, 0, size))
	version := ledger.PlainVersion
	if len(w.before) > 0 {
		version = ledger.Version
	}
	fmt.Fprintf(b, `{"Version":%d,"Hub":%s,"N":%d`, version, hub, w.n)
	for i, e := range w.before {
		start := ","
		if i == 0 {
			start = `,"Before":[`
		}
		fmt.Fprintf(b, `%s{"Version":%d,"Hub":%s,"N":%d,"At":%d,"Entries":[%s]}`, start, ledger.PlainVersion, hub, e.n, e.at, e.raw)
	}
	if len(w.before) > 0 {
		b.WriteByte(']')
	}
	if w.raw != nil {
		fmt.Fprintf(b, `,"Entries":[%s]`, w.raw)
	}
	b.WriteByte('}')
	return b.Bytes()
}

// collect makes the next record of what waits, or, if it is late, of what is
// applied already; nil when there is nothing.
func (c *coordinator) collect(late bool) *written {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	if len(c.waiting) == 0 && (!late || len(c.early) == 0) {
		return nil
	}
	limit := min(mostRecord, c.journal.Most()-512)
	count, size := 0, 0
	for _, e := range c.early {
		size += len(e.raw) + 256
	}
	if size > 0 && len(c.waiting) > 0 && size+len(c.waiting[0].raw) > limit {
		return c.next(nil) // there is no room for both
	}
	for _, p := range c.waiting {
		if count > 0 && size+len(p.raw)+1 > limit {
			break
		}
		count++
		size += len(p.raw) + 1
	}
	proposals := c.waiting[:count:count]
	c.waiting = c.waiting[count:]
	return c.next(proposals)
}

// next is a record of proposals, after what is applied already. It is called with
// pmu held.
func (c *coordinator) next(proposals []*proposal) *written {
	c.n++
	w := &written{hub: c.called, n: c.n, before: c.early}
	c.early = nil
	for i, p := range proposals {
		if i > 0 {
			w.raw = append(w.raw, ',')
		}
		w.raw = append(w.raw, p.raw...)
		c.bytes -= len(p.raw)
		p.raw = nil
	}
	c.flight[c.n] = append([]*proposal{}, proposals...)
	return w
}

// Waits between attempts to write a record.
const (
	retryLeast = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// write appends a record until there is no doubt that it is in the journal. It
// is false when that cannot be or ctx is done.
func (c *coordinator) write(ctx context.Context, w *written) bool {
	n, id, record := w.n, w.id(), w.data()
	for pause := retryLeast; ; pause = min(2*pause, retryMost) {
		err := c.journal.Append(ctx, id, record)
		switch {
		case err == nil:
			c.wrote.Store(time.Now().UnixNano())
			if c.full.CompareAndSwap(true, false) {
				c.log.Info("there is room again: the hub takes work")
			}
			return c.await(ctx, func() bool { return c.inFlight() < mostFlight })
		case ctx.Err() != nil:
			return false
		case errors.Is(err, journal.ErrBroken):
			c.fail(err)
			return false
		case errors.Is(err, journal.ErrFull) || errors.Is(err, journal.ErrTooLarge):
			// Whoever has proposed something is told. The number of the record is
			// spent, since nobody can be sure that it was not written, so
			// that an empty one has to follow under it.
			c.refuse(n, err)
			w.raw = nil
			record = w.data()
			if !c.full.Swap(true) {
				c.log.Error("the hub has no room for new work and refuses it; what it has is safe", "error", err)
			}
			pause = retryMost
		default:
			c.log.Warn("the journal does not take a record; trying again", "record", id, "error", err, "in", pause)
		}
		waiting, cancel := context.WithTimeout(ctx, pause)
		landed := c.await(waiting, func() bool { return c.landedAlready(n) && !c.full.Load() }) // it was written after all
		cancel()
		switch {
		case landed:
			return true
		case ctx.Err() != nil:
			return false
		}
	}
}

// refuse answers the proposals of a record that the journal did not take.
func (c *coordinator) refuse(n uint64, err error) {
	c.pmu.Lock()
	refused := c.flight[n]
	delete(c.flight, n)
	c.pmu.Unlock()
	for _, p := range refused {
		p.done(err)
	}
}

// await waits until something holds that changes when records come back.
func (c *coordinator) await(ctx context.Context, holds func() bool) bool {
	for !holds() {
		select {
		case <-c.landed:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

func (c *coordinator) inFlight() int {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	return len(c.flight)
}

// landedAlready reports whether a record of ours has come back, or belongs to
// an earlier life of this hub.
func (c *coordinator) landedAlready(n uint64) bool {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	_, waits := c.flight[n]
	return !waits
}

// follow applies the journal.
func (c *coordinator) follow(ctx context.Context, after, last uint64, caught chan struct{}) {
	reached := func() {
		if caught != nil {
			close(caught)
			caught = nil
		}
	}
	defer reached()
	if after >= last {
		reached()
	}
	for {
		err := c.journal.Follow(ctx, after, func(r journal.Record) error {
			if err := c.apply(r); err != nil {
				return err
			}
			if r.Seq >= last {
				reached()
			}
			return nil
		})
		if ctx.Err() != nil {
			return
		}
		if !errors.Is(err, journal.ErrTrimmed) {
			c.fail(fmt.Errorf("read the journal: %w", err))
			return
		}
		// It was cut off for so long that the others have gone on without it.
		c.log.Warn("this hub has missed a part of the journal and starts from a snapshot", "error", err)
		if after, err = c.load(ctx); err != nil {
			c.fail(err)
			return
		}
		c.mu.Lock()
		c.restart()
		c.mu.Unlock()
	}
}

// apply is one record of the journal.
func (c *coordinator) apply(r journal.Record) error {
	var record ledger.Record
	if err := json.Unmarshal(r.Data, &record); err != nil {
		return fmt.Errorf("%w: record %d: %w", journal.ErrDamaged, r.Seq, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Seq != c.applied+1 {
		return fmt.Errorf("%w: after record %d comes %d", journal.ErrDamaged, c.applied, r.Seq)
	}
	next := c.ledger.Next()
	answers, events, err := c.ledger.Apply(r.Time, record)
	if err != nil {
		return err
	}
	c.applied = r.Seq
	c.change()
	c.grown += int64(len(r.Data))
	var mine []*proposal
	if record.Hub == c.name && answers != nil {
		mine = c.land(record.N)
	}
	if len(mine) != len(answers) {
		mine = nil // of an earlier life under this name, which cannot be
	}
	for i, p := range mine {
		if p.applied != nil {
			p.applied(answers[i])
		}
	}
	c.act(events)
	if c.lost {
		return errTaken
	}
	for i, p := range mine {
		var err error
		if errors.Is(answers[i].Err, ledger.ErrUnknownHub) {
			err = errUnavailable
		}
		p.done(err)
	}
	if mine != nil {
		signal(c.landed)
		if c.grown >= c.compact {
			select {
			case c.saving <- r.Seq:
			default:
			}
		}
	}
	if at := c.ledger.Next(); !at.Equal(next) {
		signal(c.alarm)
	}
	return nil
}

// change wakes those who look. It is called with mu held.
func (c *coordinator) change() {
	close(c.changed)
	c.changed = make(chan struct{})
}

// land returns the proposals of a record that has come back.
func (c *coordinator) land(n uint64) []*proposal {
	c.pmu.Lock()
	defer c.pmu.Unlock()
	mine := c.flight[n]
	delete(c.flight, n)
	return mine
}

// act does what follows from a record for the connections and callers of this
// hub.
func (c *coordinator) act(events []ledger.Event) {
	for _, e := range events {
		switch e.Kind {
		case ledger.HubGone:
			switch {
			case e.Hub != c.name || c.leaving:
			case !c.journal.Shared():
				c.lost = true
			default:
				c.log.Warn("this hub was silent for so long that the others have taken it for gone; it begins anew")
				c.restart()
			}
			continue
		case ledger.Progressed:
			for _, w := range c.watchers[e.Hash] {
				w.progress(progress{e.Progress.Data, e.Progress.Log, e.Progress.Binary})
			}
		case ledger.Ended:
			c.series.ended(e.Item)
			if list := c.watchers[e.Hash]; list != nil {
				item := e.Item.Copy()
				for _, w := range list {
					w.end(item)
				}
				delete(c.watchers, e.Hash)
			}
		}
		if e.Hub == c.name && e.Link != 0 {
			if s := c.sockets[e.Link]; s != nil {
				c.tell(s, e)
			}
		}
	}
}

// tell passes an event on to the worker that it concerns.
func (c *coordinator) tell(s *socket, e ledger.Event) {
	switch e.Kind {
	case ledger.Registered:
		s.beacon = e.Beacon
		if c.ledger.Beacon(e.Beacon).Lists {
			s.listed.CompareAndSwap(0, time.Now().UnixNano()) // it is expected to say soon what it has
		}
		s.event(event{EventType: protocol.EventRegistered, BeaconID: e.Beacon, SessionID: s.handout})
	case ledger.Replaced:
		c.log.Warn("a beacon registered under a name that is connected; the earlier connection is closed", "beacon", e.Beacon)
		s.beacon = ""
		s.stop(closePolicy, "another beacon registered under this name")
	case ledger.Dismissed:
		s.beacon = ""
		s.stop(closeNormal, "deregistered")
	case ledger.Unlinked:
		s.beacon = ""
	case ledger.Assigned:
		c.deliver(s, e.Item)
	case ledger.Unwanted:
		s.cancel(e.Hash, e.Attempt, e.Reason)
	}
}

// restart makes this hub another one: its place in the ledger is lost. Its
// workers come back by themselves. It is called with mu held.
func (c *coordinator) restart() {
	c.name = instanceName()
	for _, s := range c.sockets {
		s.beacon = ""
		s.stop(closeAway, "the hub begins anew")
	}
	for hash, list := range c.watchers {
		item, err := c.ledger.Get(hash)
		switch {
		case err != nil:
			for _, w := range list {
				w.abort()
			}
		case item.Final():
			for _, w := range list {
				w.end(item)
			}
		default:
			continue
		}
		delete(c.watchers, hash)
	}
	var lost []*proposal
	c.pmu.Lock()
	for _, proposals := range c.flight {
		lost = append(lost, proposals...)
	}
	clear(c.flight)
	c.n, c.called, c.early = 0, c.name, nil
	c.pmu.Unlock()
	for _, p := range lost {
		p.done(fmt.Errorf("%w: it may be written down", errUnavailable))
	}
	signal(c.landed)
	c.enlist(func(error) {})
}

// patience is for time that passes more slowly in the journal than here.
const patience = 100 * time.Millisecond

// clock lets time pass in the ledger when something is due, and shows the other
// hubs that this one is there.
func (c *coordinator) clock(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var ticking atomic.Bool
	tick := func() {
		if ticking.CompareAndSwap(false, true) {
			c.offer(ledger.Entry{Tick: &ledger.Tick{}}, nil, func(error) {
				ticking.Store(false)
				signal(c.alarm)
			})
		}
	}
	lastSeen := time.Now()
	for {
		select {
		case <-timer.C:
		case <-c.alarm:
		case <-ctx.Done():
			return
		}
		c.mu.RLock()
		next, set := c.ledger.Next(), c.ledger.Settings()
		c.mu.RUnlock()
		now := time.Now()
		wait := time.Hour
		sooner := func(d time.Duration) { wait = min(wait, max(d, time.Millisecond)) }
		if !next.IsZero() {
			if due := next.Sub(now); due <= 0 {
				tick()
				sooner(patience) // should time pass more slowly in the journal than here
			} else {
				sooner(due)
			}
		}
		if c.journal.Shared() {
			beat := time.Duration(set.HubMs) * time.Millisecond / 4
			silent := now.Sub(time.Unix(0, c.wrote.Load()))
			if silent >= beat {
				tick()
				silent = 0
			}
			sooner(beat - silent)
		}
		period := time.Duration(set.HeartbeatMs) * time.Millisecond / 4
		if now.Sub(lastSeen) >= period {
			lastSeen = now
			c.tellSeen(period)
		}
		if c.hasPolled() {
			sooner(period - now.Sub(lastSeen))
		}
		timer.Reset(wait)
	}
}

// heard notes that a beacon that polls is there.
func (c *coordinator) heard(id string) {
	c.seen.Lock()
	defer c.seen.Unlock()
	first := len(c.polled) == 0
	c.polled[id] = time.Now()
	if first {
		signal(c.alarm)
	}
}

func (c *coordinator) lastHeard(id string) time.Time {
	c.seen.Lock()
	defer c.seen.Unlock()
	return c.polled[id]
}

func (c *coordinator) hasPolled() bool {
	c.seen.Lock()
	defer c.seen.Unlock()
	return len(c.polled) > 0
}

// tellSeen writes down which beacons have polled lately.
func (c *coordinator) tellSeen(period time.Duration) {
	lately := map[string]int64{}
	c.seen.Lock()
	for id, at := range c.polled {
		switch age := time.Since(at); {
		case age <= period:
			lately[id] = at.UnixMilli()
		case age > 100*period:
			delete(c.polled, id)
		}
	}
	c.seen.Unlock()
	if len(lately) > 0 {
		c.offer(ledger.Entry{Seen: &ledger.Seen{Beacons: lately}}, nil, func(error) {})
	}
}

// snapshots keeps the journal short.
func (c *coordinator) snapshots(ctx context.Context) {
	for {
		select {
		case <-c.saving:
		case <-ctx.Done():
			return
		}
		if err := c.snapshot(ctx); err != nil && ctx.Err() == nil {
			c.log.Error("no snapshot could be kept; the journal grows until one can", "error", err)
		}
	}
}

func (c *coordinator) snapshot(ctx context.Context) error {
	c.mu.Lock()
	image, err := c.ledger.Snapshot()
	seq := c.applied
	if err == nil {
		c.grown = 0
	}
	c.mu.Unlock()
	if err != nil {
		return err
	}
	var size int64
	began := time.Now()
	err = c.journal.Save(ctx, seq, func(w io.Writer) error {
		n, err := image.WriteTo(w)
		size = n
		return err
	})
	if err != nil {
		return fmt.Errorf("save a snapshot: %w", err)
	}
	// Writing down as much again as the last snapshot was long keeps the cost of
	// snapshots in proportion.
	c.mu.Lock()
	c.compact = max(c.cfg.SnapshotBytes, size)
	c.mu.Unlock()
	c.log.Debug("snapshot kept", "record", seq, "bytes", size, "took", time.Since(began))
	return nil
}

// number is the next link's.
func (c *coordinator) connect(s *socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastLink++
	s.link = c.lastLink
	c.sockets[s.link] = s
}

func (c *coordinator) disconnect(s *socket) {
	c.mu.Lock()
	id := s.beacon
	delete(c.sockets, s.link)
	c.mu.Unlock()
	if id == "" {
		return
	}
	c.offer(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: s.link, Lost: true, Reason: "beacon " + id + " disconnected"}}, nil, func(err error) {
		if err != nil && !errors.Is(err, errClosing) {
			c.log.Warn("a disconnection is not written down; the beacon's items wait until it is missed", "beacon", id, "error", err)
		}
	})
}

// catchUpTimeout bounds the wait for what other hubs have written.
const catchUpTimeout = 2 * time.Second

// catchUp waits until what is in a shared journal by now is applied here. It is
// false if there was nothing to wait for.
func (c *coordinator) catchUp(ctx context.Context) bool {
	if !c.journal.Shared() {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, catchUpTimeout)
	defer cancel()
	last, err := c.journal.Last(ctx)
	if err != nil {
		return false
	}
	for waited := false; ; waited = true {
		c.mu.RLock()
		there := c.applied >= last
		c.mu.RUnlock()
		if there {
			return waited
		}
		timer := time.NewTimer(time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return waited
		}
	}
}

// needs reports whether an item that is known needs a file.
func (c *coordinator) needs(file string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.ledger.Needs(file)
}

// secret signs what callers bring back.
func (c *coordinator) secret() []byte {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.ledger.Secret()
}

// watch has w told of all that happens to an item from now on. It is called
// with mu held.
func (c *coordinator) watch(hash string, w *watcher) {
	if c.leaving || c.broken != nil {
		w.abort()
		return
	}
	c.watchers[hash] = append(c.watchers[hash], w)
}

func (c *coordinator) unwatch(hash string, w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.watchers[hash]
	for i, other := range list {
		if other == w {
			c.watchers[hash] = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	if len(c.watchers[hash]) == 0 {
		delete(c.watchers, hash)
	}
}

// get returns an item.
func (c *coordinator) get(hash string) (ledger.Item, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.ledger.Get(hash)
}

// item proposes an entry that concerns one item and returns what it is like
// afterwards.
func (c *coordinator) item(e ledger.Entry) (ledger.Item, error) {
	var item ledger.Item
	var refused error
	err := c.propose(e, func(a ledger.Answer) {
		refused = a.Err
		if a.Item != nil {
			item = a.Item.Copy()
		}
	})
	if err == nil {
		err = refused
	}
	return item, err
}
