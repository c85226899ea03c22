package filesystem_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/builtin/filesystem"
)

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "in.txt"), "hello")
	beacontest.TestProvider(t, func(t *testing.T) beacon.Provider {
		p, err := filesystem.New(filesystem.Config{AllowedPaths: []string{dir}, Actions: everything})
		require.NoError(t, err)
		return p
	}, beacontest.Suite{
		Cases: map[string]beacontest.Case{
			"reads": {Action: "Read", Settings: map[string]any{"FilePath": filepath.Join(dir, "in.txt")}, Check: func(t *testing.T, r beacon.Result, _ *os.Root) {
				require.Equal(t, "hello", r.Outputs["Result"])
			}},
			"finds nothing":  {Action: "Read", Settings: map[string]any{"FilePath": filepath.Join(dir, "absent")}, Fails: true},
			"is not allowed": {Action: "Read", Settings: map[string]any{"FilePath": "/etc/hostname"}, Fails: true},
		},
	})
}
