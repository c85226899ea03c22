// Package service makes a beacon of an application: the application registers
// capabilities and the functions behind them, and enables, disables, adds and
// removes them while it runs.
//
// Whatever a handler does (it panics, hands back what is not JSON, does not
// end), its item fails and the application lives on.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport/session"
)

// A Service is a beacon inside of an application. It is disabled until Enable,
// and can be enabled again after Disable. It is safe for concurrent use, also
// from within handlers; only Disable must not be called by one, since it would
// wait for itself.
type Service struct {
	cfg Config
	log *slog.Logger

	// changes is held by the methods that change what there is, one at a time.
	changes chan struct{}

	mu       sync.Mutex
	offers   map[string]*offer // by name of capability: what items are routed to
	leaving  *offer            // one of them that is no longer advertised
	registry *beacon.Registry  // of the offers
	version  int               // counts changes of what is advertised
	run      *run              // nil while disabled
	last     error             // of the run before
}

// New checks the configuration; its errors have code beacon.Invalid. It
// connects to nothing and starts nothing.
func New(cfg Config) (*Service, error) {
	cfg, err := cfg.normal()
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, log: cfg.Logger, changes: make(chan struct{}, 1), offers: map[string]*offer{}}
	if s.registry, err = beacon.NewRegistry(); err != nil {
		return nil, err
	}
	return s, nil
}

// RegisterCapability is RegisterProvider for an application's own functions.
func (s *Service) RegisterCapability(ctx context.Context, c Capability) error {
	c.Actions = slices.Clone(c.Actions)
	if err := c.check(); err != nil {
		return err
	}
	return s.RegisterProvider(ctx, c)
}

// RegisterProvider offers what a provider can do. While the service is enabled
// the provider is initialised now, the server is told on the link there is, and
// what runs goes on; a server that cannot be told now is told when it is
// connected again. Otherwise all that happens at Enable. A name that is taken
// already is an error.
//
// A provider that is a beacon.Initializer or a beacon.Shutdowner is initialised
// once and shut down once each time that the service is enabled and disabled;
// RemoveCapability shuts it down, too. ctx bounds the initialisation.
func (s *Service) RegisterProvider(ctx context.Context, p beacon.Provider) error {
	o, err := newOffer(p, s.cfg.CancelGrace, s.log)
	if err != nil {
		return err
	}
	if err := acquire(ctx, s.changes); err != nil {
		return fmt.Errorf("register %s: %w", o.capability.Name, err)
	}
	defer release(s.changes)
	if s.offers[o.capability.Name] != nil { // only changed by who holds changes
		return beacon.Errorf(beacon.Invalid, "capability %s is registered already: remove it first, or give one of them another name", o.capability.Name)
	}
	r := s.current()
	if r != nil {
		if err := o.start(ctx); err != nil {
			return err
		}
	}
	if err := s.add(o, r); err != nil {
		return err
	}
	return s.tell(ctx, r)
}

// add routes items to the offer and has it advertised.
func (s *Service) add(o *offer, r *run) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	registry, err := registryOf(append(slices.Collect(maps.Values(s.offers)), o))
	if err != nil {
		if r != nil {
			r.retire(o)
		}
		return err
	}
	s.offers[o.capability.Name], s.registry = o, registry
	s.version++
	if r == nil {
		return nil
	}
	r.route(registry)
	if r.ending { // meanwhile, without knowing of the offer
		r.retire(o)
	}
	return nil
}

// RemoveCapability withdraws a capability: the server is told, then no more
// items are routed to it. Its items that run go on; when the last has ended its
// provider is shut down, for which Disable waits. A name that is not registered
// is an error with code beacon.NotFound.
func (s *Service) RemoveCapability(ctx context.Context, name string) error {
	if err := acquire(ctx, s.changes); err != nil {
		return fmt.Errorf("remove %s: %w", beacon.Excerpt(name, 80), err)
	}
	defer release(s.changes)
	o := s.offers[name]
	if o == nil {
		return beacon.Errorf(beacon.NotFound, "capability %s is not registered (there is %q)", beacon.Excerpt(name, 80), s.CapabilityNames())
	}
	s.mu.Lock()
	s.leaving = o
	s.version++
	s.mu.Unlock()
	r := s.current()
	err := s.tell(ctx, r)

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.offers, name)
	s.leaving = nil
	if s.run != nil {
		s.run.retire(o)
	}
	registry, invalid := registryOf(slices.Collect(maps.Values(s.offers)))
	if invalid != nil {
		return errors.Join(err, invalid)
	}
	s.registry = registry
	if r != nil {
		r.route(registry)
	}
	return err
}

func registryOf(offers []*offer) (*beacon.Registry, error) {
	providers := make([]beacon.Provider, len(offers))
	for i, o := range offers {
		providers[i] = o
	}
	return beacon.NewRegistry(providers...)
}

// CapabilityNames lists what is registered, sorted.
func (s *Service) CapabilityNames() []string {
	names := []string{}
	for _, c := range s.capabilities() {
		names = append(names, c.Name)
	}
	return names
}

// capabilities are what is advertised, sorted by name.
func (s *Service) capabilities() []beacon.Capability {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.advertised()
}

// advertised is capabilities; mu is held.
func (s *Service) advertised() []beacon.Capability {
	list := s.registry.Capabilities()
	if s.leaving != nil {
		list = slices.DeleteFunc(list, func(c beacon.Capability) bool { return c.Name == s.leaving.capability.Name })
	}
	return list
}

// current is the run under way, nil while the service is disabled or ending.
func (s *Service) current() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil || s.run.ending {
		return nil
	}
	return s.run
}

// Enabled reports whether the service takes work: from Enable until Disable,
// also while the link is lost and made again. A server that rejects the beacon
// ends it, too; see Wait.
func (s *Service) Enabled() bool {
	r := s.current()
	return r != nil && isClosed(r.registered)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// BeaconID is the identity that the server gave last; "" while disabled.
func (s *Service) BeaconID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == nil || s.run.link == nil {
		return ""
	}
	return s.run.link.session.BeaconID()
}

// Enable initialises the providers, connects and registers, and returns when
// the server has confirmed it or the first attempt has failed: with code
// beacon.Unreachable where there was no server, beacon.Rejected where it does
// not want this beacon. After that the service works in the background, over
// any loss of the link, until Disable. When Enable fails or ctx ends before it
// is done, nothing is left running. An enabled service stays as it is.
func (s *Service) Enable(ctx context.Context) error {
	if err := acquire(ctx, s.changes); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	defer release(s.changes)
	for {
		s.mu.Lock()
		earlier := s.run
		ending := earlier != nil && earlier.ending
		s.mu.Unlock()
		if earlier == nil {
			break
		}
		if !ending {
			return nil
		}
		select {
		case <-earlier.ended:
		case <-ctx.Done():
			return fmt.Errorf("enable: the service is still stopping: %w", ctx.Err())
		}
	}
	if err := s.startAll(ctx); err != nil {
		return fmt.Errorf("enable: %w", err)
	}
	r, err := s.begin()
	if err != nil {
		return errors.Join(fmt.Errorf("enable: %w", err), s.settle(s.retireAll()))
	}
	select {
	case <-r.registered:
		return nil
	case err = <-r.failed:
		if isClosed(r.registered) { // and lost since, which is not a failure
			return nil
		}
		err = refusal(err)
	case <-r.ended:
		if err = r.err; err == nil {
			err = beacon.Errorf(beacon.Canceled, "the service was disabled meanwhile")
		}
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	r.ending = true
	s.mu.Unlock()
	r.stop()
	r.abort()
	<-r.ended
	return fmt.Errorf("enable: %w", err)
}

// refusal gives the error of a first attempt its code.
func refusal(err error) error {
	var status *session.StatusError
	switch code := beacon.CodeOf(err); {
	case code == beacon.Rejected || code == beacon.Invalid:
		return err
	case errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden):
		return beacon.Errorf(beacon.Rejected, "%w", err)
	}
	return beacon.Errorf(beacon.Unreachable, "%w", err)
}

// startAll prepares all providers, or none.
func (s *Service) startAll(ctx context.Context) error {
	var started []retired
	for _, name := range slices.Sorted(maps.Keys(s.offers)) { // only changed by who holds changes
		if err := s.offers[name].start(ctx); err != nil {
			for i, o := range started {
				started[i].done = o.offer.retire()
			}
			return errors.Join(err, s.settle(started))
		}
		started = append(started, retired{offer: s.offers[name]})
	}
	if len(started) == 0 {
		s.log.Warn("the service is enabled without any capability: it gets no work until one is registered")
	}
	return nil
}

// Disable takes no more work, gives what runs its time, delivers the results,
// takes leave of the server, and shuts the providers down. When ctx is done
// first, running items are canceled, and it returns soon after with an error
// that says so. Results that could not be delivered are a
// worker.UndeliveredError. A disabled service stays as it is; one that is just
// being enabled is not enabled.
func (s *Service) Disable(ctx context.Context) error {
	r := s.halt()
	if r == nil { // Enable may be about to begin a run
		if err := acquire(ctx, s.changes); err != nil {
			return fmt.Errorf("disable: %w", err)
		}
		r = s.halt()
		release(s.changes)
	}
	if r == nil {
		return nil
	}
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
	}
	r.abort()
	<-r.ended // soon: nothing of the run waits for a handler longer than CancelGrace
	return errors.Join(fmt.Errorf("disable: items that ran were canceled: %w", context.Cause(ctx)), r.err)
}

// halt has the run, if there is one, take no more work. It needs no changes:
// one that waits for the server would hold it up.
func (s *Service) halt() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run != nil {
		s.run.ending = true
		s.run.stop()
	}
	return s.run
}

// Wait waits until the service is disabled, and says why: nil after Disable, an
// error with code beacon.Rejected when the server no longer wants the beacon.
func (s *Service) Wait(ctx context.Context) error {
	s.mu.Lock()
	r, last := s.run, s.last
	s.mu.Unlock()
	if r == nil {
		return last
	}
	select {
	case <-r.ended:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// execute runs one item. That it is under way is noted together with where it
// is routed to, so that its provider is there until it has ended.
func (s *Service) execute(r *run) beacon.Execute {
	return func(ctx context.Context, item beacon.WorkItem, onProgress func(beacon.Progress)) (beacon.Result, error) {
		s.mu.Lock()
		run := r.executor
		o := s.offers[item.Capability]
		if o != nil {
			o.use.add()
		}
		r.items.add()
		s.mu.Unlock()
		defer r.items.done()
		if o != nil {
			defer o.use.done()
		}
		return run.Run(ctx, item, onProgress)
	}
}
