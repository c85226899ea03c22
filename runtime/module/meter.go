package module

// The import that a metered module has besides its own: a function that the
// guest calls when its fuel is used up, and whose result is the next slice. Its
// parameter is how many bytes of stack are left; it is negative when the guest
// has called too deeply and must be ended. A module that imports it by itself is not loaded, because
// the name is not offered to guests.
const (
	MeterModule = "beacon_meter"
	MeterRefill = "refill"
)

// chunk is how much of the memory one bulk instruction moves at most; longer
// ones are done in pieces, with a look at the fuel before each.
const chunk = 1 << 20

// lengthShift makes fuel of lengths: 16 bytes or elements cost one unit.
const lengthShift = 4

// stackSize is how much stack, about, a guest's calls may take, in bytes: three
// times what Go's encoding/json needs for its deepest document. The engine's
// own limit is at several times as much, of memory that nobody accounts for.
const stackSize = 16 << 20

// Meter checks a module like Parse, the code included, and returns it with a
// counter: at each function's entry, unless there is hardly anything in it, and
// each loop's head it charges about as many units as instructions follow until
// the next charge, and calls the host's refill when none are left. So a guest
// comes to the host at least once in some times as many instructions as a slice
// has units, whatever it does, and the host can end it there. Calls within calls
// are bounded by the stack they take. Bulk instructions are charged by length,
// and long ones done in pieces. Tables get a maximum. Custom sections are
// dropped, except for the names of functions.
//
// What is valid stays valid and does the same, what is invalid stays invalid or
// is refused. An instance that trapped or was ended is not to be used again: its
// stack is not given back.
func Meter(binary []byte, limits Limits) (metered []byte, facts *Facts, err error) {
	limits = limits.withDefaults()
	p, err := parse(binary, limits, true)
	if err != nil {
		return nil, nil, err
	}
	return p.meter.module(), p.facts, nil
}

// A writer puts the metered module together.
type writer struct {
	p      *parser
	bodies []byte // metered functions, each with its size
	// inits are the data segments that memory.init uses, each with a helper.
	inits   []int
	initsOf map[int]int
	// shapes are the results of functions as types of blocks, where there is
	// more than one result.
	shapes   [][]ValueType
	shapesOf map[string]int

	// room for one function at a time
	one   []byte
	edits []edit
	costs []int64
}

// Helper functions that are added to the module, in this order.
const (
	helperCopy   = iota // (destination, source, length)
	helperFill          // (destination, value, length)
	helperLength        // (length) -> length
	helpers             // and one (destination, source, length) for each of inits
)

// Indices in the metered module.
func (w *writer) refill() int          { return w.p.imported }
func (w *writer) fuel() int            { return w.p.globals }
func (w *writer) stack() int           { return w.p.globals + 1 }
func (w *writer) typeRefill() int      { return len(w.p.types) }
func (w *writer) typeBulk() int        { return len(w.p.types) + 1 }
func (w *writer) typeLength() int      { return len(w.p.types) + 2 }
func (w *writer) helper(which int) int { return len(w.p.functions) + 1 + which }

// moved is the new index of a function of the guest's.
func (w *writer) moved(f int) int {
	if f >= w.p.imported {
		return f + 1
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
		b = vector(r, present, 3+len(w.shapes))
		b = append(b, 0x60, 1, byte(I64), 1, byte(I64))
		b = append(b, 0x60, 3, byte(I32), byte(I32), byte(I32), 0)
		b = append(b, 0x60, 1, byte(I32), 1, byte(I32))
		for _, results := range w.shapes {
			b = append(b, 0x60, 0)
			b = append(number(b, len(results)), bytesOf(results)...)
		}
	case 2:
		b = vector(r, present, 1)
		b = name(b, MeterModule)
		b = name(b, MeterRefill)
		b = append(b, byte(Function))
		b = number(b, w.typeRefill())
	case 3:
		b = vector(r, present, helpers+len(w.inits))
		b = number(b, w.typeBulk())
		b = number(b, w.typeBulk())
		b = number(b, w.typeLength())
		for range w.inits {
			b = number(b, w.typeBulk())
		}
	case 4:
		if !present {
			return out
		}
		b = w.tables(r)
	case 6:
		b = w.globals(r, present)
	case 7:
		if !present {
			return out
		}
		b = w.exports(r)
	case 8:
		if !present {
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
		if most < 0 || most > w.p.limits.TableElements {
			most = max(least, w.p.limits.TableElements)
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
	b := number(nil, n+2)
	for range n {
		b = append(b, r.byte(), r.byte())
		b = w.constant(b, r)
	}
	b = append(b, byte(I64), 1, opI64Const, 0, opEnd)
	return append(signed(append(b, byte(I64), 1, opI64Const), stackSize), opEnd)
}

func (w *writer) exports(r *reader) []byte {
	n := r.u32()
	b := number(nil, n)
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
	return b
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
	r.constant(func(at, index int) {
		b = append(b, r.buf[from:at]...)
		b = number(b, w.moved(index))
		from = r.at
	}, func(int) {})
	return append(b, r.buf[from:r.at]...)
}

func (w *writer) code() []byte {
	b := number(nil, w.p.bodies+helpers+len(w.inits))
	b = append(b, w.bodies...)
	for _, h := range [...]func([]byte) []byte{w.copyHelper, w.fillHelper, w.lengthHelper} {
		b = w.sized(b, h)
	}
	for _, segment := range w.inits {
		b = w.sized(b, func(b []byte) []byte { return w.initHelper(b, segment) })
	}
	return b
}

// sized appends what one function makes, with its length before it.
func (w *writer) sized(b []byte, content func([]byte) []byte) []byte {
	w.one = content(w.one[:0])
	return append(number(b, len(w.one)), w.one...)
}

// function adds a metered function to bodies.
func (w *writer) function(f body) {
	w.bodies = w.sized(w.bodies, func(b []byte) []byte { return w.body(b, f) })
}

func (w *writer) body(b []byte, f body) []byte {
	b = append(b, f.locals...)
	switch {
	case f.frame == 0 && f.free:
		return w.edited(b, f)
	case f.frame == 0:
		return w.edited(w.charge(b, f.costs[0]), f)
	}
	b = w.push(b, -f.frame)
	if !f.free {
		b = w.chargeCall(b, f.costs[0])
	}
	// Whichever way the function ends, it leaves this block.
	b = w.shape(append(b, opBlock), f.results)
	b = w.edited(b, f)
	return append(w.push(b, f.frame), opEnd)
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
	return signed(b, int64(w.typeLength()+1+n))
}

// edited appends a function's code with the edits done.
func (w *writer) edited(b []byte, f body) []byte {
	from := 0
	for _, e := range f.edits {
		b = append(b, f.code[from:e.at]...)
		from = e.at + e.old
		switch e.kind {
		case editChargeCall:
			if f.free && f.frame > 0 {
				b = w.chargeCall(b, f.costs[e.value])
				break
			}
			b = w.charge(b, f.costs[e.value])
		case editCharge:
			b = w.charge(b, f.costs[e.value])
		case editFunction:
			b = number(b, w.moved(e.value))
		case editMemoryCopy:
			b = call(b, w.helper(helperCopy))
		case editMemoryFill:
			b = call(b, w.helper(helperFill))
		case editMemoryInit:
			b = call(b, w.helper(w.init(e.value)))
		case editLength:
			b = call(b, w.helper(helperLength))
		case editReturn:
			if f.frame == 0 {
				b = append(b, opReturn)
			} else {
				b = number(append(b, opBr), e.value)
			}
		}
	}
	return append(b, f.code[from:]...)
}

// init is the helper for memory.init of a segment.
func (w *writer) init(segment int) int {
	which, known := w.initsOf[segment]
	if !known {
		if w.initsOf == nil {
			w.initsOf = map[int]int{}
		}
		which = helpers + len(w.inits)
		w.initsOf[segment] = which
		w.inits = append(w.inits, segment)
	}
	return which
}

// charge takes units from the fuel and asks for more when it is used up. The
// stack stays as it is.
func (w *writer) charge(b []byte, units int64) []byte {
	return w.askForFuel(w.spend(b, units))
}

// chargeCall is charge where the stack is looked at as well, which is before
// whatever calls.
func (w *writer) chargeCall(b []byte, units int64) []byte {
	b = w.spend(b, units)
	// One of them is negative if both together are.
	b = global(b, opGlobalGet, w.fuel())
	b = global(b, opGlobalGet, w.stack())
	return w.ask(append(b, 0x84)) // i64.or
}

func (w *writer) spend(b []byte, units int64) []byte {
	b = global(b, opGlobalGet, w.fuel())
	b = signed(append(b, opI64Const), -units)
	return global(append(b, 0x7c), opGlobalSet, w.fuel()) // i64.add
}

func (w *writer) askForFuel(b []byte) []byte {
	return w.ask(global(b, opGlobalGet, w.fuel()))
}

// ask calls for more fuel if the number on top of the stack is negative.
func (w *writer) ask(b []byte) []byte {
	b = append(b, opI64Const, 0, 0x53) // i64.lt_s
	b = append(b, opIf, 0x40)
	b = global(b, opGlobalGet, w.stack())
	b = call(b, w.refill())
	b = global(b, opGlobalSet, w.fuel())
	return append(b, opEnd)
}

// chargeLength charges for as many bytes as the local variable says.
func (w *writer) chargeLength(b []byte, local byte) []byte {
	b = global(b, opGlobalGet, w.fuel())
	b = append(b, opLocalGet, local, 0xad)       // i64.extend_i32_u
	b = append(b, opI64Const, lengthShift, 0x88) // i64.shr_u
	b = append(b, opI64Const, 1, 0x7c, 0x7d)     // i64.add, i64.sub
	return w.askForFuel(global(b, opGlobalSet, w.fuel()))
}

func (w *writer) lengthHelper(b []byte) []byte {
	b = append(b, 0)
	b = w.chargeLength(b, 0)
	return append(b, opLocalGet, 0, opEnd)
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
func (w *writer) step(b []byte) []byte { return w.charge(b, chunk>>lengthShift) }

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
	b = w.pieces(b, fillInstruction, 0)
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
	b = append(b, 0)
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
	b = w.pieces(b, copyInstruction, 0, 1)
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
	defer func() {
		if fault := recover(); fault != nil {
			if _, ok := fault.(*Error); !ok {
				panic(fault)
			}
			named = out
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
		list := number(nil, n)
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
		var content []byte
		content = name(content, "name")
		content = append(content, 1)
		content = number(content, len(list))
		content = append(content, list...)
		out = append(out, 0)
		out = number(out, len(content))
		return append(out, content...)
	}
	return out
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
