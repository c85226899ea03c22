package worker_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// A file that is an output arrives as text, whatever the way, also at a second
// attempt, and then there is nothing left of it.
func TestFileOutputs(t *testing.T) {
	content := bytes.Repeat([]byte{0xff, 'a', 0}, 1<<20)
	for name, dial := range map[string]func(c *coordinator.Coordinator) transport.Dial{
		"websocket": func(c *coordinator.Coordinator) transport.Dial { return ws.Dial(config(c, 1)) },
		"http":      func(c *coordinator.Coordinator) transport.Dial { return poll.Dial(config(c, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{Sessions: true})
			var refused atomic.Int32
			c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(r.URL.Path, "/Complete") || refused.Add(1) > 1 {
					return false
				}
				coordinator.Discard(r)
				w.WriteHeader(http.StatusServiceUnavailable)
				return true
			})
			folder, dir := t.TempDir(), t.TempDir()
			box, err := outbox.Open(dir, quiet)
			require.NoError(t, err)
			stop := serve(t, dial(c), func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
				f := beacon.File{Path: filepath.Join(folder, item.Hash), Size: int64(len(content)), Name: "out"}
				if err := os.WriteFile(f.Path, content, 0o600); err != nil {
					return beacon.Result{}, err
				}
				if item.Hash == "damaged" {
					f.Size++
				}
				return beacon.Result{Outputs: beacon.Outputs{"OutputData": f, "OutputSize": f.Size}}, nil
			}, worker.Config{Outbox: box})
			push(c, "whole")
			r, err := c.Report(within(t))
			require.NoError(t, err)
			require.Equal(t, base64.StdEncoding.EncodeToString(content), r.Result.Outputs["OutputData"])
			require.EqualValues(t, len(content), r.Result.Outputs["OutputSize"])

			push(c, "damaged")
			r, err = c.Report(within(t))
			require.NoError(t, err)
			require.True(t, r.Failed)
			require.Contains(t, r.Message, "the output file is gone or was cut off")

			require.NoError(t, stop())
			require.NoError(t, box.Close())
			for _, place := range []string{folder, dir} {
				left, err := os.ReadDir(place)
				require.NoError(t, err)
				for _, e := range left {
					require.Equal(t, "lock", e.Name())
				}
			}
		})
	}
}

// A file survives the process with its report.
func TestFileOutputsAfterARestart(t *testing.T) {
	dir, folder := t.TempDir(), t.TempDir()
	box, err := outbox.Open(dir, quiet)
	require.NoError(t, err)
	f := beacon.File{Path: filepath.Join(folder, "f"), Size: 3, Name: "out"}
	require.NoError(t, os.WriteFile(f.Path, []byte("abc"), 0o600))
	require.NoError(t, box.Put(worker.Report{Hash: "a", Result: beacon.Result{Outputs: beacon.Outputs{"OutputData": f}}}))
	require.NoError(t, box.Close())
	require.NoError(t, os.RemoveAll(folder)) // as the next worker does with what a killed one left

	c := coordinator.Start(t, coordinator.Config{})
	push(c, "a")
	box, err = outbox.Open(dir, quiet)
	require.NoError(t, err)
	stop := serve(t, ws.Dial(config(c, 1)), echo, worker.Config{Outbox: box})
	r, err := c.Report(within(t))
	require.NoError(t, err)
	require.Equal(t, "YWJj", r.Result.Outputs["OutputData"])
	require.NoError(t, stop())
	require.NoError(t, box.Close())
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1)
}
