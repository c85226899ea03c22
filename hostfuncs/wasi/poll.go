package wasi

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/ultravisor/beacon/hostfuncs/abi"
)

const (
	clockRealtime  = 0
	clockMonotonic = 1
)

// A hostClock is the base of all guests' monotonic clocks. They start at the
// real time of the host, so that they go on when an image of a guest's memory
// is used by a later process of the host.
type hostClock struct{ start time.Time }

// now reads a clock in nanoseconds, not rounded.
func (h hostClock) now(id uint32) (uint64, bool) {
	switch id {
	case clockRealtime:
		return nanoseconds(time.Now()), true
	case clockMonotonic:
		return nanoseconds(h.start) + uint64(time.Since(h.start)), true //nolint:gosec // not negative
	}
	return 0, false
}

// now reads a clock for the guest.
func (p *Process) now(h hostClock, id uint32) (uint64, bool) {
	now, ok := h.now(id)
	if ok && p.cfg.Clock != nil {
		now = p.cfg.Clock(id, now)
	}
	return now, ok
}

// nanoseconds since 1970, as WASI has it; earlier times are 0.
func nanoseconds(t time.Time) uint64 { return uint64(max(0, t.UnixNano())) } //nolint:gosec // not negative

func clockResGet(p *Process, c *abi.Call) abi.Errno {
	if c.U32(0) > clockMonotonic {
		return eInvalid
	}
	c.PutU64(1, uint64(p.cfg.Resolution))
	return success
}

func (h hostClock) timeGet(p *Process, c *abi.Call) abi.Errno {
	now, ok := p.now(h, c.U32(0))
	if !ok {
		return eInvalid
	}
	c.PutU64(2, now-now%uint64(p.cfg.Resolution))
	return success
}

// sleep waits, and ends the guest when ctx ends first.
func sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		panic(&abi.Stop{Cause: context.Cause(ctx)})
	}
}

const (
	subscriptionSize = 48
	eventSize        = 32

	eventClock   = 0
	eventFDRead  = 1
	eventFDWrite = 2

	clockAbsolute = 1
)

// pollOneoff waits for the first of the subscriptions. No descriptor of ours
// blocks, so each is ready at once.
func (h hostClock) pollOneoff(p *Process, c *abi.Call) abi.Errno {
	count := c.U32(2)
	if count == 0 || count > maxSubscriptions {
		return eInvalid
	}
	in, ok := c.View(0, count*subscriptionSize)
	if !ok {
		return eFault
	}
	out, ok := c.View(1, count*eventSize)
	if !ok {
		return eFault
	}
	// The guest may give one place for both.
	in = append(make([]byte, 0, maxSubscriptions*subscriptionSize), in...)

	var waits [maxSubscriptions]time.Duration
	clocks := reading{p: p, host: h}
	nearest, ready := time.Duration(math.MaxInt64), false
	for i := range int(count) {
		s := in[i*subscriptionSize:]
		switch s[8] {
		case eventClock:
			waits[i], ok = clocks.wait(s)
			ready = ready || !ok
			nearest = min(nearest, waits[i])
		case eventFDRead, eventFDWrite:
			ready = true
		default:
			return eInvalid
		}
	}
	if ready {
		nearest = 0
	}
	sleep(c.Ctx, nearest)

	events := uint32(0)
	for i := range int(count) {
		s := in[i*subscriptionSize:]
		var errno abi.Errno
		var bytes uint64
		switch s[8] {
		case eventClock:
			if _, ok := h.now(binary.LittleEndian.Uint32(s[16:])); !ok {
				errno = eInvalid
			} else if waits[i] > nearest {
				continue
			}
		default:
			bytes, errno = p.readiness(binary.LittleEndian.Uint32(s[16:]), s[8] == eventFDWrite)
		}
		e := out[events*eventSize:][:eventSize]
		clear(e)
		copy(e, s[:8]) // what the guest calls it
		binary.LittleEndian.PutUint16(e[8:], uint16(errno))
		e[10] = s[8]
		binary.LittleEndian.PutUint64(e[16:], bytes)
		events++
	}
	c.PutU32(3, events)
	return success
}

// A reading is of the clocks at one moment: each is read once. Otherwise which of
// many moments are over would tell how long it takes to look at them.
type reading struct {
	p    *Process
	host hostClock
	at   [clockMonotonic + 1]uint64
	read [clockMonotonic + 1]bool
}

func (r *reading) now(id uint32) (now uint64, ok bool) {
	if id > clockMonotonic {
		return 0, false
	}
	if !r.read[id] {
		r.at[id], r.read[id] = r.p.now(r.host, id)
	}
	return r.at[id], r.read[id]
}

// wait returns how long the subscription to a clock waits. ok is false for a
// clock that there is not.
func (r *reading) wait(s []byte) (d time.Duration, ok bool) {
	p := r.p
	now, ok := r.now(binary.LittleEndian.Uint32(s[16:]))
	timeout := binary.LittleEndian.Uint64(s[24:])
	if binary.LittleEndian.Uint16(s[40:])&clockAbsolute != 0 {
		// The clock that the guest sees gets there with its next step: whoever asks for
		// many moments at once must not learn what is between two of them.
		if past := timeout % uint64(p.cfg.Resolution); past > 0 {
			timeout += min(uint64(p.cfg.Resolution)-past, math.MaxUint64-timeout)
		}
		timeout -= min(now, timeout)
	}
	return time.Duration(min(timeout, math.MaxInt64)), ok //nolint:gosec // fits
}

// readiness returns how many bytes may be read or written without waiting; 1
// when that is not known.
func (p *Process) readiness(fd uint32, write bool) (bytes uint64, errno abi.Errno) {
	d, errno := p.lookup(fd)
	if errno != success {
		return 0, errno
	}
	if d.kind == kindFile && !write && !d.file.IsDirectory() {
		size, err := d.file.Size()
		at, seek := d.file.Seek(0, 1)
		if err == nil && seek == nil {
			return uint64(max(0, size-at)), success //nolint:gosec // not negative
		}
	}
	return 1, success
}
