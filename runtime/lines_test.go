package runtime_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// S8: a guest that breaks down says where in its source, if it was built with debug
// information: through what was inserted, and in both grades.
func TestSourceLines(t *testing.T) {
	binary := withLines(t)
	for name, limits := range map[string]wasmrt.Limits{"deadline": {}, "exact": {Fuel: 1_000_000}, "profiled": {Profile: true}} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "trap", binary, limits)
			job, _ := newJob(t, `{"Stdin": "none"}`)
			result, err := m.Run(t.Context(), job)
			requireFailure(t, err, beacon.Trapped, "integer divide by zero")
			log := strings.Join(result.Log, "\n")
			for _, want := range []string{"at divide(i32,i32) i32 ", "trap.c:5", "at compute(i32) i32 ", "trap.c:14", "at _start() ", "trap.c:22"} {
				require.Contains(t, log, want)
			}
		})
	}
}

// withLines is testdata/trap.c as a module that tells source lines.
func withLines(t *testing.T) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trap.wasm")
	text, err := exec.Command("clang", "-g", "-O0", "-mbulk-memory", "--target=wasm32", "-nostdlib", "-Wl,--no-entry", "-Wl,--export=_start",
		"-o", out, "testdata/trap.c").CombinedOutput()
	if err != nil {
		missingTool(t, "clang: "+string(text), err)
	}
	binary, err := os.ReadFile(out)
	require.NoError(t, err)
	return binary
}
