// Command probe is a provider for the test of the SDK inside of WebAssembly.
package main

import (
	"errors"
	"strings"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

var initialized bool

func init() {
	guest.Serve(guest.Provider{
		Name: "probe", Capability: "Probe",
		Initialize: func() error { initialized = true; return nil },
		Actions: []guest.Action{
			{Name: "Echo", Settings: []guest.Setting{{Name: "Text"}, {Name: "Times", Type: guest.Integer, Default: "1"}}, Run: echo},
			{Name: "Fail", Run: func(*guest.Item) error { return errors.New("no disk") }},
			{Name: "Exit", Run: func(*guest.Item) error { return guest.Exit(3, "bad picture") }},
			{Name: "Panic", Run: func(*guest.Item) error { var none []int; _ = none[len(none)]; return nil }},
			{Name: "Copy", Run: func(item *guest.Item) error {
				b, err := item.ReadSource()
				if err != nil {
					return err
				}
				return item.WriteOutput([]byte(strings.ToUpper(string(b))))
			}},
		},
	})
}

func echo(item *guest.Item) error {
	item.Set("Hash", item.Hash)
	item.Set("Initialized", initialized)
	item.Set("Size", len(item.Text("Text")))
	item.Result(strings.Repeat(item.Text("Text"), int(item.Int("Times"))))
	item.Progress(50, "half")
	item.Step(1, 2, "one")
	item.Log("logged")
	config, ok, err := item.Config("Host")
	item.Set("Config", config)
	item.Set("HasConfig", ok)
	if left, ok := item.Remaining(); ok {
		item.Set("Remaining", left.Milliseconds())
	}
	item.Set("Cancelled", item.Cancelled())
	all, allErr := item.Settings()
	item.Set("All", all)
	return errors.Join(err, allErr)
}

func main() {}
