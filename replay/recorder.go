package replay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

// A Provider records the items of a module. It is the provider in the module's
// place; the module's brokers come from Brokers.
type Provider struct {
	// Module is the provider that carries out the items.
	beacon.Provider
	// What is the same in all recordings.
	What Recording
	// Keep is given the recording of an item that has ended, or why there is none.
	// It is called before the item's result goes on, and only for items that it
	// returns true for before.
	Wants func(result beacon.Result, err error) bool
	Keep  func(r *Recording, err error)

	mu        sync.Mutex
	recorders map[*beacon.Job]*recorder
}

// Brokers puts recorders around the brokers of a module.
func (p *Provider) Brokers(inner func(*beacon.Job) hostfuncs.Broker) func(*beacon.Job) hostfuncs.Broker {
	return func(job *beacon.Job) hostfuncs.Broker {
		p.mu.Lock()
		defer p.mu.Unlock()
		broker := inner(job)
		if r := p.recorders[job]; r != nil {
			r.inner = broker
			return r
		}
		return broker
	}
}

// Run implements beacon.Provider.
func (p *Provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	r := &recorder{left: MaxSize, recording: p.What}
	r.recording.Format, r.recording.Version, r.recording.Recorded = Format, Version, time.Now()
	r.recording.Secrets = map[string]bool{}
	p.mu.Lock()
	if p.recorders == nil {
		p.recorders = map[*beacon.Job]*recorder{}
	}
	p.recorders[job] = r
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.recorders, job)
		p.mu.Unlock()
	}()
	result, err := p.Provider.Run(ctx, job)
	if !p.Wants(result, err) {
		return result, err
	}
	p.Keep(r.finish(job, result, err))
	return result, err
}

// A recorder is the broker and the tape of one item.
type recorder struct {
	inner hostfuncs.Broker

	mu        sync.Mutex
	left      int // bytes that may still be kept
	full      bool
	recording Recording
	exchanges []*exchange
	calls     []*Call
	values    []uint64
	kinds     []byte
}

// takes reports whether there is room for n bytes more.
func (r *recorder) takes(n int) bool {
	if n > r.left {
		r.full = true
	}
	if r.full {
		return false
	}
	r.left -= n
	return true
}

// Number implements hostfuncs.Tape.
func (r *recorder) Number(kind hostfuncs.TapeKind, live uint64) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.takes(9) {
		r.values, r.kinds = append(r.values, live), append(r.kinds, byte(kind))
	}
	return live
}

// Choice implements hostfuncs.Tape.
func (r *recorder) Choice(live func() uint64) uint64 {
	return r.Number(hostfuncs.TapeChoice, live())
}

// Random implements hostfuncs.Tape.
func (r *recorder) Random(p []byte) error {
	if _, err := rand.Read(p); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.takes(len(p)) {
		r.recording.Tape.Random = append(r.recording.Tape.Random, p...)
	}
	return nil
}

// HasSecret implements hostfuncs.Broker.
func (r *recorder) HasSecret(name string) bool {
	has := r.inner != nil && r.inner.HasSecret(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.takes(len(name)) {
		r.recording.Secrets[name] = has
	}
	return has
}

// An exchange is one whose body may still be read.
type exchange struct {
	Exchange
	r    *recorder
	body io.ReadCloser
}

// Fetch implements hostfuncs.Broker.
func (r *recorder) Fetch(ctx context.Context, request hostfuncs.Request) (*hostfuncs.Response, error) {
	if r.inner == nil {
		return nil, beacon.Errorf(beacon.Denied, "requests are not permitted")
	}
	x := &exchange{Exchange: Exchange{Method: request.Method, URL: request.URL}, r: r}
	r.mu.Lock()
	if r.takes(len(x.URL) + len(x.Method)) {
		r.exchanges = append(r.exchanges, x)
	}
	r.mu.Unlock()
	response, err := r.inner.Fetch(ctx, request)
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.Error = errorOf(err); err != nil {
		return nil, err
	}
	x.Status, x.FinalURL, x.Proto, x.Header, x.Length, x.body = response.Status, response.URL, response.Proto, response.Header, response.Length, response.Body
	seen := *response
	seen.Body = x
	return &seen, nil
}

// Read reads on in the body, and keeps it.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.body.Read(p)
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	if x.r.takes(n) {
		x.Body = append(x.Body, p[:n]...)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		x.BodyError = errorOf(err)
	}
	return n, err
}

func (x *exchange) Close() error { return x.body.Close() }

// Call implements hostfuncs.Broker.
func (r *recorder) Call(ctx context.Context, c beacon.Call) (beacon.Result, error) {
	if r.inner == nil {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "calls are not permitted")
	}
	kept := &Call{Capability: c.Capability, Action: c.Action, Settings: c.Settings}
	size := 0
	for name, value := range c.Settings {
		size += len(name) + len(value)
	}
	r.mu.Lock()
	if r.takes(size) {
		r.calls = append(r.calls, kept)
	}
	r.mu.Unlock()
	if onProgress := c.OnProgress; onProgress != nil {
		c.OnProgress = func(p beacon.Progress) {
			r.mu.Lock()
			if r.takes(len(p.Message) + 64) {
				kept.Progress = append(kept.Progress, p)
			}
			r.mu.Unlock()
			onProgress(p)
		}
	}
	if open := c.Output; open != nil {
		c.Output = func() (io.WriteCloser, error) {
			w, err := open()
			if err != nil {
				return nil, err
			}
			return &copied{w, r, kept}, nil
		}
	}
	result, err := r.inner.Call(ctx, c)
	r.mu.Lock()
	defer r.mu.Unlock()
	kept.Error, kept.Log = errorOf(err), slices.Clone(result.Log)
	values, encodeErr := encode(result.Outputs)
	if encodeErr != nil {
		r.full = true // there is no other way to say that it cannot be kept
	}
	size = 0
	for name, value := range values {
		size += len(name) + len(value)
	}
	if r.takes(size) {
		kept.Outputs = values
	}
	return result, err
}

// copied is a callee's output on its way to the caller's directory.
type copied struct {
	io.WriteCloser
	r    *recorder
	call *Call
}

func (c *copied) Write(p []byte) (int, error) {
	c.r.mu.Lock()
	if c.r.takes(len(p)) {
		c.call.Output = append(c.call.Output, p...)
	}
	c.r.mu.Unlock()
	return c.WriteCloser.Write(p)
}

// finish makes the recording of an item that has ended, whose sources are still
// there.
func (r *recorder) finish(job *beacon.Job, result beacon.Result, failure error) (*Recording, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := &r.recording
	item := job.Item
	w.Item = Item{
		item.Hash, item.Capability, item.Action, item.Settings, item.OperationHash, item.RunID, item.Timeout.Milliseconds(), item.Attempt,
		job.Source, job.Output, job.Outputs,
	}
	names := slices.Clone(job.Sources)
	if job.Source != "" && !slices.Contains(names, job.Source) {
		names = append(names, job.Source)
	}
	for _, name := range names {
		f, err := job.Dir.Open(filepath.FromSlash(name))
		if err != nil {
			return nil, fmt.Errorf("record the source: %w", err)
		}
		content, err := io.ReadAll(io.LimitReader(f, int64(r.left)+1))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("record the source: %w", err)
		}
		if r.takes(len(content)) {
			w.Sources = append(w.Sources, File{name, content})
		}
	}
	if r.full {
		return nil, beacon.Errorf(beacon.FileLimit, "the item cannot be recorded: its files, answers and random numbers have more than %d bytes", MaxSize)
	}
	for _, x := range r.exchanges {
		w.Exchanges = append(w.Exchanges, x.Exchange)
	}
	for _, c := range r.calls {
		w.Calls = append(w.Calls, *c)
	}
	w.Tape.Kinds, w.Tape.Values = string(r.kinds), r.values
	outcome, err := OutcomeOf(result, failure)
	w.Outcome = outcome
	return w, err
}
