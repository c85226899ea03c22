package module_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/runtime/engine"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/snapshot"
)

// prepared is a module whose instances can be put back.
type prepared struct {
	*module.Prepared
	code  engine.Code
	image *snapshot.Image
}

func prepare(ctx context.Context, t testing.TB, binary []byte, options module.Options, entries ...string) *prepared {
	t.Helper()
	p, err := module.Prepare(binary, options, entries...)
	require.NoError(t, err)
	i64 := abi.TypeI64
	fuel := abi.Library{Name: module.MeterModule, Functions: []abi.Native{{
		Name: module.MeterRefill, Params: []abi.ValueType{i64, i64}, Results: []abi.ValueType{i64},
		Call: func(_ context.Context, _ abi.Memory, stack []uint64) { stack[0] = 1000 },
	}}}
	code, err := engine.Wazero{}.Compile(ctx, p.Binary, []abi.Library{fuel}, "", false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, code.Close(context.Background())) })
	var pieces []snapshot.Piece
	for _, s := range p.Data {
		pieces = append(pieces, snapshot.Piece{Offset: s.Offset, Bytes: s.Bytes})
	}
	image, err := snapshot.NewImage(p.Facts.MemoryMin*module.PageSize, pieces...)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, image.Close()) })
	return &prepared{p, code, image}
}

// An instance with what is needed to put it back.
type instance struct {
	engine.Instance
	memory  *snapshot.Memory
	globals []engine.Global
	initial []uint64
	taint   engine.Global
	marks   engine.Global
	granule int
}

func (p *prepared) instance(ctx context.Context, t testing.TB) *instance {
	t.Helper()
	most := p.Facts.MemoryMax
	if most < 0 {
		most = p.Facts.MemoryMin + 100
	}
	memory, err := p.image.NewMemory(most*module.PageSize, p.image.Methods()[0])
	require.NoError(t, err)
	guest, err := p.code.Instantiate(ctx, memory)
	require.NoError(t, err)
	i := &instance{Instance: guest, memory: memory, taint: guest.Global(module.ExportTaint), marks: guest.Global(module.ExportMarks), granule: p.Granule}
	require.Equal(t, p.Granule > 0, i.marks != nil)
	require.Equal(t, p.Taints, i.taint != nil)
	names := []string{module.MeterFuel, module.MeterStack}
	for _, g := range p.Globals {
		names = append(names, g.Export)
	}
	for _, name := range names {
		g := guest.Global(name)
		require.NotNil(t, g, name)
		i.globals, i.initial = append(i.globals, g), append(i.initial, g.Get())
	}
	return i
}

// putBack is false for an instance that cannot be put back.
func (i *instance) putBack(t *testing.T) bool {
	t.Helper()
	if i.taint != nil && i.taint.Get() != 0 {
		return false
	}
	size := i.memory.Size()
	if i.marks == nil {
		require.NoError(t, i.memory.Restore())
	} else {
		require.NoError(t, i.memory.RestoreMarked(i.marks.Get(), i.granule, module.MarkSlack))
		i.marks.Set(0)
	}
	require.Empty(t, i.memory.Changed())
	if i.memory.Size() != size {
		require.True(t, i.Resized())
	}
	for n, g := range i.globals {
		g.Set(i.initial[n])
	}
	return true
}

func (i *instance) close(t testing.TB) {
	t.Helper()
	require.NoError(t, i.Close(context.Background()))
	require.NoError(t, i.memory.Close())
}

// Random programs do the same in an instance that is put back again and again,
// after a clean end, as in one of the original that is made anew.
func TestRestoredPrograms(t *testing.T) {
	ctx := t.Context()
	programs := uint64(80)
	if testing.Short() {
		programs = 20
	}
	restored, tainted, marked := 0, 0, 0
	for seed := range programs {
		p := newProgram(seed, 2)
		if seed >= programs/2 {
			p = newSmallProgram(seed, 2)
		}
		binary := p.module()
		plain := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features))
		want, wantMemory := run(t, plain, binary)
		require.NoError(t, plain.Close(ctx))
		grade := module.Deadline
		if seed%2 == 1 {
			grade = module.Exact
		}
		m := prepare(ctx, t, binary, module.Options{Limits: module.Limits{Size: 8 << 20}, Grade: grade})
		i := m.instance(ctx, t)
		for range 4 {
			stack := []uint64{3, 4}
			err := i.Function("main").Call(ctx, stack)
			outcome := fmt.Sprintf("%s []", reason(err))
			if err == nil {
				outcome = fmt.Sprintf("ok [%d]", stack[0])
			}
			for _, name := range []string{"a", "b", "c"} {
				outcome += fmt.Sprintf(" %d", i.Global(name).Get())
			}
			require.Equal(t, want, outcome, "seed %d", seed)
			require.True(t, bytes.Equal(wantMemory, i.memory.Bytes()), "memory, seed %d", seed)
			known := i.marks != nil && i.marks.Get() != module.MarksUnknown && i.memory.Size() == p.pages*module.PageSize
			if err == nil && i.putBack(t) {
				restored++
				if known {
					marked++
				}
				continue
			}
			tainted++
			i.close(t)
			i = m.instance(ctx, t)
		}
		i.close(t)
	}
	t.Logf("%d restored, %d of them by marks, %d made anew", restored, marked, tainted)
	require.Greater(t, marked, 10)
	require.Greater(t, restored, 20)
	require.Greater(t, tainted, 20)
}

func TestPrepared(t *testing.T) {
	binary, err := os.ReadFile("../testdata/mess.wasm")
	require.NoError(t, err)
	p, err := module.Prepare(binary, module.Options{}, "_initialize", "beacon_initialize", "beacon_execute", "beacon_shutdown", "memory", "l")
	require.NoError(t, err)
	require.Equal(t, map[string]int32{module.EntryStart: 0, "_initialize": 1, "beacon_initialize": 2, "beacon_execute": 3}, p.Entries)
	require.True(t, p.Taints)
	require.Empty(t, p.Lasting)
	var types []module.ValueType
	for _, g := range p.Globals {
		types = append(types, g.Type)
	}
	require.Equal(t, []module.ValueType{module.I32, module.I64, module.F32, module.F64, module.I32, module.I32}, types)
	require.Len(t, p.Data, 4, "without the passive one")
	require.Equal(t, 70000, p.Data[3].Offset)
	require.Equal(t, "some data on the second page", string(p.Data[3].Bytes))

	for name, tt := range map[string]struct {
		binary string
		want   string
	}{
		"imports a memory": {header + section(2, "\x01\x01e\x01m\x02\x00\x01"), "it imports a memory"},
		"mutable vector":   {header + section(6, "\x01\x7b\x01\xfd\x0c"+string(make([]byte, 16))+"\x0b"), "its global 0 is a mutable v128"},
		"reference":        {header + section(6, "\x02\x7f\x00\x41\x00\x0b\x70\x01\xd0\x70\x0b"), "its global 1 is a mutable funcref"},
		"computed place":   {header + section(5, "\x01\x00\x01") + section(11, "\x01\x00\x41\x01\x41\x02\x6a\x0b\x01x"), "where data segment 0 goes to is not known"},
		"fine":             {header + section(5, "\x01\x00\x01") + section(11, "\x01\x00\x41\xff\xff\x03\x0b\x01x"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := module.Prepare([]byte(tt.binary), module.Options{})
			require.NoError(t, err)
			if tt.want == "" {
				require.Empty(t, p.Lasting)
				require.Equal(t, []module.Segment{{Offset: 65535, Bytes: []byte("x")}}, p.Data)
				return
			}
			require.Contains(t, p.Lasting, tt.want)
			require.Empty(t, p.Data)
		})
	}
	for name, tt := range map[string]struct{ binary, want string }{
		"data beyond the memory": {header + section(5, "\x01\x00\x01") + section(11, "\x01\x00\x41\x80\x80\x04\x0b\x01x"), "data segment 0, 1 bytes at 65536, does not fit into a memory of 65536 bytes"},
		"data far beyond":        {header + section(5, "\x01\x00\x01") + section(11, "\x01\x00\x41\x7f\x0b\x01x"), "1 bytes at 4294967295"},
		"export of ours":         {header + section(5, "\x01\x00\x01") + section(7, "\x01\x11beacon_meter.call\x02\x00"), "which is the host's"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := module.Prepare([]byte(tt.binary), module.Options{})
			var refused *module.Error
			require.ErrorAs(t, err, &refused)
			require.ErrorContains(t, err, tt.want)
		})
	}
}
