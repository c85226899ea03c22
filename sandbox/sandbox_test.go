package sandbox_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

func TestMain(m *testing.M) {
	if sendsBack() {
		return
	}
	misbehave()
	if _, err := os.Stat(filepath.Join("..", "..", slowFile)); err == nil {
		time.Sleep(1500 * time.Millisecond) // longer than a process is left alone when it begins
	}
	sandbox.Main()
	goleak.VerifyTestMain(m)
}

// slowFile is a file in the cache that has processes begin slowly.
const slowFile = "slow"

func guest(t testing.TB, name string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("testdata", name+".wasm"))
	if errors.Is(err, fs.ErrNotExist) {
		content, err = os.ReadFile(filepath.Join("..", "runtime", "testdata", name+".wasm"))
	}
	require.NoError(t, err)
	return content
}

// open makes a sandbox with a cache of its own, whose log is the test's.
func open(t testing.TB, cfg sandbox.Config) (*sandbox.Sandbox, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	if cfg.Runtime.Log == nil {
		cfg.Runtime.Log = slog.New(slog.NewTextHandler(&said, nil))
	}
	if cfg.Runtime.CacheDir == "" {
		cfg.Runtime.CacheDir = filepath.Join(t.TempDir(), "cache")
	}
	s, err := sandbox.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, s.Close())
		left, err := filepath.Glob(filepath.Join(cfg.Runtime.CacheDir, "*-*"))
		require.NoError(t, err)
		require.Empty(t, left, "of processes")
	})
	return s, &said
}

func jobOf(t testing.TB, settings beacon.Settings) *beacon.Job {
	t.Helper()
	job := jobAt(t, t.TempDir())
	job.Item.Settings = settings
	return job
}

// jobAt makes a job with a directory.
func jobAt(t testing.TB, dir string) *beacon.Job {
	t.Helper()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, root.Close()) })
	return &beacon.Job{Item: beacon.WorkItem{Hash: "hash", Capability: "Test", Action: "Execute"}, Dir: root}
}

func uleb(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) } //nolint:gosec // not negative

func section(id byte, content string) string { return string(id) + uleb(len(content)) + content }

// bomb is a module that the limits let through, and that takes the compiler about
// a minute, and a gigabyte.
func bomb() []byte {
	const functions, branches = 16, 5_900
	code := "\x00\x02\x40" + strings.Repeat("\x20\x00\x0d\x00", branches) + "\x0b\x0b"
	return []byte("\x00asm\x01\x00\x00\x00" + section(1, "\x02\x60\x01\x7f\x00\x60\x00\x00") +
		section(3, uleb(functions+1)+strings.Repeat("\x00", functions)+"\x01") + section(5, "\x01\x00\x01") +
		section(7, "\x02\x06memory\x02\x00\x06_start\x00"+uleb(functions)) +
		section(10, uleb(functions+1)+strings.Repeat(uleb(len(code))+code, functions)+"\x02\x00\x0b"))
}

// S1: a module is made ready in a process, once, and runs here as it would have.
func TestS1Registration(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	for range 2 {
		m, err := s.Runtime().Load(t.Context(), wasmrt.Source{Name: "order", Binary: guest(t, "order")})
		require.NoError(t, err, said)
		_, err = m.Run(t.Context(), jobOf(t, nil))
		require.NoError(t, err)
		require.NoError(t, m.Close(context.Background()))
	}
	require.EqualValues(t, 1, s.Stats().Started, "what was left is used")
	_, err := s.Runtime().Load(t.Context(), wasmrt.Source{Name: "truncated", Binary: guest(t, "order")[:50]})
	require.Equal(t, beacon.Refused, beacon.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "cut off")
	if goruntime.GOOS != "linux" {
		return // there is less to confine with
	}
	require.NotContains(t, said.String(), "limits", "they are always there")
}

// S9: whatever a module does to the process that makes it ready is one clear
// error, which is remembered, and others go on.
func TestS9Bombs(t *testing.T) {
	if goruntime.GOOS != "linux" {
		t.Skip("processors and memory of a process are bounded on Linux only")
	}
	for name, tt := range map[string]struct {
		cfg  sandbox.Config
		code beacon.Code
		says string
	}{
		"time":       {sandbox.Config{RegisterTime: time.Second}, beacon.Timeout, "took longer than 1s to be compiled"},
		"processors": {sandbox.Config{RegisterCPU: time.Second, RegisterMemory: 8 << 30}, beacon.Timeout, "took more than 1s of the processor"},
		"memory":     {sandbox.Config{RegisterMemory: 32 << 20}, beacon.MemoryLimit, "took more than 32 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			if raceDetector && tt.code == beacon.MemoryLimit {
				t.Skip("the race detector may be the first that finds no memory left, and ends the process in its own words")
			}
			s, said := open(t, tt.cfg)
			defer func() { t.Log(said) }()
			for n := range 2 {
				_, err := s.Runtime().Load(t.Context(), wasmrt.Source{Name: "bomb", Binary: bomb(), Limits: wasmrt.Limits{Memory: 1 << 20}})
				require.Equal(t, tt.code, beacon.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, tt.says)
				if n > 0 {
					require.ErrorContains(t, err, "remembered")
				}
			}
			require.EqualValues(t, 1, s.Stats().Started, "it is not tried again")
		})
	}
}

// Whoever gives up waiting for a module ends its process.
func TestRegistrationIsCanceled(t *testing.T) {
	s, _ := open(t, sandbox.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	loaded := make(chan error, 1)
	go func() {
		_, err := s.Runtime().Load(ctx, wasmrt.Source{Name: "bomb", Binary: bomb()})
		loaded <- err
	}()
	require.Eventually(t, func() bool { return s.Stats().Processes == 1 }, time.Minute, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-loaded, context.Canceled)
	require.Zero(t, s.Stats().Processes)
}

// S26: the process has no environment and none of its supervisor's files.
func TestS26Processes(t *testing.T) {
	if goruntime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	t.Setenv("BEACON_CANARY", "canary")
	secret, err := os.Create(filepath.Join(t.TempDir(), "secret"))
	require.NoError(t, err)
	defer secret.Close()
	s, _ := open(t, sandbox.Config{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	loaded := make(chan error, 1)
	go func() {
		_, err := s.Runtime().Load(ctx, wasmrt.Source{Name: "bomb", Binary: bomb()})
		loaded <- err
	}()
	var pid string
	require.Eventually(t, func() bool {
		processes, err := filepath.Glob("/proc/[0-9]*")
		require.NoError(t, err)
		for _, p := range processes {
			status, err := os.ReadFile(filepath.Join(p, "status"))
			line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
			if err == nil && strings.HasPrefix(string(line), "beacon-sandbox\x00") && strings.Contains(string(status), "PPid:\t"+itoa(os.Getpid())+"\n") &&
				strings.Contains(string(status), "Seccomp:\t2\n") {
				pid = p
				return true
			}
		}
		return false
	}, time.Minute, 10*time.Millisecond)
	environ, err := os.ReadFile(filepath.Join(pid, "environ"))
	if err == nil { // not even root can read it where the process cannot be traced
		require.Empty(t, environ)
	}
	status, err := os.ReadFile(filepath.Join(pid, "status"))
	require.NoError(t, err)
	require.Contains(t, string(status), "CapEff:\t0000000000000000\n")
	require.Contains(t, string(status), "NoNewPrivs:\t1\n")
	cancel()
	<-loaded
}

func itoa(n int) string { return strconv.Itoa(n) }
