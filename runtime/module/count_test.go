package module_test

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/ultravisor/beacon/runtime/module"
)

// count runs an exported function and says how many units it took. Slices of
// different sizes must not change that.
func count(t *testing.T, config wazero.RuntimeConfig, binary []byte, slice uint64, function string, args ...uint64) (results []uint64, units int64, err error) {
	ctx := context.Background()
	engine := wazero.NewRuntimeWithConfig(ctx, config.WithCoreFeatures(features))
	defer func() { require.NoError(t, engine.Close(ctx)) }()
	granted := offerCounted(ctx, t, engine, slice)
	instance, err := engine.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
	require.NoError(t, err)
	results, err = instance.ExportedFunction(function).Call(ctx, args...)
	return results, *granted - int64(instance.ExportedGlobal(module.MeterFuel).Get()), err
}

// The exact grade counts every instruction that is executed once, whatever the
// straight stretches, the engine, and the size of slices. Only a stretch in which
// a guest breaks down counts in full.
func TestExactPrograms(t *testing.T) {
	programs := uint64(60)
	if short() {
		programs = 15
	}
	options := module.Options{Limits: module.Limits{Size: 8 << 20}, Grade: module.Exact}
	for seed := range programs {
		p := newProgram(seed, 2)
		binary := p.module()
		merged, err := module.Rewrite(binary, options)
		require.NoError(t, err)
		singly, err := module.Rewrite(binary, options.Singly())
		require.NoError(t, err)
		results, units, failed := count(t, wazero.NewRuntimeConfig(), merged.Binary, 10_000, "main", 3, 4)
		again, others, failedAgain := count(t, wazero.NewRuntimeConfig(), singly.Binary, 1<<40, "main", 3, 4)
		require.Equal(t, reason(failed), reason(failedAgain), seed)
		require.Equal(t, results, again, seed)
		if failed == nil {
			require.Equal(t, others, units, seed)
		} else {
			require.LessOrEqual(t, others, units, seed)
		}
		profiled := options
		profiled.Profile = true
		marked, err := module.Rewrite(binary, profiled)
		require.NoError(t, err)
		again, others, failedAgain = count(t, wazero.NewRuntimeConfig(), marked.Binary, 5_000, "main", 3, 4)
		require.Equal(t, reason(failed), reason(failedAgain), seed)
		require.Equal(t, results, again, seed)
		require.Equal(t, units, others, seed)
		_, interpreted, _ := count(t, wazero.NewRuntimeConfigInterpreter(), merged.Binary, 100, "main", 3, 4)
		require.Equal(t, units, interpreted, seed)
	}
}

// These numbers are promised: they change only with CostVersion.
func TestExactNumbers(t *testing.T) {
	require.Equal(t, 1, module.CostVersion)
	binary, err := os.ReadFile("testdata/meter/kernels.wasm")
	require.NoError(t, err)
	r, err := module.Rewrite(binary, module.Options{Grade: module.Exact})
	require.NoError(t, err)
	for function, want := range map[string]int64{"crc32": 176_974_863, "matrix": 239_276_393, "fib": 6_674_019} {
		_, units, err := count(t, wazero.NewRuntimeConfig(), r.Binary, 4<<20, function)
		require.NoError(t, err)
		require.Equal(t, want, units, function)
	}
	// What is charged by length, and what fails.
	for name, tt := range map[string]struct {
		code string
		want int64
	}{
		"nothing":                    {"", 0},
		"structure":                  {"\x02\x40\x01\x0b\x03\x40\x0b", 0},
		"one instruction":            {"\x41\x00\x1a", 2},
		"fill 1000":                  {"\x41\x00\x41\x00\x41\xe8\x07\xfc\x0b\x00", 3 + 20 + 1000/16 + 1},
		"copy 3 MiB":                 {"\x41\x00\x41\x00\x41\x80\x80\xc0\x01\xfc\x0a\x00\x00", 3 + 20 + 3<<20/16 + 1},
		"grow by 2 pages":            {"\x41\x02\x40\x00\x1a", 2 + 500 + 2*64},
		"grow by too many":           {"\x41\x7f\x40\x00\x1a", 2 + 500},
		"table.grow by 100":          {"\xd0\x70\x41\xe4\x00\xfc\x0f\x00\x1a", 3 + 500 + 100/16 + 1},
		"table.fill of 100":          {"\x41\x00\xd0\x70\x41\xe4\x00\xfc\x11\x00", 3 + 20 + 100/16 + 1},
		"branch over a dear one":     {"\x02\x40\x0c\x00\x41\x02\x40\x00\x1a\x0b", 1},
		"if that is not taken":       {"\x41\x00\x04\x40\x41\x02\x40\x00\x1a\x0b", 2},
		"if that is taken, and else": {"\x41\x01\x04\x40\x01\x05\x41\x02\x40\x00\x1a\x0b", 2},
	} {
		t.Run(name, func(t *testing.T) {
			binary := header + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") + section(4, "\x01\x70\x00\xc8\x01") + section(5, "\x01\x00\x40") +
				section(7, "\x01\x01f\x00\x00") + section(10, "\x01"+body("\x00"+tt.code+"\x0b"))
			r, err := module.Rewrite([]byte(binary), module.Options{Grade: module.Exact})
			require.NoError(t, err)
			_, units, err := count(t, wazero.NewRuntimeConfigInterpreter(), r.Binary, 1000, "f")
			require.NoError(t, err)
			require.Equal(t, tt.want, units)
		})
	}
}
