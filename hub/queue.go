package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

// mostBindings bounds the affinity keys that are remembered; items with further
// keys go anywhere.
const mostBindings = 10_000

// errNoBeacons refuses a Dispatch that nobody could ever answer.
var errNoBeacons = errors.New("No Beacon workers are registered.") //nolint:staticcheck,revive // the real server's text

// A queue decides who gets which item. What a request has begun is finished when
// the request is gone, so its methods drop the cancelation of their contexts. It keeps what lasts only as long as this
// process: connections, slots, order of waiting, affinity, who waits for what.
// The items are the store's. Everything happens behind one mutex, and nothing
// behind it waits for the network: a push only puts a frame into a socket's
// outbox.
type queue struct {
	cfg      Config
	log      *slog.Logger
	store    Store
	instance string

	mu        sync.Mutex
	beacons   map[string]*member // by BeaconID
	names     map[string]*member // by Name
	holders   map[string]*member // by hash: whose slot the item takes
	tickets   map[string]*ticket // by hash: what waits
	lanes     map[string][]*ticket
	bindings  map[string]binding
	watchers  map[string][]*watcher
	deadlines map[string]time.Time // of items that somebody waits for
	actions   map[actionName]catalogued
	counter   uint64 // makes hashes unique
	sequence  uint64 // order of arrival
	turns     uint64 // order of giving
}

// A member is a registered beacon.
type member struct {
	id       string
	info     protocol.Registration
	session  string
	joined   time.Time
	lastSeen time.Time
	lastTurn uint64
	socket   *socket            // nil for those that poll
	held     map[string]*ticket // takes a slot each
}

func (m *member) free() int { return m.info.MaxConcurrent - len(m.held) }

func (m *member) can(capability string) bool {
	return slices.Contains(m.info.Capabilities, capability)
}

// A ticket is an item's place in the order of waiting. An item that comes back
// from a lost beacon waits where it would have waited.
type ticket struct {
	hash        string
	capability  string
	priority    float64
	sequence    uint64
	affinityKey string
	onlyMatch   bool
}

func order(a, b *ticket) int {
	return cmp.Or(-cmp.Compare(a.priority, b.priority), cmp.Compare(a.sequence, b.sequence))
}

type binding struct {
	key, beaconID, runHash string
	created, expires       time.Time
}

type actionName struct{ capability, action string }

type catalogued struct {
	schema  protocol.ActionSchema
	sources []string // beacon names
}

// A reporter is who brings news of an item.
type reporter struct {
	overSocket bool
	member     *member // of the socket; nil when it is not registered
	session    string  // of an HTTP request
}

func newQueue(cfg Config, instance string) *queue {
	return &queue{
		cfg: cfg, log: cfg.Log, store: cfg.Store, instance: instance,
		beacons:   map[string]*member{},
		names:     map[string]*member{},
		holders:   map[string]*member{},
		tickets:   map[string]*ticket{},
		lanes:     map[string][]*ticket{},
		bindings:  map[string]binding{},
		watchers:  map[string][]*watcher{},
		deadlines: map[string]time.Time{},
		actions:   map[actionName]catalogued{},
	}
}

// restore lines up what a durable store still has from an earlier process.
func (q *queue) restore(ctx context.Context) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	live, err := q.store.Live(ctx)
	if err != nil {
		return fmt.Errorf("restore the queue: %w", err)
	}
	for _, item := range live {
		if item.Status == protocol.StatusRunning {
			if item, err = q.store.Release(ctx, item.WorkItemHash, "the hub was restarted"); err != nil {
				return fmt.Errorf("restore %s: %w", item.WorkItemHash, err)
			}
		}
		if item.Status == protocol.StatusPending {
			q.wait(q.newTicket(item))
		}
	}
	return nil
}

// submit takes in an item. A watcher sees all that happens to it; an item with
// one needs a beacon that could take it, and has a deadline. The answer says
// whether the key had an item already.
func (q *queue) submit(ctx context.Context, s protocol.Submission, key string, w *watcher) (protocol.WorkRecord, bool, error) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if w != nil && len(q.beacons) == 0 {
		return protocol.WorkRecord{}, false, errNoBeacons
	}
	now := time.Now()
	q.counter++
	record := protocol.WorkRecord{
		WorkItemHash: fmt.Sprintf("wi-%s-%s-%d-%d", cmp.Or(s.RunHash, "unknown"), cmp.Or(s.NodeHash, "unknown"), now.UnixMilli(), q.counter),
		RunHash:      s.RunHash, RunID: s.RunID, NodeHash: s.NodeHash, OperationHash: s.OperationHash,
		Capability: s.Capability, Action: s.Action, Settings: s.Settings,
		AffinityKey: s.AffinityKey, RequireAffinityMatch: s.RequireAffinityMatch,
		SubmitterTag: s.SubmitterTag, Metadata: s.Metadata,
		TimeoutMs: s.TimeoutMs, Priority: *s.Priority,
		CreatedAt: protocol.Timestamp{Time: now}, EnqueuedAt: protocol.Timestamp{Time: now},
	}
	if w == nil && record.RunID == "" {
		record.RunID = fmt.Sprintf("rn-%s-%d-%d", q.instance, now.UnixMilli(), q.counter)
	}
	item, existed, err := q.store.Add(ctx, record, key)
	if err != nil || existed {
		return item, existed, err
	}
	if w != nil {
		q.watchers[item.WorkItemHash] = append(q.watchers[item.WorkItemHash], w)
		q.deadlines[item.WorkItemHash] = now.Add(milliseconds(s.TimeoutMs))
	}
	t := q.newTicket(item)
	q.wait(t)
	q.offer(ctx, t)
	if again, err := q.store.Get(ctx, item.WorkItemHash); err == nil {
		item = again
	}
	return item, false, nil
}

func (q *queue) newTicket(item protocol.WorkRecord) *ticket {
	q.sequence++
	return &ticket{
		hash: item.WorkItemHash, capability: item.Capability, priority: item.Priority, sequence: q.sequence,
		affinityKey: item.AffinityKey, onlyMatch: item.RequireAffinityMatch && item.AffinityKey != "",
	}
}

// wait puts a ticket in its place.
func (q *queue) wait(t *ticket) {
	lane := q.lanes[t.capability]
	at, _ := slices.BinarySearchFunc(lane, t, order)
	q.lanes[t.capability] = slices.Insert(lane, at, t)
	q.tickets[t.hash] = t
}

// drop takes a ticket out, wherever it is.
func (q *queue) drop(hash string) {
	t := q.tickets[hash]
	if t == nil {
		return
	}
	delete(q.tickets, hash)
	lane := q.lanes[t.capability]
	if at, found := slices.BinarySearchFunc(lane, t, order); found {
		lane = slices.Delete(lane, at, at+1)
	}
	if len(lane) == 0 {
		delete(q.lanes, t.capability)
	} else {
		q.lanes[t.capability] = lane
	}
}

// eligible reports whether a beacon may have an item: it has the capability,
// and affinity points to it or to nobody.
func (q *queue) eligible(m *member, t *ticket) bool {
	if !m.can(t.capability) {
		return false
	}
	target := q.target(t)
	return target == m || target == nil && !t.onlyMatch
}

// target is the beacon that affinity wants for an item: the one of that name,
// or the one that the key is bound to. One that lacks the capability is none.
func (q *queue) target(t *ticket) *member {
	if t.affinityKey == "" {
		return nil
	}
	if named := q.names[t.affinityKey]; named != nil && named.can(t.capability) {
		return named
	}
	bound, ok := q.bindings[t.affinityKey]
	if !ok || !time.Now().Before(bound.expires) {
		return nil
	}
	if m := q.beacons[bound.beaconID]; m != nil && m.can(t.capability) {
		return m
	}
	return nil
}

// offer pushes a waiting item to the best connected beacon that has room: the
// one with the smallest share of its slots taken, then the one that has waited
// longest.
func (q *queue) offer(ctx context.Context, t *ticket) {
	var best *member
	for _, m := range q.beacons {
		if m.socket == nil || m.free() <= 0 || !q.eligible(m, t) {
			continue
		}
		if best == nil || load(m, best) < 0 {
			best = m
		}
	}
	if best != nil {
		q.push(ctx, best, t)
	}
}

func load(a, b *member) int {
	return cmp.Or(
		cmp.Compare(len(a.held)*b.info.MaxConcurrent, len(b.held)*a.info.MaxConcurrent),
		cmp.Compare(a.lastTurn, b.lastTurn))
}

// next is the first in the order of waiting that a beacon may have.
func (q *queue) next(m *member) *ticket {
	var first *ticket
	for _, capability := range m.info.Capabilities {
		for _, t := range q.lanes[capability] {
			if first != nil && order(first, t) <= 0 {
				break
			}
			if q.eligible(m, t) {
				first = t
				break
			}
		}
	}
	return first
}

// fill pushes as much as a connected beacon has room for.
func (q *queue) fill(ctx context.Context, m *member) {
	for m != nil && m.socket != nil && m.free() > 0 {
		t := q.next(m)
		if t == nil || !q.push(ctx, m, t) {
			return
		}
	}
}

func (q *queue) fillAll(ctx context.Context) {
	members := make([]*member, 0, len(q.beacons))
	for _, m := range q.beacons {
		members = append(members, m)
	}
	slices.SortFunc(members, load)
	for _, m := range members {
		q.fill(ctx, m)
	}
}

func (q *queue) push(ctx context.Context, m *member, t *ticket) bool {
	item, ok := q.give(ctx, m, t)
	if !ok {
		return false
	}
	raw, err := protocol.Encode(event{EventType: protocol.EventWorkItem, WorkItem: &item})
	if err != nil { // settings were valid JSON when they came
		q.log.ErrorContext(ctx, "work item cannot be encoded", "item", t.hash, "error", err)
		err = q.finish(ctx, t.hash, Outcome{Status: protocol.StatusError, Error: "The work item cannot be encoded."})
		if err != nil {
			q.log.ErrorContext(ctx, "work item cannot be ended", "item", t.hash, "error", err)
		}
		q.vacate(ctx, t.hash)
		return false
	}
	m.socket.send(raw) // if the socket is ending, leave takes the item back
	return true
}

// give moves an item to a beacon.
func (q *queue) give(ctx context.Context, m *member, t *ticket) (protocol.WorkItem, bool) {
	record, err := q.store.Take(ctx, t.hash, m.id)
	if err != nil {
		q.log.ErrorContext(ctx, "work item cannot be given", "item", t.hash, "beacon", m.id, "error", err)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrNotPending) {
			q.drop(t.hash)
		}
		return protocol.WorkItem{}, false
	}
	q.drop(t.hash)
	m.held[t.hash] = t
	q.holders[t.hash] = m
	q.turns++
	m.lastTurn = q.turns
	q.bind(record, m)
	return wireItem(record, q.instance), true
}

func (q *queue) bind(record protocol.WorkRecord, m *member) {
	key := record.AffinityKey
	if key == "" || q.names[key] != nil {
		return
	}
	if bound, ok := q.bindings[key]; ok && time.Now().Before(bound.expires) && q.beacons[bound.beaconID] != nil {
		return
	}
	if len(q.bindings) >= mostBindings {
		q.log.Warn("too many affinity keys; a new one is not remembered", "limit", mostBindings)
		return
	}
	now := time.Now()
	q.bindings[key] = binding{key, m.id, record.RunHash, now, now.Add(q.cfg.AffinityTTL)}
}

// wireItem is an item the way workers get it: with the queue's metadata twice,
// as the real server sends it.
func wireItem(r protocol.WorkRecord, instance string) protocol.WorkItem {
	item := protocol.WorkItem{
		WorkItemHash: r.WorkItemHash, RunID: r.RunID, Capability: r.Capability, Action: r.Action,
		OperationHash: r.OperationHash, TimeoutMs: r.TimeoutMs, AttemptNumber: r.AttemptNumber,
		Settings: make(map[string]json.RawMessage, len(r.Settings)+1),
	}
	for name, value := range r.Settings {
		item.Settings[name] = value
	}
	meta, err := protocol.Encode(protocol.QueueMetadata{
		RunID: r.RunID, WorkItemHash: r.WorkItemHash, EnqueuedAt: r.EnqueuedAt, DispatchedAt: r.DispatchedAt,
		QueueWaitMs: r.QueueWaitMs, AttemptNumber: r.AttemptNumber, HubInstanceID: instance,
	})
	if err == nil {
		item.QueueMetadata = meta
		item.Settings["QueueMetadata"] = meta
	}
	return item
}

// poll gives a beacon that asks the next item, if it has room and there is one.
// An unknown beacon gets none.
func (q *queue) poll(ctx context.Context, id string) (protocol.WorkItem, bool) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.beacons[id]
	if m == nil {
		return protocol.WorkItem{}, false
	}
	m.lastSeen = time.Now()
	for m.free() > 0 {
		t := q.next(m)
		if t == nil {
			break
		}
		if item, ok := q.give(ctx, m, t); ok {
			return item, true
		}
		if q.tickets[t.hash] != nil { // the store failed; it may recover until the next poll
			break
		}
	}
	return protocol.WorkItem{}, false
}

// report ends an item and frees the slot it took, even when the report comes
// too late to count.
func (q *queue) report(ctx context.Context, hash string, outcome Outcome, from reporter) error {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	holder := q.holders[hash]
	by := from.member
	if !from.overSocket && holder != nil && sameSession(from.session, holder.session) {
		by = holder
	}
	if by != nil {
		outcome.BeaconID = by.id
		by.lastSeen = time.Now()
	}
	err := q.finish(ctx, hash, outcome)
	if by != nil && by == holder {
		q.vacate(ctx, hash)
	}
	return err
}

// sameSession takes a caller for the holder of an item unless both have a
// session and they differ: then it is a beacon that lost the item earlier.
func sameSession(a, b string) bool { return a == "" || b == "" || a == b }

func (q *queue) finish(ctx context.Context, hash string, outcome Outcome) error {
	item, err := q.store.Finish(ctx, hash, outcome)
	if err != nil {
		return err
	}
	q.ended(item)
	return nil
}

// ended tells those who wait.
func (q *queue) ended(item protocol.WorkRecord) {
	q.drop(item.WorkItemHash)
	delete(q.deadlines, item.WorkItemHash)
	for _, w := range q.watchers[item.WorkItemHash] {
		w.end(item)
	}
	delete(q.watchers, item.WorkItemHash)
}

// vacate frees the slot that an item takes and fills it again.
func (q *queue) vacate(ctx context.Context, hash string) {
	m := q.holders[hash]
	if m == nil {
		return
	}
	delete(q.holders, hash)
	delete(m.held, hash)
	q.fill(ctx, m)
}

func (q *queue) progress(ctx context.Context, hash string, p progress, from reporter) error {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.store.Progress(ctx, hash, p.data, p.log)
	if m := q.holders[hash]; m != nil && (from.member == m || !from.overSocket && sameSession(from.session, m.session)) {
		m.lastSeen = time.Now()
	}
	if err != nil {
		return err
	}
	for _, w := range q.watchers[hash] {
		w.progress(p)
	}
	return nil
}

func (q *queue) cancel(ctx context.Context, hash, reason string) (protocol.WorkRecord, error) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	item, err := q.store.Cancel(ctx, hash, reason)
	if err == nil && protocol.Final(item.Status) {
		q.ended(item)
	}
	return item, err
}

// expire ends an item whose submitter has waited long enough. The beacon is not
// told and keeps the slot until it reports or leaves: it is still at work.
func (q *queue) expire(ctx context.Context, hash string, timeoutMs float64) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.expireLocked(ctx, hash, timeoutMs)
}

func (q *queue) expireLocked(ctx context.Context, hash string, timeoutMs float64) {
	delete(q.deadlines, hash)
	err := q.finish(ctx, hash, Outcome{
		Status: protocol.StatusTimeout,
		Error:  fmt.Sprintf("Direct dispatch timed out after %sms.", number(timeoutMs)),
	})
	var final *FinalizedError
	if err != nil && !errors.As(err, &final) && !errors.Is(err, ErrNotFound) {
		q.log.ErrorContext(ctx, "work item cannot be timed out", "item", hash, "error", err)
	}
}

// abandon takes back an item nobody waits for any more, unless a beacon is at
// work on it already.
func (q *queue) abandon(ctx context.Context, hash string, w *watcher) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.watchers[hash] = slices.DeleteFunc(q.watchers[hash], func(other *watcher) bool { return other == w })
	if len(q.watchers[hash]) == 0 {
		delete(q.watchers, hash)
	}
	if q.tickets[hash] == nil {
		return
	}
	item, err := q.store.Cancel(ctx, hash, "the submitter went away")
	if err != nil {
		q.log.ErrorContext(ctx, "abandoned work item cannot be canceled", "item", hash, "error", err)
		return
	}
	if protocol.Final(item.Status) {
		q.ended(item)
	}
}

// tick ends what has waited too long: beacons that poll no more, deadlines that
// no request watches any more, affinity.
func (q *queue) tick(ctx context.Context) {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for hash, deadline := range q.deadlines {
		if now.Before(deadline) {
			continue
		}
		item, err := q.store.Get(ctx, hash)
		if err != nil {
			delete(q.deadlines, hash)
			continue
		}
		q.expireLocked(ctx, hash, item.TimeoutMs)
	}
	changed := false
	for _, m := range q.beacons {
		if m.socket == nil && now.Sub(m.lastSeen) >= q.cfg.HeartbeatTimeout {
			q.log.WarnContext(ctx, "beacon has not polled or sent a heartbeat and is taken for gone",
				"beacon", m.id, "silent", now.Sub(m.lastSeen), "items", len(m.held))
			q.remove(ctx, m, "beacon "+m.id+" was silent for too long")
		}
	}
	for key, bound := range q.bindings {
		if !now.Before(bound.expires) {
			delete(q.bindings, key)
			changed = true
		}
	}
	if changed {
		q.fillAll(ctx)
	}
}

// unwatch sends everybody away who waits for an item.
func (q *queue) unwatch() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, list := range q.watchers {
		for _, w := range list {
			w.abort()
		}
	}
	clear(q.watchers)
}

// milliseconds is a Duration of at most a year.
func milliseconds(ms float64) time.Duration {
	return time.Duration(min(ms, 365*24*3600*1000) * float64(time.Millisecond))
}

// number writes a number as JavaScript does.
func number(n float64) string {
	raw, err := json.Marshal(n)
	if err != nil {
		return "0"
	}
	return string(raw)
}

// normalise makes a BeaconID's middle part of a name.
func normalise(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(name))
}
