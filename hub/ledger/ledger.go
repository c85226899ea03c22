// Package ledger is what all hubs agree on: work items, beacons, who has what,
// and who is next. It is computed from a journal, a sequence of records that is
// the same for every hub, and from nothing else: no clock, no chance, no order
// of a map. So any number of hubs that read one journal hold the same ledger,
// each may die at any moment, and none has to ask another.
//
// Nothing here waits, and nothing is safe for concurrent use: the hub guards it.
package ledger

import (
	"cmp"
	"container/list"
	"fmt"
	"slices"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

// Version counts the rules by which entries take effect. A hub that finds a
// higher one in a journal or a snapshot than its own must not read on: it would
// come to other conclusions than the hubs beside it.
const Version = 2

// PlainVersion is that of snapshots, and of records that have no Before, so that
// an earlier hub may read them.
const PlainVersion = 1

// A Record is what one hub has put into the journal at once.
type Record struct {
	// Version is that of the rules the hub goes by.
	Version int
	// Hub names the hub, N counts its records from 1. A record that comes twice
	// counts once, and one that is missing is noticed.
	Hub     string
	N       uint64
	Entries []Entry
	// Before are records of the same hub that were applied there before this one,
	// and are written down with it; At is when, in milliseconds since 1970. Only a
	// hub that is alone may do that.
	Before []Record `json:",omitempty"`
	At     int64    `json:",omitempty"`
}

// An Answer is what became of one entry.
type Answer struct {
	// Item is the item concerned, if there is one; it must not be changed, and
	// is for use before the next Apply only.
	Item *Item
	// Existed says that a Submit found an earlier item under its key.
	Existed bool
	// Beacon is the BeaconID that a Join has led to.
	Beacon string
	// Key is the secret that counts, after a NewSecret.
	Key []byte
	Err error
}

// A Kind says what an Event is about.
type Kind string

// The kinds of events.
const (
	Registered Kind = "registered" // Beacon is registered on Link
	Replaced   Kind = "replaced"   // another link has the name of Link's beacon
	Dismissed  Kind = "dismissed"  // Link's beacon was deregistered by somebody else
	Unlinked   Kind = "unlinked"   // Link is no beacon's any more
	Left       Kind = "left"       // Beacon is gone, or away
	Assigned   Kind = "assigned"   // Item is for Beacon on Link; Link 0: its poll is answered with it
	Unwanted   Kind = "unwanted"   // Beacon on Link should stop Hash
	Progressed Kind = "progressed" // Progress of Item
	Queued     Kind = "queued"     // Item waits, for the first time or again
	Ended      Kind = "ended"      // Item is final
	Forgotten  Kind = "forgotten"  // Item is not known any more
	HubGone    Kind = "hub gone"   // Hub is taken for gone
)

// An Event is a consequence of an entry, for those who are to act on it. Item
// must not be changed, and is for use before the next Apply only.
type Event struct {
	Kind     Kind
	Hub      string // of Link
	Link     uint64
	Beacon   string
	Hash     string
	Item     *Item
	Attempt  int // the last one that is not wanted
	Progress *Progress
	Reason   string
}

// A Ledger is the state. The zero value is not usable.
type Ledger struct {
	now      int64 // milliseconds since 1970; never goes back
	settings Settings
	counter  uint64 // of items, part of their hashes
	sequence uint64 // of arrivals
	endings  uint64
	turns    uint64 // of giving
	secret   []byte

	items     map[string]*Item
	keys      map[string]string // tenant and idempotency key → hash
	live      *list.List        // *Item by Seq
	finished  *list.List        // *Item by EndSeq
	dead      *list.List        // *Item by EndSeq
	counts    map[string]int    // by status
	liveBytes int64
	doneBytes int64
	deadBytes int64

	hubs     map[string]*Hub
	beacons  map[string]*Beacon            // by BeaconID
	names    map[string]*Beacon            // by Name
	links    map[link]*Beacon              // those that are connected
	able     map[string]map[string]*Beacon // capability → BeaconID
	holders  map[string][]string           // hash → BeaconIDs whose slot it takes, sorted
	actions  map[actionName]*Action
	bindings map[affinity]*Binding
	bound    map[string]map[affinity]bool // BeaconID → its bindings

	tenants  map[string]*Tenant
	lanes    map[laneName]*lane
	waiting  map[string]map[string]int      // capability → tenant → how many wait
	backlogs map[string]map[string]*backlog // capability → tenant → its items that are not final
	keyed    map[string]map[*Item]bool      // affinity key → those that wait
	costs    map[actionName]int64           // usual run time in milliseconds
	revoked  map[string]int64               // session → until when
	alarms   alarms                         // what is due when
	words    map[string]string              // one copy of what is repeated
	events   []Event                        // of the record being applied
	files    map[string]int                 // id → how many items that are known need it
	floor    int64                          // what a tenant owes at least when it begins to compete
	active   map[string]*Tenant             // those that compete
	rings    [2]int64                       // the earliest alarms of finished and dead
	refill   bool                           // slots may be free for a tenant that was bounded
}

type link struct {
	hub string
	n   uint64
}

type actionName struct{ capability, action string }

type affinity struct{ tenant, key string }

// A Hub is one of those that share the ledger.
type Hub struct {
	Name  string
	URL   string `json:",omitempty"`
	Files string `json:",omitempty"` // the name of its folder of files
	N     uint64 // of its last record
	Since int64
	Last  int64 // sign of life
}

// New makes an empty ledger.
func New() *Ledger {
	l := &Ledger{
		items: map[string]*Item{}, keys: map[string]string{},
		live: list.New(), finished: list.New(), dead: list.New(), counts: map[string]int{},
		hubs: map[string]*Hub{}, beacons: map[string]*Beacon{}, names: map[string]*Beacon{}, links: map[link]*Beacon{},
		able: map[string]map[string]*Beacon{}, holders: map[string][]string{},
		actions: map[actionName]*Action{}, bindings: map[affinity]*Binding{}, bound: map[string]map[affinity]bool{},
		tenants: map[string]*Tenant{}, lanes: map[laneName]*lane{}, waiting: map[string]map[string]int{}, backlogs: map[string]map[string]*backlog{},
		keyed: map[string]map[*Item]bool{}, costs: map[actionName]int64{}, revoked: map[string]int64{},
		words: map[string]string{}, files: map[string]int{}, active: map[string]*Tenant{},
	}
	l.settings = complete(Settings{})
	return l
}

const (
	second = 1000
	minute = 60 * second
	hour   = 60 * minute
	day    = 24 * hour
)

// complete fills in the defaults.
func complete(s Settings) Settings {
	s.HeartbeatMs = cmp.Or(s.HeartbeatMs, minute)
	s.GraceMs = cmp.Or(s.GraceMs, 45*second)
	s.HubMs = cmp.Or(s.HubMs, 20*second)
	s.AffinityMs = cmp.Or(s.AffinityMs, hour)
	s.OverrunMs = cmp.Or(s.OverrunMs, minute)
	s.QueueItems = cmp.Or(s.QueueItems, 200_000)
	s.QueueBytes = cmp.Or(s.QueueBytes, 1<<30)
	s.HistoryItems = cmp.Or(s.HistoryItems, 10_000)
	s.HistoryBytes = cmp.Or(s.HistoryBytes, 64<<20)
	s.HistoryMs = cmp.Or(s.HistoryMs, hour)
	s.DeadItems = cmp.Or(s.DeadItems, 10_000)
	s.DeadBytes = cmp.Or(s.DeadBytes, 64<<20)
	s.DeadMs = cmp.Or(s.DeadMs, 30*day)
	s.MostLost = cmp.Or(s.MostLost, 5)
	return s
}

// Apply takes in the next record of the journal, as of a moment that the
// journal gives. There is one answer to each entry, and none at all to a record
// that came twice. An error means that the journal cannot be read on.
func (l *Ledger) Apply(at time.Time, r Record) ([]Answer, []Event, error) {
	var earlier []Event
	for _, b := range r.Before {
		if b.Hub != r.Hub || b.N >= r.N || len(b.Before) > 0 {
			return nil, nil, fmt.Errorf("the journal is damaged: record %d of hub %s holds %d of hub %s", r.N, r.Hub, b.N, b.Hub)
		}
		_, events, err := l.take(time.UnixMilli(b.At), b)
		if err != nil {
			return nil, nil, err
		}
		earlier = append(earlier, events...)
	}
	answers, events, err := l.take(at, r)
	return answers, append(earlier, events...), err
}

// Idle reports whether an item that is submitted now is the only one that can be
// given to a beacon by that, and nothing else happens: none waits, and nothing is
// due by then.
func (l *Ledger) Idle(at time.Time) bool {
	next := l.Next()
	return len(l.waiting) == 0 && (next.IsZero() || next.After(at))
}

// take applies one record.
func (l *Ledger) take(at time.Time, r Record) ([]Answer, []Event, error) {
	if r.Version > Version {
		return nil, nil, fmt.Errorf("the journal follows rules of version %d and this hub knows %d: use a newer one", r.Version, Version)
	}
	h := l.hubs[r.Hub]
	starting := len(r.Entries) > 0 && r.Entries[0].Start != nil
	switch {
	case h != nil && r.N <= h.N:
		return nil, nil, nil
	case h != nil && r.N != h.N+1 || h == nil && starting && r.N != 1:
		return nil, nil, fmt.Errorf("the journal is damaged: after record %d of hub %s comes %d", l.lastOf(h), r.Hub, r.N)
	}
	now := max(l.now, at.UnixMilli())
	if h != nil { // whoever writes is there
		h.N, h.Last = r.N, now
	}
	if starting && (r.Entries[0].Start.Alone || now-l.now > l.settings.HubMs) {
		l.excuse(now)
	}
	l.advance(now)
	answers := make([]Answer, len(r.Entries))
	for i := range r.Entries {
		e := &r.Entries[i]
		if l.hubs[r.Hub] == nil && e.Start == nil {
			// It was taken for gone, and its beacons with it.
			answers[i].Err = fmt.Errorf("hub %s: %w", r.Hub, ErrUnknownHub)
			l.emit(Event{Kind: HubGone, Hub: r.Hub})
			continue
		}
		answers[i] = l.apply(r.Hub, r.N, e)
		l.fillFreed()
	}
	events := l.events
	l.events = nil
	return answers, events, nil
}

func (l *Ledger) lastOf(h *Hub) uint64 {
	if h == nil {
		return 0
	}
	return h.N
}

// apply is one entry.
func (l *Ledger) apply(hub string, n uint64, e *Entry) Answer {
	switch {
	case e.Configure != nil:
		l.configure(*e.Configure)
	case e.Start != nil:
		l.start(hub, n, e.Start)
	case e.Stop != nil:
		l.hubGone(l.hubs[hub], "the hub "+hub+" has ended")
	case e.Tick != nil:
	case e.Join != nil:
		return l.join(hub, e.Join)
	case e.Leave != nil:
		return l.leave(hub, e.Leave)
	case e.Seen != nil:
		l.seen(e.Seen)
	case e.Listed != nil:
		return l.listed(e.Listed)
	case e.Submit != nil && e.Submit.Spec != nil:
		return l.submit(hub, e.Submit.Spec)
	case e.Poll != nil:
		return l.poll(e.Poll)
	case e.Release != nil:
		return l.takeBack(e.Release)
	case e.Progress != nil:
		return l.progress(e.Progress)
	case e.Attach != nil:
		return l.attach(e.Attach)
	case e.Finish != nil:
		return l.finish(e.Finish)
	case e.Cancel != nil:
		return l.cancel(e.Cancel.Hash, e.Cancel.Reason)
	case e.Abandon != nil:
		return l.abandon(e.Abandon)
	case e.Requeue != nil:
		return l.requeue(e.Requeue.Hash)
	case e.Forget != nil:
		return l.drop(e.Forget.Hash)
	case e.Revoke != nil:
		l.revoke(e.Revoke)
	case e.Secret != nil:
		if l.secret == nil {
			l.secret = e.Secret.Key
		}
		return Answer{Key: l.secret}
	default: // of a later hub, or nonsense
		return Answer{Err: ErrInvalid}
	}
	return Answer{}
}

func (l *Ledger) emit(e Event) { l.events = append(l.events, e) }

func (l *Ledger) configure(s Settings) {
	l.settings = complete(s)
	for name, t := range l.tenants {
		t.TenantSettings = s.Tenants[name]
	}
	l.wind()
	l.trim()
	l.fillAll() // a tenant may have more now
}

func (l *Ledger) start(hub string, n uint64, s *Start) {
	if s.Alone {
		for _, name := range sortedKeys(l.hubs) {
			if name != hub {
				l.hubGone(l.hubs[name], "the hub was restarted")
			}
		}
	}
	h := &Hub{Name: hub, URL: s.URL, Files: s.Files, N: n, Since: l.now, Last: l.now}
	l.hubs[hub] = h
	l.armHub(h)
}

// excuse is for a time in which no hub was there to be told anything: nobody is
// late because of it.
func (l *Ledger) excuse(now int64) {
	for _, b := range l.beacons {
		if b.Away != 0 {
			b.Away = now
		}
		b.Seen = max(b.Seen, now)
	}
	for _, it := range l.items {
		if it.Overrun != 0 {
			it.Overrun = max(it.Overrun, now+l.settings.GraceMs+l.settings.OverrunMs)
		}
	}
}

// hubGone takes a hub for gone, and the links of its beacons.
func (l *Ledger) hubGone(h *Hub, why string) {
	if h == nil {
		return
	}
	delete(l.hubs, h.Name)
	l.emit(Event{Kind: HubGone, Hub: h.Name, Reason: why})
	for _, id := range sortedKeys(l.beacons) {
		if b := l.beacons[id]; b != nil && b.Link != 0 && b.Hub == h.Name && b.Away == 0 {
			l.linkLost(b, why)
		}
	}
}

func (l *Ledger) revoke(r *Revoke) {
	if len(l.revoked) >= mostRevoked || r.Until <= l.now {
		return
	}
	l.revoked[r.Session] = r.Until
	l.set(alarm{r.Until, alarmSession, r.Session})
}

const mostRevoked = 100_000

// submit takes in an item.
func (l *Ledger) submit(hub string, s *Spec) Answer {
	owner := affinity{s.Tenant, s.Key}
	if s.Key != "" {
		if earlier := l.items[l.keys[owner.String()]]; earlier != nil {
			if earlier.Spec.Digest != s.Digest {
				return Answer{Item: earlier, Existed: true, Err: ErrConflict}
			}
			return Answer{Item: earlier, Existed: true}
		}
	}
	if s.Waited && len(l.beacons) == 0 {
		return Answer{Err: ErrNoBeacons}
	}
	t := l.tenant(s.Tenant)
	if err := l.room(t, s.bytes()); err != nil {
		return Answer{Err: err}
	}
	l.counter++
	s.Tenant, s.Capability, s.Action = t.Name, l.word(s.Capability), l.word(s.Action)
	s.Attempts = max(s.Attempts, 1)
	if s.DelayMs > 0 {
		s.NotBefore = max(s.NotBefore, l.now+s.DelayMs)
	}
	if !s.Waited && s.RunID == "" {
		s.RunID = fmt.Sprintf("rn-%s-%d-%d", hub, l.now, l.counter)
	}
	it := &Item{
		Hash: fmt.Sprintf("wi-%s-%s-%d-%d", cmp.Or(s.RunHash, "unknown"), cmp.Or(s.NodeHash, "unknown"), l.now, l.counter),
		Spec: s, Enqueued: l.now, index: -1,
	}
	if s.Waited {
		it.Deadline = l.now + int64(min(s.TimeoutMs, 365*day))
	}
	l.items[it.Hash] = it
	if s.Key != "" {
		l.keys[owner.String()] = it.Hash
	}
	l.need(s.Files)
	l.begin(it, protocol.WorkEnqueued, "", "")
	return Answer{Item: it}
}

func (a affinity) String() string { return a.tenant + "\x00" + a.key }

// room says whether there is room for one more item.
func (l *Ledger) room(t *Tenant, bytes int64) error {
	switch {
	case l.live.Len() >= l.settings.QueueItems || l.liveBytes+bytes > l.settings.QueueBytes:
		return ErrFull
	case t.Queue > 0 && t.Live >= t.Queue:
		return ErrTenantFull
	}
	return nil
}

// begin lines an item up at the end.
func (l *Ledger) begin(it *Item, kind, from, text string) {
	t := l.tenant(it.Spec.Tenant)
	l.sequence++
	it.Seq = l.sequence
	it.Ready = l.now
	it.NotBefore = it.Spec.NotBefore
	it.Bytes = it.Spec.bytes()
	it.place = l.live.PushBack(it)
	l.liveBytes += it.Bytes
	t.Live++
	status := protocol.StatusPending
	if it.NotBefore > l.now {
		status = protocol.StatusScheduled
	}
	l.move(it, status)
	l.happened(it, Happening{Kind: kind, From: from, Text: text})
	l.emit(Event{Kind: Queued, Item: it, Hash: it.Hash})
	l.armItem(it)
	if status == protocol.StatusPending {
		l.wait(it)
	}
}

// requeue gives an item that failed a new life.
func (l *Ledger) requeue(hash string) Answer {
	it := l.items[hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case !it.Final():
		return Answer{Item: it, Err: ErrNotFinal}
	case it.Status == protocol.StatusComplete:
		return Answer{Item: it, Err: ErrComplete}
	}
	if err := l.room(l.tenant(it.Spec.Tenant), it.Spec.bytes()); err != nil {
		return Answer{Item: it, Err: err}
	}
	l.unlist(it)
	from := it.Status
	it.Failures, it.Lost, it.Dead, it.Usage = 0, 0, false, nil
	l.spare(it.Kept)
	it.Kept, it.Files = nil, nil
	it.CancelAsked, it.CancelReason, it.Outcome, it.Ended, it.Deadline, it.Beacon = false, "", nil, 0, 0, ""
	l.begin(it, happenedAgain, from, "")
	return Answer{Item: it}
}

// unlist takes a final item out of the history or the dead letters.
func (l *Ledger) unlist(it *Item) {
	if it.Dead {
		l.dead.Remove(it.place)
		l.deadBytes -= it.Bytes
	} else {
		l.finished.Remove(it.place)
		l.doneBytes -= it.Bytes
	}
	it.place = nil
}

// drop forgets a final item on request.
func (l *Ledger) drop(hash string) Answer {
	it := l.items[hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case !it.Final():
		return Answer{Item: it, Err: ErrNotFinal}
	}
	l.forget(it)
	return Answer{Item: it}
}

func (l *Ledger) forget(it *Item) {
	l.unlist(it)
	l.count(it.Status, -1)
	delete(l.items, it.Hash)
	if it.Spec.Key != "" {
		delete(l.keys, affinity{it.Spec.Tenant, it.Spec.Key}.String())
	}
	l.spare(it.Spec.Files)
	l.spare(it.Kept)
	l.emit(Event{Kind: Forgotten, Item: it, Hash: it.Hash})
}

func (l *Ledger) move(it *Item, status string) {
	l.unline(it)
	if it.Status != "" {
		l.count(it.Status, -1)
	}
	l.count(status, 1)
	it.Status = status
	l.line(it)
}

func (l *Ledger) count(status string, by int) {
	if l.counts[status] += by; l.counts[status] == 0 {
		delete(l.counts, status)
	}
}

// takeBack is a Release.
func (l *Ledger) takeBack(r *Release) Answer {
	it := l.items[r.Hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Status != protocol.StatusRunning || it.Attempt != r.Attempt:
		return Answer{Item: it, Err: ErrNotRunning}
	}
	b := l.beacons[it.Beacon]
	l.release(it, r.Reason, true)
	if b != nil {
		l.fill(b)
	}
	return Answer{Item: it}
}

// release takes a Running item back from its beacon, which has a slot more.
func (l *Ledger) release(it *Item, reason string, lost bool) {
	from := it.Beacon
	l.settle(it)
	if b := l.beacons[from]; b != nil {
		l.vacate(b, it.Hash)
	}
	if lost {
		it.Lost++
	}
	switch {
	case it.CancelAsked:
		l.end(it, Outcome{Status: protocol.StatusCanceled, Error: canceledText(it.Hash, it.CancelReason)}, from)
		return
	case it.Lost > l.settings.MostLost:
		l.end(it, Outcome{Status: protocol.StatusError, Error: fmt.Sprintf("The work item was lost with its beacon %d times, the last time since %s.", it.Lost, reason)}, from)
		return
	}
	it.Beacon, it.Ready, it.Overrun = "", l.now, 0
	l.move(it, protocol.StatusPending)
	l.happened(it, Happening{Kind: protocol.WorkRequeued, From: protocol.StatusRunning, Beacon: from, Text: reason})
	l.emit(Event{Kind: Queued, Item: it, Hash: it.Hash})
	l.wait(it)
}

func (l *Ledger) progress(p *Progress) Answer {
	it := l.items[p.Hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Status != protocol.StatusRunning:
		return Answer{Item: it, Err: ErrNotRunning}
	}
	holder := l.beacons[it.Beacon]
	if by := l.reporter(it.Hash, p.Beacon, p.Session); by != nil {
		by.Seen = l.now
		if holder != nil && by != holder {
			return Answer{Item: it, Err: ErrNotRunning} // of an earlier attempt
		}
	}
	if len(p.Data) > 0 {
		it.Progress = p.Data
	}
	before := it.LogBytes
	it.logged(p.Log)
	grown := int64(it.LogBytes - before)
	it.Bytes += grown
	l.liveBytes += grown
	it.Touched = l.now
	l.emit(Event{Kind: Progressed, Item: it, Hash: it.Hash, Progress: p})
	return Answer{Item: it}
}

func (l *Ledger) attach(a *Attach) Answer {
	it := l.items[a.Hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Final():
		return Answer{Item: it, Err: &FinalizedError{it.Status}}
	case len(it.Files) >= mostFiles:
		return Answer{Item: it, Err: ErrFull}
	}
	it.Files = append(slices.Clip(it.Files), a.File)
	l.keep(it, a.ID)
	return Answer{Item: it}
}

// keep notes a file that came with an item's outcome.
func (l *Ledger) keep(it *Item, id string) {
	if id == "" {
		return
	}
	it.Kept = append(slices.Clip(it.Kept), id)
	l.files[id]++
}

// need counts files that an item needs, spare those that it needs no more.
func (l *Ledger) need(files []string) {
	for _, id := range files {
		l.files[id]++
	}
}

func (l *Ledger) spare(files []string) {
	for _, id := range files {
		if l.files[id]--; l.files[id] <= 0 {
			delete(l.files, id)
		}
	}
}

const mostFiles = 1000

// reporter is the beacon that brings news of an item: the one that is named, or
// else the one that has it, unless the caller's session shows that it is another.
func (l *Ledger) reporter(hash, id, session string) *Beacon {
	if id != "" {
		return l.beacons[id]
	}
	var fallback *Beacon
	for _, holder := range l.holders[hash] {
		b := l.beacons[holder]
		if session != "" && b.Session == session {
			return b
		}
		if session == "" || b.Session == "" {
			fallback = b
			if it := l.items[hash]; it != nil && it.Beacon == holder {
				return b
			}
		}
	}
	return fallback
}

// finish ends an item, or schedules its next attempt. The slot that the
// reporter gave it is free afterwards, even if the report is refused.
func (l *Ledger) finish(f *Finish) Answer {
	it := l.items[f.Hash]
	by := l.reporter(f.Hash, f.Beacon, f.Session)
	if by == nil && it != nil && f.Attempt != 0 && f.Attempt == it.Attempt {
		by = l.beacons[it.Beacon] // with a new session
	}
	attempt, from := f.Attempt, ""
	if by != nil {
		from = by.ID
		by.Seen = l.now
		if held, ok := by.Held[f.Hash]; ok && (attempt == 0 || attempt >= held) {
			attempt = held
			defer l.fill(by)
			defer l.vacate(by, f.Hash)
		}
	}
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Final():
		return Answer{Item: it, Err: &FinalizedError{it.Status}}
	case attempt != 0 && attempt < it.Attempt:
		return Answer{Item: it, Err: &StaleError{attempt, it.Attempt}}
	case f.Outcome.Status == protocol.StatusComplete:
	case attempt == 0 && (it.Status == protocol.StatusRunning || it.Failed == it.Attempt && it.Attempt > 0),
		attempt != 0 && attempt <= it.Failed:
		// A failure of who knows which attempt does not end another's, and none
		// counts twice.
		return Answer{Item: it, Err: &StaleError{attempt, it.Attempt}}
	}
	l.charge(it, f.Outcome.Usage)
	l.conclude(it, f.Outcome, from)
	return Answer{Item: it}
}

// charge counts what an attempt has used, however it has ended.
func (l *Ledger) charge(it *Item, u *protocol.Usage) {
	if u == nil {
		return
	}
	t := l.tenant(it.Spec.Tenant)
	t.Usage.Work = t.Usage.Work.Plus(*u)
	sum := *u
	if it.Usage != nil {
		sum = it.Usage.Plus(*u)
	}
	it.Usage = &sum // what copies point to stays as it is
}

// conclude is how an attempt has ended. One that waited for another attempt
// is not begun again.
func (l *Ledger) conclude(it *Item, o Outcome, from string) {
	if it.Status == protocol.StatusRunning {
		holder := it.Beacon
		l.settle(it)
		if b := l.beacons[holder]; b != nil && holder != from {
			// Somebody else was first; who is still at it may stop, and has its
			// slot taken until it says so.
			l.unwanted(b, it.Hash, b.Held[it.Hash], "another beacon has brought the result")
		}
	}
	failed := o.Status != protocol.StatusComplete
	if failed {
		it.Failed = it.Attempt
	}
	switch {
	case failed && it.CancelAsked:
		o = Outcome{Status: protocol.StatusCanceled, Log: o.Log, Blob: o.Blob, Error: canceledText(it.Hash, it.CancelReason)}
	case o.Status == protocol.StatusError || o.Status == protocol.StatusTimeout:
		it.Failures++
		if it.Failures < it.Spec.Attempts {
			l.retry(it, o, from)
			return
		}
	}
	l.end(it, o, from)
}

// retry schedules the next attempt.
func (l *Ledger) retry(it *Item, o Outcome, from string) {
	l.unwait(it)
	wait := l.backoff(it)
	was := it.Status
	it.LastError = o.Error
	it.logged(o.Log)
	it.Beacon, it.Overrun = "", 0
	it.NotBefore = l.now + wait
	l.move(it, protocol.StatusRetryScheduled)
	l.happened(it, Happening{Kind: happenedRetry, From: was, Beacon: from, Text: o.Error, Attempt: it.Attempt, WaitMs: wait})
	l.emit(Event{Kind: Queued, Item: it, Hash: it.Hash})
	l.armItem(it)
}
