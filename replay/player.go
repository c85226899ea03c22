package replay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

// A Player is the broker and the tape of an item that runs again.
type Player struct {
	recording *Recording

	mu        sync.Mutex
	number    int // of the tape's numbers
	random    []byte
	exchanges []bool // that have been answered
	calls     []bool
	diverged  []string
}

// NewPlayer makes one for one run.
func NewPlayer(r *Recording) *Player {
	return &Player{recording: r, random: r.Tape.Random, exchanges: make([]bool, len(r.Exchanges)), calls: make([]bool, len(r.Calls))}
}

// Diverged lists where the guest did something else than when it was recorded, at
// most a few.
func (p *Player) Diverged() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.diverged...)
}

func (p *Player) diverge(format string, args ...any) string {
	const most = 10
	text := fmt.Sprintf(format, args...)
	if len(p.diverged) < most {
		p.diverged = append(p.diverged, text)
	}
	return text
}

// next finds the next number, if it is of the kind.
func (p *Player) next(kind hostfuncs.TapeKind) (uint64, bool) {
	t := &p.recording.Tape
	if p.number >= len(t.Values) {
		return 0, false
	}
	if t.Kinds[p.number] != byte(kind) {
		p.diverge("the guest asks the host for a number of kind %q, and number %d that was recorded is of kind %q", string(rune(kind)), p.number, t.Kinds[p.number:p.number+1])
		p.number = len(t.Values) // what follows means something else
		return 0, false
	}
	p.number++
	return t.Values[p.number-1], true
}

// Number implements hostfuncs.Tape.
func (p *Player) Number(kind hostfuncs.TapeKind, live uint64) uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if v, ok := p.next(kind); ok {
		return v
	}
	return live
}

// Choice implements hostfuncs.Tape.
func (p *Player) Choice(live func() uint64) uint64 {
	p.mu.Lock()
	v, ok := p.next(hostfuncs.TapeChoice)
	p.mu.Unlock()
	if ok {
		return v
	}
	return live()
}

// Random implements hostfuncs.Tape. After the recorded bytes come zeros.
func (p *Player) Random(into []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(into, p.random)
	p.random = p.random[n:]
	clear(into[n:])
	if n < len(into) {
		p.diverge("the guest asks for more random numbers than were recorded")
	}
	return nil
}

// HasSecret implements hostfuncs.Broker.
func (p *Player) HasSecret(name string) bool { return p.recording.Secrets[name] }

// Fetch implements hostfuncs.Broker.
func (p *Player) Fetch(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	if r.Body != nil { // it is sent as before, to nobody
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, x := range p.recording.Exchanges {
		if p.exchanges[i] || x.Method != r.Method || x.URL != r.URL {
			continue
		}
		p.exchanges[i] = true
		if x.Error != nil {
			return nil, x.Error.err()
		}
		end := io.EOF
		if x.BodyError != nil {
			end = x.BodyError.err()
		}
		return &hostfuncs.Response{
			Status: x.Status, URL: x.FinalURL, Proto: x.Proto, Header: x.Header, Length: x.Length,
			Body: io.NopCloser(io.MultiReader(bytes.NewReader(x.Body), broken{end})),
		}, nil
	}
	return nil, beacon.Errorf(beacon.Failed, "%s", p.diverge("the guest requests %s %s, which was not recorded", beacon.Excerpt(r.Method, 20), beacon.Excerpt(r.URL, 300)))
}

// broken ends a body as it ended.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// Call implements hostfuncs.Broker.
func (p *Player) Call(_ context.Context, c beacon.Call) (beacon.Result, error) {
	kept, err := p.call(c)
	if err != nil {
		return beacon.Result{}, err
	}
	for _, progress := range kept.Progress {
		if c.OnProgress != nil {
			c.OnProgress(progress)
		}
	}
	if kept.Output != nil && c.Output != nil {
		w, err := c.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		_, err = w.Write(kept.Output)
		if err := errors.Join(err, w.Close()); err != nil {
			return beacon.Result{}, err
		}
	}
	result := beacon.Result{Outputs: beacon.Outputs{}, Log: kept.Log}
	for name, value := range kept.Outputs {
		result.Outputs[name] = value
	}
	return result, kept.Error.err()
}

func (p *Player) call(c beacon.Call) (Call, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, kept := range p.recording.Calls {
		if p.calls[i] || kept.Capability != c.Capability || kept.Action != c.Action || !equal(kept.Settings, c.Settings) {
			continue
		}
		p.calls[i] = true
		return kept, nil
	}
	return Call{}, beacon.Errorf(beacon.Failed, "%s", p.diverge("the guest calls %s/%s with settings that were not recorded", beacon.Excerpt(c.Capability, 80), beacon.Excerpt(c.Action, 80)))
}

func equal(a, b beacon.Settings) bool {
	if len(a) != len(b) {
		return false
	}
	for name, value := range a {
		if other, ok := b[name]; !ok || compact(value) != compact(other) {
			return false
		}
	}
	return true
}

// Run runs a recorded item again, in a directory of its own that is gone
// afterwards. provider gets its brokers from p.
func (p *Player) Run(ctx context.Context, provider beacon.Provider, onProgress func(beacon.Progress)) (result beacon.Result, err error) {
	folder, err := os.MkdirTemp("", "beacon-replay-")
	if err != nil {
		return result, fmt.Errorf("make a directory for the item: %w", err)
	}
	defer os.RemoveAll(folder)
	dir, err := os.OpenRoot(folder)
	if err != nil {
		return result, fmt.Errorf("open the item's directory: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	r := p.recording
	job := &beacon.Job{
		Item: beacon.WorkItem{
			Hash: r.Item.Hash, Capability: r.Item.Capability, Action: r.Item.Action, Settings: r.Item.Settings,
			OperationHash: r.Item.OperationHash, RunID: r.Item.RunID,
			Timeout: time.Duration(r.Item.TimeoutMs) * time.Millisecond, Attempt: r.Item.Attempt,
		},
		Dir: dir, Source: r.Item.Source, Output: r.Item.Output, Outputs: r.Item.Outputs, OnProgress: onProgress,
	}
	for _, f := range r.Sources {
		if !filepath.IsLocal(filepath.FromSlash(f.Name)) {
			return result, beacon.Errorf(beacon.Invalid, "the recording is damaged: a source is called %q", beacon.Excerpt(f.Name, 80))
		}
		if err := dir.MkdirAll(path.Dir(f.Name), 0o700); err != nil {
			return result, fmt.Errorf("stage %s: %w", f.Name, err)
		}
		if err := dir.WriteFile(filepath.FromSlash(f.Name), f.Content, 0o600); err != nil {
			return result, fmt.Errorf("stage %s: %w", f.Name, err)
		}
		job.Sources = append(job.Sources, f.Name)
	}
	if job.Item.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, job.Item.Timeout, beacon.Errorf(beacon.Timeout,
			"the item ran longer than its limit of %s; raise its TimeoutMs", job.Item.Timeout))
		defer cancel()
	}
	return provider.Run(ctx, job)
}

func compact(raw []byte) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return strings.TrimSpace(string(raw))
	}
	return b.String()
}
