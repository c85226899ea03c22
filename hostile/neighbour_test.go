package hostile_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
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

// S18: one tenant runs everything that is hostile, again and again; of the items
// of another one, none fails. How much longer those take is printed and depends
// on what else the machine does. BEACON_NEIGHBOUR is how long each measurement
// lasts, such as 60s; otherwise it is what the hostile ones need for one round.
func TestNoisyNeighbour(t *testing.T) {
	var length time.Duration
	if text := os.Getenv("BEACON_NEIGHBOUR"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	modules := append(specimens(t), endless(t)...)
	w := newWorld(t, modules)
	defer w.close()
	modules = slices.DeleteFunc(modules, func(s specimen) bool { return w.refused[s.name] != nil })
	// Both begin with what has run once.
	w.noops(t, time.Now().Add(time.Second/10), nil)
	idle := w.noops(t, time.Now().Add(max(length, time.Second)), nil)
	t.Logf("idle:              %s", idle)
	for _, hostile := range []int{1, 2} {
		if hostile > 1 && length == 0 {
			break
		}
		rounds := w.noise(t, modules, hostile, time.Now().Add(length))
		beside := w.noops(t, time.Now().Add(length), rounds.done)
		rounds.wait()
		t.Logf("beside %d hostile:  %s; p50 × %.2f, p99 × %.2f; %d hostile items", hostile, beside,
			ratio(beside.p50, idle.p50), ratio(beside.p99, idle.p99), rounds.items)
		idle = w.noops(t, time.Now().Add(max(length, time.Second)), nil)
		t.Logf("idle again:        %s", idle)
	}
}

func ratio(a, b time.Duration) float64 { return float64(a) / float64(b) }

// latencies are those of a number of items.
type latencies struct {
	items         int
	p50, p99, max time.Duration
}

func (l latencies) String() string {
	round := func(d time.Duration) time.Duration { return d.Round(time.Microsecond) }
	return fmt.Sprintf("%d items, p50 %s, p99 %s, max %s", l.items, round(l.p50), round(l.p99), round(l.max))
}

// noops carries out items of a tenant that do nothing, one after the other,
// until a time has come and done, if any, is closed. None of them fails.
func (w *world) noops(t *testing.T, until time.Time, done <-chan struct{}) latencies {
	t.Helper()
	var all []time.Duration
	over := func() bool {
		if done == nil {
			return time.Now().After(until)
		}
		select {
		case <-done:
			return true
		default:
			return false
		}
	}
	for len(all) == 0 || !over() {
		item := beacon.WorkItem{Hash: "noop", Capability: "noop", RunID: "acme", Timeout: time.Hour}
		begin := time.Now()
		result, err := w.run.Run(t.Context(), item, nil)
		all = append(all, time.Since(begin))
		require.NoError(t, err)
		require.Zero(t, result.ExitCode(), result.Log)
		time.Sleep(time.Millisecond / 2) // a worker has items now and then
	}
	slices.Sort(all)
	return latencies{len(all), all[len(all)/2], all[len(all)*99/100], all[len(all)-1]}
}

// rounds are those of hostile items.
type rounds struct {
	done  chan struct{} // closed when there are no more
	tasks sync.WaitGroup
	mu    sync.Mutex
	items int
}

func (r *rounds) wait() { <-r.done }

// noise runs all modules again and again for the default tenant, so many at
// once, until a time has come, and once at least.
func (w *world) noise(t *testing.T, modules []specimen, parallel int, until time.Time) *rounds {
	r := &rounds{done: make(chan struct{})}
	for n := range parallel {
		r.tasks.Go(func() {
			for i := 0; i < len(modules) || time.Now().Before(until); i++ {
				s := modules[(i+n*len(modules)/parallel)%len(modules)]
				timeout := time.Minute
				if slices.Contains(s.wants, string(beacon.Timeout)) {
					timeout = deadline
				}
				item := beacon.WorkItem{Hash: "noise", Capability: s.name, Settings: w.requests(), Timeout: timeout}
				_, err := w.run.RunLocal(context.Background(), item, w.source, "", nil)
				if beacon.CodeOf(err) == beacon.Internal {
					t.Errorf("%s: %v", s.name, err)
				}
				r.mu.Lock()
				r.items++
				r.mu.Unlock()
			}
		})
	}
	go func() {
		r.tasks.Wait()
		close(r.done)
	}()
	return r
}
