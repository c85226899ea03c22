package beacontest_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
)

// greeter is the smallest provider that passes the suite.
type greeter struct{}

func (greeter) Capability() beacon.Capability {
	return beacon.Capability{Name: "Greeter", Actions: []beacon.Action{{
		Name: "Greet", Settings: []beacon.Setting{{Name: "Name", DataType: "String", Default: "world"}},
	}, {Name: "Wait"}}}
}

func (greeter) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	switch job.Item.Action {
	case "Greet":
		name := job.Item.Settings.Text("Name")
		if name == "" {
			name = "world"
		}
		job.Progress(beacon.Progress{Percent: 50, HasPercent: true})
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputResult: "hello, " + name, beacon.OutputExitCode: 0}}, nil
	case "Wait":
		<-ctx.Done()
		return beacon.Result{}, context.Cause(ctx)
	}
	return beacon.Result{}, beacon.Errorf(beacon.NotFound, "no action %s", beacon.Excerpt(job.Item.Action, 80))
}

func TestProviderSuite(t *testing.T) {
	beacontest.TestProvider(t, func(*testing.T) beacon.Provider { return greeter{} }, beacontest.Suite{
		Cases: map[string]beacontest.Case{
			"greets": {Action: "Greet", Settings: map[string]any{"Name": "you"}, Check: func(t *testing.T, r beacon.Result, _ *os.Root) {
				require.Equal(t, "hello, you", r.Outputs["Result"])
			}},
		},
		Endless: beacontest.Case{Action: "Wait"},
	})
}

// A provider of one's own and its test: all of it.
func ExampleTestProvider() {
	var t *testing.T // the one of TestGreeter
	beacontest.TestProvider(t, func(*testing.T) beacon.Provider { return greeter{} }, beacontest.Suite{
		Cases:   map[string]beacontest.Case{"greets": {Action: "Greet"}},
		Endless: beacontest.Case{Action: "Wait"},
	})
}

// breaks are what providers do wrong, and the part of the suite that says so.
var breaks = map[string]struct {
	found string
	run   func(ctx context.Context, job *beacon.Job) (beacon.Result, error)
}{
	"panics at a setting that is no text": {"is_asked_nonsense", func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		var name string
		if raw, ok := job.Item.Settings["Name"]; ok {
			if err := json.Unmarshal(raw, &name); err != nil {
				panic(err)
			}
		}
		return beacon.Result{}, nil
	}},
	"panics without settings": {"needs_nothing", func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"Result": job.Item.Settings["Name"][0]}}, nil
	}},
	"hands back what is not JSON": {"does_its_work", func(context.Context, *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"Result": make(chan int)}}, nil
	}},
	"has an exit code that is text": {"does_its_work", func(context.Context, *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputExitCode: "0"}}, nil
	}},
	"succeeds although it is canceled": {"ends_when_it_is_to", func(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
		if job.Item.Action == "Wait" {
			<-ctx.Done()
		}
		return beacon.Result{}, nil
	}},
	"claims more than everything": {"does_its_work", func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		job.Progress(beacon.Progress{Percent: 101, HasPercent: true})
		return beacon.Result{}, nil
	}},
	"takes one at a time": {"does_it_many_at_once", func() func(context.Context, *beacon.Job) (beacon.Result, error) {
		var running atomic.Int32
		crowd := make(chan struct{}, 100)
		return func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
			if running.Add(1) > 1 {
				crowd <- struct{}{}
				return beacon.Result{}, errors.New("busy")
			}
			select {
			case <-crowd:
			case <-ctx.Done():
			}
			return beacon.Result{}, nil
		}
	}()},
}

type broken struct {
	greeter
	run func(ctx context.Context, job *beacon.Job) (beacon.Result, error)
}

func (b broken) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	return b.run(ctx, job)
}

// TestBroken is run by TestSuiteFinds, in a process of its own.
func TestBroken(t *testing.T) {
	b, ok := breaks[os.Getenv("BEACONTEST_BROKEN")]
	if !ok {
		t.Skip("nothing is broken")
	}
	beacontest.TestProvider(t, func(*testing.T) beacon.Provider { return broken{run: b.run} }, beacontest.Suite{
		Cases:   map[string]beacontest.Case{"greets": {Action: "Greet", Settings: map[string]any{"Name": "you"}}},
		Endless: beacontest.Case{Action: "Wait"},
	})
}

func TestSuiteFinds(t *testing.T) {
	for name, b := range breaks {
		t.Run(name, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestBroken$/^"+b.found+"$")
			cmd.Env = append(os.Environ(), "BEACONTEST_BROKEN="+name)
			said, err := cmd.CombinedOutput()
			require.Error(t, err, "the suite found nothing:\n%s", said)
			require.Contains(t, string(said), "--- FAIL: TestBroken/"+b.found)
			require.NotContains(t, string(said), "panic:")
		})
	}
}
