package main

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

var background = context.Background()

func wazeroRows() []row {
	return []row{
		{name: "wazero, new instance", isolation: "nothing", make: wazeroFresh(false), pairs: true},
		{name: "wazero, reused", isolation: "everything", make: wazeroReused(false), pairs: true},
		{name: "wazero, reused, its interruption on", isolation: "everything", make: wazeroReused(true)},
	}
}

type wazeroGuest struct {
	runtime wazero.Runtime
	code    wazero.CompiledModule
	config  wazero.ModuleConfig
}

func newWazero(guest string, interruptible bool) (*wazeroGuest, error) {
	binary, err := wasm(guest, "plain")
	if err != nil {
		return nil, err
	}
	r := wazero.NewRuntimeWithConfig(background, wazero.NewRuntimeConfig().WithMemoryLimitPages(4096).WithCloseOnContextDone(interruptible))
	wasi_snapshot_preview1.MustInstantiate(background, r)
	code, err := r.CompileModule(background, binary)
	if err != nil {
		return nil, err
	}
	return &wazeroGuest{r, code, wazero.NewModuleConfig().WithName("").WithStartFunctions("_initialize").
		WithSysWalltime().WithSysNanotime().WithRandSource(rand.Reader)}, nil
}

// A wazeroInstance has its functions looked up.
type wazeroInstance struct {
	module     api.Module
	alloc, run api.Function
	stack      [2]uint64
}

func (g *wazeroGuest) instance() (*wazeroInstance, error) {
	m, err := g.runtime.InstantiateModule(background, g.code, g.config)
	if err != nil {
		return nil, err
	}
	return &wazeroInstance{module: m, alloc: m.ExportedFunction("alloc"), run: m.ExportedFunction("run")}, nil
}

func (i *wazeroInstance) item(ctx context.Context, out []byte) ([]byte, error) {
	i.stack[0] = uint64(len(input))
	if err := i.alloc.CallWithStack(ctx, i.stack[:]); err != nil {
		return out, err
	}
	p := uint32(i.stack[0])
	if !i.module.Memory().Write(p, input) {
		return out, errors.New("alloc returned nonsense")
	}
	i.stack[0], i.stack[1] = uint64(p), uint64(len(input))
	if err := i.run.CallWithStack(ctx, i.stack[:]); err != nil {
		return out, err
	}
	b, ok := i.module.Memory().Read(uint32(i.stack[0]>>32), uint32(i.stack[0]))
	if !ok {
		return out, errors.New("run returned nonsense")
	}
	return append(out[:0], b...), nil
}

func wazeroFresh(interruptible bool) func(string, int) (contender, func(), error) {
	return func(guest string, _ int) (contender, func(), error) {
		g, err := newWazero(guest, interruptible)
		if err != nil {
			return nil, nil, err
		}
		return func(n int) error {
			var out []byte
			for range n {
				i, err := g.instance()
				if err != nil {
					return err
				}
				if out, err = i.item(background, out); err != nil {
					return err
				}
				if err := i.module.Close(background); err != nil {
					return err
				}
			}
			return checked(out, nil)
		}, func() { _ = g.runtime.Close(background) }, nil
	}
}

func wazeroReused(interruptible bool) func(string, int) (contender, func(), error) {
	return func(guest string, goroutines int) (contender, func(), error) {
		g, err := newWazero(guest, interruptible)
		if err != nil {
			return nil, nil, err
		}
		pool := make(chan *wazeroInstance, goroutines)
		for range goroutines {
			i, err := g.instance()
			if err != nil {
				return nil, nil, err
			}
			pool <- i
		}
		ctx, cancel := background, func() {}
		if interruptible {
			// Without a context that can end, it does not look.
			ctx, cancel = context.WithCancel(background)
		}
		return func(n int) error {
			i := <-pool
			defer func() { pool <- i }()
			var out []byte
			var err error
			for range n {
				if out, err = i.item(ctx, out); err != nil {
					return err
				}
			}
			return checked(out, nil)
		}, func() { cancel(); _ = g.runtime.Close(background) }, nil
	}
}
