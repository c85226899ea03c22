package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A Module is a module whose items run in processes, one for each tenant: a
// beacon.Provider. Close it to free it.
type Module struct {
	sandbox *Sandbox
	number  uint64
	src     wasmrt.Source // without the binary
	brokers wasmrt.Brokers
	// answer bounds the answer of a process to an item, in bytes.
	answer int

	mu    sync.Mutex
	found *wasmrt.Registered

	use    sync.RWMutex // held for reading while an item runs
	closed bool
}

// Load makes a module ready, in a process if that was not done before. Its items
// run in others. Errors are those of wasmrt.Runtime.Load.
func (s *Sandbox) Load(ctx context.Context, src wasmrt.Source) (*Module, error) {
	found, err := s.runtime.Register(ctx, src)
	if err != nil {
		return nil, err
	}
	if src.WarmUp != nil {
		found.Manifest.WarmUp = src.WarmUp
	}
	m := &Module{sandbox: s, src: src, found: found, answer: longest(src.Limits.Item)}
	if src.Admit != nil {
		if m.brokers, err = src.Admit(wasmrt.Candidate{Name: found.Name, Digest: found.Digest, Manifest: found.Manifest}); err != nil {
			return nil, errors.Join(err, found.Discard())
		}
	}
	s.mu.Lock()
	s.modules++
	m.number = s.modules
	s.mu.Unlock()
	return m, nil
}

// longest is how long an answer about an item may be: standard output is in it
// up to three times, as text, as result, and in base64. Of what is no text, each
// second byte may become three in the first two.
func longest(l hostfuncs.Limits) int {
	if l.Output <= 0 {
		l.Output = 16 << 20 // the default
	}
	if l.Log <= 0 {
		l.Log = 1 << 20
	}
	const most = 1 << 31
	if l.Output > most || l.Log > most {
		return most
	}
	return int(min(6*l.Output+2*l.Log+maxAnswer, most))
}

// Name is the name that the module was loaded under.
func (m *Module) Name() string { return m.found.Name }

// Digest is the SHA-256 of the module's binary in hexadecimal.
func (m *Module) Digest() string { return m.found.Digest }

// Manifest is what the module says about itself, or what stands in for it.
func (m *Module) Manifest() hostfuncs.Manifest { return m.found.Manifest }

// Capability is what the module offers.
func (m *Module) Capability() beacon.Capability { return m.found.Manifest.Capability }

// Close waits for items that are under way and frees the module.
func (m *Module) Close(context.Context) error {
	m.use.Lock()
	defer m.use.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	m.sandbox.mu.Lock()
	processes := make([]*process, 0, len(m.sandbox.tenants))
	for _, t := range m.sandbox.tenants {
		if t.current != nil {
			processes = append(processes, t.current)
		}
	}
	m.sandbox.mu.Unlock()
	for _, p := range processes {
		p.forget(m)
	}
	return m.found.Discard()
}

// Shutdown frees the module, for a beacon.Registry.
func (m *Module) Shutdown(ctx context.Context) error { return m.Close(ctx) }

// Warm has a tenant's process started, if it is not, and the module made ready in
// it, so that the tenant's first item need not wait for that. It needs a Folder in
// Config.
func (m *Module) Warm(ctx context.Context, tenant string) error {
	m.use.RLock()
	defer m.use.RUnlock()
	if m.closed {
		return beacon.Errorf(beacon.Internal, "module %s is closed", m.found.Name)
	}
	s := m.sandbox
	if s.cfg.Folder == nil {
		return errors.New("there is no folder for the items of tenants")
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	folder, release, err := s.cfg.Folder(tenant)
	if err != nil {
		return err
	}
	if release != nil {
		defer func() { _ = release() }() // the process holds it
	}
	if folder, err = filepath.Abs(folder); err != nil {
		return fmt.Errorf("find the folder of a tenant: %w", err)
	}
	p, err := s.processOf(ctx, tenant, folder)
	if err != nil {
		return err
	}
	defer s.leave(p)
	return p.load(ctx, m)
}

// Run executes one work item in the process of its tenant.
func (m *Module) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	if ctx.Err() != nil {
		return beacon.Result{}, context.Cause(ctx)
	}
	m.use.RLock()
	defer m.use.RUnlock()
	if m.closed {
		return beacon.Result{}, beacon.Errorf(beacon.Internal, "module %s is closed", m.found.Name)
	}
	s := m.sandbox
	if err := s.enter(); err != nil {
		return beacon.Result{}, err
	}
	defer s.users.Done()
	job.Account.Ran(m.found.Digest)
	for again := false; ; again = true {
		result, retry, err := m.try(ctx, job, again)
		if !retry {
			return result, err
		}
		s.log.Warn("an item is run again in another process", "module", m.found.Name, "item", job.Item.Hash, "err", err)
	}
}

// try runs the item once. If its process ends before it has begun the item, or for
// something that is another item's doing when this one has left no trace yet, it may
// be tried again.
func (m *Module) try(ctx context.Context, job *beacon.Job, again bool) (result beacon.Result, retry bool, err error) {
	s := m.sandbox
	dir, err := filepath.Abs(job.Dir.Name())
	if err != nil {
		return result, false, fmt.Errorf("find the item's directory: %w", err)
	}
	tenant := cmp.Or(job.Tenant, beacon.DefaultTenant)
	p, err := s.processOf(ctx, tenant, filepath.Dir(dir))
	if err != nil {
		return result, false, err
	}
	defer s.leave(p)
	if err := p.load(ctx, m); err != nil {
		if errors.Is(err, wire.ErrClosed) {
			return result, !again && ctx.Err() == nil, m.broken(p)
		}
		return result, false, err
	}
	f := newFlight(ctx, p, m, job)
	defer f.end()
	request := runRequest{
		Module: m.number, Dir: dir, Item: job.Item, Tenant: tenant, Depth: job.Depth, Source: job.Source, Output: job.Output,
		Sources: job.Sources, Outputs: job.Outputs, Progress: job.OnProgress != nil,
	}
	if deadline, bounded := ctx.Deadline(); bounded {
		request.Left = max(time.Until(deadline), 1)
	}
	buf, _ := buffers.Get().(*[]byte) // it holds nothing else
	raw := request.append((*buf)[:0])
	if len(raw) > maxRequest { // which the process would take for a broken stream
		return result, false, beacon.Errorf(beacon.Invalid, "module %s: the item's settings take more than %d MiB: bring what is large as a source", m.found.Name, maxRequest>>20)
	}
	answer, err := m.exchange(ctx, f, raw)
	if cap(raw) <= maxAnswer {
		*buf = raw
	}
	buffers.Put(buf)
	if err != nil {
		if errors.Is(err, wire.ErrProtocol) {
			p.end(err)
		}
		p.end(errDied) // while the item is in it, which may have been the only one
		f.end()
		<-p.gone
		blamed := f.blamed()
		switch {
		case ctx.Err() != nil:
			return result, false, context.Cause(ctx)
		case !again && (errors.Is(err, wire.ErrUnread) || !blamed && !f.left.Load()):
			return result, true, m.broken(p)
		}
		return result, false, m.broken(p)
	}
	f.settle(answer)
	switch answer.How {
	case endedOver:
		if deadline, bounded := ctx.Deadline(); ctx.Err() == nil && (!bounded || time.Until(deadline) > s.cfg.Grace) {
			p.end(fmt.Errorf("%w: an item that is over before its time", wire.ErrProtocol))
			return result, false, m.broken(p)
		}
		// The process counts the same time, and may be a little early.
		<-ctx.Done()
		return answer.Result, false, context.Cause(ctx)
	case endedFailed:
		return answer.Result, false, answered(&answer.Failure)
	}
	return answer.Result, false, nil
}

// exchange has the process run the item, and returns what became of it.
func (m *Module) exchange(ctx context.Context, f *flight, request []byte) (answer *runResult, err error) {
	p := f.process
	parse := func(payload []byte) (err error) {
		answer, err = parseResult(payload)
		return err
	}
	var lane *wire.Lane
	if len(request) <= wire.MaxLane {
		lane = p.lanes.Take()
	}
	if lane == nil { // all are in use, or it is too long
		w := p.conn.Ask(f.number, methodRun, request, m.answer)
		select {
		case <-w.Done:
		case <-ctx.Done():
			p.canceled(f)
			<-w.Done
		}
		return answer, w.Result(parse)
	}
	defer p.lanes.Put(lane)
	w := p.conn.Expect(f.number, m.answer) // if it does not fit, or comes after other messages
	canceled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(canceled)
		p.canceled(f)
	})
	here, err := lane.Ask(f.number, request, parse)
	if !here && err == nil {
		<-w.Done
		err = w.Result(parse)
	} else {
		err = errors.Join(err, p.conn.Forget(w))
	}
	if !stop() {
		<-canceled // while the item is still under watch
	}
	return answer, err
}

var buffers = sync.Pool{New: func() any { return new([]byte) }}

// broken is the error of an item whose process has ended.
func (m *Module) broken(p *process) error {
	why := "it has ended by itself"
	switch reason := p.reason(); {
	case errors.Is(reason, errOverdue):
		why = "an item did not end in time"
	case errors.Is(reason, errSilent):
		why = "it did not answer in time"
	case errors.Is(reason, errLarge):
		why = "it took too much memory"
	case errors.Is(reason, errThreads):
		why = reason.Error()
	case errors.Is(reason, wire.ErrProtocol):
		why = "it did not keep to the protocol"
	case errors.Is(reason, errStopped):
		why = "it was stopped"
	}
	return beacon.Errorf(beacon.Internal, "module %s: the process that its items run in was lost: %s; another takes its place", m.found.Name, why)
}

// kept is what there is of the module, for a process; made anew if that is gone.
func (m *Module) kept(ctx context.Context, anew bool) (wasmrt.Kept, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if anew {
		if err := m.sandbox.runtime.Forget(ctx, m.found.Kept); err != nil {
			return wasmrt.Kept{}, err
		}
		found, err := m.sandbox.runtime.Register(ctx, m.src)
		if err != nil {
			return wasmrt.Kept{}, err
		}
		if err := m.found.Discard(); err != nil {
			return wasmrt.Kept{}, err
		}
		found.Manifest = m.found.Manifest
		m.found.Dir, m.found.Key = found.Dir, found.Key // what Digest and others read stays as it is
	}
	return m.found.Kept, nil
}

// A loading module is in a process, or on its way there.
type loading struct {
	done chan struct{}
	err  error // once done
}

// A loadRequest has a process open a module.
type loadRequest struct {
	Number uint64
	Kept   wasmrt.Kept
	Source source
}

// load makes a module known to the process.
func (p *process) load(ctx context.Context, m *Module) error {
	p.mu.Lock()
	l := p.modules[m.number]
	if l == nil {
		l = &loading{done: make(chan struct{})}
		p.modules[m.number] = l
		p.linked++
		dir := filepath.Join(p.dir, fmt.Sprint("module-", p.linked))
		p.sandbox.work.Go(func() {
			p.opening.Add(1)
			l.err = p.open(m, dir)
			p.opened.Add(1)
			if l.err != nil {
				p.mu.Lock()
				delete(p.modules, m.number) // the next item tries again
				p.mu.Unlock()
			}
			close(l.done)
		})
	}
	p.mu.Unlock()
	select {
	case <-l.done:
		return l.err
	default:
	}
	select {
	case <-l.done:
		return l.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// open has the process open a module, which is made ready again if what was left
// of it is not there any more.
func (p *process) open(m *Module, dir string) error {
	ctx, cancel := context.WithTimeoutCause(p.sandbox.life, m.sandbox.cfg.RegisterTime, errSilent)
	defer cancel()
	var err error
	for n := range 3 {
		var kept wasmrt.Kept
		if kept, err = m.kept(ctx, n > 0); err != nil {
			return err
		}
		there := filepath.Join(dir, fmt.Sprint(n))
		if err = os.MkdirAll(there, 0o700); err != nil {
			return fmt.Errorf("make a folder for a module: %w", err)
		}
		if kept, err = kept.Link(ctx, there); err == nil {
			err = p.ask(ctx, methodLoad, loadRequest{m.number, kept, sourceOf(m.src)}, nil)
		}
		if err == nil || errors.Is(err, wire.ErrClosed) || beacon.CodeOf(err) != beacon.Internal {
			return err
		}
		m.sandbox.log.Warn("a kept module is made again", "module", m.found.Name, "err", err)
	}
	return err
}

// forget has the process free a module.
func (p *process) forget(m *Module) {
	p.mu.Lock()
	l := p.modules[m.number]
	delete(p.modules, m.number)
	p.mu.Unlock()
	if l != nil {
		p.conn.Notify(noticeUnload, wire.AppendUint(nil, m.number))
	}
}
