package ledger

import (
	"bufio"
	"container/list"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/ultravisor/beacon/protocol"
)

// A snapshot is lines of JSON: a head, then one line for each of the things
// that the head counts, in a fixed order.

// snapshotFormat is the version of the form. A reader must know it.
const snapshotFormat = 1

type head struct {
	Format   int
	Rules    int // Version
	Now      int64
	Settings Settings // as configured
	Counter  uint64
	Sequence uint64
	Endings  uint64
	Turns    uint64
	Floor    int64
	Secret   []byte
	Hubs     []*Hub
	Beacons  []*Beacon
	Actions  []Action
	Bindings []Binding
	Tenants  []*Tenant
	Costs    []cost
	Revoked  map[string]int64
	Live     int
	Finished int
	Dead     int
}

type cost struct {
	Capability string
	Action     string
	Ms         int64
}

// A Snapshot is a ledger at one moment, for writing. It stays as it is while
// the ledger goes on.
type Snapshot struct {
	head  []byte
	items []Item
}

// Snapshot takes one. It takes time in proportion to the items, about as much as
// copying them.
func (l *Ledger) Snapshot() (*Snapshot, error) {
	h := head{
		Format: snapshotFormat, Rules: PlainVersion, Now: l.now, Settings: l.settings, Counter: l.counter, Sequence: l.sequence,
		Endings: l.endings, Turns: l.turns, Floor: l.floor, Secret: l.secret,
		Hubs: l.Hubs(), Beacons: l.Beacons(), Bindings: l.Bindings(), Tenants: l.Tenants(), Revoked: l.revoked,
		Live: l.live.Len(), Finished: l.finished.Len(), Dead: l.dead.Len(),
	}
	for _, e := range l.Catalog("") {
		h.Actions = append(h.Actions, e.Action)
	}
	for key, ms := range l.costs {
		h.Costs = append(h.Costs, cost{key.capability, key.action, ms})
	}
	sortCosts(h.Costs)
	raw, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode the head of a snapshot: %w", err)
	}
	s := &Snapshot{head: raw, items: make([]Item, 0, h.Live+h.Finished+h.Dead)}
	for _, all := range []*list.List{l.live, l.finished, l.dead} {
		for e := all.Front(); e != nil; e = e.Next() {
			s.items = append(s.items, itemOf(e).Copy())
		}
	}
	return s, nil
}

// WriteTo implements io.WriterTo.
func (s *Snapshot) WriteTo(w io.Writer) (int64, error) {
	counted := &counted{w: bufio.NewWriterSize(w, 256<<10)}
	if _, err := counted.Write(append(s.head, '\n')); err != nil {
		return counted.n, fmt.Errorf("write a snapshot: %w", err)
	}
	enc := json.NewEncoder(counted)
	enc.SetEscapeHTML(false)
	for i := range s.items {
		if err := enc.Encode(&s.items[i]); err != nil {
			return counted.n, fmt.Errorf("write a snapshot: %w", err)
		}
	}
	if err := counted.w.Flush(); err != nil {
		return counted.n, fmt.Errorf("write a snapshot: %w", err)
	}
	return counted.n, nil
}

type counted struct {
	w *bufio.Writer
	n int64
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// errSnapshot says that a snapshot contradicts itself.
var errSnapshot = errors.New("the snapshot is damaged")

// Restore reads a snapshot.
func Restore(r io.Reader) (*Ledger, error) {
	dec := json.NewDecoder(bufio.NewReaderSize(r, 256<<10))
	var h head
	if err := dec.Decode(&h); err != nil {
		return nil, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	if h.Format > snapshotFormat || h.Rules > Version {
		return nil, fmt.Errorf("the snapshot is of format %d and rules %d, and this hub knows %d and %d: use a newer one", h.Format, h.Rules, snapshotFormat, Version)
	}
	l := New()
	l.now, l.settings, l.counter, l.sequence, l.endings, l.turns = h.Now, complete(h.Settings), h.Counter, h.Sequence, h.Endings, h.Turns
	l.floor, l.secret = h.Floor, h.Secret
	if h.Revoked != nil {
		l.revoked = h.Revoked
	}
	for _, hub := range h.Hubs {
		l.hubs[hub.Name] = hub
	}
	for _, a := range h.Actions {
		l.actions[actionName{a.Schema.Capability, a.Schema.Action}] = &a
	}
	for _, c := range h.Costs {
		l.costs[actionName{c.Capability, c.Action}] = c.Ms
	}
	for _, t := range h.Tenants {
		l.tenants[t.Name] = t
	}
	for _, b := range h.Beacons {
		l.restoreBeacon(b)
	}
	for _, b := range h.Bindings {
		key := affinity{b.Tenant, b.Key}
		l.bindings[key] = &b
		if l.bound[b.Beacon] == nil {
			l.bound[b.Beacon] = map[affinity]bool{}
		}
		l.bound[b.Beacon][key] = true
	}
	for i := range h.Live + h.Finished + h.Dead {
		it := &Item{index: -1}
		if err := dec.Decode(it); err != nil {
			return nil, fmt.Errorf("%w: item %d of %d: %w", errSnapshot, i+1, h.Live+h.Finished+h.Dead, err)
		}
		if err := l.restoreItem(it, i < h.Live); err != nil {
			return nil, err
		}
	}
	if dec.More() {
		return nil, fmt.Errorf("%w: it goes on after its last item", errSnapshot)
	}
	if l.live.Len() != h.Live || l.finished.Len() != h.Finished || l.dead.Len() != h.Dead {
		return nil, fmt.Errorf("%w: its items are not those that it counts", errSnapshot)
	}
	for _, t := range l.tenants {
		if t.queued > 0 || t.Busy > 0 {
			l.active[t.Name] = t
		}
	}
	l.wind()
	return l, nil
}

func (l *Ledger) restoreBeacon(b *Beacon) {
	if b.Held == nil {
		b.Held = map[string]int{}
	}
	l.beacons[b.ID] = b
	l.names[b.Name] = b
	if b.Link != 0 && b.Away == 0 {
		l.links[link{b.Hub, b.Link}] = b
	}
	for _, c := range b.Info.Capabilities {
		if l.able[c] == nil {
			l.able[c] = map[string]*Beacon{}
		}
		l.able[c][b.ID] = b
	}
	for hash := range b.Held { // beacons come in the order of their ids
		l.holders[hash] = append(l.holders[hash], b.ID)
	}
}

func (l *Ledger) restoreItem(it *Item, live bool) error {
	if it.Hash == "" || it.Spec == nil || l.items[it.Hash] != nil || live == it.Final() {
		return fmt.Errorf("%w: item %q", errSnapshot, it.Hash)
	}
	s := it.Spec
	t := l.tenant(s.Tenant)
	s.Tenant, s.Capability, s.Action = t.Name, l.word(s.Capability), l.word(s.Action)
	l.items[it.Hash] = it
	if s.Key != "" {
		l.keys[affinity{s.Tenant, s.Key}.String()] = it.Hash
	}
	l.need(s.Files)
	l.need(it.Kept)
	l.count(it.Status, 1)
	l.line(it)
	switch {
	case live:
		it.place = l.live.PushBack(it)
		l.liveBytes += it.Bytes
		if it.Status == protocol.StatusPending {
			l.place(it)
		}
	case it.Dead:
		it.place = l.dead.PushBack(it)
		l.deadBytes += it.Bytes
	default:
		it.place = l.finished.PushBack(it)
		l.doneBytes += it.Bytes
	}
	return nil
}

// backwards yields a list from its end.
func backwards(back func() *list.Element) iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for e := back(); e != nil && yield(itemOf(e)); e = e.Prev() {
			continue
		}
	}
}

func sortCosts(all []cost) {
	sortBy(all, func(c cost) string { return c.Capability + "\x00" + c.Action })
}
