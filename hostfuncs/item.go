package hostfuncs

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
)

// Limits bound what one work item may hand to its host. Zero fields mean the
// defaults.
type Limits struct {
	// Output is the sum of standard output and outputs, in bytes; an output
	// counts with its name and 128 more. Default 16 MiB. More ends the item.
	Output int64
	// Log is the sum of all log lines, in bytes; default 1 MiB. The first line
	// over it and all later ones are dropped and counted.
	Log int64
	// Calls is the number of host calls, of WASI and beacon_v1 together;
	// default 100 million. More ends the item.
	Calls int64
}

func (l Limits) withDefaults() Limits {
	if l.Output <= 0 {
		l.Output = 16 << 20
	}
	if l.Log <= 0 {
		l.Log = 1 << 20
	}
	if l.Calls <= 0 {
		l.Calls = 100_000_000
	}
	return l
}

// maxLine is the longest line that goes into a log, in bytes.
const maxLine = 8 << 10

// outputCost is charged for each output besides its bytes, which are often
// fewer than what keeping them takes.
const outputCost = 128

// excerpt is beacon.Excerpt with a limit on what comes out: escaping makes text
// up to six times as long.
func excerpt(text string, limit int) string {
	const ellipsis = len("…")
	if text = beacon.Excerpt(text, limit); len(text) > limit {
		text = beacon.Excerpt(text, limit-ellipsis)
	}
	return text
}

// An Item is the host's end of one run of a guest: what the guest may read,
// and what it has handed over. It serves one guest, which has one thread, so
// only Cancel may be called from elsewhere while the guest runs.
type Item struct {
	job      *beacon.Job // nil while a module is described or initialised
	files    *guestfs.FS // nil then, too
	config   beacon.Settings
	deadline time.Time
	limits   Limits
	cancel   atomic.Bool
	calls    int64
	output   int64
	outputs  beacon.Outputs
	// exitCodeCost is what was charged for the output that is kept decoded.
	exitCodeCost int
	stdout       bytes.Buffer
	log          lines
	failure      string
	manifest     []byte
	// describing is true while the guest may call describe.
	describing  bool
	descriptors []*guestfs.File
	broker      Broker
	handles     []handle     // of requests and calls, by number
	lastError   string       // for last_error
	limit       error        // the first one of requests and calls that was hit
	held        atomic.Int64 // bytes of results of calls
	asking      atomic.Int64 // bytes of the requests of calls that have not ended
	shown       struct {     // the result that was asked for last, as JSON
		of  *call
		raw []byte
	}
	tape Tape // nil for none
}

// NewItem makes the host's end for a job. files shows the job's directory; a
// zero deadline means that there is none.
func NewItem(job *beacon.Job, files *guestfs.FS, config beacon.Settings, deadline time.Time, limits Limits) *Item {
	limits = limits.withDefaults()
	return &Item{job: job, files: files, config: config, deadline: deadline, limits: limits, log: lines{limit: limits.Log}, broker: nobody{}}
}

// NewDescription makes the host's end for a guest that is asked to describe
// itself, outside of any work item.
func NewDescription(config beacon.Settings, limits Limits) *Item {
	item := NewItem(nil, nil, config, time.Time{}, limits)
	item.describing = true
	return item
}

// NewInitialization makes the host's end for a guest that initialises before
// there is a work item.
func NewInitialization(config beacon.Settings, limits Limits) *Item {
	return NewItem(nil, nil, config, time.Time{}, limits)
}

// Before runs f as if there were no work item yet: for the initialisation of a
// guest that works on one item only. What it reports is the item's all the same.
func (i *Item) Before(f func() error) error {
	job, files := i.job, i.files
	i.job, i.files = nil, nil
	defer func() { i.job, i.files = job, files }()
	return f()
}

// Cancel tells the guest, if it asks, that the item should end. It may be
// called at any time.
func (i *Item) Cancel() { i.cancel.Store(true) }

// Canceled reports whether Cancel was called.
func (i *Item) Canceled() bool { return i.cancel.Load() }

// Count is called before every host call, of any interface. Its error ends the
// guest: the item is over or has made too many calls.
func (i *Item) Count(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	i.calls++
	if i.calls > i.limits.Calls {
		return beacon.Errorf(beacon.CallLimit, "more than %d host calls; raise the provider's HostCalls limit", i.limits.Calls)
	}
	return nil
}

// Stdout receives the guest's standard output.
func (i *Item) Stdout() *Stdout { return (*Stdout)(i) }

// Stdout is a guest's standard output. Its errors end the guest.
type Stdout Item

func (s *Stdout) Write(p []byte) (int, error) {
	i := (*Item)(s)
	if err := i.charge(len(p)); err != nil {
		return 0, err
	}
	return i.stdout.Write(p)
}

func (i *Item) charge(n int) error {
	if i.output += int64(n); i.output > i.limits.Output {
		return beacon.Errorf(beacon.OutputLimit, "more than %d bytes of standard output and outputs; raise the provider's Output limit, or write a file", i.limits.Output)
	}
	return nil
}

// Stderr receives the guest's standard error.
func (i *Item) Stderr() *Stderr { return (*Stderr)(i) }

// Stderr is a guest's standard error: every line of it goes into the log.
type Stderr Item

func (s *Stderr) Write(p []byte) (int, error) {
	(*Item)(s).log.write(p)
	return len(p), nil
}

// Failure is the message that the guest gave to fail; "" if it gave none.
func (i *Item) Failure() string { return i.failure }

// Manifest is what the guest gave to describe; nil if it did not.
func (i *Item) Manifest() []byte { return i.manifest }

// Note adds a line of the host to the log.
// The limit does not count for it.
func (i *Item) Note(line string) {
	i.log.flush()
	i.log.done = append(i.log.done, excerpt(line, maxLine))
}

// Limit is the first limit of requests and calls that the guest hit, nil if none:
// it was told so, and may have given up because of it.
func (i *Item) Limit() error { return i.limit }

// Log returns the log so far.
func (i *Item) Log() []string { return i.log.all() }

// Result puts together what the guest handed over. Outputs that it did not set
// are filled in: StdOut, ExitCode and Result.
func (i *Item) Result(exitCode int) beacon.Result {
	outputs := i.outputs
	if outputs == nil {
		outputs = beacon.Outputs{}
	}
	text := strings.ToValidUTF8(i.stdout.String(), "\uFFFD")
	fill := func(name string, value any) {
		if _, ok := outputs[name]; !ok {
			outputs[name] = value
		}
	}
	fill(beacon.OutputStdOut, text)
	fill(beacon.OutputExitCode, exitCode)
	fill(beacon.OutputResult, text)
	// JSON cannot hold what is not text; the bytes are there in full as well.
	if raw := i.stdout.Bytes(); !utf8.Valid(raw) {
		outputs[OutputStdOutBase64] = base64.StdEncoding.EncodeToString(raw)
	}
	return beacon.Result{Outputs: outputs, Log: i.Log()}
}

// OutputStdOutBase64 is the output that holds standard output as base64 if it
// is not UTF-8. StdOut has it then with U+FFFD for what is none.
const OutputStdOutBase64 = "StdOutBase64"

// Close ends the requests and calls that the guest left open, and releases its
// files. The guest must have ended.
func (i *Item) Close() error {
	i.closeHandles()
	if i.files == nil {
		return nil
	}
	return i.files.Close()
}

// itemJSON is what work_item hands out.
func (i *Item) itemJSON() ([]byte, error) {
	w := i.job.Item
	raw, err := json.Marshal(struct {
		WorkItemHash  string
		Capability    string
		Action        string
		OperationHash string
		RunID         string
		TimeoutMs     int64
		AttemptNumber int
		SourcePath    string
		OutputPath    string
	}{
		w.Hash, w.Capability, w.Action, w.OperationHash, w.RunID, w.Timeout.Milliseconds(), w.Attempt,
		GuestPath(i.job.Source), GuestPath(i.job.Output),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the work item for its guest: %w", err)
	}
	return raw, nil
}

// WorkDir is where guests see the item's directory.
const WorkDir = "/work"

// GuestPath is the path under which a guest sees a name of the item's
// directory; "" stays "".
func GuestPath(name string) string {
	if name == "" {
		return ""
	}
	return WorkDir + "/" + name
}

// lines collects log lines within a limit.
type lines struct {
	limit   int64
	size    int64
	done    []string
	part    []byte // of a line that has not ended
	dropped int    // after the first one that was over the limit, all are
}

func (l *lines) write(p []byte) {
	if l.dropped > 0 { // then what is written is only counted
		l.dropped += bytes.Count(p, []byte{'\n'})
		l.part = l.part[:0]
		if len(p) > 0 && p[len(p)-1] != '\n' {
			l.part = append(l.part, p[len(p)-1])
		}
		return
	}
	for len(p) > 0 {
		line, rest, ended := bytes.Cut(p, []byte{'\n'})
		// One byte more than fits marks the line as cut.
		room := max(0, maxLine+1-len(l.part))
		l.part = append(l.part, line[:min(len(line), room)]...)
		if ended {
			l.end()
		}
		p = rest
	}
}

func (l *lines) end() {
	if l.dropped > 0 {
		l.part = l.part[:0]
		l.dropped++
		return
	}
	line := excerpt(strings.TrimSuffix(string(l.part), "\r"), maxLine)
	l.part = l.part[:0]
	if l.size+int64(len(line)) > l.limit {
		l.dropped++
		return
	}
	// The text and its header: empty lines are not free.
	l.size += int64(len(line)) + 16
	l.done = append(l.done, line)
}

// flush ends a line that has no end.
func (l *lines) flush() {
	if len(l.part) > 0 {
		l.end()
	}
}

func (l *lines) all() []string {
	l.flush()
	if l.dropped == 0 {
		return l.done
	}
	return append(l.done[:len(l.done):len(l.done)], fmt.Sprintf("(%d more lines dropped: the log limit is %d bytes)", l.dropped, l.limit))
}
