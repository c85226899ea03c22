package module_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/ultravisor/beacon/runtime/module"
)

// writes are all ways to write to memory: what stands between the address, or the
// place and what else they take, and the offset, and behind it.
var writes = []struct{ name, before, after string }{
	{"i32.store", "\x41\x7f\x36\x02", ""},
	{"i64.store", "\x42\x7f\x37\x03", ""},
	{"f32.store", "\x43\xff\xff\xff\xff\x38\x02", ""},
	{"f64.store", "\x44\xff\xff\xff\xff\xff\xff\xff\xff\x39\x03", ""},
	{"i32.store8", "\x41\x7f\x3a\x00", ""},
	{"i32.store16", "\x41\x7f\x3b\x01", ""},
	{"i64.store8", "\x42\x7f\x3c\x00", ""},
	{"i64.store16", "\x42\x7f\x3d\x01", ""},
	{"i64.store32", "\x42\x7f\x3e\x02", ""},
	{"v128.store", "\x41\x7f\xfd\x0f\xfd\x0b\x04", ""},
	{"v128.store8_lane", "\x41\x7f\xfd\x0f\xfd\x58\x00", "\x0f"},
	{"v128.store16_lane", "\x41\x7f\xfd\x0f\xfd\x59\x01", "\x07"},
	{"v128.store32_lane", "\x41\x7f\xfd\x0f\xfd\x5a\x02", "\x03"},
	{"v128.store64_lane", "\x41\x7f\xfd\x0f\xfd\x5b\x03", "\x01"},
}

// lengths are how long bulk instructions write.
var lengths = []uint64{0, 1, 2, 15, 1023, 1024, 1025, 2048, 4096, 4097, 12000}

// Whatever instruction writes, and wherever, it marks what it has written to: after
// that alone is put back, the memory is as it was.
func TestMarks(t *testing.T) {
	var names, bodies []string
	var reach []int
	add := func(name, code string, bytes int) {
		names, bodies, reach = append(names, name), append(bodies, body("\x00\x20\x00"+code+"\x0b")), append(reach, bytes)
	}
	for _, w := range writes {
		for _, offset := range []uint64{0, 1, 100, 5000} {
			add(fmt.Sprint(w.name, " offset ", offset), w.before+leb(offset)+w.after, int(offset)+16)
		}
	}
	for _, n := range lengths {
		constant := "\x41" + positive(int(n))
		add(fmt.Sprint("memory.fill ", n), "\x41\x7f"+constant+"\xfc\x0b\x00", int(n))
		add(fmt.Sprint("memory.copy ", n), "\x41\x00"+constant+"\xfc\x0a\x00\x00", int(n))
		add(fmt.Sprint("memory.init ", n), "\x41\x00"+constant+"\xfc\x08\x01\x00", int(n))
	}
	content := strings.Repeat("\xaa", 12000)
	for pages := 1; pages <= 5; pages++ {
		t.Run(fmt.Sprint(pages, " pages"), func(t *testing.T) {
			file := header + section(1, "\x01\x60\x01\x7f\x00") + section(3, leb(uint64(len(bodies)))+strings.Repeat("\x00", len(bodies))) +
				section(5, "\x01\x00"+leb(uint64(pages)))
			exports := leb(uint64(len(bodies)))
			for i := range bodies {
				name := fmt.Sprint("f", i)
				exports += leb(uint64(len(name))) + name + "\x00" + leb(uint64(i))
			}
			file += section(7, exports) + section(12, "\x02") + section(10, leb(uint64(len(bodies)))+strings.Join(bodies, "")) +
				section(11, "\x02\x00\x41\x00\x0b"+leb(12000)+content+"\x01"+leb(12000)+content)
			m := prepare(t.Context(), t, []byte(file), module.Options{Grade: module.Grade(pages % 2)})
			require.Equal(t, map[int]int{1: 1024, 2: 2048, 3: 4096, 4: 4096}[pages], m.Granule)
			i := m.instance(t.Context(), t)
			defer i.close(t)
			size, granule := pages*module.PageSize, max(m.Granule, 4096)
			changed, known := 0, 0
			for n := range bodies {
				call := i.Function(fmt.Sprint("f", n))
				for _, at := range []int{0, 1, granule - 16, granule - 15, granule - 2, granule - 1, granule, 5 * granule / 2, 7*granule - 1, size / 2, size - granule - 1, size - reach[n]} {
					if at+reach[n] > size {
						continue
					}
					require.NoError(t, call.Call(t.Context(), []uint64{uint64(at)}))
					if len(i.memory.Changed()) > 0 {
						changed++
					}
					if i.marks != nil && i.marks.Get() != module.MarksUnknown {
						known++
					}
					require.True(t, i.putBack(t), "%s at %d", names[n], at)
					require.Empty(t, i.memory.Changed(), "%s at %d", names[n], at)
				}
			}
			require.Greater(t, changed, 500)
			if m.Granule > 0 {
				require.Greater(t, known, 500)
			}
		})
	}
}

// What marking adds to a module is in proportion to it, and it does not keep an engine
// busy for long.
func TestMarksInProportion(t *testing.T) {
	store := "\x20\x00\x20\x00\x36\x02\x00"
	file := func(n int) string {
		return header + section(1, "\x01\x60\x01\x7f\x00") + section(3, "\x01\x00") + section(5, "\x01\x00\x01") +
			section(10, "\x01"+body("\x00"+strings.Repeat(store, n)+"\x0b"))
	}
	small := file(18_000)
	p, err := module.Prepare([]byte(small), module.Options{})
	require.NoError(t, err)
	require.NotZero(t, p.Granule)
	require.Less(t, len(p.Binary), 6*len(small))
	engine := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfig().WithCoreFeatures(features))
	defer engine.Close(t.Context())
	_, err = engine.CompileModule(t.Context(), p.Binary)
	require.NoError(t, err)
	p, err = module.Prepare([]byte(file(20_000)), module.Options{})
	require.NoError(t, err)
	require.Zero(t, p.Granule, "of a large module nothing is marked")
}

// BenchmarkMarks is about loops that do little but write, in a memory that is marked
// and in one that is too large for that.
func BenchmarkMarks(b *testing.B) {
	// for n := 0; n < 60000; n += step { … }, of the local variable 0
	loop := func(step, do string) string {
		return body("\x00\x03\x40" + do + "\x20\x00\x41" + step + "\x6a\x22\x00\x41\xe0\xd4\x03\x48\x0d\x00\x0b\x0b")
	}
	bodies := []string{
		loop("\x04", "\x20\x00\x20\x00\x36\x02\x00"),                 // p[n] = n
		loop("\x01", "\x20\x00\x20\x00\x2d\x00\x80\x04\x3a\x00\x00"), // p[n] = p[n+512]
	}
	for n, name := range []string{"fill words", "copy bytes"} {
		for pages, how := range map[int]string{1: "marked", 5: "not marked"} {
			b.Run(name+"/"+how, func(b *testing.B) {
				file := header + section(1, "\x01\x60\x01\x7f\x00") + section(3, "\x01\x00") + section(5, "\x01\x00"+leb(uint64(pages))) +
					section(7, "\x01\x01f\x00\x00") + section(10, "\x01"+bodies[n])
				m := prepare(b.Context(), b, []byte(file), module.Options{})
				i := m.instance(b.Context(), b)
				defer i.close(b)
				call := i.Function("f")
				for b.Loop() {
					require.NoError(b, call.Call(b.Context(), []uint64{0}))
				}
			})
		}
	}
}
