package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

func beaconRows() []row {
	return []row{
		{name: "**Beacon, restored instance**, metered", isolation: "nothing", make: restoredItems, pairs: true},
		{name: "– of that, metered and not put back", isolation: "everything", make: partOfItems(partGuest)},
		{name: "– of that, put back when nothing has changed", isolation: "", make: partOfItems(partRestore)},
		{name: "Beacon, whole work item, restored", isolation: "nothing", make: beaconItems(wasmrt.Pool{}), pairs: true},
		{name: "Beacon, whole work item, new instance that initialises itself", isolation: "nothing", make: beaconItems(wasmrt.Pool{Fresh: true})},
	}
}

// A beaconGuest is a loaded module with a work item for it.
type beaconGuest struct {
	module *wasmrt.Module
	root   *os.Root
	dir    string
}

func newBeacon(guest string, cache string, pool wasmrt.Pool) (*beaconGuest, error) {
	binary, err := wasm(guest, "beacon")
	if err != nil {
		return nil, err
	}
	r, err := wasmrt.New(wasmrt.Config{CacheDir: cache, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))})
	if err != nil {
		return nil, err
	}
	m, err := r.Load(background, wasmrt.Source{
		Name: guest, Binary: binary, Pool: pool,
		WarmUp: &hostfuncs.WarmUp{Action: "Execute", Settings: settings()},
	})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "items")
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	return &beaconGuest{m, root, dir}, err
}

func (g *beaconGuest) close() {
	_ = g.module.Close(background)
	_ = g.root.Close()
	_ = os.RemoveAll(g.dir)
}

func settings() beacon.Settings { return beacon.Settings{"Input": input} }

func (g *beaconGuest) job() *beacon.Job {
	return &beacon.Job{
		Item: beacon.WorkItem{Hash: "hash", Capability: "Bench", Action: "Execute", Settings: settings()},
		Dir:  g.root,
	}
}

func beaconItems(pool wasmrt.Pool) func(string, int) (contender, func(), error) {
	return func(guest string, _ int) (contender, func(), error) {
		g, err := newBeacon(guest, "", pool)
		if err != nil {
			return nil, nil, err
		}
		return func(n int) error {
			job := g.job()
			ctx, cancel := context.WithCancel(background)
			defer cancel()
			var result beacon.Result
			var err error
			for range n {
				if result, err = g.module.Run(ctx, job); err != nil {
					return err
				}
			}
			raw, ok := result.Outputs[beacon.OutputResult].(json.RawMessage)
			if !ok {
				return fmt.Errorf("the result is %T", result.Outputs[beacon.OutputResult])
			}
			return checked(raw, nil)
		}, g.close, nil
	}
}
