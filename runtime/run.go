package runtime

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/module"
)

// A Module is a compiled module: a beacon.Provider that gives every work item
// an instance of its own. Close it to free it.
type Module struct {
	name     string
	digest   string
	facts    *module.Facts
	entry    entry
	limits   Limits
	config   beacon.Settings
	budget   Budget
	log      *slog.Logger
	manifest hostfuncs.Manifest
	brokers  Brokers

	engine wazero.Runtime
	cache  wazero.CompilationCache
	code   wazero.CompiledModule
	// use is held for reading while a run is under way.
	use    sync.RWMutex
	closed bool
}

// features are what guests may use of WebAssembly.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// build compiles with an engine that belongs to this module alone: guests of
// different modules share no namespace, and closing one leaves the others.
func (m *Module) build(ctx context.Context, cache wazero.CompilationCache, binary []byte) (err error) {
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCoreFeatures(features).
		WithCompilationCache(cache).
		// The engine's reader of debug information never ends on some input.
		WithDebugInfoEnabled(false).
		WithCustomSections(false))
	defer func() {
		if err != nil {
			err = errors.Join(err, engine.Close(ctx), cache.Close(ctx))
		}
	}()
	if err := hostfuncs.Interface().Instantiate(ctx, engine); err != nil {
		return err
	}
	guestWASI := wasi.Interface()
	guestWASI.Enter = func(_ *wasi.Process, ctx context.Context) error {
		item, ok := abi.State[*hostfuncs.Item](ctx)
		if !ok {
			return fmt.Errorf("%w: no work item", abi.ErrHost)
		}
		return item.Count(ctx)
	}
	if err := guestWASI.Instantiate(ctx, engine); err != nil {
		return err
	}
	if err := offerFuel(ctx, engine); err != nil {
		return err
	}
	code, err := engine.CompileModule(ctx, binary)
	if err != nil {
		return errors.New(beacon.Excerpt(err.Error(), 500))
	}
	m.engine, m.cache, m.code = engine, cache, code
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
	return errors.Join(m.engine.Close(ctx), m.cache.Close(ctx))
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

// Manifest is what the module says about itself, or what stands in for it.
func (m *Module) Manifest() hostfuncs.Manifest { return m.manifest }

// Command reports whether the module is a plain WASI program.
func (m *Module) Command() bool { return m.entry.command }

// Capability is what the module offers.
func (m *Module) Capability() beacon.Capability { return m.manifest.Capability }

// describe finds the manifest: in the binary, else by asking the module.
func (m *Module) describe(ctx context.Context) error {
	raw := m.facts.Manifest
	if raw == nil && m.entry.describe && !m.entry.command {
		var err error
		if raw, err = m.ask(ctx); err != nil {
			return err
		}
	}
	if raw == nil {
		m.manifest = hostfuncs.Manifest{Name: m.name, Capability: beacon.Capability{
			Name:    m.name,
			Actions: []beacon.Action{{Name: "Execute", Description: "Run the program."}},
		}}
		return nil
	}
	var err error
	if m.manifest, err = hostfuncs.ParseManifest(raw); err != nil {
		return fmt.Errorf("module %s: %w", m.name, err)
	}
	return nil
}

func (m *Module) ask(ctx context.Context) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Describe, beacon.Errorf(beacon.Refused,
		"module %s took longer than %s to describe itself", m.name, m.limits.Describe))
	defer cancel()
	item := hostfuncs.NewDescription(m.config, m.limits.Item)
	process := wasi.NewProcess(wasi.Config{Args: []string{m.name}, Stdout: io.Discard, Stderr: item.Stderr()})
	err := m.guest(ctx, nil, item, process, "beacon_describe")
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

// Run executes one work item in an instance of its own.
func (m *Module) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	if ctx.Err() != nil {
		return beacon.Result{}, context.Cause(ctx)
	}
	m.use.RLock()
	defer m.use.RUnlock()
	if m.closed {
		return beacon.Result{}, beacon.Errorf(beacon.Internal, "module %s is closed", m.name)
	}
	var inputs []string
	if job.Source != "" {
		inputs = append(inputs, job.Source)
	}
	files := guestfs.New(job.Dir, guestfs.Config{Limits: m.limits.Files, ReadOnly: inputs})
	deadline, _ := ctx.Deadline()
	item := hostfuncs.NewItem(job, files, m.config, deadline, m.limits.Item)
	job.Account.Ran(m.digest)
	if m.brokers != nil {
		item.Reach(m.brokers(job))
	}
	defer func() {
		if err := item.Close(); err != nil {
			m.log.Warn("closing a guest's files", "module", m.name, "item", job.Item.Hash, "err", err)
		}
	}()
	cfg, err := m.process(job, files, item)
	if err != nil {
		return beacon.Result{}, err
	}
	if closer, ok := cfg.Stdin.(io.Closer); ok {
		defer closer.Close()
	}
	process := wasi.NewProcess(cfg)
	run := "beacon_execute"
	if m.entry.command {
		run = "_start"
	}
	inner, release := m.graceful(ctx, item)
	defer release()
	err = m.guest(inner, job, item, process, run)
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
		return item.Result(int(int32(code))), nil
	}
	if limit := files.Limit(); limit != nil && !beacon.CodeOf(err).Limit() {
		err = m.fileLimit(limit)
	}
	return beacon.Result{Log: item.Log()}, err
}

func (m *Module) fileLimit(limit error) error {
	return beacon.Errorf(beacon.FileLimit, "module %s: %w; raise the provider's Files limits", m.name, limit)
}

// cancelGrace is what a guest that asks whether it is cancelled gets to end by
// itself. The deadline has no grace.
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
			wait := time.NewTimer(cancelGrace)
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

// process decides what a guest sees as a WASI program.
func (m *Module) process(job *beacon.Job, files *guestfs.FS, item *hostfuncs.Item) (wasi.Config, error) {
	cfg := wasi.Config{
		Args:     []string{m.name, job.Item.Action},
		Env:      environment(job),
		Stdout:   item.Stdout(),
		Stderr:   item.Stderr(),
		FS:       files,
		Preopens: []string{hostfuncs.WorkDir, "/"},
	}
	if !m.entry.command {
		return cfg, nil
	}
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

func environment(job *beacon.Job) []string {
	env := []string{
		"PWD=" + hostfuncs.WorkDir,
		"TMPDIR=" + hostfuncs.WorkDir,
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

// guest runs one function of a new instance and says how it ended. The instance
// is gone when it returns.
func (m *Module) guest(ctx context.Context, job *beacon.Job, item *hostfuncs.Item, process *wasi.Process, function string) (err error) {
	memory := &allocator{limit: uint64(m.limits.Memory)}
	defer memory.release()
	// Instances must be closed on this goroutine, after the guest's end.
	defer func() {
		if fault := recover(); fault != nil {
			m.log.Error("the engine failed", "module", m.name, "fault", fmt.Sprint(fault))
			err = beacon.Errorf(beacon.Internal, "module %s: the engine failed", m.name)
		}
	}()
	call := abi.WithState(abi.WithState(ctx, item), process)
	gauge := m.gauge(job)
	call = abi.WithState(call, gauge)
	call = experimental.WithMemoryAllocator(call, memory)
	// Anonymous, so that instances can coexist and none can import another.
	instance, err := m.engine.InstantiateModule(call, m.code, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return m.outcome(ctx, item, process, memory, err)
	}
	defer func() {
		if cerr := instance.Close(context.WithoutCancel(ctx)); cerr != nil {
			m.log.Warn("closing an instance", "module", m.name, "err", cerr)
		}
	}()
	defer func() {
		if limit := m.settle(ctx, gauge, instance, item); limit != nil && (err == nil || errors.Is(err, errExit)) {
			err = limit
		}
	}()
	steps := []struct {
		name string
		wish bool
	}{
		{"_initialize", m.entry.start && !m.entry.command},
		{"beacon_initialize", m.entry.initialize && !m.entry.command},
		{function, true},
		{"beacon_shutdown", m.entry.shutdown && function == "beacon_execute"},
	}
	for _, step := range steps {
		if !step.wish {
			continue
		}
		results, err := instance.ExportedFunction(step.name).Call(call)
		if err != nil {
			return m.outcome(ctx, item, process, memory, err)
		}
		if len(results) > 0 && int32(results[0]) != 0 {
			return m.failed(step.name, int32(results[0]), item, memory)
		}
	}
	return nil
}

// settle accounts for the fuel of a guest that has ended.
func (m *Module) settle(ctx context.Context, g *gauge, instance api.Module, item *hostfuncs.Item) error {
	used, err := g.done(ctx, int64(instance.ExportedGlobal(module.MeterFuel).Get()))
	if g.limit > 0 && g.job != nil {
		item.Note(fmt.Sprintf("fuel: %d of %d units", used, g.limit))
	}
	return err
}

// failed is the outcome of a guest that said so itself.
func (m *Module) failed(function string, code int32, item *hostfuncs.Item, memory *allocator) error {
	if text := item.Failure(); text != "" {
		return beacon.Errorf(beacon.Failed, "%s", beacon.Excerpt(text, 4096))
	}
	if memory.exceeded.Load() {
		return m.outOfMemory()
	}
	return beacon.Errorf(beacon.Failed, "module %s: %s returned %d", m.name, function, code)
}

func (m *Module) outOfMemory() error {
	return beacon.Errorf(beacon.MemoryLimit, "module %s wanted more than %s of memory; raise it with --memory or the provider's Memory",
		m.name, megabytes(m.limits.Memory))
}

// outcome turns the engine's error into ours. What the host knows comes first:
// a guest can choose its exit code, and some codes mean a deadline to the engine.
func (m *Module) outcome(ctx context.Context, item *hostfuncs.Item, process *wasi.Process, memory *allocator, err error) error {
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
	case exited && code != 0 && memory.exceeded.Load():
		return m.outOfMemory()
	case exited && m.entry.command:
		return fmt.Errorf("%w with code %d", errExit, int32(code))
	case exited:
		return beacon.Errorf(beacon.Failed, "module %s exited with code %d", m.name, int32(code))
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case stopped:
		return beacon.Errorf(beacon.Internal, "module %s: %w", m.name, stop.Cause)
	case memory.exceeded.Load():
		return m.outOfMemory()
	}
	reason, stack := trap(err)
	for _, line := range stack {
		item.Note(line)
	}
	if reason == errStack.Error() {
		return beacon.Errorf(beacon.StackLimit, "module %s called too deeply: more than %s of stack", m.name, megabytes(module.StackSize))
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

// trap takes the engine's text apart: its first line is the reason, the rest a
// stack of the guest's functions. Both hold names that the guest chose.
func trap(err error) (reason string, stack []string) {
	reason, rest, _ := strings.Cut(err.Error(), "\n")
	reason, _, _ = strings.Cut(reason, " (recovered by wazero)")
	if strings.HasPrefix(reason, "start function[") { // whose number is ours and not the author's
		_, reason, _ = strings.Cut(reason, " failed: ")
	}
	reason = strings.TrimPrefix(reason, "wasm error: ")
	_, rest, _ = strings.Cut(rest, "wasm stack trace:\n")
	repeated := 0
	for line := range strings.Lines(rest) {
		if len(stack) >= 32 {
			break
		}
		// Modules have no names with us, which the engine puts before a dot.
		line = strings.TrimPrefix(strings.TrimSpace(line), ".")
		if strings.HasPrefix(line, module.MeterModule+".") {
			continue // where the guest ended is said by what follows
		}
		line = "  at " + beacon.Excerpt(original(line), 200)
		if n := len(stack); n > 0 && stack[n-1] == line {
			repeated++
			continue
		}
		stack = fold(stack, repeated)
		stack, repeated = append(stack, line), 0
	}
	stack = fold(stack, repeated)
	return beacon.Excerpt(reason, 500), stack
}
