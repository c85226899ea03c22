//go:build unix

package shell

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
)

func TestMain(m *testing.M) {
	if task := os.Getenv("SHELL_TEST_TASK"); task != "" {
		os.Exit(tasks[task]())
	}
	goleak.VerifyTestMain(m)
}

// A bench has a provider, and makes jobs for it.
type bench struct {
	t testing.TB
	*Provider
	mu       sync.Mutex
	progress []string
}

func prepare(t testing.TB, cfg Config) *bench {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	p, err := New(cfg)
	require.NoError(t, err)
	require.NoError(t, p.Initialize(t.Context()))
	t.Cleanup(func() { require.NoError(t, p.Shutdown(context.Background())) })
	return &bench{t: t, Provider: p}
}

// job makes an item with its directory. Names of files to be there come first,
// of outputs behind an empty one.
func (b *bench) job(settings map[string]any, files ...string) *beacon.Job {
	b.t.Helper()
	item := beacon.WorkItem{Hash: "wi-1", Capability: "Shell", Action: "Execute", Settings: beacon.Settings{}}
	for name, value := range settings {
		raw, err := json.Marshal(value)
		require.NoError(b.t, err)
		item.Settings[name] = raw
	}
	root, err := os.OpenRoot(b.t.TempDir())
	require.NoError(b.t, err)
	b.t.Cleanup(func() { root.Close() })
	job := &beacon.Job{Item: item, Dir: root, OnProgress: func(p beacon.Progress) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.progress = append(b.progress, p.Message)
	}}
	outputs := false
	for _, name := range files {
		switch {
		case name == "":
			outputs = true
		case outputs:
			job.Outputs = append(job.Outputs, name)
		default:
			require.NoError(b.t, root.WriteFile(name, []byte("content of "+name), 0o600))
			job.Sources = append(job.Sources, name)
		}
	}
	if len(job.Sources) > 0 {
		job.Source = job.Sources[0]
	}
	if len(job.Outputs) > 0 {
		job.Output = job.Outputs[0]
	}
	return job
}

// ran runs a job that has to have a result.
func (b *bench) ran(job *beacon.Job) beacon.Result {
	b.t.Helper()
	result, err := b.Run(b.t.Context(), job)
	require.NoError(b.t, err)
	return result
}

// does runs a line of the shell.
func (b *bench) does(line string, files ...string) beacon.Result {
	b.t.Helper()
	return b.ran(b.job(map[string]any{"Command": line}, files...))
}

// overdue runs a line that makes the file begun and then takes longer than it may.
// How long it takes until then is the machine's business.
func (b *bench) overdue(line string) beacon.Result {
	b.t.Helper()
	for timeout := 50 * time.Millisecond; ; timeout *= 2 {
		job := b.job(map[string]any{"Command": line})
		ctx, cancel := context.WithTimeoutCause(b.t.Context(), timeout, beacon.Errorf(beacon.Timeout, "too long"))
		result, err := b.Run(ctx, job)
		cancel()
		if _, begun := job.Dir.Stat("begun"); begun == nil {
			require.NoError(b.t, err, "a command that takes too long is a result, as for the Node worker")
			return result
		}
		if err != nil {
			require.Equal(b.t, beacon.Timeout, beacon.CodeOf(err), "%v", err)
		}
		require.NoError(b.t, job.Dir.Close())
	}
}

// alive lists processes with a word among their arguments.
func alive(t testing.TB, word string) (found []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, path := range all {
		raw, err := os.ReadFile(path)
		if err == nil && strings.Contains(string(raw), word) && filepath.Dir(path) != "/proc/self" {
			found = append(found, filepath.Dir(path)+": "+strings.ReplaceAll(string(raw), "\x00", " "))
		}
	}
	return found
}
