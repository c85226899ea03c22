// Package protocol is Ultravisor's JSON: the messages that workers, submitters
// and servers exchange over WebSocket and HTTP, and their translation to and
// from the vocabulary of package beacon. It is the only package that knows the
// names of fields, message types and endpoints.
//
// The shapes were observed on real servers of two generations and real Node
// workers. Decoders tolerate unknown fields and message types, since either
// side may be newer; encoders always emit valid UTF-8, since a text frame that
// is not kills the real server.
package protocol

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
)

// DefaultPort is where an Ultravisor server listens unless told otherwise.
const DefaultPort = 54321

// DefaultTimeoutMs is the time a server gives an item that asks for none.
const DefaultTimeoutMs = 300_000

// MaxFrame is the largest text frame that may be sent, in bytes: the real
// server of March 2026 dies of frames over 100 MiB. Larger results go by HTTP.
const MaxFrame = 90 << 20

// Values of Message.Action, sent by workers.
const (
	ActionRegister     = "BeaconRegister"
	ActionHeartbeat    = "BeaconHeartbeat"
	ActionComplete     = "WorkComplete"
	ActionError        = "WorkError"
	ActionProgress     = "WorkProgress"
	ActionResultUpload = "WorkResultUpload"
	ActionUploadAck    = "WorkResultUploadAck" // sent by servers
	ActionDeregister   = "Deregister"
)

// Values of Message.EventType, sent by servers.
const (
	EventRegistered   = "BeaconRegistered"
	EventWorkItem     = "WorkItem"
	EventDeregistered = "Deregistered"
	EventRejected     = "BeaconRejected"
	// EventCancel is ours: Ultravisor has no message for it, and workers that do
	// not know it ignore it, as they do all events that they do not know.
	EventCancel = "WorkCancel"
)

// A Cancellation says that an item is no longer wanted. A worker that has it
// stops it and reports it as failed, which confirms the cancellation; for one
// that does not know the item there is nothing to do. It is the rest of an
// EventCancel, and one of the CanceledWorkItems in the answers to Poll,
// Heartbeat and Progress, by which workers without a socket learn of it. It may
// be repeated until the report is there.
type Cancellation struct {
	WorkItemHash string `json:"WorkItemHash"`
	// AttemptNumber is the last delivery that is not wanted any more: a later one
	// of the same item is. 0 means all.
	AttemptNumber int    `json:"AttemptNumber,omitempty"`
	Reason        string `json:"Reason,omitempty"`
}

// A Heartbeat is what a worker tells of itself now and then: the body of the
// HTTP heartbeat, and BeaconHeartbeat together with a BeaconID. Servers of
// Ultravisor ignore all that is in it.
type Heartbeat struct {
	// ActiveWorkItems are the hashes of all items that the worker has: those
	// that wait in it, that run, and whose result it has not had confirmed.
	// An item that is given to a worker and is not in the list for longer than
	// a message may take is lost. Nil, unlike an empty list, means that the
	// worker does not say.
	ActiveWorkItems []string `json:"ActiveWorkItems,omitzero"`
	// Draining says that the worker wants no more items and ends soon.
	Draining bool `json:"Draining,omitempty"`
}

// CloseRejected is the close code that follows EventRejected.
const CloseRejected = 4403

// A Registration introduces a worker, over WebSocket (inside a Message with
// ActionRegister) and over HTTP.
type Registration struct {
	Name          string            `json:"Name"`
	Capabilities  []string          `json:"Capabilities"`
	ActionSchemas []ActionSchema    `json:"ActionSchemas,omitempty"`
	MaxConcurrent int               `json:"MaxConcurrent"`
	Tags          map[string]any    `json:"Tags"`
	Contexts      map[string]any    `json:"Contexts,omitempty"`
	Operations    []json.RawMessage `json:"Operations,omitempty"`
	BindAddresses []json.RawMessage `json:"BindAddresses,omitempty"`
	HostID        string            `json:"HostID,omitempty"`
	SharedMounts  []SharedMount     `json:"SharedMounts"`
	JoinSecret    string            `json:"JoinSecret,omitempty"`
}

// An ActionSchema describes one action of a capability.
type ActionSchema struct {
	Capability     string          `json:"Capability"`
	Action         string          `json:"Action"`
	Description    string          `json:"Description"`
	SettingsSchema []SettingSchema `json:"SettingsSchema"`
}

// A SettingSchema describes one setting of an action.
type SettingSchema struct {
	Name        string `json:"Name"`
	DataType    string `json:"DataType"`
	Required    bool   `json:"Required"`
	Description string `json:"Description"`
	Default     any    `json:"Default,omitempty"`
}

// A SharedMount is a directory that other beacons on the same host can reach.
type SharedMount struct {
	MountID string `json:"MountID"`
	Root    string `json:"Root"`
}

// A Context is a place of a beacon that universal addresses name. BasePath is
// where it is on the beacon's machine, BaseURL where others reach it.
type Context struct {
	BasePath    string `json:"BasePath,omitempty"`
	BaseURL     string `json:"BaseURL,omitempty"`
	Writable    bool   `json:"Writable,omitempty"`
	Description string `json:"Description,omitempty"`
}

// A Peer is what a server tells of a beacon, as far as other beacons want to
// know.
type Peer struct {
	BeaconID string             `json:"BeaconID"`
	Name     string             `json:"Name"`
	Contexts map[string]Context `json:"Contexts"`
}

// A WorkItem is an item on its way to a worker.
type WorkItem struct {
	WorkItemHash  string          `json:"WorkItemHash"`
	RunID         string          `json:"RunID,omitempty"`
	Capability    string          `json:"Capability"`
	Action        string          `json:"Action"`
	Settings      beacon.Settings `json:"Settings"`
	OperationHash string          `json:"OperationHash"`
	TimeoutMs     float64         `json:"TimeoutMs"`
	AttemptNumber int             `json:"AttemptNumber,omitempty"`
	QueueMetadata json.RawMessage `json:"QueueMetadata,omitempty"`
}

// Progress is the ProgressData of a message, and the whole body of the HTTP
// progress endpoint.
type Progress struct {
	Percent    *float64 `json:"Percent,omitempty"`
	Message    string   `json:"Message,omitempty"`
	Step       int      `json:"Step,omitempty"`
	TotalSteps int      `json:"TotalSteps,omitempty"`
	Log        []string `json:"Log,omitempty"`
}

// A Completion is the outcome of an item that a provider carried out.
type Completion struct {
	Outputs beacon.Outputs `json:"Outputs"`
	Log     []string       `json:"Log"`
	// AttemptNumber is which delivery of the item it is the outcome of: ours, and
	// ignored by Ultravisor. 0 means unknown.
	AttemptNumber int    `json:"AttemptNumber,omitempty"`
	Usage         *Usage `json:"Usage,omitempty"` // ours, too
}

// A WorkFailure is the outcome of an item whose provider failed.
type WorkFailure struct {
	ErrorMessage  string   `json:"ErrorMessage"`
	Log           []string `json:"Log"`
	AttemptNumber int      `json:"AttemptNumber,omitempty"` // as of a Completion
	Usage         *Usage   `json:"Usage,omitempty"`
}

// NewRegistration describes capabilities the way servers want them.
func NewRegistration(name string, maxConcurrent int, capabilities []beacon.Capability) Registration {
	r := Registration{
		Name:          name,
		MaxConcurrent: maxConcurrent,
		Capabilities:  []string{},
		Tags:          map[string]any{},
		SharedMounts:  []SharedMount{},
	}
	for _, c := range capabilities {
		r.Capabilities = append(r.Capabilities, c.Name)
		for _, a := range c.Actions {
			schema := ActionSchema{Capability: c.Name, Action: a.Name, Description: a.Description, SettingsSchema: []SettingSchema{}}
			for _, s := range a.Settings {
				schema.SettingsSchema = append(schema.SettingsSchema, SettingSchema(s))
			}
			r.ActionSchemas = append(r.ActionSchemas, schema)
		}
	}
	return r
}

// Beacon translates an item to the vocabulary of workers. An item without a
// hash cannot be reported and is an error; everything else is for the executor
// to judge.
func (w WorkItem) Beacon() (beacon.WorkItem, error) {
	if w.WorkItemHash == "" {
		return beacon.WorkItem{}, beacon.Errorf(beacon.Invalid, "a work item without a WorkItemHash")
	}
	settings := w.Settings
	if settings == nil {
		settings = beacon.Settings{}
	}
	timeout := time.Duration(0)
	if w.TimeoutMs > 0 {
		// A week is beyond any item; it keeps the product within a Duration.
		timeout = time.Duration(min(w.TimeoutMs, 7*24*3600*1000) * float64(time.Millisecond))
	}
	return beacon.WorkItem{
		Hash:          w.WorkItemHash,
		Capability:    w.Capability,
		Action:        w.Action,
		Settings:      settings,
		OperationHash: w.OperationHash,
		RunID:         w.RunID,
		Timeout:       timeout,
		Attempt:       w.AttemptNumber,
	}, nil
}

// NewProgress translates progress for the wire.
func NewProgress(p beacon.Progress) Progress {
	out := Progress{Message: p.Message, Step: p.Step, TotalSteps: p.TotalSteps, Log: p.Log}
	if p.HasPercent {
		out.Percent = &p.Percent
	}
	return out
}

// Beacon translates progress from the wire.
func (p Progress) Beacon() beacon.Progress {
	out := beacon.Progress{Message: p.Message, Step: p.Step, TotalSteps: p.TotalSteps, Log: p.Log}
	if p.Percent != nil {
		out.Percent, out.HasPercent = *p.Percent, true
	}
	return out
}

// NewCompletion translates a result for the wire, where Log is never null.
func NewCompletion(r beacon.Result) Completion {
	c := Completion{Outputs: r.Outputs, Log: r.Log, Usage: NewUsage(r.Usage)}
	if c.Outputs == nil {
		c.Outputs = beacon.Outputs{}
	}
	if c.Log == nil {
		c.Log = []string{}
	}
	return c
}

// Encode marshals a message. The text is valid UTF-8 even where outputs hold
// bytes that are not: encoding/json replaces them.
func Encode(message any) ([]byte, error) {
	raw, err := json.Marshal(message)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", message, err)
	}
	if !utf8.Valid(raw) { // RawMessage parts are copied as they are
		raw = []byte(strings.ToValidUTF8(string(raw), "\uFFFD"))
	}
	return raw, nil
}
