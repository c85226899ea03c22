package ws_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
)

// An output file goes beside of its result where the server takes it, and only
// there; otherwise it is in the result.
func TestUpload(t *testing.T) {
	tests := map[string]struct {
		flavour   coordinator.Flavour
		operation string
		attempt   int
		file      beacon.File
		size      int
		beside    bool // it arrives as a file
		inside    bool // it arrives as text
	}{
		"operation":             {coordinator.HEAD, "OPR-1", 1, beacon.File{Upload: true}, 100_000, true, false},
		"operation, empty file": {coordinator.HEAD, "OPR-1", 1, beacon.File{Upload: true}, 0, true, false},
		"no operation":          {coordinator.HEAD, "", 1, beacon.File{Upload: true}, 100, false, true},
		"March 2026":            {coordinator.ERA, "OPR-1", 0, beacon.File{Upload: true}, 100, false, true},
		"not asked for":         {coordinator.HEAD, "OPR-1", 1, beacon.File{}, 100, false, true},
		"optional, not taken":   {coordinator.HEAD, "", 1, beacon.File{Upload: true, Optional: true}, 100, false, false},
		"too large for a frame": {coordinator.HEAD, "OPR-1", 1, beacon.File{Upload: true}, 300_000, false, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Flavour: tt.flavour})
			cfg := config(c)
			cfg.MaxFrame = 200_000
			s := open(t, cfg)
			c.Push(beacon.WorkItem{Hash: "wi", Capability: "Shell", OperationHash: tt.operation, Attempt: tt.attempt, Settings: beacon.Settings{}})
			_, err := s.Next(within(t))
			require.NoError(t, err)
			content := bytes.Repeat([]byte{0xff, 'x'}, tt.size/2)
			tt.file.Path, tt.file.Name, tt.file.Size = filepath.Join(t.TempDir(), "f"), "res é.bin", int64(len(content))
			require.NoError(t, os.WriteFile(tt.file.Path, content, 0o600))
			require.NoError(t, s.Complete(within(t), "wi", beacon.Result{Outputs: beacon.Outputs{"OutputData": tt.file, "OutputFilename": "res é.bin"}}))
			r, err := c.Report(within(t))
			require.NoError(t, err)
			require.Equal(t, "res é.bin", r.Result.Outputs["OutputFilename"])
			data, inside := r.Result.Outputs["OutputData"]
			require.Equal(t, tt.inside, inside)
			if inside {
				require.Equal(t, base64.StdEncoding.EncodeToString(content), data)
			}
			require.Equal(t, tt.beside, c.File("wi", "res é.bin") != nil)
			if tt.beside {
				require.True(t, bytes.Equal(content, c.File("wi", "res é.bin")))
				announcement, err := protocol.EncodeUpload("wi", "res é.bin", int64(len(content)))
				require.NoError(t, err)
				frames := c.Frames()
				require.Contains(t, frames, string(announcement))
				require.True(t, strings.HasPrefix(frames[len(frames)-1], `{"Action":"WorkComplete"`), "the result comes after the file")
			}
		})
	}
}

// Nothing comes between an announcement and its file, whatever else goes on.
func TestUploadsAreAdjacent(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	s := open(t, config(c))
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, bytes.Repeat([]byte("x"), 500_000), 0o600))
	var all sync.WaitGroup
	for i := range 20 {
		hash := fmt.Sprint("wi-", i)
		c.Push(beacon.WorkItem{Hash: hash, Capability: "Shell", OperationHash: "OPR", Attempt: 1, Settings: beacon.Settings{}})
		_, err := s.Next(within(t))
		require.NoError(t, err)
		all.Go(func() {
			for range 5 {
				if err := s.Progress(within(t), hash, beacon.Progress{Message: "here"}); err != nil {
					t.Error(err)
				}
			}
			f := beacon.File{Path: path, Name: hash, Size: 500_000, Upload: true}
			if err := s.Complete(within(t), hash, beacon.Result{Outputs: beacon.Outputs{"OutputData": f}}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i := range 20 {
		hash := fmt.Sprint("wi-", i)
		require.Len(t, c.File(hash, hash), 500_000)
	}
}

// A file that is gone, or shorter than it was, is no reason to end the link: the
// server refuses what cannot be sent.
func TestUploadOfADamagedFile(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Generous: true})
	s := open(t, config(c))
	c.Push(beacon.WorkItem{Hash: "wi", Capability: "Shell", OperationHash: "OPR", Attempt: 1, Settings: beacon.Settings{}})
	_, err := s.Next(within(t))
	require.NoError(t, err)
	err = s.Complete(within(t), "wi", beacon.Result{Outputs: beacon.Outputs{"OutputData": beacon.File{Path: filepath.Join(t.TempDir(), "gone"), Name: "f", Size: 7, Upload: true}}})
	require.Error(t, err)
	require.NoError(t, s.Fail(within(t), "wi", "the output is gone", nil))
	r, err := c.Report(within(t))
	require.NoError(t, err)
	require.True(t, r.Failed)
}
