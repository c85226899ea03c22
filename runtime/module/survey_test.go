package module_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/module"
)

// component is one with a core module, one inside of another, an import of an
// instance, one of a type, and an export.
var component = "\x00asm\x0d\x00\x01\x00" +
	section(1, header) +
	section(4, "\x00asm\x0d\x00\x01\x00"+section(1, header)) +
	section(10, "\x02\x00\x15wasi:io/streams@0.2.0\x05\x00"+"\x00\x03typ\x03\x01") +
	section(11, "\x01\x00\x12wasi:cli/run@0.2.0\x05\x07\x00")

func TestLookComponent(t *testing.T) {
	c, ok := module.LookComponent([]byte(component))
	require.True(t, ok)
	require.Equal(t, 2, c.Modules)
	require.Equal(t, []string{"wasi:io/streams@0.2.0", "typ"}, c.Imports)
	require.Equal(t, []string{"wasi:cli/run@0.2.0"}, c.Exports)
	for i := range component {
		_, ok := module.LookComponent([]byte(component[:i]))
		require.Equal(t, i >= 8, ok)
	}
	_, ok = module.LookComponent([]byte(header))
	require.False(t, ok)
}

func TestLook(t *testing.T) {
	wat := func(text string) []byte {
		path, err := exec.LookPath("wat2wasm")
		if err != nil {
			if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
				t.Fatal(err)
			}
			t.Skip("wat2wasm is not there: apt-get install wabt")
		}
		folder := t.TempDir()
		in, out := filepath.Join(folder, "m.wat"), filepath.Join(folder, "m.wasm")
		require.NoError(t, os.WriteFile(in, []byte(text), 0o600))
		said, err := exec.CommandContext(t.Context(), path, "--enable-tail-call", in, "-o", out).CombinedOutput()
		require.NoError(t, err, string(said))
		binary, err := os.ReadFile(out)
		require.NoError(t, err)
		return binary
	}
	tests := map[string]struct {
		text     string
		features string
		origin   string
	}{
		"nothing":        {`(module)`, "", ""},
		"sign extension": {`(module (func (drop (i32.extend8_s (i32.const 1)))))`, "sign extension", ""},
		"saturating":     {`(module (func (drop (i32.trunc_sat_f32_s (f32.const 1)))))`, "saturating conversions", ""},
		"bulk":           {`(module (memory 1) (func (memory.fill (i32.const 0) (i32.const 0) (i32.const 0))))`, "bulk memory", ""},
		"references":     {`(module (table 1 funcref) (func (drop (table.size 0))))`, "reference types", ""},
		"null":           {`(module (func (drop (ref.null extern))))`, "reference types", ""},
		"SIMD":           {`(module (func (drop (v128.const i64x2 1 2))))`, "SIMD", ""},
		"results":        {`(module (func (result i32 i32) (i32.const 1) (i32.const 2)))`, "multiple values", ""},
		"tail call":      {`(module (func $f (return_call $f)))`, "tail calls", ""},
		"Emscripten":     {`(module (import "env" "emscripten_resize_heap" (func (param i32) (result i32))))`, "", "Emscripten"},
		"optimised":      {`(module (import "a" "b" (func)))`, "", "Emscripten"},
		"missing in C":   {`(module (import "env" "sqrtq" (func)))`, "", ""},
		"wasm-bindgen":   {`(module (import "__wbindgen_placeholder__" "x" (func)))`, "", "wasm-bindgen"},
		"AssemblyScript": {`(module (import "env" "abort" (func (param i32 i32 i32 i32))))`, "", "AssemblyScript"},
		"WASI":           {`(module (import "wasi_snapshot_preview1" "sched_yield" (func (result i32))))`, "", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			survey, err := module.Look(wat(test.text), module.Limits{})
			require.NoError(t, err)
			require.Equal(t, test.features, strings.Join(survey.Features, ", "))
			require.Equal(t, test.origin, survey.Origin())
			require.Empty(t, survey.Producers)
		})
	}
}

func TestProducers(t *testing.T) {
	field := func(name string, tools ...string) string {
		out := string(rune(len(name))) + name + string(rune(len(tools)/2))
		for _, t := range tools {
			out += string(rune(len(t))) + t
		}
		return out
	}
	content := "\x02" + field("language", "C", "11") + field("processed-by", "clang", "14.0.6", "lld", "")
	for i := range len(content) { // whatever is cut off
		_, err := module.Look([]byte(header+named("producers", content[:i])), module.Limits{})
		require.NoError(t, err)
	}
	survey, err := module.Look([]byte(header+named("producers", content)), module.Limits{})
	require.NoError(t, err)
	require.Equal(t, []string{"clang 14.0.6", "lld"}, survey.Producers)
}
