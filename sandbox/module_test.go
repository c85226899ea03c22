package sandbox_test

import (
	"context"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/sandbox/wire"
)

func load(t testing.TB, s *sandbox.Sandbox, name string, change func(*wasmrt.Source)) *sandbox.Module {
	t.Helper()
	src := wasmrt.Source{Name: name, Binary: guest(t, name)}
	if change != nil {
		change(&src)
	}
	m, err := s.Load(t.Context(), src)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(context.Background())) })
	return m
}

// A result is what can be compared of an item.
type result struct {
	Result  beacon.Result
	Code    beacon.Code
	Message string
}

func resultOf(r beacon.Result, err error) result {
	out := result{Result: r, Code: beacon.CodeOf(err)}
	if err != nil {
		out.Message = err.Error()
	}
	if len(out.Result.Log) == 0 {
		out.Result.Log = nil
	}
	return out
}

// S1: an item in a process comes to the same as in this one.
func TestS1Items(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	for _, name := range []string{"order", "exit", "fail", "trap", "recursion", "loop", "grow", "reactor_exit", "stdout", "stderr", "table"} {
		t.Run(name, func(t *testing.T) {
			limit := func(src *wasmrt.Source) { src.Limits.Memory = 16 << 20 }
			m := load(t, s, name, limit)
			src := wasmrt.Source{Name: name, Binary: guest(t, name)}
			limit(&src)
			here, err := s.Runtime().Load(t.Context(), src)
			require.NoError(t, err)
			defer func() { require.NoError(t, here.Close(context.Background())) }()
			run := func(p beacon.Provider) result {
				ctx := t.Context()
				job := jobOf(t, beacon.Settings{"Code": []byte(`"7"`)})
				job.Account = beacon.NewAccount(nil)
				if name == "loop" {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeoutCause(ctx, 100*time.Millisecond, beacon.Errorf(beacon.Timeout, "too long"))
					defer cancel()
				}
				got := resultOf(p.Run(ctx, job))
				if ran := job.Account.Statement().Modules; got.Code != beacon.Timeout || len(ran) > 0 { // it may be over before it begins
					require.Equal(t, []string{m.Digest()}, ran)
				}
				return got
			}
			require.Equal(t, run(here), run(m), said.String())
			require.Equal(t, here.Capability(), m.Capability())
		})
	}
	require.NotContains(t, said.String(), "has ended")
	// Each test has a folder of its own, so a process, which takes the other's place:
	// that may take a while to be gone.
	require.Eventually(t, func() bool { return s.Stats().Processes == 1 }, time.Minute, time.Millisecond)
}

// started waits until so many items run.
func started(t *testing.T, s *sandbox.Sandbox, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return s.Stats().Running == n }, time.Minute, time.Millisecond)
}

// Each tenant has a process, and what happens to it is no other tenant's business.
func TestS2Tenants(t *testing.T) {
	s, _ := open(t, sandbox.Config{Shares: 2, Runtime: wasmrt.Config{Memory: 1 << 30}})
	m := load(t, s, "loops", nil)
	quick := load(t, s, "order", nil)
	of := func(tenant string) *beacon.Job {
		job := jobOf(t, nil)
		job.Tenant = tenant
		return job
	}
	for _, tenant := range []string{"a", "b"} {
		_, err := quick.Run(t.Context(), of(tenant))
		require.NoError(t, err)
	}
	before := s.Stats()
	require.Equal(t, 2, before.Processes)

	// The process of a is lost with an item in it.
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	ended := make(chan error, 2)
	for _, tenant := range []string{"a", "b"} {
		job, begun := telling(t)
		job.Tenant = tenant
		go func() {
			_, err := m.Run(ctx, job)
			ended <- err
		}()
		<-begun // or else it would be run again in another process
	}
	s.Kill("a")
	err := <-ended
	require.Equal(t, beacon.Internal, beacon.CodeOf(err))
	require.ErrorContains(t, err, "was lost")
	require.Equal(t, 1, s.Stats().Running, "the other tenant's goes on")
	_, err = quick.Run(t.Context(), of("a"))
	require.NoError(t, err, "another takes its place")
	stop := beacon.Errorf(beacon.Canceled, "stop")
	cancel(stop)
	require.ErrorIs(t, <-ended, stop)
}

// telling makes a job whose guest says that it has begun.
func telling(t *testing.T) (job *beacon.Job, begun chan struct{}) {
	job, begun = jobOf(t, nil), make(chan struct{})
	job.OnProgress = func(beacon.Progress) { close(begun) }
	return job, begun
}

// An item that is canceled while it works ends, whether it looks or not.
func TestCancel(t *testing.T) {
	s, said := open(t, sandbox.Config{Grace: time.Minute})
	stop := beacon.Errorf(beacon.Canceled, "nobody wants it")
	for _, name := range []string{"loops", "sleeps", "finishes", "gives_up", "ignores"} {
		m := load(t, s, name, nil)
		ctx, cancel := context.WithCancelCause(t.Context())
		job, begun := telling(t)
		ended := make(chan result, 1)
		go func() { ended <- resultOf(m.Run(ctx, job)) }()
		<-begun
		cancel(stop)
		got := <-ended
		if name == "finishes" {
			require.Empty(t, got.Code, got)
			continue
		}
		require.Equal(t, beacon.Canceled, got.Code, "%s: %+v", name, got)
	}
	require.NotContains(t, said.String(), "has ended")
	require.EqualValues(t, 1, s.Stats().Processes)
}

// More items than can go the short way at a time, and items that do not fit into
// it, come to the same.
func TestManyItems(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	m := load(t, s, "order", nil)
	want := resultOf(m.Run(t.Context(), jobOf(t, nil)))
	var all sync.WaitGroup
	for i := range 20 {
		job := jobOf(t, beacon.Settings{"Text": []byte(`"` + strings.Repeat("x", i%4*8000) + `"`)})
		all.Go(func() {
			for range 5 {
				assert.Equal(t, want, resultOf(m.Run(t.Context(), job)))
			}
		})
	}
	all.Wait()
	// More than a process takes for a message is nothing for it to end of.
	got := resultOf(m.Run(t.Context(), jobOf(t, beacon.Settings{"Text": []byte(`"` + strings.Repeat("x", 65<<20) + `"`)})))
	require.Equal(t, beacon.Invalid, got.Code, got.Message)
	require.NotContains(t, said.String(), "has ended")
	require.EqualValues(t, 1, s.Stats().Processes)
	require.Zero(t, s.Stats().Running)
}

// A process is there before the first item of its tenant if that is wanted, ends
// when it was not needed for long, and another takes its place.
func TestIdle(t *testing.T) {
	folder := t.TempDir()
	s, said := open(t, sandbox.Config{Idle: 10 * time.Millisecond, Folder: func(string) (string, func() error, error) { return folder, nil, nil }})
	m := load(t, s, "order", nil)
	before := s.Stats()
	require.Zero(t, before.Processes)
	for n := range int64(2) {
		require.NoError(t, m.Warm(t.Context(), "a"))
		require.Equal(t, before.Started+n+1, s.Stats().Started)
		require.Eventually(t, func() bool { return s.Stats().Processes == 0 }, time.Minute, time.Millisecond)
	}
	dir := filepath.Join(folder, "item")
	require.NoError(t, os.Mkdir(dir, 0o700))
	job := jobAt(t, dir)
	job.Tenant = "a"
	_, err := m.Run(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, before.Started+3, s.Stats().Started)
	require.NotContains(t, said.String(), "has ended")
}

// A process that takes longer to begin than it may have nothing to do is waited
// for all the same.
func TestSlowStart(t *testing.T) {
	cache := filepath.Join(t.TempDir(), "cache")
	s, said := open(t, sandbox.Config{Idle: 10 * time.Millisecond, Runtime: wasmrt.Config{CacheDir: cache}})
	m := load(t, s, "order", nil)
	before := s.Stats()
	require.NoError(t, os.WriteFile(filepath.Join(cache, slowFile), nil, 0o600))
	_, err := m.Run(t.Context(), jobOf(t, nil))
	require.NoError(t, err, said)
	require.Equal(t, before.Started+1, s.Stats().Started)
}

// S2: the kernel bounds what a process may have of memory, so that what its
// runtime does not count ends the process, and not the machine.
func TestS2Memory(t *testing.T) {
	if goruntime.GOOS != "linux" {
		t.Skip("memory of a process is bounded on Linux only")
	}
	s, _ := open(t, sandbox.Config{Runtime: wasmrt.Config{Memory: 256 << 20}})
	m := load(t, s, "order", func(src *wasmrt.Source) { src.Limits.Memory = 16 << 20 })
	_, err := m.Run(t.Context(), jobOf(t, nil))
	require.NoError(t, err)
	limits, err := os.ReadFile("/proc/" + itoa(s.PID(beacon.DefaultTenant)) + "/limits")
	require.NoError(t, err)
	_, line, found := strings.Cut(string(limits), "Max data size")
	require.True(t, found)
	bytes, err := strconv.ParseInt(strings.Fields(line)[0], 10, 64)
	require.NoError(t, err, line)
	require.Less(t, bytes, int64(4<<30))
}

// A budget counts, and may end an item.
type counter struct {
	mu  sync.Mutex
	n   int64
	err error
}

func (c *counter) Spend(_ context.Context, _ *beacon.Job, n int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += n
	return c.err
}

func TestBudget(t *testing.T) {
	c := &counter{}
	s, _ := open(t, sandbox.Config{Runtime: wasmrt.Config{Budget: c}})
	m := load(t, s, "work", nil)
	_, err := m.Run(t.Context(), jobOf(t, nil))
	require.NoError(t, err)
	require.Positive(t, c.n)
	c.err = beacon.Errorf(beacon.FuelLimit, "the tenant has used up its fuel")
	m = load(t, s, "loop", nil)
	_, err = m.Run(t.Context(), jobOf(t, nil))
	require.Equal(t, beacon.FuelLimit, beacon.CodeOf(err))
	require.ErrorContains(t, err, "the tenant has used up its fuel")
}

// S2: what a process asks for takes memory of its supervisor only until it is too
// much.
func TestS2Flood(t *testing.T) {
	require.ErrorIs(t, sandbox.Flood(1<<20), wire.ErrProtocol)
}

// S2: a process gives back no more bytes of files than its item holds: others could
// have them twice.
func TestS2GiveBack(t *testing.T) {
	require.NoError(t, sandbox.GiveBack(100, 100))
	for _, back := range []int64{101, math.MaxInt64, math.MinInt64, -1, 0} {
		require.ErrorIs(t, sandbox.GiveBack(100, back), wire.ErrProtocol, back)
	}
}

// Whatever a process says, parsing it ends.
func FuzzAnswers(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00"))
	f.Add([]byte("\x01\x07timeout\x04text\x02\x04\x01\x01a\x03\x01a\x00\x02{}\x01b\x01\x01t\x01c\x02\x0e"))
	f.Add([]byte("\x05\x00\x00\x00\x00\x00\x00\x59\x40\x01\x04text\x02\x04\x01\x01a"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if err := sandbox.ParseAnswers(payload); err != nil && !strings.Contains(err.Error(), "protocol") {
			t.Fatal(err)
		}
	})
}
