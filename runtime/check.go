package runtime

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/hostfuncs/wasi"
	"github.com/ultravisor/beacon/runtime/module"
)

// An entry says how a module is run.
type entry struct {
	// command modules run from _start to their end; the others are reactors.
	command bool
	// which optional functions a reactor exports
	start, initialize, describe, shutdown, reseed bool
	// asksCancelled modules look whether they should end, and get a moment for it.
	asksCancelled bool
}

var (
	procedure = module.Signature{}
	reporting = module.Signature{Results: []module.ValueType{module.I32}}
)

// check finds out whether and how a module can be run, before anything is
// compiled.
func check(f *module.Facts, memory int64) (entry, error) {
	if err := checkImports(f); err != nil {
		return entry{}, err
	}
	if f.HasMemory && int64(f.MemoryMin)*module.PageSize > memory {
		return entry{}, fmt.Errorf("it needs at least %s of memory, the limit is %s; raise it with --memory or the provider's Memory",
			megabytes(int64(f.MemoryMin)*module.PageSize), megabytes(memory))
	}
	e := entry{asksCancelled: slices.ContainsFunc(f.Imports, func(i module.Import) bool {
		return i.Module == hostfuncs.Name && i.Name == "cancelled"
	})}
	for _, x := range []struct {
		name string
		want module.Signature
		have *bool
	}{
		{"_initialize", procedure, &e.start},
		{"beacon_initialize", reporting, &e.initialize},
		{"beacon_describe", reporting, &e.describe},
		{"beacon_shutdown", reporting, &e.shutdown},
		{"beacon_reseed", reporting, &e.reseed},
	} {
		export, ok := f.Export(x.name)
		if ok && !f.HasFunction(x.name, x.want) {
			return entry{}, wrongType(export, x.want)
		}
		*x.have = ok
	}
	if export, ok := f.Export("beacon_execute"); ok {
		if !f.HasFunction("beacon_execute", reporting) {
			return entry{}, wrongType(export, reporting)
		}
		return e, nil
	}
	export, ok := f.Export("_start")
	if !ok {
		return entry{}, fmt.Errorf("it exports neither beacon_execute nor _start: build it as a WASI command, or as a reactor with an SDK (it exports %s)", exported(f))
	}
	if !f.HasFunction("_start", procedure) {
		return entry{}, wrongType(export, procedure)
	}
	e.command = true
	return e, nil
}

func wrongType(e module.Export, want module.Signature) error {
	if e.Kind != module.Function {
		return fmt.Errorf("its export %s is a %s, want a function %s", e.Name, e.Kind, want)
	}
	return fmt.Errorf("its export %s is a function %s, want %s", e.Name, e.Signature, want)
}

func exported(f *module.Facts) string {
	var names []string
	for _, e := range f.Exports {
		if len(names) == 10 {
			names = append(names, fmt.Sprintf("and %d more", len(f.Exports)-10))
			break
		}
		names = append(names, beacon.Excerpt(e.Name, 60))
	}
	if len(names) == 0 {
		return "nothing"
	}
	return strings.Join(names, ", ")
}

// offered lists all functions that a guest may import.
func offered() map[string]map[string]abi.Signature {
	return map[string]map[string]abi.Signature{
		hostfuncs.Name:        hostfuncs.Interface().Signatures(),
		wasi.Interface().Name: wasi.Interface().Signatures(),
	}
}

func checkImports(f *module.Facts) error {
	all := offered()
	for _, i := range f.Imports {
		name := beacon.Excerpt(i.Module, 60) + "." + beacon.Excerpt(i.Name, 60)
		if i.Kind != module.Function {
			return fmt.Errorf("it imports the %s %s: only functions can be imported", i.Kind, name)
		}
		functions, ok := all[i.Module]
		if !ok {
			return fmt.Errorf("it imports %s, and Beacon offers no module %q (it offers %s)%s",
				name, beacon.Excerpt(i.Module, 60), strings.Join(slices.Sorted(maps.Keys(all)), " and "), hint(i))
		}
		have, ok := functions[i.Name]
		if !ok {
			return fmt.Errorf("it imports %s, which this version of Beacon does not offer", name)
		}
		if want := signature(have); !i.Signature.Equal(want) {
			return fmt.Errorf("it imports %s as %s, but it is %s", name, i.Signature, want)
		}
		if have.Memory && !f.HasMemory {
			return fmt.Errorf("it imports %s but has no memory", name)
		}
	}
	return nil
}

// hint helps with what people meet most.
func hint(i module.Import) string {
	switch {
	case i.Module == "wasi_unstable":
		return "; that is WASI's preview 0: build with a current toolchain"
	case strings.HasPrefix(i.Module, "wasi:"):
		return "; that is WASI 0.2 or later: build for WASI preview 1"
	case i.Module == "env" || i.Module == "a":
		return "; such imports come from Emscripten, or from C code with undefined functions: build for wasm32-wasi"
	case i.Module == "gojs" || i.Module == "go":
		return "; that is GOOS=js: build with GOOS=wasip1"
	case strings.HasPrefix(i.Module, "__wbindgen"):
		return "; that is wasm-bindgen, for browsers: build for wasm32-wasip1"
	}
	return ""
}

func signature(s abi.Signature) module.Signature {
	return module.Signature{Params: valueTypes(s.Params), Results: valueTypes(s.Results)}
}

func valueTypes(types []abi.ValueType) []module.ValueType {
	out := make([]module.ValueType, len(types))
	for i, t := range types {
		out[i] = module.ValueType(t)
	}
	return out
}

func megabytes(n int64) string {
	return fmt.Sprintf("%.4g MiB", float64(n)/(1<<20))
}
