package protocol

import (
	"encoding/json"
	"math"

	"github.com/ultravisor/beacon"
)

// Usage is what the work on an item has used. It is ours: a worker adds it to how
// an item ended, where other servers ignore what they do not know.
type Usage struct {
	// Fuel is in instructions of guests, as they are metered.
	Fuel int64 `json:"Fuel,omitempty"`
	// Memory is the most that one guest had at a time, in bytes.
	Memory int64 `json:"Memory,omitempty"`
	// Staged, Sent and Received are bytes: of sources and written files, and over
	// the network.
	Staged   int64 `json:"Staged,omitempty"`
	Sent     int64 `json:"Sent,omitempty"`
	Received int64 `json:"Received,omitempty"`
	// Tokens are those of language models, Cost is in the currency of the
	// worker's price table.
	Tokens int64   `json:"Tokens,omitempty"`
	Cost   float64 `json:"Cost,omitempty"`
}

// mostUsage bounds each figure, so that sums are exact in every JSON reader.
const mostUsage = 1 << 53

func bounded(n int64) int64 { return min(max(n, 0), mostUsage) }

// bounded is the usage with figures that can be: none is negative or no number.
func (u Usage) bounded() Usage {
	cost := u.Cost
	if !(cost > 0) { // no number is not, either
		cost = 0
	}
	return Usage{
		bounded(u.Fuel), bounded(u.Memory), bounded(u.Staged), bounded(u.Sent), bounded(u.Received), bounded(u.Tokens),
		min(cost, mostUsage),
	}
}

// Plus is the usage of both; Memory is the larger.
func (u Usage) Plus(more Usage) Usage {
	return Usage{
		u.Fuel + more.Fuel, max(u.Memory, more.Memory), u.Staged + more.Staged, u.Sent + more.Sent, u.Received + more.Received,
		u.Tokens + more.Tokens, u.Cost + more.Cost,
	}.bounded()
}

// NewUsage translates for the wire; nothing used is nil.
func NewUsage(u beacon.Usage) *Usage {
	out := Usage{
		int64(min(u.Fuel, math.MaxInt64)), //nolint:gosec // it fits
		u.Memory, u.Staged, u.Sent, u.Received, u.Tokens, u.Cost,
	}.bounded()
	if out == (Usage{}) {
		return nil
	}
	return &out
}

// DecodeUsage reads a worker's usage. Figures of the wrong type are taken for
// absent: a result does not depend on them. Nothing used is nil.
func DecodeUsage(raw json.RawMessage) *Usage {
	var fields map[string]json.RawMessage
	if len(raw) == 0 || json.Unmarshal(raw, &fields) != nil {
		return nil
	}
	number := func(name string) float64 {
		var n float64
		_ = json.Unmarshal(fields[name], &n)
		return n
	}
	whole := func(name string) int64 { return int64(min(max(number(name), 0), mostUsage)) }
	u := Usage{whole("Fuel"), whole("Memory"), whole("Staged"), whole("Sent"), whole("Received"), whole("Tokens"), number("Cost")}.bounded()
	if u == (Usage{}) {
		return nil
	}
	return &u
}
