package main

/*
#include <stddef.h>
#include <stdint.h>
// Of wasmtime's C interface; the Go package, which brings the library, does not
// offer its pooling.
typedef struct wasm_config_t wasm_config_t;
typedef struct wasmtime_pooling_allocation_config_t pool_t;
pool_t *wasmtime_pooling_allocation_config_new(void);
void wasmtime_pooling_allocation_config_delete(pool_t *);
void wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool_t *, size_t);
void wasmtime_pooling_allocation_config_table_keep_resident_set(pool_t *, size_t);
void wasmtime_pooling_allocation_config_max_unused_warm_slots_set(pool_t *, uint32_t);
void wasmtime_pooling_allocation_config_total_core_instances_set(pool_t *, uint32_t);
void wasmtime_pooling_allocation_config_total_memories_set(pool_t *, uint32_t);
void wasmtime_pooling_allocation_config_total_tables_set(pool_t *, uint32_t);
void wasmtime_pooling_allocation_config_table_elements_set(pool_t *, size_t);
void wasmtime_pooling_allocation_config_max_memory_size_set(pool_t *, size_t);
void wasmtime_pooling_allocation_config_max_core_instance_size_set(pool_t *, size_t);
void wasmtime_pooling_allocation_strategy_set(wasm_config_t *, const pool_t *);

static void pooling(void *config, size_t resident) {
	pool_t *p = wasmtime_pooling_allocation_config_new();
	wasmtime_pooling_allocation_config_total_core_instances_set(p, 100);
	wasmtime_pooling_allocation_config_total_memories_set(p, 100);
	wasmtime_pooling_allocation_config_total_tables_set(p, 100);
	wasmtime_pooling_allocation_config_table_elements_set(p, 20000);
	wasmtime_pooling_allocation_config_max_memory_size_set(p, 256 << 20);
	wasmtime_pooling_allocation_config_max_core_instance_size_set(p, 4 << 20);
	wasmtime_pooling_allocation_config_max_unused_warm_slots_set(p, 100);
	wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(p, resident);
	wasmtime_pooling_allocation_config_table_keep_resident_set(p, resident);
	wasmtime_pooling_allocation_strategy_set(config, p);
	wasmtime_pooling_allocation_config_delete(p);
}
*/
import "C"

import (
	"errors"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v39"
)

const noPool = -1

func wasmtimeRows() []row {
	return []row{
		{name: "wasmtime-go, new instance", isolation: "nothing", make: wasmtimeFresh("plain", noPool)},
		{name: "wasmtime-go, pooling (C API)", isolation: "nothing", make: wasmtimeFresh("plain", 0), pairs: true},
		{name: "wasmtime-go, pooling, 4 MiB resident", isolation: "nothing", make: wasmtimeFresh("plain", 4<<20)},
		{name: "wasmtime-go, pre-initialised, new instance", isolation: "nothing", make: wasmtimeFresh("wizened", noPool)},
		{name: "wasmtime-go, pre-initialised, pooling (C API)", isolation: "nothing", make: wasmtimeFresh("wizened", 0), pairs: true},
		{name: "wasmtime-go, pre-initialised, pooling, 4 MiB resident", isolation: "nothing", make: wasmtimeFresh("wizened", 4<<20), pairs: true},
		{name: "wasmtime-go, reused", isolation: "everything", make: wasmtimeReused},
	}
}

type wasmtimeGuest struct {
	engine      *wasmtime.Engine
	module      *wasmtime.Module
	linker      *wasmtime.Linker
	initialised bool
}

func newWasmtime(guest, abi string, resident int) (*wasmtimeGuest, error) {
	binary, err := wasm(guest, abi)
	if err != nil {
		return nil, err
	}
	config := wasmtime.NewConfig()
	if resident != noPool {
		// The only field is the pointer to wasmtime's own configuration.
		C.pooling(*(*unsafe.Pointer)(unsafe.Pointer(config)), C.size_t(resident))
	}
	g := &wasmtimeGuest{engine: wasmtime.NewEngineWithConfig(config), initialised: abi == "wizened"}
	if g.module, err = wasmtime.NewModule(g.engine, binary); err != nil {
		return nil, err
	}
	g.linker = wasmtime.NewLinker(g.engine)
	return g, g.linker.DefineWasi()
}

type wasmtimeInstance struct {
	store      *wasmtime.Store
	memory     *wasmtime.Memory
	alloc, run *wasmtime.Func
}

func (g *wasmtimeGuest) instance() (*wasmtimeInstance, error) {
	store := wasmtime.NewStore(g.engine)
	store.SetWasi(wasmtime.NewWasiConfig())
	i, err := g.linker.Instantiate(store, g.module)
	if err != nil {
		return nil, err
	}
	if !g.initialised {
		if f := i.GetFunc(store, "_initialize"); f != nil {
			if _, err := f.Call(store); err != nil {
				return nil, err
			}
		}
	}
	return &wasmtimeInstance{store, i.GetExport(store, "memory").Memory(), i.GetFunc(store, "alloc"), i.GetFunc(store, "run")}, nil
}

func (i *wasmtimeInstance) item(out []byte) ([]byte, error) {
	v, err := i.alloc.Call(i.store, int32(len(input)))
	if err != nil {
		return out, err
	}
	p, ok := v.(int32)
	memory := i.memory.UnsafeData(i.store)
	if !ok || int(p)+len(input) > len(memory) {
		return out, errors.New("alloc returned nonsense")
	}
	copy(memory[p:], input)
	if v, err = i.run.Call(i.store, p, int32(len(input))); err != nil {
		return out, err
	}
	r, ok := v.(int64)
	memory = i.memory.UnsafeData(i.store)
	at, n := uint32(r>>32), uint32(r)
	if !ok || uint64(at)+uint64(n) > uint64(len(memory)) {
		return out, errors.New("run returned nonsense")
	}
	return append(out[:0], memory[at:at+n]...), nil
}

func wasmtimeFresh(abi string, resident int) func(string, int) (contender, func(), error) {
	return func(guest string, _ int) (contender, func(), error) {
		g, err := newWasmtime(guest, abi, resident)
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
				if out, err = i.item(out); err != nil {
					return err
				}
				i.store.Close()
			}
			return checked(out, nil)
		}, func() {}, nil
	}
}

func wasmtimeReused(guest string, _ int) (contender, func(), error) {
	g, err := newWasmtime(guest, "plain", noPool)
	if err != nil {
		return nil, nil, err
	}
	i, err := g.instance()
	if err != nil {
		return nil, nil, err
	}
	return func(n int) error {
		var out []byte
		var err error
		for range n {
			if out, err = i.item(out); err != nil {
				return err
			}
		}
		return checked(out, nil)
	}, func() { i.store.Close() }, nil
}
