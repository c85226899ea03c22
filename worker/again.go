package worker

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"github.com/ultravisor/beacon"
)

// A digest tells two items apart that have the same hash. It is zero where the
// server counts attempts: such servers give no hash twice.
type digest [sha256.Size]byte

// digestOf leaves out what differs from one delivery of an item to the next.
func digestOf(item beacon.WorkItem) digest {
	if item.Attempt > 0 {
		return digest{}
	}
	var b bytes.Buffer
	add := func(text string) {
		_ = binary.Write(&b, binary.LittleEndian, int64(len(text))) // a buffer does not fail
		b.WriteString(text)
	}
	add(item.Capability)
	add(item.Action)
	add(item.OperationHash)
	for _, name := range slices.Sorted(maps.Keys(item.Settings)) {
		add(name)
		add(string(item.Settings[name]))
	}
	return sha256.Sum256(b.Bytes())
}

// errSuperseded is why an item ends whose result nobody can get any more.
var errSuperseded = errors.New("the server gave its hash to another item")

// replaces reports whether an item that arrives takes the place of an earlier
// one of the same hash, instead of being the same once more, and makes room for
// it; mu is held.
//
// That is so, first, where a server has made two items in one millisecond: the
// later has overwritten the earlier there, and would get its result. And second,
// where we have failed and the server wants another attempt: it has our failure,
// though it has not confirmed it yet, or does without.
func (w *worker) replaces(j, earlier *job) bool {
	var none digest
	switch {
	case j.digest != none && earlier.digest != none && j.digest != earlier.digest:
		w.log.Warn("the server has given the hash of an item to another one; the earlier is given up", "item", tag(j.hash))
		if earlier.running {
			earlier.superseded = true
			earlier.cancel(errSuperseded)
			w.running--
			w.abandoned++
			return true
		}
	case !earlier.running && earlier.report.Failed && j.attempt > earlier.attempt:
	default:
		return false
	}
	w.forget(earlier)
	if err := w.cfg.Outbox.Delivered(j.hash); err != nil {
		w.log.Error("cannot remove a result that is not wanted any more", "item", tag(j.hash), "err", err)
	}
	return true
}
