// Command metering measures what it costs to be able to end a guest: the same
// Go programs in wazero as it is, rewritten in both grades, with the engine's own
// interruption, and in Extism with its timeout. All take turns in one run, so that
// a busy machine is busy for all; times are of the processor, of the thread that
// the guest runs on.
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/runtime/module"
)

var workloads = []string{"json", "sort", "sha256", "regexp", "gzip", "csv", "template", "image", "nested"}

// A host runs the guest once, with the name of its work, and returns what it
// printed and how long it took.
type host func(ctx context.Context, work string) (string, time.Duration)

func main() {
	runs := flag.Int("runs", 5, "how often each is measured")
	only := flag.String("only", "", "one workload")
	flag.Parse()
	runtime.LockOSThread()
	// A context that can be done, as that of an item can.
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	binary := build(ctx)
	hosts := []struct {
		name string
		run  host
	}{
		{"plain wazero", plain(ctx, binary, wazero.NewRuntimeConfig())},
		{"deadline grade", metered(ctx, binary, module.Deadline)},
		{"exact grade", metered(ctx, binary, module.Exact)},
		{"CloseOnContextDone", plain(ctx, binary, wazero.NewRuntimeConfig().WithCloseOnContextDone(true))},
		{"Extism, timeout_ms", inExtism(ctx, binary)},
	}
	fmt.Print("| | plain wazero, ms |")
	for _, h := range hosts[1:] {
		fmt.Printf(" %s |", h.name)
	}
	fmt.Print("\n|---|")
	for range hosts {
		fmt.Print("---|")
	}
	fmt.Println()
	ratios := make([][]float64, len(hosts))
	for _, work := range workloads {
		if *only != "" && work != *only {
			continue
		}
		times := make([][]time.Duration, len(hosts))
		want := ""
		for run := range *runs + 1 {
			for i, h := range hosts {
				out, took := h.run(ctx, work)
				if want == "" {
					want = out
				}
				if out != want || out == "" {
					log.Fatalf("%s in %s printed %q, not %q", work, h.name, out, want)
				}
				if run > 0 { // the first warms up
					times[i] = append(times[i], took)
				}
			}
		}
		base := median(times[0])
		fmt.Printf("| %s | %.1f |", work, base.Seconds()*1e3)
		for i := 1; i < len(hosts); i++ {
			ratio := float64(median(times[i])) / float64(base)
			ratios[i] = append(ratios[i], ratio)
			fmt.Printf(" %.2f |", ratio)
		}
		fmt.Println()
	}
	for _, line := range []struct {
		name string
		of   func([]float64) float64
	}{{"median", median[float64]}, {"worst", slices.Max[[]float64]}} {
		fmt.Printf("| **%s** | |", line.name)
		for i := 1; i < len(hosts); i++ {
			fmt.Printf(" **%.2f** |", line.of(ratios[i]))
		}
		fmt.Println()
	}
}

func median[T float64 | time.Duration](list []T) T {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// build compiles the guest.
func build(ctx context.Context) []byte {
	dir, err := os.MkdirTemp("", "metering")
	check(err)
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "workload.wasm")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, "./runtime/module/testdata/meter/workload")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	cmd.Stderr = os.Stderr
	check(cmd.Run())
	binary, err := os.ReadFile(out)
	check(err)
	return binary
}

// used is the time that this thread has had of the processor.
func used() time.Duration {
	var t unix.Timespec
	check(unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t))
	return time.Duration(t.Nano())
}

func plain(ctx context.Context, binary []byte, config wazero.RuntimeConfig) host {
	return inWazero(ctx, binary, wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(api.CoreFeaturesV2)))
}

func metered(ctx context.Context, binary []byte, grade module.Grade) host {
	r, err := module.Rewrite(binary, module.Options{Grade: grade})
	check(err)
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(api.CoreFeaturesV2))
	slice := map[module.Grade]uint64{module.Deadline: 512 << 10, module.Exact: 4 << 20}[grade]
	_, err = engine.NewHostModuleBuilder(module.MeterModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(ctx context.Context, stack []uint64) {
			if ctx.Err() != nil || int64(stack[1]) < 0 {
				panic("over")
			}
			stack[0] = slice
		}), []api.ValueType{api.ValueTypeI64, api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(module.MeterRefill).Instantiate(ctx)
	check(err)
	return inWazero(ctx, r.Binary, engine)
}

func inWazero(ctx context.Context, binary []byte, engine wazero.Runtime) host {
	wasi_snapshot_preview1.MustInstantiate(ctx, engine)
	code, err := engine.CompileModule(ctx, binary)
	check(err)
	return func(ctx context.Context, work string) (string, time.Duration) {
		var out bytes.Buffer
		instance, err := engine.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName("").
			WithArgs("workload", work).WithStdout(&out).WithStderr(&out).WithStartFunctions())
		check(err)
		start := instance.ExportedFunction("_start")
		begin := used()
		_, err = start.Call(ctx)
		took := used() - begin
		if err != nil && !strings.Contains(err.Error(), "exit_code(0)") {
			log.Fatal(err, out.String())
		}
		check(instance.Close(ctx))
		return out.String(), took
	}
}

func inExtism(ctx context.Context, binary []byte) host {
	manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: binary}}, Timeout: uint64(time.Hour.Milliseconds())}
	plugin, err := extism.NewCompiledPlugin(ctx, manifest, extism.PluginConfig{EnableWasi: true}, nil)
	check(err)
	return func(ctx context.Context, work string) (string, time.Duration) {
		var out bytes.Buffer
		instance, err := plugin.Instance(ctx, extism.PluginInstanceConfig{ModuleConfig: wazero.NewModuleConfig().
			WithArgs("workload", work).WithStdout(&out).WithStderr(&out)})
		check(err)
		begin := used()
		code, _, err := instance.Call("_start", nil)
		took := used() - begin
		if code != 0 {
			log.Fatal(code, err, out.String())
		}
		check(instance.Close(ctx))
		return out.String(), took
	}
}
