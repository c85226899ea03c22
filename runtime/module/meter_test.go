package module_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/ultravisor/beacon/runtime/module"
)

// features are what guests may use.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// short reports whether some of each test has to do.
func short() bool { return testing.Short() || race }

var grades = map[string]module.Grade{"deadline": module.Deadline, "exact": module.Exact}

// meter rewrites a module in the deadline grade.
func meter(binary []byte, limits module.Limits) ([]byte, *module.Facts, error) {
	r, err := module.Rewrite(binary, module.Options{Limits: limits})
	if err != nil {
		return nil, nil, err
	}
	return r.Binary, r.Facts, nil
}

// withFuel rewrites a module the way a runtime does.
func withFuel(grade module.Grade) func([]byte) ([]byte, error) {
	return func(binary []byte) ([]byte, error) {
		// The suite has a br_table of 24,000 targets.
		r, err := module.Rewrite(binary, module.Options{Limits: module.Limits{BranchTargets: 1 << 16}, Grade: grade})
		if err != nil {
			return nil, err
		}
		return r.Binary, nil
	}
}

// offerFuel instantiates what metered modules import. Small slices make guests
// come often. The returned number counts how often they did.
func offerFuel(ctx context.Context, t testing.TB, engine wazero.Runtime, slice uint64) *int {
	refills := new(int)
	offer(ctx, t, engine, func(int64) uint64 {
		*refills++
		return slice
	})
	return refills
}

// offerCounted is offerFuel with the units that were granted in all.
func offerCounted(ctx context.Context, t testing.TB, engine wazero.Runtime, slice uint64) *int64 {
	granted := new(int64)
	offer(ctx, t, engine, func(left int64) uint64 {
		*granted += int64(slice) - left
		return slice
	})
	return granted
}

func offer(ctx context.Context, t testing.TB, engine wazero.Runtime, refill func(left int64) uint64) {
	_, err := engine.NewHostModuleBuilder(module.MeterModule).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(_ context.Context, stack []uint64) {
			if int64(stack[1]) < 0 {
				panic(errors.New("stack overflow"))
			}
			stack[0] = refill(int64(stack[0]))
		}), []api.ValueType{api.ValueTypeI64, api.ValueTypeI64}, []api.ValueType{api.ValueTypeI64}).
		Export(module.MeterRefill).NewFunctionBuilder().
		WithGoFunction(api.GoFunc(func(context.Context, []uint64) {}), []api.ValueType{api.ValueTypeI32, api.ValueTypeI64}, nil).
		Export(module.MeterMark).Instantiate(ctx)
	require.NoError(t, err)
}

// A script is a file of the specification's test suite as the engine ships it.
type script struct {
	Commands []struct {
		Type       string
		Line       int
		Name       string
		Filename   string
		As         string
		ModuleType string `json:"module_type"`
		Action     struct {
			Type   string
			Field  string
			Module string
			Args   []value
		}
	}
}

type value struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

// numbers is the value as the engine takes it.
func (v value) numbers(t testing.TB) []uint64 {
	lanes, vector := v.Value.([]any)
	if !vector {
		return []uint64{number(t, v.Type, v.Value)}
	}
	var bits [2]uint64
	width := 128 / len(lanes)
	for i, lane := range lanes {
		at := i * width
		bits[at/64] |= number(t, v.LaneType, lane) << (at % 64)
	}
	return bits[:]
}

func number(t testing.TB, kind string, v any) uint64 {
	text, _ := v.(string)
	switch {
	case text == "" || text == "null":
		return 0
	case strings.HasPrefix(text, "nan:") && strings.HasSuffix(kind, "32"):
		return 0x7fc00000
	case strings.HasPrefix(text, "nan:"):
		return 0x7ff8000000000000
	case strings.HasPrefix(text, "-"):
		n, err := strconv.ParseInt(text, 10, 64)
		require.NoError(t, err)
		if strings.HasSuffix(kind, "32") {
			return uint64(uint32(n))
		}
		return uint64(n)
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err)
	if kind == "externref" {
		n++ // the engine's null is 0
	}
	return n
}

// play runs a script and writes down what each command did.
func play(t *testing.T, dir, file string, config wazero.RuntimeConfig, rewrite func([]byte) ([]byte, error)) (record []string) {
	ctx := context.Background()
	raw, err := os.ReadFile(filepath.Join(dir, file))
	require.NoError(t, err)
	var s script
	require.NoError(t, json.Unmarshal(raw, &s))

	engine := wazero.NewRuntimeWithConfig(ctx, config)
	defer engine.Close(ctx)
	offerFuel(ctx, t, engine, 50)
	instantiate := func(path, name string) (api.Module, error) {
		binary, err := os.ReadFile(path)
		require.NoError(t, err)
		if rewrite != nil {
			if binary, err = rewrite(binary); err != nil {
				return nil, fmt.Errorf("%w: %w", errRefused, err)
			}
		}
		code, err := engine.CompileModule(ctx, binary)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errRefused, err)
		}
		return engine.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(name))
	}
	_, err = instantiate(filepath.Join(dir, "../../testdata/spectest.wasm"), "spectest")
	require.NoError(t, err)

	named := map[string]api.Module{}
	var last api.Module
	var path string // of last
	note := func(line int, format string, args ...any) {
		record = append(record, fmt.Sprintf("%s:%d ", file, line)+fmt.Sprintf(format, args...))
	}
	for i, c := range s.Commands {
		if c.ModuleType == "text" {
			continue
		}
		switch c.Type {
		case "module", "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
			name := ""
			if i+1 < len(s.Commands) && s.Commands[i+1].Type == "register" {
				name = s.Commands[i+1].As
			}
			instance, err := instantiate(filepath.Join(dir, c.Filename), name)
			note(c.Line, "%s %s", c.Type, reason(err))
			if c.Type != "module" {
				continue
			}
			last, path = instance, filepath.Join(dir, c.Filename)
			if c.Name != "" {
				named[c.Name] = instance
			}
		case "register": // done with its module
		case "action", "assert_return", "assert_trap", "assert_exhaustion":
			instance := last
			if c.Action.Module != "" {
				instance = named[c.Action.Module]
			}
			if instance == nil {
				note(c.Line, "%s without a module", c.Type)
				continue
			}
			if c.Action.Type == "get" {
				note(c.Line, "%s %#x", c.Type, instance.ExportedGlobal(c.Action.Field).Get())
				continue
			}
			var args []uint64
			for _, arg := range c.Action.Args {
				args = append(args, arg.numbers(t)...)
			}
			function := instance.ExportedFunction(c.Action.Field)
			results, err := function.Call(ctx, args...)
			for i, kind := range function.Definition().ResultTypes() {
				// References to functions are addresses.
				if err == nil && kind == api.ValueType(module.FuncRef) && results[i] != 0 {
					results[i] = 1
				}
			}
			note(c.Line, "%s %s %#x", c.Type, reason(err), results)
			if reason(err) == "stack overflow" {
				// Its stack is not given back: the instance is not used again.
				require.Same(t, last, instance)
				last, err = instantiate(path, "")
				require.NoError(t, err)
			}
		default:
			t.Fatalf("%s:%d: unknown command %s", file, c.Line, c.Type)
		}
	}
	return record
}

var errRefused = errors.New("refused")

// places are the numbers of functions, and the maximum that a table gets.
var places = regexp.MustCompile(`start function\[\d+\]|, but actual has no max$| < [12]00000$`)

// reason is what an error is, without the places that differ.
func reason(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, errRefused):
		return "refused"
	}
	first, _, _ := strings.Cut(err.Error(), "\n")
	first, _, _ = strings.Cut(first, " (recovered by wazero)")
	return places.ReplaceAllString(strings.TrimPrefix(first, "wasm error: "), "")
}

// invalid reports whether the specification says that a module is none.
func invalid(line string) bool {
	command := strings.Fields(line)[1]
	return command == "assert_invalid" || command == "assert_malformed"
}

// A metered module does what the module does: all of the specification's test
// suite has the same outcome with both.
func TestMeterSpecification(t *testing.T) {
	engines := map[string]wazero.RuntimeConfig{"compiler": wazero.NewRuntimeConfig()}
	if os.Getenv("BEACON_PROOFS") != "" {
		engines["interpreter"] = wazero.NewRuntimeConfigInterpreter()
	}
	for engine, config := range engines {
		for _, version := range []string{"v1", "v2", "tail-call", "extended-const"} {
			t.Run(engine+"/"+version, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(engineDir(t), "internal/integration_test/spectest", version, "testdata")
				files, err := filepath.Glob(filepath.Join(dir, "*.json"))
				require.NoError(t, err)
				require.NotEmpty(t, files)
				commands := map[string]int{}
				for i, path := range files {
					if short() && i%8 != 0 {
						continue
					}
					file := filepath.Base(path)
					plain := play(t, dir, file, config.WithCoreFeatures(features), nil)
					for name, grade := range grades {
						metered := play(t, dir, file, config.WithCoreFeatures(features), withFuel(grade))
						require.Len(t, metered, len(plain), file)
						for i := range plain {
							// Some of what the specification calls invalid the engine takes.
							stricter := invalid(plain[i]) && strings.HasSuffix(metered[i], " refused")
							if plain[i] != metered[i] && !stricter {
								t.Errorf("plain   %s\n%s %s", plain[i], name, metered[i])
							}
						}
					}
					for _, line := range plain {
						commands[strings.Fields(line)[1]]++
					}
				}
				for _, command := range slices.Sorted(maps.Keys(commands)) {
					t.Logf("%6d %s", commands[command], command)
				}
			})
		}
	}
}
