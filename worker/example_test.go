package worker_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

// A worker in a program of one's own: one capability, one server.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	greet := beacon.Capability{Name: "Greeter", Actions: []beacon.Action{{Name: "Greet"}}}
	dial := ws.Dial(session.Config{
		ServerURL:    "http://localhost:54321",
		Registration: protocol.NewRegistration("greeter", 4, []beacon.Capability{greet}),
	})
	execute := func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputResult: "Hello, " + item.Settings.Text("Name")}}, nil
	}
	if err := worker.Run(ctx, dial, execute, worker.Config{MaxConcurrent: 4}); err != nil {
		log.Fatal(err)
	}
}

// A program's own handlers are tested without a server.
func Example_test() {
	server := beacontest.NewServer()
	server.Push(beacon.WorkItem{Hash: "wi-1", Settings: beacon.Settings{"Name": []byte(`"world"`)}})
	execute := func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputResult: "Hello, " + item.Settings.Text("Name")}}, nil
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- worker.Run(ctx, server.Dial, execute, worker.Config{}) }()
	report, err := server.Report(context.Background())
	fmt.Println(report.Hash, report.Result.Outputs["Result"], err)
	stop()
	fmt.Println(<-done)
	// Output:
	// wi-1 Hello, world <nil>
	// <nil>
}
