//go:build unix

package shell_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/builtin/shell"
)

func TestConformance(t *testing.T) {
	beacontest.TestProvider(t, func(t *testing.T) beacon.Provider {
		p, err := shell.New(shell.Config{})
		require.NoError(t, err)
		return p
	}, beacontest.Suite{
		Cases: map[string]beacontest.Case{
			"prints": {Settings: map[string]any{"Command": "echo", "Parameters": "hello"}, Check: func(t *testing.T, r beacon.Result, _ *os.Root) {
				require.Equal(t, "hello\n", r.Outputs["StdOut"])
			}},
			"reads and writes": {
				Settings: map[string]any{"Command": "tr a-z A-Z <source_file >out"}, Source: []byte("text"), Output: "out",
				Check: func(t *testing.T, _ beacon.Result, dir *os.Root) {
					content, err := dir.ReadFile("out")
					require.NoError(t, err)
					require.Equal(t, "TEXT", string(content))
				},
			},
			"fails": {Settings: map[string]any{"Command": "exit 3"}, Fails: true},
		},
		Endless: beacontest.Case{Action: "Execute", Settings: map[string]any{"Command": "sleep 3600"}},
	})
}
