package ledger

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ultravisor/beacon/protocol"
)

// An Entry is one thing that was asked for or has happened. Exactly one field
// is set. Entries are kept, so a field never changes its meaning, and an entry
// holds everything that its effect depends on.
type Entry struct {
	Configure *Settings  `json:",omitempty"`
	Start     *Start     `json:",omitempty"`
	Stop      *Stop      `json:",omitempty"`
	Tick      *Tick      `json:",omitempty"`
	Join      *Join      `json:",omitempty"`
	Leave     *Leave     `json:",omitempty"`
	Seen      *Seen      `json:",omitempty"`
	Listed    *Listed    `json:",omitempty"`
	Submit    *Submit    `json:",omitempty"`
	Poll      *Poll      `json:",omitempty"`
	Release   *Release   `json:",omitempty"`
	Progress  *Progress  `json:",omitempty"`
	Attach    *Attach    `json:",omitempty"`
	Finish    *Finish    `json:",omitempty"`
	Cancel    *Cancel    `json:",omitempty"`
	Abandon   *Abandon   `json:",omitempty"`
	Requeue   *Requeue   `json:",omitempty"`
	Forget    *Forget    `json:",omitempty"`
	Revoke    *Revoke    `json:",omitempty"`
	Secret    *NewSecret `json:",omitempty"`
}

// Start is the first entry of a hub.
type Start struct {
	// URL is where other hubs and beacons reach it; may be empty.
	URL string `json:",omitempty"`
	// Files is the name of the folder in which it has files; may be empty.
	Files string `json:",omitempty"`
	// Alone says that no other hub can be there: those of before are gone.
	Alone bool `json:",omitempty"`
}

// Stop is the last entry of a hub that ends in order. Beacons keep what they
// work on and come back to another.
type Stop struct{}

// Tick lets time pass. Every entry does, and is a sign of life of its hub; a
// Tick does nothing else.
type Tick struct{}

// Join registers a beacon. A known name keeps its BeaconID, and the link that
// had it before is put off.
type Join struct {
	// Link is the connection at the hub, counted from 1; 0 is for beacons that
	// poll, through whichever hub they like.
	Link uint64 `json:",omitempty"`
	// Info is what the beacon says of itself, without secrets and operations.
	Info protocol.Registration
	// Session is a digest of the caller's session; callers of one session are
	// one process.
	Session string `json:",omitempty"`
	// Tenant confines the beacon to one tenant's items; empty means all.
	Tenant string `json:",omitempty"`
	// User is who the beacon logged in as; empty for nobody.
	User string `json:",omitempty"`
}

// Leave ends a beacon, or, by Link, the connection of one.
type Leave struct {
	Beacon string
	// Link, unless 0, has the entry apply only if the beacon is still on it.
	Link uint64 `json:",omitempty"`
	// Lost says that the link ended without a word, so that a beacon that lists
	// its items may come back for them.
	Lost bool `json:",omitempty"`
	// Dismissed says that the beacon does not know yet: its connection, wherever
	// it is, is to be closed.
	Dismissed bool `json:",omitempty"`
	Reason    string
}

// Seen tells when beacons that poll were last heard of, in milliseconds since
// 1970.
type Seen struct{ Beacons map[string]int64 }

// Listed is what a beacon says it has. What it was given earlier than Grace
// milliseconds ago and does not list is lost. A beacon that has said so once
// keeps what it has over the loss of its link.
type Listed struct {
	Beacon   string
	Active   []string
	Draining bool  `json:",omitempty"`
	Grace    int64 `json:",omitempty"`
}

// Submit takes in an item.
type Submit struct{ Spec *Spec }

// Poll asks for an item on behalf of a beacon.
type Poll struct{ Beacon string }

// Release takes an item back from its beacon, if it is still at this attempt.
type Release struct {
	Hash    string
	Attempt int
	Reason  string
}

// Progress is how far an item has come.
type Progress struct {
	Hash string
	// Beacon and Session say who reports; either may be empty.
	Beacon  string          `json:",omitempty"`
	Session string          `json:",omitempty"`
	Data    json.RawMessage `json:",omitempty"`
	Log     []string        `json:",omitempty"`
	// Binary is passed on to whoever follows the item and not kept.
	Binary []byte `json:",omitempty"`
}

// Attach adds a file to an item that is not final.
type Attach struct {
	Hash string
	File protocol.StoredFile
	// ID is how Needs is asked for it.
	ID string `json:",omitempty"`
}

// Finish reports how an item ended.
type Finish struct {
	Hash string
	// Beacon, Session and Attempt say who reports and which delivery of the item
	// it carried out; each may be unknown.
	Beacon  string `json:",omitempty"`
	Session string `json:",omitempty"`
	Attempt int    `json:",omitempty"`
	Outcome Outcome
}

// An Outcome is how an item ended.
type Outcome struct {
	Status string
	// Outputs is a JSON object; nil unless Status is StatusComplete.
	Outputs json.RawMessage `json:",omitempty"`
	// Log follows what progress has logged.
	Log []string `json:",omitempty"`
	// Blob is where Outputs and Log are if they are too large to be here.
	Blob string `json:",omitempty"`
	// Error says why, for every other Status.
	Error string `json:",omitempty"`
	// Usage is what the attempt has used; nil if nobody says.
	Usage *protocol.Usage `json:",omitempty"`
}

// Cancel ends an item that waits and asks for the end of one that runs.
type Cancel struct {
	Hash   string
	Reason string `json:",omitempty"`
}

// Abandon cancels an item that waits; one that runs goes on.
type Abandon struct {
	Hash   string
	Reason string
}

// Requeue gives an item that failed a new life.
type Requeue struct{ Hash string }

// Forget drops a final item.
type Forget struct{ Hash string }

// Revoke ends a session before its time.
type Revoke struct {
	Session string
	Until   int64 // when it ends by itself, in milliseconds since 1970
}

// NewSecret proposes the key that signs sessions and addresses of files. The
// first one stays.
type NewSecret struct{ Key []byte }

// Settings are what all hubs of one ledger share. The zero value of a field
// means its default.
type Settings struct {
	// HeartbeatMs is the silence after which a beacon that polls is gone,
	// GraceMs how long one whose link is lost keeps what it works on, HubMs the
	// silence after which a hub is gone.
	HeartbeatMs int64 `json:",omitempty"`
	GraceMs     int64 `json:",omitempty"`
	HubMs       int64 `json:",omitempty"`
	// AffinityMs is how long a key stays with a beacon.
	AffinityMs int64 `json:",omitempty"`
	// OverrunMs is how much longer than its TimeoutMs an item may run before its
	// attempt is given up: its beacon should have ended it.
	OverrunMs int64 `json:",omitempty"`
	// QueueItems and QueueBytes bound what waits or runs.
	QueueItems int   `json:",omitempty"`
	QueueBytes int64 `json:",omitempty"`
	// HistoryItems, HistoryBytes and HistoryMs bound finished items.
	HistoryItems int   `json:",omitempty"`
	HistoryBytes int64 `json:",omitempty"`
	HistoryMs    int64 `json:",omitempty"`
	// DeadItems, DeadBytes and DeadMs bound dead letters.
	DeadItems int   `json:",omitempty"`
	DeadBytes int64 `json:",omitempty"`
	DeadMs    int64 `json:",omitempty"`
	// MostLost is how often an item may be lost with its beacon.
	MostLost int `json:",omitempty"`
	// Tenants are those whose share is not the usual one.
	Tenants map[string]TenantSettings `json:",omitempty"`
}

// TenantSettings are one tenant's share.
type TenantSettings struct {
	// Weight is the tenant's share of the slots while others want them, too; 0
	// means 100.
	Weight int64 `json:",omitempty"`
	// Queue and Running bound what of the tenant waits or runs, and what runs;
	// 0 means no bound of its own.
	Queue   int `json:",omitempty"`
	Running int `json:",omitempty"`
}

// Errors of entries.
var (
	ErrNotFound      = errors.New("work item not found")
	ErrNotRunning    = errors.New("work item not running")
	ErrNotFinal      = errors.New("work item not final")
	ErrComplete      = errors.New("work item complete")
	ErrFull          = errors.New("the queue is full")
	ErrTenantFull    = errors.New("the tenant's queue is full")
	ErrNoBeacons     = errors.New("no beacons are registered")
	ErrUnknownBeacon = errors.New("beacon not found")
	ErrUnknownHub    = errors.New("taken for gone")
	ErrTooMany       = errors.New("too many beacons are registered")
	ErrConflict      = errors.New("the idempotency key was used for another work item")
	ErrInvalid       = errors.New("not an entry")
)

// A FinalizedError refuses a second outcome.
type FinalizedError struct{ Status string }

func (e *FinalizedError) Error() string {
	return fmt.Sprintf("work item already finalized (%s)", e.Status)
}

// A StaleError refuses the outcome of an attempt after which there was another.
type StaleError struct{ Attempt, Current int }

func (e *StaleError) Error() string {
	return fmt.Sprintf("attempt %d already finalized: the work item is at attempt %d", e.Attempt, e.Current)
}
