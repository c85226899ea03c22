package module_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/module"
)

// wazero reads the numbers of vector instructions as single bytes. What looks
// like the content of a constant here must not be instructions there, such as
// one that fills up the fuel: global 0 is the first that the guest does not have.
func TestMeterHiddenInstructions(t *testing.T) {
	zero := "\xfd\x0c" + strings.Repeat("\x00", 16)
	// To wazero 0xfd 0x8c is i16x8.shr_s, followed by unreachable and the end of
	// the block. What follows is alive.
	hidden := "\x0b\x42\xff\xff\xff\xff\x07\x24\x00\x02\x40" + // end, i64.const, global.set 0, block
		"\x01\x01\x01\x01\x01" // nop
	require.Len(t, hidden, 16)
	code := "\x02\x40" + zero + "\x41\x00" + "\xfd\x8c\x00" + hidden + "\x0b\x0b"
	bodies := section(10, "\x01"+body("\x00"+code))
	// With a global of its own the guest is valid to wazero: it sees the instructions.
	requireCompiles(t, []byte(header+function+section(6, "\x01\x7e\x01\x42\x00\x0b")+bodies))
	_, _, err := meter([]byte(header+function+bodies), module.Limits{})
	require.ErrorContains(t, err, "vector instruction in an unknown form")

	// The proper form of the number is what compilers write.
	proper := zero + "\x41\x00" + "\xfd\x8c\x01" + "\x1a"
	requireCompiles(t, rewritten(t, []byte(header+function+section(10, "\x01"+body("\x00"+proper+"\x0b")))))
}

// A block's type is a signed number: -1 in two bytes is i32 to wazero.
func TestMeterBlockTypes(t *testing.T) {
	many := header + section(1, leb(17_000)+strings.Repeat("\x60\x00\x00", 17_000)) + section(3, "\x01\x00")
	for name, code := range map[string]string{
		"-1 in two bytes":   "\x02\xff\x7f\x41\x00\x0b\x1a\x0b",
		"-64 in two bytes":  "\x02\xc0\x7f\x0b\x0b",
		"-8192":             "\x02\x80\x40\x0b\x0b",
		"a reference":       "\x02\x63\x70\xd0\x70\x0b\x1a\x0b",
		"no type":           "\x02\x6e\x0b\x0b",
		"the first of ours": "\x02\xe8\x84\x01\x0b\x0b",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := meter([]byte(many+section(10, "\x01"+body("\x00"+code))), module.Limits{})
			require.ErrorContains(t, err, "type")
		})
	}
	last := many + section(10, "\x01"+body("\x00\x02\xe7\x84\x01\x0b\x0b"))
	requireCompiles(t, rewritten(t, []byte(last)))
}

// Nothing that the rewriting adds can be named by the guest: neither the fuel,
// nor the function that is asked for it, nor the types of either.
func TestMeterAddsNothingForGuests(t *testing.T) {
	start := header + section(1, "\x01\x60\x00\x00") + section(3, "\x01\x00") + section(4, "\x01\x70\x00\x01") + section(5, "\x01\x00\x01")
	code := func(content string) string { return section(10, "\x01"+body("\x00"+content+"\x0b")) }
	for name, binary := range map[string]string{
		"global.get":            start + code("\x23\x00\x1a"),
		"global.set":            start + code("\x42\x00\x24\x00"),
		"call":                  start + code("\x10\x01"),
		"return_call":           start + code("\x12\x01"),
		"call_indirect":         start + code("\x41\x00\x11\x01\x00"),
		"ref.func":              start + code("\xd2\x01\x1a"),
		"block":                 start + code("\x02\x01\x0b"),
		"memory.init":           start + code("\x41\x00\x41\x00\x41\x00\xfc\x08\x00\x00"),
		"data.drop":             start + code("\xfc\x09\x00"),
		"elem.drop":             start + code("\xfc\x0d\x00"),
		"table.init":            start + code("\x41\x00\x41\x00\x41\x00\xfc\x0c\x00\x00"),
		"table.get":             start + code("\x41\x00\x25\x01\x1a"),
		"label":                 start + code("\x0c\x01"),
		"label in br_table":     start + code("\x41\x00\x0e\x01\x01\x00"),
		"default of br_table":   start + code("\x41\x00\x0e\x01\x00\x01"),
		"local":                 start + code("\x20\x00\x1a"),
		"export of a function":  start + section(7, "\x01\x01a\x00\x01") + code(""),
		"export of a global":    start + section(7, "\x01\x01a\x03\x00") + code(""),
		"start":                 start + section(8, "\x01") + code(""),
		"element":               start + section(9, "\x01\x00\x41\x00\x0b\x01\x01") + code(""),
		"element, expression":   start + section(9, "\x01\x04\x41\x00\x0b\x01\xd2\x01\x0b") + code(""),
		"element, offset":       start + section(9, "\x01\x00\x23\x00\x0b\x01\x00") + code(""),
		"global, expression":    start + section(6, "\x01\x70\x00\xd2\x01\x0b") + code(""),
		"code after the end":    start + section(10, "\x01"+body("\x00\x0b\x01\x0b")),
		"else twice":            start + code("\x41\x00\x04\x40\x05\x05\x0b"),
		"else of a block":       start + code("\x02\x40\x05\x0b"),
		"else of a function":    start + code("\x05"),
		"no end":                start + section(10, "\x01"+body("\x00\x02\x40\x0b")),
		"long number":           start + code("\x41\x80\x80\x80\x80\x80\x00\x1a"),
		"atomic":                start + code("\xfe\x03\x00"),
		"try_table":             start + code("\x1f\x40\x00\x0b"),
		"relaxed vector":        start + code("\xfd\x80\x02"),
		"second memory's store": start + code("\x41\x00\x41\x00\x36\x42\x00\x00"),
		"memory 1":              start + code("\x3f\x01\x1a"),
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := meter([]byte(binary), module.Limits{})
			require.ErrorAs(t, err, new(*module.Error))
		})
	}
}

// withoutCustom leaves custom sections out: errors in their contents are none
// of the module's, but wazero's.
func withoutCustom(file []byte) []byte {
	out := slices.Clone(file[:8])
	for rest := file[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		end := 1 + n + int(size)
		if rest[0] != 0 {
			out = append(out, rest[:end]...)
		}
		rest = rest[end:]
	}
	return out
}

// seeds are modules of the specification's tests, and ours.
func seeds(f *testing.F) (list [][]byte) {
	ours, err := filepath.Glob("testdata/meter/*.wasm")
	require.NoError(f, err)
	theirs, err := filepath.Glob(filepath.Join(engineDir(f), "internal/integration_test/spectest/v2/testdata/*.wasm"))
	require.NoError(f, err)
	for i := 0; i < len(theirs); i += 9 {
		ours = append(ours, theirs[i])
	}
	for _, path := range ours {
		binary, err := os.ReadFile(path)
		require.NoError(f, err)
		if len(binary) <= maxFuzz {
			list = append(list, binary)
		}
	}
	return list
}

const maxFuzz = 8 << 10

// excused are refusals of what wazero takes: what is over a limit, and what is
// not in WebAssembly 2.0, which wazero reads anyway.
func excused(err error) bool {
	for _, reason := range []string{
		"limit", "more than", "too many", "not offered", "unknown type", "of an unknown type", "unknown form", "ref.null of", "null reference of",
		"a global that changes",
	} {
		if strings.Contains(err.Error(), reason) {
			return true
		}
	}
	return false
}

func FuzzMeter(f *testing.F) {
	f.Add([]byte(whole()))
	for _, seed := range seeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if len(file) > maxFuzz {
			return
		}
		var before, after goruntime.MemStats
		goruntime.ReadMemStats(&before)
		// The grades by turns.
		grade := module.Grade(len(file) % 2)
		r, err := module.Rewrite(file, module.Options{Grade: grade})
		goruntime.ReadMemStats(&after)
		require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(len(file))*256+1<<20)
		if err != nil {
			require.ErrorAs(t, err, new(*module.Error))
			require.Nil(t, r)
			// wazero believes the counts of what Parse refuses.
			if _, perr := module.Parse(file, module.Limits{}); perr == nil && !excused(err) {
				require.Error(t, compiles(withoutCustom(file)), "the engine takes it, but: %v", err)
			}
			return
		}
		metered, facts := r.Binary, r.Facts
		require.Equal(t, len(file), facts.Size)
		require.LessOrEqual(t, len(metered), 24*len(file)+1024)
		plain, changed := compiles(withoutCustom(file)), compiles(metered)
		if plain == nil {
			require.NoError(t, changed)
		} else {
			require.Error(t, changed, "the engine refuses the original: %v", plain)
		}
		// What the guest has in it is untouched.
		again, err := module.Parse(metered, module.Limits{})
		require.NoError(t, err)
		require.Equal(t, facts.Exports, append([]module.Export(nil), again.Exports[:len(again.Exports)-2]...))
		require.Equal(t, facts.Globals+2, again.Globals)
		require.Equal(t, append(slices.Clip(facts.Imports), again.Imports[len(again.Imports)-1]), again.Imports)
	})
}
