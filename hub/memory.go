package hub

import (
	"container/list"
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

const (
	// mostLog bounds the progress log of one item in bytes, mostEvents its
	// events: both come from workers, and an item may live for days.
	mostLog    = 4 << 20
	mostEvents = 200
	logCut     = "(more log lines than the hub keeps; the rest is left out)"
)

// memory is the Store that forgets everything when the process ends.
type memory struct {
	limits memoryLimits

	mu        sync.Mutex
	items     map[string]*memoryItem
	keys      map[string]string // idempotency key → hash
	live      *list.List        // *memoryItem, oldest first
	finished  *list.List        // *memoryItem, oldest first
	liveBytes int64
	doneBytes int64
	counts    map[string]int
}

type memoryLimits struct {
	live      int
	liveBytes int64
	finished  int
	doneBytes int64
	age       time.Duration
}

type memoryItem struct {
	record   protocol.WorkRecord
	events   []protocol.WorkEvent
	key      string
	bytes    int64 // of what the submitter sent
	result   int64 // of what the worker sent
	logBytes int
	place    *list.Element
}

func newMemory(limits memoryLimits) *memory {
	return &memory{
		limits:   limits,
		items:    map[string]*memoryItem{},
		keys:     map[string]string{},
		live:     list.New(),
		finished: list.New(),
		counts:   map[string]int{},
	}
}

func (m *memory) Add(_ context.Context, record protocol.WorkRecord, key string) (protocol.WorkRecord, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if earlier := m.items[m.keys[key]]; key != "" && earlier != nil {
		return earlier.record, true, nil
	}
	item := &memoryItem{record: record, key: key, bytes: int64(len(record.Metadata) + len(key) + 1024)}
	for name, value := range record.Settings {
		item.bytes += int64(len(name) + len(value))
	}
	if m.live.Len() >= m.limits.live || m.liveBytes+item.bytes > m.limits.liveBytes {
		return protocol.WorkRecord{}, false, ErrFull
	}
	item.record.Status = protocol.StatusPending
	if item.record.AccumulatedLog == nil {
		item.record.AccumulatedLog = []string{}
	}
	m.items[record.WorkItemHash] = item
	if key != "" {
		m.keys[key] = record.WorkItemHash
	}
	item.place = m.live.PushBack(item)
	m.liveBytes += item.bytes
	m.counts[protocol.StatusPending]++
	m.event(item, protocol.WorkEnqueued, "", "", map[string]any{
		"Capability": record.Capability, "Action": record.Action, "Priority": record.Priority, "AffinityKey": record.AffinityKey,
	})
	return item.record, false, nil
}

func (m *memory) Take(_ context.Context, hash, beaconID string) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	switch {
	case item == nil:
		return protocol.WorkRecord{}, ErrNotFound
	case item.record.Status != protocol.StatusPending:
		return protocol.WorkRecord{}, ErrNotPending
	}
	now := protocol.Timestamp{Time: time.Now()}
	r := &item.record
	r.AssignedBeaconID = &beaconID
	r.AttemptNumber++
	r.DispatchedAt, r.ClaimedAt = now, now
	if r.StartedAt.IsZero() {
		r.StartedAt = now
		r.QueueWaitMs = max(0, now.Sub(r.EnqueuedAt.Time).Milliseconds())
	}
	m.move(item, protocol.StatusRunning)
	m.event(item, protocol.WorkDispatched, protocol.StatusPending, beaconID, map[string]any{
		"QueueWaitMs": r.QueueWaitMs, "AttemptNumber": r.AttemptNumber,
	})
	return *r, nil
}

func (m *memory) Release(_ context.Context, hash, reason string) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	switch {
	case item == nil:
		return protocol.WorkRecord{}, ErrNotFound
	case item.record.Status != protocol.StatusRunning:
		return item.record, ErrNotRunning
	}
	if item.record.CancelRequested {
		m.end(item, Outcome{Status: protocol.StatusCanceled, Error: canceledText(hash, item.record.CancelReason)})
		return item.record, nil
	}
	from := ""
	if item.record.AssignedBeaconID != nil {
		from = *item.record.AssignedBeaconID
	}
	item.record.AssignedBeaconID = nil
	m.move(item, protocol.StatusPending)
	m.event(item, protocol.WorkRequeued, protocol.StatusRunning, from, map[string]any{"Reason": reason})
	return item.record, nil
}

func (m *memory) Progress(_ context.Context, hash string, data json.RawMessage, log []string) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	switch {
	case item == nil:
		return protocol.WorkRecord{}, ErrNotFound
	case item.record.Status != protocol.StatusRunning:
		return protocol.WorkRecord{}, ErrNotRunning
	}
	if data != nil {
		item.record.Progress = data
	}
	for _, line := range log {
		if item.logBytes > mostLog {
			break
		}
		item.logBytes += len(line) + 16
		if item.logBytes > mostLog {
			line = logCut
		}
		item.record.AccumulatedLog = append(item.record.AccumulatedLog, line)
	}
	item.record.LastEventAt = protocol.Timestamp{Time: time.Now()}
	return item.record, nil
}

func (m *memory) Attach(_ context.Context, hash string, file protocol.StoredFile) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	switch {
	case item == nil:
		return ErrNotFound
	case protocol.Final(item.record.Status):
		return &FinalizedError{item.record.Status}
	}
	item.record.Files = append(slices.Clip(item.record.Files), file)
	return nil
}

func (m *memory) Cancel(_ context.Context, hash, reason string) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	if item == nil {
		return protocol.WorkRecord{}, ErrNotFound
	}
	if protocol.Final(item.record.Status) || item.record.CancelRequested {
		return item.record, nil
	}
	item.record.CancelRequested, item.record.CancelReason = true, reason
	if item.record.Status == protocol.StatusPending {
		m.end(item, Outcome{Status: protocol.StatusCanceled, Error: canceledText(hash, reason)})
	} else {
		m.event(item, protocol.WorkCancelRequested, protocol.StatusRunning, "", map[string]any{"Reason": reason})
	}
	return item.record, nil
}

func canceledText(hash, reason string) string {
	text := "Work item [" + hash + "] was canceled."
	if reason != "" {
		text = "Work item [" + hash + "] was canceled: " + reason
	}
	return text
}

func (m *memory) Finish(_ context.Context, hash string, outcome Outcome) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	switch {
	case item == nil:
		return protocol.WorkRecord{}, ErrNotFound
	case protocol.Final(item.record.Status):
		return item.record, &FinalizedError{item.record.Status}
	}
	m.end(item, outcome)
	return item.record, nil
}

// end makes an item final and drops the oldest of the final ones that have no
// room any more.
func (m *memory) end(item *memoryItem, outcome Outcome) {
	now := protocol.Timestamp{Time: time.Now()}
	r, from := &item.record, item.record.Status
	r.Outputs, r.Error = outcome.Outputs, outcome.Error
	r.Log = append(slices.Clip(r.AccumulatedLog), outcome.Log...)
	r.CompletedAt = now
	if outcome.BeaconID != "" {
		r.AssignedBeaconID = &outcome.BeaconID
	}
	event := protocol.WorkCompleted
	switch outcome.Status {
	case protocol.StatusError:
		event = protocol.WorkFailed
	case protocol.StatusTimeout:
		event = protocol.WorkTimedOut
	case protocol.StatusCanceled:
		event, r.CanceledAt = protocol.WorkCanceled, now
	}
	if outcome.Error != "" {
		r.LastError = &outcome.Error
	}
	m.move(item, outcome.Status)
	var payload map[string]any
	if outcome.Error != "" {
		payload = map[string]any{"Error": outcome.Error}
	}
	m.event(item, event, from, outcome.BeaconID, payload)

	m.live.Remove(item.place)
	m.liveBytes -= item.bytes
	item.place = m.finished.PushBack(item)
	item.result = item.bytes + int64(len(r.Outputs)+len(r.Progress))
	for _, line := range r.Log {
		item.result += int64(len(line) + 16)
	}
	m.doneBytes += item.result
	for m.finished.Len() > m.limits.finished || m.doneBytes > m.limits.doneBytes && m.finished.Len() > 1 {
		m.forget(m.finished.Front())
	}
}

func (m *memory) forget(place *list.Element) {
	item, ok := m.finished.Remove(place).(*memoryItem)
	if !ok {
		panic("hub: the history holds something else than items") // only end fills it
	}
	m.doneBytes -= item.result
	m.counts[item.record.Status]--
	delete(m.items, item.record.WorkItemHash)
	if item.key != "" {
		delete(m.keys, item.key)
	}
}

func (m *memory) move(item *memoryItem, status string) {
	m.counts[item.record.Status]--
	m.counts[status]++
	item.record.Status = status
}

func (m *memory) event(item *memoryItem, kind, from, beaconID string, payload map[string]any) {
	now := protocol.Timestamp{Time: time.Now()}
	item.record.LastEventAt = now
	if len(item.events) >= mostEvents { // the first one stays, it says when it all began
		item.events = slices.Delete(slices.Clone(item.events), 1, 2)
	}
	item.events = append(slices.Clip(item.events), protocol.WorkEvent{
		EventType: kind, FromStatus: from, ToStatus: item.record.Status, BeaconID: beaconID, EmittedAt: now, Payload: payload,
	})
}

func (m *memory) Get(_ context.Context, hash string) (protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	if item == nil {
		return protocol.WorkRecord{}, ErrNotFound
	}
	return item.record, nil
}

func (m *memory) Events(_ context.Context, hash string) ([]protocol.WorkEvent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	item := m.items[hash]
	if item == nil {
		return nil, ErrNotFound
	}
	return item.events, nil
}

func (m *memory) Live(context.Context) ([]protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return records(make([]protocol.WorkRecord, 0, m.live.Len()), m.live.Front(), (*list.Element).Next), nil
}

func (m *memory) History(_ context.Context, limit int) ([]protocol.WorkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return records(make([]protocol.WorkRecord, 0, min(limit, m.finished.Len())), m.finished.Back(), (*list.Element).Prev), nil
}

// records fills out up to its capacity.
func records(out []protocol.WorkRecord, at *list.Element, next func(*list.Element) *list.Element) []protocol.WorkRecord {
	for ; at != nil && len(out) < cap(out); at = next(at) {
		if item, ok := at.Value.(*memoryItem); ok {
			out = append(out, item.record)
		}
	}
	return out
}

func (m *memory) Counts(context.Context) (map[string]int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := make(map[string]int, len(m.counts))
	for status, n := range m.counts {
		if n > 0 {
			out[status] = n
		}
	}
	return out, nil
}

func (m *memory) Sweep(context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for oldest := m.finished.Front(); oldest != nil; oldest = m.finished.Front() {
		item, ok := oldest.Value.(*memoryItem)
		if !ok || time.Since(item.record.CompletedAt.Time) < m.limits.age {
			break
		}
		m.forget(oldest)
	}
	return nil
}

func (m *memory) Close(context.Context) error { return nil }
