package ledger

import (
	"cmp"
	"iter"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

// Now is how far time has come.
func (l *Ledger) Now() time.Time { return time.UnixMilli(l.now) }

// Settings are those that count, defaults filled in.
func (l *Ledger) Settings() Settings { return l.settings }

// Same reports whether two settings come to the same.
func (s Settings) Same(other Settings) bool { return reflect.DeepEqual(complete(s), complete(other)) }

// Secret is the key that signs sessions and addresses of files; nil before the
// first NewSecret.
func (l *Ledger) Secret() []byte { return l.secret }

// Revoked reports whether a session was ended before its time.
func (l *Ledger) Revoked(session string) bool { return l.revoked[session] != 0 }

// Get returns a copy of an item. What it points to never changes.
func (l *Ledger) Get(hash string) (Item, error) {
	it := l.items[hash]
	if it == nil {
		return Item{}, ErrNotFound
	}
	return it.Copy(), nil
}

// Copy is the item as it is now. What it points to never changes.
func (it *Item) Copy() Item {
	c := *it
	c.place, c.lane = nil, nil
	return c
}

// Live yields the items that are not final, oldest first. They must not be
// changed, and are for use before the next Apply only.
func (l *Ledger) Live() iter.Seq[*Item] {
	return func(yield func(*Item) bool) {
		for e := l.live.Front(); e != nil && yield(itemOf(e)); e = e.Next() {
			continue
		}
	}
}

// Finished yields final items that are no dead letters, newest first; see Live.
func (l *Ledger) Finished() iter.Seq[*Item] { return backwards(l.finished.Back) }

// Dead yields dead letters, newest first; see Live.
func (l *Ledger) Dead() iter.Seq[*Item] { return backwards(l.dead.Back) }

// Counts tells how many known items are in each state.
func (l *Ledger) Counts() map[string]int {
	out := make(map[string]int, len(l.counts))
	for status, n := range l.counts {
		out[status] = n
	}
	return out
}

// Sizes are how many items are live, finished and dead.
func (l *Ledger) Sizes() (live, finished, dead int) {
	return l.live.Len(), l.finished.Len(), l.dead.Len()
}

// Beacon returns a registered beacon, nil if there is none. It must not be
// changed, and is for use before the next Apply only.
func (l *Ledger) Beacon(id string) *Beacon { return l.beacons[id] }

// Named is Beacon by name.
func (l *Ledger) Named(name string) *Beacon { return l.names[name] }

// Beacons lists all, by BeaconID; see Beacon.
func (l *Ledger) Beacons() []*Beacon {
	out := make([]*Beacon, 0, len(l.beacons))
	for _, id := range sortedKeys(l.beacons) {
		out = append(out, l.beacons[id])
	}
	return out
}

// Hubs lists the hubs, by name; see Beacon.
func (l *Ledger) Hubs() []*Hub {
	out := make([]*Hub, 0, len(l.hubs))
	for _, name := range sortedKeys(l.hubs) {
		out = append(out, l.hubs[name])
	}
	return out
}

// Hub is one hub, nil if it is not known; see Beacon.
func (l *Ledger) Hub(name string) *Hub { return l.hubs[name] }

// Tenants lists those that have submitted anything, by name; see Beacon.
func (l *Ledger) Tenants() []*Tenant {
	out := make([]*Tenant, 0, len(l.tenants))
	for _, name := range sortedKeys(l.tenants) {
		out = append(out, l.tenants[name])
	}
	return out
}

// Share is the tenant's weight.
func (t *Tenant) Share() int64 { return t.weight() }

// Queued is how many of the tenant's items wait for a slot.
func (t *Tenant) Queued() int { return t.queued }

// Catalog lists the known actions of a capability, or of all if it is empty,
// and whether a beacon is there for them.
func (l *Ledger) Catalog(capability string) []CatalogEntry {
	out := []CatalogEntry{}
	for key, known := range l.actions {
		if capability == "" || key.capability == capability {
			out = append(out, CatalogEntry{*known, len(l.able[key.capability]) > 0})
		}
	}
	slices.SortFunc(out, func(a, b CatalogEntry) int {
		return cmp.Or(strings.Compare(a.Schema.Capability, b.Schema.Capability), strings.Compare(a.Schema.Action, b.Schema.Action))
	})
	return out
}

// A CatalogEntry is an action that somebody has told of.
type CatalogEntry struct {
	Action
	Available bool
}

// Bindings lists the affinity keys that are bound, by key.
func (l *Ledger) Bindings() []Binding {
	out := make([]Binding, 0, len(l.bindings))
	for _, b := range l.bindings {
		out = append(out, *b)
	}
	slices.SortFunc(out, func(a, b Binding) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(a.Tenant, b.Tenant))
	})
	return out
}

// Has reports whether a Poll of the beacon would yield an item now.
func (l *Ledger) Has(id string) bool {
	b := l.beacons[id]
	return b != nil && b.Free() > 0 && b.Away == 0 && !b.Draining && l.next(b) != nil
}

// A Cancellation is an item that a beacon has and should stop.
type Cancellation struct {
	Hash    string
	Attempt int
	Reason  string
}

// Unwanted lists the items that take a beacon's slots in vain.
func (l *Ledger) Unwanted(id string) []Cancellation {
	b := l.beacons[id]
	if b == nil {
		return nil
	}
	var out []Cancellation
	for hash, attempt := range b.Held {
		it := l.items[hash]
		switch {
		case it == nil || it.Final():
			out = append(out, Cancellation{hash, attempt, "the work item has ended"})
		case it.CancelAsked:
			out = append(out, Cancellation{hash, attempt, it.CancelReason})
		case it.Status != protocol.StatusRunning || it.Beacon != id || it.Attempt != attempt:
			out = append(out, Cancellation{hash, attempt, "the work item is not this beacon's any more"})
		}
	}
	slices.SortFunc(out, func(a, b Cancellation) int { return strings.Compare(a.Hash, b.Hash) })
	return out
}

// Needs reports whether an item that is known needs a file.
func (l *Ledger) Needs(file string) bool { return l.files[file] > 0 }
