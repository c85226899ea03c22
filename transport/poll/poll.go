// Package poll connects a worker to an Ultravisor server by HTTP alone, for
// networks that let no WebSocket through.
package poll

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
)

// failures in a row after which the link counts as lost.
const failures = 3

// hasty is how often at least a server is asked whose scheduler gives work away
// twice a second, to nobody if nobody has asked before.
const hasty = 200 * time.Millisecond

// Dial makes a transport.Dial that logs in, registers and asks for work. Servers
// of Ultravisor since April 2026 give work to pollers only if they ask within half
// a second of its arrival; they are asked five times a second, whatever
// Config.PollInterval says.
func Dial(cfg session.Config) transport.Dial {
	var lost identities
	return func(ctx context.Context) (transport.Session, error) {
		client, err := session.NewClient(cfg)
		if err != nil {
			return nil, err
		}
		if err := client.Authenticate(ctx); err != nil {
			client.Close()
			return nil, fmt.Errorf("connect by HTTP: %w", err)
		}
		if err := client.Register(ctx); err != nil {
			client.Close()
			return nil, fmt.Errorf("connect by HTTP: %w", err)
		}
		client.Renewed = client.Supersede
		client.Inherit(lost.take())
		asking := client.Config()
		if asking.PollInterval > hasty && client.StarvesPollers(ctx) {
			asking.PollInterval = hasty
			asking.Logger.Info("this server gives work to beacons that poll only if they ask quickly", "interval", hasty)
		}
		s := &polling{client: client, intake: session.NewIntake(asking, 0), lost: &lost, due: make(chan struct{}, 1)}
		client.Canceled = s.intake.Cancel
		s.life, s.end = context.WithCancelCause(context.Background())
		s.tasks.Go(s.poll)
		s.tasks.Go(s.heartbeat)
		return s, nil
	}
}

// identities are those of sessions that were lost: the server of March 2026 would
// keep them for ever, and keep work for them.
type identities struct {
	mu  sync.Mutex
	ids []string
}

func (i *identities) add(ids []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.ids = append(i.ids, ids...)
}

func (i *identities) take() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	ids := i.ids
	i.ids = nil
	return ids
}

type polling struct {
	client *session.Client
	intake *session.Intake
	lost   *identities

	life  context.Context // of the session; its cause says why it ended
	end   context.CancelCauseFunc
	tasks sync.WaitGroup
	leave sync.Once

	draining atomic.Bool
	due      chan struct{} // a heartbeat is to be sent now
}

func (s *polling) BeaconID() string      { return s.client.BeaconID() }
func (s *polling) Transport() string     { return "http" }
func (s *polling) Done() <-chan struct{} { return s.life.Done() }

// Attend has the next heartbeat, which is sent now, say what the owner has: what
// it does not have any more others may get, and only that.
func (s *polling) Attend(o transport.Owner) {
	s.intake.Attend(o)
	s.sign()
}

// sign has a heartbeat sent now.
func (s *polling) sign() {
	select {
	case s.due <- struct{}{}:
	default:
	}
}

// Drain has the next heartbeat, which is sent now, say so: a server that is not
// asked gives nothing out.
func (s *polling) Drain(context.Context) error {
	s.draining.Store(true)
	s.sign()
	return nil
}

func (s *polling) Next(ctx context.Context) (beacon.WorkItem, error) {
	item, err := s.intake.Next(ctx, s.life.Done())
	if errors.Is(err, transport.ErrDisconnected) {
		err = s.cause()
	}
	return item, err
}

// Register introduces the beacon anew, as r says, in the same session: what
// runs goes on and is reported as before.
func (s *polling) Register(ctx context.Context, r protocol.Registration) error {
	earlier := s.BeaconID()
	s.client.SetRegistration(r)
	return s.during(ctx, func(ctx context.Context) error {
		if err := s.client.Register(ctx); err != nil {
			return err
		}
		return s.client.Retire(ctx, earlier)
	})
}

// cause is why the session ended, always ErrDisconnected.
func (s *polling) cause() error {
	err := context.Cause(s.life)
	if errors.Is(err, transport.ErrDisconnected) {
		return err
	}
	return fmt.Errorf("%w: session closed", transport.ErrDisconnected)
}

// poll owns the asking for work. A failure or two are waited out, so that a
// short outage costs no new registration.
func (s *polling) poll() {
	failed := 0
	err := s.intake.Run(s.life, func(ctx context.Context) ([]byte, error) {
		raw, err := s.client.Poll(ctx)
		if err == nil {
			failed = 0
			return raw, nil
		}
		failed++
		if ctx.Err() == nil {
			s.client.Config().Logger.Warn("asking for work failed", "err", err, "failures", failed)
		}
		if failed >= failures {
			return nil, fmt.Errorf("%w: %w", transport.ErrDisconnected, err)
		}
		return nil, err
	})
	s.end(err)
}

// heartbeat tells the server that the beacon is alive. While the beacon has
// items it does so as often as it would ask for work, since the answer is how it
// learns that an item is canceled.
func (s *polling) heartbeat() {
	cfg := s.client.Config()
	tick := time.NewTicker(min(cfg.HeartbeatInterval, cfg.PollInterval))
	defer tick.Stop()
	log, last := cfg.Logger, time.Now()
	for {
		now := false
		select {
		case <-tick.C:
		case <-s.due:
			now = true
		case <-s.life.Done():
			return
		}
		active := s.intake.Active()
		if !now && len(active) == 0 && time.Since(last) < cfg.HeartbeatInterval {
			continue
		}
		last = time.Now()
		id := s.BeaconID()
		_, err := s.client.Heartbeat(s.life, protocol.Heartbeat{ActiveWorkItems: active, Draining: s.draining.Load()})
		if errors.Is(err, session.ErrUnknownBeacon) {
			log.Warn("the server no longer knows this beacon; registering again", "beacon", id)
			err = s.client.RegisterAgain(s.life, id)
		}
		if err == nil && len(active) == 0 {
			err = s.client.Leave(s.life)
		}
		if err != nil && s.life.Err() == nil {
			log.Warn("heartbeat failed", "err", err)
		}
	}
}

func (s *polling) Progress(ctx context.Context, hash string, p beacon.Progress) error {
	return s.during(ctx, func(ctx context.Context) error { return s.client.Progress(ctx, hash, p) })
}

func (s *polling) Complete(ctx context.Context, hash string, r beacon.Result) error {
	return s.report(ctx, func(ctx context.Context) error { return s.client.Report(ctx, transport.Report{Hash: hash, Result: r}) })
}

func (s *polling) Fail(ctx context.Context, hash, message string, log []string) error {
	r := transport.Report{Hash: hash, Failed: true, Message: message, Result: beacon.Result{Log: log}}
	return s.report(ctx, func(ctx context.Context) error { return s.client.Report(ctx, r) })
}

// Deliver implements transport.Deliverer.
func (s *polling) Deliver(ctx context.Context, reports []transport.Report, sent func()) []error {
	defer sent()
	var errs []error
	if err := s.during(ctx, func(ctx context.Context) error { // errs has what comes of it
		errs = s.client.Deliver(ctx, reports)
		return nil
	}); err != nil { // nothing was sent
		return slices.Repeat([]error{err}, len(reports))
	}
	for i, err := range errs {
		switch {
		case err == nil:
			s.intake.Reported()
		case s.life.Err() != nil:
			errs[i] = s.cause()
		}
	}
	return errs
}

func (s *polling) report(ctx context.Context, send func(context.Context) error) error {
	err := s.during(ctx, send)
	if err == nil {
		s.intake.Reported()
	}
	return err
}

// during runs a call that ends with the session.
func (s *polling) during(ctx context.Context, call func(context.Context) error) error {
	return session.During(ctx, s.life, s.cause, call)
}

// Close takes leave only of a server that answers: where the link was lost,
// leaving would have the server give away items that still run here.
func (s *polling) Close(ctx context.Context) error {
	var err error
	s.leave.Do(func() {
		lost := s.life.Err() != nil
		if !lost {
			s.client.Settle(ctx)
		}
		s.end(nil)
		s.tasks.Wait()
		if lost {
			s.lost.add(s.client.Identities())
		} else {
			err = errors.Join(s.client.Leave(ctx), s.client.Deregister(ctx))
		}
		s.client.Close()
	})
	return err
}
