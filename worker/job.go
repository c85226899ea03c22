package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/ultravisor/beacon"
)

// do runs one item and gives its slot to the next. What becomes of its report is
// not its business any more.
func (w *worker) do(ctx context.Context, j *job, item beacon.WorkItem, execute beacon.Execute) {
	start := time.Now()
	if w.verbose {
		w.log.Debug("item started", "item", tag(item.Hash), "capability", tag(item.Capability), "action", tag(item.Action))
	}
	p := newProgress(w, item.Hash)
	var result beacon.Result
	// What stays if the provider ends its goroutine instead of returning; what
	// is deferred runs even then.
	err := error(&panicError{value: "the provider ended its goroutine"})
	defer func() { w.conclude(p, start, j, result, err) }()
	result, err = call(ctx, item, execute, p.note)
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = context.Cause(ctx) // which says who canceled it
	}
}

// conclude makes the report on an item that has ended.
func (w *worker) conclude(p *progress, start time.Time, j *job, result beacon.Result, err error) {
	if lines := p.finish(); len(lines) > 0 {
		result.Log = append(lines, result.Log...)
	}
	report := newReport(j.hash, result, err)
	switch {
	case err != nil:
		var panicked *panicError
		if errors.As(err, &panicked) {
			w.log.Error("the provider panicked", "item", tag(j.hash), "panic", panicked.value, "stack", string(panicked.stack))
		} else {
			w.log.Warn("item failed", "item", tag(j.hash), "err", err, "took", time.Since(start))
		}
	case report.Failed:
		w.log.Warn("item failed", "item", tag(j.hash), "err", report.Message, "took", time.Since(start))
	case w.verbose:
		w.log.Debug("item done", "item", tag(j.hash), "took", time.Since(start))
	}
	wanted := w.ended(j, report)
	<-w.slots
	if report.Failed || !wanted {
		w.discard(result)
	}
}

// newReport makes the report on an item. Outputs are encoded here, so that one
// that cannot be fails its own item and nothing else.
func newReport(hash string, result beacon.Result, err error) Report {
	if math.IsNaN(result.Usage.Cost) || math.IsInf(result.Usage.Cost, 0) {
		result.Usage.Cost = 0 // no number in JSON either
	}
	failed := func(message string) Report {
		return Report{Hash: hash, Result: beacon.Result{Log: result.Log, Usage: result.Usage}, Failed: true, Message: message}
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
		if beacon.Nesting(raw) > beacon.MaxNesting {
			return failed(fmt.Sprintf("output %s is nested more than %d deep", beacon.Excerpt(name, 80), beacon.MaxNesting))
		}
		outputs[name] = raw
	}
	return Report{Hash: hash, Result: beacon.Result{Outputs: outputs, Log: result.Log, Usage: result.Usage}}
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
