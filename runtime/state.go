package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// start makes the state in which nothing has run: the memory with the module's
// data in it.
func (m *Module) start() (*state, error) {
	s := &state{taken: time.Now()}
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
	s.method = s.image.Methods()[0]
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
	return begins || m.entry.start || m.entry.initialize
}

// A lastingError says why a module's instances cannot be made in the state after
// its initialisation.
type lastingError struct{ reason string }

func (e *lastingError) Error() string { return e.reason }

// snapshot runs the module's initialisation in an instance, and takes the state
// that it leaves. Errors of type *lastingError will not go away.
func (m *Module) snapshot(ctx context.Context) (_ *state, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.limits.Initialize, beacon.Errorf(beacon.Timeout,
		"module %s took longer than %s to initialise itself", m.name, m.limits.Initialize))
	defer cancel()
	item := hostfuncs.NewInitialization(m.config, m.limits.Item)
	random := &randomTap{}
	process := wasi.NewProcess(wasi.Config{
		Args: m.args, Env: environment, Stdout: io.Discard, Stderr: item.Stderr(),
		FS: m.nothing, Preopens: preopens, Random: random,
	})
	i, err := m.instantiate(ctx, m.base)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, i.close(ctx)) }()
	i.begin(ctx, "")
	err = m.guarded(func() error { return m.initialize(ctx, nil, i, item, process) })
	for _, line := range item.Log() {
		m.log.Info("a module says while it initialises", "module", m.name, "line", line)
	}
	if err != nil {
		return nil, err
	}
	if i.tainted() {
		return nil, &lastingError{"while initialising, it changes a table or drops a segment, which cannot be put back"}
	}
	flags, ok := process.Flags()
	if !ok {
		return nil, &lastingError{"while initialising, it opens, closes or moves descriptors, which belong to an item"}
	}
	s := &state{initialized: true, taken: time.Now(), method: m.base.method, globals: []uint64{}, flags: flags}
	for _, g := range i.globals {
		s.globals = append(s.globals, g.Get())
	}
	if i.memory != nil {
		content := i.memory.Bytes()
		s.random = findGoRandom(content, random.first)
		if s.image, err = snapshot.NewImage(len(content), snapshot.Piece{Bytes: content}); err != nil {
			return nil, fmt.Errorf("keep the memory of module %s: %w", m.name, err)
		}
	}
	s.fixed = random.asked && !s.random.known()
	return s, nil
}
