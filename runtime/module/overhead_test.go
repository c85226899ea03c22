package module_test

import (
	"bytes"
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// variants are the ways to run a guest that are compared: without a way to end
// it, metered, and with the engine's own interruption.
var variants = []struct {
	name    string
	metered bool
	config  func() wazero.RuntimeConfig
}{
	{"plain", false, wazero.NewRuntimeConfig},
	{"metered", true, wazero.NewRuntimeConfig},
	{"closeOnDone", false, func() wazero.RuntimeConfig { return wazero.NewRuntimeConfig().WithCloseOnContextDone(true) }},
}

var workloads = []string{"json", "sort", "sha256", "regexp", "gzip", "csv", "template", "image", "nested"}

// workload builds the Go guest.
func workload(t testing.TB) []byte {
	out := filepath.Join(t.TempDir(), "workload.wasm")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, "./testdata/meter/workload")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	said, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", said)
	binary, err := os.ReadFile(out)
	require.NoError(t, err)
	return binary
}

// compiled gives an engine in which the guest is ready.
func compiled(ctx context.Context, t testing.TB, binary []byte, metered bool, config wazero.RuntimeConfig) (wazero.Runtime, wazero.CompiledModule) {
	engine := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(features))
	t.Cleanup(func() { require.NoError(t, engine.Close(context.Background())) })
	wasi_snapshot_preview1.MustInstantiate(ctx, engine)
	if metered {
		binary = rewritten(t, binary)
		offerFuel(ctx, t, engine, 1_000_000)
	}
	code, err := engine.CompileModule(ctx, binary)
	require.NoError(t, err)
	return engine, code
}

// work runs the Go guest once.
func work(ctx context.Context, t testing.TB, engine wazero.Runtime, code wazero.CompiledModule, name string) string {
	var out bytes.Buffer
	instance, err := engine.InstantiateModule(ctx, code,
		wazero.NewModuleConfig().WithName("").WithArgs("workload", name).WithStdout(&out).WithStderr(&out).WithStartFunctions())
	require.NoError(t, err)
	_, err = instance.ExportedFunction("_start").Call(ctx)
	if err != nil { // the engine reports every exit
		require.ErrorContains(t, err, "exit_code(0)", out.String())
	}
	require.NoError(t, instance.Close(ctx))
	return out.String()
}

// A real program does the same when it is metered.
func TestMeterGo(t *testing.T) {
	if short() {
		t.Skip("compiles a Go program twice")
	}
	ctx := t.Context()
	binary := workload(t)
	plain, plainCode := compiled(ctx, t, binary, false, wazero.NewRuntimeConfig())
	metered, meteredCode := compiled(ctx, t, binary, true, wazero.NewRuntimeConfig())
	for _, name := range workloads {
		t.Run(name, func(t *testing.T) {
			want := work(ctx, t, plain, plainCode, name)
			require.NotEmpty(t, want)
			require.Equal(t, want, work(ctx, t, metered, meteredCode, name))
		})
	}
}

func BenchmarkMeterC(b *testing.B) {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	binary, err := os.ReadFile("testdata/meter/kernels.wasm")
	require.NoError(b, err)
	sums := map[string]uint64{}
	for _, v := range variants {
		engine, code := compiled(ctx, b, binary, v.metered, v.config())
		instance, err := engine.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
		require.NoError(b, err)
		for _, name := range []string{"crc32", "matrix", "fib"} {
			function := instance.ExportedFunction(name)
			b.Run(name+"/"+v.name, func(b *testing.B) {
				for b.Loop() {
					results, err := function.Call(ctx)
					require.NoError(b, err)
					if known, ok := sums[name]; ok {
						require.Equal(b, known, results[0])
					}
					sums[name] = results[0] & math.MaxUint32
				}
			})
		}
	}
}
