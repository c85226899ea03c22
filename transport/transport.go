// Package transport is the contract between a worker and its server. The
// packages below it implement it, each for one way to connect.
package transport

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ultravisor/beacon"
)

// ErrDisconnected is returned by a Session whose link is gone. Dial again.
var ErrDisconnected = errors.New("disconnected")

// ErrRefused is returned for a report that the server will never accept as it
// is, because it is too large, say. Sending it again cannot help.
var ErrRefused = errors.New("refused by the server")

// An ItemError is returned by Next for an item that arrived malformed. The
// session is fine; the item is to be reported as failed.
type ItemError struct {
	Hash string // never empty
	Err  error
}

func (e *ItemError) Error() string { return fmt.Sprintf("work item %s: %v", e.Hash, e.Err) }

// Unwrap returns what was wrong.
func (e *ItemError) Unwrap() error { return e.Err }

// Canceled is the error of an item that the server took back.
func Canceled(reason string) error {
	if reason == "" {
		return beacon.Errorf(beacon.Canceled, "canceled")
	}
	return beacon.Errorf(beacon.Canceled, "canceled: %s", beacon.Excerpt(reason, 300))
}

// A Dial opens a registered session. A worker calls it again after every loss,
// never while an earlier session of its is open. An error with code
// beacon.Rejected is final: the server does not want this beacon. So is one
// with code beacon.Invalid: the configuration is wrong.
type Dial func(ctx context.Context) (Session, error)

// An Owner is who works on the items of a session. Its methods are called by
// the session, from any goroutine, and return at once.
type Owner interface {
	// Active lists the hashes of the items that the owner has: those that run
	// and those whose report no server has confirmed.
	Active() []string
	// Cancel says that the server no longer wants an item, and why. The owner
	// stops it and reports it as failed. An item that it does not know may be
	// on its way to it, and is then not to be begun.
	// Attempt is the last delivery that this holds for, 0 if it holds for all.
	Cancel(hash string, attempt int, reason string)
}

// A Session is one live, registered link. Next is called from one goroutine at
// a time, the other methods from many. All of them return soon after their
// context is done or the link is lost; a lost link is ErrDisconnected, and an
// error that is neither this nor ErrRefused may go away by itself.
type Session interface {
	// BeaconID is the identity that the server gave this session. It changes
	// when the server forgot the beacon and the session registered it again.
	BeaconID() string
	// Transport names the way in use, for people: "websocket", "http".
	Transport() string
	// Done is closed when the link is lost or the session closed.
	Done() <-chan struct{}
	// Attend names the owner of the items, whom heartbeats and cancellations
	// concern. It is called at most once, before Next; without it heartbeats
	// list nothing and only items that wait in the session can be canceled.
	Attend(Owner)
	// Drain tells the server, if it has an ear for that, that no more items are
	// wanted. Those that were taken are reported as before; Next is not called
	// any more.
	Drain(ctx context.Context) error
	// Next waits for a work item. It is called only when a slot is free, so a
	// polling session asks its server no earlier. An item that is malformed is
	// an ItemError. An item that arrives while nobody waits is kept for the
	// next call.
	Next(ctx context.Context) (beacon.WorkItem, error)
	// Progress passes progress on. It may be dropped by the link.
	Progress(ctx context.Context, hash string, p beacon.Progress) error
	// Complete reports a result, Fail a provider's error. Both return nil when
	// the server has the report or says that it no longer wants it.
	Complete(ctx context.Context, hash string, r beacon.Result) error
	Fail(ctx context.Context, hash, message string, log []string) error
	// Close deregisters the beacon, if ctx and link allow, frees the link and
	// ends calls that are under way. It may be called twice.
	Close(ctx context.Context) error
}

// A Report is what became of an item, on its way to the server.
type Report struct {
	Hash string
	// Attempt is which delivery of the item it is about; 0 means unknown.
	Attempt int
	// Result holds outputs that are certain to be representable in JSON, and
	// beacon.Files.
	Result beacon.Result
	// Failed says that the provider failed, Message how; then only the log of
	// Result counts.
	Failed  bool
	Message string
}

// A Deliverer is a Session that delivers many reports for little more than the
// price of one.
type Deliverer interface {
	Session
	// Deliver is Complete or Fail for each of the reports: an error, or nil, for
	// each of them. It calls sent, once, as soon as it would only wait for the
	// server's word: then more reports may follow at once.
	Deliver(ctx context.Context, reports []Report, sent func()) []error
}

// atOnce is how many reports Deliver passes on at a time to a Session that is
// no Deliverer.
const atOnce = 8

// Deliver delivers reports by a session, the best way that it has; see
// Deliverer.
func Deliver(ctx context.Context, s Session, reports []Report, sent func()) []error {
	if d, ok := s.(Deliverer); ok {
		return d.Deliver(ctx, reports, sent)
	}
	defer sent()
	return Each(reports, func(r Report) error {
		if r.Failed {
			return s.Fail(ctx, r.Hash, r.Message, r.Result.Log)
		}
		return s.Complete(ctx, r.Hash, r.Result)
	})
}

// Each calls send for each report, some of them at the same time.
func Each(reports []Report, send func(Report) error) []error {
	errs := make([]error, len(reports))
	if len(reports) == 1 {
		errs[0] = send(reports[0])
		return errs
	}
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, atOnce)
	for i, r := range reports {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			errs[i] = send(r)
		})
	}
	return errs
}
