package runtime

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/engine"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/profile"
	"github.com/ultravisor/beacon/runtime/snapshot"
	"github.com/ultravisor/beacon/runtime/source"
)

// A Module is a compiled module: a beacon.Provider that gives every work item
// an instance in the state after initialisation. Close it to free it.
type Module struct {
	name     string
	digest   string
	facts    *module.Facts
	entry    entry
	limits   Limits
	config   beacon.Settings
	args     []string    // of a reactor, which are the same in all items
	nothing  *guestfs.FS // what a guest sees of files as long as it has no item
	budget   Budget
	log      *slog.Logger
	manifest hostfuncs.Manifest
	brokers  Brokers

	engine   engine.Engine
	lane     *lane
	distrust atomic.Bool  // a memory was not as its image: nobody is believed any more
	slow     atomic.Int64 // the slice that guests begin with, of modules whose units take long; else 0
	code     engine.Code
	prepared *module.Prepared
	data     []module.Segment // of prepared, while it may be kept
	// hasLines is true if source lines can be told, by lines.
	hasLines  bool
	lineOnce  sync.Once
	lineTable lineTable
	// base is the state before anything has run, or, of a module that was recalled,
	// the one after initialisation.
	base     *state
	recalled bool
	// unready says why it could not be initialised when it was made ready.
	unready  string
	compiled time.Duration
	profile  *profile.Profile // nil unless it is profiled
	// opened is true if it was opened from what was left for it, and has nothing
	// else; keepsAll if it is to be left for others.
	opened, keepsAll bool
	temporary        *Registered // where it was opened from; nil if that stays
	rawManifest      []byte
	cache            *cache
	madeOf           []byte // what its snapshots depend on
	poolConfig       Pool
	pool             *pool
	// keeping is held by whoever keeps a state on disk: the next snapshot may come
	// while the first is being written.
	keeping sync.Mutex
	// use is held for reading while a run is under way.
	use    sync.RWMutex
	closed bool
}

// build translates the binary.
func (m *Module) build(ctx context.Context, binary []byte, cacheDir string) (err error) {
	guestWASI := wasi.Interface()
	guestWASI.Enter = func(_ *wasi.Process, ctx context.Context) error {
		item, ok := abi.State[*hostfuncs.Item](ctx)
		if !ok {
			return fmt.Errorf("%w: no work item", abi.ErrHost)
		}
		return item.Count(ctx)
	}
	libraries := []abi.Library{outside(hostfuncs.Interface().Library()), outside(guestWASI.Library()), fuel()}
	started := time.Now()
	defer func() { m.compiled = time.Since(started) }()
	if m.code, err = m.engine.Compile(ctx, binary, libraries, cacheDir, m.hasLines); err != nil {
		return errors.New(beacon.Excerpt(err.Error(), 500))
	}
	return nil
}

// Close waits for runs that are under way and frees the module.
func (m *Module) Close(ctx context.Context) error {
	m.use.Lock()
	defer m.use.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	var err error
	if m.pool != nil {
		err = m.pool.close()
	}
	err = errors.Join(err, m.base.release(), m.code.Close(ctx))
	if m.temporary != nil {
		err = errors.Join(err, m.temporary.Discard())
	}
	return err
}

// Shutdown frees the module, for a beacon.Registry.
func (m *Module) Shutdown(ctx context.Context) error { return m.Close(ctx) }

// Name is the name that the module was loaded under.
func (m *Module) Name() string { return m.name }

// Digest is the SHA-256 of the module's binary in hexadecimal.
func (m *Module) Digest() string { return m.digest }

// grade is how finely the module's work is counted.
func (m *Module) grade() module.Grade { return m.limits.grade() }

// Facts are what the binary says about itself; they are not to be changed.
func (m *Module) Facts() *module.Facts { return m.facts }

// Compiled is how long the engine took to compile the module: by itself, in the process
// that did, which may have been an earlier one. It is 0 if it was compiled for other
// limits or another configuration, and that was taken.
func (m *Module) Compiled() time.Duration { return m.compiled }

// FuelProfile is where the fuel of the module's items has gone so far; nil unless
// Limits.Profile is set. What is spent before there is an item, in initialising the
// module, is not in it.
func (m *Module) FuelProfile() *profile.Profile { return m.profile }

// Pool returns numbers of the module's instances.
func (m *Module) Pool() PoolStats { return m.pool.numbers() }

// Manifest is what the module says about itself, or what stands in for it.
func (m *Module) Manifest() hostfuncs.Manifest { return m.manifest }

// ManifestJSON is the manifest as the module gave it; nil if it gave none.
func (m *Module) ManifestJSON() []byte { return bytes.Clone(m.rawManifest) }

// Command reports whether the module is a plain WASI program.
func (m *Module) Command() bool { return m.entry.command }

// Capability is what the module offers.
func (m *Module) Capability() beacon.Capability { return m.manifest.Capability }

// describe finds the manifest: in the binary, else by asking the module.
func (m *Module) describe(ctx context.Context) error {
	var raw []byte
	if m.recalled {
		raw = m.rawManifest
	} else if raw = m.facts.Manifest; raw == nil && m.entry.describe && !m.entry.command {
		var err error
		if raw, err = m.ask(ctx); err != nil {
			return err
		}
	}
	m.rawManifest = raw
	if raw == nil {
		m.manifest = hostfuncs.Manifest{Name: m.name, Capability: beacon.Capability{
			Name:    m.name,
			Actions: []beacon.Action{{Name: "Execute", Description: "Run the program."}},
		}}
		return nil
	}
	var err error
	if m.manifest, err = hostfuncs.ParseManifest(raw); err != nil {
		return m.refusal(err)
	}
	return nil
}

func (m *Module) ask(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Describe, beacon.Errorf(beacon.Refused,
		"module %s took longer than %s to describe itself", m.name, m.limits.Describe))
	defer cancel()
	item := hostfuncs.NewDescription(m.config, m.limits.Item)
	process := wasi.NewProcess(wasi.Config{Args: []string{m.name}, Stdout: io.Discard, Stderr: item.Stderr()})
	err := m.alone(ctx, item, process, "beacon_describe")
	if errors.Is(context.Cause(ctx), context.Canceled) {
		return nil, context.Cause(ctx) // whoever loads the module has changed their mind
	}
	if err != nil {
		for _, line := range item.Log() {
			m.log.Warn("a module that cannot describe itself says", "module", m.name, "line", line)
		}
		return nil, beacon.Errorf(beacon.Refused, "module %s cannot describe itself: %w", m.name, err)
	}
	return item.Manifest(), nil
}

// Run executes one work item in an instance that no other item has touched
// since it was as after initialisation.
func (m *Module) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	if ctx.Err() != nil {
		return beacon.Result{}, context.Cause(ctx)
	}
	m.use.RLock()
	defer m.use.RUnlock()
	if m.closed {
		return beacon.Result{}, m.errClosed()
	}
	inputs := slices.Clone(job.Sources)
	if job.Source != "" && !slices.Contains(inputs, job.Source) {
		inputs = append(inputs, job.Source)
	}
	files := guestfs.New(job.Dir, guestfs.Config{Limits: m.limits.Files, ReadOnly: inputs, Hold: job.Account.Hold})
	deadline, _ := ctx.Deadline()
	item := hostfuncs.NewItem(job, files, m.config, deadline, m.limits.Item)
	job.Account.Ran(m.digest)
	var tape hostfuncs.Tape
	if m.brokers != nil {
		broker := m.brokers(job)
		item.Reach(broker)
		if tape, _ = broker.(hostfuncs.Tape); tape != nil {
			item.Tape(tape)
		}
	}
	defer func() {
		if err := item.Close(); err != nil {
			m.log.Warn("closing a guest's files", "module", m.name, "item", job.Item.Hash, "err", err)
		}
	}()
	cfg, err := m.process(job, item)
	if err != nil {
		return beacon.Result{}, err
	}
	if closer, ok := cfg.Stdin.(io.Closer); ok {
		defer closer.Close()
	}
	if tape != nil {
		cfg.Random, cfg.Clock = taped{tape}, taped{tape}.clock
	}
	process := wasi.NewProcess(cfg)
	inner, release := m.graceful(ctx, item)
	defer release()
	err = m.work(inner, job, item, process, files)
	if err == nil {
		return item.Result(0), nil
	}
	if code, _ := process.Exited(); item.Canceled() && (code != 0 || beacon.CodeOf(err) == beacon.Failed) {
		// It gave up because it was asked to.
		return beacon.Result{Log: item.Log()}, context.Cause(ctx)
	}
	// The guest's own exit is a result of a command; everything else, and any
	// exit of a reactor, is a failure of the provider.
	if code, exited := process.Exited(); exited && m.entry.command && errors.Is(err, errExit) {
		if limit := files.Limit(); code != 0 && limit != nil {
			return beacon.Result{Log: item.Log()}, m.fileLimit(limit)
		}
		if limit := item.Limit(); code != 0 && limit != nil {
			return beacon.Result{Log: item.Log()}, limit
		}
		return item.Result(int(int32(code))), nil
	}
	if limit := files.Limit(); limit != nil && !beacon.CodeOf(err).Limit() {
		err = m.fileLimit(limit)
	} else if limit := item.Limit(); limit != nil && !beacon.CodeOf(err).Limit() {
		err = limit
	}
	return beacon.Result{Log: item.Log()}, err
}

// taped is a tape as WASI needs it.
type taped struct{ hostfuncs.Tape }

func (t taped) Read(p []byte) (int, error) { return len(p), t.Random(p) }

func (t taped) clock(id uint32, now uint64) uint64 {
	if id == 0 {
		return t.Number(hostfuncs.TapeWall, now)
	}
	return t.Number(hostfuncs.TapeMonotonic, now)
}

// work runs the guest on an item in an instance of the pool.
func (m *Module) work(ctx context.Context, job *beacon.Job, item *hostfuncs.Item, process *wasi.Process, files *guestfs.FS) (err error) {
	tenant := cmp.Or(job.Tenant, beacon.DefaultTenant)
	i, err := m.pool.get(ctx, tenant)
	if err != nil {
		return m.unavailable(ctx, err)
	}
	clean := false
	defer func() {
		if i.memory != nil { // which only grows
			job.Account.Add(beacon.Usage{Memory: int64(i.memory.Size())})
		}
		m.pool.put(ctx, i, clean)
	}()
	run, end := "beacon_execute", "beacon_shutdown"
	if m.entry.command {
		run, end = "_start", ""
	}
	gauge := m.gauge(job)
	defer gauge.end()
	if m.profile != nil {
		gauge.recorder = m.profile.Record()
	}
	call := callContext(ctx, item, process, gauge)
	err = m.guarded(func() error {
		i.begin(ctx, tenant)
		if !i.state.initialized {
			// Its fuel is not the item's, which uses the same wherever it runs.
			if err := item.Before(func() error { return m.initialize(ctx, job, i, item, process) }); err != nil {
				return err
			}
		}
		if err := i.refuel(ctx, gauge); err != nil {
			return err
		}
		process.Attach(files)
		process.Continue(i.state.flags)
		if i.state.initialized && m.entry.reseed {
			if err := m.step(call, i, item, process, "beacon_reseed"); err != nil {
				return err
			}
		}
		if err := m.step(call, i, item, process, run); err != nil {
			return err
		}
		return m.step(call, i, item, process, end)
	})
	if limit := m.settle(ctx, gauge, i, item); limit != nil && (err == nil || errors.Is(err, errExit)) {
		err = limit
	}
	clean = err == nil
	return err
}

// settle accounts for the fuel of a guest that has ended.
func (m *Module) settle(ctx context.Context, g *gauge, i *instance, item *hostfuncs.Item) error {
	used, err := g.done(ctx, int64(i.fuel.Get())) //nolint:gosec // a number with a sign
	if g.limit > 0 && g.job != nil {
		item.Note(fmt.Sprintf("fuel: %d of %d units", used, g.limit))
	}
	return err
}

// unavailable is the error for an item that no instance could be had for.
func (m *Module) unavailable(ctx context.Context, err error) error {
	var ours *beacon.Error
	switch {
	case errors.As(err, &ours):
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	var trap *engine.Trap
	if errors.As(err, &trap) { // an element segment that does not fit
		return beacon.Errorf(beacon.Trapped, "module %s broke down: %s", m.name, beacon.Excerpt(trap.Reason, 500))
	}
	m.log.Error("an instance cannot be made", "module", m.name, "err", err)
	return beacon.Errorf(beacon.Internal, "module %s: an instance cannot be made", m.name)
}

// alone runs one function of an initialised instance that is gone afterwards.
func (m *Module) alone(ctx context.Context, item *hostfuncs.Item, process *wasi.Process, function string) (err error) {
	i, err := m.instantiate(ctx, m.base, snapshot.Compare)
	if err != nil {
		return m.unavailable(ctx, err)
	}
	defer func() { m.note(i.close(ctx)) }()
	gauge := m.gauge(nil)
	defer gauge.end()
	call := callContext(ctx, item, process, gauge)
	return m.guarded(func() error {
		i.begin(ctx, "")
		if err := m.initialize(ctx, nil, i, item, process); err != nil {
			return err
		}
		if err := i.refuel(ctx, gauge); err != nil {
			return err
		}
		return m.step(call, i, item, process, function)
	})
}

// guarded turns a fault of the engine into an error.
func (m *Module) guarded(f func() error) (err error) {
	defer func() {
		if fault := recover(); fault != nil {
			m.log.Error("the engine failed", "module", m.name, "fault", fmt.Sprint(fault))
			err = beacon.Errorf(beacon.Internal, "module %s: the engine failed", m.name)
		}
	}()
	return f()
}

// step calls one of the guest's functions, if it has it, and says how it ended.
func (m *Module) step(ctx context.Context, i *instance, item *hostfuncs.Item, process *wasi.Process, function string) error {
	code, err := i.enter(ctx, function)
	if err != nil {
		return m.outcome(ctx, item, process, i.memory, err)
	}
	if code != 0 {
		return m.failed(function, code, item, i.memory)
	}
	return nil
}

// note logs what went wrong where nobody can be told.
func (m *Module) note(err error) {
	if err != nil {
		m.log.Warn("an instance is in trouble", "module", m.name, "err", err)
	}
}

func (m *Module) errClosed() error {
	return beacon.Errorf(beacon.Internal, "module %s is closed", m.name)
}

func (m *Module) fileLimit(limit error) error {
	return beacon.Errorf(beacon.FileLimit, "module %s: %w; raise the provider's Files limits", m.name, limit)
}

// cancelGrace is what a guest that asks whether it is cancelled gets to end by
// itself, if its deadline does not come first, which has no grace.
const cancelGrace = time.Second

// graceful gives a cancelled guest a moment, if it is one that looks. The
// returned function frees what was taken and must be called.
func (m *Module) graceful(ctx context.Context, item *hostfuncs.Item) (context.Context, func()) {
	if !m.entry.asksCancelled {
		return ctx, func() {}
	}
	inner, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			item.Cancel()
			grace := cancelGrace
			if deadline, bounded := ctx.Deadline(); bounded {
				grace = min(grace, time.Until(deadline))
			}
			wait := time.NewTimer(grace)
			defer wait.Stop()
			select {
			case <-wait.C:
			case <-inner.Done():
			}
		}
		cancel(context.Cause(ctx))
	})
	return inner, func() {
		cancel(nil)
		if !stop() {
			<-ended
		}
	}
}

// preopens are the guest's names for the item's directory. It, and what follows,
// is not changed.
var preopens = []string{hostfuncs.WorkDir, "/"}

// process decides what a guest sees as a WASI program. A reactor sees the same
// in all items: it may look when it is initialised.
func (m *Module) process(job *beacon.Job, item *hostfuncs.Item) (wasi.Config, error) {
	cfg := wasi.Config{
		Args:     m.args,
		Env:      environment,
		Stdout:   item.Stdout(),
		Stderr:   item.Stderr(),
		FS:       m.nothing,
		Preopens: preopens,
	}
	if !m.entry.command {
		return cfg, nil
	}
	cfg.Args = []string{m.name, job.Item.Action}
	cfg.Env = slices.Concat(environment, itemEnvironment(job))
	args, given, err := arguments(job)
	if err != nil {
		return cfg, err
	}
	stdin := "item"
	if given {
		cfg.Args = append([]string{m.name}, args...)
		stdin = "none"
	}
	switch stdin = cmp.Or(job.Item.Settings.Text("Stdin"), stdin); stdin {
	case "none":
	case "source":
		if job.Source == "" {
			return cfg, beacon.Errorf(beacon.Invalid, "setting Stdin is \"source\", but the item has no source")
		}
		cfg.Stdin, err = job.Dir.Open(job.Source)
		if err != nil {
			return cfg, fmt.Errorf("open the source as standard input: %w", err)
		}
	case "item":
		raw, err := itemJSON(job)
		if err != nil {
			return cfg, err
		}
		cfg.Stdin = strings.NewReader(string(raw) + "\n")
	default:
		return cfg, beacon.Errorf(beacon.Invalid, "setting Stdin is %q: want item, source or none", beacon.Excerpt(stdin, 40))
	}
	return cfg, nil
}

var environment = []string{"PWD=" + hostfuncs.WorkDir, "TMPDIR=" + hostfuncs.WorkDir}

func itemEnvironment(job *beacon.Job) []string {
	env := []string{
		"BEACON_CAPABILITY=" + job.Item.Capability,
		"BEACON_ACTION=" + job.Item.Action,
	}
	if job.Source != "" {
		env = append(env, "BEACON_SOURCE_PATH="+hostfuncs.GuestPath(job.Source))
	}
	if job.Output != "" {
		env = append(env, "BEACON_OUTPUT_PATH="+hostfuncs.GuestPath(job.Output))
	}
	return env
}

// itemJSON is the work item as a plain program gets it on standard input.
func itemJSON(job *beacon.Job) ([]byte, error) {
	raw, err := json.Marshal(struct {
		WorkItemHash string
		Capability   string
		Action       string
		Settings     beacon.Settings
		TimeoutMs    int64
		SourcePath   string `json:",omitempty"`
		OutputPath   string `json:",omitempty"`
	}{
		job.Item.Hash, job.Item.Capability, job.Item.Action, job.Item.Settings, job.Item.Timeout.Milliseconds(),
		hostfuncs.GuestPath(job.Source), hostfuncs.GuestPath(job.Output),
	})
	if err != nil {
		return nil, fmt.Errorf("encode the work item for its guest: %w", err)
	}
	return raw, nil
}

// errExit marks an error that is the guest's own exit.
var errExit = errors.New("the guest exited")

// failed is the outcome of a guest that said so itself.
func (m *Module) failed(function string, code int32, item *hostfuncs.Item, memory *guestMemory) error {
	if text := item.Failure(); text != "" {
		return beacon.Errorf(beacon.Failed, "%s", beacon.Excerpt(text, 4096))
	}
	if memory.short() {
		return m.outOfMemory(memory)
	}
	return beacon.Errorf(beacon.Failed, "module %s: %s returned %d", m.name, function, code)
}

func (m *Module) outOfMemory(memory *guestMemory) error {
	if memory.starved {
		return beacon.Errorf(beacon.MemoryLimit, "module %s wanted more memory than the worker has left for its guests; raise the worker's Memory, or let it run fewer items at a time", m.name)
	}
	return beacon.Errorf(beacon.MemoryLimit, "module %s wanted more than %s of memory; raise it with --memory or the provider's Memory",
		m.name, megabytes(m.limits.Memory))
}

// outcome turns the engine's error into ours. What the host knows comes first:
// a guest can choose its exit code, and some codes mean a deadline to the engine.
func (m *Module) outcome(ctx context.Context, item *hostfuncs.Item, process *wasi.Process, memory *guestMemory, err error) error {
	var ours *beacon.Error
	code, exited := process.Exited()
	var stop *abi.Stop
	stopped := errors.As(err, &stop)
	switch {
	case stopped && errors.As(stop.Cause, &ours):
		return ours
	case stopped && errors.Is(stop.Cause, abi.ErrHost):
		m.log.Error("a host function failed", "module", m.name, "err", stop.Cause)
		return beacon.Errorf(beacon.Internal, "module %s: a host function failed", m.name)
	case exited && code != 0 && memory.short():
		return m.outOfMemory(memory)
	case exited && m.entry.command:
		return fmt.Errorf("%w with code %d", errExit, int32(code))
	case exited:
		return beacon.Errorf(beacon.Failed, "module %s exited with code %d", m.name, int32(code))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case stopped:
		return beacon.Errorf(beacon.Internal, "module %s: %w", m.name, stop.Cause)
	case memory.short():
		return m.outOfMemory(memory)
	}
	reason, stack := m.trap(err)
	for _, line := range stack {
		item.Note(line)
	}
	if reason == errStack.Error() {
		return beacon.Errorf(beacon.StackLimit, "module %s called too deeply: more than %s of stack", m.name, megabytes(module.StackSize))
	}
	if text := item.Failure(); text != "" { // it said why, before it gave up
		return beacon.Errorf(beacon.Failed, "%s", beacon.Excerpt(text, 4096))
	}
	return beacon.Errorf(beacon.Trapped, "module %s broke down: %s", m.name, reason)
}

// fold says how often the last line stood there once more: recursion.
func fold(stack []string, repeated int) []string {
	if repeated == 0 {
		return stack
	}
	return append(stack, fmt.Sprintf("  (and %d times more)", repeated))
}

// original gives a function without a name the number that it has in the module
// as it came: metering puts a function of its own before all others.
func original(line string) string {
	digits, ok := strings.CutPrefix(line, "$")
	digits, rest, _ := strings.Cut(digits, "(")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n == 0 {
		return line
	}
	return fmt.Sprintf("$%d(%s", n-1, rest)
}

// positions are the source lines of calls, as far as the module tells them.
func (m *Module) positions(stack []engine.Frame) []source.Position {
	lines := m.lines()
	places := make([]uint32, len(stack))
	for i, frame := range stack {
		places[i], _ = lines.places.Original(frame.Offset) // 0 is in no line
	}
	return lines.tables.Positions(places)
}

// trap gives the reason for a fault and a short stack of the guest's functions.
// Both hold names that the guest chose.
func (m *Module) trap(err error) (reason string, stack []string) {
	var t *engine.Trap
	if !errors.As(err, &t) {
		return beacon.Excerpt(err.Error(), 500), nil
	}
	repeated := 0
	positions := m.positions(t.Stack)
	for i, frame := range t.Stack {
		if len(stack) >= 32 {
			break
		}
		if strings.HasPrefix(frame.Function, module.MeterModule+".") {
			continue // where the guest ended is said by what follows, how it was called is ours
		}
		line := "  at " + beacon.Excerpt(original(frame.Function), 200)
		if p := positions[i]; p.File != "" {
			line += fmt.Sprintf(" %s:%d", beacon.Excerpt(p.File, 200), p.Line)
		}
		if n := len(stack); n > 0 && stack[n-1] == line {
			repeated++
			continue
		}
		stack = fold(stack, repeated)
		stack, repeated = append(stack, line), 0
	}
	stack = fold(stack, repeated)
	return beacon.Excerpt(t.Reason, 500), stack
}
