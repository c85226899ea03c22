package abi_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"math"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/runtime/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A state is what the host functions of these tests work on: what they saw.
type state struct {
	called int
	run    func(*abi.Call) abi.Errno
}

const (
	eFault abi.Errno = 21
	eLong  abi.Errno = 22
	page             = 65536
)

func handle(s *state, c *abi.Call) abi.Errno {
	s.called++
	if s.run != nil {
		return s.run(c)
	}
	return 0
}

// guest makes a module that exports a function for each function of x, which
// calls it with the same parameters.
func guest(x abi.Interface[*state], pages int) []byte {
	leb := func(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) }
	name := func(s string) string { return leb(len(s)) + s }
	types := func(list []abi.ValueType) string {
		out := leb(len(list))
		for _, t := range list {
			out += string(t)
		}
		return out
	}
	var typeSection, imports, functions, exports, bodies string
	n := len(x.Functions)
	for i, f := range x.Functions {
		s := x.Signatures()[f.Name]
		typeSection += "\x60" + types(s.Params) + types(s.Results)
		imports += name(x.Name) + name(f.Name) + "\x00" + leb(i)
		functions += leb(i)
		exports += name(f.Name) + "\x00" + leb(n+i)
		body := "\x00"
		for p := range s.Params {
			body += "\x20" + leb(p)
		}
		body += "\x10" + leb(i) + "\x0b"
		bodies += leb(len(body)) + body
	}
	// Calls the first function, which has no parameters, as often as its parameter says.
	typeSection += "\x60\x01\x7f\x00"
	functions += leb(n)
	exports += name("loop") + "\x00" + leb(2*n)
	loop := "\x00\x03\x40\x10\x00\x1a\x20\x00\x41\x01\x6b\x22\x00\x0d\x00\x0b\x0b"
	if len(x.Signatures()[x.Functions[0].Name].Params) > 0 {
		loop = "\x00\x0b"
	}
	bodies += leb(len(loop)) + loop
	section := func(id byte, count int, content string) string {
		content = leb(count) + content
		return string(id) + leb(len(content)) + content
	}
	out := "\x00asm\x01\x00\x00\x00" + section(1, n+1, typeSection) + section(2, n, imports) + section(3, n+1, functions)
	if pages >= 0 {
		out += section(5, 1, "\x00"+leb(pages))
	}
	return []byte(out + section(7, n+1, exports) + section(10, n+1, bodies))
}

// instance starts the guest of an interface; its calls have s as their state.
func instance(t testing.TB, functions []abi.Function[*state], pages int) (api.Module, func(context.Context, string, ...uint64) (uint64, error)) {
	t.Helper()
	x := abi.Interface[*state]{Name: "test_v1", Functions: functions, Fault: eFault, Long: eLong}
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { require.NoError(t, r.Close(ctx)) })
	require.NoError(t, engine.Offer(ctx, r, x.Library()))
	mod, err := r.Instantiate(ctx, guest(x, pages))
	require.NoError(t, err)
	return mod, func(ctx context.Context, name string, params ...uint64) (uint64, error) {
		results, err := mod.ExportedFunction(name).Call(ctx, params...)
		if err != nil || len(results) == 0 {
			return 0, err
		}
		return results[0], nil
	}
}

func one(name string, params ...abi.Param) []abi.Function[*state] {
	return []abi.Function[*state]{{Name: name, Params: params, Func: handle}}
}

func TestPointers(t *testing.T) {
	const all = math.MaxUint32
	for name, tt := range map[string]struct {
		param  abi.Param
		pages  int
		params []uint64
		want   abi.Errno
		size   int // that the function sees
	}{
		"in":                      {param: abi.In(16), pages: 1, params: []uint64{8, 16}, size: 16},
		"in, at the end":          {param: abi.In(16), pages: 1, params: []uint64{page - 16, 16}, size: 16},
		"in, one byte over":       {param: abi.In(16), pages: 1, params: []uint64{page - 15, 16}, want: eFault},
		"in, too long":            {param: abi.In(16), pages: 1, params: []uint64{0, 17}, want: eLong},
		"in, too long and wild":   {param: abi.In(16), pages: 1, params: []uint64{all, all}, want: eLong},
		"in, wraps":               {param: abi.In(all), pages: 1, params: []uint64{all - 7, 16}, want: eFault},
		"in, wraps to zero":       {param: abi.In(all), pages: 1, params: []uint64{1, all}, want: eFault},
		"in, everything":          {param: abi.In(all), pages: 1, params: []uint64{0, page}, size: page},
		"in, nothing at the end":  {param: abi.In(16), pages: 1, params: []uint64{page, 0}},
		"in, nothing beyond":      {param: abi.In(16), pages: 1, params: []uint64{page + 1, 0}, want: eFault},
		"in, nothing far beyond":  {param: abi.In(16), pages: 1, params: []uint64{all, 0}, want: eFault},
		"in, empty memory":        {param: abi.In(16), pages: 0, params: []uint64{0, 1}, want: eFault},
		"in, nothing of nothing":  {param: abi.In(16), pages: 0, params: []uint64{0, 0}},
		"in, no memory":           {param: abi.In(16), pages: -1, params: []uint64{0, 0}, want: eFault},
		"in, high bits":           {param: abi.In(16), pages: 1, params: []uint64{1<<40 | 8, 1<<33 | 4}, size: 4},
		"prefix":                  {param: abi.Prefix(16), pages: 1, params: []uint64{8, 9}, size: 9},
		"prefix, cut":             {param: abi.Prefix(16), pages: 1, params: []uint64{8, 1000}, size: 16},
		"prefix, cut at the end":  {param: abi.Prefix(16), pages: 1, params: []uint64{page - 16, all}, size: 16},
		"prefix, over the end":    {param: abi.Prefix(16), pages: 1, params: []uint64{page - 15, 16}, want: eFault},
		"prefix, no memory":       {param: abi.Prefix(16), pages: -1, params: []uint64{0, 1}, want: eFault},
		"out":                     {param: abi.Out(16), pages: 1, params: []uint64{8, 9}, size: 9},
		"out, cut":                {param: abi.Out(16), pages: 1, params: []uint64{page - 16, all}, size: 16},
		"out, over the end":       {param: abi.Out(all), pages: 1, params: []uint64{1, page}, want: eFault},
		"out, wraps":              {param: abi.Out(all), pages: 1, params: []uint64{page, all - page + 1}, want: eFault},
		"out, nothing at the end": {param: abi.Out(16), pages: 1, params: []uint64{page, 0}},
		"cell":                    {param: abi.Cell(8), pages: 1, params: []uint64{page - 8}, size: 8},
		"cell, over the end":      {param: abi.Cell(8), pages: 1, params: []uint64{page - 7}, want: eFault},
		"cell, wraps":             {param: abi.Cell(8), pages: 1, params: []uint64{all - 3}, want: eFault},
		"cell, no memory":         {param: abi.Cell(8), pages: -1, params: []uint64{0}, want: eFault},
	} {
		t.Run(name, func(t *testing.T) {
			_, call := instance(t, one("f", tt.param), tt.pages)
			s := &state{}
			s.run = func(c *abi.Call) abi.Errno {
				require.Len(t, c.Bytes(0), tt.size)
				require.Equal(t, tt.size, cap(c.Bytes(0)), "an append must not reach the guest")
				require.Len(t, c.Text(0), tt.size)
				return 0
			}
			errno, err := call(abi.WithState(t.Context(), s), "f", tt.params...)
			require.NoError(t, err)
			require.Equal(t, tt.want, abi.Errno(errno))
			if tt.want == 0 {
				require.Equal(t, 1, s.called)
			} else {
				require.Zero(t, s.called, "the function ran on a bad pointer")
			}
		})
	}
}

// Results go to the guest's memory, and nowhere else of it.
func TestStores(t *testing.T) {
	mod, call := instance(t, one("f", abi.Cell(4), abi.Cell(8), abi.Out(100)), 1)
	s := &state{run: func(c *abi.Call) abi.Errno {
		c.PutU32(0, 0x01020304)
		c.PutU64(1, 0x1112131415161718)
		copy(c.Bytes(2), "answer")
		_ = append(c.Bytes(2), "behind"...)
		return 77
	}}
	errno, err := call(abi.WithState(t.Context(), s), "f", 100, 200, 300, 10)
	require.NoError(t, err)
	require.EqualValues(t, 77, errno)
	want := make([]byte, page)
	copy(want[100:], "\x04\x03\x02\x01")
	copy(want[200:], "\x18\x17\x16\x15\x14\x13\x12\x11")
	copy(want[300:], "answer")
	got, ok := mod.Memory().Read(0, page)
	require.True(t, ok)
	require.Equal(t, want, got)
}

func TestNumbers(t *testing.T) {
	_, call := instance(t, one("f", abi.I32, abi.I64, abi.F64, abi.Pointer), -1)
	s := &state{run: func(c *abi.Call) abi.Errno {
		require.Equal(t, uint32(math.MaxUint32), c.U32(0))
		require.Equal(t, int64(-5), c.I64(1))
		require.Equal(t, uint64(math.MaxUint64-4), c.U64(1))
		require.InDelta(t, -2.5, c.F64(2), 0)
		_, ok := c.View(3, 0)
		require.False(t, ok, "there is no memory")
		return 0
	}}
	_, err := call(abi.WithState(t.Context(), s), "f", math.MaxUint64, math.MaxUint64-4, math.Float64bits(-2.5), 3)
	require.NoError(t, err)
	require.Equal(t, 1, s.called)
}

func TestView(t *testing.T) {
	_, call := instance(t, one("f", abi.Pointer, abi.I32), 1)
	for _, tt := range []struct {
		offset, size uint32
		ok           bool
	}{
		{0, page, true},
		{page, 0, true},
		{page - 1, 1, true},
		{page - 1, 2, false},
		{page + 1, 0, false},
		{math.MaxUint32, 1, false},
		{math.MaxUint32, math.MaxUint32, false},
		{1, math.MaxUint32, false},
	} {
		s := &state{run: func(c *abi.Call) abi.Errno {
			b, ok := c.View(0, c.U32(1))
			require.Equal(t, tt.ok, ok, "%d, %d", tt.offset, tt.size)
			if ok {
				require.Len(t, b, int(tt.size))
				require.Equal(t, int(tt.size), cap(b))
			}
			return 0
		}}
		_, err := call(abi.WithState(t.Context(), s), "f", uint64(tt.offset), uint64(tt.size))
		require.NoError(t, err)
	}
}

func TestVectors(t *testing.T) {
	const limit = 4
	type vector struct{ offset, size uint32 }
	for name, tt := range map[string]struct {
		at      uint32
		count   uint32
		pages   int
		vectors []vector
		want    abi.Errno
		sizes   []int
	}{
		"none":              {at: 0, count: 0, pages: 1},
		"none at the end":   {at: page, count: 0, pages: 1},
		"none beyond":       {at: page + 1, count: 0, pages: 1, want: eFault},
		"some":              {count: 3, pages: 1, vectors: []vector{{100, 5}, {200, 0}, {page - 1, 1}}, sizes: []int{5, 1}},
		"as many as may be": {count: limit, pages: 1, vectors: []vector{{0, 1}, {0, 1}, {0, 1}, {0, 1}}, sizes: []int{1, 1, 1, 1}},
		"one more":          {count: limit + 1, pages: 1, want: eLong},
		"count that wraps":  {count: 1 << 29, pages: 1, want: eLong},
		"most":              {count: math.MaxUint32, pages: 1, want: eLong},
		"table over end":    {at: page - 8, count: 2, pages: 1, want: eFault},
		"buffer over end":   {count: 2, pages: 1, vectors: []vector{{100, 5}, {page - 1, 2}}, want: eFault},
		"buffer wraps":      {count: 1, pages: 1, vectors: []vector{{8, math.MaxUint32 - 4}}, want: eFault},
		"nothing beyond":    {count: 1, pages: 1, vectors: []vector{{page + 1, 0}}, want: eFault},
		"same bytes often": {
			count: 4, pages: 64, vectors: []vector{{0, 3 << 20}, {0, 3 << 20}, {0, 3 << 20}, {0, 3 << 20}},
			sizes: []int{3 << 20, 3 << 20, 2 << 20},
		},
		"cut, but wild": {count: 3, pages: 129, vectors: []vector{{0, 8 << 20}, {0, 1}, {math.MaxUint32, 1}}, want: eFault},
		"no memory":     {count: 1, pages: -1, want: eFault},
	} {
		t.Run(name, func(t *testing.T) {
			mod, call := instance(t, one("f", abi.Vectors(limit)), tt.pages)
			for i, v := range tt.vectors {
				require.True(t, mod.Memory().WriteUint32Le(tt.at+uint32(i)*8, v.offset))
				require.True(t, mod.Memory().WriteUint32Le(tt.at+uint32(i)*8+4, v.size))
			}
			s := &state{}
			s.run = func(c *abi.Call) abi.Errno {
				var sizes []int
				for _, v := range c.Vectors() {
					require.Equal(t, len(v), cap(v))
					sizes = append(sizes, len(v))
				}
				require.Equal(t, tt.sizes, sizes)
				return 0
			}
			errno, err := call(abi.WithState(t.Context(), s), "f", uint64(tt.at), uint64(tt.count))
			require.NoError(t, err)
			require.Equal(t, tt.want, abi.Errno(errno))
			require.Equal(t, tt.want == 0, s.called == 1)
		})
	}
}

var errOver = errors.New("the item is over")

// A fault of the host becomes a Stop whose text holds neither a stack nor a
// file of ours; S30.
func TestPanics(t *testing.T) {
	for name, tt := range map[string]struct {
		fault func()
		is    error
		text  string
	}{
		"stop":         {func() { panic(&abi.Stop{Cause: errOver}) }, errOver, "the item is over"},
		"wrapped stop": {func() { panic(errors.Join(&abi.Stop{Cause: errOver})) }, errOver, "the item is over"},
		"text":         {func() { panic("broken") }, abi.ErrHost, "host function failed: test_v1.f: broken"},
		"error":        {func() { panic(fs.ErrClosed) }, abi.ErrHost, "host function failed: test_v1.f: file already closed"},
		"index":        {func() { _ = make([]byte, 1)[len(t.Name())] }, abi.ErrHost, "index out of range"},
		"nil":          {func() { var s *state; s.called++ }, abi.ErrHost, "nil pointer"},
		"conversion":   {func() { var x any = 1; _ = x.(string) }, abi.ErrHost, "interface conversion"},
	} {
		t.Run(name, func(t *testing.T) {
			_, call := instance(t, one("f"), 1)
			s := &state{run: func(*abi.Call) abi.Errno { tt.fault(); return 0 }}
			_, err := call(abi.WithState(t.Context(), s), "f")
			var stop *abi.Stop
			require.ErrorAs(t, err, &stop)
			require.ErrorIs(t, err, tt.is)
			require.Contains(t, stop.Error(), tt.text)
			require.NotContains(t, err.Error(), "goroutine")
			require.NotContains(t, err.Error(), ".go:")
			s.run = nil
			errno, err := call(abi.WithState(t.Context(), s), "f")
			require.NoError(t, err, "the next call is not affected")
			require.Zero(t, errno)
		})
	}
}

func TestOutsideOfAnItem(t *testing.T) {
	_, call := instance(t, one("f"), 1)
	_, err := call(t.Context(), "f")
	var stop *abi.Stop
	require.ErrorAs(t, err, &stop)
	require.ErrorContains(t, stop, "test_v1.f was called outside of a work item")
}

func TestEnter(t *testing.T) {
	ctx := context.Background()
	entered := 0
	x := abi.Interface[*state]{Name: "test_v1", Functions: one("f"), Enter: func(*state, context.Context) error {
		if entered++; entered > 2 {
			return errOver
		}
		return nil
	}}
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { require.NoError(t, r.Close(ctx)) })
	require.NoError(t, engine.Offer(ctx, r, x.Library()))
	mod, err := r.Instantiate(ctx, guest(x, 1))
	require.NoError(t, err)
	s := &state{}
	_, err = mod.ExportedFunction("loop").Call(abi.WithState(ctx, s), 1000)
	require.ErrorIs(t, err, errOver)
	require.Equal(t, 2, s.called)
}

func TestNoResult(t *testing.T) {
	functions := one("f", abi.I32)
	functions[0].NoResult = true
	_, call := instance(t, functions, 1)
	s := &state{}
	_, err := call(abi.WithState(t.Context(), s), "f", 1)
	require.NoError(t, err)
	require.Equal(t, 1, s.called)
}

func TestTooManyParameters(t *testing.T) {
	params := make([]abi.Param, 10)
	x := abi.Interface[*state]{Name: "test_v1", Functions: one("f", params...)}
	require.PanicsWithValue(t, "host function test_v1.f has 10 parameters, limit 9", func() { x.Library() })
}

func TestSignatures(t *testing.T) {
	x := abi.Interface[*state]{Functions: []abi.Function[*state]{
		{Name: "a", Params: []abi.Param{abi.I32, abi.I64, abi.F64}},
		{Name: "b", Params: []abi.Param{abi.In(1), abi.Prefix(1), abi.Out(1), abi.Cell(4), abi.Vectors(1), abi.Pointer}, NoResult: true},
	}}
	const i32, i64, f64 = abi.TypeI32, abi.TypeI64, abi.TypeF64
	require.Equal(t, map[string]abi.Signature{
		"a": {Params: []abi.ValueType{i32, i64, f64}, Results: []abi.ValueType{i32}},
		"b": {Params: []abi.ValueType{i32, i32, i32, i32, i32, i32, i32, i32, i32, i32}, Memory: true},
	}, x.Signatures())
}

// Two guests at once share nothing.
func TestConcurrent(t *testing.T) {
	ctx := context.Background()
	x := abi.Interface[*state]{Name: "test_v1", Functions: one("f", abi.In(8), abi.Vectors(2))}
	r := wazero.NewRuntime(ctx)
	t.Cleanup(func() { require.NoError(t, r.Close(ctx)) })
	require.NoError(t, engine.Offer(ctx, r, x.Library()))
	code, err := r.CompileModule(ctx, guest(x, 1))
	require.NoError(t, err)
	done := make(chan error, 8)
	for i := range cap(done) {
		go func() {
			mod, err := r.InstantiateModule(ctx, code, wazero.NewModuleConfig().WithName(""))
			if err != nil {
				done <- err
				return
			}
			text := strings.Repeat(string(rune('a'+i)), 8)
			mod.Memory().WriteString(0, text)
			mod.Memory().WriteUint32Le(104, 8) // one vector at 0
			s := &state{run: func(c *abi.Call) abi.Errno {
				if c.Text(0) != text || len(c.Vectors()) != 1 || string(c.Vectors()[0]) != text {
					return 1
				}
				return 0
			}}
			f := mod.ExportedFunction("f")
			for range 2000 {
				results, callErr := f.Call(abi.WithState(ctx, s), 0, 8, 100, 1)
				if callErr != nil || results[0] != 0 {
					err = errors.Join(errors.New("saw another guest's bytes"), callErr)
					break
				}
			}
			done <- errors.Join(err, mod.Close(ctx))
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
}

func TestNoAllocation(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools forget on purpose")
	}
	for name, params := range map[string][]abi.Param{
		"numbers":  {abi.I32, abi.I32, abi.I32, abi.I32},
		"pointers": {abi.In(64), abi.Out(64)},
		"vectors":  {abi.Vectors(8), abi.Cell(4), abi.I32},
	} {
		t.Run(name, func(t *testing.T) {
			mod, _ := instance(t, one("f", params...), 1)
			mod.Memory().WriteUint32Le(4, 10)
			ctx := abi.WithState(t.Context(), &state{})
			f := mod.ExportedFunction("f")
			stack := []uint64{0, 4, 8, 4}
			defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it would empty the pool
			allocs := testing.AllocsPerRun(1000, func() {
				copy(stack, []uint64{0, 4, 8, 4})
				if err := f.CallWithStack(ctx, stack); err != nil || stack[0] != 0 {
					t.Fatal(err, stack[0])
				}
			})
			// The engine's own part of a call from Go is one or none.
			require.LessOrEqual(t, allocs, 1.0)
		})
	}
	// From inside of the guest, where the engine has no part: a thousand calls.
	mod, _ := instance(t, one("f"), 1)
	ctx := abi.WithState(t.Context(), &state{})
	loop := mod.ExportedFunction("loop")
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	allocs := testing.AllocsPerRun(10, func() {
		if err := loop.CallWithStack(ctx, []uint64{1000}); err != nil {
			t.Fatal(err)
		}
	})
	require.Less(t, allocs, 10.0)
}

func BenchmarkCall(b *testing.B) {
	mod, _ := instance(b, one("f"), 1)
	ctx := abi.WithState(b.Context(), &state{})
	loop := mod.ExportedFunction("loop")
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := loop.Call(ctx, uint64(b.N)); err != nil {
		b.Fatal(err)
	}
}

// Whatever pointers and lengths a guest gives, the function sees bytes of the
// guest's memory within the limits, or is not called.
func FuzzParameters(f *testing.F) {
	f.Add(uint32(0), uint32(0), uint32(0), uint32(0), uint32(0), uint32(0), []byte("some bytes"))
	f.Add(uint32(page-4), uint32(4), uint32(page), uint32(0), uint32(8), uint32(2), []byte("\x00\x00\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff\x01\x00\x00\x00"))
	f.Add(uint32(math.MaxUint32), uint32(1), uint32(1), uint32(math.MaxUint32), uint32(page-8), uint32(1<<29), []byte(nil))
	mod, call := instance(f, one("f", abi.In(100), abi.Out(200), abi.Vectors(16), abi.Cell(8), abi.Pointer), 1)
	f.Fuzz(func(t *testing.T, a, b, c, d, e, g uint32, memory []byte) {
		mod.Memory().Write(0, memory[:min(len(memory), page)])
		s := &state{run: func(call *abi.Call) abi.Errno {
			require.LessOrEqual(t, len(call.Bytes(0)), 100)
			require.LessOrEqual(t, len(call.Bytes(1)), 200)
			require.Len(t, call.Bytes(3), 8)
			total := 0
			for _, v := range call.Vectors() {
				total += len(v)
			}
			require.LessOrEqual(t, total, abi.MaxVectorBytes)
			clear(call.Bytes(1))
			call.PutU64(3, 1)
			if view, ok := call.View(4, b); ok {
				require.LessOrEqual(t, uint64(a)+uint64(len(view)), uint64(page))
			}
			return 0
		}}
		errno, err := call(abi.WithState(t.Context(), s), "f",
			uint64(a), uint64(b), uint64(c), uint64(d), uint64(e), uint64(g), uint64(d), uint64(a))
		require.NoError(t, err)
		require.Equal(t, s.called == 1, errno == 0)
	})
}
