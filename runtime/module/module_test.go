package module_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/runtime/module"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const header = "\x00asm\x01\x00\x00\x00"

// leb is an unsigned number as it stands in a binary.
func leb(n uint64) string { return string(binary.AppendUvarint(nil, n)) }

// section puts a section together.
func section(id byte, content string) string {
	return string(id) + leb(uint64(len(content))) + content
}

func named(name, content string) string {
	return section(0, leb(uint64(len(name)))+name+content)
}

// body is one function body with its size.
func body(content string) string { return leb(uint64(len(content))) + content }

const (
	huge     = "\xff\xff\xff\xff\x0f" // 2^32-1
	noResult = "\x01\x60\x00\x00"     // one type () -> ()
)

var (
	types    = section(1, noResult)
	function = types + section(3, "\x01\x00")
	code     = section(10, "\x01"+body("\x00\x0b"))
)

func TestRefusals(t *testing.T) {
	for name, tt := range map[string]struct {
		binary string
		limits module.Limits
		want   string
	}{
		"empty":             {binary: "", want: "the file is empty"},
		"half a magic":      {binary: "\x00a", want: "cut off"},
		"magic only":        {binary: "\x00asm", want: "cut off"},
		"component":         {binary: "\x00asm\x0d\x00\x01\x00rest", want: "WebAssembly component"},
		"version":           {binary: "\x00asm\x02\x00\x00\x00", want: "version 02 00 00 00"},
		"text format":       {binary: "(module)", want: "wat2wasm"},
		"text with comment": {binary: "\n;; what it is\n(module)", want: "wat2wasm"},
		"gzip":              {binary: "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00", want: "gzip"},
		"ELF":               {binary: "\x7fELF\x02\x01\x01\x00\x00\x00", want: "does not begin with"},
		"too large":         {binary: header + named("x", strings.Repeat("y", 100)), limits: module.Limits{Size: 50}, want: "limit 50"},
		"section too long":  {binary: header + "\x01\x7f", want: `section "type" has 127 bytes, 0 are left`},
		"no size":           {binary: header + "\x01", want: "cut off"},
		"unknown section":   {binary: header + section(13, ""), want: "unknown section 13"},
		"size of 6 bytes":   {binary: header + "\x00\x80\x80\x80\x80\x80\x00", want: "more than 32 bits"},
		"size over 32 bits": {binary: header + "\x00\xff\xff\xff\xff\x1f", want: "more than 32 bits"},
		"twice":             {binary: header + types + types, want: `"type" stands twice or in the wrong place`},
		"wrong order":       {binary: header + section(3, "\x00") + types, want: `"type" stands twice or in the wrong place`},
		"rest":              {binary: header + section(1, "\x00\x00"), want: "1 bytes too many"},

		// 31 bytes and less that make the engine allocate for billions.
		"types without end":          {binary: header + section(1, huge), want: "4294967295 types, limit"},
		"imports without end":        {binary: header + section(2, huge), want: "4294967295 imports, limit"},
		"functions without end":      {binary: header + section(3, huge), want: "4294967295 functions, limit"},
		"tables without end":         {binary: header + section(4, huge), want: "4294967295 tables, limit"},
		"memories without end":       {binary: header + section(5, huge), want: "4294967295 memories, limit"},
		"globals without end":        {binary: header + section(6, huge), want: "4294967295 globals, limit"},
		"exports without end":        {binary: header + section(7, huge), want: "4294967295 exports, limit"},
		"elements without end":       {binary: header + section(9, huge), want: "4294967295 element segments, limit"},
		"bodies without end":         {binary: header + section(10, huge), want: "4294967295 function bodies, limit"},
		"data without end":           {binary: header + section(11, huge), want: "4294967295 data segments, limit"},
		"data of 4 GiB":              {binary: header + section(5, "\x01\x00\x01") + section(11, "\x01\x01"+huge), want: "are wanted"},
		"element of 4 Gi":            {binary: header + section(9, "\x01\x01\x00"+huge), want: "4294967295 elements, limit"},
		"parameters without end":     {binary: header + section(1, "\x01\x60"+huge+"\x00"), want: "values in a type, limit 128"},
		"results without end":        {binary: header + section(1, "\x01\x60\x00"+huge), want: "values in a type, limit 128"},
		"counts within limits":       {binary: header + section(3, "\xff\xff\x03"), want: "65535 functions cannot fit into 0 bytes"},
		"name of 4 GiB":              {binary: header + section(2, "\x01"+huge+"\x00\x00\x00"), want: "a name of 4294967295 bytes"},
		"locals, 4 billion":          {binary: header + function + section(10, "\x01"+body("\x01"+huge+"\x7f\x0b")), want: "more than 5000 local variables"},
		"locals in groups":           {binary: header + function + section(10, "\x01"+body("\x03\x80\x20\x7f\x80\x20\x7e\x80\x20\x7d\x0b")), want: "more than 5000 local variables"},
		"locals in groups that wrap": {binary: header + function + section(10, "\x01"+body("\x02"+huge+"\x7f"+huge+"\x7f\x0b")), want: "more than 5000 local variables"},

		"type of another form":     {binary: header + section(1, "\x01\x5f\x00\x00"), want: "form 0x5f"},
		"unknown value type":       {binary: header + section(1, "\x01\x60\x01\x01\x00"), want: "unknown type 0x01"},
		"name that is no UTF-8":    {binary: header + types + section(2, "\x01\x01\xff\x01a\x00\x00"), want: "not UTF-8"},
		"custom name, no UTF-8":    {binary: header + named("\xc3\x28", ""), want: "not UTF-8"},
		"import of kind 4":         {binary: header + section(2, "\x01\x01a\x01b\x04\x00"), want: "import of an unknown kind 4"},
		"import of type 1":         {binary: header + types + section(2, "\x01\x01a\x01b\x00\x01"), want: "type 1, but there are 1"},
		"function of type 1":       {binary: header + types + section(3, "\x01\x01"), want: "type 1, but there are 1"},
		"function without body":    {binary: header + function, want: "1 functions are declared but 0 have a body"},
		"body without function":    {binary: header + section(10, "\x01"+body("\x00\x0b")), want: "0 functions are declared but 1 have a body"},
		"body that is too long":    {binary: header + function + section(10, "\x01\x7f\x00\x0b"), want: "inside of a function"},
		"body over the limit":      {binary: header + function + section(10, "\x01"+body("\x00"+strings.Repeat("\x01", 200)+"\x0b")), limits: module.Limits{Body: 100}, want: "limit 100"},
		"table of numbers":         {binary: header + section(4, "\x01\x7f\x00\x01"), want: "table of i32"},
		"table that is huge":       {binary: header + section(4, "\x01\x70\x00"+huge), want: "tables of 4294967295 elements together, limit 200000"},
		"tables that are":          {binary: header + section(4, "\x02\x70\x00\xa0\x8d\x06\x70\x00\xa1\x8d\x06"), want: "tables of 200001 elements together, limit 200000"},
		"table, shared":            {binary: header + section(4, "\x01\x70\x03\x01\x01"), want: "threads"},
		"table, 64 bits":           {binary: header + section(4, "\x01\x70\x04\x01"), want: "64-bit"},
		"table, least over most":   {binary: header + section(4, "\x01\x70\x01\x02\x01"), want: "impossible bounds 2 to 1"},
		"tables, one too many":     {binary: header + section(2, "\x01\x01a\x01b\x01\x70\x00\x00") + section(4, "\x01\x70\x00\x00"), limits: module.Limits{Tables: 1}, want: "more than 1 tables"},
		"memory, shared":           {binary: header + section(5, "\x01\x03\x01\x01"), want: "threads"},
		"memory, 64 bits":          {binary: header + section(5, "\x01\x04\x01"), want: "64-bit"},
		"memory over 4 GiB":        {binary: header + section(5, "\x01\x00\x81\x80\x04"), want: "impossible bounds 65537"},
		"memory that may be over":  {binary: header + section(5, "\x01\x01\x00\x81\x80\x04"), want: "impossible bounds 0 to 65537"},
		"memory over the limit":    {binary: header + section(5, "\x01\x00\x10"), limits: module.Limits{MemoryPages: 8}, want: "at least 16 pages, limit 8"},
		"two memories":             {binary: header + section(5, "\x02\x00\x01\x00\x01"), want: "2 memories, limit 1"},
		"memory beside import":     {binary: header + section(2, "\x01\x01a\x01b\x02\x00\x01") + section(5, "\x01\x00\x01"), want: "more than one memory"},
		"global of no kind":        {binary: header + section(6, "\x01\x7f\x02\x41\x00\x0b"), want: "neither constant nor mutable"},
		"constant that calls":      {binary: header + section(6, "\x01\x7f\x00\x10\x00\x0b"), want: "instruction 0x10"},
		"constant without end":     {binary: header + section(6, "\x01\x7f\x00\x41\x00"), want: "ends early"},
		"constant, overlong":       {binary: header + section(6, "\x01\x7f\x00\x41"+strings.Repeat("\x80", 20)+"\x00\x0b"), want: "too long"},
		"constant, other vector":   {binary: header + section(6, "\x01\x7b\x00\xfd\x0d"+strings.Repeat("\x00", 16)+"\x0b"), want: "not constant"},
		"null of what":             {binary: header + section(6, "\x01\x70\x00\xd0\xff\x41\x00\x0b"), want: "unknown type 0xff"},
		"exports of one name":      {binary: header + function + section(7, "\x02\x01a\x00\x00\x01a\x00\x00") + code, want: "two exports of one name"},
		"export of kind 9":         {binary: header + section(7, "\x01\x01a\x09\x00"), want: "unknown kind 9"},
		"export of function 1":     {binary: header + function + section(7, "\x01\x01a\x00\x01") + code, want: "function 1, but there are 1"},
		"export of no memory":      {binary: header + section(7, "\x01\x01a\x02\x00"), want: "memory 0, but there are 0"},
		"export of no table":       {binary: header + section(7, "\x01\x01a\x01\x00"), want: "table 0, but there are 0"},
		"export of no global":      {binary: header + section(7, "\x01\x01a\x03\x00"), want: "global 0, but there are 0"},
		"start of no function":     {binary: header + section(8, "\x00"), want: "function 0, but there are 0"},
		"element of no table":      {binary: header + section(9, "\x01\x02\x00\x41\x00\x0b\x00\x00"), want: "table 0, but there are 0"},
		"element of no function":   {binary: header + section(4, "\x01\x70\x00\x01") + section(9, "\x01\x00\x41\x00\x0b\x01\x00"), want: "function 0, but there are 0"},
		"element of flags 8":       {binary: header + section(9, "\x01\x08\x00"), want: "flags 8"},
		"element of kind 1":        {binary: header + section(9, "\x01\x01\x01\x00"), want: "unknown kind"},
		"data of flags 3":          {binary: header + section(11, "\x01\x03\x00"), want: "flags 3"},
		"data of no memory":        {binary: header + section(11, "\x01\x02\x00\x41\x00\x0b\x00"), want: "memory 0, but there are 0"},
		"data that are not":        {binary: header + section(12, "\x02") + section(11, "\x01\x01\x00"), want: "2 data segments are announced, 1 follow"},
		"two manifests":            {binary: header + named(module.ManifestSection, "{}") + named(module.ManifestSection, "{}"), want: "two sections beacon.manifest"},
		"custom, too many":         {binary: header + strings.Repeat(named("x", ""), 1001), want: "more than 1000 custom sections"},
		"custom name, too long":    {binary: header + named(strings.Repeat("x", 5000), ""), want: "limit 4096"},
		"custom without a name":    {binary: header + section(0, ""), want: "ends early"},
		"custom, name beyond":      {binary: header + section(0, "\x05abc"), want: "5 bytes are wanted, 3 are left"},
		"functions over the limit": {binary: header + types + section(3, "\x03\x00\x00\x00"), limits: module.Limits{Functions: 2}, want: "3 functions, limit 2"},
	} {
		t.Run(name, func(t *testing.T) {
			facts, err := module.Parse([]byte(tt.binary), tt.limits)
			require.Nil(t, facts)
			var refusal *module.Error
			require.ErrorAs(t, err, &refusal)
			require.ErrorContains(t, err, tt.want)
			require.LessOrEqual(t, len(err.Error()), 300)
		})
	}
}

// The largest file of facts that can be told apart.
func whole() string {
	return header +
		named("first", "1") +
		section(1, "\x03\x60\x00\x00\x60\x02\x7f\x7e\x01\x7d\x60\x00\x01\x7f") +
		section(2, "\x02\x03env\x01f\x00\x01\x03env\x01g\x03\x7c\x00") +
		section(3, "\x02\x00\x02") +
		section(4, "\x02\x70\x00\x02\x6f\x01\x01\xff\xff\xff\xff\x0f") +
		section(5, "\x01\x01\x02\x10") +
		section(6, "\x02\x7f\x01\x41\x2a\x0b\x7b\x00\xfd\x0c"+strings.Repeat("\x01", 16)+"\x0b") +
		section(7, "\x03\x06memory\x02\x00\x06_start\x00\x01\x01f\x00\x00") +
		section(8, "\x01") +
		section(9, "\x03\x00\x41\x00\x0b\x01\x01\x05\x70\x01\xd0\x70\x0b\x03\x00\x01\x02") +
		section(12, "\x02") +
		section(10, "\x02"+body("\x01\x03\x7f\x0b")+body("\x00\x41\x07\x0b")) +
		section(11, "\x02\x00\x41\x00\x0b\x02hi\x01\x01!") +
		named(module.ManifestSection, `{"a":1}`)
}

func TestFacts(t *testing.T) {
	facts, err := module.Parse([]byte(whole()), module.Limits{})
	require.NoError(t, err)
	require.Equal(t, len(whole()), facts.Size)
	require.Equal(t, 2, facts.Functions)
	require.Equal(t, []module.Import{
		{Module: "env", Name: "f", Kind: module.Function, Signature: module.Signature{
			Params: []module.ValueType{module.I32, module.I64}, Results: []module.ValueType{module.F32},
		}},
		{Module: "env", Name: "g", Kind: module.Global},
	}, facts.Imports)
	require.Len(t, facts.Exports, 3)
	start, ok := facts.Export("_start")
	require.True(t, ok)
	require.Equal(t, module.Function, start.Kind)
	require.True(t, facts.HasFunction("_start", module.Signature{}))
	require.False(t, facts.HasFunction("_start", module.Signature{Results: []module.ValueType{module.I32}}))
	require.False(t, facts.HasFunction("memory", module.Signature{}))
	require.Equal(t, "(i32, i64) -> (f32)", facts.Exports[2].Signature.String())
	_, ok = facts.Export("nothing")
	require.False(t, ok)
	require.True(t, facts.HasMemory)
	require.Equal(t, 2, facts.MemoryMin)
	require.Equal(t, 16, facts.MemoryMax)
	require.Equal(t, 2, facts.Tables)
	require.Equal(t, 3, facts.Globals, "with the imported one")
	require.Equal(t, 2, facts.DataSegments)
	require.True(t, facts.HasStart)
	require.Equal(t, []module.Custom{{Name: "first", Size: 1}, {Name: module.ManifestSection, Size: 7}}, facts.Custom)
	require.Equal(t, `{"a":1}`, string(facts.Manifest))
}

// An empty manifest is one, and no reason to ask the module.
func TestEmptyManifest(t *testing.T) {
	facts, err := module.Parse([]byte(header+named(module.ManifestSection, "")), module.Limits{})
	require.NoError(t, err)
	require.NotNil(t, facts.Manifest)
	require.Empty(t, facts.Manifest)
}

func TestMemoryWithoutMaximum(t *testing.T) {
	facts, err := module.Parse([]byte(header+section(5, "\x01\x00\x01")), module.Limits{})
	require.NoError(t, err)
	require.Equal(t, -1, facts.MemoryMax)
}

// S5: no prefix of a real module, and no change of one byte, gets through by a
// panic or an error of another type.
func TestTruncated(t *testing.T) {
	for _, binary := range [][]byte{[]byte(whole()), real(t, "imports/wasi_snapshot_preview1/testdata/tinygo/wasi.wasm")} {
		step := max(1, len(binary)/20_000)
		for n := 0; n < len(binary); n += step {
			facts, err := module.Parse(binary[:n], module.Limits{})
			if err != nil {
				var refusal *module.Error
				require.ErrorAs(t, err, &refusal, "%d bytes", n)
				continue
			}
			// What ends between two sections may be a module.
			require.Equal(t, n, facts.Size)
		}
	}
}

func TestFlipped(t *testing.T) {
	original := []byte(whole())
	for i := range original {
		for bit := range 8 {
			changed := bytes.Clone(original)
			changed[i] ^= 1 << bit
			if _, err := module.Parse(changed, module.Limits{}); err != nil {
				var refusal *module.Error
				require.ErrorAs(t, err, &refusal)
			}
		}
	}
}

// rewritten is Meter where it must not refuse.
func rewritten(t testing.TB, binary []byte) []byte {
	t.Helper()
	metered, facts, err := meter(binary, module.Limits{})
	require.NoError(t, err)
	require.Equal(t, len(binary), facts.Size, "the facts are the original's")
	return metered
}

// S8: of the custom sections only sound names of functions get to the engine,
// which reads names with the same trust in counts as everything else. Their
// errors are none of the module's.
func TestNames(t *testing.T) {
	rest := named("x", "1") + named(".debug_info", "garbage")
	for name, tt := range map[string]struct {
		content string
		want    int // names of the guest's that are left
	}{
		"sound":                  {"\x00\x02\x01m\x01\x08\x01\x00\x05start\x02\x08\x01\x00\x01\x00\x03var", 1},
		"functions without end":  {"\x01\x05" + huge, 0},
		"locals without end":     {"\x02\x05" + huge, 0},
		"locals of one function": {"\x02\x07\x01\x00" + huge, 0},
		"count without entries":  {"\x01\x02\xff\x01", 0},
		"name without end":       {"\x00\x05" + huge, 0},
		"name beyond its part":   {"\x00\x02\x05abcde", 0},
		"part without end":       {"\x01" + huge, 0},
		"no such function":       {"\x01\x04\x01\x09\x01a", 0},
		"no UTF-8":               {"\x01\x04\x01\x00\x01\xff", 0},
		"no size":                {"\x00", 0},
	} {
		t.Run(name, func(t *testing.T) {
			metered := rewritten(t, []byte(header+function+code+rest+named("name", tt.content)))
			facts, err := module.Parse(metered, module.Limits{})
			require.NoError(t, err)
			require.Len(t, facts.Custom, 1)
			require.Equal(t, tt.want > 0, bytes.Contains(metered, []byte("start")))
			requireCompiles(t, metered)
		})
	}
	t.Run("second section", func(t *testing.T) {
		names := named("name", "\x01\x08\x01\x00\x05start")
		requireCompiles(t, rewritten(t, []byte(header+function+code+names+names)))
	})
}

// A guest gets its fuel where it is told, and cannot ask for it by itself.
func TestMeteredImport(t *testing.T) {
	facts, err := module.Parse(rewritten(t, []byte(whole())), module.Limits{})
	require.NoError(t, err)
	last := facts.Imports[len(facts.Imports)-1]
	require.Equal(t, module.Import{
		Module: module.MeterModule, Name: module.MeterRefill, Kind: module.Function,
		Signature: module.Signature{Params: []module.ValueType{module.I64, module.I64}, Results: []module.ValueType{module.I64}},
	}, last)
	original, err := module.Parse([]byte(whole()), module.Limits{})
	require.NoError(t, err)
	require.Equal(t, original.Exports, facts.Exports[:len(original.Exports)])
	require.Equal(t, []module.Export{{Name: module.MeterFuel, Kind: module.Global}, {Name: module.MeterStack, Kind: module.Global}}, facts.Exports[len(original.Exports):])
	require.Equal(t, original.Imports, facts.Imports[:len(facts.Imports)-1])
}

// S5: memory is in proportion to the file, whatever the file says.
func TestMemoryInProportion(t *testing.T) {
	for name, binary := range map[string][]byte{
		"types":     []byte(header + section(1, leb(20_000)+strings.Repeat("\x60\x00\x00", 20_000))),
		"functions": []byte(header + types + section(3, leb(150_000)+strings.Repeat("\x00", 150_000))),
		"custom":    []byte(header + strings.Repeat(named("x", ""), 1000)),
		"names":     []byte(header + named("name", "\x01"+leb(3+300_000)+leb(150_000)+strings.Repeat("\x00\x00", 150_000))),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after goruntime.MemStats
			goruntime.ReadMemStats(&before)
			_, _ = module.Parse(binary, module.Limits{}) // either way
			goruntime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(binary))*128+1<<16)
		})
	}
}

// engineDir is the folder of the engine's sources, which hold real modules.
func engineDir(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatalf("the engine's sources are not there: %v", err)
		}
		t.Skipf("the engine's sources are not there: %v", err)
	}
	return dir
}

func real(t testing.TB, name string) []byte {
	t.Helper()
	binary, err := os.ReadFile(filepath.Join(engineDir(t), filepath.FromSlash(name)))
	require.NoError(t, err)
	return binary
}

func TestFactsOfRealModules(t *testing.T) {
	// As wasm-objdump counts.
	for name, want := range map[string]struct{ imports, functions, tables, min, globals, exports, data int }{
		"tinygo":     {15, 158, 1, 2, 1, 6, 33},
		"cargo-wasi": {14, 288, 1, 17, 2, 3, 2},
		"zig-cc":     {18, 129, 1, 17, 1, 2, 2},
	} {
		t.Run(name, func(t *testing.T) {
			facts, err := module.Parse(real(t, "imports/wasi_snapshot_preview1/testdata/"+name+"/wasi.wasm"), module.Limits{})
			require.NoError(t, err)
			require.Len(t, facts.Imports, want.imports)
			require.Len(t, facts.Exports, want.exports)
			require.Equal(t, want.functions, facts.Functions)
			require.Equal(t, want.tables, facts.Tables)
			require.Equal(t, want.min, facts.MemoryMin)
			require.Equal(t, want.globals, facts.Globals)
			require.Equal(t, want.data, facts.DataSegments)
			for _, i := range facts.Imports {
				require.Equal(t, "wasi_snapshot_preview1", i.Module)
				require.Equal(t, module.Function, i.Kind)
			}
			require.True(t, facts.HasFunction("_start", module.Signature{}))
			requireCompiles(t, rewritten(t, real(t, "imports/wasi_snapshot_preview1/testdata/"+name+"/wasi.wasm")))
		})
	}
}

// compiles asks the engine's validator.
func compiles(binary []byte) error {
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter().
		WithCoreFeatures(features).WithDebugInfoEnabled(false))
	_, err := r.CompileModule(ctx, binary)
	if cerr := r.Close(ctx); err == nil {
		err = cerr
	}
	return err
}

func requireCompiles(t testing.TB, binary []byte) {
	t.Helper()
	require.NoError(t, compiles(binary))
}

// Whatever the engine takes is taken here, and stays what it takes: the modules
// of WebAssembly's own tests.
func TestSpecification(t *testing.T) {
	dir := engineDir(t)
	all, taken := 0, 0
	for _, version := range []string{"v1", "v2"} {
		files, err := filepath.Glob(filepath.Join(dir, "internal", "integration_test", "spectest", version, "testdata", "*.wasm"))
		require.NoError(t, err)
		for i, file := range files {
			if short() && i%10 != 0 {
				continue
			}
			binary, err := os.ReadFile(file)
			require.NoError(t, err)
			all++
			metered, _, err := meter(binary, module.Limits{})
			if err != nil {
				if safe(binary) && !excused(err) {
					require.Error(t, compiles(binary), "%s is taken by the engine, but: %v", filepath.Base(file), err)
				}
				continue
			}
			taken++
			before, after := compiles(binary), compiles(metered)
			if before == nil {
				require.NoError(t, after, file)
			} else {
				require.Error(t, after, file)
			}
		}
	}
	require.Greater(t, all, 100)
	require.Greater(t, taken, all/3)
	t.Logf("%d modules, %d taken", all, taken)
}

// safe reports whether the engine may see a binary that was refused: no number
// in it has three bytes or more, so no count is over 16,383.
func safe(binary []byte) bool {
	if len(binary) < 8 {
		return true
	}
	long := 0
	for _, b := range binary[8:] {
		if b < 0x80 {
			long = 0
			continue
		}
		if long++; long > 1 {
			return false
		}
	}
	return true
}

func hasNames(f *module.Facts) bool {
	return slices.ContainsFunc(f.Custom, func(c module.Custom) bool { return c.Name == "name" })
}

// halfCount excuses what the engine takes although it is malformed: a section
// with the number of data segments that is empty or half a number.
func halfCount(binary []byte, err error) bool {
	return strings.Contains(err.Error(), "ends early") && bytes.IndexByte(binary, 12) >= 0
}

// judged reports whether somebody is there to judge what the engine takes and we
// do not: it takes some malformed modules, such as a table of an unknown type
// among the imports, and each new case is one to read the specification for.
// That what is valid is taken is decided by the specification's own modules.
func judged() bool { return os.Getenv("BEACON_FUZZ_ENGINE") != "" }

// described puts a manifest into a module that is one.
func described(t *testing.T, binary []byte) {
	with, err := module.WithManifest(binary, []byte("{}"))
	require.NoError(t, err)
	facts, err := module.Parse(with, module.Limits{})
	require.NoError(t, err)
	require.Equal(t, []byte("{}"), facts.Manifest)
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole()))
	f.Add([]byte(header))
	f.Add([]byte(header + function + code))
	f.Add([]byte(header + section(10, huge)))
	f.Add([]byte(header + function + section(10, "\x01"+body("\x01"+huge+"\x7f\x0b"))))
	f.Add([]byte(header + named("name", "\x01\x05"+huge)))
	f.Add([]byte(header + function + code + named("name", "\x01\x08\x01\x00\x05start")))
	f.Add([]byte(header + section(4, "\x01\x70\x00\x02") + section(9, "\x01\x04\x41\x00\x0b\x01\xd0\x70\x0b")))
	f.Add([]byte("\x00asm\x0d\x00\x01\x00"))
	f.Add([]byte(component))
	f.Fuzz(func(t *testing.T, binary []byte) {
		if len(binary) > 2<<10 { // so that no default limit but those of memory is in reach
			return
		}
		module.LookComponent(binary)
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		facts, err := module.Parse(binary, module.Limits{})
		goruntime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(binary))*256+1<<20)
		if err != nil {
			var refusal *module.Error
			require.ErrorAs(t, err, &refusal)
			if judged() && safe(binary) && !excused(err) && !halfCount(binary, err) {
				require.Error(t, compiles(binary), "the engine takes it, but: %v", err)
			}
			return
		}
		require.LessOrEqual(t, facts.Functions, len(binary))
		described(t, binary)
		if survey, err := module.Look(binary, module.Limits{}); err == nil {
			require.Equal(t, facts, survey.Facts)
		}
		metered, _, err := meter(binary, module.Limits{})
		if err != nil {
			// Its code is broken.
			require.ErrorAs(t, err, new(*module.Error))
			require.True(t, !judged() || !safe(binary) || excused(err) || compiles(binary) != nil, "the engine takes it, but: %v", err)
			return
		}
		again, err := module.Parse(metered, module.Limits{})
		require.NoError(t, err)
		require.Equal(t, facts.Exports, append([]module.Export(nil), again.Exports[:len(again.Exports)-2]...))
		if safe(binary) {
			before, after := compiles(binary), compiles(metered)
			if before == nil {
				require.NoError(t, after)
			} else if !hasNames(facts) { // whose errors do not count with us
				require.Error(t, after, "what is invalid stays invalid: %v", before)
			}
		}
	})
}
