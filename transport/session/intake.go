package session

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
)

// maxQueuedBytes bounds the waiting items by size, too. One item may always
// wait, however large.
const maxQueuedBytes = 64 << 20

// An Intake is where the work items of one session wait to be taken. It asks
// the server for more, by polling, while somebody waits for an item and none
// is there: so polling never takes more than there are free slots.
type Intake struct {
	interval time.Duration
	patience time.Duration
	limit    int
	log      logger

	mu      sync.Mutex
	owner   transport.Owner // nil: nobody attends
	counts  bool            // the server counts attempts
	items   []entry
	bytes   int
	waiting bool
	eager   bool          // the last poll yielded an item
	pollAt  time.Time     // not before
	stalled chan struct{} // closed while Push waits
	polling bool          // a poll is under way
	again   bool          // a report arrived since it began
	watched map[string][]*Watch
	closed  bool

	ready chan struct{} // an item is there
	room  chan struct{} // an item was taken
	wake  chan struct{} // the next poll may be due earlier
}

type entry struct {
	item beacon.WorkItem
	err  error
	size int
}

type logger interface {
	Warn(msg string, args ...any)
}

// NewIntake makes an intake. Patience is how long to wait after a report for
// the server to push the next item before asking for it; 0 for servers that
// never push.
func NewIntake(cfg Config, patience time.Duration) *Intake {
	return &Intake{
		interval: cfg.PollInterval, patience: patience, limit: cfg.Queue, log: cfg.Logger,
		stalled: make(chan struct{}),
		ready:   make(chan struct{}, 1), room: make(chan struct{}, 1), wake: make(chan struct{}, 1),
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Push appends an item as it arrived. It waits while the queue is full; the
// caller, who reads the link, then reads nothing more.
func (in *Intake) Push(ctx context.Context, raw []byte) error {
	e, ok := in.decode(raw)
	if !ok {
		return nil
	}
	return in.push(ctx, e)
}

// PushItem is Push for an item that is decoded already, from so many bytes.
func (in *Intake) PushItem(ctx context.Context, item beacon.WorkItem, size int) error {
	return in.push(ctx, entry{item: item, size: size})
}

func (in *Intake) push(ctx context.Context, e entry) error {
	for {
		in.mu.Lock()
		if in.closed {
			in.mu.Unlock()
			return nil
		}
		if len(in.items) == 0 || len(in.items) < in.limit && in.bytes+e.size <= maxQueuedBytes {
			in.add(e)
			in.flow()
			in.mu.Unlock()
			return nil
		}
		if !isClosed(in.stalled) {
			in.log.Warn("the server pushed far more items than asked for; reading no more until some are done", "waiting", len(in.items))
			close(in.stalled)
		}
		in.mu.Unlock()
		select {
		case <-in.room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Attend names the owner of the items that are taken from here.
func (in *Intake) Attend(o transport.Owner) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.owner = o
}

// Active lists the items that wait here and those that the owner has; nil if
// nobody attends.
func (in *Intake) Active() []string {
	in.mu.Lock()
	owner := in.owner
	if owner == nil {
		in.mu.Unlock()
		return nil
	}
	list := make([]string, 0, len(in.items))
	for _, e := range in.items {
		list = append(list, e.item.Hash)
	}
	in.mu.Unlock()
	list = append(list, owner.Active()...)
	slices.Sort(list)
	return slices.Compact(list) // some were delivered again
}

// Cancel takes items back: one that waits here is failed when it is taken, all
// others are for the owner.
func (in *Intake) Cancel(list []protocol.Cancellation) {
	for _, c := range list {
		if owner := in.cancel(c); owner != nil {
			owner.Cancel(c.WorkItemHash, c.AttemptNumber, c.Reason)
		}
	}
}

func (in *Intake) cancel(c protocol.Cancellation) transport.Owner {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, e := range in.items {
		if e.item.Hash == c.WorkItemHash {
			if c.AttemptNumber != 0 && e.item.Attempt > c.AttemptNumber {
				return in.owner // which may have the earlier one
			}
			in.items[i].err = &transport.ItemError{Hash: c.WorkItemHash, Err: transport.Canceled(c.Reason)}
			return nil
		}
	}
	return in.owner
}

// Counts reports whether the server counts the attempts at an item, which tells
// later servers from those of March 2026. It is false as long as no item came.
func (in *Intake) Counts() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.counts
}

// A Watch notes whether an item arrives again.
type Watch struct {
	hash    string
	arrived bool
}

// Watch begins to watch for an item, until Unwatch.
func (in *Intake) Watch(hash string) *Watch {
	in.mu.Lock()
	defer in.mu.Unlock()
	w := &Watch{hash: hash}
	if in.watched == nil {
		in.watched = map[string][]*Watch{}
	}
	in.watched[hash] = append(in.watched[hash], w)
	return w
}

// Unwatch ends a watch, which may have been ended before, and says whether the
// item has arrived.
func (in *Intake) Unwatch(w *Watch) (arrived bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	left := slices.DeleteFunc(in.watched[w.hash], func(x *Watch) bool { return x == w })
	if len(left) == 0 {
		delete(in.watched, w.hash)
	} else {
		in.watched[w.hash] = left
	}
	return w.arrived
}

func (in *Intake) add(e entry) {
	for _, w := range in.watched[e.item.Hash] {
		w.arrived = true
	}
	in.counts = in.counts || e.item.Attempt > 0
	in.items = append(in.items, e)
	in.bytes += e.size
	signal(in.ready)
}

func (in *Intake) decode(raw []byte) (entry, bool) {
	item, err := protocol.DecodeWorkItem(raw)
	e := entry{item: item, err: err, size: len(raw)}
	if err != nil {
		if item.Hash == "" {
			in.log.Warn("ignored a work item that cannot be reported", "err", err)
			return entry{}, false
		}
		e.err = &transport.ItemError{Hash: item.Hash, Err: err}
	}
	return e, true
}

// Close is for the moment before leaving: what arrives from now on is not kept,
// since the server gives it away again once the beacon has left.
func (in *Intake) Close() {
	in.mu.Lock()
	in.closed = true
	in.flow()
	in.mu.Unlock()
	signal(in.room)
}

// flow notes that Push does not wait any more; mu is held.
func (in *Intake) flow() {
	if isClosed(in.stalled) {
		in.stalled = make(chan struct{})
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Stalled reports whether Push waits: nothing is read from the link then.
func (in *Intake) Stalled() bool { return isClosed(in.Stall()) }

// Stall is closed when Push has to wait.
func (in *Intake) Stall() <-chan struct{} {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.stalled
}

// Next waits for an item until ctx is done or lost is closed. Then it returns
// none even if there is one: after ctx the next call gets it, and what came over
// a link that is lost its server gives out again.
func (in *Intake) Next(ctx context.Context, lost <-chan struct{}) (beacon.WorkItem, error) {
	for {
		if err := ctx.Err(); err != nil {
			return beacon.WorkItem{}, err
		}
		if isClosed(lost) {
			return beacon.WorkItem{}, transport.ErrDisconnected
		}
		in.mu.Lock()
		if len(in.items) > 0 {
			e := in.items[0]
			in.items[0] = entry{}
			in.items = in.items[1:]
			in.bytes -= e.size
			in.waiting = false
			in.mu.Unlock()
			signal(in.room)
			return e.item, e.err
		}
		in.waiting = true
		in.mu.Unlock()
		signal(in.wake)
		var err error
		select {
		case <-in.ready:
			continue
		case <-ctx.Done():
			err = ctx.Err()
		case <-lost:
			err = transport.ErrDisconnected
		}
		in.mu.Lock()
		in.waiting = false
		in.mu.Unlock()
		return beacon.WorkItem{}, err
	}
}

// Reported notes that the server has a report, so that it may have an item for
// the slot that is free now.
func (in *Intake) Reported() {
	in.mu.Lock()
	in.again = in.polling // the poll under way may be too early
	in.soon()
	in.mu.Unlock()
	signal(in.wake)
}

func (in *Intake) soon() {
	at := time.Now()
	if !in.eager {
		at = at.Add(in.patience)
	}
	if at.Before(in.pollAt) {
		in.pollAt = at
	}
}

// Run polls until ctx is done or poll fails with an error that wraps
// ErrDisconnected, which it returns. After another error it goes on at the next
// interval. Poll gives nil when there is no item.
func (in *Intake) Run(ctx context.Context, poll func(context.Context) ([]byte, error)) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if wait, wanted := in.due(); !wanted || wait > 0 {
			var due <-chan time.Time
			if wanted {
				timer.Reset(wait)
				due = timer.C
			}
			select {
			case <-due:
			case <-in.wake:
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		raw, err := poll(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, transport.ErrDisconnected) {
			return err
		}
		in.polled(raw)
	}
}

func (in *Intake) due() (wait time.Duration, wanted bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.waiting || len(in.items) > 0 {
		return 0, false
	}
	wait = time.Until(in.pollAt)
	in.polling = wait <= 0
	return wait, true
}

func (in *Intake) polled(raw []byte) {
	var e entry
	found := raw != nil
	if found {
		e, found = in.decode(raw)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.eager, in.polling = found, false
	if found {
		in.pollAt = time.Time{}
		in.add(e)
		return
	}
	in.pollAt = time.Now().Add(in.interval)
	if in.again {
		in.again = false
		in.soon()
	}
}
