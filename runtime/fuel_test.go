package runtime_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// A pulse is a goroutine that wants the processor every millisecond, like the
// one that sends heartbeats, and remembers how long it had to wait at most.
type pulse struct {
	mu    sync.Mutex
	last  time.Time
	worst time.Duration
	stop  func()
}

func newPulse() *pulse {
	p := &pulse{}
	quit, done := make(chan struct{}), make(chan struct{})
	p.stop = func() { close(quit); <-done }
	go func() {
		defer close(done)
		ticks := time.NewTicker(time.Millisecond)
		defer ticks.Stop()
		for {
			select {
			case <-ticks.C:
				p.beat()
			case <-quit:
				return
			}
		}
	}()
	return p
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	if !p.last.IsZero() {
		p.worst = max(p.worst, now.Sub(p.last))
	}
	p.last = now
}

// pause is the longest one since the last call.
func (p *pulse) pause() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	worst := p.worst
	p.worst = 0
	return worst
}

// S11: whatever a guest does, it ends soon after its deadline, and the rest of the
// process goes on meanwhile. The first line of each module's text says how it
// may end.
func TestHostile(t *testing.T) {
	deadline := 50 * time.Millisecond
	if proofs() {
		deadline = 500 * time.Millisecond
	}
	texts, err := filepath.Glob("testdata/hostile/*.wat")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(texts), 60)
	base := inUse()
	heart := newPulse()
	defer heart.stop()
	var overshoot, pause time.Duration
	var slowest, longest string
	for _, path := range texts {
		name := strings.TrimSuffix(filepath.Base(path), ".wat")
		if testing.Short() && !strings.HasSuffix(name, "-storm") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			first, _, _ := strings.Cut(string(text), "\n")
			want := strings.Fields(strings.TrimPrefix(first, ";;"))
			limits := wasmrt.Limits{}
			if grade := len(name) % 2; grade == 1 && !proofs() || os.Getenv("BEACON_GRADE") == "exact" {
				limits.Fuel = 1 << 60 // counted exactly
			}
			m := load(t, name, guest(t, "hostile/"+name), limits)
			job, _ := newJob(t, `{"Stdin": "none"}`)
			// What ends by itself has the time for it, on whatever machine.
			deadline := deadline
			if !slices.Contains(want, string(beacon.Timeout)) {
				deadline = time.Hour
			}
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			heart.pause()
			begin := time.Now()
			_, err = m.Run(ctx, job)
			over := time.Since(begin) - deadline
			paused := heart.pause()
			code := beacon.CodeOf(err)
			t.Logf("%-12s %8s over, %8s pause", code, max(over, 0).Round(100*time.Microsecond), paused.Round(100*time.Microsecond))
			require.True(t, slices.Contains(want, string(code)), "want %s, got %s: %v", want, code, err)
			if code.Limit() && code != beacon.Timeout { // whose text is the executor's
				requirePresentable(t, err.Error())
				require.Regexp(t, "more than|at most|limit", err.Error())
			}
			if over > overshoot {
				overshoot, slowest = over, name
			}
			if paused > pause {
				pause, longest = paused, name
			}
			// An idle machine takes 50 ms at most for either; others are not idle.
			// Generous: what is tested is that a guest ends at all, on whatever
			// machine. The figures are printed.
			require.Less(t, over, 20*time.Second)
			require.Less(t, paused, 10*time.Second)
		})
	}
	t.Logf("%d modules, %s each; worst: %s over (%s), %s pause (%s); memory %d MiB before, %d MiB after",
		len(texts), deadline, overshoot, slowest, pause, longest, base>>20, inUse()>>20)
	require.Less(t, inUse(), base+128<<20)
}

// proofs are asked for when figures are wanted, which takes a while.
func proofs() bool { return os.Getenv("BEACON_PROOFS") != "" }

// inUse is what the process has of memory, apart from what it gave back.
func inUse() uint64 {
	debug.FreeOSMemory()
	var stats goruntime.MemStats
	goruntime.ReadMemStats(&stats)
	return stats.HeapInuse + stats.StackInuse
}

// The world stops beside a guest that is busy: the garbage collector gets its
// turn, again and again, and so does everybody else.
func TestStopTheWorld(t *testing.T) {
	for name, limits := range map[string]wasmrt.Limits{"deadline": {}, "exact": {Fuel: 1 << 60}} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "busy", guest(t, "hostile/loop-counting"), limits)
			heart := newPulse()
			defer heart.stop()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error)
			for range goruntime.GOMAXPROCS(0) { // nobody is left to help
				job, _ := newJob(t, `{"Stdin": "none"}`)
				go func() {
					_, err := m.Run(ctx, job)
					ended <- err
				}()
			}
			var worst time.Duration
			for range 20 {
				begin := time.Now()
				goruntime.GC()
				worst = max(worst, time.Since(begin))
			}
			t.Logf("garbage collections took %s at most, the longest pause was %s", worst, heart.pause())
			cancel()
			for range goruntime.GOMAXPROCS(0) {
				require.ErrorIs(t, <-ended, context.Canceled)
			}
		})
	}
}

var unitsOf = regexp.MustCompile(`^fuel: (\d+) of \d+ units$`)

// S18: a guest that uses exactly its fuel has enough, and one unit less is too little.
// It is the same number every time.
func TestFuelLimit(t *testing.T) {
	run := func(fuel int64) (int64, error) {
		m := load(t, "work", guest(t, "work"), wasmrt.Limits{Fuel: fuel})
		job, _ := newJob(t, `{"Stdin": "none"}`)
		result, err := m.Run(t.Context(), job)
		require.NotEmpty(t, result.Log)
		match := unitsOf.FindStringSubmatch(result.Log[len(result.Log)-1])
		require.NotNil(t, match, result.Log)
		used, parsed := strconv.ParseInt(match[1], 10, 64)
		require.NoError(t, parsed)
		return used, err
	}
	used, err := run(1 << 40)
	require.NoError(t, err)
	// 1000 times 10 instructions, and 2 before.
	require.EqualValues(t, 2+1000*10, used)
	again, err := run(used)
	require.NoError(t, err)
	require.Equal(t, used, again)
	_, err = run(used - 1)
	requireFailure(t, err, beacon.FuelLimit, "module work used more than 10001 units of fuel; raise it with --fuel or the provider's Fuel")
	_, err = run(1)
	requireFailure(t, err, beacon.FuelLimit, "more than 1 units")
}

// S18: a budget remembers what it was told, and ends an item of one tenant.
type budget struct {
	mu    sync.Mutex
	spent map[string]int64
}

func (b *budget) Spend(_ context.Context, job *beacon.Job, instructions int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent[job.Tenant] += instructions
	if job.Tenant == "poor" && b.spent["poor"] > 50_000_000 {
		return beacon.Errorf(beacon.FuelLimit, "tenant poor has used up its fuel of this minute")
	}
	return nil
}

func TestBudget(t *testing.T) {
	b := &budget{spent: map[string]int64{}}
	cfg := wasmrt.Config{Log: quiet(), Budget: b}
	loop := loadWith(t, cfg, wasmrt.Source{Name: "loop", Binary: guest(t, "hostile/loop-counting")})
	job, _ := newJob(t, `{"Stdin": "none"}`)
	job.Tenant = "poor"
	_, err := loop.Run(t.Context(), job)
	requireFailure(t, err, beacon.FuelLimit, "tenant poor has used up its fuel of this minute")
	require.Zero(t, b.spent["rich"])

	work := loadWith(t, cfg, wasmrt.Source{Name: "work", Binary: guest(t, "work"), Limits: wasmrt.Limits{Fuel: 1 << 40}})
	job, _ = newJob(t, `{"Stdin": "none"}`)
	job.Tenant = "rich"
	_, err = work.Run(t.Context(), job)
	require.NoError(t, err)
	require.EqualValues(t, 2+1000*10, b.spent["rich"], "exactly, where it is counted exactly")
}

// The compiled modules are those of the texts beside them.
func TestHostileAreCurrent(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		missingTool(t, "wat2wasm", err)
	}
	texts, err := filepath.Glob("testdata/hostile/*.wat")
	require.NoError(t, err)
	for _, path := range texts {
		out := filepath.Join(t.TempDir(), "out.wasm")
		said, err := exec.CommandContext(t.Context(), tool, "--debug-names", path, "-o", out).CombinedOutput()
		require.NoError(t, err, "%s", said)
		want, err := os.ReadFile(out)
		require.NoError(t, err)
		require.Equal(t, want, guest(t, "hostile/"+strings.TrimSuffix(filepath.Base(path), ".wat")), path)
	}
}
