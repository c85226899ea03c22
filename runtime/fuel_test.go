package runtime_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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

// Whatever a guest does, it ends soon after its deadline, and the rest of the
// process goes on meanwhile. The first line of each module's text says how it
// may end.
func TestHostile(t *testing.T) {
	const deadline = 300 * time.Millisecond
	texts, err := filepath.Glob("testdata/hostile/*.wat")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(texts), 40)
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
			m := load(t, name, guest(t, "hostile/"+name), wasmrt.Limits{})
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
	t.Logf("worst: %s over (%s), %s pause (%s)", overshoot, slowest, pause, longest)
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
