package wasi_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// staged is a work item's directory with a canary beside it.
type staged struct {
	dir    string
	canary string
	fs     *guestfs.FS
}

const secret = "CANARY-of-the-host"

func stage(t testing.TB, cfg guestfs.Config) staged {
	t.Helper()
	base := t.TempDir()
	s := staged{dir: filepath.Join(base, "item"), canary: filepath.Join(base, "canary")}
	require.NoError(t, os.Mkdir(s.dir, 0o700))
	require.NoError(t, os.WriteFile(s.canary, []byte(secret), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(s.dir, "input.txt"), []byte("the input"), 0o600))
	root, err := os.OpenRoot(s.dir)
	require.NoError(t, err)
	cfg.ReadOnly = append(cfg.ReadOnly, "input.txt")
	s.fs = guestfs.New(root, cfg)
	t.Cleanup(func() {
		require.NoError(t, s.fs.Close())
		require.NoError(t, root.Close())
		got, err := os.ReadFile(s.canary)
		require.NoError(t, err)
		require.Equal(t, secret, string(got), "the file outside was changed")
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 2, "something was made outside")
	})
	return s
}

// newRuntime returns a runtime that offers WASI.
func newRuntime(t testing.TB) wazero.Runtime {
	t.Helper()
	ctx := context.Background()
	// Nothing but the functions themselves sees the end of the context.
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithDebugInfoEnabled(false).WithMemoryLimitPages(4096))
	t.Cleanup(func() { require.NoError(t, r.Close(ctx)) })
	require.NoError(t, engine.Offer(ctx, r, wasi.Interface().Library()))
	return r
}

// run runs a command to its end.
func run(ctx context.Context, t testing.TB, r wazero.Runtime, code wazero.CompiledModule, p *wasi.Process) error {
	t.Helper()
	mod, err := r.InstantiateModule(abi.WithState(ctx, p), code, wazero.NewModuleConfig().WithName(""))
	if mod != nil {
		require.NoError(t, mod.Close(context.WithoutCancel(ctx)))
	}
	return err
}

func missingTool(t testing.TB, what string, err error) {
	t.Helper()
	if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
		t.Fatalf("%s: %v", what, err)
	}
	t.Skipf("%s: %v", what, err)
}

// guests builds each program once.
var guests sync.Map

func build(t testing.TB, name string, compile func(out string) *exec.Cmd) []byte {
	t.Helper()
	once, _ := guests.LoadOrStore(name, sync.OnceValues(func() ([]byte, error) {
		dir, err := os.MkdirTemp("", "guest")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
		out := filepath.Join(dir, "guest.wasm")
		if text, err := compile(out).CombinedOutput(); err != nil {
			return nil, errors.Join(err, errors.New(string(text)))
		}
		return os.ReadFile(out)
	}))
	code, err := once.(func() ([]byte, error))()
	if err != nil {
		missingTool(t, "build the guest in "+name, err)
	}
	return code
}

func goGuest(t testing.TB) []byte {
	return build(t, "Go", func(out string) *exec.Cmd {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out, "./testdata/go")
		cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
		return cmd
	})
}

func cGuest(t testing.TB) []byte {
	return build(t, "C", func(out string) *exec.Cmd {
		return exec.Command("clang", "--target=wasm32-wasi", "-O1", "-Wall", "-Werror", "-Wl,-s", "-o", out, "testdata/c/main.c")
	})
}

func compile(t testing.TB, r wazero.Runtime, code []byte) wazero.CompiledModule {
	t.Helper()
	compiled, err := r.CompileModule(context.Background(), code)
	require.NoError(t, err)
	return compiled
}

func requireExit(t testing.TB, err error, p *wasi.Process, code uint32) {
	t.Helper()
	var exit *wasi.Exit
	require.ErrorAs(t, err, &exit)
	require.Equal(t, code, exit.Code)
	got, ok := p.Exited()
	require.True(t, ok)
	require.Equal(t, code, got)
}

func TestGoProgram(t *testing.T) {
	r := newRuntime(t)
	code := compile(t, r, goGuest(t))
	s := stage(t, guestfs.Config{})
	var stdout, stderr bytes.Buffer
	p := wasi.NewProcess(wasi.Config{
		Args: []string{"guest", "one", "two"}, Env: []string{"GREETING=hello", "PWD=/work"},
		Stdin: strings.NewReader("from stdin\n"), Stdout: &stdout, Stderr: &stderr,
		FS: s.fs, Preopens: []string{"/work", "/"},
	})
	err := run(t.Context(), t, r, code, p)
	require.Empty(t, stderr.String())
	requireExit(t, err, p, 0)
	require.Equal(t, "all well\n", stdout.String())
	require.NoError(t, p.Close())
	require.Zero(t, s.fs.Usage().OpenFiles)
	require.NoError(t, s.fs.Limit())
}

func TestCProgram(t *testing.T) {
	r := newRuntime(t)
	code := compile(t, r, cGuest(t))
	s := stage(t, guestfs.Config{})
	var stdout, stderr bytes.Buffer
	p := wasi.NewProcess(wasi.Config{
		Args: []string{"guest", "argument"}, Env: []string{"GREETING=hello"},
		Stdin: strings.NewReader("from stdin\n"), Stdout: &stdout, Stderr: &stderr,
		FS: s.fs, Preopens: []string{"/work", "/"},
	})
	err := run(t.Context(), t, r, code, p)
	require.Empty(t, stderr.String())
	requireExit(t, err, p, 7)
	require.Equal(t, "all well\n", stdout.String())
}

// S12: a guest that sleeps for an hour ends with its context.
func TestS12SleepEndsWithContext(t *testing.T) {
	r := newRuntime(t)
	code := compile(t, r, goGuest(t))
	for name, tt := range map[string]struct {
		end func(cancel context.CancelCauseFunc)
	}{
		"cause":    {func(cancel context.CancelCauseFunc) { cancel(errSomeReason) }},
		"no cause": {func(cancel context.CancelCauseFunc) { cancel(nil) }},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			asleep := &signal{seen: make(chan struct{})}
			done := make(chan error, 1)
			go func() {
				p := wasi.NewProcess(wasi.Config{Args: []string{"guest", "sleep"}, Random: asleep})
				mod, err := r.InstantiateModule(abi.WithState(ctx, p), code, wazero.NewModuleConfig().WithName(""))
				if mod != nil {
					err = errors.Join(err, mod.Close(context.WithoutCancel(ctx)))
				}
				done <- err
			}()
			<-asleep.seen // it runs
			tt.end(cancel)
			select {
			case err := <-done:
				require.Error(t, err)
			case <-time.After(30 * time.Second):
				require.Fail(t, "the guest still sleeps")
			}
		})
	}
}

var errSomeReason = errors.New("some reason")

// signal is a source of random bytes that tells when it is read.
type signal struct {
	once sync.Once
	seen chan struct{}
}

func (s *signal) Read(b []byte) (int, error) {
	s.once.Do(func() { close(s.seen) })
	for i := range b {
		b[i] = byte(i)
	}
	return len(b), nil
}
