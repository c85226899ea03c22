package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/engine"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// This file puts Beacon's parts together without work items around them, for the
// same interface as the other engines have: module rewrites, engine runs,
// snapshot restores. What package runtime adds is in the row of whole items.

// A restorable is a guest that was initialised once.
type restorable struct {
	prepared *module.Prepared
	code     engine.Code
	image    *snapshot.Image
	globals  []uint64
	ctx      context.Context
}

// fuel is what a guest gets at a time, in units of 16 instructions.
const fuel = 128 << 10

func newRestorable(guest string) (*restorable, error) {
	binary, err := wasm(guest, "plain")
	if err != nil {
		return nil, err
	}
	g := &restorable{ctx: abi.WithState(background, wasi.NewProcess(wasi.Config{}))}
	if g.prepared, err = module.Prepare(binary, module.Options{}, "_initialize", "warm"); err != nil {
		return nil, err
	}
	if g.prepared.Lasting != "" {
		return nil, errors.New(g.prepared.Lasting)
	}
	i64 := abi.TypeI64
	meter := abi.Library{Name: module.MeterModule, Functions: []abi.Native{{
		Name: module.MeterRefill, Params: []abi.ValueType{i64, i64}, Results: []abi.ValueType{i64},
		Call: func(ctx context.Context, _ abi.Memory, stack []uint64) {
			if err := ctx.Err(); err != nil {
				panic(&abi.Stop{Cause: err})
			}
			stack[0] = fuel
		},
	}}}
	if g.code, err = (engine.Wazero{}).Compile(background, g.prepared.Binary, []abi.Library{wasi.Interface().Library(), meter}, "", false); err != nil {
		return nil, err
	}
	var pieces []snapshot.Piece
	for _, d := range g.prepared.Data {
		pieces = append(pieces, snapshot.Piece{Offset: d.Offset, Bytes: d.Bytes})
	}
	if g.image, err = snapshot.NewImage(g.prepared.Facts.MemoryMin*module.PageSize, pieces...); err != nil {
		return nil, err
	}
	// Initialise, do an item, and keep what is there then.
	i, err := g.instance()
	if err != nil {
		return nil, err
	}
	call := i.guest.Function(module.ExportCall)
	for _, entry := range []string{"_initialize", "warm"} {
		if number, ok := g.prepared.Entries[entry]; ok {
			if err := call.Call(g.ctx, []uint64{uint64(number)}); err != nil {
				return nil, fmt.Errorf("%s: %w", entry, err)
			}
		}
	}
	before := g.image
	if g.image, err = snapshot.NewImage(i.memory.Size(), snapshot.Piece{Bytes: i.memory.Bytes()}); err != nil {
		return nil, err
	}
	for _, global := range i.globals {
		g.globals = append(g.globals, global.Get())
	}
	return g, errors.Join(i.guest.Close(background), i.memory.Close(), before.Close())
}

// A restorableInstance has its functions looked up.
type restorableInstance struct {
	of         *restorable
	guest      engine.Instance
	memory     *snapshot.Memory
	globals    []engine.Global
	fuel       engine.Global
	taint      engine.Global
	marks      engine.Global
	touched    uint64 // by the host, as marks
	alloc, run engine.Function
	stack      [2]uint64
}

func (g *restorable) instance() (*restorableInstance, error) {
	memory, err := g.image.NewMemory(256<<20, g.image.Methods()[0])
	if err != nil {
		return nil, err
	}
	guest, err := g.code.Instantiate(background, memory)
	if err != nil {
		return nil, err
	}
	i := &restorableInstance{
		of: g, guest: guest, memory: memory, fuel: guest.Global(module.MeterFuel), taint: guest.Global(module.ExportTaint),
		marks: guest.Global(module.ExportMarks),
		alloc: guest.Function("alloc"), run: guest.Function("run"),
	}
	for n, global := range g.prepared.Globals {
		i.globals = append(i.globals, guest.Global(global.Export))
		if g.globals != nil {
			i.globals[n].Set(g.globals[n])
		}
	}
	return i, nil
}

// restore puts the instance back to what it was after initialisation.
func (i *restorableInstance) restore() error {
	if i.taint != nil && i.taint.Get() != 0 {
		return errors.New("it cannot be put back")
	}
	size := i.memory.Size()
	if err := i.restoreMemory(); err != nil {
		return err
	}
	if i.memory.Size() != size && !i.guest.Resized() {
		return errors.New("its memory cannot be made smaller")
	}
	for n, global := range i.globals {
		global.Set(i.of.globals[n])
	}
	i.fuel.Set(fuel)
	return nil
}

func (i *restorableInstance) restoreMemory() error {
	if i.marks == nil {
		return i.memory.Restore()
	}
	marks := i.marks.Get() | i.touched
	i.marks.Set(0)
	i.touched = 0
	return i.memory.RestoreMarked(marks, i.of.prepared.Granule, module.MarkSlack)
}

func (i *restorableInstance) item(ctx context.Context, out []byte) ([]byte, error) {
	i.stack[0] = uint64(len(input))
	if err := i.alloc.Call(ctx, i.stack[:]); err != nil {
		return out, err
	}
	p := int(uint32(i.stack[0]))
	if memory := i.memory.Bytes(); p+len(input) > len(memory) || copy(memory[p:], input) < len(input) {
		return out, errors.New("alloc returned nonsense")
	}
	if granule := i.of.prepared.Granule; granule > 0 {
		for at := p; at < p+len(input)+granule; at += granule {
			i.touched |= 1 << (min(at, p+len(input)-1) / granule)
		}
	}
	i.stack[0], i.stack[1] = uint64(p), uint64(len(input))
	if err := i.run.Call(ctx, i.stack[:]); err != nil {
		return out, err
	}
	memory, at, n := i.memory.Bytes(), int(i.stack[0]>>32), int(uint32(i.stack[0]))
	if at+n > len(memory) {
		return out, errors.New("run returned nonsense")
	}
	return append(out[:0], memory[at:at+n]...), nil
}

// The parts of an item: what the guest does, and what there is to do after one
// that has changed nothing. What is left is for the pages that are copied.
const (
	partGuest = 1 << iota
	partRestore
)

func restoredItems(guest string, goroutines int) (contender, func(), error) {
	return partOfItems(partGuest|partRestore)(guest, goroutines)
}

func partOfItems(parts int) func(string, int) (contender, func(), error) {
	return func(guest string, goroutines int) (contender, func(), error) {
		return makeItems(guest, goroutines, parts)
	}
}

func makeItems(guest string, goroutines, parts int) (contender, func(), error) {
	g, err := newRestorable(guest)
	if err != nil {
		return nil, nil, err
	}
	pool := make(chan *restorableInstance, goroutines)
	for range goroutines {
		i, err := g.instance()
		if err != nil {
			return nil, nil, err
		}
		pool <- i
	}
	return func(n int) error {
		i := <-pool
		defer func() { pool <- i }()
		// One that can end, as all contexts of items.
		ctx, cancel := context.WithCancel(g.ctx)
		defer cancel()
		var out []byte
		var err error
		for done := range n {
			if done == 0 || parts&partGuest != 0 {
				if out, err = i.item(ctx, out); err != nil {
					return err
				}
			}
			if parts&partRestore != 0 {
				err = i.restore()
			} else {
				i.fuel.Set(fuel)
			}
			if err != nil {
				return err
			}
		}
		return checked(out, nil)
	}, func() { _ = g.code.Close(background) }, nil
}
