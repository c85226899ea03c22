package sandbox_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// processor is the time that a process has had on processors.
func processor(b *testing.B, pid int) time.Duration {
	var t unix.Timespec
	require.NoError(b, unix.ClockGettime(int32(^pid<<3|2), &t)) //nolint:gosec // the clock of a process, see clock_getcpuclockid(3)
	return time.Duration(t.Nano())
}

// measure does something b.N times, some at a time, and reports the time that one
// takes on the wall, and on the processors in this process and in another one.
func measure(b *testing.B, atOnce, other int, do func() error) {
	const warm = 1000
	each := max(b.N/atOnce, 1)
	took := make([][]time.Duration, atOnce)
	round := func(n int) {
		var all sync.WaitGroup
		for i := range took {
			took[i] = make([]time.Duration, 0, n)
			all.Go(func() {
				for range n {
					begin := time.Now()
					if err := do(); err != nil {
						b.Error(err)
						return
					}
					took[i] = append(took[i], time.Since(begin))
				}
			})
		}
		all.Wait()
	}
	round(warm)
	here, there := processor(b, os.Getpid()), time.Duration(0)
	if other != 0 {
		there = processor(b, other)
	}
	b.ResetTimer()
	round(each)
	b.StopTimer()
	times := slices.Concat(took...)
	slices.Sort(times)
	n := float64(len(times))
	b.ReportMetric(float64(times[len(times)/2]), "p50-ns")
	b.ReportMetric(float64(times[len(times)*99/100]), "p99-ns")
	b.ReportMetric(float64(processor(b, os.Getpid())-here)/n, "cpu-here-ns")
	if other != 0 {
		b.ReportMetric(float64(processor(b, other)-there)/n, "cpu-there-ns")
	}
}

// What an item that does nothing costs here and in a process, and beside what the
// kernel takes for a packet of 64 bytes to a process and back.
func BenchmarkItem(b *testing.B) {
	s, err := sandbox.New(sandbox.Config{Runtime: wasmrt.Config{CacheDir: b.TempDir() + "/cache"}})
	require.NoError(b, err)
	defer func() { require.NoError(b, s.Close()) }()
	src := wasmrt.Source{Name: "tiny", Binary: guest(b, "tiny")}
	here, err := s.Runtime().Load(b.Context(), src)
	require.NoError(b, err)
	defer func() { require.NoError(b, here.Close(context.Background())) }()
	there, err := s.Load(b.Context(), src)
	require.NoError(b, err)
	defer func() { require.NoError(b, there.Close(context.Background())) }()
	job := jobOf(b, nil)
	run := func(p beacon.Provider) func() error {
		return func() error {
			ctx, cancel := context.WithTimeout(b.Context(), time.Hour) // as all items have one
			defer cancel()
			_, err := p.Run(ctx, job)
			return err
		}
	}
	require.NoError(b, run(there)())
	other := s.PID(beacon.DefaultTenant)
	b.Run("floor", floor)
	for _, n := range []int{1, 4, 16} {
		b.Run(fmt.Sprint("here-", n), func(b *testing.B) { measure(b, n, 0, run(here)) })
		b.Run(fmt.Sprint("process-", n), func(b *testing.B) { measure(b, n, other, run(there)) })
	}
}

const floorName = "beacon-floor"

// floor has a process send back what it gets.
func floor(b *testing.B) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(b, err)
	theirs := os.NewFile(uintptr(pair[1]), "floor")
	cmd := exec.Command("/proc/self/exe")
	cmd.Args, cmd.ExtraFiles = []string{floorName}, []*os.File{theirs}
	require.NoError(b, cmd.Start())
	require.NoError(b, theirs.Close())
	packet := make([]byte, 64)
	measure(b, 1, cmd.Process.Pid, func() error {
		if _, err := syscall.Write(pair[0], packet); err != nil {
			return err
		}
		_, err := syscall.Read(pair[0], packet)
		return err
	})
	require.NoError(b, unix.Close(pair[0]))
	require.NoError(b, cmd.Wait())
}

// sendsBack is true if this was that process.
func sendsBack() bool {
	if os.Args[0] != floorName {
		return false
	}
	packet := make([]byte, 64)
	for {
		n, err := syscall.Read(3, packet)
		if err != nil || n == 0 {
			return true
		}
		if _, err := syscall.Write(3, packet[:n]); err != nil {
			return true
		}
	}
}

// What the first item of a tenant takes: the worker has begun with a warm cache,
// there is no process yet, and the module has to be opened in it.
func BenchmarkFirstItem(b *testing.B) {
	reactor := filepath.Join(b.TempDir(), "transform.wasm")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-buildmode=c-shared", "-o", reactor, "../examples/wasm/transform")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	require.NoError(b, err, "%s", said)
	transform, err := os.ReadFile(reactor)
	require.NoError(b, err)
	tiny := guest(b, "tiny")
	for _, guest := range []struct {
		name   string
		binary []byte
	}{{"tiny", tiny}, {"go", transform}} {
		cache := b.TempDir() + "/cache"
		ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
		once := func(b *testing.B, isolated bool) (begin, first, second time.Duration) {
			start := time.Now()
			s, err := sandbox.New(sandbox.Config{Runtime: wasmrt.Config{CacheDir: cache}})
			require.NoError(b, err)
			src := wasmrt.Source{Name: guest.name, Binary: guest.binary}
			var m interface {
				beacon.Provider
				Close(context.Context) error
			}
			if isolated {
				m, err = s.Load(b.Context(), src)
			} else {
				m, err = s.Runtime().Load(b.Context(), src)
			}
			require.NoError(b, err)
			run := func() (took time.Duration) {
				job := jobOf(b, beacon.Settings{})
				job.Item.Action = "Convert"
				ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
				defer cancel()
				begin := time.Now()
				_, err := m.Run(ctx, job)
				if code := beacon.CodeOf(err); err != nil && code != beacon.Failed { // it has no source
					require.NoError(b, err)
				}
				return time.Since(begin)
			}
			begin = time.Since(start)
			first, second = run(), run()
			require.NoError(b, m.Close(context.Background()))
			require.NoError(b, s.Close())
			return begin, first, second
		}
		for _, where := range []string{"here", "process"} {
			b.Run(guest.name+"-"+where, func(b *testing.B) {
				once(b, where == "process") // warms the cache
				var begin, first, second []time.Duration
				for b.Loop() {
					x, y, z := once(b, where == "process")
					begin, first, second = append(begin, x), append(first, y), append(second, z)
				}
				for _, m := range []struct {
					name string
					all  []time.Duration
				}{{"load-ms", begin}, {"first-ms", first}, {"second-ms", second}} {
					slices.Sort(m.all)
					b.ReportMetric(ms(m.all[len(m.all)/2]), m.name)
				}
			})
		}
	}
}
