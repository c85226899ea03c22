package runtime

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ultravisor/beacon"
)

// A memoryBudget is the memory that all guests of a Runtime share. Who runs has taken
// what it is expected to need; who wants more than that takes it as it grows.
// Both wait until others have given back enough. Items always end, so waiting
// does, too, unless everybody who could give something back waits to grow: then
// one of them gets nothing.
type memoryBudget struct {
	total int64

	mu      sync.Mutex
	used    int64
	running int // items that hold some and will give it back
	growing []*claim
	coming  []*claim
	// idle asks for memory that no item needs: it gives back what it can.
	idle map[*pool]func()
}

// A claim waits for its bytes. granted is closed with ok set.
type claim struct {
	bytes   int64
	granted chan struct{}
	ok      bool
}

func newMemoryBudget(total int64) *memoryBudget {
	return &memoryBudget{total: total, idle: map[*pool]func(){}}
}

// enter takes memory for an item. leave must follow if it returns nil.
func (b *memoryBudget) enter(ctx context.Context, bytes int64) error {
	if bytes > b.total {
		return beacon.Errorf(beacon.MemoryLimit, "the module needs %s of memory, and all guests of this worker together may have %s; raise the worker's Memory",
			megabytes(bytes), megabytes(b.total))
	}
	b.mu.Lock()
	if len(b.growing)+len(b.coming) == 0 && b.used+bytes <= b.total {
		b.used += bytes
		b.running++
		b.mu.Unlock()
		return nil
	}
	c := &claim{bytes: bytes, granted: make(chan struct{})}
	b.coming = append(b.coming, c)
	b.serve()
	b.mu.Unlock()
	b.reclaim(c)
	if b.wait(ctx, c, &b.coming) {
		return nil
	}
	return context.Cause(ctx)
}

// grow takes more for an item that has entered. It is false when there is none.
func (b *memoryBudget) grow(ctx context.Context, bytes int64) bool {
	b.mu.Lock()
	if len(b.growing) == 0 && b.used+bytes <= b.total {
		b.used += bytes
		b.mu.Unlock()
		return true
	}
	c := &claim{bytes: bytes, granted: make(chan struct{})}
	b.growing = append(b.growing, c)
	b.serve()
	b.mu.Unlock()
	b.reclaim(c)
	b.mu.Lock()
	b.relent()
	b.mu.Unlock()
	return b.wait(ctx, c, &b.growing)
}

// leave gives back all that an item holds.
func (b *memoryBudget) leave(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.running--
	b.used -= bytes
	b.serve()
	b.relent()
}

// keep takes memory for something idle, if there is enough; give returns it.
func (b *memoryBudget) keep(bytes int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.used+bytes > b.total || len(b.growing)+len(b.coming) > 0 {
		return false
	}
	b.used += bytes
	return true
}

func (b *memoryBudget) give(bytes int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= bytes
	b.serve()
}

// wait returns whether a claim was granted before ctx ended.
func (b *memoryBudget) wait(ctx context.Context, c *claim, queue *[]*claim) bool {
	select {
	case <-c.granted:
		return c.ok
	case <-ctx.Done():
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if at := slices.Index(*queue, c); at >= 0 {
		*queue = slices.Delete(*queue, at, at+1)
		b.serve() // somebody behind it may want less
		return false
	}
	return c.ok
}

// serve grants what can be granted, in order; growing comes before coming, for
// it ends sooner. b.mu is held.
func (b *memoryBudget) serve() {
	for len(b.growing) > 0 && b.used+b.growing[0].bytes <= b.total {
		b.used += b.growing[0].bytes
		b.growing = answer(b.growing, 0, true)
	}
	for len(b.growing) == 0 && len(b.coming) > 0 && b.used+b.coming[0].bytes <= b.total {
		b.used += b.coming[0].bytes
		b.running++
		b.coming = answer(b.coming, 0, true)
	}
}

// relent refuses the last who wants to grow when nobody is left to wait for.
// b.mu is held.
func (b *memoryBudget) relent() {
	for len(b.growing) > 0 && len(b.growing) >= b.running {
		b.growing = answer(b.growing, len(b.growing)-1, false)
		b.serve()
	}
}

func answer(queue []*claim, at int, ok bool) []*claim {
	queue[at].ok = ok
	close(queue[at].granted)
	return slices.Delete(queue, at, at+1)
}

// reclaim has idle instances closed if a claim would have to wait.
func (b *memoryBudget) reclaim(c *claim) {
	select {
	case <-c.granted:
		return
	default:
	}
	b.mu.Lock()
	var shed []func()
	for _, f := range b.idle {
		shed = append(shed, f)
	}
	b.mu.Unlock()
	for _, f := range shed {
		f()
	}
}

func (b *memoryBudget) join(p *pool, shed func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle[p] = shed
}

func (b *memoryBudget) part(p *pool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.idle, p)
}

func (b *memoryBudget) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Sprintf("%s of %s used by %d items; %d wait to grow, %d to begin",
		megabytes(b.used), megabytes(b.total), b.running, len(b.growing), len(b.coming))
}
