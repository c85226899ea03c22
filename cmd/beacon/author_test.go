package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/scaffold"
)

// BenchmarkAuthor measures what an author waits for, in each language whose compiler
// is there, with the command as users have it: from beacon new to a passing
// beacon test on a machine that has built nothing before (first), the same for a
// second provider (second), and beacon test after a change (again). The times
// of the processor are those of all processes, compilers included.
func BenchmarkAuthor(b *testing.B) {
	binary := filepath.Join(b.TempDir(), "beacon")
	build := exec.Command("go", "build", "-o", binary, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	said, err := build.CombinedOutput()
	require.NoError(b, err, "%s", said)
	// What greets in the source of each language.
	sources := map[string]string{"go": "main.go", "rust": "src/lib.rs", "c": "provider.c", "assemblyscript": "provider.ts", "javascript": "provider.js"}
	for _, lang := range scaffold.Languages() {
		b.Run(lang, func(b *testing.B) {
			var clock, processor [3]time.Duration
			for range b.N {
				dir := b.TempDir()
				beacon := func(at int, args ...string) {
					cmd := exec.Command(binary, args...)
					cmd.Dir = dir
					cmd.Env = append(os.Environ(), "BEACON_CACHE_DIR="+filepath.Join(dir, "cache"), "GOCACHE="+filepath.Join(dir, "go-build"))
					start := time.Now()
					said, err := cmd.CombinedOutput()
					clock[at] += time.Since(start)
					if err != nil && bytes.Contains(said, []byte(" takes ")) {
						b.Skipf("%s", said)
					}
					require.NoError(b, err, "%s", said)
					processor[at] += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
				}
				beacon(0, "new", "hello", "--lang", lang)
				beacon(0, "test", "hello")
				beacon(1, "new", "other", "--lang", lang)
				beacon(1, "test", "other")
				source := filepath.Join(dir, "hello", filepath.FromSlash(sources[lang]))
				text, err := os.ReadFile(source)
				require.NoError(b, err)
				changed := bytes.ReplaceAll(text, []byte("lines numbered"), []byte("lines numbered"+" "))
				require.NotEqual(b, text, changed)
				require.NoError(b, os.WriteFile(source, changed, 0o600))
				beacon(2, "test", "hello", "--run", "greet")
			}
			for i, name := range []string{"first", "second", "again"} {
				b.ReportMetric(clock[i].Seconds()/float64(b.N), name+"-s")
				b.ReportMetric(processor[i].Seconds()/float64(b.N), name+"-cpu-s")
			}
		})
	}
}
