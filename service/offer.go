package service

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
)

// shutdownTimeout is the time that a provider gets to shut down.
const shutdownTimeout = 10 * time.Second

// An offer is a provider while the service has it. It stands between the two:
// whatever the provider does, the service lives on.
type offer struct {
	provider   beacon.Provider
	capability beacon.Capability // as it was when it was registered
	grace      time.Duration
	log        *slog.Logger
	use        tally // items on their way to the provider, and its running functions

	wanted atomic.Bool   // false: to be shut down
	turn   chan struct{} // held while the provider is initialised or shut down, and for ready
	ready  bool
}

// newOffer asks the provider what it can do, once and for all.
func newOffer(p beacon.Provider, grace time.Duration, log *slog.Logger) (o *offer, err error) {
	if p == nil {
		return nil, beacon.Errorf(beacon.Invalid, "the provider is nil")
	}
	o = &offer{provider: p, grace: grace, log: log, turn: make(chan struct{}, 1)}
	if err := o.guard("describe itself", func() error { o.capability = p.Capability(); return nil }); err != nil {
		return nil, err
	}
	o.capability.Actions = slices.Clone(o.capability.Actions)
	if _, err := beacon.NewRegistry(o); err != nil {
		return nil, err
	}
	return o, nil
}

// Capability implements beacon.Provider.
func (o *offer) Capability() beacon.Capability { return o.capability }

// Run implements beacon.Provider. A function that does not end although ctx is
// done is left behind after a while, so that its item ends and its slot is free.
func (o *offer) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	type outcome struct {
		result beacon.Result
		err    error
	}
	ended := make(chan outcome, 1)
	o.use.add()
	go func() {
		defer o.use.done()
		// What stays if the function ends its goroutine.
		out := outcome{err: beacon.Errorf(beacon.Internal, "provider %s ended its goroutine", o.capability.Name)}
		defer func() { ended <- out }()
		err := o.guard("carry out an item", func() (err error) {
			out.result, out.err = o.provider.Run(ctx, job)
			return nil
		})
		if err != nil {
			out = outcome{err: err}
		}
	}()
	select {
	case out := <-ended:
		return out.result, out.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(o.grace)
	defer timer.Stop()
	select {
	case out := <-ended:
		return out.result, out.err
	case <-timer.C:
		o.log.Error("a provider ignores that its item is over; leaving it behind",
			"item", beacon.Excerpt(job.Item.Hash, 200), "capability", o.capability.Name, "after", o.grace)
		return beacon.Result{}, context.Cause(ctx)
	}
}

// start prepares the provider, unless it is prepared.
func (o *offer) start(ctx context.Context) error {
	if err := acquire(ctx, o.turn); err != nil {
		return fmt.Errorf("initialize %s: an earlier shutdown is under way: %w", o.capability.Name, err)
	}
	defer release(o.turn)
	if p, ok := o.provider.(beacon.Initializer); ok && !o.ready {
		if err := o.guard("initialize", func() error { return p.Initialize(ctx) }); err != nil {
			return fmt.Errorf("initialize %s: %w", o.capability.Name, err)
		}
	}
	o.ready = true
	o.wanted.Store(true)
	return nil
}

// retire shuts the provider down once nothing uses it, unless it is started
// again until then. The channel is closed when that is done.
func (o *offer) retire() <-chan struct{} {
	done := make(chan struct{})
	o.wanted.Store(false)
	go func() {
		defer close(done)
		for !o.shutDown(o.use.idle()) {
		}
	}()
	return done
}

// shutDown is false if the provider was used again.
func (o *offer) shutDown(idle <-chan struct{}) bool {
	<-idle
	o.turn <- struct{}{}
	defer release(o.turn)
	switch {
	case o.wanted.Load() || !o.ready:
		return true
	case o.use.busy():
		return false
	}
	o.ready = false
	p, ok := o.provider.(beacon.Shutdowner)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := o.guard("shut down", func() error { return p.Shutdown(ctx) }); err != nil {
		o.log.Error("a provider did not shut down", "capability", o.capability.Name, "err", err)
	}
	return true
}

// guard turns a panic of the provider into an error. Its text is for the log.
func (o *offer) guard(what string, call func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			o.log.Error("a provider panicked", "capability", o.capability.Name, "while it was to", what,
				"panic", beacon.Excerpt(fmt.Sprint(v), 500), "stack", string(debug.Stack()))
			err = beacon.Errorf(beacon.Internal, "provider %s panicked (the details are in the beacon's log)", o.capability.Name)
		}
	}()
	return call()
}

// acquire takes a turn, at once if it is free.
func acquire(ctx context.Context, turn chan struct{}) error {
	select {
	case turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func release(turn chan struct{}) { <-turn }

// A tally counts users and tells when there is none. The zero value is ready.
type tally struct {
	mu   sync.Mutex
	n    int
	zero chan struct{} // closed at the next zero; nil if nobody waits
}

func (t *tally) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tally) done() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n--; t.n == 0 && t.zero != nil {
		close(t.zero)
		t.zero = nil
	}
}

func (t *tally) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n > 0
}

// idle is closed when there is no user, which may be now.
func (t *tally) idle() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.zero == nil {
		t.zero = make(chan struct{})
	}
	zero := t.zero
	if t.n == 0 {
		close(t.zero)
		t.zero = nil
	}
	return zero
}
