package module

import "slices"

// A Grade says how finely a guest's work is counted.
type Grade byte

const (
	// Deadline counts roughly and cheaply: enough to come back to the host every
	// few milliseconds at most, whatever the guest does. The numbers mean little.
	Deadline Grade = iota
	// Exact counts one unit an instruction, by the table of costs with the version
	// CostVersion: the same module with the same input takes the same number of
	// units on every machine. A straight stretch of instructions counts as a whole
	// when it is entered, so the one in which a guest traps or exits counts in full.
	Exact
)

// What a metered module has besides its own: an import and two exports, under a
// prefix that guests cannot use.
const (
	// MeterModule is the import's module, and the prefix of the exports.
	MeterModule = "beacon_meter"
	// MeterRefill is a function that the guest calls when its fuel is used up, and
	// whose result is the fuel it has then. Its parameters are the fuel, which is
	// negative by as much as was used too much, and how many bytes of stack are
	// left: negative when the guest has called too deeply and must be ended.
	MeterRefill = "refill"
	// MeterFuel and MeterStack are mutable globals (i64): what is left.
	MeterFuel  = MeterModule + ".fuel"
	MeterStack = MeterModule + ".stack"
	// MeterMark is a function that a module with Options.Profile calls before each
	// straight stretch of instructions, with the stretch's number, and at the end of
	// each function, with MarkReturn; the second parameter is the fuel.
	MeterMark = "mark"
)

// MarkReturn is what MeterMark gets at the end of a function.
const MarkReturn = -1

// StackSize is how much stack, about, a guest's calls may take, in bytes: two
// times what Go's encoding/json needs for its deepest document. The engine's
// own limit is at several times as much, of memory that nobody accounts for.
const StackSize = 24 << 20

// chunk is how much of the memory one bulk instruction moves at most; longer
// ones are done in pieces, with a look at the fuel before each.
const chunk = 1 << 20

// lengthMost is the highest number of elements that a table instruction is
// charged for. No table has more, so it traps or fails.
const lengthMost = 1 << 24

// deadlineShift makes units of the deadline grade from weights: one for 16
// instructions that may be executed before the next charge, and at least one.
const deadlineShift = 4

// Options say how a module is rewritten. The zero value works.
type Options struct {
	Limits Limits
	Grade  Grade
	// Profile has the guest tell its host where its fuel goes, in the exact grade: it
	// calls MeterMark, which is slow.
	Profile bool

	singly bool // charge for every instruction by itself, which tests compare with
}

// A Rewritten module is what an engine gets.
type Rewritten struct {
	Binary []byte
	Facts  *Facts // of the original
	// Places leads from the rewritten code to the original. It is nil if the
	// module does not tell source lines.
	Places Places
	// Stretches and Names, of functions by their index, are there with
	// Options.Profile.
	Stretches []Stretch
	Names     map[int]string
}

// A Stretch is one of instructions that are executed one after the other, if at all.
// Its number is its place in Rewritten.Stretches.
type Stretch struct {
	Function int // index in the original module
	// Entry is true for the one that a function begins with.
	Entry bool
	// At is where it begins, and each of Costs what it charges for at a place: offsets
	// in the original's section of code. Lengths of bulk instructions are charged
	// besides.
	At    uint32
	Costs []Cost
}

// A Cost is the fuel that a place in the code takes each time.
type Cost struct {
	At    uint32
	Units int
}

// Rewrite checks a module in full and returns it with a counter: at function
// entries and loop heads it is charged for what follows, and where nothing is
// left the guest calls the host's refill. So a guest comes to the host again and
// again, whatever it does, and can be ended there. Calls within calls are bounded
// by the stack they take. Bulk instructions are charged by length, and long ones
// done in pieces. Tables get a maximum. Custom sections are dropped, except for
// the names of functions.
//
// What is valid stays valid and does the same, what is invalid or over a limit is
// refused with an *Error. An instance that trapped or was ended is not to be used
// again, unless all its globals are set back: its stack is not given back.
func Rewrite(binary []byte, options Options) (*Rewritten, error) {
	p, err := parse(binary, options, true)
	if err != nil {
		return nil, err
	}
	return p.writer.rewritten(), nil
}

// rewritten is what came out.
func (w *writer) rewritten() *Rewritten {
	r := &Rewritten{Binary: w.module(), Facts: w.p.facts, Places: w.places()}
	if w.p.options.Profile {
		r.Stretches, r.Names = w.stretches, w.originalNames()
	}
	return r
}

// savers are functions that loops call for fuel, one for each list of types that
// local variables of functions have.
type savers struct {
	list [][]ValueType
	of   map[string]int
}

// How many local variables a function can have, and how many such functions
// there can be; other loops ask for fuel themselves.
const (
	saverMost  = 64
	saversMost = 2_000
	// What loops may add to the module for that, in bytes: at least, and as a
	// multiple of its size.
	coldLeast = 64 << 10
	coldTimes = 2
)

// saver is the number of the function for a loop of these local variables, -1 if
// there is none, or if the module would become much longer. The second reading
// finds what the first made.
func (p *parser) saver(variables []ValueType) int {
	if len(variables) > saverMost {
		return -1
	}
	if p.cold += 4 * len(variables); p.cold > coldLeast+coldTimes*p.facts.Size {
		return -1
	}
	n, known := p.savers.of[string(bytesOf(variables))]
	switch {
	case known:
	case p.plan != nil || len(p.savers.list) == saversMost:
		return -1
	default:
		if p.savers.of == nil {
			p.savers.of = map[string]int{}
		}
		n = len(p.savers.list)
		p.savers.of[string(bytesOf(variables))] = n
		p.savers.list = append(p.savers.list, append([]ValueType(nil), variables...))
	}
	return n
}

// A writer puts the rewritten module together.
type writer struct {
	p       *parser
	prepare *preparation // nil if there is nothing but metering to be done
	bodies  []byte       // rewritten functions, each with its size
	// inits are the data segments that memory.init uses, each with a helper.
	inits   []int
	initsOf map[int]int
	// shapes are the results of functions as types of blocks, where there is
	// more than one result.
	shapes   [][]ValueType
	shapesOf map[string]int
	// spans are what was copied of the code, if places are wanted.
	spans Places
	// stretches are those of a module that is profiled, so far, and function is the
	// one that is being written.
	stretches []Stretch
	current   int

	one []byte // room for one function at a time
}

func newWriter(p *parser) *writer { return &writer{p: p, prepare: p.prepare} }

// Helper functions that are added to the module, in this order.
const (
	helperCopy   = iota // (destination, source, length)
	helperFill          // (destination, value, length)
	helperLength        // (length) -> length
	helperGrow          // (pages) -> pages before
	helpers             // then savers, and one (destination, source, length) for each of inits
)

// Indices in the rewritten module.
func (w *writer) refill() int          { return w.p.imported }
func (w *writer) fuel() int            { return len(w.p.globals) }
func (w *writer) stack() int           { return len(w.p.globals) + 1 }
func (w *writer) typeRefill() int      { return len(w.p.types) }
func (w *writer) typeBulk() int        { return len(w.p.types) + 1 }
func (w *writer) typeLength() int      { return len(w.p.types) + 2 }
func (w *writer) typeSavers() int      { return len(w.p.types) + 3 }
func (w *writer) helper(which int) int { return len(w.p.functions) + w.imports() + which }

// mark is MeterMark, and imports how many functions are imported besides the
// guest's.
func (w *writer) mark() int { return w.p.imported + 1 }

func (w *writer) imports() int {
	if w.p.options.Profile {
		return 2
	}
	return 1
}

// moved is the new index of a function of the guest's.
func (w *writer) moved(f int) int {
	if f >= w.p.imported {
		return f + w.imports()
	}
	return f
}

func (w *writer) module() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	// Data count stands between element and code.
	for _, id := range [...]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11} {
		out = w.section(out, id)
	}
	return w.names(out)
}

func (w *writer) section(out []byte, id int) []byte {
	content, present := w.p.sections[id]
	r := &reader{buf: content}
	var b []byte
	switch id {
	case 1:
		b = vector(r, present, 2+len(w.p.savers.list)+len(w.shapes)+w.imports())
		b = append(b, 0x60, 2, byte(I64), byte(I64), 1, byte(I64))
		b = append(b, 0x60, 3, byte(I32), byte(I32), byte(I32), 0)
		b = append(b, 0x60, 1, byte(I32), 1, byte(I32))
		for _, variables := range w.p.savers.list {
			types := append(number(nil, len(variables)), bytesOf(variables)...)
			b = append(append(append(b, 0x60), types...), types...)
		}
		for _, results := range w.shapes {
			b = append(b, 0x60, 0)
			b = append(number(b, len(results)), bytesOf(results)...)
		}
		if w.p.options.Profile { // the last one
			b = append(b, 0x60, 2, byte(I32), byte(I64), 0)
		}
	case 2:
		b = vector(r, present, w.imports())
		b = name(b, MeterModule)
		b = name(b, MeterRefill)
		b = append(b, byte(Function))
		b = number(b, w.typeRefill())
		if w.p.options.Profile {
			b = name(b, MeterModule)
			b = name(b, MeterMark)
			b = append(b, byte(Function))
			b = number(b, w.typeSavers()+len(w.p.savers.list)+len(w.shapes))
		}
	case 3:
		b = vector(r, present, w.functions()-w.p.bodies)
		b = number(b, w.typeBulk())
		b = number(b, w.typeBulk())
		b = number(b, w.typeLength())
		b = number(b, w.typeLength())
		for n := range w.p.savers.list {
			b = number(b, w.typeSavers()+n)
		}
		for range w.inits {
			b = number(b, w.typeBulk())
		}
		for range w.addedFunctions() {
			b = number(b, w.typeLength())
		}
	case 4:
		if !present {
			return out
		}
		b = w.tables(r)
	case 5:
		switch {
		case !present:
			return out
		case w.prepare == nil:
			b = content
		default:
			b = w.memory(r)
		}
	case 6:
		b = w.globals(r, present)
	case 7:
		b = w.exports(r, present)
	case 8:
		if !present || w.prepare != nil {
			return out
		}
		b = number(nil, w.moved(r.u32()))
	case 9:
		if !present {
			return out
		}
		b = w.elements(r)
	case 10:
		b = w.code()
	case 11, 12:
		switch {
		case !present || w.prepare.dropsData():
			return out
		case id == 11 && w.prepare.takesData():
			b = w.dataSection()
		default:
			b = content
		}
	default:
		if !present {
			return out
		}
		b = content
	}
	out = append(out, byte(id))
	out = number(out, len(b))
	return append(out, b...)
}

// vector copies a section's vector, to which more entries will be appended.
func vector(r *reader, present bool, more int) []byte {
	if !present {
		return number(nil, more)
	}
	n := r.u32()
	return append(number(nil, n+more), r.bytes(r.left())...)
}

// tables gives every table a maximum: growing one takes memory of the host.
func (w *writer) tables(r *reader) []byte {
	n := r.u32()
	b := number(nil, n)
	for range n {
		b = append(b, byte(r.valueType()))
		least, most := r.limits(1<<32 - 1)
		if share := w.p.limits.TableElements / n; most < 0 || most > share {
			most = max(least, share)
		}
		b = append(b, 1)
		b = number(b, least)
		b = number(b, most)
	}
	return b
}

func (w *writer) globals(r *reader, present bool) []byte {
	n := 0
	if present {
		n = r.u32()
	}
	b := number(nil, n+2+w.addedGlobals())
	for range n {
		b = append(b, r.byte(), r.byte())
		b = w.constant(b, r)
	}
	b = append(b, byte(I64), 1, opI64Const, 0, opEnd)
	b = append(signed(append(b, byte(I64), 1, opI64Const), StackSize), opEnd)
	return w.addGlobals(b)
}

func (w *writer) exports(r *reader, present bool) []byte {
	n := 0
	if present {
		n = r.u32()
	}
	added, more := w.addedExports()
	b := number(nil, n+2+added)
	for range n {
		b = name(b, r.name(w.p.limits.Name))
		kind := Kind(r.byte())
		index := r.u32()
		if kind == Function {
			index = w.moved(index)
		}
		b = append(b, byte(kind))
		b = number(b, index)
	}
	b = number(append(name(b, MeterFuel), byte(Global)), w.fuel())
	b = number(append(name(b, MeterStack), byte(Global)), w.stack())
	return append(b, more...)
}

func (w *writer) elements(r *reader) []byte {
	n := r.u32()
	b := number(nil, n)
	for range n {
		flags := r.u32()
		b = number(b, flags)
		passive, explicit, expressions := flags&1 != 0, flags&2 != 0, flags&4 != 0
		if !passive {
			if explicit {
				b = number(b, r.u32())
			}
			b = w.constant(b, r)
		}
		if passive || explicit {
			b = append(b, r.byte())
		}
		items := r.u32()
		b = number(b, items)
		for range items {
			if expressions {
				b = w.constant(b, r)
			} else {
				b = number(b, w.moved(r.u32()))
			}
		}
	}
	return b
}

// constant copies a constant expression; of its instructions only ref.func
// names a function.
func (w *writer) constant(b []byte, r *reader) []byte {
	from := r.at
	r.constant(func(op byte, at, index int) {
		if op != opRefFunc {
			return
		}
		b = append(b, r.buf[from:at]...)
		b = number(b, w.moved(index))
		from = r.at
	})
	return append(b, r.buf[from:r.at]...)
}

func (w *writer) code() []byte {
	b := number(nil, w.functions())
	b = append(b, w.bodies...)
	for _, h := range [...]func([]byte) []byte{w.copyHelper, w.fillHelper, w.lengthHelper, w.growHelper} {
		b = w.sized(b, h)
	}
	for _, variables := range w.p.savers.list {
		b = w.sized(b, func(b []byte) []byte { return w.saver(b, variables) })
	}
	for _, segment := range w.inits {
		b = w.sized(b, func(b []byte) []byte { return w.initHelper(b, segment) })
	}
	if w.prepare != nil {
		b = w.sized(b, w.doorBody)
	}
	return b
}

// functions is how many the rewritten module defines.
func (w *writer) functions() int {
	return w.p.bodies + helpers + len(w.p.savers.list) + len(w.inits) + w.addedFunctions()
}

// sized appends what one function makes, with its length before it.
func (w *writer) sized(b []byte, content func([]byte) []byte) []byte {
	w.one = content(w.one[:0])
	return append(number(b, len(w.one)), w.one...)
}

// function adds a rewritten function to bodies.
func (w *writer) function(n int, f body) {
	spans := len(w.spans)
	w.bodies = w.sized(w.bodies, func(b []byte) []byte { return w.body(b, n, f) })
	for i := range w.spans[spans:] { // which now know where the function begins
		w.spans[spans+i].to += uint32(len(w.bodies) - len(w.one)) //nolint:gosec // less than 4 GiB
	}
}

func (w *writer) body(b []byte, n int, f body) []byte {
	b = w.declared(b, f)
	w.current = w.p.imported + n
	if !w.p.plan.checked[n] {
		return w.marked(b, f)
	}
	if !f.calls {
		// It is over soon, but for its loops: these ask for fuel.
		return w.marked(w.charge(b, f, 0), f)
	}
	frame := int(w.p.plan.depths[n])
	b = w.askForBoth(w.charge(w.push(b, -frame), f, 0))
	// Whichever way the function ends, it leaves this block.
	b = w.shape(append(b, opBlock), f.results)
	b = w.edited(b, f, frame)
	return append(w.push(w.leave(b), frame), opEnd)
}

// marked is edited for a function that takes nothing of the stack. If it is
// profiled, it is put into a block, so that it has one end.
func (w *writer) marked(b []byte, f body) []byte {
	if !w.p.options.Profile {
		return w.edited(b, f, 0)
	}
	b = w.shape(append(b, opBlock), f.results)
	return append(w.leave(w.edited(b, f, 0)), opEnd)
}

// leave tells that a function ends.
func (w *writer) leave(b []byte) []byte {
	if !w.p.options.Profile {
		return b
	}
	return w.tell(b, MarkReturn)
}

func (w *writer) tell(b []byte, mark int) []byte {
	b = signed(append(b, opI32Const), int64(mark))
	return call(global(b, opGlobalGet, w.fuel()), w.mark())
}

// enter tells that a stretch begins: the one of an edit of the function.
func (w *writer) enter(b []byte, f body, edit int) []byte {
	e := f.edits[edit]
	s := Stretch{Function: w.current, Entry: e.at == 0, At: uint32(f.at + e.at)} //nolint:gosec // less than 4 GiB
	end := len(f.code)
	for _, next := range f.edits[edit+1:] {
		if next.kind == editSegment {
			end = next.at
			break
		}
	}
	from, _ := slices.BinarySearchFunc(f.costs, e.at, func(c Cost, at int) int { return int(c.At) - at })
	for _, c := range f.costs[from:] {
		if int(c.At) >= end {
			break
		}
		s.Costs = append(s.Costs, Cost{uint32(f.at) + c.At, c.Units}) //nolint:gosec // less than 4 GiB
	}
	w.stretches = append(w.stretches, s)
	return w.tell(b, len(w.stretches)-1)
}

// charge takes the units of a region, in the deadline grade.
func (w *writer) charge(b []byte, f body, region int) []byte {
	if w.p.options.Grade != Deadline {
		return b
	}
	return w.spend(b, int64(max(1, f.weights[region]>>deadlineShift)))
}

// push changes what is left of the stack.
func (w *writer) push(b []byte, bytes int) []byte {
	b = global(b, opGlobalGet, w.stack())
	b = signed(append(b, opI64Const), int64(bytes))
	return global(append(b, 0x7c), opGlobalSet, w.stack()) // i64.add
}

// shape appends the type of a block with results.
func (w *writer) shape(b []byte, results []ValueType) []byte {
	switch len(results) {
	case 0:
		return append(b, 0x40)
	case 1:
		return append(b, byte(results[0]))
	}
	key := string(bytesOf(results))
	n, known := w.shapesOf[key]
	if !known {
		if w.shapesOf == nil {
			w.shapesOf = map[string]int{}
		}
		n = len(w.shapes)
		w.shapesOf[key] = n
		w.shapes = append(w.shapes, results)
	}
	return signed(b, int64(w.typeSavers()+len(w.p.savers.list)+n))
}

// edited appends a function's code with the edits done. frame is what the
// function took of the stack.
func (w *writer) edited(b []byte, f body, frame int) []byte {
	from := 0
	for n, e := range f.edits {
		b = w.copied(b, f, from, e.at)
		from = e.at + e.old
		switch e.kind {
		case editSegment:
			if w.p.options.Profile && (e.value > 0 || e.at == 0) {
				b = w.enter(b, f, n)
			}
			b = w.spend(b, int64(e.value))
		case editLoop:
			b = append(append(b, opBlock), e.bytes...)
		case editHead:
			b = append(b, opBlock, 0x40)
			b = w.charge(w.exhausted(b, []byte{0}), f, e.value)
		case editHeadSwitch:
			b = append(b, opBlock, 0x40)
		case editBack:
			b = w.exhausted(w.charge(b, f, e.value), e.bytes)
		case editHeadOnly:
			b = w.askForFuel(w.charge(b, f, e.value))
		case editCold:
			b = w.cold(append(b, opBr, 2, opEnd), f, e.value)
		case editLoopEnd:
			b = append(b, opEnd)
		case editBytes:
			b = append(b, e.bytes...)
		case editFunction:
			b = number(b, w.moved(e.value))
		case editMemoryCopy:
			b = call(b, w.helper(helperCopy))
		case editMemoryFill:
			b = call(b, w.helper(helperFill))
		case editMemoryInit:
			b = call(b, w.helper(w.init(e.value)))
		case editMemoryGrow:
			b = call(b, w.helper(helperGrow))
		case editLength:
			b = call(b, w.helper(helperLength))
		case editVisit:
			b = w.more(b)
		case editReturn:
			if frame == 0 && !w.p.options.Profile {
				b = append(b, opReturn)
			} else {
				b = number(append(b, opBr), e.value)
			}
		case editTailCall:
			b = w.push(w.leave(b), frame)
		case editStore:
			b = w.keep(b, f, e.value)
		case editMark:
			b = w.markStore(b, f, e.value)
		case editTaint:
			b = w.markTaint(b)
		}
	}
	return w.copied(b, f, from, len(f.code))
}

// exhausted branches to a label, encoded, if the fuel is used up.
func (w *writer) exhausted(b []byte, label []byte) []byte {
	b = global(b, opGlobalGet, w.fuel())
	return append(append(b, opI64Const, 0, 0x53, opBrIf), label...) // i64.lt_s
}

// cold asks for fuel in a loop and begins it again. All local variables are
// given to the function that asks and taken from it again: so none of them has to
// survive the call, and the engine can keep them in registers all the time.
func (w *writer) cold(b []byte, f body, saver int) []byte {
	for i := range f.variables {
		b = number(append(b, opLocalGet), i)
	}
	b = call(b, w.helper(helpers+saver))
	for i := range f.variables {
		b = number(append(b, opLocalSet), len(f.variables)-1-i)
	}
	return append(b, opBr, 0)
}

// saver is a function that asks for fuel and gives back what it is given.
func (w *writer) saver(b []byte, variables []ValueType) []byte {
	b = w.more(append(b, 0))
	for i := range variables {
		b = number(append(b, opLocalGet), i)
	}
	return append(b, opEnd)
}

// copied appends a part of a function's code as it is.
func (w *writer) copied(b []byte, f body, from, to int) []byte {
	if w.p.lines && to > from {
		w.spans = append(w.spans, span{to: uint32(len(b)), from: uint32(f.at + from), size: uint32(to - from)}) //nolint:gosec // less than 4 GiB
	}
	return append(b, f.code[from:to]...)
}

// init is the helper for memory.init of a segment.
func (w *writer) init(segment int) int {
	which, known := w.initsOf[segment]
	if !known {
		if w.initsOf == nil {
			w.initsOf = map[int]int{}
		}
		which = helpers + len(w.p.savers.list) + len(w.inits)
		w.initsOf[segment] = which
		w.inits = append(w.inits, segment)
	}
	return which
}

// spend takes units from the fuel, and leaves it to others to ask for more.
func (w *writer) spend(b []byte, units int64) []byte {
	if units == 0 {
		return b
	}
	b = global(b, opGlobalGet, w.fuel())
	b = signed(append(b, opI64Const), -units)
	return global(append(b, 0x7c), opGlobalSet, w.fuel()) // i64.add
}

// askForFuel asks for more if the fuel is used up. The stack stays as it is.
func (w *writer) askForFuel(b []byte) []byte {
	return w.ask(global(b, opGlobalGet, w.fuel()))
}

// askForBoth is askForFuel where the stack is looked at as well, which is before
// whatever calls.
func (w *writer) askForBoth(b []byte) []byte {
	// One of them is negative if both together are.
	b = global(b, opGlobalGet, w.fuel())
	b = global(b, opGlobalGet, w.stack())
	return w.ask(append(b, 0x84)) // i64.or
}

// ask calls for more fuel if the number on top of the stack is negative.
func (w *writer) ask(b []byte) []byte {
	b = append(b, opI64Const, 0, 0x53) // i64.lt_s
	b = w.more(append(b, opIf, 0x40))
	return append(b, opEnd)
}

// more calls for fuel.
func (w *writer) more(b []byte) []byte {
	b = global(b, opGlobalGet, w.fuel())
	b = global(b, opGlobalGet, w.stack())
	return global(call(b, w.refill()), opGlobalSet, w.fuel())
}

// chargeLength charges for as many bytes as the local variable says.
func (w *writer) chargeLength(b []byte, local byte) []byte {
	b = global(b, opGlobalGet, w.fuel())
	b = append(b, opLocalGet, local, 0xad)       // i64.extend_i32_u
	b = append(b, opI64Const, lengthShift, 0x88) // i64.shr_u
	b = append(b, opI64Const, 1, 0x7c, 0x7d)     // i64.add, i64.sub
	return w.askForFuel(global(b, opGlobalSet, w.fuel()))
}

// lengthHelper charges for elements of a table.
func (w *writer) lengthHelper(b []byte) []byte {
	b = append(b, 1, 1, byte(I32)) // a local variable, for the length
	b = append(b, opLocalGet, 0)
	b = signed(append(b, opI32Const), lengthMost)
	b = append(b, opLocalGet, 0)
	b = signed(append(b, opI32Const), lengthMost)
	b = append(b, 0x49, opSelect, opLocalSet, 1) // i32.lt_u
	b = w.chargeLength(b, 1)
	return append(b, opLocalGet, 0, opEnd)
}

// growHelper grows the memory and charges for what it grew by.
func (w *writer) growHelper(b []byte) []byte {
	if w.p.memories == 0 {
		return append(b, 0, opLocalGet, 0, opEnd)
	}
	b = append(b, 1, 1, byte(I32)) // a local variable, for the result
	b = append(b, opLocalGet, 0, opMemoryGrow, 0, opLocalTee, 1)
	b = append(b, opI32Const, 0x7f, 0x47, opIf, 0x40) // -1, i32.ne
	b = global(b, opGlobalGet, w.fuel())
	b = append(b, opLocalGet, 0, 0xad, opI64Const) // i64.extend_i32_u
	b = append(signed(b, costPage), 0x7e, 0x7d)    // i64.mul, i64.sub
	b = global(b, opGlobalSet, w.fuel())
	return append(w.askForFuel(b), opEnd, opLocalGet, 1, opEnd)
}

// end pushes where a range that begins at start ends; the length is local 2.
func end(b []byte, start byte) []byte {
	return append(b, opLocalGet, start, 0xad, opLocalGet, 2, 0xad, 0x7c) // as i64, add
}

// outside pushes whether the range leaves the memory.
func outside(b []byte, start byte) []byte {
	b = append(end(b, start), opMemorySize, 0, 0xad, opI64Const, 16, 0x86) // i64.shl
	return append(b, 0x56)                                                 // i64.gt_u
}

// pieces begins a helper: what is short, and what is out of bounds and traps
// as a whole, is done at once. The instruction is op.
func (w *writer) pieces(b []byte, op []byte, ranges ...byte) []byte {
	b = append(b, opLocalGet, 2)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, 0x4d) // i32.le_u
	for _, start := range ranges {
		b = append(outside(b, start), 0x72) // i32.or
	}
	return w.atOnce(b, op)
}

// atOnce executes the instruction and returns, if the number on the stack says so.
func (w *writer) atOnce(b []byte, op []byte) []byte {
	b = append(b, opIf, 0x40)
	// Out of bounds it traps; there is nothing to charge.
	b = append(b, opLocalGet, 2)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, 0x4d, opIf, 0x40) // i32.le_u
	b = w.chargeLength(b, 2)
	b = append(b, opEnd)
	b = append(b, opLocalGet, 0, opLocalGet, 1, opLocalGet, 2)
	b = append(b, op...)
	return append(b, opReturn, opEnd)
}

// step charges one chunk.
func (w *writer) step(b []byte) []byte { return w.askForFuel(w.spend(b, chunk>>lengthShift)) }

// add changes a local variable by a constant.
func add(b []byte, local byte, n int64) []byte {
	b = append(b, opLocalGet, local)
	b = signed(append(b, opI32Const), n)
	return append(b, 0x6a, opLocalSet, local)
}

var (
	copyInstruction = []byte{opMisc, miscMemoryCopy, 0, 0}
	fillInstruction = []byte{opMisc, miscMemoryFill, 0}
)

// while begins a loop that goes on as long as more than a chunk is left.
// Two ends close it.
func while(b []byte) []byte {
	b = append(b, opBlock, 0x40, opLoop, 0x40)
	b = append(b, opLocalGet, 2)
	b = signed(append(b, opI32Const), chunk)
	return append(b, 0x4d, opBrIf, 1) // i32.le_u
}

func again(b []byte) []byte { return append(b, opBr, 0, opEnd, opEnd) }

func (w *writer) fillHelper(b []byte) []byte {
	b = append(b, 0)
	if w.p.memories == 0 {
		return append(b, opEnd)
	}
	b = w.pieces(w.markRange(b), fillInstruction, 0)
	b = while(b)
	b = w.step(b)
	b = append(b, opLocalGet, 0, opLocalGet, 1)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, fillInstruction...)
	b = add(b, 0, chunk)
	b = add(b, 2, -chunk)
	b = again(b)
	b = w.chargeLength(b, 2)
	b = append(b, opLocalGet, 0, opLocalGet, 1, opLocalGet, 2)
	b = append(b, fillInstruction...)
	return append(b, opEnd)
}

func (w *writer) initHelper(b []byte, segment int) []byte {
	length := 0
	if segment < len(w.p.lengths) { // if not, the module is invalid and stays so
		length = w.p.lengths[segment]
	}
	op := append(number([]byte{opMisc, miscMemoryInit}, segment), 0)
	b = w.markRange(append(b, 0))
	b = append(b, opLocalGet, 2)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, 0x4d)               // i32.le_u
	b = append(outside(b, 0), 0x72)   // i32.or
	b = append(end(b, 1), opI64Const) // of the segment
	b = append(signed(b, int64(length)), 0x56, 0x72)
	// A segment that was dropped traps at its first piece.
	b = w.atOnce(b, op)
	b = while(b)
	b = w.step(b)
	b = append(b, opLocalGet, 0, opLocalGet, 1)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, op...)
	b = add(b, 0, chunk)
	b = add(b, 1, chunk)
	b = add(b, 2, -chunk)
	b = again(b)
	b = w.chargeLength(b, 2)
	b = append(b, opLocalGet, 0, opLocalGet, 1, opLocalGet, 2)
	return append(append(b, op...), opEnd)
}

func (w *writer) copyHelper(b []byte) []byte {
	b = append(b, 0)
	if w.p.memories == 0 {
		return append(b, opEnd)
	}
	b = w.pieces(w.markRange(b), copyInstruction, 0, 1)
	// The ranges may overlap: what would be overwritten is read first.
	b = append(b, opLocalGet, 0, opLocalGet, 1, 0x4d, opIf, 0x40) // i32.le_u
	b = while(b)
	b = w.step(b)
	b = append(b, opLocalGet, 0, opLocalGet, 1)
	b = signed(append(b, opI32Const), chunk)
	b = append(b, copyInstruction...)
	b = add(b, 0, chunk)
	b = add(b, 1, chunk)
	b = add(b, 2, -chunk)
	b = again(b)
	b = append(b, opElse)
	b = while(b)
	b = w.step(b)
	b = add(b, 2, -chunk)
	for local := byte(0); local < 2; local++ {
		b = append(b, opLocalGet, local, opLocalGet, 2, 0x6a) // i32.add
	}
	b = signed(append(b, opI32Const), chunk)
	b = append(b, copyInstruction...)
	b = again(b)
	b = append(b, opEnd)
	b = w.chargeLength(b, 2)
	b = append(b, opLocalGet, 0, opLocalGet, 1, opLocalGet, 2)
	b = append(b, copyInstruction...)
	return append(b, opEnd)
}

// names keeps the names of functions, for the stack of a guest that broke
// down. Anything odd in them drops them: they are not part of the program.
func (w *writer) names(out []byte) (named []byte) {
	count, added := w.addedNames()
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(*Error); !ok {
				panic(fault)
			}
			named = nameSection(out, count, added)
		}
	}()
	r := &reader{buf: w.p.names}
	for r.left() > 0 {
		id := r.byte()
		s := r.sub(r.u32())
		if id != 1 {
			continue
		}
		n := s.count("names", 2, w.p.limits.Functions)
		var list []byte
		last := -1
		for range n {
			f := s.index("function", len(w.p.functions))
			if f <= last {
				fail(0, "names out of order")
			}
			last = f
			list = number(list, w.moved(f))
			list = name(list, s.name(w.p.limits.Name))
		}
		return nameSection(out, n+count, append(list, added...))
	}
	return nameSection(out, count, added)
}

// originalNames are the names of functions in the module as it was: up to where
// anything is odd in them, and what they are exported as.
func (w *writer) originalNames() (names map[int]string) {
	names = map[int]string{}
	for at, e := range w.p.facts.Exports {
		if e.Kind == Function {
			names[w.p.exported[at]] = e.Name
		}
	}
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(*Error); !ok {
				panic(fault)
			}
		}
	}()
	for r := (&reader{buf: w.p.names}); r.left() > 0; {
		id := r.byte()
		s := r.sub(r.u32())
		if id != 1 {
			continue
		}
		for range s.count("names", 2, w.p.limits.Functions) {
			f := s.index("function", len(w.p.functions))
			names[f] = s.name(w.p.limits.Name)
		}
	}
	return names
}

// addedNames name the functions that were added, so that nobody takes them for
// the guest's.
func (w *writer) addedNames() (count int, list []byte) {
	for which := range w.functions() - w.p.bodies {
		f := w.helper(which)
		list = number(list, f)
		if w.prepare != nil && f == w.door() {
			list = name(list, ExportCall)
		} else {
			list = name(list, MeterModule+".helper")
		}
		count++
	}
	return count, list
}

// nameSection appends the section with n names of functions, if there are any.
func nameSection(out []byte, n int, list []byte) []byte {
	if n == 0 {
		return out
	}
	list = append(number(nil, n), list...)
	content := append(name(nil, "name"), 1)
	content = number(content, len(list))
	content = append(content, list...)
	out = append(out, 0)
	out = number(out, len(content))
	return append(out, content...)
}

// number appends an unsigned LEB128 number.
func number(b []byte, n int) []byte {
	v := uint64(n) //nolint:gosec // counts and indices are not negative
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// signed appends a signed LEB128 number.
func signed(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func name(b []byte, s string) []byte {
	return append(number(b, len(s)), s...)
}

func call(b []byte, f int) []byte { return number(append(b, opCall), f) }

func global(b []byte, op byte, index int) []byte { return number(append(b, op), index) }
