package runtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if dir, err := cacheOf(); err == nil {
			os.RemoveAll(dir)
		}
		os.Exit(code)
	}))
}

const secret = "CANARY-of-the-host"

// guest reads the binary of testdata/NAME.wat.
func guest(t testing.TB, name string) []byte {
	t.Helper()
	binary, err := os.ReadFile(filepath.Join("testdata", name+".wasm"))
	require.NoError(t, err)
	return binary
}

// The committed binaries are what the texts beside them say.
func TestGuestsAreCurrent(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		missingTool(t, "wat2wasm", err)
	}
	files, err := filepath.Glob("testdata/*.wat")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	out := filepath.Join(t.TempDir(), "guest.wasm")
	for _, file := range files {
		text, err := exec.Command(tool, "--debug-names", "--enable-tail-call", file, "-o", out).CombinedOutput()
		require.NoError(t, err, string(text))
		want, err := os.ReadFile(out)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.Base(file), ".wat")
		require.True(t, bytes.Equal(want, guest(t, name)), "run wat2wasm --debug-names --enable-tail-call %s -o testdata/%s.wasm", file, name)
	}
}

func missingTool(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// goBuild builds a package for WebAssembly, once.
func goBuild(dir string, flags ...string) func() ([]byte, error) {
	return sync.OnceValues(func() ([]byte, error) {
		temporary, err := os.MkdirTemp("", "guest")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(temporary)
		out := filepath.Join(temporary, "guest.wasm")
		cmd := exec.Command("go", append(append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out}, flags...), dir)...)
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return nil, errors.Join(err, errors.New(string(text)))
		}
		return os.ReadFile(out)
	})
}

var (
	goProgram = goBuild("./testdata/go")
	goReactor = goBuild("../examples/wasm/transform", "-buildmode=c-shared")
	goLeaver  = goBuild("./testdata/reactor", "-buildmode=c-shared")
)

func built(t testing.TB, build func() ([]byte, error)) []byte {
	t.Helper()
	binary, err := build()
	if err != nil {
		missingTool(t, "build the Go guest", err)
	}
	return binary
}

// cacheOf is one compilation cache for all tests with Go guests.
var cacheOf = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "beacon-cache") })

func goCache(t testing.TB) string {
	t.Helper()
	dir, err := cacheOf()
	require.NoError(t, err)
	return dir
}

// load loads a module that must be fine.
func load(t testing.TB, name string, binary []byte, limits wasmrt.Limits) *wasmrt.Module {
	t.Helper()
	return loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: name, Binary: binary, Limits: limits})
}

func loadWith(t testing.TB, cfg wasmrt.Config, src wasmrt.Source) *wasmrt.Module {
	t.Helper()
	r, err := wasmrt.New(cfg)
	require.NoError(t, err)
	m, err := r.Load(t.Context(), src)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	return m
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// recorder keeps what was logged.
type recorder struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(p)
}

func (r *recorder) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *recorder) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

func settingsOf(t testing.TB, text string) beacon.Settings {
	t.Helper()
	var s beacon.Settings
	require.NoError(t, json.Unmarshal([]byte(text), &s))
	return s
}

// A stage is an item's directory with a canary beside it.
type stage struct{ dir string }

// newJob makes a job with settings, as JSON, in a directory of its own.
func newJob(t testing.TB, settings string) (*beacon.Job, stage) {
	t.Helper()
	base := t.TempDir()
	s := stage{filepath.Join(base, "item")}
	require.NoError(t, os.Mkdir(s.dir, 0o700))
	canary := filepath.Join(base, "canary")
	require.NoError(t, os.WriteFile(canary, []byte(secret), 0o600))
	root, err := os.OpenRoot(s.dir)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, root.Close())
		got, err := os.ReadFile(canary)
		require.NoError(t, err)
		require.Equal(t, secret, string(got))
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 2, "something was made outside")
	})
	return &beacon.Job{
		Item: beacon.WorkItem{Hash: "hash", Capability: "Test", Action: "Execute", Settings: settingsOf(t, settings)},
		Dir:  root,
	}, s
}

func (s stage) write(t testing.TB, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, name), []byte(content), 0o600))
}

// requirePresentable is S24: what a tenant sees of an error.
func requirePresentable(t testing.TB, text string) {
	t.Helper()
	require.LessOrEqual(t, len(text), 4096)
	require.Equal(t, beacon.Excerpt(text, 4096), text, "control characters")
	for _, leak := range []string{"goroutine", ".go:", os.TempDir(), "github.com/", "wasm stack trace"} {
		require.NotContains(t, text, leak)
	}
	wd, err := os.Getwd()
	require.NoError(t, err)
	require.NotContains(t, text, wd)
}

// requireFailure checks the code and text of an error that a run ended with.
func requireFailure(t testing.TB, err error, code beacon.Code, contains string) {
	t.Helper()
	require.Error(t, err)
	require.Equal(t, code, beacon.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, contains)
	requirePresentable(t, err.Error())
}
