package module

import "strings"

// features of WebAssembly beyond version 1.0.
type features uint16

const (
	signExtension features = 1 << iota
	saturating
	bulkMemory
	referenceTypes
	vectors
	multiValue
	tailCalls
)

var featureNames = []string{
	"sign extension", "saturating conversions", "bulk memory", "reference types", "SIMD", "multiple values", "tail calls",
}

func (f features) names() []string {
	names := []string{}
	for i, name := range featureNames {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return names
}

// opFeatures are what instructions of one byte are features of.
var opFeatures = func() (table [256]features) {
	for op := 0xc0; op <= 0xc4; op++ {
		table[op] = signExtension
	}
	for _, op := range []byte{opTableGet, opTableSet, opRefNull, opRefIsNull, opRefFunc, opSelectTyped} {
		table[op] = referenceTypes
	}
	table[opReturnCall], table[opReturnCallIn], table[opVector] = tailCalls, tailCalls, vectors
	return table
}()

// misc notes a feature of the instructions that begin with 0xfc.
func (f *features) misc(op int) {
	switch {
	case op < miscMemoryInit:
		*f |= saturating
	case op >= miscTableGrow:
		*f |= referenceTypes
	default:
		*f |= bulkMemory
	}
}

// A Survey is what can be said about a module without running it.
type Survey struct {
	*Facts
	// Features are those beyond WebAssembly 1.0 that it makes use of.
	Features []string
	// Producers are the tools that made it, as they say themselves, such as
	// "clang 14.0.6".
	Producers []string
}

// Look reads all of a module, its code too. Errors are of type *Error.
func Look(file []byte, limits Limits) (*Survey, error) {
	p, err := parse(file, Options{Limits: limits}, true)
	if err != nil {
		return nil, err
	}
	s := &Survey{Facts: p.facts, Producers: producers(p.producers)}
	for _, t := range p.types {
		if len(t.Results) > 1 {
			p.features |= multiValue
		}
	}
	if p.facts.Tables > 1 {
		p.features |= referenceTypes
	}
	s.Features = p.features.names()
	return s, nil
}

// producers reads the section of that name, which nothing depends on: what is
// wrong with it ends it.
func producers(content []byte) (list []string) {
	list = []string{}
	defer forgive()
	const most = 20
	r := &reader{buf: content}
	for range r.count("fields", 2, most) {
		field := r.name(100)
		for range r.count("values", 2, most) {
			tool := strings.TrimSpace(r.name(200) + " " + r.name(200))
			if field != "language" && len(list) < most {
				list = append(list, tool)
			}
		}
	}
	return list
}

// Origin says what a module was made for, where that is no WASI host and its
// imports tell: "Emscripten". It is "" where they do not.
func (f *Facts) Origin() string {
	emscripten := false
	for _, i := range f.Imports {
		switch name := i.Name; {
		case strings.HasPrefix(i.Module, "__wbindgen") || strings.HasPrefix(name, "__wbindgen") || strings.HasPrefix(name, "__wbg_"):
			return "wasm-bindgen"
		case i.Module == "gojs" || i.Module == "go" && strings.HasPrefix(name, "debug"):
			return "GOOS=js"
		case i.Module == "wasi_unstable":
			return "WASI preview 0"
		case strings.HasPrefix(i.Module, "wasi:"):
			return "WASI 0.2"
		case i.Module == "a" && len(name) <= 3: // names of an optimised build
			emscripten = true
		case i.Module == "env":
			for _, start := range []string{"emscripten_", "_emscripten_", "__syscall_", "invoke_", "_abort_js", "_embind_", "__cxa_throw", "__assert_fail", "_tzset_js", "_mmap_js", "abortOnCannotGrowMemory"} {
				emscripten = emscripten || strings.HasPrefix(name, start)
			}
		}
	}
	if emscripten {
		return "Emscripten"
	}
	for _, i := range f.Imports {
		if i.Module == "env" && i.Name == "abort" && len(i.Signature.Params) == 4 {
			return "AssemblyScript"
		}
	}
	return ""
}

// A Component is a file of the component model, which holds core modules.
type Component struct {
	Size    int
	Modules int // core modules in it, and in components inside of it
	// Imports and Exports are names of interfaces, such as wasi:cli/run@0.2.0, as
	// far as they can be read.
	Imports, Exports []string
}

// LookComponent reads the outermost structure of a component; false if the file
// is none. It believes nothing else of what is in it.
func LookComponent(file []byte) (Component, bool) {
	if len(file) < 8 || string(file[:4]) != "\x00asm" || file[6] != 1 || file[7] != 0 {
		return Component{}, false
	}
	c := Component{Size: len(file), Imports: []string{}, Exports: []string{}}
	c.sections(&reader{buf: file, at: 8}, 0)
	return c, true
}

// Sections of a component.
const (
	componentModule    = 1
	componentComponent = 4
	componentImport    = 10
	componentExport    = 11
)

// sections reads as far as it understands.
func (c *Component) sections(r *reader, depth int) {
	defer forgive()
	for r.left() > 0 {
		id, size := r.byte(), r.u32()
		s := r.sub(size)
		switch id {
		case componentModule:
			c.Modules++
		case componentComponent:
			if depth < 8 && s.left() >= 8 {
				inside := Component{}
				inside.sections(&reader{buf: s.buf, at: 8}, depth+1)
				c.Modules += inside.Modules
			}
		case componentImport:
			c.names(s, &c.Imports, (*reader).external)
		case componentExport:
			c.names(s, &c.Exports, (*reader).exported)
		}
	}
}

// maxInterfaces is how many names are shown.
const maxInterfaces = 200

func (c *Component) names(s *reader, into *[]string, skip func(*reader)) {
	defer forgive()
	for range s.u32() {
		s.byte() // how the name is written, which does not matter here
		name := s.name(1000)
		if len(*into) >= maxInterfaces {
			return
		}
		*into = append(*into, name)
		skip(s)
	}
}

// forgive ends the reading of what is not understood.
func forgive() {
	if fault := recover(); fault != nil {
		if _, ok := fault.(*Error); !ok {
			panic(fault)
		}
	}
}

// external skips the type of an import.
func (r *reader) external() {
	switch kind := r.byte(); kind {
	case 0: // a core module
		r.byte()
		r.u32()
	case 1, 4, 5: // function, component, instance
		r.u32()
	case 2: // value
		if r.byte() == 0 {
			r.u32()
		} else {
			r.valueKind()
		}
	case 3: // type
		if r.byte() == 0 {
			r.u32()
		}
	default:
		fail(r.position(), "unknown kind of import %d", kind)
	}
}

// valueKind skips a type of a value: a primitive, or an index.
func (r *reader) valueKind() { r.signed(33) }

// exported skips what is exported, and as what.
func (r *reader) exported() {
	if r.byte() == 0 {
		r.byte()
	}
	r.u32()
	if r.byte() == 1 {
		r.external()
	}
}
