package service

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/address"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/staging"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/fallback"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

// A run is the time from Enable to Disable.
type run struct {
	store    *staging.Store
	contexts *address.Contexts
	client   *session.Client // to ask for other beacons
	download *staging.Downloader
	limits   executor.Config

	stop       context.CancelFunc // takes no more items
	abort      func()             // cuts the drain short
	registered chan struct{}      // closed after the first registration
	failed     chan error         // of attempts before that
	ended      chan struct{}      // closed when nothing of the run is left
	err        error              // why it ended; set before ended is closed

	items      tally         // under way
	announcing chan struct{} // held while the server is told of a change

	// Guarded by the service's mu.
	executor *executor.Executor
	link     *link
	retired  []retired // offers that were removed
	ending   bool
}

// A link is a session and the version of the capabilities that its server knows.
type link struct {
	session registrar
	version int
}

// A registrar is a session on which a beacon can register anew.
type registrar interface {
	transport.Session
	Register(ctx context.Context, r protocol.Registration) error
}

// retired is an offer that is shut down; done is closed when it is.
type retired struct {
	offer *offer
	done  <-chan struct{}
}

// begin starts a run; changes is held.
func (s *Service) begin() (*run, error) {
	store, err := staging.Open(s.cfg.StagingPath)
	if err != nil {
		return nil, err
	}
	contexts, err := address.Open(s.cfg.Contexts, nil)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	client, err := session.NewClient(s.cfg.session(nil))
	if err != nil {
		return nil, errors.Join(err, contexts.Close(), store.Close())
	}
	where := &address.Resolver{Contexts: contexts, Peers: client.Peers, Self: func() []string { return []string{s.cfg.Name, s.BeaconID()} }}
	ctx, stop := context.WithCancel(context.Background())
	aborted := make(chan struct{})
	r := &run{
		contexts: contexts, client: client,
		store: store, download: staging.NewDownloader(staging.DownloadConfig{MaxBytes: s.cfg.MaxDownload, Log: s.log}),
		limits: executor.Config{
			Timeout: s.cfg.ItemTimeout, MaxOutput: s.cfg.MaxOutput, LenientActions: s.cfg.LenientActions, Log: s.log, Resolve: where.Resolve,
		},
		stop: stop, abort: sync.OnceFunc(func() { close(aborted) }),
		registered: make(chan struct{}), failed: make(chan error, 1), ended: make(chan struct{}),
		announcing: make(chan struct{}, 1),
	}
	first := sync.OnceFunc(func() { close(r.registered) })
	cfg := worker.Config{
		MaxConcurrent: s.cfg.MaxConcurrent, DrainTimeout: s.cfg.DrainTimeout, Abort: aborted,
		ReconnectInterval: s.cfg.ReconnectInterval, ReconnectMax: s.cfg.ReconnectMax,
		Outbox: s.cfg.Outbox, Logger: s.log,
		OnRegistered: func(string, string) { first() },
		OnLost: func(err error) {
			select {
			case r.failed <- err:
			default: // heard already, or nobody listens any more
			}
		},
	}
	s.mu.Lock()
	r.route(s.registry)
	s.run = r
	s.mu.Unlock()
	go func() {
		err := worker.Run(ctx, s.dial(r), s.execute(r), cfg)
		stop()
		s.end(r, err)
	}()
	return r, nil
}

// end puts away what the run had. It does not need changes, since a server may
// end a run at any time.
func (s *Service) end(r *run, err error) {
	s.mu.Lock()
	byItself := !r.ending
	r.ending, r.link = true, nil
	s.mu.Unlock()
	<-r.items.idle() // those that the worker left behind end soon; see offer.Run

	gone := s.retireAll()
	r.download.CloseIdle()
	r.client.Close()
	errs := []error{err, r.store.Close(), r.contexts.Close()}
	for last := false; !last; {
		errs = append(errs, s.settle(gone))
		s.mu.Lock()
		gone, r.retired = r.retired, nil
		if last = len(gone) == 0; last {
			r.err = errors.Join(errs...)
			s.run, s.last = nil, r.err
		}
		s.mu.Unlock()
	}
	if byItself && r.err != nil {
		s.log.Error("the service has stopped", "err", r.err)
	}
	close(r.ended)
}

// route has later items carried out by the registry's providers; mu is held.
func (r *run) route(registry *beacon.Registry) {
	r.executor = executor.New(registry, r.store, r.download, r.limits)
}

// retire has an offer shut down before the run has ended; mu is held.
func (r *run) retire(o *offer) {
	r.retired = append(r.retired, retired{o, o.retire()})
}

func (s *Service) retireAll() []retired {
	s.mu.Lock()
	offers := slices.Collect(maps.Values(s.offers))
	s.mu.Unlock()
	var gone []retired
	for _, o := range offers {
		gone = append(gone, retired{o, o.retire()})
	}
	return gone
}

// settle waits for providers to be shut down, but not for those that have a
// function that does not end: they are shut down should it end one day.
func (s *Service) settle(gone []retired) error {
	timer := time.NewTimer(shutdownTimeout + time.Second)
	defer timer.Stop()
	var errs []error
	for _, g := range gone {
		if g.offer.use.busy() {
			s.log.Error("a provider is not shut down, since a function of it does not end", "capability", g.offer.capability.Name)
			continue
		}
		select {
		case <-g.done:
		case <-timer.C:
			timer.Reset(0) // the others have had the same time
			errs = append(errs, fmt.Errorf("provider %s does not shut down", g.offer.capability.Name))
		}
	}
	return errors.Join(errs...)
}

// dial connects with what is offered at that moment.
func (s *Service) dial(r *run) transport.Dial {
	plain := s.cfg.session(nil)
	socket, http := s.linked(r, ws.Dial), s.linked(r, poll.Dial)
	switch s.cfg.Transport {
	case WebSocket:
		return socket
	case HTTP:
		return http
	}
	return fallback.Dial(fallback.Config{Logger: s.log},
		fallback.Way{Name: "websocket", Dial: socket, Probe: ws.Probe(plain)},
		fallback.Way{Name: "http", Dial: http},
	)
}

func (s *Service) linked(r *run, way func(session.Config) transport.Dial) transport.Dial {
	return func(ctx context.Context) (transport.Session, error) {
		s.mu.Lock()
		cfg, version := s.cfg.session(s.advertised()), s.version
		s.mu.Unlock()
		opened, err := way(cfg)(ctx)
		if err != nil {
			return nil, err
		}
		again, ok := opened.(registrar)
		if !ok {
			return nil, errors.Join(beacon.Errorf(beacon.Internal, "%s cannot register anew", opened.Transport()), opened.Close(ctx))
		}
		s.mu.Lock()
		r.link = &link{again, version}
		s.mu.Unlock()
		// What changed while this was under way found no link to be told on.
		if err := s.announce(ctx, r); err != nil {
			return nil, errors.Join(err, opened.Close(ctx))
		}
		return opened, nil
	}
}

// tell has the server know what is offered now, at the latest when it is
// connected again. It does not end with ctx: half told is not told.
func (s *Service) tell(ctx context.Context, r *run) error {
	if r == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	err := s.announce(ctx, r)
	switch {
	case err == nil:
		return nil
	case beacon.CodeOf(err) == beacon.Rejected:
		return fmt.Errorf("register anew: %w", err) // the worker ends, too
	case errors.Is(err, transport.ErrDisconnected):
		s.log.Info("not connected now; the server is told of the change of capabilities when it is", "err", err)
		return nil
	}
	s.log.Warn("the server could not be told of the change of capabilities; connecting anew", "err", err)
	s.mu.Lock()
	l := r.link
	s.mu.Unlock()
	if l != nil {
		closing, cancel := context.WithTimeout(ctx, closeTimeout)
		defer cancel()
		if err := l.session.Close(closing); err != nil {
			s.log.Debug("could not take leave of the server", "err", err)
		}
	}
	return nil
}

// closeTimeout is for taking leave of a server that did not answer.
const closeTimeout = 5 * time.Second

// announce registers anew on the link there is until its server knows what is
// offered.
func (s *Service) announce(ctx context.Context, r *run) error {
	if err := acquire(ctx, r.announcing); err != nil {
		return err
	}
	defer release(r.announcing)
	for {
		s.mu.Lock()
		l, version := r.link, s.version
		registration := s.cfg.registration(s.advertised())
		known := l == nil || l.version == version
		s.mu.Unlock()
		if known {
			return nil
		}
		if err := l.session.Register(ctx, registration); err != nil {
			return err
		}
		s.mu.Lock()
		l.version = version
		s.mu.Unlock()
	}
}
