package protocol

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ultravisor/beacon"
)

// States of a work item on a server. Pending items wait, Running items are at a
// beacon, scheduled ones are not due yet, all others are final.
const (
	StatusPending  = "Pending"
	StatusRunning  = "Running"
	StatusComplete = "Complete"
	StatusError    = "Error"
	StatusCanceled = "Canceled"
	StatusTimeout  = "Timeout"
	// StatusRetryScheduled is that of an item whose provider has failed and that
	// is tried again, StatusScheduled, which is ours, of one that is to begin
	// later.
	StatusRetryScheduled = "RetryScheduled"
	StatusScheduled      = "Scheduled"
)

// Final reports whether a state is the last of an item.
func Final(status string) bool {
	switch status {
	case StatusComplete, StatusError, StatusCanceled, StatusTimeout:
		return true
	}
	return false
}

// IdempotencyHeader names the request header under which a repeated Enqueue
// answers with the item of the first.
const IdempotencyHeader = "X-Idempotency-Key"

// A Timestamp is a moment the way Ultravisor writes it: UTC, milliseconds. The
// zero Timestamp is null.
type Timestamp struct{ time.Time }

const timestampLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON implements json.Marshaler.
func (t Timestamp) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return []byte(`"` + t.UTC().Format(timestampLayout) + `"`), nil
}

// UnmarshalJSON implements json.Unmarshaler. It takes any RFC 3339 time.
func (t *Timestamp) UnmarshalJSON(raw []byte) error {
	var text *string
	if err := json.Unmarshal(raw, &text); err != nil {
		return fmt.Errorf("parse timestamp: %w", err)
	}
	if text == nil || *text == "" {
		*t = Timestamp{}
		return nil
	}
	parsed, err := time.Parse(time.RFC3339Nano, *text)
	if err != nil {
		return fmt.Errorf("parse timestamp: %w", err)
	}
	t.Time = parsed
	return nil
}

// A Submission asks a server for work: the body of Dispatch, DispatchStream and
// Enqueue. Dispatch and DispatchStream know the fields up to TimeoutMs.
type Submission struct {
	Capability string          `json:"Capability"`
	Action     string          `json:"Action,omitempty"`
	Settings   beacon.Settings `json:"Settings,omitempty"`
	// AffinityKey brings items with the same key to the same beacon, or to the
	// beacon of that name. RequireAffinityMatch lets the item wait for it.
	AffinityKey          string   `json:"AffinityKey,omitempty"`
	RequireAffinityMatch bool     `json:"RequireAffinityMatch,omitempty"`
	TimeoutMs            float64  `json:"TimeoutMs,omitempty"`
	Priority             *float64 `json:"Priority,omitempty"`
	// MaxAttempts is how often the provider may fail, RetryBackoffMs the wait
	// before the second attempt; servers take them from the settings maxRetries
	// and retryBackoffMs, too. DelayMs and NotBefore have the item begin later.
	// They are ours as fields of a submission.
	MaxAttempts    int       `json:"MaxAttempts,omitempty"`
	RetryBackoffMs int64     `json:"RetryBackoffMs,omitempty"`
	DelayMs        int64     `json:"DelayMs,omitempty"`
	NotBefore      Timestamp `json:"NotBefore,omitzero"`
	// Tenant is whose item it is, for those who may act for several.
	Tenant        string          `json:"Tenant,omitempty"`
	RunID         string          `json:"RunID,omitempty"`
	RunHash       string          `json:"RunHash,omitempty"`
	NodeHash      string          `json:"NodeHash,omitempty"`
	OperationHash string          `json:"OperationHash,omitempty"`
	SubmitterTag  string          `json:"SubmitterTag,omitempty"`
	Metadata      json.RawMessage `json:"Metadata,omitempty"`
}

// Enqueued is the answer to Enqueue.
type Enqueued struct {
	Success      bool      `json:"Success"`
	RunID        string    `json:"RunID"`
	WorkItemHash string    `json:"WorkItemHash"`
	Status       string    `json:"Status"`
	EnqueuedAt   Timestamp `json:"EnqueuedAt"`
	Priority     float64   `json:"Priority"`
}

// Dispatched is the answer to Dispatch and the payload of FrameResult and
// FrameError. Outputs is a JSON object.
type Dispatched struct {
	Success      bool            `json:"Success"`
	WorkItemHash string          `json:"WorkItemHash,omitempty"`
	Outputs      json.RawMessage `json:"Outputs,omitempty"`
	Log          []string        `json:"Log,omitempty"`
	Error        string          `json:"Error,omitempty"`
}

// Canceled is the answer to Cancel. A running item is only asked to end.
type Canceled struct {
	Success         bool   `json:"Success"`
	WorkItemHash    string `json:"WorkItemHash"`
	Canceled        bool   `json:"Canceled"`
	CancelRequested bool   `json:"CancelRequested,omitempty"`
	Status          string `json:"Status"`
}

// A StoredFile is a file that a server keeps for a while. URL is a path on that
// server; SHA256 is in lower-case hexadecimal.
type StoredFile struct {
	Name   string `json:"Name,omitempty"`
	URL    string `json:"URL"`
	Size   int64  `json:"Size"`
	SHA256 string `json:"SHA256"`
}

// A WorkRecord is everything a server knows of an item: what GET /Beacon/Work
// lists and GET /Beacon/Work/:hash shows. Outputs (a JSON object), Log and
// Error are those of a final item.
type WorkRecord struct {
	WorkItemHash         string          `json:"WorkItemHash"`
	RunHash              string          `json:"RunHash"`
	RunID                string          `json:"RunID"`
	NodeHash             string          `json:"NodeHash"`
	OperationHash        string          `json:"OperationHash"`
	Tenant               string          `json:"Tenant,omitempty"`
	Capability           string          `json:"Capability"`
	Action               string          `json:"Action"`
	Settings             beacon.Settings `json:"Settings"`
	AffinityKey          string          `json:"AffinityKey"`
	RequireAffinityMatch bool            `json:"RequireAffinityMatch"`
	SubmitterTag         string          `json:"SubmitterTag,omitempty"`
	Metadata             json.RawMessage `json:"Metadata,omitempty"`
	AssignedBeaconID     *string         `json:"AssignedBeaconID"`
	Status               string          `json:"Status"`
	TimeoutMs            float64         `json:"TimeoutMs"`
	Priority             float64         `json:"Priority"`
	AttemptNumber        int             `json:"AttemptNumber"`
	MaxAttempts          int             `json:"MaxAttempts,omitempty"`
	RetryBackoffMs       int64           `json:"RetryBackoffMs,omitempty"`
	NotBefore            Timestamp       `json:"NotBefore,omitzero"`
	CreatedAt            Timestamp       `json:"CreatedAt"`
	EnqueuedAt           Timestamp       `json:"EnqueuedAt"`
	DispatchedAt         Timestamp       `json:"DispatchedAt"`
	StartedAt            Timestamp       `json:"StartedAt"`
	ClaimedAt            Timestamp       `json:"ClaimedAt"`
	CompletedAt          Timestamp       `json:"CompletedAt"`
	CanceledAt           Timestamp       `json:"CanceledAt"`
	LastEventAt          Timestamp       `json:"LastEventAt"`
	QueueWaitMs          int64           `json:"QueueWaitMs"`
	CancelRequested      bool            `json:"CancelRequested"`
	CancelReason         string          `json:"CancelReason"`
	LastError            *string         `json:"LastError"`
	Progress             json.RawMessage `json:"Progress"`
	AccumulatedLog       []string        `json:"AccumulatedLog"`
	Outputs              json.RawMessage `json:"Outputs,omitempty"`
	Log                  []string        `json:"Log,omitempty"`
	Error                string          `json:"Error,omitempty"`
	Files                []StoredFile    `json:"Files,omitempty"`
	DeadLetter           bool            `json:"DeadLetter,omitempty"`
	Usage                *Usage          `json:"Usage,omitempty"` // of all attempts since it was handed in, or again
}

// Names of WorkEvents.
const (
	WorkEnqueued        = "enqueued"
	WorkDispatched      = "dispatched"
	WorkRequeued        = "requeued"
	WorkCompleted       = "completed"
	WorkFailed          = "failed"
	WorkCanceled        = "canceled"
	WorkCancelRequested = "cancel_requested"
	WorkTimedOut        = "timeout"
)

// A WorkEvent is one change in the life of an item.
type WorkEvent struct {
	EventType  string         `json:"EventType"`
	FromStatus string         `json:"FromStatus"`
	ToStatus   string         `json:"ToStatus"`
	BeaconID   string         `json:"BeaconID,omitempty"`
	EmittedAt  Timestamp      `json:"EmittedAt"`
	Payload    map[string]any `json:"Payload,omitempty"`
}

// QueueMetadata travels with an item to its worker, beside the settings and as
// one of them.
type QueueMetadata struct {
	RunID         string    `json:"RunID"`
	WorkItemHash  string    `json:"WorkItemHash"`
	EnqueuedAt    Timestamp `json:"EnqueuedAt"`
	DispatchedAt  Timestamp `json:"DispatchedAt"`
	QueueWaitMs   int64     `json:"QueueWaitMs"`
	AttemptNumber int       `json:"AttemptNumber"`
	HubInstanceID string    `json:"HubInstanceID"`
	// Tenant is whose item it is, unless that is nobody in particular: ours.
	Tenant string `json:"Tenant,omitempty"`
}

// StreamProtocol is the value of StreamHeader on the answer to DispatchStream.
const (
	StreamHeader   = "X-Ultravisor-Protocol"
	StreamProtocol = "binary-frames-v1"
)

// A FrameType says what a frame of a DispatchStream holds.
type FrameType byte

// The frame types. A stream ends with FrameResult or FrameError.
const (
	FrameProgress     FrameType = 1 // JSON: progress
	FrameIntermediate FrameType = 2 // bytes, before the item is done
	FrameOutput       FrameType = 3 // bytes of the output file
	FrameResult       FrameType = 4 // JSON: Dispatched
	FrameError        FrameType = 5 // JSON: Dispatched
)

// WriteFrame writes one frame. Payloads over 4 GiB do not fit in one.
func WriteFrame(w io.Writer, kind FrameType, payload []byte) error {
	if uint64(len(payload)) > 1<<32-1 {
		return fmt.Errorf("write frame of type %d: %d bytes are more than a frame holds", kind, len(payload))
	}
	var header [5]byte
	header[0] = byte(kind)
	binary.BigEndian.PutUint32(header[1:], uint32(len(payload)))
	if _, err := w.Write(header[:]); err != nil {
		return fmt.Errorf("write frame header: %w", err)
	}
	if _, err := w.Write(payload); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// ReadFrame reads one frame of at most limit bytes. It returns io.EOF at the
// end of the stream and io.ErrUnexpectedEOF inside of a frame. Memory grows
// with what arrives, not with what a header claims.
func ReadFrame(r io.Reader, limit int64) (FrameType, []byte, error) {
	var header [5]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return 0, nil, io.EOF
		}
		return 0, nil, fmt.Errorf("read frame header: %w", err)
	}
	kind, size := FrameType(header[0]), int64(binary.BigEndian.Uint32(header[1:]))
	if size > limit {
		return 0, nil, fmt.Errorf("read frame of type %d: %d bytes are over the limit of %d", kind, size, limit)
	}
	payload, err := io.ReadAll(io.LimitReader(r, size))
	if err == nil && int64(len(payload)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read frame of type %d: %w", kind, err)
	}
	return kind, payload, nil
}
