package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/beacontest/coordinator"
)

// BenchmarkStart measures the command as users have it, built without cgo: how
// long from the start of the process until the server has the registration of a
// worker that offers Shell, and what memory it has resident when it is idle.
func BenchmarkStart(b *testing.B) {
	dir := b.TempDir()
	binary := filepath.Join(dir, "beacon")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	require.NoError(b, err, "%s", said)
	c := coordinator.Start(b, coordinator.Config{Flavour: coordinator.HEAD, NoLogin: true})
	var resident, mapped int64
	b.ResetTimer()
	for range b.N {
		cmd := exec.Command(binary, "run", "--server", c.URL(), "--capabilities", "Shell", "--staging", filepath.Join(dir, "staging"))
		cmd.Env = append(os.Environ(), "BEACON_CACHE_DIR="+dir)
		b.StartTimer()
		require.NoError(b, cmd.Start())
		require.NoError(b, c.Until(b.Context(), c.Connected))
		b.StopTimer()
		time.Sleep(2 * settleTime) // what it does at its start comes to rest
		resident += status(b, cmd.Process.Pid, "VmRSS")
		mapped += status(b, cmd.Process.Pid, "RssFile")
		require.NoError(b, cmd.Process.Signal(syscall.SIGTERM))
		require.NoError(b, cmd.Wait())
		require.NoError(b, c.Until(b.Context(), func() bool { return !c.Connected() }))
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms-to-registered")
	b.ReportMetric(float64(resident)/(1<<20)/float64(b.N), "MiB-resident")
	b.ReportMetric(float64(mapped)/(1<<20)/float64(b.N), "MiB-of-it-files")
}

// status reads a line of what the kernel says of a process, in bytes.
func status(t testing.TB, pid int, name string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(t, err)
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			require.NoError(t, err)
			return n << 10
		}
	}
	t.Fatalf("/proc/%d/status has no %s", pid, name)
	return 0
}
