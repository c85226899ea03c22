//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// patience is far more than anything takes, a first build with an empty cache
// on a busy machine included: only what hangs gets there.
const patience = 8 * time.Minute

// beaconCommand runs this program in a process of its own.
func beaconCommand(t *testing.T, dir string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	require.NoError(t, err)
	// Not the test's context: it ends before the cleanups, which want to see a
	// clean end.
	cmd := exec.CommandContext(context.Background(), self, args...)
	cmd.Args[0] = "beacon"
	cmd.Env = append(os.Environ(), "BEACON_CACHE_DIR="+dir, "BEACON_STAGING_PATH=")
	return cmd
}

// TestMainJob is what the README's first command promises: a module is built, a
// hub and a worker start, the line that is printed sends a file through them,
// and an interrupt ends everything.
func TestMainJob(t *testing.T) {
	dir := t.TempDir()
	example, err := filepath.Abs("../../examples/wasm/transform")
	require.NoError(t, err)

	// A shell that finds this program as "beacon".
	work := t.TempDir()
	self, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(self, filepath.Join(work, "beacon")))
	t.Setenv("PATH", work+string(os.PathListSeparator)+os.Getenv("PATH"))

	worker := beaconCommand(t, dir, "run", "--listen", "127.0.0.1:0", "--module", example)
	var errs bytes.Buffer
	worker.Stderr = &errs
	out, err := worker.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, worker.Start())
	// Whatever fails, the worker does not outlive the test.
	defer worker.Process.Kill() //nolint:errcheck // it has ended by then
	late := time.AfterFunc(patience, func() { _ = worker.Process.Kill() })
	defer late.Stop()

	said := bufio.NewScanner(out)
	var lines []string
	var line string
	for line == "" && said.Scan() {
		lines = append(lines, said.Text())
		if strings.HasPrefix(said.Text(), "  beacon submit ") {
			line = strings.TrimSpace(said.Text())
		}
	}
	all := strings.Join(lines, "\n")
	require.NotEmpty(t, line, "%s\n%s", all, &errs)
	require.Regexp(t, `hub listening on http://127\.0\.0\.1:\d+`, all)
	require.Contains(t, all, "offers the capability Transform with the actions Transform, Convert")
	require.Contains(t, all, "over websocket")

	// The line, as a shell takes it.
	submit := exec.CommandContext(t.Context(), "sh", "-c", line)
	submit.Dir = work
	text, err := submit.CombinedOutput()
	require.NoError(t, err, "%s\n%s", line, text)
	require.Contains(t, string(text), "100%", "a progress bar")

	made, err := filepath.Glob(filepath.Join(work, "*.jsonl"))
	require.NoError(t, err)
	require.Len(t, made, 1)
	file, err := os.Open(made[0])
	require.NoError(t, err)
	defer file.Close()
	rows := 0
	for records := json.NewDecoder(file); records.More(); rows++ {
		var record map[string]any
		require.NoError(t, records.Decode(&record))
		require.NotEmpty(t, record)
	}
	require.Positive(t, rows)

	require.NoError(t, worker.Process.Signal(syscall.SIGINT))
	var rest []string
	for said.Scan() {
		rest = append(rest, said.Text())
	}
	require.NoError(t, worker.Wait(), "%s", &errs)
	require.Contains(t, rest, "beacon: stopped")
	require.Empty(t, errs.String())
	left, err := os.ReadDir(filepath.Join(dir, "staging"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestSubmit runs a hub, a worker and submitters that have nothing in common
// but an address.
func TestSubmit(t *testing.T) {
	dir := t.TempDir()
	hub := beaconCommand(t, dir, "hub", "--listen", "127.0.0.1:0")
	server := startUntil(t, hub, "beacon: hub on ")
	worker := beaconCommand(t, dir, "run", "--server", server, "--max-concurrent", "2",
		"--module", modulePath("hello"), "--module", modulePath("exit"), "--module", modulePath("loop"), "--module", modulePath("trap"))
	startUntil(t, worker, "beacon: registered as ")

	tests := map[string]struct {
		args []string
		code int
		says string
	}{
		"success":            {[]string{"--capability", "hello"}, exitOK, "hello\n"},
		"the program fails":  {[]string{"--capability", "exit"}, exitFailed, "exit code 7"},
		"the provider fails": {[]string{"--capability", "trap"}, exitFailed, "broke down: unreachable"},
		"nobody has it":      {[]string{"--capability", "Nope"}, exitServer, "no beacon at " + server + " offers Nope: there is exit, hello, loop, trap"},
		"unknown action":     {[]string{"--capability", "hello", "--action", "Nope"}, exitFailed, "Unknown action: hello/Nope"},
		"detached":           {[]string{"--capability", "hello", "--detach"}, exitOK, "wi-"},
		"detached, output":   {[]string{"--capability", "hello", "--detach", "--output", "x"}, exitUsage, "--detach"},
		"JSON":               {[]string{"--capability", "hello", "--json"}, exitOK, `"StdOut": "hello\n"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			submit := beaconCommand(t, dir, append([]string{"submit", "--server", server}, tt.args...)...)
			text, err := submit.CombinedOutput()
			if tt.code == 0 {
				require.NoError(t, err, "%s", text)
			} else {
				var exit *exec.ExitError
				require.ErrorAs(t, err, &exit)
				require.Equal(t, tt.code, exit.ExitCode(), "%s", text)
			}
			require.Contains(t, string(text), tt.says)
		})
	}
}

// startUntil starts a process and waits for a line with a prefix, whose first
// word after it is returned. At the end of the test the process is interrupted
// and must end well.
func startUntil(t *testing.T, cmd *exec.Cmd, prefix string) string {
	read, write, err := os.Pipe()
	require.NoError(t, err)
	cmd.Stdout, cmd.Stderr = write, write
	require.NoError(t, cmd.Start())
	require.NoError(t, write.Close())
	said := bufio.NewScanner(read)
	word := ""
	var all []string
	for word == "" && said.Scan() {
		all = append(all, said.Text())
		if rest, ok := strings.CutPrefix(said.Text(), prefix); ok {
			word, _, _ = strings.Cut(rest, " ")
		}
	}
	require.NotEmpty(t, word, "%v", all)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for said.Scan() {
			continue
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
		late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
		defer late.Stop()
		require.NoError(t, cmd.Wait())
		<-drained
		require.NoError(t, read.Close())
	})
	return word
}
