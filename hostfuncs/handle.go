package hostfuncs

import (
	"context"
	"encoding/binary"
	"math"
	"reflect"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// maxHandles is how many requests and calls of an item may be open at once.
const maxHandles = 16

// A handle is something that goes on beside the guest.
type handle interface {
	// ready is closed when the guest need not wait.
	ready() <-chan struct{}
	// close ends it and waits until nothing of it is left.
	close()
}

// handleOf finds the handle that parameter names.
func handleOf[H handle](i *Item, c *abi.Call, parameter int) (h H, ok bool) {
	return handleAt[H](i, c.U32(parameter))
}

func handleAt[H handle](i *Item, n uint32) (h H, ok bool) {
	if uint64(n) >= uint64(len(i.handles)) || i.handles[n] == nil {
		return h, false
	}
	h, ok = i.handles[n].(H)
	return h, ok
}

// freeHandle finds a number for one more handle.
func (i *Item) freeHandle() (uint32, error) {
	for n, h := range i.handles {
		if h == nil {
			return uint32(n), nil
		}
	}
	if len(i.handles) == maxHandles {
		return 0, beacon.Errorf(beacon.CallLimit, "more than %d requests and calls are open at once: close those that are done with", maxHandles)
	}
	i.handles = append(i.handles, nil)
	return uint32(len(i.handles) - 1), nil
}

func handleClose(i *Item, c *abi.Call) abi.Errno {
	h, found := handleOf[handle](i, c, 0)
	if !found {
		return badDescriptor
	}
	i.handles[c.U32(0)] = nil
	h.close()
	return ok
}

// closeHandles ends what the guest left open.
func (i *Item) closeHandles() {
	for n, h := range i.handles {
		if h != nil {
			h.close()
			i.handles[n] = nil
		}
	}
}

// await waits for something that goes on beside the guest. When the item ends
// first, so does the guest.
func await(ctx context.Context, done <-chan struct{}) {
	select {
	case <-done:
	case <-ctx.Done():
	}
	// It may be done because the item has ended, which is nothing for the guest to see.
	if ctx.Err() != nil {
		panic(&abi.Stop{Cause: context.Cause(ctx)})
	}
}

func handleWait(i *Item, c *abi.Call) abi.Errno {
	raw := c.Bytes(0)
	if len(raw)%4 != 0 {
		return invalid
	}
	count := len(raw) / 4
	cases := make([]reflect.SelectCase, 0, count+2)
	wait := func(channel any) {
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(channel)})
	}
	for ; len(raw) > 0; raw = raw[4:] {
		h, found := handleAt[handle](i, binary.LittleEndian.Uint32(raw))
		if !found {
			return badDescriptor
		}
		wait(h.ready())
	}
	choose := func() int {
		// The first that is ready counts, and not any: a guest that handles one at a
		// time would otherwise see them in another order each time.
		for n := range cases {
			if chosen, _, _ := reflect.Select([]reflect.SelectCase{cases[n], {Dir: reflect.SelectDefault}}); chosen == 0 {
				return n
			}
		}
		wait(c.Ctx.Done())
		if ms := c.I64(1); ms >= 0 {
			timer := time.NewTimer(time.Duration(min(ms, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond)
			defer timer.Stop()
			wait(timer.C)
		}
		chosen, _, _ := reflect.Select(cases)
		if chosen == count {
			panic(&abi.Stop{Cause: context.Cause(c.Ctx)})
		}
		return min(chosen, count)
	}
	c.PutU32(2, uint32(min(i.chosen(choose), count))) //nolint:gosec // few
	return ok
}
