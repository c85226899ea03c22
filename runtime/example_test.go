package runtime_test

import (
	"context"
	"errors"
	"log"
	"os"
	"os/signal"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/protocol"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/staging"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

// A worker inside of a program, with a provider that is a module. Providers in
// Go go into the same registry.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := serve(ctx, "resize.wasm", "http://localhost:54321"); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, path, server string) (err error) {
	binary, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	engine, err := wasmrt.New(wasmrt.Config{})
	if err != nil {
		return err
	}
	module, err := engine.Load(ctx, wasmrt.Source{Name: "resize", Binary: binary})
	if err != nil {
		return err
	}
	registry, err := beacon.NewRegistry(module)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Shutdown(context.WithoutCancel(ctx))) }()
	store, err := staging.Open("/var/lib/my-program/staging")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	run := executor.New(registry, store, staging.NewDownloader(staging.DownloadConfig{}), executor.Config{})
	dial := ws.Dial(session.Config{
		ServerURL:    server,
		Registration: protocol.NewRegistration("my-program", 4, registry.Capabilities()),
	})
	return worker.Run(ctx, dial, run.Run, worker.Config{MaxConcurrent: 4})
}
