package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// items are what a process for items has: modules, and items that run.
type items struct {
	conn    *wire.Conn
	runtime *wasmrt.Runtime
	next    atomic.Uint64 // number of an exchange

	mu      sync.Mutex
	modules map[uint64]*wasmrt.Module
	running map[uint64]*running
	streams map[uint64]*stream
	flights map[*beacon.Job]uint64
	// early are the last that were canceled when they did not run: what is canceled
	// comes another way than the item, and may be faster.
	early [64]uint64
	last  int
}

// running is an item under way.
type running struct {
	cancel   context.CancelCauseFunc
	flight   uint64
	module   *wasmrt.Module
	unspent  atomic.Int64 // fuel that the supervisor has not been told of
	lastTold atomic.Int64 // when it was told, in ns
	// told is true once the supervisor was sent what it must get before the result.
	told atomic.Bool
}

// A stream is what an exchange has in this process, for the supervisor to read
// and write.
type stream struct {
	mu       sync.Mutex
	source   io.Reader
	open     func() (io.WriteCloser, error)
	output   io.WriteCloser
	progress func(beacon.Progress)
}

func newItems(conn *wire.Conn, rt *wasmrt.Runtime) *items {
	return &items{
		conn: conn, runtime: rt,
		modules: map[uint64]*wasmrt.Module{}, running: map[uint64]*running{}, streams: map[uint64]*stream{}, flights: map[*beacon.Job]uint64{},
	}
}

// load opens a module that was made ready.
func (s *items) load(r loadRequest) error {
	src := r.Source.source()
	src.Admit = func(wasmrt.Candidate) (wasmrt.Brokers, error) {
		return func(job *beacon.Job) hostfuncs.Broker { return s.broker(job) }, nil
	}
	m, err := s.runtime.Open(context.Background(), r.Kept, src)
	if errors.Is(err, wasmrt.ErrDamaged) {
		return beacon.Errorf(beacon.Internal, "%w", err)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.modules[r.Number] = m
	return nil
}

func (s *items) unload(number uint64) {
	s.mu.Lock()
	m := s.modules[number]
	delete(s.modules, number)
	s.mu.Unlock()
	if m != nil {
		_ = m.Close(context.Background()) // the process goes on without it
	}
}

// errOver ends an item whose time is over, or that nobody wants any more. The
// supervisor knows why.
var errOver = errors.New("the item is over")

// cancel ends an item.
func (s *items) cancel(flight uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.running[flight]; r != nil {
		r.cancel(errOver)
		return
	}
	s.early[s.last%len(s.early)] = flight
	s.last++
}

// A payer asks the supervisor for what an item holds.
type payer struct {
	items *items
	run   *running
}

// run runs an item, beside what else goes on.
func (s *items) run(id uint64, r *runRequest) {
	go func() {
		buf, _ := buffers.Get().(*[]byte)
		raw, _ := s.perform(id, r, (*buf)[:0])
		s.conn.Reply(id, raw)
		if cap(raw) <= maxAnswer {
			*buf = raw
		}
		buffers.Put(buf)
	}()
}

// serve runs the items of a lane, one after the other.
func (s *items) serve(lane *wire.Lane) {
	err := lane.Serve(func(id uint64, payload, b []byte) ([]byte, error) {
		r, err := parseRun(payload)
		if err != nil {
			return nil, err
		}
		begin := len(b)
		b, told := s.perform(id, r, b)
		if told || len(b)-begin > wire.MaxLane {
			s.conn.Reply(id, b[begin:])
			return nil, nil
		}
		return b, nil
	})
	if !errors.Is(err, wire.ErrClosed) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// perform runs an item, and appends its result to b. told is true if that must
// not overtake what else the supervisor was sent about the item.
func (s *items) perform(id uint64, r *runRequest, b []byte) (_ []byte, told bool) {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	run := &running{cancel: cancel, flight: id}
	s.mu.Lock()
	s.running[id] = run
	run.module = s.modules[r.Module]
	if slices.Contains(s.early[:], id) {
		cancel(errOver)
	}
	s.mu.Unlock()
	result := s.work(ctx, run, r)
	s.mu.Lock()
	delete(s.running, id)
	s.mu.Unlock()
	raw, err := result.append(b)
	if err != nil {
		raw, _ = (&runResult{How: endedFailed, Failure: failureOf(err)}).append(b) // it has nothing to encode
	}
	return raw, run.told.Load()
}

func (s *items) work(ctx context.Context, run *running, r *runRequest) (result runResult) {
	fail := func(err error) runResult {
		return runResult{How: endedFailed, Failure: failureOf(err)}
	}
	if run.module == nil {
		return fail(errors.New("there is no such module"))
	}
	if r.Left > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, r.Left, errOver)
		defer cancel()
	}
	dir, err := os.OpenRoot(r.Dir)
	if err != nil {
		return fail(errors.New("the item's directory cannot be opened"))
	}
	defer dir.Close() //nolint:errcheck // nothing is written through it
	account := beacon.NewAccount(&payer{s, run})
	job := &beacon.Job{
		Item: r.Item, Tenant: r.Tenant, Account: account, Depth: r.Depth, Dir: dir, Source: r.Source, Output: r.Output,
		Sources: r.Sources, Outputs: r.Outputs,
	}
	if r.Progress {
		job.OnProgress = func(p beacon.Progress) {
			run.told.Store(true)
			s.conn.Notify(noticeProgress, appendProgress(nil, run.flight, p))
		}
	}
	s.mu.Lock()
	s.flights[job] = run.flight
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.flights, job)
		s.mu.Unlock()
	}()
	result.Result, err = run.module.Run(context.WithValue(ctx, runKey{}, run), job)
	// What was not used is given back, which may be more than there was to tell of.
	result.Fuel, result.Memory = max(0, run.unspent.Swap(0)), account.Statement().Usage.Memory
	switch {
	case err == nil:
	case errors.Is(err, errOver):
		result.How = endedOver
	default:
		result.How, result.Failure = endedFailed, failureOf(err)
	}
	return result
}

// runKey finds the running item in a context.
type runKey struct{}

// Used implements beacon.Payer: what counts is told otherwise.
func (*payer) Used(beacon.Usage) {}

// Pace implements beacon.Payer.
func (*payer) Pace(context.Context) error { return nil }

// Hold implements beacon.Payer.
func (p *payer) Hold(n int64) error {
	a := amount{p.run.flight, n}.bytes()
	if n < 0 {
		p.items.conn.Notify(noticeHold, a)
		return nil
	}
	w := p.items.conn.Ask(p.items.conn.Number(), methodHold, a, 0)
	<-w.Done
	return replied(w.Result(nil))
}

// replied makes an error of the other side ours.
func replied(err error) error {
	var failure *wire.Failure
	if errors.As(err, &failure) {
		return answered(failure)
	}
	return err
}

// A budget asks the supervisor, not more often than is of use.
type budget struct{ conn *wire.Conn }

// spendEvery is how long a guest may run between two times that its fuel is told.
const spendEvery = 5 * time.Millisecond

// Spend implements wasmrt.Budget.
func (b budget) Spend(ctx context.Context, _ *beacon.Job, n int64) error {
	run, ok := ctx.Value(runKey{}).(*running)
	if !ok {
		return nil
	}
	total := run.unspent.Add(n)
	now := time.Now().UnixNano()
	last := run.lastTold.Load()
	if last == 0 {
		run.lastTold.Store(now)
		return nil
	}
	if now-last < int64(spendEvery) || total <= 0 {
		return nil
	}
	run.unspent.Add(-total)
	err := wait(ctx, b.conn, b.conn.Ask(b.conn.Number(), methodSpend, amount{run.flight, total}.bytes(), 0), nil)
	run.lastTold.Store(time.Now().UnixNano())
	return err
}

// A broker has the supervisor do what leads out of an item.
type broker struct {
	items  *items
	flight uint64
}

// broker is that of a job.
func (s *items) broker(job *beacon.Job) hostfuncs.Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &broker{s, s.flights[job]}
}

func encode(v any) ([]byte, error) {
	raw, err := marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode an answer: %w", err)
	}
	return bounded(raw)
}

// bounded is an answer, if it is not too long.
func bounded(raw []byte) ([]byte, error) {
	if len(raw) > maxReply {
		return nil, beacon.Errorf(beacon.OutputLimit, "an answer of %d bytes is too long", len(raw))
	}
	return raw, nil
}

// add makes a stream.
func (s *items) add(st *stream) uint64 {
	number := s.next.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams[number] = st
	return number
}

func (s *items) stream(number uint64) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[number]
}

func (s *items) remove(number uint64) {
	s.mu.Lock()
	st := s.streams[number]
	delete(s.streams, number)
	s.mu.Unlock()
	if st == nil {
		return
	}
	if c, ok := st.source.(io.Closer); ok {
		_ = c.Close() // which ends reading
	}
}

// Fetch implements hostfuncs.Broker.
func (b *broker) Fetch(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	st := &stream{}
	if r.Body != nil {
		st.source = r.Body
	}
	number := b.items.add(st)
	closed := func() {
		b.items.remove(number)
		b.items.conn.Notify(noticeClose, amount{b.flight, int64(number)}.bytes()) //nolint:gosec // only a name
	}
	raw, err := marshal(fetchRequest{b.flight, number, r.Method, r.URL, r.Header, r.Body != nil, r.BodyLength, r.Redirects})
	if err != nil {
		return nil, err
	}
	conn := b.items.conn
	var response fetchResponse
	err = wait(ctx, conn, conn.Ask(conn.Number(), methodFetch, raw, maxReply), func(payload []byte) error { return json.Unmarshal(payload, &response) })
	if err != nil {
		closed()
		return nil, err
	}
	return &hostfuncs.Response{
		Status: response.Status, URL: response.URL, Proto: response.Proto, Header: response.Header, Length: response.Length,
		Body: &responseBody{remoteReader{ctx: ctx, conn: conn, number: number, method: methodRead, flight: b.flight}, sync.OnceFunc(closed)},
	}, nil
}

// A responseBody is closed on the other side, too.
type responseBody struct {
	remoteReader
	closed func()
}

// Close implements io.Closer.
func (r *responseBody) Close() error { r.closed(); return nil }

// Call implements hostfuncs.Broker.
func (b *broker) Call(ctx context.Context, c beacon.Call) (beacon.Result, error) {
	number := b.items.add(&stream{source: c.Source, open: c.Output, progress: c.OnProgress})
	defer b.items.remove(number)
	raw, err := marshal(callRequest{
		b.flight, number, c.Capability, c.Action, c.Settings, c.Timeout, c.SourceName, c.Source != nil, c.OutputName, c.Output != nil, c.OnProgress != nil,
	})
	if err != nil {
		return beacon.Result{}, err
	}
	conn := b.items.conn
	var response *runResult
	err = wait(ctx, conn, conn.Ask(conn.Number(), methodCall, raw, maxReply), func(payload []byte) (err error) {
		response, err = parseResult(payload)
		return err
	})
	if err != nil {
		conn.Notify(noticeClose, amount{b.flight, int64(number)}.bytes()) //nolint:gosec // only a name
		return beacon.Result{}, err
	}
	if response.How != endedWell {
		return response.Result, answered(&response.Failure)
	}
	return response.Result, nil
}

// HasSecret implements hostfuncs.Broker.
func (b *broker) HasSecret(name string) bool {
	raw, err := json.Marshal(secretRequest{b.flight, name})
	if err != nil {
		return false
	}
	has := false
	err = b.items.conn.Call(methodSecret, raw, 1, func(payload []byte) error {
		d := wire.NewDecoder(payload)
		has = d.Bool()
		return d.End()
	})
	return err == nil && has
}

// pull reads from a stream for the supervisor. The end is an empty part.
func (s *items) pull(id, number uint64) {
	st := s.stream(number)
	if st == nil || st.source == nil {
		s.conn.Fail(id, wire.Failure{Message: "there is no such stream"})
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	b := make([]byte, maxPart)
	for {
		n, err := st.source.Read(b)
		switch {
		case n > 0:
			s.conn.Reply(id, b[:n])
			return
		case errors.Is(err, io.EOF):
			s.conn.Reply(id, nil)
			return
		case err != nil:
			s.conn.Fail(id, failureOf(err))
			return
		}
	}
}

// push writes to a stream for the supervisor.
func (s *items) push(id, number, what uint64, part []byte) {
	st := s.stream(number)
	if st == nil {
		s.conn.Fail(id, wire.Failure{Message: "there is no such stream"})
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	var err error
	switch {
	case what == pushOpen && st.open != nil:
		st.output, err = st.open()
	case st.output == nil:
		err = errors.New("the stream is not open")
	case what == pushPart:
		_, err = st.output.Write(part)
	case what == pushClose:
		err = st.output.Close()
		st.output = nil
	}
	if err != nil {
		s.conn.Fail(id, failureOf(err))
		return
	}
	s.conn.Reply(id, nil)
}

// called hands on the progress of a call.
func (s *items) called(number uint64, p beacon.Progress) {
	if st := s.stream(number); st != nil && st.progress != nil {
		st.progress(p)
	}
}
