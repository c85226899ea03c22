package source_test

import (
	"bytes"
	"debug/dwarf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/runtime/source"
)

// compile makes a module with debug information.
func compile(t testing.TB, flags ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "trap.wasm")
	text, err := exec.Command("clang", append(flags, "--target=wasm32", "-O0", "-nostdlib", "-Wl,--no-entry", "-Wl,--export-all",
		"-o", out, "testdata/trap.c")...).CombinedOutput()
	if err != nil {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatalf("clang: %v\n%s", err, text)
		}
		t.Skipf("clang: %v\n%s", err, text)
	}
	binary, err := os.ReadFile(out)
	require.NoError(t, err)
	return binary
}

// custom finds a custom section, and code the size of the section of code.
func sections(module []byte) (custom map[string][]byte, code int) {
	custom = map[string][]byte{}
	for rest := module[8:]; len(rest) > 0; {
		size, n := binary.Uvarint(rest[1:])
		content := rest[1+n:][:size]
		if rest[0] == 0 {
			length, m := binary.Uvarint(content)
			custom[string(content[m:][:length])] = content[m:][length:]
		}
		if rest[0] == 10 {
			code = len(content)
		}
		rest = rest[1+n+int(size):]
	}
	return custom, code
}

// theirs are the positions as the standard library reads them, for each offset.
func theirs(t *testing.T, custom map[string][]byte, code int) []string {
	d, err := dwarf.New(custom[".debug_abbrev"], nil, nil, custom[".debug_info"], custom[".debug_line"], nil, custom[".debug_ranges"], custom[".debug_str"])
	require.NoError(t, err)
	for _, name := range []string{".debug_addr", ".debug_line_str", ".debug_str_offsets", ".debug_rnglists"} {
		require.NoError(t, d.AddSection(name, custom[name]))
	}
	positions := make([]string, code)
	units := d.Reader()
	for {
		unit, err := units.Next()
		require.NoError(t, err)
		if unit == nil {
			return positions
		}
		units.SkipChildren()
		lines, err := d.LineReader(unit)
		require.NoError(t, err)
		var last, next dwarf.LineEntry
		for open := false; lines.Next(&next) == nil; last, open = next, !next.EndSequence {
			for at := last.Address; open && at < next.Address; at++ {
				positions[at] = fmt.Sprintf("%s:%d:%d", path.Base(last.File.Name), last.Line, last.Column)
			}
		}
	}
}

// Every offset of a module has the position that the standard library's reader
// finds, in all versions of the format.
func TestPositions(t *testing.T) {
	for _, version := range []string{"-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5"} {
		t.Run(version, func(t *testing.T) {
			module := compile(t, version)
			custom, code := sections(module)
			want := theirs(t, custom, code)
			tables := source.Of(module)
			known := 0
			var got []source.Position
			for len(got) < code {
				var some []uint32
				for at := len(got); at < code && len(some) < source.MaxPlaces; at++ {
					some = append(some, uint32(at))
				}
				got = append(got, tables.Positions(some)...)
			}
			for at := range want {
				p := got[at]
				if want[at] == "" {
					require.Zero(t, p, at)
					continue
				}
				known++
				require.Equal(t, want[at], fmt.Sprintf("%s:%d:%d", path.Base(p.File), p.Line, p.Column), at)
			}
			require.Greater(t, known, 20)
			many := make([]uint32, code)
			for at := range many {
				many[at] = uint32(at)
			}
			require.Len(t, tables.Positions(many), code)
		})
	}
}

func TestWithout(t *testing.T) {
	require.Zero(t, source.Of(nil))
	require.Zero(t, source.Of([]byte("\x00asm\x01\x00\x00\x00")))
	require.Zero(t, source.Of(compile(t, "-g0")))
	require.Equal(t, []source.Position{{}}, source.Tables{}.Positions([]uint32{1}))
}

// A table whose entries take no bytes is not gone through four billion times.
func TestEmptyEntries(t *testing.T) {
	tables := "\x01\x01\x01\xfb\x0e\x0d\x00\x01\x01\x01\x01\x00\x00\x00\x01\x00\x00\x01" + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f" + "\x00\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
	program := "\x00\x05\x02\x01\x00\x00\x00\x01\x02\x10\x00\x01\x01"
	unit := "\x05\x00\x04\x00" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(tables)))) + tables + program
	line := string(binary.LittleEndian.AppendUint32(nil, uint32(len(unit)))) + unit
	require.Equal(t, []source.Position{{Line: 1}}, source.Tables{Line: []byte(line)}.Positions([]uint32{5}))
}

// S8: whatever the tables hold, a search ends, and soon.
func FuzzPositions(f *testing.F) {
	for _, version := range []string{"-gdwarf-3", "-gdwarf-5"} {
		if _, err := exec.LookPath("clang"); err == nil {
			t := source.Of(compile(f, version))
			f.Add(t.Line, t.LineStr, t.Str)
		}
	}
	f.Add([]byte("\xff\xff\xff\xff\x08\x00\x00\x00\x00\x00\x00\x00\x05\x00\x04\x00"), []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, line, lineStr, str []byte) {
		for _, p := range (source.Tables{Line: line, LineStr: lineStr, Str: str}).Positions([]uint32{0, 1, 50, 200, 1<<32 - 1}) {
			require.LessOrEqual(t, len(p.File), 8200)
			require.GreaterOrEqual(t, p.Line, 0)
		}
	})
}

// A module cut off anywhere has no tables, or those that are whole.
func TestTruncated(t *testing.T) {
	module := compile(t, "-gdwarf-4")
	whole := source.Of(module)
	for n := range module {
		got := source.Of(module[:n])
		require.True(t, got.Line == nil || bytes.Equal(got.Line, whole.Line))
	}
}

// S8: whatever bytes a module has, its tables are parts of it, and are searched
// without an end that they choose.
func FuzzModule(f *testing.F) {
	if _, err := exec.LookPath("clang"); err == nil {
		f.Add(compile(f, "-gdwarf-4"))
		f.Add(compile(f, "-gdwarf-5"))
	}
	section := func(name, content string) string {
		content = string(binary.AppendUvarint(nil, uint64(len(name)))) + name + content
		return "\x00" + string(binary.AppendUvarint(nil, uint64(len(content)))) + content
	}
	f.Add([]byte("\x00asm\x01\x00\x00\x00" + section(source.LineSection, "\x04\x00\x00\x00\x05\x00\x04\x00") + section(source.StrSection, "text\x00") + section(source.LineStrSection, "")))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, module []byte) {
		tables := source.Of(module)
		for _, table := range [][]byte{tables.Line, tables.LineStr, tables.Str} {
			require.True(t, bytes.Contains(module, table))
		}
		for _, p := range tables.Positions([]uint32{0, 7, 300, 1<<32 - 1}) {
			require.GreaterOrEqual(t, p.Line, 0)
			require.GreaterOrEqual(t, p.Column, 0)
		}
	})
}
