package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// do runs one item, gives its slot to the next, keeps its report, and tries to
// deliver it once. Later attempts are made by redeliver.
func (w *worker) do(ctx context.Context, item beacon.WorkItem, execute beacon.Execute) {
	start := time.Now()
	w.log.Debug("item started", "item", tag(item.Hash), "capability", tag(item.Capability), "action", tag(item.Action))

	p := newProgress(w, item.Hash)
	var result beacon.Result
	// What stays if the provider ends its goroutine instead of returning; what
	// is deferred runs even then.
	err := error(&panicError{value: "the provider ended its goroutine"})
	defer func() { w.conclude(ctx, p, start, item.Hash, result, err) }()
	result, err = call(ctx, item, execute, p.note)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx) // which says who canceled it
	}
}

// conclude reports on an item that has ended.
func (w *worker) conclude(ctx context.Context, p *progress, start time.Time, hash string, result beacon.Result, err error) {
	result.Log = append(p.finish(), result.Log...)
	report := newReport(hash, result, err)
	switch {
	case err != nil:
		var panicked *panicError
		if errors.As(err, &panicked) {
			w.log.Error("the provider panicked", "item", tag(hash), "panic", panicked.value, "stack", string(panicked.stack))
		} else {
			w.log.Warn("item failed", "item", tag(hash), "err", err, "took", time.Since(start))
		}
	case report.Failed:
		w.log.Warn("item failed", "item", tag(hash), "err", report.Message, "took", time.Since(start))
	default:
		w.log.Debug("item done", "item", tag(hash), "took", time.Since(start))
	}
	known := w.finished(hash)
	<-w.slots
	if report.Failed || !known {
		w.discard(result)
	}
	if !known {
		w.log.Error("the item ended after it was left behind", "item", tag(hash))
		return
	}
	report = w.keep(report)
	s := w.reported(report)
	if s == nil {
		w.tried(hash, nil, transport.ErrDisconnected)
		return
	}
	// The delivery outlives ctx: it ends with the link, which the drain bounds.
	w.tried(hash, s, w.deliver(context.WithoutCancel(ctx), s, report))
}

// keep puts the report into the outbox. When that is full, say, the item fails
// with that reason; the failure is delivered even if it cannot be kept.
func (w *worker) keep(report Report) Report {
	err := w.cfg.Outbox.Put(report)
	if err == nil {
		return report
	}
	w.log.Error("cannot keep the result", "item", tag(report.Hash), "err", err)
	w.discard(report.Result)
	failure := Report{Hash: report.Hash, Failed: true, Message: "the beacon could not store the result (the reason is in its log)"}
	if err := w.cfg.Outbox.Put(failure); err != nil {
		w.log.Error("cannot keep the failure either; it will be delivered from memory", "item", tag(report.Hash), "err", err)
	}
	return failure
}

// finished notes that an item runs no longer and that its first delivery is
// under way. It is false for an item that was left behind.
func (w *worker) finished(hash string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.known[hash]
	if j == nil || !j.running {
		return false
	}
	j.running, j.first = false, true
	w.running--
	w.backlog++
	w.reporting++
	w.announce()
	return true
}

// reported notes the report. The link is where to deliver it now, nil if there
// is none.
func (w *worker) reported(report Report) transport.Session {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known[report.Hash].report = report
	return w.link
}

// retryBase and retryLimit bound the waits between deliveries of one report.
const (
	retryBase  = time.Second
	retryLimit = time.Minute
)

// tried notes what became of a delivery.
func (w *worker) tried(hash string, s transport.Session, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	j := w.known[hash]
	defer w.announce()
	if j.first {
		j.first = false
		w.reporting--
	}
	if err == nil {
		delete(w.known, hash)
		w.backlog--
		w.active = time.Now()
		return
	}
	defer w.redue()
	j.sending = false
	if s == nil || lost(s) {
		j.due = time.Time{} // as soon as there is a link
		return
	}
	if j.retry.base == 0 {
		j.retry = backoff{next: retryBase, base: retryBase, limit: retryLimit}
	}
	wait := j.retry.delay()
	j.due = time.Now().Add(wait)
	w.log.Warn("the result could not be delivered; trying again", "item", tag(hash), "err", err, "in", wait.Round(time.Millisecond))
}

func lost(s transport.Session) bool {
	select {
	case <-s.Done():
		return true
	default:
		return false
	}
}

// deliver sends a report and forgets it once the server has it. A report that
// the server refuses for good is replaced by a failure that says so.
func (w *worker) deliver(ctx context.Context, s transport.Session, report Report) error {
	err := send(ctx, s, report)
	if errors.Is(err, transport.ErrRefused) {
		w.log.Error("the server refused the result", "item", tag(report.Hash), "err", err)
		failure := Report{Hash: report.Hash, Failed: true, Message: "the server refused the result: " + beacon.Excerpt(err.Error(), 300)}
		err = send(ctx, s, failure)
		if errors.Is(err, transport.ErrRefused) {
			w.log.Error("the server refused the failure, too; giving up on the item", "item", tag(report.Hash), "err", err)
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if err := w.cfg.Outbox.Delivered(report.Hash); err != nil {
		w.log.Error("cannot remove a delivered result; it will be sent again after a restart", "item", tag(report.Hash), "err", err)
	}
	w.discard(report.Result)
	return nil
}

// discard removes the files of a result that nobody needs any more.
func (w *worker) discard(result beacon.Result) {
	for _, f := range result.Outputs.Files() {
		if err := f.Remove(); err != nil {
			w.log.Error("the file of a result stays behind", "err", err)
		}
	}
}

func send(ctx context.Context, s transport.Session, report Report) error {
	if report.Failed {
		return s.Fail(ctx, report.Hash, report.Message, report.Result.Log)
	}
	return s.Complete(ctx, report.Hash, report.Result)
}

// redeliveries is how many later deliveries are under way at once.
const redeliveries = 8

// redeliver owns the reports that were not delivered at once.
func (w *worker) redeliver(ctx context.Context) {
	limit := make(chan struct{}, redeliveries)
	timer := time.NewTimer(retryLimit)
	defer timer.Stop()
	for {
		s, next, wait := w.nextDue()
		if s != nil {
			select {
			case limit <- struct{}{}:
			case <-ctx.Done():
				return
			}
			w.sending.Go(func() {
				defer func() { <-limit }()
				w.tried(next.Hash, s, w.deliver(ctx, s, next))
			})
			continue
		}
		timer.Reset(wait)
		select {
		case <-w.retry:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

// nextDue picks a report to deliver, and the link for it, or says how long to
// wait until one is due.
func (w *worker) nextDue() (transport.Session, Report, time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wait := retryLimit
	if w.link == nil || w.backlog == 0 || lost(w.link) {
		return nil, Report{}, wait
	}
	for _, j := range w.known {
		if j.running || j.first || j.sending {
			continue
		}
		until := time.Until(j.due)
		if until <= 0 {
			j.sending = true
			return w.link, j.report, 0
		}
		wait = min(wait, until)
	}
	return nil, Report{}, wait
}

// newReport makes the report on an item. Outputs are encoded here, so that one
// that cannot be fails its own item and nothing else.
func newReport(hash string, result beacon.Result, err error) Report {
	failed := func(message string) Report {
		return Report{Hash: hash, Result: beacon.Result{Log: result.Log}, Failed: true, Message: message}
	}
	if err != nil {
		return failed(message(err))
	}
	outputs := make(beacon.Outputs, len(result.Outputs))
	for name, value := range result.Outputs {
		if f, ok := value.(beacon.File); ok { // is read when it is sent
			outputs[name] = f
			continue
		}
		raw, err := encode(value)
		if err != nil {
			return failed(fmt.Sprintf("output %s is not representable in JSON: %s", beacon.Excerpt(name, 80), beacon.Excerpt(err.Error(), 200)))
		}
		outputs[name] = raw
	}
	return Report{Hash: hash, Result: beacon.Result{Outputs: outputs, Log: result.Log}}
}

// encode is json.Marshal for values of strangers, whose methods may panic.
func encode(value any) (raw json.RawMessage, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("encoding panicked: %v", v)
		}
	}()
	return json.Marshal(value)
}

// message is what a stranger may know of an error.
func message(err error) string {
	var e *beacon.Error
	var panicked *panicError
	switch {
	case errors.As(err, &e):
		return e.Message
	case errors.As(err, &panicked):
		return "the provider broke down (the details are in the beacon's log)"
	case errors.Is(err, context.DeadlineExceeded):
		return "the item ran longer than it may"
	case errors.Is(err, context.Canceled):
		return "canceled: the beacon is shutting down"
	}
	return "the provider failed (the details are in the beacon's log)"
}

// A panicError is a panic of a provider.
type panicError struct {
	value string
	stack []byte
}

func (e *panicError) Error() string { return "panic: " + e.value }

// call runs execute and turns its panics into errors.
func call(ctx context.Context, item beacon.WorkItem, execute beacon.Execute, onProgress func(beacon.Progress)) (result beacon.Result, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{value: beacon.Excerpt(fmt.Sprint(v), 500), stack: debug.Stack()}
		}
	}()
	return execute(ctx, item, onProgress)
}

// A tag is text of a stranger, like an item's hash, in the log, where it may not take more
// room than it deserves.
type tag string

// LogValue is called only for lines that are written.
func (t tag) LogValue() slog.Value { return slog.StringValue(beacon.Excerpt(string(t), 200)) }
