package ledger

import (
	"container/list"
	"encoding/json"
	"slices"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

const (
	// mostLog bounds the progress log of one item in bytes, mostEvents its
	// events: both come from workers, and an item may live for days.
	mostLog    = 1 << 20
	mostEvents = 100
	logCut     = "(more log lines than the hub keeps; the rest is left out)"
	// fixedBytes is about what an item takes beside its contents.
	fixedBytes = 1024
)

// A Spec is what was submitted. It never changes.
type Spec struct {
	Tenant     string
	Capability string
	Action     string
	// Settings is a JSON object. One that is too large to be here is in Blob,
	// and takes Size bytes there.
	Settings json.RawMessage `json:",omitempty"`
	Blob     string          `json:",omitempty"`
	Size     int64           `json:",omitempty"`

	AffinityKey string  `json:",omitempty"`
	OnlyMatch   bool    `json:",omitempty"`
	TimeoutMs   float64 `json:",omitempty"`
	Priority    float64 `json:",omitempty"`
	// Attempts is how often the provider may fail; at least 1. BackoffMs is the
	// wait before the second attempt.
	Attempts  int   `json:",omitempty"`
	BackoffMs int64 `json:",omitempty"`
	// NotBefore delays the item, in milliseconds since 1970; DelayMs does,
	// counted from when it is taken in.
	NotBefore int64 `json:",omitempty"`
	DelayMs   int64 `json:",omitempty"`

	RunID         string          `json:",omitempty"`
	RunHash       string          `json:",omitempty"`
	NodeHash      string          `json:",omitempty"`
	OperationHash string          `json:",omitempty"`
	SubmitterTag  string          `json:",omitempty"`
	Metadata      json.RawMessage `json:",omitempty"`
	User          string          `json:",omitempty"`

	// Key has a second Submit with the same one answered with the first's item;
	// Digest tells whether it asked for the same.
	Key    string `json:",omitempty"`
	Digest string `json:",omitempty"`
	// Waited says that the submitter waits, TimeoutMs long; Live that bytes that
	// come before the end are of use.
	Waited bool `json:",omitempty"`
	Live   bool `json:",omitempty"`
	// Files are those that the item needs.
	Files []string `json:",omitempty"`
}

// An Item is a work item. What View and the like return is a copy whose slices
// are shared and never change.
type Item struct {
	Hash string
	Seq  uint64 // order of arrival
	Spec *Spec

	Status   string
	Beacon   string `json:",omitempty"` // has it, or had it at the end
	LastName string `json:",omitempty"` // of the beacon of the last attempt
	Charged  int64  `json:",omitempty"` // of the tenant's Pledged
	Attempt  int    `json:",omitempty"` // the newest
	Failed   int    `json:",omitempty"` // the newest whose failure is accounted for
	Failures int    `json:",omitempty"` // of this life
	Lost     int    `json:",omitempty"` // of this life

	Enqueued   int64
	NotBefore  int64 `json:",omitempty"`
	Ready      int64 `json:",omitempty"` // when it last began to wait
	Dispatched int64 `json:",omitempty"`
	Started    int64 `json:",omitempty"`
	Ended      int64 `json:",omitempty"`
	Touched    int64 `json:",omitempty"`
	Deadline   int64 `json:",omitempty"` // of a submitter who waits
	Overrun    int64 `json:",omitempty"` // when the attempt is given up
	WaitMs     int64 `json:",omitempty"`

	CancelAsked  bool   `json:",omitempty"`
	CancelReason string `json:",omitempty"`
	LastError    string `json:",omitempty"`

	Progress json.RawMessage       `json:",omitempty"`
	Log      []string              `json:",omitempty"`
	LogBytes int                   `json:",omitempty"`
	Files    []protocol.StoredFile `json:",omitempty"`
	Kept     []string              `json:",omitempty"` // ids of files that came with the outcome
	Events   []Happening           `json:",omitempty"`
	Outcome  *Outcome              `json:",omitempty"`
	Usage    *protocol.Usage       `json:",omitempty"` // of this life
	EndSeq   uint64                `json:",omitempty"` // order of ending
	Dead     bool                  `json:",omitempty"`
	Bytes    int64                 // counted against the bounds

	place  *list.Element // in live, finished or dead
	lane   *lane
	index  int   // in lane
	queued int   // in its backlog, while it waits
	alarm  int64 // the earliest timer
}

// A Happening is one change in the life of an item.
type Happening struct {
	Kind    string
	From    string `json:",omitempty"`
	To      string
	Beacon  string `json:",omitempty"`
	At      int64
	Attempt int    `json:",omitempty"`
	WaitMs  int64  `json:",omitempty"`
	Text    string `json:",omitempty"`
}

// before is the order of waiting: by priority, then by arrival.
func (it *Item) before(other *Item) bool {
	if it.Spec.Priority != other.Spec.Priority {
		return it.Spec.Priority > other.Spec.Priority
	}
	return it.Seq < other.Seq
}

// Final reports whether the item has ended.
func (it *Item) Final() bool { return protocol.Final(it.Status) }

func (l *Ledger) happened(it *Item, h Happening) {
	h.At, h.To = l.now, it.Status
	it.Touched = l.now
	if len(it.Events) >= mostEvents { // the first one stays: it says when it all began
		it.Events = slices.Delete(slices.Clone(it.Events), 1, 2)
	}
	it.Events = append(slices.Clip(it.Events), h)
}

// logged appends to the item's log.
func (it *Item) logged(lines []string) {
	if len(lines) == 0 || it.LogBytes > mostLog {
		return
	}
	log := slices.Clip(it.Log)
	for _, line := range lines {
		if it.LogBytes > mostLog {
			break
		}
		it.LogBytes += len(line) + 16
		if it.LogBytes > mostLog {
			line = logCut
		}
		log = append(log, line)
	}
	it.Log = log
}

func (s *Spec) bytes() int64 {
	return fixedBytes + int64(len(s.Settings)+len(s.Metadata)+len(s.Key)) + s.Size
}

// outcomeBytes is what the outcome adds.
func (it *Item) outcomeBytes() int64 {
	n := int64(len(it.Progress))
	for _, line := range it.Log {
		n += int64(len(line) + 16)
	}
	if it.Outcome != nil {
		n += int64(len(it.Outcome.Outputs) + len(it.Outcome.Error))
		for _, line := range it.Outcome.Log {
			n += int64(len(line) + 16)
		}
	}
	return n
}

func timestamp(ms int64) protocol.Timestamp {
	if ms == 0 {
		return protocol.Timestamp{}
	}
	return protocol.Timestamp{Time: time.UnixMilli(ms)}
}

// Record is the item as Ultravisor shows it. Contents that are elsewhere are
// given by whoever has fetched them: settings replace Spec.Settings, outcome
// replaces Outcome; nil means that they are here.
func (it *Item) Record(settings json.RawMessage, outcome *Outcome) protocol.WorkRecord {
	s := it.Spec
	r := protocol.WorkRecord{
		WorkItemHash: it.Hash, RunHash: s.RunHash, RunID: s.RunID, NodeHash: s.NodeHash, OperationHash: s.OperationHash,
		Tenant: s.Tenant, Capability: s.Capability, Action: s.Action,
		AffinityKey: s.AffinityKey, RequireAffinityMatch: s.OnlyMatch,
		SubmitterTag: s.SubmitterTag, Metadata: s.Metadata,
		Status: it.Status, TimeoutMs: s.TimeoutMs, Priority: s.Priority,
		AttemptNumber: it.Attempt, MaxAttempts: s.Attempts, RetryBackoffMs: s.BackoffMs,
		CreatedAt: timestamp(it.Enqueued), EnqueuedAt: timestamp(it.Enqueued), NotBefore: timestamp(it.NotBefore),
		DispatchedAt: timestamp(it.Dispatched), StartedAt: timestamp(it.Started), ClaimedAt: timestamp(it.Dispatched),
		LastEventAt: timestamp(it.Touched), QueueWaitMs: it.WaitMs,
		CancelRequested: it.CancelAsked, CancelReason: it.CancelReason,
		Progress: it.Progress, AccumulatedLog: it.Log, Files: it.Files, DeadLetter: it.Dead, Usage: it.Usage,
	}
	if settings == nil {
		settings = s.Settings
	}
	r.Settings = beacon.Settings{}
	if len(settings) > 0 {
		_ = json.Unmarshal(settings, &r.Settings) // it was an object when it was taken in
	}
	if r.AccumulatedLog == nil {
		r.AccumulatedLog = []string{}
	}
	if it.Beacon != "" {
		id := it.Beacon
		r.AssignedBeaconID = &id
	}
	if it.LastError != "" {
		text := it.LastError
		r.LastError = &text
	}
	if it.Final() {
		r.CompletedAt = timestamp(it.Ended)
		if it.Status == protocol.StatusCanceled {
			r.CanceledAt = r.CompletedAt
		}
		if outcome == nil {
			outcome = it.Outcome
		}
		if outcome != nil {
			r.Outputs, r.Error = outcome.Outputs, outcome.Error
			r.Log = append(slices.Clip(it.Log), outcome.Log...)
		}
	}
	return r
}

// Kinds of happenings that Ultravisor's list lacks.
const (
	happenedRetry = "retry_scheduled"
	happenedDead  = "dead_letter"
	happenedAgain = "requeued_by_operator"
	happenedKept  = "kept_by_beacon"
)

// History is what happened to the item, the way Ultravisor shows it.
func (it *Item) History() []protocol.WorkEvent {
	out := make([]protocol.WorkEvent, len(it.Events))
	for i, h := range it.Events {
		e := protocol.WorkEvent{EventType: h.Kind, FromStatus: h.From, ToStatus: h.To, BeaconID: h.Beacon, EmittedAt: timestamp(h.At)}
		switch h.Kind {
		case protocol.WorkEnqueued:
			e.Payload = map[string]any{
				"Capability": it.Spec.Capability, "Action": it.Spec.Action, "Priority": it.Spec.Priority, "AffinityKey": it.Spec.AffinityKey,
			}
		case protocol.WorkDispatched:
			e.Payload = map[string]any{"QueueWaitMs": h.WaitMs, "AttemptNumber": h.Attempt}
		case protocol.WorkRequeued, protocol.WorkCancelRequested:
			e.Payload = map[string]any{"Reason": h.Text}
		case happenedRetry:
			e.Payload = map[string]any{"Error": h.Text, "AttemptNumber": h.Attempt, "DelayMs": h.WaitMs}
		default:
			if h.Text != "" {
				e.Payload = map[string]any{"Error": h.Text}
			}
		}
		out[i] = e
	}
	return out
}
