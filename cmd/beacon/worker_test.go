//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
)

// A workerProcess is a worker of its own process, with the module digest.
type workerProcess struct {
	t    *testing.T
	cmd  *exec.Cmd
	said *lockedBuffer
}

// startProcess starts a worker for a server; its folders are below dir.
func startProcess(t *testing.T, dir, server string, args ...string) *workerProcess {
	module, err := filepath.Abs("testdata/modules/digest.wasm")
	require.NoError(t, err)
	config := filepath.Join(dir, "config.json")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `{"ServerURL": %q, "Name": "process",
		"HeartbeatIntervalMs": 20, "PollIntervalMs": 20, "ReconnectIntervalMs": 20, "ReconnectMaxMs": 100}`, server), 0o600))
	p := &workerProcess{t: t, said: &lockedBuffer{}}
	p.cmd = beaconCommand(t, filepath.Join(dir, "cache"), append([]string{"run", "--config", config, "--module", module,
		"--staging", filepath.Join(dir, "staging")}, args...)...)
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	require.NoError(t, p.cmd.Start())
	t.Cleanup(func() {
		if p.cmd.ProcessState == nil {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
	})
	return p
}

// begins waits until the worker, which is verbose, carries out an item: what it
// only has when it is told to end, it leaves to others.
func (p *workerProcess) begins(hash string) {
	p.t.Helper()
	for ctx := minute(p.t); !strings.Contains(p.said.String(), `"item started" item=`+hash+" "); time.Sleep(5 * time.Millisecond) {
		require.NoError(p.t, ctx.Err(), p.said.tail())
	}
}

func (p *workerProcess) signal(s os.Signal) { require.NoError(p.t, p.cmd.Process.Signal(s)) }

// ends waits for the end and gives the exit code.
func (p *workerProcess) ends() int {
	_ = p.cmd.Wait() // the exit code says it
	return p.cmd.ProcessState.ExitCode()
}

func digestItem(hash string, ms int) beacon.WorkItem {
	item := beacon.WorkItem{Hash: hash, Capability: "digest", Action: "Execute", Settings: beacon.Settings{}}
	item.Settings.SetText("Command", fmt.Sprint(ms, " ", hash))
	return item
}

func minute(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// isEmpty checks that nothing is left of the items.
func isEmpty(t *testing.T, folder string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if !errors.Is(err, os.ErrNotExist) {
		require.NoError(t, err)
	}
	require.Empty(t, entries)
}

// The first signal: no more items, what runs is finished and reported, exit
// code 0.
func TestSignalDrains(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(s.String(), func(t *testing.T) {
			t.Parallel()
			c, dir := coordinator.Start(t, coordinator.Config{Generous: true}), t.TempDir()
			p := startProcess(t, dir, c.URL(), "--verbose")
			c.Push(digestItem("a", 3000), digestItem("b", 1))
			require.NoError(t, c.Until(minute(t), func() bool { return len(c.Active()) == 2 }), p.said.tail())
			p.begins("a")
			p.signal(s)
			r, err := c.Report(minute(t))
			require.NoError(t, err)
			require.Equal(t, "a", r.Hash)
			require.False(t, r.Failed)
			require.Equal(t, exitOK, p.ends(), p.said.tail())
			require.Contains(t, p.said.String(), "beacon: stopped")
			require.True(t, c.Drained())
			require.NoError(t, c.Until(minute(t), func() bool { return !c.Connected() }))
			isEmpty(t, filepath.Join(dir, "staging"))
		})
	}
}

// The second signal: what runs is canceled, and reported as that.
func TestSecondSignal(t *testing.T) {
	c, dir := coordinator.Start(t, coordinator.Config{}), t.TempDir()
	p := startProcess(t, dir, c.URL(), "--drain-timeout", "1h", "--verbose")
	c.Push(digestItem("a", 3600_000))
	p.begins("a")
	p.signal(syscall.SIGTERM)
	require.NoError(t, c.Until(minute(t), c.Drained))
	p.signal(syscall.SIGTERM)
	require.Equal(t, exitInterrupted, p.ends(), p.said.tail())
	require.Contains(t, p.said.String(), "ended at once")
	isEmpty(t, filepath.Join(dir, "staging"))
}

// The drain's time is over: the item is canceled and reported, and that is no
// failure of the worker.
func TestDrainTimeout(t *testing.T) {
	c, dir := coordinator.Start(t, coordinator.Config{}), t.TempDir()
	p := startProcess(t, dir, c.URL(), "--drain-timeout", "10ms", "--verbose")
	c.Push(digestItem("a", 3600_000))
	p.begins("a")
	p.signal(syscall.SIGTERM)
	r, err := c.Report(minute(t))
	require.NoError(t, err)
	require.True(t, r.Failed)
	require.Contains(t, r.Message, "canceled: the beacon is shutting down")
	require.Equal(t, exitOK, p.ends(), p.said.tail())
}

// Results that the server does not take survive the process, and it says so.
func TestUndeliveredResults(t *testing.T) {
	c, dir := coordinator.Start(t, coordinator.Config{}), t.TempDir()
	var tries = make(chan struct{}, 1000)
	c.Intercept(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, "/Complete") {
			return false
		}
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		tries <- struct{}{}
		return true
	})
	p := startProcess(t, dir, c.URL(), "--transport", "http", "--once")
	c.Push(digestItem("a", 1))
	<-tries
	p.signal(syscall.SIGTERM)
	require.Equal(t, exitServer, p.ends(), p.said.tail())
	require.Contains(t, p.said.String(), "1 results could not be delivered")
	require.Contains(t, p.said.String(), "delivered at the next start")

	c.Intercept(nil)
	p = startProcess(t, dir, c.URL(), "--exit-idle", "1s")
	r, err := c.Report(minute(t))
	require.NoError(t, err)
	require.Equal(t, "a", r.Hash)
	require.Equal(t, exitOK, p.ends(), p.said.tail())
}

// A server that does not want the worker: one attempt, the reason, exit code 3.
func TestRejectedWorker(t *testing.T) {
	c, dir := coordinator.Start(t, coordinator.Config{Reject: "Bootstrap auth secret mismatch"}), t.TempDir()
	for _, args := range [][]string{nil, {"--wait"}, {"--transport", "ws"}} {
		before := c.Logins()
		p := startProcess(t, dir, c.URL(), append(args, "--join-secret", "open sesame")...)
		require.Equal(t, exitServer, p.ends(), p.said.tail())
		require.Contains(t, p.said.String(), "the server rejected this beacon: Bootstrap auth secret mismatch (check the join secret)")
		require.NotContains(t, p.said.String(), "sesame")
		require.Equal(t, before+1, c.Logins(), "it tried again")
		require.NotContains(t, c.Requests(), "POST /Beacon/Register", "it tried another way")
	}
	require.True(t, bytes.Contains([]byte(strings.Join(c.Frames(), "\n")), []byte(`"JoinSecret":"open sesame"`)))
}

// Two workers of one name on one machine would mix up their results.
func TestTwoOfOneName(t *testing.T) {
	c, dir := coordinator.Start(t, coordinator.Config{}), t.TempDir()
	p := startProcess(t, dir, c.URL())
	require.NoError(t, c.Until(minute(t), c.Connected))
	other := startProcess(t, dir, c.URL())
	require.Equal(t, exitUsage, other.ends(), other.said.tail())
	require.Contains(t, other.said.String(), "a worker named process serves")
	p.signal(syscall.SIGINT)
	require.Equal(t, exitOK, p.ends(), p.said.tail())
}
