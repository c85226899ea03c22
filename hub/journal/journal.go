// Package journal is the contract for what hubs write down: one sequence of
// records, the same for all who read it, and snapshots of what was made of it.
package journal

import (
	"context"
	"errors"
	"io"
	"time"
)

// A Record is one entry of a journal.
type Record struct {
	// Seq counts from 1, without gaps.
	Seq uint64
	// Time is when the journal took it in; it does not go back, or not by much.
	Time time.Time
	Data []byte
}

// Errors of a Journal.
var (
	// ErrFull says that there is no room for more. What is there is safe.
	ErrFull = errors.New("the journal has no room")
	// ErrTooLarge says that the record will never fit.
	ErrTooLarge = errors.New("the record is too large for the journal")
	// ErrBroken says that nothing can be written any more until the hub is started
	// again.
	ErrBroken = errors.New("the journal is broken")
	// ErrDamaged says that what was written is not all there any more.
	ErrDamaged = errors.New("the journal is damaged")
	// ErrTrimmed says that records were asked for that a snapshot has replaced.
	ErrTrimmed = errors.New("the journal no longer has these records: a snapshot has replaced them")
)

// A Journal keeps records. All methods may be called concurrently.
type Journal interface {
	// Append writes a record and returns when it is durable. A record with an id
	// that was used shortly before is not written again. An error that is
	// neither ErrFull nor ErrTooLarge leaves open whether it was written; then it
	// must be appended again, under the same id, until there is no doubt.
	Append(ctx context.Context, id string, data []byte) error
	// Follow calls each for every record after the one of seq, in order, those
	// to come included, until ctx is done or each fails. Data belongs to the
	// callee.
	Follow(ctx context.Context, after uint64, each func(Record) error) error
	// Last is the Seq of the newest record; 0 when there is none.
	Last(ctx context.Context) (uint64, error)
	// Most is the size of the largest record that fits, in bytes.
	Most() int
	// Snapshot opens the newest snapshot and says up to which record it goes; a
	// nil reader means that there is none.
	Snapshot(ctx context.Context) (io.ReadCloser, uint64, error)
	// Save keeps a snapshot and, once it is safe, drops records that neither it
	// nor the one before needs.
	Save(ctx context.Context, seq uint64, write func(io.Writer) error) error
	// Shared reports whether other hubs may use the same journal.
	Shared() bool
	// Close releases the journal after the last call to it.
	Close(ctx context.Context) error
}
