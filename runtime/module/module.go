// Package module reads WebAssembly binaries that nobody vouches for: bytes in,
// facts out. It looks at every section and every count before an engine sees
// the module, because engines trust counts: a file of 31 bytes that announces
// four billion functions makes wazero allocate for all of them and takes the
// process down. It knows no engine.
package module

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// PageSize is the unit in which linear memory is counted.
const PageSize = 65536

// ManifestSection is the custom section that carries a provider's manifest.
const ManifestSection = "beacon.manifest"

// Limits bound a module. Zero fields mean the defaults, which hold CPython and
// pdfium with room to spare; they exist so that compiling and instantiating
// cost no more than a known amount of memory.
type Limits struct {
	Size          int // bytes of the file; default 64 MiB
	Types         int // default 20,000
	TypeArity     int // parameters, and results, of one type; default 128
	Imports       int // default 1,000
	Functions     int // default 150,000
	Tables        int // default 16
	TableElements int // least size of all tables together; default 200,000
	Globals       int // default 20,000
	Exports       int // default 50,000
	Segments      int // data segments, and element segments; default 200,000
	Locals        int // of one function; default 5,000
	Body          int // bytes of one function; default 512 KiB
	Nesting       int // blocks inside of each other; default 2,500: Go makes one a case of a switch
	LoopNesting   int // loops inside of each other; default 250
	Branches      int // blocks and branches of one function; default 6,000
	Work          int // sum of the squares of that, over all functions; default 600 million, a minute of compiling
	BranchTargets int // of br_table in one function, and 256 times as many in all; default 8,192
	LocalBlocks   int // local variables times branches of one function; default 500,000
	Name          int // bytes of a name; default 4,096
	MemoryPages   int // least size of the memory; default 65,536
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Size, 64 << 20}, {&l.Types, 20_000}, {&l.TypeArity, 128}, {&l.Imports, 1_000}, {&l.Functions, 150_000},
		{&l.Tables, 16}, {&l.TableElements, 200_000}, {&l.Globals, 20_000}, {&l.Exports, 50_000}, {&l.Segments, 200_000},
		{&l.Locals, 5_000}, {&l.Body, 512 << 10}, {&l.Nesting, 2_500}, {&l.LoopNesting, 250}, {&l.Branches, 6_000}, {&l.Work, 600_000_000}, {&l.BranchTargets, 8_192}, {&l.LocalBlocks, 500_000}, {&l.Name, 4_096}, {&l.MemoryPages, 65_536},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return l
}

// A Kind says what is imported or exported.
type Kind byte

// The kinds, by their numbers in the binary.
const (
	Function Kind = iota
	Table
	Memory
	Global
)

func (k Kind) String() string {
	switch k {
	case Function:
		return "function"
	case Table:
		return "table"
	case Memory:
		return "memory"
	case Global:
		return "global"
	}
	return fmt.Sprintf("kind %d", byte(k))
}

// A ValueType is the type of a value, by its number in the binary.
type ValueType byte

// The value types of WebAssembly 2.0.
const (
	I32       ValueType = 0x7f
	I64       ValueType = 0x7e
	F32       ValueType = 0x7d
	F64       ValueType = 0x7c
	V128      ValueType = 0x7b
	FuncRef   ValueType = 0x70
	ExternRef ValueType = 0x6f
)

func (t ValueType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	case FuncRef:
		return "funcref"
	case ExternRef:
		return "externref"
	}
	return fmt.Sprintf("type 0x%02x", byte(t))
}

// A Signature is the type of a function.
type Signature struct {
	Params, Results []ValueType
}

// Equal compares two signatures.
func (s Signature) Equal(other Signature) bool {
	return string(bytesOf(s.Params)) == string(bytesOf(other.Params)) && string(bytesOf(s.Results)) == string(bytesOf(other.Results))
}

func bytesOf(types []ValueType) []byte {
	out := make([]byte, len(types))
	for i, t := range types {
		out[i] = byte(t)
	}
	return out
}

func (s Signature) String() string {
	return list(s.Params) + " -> " + list(s.Results)
}

func list(types []ValueType) string {
	out := "("
	for i, t := range types {
		if i > 0 {
			out += ", "
		}
		out += t.String()
	}
	return out + ")"
}

// An Import is something that the module wants from its host.
type Import struct {
	Module, Name string
	Kind         Kind
	Signature    Signature // of a function
}

// An Export is something that the module offers.
type Export struct {
	Name      string
	Kind      Kind
	Signature Signature // of a function
}

// Facts are what a binary says about itself.
type Facts struct {
	Size      int
	Functions int // defined, not imported
	Imports   []Import
	Exports   []Export
	// MemoryMin and MemoryMax count pages. MemoryMax is -1 without a maximum;
	// both are 0 in a module without memory.
	HasMemory            bool
	MemoryMin, MemoryMax int
	Tables               int
	Globals              int
	DataSegments         int
	HasStart             bool
	// Custom lists custom sections by name, in order.
	Custom []Custom
	// Manifest is the content of the section beacon.manifest, nil without one.
	Manifest []byte
}

// A Custom is a custom section.
type Custom struct {
	Name string
	Size int
}

// Export finds an export by name.
func (f *Facts) Export(name string) (Export, bool) {
	for _, e := range f.Exports {
		if e.Name == name {
			return e, true
		}
	}
	return Export{}, false
}

// HasFunction reports whether the module exports a function of that name and
// signature.
func (f *Facts) HasFunction(name string, s Signature) bool {
	e, ok := f.Export(name)
	return ok && e.Kind == Function && e.Signature.Equal(s)
}

// An Error is a module that is refused: it is no core module, it is broken, or
// it is over a limit.
type Error struct {
	Offset  int // in the file, where there is a place to name
	Message string
}

func (e *Error) Error() string {
	if e.Offset > 0 {
		return fmt.Sprintf("%s (at byte %d)", e.Message, e.Offset)
	}
	return e.Message
}

// Parse reads a module's sections. It checks their structure, not the code in
// function bodies. Errors are of type *Error.
func Parse(file []byte, limits Limits) (*Facts, error) {
	p, err := parse(file, Options{Limits: limits}, false)
	if err != nil {
		return nil, err
	}
	return p.facts, nil
}

// parse reads the sections, and the code as well if it is to be rewritten.
func parse(file []byte, options Options, code bool) (p *parser, err error) {
	return parsePrepared(file, options, code, nil)
}

func parsePrepared(file []byte, options Options, code bool, prepare *preparation) (p *parser, err error) {
	limits := options.Limits.withDefaults()
	if err := recognise(file); err != nil {
		return nil, err
	}
	if len(file) > limits.Size {
		return nil, &Error{Message: fmt.Sprintf("%d bytes, limit %d", len(file), limits.Size)}
	}
	defer func() {
		if fault := recover(); fault != nil {
			refusal, ok := fault.(*Error)
			if !ok {
				panic(fault)
			}
			p, err = nil, refusal
		}
	}()
	p = &parser{
		options:  options,
		limits:   limits,
		facts:    &Facts{Size: len(file)},
		sections: map[int][]byte{},
		referred: map[int]bool{},
		start:    -1,
		rewrite:  code,
		prepare:  prepare,
	}
	p.module(&reader{buf: file, at: 8})
	if code {
		p.second()
	}
	return p, nil
}

// recognise tells a core module from the other things that people hand in.
func recognise(b []byte) error {
	const magic = "\x00asm"
	start := strings.TrimSpace(string(b[:min(len(b), 100)]))
	switch {
	case len(b) == 0:
		return &Error{Message: "the file is empty"}
	case len(b) >= 8 && string(b[:8]) == magic+"\x01\x00\x00\x00":
		return nil
	case len(b) >= 8 && string(b[:4]) == magic && b[6] == 1 && b[7] == 0:
		return &Error{Message: "this is a WebAssembly component; Beacon runs core modules with WASI preview 1: " +
			"build for wasm32-wasip1 (or take the core module out of the component), without a component adapter"}
	case len(b) >= 8 && string(b[:4]) == magic:
		return &Error{Message: fmt.Sprintf("WebAssembly binary of version % x; Beacon knows version 01 00 00 00", b[4:8])}
	case len(b) < 8 && string(b) == (magic + "\x01\x00\x00\x00")[:len(b)]:
		return &Error{Message: fmt.Sprintf("the file is cut off: a module has at least 8 bytes, this has %d", len(b))}
	case len(b) >= 2 && b[0] == 0x1f && b[1] == 0x8b:
		return &Error{Message: "not a WebAssembly module: it is gzip-compressed; unpack it first"}
	case strings.HasPrefix(start, "(") || strings.HasPrefix(start, ";;"):
		return &Error{Message: "not a WebAssembly module: it looks like the text format; translate it with wat2wasm first"}
	}
	return &Error{Message: "not a WebAssembly module: it does not begin with \\0asm"}
}

type parser struct {
	options   Options
	limits    Limits
	facts     *Facts
	types     []Signature
	functions []int // type of each function, imported ones first
	imported  int   // of them
	tables    []ValueType
	slots     int // of all tables, at least
	memories  int
	globals   []globalType
	bodies    int
	declared  int          // data segments according to the data count section, -1 unknown
	elements  []ValueType  // of the element segments
	referred  map[int]bool // functions that the code may refer to
	start     int          // the start function, -1 none
	exported  []int        // the index of each export

	rewrite  bool           // whether the code is read too
	prepare  *preparation   // nil if there is nothing but metering to be done
	survey   survey         // of the code, in its first reading
	plan     *plan          // for its second
	savers   savers         // that its loops need
	writer   *writer        // rewrites the code in its second reading
	room     room           // of the function that was read last
	codeAt   int            // where the section of code begins in the file
	sections map[int][]byte // the contents of all but custom sections
	names    []byte         // the content of the section of names
	features features       // that its code makes use of
	// producers is the content of the section of that name.
	producers []byte
	lines     bool          // whether there is a section that tells source lines
	targets   int           // of br_table in all functions
	loops     int           // in all functions
	work      int           // of the engine, in all functions
	cold      int           // what loops add for savers, in bytes
	power     int           // of a granule's size, if what is written to is marked; else 0
	switches  int           // loops that switch, in all functions
	tight     [][]int32     // of each of these, nil if it must be charged for at its head
	lengths   []int         // of the data segments
	data      []dataSegment // the same, if they may be taken out
}

// A dataSegment goes to a place in the memory if it is active.
type dataSegment struct {
	active, known bool // whether the place is
	offset        int
	bytes         []byte
}

type globalType struct {
	kind    ValueType
	mutable bool
}

// order is the order that sections must come in; custom sections may be
// anywhere. Data count (12) stands before code (10).
var order = [...]int{1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6, 7: 8, 8: 9, 9: 10, 10: 12, 11: 13, 12: 11}

var sectionNames = [...]string{"custom", "type", "import", "function", "table", "memory", "global", "export", "start", "element", "code", "data", "data count"}

func (p *parser) module(r *reader) {
	last := 0
	p.declared = -1
	for r.left() > 0 {
		start := r.position()
		id := int(r.byte())
		if id >= len(sectionNames) {
			fail(start, "unknown section %d", id)
		}
		size := r.u32()
		if size > r.left() {
			fail(start, "the file is cut off: section %q has %d bytes, %d are left", sectionNames[id], size, r.left())
		}
		s := r.sub(size)
		if id != 0 {
			if order[id] <= last {
				fail(start, "section %q stands twice or in the wrong place", sectionNames[id])
			}
			last = order[id]
		}
		if id != 0 {
			p.sections[id] = s.buf
		}
		p.section(id, s)
		if id != 0 && s.left() > 0 {
			fail(s.position(), "section %q has %d bytes too many", sectionNames[id], s.left())
		}
	}
	if p.bodies != len(p.functions)-p.imported {
		fail(0, "%d functions are declared but %d have a body", len(p.functions)-p.imported, p.bodies)
	}
	p.facts.Functions, p.facts.Tables, p.facts.Globals = p.bodies, len(p.tables), len(p.globals)
}

func (p *parser) section(id int, r *reader) {
	switch id {
	case 0:
		p.custom(r)
	case 1:
		p.typeSection(r)
	case 2:
		p.importSection(r)
	case 3:
		for range r.count("functions", 1, p.limits.Functions) {
			p.functions = append(p.functions, r.index("type", len(p.types)))
		}
	case 4:
		for range r.count("tables", 3, p.limits.Tables) {
			p.table(r)
		}
	case 5:
		for range r.count("memories", 2, 1) {
			p.memory(r)
		}
	case 6:
		for range r.count("globals", 4, p.limits.Globals) {
			g := p.global(r)
			p.constant(r, g.kind) // of globals before this one
			p.globals = append(p.globals, g)
		}
	case 7:
		p.exportSection(r)
	case 8:
		start := r.position()
		f := r.index("function", len(p.functions))
		if t := p.types[p.functions[f]]; len(t.Params)+len(t.Results) > 0 {
			fail(start, "the start function is %s", t)
		}
		p.start = f
		p.facts.HasStart = true
	case 9:
		p.elementSection(r)
	case 10:
		p.codeAt = r.base
		p.codeSection(r)
	case 11:
		p.dataSection(r)
	case 12:
		p.declared = r.u32()
	}
}

func (p *parser) custom(r *reader) {
	name := r.name(p.limits.Name)
	p.facts.Custom = append(p.facts.Custom, Custom{Name: name, Size: r.left()})
	if len(p.facts.Custom) > 1000 {
		fail(r.position(), "more than 1000 custom sections")
	}
	if name == ManifestSection {
		if p.facts.Manifest != nil {
			fail(r.position(), "two sections %s", ManifestSection)
		}
		p.facts.Manifest = r.bytes(r.left())
	}
	p.lines = p.lines || name == lineSection
	// The first one counts; engines refuse a second.
	if name == "producers" {
		p.producers = r.buf[r.at:]
	}
	if name == "name" && p.names == nil {
		p.names = r.buf[r.at:]
	}
}

func (p *parser) typeSection(r *reader) {
	for range r.count("types", 3, p.limits.Types) {
		if form := r.byte(); form != 0x60 {
			fail(r.position()-1, "type of form 0x%02x; only functions (0x60) are known", form)
		}
		p.types = append(p.types, Signature{Params: p.valueTypes(r), Results: p.valueTypes(r)})
	}
}

func (p *parser) valueTypes(r *reader) []ValueType {
	n := r.count("values in a type", 1, p.limits.TypeArity)
	types := make([]ValueType, n)
	for i := range types {
		types[i] = r.valueType()
	}
	return types
}

func (p *parser) importSection(r *reader) {
	for range r.count("imports", 4, p.limits.Imports) {
		i := Import{Module: r.name(p.limits.Name), Name: r.name(p.limits.Name), Kind: Kind(r.byte())}
		switch i.Kind {
		case Function:
			t := r.index("type", len(p.types))
			i.Signature = p.types[t]
			p.functions = append(p.functions, t)
			p.imported++
		case Table:
			p.table(r)
		case Memory:
			p.memory(r)
		case Global:
			p.globals = append(p.globals, p.global(r))
		default:
			fail(r.position()-1, "import of an unknown kind %d", i.Kind)
		}
		p.facts.Imports = append(p.facts.Imports, i)
	}
}

func (p *parser) table(r *reader) {
	kind := r.referenceType("table")
	least, _ := r.limits(1<<32 - 1)
	// Each takes memory in every instance that is not the guest's.
	if p.slots += least; p.slots > p.limits.TableElements {
		fail(r.position(), "tables of %d elements together, limit %d", p.slots, p.limits.TableElements)
	}
	p.tables = append(p.tables, kind)
	if len(p.tables) > p.limits.Tables {
		fail(r.position(), "more than %d tables", p.limits.Tables)
	}
}

func (p *parser) memory(r *reader) {
	p.memories++
	if p.memories > 1 {
		fail(r.position(), "more than one memory")
	}
	p.facts.HasMemory = true
	p.facts.MemoryMin, p.facts.MemoryMax = r.limits(65_536)
	if p.facts.MemoryMin > p.limits.MemoryPages {
		fail(r.position(), "memory of at least %d pages, limit %d", p.facts.MemoryMin, p.limits.MemoryPages)
	}
}

func (p *parser) global(r *reader) globalType {
	kind := r.valueType()
	mutable := r.byte()
	if mutable > 1 {
		fail(r.position()-1, "global that is neither constant nor mutable")
	}
	if len(p.globals) >= p.limits.Globals {
		fail(r.position(), "more than %d globals", p.limits.Globals)
	}
	return globalType{kind, mutable == 1}
}

func (p *parser) exportSection(r *reader) {
	seen := map[string]bool{}
	for range r.count("exports", 3, p.limits.Exports) {
		e := Export{Name: r.name(p.limits.Name), Kind: Kind(r.byte())}
		if p.rewrite && strings.HasPrefix(e.Name, MeterModule+".") {
			fail(r.position(), "export of the name %s, which is the host's", e.Name)
		}
		if seen[e.Name] {
			fail(r.position(), "two exports of one name")
		}
		seen[e.Name] = true
		index := 0
		switch e.Kind {
		case Function:
			index = r.index("function", len(p.functions))
			e.Signature = p.types[p.functions[index]]
			p.referred[index] = true
		case Table:
			index = r.index("table", len(p.tables))
		case Memory:
			index = r.index("memory", p.memories)
		case Global:
			index = r.index("global", len(p.globals))
		default:
			fail(r.position()-1, "export of an unknown kind %d", e.Kind)
		}
		p.exported = append(p.exported, index)
		p.facts.Exports = append(p.facts.Exports, e)
	}
}

func (p *parser) elementSection(r *reader) {
	for range r.count("element segments", 2, p.limits.Segments) {
		flags := r.u32()
		if flags > 7 {
			fail(r.position(), "element segment with flags %d", flags)
		}
		passive, explicit, expressions := flags&1 != 0, flags&2 != 0, flags&4 != 0
		kind, table := FuncRef, FuncRef
		if !passive {
			n := 0
			if explicit {
				n = r.u32()
			}
			if n >= len(p.tables) {
				fail(r.position(), "table %d, but there are %d", n, len(p.tables))
			}
			table = p.tables[n]
			p.constant(r, I32)
		}
		if passive || explicit {
			if expressions {
				kind = r.referenceType("element segment")
			} else if r.byte() != 0 {
				fail(r.position()-1, "element segment of an unknown kind")
			}
		}
		if !passive && kind != table {
			fail(r.position(), "table of %s initialised with %s", table, kind)
		}
		for range r.count("elements", 1, p.limits.TableElements) {
			if expressions {
				p.constant(r, kind)
			} else {
				p.referred[r.index("function", len(p.functions))] = true
			}
		}
		p.elements = append(p.elements, kind)
	}
}

func (p *parser) codeSection(r *reader) {
	p.bodies = r.count("function bodies", 2, p.limits.Functions)
	if p.bodies != len(p.functions)-p.imported {
		fail(r.position(), "%d functions are declared but %d have a body", len(p.functions)-p.imported, p.bodies)
	}
	for n := range p.bodies {
		start := r.position()
		size := r.u32()
		if size > p.limits.Body {
			fail(start, "function body of %d bytes, limit %d", size, p.limits.Body)
		}
		if size > r.left() {
			fail(start, "the file is cut off inside of a function")
		}
		body := r.sub(size)
		if p.rewrite {
			p.code(n, body)
			continue
		}
		total := 0
		for range body.count("groups of locals", 2, p.limits.Locals) {
			n := body.u32()
			body.valueType()
			if total += n; n > p.limits.Locals || total > p.limits.Locals {
				fail(start, "function with more than %d local variables", p.limits.Locals)
			}
		}
	}
}

// code reads a function, for the first time or the second.
func (p *parser) code(n int, r *reader) {
	f := p.function(r, p.types[p.functions[p.imported+n]])
	if p.plan != nil {
		p.writer.function(n, f)
		return
	}
	s := &p.survey
	s.ends = append(s.ends, int32(len(s.calls)))       //nolint:gosec // limited
	s.weights = append(s.weights, int32(f.weights[0])) //nolint:gosec // limited
	s.frames = append(s.frames, int32(f.frame()))      //nolint:gosec // limited
	s.blind = append(s.blind, f.blind)
}

// calls notes a call of a function, and says how long it takes its caller.
func (p *parser) calls(f int) int {
	if p.plan == nil {
		p.survey.calls = append(p.survey.calls, int32(f)) //nolint:gosec // limited
		return 0
	}
	if p.plan.checked[f] {
		return 0
	}
	return int(p.plan.weights[f])
}

// second reads the code again, after all of the module is found to be sound, and
// has the writer rewrite it.
func (p *parser) second() {
	p.power = p.granule()
	p.plan = p.survey.plan(func(f int) bool { return p.referred[p.imported+f] })
	p.writer = newWriter(p)
	p.loops, p.targets, p.work, p.cold, p.switches = 0, 0, 0, 0, 0
	if code, ok := p.sections[10]; ok {
		// Offsets are dear, and what is to be debugged is not that large.
		p.lines = p.lines && len(code) <= linesMost
		p.codeSection(&reader{buf: code, base: p.codeAt})
	}
}

func (p *parser) dataSection(r *reader) {
	n := r.count("data segments", 2, p.limits.Segments)
	if p.declared >= 0 && p.declared != n {
		fail(r.position(), "%d data segments are announced, %d follow", p.declared, n)
	}
	for range n {
		flags := r.u32()
		if flags > 2 {
			fail(r.position(), "data segment with flags %d", flags)
		}
		if flags == 2 {
			r.index("memory", p.memories)
		}
		segment := dataSegment{active: flags != 1}
		if segment.active {
			if p.memories == 0 {
				fail(r.position(), "memory 0, but there are 0")
			}
			from := r.at
			p.constant(r, I32)
			segment.offset, segment.known = offset(r.buf[from:r.at])
		}
		length := r.u32()
		segment.bytes = r.bytes(length)
		p.lengths = append(p.lengths, length)
		if p.prepare != nil {
			p.data = append(p.data, segment)
		}
	}
	p.facts.DataSegments = n
}

// offset is the value of a constant expression that is one number.
func offset(expression []byte) (int, bool) {
	if len(expression) < 3 || expression[0] != opI32Const {
		return 0, false
	}
	var v uint32
	for i, c := range expression[1 : len(expression)-1] {
		if i == 5 {
			return 0, false
		}
		v |= uint32(c&0x7f) << (7 * i)
		if c < 0x80 {
			if i < 4 && c&0x40 != 0 {
				v |= ^uint32(0) << (7 * (i + 1))
			}
			return int(v), i == len(expression)-3
		}
	}
	return 0, false
}

func fail(offset int, format string, args ...any) {
	panic(&Error{Offset: offset, Message: fmt.Sprintf(format, args...)})
}

// A reader walks over a part of the file. It fails by panicking with *Error.
type reader struct {
	buf  []byte
	at   int
	base int // offset of buf in the file
}

func (r *reader) left() int     { return len(r.buf) - r.at }
func (r *reader) position() int { return r.base + r.at }

func (r *reader) byte() byte {
	if r.at >= len(r.buf) {
		fail(r.position(), "the file is cut off or a section ends early")
	}
	b := r.buf[r.at]
	r.at++
	return b
}

// bytes returns a part of the file without copying.
func (r *reader) bytes(n int) []byte {
	if n < 0 || n > r.left() {
		fail(r.position(), "%d bytes are wanted, %d are left", n, r.left())
	}
	b := r.buf[r.at : r.at+n : r.at+n]
	r.at += n
	return b
}

func (r *reader) sub(n int) *reader {
	base := r.position()
	return &reader{buf: r.bytes(n), base: base}
}

// u32 reads an unsigned LEB128 number.
func (r *reader) u32() int {
	var v uint64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		if shift == 28 && b > 0x0f {
			fail(r.position()-1, "a number of more than 32 bits")
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return int(v)
		}
	}
}

// count reads the length of a vector whose elements take at least size bytes.
func (r *reader) count(what string, size, limit int) int {
	start := r.position()
	n := r.u32()
	if n > limit {
		fail(start, "%d %s, limit %d", n, what, limit)
	}
	if n > r.left()/size {
		fail(start, "%d %s cannot fit into %d bytes", n, what, r.left())
	}
	return n
}

func (r *reader) index(what string, n int) int {
	start := r.position()
	i := r.u32()
	if i >= n {
		fail(start, "%s %d, but there are %d", what, i, n)
	}
	return i
}

func (r *reader) name(limit int) string {
	start := r.position()
	n := r.u32()
	if n > limit {
		fail(start, "a name of %d bytes, limit %d", n, limit)
	}
	b := r.bytes(n)
	if !utf8.Valid(b) {
		fail(start, "a name that is not UTF-8")
	}
	return string(b)
}

func (r *reader) valueType() ValueType {
	t := ValueType(r.byte())
	switch t {
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
		return t
	}
	fail(r.position()-1, "unknown %s", t)
	return 0
}

// limits reads the bounds of a table or memory; most is -1 without a maximum.
func (r *reader) limits(ceiling int) (least, most int) {
	start := r.position()
	switch flags := r.byte(); flags {
	case 0:
		least, most = r.u32(), -1
	case 1:
		least, most = r.u32(), r.u32()
	case 2, 3:
		fail(start, "shared memory; threads are not offered")
	default:
		fail(start, "bounds with flags 0x%02x; 64-bit memories and tables are not offered", flags)
	}
	if least > ceiling || most > ceiling || (most >= 0 && most < least) {
		fail(start, "impossible bounds %d to %d", least, most)
	}
	return least, most
}

// constant checks a constant expression of a type.
func (p *parser) constant(r *reader, want ValueType) {
	var stack []ValueType
	var room [8]ValueType
	stack = room[:0]
	start := r.position()
	pop := func(want ValueType) {
		if len(stack) == 0 || stack[len(stack)-1] != want {
			fail(r.position(), "a constant expression lacks an operand of type %s", want)
		}
		stack = stack[:len(stack)-1]
	}
	r.constant(func(op byte, _, index int) {
		switch op {
		case opI32Const:
			stack = append(stack, I32)
		case opI64Const:
			stack = append(stack, I64)
		case opF32Const:
			stack = append(stack, F32)
		case opF64Const:
			stack = append(stack, F64)
		case opVector:
			stack = append(stack, V128)
		case opRefNull:
			stack = append(stack, ValueType(index)) //nolint:gosec // a byte
		case opRefFunc:
			if index >= len(p.functions) {
				fail(r.position(), "function %d, but there are %d", index, len(p.functions))
			}
			p.referred[index] = true
			stack = append(stack, FuncRef)
		case opGlobalGet:
			if index >= len(p.globals) {
				fail(r.position(), "global %d, but there are %d", index, len(p.globals))
			}
			if p.globals[index].mutable {
				fail(r.position(), "a constant expression with a global that changes")
			}
			stack = append(stack, p.globals[index].kind)
		default: // arithmetic
			t := plainShapes[op].params[0]
			pop(t)
			pop(t)
			stack = append(stack, t)
		}
	})
	if len(stack) != 1 || stack[0] != want {
		fail(start, "a constant expression gives %s instead of %s", list(stack), want)
	}
}

// constant reads a constant expression and tells of each instruction; of its
// operand only where it is an index or a type.
func (r *reader) constant(tell func(op byte, at, index int)) {
	for {
		op := r.byte()
		at := r.at
		index := 0
		switch op {
		case opEnd:
			return
		case opI32Const:
			r.signed(32)
		case opI64Const:
			r.signed(64)
		case opF32Const:
			r.bytes(4)
		case opF64Const:
			r.bytes(8)
		case opGlobalGet, opRefFunc:
			index = r.u32()
		case opRefNull: // some engines read a longer type here, so it must be known
			index = int(r.referenceType("ref.null"))
		case 0x6a, 0x6b, 0x6c, 0x7c, 0x7d, 0x7e: // extended constants
		case opVector:
			if r.u32() != vectorConst {
				fail(r.position(), "a constant expression that is not constant")
			}
			r.bytes(16)
		default:
			fail(r.position()-1, "a constant expression with instruction 0x%02x", op)
		}
		tell(op, at, index)
	}
}
