package hostile_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// endless are the modules of package runtime that do not want to end.
func endless(t *testing.T) (all []specimen) {
	t.Helper()
	files, err := filepath.Glob("../runtime/testdata/hostile/*.wasm")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		binary, err := os.ReadFile(file)
		require.NoError(t, err)
		all = append(all, specimen{name: strings.TrimSuffix(filepath.Base(file), ".wasm"), binary: binary, wants: []string{string(beacon.Timeout)}})
	}
	return all
}

// tenant has the modules of the default tenant begin, in its process.
func (w *world) tenant(t *testing.T, modules []specimen) {
	for _, s := range modules {
		require.NoError(t, w.isolated[s.name].Warm(t.Context(), beacon.DefaultTenant))
	}
}

// S18: one tenant runs everything that is hostile, again and again; of the items
// of another one, none fails. How much longer those take is printed and depends
// on what else the machine does: so an idle worker, one beside hostile items, and
// one beside processes that do nothing but use a processor take turns.
// BEACON_NEIGHBOUR is how long each is measured in all, such as 60s; otherwise it
// is what the hostile ones need for one round.
// With BEACON_ISOLATION=process each of the two tenants has a process.
func TestNoisyNeighbour(t *testing.T) {
	var length time.Duration
	if text := os.Getenv("BEACON_NEIGHBOUR"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	modules := append(specimens(t), endless(t)...)
	w := newWorld(t, modules, os.Getenv("BEACON_ISOLATION") == "process")
	defer w.close()
	modules = slices.DeleteFunc(modules, func(s specimen) bool { return w.refused[s.name] != nil })
	n := &noise{world: w, modules: modules, requests: w.requests()}
	// Both begin with what has run once.
	if w.box != nil {
		w.tenant(t, modules)
	}
	w.noops(t, time.Second/10)
	if length == 0 {
		idle := latenciesOf(w.noops(t, time.Second))
		stop := n.begin(t, 1)
		var beside []time.Duration
		for n.next.Load() < int64(len(modules)) {
			beside = append(beside, w.noops(t, time.Second/10)...)
		}
		stop()
		t.Logf("idle: %s", idle)
		t.Logf("beside 1 hostile: %s; %s", latenciesOf(beside).to(idle), n)
		return
	}
	const window = 2 * time.Second
	measured := []struct {
		name  string
		begin func(*testing.T, int) (stop func())
		many  int
		all   []time.Duration
	}{
		{name: "idle", begin: func(*testing.T, int) func() { return func() {} }},
		{name: "beside 1 busy process", begin: busy, many: 1},
		{name: "beside 1 hostile", begin: n.begin, many: 1},
		{name: "beside 2 busy processes", begin: busy, many: 2},
		{name: "beside 2 hostile", begin: n.begin, many: 2},
	}
	for range max(length/window, 1) {
		for i := range measured {
			m := &measured[i]
			stop := m.begin(t, m.many)
			m.all = append(m.all, w.noops(t, window)...)
			stop()
		}
	}
	idle := latenciesOf(measured[0].all)
	for _, m := range measured {
		t.Logf("%-24s %s", m.name+":", latenciesOf(m.all).to(idle))
	}
	t.Log(n)
	if w.box != nil {
		t.Logf("%d processes", w.box.Stats().Started)
	}
}

// busy starts processes that use a processor each, and returns what ends them.
func busy(t *testing.T, many int) (stop func()) {
	t.Helper()
	var all []func()
	for range many {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), busyVariable+"=1")
		stdin, err := cmd.StdinPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		all = append(all, func() {
			require.NoError(t, stdin.Close())
			require.NoError(t, cmd.Wait())
		})
	}
	return func() {
		for _, end := range all {
			end()
		}
	}
}

// busyVariable in the environment makes this program use a processor, and do
// nothing else, until its standard input ends.
const busyVariable = "BEACON_TEST_BUSY"

func beBusy() {
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		continue
	}
}

// latencies are those of a number of items.
type latencies struct {
	items         int
	p50, p99, max time.Duration
}

func latenciesOf(all []time.Duration) latencies {
	slices.Sort(all)
	return latencies{len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

func (l latencies) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
	return fmt.Sprintf("%d items, p50 %s, p99 %s, max %s", l.items, round(l.p50), round(l.p99), round(l.max))
}

// to is String, with what it is in proportion.
func (l latencies) to(idle latencies) string {
	ratio := func(a, b time.Duration) float64 { return float64(a) / float64(b) }
	return fmt.Sprintf("%s; p50 × %.2f, p99 × %.2f", l, ratio(l.p50, idle.p50), ratio(l.p99, idle.p99))
}

// noops carries out items of a tenant that do nothing, one after the other, for
// so long. None of them fails.
func (w *world) noops(t *testing.T, length time.Duration) (took []time.Duration) {
	t.Helper()
	for until := time.Now().Add(length); len(took) == 0 || time.Now().Before(until); {
		item := beacon.WorkItem{Hash: "noop", Capability: "noop", RunID: "acme", Timeout: time.Hour}
		begin := time.Now()
		result, err := w.run.Run(t.Context(), item, nil)
		took = append(took, time.Since(begin))
		require.NoError(t, err)
		require.Zero(t, result.ExitCode(), result.Log)
		time.Sleep(time.Millisecond / 2) // a worker has items now and then
	}
	return took
}

// A noise is hostile items of the default tenant, all modules again and again.
type noise struct {
	world    *world
	modules  []specimen
	requests beacon.Settings
	next     atomic.Int64 // how many items have begun
}

func (n *noise) String() string { return fmt.Sprintf("%d hostile items", n.next.Load()) }

// begin runs so many at once until it is stopped.
func (n *noise) begin(t *testing.T, many int) (stop func()) {
	var over atomic.Bool
	var tasks sync.WaitGroup
	for range many {
		tasks.Go(func() {
			for !over.Load() {
				s := n.modules[int(n.next.Add(1)-1)%len(n.modules)]
				timeout := time.Minute
				if slices.Contains(s.wants, string(beacon.Timeout)) {
					timeout = deadline
				}
				item := beacon.WorkItem{Hash: "noise", Capability: s.name, Settings: n.requests, Timeout: timeout}
				_, err := n.world.run.RunLocal(context.Background(), item, n.world.source, "", nil)
				if beacon.CodeOf(err) == beacon.Internal {
					t.Errorf("%s: %v", s.name, err)
				}
			}
		})
	}
	return func() {
		over.Store(true)
		tasks.Wait()
	}
}
