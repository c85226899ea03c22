package service_test

import (
	"context"
	"log"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/service"
)

// An application that offers one of its functions to an Ultravisor server.
func Example() {
	ctx := context.Background()
	greet := func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputResult: "Hello, " + job.Item.Settings.Text("Name")}}, nil
	}
	app, err := service.New(service.Config{ServerURL: "http://localhost:54321", Name: "my-app"})
	if err == nil {
		err = app.RegisterCapability(ctx, service.Capability{Name: "Greeter", Actions: []service.Action{{Name: "Greet", Handler: greet}}})
	}
	if err == nil {
		err = app.Enable(ctx)
	}
	if err != nil {
		log.Fatal(err)
	}
	// Here the application does what else it does, and at its end:
	if err := app.Disable(ctx); err != nil {
		log.Print(err)
	}
}
