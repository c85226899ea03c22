package conformance_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// BenchmarkSDK shows what the conformance provider costs in each language: the size of
// its module, how long it takes to load without a cache (to check, rewrite, compile
// and describe it), how long the first item takes, which includes the initialisation,
// and how long each further one.
func BenchmarkSDK(b *testing.B) {
	for _, l := range sdks {
		b.Run(l.name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "conformance.wasm")
			l.build(b, path)
			info, err := os.Stat(path)
			require.NoError(b, err)
			root, err := os.OpenRoot(b.TempDir())
			require.NoError(b, err)
			defer root.Close()
			job := &beacon.Job{Item: beacon.WorkItem{Action: "Echo", Settings: beacon.Settings{"Text": []byte(`"hello"`)}}, Dir: root}

			start := time.Now()
			module := load(b, path)
			loaded := time.Since(start)
			item := func() {
				result, err := module.Run(b.Context(), job)
				if err != nil || result.ExitCode() != 0 {
					b.Fatal(result, err)
				}
			}
			start = time.Now()
			item()
			first := time.Since(start)
			for b.Loop() {
				item()
			}
			b.ReportMetric(float64(info.Size())/1000, "kB")
			b.ReportMetric(float64(loaded.Microseconds())/1000, "load-ms")
			b.ReportMetric(float64(first.Microseconds())/1000, "first-ms")
		})
	}
}
