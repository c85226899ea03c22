package ledger

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ultravisor/beacon/protocol"
)

// Bounds on what strangers can register.
const (
	mostBeacons = 10_000
	mostActions = 10_000
	mostSources = 1000
)

// A Beacon is registered.
type Beacon struct {
	ID      string
	Name    string
	Info    protocol.Registration // without actions, secrets and operations
	Session string                `json:",omitempty"`
	Tenant  string                `json:",omitempty"` // whose items it may have; empty for all
	User    string                `json:",omitempty"`
	Joined  int64
	Seen    int64  // sign of life; those that are connected are alive while they are
	Turn    uint64 // when it was last given something
	// Hub and Link are the connection; Link is 0 for those that poll. Away is
	// since when the link is lost, 0 while it is not.
	Hub      string `json:",omitempty"`
	Link     uint64 `json:",omitempty"`
	Away     int64  `json:",omitempty"`
	Since    int64  `json:",omitempty"` // when it last registered
	Lists    bool   `json:",omitempty"` // tells what it has
	Draining bool   `json:",omitempty"`
	// Held are the items that take a slot each, and their attempts. An item may
	// have ended, or be at a later attempt elsewhere, while its beacon has not
	// said that it has stopped.
	Held map[string]int

	alarm int64 // the earliest alarm
}

// Free is how many more items the beacon can have.
func (b *Beacon) Free() int { return b.Info.MaxConcurrent - len(b.Held) }

// Can reports whether the beacon has a capability.
func (b *Beacon) Can(capability string) bool { return slices.Contains(b.Info.Capabilities, capability) }

// takes reports whether items can be pushed to the beacon now.
func (b *Beacon) takes() bool { return b.Link != 0 && b.Away == 0 && !b.Draining && b.Free() > 0 }

// An Action is one that a beacon has told of. It stays known when the beacon
// leaves.
type Action struct {
	Schema  protocol.ActionSchema
	Sources []string // names of beacons
}

// A Binding keeps items with the same affinity key at one beacon.
type Binding struct {
	Tenant  string
	Key     string
	Beacon  string
	RunHash string `json:",omitempty"`
	Created int64
	Expires int64
}

// join registers a beacon.
func (l *Ledger) join(hub string, j *Join) Answer {
	here := link{hub, j.Link}
	if j.Link != 0 {
		if m := l.links[here]; m != nil && m.Name != j.Info.Name {
			l.remove(m, "beacon "+m.ID+" registered under another name", false)
		}
	}
	m := l.names[j.Info.Name]
	if m == nil {
		if len(l.beacons) >= mostBeacons {
			return Answer{Err: ErrTooMany}
		}
		m = &Beacon{ID: l.newID(j.Info.Name), Name: j.Info.Name, Joined: l.now, Held: map[string]int{}}
		l.beacons[m.ID] = m
		l.names[m.Name] = m
	}
	same := m.Link == j.Link && (j.Link != 0 && m.Hub == hub && m.Away == 0 || j.Link == 0 && j.Session != "" && j.Session == m.Session)
	if !same {
		l.unlink(m, Replaced)
	}
	l.unable(m)
	m.Info, m.Session, m.Tenant, m.User = trimmed(j.Info), j.Session, j.Tenant, j.User
	m.Link, m.Hub, m.Away, m.Seen, m.Draining = j.Link, "", 0, l.now, false
	if !same {
		m.Since = l.now
	}
	if j.Link != 0 {
		m.Hub = hub
		l.links[here] = m
		l.emit(Event{Kind: Registered, Hub: hub, Link: j.Link, Beacon: m.ID})
	}
	for _, c := range m.Info.Capabilities {
		if l.able[c] == nil {
			l.able[c] = map[string]*Beacon{}
		}
		l.able[c][m.ID] = m
	}
	l.catalogue(j.Info)
	if !same && !m.Lists { // it knows nothing of what it was given, or will not say
		l.reclaim(m, nil, l.now, "beacon "+m.ID+" registered anew")
	}
	l.armBeacon(m)
	l.reroute(m)
	l.fill(m)
	return Answer{Beacon: m.ID}
}

// trimmed leaves out what is kept elsewhere or not needed.
func trimmed(r protocol.Registration) protocol.Registration {
	r.ActionSchemas, r.Operations, r.JoinSecret = nil, nil, ""
	if r.MaxConcurrent < 1 {
		r.MaxConcurrent = 1
	}
	return r
}

func (l *Ledger) newID(name string) string {
	for ms := l.now; ; ms++ {
		id := fmt.Sprintf("bcn-%s-%d", Normalise(name), ms)
		if l.beacons[id] == nil {
			return id
		}
	}
}

// Normalise makes the middle part of a BeaconID of a name.
func Normalise(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}

// unlink takes the link from a beacon, if it has one, and tells it so.
func (l *Ledger) unlink(b *Beacon, why Kind) {
	if b.Link == 0 {
		return
	}
	if at := (link{b.Hub, b.Link}); l.links[at] == b {
		delete(l.links, at)
		l.emit(Event{Kind: why, Hub: b.Hub, Link: b.Link, Beacon: b.ID})
	}
}

// unable takes a beacon out of the list of who can do what.
func (l *Ledger) unable(b *Beacon) {
	for _, c := range b.Info.Capabilities {
		if delete(l.able[c], b.ID); len(l.able[c]) == 0 {
			delete(l.able, c)
		}
	}
}

func (l *Ledger) catalogue(info protocol.Registration) {
	for _, schema := range info.ActionSchemas {
		key := actionName{schema.Capability, schema.Action}
		known := l.actions[key]
		if known == nil {
			if len(l.actions) >= mostActions {
				return
			}
			known = &Action{}
			l.actions[key] = known
		}
		if schema.SettingsSchema == nil {
			schema.SettingsSchema = []protocol.SettingSchema{}
		}
		if !slices.Contains(known.Sources, info.Name) && len(known.Sources) < mostSources {
			known.Sources = append(slices.Clip(known.Sources), info.Name)
		}
		known.Schema = schema
	}
}

// adopt gives a beacon the items back that it still has and that wait by now
// because it was away for too long.
func (l *Ledger) adopt(b *Beacon, active []string) {
	for _, hash := range active {
		it := l.items[hash]
		if it == nil || it.Status != protocol.StatusPending || !l.eligible(b, it) || it.LastName != b.Name || it.Attempt == it.Failed || b.Held[hash] != 0 {
			continue
		}
		l.unwait(it)
		l.hold(b, it)
		l.happened(it, Happening{Kind: happenedKept, From: protocol.StatusPending, Beacon: b.ID, Attempt: it.Attempt})
	}
}

// reclaim takes back what a beacon was given before a moment, or before it last
// registered, and does not list, and tells it to stop what it lists in vain.
func (l *Ledger) reclaim(b *Beacon, active []string, before int64, why string) {
	listed := make(map[string]bool, len(active))
	for _, hash := range active {
		listed[hash] = true
		// Of what waits and is not adopted somebody else had the last attempt.
		if it := l.items[hash]; it != nil && b.Held[hash] == 0 && it.LastName != b.Name {
			l.unwanted(b, hash, max(1, it.Attempt-1), "the work item is not this beacon's any more")
		} else if it != nil && b.Held[hash] == 0 && it.Final() {
			l.unwanted(b, hash, it.Attempt, "the work item has ended")
		}
	}
	for _, hash := range sortedKeys(b.Held) {
		if listed[hash] {
			continue
		}
		it := l.items[hash]
		switch {
		case it == nil || it.Status != protocol.StatusRunning || it.Beacon != b.ID:
			l.vacate(b, hash)
		case it.Dispatched <= before || it.Dispatched < b.Since:
			l.release(it, why, true)
		}
	}
}

// listed is what a beacon says it has.
func (l *Ledger) listed(e *Listed) Answer {
	b := l.beacons[e.Beacon]
	if b == nil {
		return Answer{Err: ErrUnknownBeacon}
	}
	b.Seen, b.Lists, b.Draining = l.now, true, e.Draining
	l.adopt(b, e.Active)
	l.reclaim(b, e.Active, l.now-e.Grace, "beacon "+b.ID+" does not list it")
	l.fill(b)
	return Answer{}
}

func (l *Ledger) seen(s *Seen) {
	for id, at := range s.Beacons {
		if b := l.beacons[id]; b != nil {
			b.Seen = max(b.Seen, min(at, l.now))
		}
	}
}

func (l *Ledger) leave(hub string, e *Leave) Answer {
	b := l.beacons[e.Beacon]
	if e.Link != 0 && (b == nil || b.Hub != hub || b.Link != e.Link || b.Away != 0) {
		return Answer{Err: ErrUnknownBeacon} // it is on another link already
	}
	if b == nil {
		return Answer{Err: ErrUnknownBeacon}
	}
	if e.Lost {
		l.linkLost(b, e.Reason)
	} else {
		if e.Dismissed {
			l.unlink(b, Dismissed)
		}
		l.remove(b, e.Reason, false)
	}
	return Answer{}
}

// linkLost is for a connection that ended without a word. A beacon that tells
// what it has may come back for it; another starts from nothing anyway.
func (l *Ledger) linkLost(b *Beacon, why string) {
	if b.Away != 0 {
		return
	}
	if !b.Lists || b.Link == 0 {
		l.remove(b, why, true)
		return
	}
	delete(l.links, link{b.Hub, b.Link})
	b.Away = l.now
	l.armBeacon(b)
	l.emit(Event{Kind: Left, Beacon: b.ID, Reason: why})
}

// remove ends a beacon; what it had waits again.
func (l *Ledger) remove(b *Beacon, why string, lost bool) {
	l.unlink(b, Unlinked)
	l.unable(b)
	delete(l.beacons, b.ID)
	delete(l.names, b.Name)
	l.emit(Event{Kind: Left, Beacon: b.ID, Reason: why})
	for _, hash := range sortedKeys(b.Held) {
		it := l.items[hash]
		if it != nil && it.Status == protocol.StatusRunning && it.Beacon == b.ID {
			l.release(it, why, lost)
		}
		l.vacate(b, hash)
	}
	for _, key := range sortedAffinities(l.bound[b.ID]) {
		l.unbind(key)
	}
	l.reroute(b)
}

// hold has an item take one of a beacon's slots.
func (l *Ledger) hold(b *Beacon, it *Item) {
	t := l.tenant(it.Spec.Tenant)
	b.Held[it.Hash] = it.Attempt
	at, found := slices.BinarySearch(l.holders[it.Hash], b.ID)
	if !found {
		l.holders[it.Hash] = slices.Insert(l.holders[it.Hash], at, b.ID)
	}
	it.Beacon, it.LastName = b.ID, b.Name
	l.move(it, protocol.StatusRunning)
	l.engage(t, it)
	if it.Spec.TimeoutMs > 0 {
		it.Overrun = l.now + int64(min(it.Spec.TimeoutMs, 365*day)) + l.settings.OverrunMs
	}
	l.armItem(it)
}

// vacate frees the slot that an item takes.
func (l *Ledger) vacate(b *Beacon, hash string) {
	if _, ok := b.Held[hash]; !ok {
		return
	}
	delete(b.Held, hash)
	if at, found := slices.BinarySearch(l.holders[hash], b.ID); found {
		l.holders[hash] = slices.Delete(l.holders[hash], at, at+1)
	}
	if len(l.holders[hash]) == 0 {
		delete(l.holders, hash)
	}
}

// unwanted has a beacon told to stop an item, of which it may get a later
// attempt.
func (l *Ledger) unwanted(b *Beacon, hash string, attempt int, why string) {
	if b.Link != 0 && b.Away == 0 {
		l.emit(Event{Kind: Unwanted, Hub: b.Hub, Link: b.Link, Beacon: b.ID, Hash: hash, Attempt: attempt, Reason: why})
	}
}
