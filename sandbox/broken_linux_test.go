package sandbox_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// misbehave has a process of the sandbox do what one would that a guest has taken
// over: on SIGUSR1 it makes threads, until it is killed, on SIGUSR2 it says what it
// reaches, and ends.
func misbehave() {
	if os.Args[0] != sandbox.ProcessName {
		return
	}
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR1, syscall.SIGUSR2)
	go func() {
		if <-told == syscall.SIGUSR2 {
			fmt.Fprintln(os.Stderr, "reached:", reached())
			os.Exit(3)
		}
		for range sandbox.ThreadsFor(1) + 100 {
			go func() {
				goruntime.LockOSThread() // so it keeps its thread
				select {}
			}()
		}
	}()
}

// reached is what the process reaches of what it has no business with, and the
// folder for its temporary files.
func reached() (all []string) {
	for name, try := range map[string]func() error{
		"root":       func() error { _, err := os.ReadDir("/"); return err },
		"system":     func() error { _, err := os.ReadFile("/etc/passwd"); return err },
		"proc":       func() error { _, err := os.ReadDir("/proc/self"); return err },
		"others":     func() error { _, err := os.ReadDir(".."); return err },
		"beside":     func() error { return os.WriteFile("../new", nil, 0o600) },
		"modules":    func() error { return os.WriteFile("new", nil, 0o600) },
		"temporary":  func() error { return os.WriteFile(filepath.Join(os.TempDir(), "new"), nil, 0o600) },
		"supervisor": func() error { return syscall.Kill(os.Getppid(), 0) },
		"network":    func() error { _, err := net.Listen("tcp", "127.0.0.1:0"); return err },
		"program":    func() error { return exec.Command("/proc/self/exe").Start() },
	} {
		if try() == nil {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// S3: the process of a tenant reaches its own folders, and nothing else.
func TestS3Reach(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	report, err := s.Confinement(t.Context())
	require.NoError(t, err)
	if !report.Files || !report.Calls {
		t.Skip(report)
	}
	m := load(t, s, "order", nil)
	item := filepath.Join(t.TempDir(), "tenant", "item")
	require.NoError(t, os.MkdirAll(item, 0o700))
	_, err = m.Run(t.Context(), jobAt(t, item))
	require.NoError(t, err)
	s.Signal(beacon.DefaultTenant, syscall.SIGUSR2)
	require.Eventually(t, func() bool { return s.Stats().Processes == 0 }, 2*time.Minute, time.Millisecond)
	require.Contains(t, said.String(), "reached: [temporary]")
}

// S3: a process that makes threads without end is killed, while it has an item,
// when it has none, and while it makes a module ready.
func TestS3Threads(t *testing.T) {
	// C libraries reserve 8 MiB for each thread.
	s, said := open(t, sandbox.Config{Grace: time.Hour, RegisterMemory: 64 << 30, Runtime: wasmrt.Config{Memory: 64 << 30}})
	report, err := s.Confinement(t.Context())
	require.NoError(t, err)
	if strings.Contains(report.String(), "limit of threads") {
		t.Skip(report)
	}
	loops := load(t, s, "loops", nil)
	order := load(t, s, "order", nil)
	const limit = `the process has too many threads: \d+, limit \d+`

	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, beacon.Errorf(beacon.Timeout, "nobody has counted"))
	defer cancel()
	job, begun := telling(t)
	ended := make(chan error, 1)
	go func() {
		_, err := loops.Run(ctx, job)
		ended <- err
	}()
	<-begun
	s.SignalAll(syscall.SIGUSR1)
	err = <-ended
	require.Equal(t, beacon.Internal, beacon.CodeOf(err), "%v", err)
	require.Regexp(t, limit, err.Error())

	_, err = order.Run(t.Context(), jobOf(t, nil))
	require.NoError(t, err, "in another process")
	s.SignalAll(syscall.SIGUSR1)
	require.Eventually(t, func() bool { return s.Stats().Processes == 0 }, 2*time.Minute, time.Millisecond)

	bad := make(chan error, 1)
	go func() {
		_, err := s.Runtime().Load(ctx, wasmrt.Source{Name: "slow", Binary: bomb()})
		bad <- err
	}()
	for err = nil; err == nil; {
		s.SignalAll(syscall.SIGUSR1)
		select {
		case err = <-bad:
		case <-time.After(10 * time.Millisecond):
		}
	}
	require.Equal(t, beacon.Refused, beacon.CodeOf(err), "%v", err)
	require.Regexp(t, "module slow broke the process that compiled and initialised it: "+limit, err.Error())
	require.Regexp(t, limit, said.String())
}

// A process that works is far from the limit, also with many items at a time.
func TestThreadsOfWork(t *testing.T) {
	const items = 64
	s, said := open(t, sandbox.Config{})
	m := load(t, s, "sleep", nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := beacon.Errorf(beacon.Canceled, "stop")
	var work sync.WaitGroup
	for range items {
		work.Go(func() { _, _ = m.Run(ctx, jobOf(t, nil)) })
	}
	started(t, s, items)
	n := sandbox.Threads(s.PID(beacon.DefaultTenant))
	if n == 0 {
		require.Contains(t, said.String(), "limit of threads: /proc does not show those of the process (hidepid)")
	}
	require.Less(t, n, sandbox.ThreadsFor(0))
	cancel(stop)
	work.Wait()
	require.NotContains(t, said.String(), "too many threads")
	t.Log(n, "threads, limit", sandbox.ThreadsFor(items))
}
