package module

import (
	"fmt"
	"slices"
)

// This file prepares modules for instances that are put back to a state they
// were in: it opens what a host must read and write for that, and marks what it
// cannot put back.

// What Prepare adds to the exports, besides those of Globals and of metering.
const (
	// ExportCall is a function of type (i32) -> (i32) that calls the entry with
	// that number and returns what it returns, or 0.
	ExportCall = MeterModule + ".call"
	// ExportTaint is a global of type i32, which is not 0 once the guest has
	// changed what a host cannot put back: a table, or a segment that it dropped.
	// A module without such instructions does not have it.
	ExportTaint = MeterModule + ".taint"
)

// EntryStart is the module's start function. Instances do not run it by
// themselves: a host calls it before everything else.
const EntryStart = MeterModule + ".start"

// Prepared is a metered module whose instances a host can put back. It runs
// the same as the original if its host does what a module's instantiation does:
// it begins with a memory that holds Data, and with a call of EntryStart.
type Prepared struct {
	Rewritten
	// Entries are the numbers for ExportCall by name, of those of the functions
	// asked for that the module has.
	Entries map[string]int32
	// Globals are the mutable ones of the guest; the counters of metering are not
	// among them.
	Globals []MutableGlobal
	// Data is what the memory holds before anything runs, in order, of
	// Facts.MemoryMin pages. It is part of the original binary.
	Data []Segment
	// Taints is true if there is an ExportTaint.
	Taints bool
	// Granule is the size in bytes of the granules of memory that the guest marks when it
	// writes to them, in ExportMarks; 0 if it does not.
	Granule int
	// Lasting says what of the module's state cannot be put back, "" if all can,
	// apart from what ExportTaint tells.
	Lasting string
}

// A MutableGlobal is one that a host can read and write.
type MutableGlobal struct {
	Export string
	Type   ValueType
}

// A Segment is a part of a memory's content.
type Segment struct {
	Offset int
	Bytes  []byte
}

// Prepare is Rewrite for a module whose instances are put back. The functions
// named in entries are to be called through ExportCall. The memory may grow by a
// page more than the module says: how much it may have is left to the host,
// which can make it smaller again only as long as it could be larger.
func Prepare(binary []byte, options Options, entries ...string) (*Prepared, error) {
	prepare := &preparation{names: entries}
	p, err := parsePrepared(binary, options, true, prepare)
	if err != nil {
		return nil, err
	}
	if err := prepare.check(p); err != nil {
		return nil, err
	}
	return &Prepared{
		Rewritten: *p.writer.rewritten(),
		Entries:   prepare.numbers, Globals: prepare.globals, Granule: p.granuleBytes(),
		Data: prepare.data, Taints: prepare.taints, Lasting: prepare.lasting,
	}, nil
}

// A preparation is what is done besides metering; nil is nothing.
type preparation struct {
	names []string // entries asked for

	taints   bool // the code has instructions that taint
	usesData bool // the code names data segments

	calls    []int // functions behind ExportCall, by entry
	reports  []bool
	numbers  map[string]int32
	globals  []MutableGlobal
	indices  []int // of globals
	data     []Segment
	keepData bool // in the module
	lasting  string
}

// check finds out what is to be written.
func (w *preparation) check(p *parser) error {
	w.numbers = map[string]int32{}
	if p.start >= 0 {
		w.entry(p, EntryStart, p.start)
	}
	for _, name := range w.names {
		if at := slices.IndexFunc(p.facts.Exports, func(e Export) bool { return e.Name == name }); at >= 0 {
			if e := p.facts.Exports[at]; e.Kind == Function {
				w.entry(p, name, p.exported[at])
			}
		}
	}
	for _, i := range p.facts.Imports {
		if i.Kind != Function {
			w.lasting = fmt.Sprintf("it imports a %s, which it shares with others", i.Kind)
		}
	}
	for i, g := range p.globals {
		switch {
		case !g.mutable:
		case g.kind == V128 || g.kind == FuncRef || g.kind == ExternRef:
			w.lasting = fmt.Sprintf("its global %d is a mutable %s, which cannot be read from outside", i, g.kind)
		default:
			w.globals = append(w.globals, MutableGlobal{fmt.Sprintf("%s.global%d", MeterModule, i), g.kind})
			w.indices = append(w.indices, i)
		}
	}
	return w.takeData(p)
}

// entry gives a function a number, if ExportCall can call it.
func (w *preparation) entry(p *parser, name string, function int) {
	s := p.types[p.functions[function]]
	if _, known := w.numbers[name]; known || len(s.Params) > 0 || len(s.Results) > 1 || len(s.Results) == 1 && s.Results[0] != I32 {
		return
	}
	w.numbers[name] = int32(len(w.calls)) //nolint:gosec // as many as names
	w.calls = append(w.calls, function)
	w.reports = append(w.reports, len(s.Results) == 1)
}

// takeData takes the active segments out if it is known where they go. To an
// engine each costs as much as a small item does, and Go makes 39,000 of them.
func (w *preparation) takeData(p *parser) error {
	size := p.facts.MemoryMin * PageSize
	for n, s := range p.data {
		if !s.active {
			continue
		}
		if !s.known || !p.facts.ownsMemory() {
			w.data, w.keepData = nil, true
			w.lasting = fmt.Sprintf("where data segment %d goes to is not known before it runs", n)
			return nil
		}
		if s.offset > size || len(s.bytes) > size-s.offset {
			return &Error{Message: fmt.Sprintf("data segment %d, %d bytes at %d, does not fit into a memory of %d bytes", n, len(s.bytes), s.offset, size)}
		}
		if len(s.bytes) > 0 {
			w.data = append(w.data, Segment{s.offset, s.bytes})
		}
	}
	return nil
}

func (f *Facts) ownsMemory() bool {
	return f.HasMemory && !slices.ContainsFunc(f.Imports, func(i Import) bool { return i.Kind == Memory })
}

// takesData reports whether the active segments are taken out, and dropsData
// whether, besides, nothing is left that needs any.
func (w *preparation) takesData() bool { return w != nil && !w.keepData }
func (w *preparation) dropsData() bool { return w.takesData() && !w.usesData }

// markTaint inserts the mark before an instruction.
func (w *writer) markTaint(b []byte) []byte {
	return global(append(b, opI32Const, 1), opGlobalSet, w.taint())
}

// taint is the index of the mark, after the counters.
func (w *writer) taint() int { return w.stack() + 1 }

// door is the index of ExportCall: the last function.
func (w *writer) door() int { return w.helper(helpers + len(w.p.savers.list) + len(w.inits)) }

// addedFunctions is how many there are besides those of metering.
func (w *writer) addedFunctions() int {
	if w.prepare == nil {
		return 0
	}
	return 1
}

// marks is the index of ExportMarks, after the mark.
func (w *writer) marks() int {
	if w.prepare.taints {
		return w.taint() + 1
	}
	return w.taint()
}

func (w *writer) addedGlobals() (n int) {
	if w.prepare != nil && w.prepare.taints {
		n++
	}
	if w.p.power > 0 {
		n++
	}
	return n
}

func (w *writer) addGlobals(b []byte) []byte {
	if w.prepare != nil && w.prepare.taints {
		b = append(b, byte(I32), 1, opI32Const, 0, opEnd)
	}
	if w.p.power > 0 {
		b = append(b, byte(I64), 1, opI64Const, 0, opEnd)
	}
	return b
}

func (w *writer) addedExports() (n int, b []byte) {
	if w.prepare == nil {
		return 0, nil
	}
	add := func(export string, kind Kind, index int) {
		n++
		b = number(append(name(b, export), byte(kind)), index)
	}
	add(ExportCall, Function, w.door())
	if w.prepare.taints {
		add(ExportTaint, Global, w.taint())
	}
	if w.p.power > 0 {
		add(ExportMarks, Global, w.marks())
	}
	for i, g := range w.prepare.globals {
		add(g.Export, Global, w.prepare.indices[i])
	}
	return n, b
}

// doorBody calls the entry whose number is the parameter.
func (w *writer) doorBody(b []byte) []byte {
	b = append(b, 0)
	for n, f := range w.prepare.calls {
		b = append(b, opLocalGet, 0)
		b = signed(append(b, opI32Const), int64(n))
		b = append(b, 0x46, opIf, 0x40) // i32.eq
		b = call(b, w.moved(f))
		if !w.prepare.reports[n] {
			b = append(b, opI32Const, 0)
		}
		b = append(b, opReturn, opEnd)
	}
	return append(b, 0x00, opEnd) // unreachable
}

// memory gives the maximum the page more that Prepare speaks of.
func (w *writer) memory(r *reader) []byte {
	n := r.u32()
	b := number(nil, n)
	for range n {
		least, most := r.limits(65_536)
		if most < 0 {
			b = number(append(b, 0), least)
			continue
		}
		b = number(append(b, 1), least)
		b = number(b, min(most+1, 65_536))
	}
	return b
}

// dataSection is what is left of the segments: nothing, or, if instructions
// name them, empty ones in place of those that were taken out.
func (w *writer) dataSection() []byte {
	b := number(nil, len(w.p.data))
	for _, s := range w.p.data {
		if s.active {
			b = append(b, 1, 0)
			continue
		}
		b = number(append(b, 1), len(s.bytes))
		b = append(b, s.bytes...)
	}
	return b
}

// granuleBytes is the size of a granule, 0 if none are marked.
func (p *parser) granuleBytes() int {
	if p.power == 0 {
		return 0
	}
	return 1 << p.power
}
