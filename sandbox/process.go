package sandbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox/confine"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A process is the supervisor's end of one process. It is used until it dies or
// is stopped.
type process struct {
	sandbox *Sandbox
	cmd     *exec.Cmd
	conn    *wire.Conn
	lanes   *wire.Lanes
	said    *head
	dir     string // its folder
	// gone is closed when the process has ended and nothing of it is left.
	gone  chan struct{}
	lines int // of its log
	// quiet is true if whoever started it says how it has ended.
	quiet bool

	// worked is when its last item has ended, in ns; heavy is true while it takes
	// much of the processors, aside while it gives way to others.
	worked atomic.Int64
	heavy  atomic.Bool
	aside  atomic.Bool
	effort effort // for watch
	turns  int    // of what it asks for, while it gives way
	// opening counts what it has begun, and opened what it has ended, that is not for
	// items only: to begin itself, and to open modules.
	opening, opened atomic.Int64
	asked           atomic.Int64 // requests of the process without a reply

	// woken has watch look at what there is to watch.
	woken chan struct{}

	// These are guarded by the Sandbox's mu.
	users   int       // who starts it, too
	used    time.Time // the last time
	retired bool      // takes nothing new

	mu          sync.Mutex
	why         error // why it was ended; nil as long as it is wanted
	flights     map[uint64]*flight
	peak        int // how many there were at a time
	modules     map[uint64]*loading
	linked      int
	moved       bool           // an item came since watch has looked
	resting     bool           // watch waits to be woken for an item
	confinement confine.Report // once it is ready
	// offender is the item that the process was ended for, alone the only one that
	// was in it when it ended; nil if there is none.
	offender, alone *flight
}

// Why a process ends.
var (
	errDied    = errors.New("the process has ended by itself")
	errStopped = errors.New("the process is not needed any more")
	errSilent  = errors.New("the process did not answer in time")
	errOverdue = errors.New("an item did not end in time")
	errLarge   = errors.New("the process takes too much memory")
)

// launch starts a process and waits until it is ready. release is called when it
// is gone, or did not come to be.
func (s *Sandbox) launch(ctx context.Context, h hello, e effort, release func() error) (*process, error) {
	dir, err := s.dir.make()
	if err != nil {
		return nil, errors.Join(err, release())
	}
	h.Dir = dir
	p, err := s.startProcess(h, e, release)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start a process of the sandbox: %w", err), os.RemoveAll(dir), release())
	}
	h.Lanes = p.lanes.Len()
	p.opening.Add(1)
	report, err := p.greet(ctx, h)
	p.opened.Add(1)
	p.wake() // it may have to give way
	if err != nil {
		p.stop()
		<-p.gone
		return nil, fmt.Errorf("start a process of the sandbox: %w", err)
	}
	if goruntime.GOOS == "linux" && threads(p.cmd.Process.Pid) == 0 && p.alive() {
		report.Missing = append(report.Missing, "limit of threads: /proc does not show those of the process (hidepid)")
	}
	p.confinement = report
	if !report.Complete() {
		s.tell.Do(func() {
			s.log.Warn("processes of the sandbox are not confined as they could be", "missing", strings.Join(report.Missing, "; "))
		})
	}
	return p, nil
}

// startProcess starts one.
func (s *Sandbox) startProcess(h hello, e effort, release func() error) (*process, error) {
	path, err := program()
	if err != nil {
		return nil, err
	}
	p := &process{sandbox: s, dir: h.Dir, quiet: h.Role == roleRegister, said: &head{}, gone: make(chan struct{}), woken: make(chan struct{}, 1),
		flights: map[uint64]*flight{}, modules: map[uint64]*loading{}, effort: e, users: 1, // who starts it
	}
	p.cmd = &exec.Cmd{
		Path: path, Args: []string{processName}, Dir: h.Dir, Env: []string{}, Stderr: p.said,
		SysProcAttr: attributes(), WaitDelay: 5 * time.Second,
	}
	stream, started, err := connect(p.cmd)
	if err != nil {
		return nil, err
	}
	n := 0
	if h.Role == roleItems {
		n = laneCount
	}
	lanes, theirs, err := wire.NewLanes(n)
	if err != nil {
		started()
		return nil, errors.Join(err, stream.Close())
	}
	p.lanes, p.cmd.ExtraFiles = lanes, append(p.cmd.ExtraFiles, theirs...)
	err = s.spawn.start(p.cmd)
	started()
	for _, f := range theirs {
		_ = f.Close() // it was handed on
	}
	if err != nil {
		return nil, errors.Join(err, stream.Close(), lanes.Close())
	}
	p.conn = wire.New(stream)
	s.began(p)
	var served sync.WaitGroup
	served.Go(func() {
		if err := p.conn.Serve(p); !errors.Is(err, wire.ErrClosed) {
			p.end(err)
		}
		// Without its connection it is of no use, and it may not have noticed.
		p.end(errDied)
	})
	if h.Role == roleItems {
		served.Go(p.watch)
	}
	s.work.Go(func() {
		err := p.cmd.Wait()
		p.end(errDied)
		// What it has said is read to its end, unless that takes too long.
		_ = p.conn.Close()
		_ = p.lanes.Close()
		served.Wait()
		p.note(err)
		if err := errors.Join(os.RemoveAll(p.dir), release()); err != nil {
			s.log.Warn("cleaning up after a process of the sandbox", "err", err)
		}
		s.ended(p)
		close(p.gone)
	})
	return p, nil
}

// end kills the process, for the first reason that is given.
func (p *process) end(why error) {
	p.mu.Lock()
	first := p.why == nil
	p.why = cmp.Or(p.why, why)
	if first && len(p.flights) == 1 {
		for _, f := range p.flights {
			p.alone = f
		}
	}
	p.mu.Unlock()
	if first {
		if p.aside.Load() {
			_ = giveWay(p.cmd.Process.Pid, false) // ending takes a while, too; without privileges a longer one
		}
		kill(p.cmd)
		p.wake()
	}
}

// stop ends a process that is not needed.
func (p *process) stop() { p.end(errStopped) }

// reason is why the process has ended, or is about to.
func (p *process) reason() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why
}

// note logs how it ended, unless that was wanted.
func (p *process) note(err error) {
	why := p.reason()
	if errors.Is(why, errStopped) || p.quiet {
		return
	}
	args := []any{"reason", why}
	if err != nil {
		args = append(args, "status", err)
	}
	if said := p.said.String(); said != "" {
		args = append(args, "said", beacon.Excerpt(said, 500))
	}
	p.sandbox.log.Warn("a process of the sandbox has ended", args...)
}

// ask asks the process for something that takes a while, and gives up with ctx,
// which kills it.
func (p *process) ask(ctx context.Context, method wire.Method, request, reply any) error {
	raw, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encode a request to a process: %w", err)
	}
	if len(raw) > maxRequest {
		return beacon.Errorf(beacon.Invalid, "a configuration of %d bytes is too long", len(raw))
	}
	w := p.conn.Ask(p.conn.Number(), method, raw, maxAnswer)
	select {
	case <-w.Done:
	case <-ctx.Done():
		p.end(context.Cause(ctx))
		<-w.Done
	}
	return replied(w.Result(func(payload []byte) error {
		if reply == nil {
			return nil
		}
		return decode(payload, reply)
	}))
}

// maxAnswer is how long an answer to ask may be, in bytes.
const maxAnswer = 1 << 20

// answered is an error of a process. It is a stranger's word.
func answered(f *wire.Failure) error {
	message := short(f.Message)
	switch code := beacon.Code(f.Code); code {
	case "":
		return errors.New(message)
	case beacon.Invalid, beacon.NotFound, beacon.Denied, beacon.Refused, beacon.Unreachable, beacon.Timeout, beacon.MemoryLimit, beacon.StackLimit,
		beacon.FuelLimit, beacon.OutputLimit, beacon.FileLimit, beacon.CallLimit, beacon.WebLimit, beacon.Trapped, beacon.Failed:
		return &beacon.Error{Code: code, Message: message}
	}
	return &beacon.Error{Code: beacon.Internal, Message: message}
}

// greet tells the process what it is for, and waits until it is confined.
func (p *process) greet(ctx context.Context, h hello) (confine.Report, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetTime, errors.New("it does not begin"))
	defer cancel()
	var report confine.Report
	err := p.ask(ctx, methodHello, h, &report)
	if errors.Is(err, wire.ErrClosed) {
		p.end(errDied)
		<-p.gone
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		err = fmt.Errorf("%w: %s", err, beacon.Excerpt(p.said.String(), 500))
	}
	return report, err
}

// greetTime is what a process has to begin.
const greetTime = time.Minute

// head keeps the beginning of what a process says when it breaks down: that
// says most.
type head struct {
	mu sync.Mutex
	b  []byte
}

func (h *head) Write(b []byte) (int, error) {
	const most = 16 << 10
	h.mu.Lock()
	defer h.mu.Unlock()
	if room := most - len(h.b); room > 0 {
		h.b = append(h.b, b[:min(room, len(b))]...)
	}
	return len(b), nil
}

func (h *head) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return strings.TrimSpace(string(h.b))
}
