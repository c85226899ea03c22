package ledger

import (
	"cmp"
	"container/heap"
	"hash/fnv"
	"slices"

	"github.com/ultravisor/beacon/protocol"
)

// A lane is where items of one tenant and capability wait for one beacon, for
// any, or, if affinity leaves them nobody, for none.
type laneName struct {
	tenant, capability string
	target             string // BeaconID, anyone or nobody
}

const (
	anyone = ""
	nobody = "\x00"
)

// A lane is a heap, the next first.
type lane struct {
	name  laneName
	items []*Item
}

func (n *lane) Len() int           { return len(n.items) }
func (n *lane) Less(i, j int) bool { return n.items[i].before(n.items[j]) }

func (n *lane) Swap(i, j int) {
	n.items[i], n.items[j] = n.items[j], n.items[i]
	n.items[i].index, n.items[j].index = i, j
}

// Push implements heap.Interface.
func (n *lane) Push(x any) {
	it := x.(*Item) //nolint:forcetypeassert // only wait pushes
	it.index = len(n.items)
	n.items = append(n.items, it)
}

// Pop implements heap.Interface.
func (n *lane) Pop() any {
	last := len(n.items) - 1
	it := n.items[last]
	n.items[last] = nil
	n.items = n.items[:last]
	it.index = -1
	return it
}

// A Tenant is whose items they are.
type Tenant struct {
	Name string
	TenantSettings
	// Debt is what the tenant has used, in milliseconds of slots, times 1000 and
	// divided by its weight; Pledged is what its running items usually cost, in
	// the same measure. Who owes least is next. It is what deficit round robin
	// keeps as deficits, seen from the other side and without rounds.
	Debt    int64
	Pledged int64
	// Live counts items that wait or run, Busy those that run.
	Live int
	Busy int
	// Usage, since the ledger began.
	Usage Usage

	queued int // in lanes
}

// Usage is what a tenant has had.
type Usage struct {
	Completed uint64
	Failed    uint64
	Canceled  uint64
	SlotMs    int64 // time in slots
	WaitMs    int64 // of items that were given the first time
	Given     uint64
	// Work is what beacons say that they have used for its items.
	Work protocol.Usage `json:",omitzero"`
}

const usualWeight = 100

func (t *Tenant) weight() int64 { return cmp.Or(t.Weight, usualWeight) }

// full reports whether no more items of the tenant may run.
func (t *Tenant) full() bool { return t.Running > 0 && t.Busy >= t.Running }

// tenant returns the tenant of a name, a new one if need be.
func (l *Ledger) tenant(name string) *Tenant {
	t := l.tenants[name]
	if t == nil {
		t = &Tenant{Name: name, TenantSettings: l.settings.Tenants[name]}
		l.tenants[name] = t
	}
	return t
}

// compete lets a tenant take part that had nothing waiting or running: as if it
// had used as much as whoever has used least, so that nobody saves up a claim to
// all slots by doing nothing.
func (l *Ledger) compete(t *Tenant) {
	if l.active[t.Name] != nil {
		return
	}
	least, first := int64(0), true
	for _, other := range l.active {
		if first || other.Debt < least {
			least, first = other.Debt, false
		}
	}
	if !first {
		l.floor = max(l.floor, least)
	}
	t.Debt = max(t.Debt, l.floor)
	l.active[t.Name] = t
}

// rest is for a tenant that may have nothing waiting or running any more.
func (l *Ledger) rest(t *Tenant) {
	if t.queued > 0 || t.Busy > 0 {
		return
	}
	delete(l.active, t.Name)
	if len(l.active) == 0 {
		l.floor = max(l.floor, t.Debt)
	}
}

// usualCost is what an action is charged in advance before anything is known.
const usualCost = 100

func (l *Ledger) cost(it *Item) int64 {
	return cmp.Or(l.costs[actionName{it.Spec.Capability, it.Spec.Action}], usualCost)
}

// engage charges a tenant for an item that begins to run.
func (l *Ledger) engage(t *Tenant, it *Item) {
	l.compete(t)
	t.Busy++
	it.Charged = l.cost(it) * 1000 / t.weight()
	t.Pledged += it.Charged
}

// settle ends what engage began: what the attempt has really cost counts.
func (l *Ledger) settle(it *Item) {
	t := l.tenant(it.Spec.Tenant)
	cost := max(1, l.now-it.Dispatched)
	t.Pledged -= it.Charged
	t.Debt += cost * 1000 / t.weight()
	wasFull := t.full()
	t.Busy--
	t.Usage.SlotMs += cost
	key := actionName{it.Spec.Capability, it.Spec.Action}
	if known, ok := l.costs[key]; ok {
		l.costs[key] = max(1, (7*known+cost)/8)
	} else if len(l.costs) < mostActions {
		l.costs[key] = cost
	}
	it.Charged = 0
	l.rest(t)
	if wasFull && t.queued > 0 {
		l.refill = true
	}
}

// wait puts a Pending item in its place, or gives it away at once.
func (l *Ledger) wait(it *Item) {
	l.compete(l.tenant(it.Spec.Tenant))
	l.place(it)
	l.offer(it)
}

func (l *Ledger) place(it *Item) {
	s := it.Spec
	t := l.tenant(s.Tenant)
	name := laneName{s.Tenant, s.Capability, l.target(it)}
	n := l.lanes[name]
	if n == nil {
		n = &lane{name: name}
		l.lanes[name] = n
	}
	it.lane = n
	heap.Push(n, it)
	t.queued++
	if l.waiting[s.Capability] == nil {
		l.waiting[s.Capability] = map[string]int{}
	}
	l.waiting[s.Capability][s.Tenant]++
	if s.AffinityKey != "" {
		if l.keyed[s.AffinityKey] == nil {
			l.keyed[s.AffinityKey] = map[*Item]bool{}
		}
		l.keyed[s.AffinityKey][it] = true
	}
}

// unwait takes an item out of its lane, if it is in one.
func (l *Ledger) unwait(it *Item) {
	n := it.lane
	if n == nil {
		return
	}
	heap.Remove(n, it.index)
	it.lane = nil
	if len(n.items) == 0 {
		delete(l.lanes, n.name)
	}
	s := it.Spec
	l.tenant(s.Tenant).queued--
	l.rest(l.tenant(s.Tenant))
	byTenant := l.waiting[s.Capability]
	if byTenant[s.Tenant]--; byTenant[s.Tenant] == 0 {
		delete(byTenant, s.Tenant)
	}
	if len(byTenant) == 0 {
		delete(l.waiting, s.Capability)
	}
	if s.AffinityKey != "" {
		if delete(l.keyed[s.AffinityKey], it); len(l.keyed[s.AffinityKey]) == 0 {
			delete(l.keyed, s.AffinityKey)
		}
	}
}

// target is where affinity wants an item to go: to the beacon of that name, or
// to the one that the key is bound to. One that lacks the capability is none.
func (l *Ledger) target(it *Item) string {
	s := it.Spec
	if s.AffinityKey == "" {
		return anyone
	}
	if named := l.names[s.AffinityKey]; named != nil && l.eligible(named, it) {
		return named.ID
	}
	if bound := l.bindings[affinity{s.Tenant, s.AffinityKey}]; bound != nil {
		if b := l.beacons[bound.Beacon]; b != nil && l.eligible(b, it) {
			return b.ID
		}
	}
	if s.OnlyMatch {
		return nobody
	}
	return anyone
}

// eligible reports whether a beacon may have an item, affinity aside.
func (l *Ledger) eligible(b *Beacon, it *Item) bool {
	return b.Can(it.Spec.Capability) && (b.Tenant == "" || b.Tenant == it.Spec.Tenant)
}

// rekey looks again where the items with an affinity key should go.
func (l *Ledger) rekey(key string) {
	waiting := make([]*Item, 0, len(l.keyed[key]))
	for it := range l.keyed[key] {
		waiting = append(waiting, it)
	}
	slices.SortFunc(waiting, func(a, b *Item) int {
		if a.before(b) {
			return -1
		}
		return 1
	})
	for _, it := range waiting {
		if it.lane != nil && it.lane.name.target != l.target(it) {
			l.unwait(it)
			l.wait(it)
		}
	}
}

// reroute is for a beacon that has come, gone or changed: items with its name
// or with a key that is bound to it may go elsewhere now.
func (l *Ledger) reroute(b *Beacon) {
	l.rekey(b.Name)
	for _, key := range sortedAffinities(l.bound[b.ID]) {
		l.rekey(key.key)
	}
}

// bind remembers which beacon an affinity key went to.
func (l *Ledger) bind(it *Item, b *Beacon) {
	s := it.Spec
	if s.AffinityKey == "" || l.names[s.AffinityKey] != nil {
		return
	}
	key := affinity{s.Tenant, s.AffinityKey}
	if earlier := l.bindings[key]; earlier != nil {
		if l.beacons[earlier.Beacon] != nil {
			return
		}
		l.unbind(key)
	}
	if len(l.bindings) >= mostBindings {
		return
	}
	l.bindings[key] = &Binding{Tenant: s.Tenant, Key: s.AffinityKey, Beacon: b.ID, RunHash: s.RunHash, Created: l.now, Expires: l.now + l.settings.AffinityMs}
	if l.bound[b.ID] == nil {
		l.bound[b.ID] = map[affinity]bool{}
	}
	l.bound[b.ID][key] = true
	l.set(alarm{l.now + l.settings.AffinityMs, alarmBinding, key.String()})
	l.rekey(s.AffinityKey)
}

// mostBindings bounds the affinity keys that are remembered; items with further
// keys go anywhere.
const mostBindings = 10_000

func (l *Ledger) unbind(key affinity) {
	bound := l.bindings[key]
	if bound == nil {
		return
	}
	delete(l.bindings, key)
	if delete(l.bound[bound.Beacon], key); len(l.bound[bound.Beacon]) == 0 {
		delete(l.bound, bound.Beacon)
	}
	l.rekey(key.key)
}

// offer gives a waiting item to the best connected beacon that has room: the
// one with the smallest share of its slots taken, then the one that has waited
// longest.
func (l *Ledger) offer(it *Item) {
	if it.lane == nil || it.lane.name.target == nobody || l.tenant(it.Spec.Tenant).full() {
		return
	}
	target := it.lane.name.target
	if target != anyone {
		if b := l.beacons[target]; b != nil && b.takes() {
			l.fill(b)
		}
		return
	}
	var best *Beacon
	for _, b := range l.able[it.Spec.Capability] {
		if b.takes() && l.eligible(b, it) && (best == nil || load(b, best) < 0) {
			best = b
		}
	}
	if best != nil {
		l.fill(best)
	}
}

// load orders beacons, those that should be given more first.
func load(a, b *Beacon) int {
	return cmp.Or(
		cmp.Compare(len(a.Held)*b.Info.MaxConcurrent, len(b.Held)*a.Info.MaxConcurrent),
		cmp.Compare(a.Turn, b.Turn), cmp.Compare(a.ID, b.ID))
}

// next is the item that a beacon should have: the first of the tenant that owes
// least among those that have one for it.
func (l *Ledger) next(b *Beacon) *Item {
	var owner *Tenant
	var first *Item
	for _, capability := range b.Info.Capabilities {
		for name := range l.waiting[capability] {
			if b.Tenant != "" && b.Tenant != name {
				continue
			}
			t := l.tenants[name]
			if t.full() {
				continue
			}
			for _, target := range [...]string{anyone, b.ID} {
				n := l.lanes[laneName{name, capability, target}]
				if n == nil {
					continue
				}
				it := n.items[0]
				switch {
				case first == nil, t != owner && less(t, owner), t == owner && it.before(first):
					owner, first = t, it
				}
			}
		}
	}
	return first
}

func less(a, b *Tenant) bool {
	owesA, owesB := a.Debt+a.Pledged, b.Debt+b.Pledged
	if owesA != owesB {
		return owesA < owesB
	}
	return a.Name < b.Name
}

// fill gives a connected beacon as much as it has room for.
func (l *Ledger) fill(b *Beacon) {
	for l.beacons[b.ID] == b && b.takes() {
		it := l.next(b)
		if it == nil {
			return
		}
		l.give(b, it, true)
	}
}

// fillAll does so for all, those with the least to do first.
func (l *Ledger) fillAll() {
	var free []*Beacon
	for _, b := range l.beacons {
		if b.takes() {
			free = append(free, b)
		}
	}
	slices.SortFunc(free, load)
	for _, b := range free {
		l.fill(b)
	}
}

// give moves an item to a beacon. A push is for its link; otherwise the answer to
// a poll carries it.
func (l *Ledger) give(b *Beacon, it *Item, push bool) {
	l.unwait(it)
	it.Attempt++
	it.Dispatched = l.now
	wait := max(0, l.now-max(it.Ready, it.NotBefore))
	if it.Started == 0 {
		it.Started = l.now
		it.WaitMs = wait
	}
	l.turns++
	b.Turn = l.turns
	l.hold(b, it)
	t := l.tenant(it.Spec.Tenant)
	t.Usage.Given++
	t.Usage.WaitMs += wait
	l.happened(it, Happening{Kind: protocol.WorkDispatched, From: protocol.StatusPending, Beacon: b.ID, Attempt: it.Attempt, WaitMs: wait})
	e := Event{Kind: Assigned, Beacon: b.ID, Item: it, Hash: it.Hash}
	if push {
		e.Hub, e.Link = b.Hub, b.Link
	}
	l.emit(e)
	l.bind(it, b)
}

// poll gives a beacon that asks the next item, if there is one.
func (l *Ledger) poll(p *Poll) Answer {
	b := l.beacons[p.Beacon]
	if b == nil {
		return Answer{Err: ErrUnknownBeacon}
	}
	b.Seen = l.now
	if b.Free() <= 0 || b.Away != 0 || b.Draining {
		return Answer{}
	}
	it := l.next(b)
	if it == nil {
		return Answer{}
	}
	l.give(b, it, false) // the answer to the poll carries it
	return Answer{Item: it}
}

// backoff is the wait before the next attempt: it doubles, up to an hour, and
// varies by a tenth so that what failed together does not come back together.
func (l *Ledger) backoff(it *Item) int64 {
	wait := max(it.Spec.BackoffMs, 0)
	for range it.Failures - 1 {
		if wait >= hour/2 {
			wait = hour
			break
		}
		wait *= 2
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(it.Hash))
	_, _ = h.Write([]byte{byte(it.Attempt)})
	return wait + wait/10*int64(h.Sum32()%1000)/1000
}
