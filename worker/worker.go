// Package worker keeps a beacon connected and its items running.
//
// Items belong to the worker and not to a link: when a link is lost they run
// on, and their results leave by the next one. A result is kept until a server
// has confirmed it.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// Defaults of Config.
const (
	DefaultDrainTimeout      = 30 * time.Second
	DefaultReconnectInterval = 500 * time.Millisecond
	DefaultReconnectMax      = 5 * time.Minute
	DefaultProgressInterval  = 200 * time.Millisecond
	DefaultKeepAlive         = 45 * time.Second
)

// Config holds what has a sensible default: the zero value is usable.
type Config struct {
	// MaxConcurrent is how many items run at once; 0 means 1. It should be
	// what the beacon's registration says. An item makes room for the next as
	// soon as its provider has returned: results may reach the server in
	// another order than they were made.
	MaxConcurrent int
	// DrainTimeout is how long running items may go on after a stop; 0 means
	// 30 s, less than 0 that they are canceled at once.
	DrainTimeout time.Duration
	// Abort, when closed, cuts a drain short: items are canceled and Run
	// returns without waiting for a server. A second interrupt closes it.
	Abort <-chan struct{}
	// ReconnectInterval bounds the wait before the first attempt to connect
	// again; 0 means half a second. It doubles with each further attempt up to
	// ReconnectMax, 0 meaning five minutes. The wait itself is random within
	// that bound, so that a fleet does not return in step.
	ReconnectInterval time.Duration
	ReconnectMax      time.Duration
	// ProgressInterval is the least time between two progress reports of an
	// item; 0 means 200 ms. What comes in between is merged: the latest
	// values, all log lines. KeepAlive is the longest time without one, since
	// servers give up items that are silent for two minutes; 0 means 45 s.
	ProgressInterval time.Duration
	KeepAlive        time.Duration
	// Once has Run take one item, finish it, deliver what is to be delivered
	// however long that takes, and end.
	Once bool
	// ExitIdle has Run end when for that long no item has run, arrived, or
	// waited to be delivered, be there a server or not, counted from the end of
	// the first attempt to connect; 0 means never.
	ExitIdle time.Duration
	// MaxUptime has Run take no more items after that time, counted from its
	// start, and end like at a stop; 0 means never.
	MaxUptime time.Duration
	// Outbox keeps results that are not delivered yet; nil keeps them in
	// memory, where the end of the process loses them.
	Outbox Outbox
	// OnRegistered is called after each registration, OnLost after each link
	// that was lost and each failed attempt to connect. Both are called from
	// the goroutine of Run.
	OnRegistered func(beaconID, transport string)
	OnLost       func(err error)
	// OnDrain is called once when no more items are taken, from another goroutine.
	OnDrain func()
	Logger  *slog.Logger // nil means slog.Default()
}

// A Report is what became of an item, on its way to the server.
type Report = transport.Report

// An Outbox keeps reports until they are delivered. Its methods are called from
// many goroutines. A worker needs one of its own.
type Outbox interface {
	// Put keeps reports, all of them or, with an error, none. Once it returns
	// nil they are safe, and so is the content of their files: an outbox that
	// outlives the process has a copy or a link of its own. Earlier reports on
	// the same hashes are replaced.
	Put(...Report) error
	// Pending lists what was kept and not delivered. It is called once, at the
	// start.
	Pending() ([]Report, error)
	// Delivered forgets the reports on hashes.
	Delivered(hashes ...string) error
}

// An UndeliveredError says that reports were left when Run ended. They are in
// Config.Outbox; without one they are lost.
type UndeliveredError struct{ Hashes []string }

func (e *UndeliveredError) Error() string {
	return fmt.Sprintf("%d results could not be delivered to the server: %s", len(e.Hashes), beacon.Excerpt(strings.Join(e.Hashes, ", "), 400))
}

// Times at the end of Run.
const (
	// cancelTimeout is for canceled items to return.
	cancelTimeout = 5 * time.Second
	// abortTimeout is for the same after an abort.
	abortTimeout = time.Second
	// flushTimeout is for reports to be delivered after the last item ended.
	flushTimeout = 5 * time.Second
	// closeTimeout is for taking leave of a server.
	closeTimeout = 5 * time.Second
)

// Run serves items until ctx is done, connecting again whenever the link is
// lost. It blocks. Once, ExitIdle and MaxUptime of cfg end it as ctx does.
//
// After ctx is done it takes no more items. Those that run have
// cfg.DrainTimeout to finish, then their context is canceled; each is
// reported, the beacon deregistered, and Run returns nil, or an
// UndeliveredError if reports are left. An item that ignores its canceled
// context is reported as failed and left behind.
//
// An error of dial with code beacon.Rejected or beacon.Invalid ends Run at
// once, with that error: running items are canceled.
//
// Execute is called in a goroutine of its own for each item; the deadline of
// an item is its business. When it panics the item fails and the worker lives.
// To the server goes the text of a beacon.Error; of any other error goes only
// that there was one, and its text to the log.
func Run(ctx context.Context, dial transport.Dial, execute beacon.Execute, cfg Config) error {
	w, err := newWorker(execute, cfg)
	if err != nil {
		return err
	}
	return w.run(ctx, dial)
}

func newWorker(execute beacon.Execute, cfg Config) (*worker, error) {
	cfg.MaxConcurrent = max(cfg.MaxConcurrent, 1)
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = DefaultDrainTimeout
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&cfg.ReconnectInterval, DefaultReconnectInterval},
		{&cfg.ReconnectMax, DefaultReconnectMax},
		{&cfg.ProgressInterval, DefaultProgressInterval},
		{&cfg.KeepAlive, DefaultKeepAlive},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.OnRegistered == nil {
		cfg.OnRegistered = func(string, string) {}
	}
	if cfg.OnLost == nil {
		cfg.OnLost = func(error) {}
	}
	if cfg.OnDrain == nil {
		cfg.OnDrain = func() {}
	}
	if cfg.Outbox == nil {
		cfg.Outbox = memory{}
	}
	w := &worker{
		execute: execute, cfg: cfg, log: cfg.Logger,
		slots:  make(chan struct{}, cfg.MaxConcurrent),
		tasks:  make(chan task),
		known:  map[string]*job{},
		keep:   make(chan struct{}, 1),
		send:   make(chan struct{}, 1),
		active: time.Now(),
	}
	w.verbose = w.log.Enabled(context.Background(), slog.LevelDebug)
	kept, err := cfg.Outbox.Pending()
	if err != nil {
		return nil, fmt.Errorf("read the outbox: %w", err)
	}
	for _, r := range kept {
		w.known[r.Hash] = &job{hash: r.Hash, report: r, size: size(r)}
	}
	w.backlog = len(w.known)
	w.stuck = len(w.known)
	if len(kept) > 0 {
		w.log.Info("results of an earlier run are still to be delivered", "results", len(kept))
	}
	return w, nil
}

// memory is the outbox of a worker that has none: the worker's own list of
// known items is all there is.
type memory struct{}

func (memory) Put(...Report) error        { return nil }
func (memory) Pending() ([]Report, error) { return nil, nil }
func (memory) Delivered(...string) error  { return nil }

type worker struct {
	execute beacon.Execute
	cfg     Config
	log     *slog.Logger
	verbose bool          // log is for details, too
	slots   chan struct{} // one token per running item
	tasks   chan task     // for goroutines that rest; closed at the end
	resting atomic.Int64  // they
	items   sync.WaitGroup
	sending sync.WaitGroup

	keep chan struct{} // there are reports to be kept
	send chan struct{} // a report may be due

	mu        sync.Mutex
	known     map[string]*job   // running, or with a report to deliver
	running   int               // known items that run
	backlog   int               // the others
	reporting int               // those of them whose first delivery is under way
	stuck     int               // those whose first delivery is over
	unkept    []*job            // their reports are to be kept
	keepBy    time.Time         // before that they may wait for others
	unsent    []*job            // they are kept and to be sent
	abandoned int               // items left behind
	taken     bool              // an item has been taken
	dialed    bool              // the first attempt to connect has ended
	active    time.Time         // when that was, or an item last arrived or was done with
	unwanted  []unwanted        // items that were canceled before they arrived
	link      transport.Session // nil while there is none
	changed   chan struct{}     // closed at the next change of the above; nil if nobody waits

	reportingBytes int64 // of the reports that are reporting
}

// A job is an item that runs or whose report is to be delivered.
type job struct {
	hash       string
	attempt    int
	digest     digest
	began      time.Time
	running    bool
	superseded bool // left behind, since its hash means another item now
	cancel     context.CancelCauseFunc
	report     Report            // once the item has ended
	size       int64             // of the report
	first      bool              // the first delivery is under way
	sending    bool              // a delivery is under way
	sent       transport.Session // of the last delivery
	retry      backoff           // between deliveries
	due        time.Time         // of the next delivery
}

// announce tells those who wait that something has changed; mu is held.
func (w *worker) announce() {
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// change is closed at the next change; mu is held.
func (w *worker) change() <-chan struct{} {
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.changed
}

// session is the link in use, nil while there is none.
func (w *worker) session() transport.Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.link
}

// errStopped is the cause of contexts that end with the worker.
var errStopped = errors.New("the worker is stopping")

func (w *worker) run(ctx context.Context, dial transport.Dial) error {
	// ctx is for taking items, jobs for running them, life for links and
	// deliveries.
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	jobs, cancelJobs := context.WithCancelCause(context.WithoutCancel(ctx))
	life, endLife := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancelJobs(errStopped)
	defer endLife(errStopped)

	var drain sync.WaitGroup
	defer drain.Wait()
	ended := make(chan struct{})
	defer close(ended)
	drain.Go(func() { w.drain(ctx, stop, cancelJobs, endLife, ended) })
	drain.Go(func() { w.retire(ctx, stop, ended) })
	keeping, endKeeping := context.WithCancel(context.WithoutCancel(ctx))
	var keeper sync.WaitGroup
	keeper.Go(func() { w.keeper(keeping) })
	w.sending.Go(func() { w.sender(life) })

	err := w.connect(ctx, jobs, life, dial)
	if err != nil { // final
		cancelJobs(err)
		if !w.settle(nil, w.cfg.Abort, cancelTimeout, w.idle) {
			w.abandon()
		}
	}
	endLife(errStopped)
	close(w.tasks) // nobody takes items any more
	w.sending.Wait()
	w.mu.Lock()
	abandoned := w.abandoned
	w.mu.Unlock()
	if abandoned == 0 {
		w.items.Wait()
	}
	endKeeping()
	keeper.Wait()
	left := w.left()
	if len(left) == 0 {
		return err
	}
	undelivered := &UndeliveredError{Hashes: left}
	w.log.Error("stopped with results that are not delivered", "err", undelivered)
	return errors.Join(err, undelivered)
}

// retire stops the worker by itself, if it is to.
func (w *worker) retire(ctx context.Context, stop context.CancelFunc, ended <-chan struct{}) {
	cfg := &w.cfg
	var uptime <-chan time.Time
	if cfg.MaxUptime > 0 {
		timer := time.NewTimer(cfg.MaxUptime)
		defer timer.Stop()
		uptime = timer.C
	}
	idle := time.NewTimer(0)
	defer idle.Stop()
	for {
		w.mu.Lock()
		busy, taken, rest := !w.dialed || len(w.known) > 0, w.taken, cfg.ExitIdle-time.Since(w.active)
		var changed <-chan struct{}
		if cfg.Once || cfg.ExitIdle > 0 && busy {
			changed = w.change()
		}
		w.mu.Unlock()
		var tooIdle <-chan time.Time
		switch {
		case busy:
		case cfg.Once && taken:
			w.log.Info("the one item is done")
			stop()
			return
		case cfg.ExitIdle > 0 && rest <= 0:
			w.log.Info("no item has come", "in", cfg.ExitIdle)
			stop()
			return
		case cfg.ExitIdle > 0:
			idle.Reset(rest)
			tooIdle = idle.C
		}
		select {
		case <-uptime:
			w.log.Info("the time is up", "after", cfg.MaxUptime)
			stop()
			return
		case <-tooIdle:
		case <-changed:
		case <-ctx.Done():
			return
		case <-ended:
			return
		}
	}
}

// drain watches over the end: it gives running items their time, then cancels
// them, then gives the reports theirs, then ends the link.
func (w *worker) drain(ctx context.Context, stop context.CancelFunc, cancelJobs, endLife context.CancelCauseFunc, ended <-chan struct{}) {
	select {
	case <-ctx.Done():
	case <-w.cfg.Abort:
		stop()
	case <-ended:
		return
	}
	w.cfg.OnDrain()
	w.mu.Lock()
	running, waiting := w.running, len(w.known)-w.running
	w.mu.Unlock()
	w.log.Info("stopping: no more items are taken", "running", running, "undelivered", waiting, "timeout", max(w.cfg.DrainTimeout, 0))
	stopped := w.settle(ended, w.cfg.Abort, max(w.cfg.DrainTimeout, 0), w.idle)
	cancelJobs(beacon.Errorf(beacon.Canceled, "canceled: the beacon is shutting down"))
	if !stopped && !w.settle(ended, w.cfg.Abort, cancelTimeout, w.idle) && !w.settle(ended, nil, abortTimeout, w.idle) {
		w.abandon()
	}
	w.settle(ended, w.cfg.Abort, flushTimeout, func() bool { return len(w.known) == 0 })
	endLife(errStopped)
}

// idle reports whether no item runs; mu is held.
func (w *worker) idle() bool { return w.running == 0 }

// settle waits until the condition, which is checked under mu, holds, the time
// is over, or a channel is closed.
func (w *worker) settle(ended, abort <-chan struct{}, timeout time.Duration, condition func() bool) bool {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		w.mu.Lock()
		met, changed := condition(), w.change()
		w.mu.Unlock()
		if met {
			return true
		}
		select {
		case <-changed:
		case <-timer.C:
			return false
		case <-abort:
			return false
		case <-ended:
			return false
		}
	}
}

// abandon reports items that ignored their canceled context.
func (w *worker) abandon() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for hash, j := range w.known {
		if !j.running {
			continue
		}
		w.log.Error("the item ignores that it was canceled; leaving it behind", "item", tag(hash))
		r := Report{Hash: hash, Attempt: j.attempt, Failed: true, Message: "canceled: the beacon is shutting down and the provider did not end"}
		if err := w.cfg.Outbox.Put(r); err != nil {
			w.log.Error("cannot keep the report", "item", tag(hash), "err", err)
		}
		j.running, j.report = false, r
		w.running--
		w.backlog++
		w.stuck++
		w.abandoned++
	}
	w.announce()
	signal(w.send)
}

// left lists items that were not reported, sorted.
func (w *worker) left() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var hashes []string
	for hash := range w.known {
		hashes = append(hashes, hash)
	}
	slices.Sort(hashes)
	return hashes
}

// connect keeps a link open until life ends or an error is final.
func (w *worker) connect(ctx, jobs, life context.Context, dial transport.Dial) error {
	wait := backoff{next: w.cfg.ReconnectInterval, base: w.cfg.ReconnectInterval, limit: w.cfg.ReconnectMax}
	for life.Err() == nil && (ctx.Err() == nil || w.busy()) {
		err := w.once(ctx, jobs, life, dial, &wait)
		if code := beacon.CodeOf(err); code == beacon.Rejected || code == beacon.Invalid {
			return err
		}
		if life.Err() != nil || err == nil || ctx.Err() != nil && !w.busy() {
			continue
		}
		delay := wait.delay()
		w.log.Warn("not connected; trying again", "err", err, "in", delay.Round(time.Millisecond))
		w.cfg.OnLost(err)
		w.sleep(ctx, life, delay)
	}
	return nil
}

func (w *worker) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.known) > 0
}

// sleep waits for the delay; while draining no longer than the drain.
func (w *worker) sleep(ctx, life context.Context, delay time.Duration) {
	timer := time.NewTimer(delay)
	defer timer.Stop()
	stop := ctx.Done()
	for {
		w.mu.Lock()
		changed := w.change()
		idle := len(w.known) == 0
		w.mu.Unlock()
		if ctx.Err() != nil && idle {
			return
		}
		select {
		case <-timer.C:
			return
		case <-life.Done():
			return
		case <-stop:
			stop = nil
			// What is left to deliver cannot wait for minutes any more.
			timer.Reset(min(delay, w.cfg.ReconnectInterval))
		case <-changed:
		}
	}
}

// stable is how long a link must have lasted to count as a success, if no item
// came over it.
const stable = 30 * time.Second

// once connects, serves the link until it is lost or life ends, and closes it.
func (w *worker) once(ctx, jobs, life context.Context, dial transport.Dial, wait *backoff) error {
	dialing, cancel := context.WithCancel(life)
	unless := context.AfterFunc(ctx, func() {
		if !w.busy() {
			cancel()
		}
	})
	s, err := dial(dialing)
	unless()
	cancel()
	if err != nil {
		w.attempted()
		return err
	}
	start := time.Now()
	w.log.Info("registered", "beacon", s.BeaconID(), "transport", s.Transport())
	w.cfg.OnRegistered(s.BeaconID(), s.Transport())
	w.attempted()

	s.Attend(owner{w})
	w.setLink(s)
	took, err := w.serve(ctx, jobs, life, s)
	w.setLink(nil)
	if took > 0 || time.Since(start) >= stable {
		wait.reset()
	}

	closing, giveUp := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer giveUp()
	if w.cfg.Abort != nil {
		var aborted sync.WaitGroup
		defer aborted.Wait()
		closed := make(chan struct{})
		defer close(closed)
		aborted.Go(func() {
			select {
			case <-w.cfg.Abort:
				giveUp()
			case <-closed:
			}
		})
	}
	if closeErr := s.Close(closing); closeErr != nil {
		w.log.Debug("could not take leave of the server", "err", closeErr)
	}
	return err
}

// attempted notes that an attempt to connect has ended: only after the first is
// a worker idle.
func (w *worker) attempted() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.dialed {
		w.dialed, w.active = true, time.Now()
		w.announce()
	}
}

func (w *worker) setLink(s transport.Session) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.link = s
	for _, j := range w.known {
		j.due = time.Time{}
	}
	w.announce()
	signal(w.send)
}

// serve takes items until the link is lost or life ends. After ctx is done it
// stays for the reports. It returns how many items it took.
func (w *worker) serve(ctx, jobs, life context.Context, s transport.Session) (took int, err error) {
	taking, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(life, stop)()
	var lost sync.WaitGroup
	lost.Go(func() {
		select {
		case <-s.Done():
			stop()
		case <-taking.Done():
		}
	})
	took, err = w.take(taking, jobs, s)
	stop()
	lost.Wait()
	if err != nil {
		return took, err
	}
	if ctx.Err() != nil && w.busy() {
		telling, cancel := context.WithTimeout(life, closeTimeout)
		if err := s.Drain(telling); err != nil {
			w.log.Debug("could not tell the server that no more items are wanted", "err", err)
		}
		cancel()
	}
	for { // draining, or lost while no slot was free
		w.mu.Lock()
		idle, changed := len(w.known) == 0, w.change()
		w.mu.Unlock()
		if ctx.Err() != nil && idle || life.Err() != nil {
			return took, nil
		}
		select {
		case <-s.Done():
			_, err := s.Next(life) // says why
			if err == nil || life.Err() != nil {
				err = transport.ErrDisconnected
			}
			return took, err
		case <-changed:
		case <-life.Done():
		}
	}
}

// take gets items while slots are free. It returns nil when ctx is done.
func (w *worker) take(ctx, jobs context.Context, s transport.Session) (took int, err error) {
	for {
		select {
		case w.slots <- struct{}{}:
		case <-ctx.Done():
			return took, nil
		}
		if !w.admitted(ctx) {
			<-w.slots
			return took, nil
		}
		item, err := s.Next(ctx)
		execute := w.execute
		var malformed *transport.ItemError
		switch {
		case errors.As(err, &malformed):
			item = beacon.WorkItem{Hash: malformed.Hash}
			execute = refuse(malformed.Err)
		case err != nil:
			<-w.slots
			if ctx.Err() != nil && !errors.Is(err, transport.ErrDisconnected) && beacon.CodeOf(err) != beacon.Rejected {
				err = nil
			}
			return took, err
		}
		took++
		running, cancel := context.WithCancelCause(jobs)
		j, reason := w.begin(item, cancel)
		if j == nil {
			cancel(nil)
			<-w.slots
			continue
		}
		if reason != nil {
			execute = refuse(reason)
		}
		w.start(task{running, cancel, j, item, execute})
	}
}

// A task is what the goroutine of an item needs.
type task struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	job     *job
	item    beacon.WorkItem
	execute beacon.Execute
}

// start has a goroutine carry out an item: one that rests, because its item has
// ended, or a new one. By then its stack is as large as items need it, and to grow
// one costs more than most of what the worker does for an item.
func (w *worker) start(t task) {
	select {
	case w.tasks <- t:
	default:
		w.items.Go(func() { w.work(t) })
	}
}

// maxResting is how many goroutines may wait for the next item.
const maxResting = 64

// work carries out an item, and then those that come while it rests.
func (w *worker) work(t task) {
	for more := true; more; {
		w.carryOut(t)
		t = task{} // the item is not to live on here
		if w.resting.Add(1) <= min(int64(w.cfg.MaxConcurrent), maxResting) {
			t, more = <-w.tasks
		} else {
			more = false
		}
		w.resting.Add(-1)
	}
}

func (w *worker) carryOut(t task) {
	defer t.cancel(nil)
	w.do(t.ctx, t.job, t.item, t.execute)
}

// maxBacklog is how many results may wait for a server that does not accept
// them before no more items are taken.
func (w *worker) maxBacklog() int { return 64 + 4*w.cfg.MaxConcurrent }

// maxReporting and maxReportingBytes are how many results may be on their first
// way to the server before no more items are taken: an item does not wait for
// the disk and the network to be done with the one before.
const (
	maxReporting      = 8192
	maxReportingBytes = 64 << 20
)

// admitted waits until the backlog is short enough, false if ctx is done first.
// After the one item of Config.Once nothing more is.
func (w *worker) admitted(ctx context.Context) bool {
	for told := false; ctx.Err() == nil; {
		w.mu.Lock()
		stuck, full := w.stuck, w.stuck >= w.maxBacklog()
		enough := w.cfg.Once && w.taken
		if !full && !enough && w.reporting < maxReporting && w.reportingBytes < maxReportingBytes {
			w.mu.Unlock()
			return true
		}
		changed := w.change()
		w.mu.Unlock()
		if full && !told {
			told = true
			w.log.Warn("taking no more items until the server accepts the results that wait", "waiting", stuck)
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return false
}

// refuse makes an execution that fails at once.
func refuse(err error) beacon.Execute {
	return func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
		return beacon.Result{}, err
	}
}

// begin notes that an item runs. It gives no job for one that runs already or
// whose report waits: servers deliver items again after a disconnection. An item
// that was canceled meanwhile is not to be executed, for the reason that is
// given.
func (w *worker) begin(item beacon.WorkItem, cancel context.CancelCauseFunc) (*job, error) {
	j := &job{hash: item.Hash, attempt: item.Attempt, digest: digestOf(item), began: time.Now(), running: true, cancel: cancel}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.active = time.Now()
	if earlier := w.known[item.Hash]; earlier != nil && !w.replaces(j, earlier) {
		// What it comes to counts for the newest delivery.
		earlier.attempt = max(earlier.attempt, item.Attempt)
		earlier.report.Attempt = max(earlier.report.Attempt, item.Attempt)
		if earlier.running {
			w.log.Info("the item was delivered again while it runs", "item", tag(item.Hash))
		} else {
			w.log.Info("the item was delivered again while its result is being delivered", "item", tag(item.Hash))
			earlier.due = time.Time{}
			signal(w.send)
		}
		return nil, nil
	}
	w.known[item.Hash] = j
	w.running++
	w.taken = true
	w.announce()
	return j, w.recall(item.Hash, item.Attempt)
}

// A backoff yields random waits under a bound that doubles.
type backoff struct {
	next, base, limit time.Duration
}

func (b *backoff) reset() { b.next = b.base }

func (b *backoff) delay() time.Duration {
	bound := min(b.next, b.limit)
	b.next = min(bound*2, b.limit)
	return rand.N(bound) + 1
}
