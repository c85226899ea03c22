package runtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// The steps of testdata/mess.wat: what can be put back, what cannot, and other
// ends than a clean return.
const (
	messSteps  = "wwwwffccmggvopknbrd"
	messTaints = "TGFCIDE"
	messEnds   = "XQN"
)

// program makes a random one of the given steps.
func messProgram(random *rand.Rand, steps string, length int) string {
	var b strings.Builder
	for range random.IntN(length) {
		fmt.Fprintf(&b, "%c%08x%08x", steps[random.IntN(len(steps))], random.Uint32(), random.Uint32()>>random.IntN(32))
	}
	return b.String()
}

// messRun runs an item and returns what its guest saw before it did anything.
func messRun(ctx context.Context, t *testing.T, m *wasmrt.Module, tenant, program string) (seen string, err error) {
	t.Helper()
	job, _ := newJob(t, fmt.Sprintf(`{"Program": %q}`, program))
	job.Tenant = tenant
	result, err := m.Run(ctx, job)
	if err != nil {
		return "", err
	}
	raw, err := json.Marshal(result.Outputs["Seen"])
	require.NoError(t, err)
	return string(raw), nil
}

// Whatever an item does, the next one finds the instance as it was after
// initialisation, and so it is, byte by byte.
func TestNothingIsLeft(t *testing.T) {
	for name, pool := range map[string]wasmrt.Pool{
		"restored":  {},
		"one":       {Ready: -1, Most: 1},
		"all fresh": {Fresh: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: pool})
			pristine, err := messRun(t.Context(), t, m, "", "")
			require.NoError(t, err)
			require.Contains(t, pristine, `"0000006f"`, "11 and the 100 of the start function")
			random := rand.New(rand.NewPCG(1, 2))
			clean := 0
			for n := range 150 {
				steps := messSteps
				switch n % 10 {
				case 8:
					steps += messTaints
				case 9:
					steps += messEnds
				}
				program := messProgram(random, steps, 40)
				seen, err := messRun(t.Context(), t, m, fmt.Sprint("tenant", n%3), program)
				if err != nil {
					require.Contains(t, []beacon.Code{beacon.Trapped, beacon.Failed}, beacon.CodeOf(err), "%v", err)
				} else {
					require.Equal(t, pristine, seen, "after program %d, %s", n, program)
					clean++
				}
				differences, err := m.Differences(t.Context())
				require.NoError(t, err)
				require.Empty(t, differences, "after program %d, %s", n, program)
			}
			require.Greater(t, clean, 130)
			stats := m.Pool()
			t.Logf("%+v", stats)
			if pool.Fresh {
				require.Zero(t, stats.Restored)
				return
			}
			require.Greater(t, stats.Restored, int64(120))
			require.EqualValues(t, 1, stats.Snapshots)
		})
	}
}

// Each step by itself does what it says: if not, the test above would prove
// nothing. Steps that cannot be put back, and other ends, cost the instance.
func TestSteps(t *testing.T) {
	m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: wasmrt.Pool{Ready: -1}})
	for _, step := range messSteps + messTaints + messEnds {
		before := m.Pool()
		_, err := messRun(t.Context(), t, m, "a", fmt.Sprintf("%c%08x%08x", step, 4, 7))
		after := m.Pool()
		if strings.ContainsRune(messEnds, step) {
			require.Error(t, err, "%c", step)
		} else {
			require.NoError(t, err, "%c", step)
		}
		restored := int64(1)
		if !strings.ContainsRune(messSteps, step) {
			restored = 0
		}
		require.Equal(t, restored, after.Restored-before.Restored, "%c", step)
		require.Equal(t, 1-restored, after.Dropped-before.Dropped, "%c", step)
	}
}

// An instance serves one tenant only.
func TestTenantsShareNoInstance(t *testing.T) {
	m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: wasmrt.Pool{Ready: -1, Idle: time.Hour}})
	for n := range 40 {
		_, err := messRun(t.Context(), t, m, fmt.Sprint("tenant", n%4), "")
		require.NoError(t, err)
	}
	require.Equal(t, map[string]int{"tenant0": 1, "tenant1": 1, "tenant2": 1, "tenant3": 1}, m.Tenants())
	require.EqualValues(t, 4, m.Pool().Made)
}

// Fuel counts what the item does, whoever has initialised the instance.
func TestFuelIsTheItems(t *testing.T) {
	said := map[string]int{}
	for _, pool := range []wasmrt.Pool{{}, {Fresh: true}} {
		m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{
			Name: "subject", Binary: guest(t, "mess"), Pool: pool, Limits: wasmrt.Limits{Fuel: 10_000_000},
		})
		for range 3 {
			job, _ := newJob(t, `{"Program": "w0000000400000007"}`)
			result, err := m.Run(t.Context(), job)
			require.NoError(t, err)
			require.Len(t, result.Log, 1)
			said[result.Log[0]]++
		}
	}
	require.Len(t, said, 1, "%v", said)
}

// A program in Go finds nothing of the items before, and is warm.
func TestGoFindsNothing(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{Name: "reactor", Binary: built(t, goLeaver)})
	for range 20 {
		job, _ := newJob(t, "{}")
		job.Item.Action = "Leave"
		result, err := m.Run(t.Context(), job)
		require.NoError(t, err)
		raw, err := json.Marshal(result.Outputs["Result"])
		require.NoError(t, err)
		require.Equal(t, `"items 0, words 2, warmed from the file, files 0, environment "`, string(raw))
		differences, err := m.Differences(t.Context())
		require.NoError(t, err)
		require.Empty(t, differences)
	}
	require.EqualValues(t, 20, m.Pool().Restored)
}

// Random numbers of each kind differ from item to item, although the instance is
// put back to the same state.
func TestGoRandomDiffers(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{Name: "reactor", Binary: built(t, goLeaver), Pool: wasmrt.Pool{Ready: -1}})
	seen := map[string]map[string]bool{}
	const items = 20
	for range items {
		job, _ := newJob(t, "{}")
		job.Item.Action = "Random"
		result, err := m.Run(t.Context(), job)
		require.NoError(t, err)
		for _, kind := range []string{"Global", "Secure", "Order", "Select", "Own"} {
			raw, err := json.Marshal(result.Outputs[kind])
			require.NoError(t, err)
			if seen[kind] == nil {
				seen[kind] = map[string]bool{}
			}
			seen[kind][string(raw)] = true
		}
		raw, err := json.Marshal(result.Outputs["Monotonic"])
		require.NoError(t, err)
		require.Equal(t, `"true"`, string(raw), "the clock goes on")
	}
	for kind, values := range seen {
		require.Len(t, values, items, kind)
	}
	require.EqualValues(t, 1, m.Pool().Made)
	require.Equal(t, 3, m.RandomFound(), "of the Go runtime; see reseed.go if a new version of Go has another layout")
	require.False(t, m.RandomFixed())
}

// Why a module gets a new instance for each item can be asked.
func TestInstances(t *testing.T) {
	for name, tt := range map[string]struct {
		guest string
		pool  wasmrt.Pool
		want  wasmrt.Instances
	}{
		"initialises":       {"mess", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Memory: 4 << 16, Taints: true, Random: wasmrt.RandomNone}},
		"nothing to do":     {"tiny", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Memory: 1 << 16, Random: wasmrt.RandomNone}},
		"a command":         {"exit", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Memory: 1 << 16, Random: wasmrt.RandomNone}},
		"no memory":         {"no_memory", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Random: wasmrt.RandomNone}},
		"as configured":     {"mess", wasmrt.Pool{Fresh: true}, wasmrt.Instances{Reason: "the configuration says so", Memory: 3 << 16, Taints: true, Random: wasmrt.RandomPerItem}},
		"opens a directory": {"init_open", wasmrt.Pool{}, wasmrt.Instances{Reason: "while initialising, it opens, closes or moves descriptors, which belong to an item", Memory: 1 << 16, Random: wasmrt.RandomPerItem}},
		"changes a table":   {"init_table", wasmrt.Pool{}, wasmrt.Instances{Reason: "while initialising, it changes a table or drops a segment, which cannot be put back", Memory: 1 << 16, Taints: true, Random: wasmrt.RandomPerItem}},
		"keeps a vector":    {"vector_global", wasmrt.Pool{}, wasmrt.Instances{Reason: "its global 0 is a mutable v128, which cannot be read from outside", Initialized: true, Memory: 1 << 16, Random: wasmrt.RandomNone}},
		"keeps random":      {"init_random", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Memory: 1 << 16, Random: wasmrt.RandomAge}},
		"reseeds":           {"reseed", wasmrt.Pool{}, wasmrt.Instances{Restored: true, Initialized: true, Memory: 1 << 16, Random: wasmrt.RandomGuest}},
	} {
		t.Run(name, func(t *testing.T) {
			m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, tt.guest), Pool: tt.pool})
			got, err := m.Instances(t.Context())
			require.NoError(t, err)
			if tt.want.Memory > 0 {
				require.NotEmpty(t, got.Method)
			}
			got.Method, got.Took, got.Timings = "", 0, nil
			require.Equal(t, tt.want, got)
			for range 3 { // and it works
				job, _ := newJob(t, `{"Program": "", "Code": "0"}`)
				_, err := m.Run(t.Context(), job)
				require.NoError(t, err)
			}
			if stats := m.Pool(); !tt.want.Restored {
				require.Zero(t, stats.Restored)
			} else if tt.guest != "exit" {
				require.EqualValues(t, 3, stats.Restored)
			}
		})
	}
}

// Where the guest reseeds itself, it does so before each item, with new bytes;
// where nobody does, the snapshot does not get old.
func TestRandomOfOtherGuests(t *testing.T) {
	run := func(t *testing.T, name string, pool wasmrt.Pool) (seen map[string]int, stats wasmrt.PoolStats) {
		m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, name), Pool: pool})
		seen = map[string]int{}
		for range 10 {
			job, _ := newJob(t, "{}")
			result, err := m.Run(t.Context(), job)
			require.NoError(t, err)
			raw, err := json.Marshal(result.Outputs["Kept"])
			require.NoError(t, err)
			seen[string(raw)]++
		}
		return seen, m.Pool()
	}
	seen, stats := run(t, "reseed", wasmrt.Pool{})
	require.Len(t, seen, 10)
	require.EqualValues(t, 1, stats.Snapshots)
	seen, stats = run(t, "init_random", wasmrt.Pool{Age: time.Hour})
	require.Len(t, seen, 1)
	require.EqualValues(t, 1, stats.Snapshots)
	seen, stats = run(t, "init_random", wasmrt.Pool{Age: time.Nanosecond, Ready: -1})
	require.Len(t, seen, 10)
	require.EqualValues(t, 10, stats.Snapshots)
	seen, _ = run(t, "init_random", wasmrt.Pool{Fresh: true})
	require.Len(t, seen, 10)
}

// Idle instances first give back their pages, then go, but for those that are to
// be ready.
func TestIdleInstances(t *testing.T) {
	for name, ready := range map[string]int{"none ready": -1, "one ready": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{
					Name: "subject", Binary: guest(t, "mess"), Pool: wasmrt.Pool{Ready: ready, Idle: time.Minute},
				})
				busy(t, m, 3)
				synctest.Wait()
				require.GreaterOrEqual(t, m.Pool().Idle, 3)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				require.GreaterOrEqual(t, m.Pool().Idle, 3)
				require.Equal(t, m.Pool().Idle, m.Cooled())
				_, err := messRun(t.Context(), t, m, "", "w0000000000000001")
				require.NoError(t, err, "a cooled one works")
				differences, err := m.Differences(t.Context())
				require.NoError(t, err)
				require.Empty(t, differences)
				require.Less(t, m.Cooled(), m.Pool().Idle)
				time.Sleep(3 * time.Second)
				synctest.Wait()
				require.Equal(t, m.Pool().Idle, m.Cooled(), "and is cooled again")
				time.Sleep(2 * time.Minute)
				synctest.Wait()
				require.Equal(t, max(ready, 0), m.Pool().Idle)
				_, err = messRun(t.Context(), t, m, "", "")
				require.NoError(t, err)
			})
		})
	}
}

// busy has n items at work at the same time, and ends them.
func busy(t *testing.T, m *wasmrt.Module, n int) {
	t.Helper()
	var all sync.WaitGroup
	here := make(chan struct{}, n)
	leave := make(chan struct{})
	for range n {
		job, _ := newJob(t, `{"Program": "P0000000000000000"}`)
		job.OnProgress = func(beacon.Progress) { here <- struct{}{}; <-leave }
		all.Go(func() {
			if _, err := m.Run(t.Context(), job); err != nil {
				t.Error(err)
			}
		})
	}
	for range n {
		<-here
	}
	close(leave)
	all.Wait()
}

// Ready instances are there before the first item, and made again.
func TestReadyInstances(t *testing.T) {
	m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: wasmrt.Pool{Ready: 3}})
	m.Await()
	require.Equal(t, wasmrt.PoolStats{Idle: 3, Made: 3, Snapshots: 1}, m.Pool())
	_, err := messRun(t.Context(), t, m, "a", "X0000000000000000")
	require.Error(t, err)
	m.Await()
	require.Equal(t, 3, m.Pool().Idle)
}

// No more than Most work at a time; the others wait, as long as their item lasts.
func TestMostInstances(t *testing.T) {
	m := loadWith(t, wasmrt.Config{Log: quiet()}, wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: wasmrt.Pool{Most: 2, Ready: -1}})
	var all sync.WaitGroup
	working, most := atomic.Int32{}, atomic.Int32{}
	for range 20 {
		job, _ := newJob(t, `{"Program": "P0000000000000000"}`)
		job.OnProgress = func(beacon.Progress) {
			now := working.Add(1)
			for {
				if old := most.Load(); now <= old || most.CompareAndSwap(old, now) {
					break
				}
			}
			goruntime.Gosched()
			working.Add(-1)
		}
		all.Go(func() {
			if _, err := m.Run(t.Context(), job); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	require.LessOrEqual(t, most.Load(), int32(2))
	require.Zero(t, m.Pool().Working)

	// One that waits for its turn gives up when its item is over.
	release := make(chan struct{})
	inside := make(chan struct{}, 2)
	for range 2 {
		job, _ := newJob(t, `{"Program": "P0000000000000000"}`)
		job.OnProgress = func(beacon.Progress) { inside <- struct{}{}; <-release }
		all.Go(func() {
			if _, err := m.Run(t.Context(), job); err != nil {
				t.Error(err)
			}
		})
	}
	<-inside
	<-inside
	over := beacon.Errorf(beacon.Canceled, "the item is over")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(time.Millisecond, func() { cancel(over) })
	_, err := messRun(ctx, t, m, "", "")
	require.ErrorIs(t, err, over)
	close(release)
	all.Wait()
	require.Zero(t, m.Pool().Working)
}

// What an item holds that gives up waiting, for its turn or for memory, is given back:
// with the module all of it is gone.
func TestWaitsInVain(t *testing.T) {
	for name, pool := range map[string]wasmrt.Pool{"turn": {Most: 1}, "memory": {}} {
		t.Run(name, func(t *testing.T) {
			const one = 256<<10 + 16<<10 // what an item takes
			r, err := wasmrt.New(wasmrt.Config{Log: quiet(), Memory: one + one/2})
			require.NoError(t, err)
			m, err := r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "mess"), Pool: pool})
			require.NoError(t, err)
			inside, release := make(chan struct{}), make(chan struct{})
			job, _ := newJob(t, `{"Program": "P0000000000000000"}`)
			job.OnProgress = func(beacon.Progress) { inside <- struct{}{}; <-release }
			ended := make(chan error)
			go func() {
				_, err := m.Run(t.Context(), job)
				ended <- err
			}()
			<-inside
			for range 10 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_, err := messRun(ctx, t, m, "", "")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				cancel()
			}
			close(release)
			require.NoError(t, <-ended)
			require.NoError(t, m.Close(context.Background()))
			require.True(t, m.SnapshotFreed())
			require.Zero(t, r.Used())
		})
	}
}

// S15: items wait for memory instead of taking more than there is, and one that wants
// more than is left is told.
func TestMemoryOfTheWorker(t *testing.T) {
	const memory = 2 << 20
	r, err := wasmrt.New(wasmrt.Config{Log: quiet(), Memory: memory})
	require.NoError(t, err)
	m, err := r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "mess")})
	require.NoError(t, err)
	defer func() { require.NoError(t, m.Close(context.Background())) }()
	var all sync.WaitGroup
	for n := range 30 { // each of 256 KiB, and up to 512 more
		all.Go(func() {
			for range 5 {
				if r.Used() > memory {
					t.Errorf("%d used", r.Used())
				}
				_, err := messRun(t.Context(), t, m, fmt.Sprint(n%3), "g0000000000000008")
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	m.Await()
	require.LessOrEqual(t, r.Used(), int64(memory))

	small, err := wasmrt.New(wasmrt.Config{Log: quiet(), Memory: 1 << 20})
	require.NoError(t, err)
	grows, err := small.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "grow")})
	require.NoError(t, err)
	defer func() { require.NoError(t, grows.Close(context.Background())) }()
	job, _ := newJob(t, "{}")
	_, err = grows.Run(t.Context(), job)
	requireFailure(t, err, beacon.MemoryLimit, "module subject wanted more memory than the worker has left for its guests; raise the worker's Memory")
	big, err := small.Load(t.Context(), wasmrt.Source{Name: "big", Binary: guest(t, "big"), Limits: wasmrt.Limits{Memory: 4 << 30}})
	require.NoError(t, err)
	defer func() { require.NoError(t, big.Close(context.Background())) }()
	_, err = big.Run(t.Context(), job)
	requireFailure(t, err, beacon.MemoryLimit, "the module needs 4096 MiB of memory, and all guests of this worker together may have 1 MiB")
}

// A module that was ready once is ready at once the next time, as it was, and
// only if nothing that it depends on has changed.
func TestReadyFromDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var log recorder
	load := func(t *testing.T, change func(*wasmrt.Source)) *wasmrt.Module {
		t.Helper()
		src := wasmrt.Source{Name: "subject", Binary: guest(t, "mess")}
		if change != nil {
			change(&src)
		}
		r, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Log: log.logger()})
		require.NoError(t, err)
		m, err := r.Load(t.Context(), src)
		require.NoError(t, err)
		return m
	}
	seen := map[string]int{}
	use := func(t *testing.T, m *wasmrt.Module, recalled bool) {
		t.Helper()
		require.Equal(t, recalled, m.Recalled())
		for range 3 {
			found, err := messRun(t.Context(), t, m, "", "g0000000000000001w0001000000000001")
			require.NoError(t, err)
			seen[found]++
		}
		found, err := m.Instances(t.Context())
		require.NoError(t, err)
		require.True(t, found.Initialized)
		require.True(t, found.Restored)
		require.Equal(t, "subject", m.Capability().Name)
		require.NoError(t, m.Close(context.Background()))
	}
	use(t, load(t, nil), false)
	use(t, load(t, nil), true)
	use(t, load(t, nil), true)
	require.Len(t, seen, 1, "the same state")
	require.Empty(t, log.String())

	for name, change := range map[string]func(*wasmrt.Source){
		"another name":   func(s *wasmrt.Source) { s.Name = "other" },
		"other limits":   func(s *wasmrt.Source) { s.Limits.Memory = 32 << 20 },
		"counts exactly": func(s *wasmrt.Source) { s.Limits.Fuel = 1e9 },
		"another config": func(s *wasmrt.Source) { s.Config = settingsOf(t, `{"a": 1}`) },
	} {
		t.Run(name, func(t *testing.T) {
			m := load(t, change)
			require.False(t, m.Recalled())
			_, err := messRun(t.Context(), t, m, "", "")
			require.NoError(t, err)
			require.NoError(t, m.Close(context.Background()))
			m = load(t, change)
			require.True(t, m.Recalled())
			require.NoError(t, m.Close(context.Background()))
		})
	}
	fresh := load(t, func(s *wasmrt.Source) { s.Pool.Fresh = true })
	require.False(t, fresh.Recalled())
	require.NoError(t, fresh.Close(context.Background()))

	// What was damaged or written with another key is made again.
	records, err := filepath.Glob(filepath.Join(dir, "*", "snapshot-*"))
	require.NoError(t, err)
	require.Len(t, records, 5)
	for _, record := range records {
		content, err := os.ReadFile(record)
		require.NoError(t, err)
		content[len(content)/2] ^= 1
		require.NoError(t, os.WriteFile(record, content, 0o600))
	}
	use(t, load(t, nil), false)
	require.Contains(t, log.String(), "a kept snapshot cannot be used")
	use(t, load(t, nil), true)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "key"), make([]byte, 32), 0o600))
	use(t, load(t, nil), false)
	use(t, load(t, nil), true)
	require.Len(t, seen, 1)
}

// What must not get old is not kept, and of a program in Go the random state is
// renewed as ever.
func TestKeptRandom(t *testing.T) {
	cfg := wasmrt.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Log: quiet()}
	for range 2 {
		m := loadWith(t, cfg, wasmrt.Source{Name: "subject", Binary: guest(t, "init_random")})
		_, err := m.Instances(t.Context())
		require.NoError(t, err)
		require.NoError(t, m.Close(context.Background()))
		require.False(t, m.Recalled())
	}
	cfg.CacheDir = goCache(t)
	seen := map[string]bool{}
	for n := range 3 {
		m := loadWith(t, cfg, wasmrt.Source{Name: "kept", Binary: built(t, goLeaver)})
		require.Equal(t, n > 0, m.Recalled())
		job, _ := newJob(t, "{}")
		job.Item.Action = "Random"
		result, err := m.Run(t.Context(), job)
		require.NoError(t, err)
		raw, err := json.Marshal(result.Outputs["Global"])
		require.NoError(t, err)
		seen[string(raw)] = true
		raw, err = json.Marshal(result.Outputs["Monotonic"])
		require.NoError(t, err)
		require.Equal(t, `"true"`, string(raw), "the clock goes on")
		found, err := m.Instances(t.Context())
		require.NoError(t, err)
		require.Equal(t, wasmrt.RandomHost, found.Random)
		require.True(t, found.WarmedUp)
		require.NoError(t, m.Close(context.Background()))
	}
	require.Len(t, seen, 3)
}

// Any program at all leaves an instance as it was: what the fuzzer finds is put
// together of the steps of testdata/mess.wat.
func FuzzNothingIsLeft(f *testing.F) {
	r, err := wasmrt.New(wasmrt.Config{Log: quiet()})
	require.NoError(f, err)
	m, err := r.Load(context.Background(), wasmrt.Source{Name: "subject", Binary: guest(f, "mess"), Pool: wasmrt.Pool{Ready: -1}})
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, m.Close(context.Background())) })
	for _, step := range messSteps + messTaints + messEnds {
		f.Add([]byte{byte(step), 0, 0, 0, 3, 0, 0, 0, 9})
	}
	var pristine string
	f.Fuzz(func(t *testing.T, raw []byte) {
		var program strings.Builder
		for ; len(raw) >= 9 && program.Len() < 9000; raw = raw[9:] {
			steps := messSteps + messTaints + messEnds
			fmt.Fprintf(&program, "%c%x", steps[int(raw[0])%len(steps)], raw[1:9])
		}
		seen, err := messRun(t.Context(), t, m, "a", program.String())
		if err == nil && pristine == "" {
			pristine = seen
		}
		if err == nil {
			require.Equal(t, pristine, seen)
		} else {
			require.Contains(t, []beacon.Code{beacon.Trapped, beacon.Failed}, beacon.CodeOf(err), "%v", err)
		}
		differences, err := m.Differences(t.Context())
		require.NoError(t, err)
		require.Empty(t, differences)
	})
}
