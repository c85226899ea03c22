package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// start makes the state in which nothing has run: the memory with the module's
// data in it.
func (m *Module) start() (*state, error) {
	s := &state{taken: time.Now(), renewal: RandomNone}
	if !m.facts.HasMemory {
		return s, nil
	}
	pieces := make([]snapshot.Piece, len(m.prepared.Data))
	for n, d := range m.prepared.Data {
		pieces[n] = snapshot.Piece{Offset: d.Offset, Bytes: d.Bytes}
	}
	var err error
	if s.image, err = snapshot.NewImage(m.facts.MemoryMin*module.PageSize, pieces...); err != nil {
		return nil, err
	}
	return s, nil
}

// steps that a module is initialised with, in this order.
var initialization = []string{module.EntryStart, "_initialize", "beacon_initialize"}

// initialize runs a guest's initialisation, with fuel of its own: as much as an
// item may have. job is nil if there is none yet.
func (m *Module) initialize(ctx context.Context, job *beacon.Job, i *instance, item *hostfuncs.Item, process *wasi.Process) error {
	steps := initialization
	if m.entry.command {
		steps = steps[:1]
	}
	gauge := m.gauge(job)
	defer gauge.end()
	if err := i.refuel(ctx, gauge); err != nil {
		return err
	}
	call := callContext(ctx, item, process, gauge)
	for _, step := range steps {
		if err := m.step(call, i, item, process, step); err != nil {
			return err
		}
	}
	_, err := gauge.done(ctx, int64(i.fuel.Get())) //nolint:gosec // a number with a sign
	return err
}

// initializes reports whether there is anything to run before the first item.
func (m *Module) initializes() bool {
	entries := m.prepared.Entries
	_, begins := entries[module.EntryStart]
	if m.entry.command {
		return begins
	}
	return begins || m.entry.start || m.entry.initialize || m.manifest.WarmUp != nil
}

// warmUp does the module's warm-up item in an instance that is initialised.
func (m *Module) warmUp(ctx context.Context, i *instance, item *hostfuncs.Item, process *wasi.Process, files *guestfs.FS) error {
	gauge := m.gauge(nil)
	defer gauge.end()
	if err := i.refuel(ctx, gauge); err != nil {
		return err
	}
	process.Attach(files)
	defer process.Attach(m.nothing)
	return m.step(callContext(ctx, item, process, gauge), i, item, process, "beacon_execute")
}

// warmUpFiles is what a warm-up may do with files: nobody has asked for it.
var warmUpFiles = guestfs.Limits{Bytes: 64 << 20, Written: 256 << 20, Entries: 100}

// warmUpJob makes the job of a warm-up, in a directory that the returned function
// removes.
func (m *Module) warmUpJob(w *hostfuncs.WarmUp) (_ *beacon.Job, remove func() error, err error) {
	dir, err := os.MkdirTemp("", "beacon-warm-up")
	if err != nil {
		return nil, nil, fmt.Errorf("make a directory for a warm-up: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("open the directory of a warm-up: %w", err), os.RemoveAll(dir))
	}
	remove = func() error { return errors.Join(root.Close(), os.RemoveAll(dir)) }
	if w.Source != "" {
		if err := root.WriteFile(w.Source, []byte(w.Content), 0o600); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("stage the source of a warm-up: %w", err), remove())
		}
	}
	return &beacon.Job{
		Item:   beacon.WorkItem{Hash: "warm-up", Capability: m.manifest.Capability.Name, Action: w.Action, Settings: w.Settings},
		Tenant: beacon.DefaultTenant, Dir: root, Source: w.Source, Output: w.Output,
	}, remove, nil
}

// A lastingError says why a module's instances cannot be made in the state after
// its initialisation.
type lastingError struct{ reason string }

func (e *lastingError) Error() string { return e.reason }

// snapshot runs the module's initialisation in an instance, and its warm-up if
// it has one, and takes the state that they leave. Errors of type *lastingError
// will not go away.
func (m *Module) snapshot(ctx context.Context) (*state, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Initialize, beacon.Errorf(beacon.Timeout,
		"module %s took longer than %s to initialise itself", m.name, m.limits.Initialize))
	defer cancel()
	if w := m.manifest.WarmUp; w != nil && !m.entry.command {
		s, err := m.snapshotAfter(ctx, w)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		m.log.Warn("a module goes on without its warm-up", "module", m.name, "err", err)
	}
	return m.snapshotAfter(ctx, nil)
}

func (m *Module) snapshotAfter(ctx context.Context, warmUp *hostfuncs.WarmUp) (_ *state, err error) {
	var job *beacon.Job
	var files *guestfs.FS
	item := hostfuncs.NewInitialization(m.config, m.limits.Item)
	if warmUp != nil {
		var remove func() error
		if job, remove, err = m.warmUpJob(warmUp); err != nil {
			return nil, err
		}
		defer func() { m.note(remove()) }()
		var inputs []string
		if job.Source != "" {
			inputs = append(inputs, job.Source)
		}
		files = guestfs.New(job.Dir, guestfs.Config{Limits: warmUpFiles, ReadOnly: inputs})
		deadline, _ := ctx.Deadline()
		item = hostfuncs.NewItem(job, files, m.config, deadline, m.limits.Item)
		defer func() { m.note(item.Close()) }()
	}
	begin := time.Now()
	random := &randomTap{}
	process := wasi.NewProcess(wasi.Config{
		Args: m.args, Env: environment, Stdout: io.Discard, Stderr: item.Stderr(),
		FS: m.nothing, Preopens: preopens, Random: random,
	})
	i, err := m.instantiate(ctx, m.base, snapshot.Compare)
	if err != nil {
		return nil, err
	}
	defer func() { m.note(i.close(ctx)) }()
	var found goRandom
	i.begin(ctx, "")
	err = m.guarded(func() error {
		if err := item.Before(func() error { return m.initialize(ctx, nil, i, item, process) }); err != nil {
			return err
		}
		if i.memory != nil {
			found = findGoRandom(i.memory.Bytes(), random.first)
		}
		if job == nil {
			return nil
		}
		return m.warmUp(ctx, i, item, process, files)
	})
	for _, line := range item.Log() {
		m.log.Info("a module says while it initialises", "module", m.name, "line", line)
	}
	if err != nil {
		return nil, err
	}
	s, err := m.capture(i, process)
	if err != nil {
		return nil, err
	}
	s.random, s.warmedUp, s.took = found, job != nil, time.Since(begin)
	switch {
	case !random.asked:
		s.renewal = RandomNone
	case found.known():
		s.renewal = RandomHost
	case m.entry.reseed:
		s.renewal = RandomGuest
	default:
		s.renewal, s.fixed = RandomAge, true
	}
	return s, nil
}

// capture takes the state of an instance that has initialised.
func (m *Module) capture(i *instance, process *wasi.Process) (_ *state, err error) {
	if i.tainted() {
		return nil, &lastingError{"while initialising, it changes a table or drops a segment, which cannot be put back"}
	}
	flags, ok := process.Flags()
	if !ok {
		return nil, &lastingError{"while initialising, it opens, closes or moves descriptors, which belong to an item"}
	}
	s := &state{initialized: true, taken: time.Now(), globals: []uint64{}, flags: flags}
	for _, g := range i.globals {
		s.globals = append(s.globals, g.Get())
	}
	if i.memory != nil {
		content := i.memory.Bytes()
		if s.image, err = snapshot.NewImage(len(content), snapshot.Piece{Bytes: content}); err != nil {
			return nil, fmt.Errorf("keep the memory of module %s: %w", m.name, err)
		}
	}
	return s, nil
}
