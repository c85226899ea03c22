package engine

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// Wazero is the engine of github.com/tetratelabs/wazero, as a compiler where it
// has one for the machine.
type Wazero struct{}

// features are what guests may use of WebAssembly.
const features = api.CoreFeaturesV2 | experimental.CoreFeaturesTailCall | experimental.CoreFeaturesExtendedConst

// Compile makes a runtime of wazero that belongs to this module alone: guests
// of different modules share no namespace, and closing one leaves the others.
func (Wazero) Compile(ctx context.Context, binary []byte, libraries []abi.Library, cacheDir string, offsets bool) (_ Code, err error) {
	cache := wazero.NewCompilationCache()
	if cacheDir != "" {
		if cache, err = wazero.NewCompilationCacheWithDir(cacheDir); err != nil {
			return nil, fmt.Errorf("open the compilation cache: %w", err)
		}
	}
	runtime := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().
		WithCoreFeatures(features).
		WithCompilationCache(cache).
		// The engine's reader of debug information never ends on some input. It
		// gets none but ours.
		WithDebugInfoEnabled(offsets).
		WithCustomSections(false))
	defer func() {
		if err != nil {
			err = errors.Join(err, runtime.Close(ctx), cache.Close(ctx))
		}
	}()
	if err := Offer(ctx, runtime, libraries...); err != nil {
		return nil, err
	}
	if offsets {
		binary = append(slices.Clip(binary), traceable...)
	}
	module, err := runtime.CompileModule(ctx, binary)
	if err != nil {
		return nil, err
	}
	return &wazeroCode{
		runtime: runtime, cache: cache, module: module,
		// Anonymous, so that instances can coexist and none can import another.
		config: wazero.NewModuleConfig().WithName("").WithStartFunctions(),
	}, nil
}

// Offer gives libraries to the guests of a runtime of wazero.
func Offer(ctx context.Context, runtime wazero.Runtime, libraries ...abi.Library) error {
	for _, library := range libraries {
		builder := runtime.NewHostModuleBuilder(library.Name)
		for _, f := range library.Functions {
			builder = builder.NewFunctionBuilder().
				WithGoModuleFunction(adapt(f), types(f.Params), types(f.Results)).
				Export(f.Name)
		}
		if _, err := builder.Instantiate(ctx); err != nil {
			return fmt.Errorf("offer host functions %s: %w", library.Name, err)
		}
	}
	return nil
}

func adapt(f abi.Native) api.GoModuleFunc {
	if !f.Memory {
		return func(ctx context.Context, _ api.Module, stack []uint64) { f.Call(ctx, nil, stack) }
	}
	return func(ctx context.Context, mod api.Module, stack []uint64) { f.Call(ctx, memoryOf(mod), stack) }
}

// memoryOf returns nil for a module without memory, where wazero has a nil
// pointer in the interface.
func memoryOf(mod api.Module) abi.Memory {
	if memory := mod.Memory(); memory != nil && !reflect.ValueOf(memory).IsNil() {
		return memory
	}
	return nil
}

func types(in []abi.ValueType) []api.ValueType {
	var out []api.ValueType
	for _, t := range in {
		out = append(out, api.ValueType(t))
	}
	return out
}

type wazeroCode struct {
	runtime wazero.Runtime
	cache   wazero.CompilationCache
	module  wazero.CompiledModule
	config  wazero.ModuleConfig
}

func (c *wazeroCode) Close(ctx context.Context) error {
	return errors.Join(c.runtime.Close(ctx), c.cache.Close(ctx))
}

func (c *wazeroCode) Instantiate(ctx context.Context, memory Memory) (Instance, error) {
	linear := &wazeroMemory{memory: memory}
	if memory != nil {
		ctx = experimental.WithMemoryAllocator(ctx, linear)
	}
	mod, err := c.runtime.InstantiateModule(ctx, c.module, c.config)
	if err != nil {
		return nil, trap(err)
	}
	return &wazeroInstance{mod: mod, memory: linear}, nil
}

// A wazeroMemory is a Memory in the form that wazero wants, and what allocates
// it at the same time: there is one for an instance.
type wazeroMemory struct {
	memory  Memory
	resized bool
}

func (m *wazeroMemory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate is asked for a size and may answer with another: wazero takes what
// it gets. At first it asks for what the module says, where there may be more.
func (m *wazeroMemory) Reallocate(size uint64) []byte {
	have := m.memory.Bytes()
	if m.resized || size <= uint64(len(have)) {
		return have
	}
	if !m.memory.Grow(int(size)) { //nolint:gosec // at most 4 GiB
		return nil
	}
	return m.memory.Bytes()
}

// Free does nothing: the memory is its owner's.
func (m *wazeroMemory) Free() {}

type wazeroInstance struct {
	mod    api.Module
	memory *wazeroMemory
}

func (i *wazeroInstance) Close(ctx context.Context) error { return i.mod.Close(ctx) }

// Resized makes wazero ask for more memory, which it then gets no answer to but
// what there is now. It does not ask at the maximum.
func (i *wazeroInstance) Resized() bool {
	i.memory.resized = true
	_, ok := i.mod.Memory().Grow(1)
	i.memory.resized = false
	return ok
}

func (i *wazeroInstance) Function(export string) Function {
	f := i.mod.ExportedFunction(export)
	if f == nil {
		return nil
	}
	return wazeroFunction{f}
}

func (i *wazeroInstance) Global(export string) Global {
	g, ok := i.mod.ExportedGlobal(export).(api.MutableGlobal)
	if !ok {
		return nil
	}
	return g
}

type wazeroFunction struct{ api.Function }

func (f wazeroFunction) Call(ctx context.Context, stack []uint64) error {
	if err := f.CallWithStack(ctx, stack); err != nil {
		return trap(err)
	}
	return nil
}

// trap takes the text of wazero's error apart, unless a native function of ours
// is the cause: its first line is the reason, the rest a stack of the guest's
// functions. Both hold names that the guest chose.
func trap(err error) error {
	var stop *abi.Stop
	if errors.As(err, &stop) {
		return err
	}
	reason, rest, _ := strings.Cut(err.Error(), "\n")
	reason, _, _ = strings.Cut(reason, " (recovered by wazero)")
	t := &Trap{Reason: strings.TrimPrefix(reason, "wasm error: ")}
	_, rest, _ = strings.Cut(rest, "wasm stack trace:\n")
	for line := range strings.Lines(rest) {
		if place, ok := strings.CutPrefix(line, "\t\t"); ok { // of the function before
			offset, _, _ := strings.Cut(place, ":")
			if n, err := strconv.ParseUint(offset, 0, 32); err == nil && len(t.Stack) > 0 {
				t.Stack[len(t.Stack)-1].Offset = uint32(n)
			}
			continue
		}
		// Modules have no names with us, which wazero puts before a dot.
		t.Stack = append(t.Stack, Frame{Function: strings.TrimPrefix(strings.TrimSpace(line), ".")})
	}
	return t
}

// traceable is debug information that makes wazero write down, for each function
// on the stack, at which offset of the code it is. It says that all of the code is
// the first line of a file ".".
var traceable = func() []byte {
	const first, size = 1, 1<<31 - 3 // wazero takes addresses of 0, -1 and -2 for none
	le := binary.LittleEndian
	abbreviations := []byte{1, 0x11, 0, 0x10, 0x17, 0x11, 0x01, 0x12, 0x06, 0, 0, 0} // unit: table of lines, address, size
	unit := []byte{4, 0, 0, 0, 0, 0, 4, 1, 0, 0, 0, 0}                               // version 4, addresses of 4 bytes
	unit = le.AppendUint32(le.AppendUint32(unit, first), size)
	tables := []byte{1, 1, 1, 0xfb, 14, 13, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0, '.', 0, 0, 0, 0, 0}
	program := append(le.AppendUint32([]byte{0, 5, 2}, first), 1)                    // set address, copy
	program = append(le.AppendUint32(append(program, 0, 5, 2), first+size), 0, 1, 1) // set address, end
	lines := append(le.AppendUint32([]byte{4, 0}, uint32(len(tables))), tables...)   //nolint:gosec // 25
	lines = append(lines, program...)
	sized := func(b []byte) []byte {
		return append(le.AppendUint32(nil, uint32(len(b))), b...) //nolint:gosec // a few dozen
	}
	var sections []byte
	for _, s := range []struct {
		name    string
		content []byte
	}{{".debug_abbrev", abbreviations}, {".debug_info", sized(unit)}, {".debug_line", sized(lines)}} {
		content := append(append([]byte{byte(len(s.name))}, s.name...), s.content...)
		sections = append(append(sections, 0, byte(len(content))), content...)
	}
	return sections
}()
