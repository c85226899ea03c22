package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/beacontest/coordinator"
)

// isolated lists the processes for items of a worker.
func isolated(t *testing.T, worker int) []int {
	return slices.DeleteFunc(descendants(t, worker), func(pid int) bool {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return err != nil || !bytes.HasPrefix(line, []byte("beacon-sandbox\x00"))
	})
}

// goes waits until a process is gone, or waits for nothing but being reaped by
// somebody else's parent.
func goes(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // the others may be behind
		return err != nil || len(threads) <= 1 && bytes.Contains(raw[bytes.LastIndexByte(raw, ')'):], []byte(") Z "))
	}, time.Minute, 10*time.Millisecond, "process %d goes on", pid)
}

// S2: modules work in a process of their tenant unless somebody says otherwise; it
// is there before the first item, another takes its place, and it does not
// outlive the worker, whichever way that ends.
func TestS2IsolatedByDefault(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(end.String(), func(t *testing.T) {
			c := coordinator.Start(t, coordinator.Config{})
			p := startProcess(t, t.TempDir(), c.URL())
			one := func() int {
				var found []int
				require.Eventually(t, func() bool {
					found = isolated(t, p.cmd.Process.Pid)
					return len(found) == 1
				}, 3*time.Minute, 10*time.Millisecond, "a process for items")
				return found[0]
			}
			require.NoError(t, c.Until(minute(t), c.Connected), p.said.tail())
			first := one()
			run := func(hash string) bool {
				c.Push(digestItem(hash, 1))
				r, err := c.Report(minute(t))
				require.NoError(t, err, p.said.tail())
				require.Equal(t, hash, r.Hash)
				return !r.Failed
			}
			require.True(t, run("a"))
			require.Equal(t, first, one())
			require.NoError(t, syscall.Kill(first, syscall.SIGKILL))
			goes(t, first)
			require.True(t, run("b"), p.said.tail())
			second := one()
			require.NotEqual(t, first, second)

			c.Push(digestItem("c", 1000)) // the end comes while there is something to do
			require.NoError(t, c.Until(minute(t), func() bool { return len(c.Active()) == 1 }), p.said.tail())
			p.signal(end)
			p.ends()
			goes(t, second)
		})
	}
}

// Who says so has items in the worker.
func TestIsolationNone(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{})
	p := startProcess(t, t.TempDir(), c.URL(), "--isolation", "none")
	c.Push(digestItem("a", 1))
	r, err := c.Report(minute(t))
	require.NoError(t, err, p.said.tail())
	require.False(t, r.Failed)
	require.Empty(t, isolated(t, p.cmd.Process.Pid))
	p.signal(syscall.SIGTERM)
	require.Equal(t, exitOK, p.ends(), p.said.tail())
}
