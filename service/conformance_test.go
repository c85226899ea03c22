package service_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/service"
)

// A capability of an application is a provider.
func TestCapabilityConformance(t *testing.T) {
	wait := func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
		<-ctx.Done()
		return beacon.Result{}, context.Cause(ctx)
	}
	double := func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		n, err := job.Item.Settings.Int("N", 1)
		return beacon.Result{Outputs: beacon.Outputs{beacon.OutputResult: 2 * n}}, err
	}
	beacontest.TestProvider(t, func(*testing.T) beacon.Provider {
		return service.Capability{Name: "Math", Actions: []service.Action{
			{Name: "Double", Handler: double, Settings: []beacon.Setting{{Name: "N", DataType: "Number", Required: true}}},
			{Name: "Wait", Handler: wait},
		}}
	}, beacontest.Suite{
		Cases: map[string]beacontest.Case{
			"doubles": {Settings: map[string]any{"N": "21"}, Check: func(t *testing.T, r beacon.Result, _ *os.Root) {
				require.EqualValues(t, 42, r.Outputs["Result"])
			}},
			"not a number": {Settings: map[string]any{"N": "many"}, Fails: true},
		},
		Endless: beacontest.Case{Action: "Wait"},
	})
}
