package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A flight is an item in a process, and what the item does outside of it.
type flight struct {
	ctx     context.Context
	cancel  context.CancelFunc
	process *process
	module  *Module
	job     *beacon.Job
	broker  hostfuncs.Broker // nil if nothing was granted
	number  uint64
	// left is true once the item has left a trace that is there after its process.
	left atomic.Bool
	held atomic.Int64 // bytes of files
	work sync.WaitGroup
	done chan struct{} // closed when it has ended

	// These are guarded by the process's mu.
	over      time.Time // when the process is killed if it goes on; zero for never
	ended     bool
	exchanges map[uint64]*exchange
	queue     []beacon.Progress
	telling   bool
}

// An exchange is a request or a call of an item.
type exchange struct {
	cancel context.CancelFunc

	mu   sync.Mutex // of reading
	body io.ReadCloser
}

const cancelGrace = time.Second // what a guest has after it was canceled, as in package runtime

func newFlight(ctx context.Context, p *process, m *Module, job *beacon.Job) *flight {
	f := &flight{process: p, module: m, job: job, number: p.conn.Number(), exchanges: map[uint64]*exchange{}, done: make(chan struct{})}
	f.ctx, f.cancel = context.WithCancel(ctx)
	if m.brokers != nil {
		f.broker = m.brokers(job)
	}
	if deadline, bounded := ctx.Deadline(); bounded {
		f.over = deadline.Add(p.sandbox.cfg.Grace)
	}
	p.mu.Lock()
	p.flights[f.number] = f
	p.peak = max(p.peak, len(p.flights))
	p.sandbox.running.Add(1)
	p.moved = true
	resting := p.resting
	p.resting = false
	p.mu.Unlock()
	if resting {
		p.wake()
	}
	return f
}

// end ends what the item does outside, and waits for it.
func (f *flight) end() {
	p := f.process
	f.cancel()
	p.mu.Lock()
	if !f.ended {
		close(f.done)
		p.sandbox.running.Add(-1)
		p.worked.Store(time.Now().UnixNano())
	}
	delete(p.flights, f.number)
	f.ended = true
	open := f.exchanges
	f.exchanges = map[uint64]*exchange{}
	p.mu.Unlock()
	for _, e := range open {
		e.close()
	}
	f.work.Wait()
	// Of a process that was lost nobody else gives it back.
	if held := f.held.Swap(0); held > 0 {
		_ = f.job.Account.Hold(-held) // which is never an error
	}
}

// canceled asks the process to end the item.
func (p *process) canceled(f *flight) {
	if errors.Is(f.ctx.Err(), context.DeadlineExceeded) {
		return // the process has the same deadline, and ends the item without a second's grace
	}
	over := time.Now().Add(cancelGrace + p.sandbox.cfg.Grace)
	p.mu.Lock()
	if f.over.IsZero() || over.Before(f.over) {
		f.over = over
	}
	p.mu.Unlock()
	p.conn.Notify(noticeCancel, amount{n: 0, flight: f.number}.bytes())
}

// blamed reports whether the process was lost for this item, as far as can be
// told.
func (f *flight) blamed() bool {
	p := f.process
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.offender == f || p.offender == nil && p.alone == f
}

// settle charges what the item has used.
func (f *flight) settle(r *runResult) {
	if budget := f.module.sandbox.cfg.Runtime.Budget; budget != nil && r.Fuel > 0 {
		_ = budget.Spend(f.ctx, f.job, r.Fuel) // whatever it says comes too late
	}
	f.job.Account.Add(beacon.Usage{Memory: r.Memory})
}

// begin has the flight do something beside the process's other business. It is
// false if the item is over.
func (f *flight) begin(do func()) bool {
	p := f.process
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.ended {
		return false
	}
	f.work.Go(do)
	return true
}

// add makes an exchange, whose context it returns.
func (f *flight) add(number uint64, e *exchange) (context.Context, error) {
	const most = 1 << 10
	ctx, cancel := context.WithCancel(f.ctx)
	e.cancel = cancel
	p := f.process
	p.mu.Lock()
	defer p.mu.Unlock()
	if f.ended {
		cancel()
		return nil, beacon.Errorf(beacon.Canceled, "the item is over")
	}
	if f.exchanges[number] != nil || len(f.exchanges) >= most {
		cancel()
		return nil, fmt.Errorf("%w: an exchange that cannot be", wire.ErrProtocol)
	}
	f.exchanges[number] = e
	return ctx, nil
}

func (f *flight) remove(number uint64) {
	p := f.process
	p.mu.Lock()
	e := f.exchanges[number]
	delete(f.exchanges, number)
	p.mu.Unlock()
	if e != nil {
		e.close()
	}
}

func (e *exchange) close() {
	e.cancel()
	e.mu.Lock() // reading ends with the context
	defer e.mu.Unlock()
	if e.body != nil {
		_ = e.body.Close() // it was only read
		e.body = nil
	}
}

// find finds the flight of a request.
func (p *process) find(number uint64) *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.flights[number]
}

// Most implements wire.Handler.
func (p *process) Most(method wire.Method, notice bool) int {
	if notice {
		switch method {
		case noticeLog:
			return maxLine
		case noticeProgress:
			return maxProgress
		case noticeClose, noticeHold:
			return 32
		}
		return -1
	}
	switch method {
	case methodSpend, methodHold, methodRead:
		return 32
	case methodSecret:
		return 8 << 10
	case methodFetch:
		return maxFetch
	case methodCall:
		return maxCall
	}
	return -1
}

const (
	// What guests may say, with what encoding adds: a message of 4 KiB, a request of
	// 64 KiB, a call of 16 MiB, of which line separators become twice as long.
	maxProgress = 16 << 10
	maxFetch    = 1 << 20
	maxCall     = 33 << 20
	// maxAsked is how many requests of a process may be without a reply. An item has
	// 17 at most; each takes memory here, which the process must not choose.
	maxAsked = 1 << 14
	// maxPart is how much of a stream is handed over at once.
	maxPart = 64 << 10
)

// Request implements wire.Handler. What it asks for is done beside, since it may
// take a while; what belongs to an item that is over fails.
func (p *process) Request(id uint64, method wire.Method, payload []byte) error {
	p.turn()
	if p.asked.Add(1) > maxAsked {
		return fmt.Errorf("%w: more than %d requests at a time", wire.ErrProtocol, maxAsked)
	}
	var number uint64
	var do func(f *flight) ([]byte, error)
	switch method {
	case methodSpend, methodHold, methodRead:
		a, err := parseAmount(payload)
		if err != nil || a.n < 0 {
			return errors.Join(wire.ErrProtocol, err)
		}
		number = a.flight
		switch method {
		case methodSpend:
			do = func(f *flight) ([]byte, error) { return f.spend(a.n) }
		case methodHold:
			do = func(f *flight) ([]byte, error) { return f.hold(a.n) }
		default:
			do = func(f *flight) ([]byte, error) { return f.read(uint64(a.n)) } //nolint:gosec // not negative
		}
	case methodSecret:
		var r secretRequest
		if err := decode(payload, &r); err != nil {
			return err
		}
		number = r.Flight
		do = func(f *flight) ([]byte, error) {
			if f.broker == nil {
				return nil, errNothing
			}
			return wire.AppendBool(nil, f.broker.HasSecret(r.Name)), nil
		}
	case methodFetch:
		var r fetchRequest
		if err := decode(payload, &r); err != nil {
			return err
		}
		number, do = r.Flight, func(f *flight) ([]byte, error) { return f.fetch(r) }
	case methodCall:
		var r callRequest
		if err := decode(payload, &r); err != nil {
			return err
		}
		number, do = r.Flight, func(f *flight) ([]byte, error) { return f.call(r) }
	}
	f := p.find(number)
	if f == nil || !f.begin(func() {
		defer p.asked.Add(-1)
		reply, err := do(f)
		if leadsOut(method) && f.ctx.Err() != nil {
			// The item is over, here a little earlier than there. That would seem to the
			// guest to be a failure of what it has asked for, and to others its own.
			<-f.done
		}
		switch {
		case errors.Is(err, wire.ErrProtocol):
			p.end(err)
		case err != nil:
			p.conn.Fail(id, failureOf(err))
		default:
			p.conn.Reply(id, reply)
		}
	}) {
		// Serve must not wait for the process to read.
		p.sandbox.work.Go(func() {
			defer p.asked.Add(-1)
			p.conn.Fail(id, wire.Failure{Code: string(beacon.Canceled), Message: "the item is over"})
		})
	}
	return nil
}

// leadsOut reports whether a request is for something outside of the worker.
func leadsOut(method wire.Method) bool {
	return method == methodFetch || method == methodCall || method == methodRead
}

// Notice implements wire.Handler.
func (p *process) Notice(method wire.Method, payload []byte) error {
	p.turn()
	switch method {
	case noticeLog:
		return p.logged(payload)
	case noticeProgress:
		number, progress, err := parseProgress(payload)
		if err != nil {
			return err
		}
		if f := p.find(number); f != nil {
			f.progressed(progress)
		}
		return nil
	}
	a, err := parseAmount(payload)
	if err != nil {
		return err
	}
	f := p.find(a.flight)
	switch {
	case f == nil:
	case method == noticeHold && a.n >= 0:
		return wire.ErrProtocol
	case method == noticeHold:
		return f.giveBack(-a.n)
	default:
		number := uint64(a.n)                //nolint:gosec // only looked up
		f.begin(func() { f.remove(number) }) // closing may wait for reading
	}
	return nil
}

// progressed has the progress handed on, in order and beside: whoever gets it may
// take a while.
func (f *flight) progressed(progress beacon.Progress) {
	p := f.process
	p.mu.Lock()
	const most = 1 << 12
	if len(f.queue) < most { // what is more, nobody can follow
		f.queue = append(f.queue, progress)
	}
	busy := f.telling
	f.telling = true
	p.mu.Unlock()
	if !busy {
		f.begin(f.tell)
	}
}

func (f *flight) tell() {
	p := f.process
	for {
		p.mu.Lock()
		if len(f.queue) == 0 {
			f.telling = false
			p.mu.Unlock()
			return
		}
		next := f.queue[0]
		f.queue = f.queue[1:]
		p.mu.Unlock()
		f.job.Progress(next)
	}
}

// giveBack returns bytes that the item does not hold any more: no more than it
// has asked for.
func (f *flight) giveBack(n int64) error {
	if f.held.Add(-n) < 0 {
		return fmt.Errorf("%w: more is given back than was held", wire.ErrProtocol)
	}
	return f.job.Account.Hold(-n)
}

// spend tells the budget what the item has used, and waits as long as it says.
func (f *flight) spend(n int64) ([]byte, error) {
	if budget := f.module.sandbox.cfg.Runtime.Budget; budget != nil {
		return nil, budget.Spend(f.ctx, f.job, n)
	}
	return nil, nil
}

// nobody answers where nothing was granted.
var errNothing = beacon.Errorf(beacon.Denied, "it is not permitted: nothing was granted to this provider")

func (f *flight) fetch(r fetchRequest) ([]byte, error) {
	if f.broker == nil {
		return nil, errNothing
	}
	f.left.Store(true)
	e := &exchange{}
	ctx, err := f.add(r.Number, e)
	if err != nil {
		return nil, err
	}
	request := hostfuncs.Request{Method: r.Method, URL: r.URL, Header: r.Header, BodyLength: r.BodyLength, Redirects: r.Redirects}
	if r.Body {
		request.Body = &remoteReader{ctx: ctx, conn: f.process.conn, number: r.Number, method: methodPull}
	}
	response, err := f.broker.Fetch(ctx, request)
	if err != nil {
		f.remove(r.Number)
		return nil, err
	}
	f.process.mu.Lock()
	ended := f.ended || f.exchanges[r.Number] != e
	if !ended {
		e.body = response.Body
	}
	f.process.mu.Unlock()
	if ended {
		_ = response.Body.Close() // nobody reads it
		return nil, beacon.Errorf(beacon.Canceled, "the request was given up")
	}
	return encode(fetchResponse{response.Status, response.URL, response.Proto, response.Header, response.Length})
}

// read reads from the body of a response. The end is an empty part.
func (f *flight) read(number uint64) ([]byte, error) {
	f.process.mu.Lock()
	e := f.exchanges[number]
	f.process.mu.Unlock()
	if e == nil {
		return nil, beacon.Errorf(beacon.Canceled, "the request was given up")
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.body == nil {
		return nil, beacon.Errorf(beacon.Canceled, "the request was given up")
	}
	b := make([]byte, maxPart)
	for {
		n, err := e.body.Read(b)
		switch {
		case n > 0:
			return b[:n], nil
		case errors.Is(err, io.EOF):
			return nil, nil
		case err != nil:
			return nil, err
		}
	}
}

func (f *flight) call(r callRequest) ([]byte, error) {
	if f.broker == nil {
		return nil, errNothing
	}
	f.left.Store(true)
	ctx, err := f.add(r.Number, &exchange{})
	if err != nil {
		return nil, err
	}
	defer f.remove(r.Number)
	conn := f.process.conn
	c := beacon.Call{
		Capability: r.Capability, Action: r.Action, Settings: r.Settings, Timeout: r.Timeout, SourceName: r.SourceName, OutputName: r.OutputName,
	}
	if r.Source {
		c.Source = &remoteReader{ctx: ctx, conn: conn, number: r.Number, method: methodPull}
	}
	if r.Output {
		c.Output = func() (io.WriteCloser, error) {
			w := &remoteWriter{ctx: ctx, conn: conn, number: r.Number}
			return w, w.tell(pushOpen, nil)
		}
	}
	if r.Progress {
		c.OnProgress = func(p beacon.Progress) { conn.Notify(noticeCallProgress, appendProgress(nil, r.Number, p)) }
	}
	result, err := f.broker.Call(ctx, c)
	response := &runResult{How: endedWell, Result: result}
	if err != nil {
		response.How, response.Failure = endedFailed, failureOf(err)
	}
	raw, err := response.append(make([]byte, 0, response.size()))
	if err != nil {
		return nil, err
	}
	return bounded(raw)
}

// A remoteReader reads what the other side has.
type remoteReader struct {
	ctx    context.Context
	conn   *wire.Conn
	number uint64
	method wire.Method
	flight uint64
	part   []byte
	end    bool
}

// Read implements io.Reader.
func (r *remoteReader) Read(b []byte) (int, error) {
	if len(r.part) == 0 && !r.end && len(b) > 0 {
		w := r.conn.Ask(r.conn.Number(), r.method, amount{r.flight, int64(r.number)}.bytes(), maxPart) //nolint:gosec // only a name
		err := wait(r.ctx, r.conn, w, func(payload []byte) error {
			r.part = append(r.part[:0:0], payload...)
			return nil
		})
		if err != nil {
			return 0, err
		}
		r.end = len(r.part) == 0
	}
	if r.end {
		return 0, io.EOF
	}
	n := copy(b, r.part)
	r.part = r.part[n:]
	return n, nil
}

// Close implements io.Closer: the other side closes it with the exchange.
func (*remoteReader) Close() error { return nil }

// wait waits for a reply, or until ctx ends.
func wait(ctx context.Context, conn *wire.Conn, w *wire.Waiter, use func([]byte) error) error {
	select {
	case <-w.Done:
	case <-ctx.Done():
		conn.Abandon(w)
		return context.Cause(ctx)
	}
	return replied(w.Result(use))
}

// What a push does.
const (
	pushOpen = iota
	pushPart
	pushClose
)

// A remoteWriter writes to what the other side has.
type remoteWriter struct {
	ctx    context.Context
	conn   *wire.Conn
	number uint64
}

func (w *remoteWriter) tell(what uint64, part []byte) error {
	b := wire.AppendBytes(wire.AppendUint(wire.AppendUint(nil, w.number), what), part)
	return wait(w.ctx, w.conn, w.conn.Ask(w.conn.Number(), methodPush, b, 0), nil)
}

// Write implements io.Writer.
func (w *remoteWriter) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		part := b[:min(len(b), maxPart)]
		if err = w.tell(pushPart, part); err == nil {
			n += len(part)
			b = b[len(part):]
		}
	}
	return n, err
}

// Close implements io.Closer.
func (w *remoteWriter) Close() error { return w.tell(pushClose, nil) }

// hold asks for bytes of files.
func (f *flight) hold(n int64) ([]byte, error) {
	f.left.Store(true)
	if err := f.job.Account.Hold(n); err != nil {
		return nil, err
	}
	f.held.Add(n)
	return nil, nil
}
