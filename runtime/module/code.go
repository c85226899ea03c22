package module

// This file decodes function bodies: every instruction of WebAssembly 2.0 and
// tail calls. It checks every index against what the module has, before
// anything is inserted: an index that is out of range could otherwise mean
// something that the rewriting adds, such as the counter of fuel.

// Instructions that need more than their length.
const (
	opBlock        = 0x02
	opLoop         = 0x03
	opIf           = 0x04
	opElse         = 0x05
	opEnd          = 0x0b
	opBr           = 0x0c
	opBrIf         = 0x0d
	opBrTable      = 0x0e
	opReturn       = 0x0f
	opCall         = 0x10
	opCallIndirect = 0x11
	opReturnCall   = 0x12
	opReturnCallIn = 0x13
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opRefNull      = 0xd0
	opRefIsNull    = 0xd1
	opRefFunc      = 0xd2
	opMisc         = 0xfc
	opVector       = 0xfd
	opAtomic       = 0xfe
)

// Instructions after opMisc.
const (
	miscMemoryInit = 8
	miscDataDrop   = 9
	miscMemoryCopy = 10
	miscMemoryFill = 11
	miscTableInit  = 12
	miscElemDrop   = 13
	miscTableCopy  = 14
	miscTableGrow  = 15
	miscTableSize  = 16
	miscTableFill  = 17
)

// An edit replaces old bytes at an offset of a body.
type edit struct {
	at, old int
	kind    editKind
	value   int // a region, the index of a function or data segment, or a label
}

type editKind byte

const (
	editCharge     editKind = iota // insert: charge the region's cost
	editChargeCall                 // insert: the same at a loop that is in no other
	editFunction                   // replace: the new index of a function
	editMemoryCopy                 // replace: a copy in pieces
	editMemoryFill                 // replace: a fill in pieces
	editMemoryInit                 // replace: an initialisation in pieces
	editLength                     // insert: charge the length on top of the stack
	editReturn                     // replace: leave the block that the function is put into
)

// A body is a function that was decoded.
type body struct {
	locals []byte // the declarations
	code   []byte // the instructions, with the last end
	edits  []edit // in order
	// frame is about how many bytes of stack a call takes; 0 for a function that
	// calls none of the guest's, whose calls cannot be many at a time.
	frame   int
	results []ValueType
	// free functions are not charged at their entry: outside of their loops they
	// do next to nothing, and call nothing of the guest's.
	free bool
	// costs has one entry a region: what is executed between two charges, at
	// most. Region 0 is the function outside of loops, each loop has its own.
	costs []int64
}

// Costs of instructions that take much longer than others, in instructions. A
// call stands for what the function does for free, too.
const (
	costCall     = 8
	costFree     = 40 // at most, of a function without charge at its entry
	costHostCall = 40
	costGrow     = 400
	costBulk     = 20
)

// maxLoops bounds how much longer than the module the metered one can be: of
// what is in it, nothing grows more than a loop.
const maxLoops = 1_000_000

// What a call takes of the stack, in bytes: the least, and for each local
// variable; and one for so many bytes of code, which stands for values that are
// kept while others are computed.
const (
	frameLeast = 128
	frameLocal = 8
	frameCode  = 8
)

// code decodes one function body whose signature is given.
type code struct {
	p      *parser
	r      *reader
	locals int
	body   body
	// blocks are open, the function itself first; each knows its region.
	blocks  []block
	total   int // blocks and branches, which make the engine's work
	targets int
	// calls of the guest's functions there are, and outside of loops
	calls, callsOutside bool
}

type block struct {
	op     byte
	region int
}

func (p *parser) function(r *reader, signature Signature) body {
	start := r.position()
	begin := r.at
	locals := len(signature.Params)
	for range r.count("groups of locals", 2, p.limits.Locals) {
		n := r.u32()
		r.valueType()
		if n > p.limits.Locals || locals+n > p.limits.Locals+len(signature.Params) {
			fail(start, "function with more than %d local variables", p.limits.Locals)
		}
		locals += n
	}
	c := &code{p: p, r: r, locals: locals}
	c.body.edits, c.body.costs = p.meter.edits[:0], p.meter.costs[:0]
	c.body.locals = r.buf[begin:r.at]
	c.body.costs = append(c.body.costs, 1)
	c.blocks = []block{{op: opEnd}}
	begin = r.at
	for len(c.blocks) > 0 {
		c.instruction(r.at - begin)
	}
	if r.left() > 0 {
		fail(r.position(), "%d bytes after the end of a function", r.left())
	}
	if c.total*locals > p.limits.LocalBlocks {
		fail(start, "function with %d local variables and %d branches, limit of their product %d", locals, c.total, p.limits.LocalBlocks)
	}
	c.body.code = r.buf[begin:r.at]
	c.body.results = signature.Results
	if c.calls {
		c.body.frame = frameLeast + frameLocal*locals + len(c.body.code)/frameCode
	}
	c.body.free = !c.callsOutside && c.body.costs[0] <= costFree
	p.meter.edits, p.meter.costs = c.body.edits, c.body.costs
	return c.body
}

func (c *code) edit(at, old int, kind editKind, value int) {
	c.body.edits = append(c.body.edits, edit{at, old, kind, value})
}

func (c *code) spend(n int64) {
	c.body.costs[c.blocks[len(c.blocks)-1].region] += n
}

// outside reports whether no loop is around.
func (c *code) outside() bool { return c.blocks[len(c.blocks)-1].region == 0 }

// call is one of a function of the guest's.
func (c *code) call() {
	c.calls = true
	c.callsOutside = c.callsOutside || c.outside()
	c.spend(costCall)
}

// branch counts what makes the engine's work grow faster than the code.
func (c *code) branch() {
	if c.total++; c.total > c.p.limits.Branches {
		fail(c.r.position(), "function with more than %d blocks and branches", c.p.limits.Branches)
	}
}

func (c *code) label() { c.r.index("label", len(c.blocks)) }

// instruction decodes one; at is where it begins in the code.
func (c *code) instruction(at int) {
	r := c.r
	start := r.position()
	op := r.byte()
	c.spend(1)
	here := func() int { return at + r.position() - start }
	switch {
	case op == opBlock || op == opLoop || op == opIf:
		outside := c.outside()
		c.open(op)
		switch {
		case op == opLoop && outside:
			c.edit(here(), 0, editChargeCall, c.blocks[len(c.blocks)-1].region)
		case op == opLoop:
			c.edit(here(), 0, editCharge, c.blocks[len(c.blocks)-1].region)
		}
	case op == opElse:
		if top := &c.blocks[len(c.blocks)-1]; top.op != opIf {
			fail(start, "else without if")
		} else {
			top.op = opElse
		}
	case op == opEnd:
		c.blocks = c.blocks[:len(c.blocks)-1]
	case op == opBr || op == opBrIf:
		c.branch()
		c.label()
	case op == opBrTable:
		c.branchTable()
	case op == opCall || op == opReturnCall || op == opRefFunc:
		from := here()
		f := r.index("function", len(c.p.functions))
		if f >= c.p.imported {
			c.edit(from, here()-from, editFunction, f)
		}
		switch {
		case op == opRefFunc:
		case f < c.p.imported:
			c.spend(costHostCall)
		default:
			c.call()
		}
	case op == opCallIndirect || op == opReturnCallIn:
		r.index("type", len(c.p.types))
		r.index("table", c.p.tables)
		c.call()
	case op == opSelectTyped:
		for range r.count("types of select", 1, 1) {
			r.valueType()
		}
	case op >= opLocalGet && op <= opLocalTee:
		r.index("local variable", c.locals)
	case op == opGlobalGet || op == opGlobalSet:
		r.index("global", c.p.globals)
	case op == opTableGet || op == opTableSet:
		r.index("table", c.p.tables)
	case op >= 0x28 && op <= 0x3e:
		c.memoryArgument()
	case op == opMemorySize || op == opMemoryGrow:
		c.memoryIndex()
		if op == opMemoryGrow {
			c.spend(costGrow)
		}
	case op == opI32Const:
		r.signed(5)
	case op == opI64Const:
		r.signed(10)
	case op == opF32Const:
		r.bytes(4)
	case op == opF64Const:
		r.bytes(8)
	case op == opRefNull:
		if t := r.valueType(); t != FuncRef && t != ExternRef {
			fail(start, "null reference of %s", t)
		}
	case op == opMisc:
		c.misc(at, here)
	case op == opVector:
		c.vector(start)
	case op == opAtomic:
		fail(start, "instruction of the threads proposal; threads are not offered")
	case op == 0x06 || op == 0x07 || op == 0x08 || op == 0x09 || op == 0x0a || op == 0x18 || op == 0x19 || op == 0x1f:
		fail(start, "instruction of the exceptions proposal (0x%02x), which is not offered", op)
	case op == opReturn:
		c.edit(at, 1, editReturn, len(c.blocks)-1)
	case op <= 0x01 || op == 0x1a || op == 0x1b || op >= 0x45 && op <= 0xc4 || op == opRefIsNull:
		// no operands
	default:
		fail(start, "unknown instruction 0x%02x", op)
	}
}

func (c *code) open(op byte) {
	r := c.r
	start := r.position()
	// A block's type is a single negative byte, or the number of a type.
	switch t := r.peek(); t {
	case 0x40, byte(I32), byte(I64), byte(F32), byte(F64), byte(V128), byte(FuncRef), byte(ExternRef):
		r.byte()
	default:
		if t&0xc0 == 0x40 {
			fail(start, "block of an unknown type 0x%02x", t)
		}
		r.index("type", len(c.p.types))
		// The number is a signed one. A longer form of the single bytes above
		// is none to the specification, but is to wazero.
		if r.buf[r.at-1]&0x40 != 0 {
			fail(start, "block of an unknown type")
		}
	}
	c.branch()
	if len(c.blocks) > c.p.limits.Nesting {
		fail(start, "blocks nested more than %d deep", c.p.limits.Nesting)
	}
	region := c.blocks[len(c.blocks)-1].region
	if op == opLoop {
		if c.p.loops++; c.p.loops > maxLoops {
			fail(start, "more than %d loops", maxLoops)
		}
		region = len(c.body.costs)
		c.body.costs = append(c.body.costs, 1)
	}
	c.blocks = append(c.blocks, block{op, region})
}

func (c *code) branchTable() {
	r := c.r
	start := r.position()
	n := r.count("targets of br_table", 1, c.p.limits.BranchTargets)
	c.targets += n
	if c.p.targets += n; c.targets > c.p.limits.BranchTargets || c.p.targets > 32*c.p.limits.BranchTargets {
		fail(start, "too many targets of br_table, limit %d in a function and %d in a module", c.p.limits.BranchTargets, 32*c.p.limits.BranchTargets)
	}
	c.branch()
	for range n + 1 {
		c.label()
	}
}

func (c *code) memoryArgument() {
	start := c.r.position()
	if align := c.r.u32(); align > 4 {
		fail(start, "memory access with alignment %d", align)
	}
	c.r.u32()
	if c.p.memories == 0 {
		fail(start, "memory access in a module without memory")
	}
}

func (c *code) memoryIndex() {
	start := c.r.position()
	if c.r.byte() != 0 || c.p.memories == 0 {
		fail(start, "use of a memory that the module does not have")
	}
}

func (c *code) dataIndex() int {
	if c.p.declared < 0 {
		fail(c.r.position(), "use of a data segment without the section that counts them")
	}
	return c.r.index("data segment", c.p.declared)
}

func (c *code) misc(at int, here func() int) {
	r := c.r
	start := r.position()
	op := r.u32()
	if op >= miscMemoryInit {
		c.spend(costBulk)
	}
	switch op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
	case miscMemoryInit:
		segment := c.dataIndex()
		c.memoryIndex()
		c.edit(at, here()-at, editMemoryInit, segment)
	case miscDataDrop:
		c.dataIndex()
	case miscMemoryCopy:
		c.memoryIndex()
		c.memoryIndex()
		c.edit(at, here()-at, editMemoryCopy, 0)
	case miscMemoryFill:
		c.memoryIndex()
		c.edit(at, here()-at, editMemoryFill, 0)
	case miscTableInit:
		r.index("element segment", c.p.elements)
		r.index("table", c.p.tables)
		c.edit(at, 0, editLength, 0)
	case miscElemDrop:
		r.index("element segment", c.p.elements)
	case miscTableCopy:
		r.index("table", c.p.tables)
		r.index("table", c.p.tables)
		c.edit(at, 0, editLength, 0)
	case miscTableGrow, miscTableFill:
		r.index("table", c.p.tables)
		c.edit(at, 0, editLength, 0)
	case miscTableSize:
		r.index("table", c.p.tables)
	default:
		fail(start, "unknown instruction 0xfc %d", op)
	}
}

func (c *code) vector(start int) {
	r := c.r
	// wazero reads these numbers as one byte, whatever they are. It gets along
	// with the second byte of the proper form of the upper half, 1, since that
	// is the number of nop. Any longer form it takes for other instructions
	// than it stands for: what is the content of a constant here would be
	// executed there.
	op := int(r.byte())
	if op >= 0x80 && r.byte() != 1 {
		fail(start, "vector instruction in an unknown form")
	}
	switch {
	case op <= 11 || op == 92 || op == 93: // loads and stores
		c.memoryArgument()
	case op == 12 || op == 13: // a constant, a shuffle
		r.bytes(16)
	case op >= 21 && op <= 34: // a lane
		r.byte()
	case op >= 84 && op <= 91: // loads and stores of a lane
		c.memoryArgument()
		r.byte()
	}
}

func (r *reader) peek() byte {
	b := r.byte()
	r.at--
	return b
}

// signed skips a signed LEB128 number of at most n bytes.
func (r *reader) signed(n int) {
	start := r.position()
	for i := 0; ; i++ {
		if i == n {
			fail(start, "a number that is too long")
		}
		if r.byte() < 0x80 {
			return
		}
	}
}
