package hostfuncs

import "math"

// A Tape is where an item's guest gets what is different each time it runs:
// clocks, random numbers, the time that is left, and which of several requests
// was answered first. It records that, or plays back what was recorded. A guest
// calls one function at a time.
type Tape interface {
	// Number is given what the host has come up with, and returns what the guest is
	// to see.
	Number(kind TapeKind, live uint64) uint64
	// Choice is the same for what takes time to come up with: a tape that plays does
	// not ask live as long as it has a recorded answer.
	Choice(live func() uint64) uint64
	// Random fills p with random bytes.
	Random(p []byte) error
}

// A TapeKind says what a number is.
type TapeKind byte

// The kinds. Their values are in recordings.
const (
	TapeWall      TapeKind = 'w' // nanoseconds
	TapeMonotonic TapeKind = 'm' // nanoseconds
	TapeRemaining TapeKind = 'r' // milliseconds
	TapeCancelled TapeKind = 'c' // 0 or 1
	TapeChoice    TapeKind = 'h' // the place of a handle
)

// Tape gives the item a tape. Without one nothing is recorded.
func (i *Item) Tape(t Tape) { i.tape = t }

func (i *Item) taped(kind TapeKind, live uint64) uint64 {
	if i.tape == nil {
		return live
	}
	return i.tape.Number(kind, live)
}

func (i *Item) chosen(live func() int) int {
	if i.tape == nil {
		return live()
	}
	return int(min(i.tape.Choice(func() uint64 { return uint64(live()) }), math.MaxInt32)) //nolint:gosec // bounded
}
