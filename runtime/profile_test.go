package runtime_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	pprof "github.com/google/pprof/profile"
	"github.com/stretchr/testify/require"

	wasmrt "github.com/ultravisor/beacon/runtime"
)

// fuelOf runs an item of a module, counted exactly, and says what it used.
func fuelOf(t *testing.T, name string, binary []byte, limit int64, settings string) int64 {
	t.Helper()
	m := load(t, name, binary, wasmrt.Limits{Fuel: limit})
	job, _ := newJob(t, settings)
	result, _ := m.Run(t.Context(), job)
	found := regexp.MustCompile(`fuel: (\d+) of \d+ units`).FindStringSubmatch(strings.Join(result.Log, "\n"))
	require.NotNil(t, found, result.Log)
	used, err := strconv.ParseInt(found[1], 10, 64)
	require.NoError(t, err)
	return used
}

// profileOf runs the same item, profiled.
func profileOf(t *testing.T, name string, binary []byte, limit int64, settings string) (total int64, p *pprof.Profile) {
	t.Helper()
	m := load(t, name, binary, wasmrt.Limits{Fuel: limit, Profile: true})
	job, _ := newJob(t, settings)
	_, _ = m.Run(t.Context(), job)
	var raw bytes.Buffer
	require.NoError(t, m.FuelProfile().Write(&raw))
	p, err := pprof.Parse(&raw)
	require.NoError(t, err)
	return m.FuelProfile().Total(), p
}

// What is profiled adds up to the fuel that the item takes without being profiled,
// however it ends.
func TestFuelProfileIsWhole(t *testing.T) {
	const none = `{"Stdin": "none"}`
	for name, limit := range map[string]int64{
		"profile": 1 << 50, "tiny": 1 << 50, "branching": 1_000_000, "work": 1 << 50, "stdout": 1 << 50, "exit": 1 << 50,
		"trap": 1 << 50, "recursion": 1 << 50, "loop": 50_000,
	} {
		t.Run(name, func(t *testing.T) {
			binary := guest(t, name)
			want := fuelOf(t, name, binary, limit, none)
			total, p := profileOf(t, name, binary, limit, none)
			require.Positive(t, want)
			require.Equal(t, want, total)
			sum := int64(0)
			for _, s := range p.Sample {
				require.Positive(t, s.Value[0])
				sum += s.Value[0]
			}
			require.Equal(t, want, sum)
		})
	}
}

// Each function has what it used itself, below those that called it.
func TestFuelProfileFunctions(t *testing.T) {
	_, p := profileOf(t, "profile", guest(t, "profile"), 1<<50, `{"Stdin": "none"}`)
	flat, called := map[string]int64{}, map[string]int64{}
	for _, s := range p.Sample {
		var stack []string
		for _, l := range s.Location {
			stack = append(stack, l.Line[0].Function.Name)
		}
		require.Equal(t, "_start", stack[len(stack)-1])
		flat[stack[0]] += s.Value[0]
		if len(stack) > 1 {
			called[stack[0]+" from "+stack[1]] += s.Value[0]
		}
	}
	require.Contains(t, called, "leaf from loop")
	require.Contains(t, called, "leaf from copies")
	require.Contains(t, called, "leaf from choose", "a call at the end takes the place of its function")
	require.NotContains(t, called, "leaf from last")
	require.Contains(t, called, "deep from deep")
	require.Zero(t, flat["leaf"]%1002, "1002 calls that do the same")
	require.Positive(t, flat["leaf"])
	require.Greater(t, flat["copies"], int64(2_400_000/64), "by their length")
}

// Lines of the source are told where the module tells them, and go tool pprof shows
// them.
func TestFuelProfileLines(t *testing.T) {
	binary := withLines(t)
	want := fuelOf(t, "lines", binary, 1<<50, `{"Stdin": "none"}`)
	total, p := profileOf(t, "lines", binary, 1<<50, `{"Stdin": "none"}`)
	require.Equal(t, want, total)
	file := filepath.Join(t.TempDir(), "fuel.pprof")
	f, err := os.Create(file)
	require.NoError(t, err)
	require.NoError(t, p.Write(f))
	require.NoError(t, f.Close())
	top, err := exec.Command("go", "tool", "pprof", "-top", "-lines", file).CombinedOutput()
	require.NoError(t, err, string(top))
	require.Contains(t, string(top), "of "+strconv.FormatInt(want, 10)+" total")
	require.Regexp(t, `divide .*trap\.c:5`, string(top))
	require.Regexp(t, `compute .*trap\.c:1\d`, string(top))
}
