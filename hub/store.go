package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ultravisor/beacon/protocol"
)

// A Store keeps work items and moves them between their states. It knows
// nothing of HTTP, beacons or slots: who gets an item is the dispatcher's
// decision, that the item is then Running is the store's.
//
// Each method that changes an item is one transition, atomic, recorded as an
// event, and durable to the degree of the implementation when it returns. All
// methods may be called concurrently. Items that are handed out are copies; the
// bytes, slices and maps in them are shared and never changed.
type Store interface {
	// Add takes in a new item as Pending. With a key that an earlier item was
	// added under and is still known by, it adds nothing and returns that item
	// and true. ErrFull says that there is no room.
	Add(ctx context.Context, item protocol.WorkRecord, key string) (protocol.WorkRecord, bool, error)
	// Take gives a Pending item to a beacon: Running, one attempt more.
	Take(ctx context.Context, hash, beaconID string) (protocol.WorkRecord, error)
	// Release takes a Running item back from its beacon: Pending again, or
	// Canceled when that was asked for.
	Release(ctx context.Context, hash, reason string) (protocol.WorkRecord, error)
	// Progress notes how far a Running item has come; ErrNotRunning otherwise.
	Progress(ctx context.Context, hash string, data json.RawMessage, log []string) (protocol.WorkRecord, error)
	// Attach adds a file to the outcome of an item that is not final.
	Attach(ctx context.Context, hash string, file protocol.StoredFile) error
	// Cancel ends a Pending item and marks a Running one. A final one is
	// returned as it is.
	Cancel(ctx context.Context, hash, reason string) (protocol.WorkRecord, error)
	// Finish ends an item, whether it is Running or Pending again: a late result
	// counts as well as any, but only the first does. The second gets a
	// *FinalizedError.
	Finish(ctx context.Context, hash string, outcome Outcome) (protocol.WorkRecord, error)

	// Get returns an item, ErrNotFound when it is not or no longer known.
	Get(ctx context.Context, hash string) (protocol.WorkRecord, error)
	// Events returns what happened to an item, oldest first.
	Events(ctx context.Context, hash string) ([]protocol.WorkEvent, error)
	// Live lists the items that are not final, oldest first.
	Live(ctx context.Context) ([]protocol.WorkRecord, error)
	// History lists up to limit final items, newest first.
	History(ctx context.Context, limit int) ([]protocol.WorkRecord, error)
	// Counts tells how many items are in each state, the final ones among those
	// that are still known.
	Counts(ctx context.Context) (map[string]int, error)
	// Sweep drops final items whose time is over. The hub calls it every minute.
	Sweep(ctx context.Context) error
	// Close releases the store after the last call to it.
	Close(ctx context.Context) error
}

// An Outcome is how an item ended.
type Outcome struct {
	Status string
	// Outputs is a JSON object; nil unless Status is StatusComplete.
	Outputs json.RawMessage
	// Log follows what progress has logged.
	Log []string
	// Error says why, for every other Status.
	Error string
	// BeaconID is the beacon that reported it; empty when unknown.
	BeaconID string
}

// Errors of a Store.
var (
	ErrNotFound   = errors.New("work item not found")
	ErrNotRunning = errors.New("work item not running")
	ErrNotPending = errors.New("work item not pending")
	ErrFull       = errors.New("the queue is full")
)

// A FinalizedError refuses a second outcome.
type FinalizedError struct{ Status string }

func (e *FinalizedError) Error() string {
	return fmt.Sprintf("work item already finalized (%s)", e.Status)
}
