package runtime_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// A module is a provider like any other.
func TestConformance(t *testing.T) {
	binary, err := os.ReadFile(filepath.FromSlash("../cmd/beacon/testdata/modules/digest.wasm"))
	require.NoError(t, err)
	beacontest.TestProvider(t, func(t *testing.T) beacon.Provider {
		engine, err := wasmrt.New(wasmrt.Config{})
		require.NoError(t, err)
		module, err := engine.Load(t.Context(), wasmrt.Source{Name: "digest", Binary: binary})
		require.NoError(t, err)
		return module
	}, beacontest.Suite{
		Cases: map[string]beacontest.Case{
			"digests": {Settings: map[string]any{"Command": "50 alpha beta"}, Check: func(t *testing.T, r beacon.Result, _ *os.Root) {
				require.Equal(t, "070261749ec18bea\n", r.Outputs["StdOut"])
			}},
		},
		Endless: beacontest.Case{Action: "Execute", Settings: map[string]any{"Command": "3600000"}},
	})
}
