package module

// This file reads function bodies: it checks every instruction as the
// specification says, the types on the stack and each index, before anything is
// inserted, because an index that is out of range could otherwise mean something
// that the rewriting adds, such as the counter of fuel. And it notes where what
// is to be inserted.

// An edit replaces old bytes at an offset of a body.
type edit struct {
	at, old int
	kind    editKind
	value   int
	bytes   []byte
}

type editKind byte

const (
	editSegment    editKind = iota // insert: the cost, value, of the straight stretch that follows
	editLoop                       // insert: the begin of a block around a loop, of type bytes
	editHead                       // insert: the head of such a loop, and a block in it; value is its region
	editHeadOnly                   // insert: the head of another loop; value is its region
	editHeadSwitch                 // insert: the head of a loop that is charged for where it is repeated
	editBack                       // insert: a charge before a branch to such a head; value is its region, bytes the label for when the fuel is used up
	editCold                       // insert: the end of the block in the loop, and what follows when the fuel is used up; value is the saver
	editLoopEnd                    // insert: the end of the block around the loop
	editBytes                      // replace: bytes
	editFunction                   // replace: the new index of a function
	editMemoryCopy                 // replace: a copy in pieces
	editMemoryFill                 // replace: a fill in pieces
	editMemoryInit                 // replace: an initialisation in pieces; value is the data segment
	editMemoryGrow                 // replace: growing, which is charged for
	editLength                     // insert: charge the length on top of the stack
	editVisit                      // insert: a visit to the host, whatever the fuel is
	editReturn                     // replace: leave the block that the function is put into; value is its label
	editTailCall                   // insert: the stack is given back, before a call that ends the function
	editStore                      // insert: the address of a store is kept, whose value is of type value
	editMark                       // insert: mark where that store, at offset value, has written to
	editTaint                      // insert: mark that a table or segment changes
)

// A body is a function that was read.
type body struct {
	locals  []byte // the declarations
	code    []byte // the instructions, with the last end
	at      int    // where code begins in the section of code
	edits   []edit // in order
	results []ValueType
	// calls of the guest's functions there are, and such without saying whom or
	// at the end
	calls, blind bool
	// weights has one entry a region: about how long it takes to get from one
	// charge to the next, at most. Region 0 is the function outside of loops, each
	// loop has its own.
	weights []int
	// variables are all local variables.
	variables []ValueType
	// kept are variables that are added behind those: the type of each. The first has
	// an address, the others values, one for each type.
	kept []ValueType
	// costs are what segments charge, by place, if the module is profiled.
	costs []Cost
}

// Weights in the deadline grade, in instructions.
const (
	weightHostCall = 50
	weightBulk     = 20
)

// maxLoops bounds how much longer than the module the rewritten one can be: of
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

// unknown is the type of what cannot be there, after a branch.
const unknown ValueType = 0

// code reads one function body whose signature is given.
type code struct {
	p      *parser
	r      *reader
	begin  int // of the instructions
	locals []ValueType
	body   body
	stack  []ValueType
	blocks []block // that are open, the function itself first
	// segment is the edit that charges for the straight stretch that is being
	// read, -1 where there is none.
	segment int
	at      int // the instruction that is being read
	total   int // blocks and branches, which make the engine's work
	targets int
	loops   int // that are open
	// cases is how many blocks open next that belong to switching, the loop that
	// opened last, and choice what was put into a local variable just now.
	cases     int
	switching *switching
	choice    choice
	// since is the weight of calls since the last visit to the host, in the order
	// of the text.
	since int
}

// weightVisit is how much may be called one after the other without a visit to
// the host: fuel is taken for all of it at once, where the stretch begins.
const weightVisit = 100_000

type block struct {
	op              byte
	params, results []ValueType
	height          int  // of the stack outside of the block
	dead            bool // what follows cannot be reached
	skipped         bool // neither can the block
	targeted        bool // something branches to its end
	region          int
	lift            int // blocks that were put around and into loops, of this block and those around it
	wrapped         bool
	saver           int        // the function that asks for fuel for a loop, -1 if it does so itself
	switching       *switching // what such a loop begins with; nil for others
	caseOf          *switching // the loop that begins with this block; nil for others
}

// reached reports whether what follows can be executed.
func (b *block) reached() bool { return !b.dead && !b.skipped }

// label is what a branch to the block takes from the stack.
func (b *block) label() []ValueType {
	if b.op == opLoop {
		return b.params
	}
	return b.results
}

func (p *parser) function(r *reader, signature Signature) body {
	start := r.position()
	begin := r.at
	locals := append(p.room.locals[:0], signature.Params...)
	for range r.count("groups of locals", 2, p.limits.Locals) {
		n := r.u32()
		t := r.valueType()
		if n > p.limits.Locals || len(locals)+n > p.limits.Locals+len(signature.Params) {
			fail(start, "function with more than %d local variables", p.limits.Locals)
		}
		for range n {
			locals = append(locals, t)
		}
	}
	c := &code{p: p, r: r, locals: locals, stack: p.room.stack[:0], segment: -1}
	c.body = body{
		locals: r.buf[begin:r.at], results: signature.Results, at: r.at + r.base - p.codeAt,
		edits: p.room.edits[:0], kept: p.room.kept[:0], weights: append(p.room.weights[:0], 1), variables: locals,
	}
	c.blocks = append(p.room.blocks[:0], block{op: opEnd, results: signature.Results})
	c.begin = r.at
	c.straight()
	for len(c.blocks) > 0 {
		c.instruction()
		if p.options.singly && len(c.blocks) > 0 {
			c.straight()
		}
	}
	if r.left() > 0 {
		fail(r.position(), "%d bytes after the end of a function", r.left())
	}
	if c.total*len(locals) > p.limits.LocalBlocks {
		fail(start, "function with %d local variables and %d branches, limit of their product %d", len(locals), c.total, p.limits.LocalBlocks)
	}
	if p.work += c.total * c.total; p.work > p.limits.Work {
		fail(start, "too many functions with many blocks and branches: the sum of their squares is more than %d", p.limits.Work)
	}
	c.body.code = r.buf[c.begin:r.at]
	p.room = room{locals, c.stack, c.blocks, c.body.edits, c.body.weights, c.body.kept}
	return c.body
}

// frame is about how many bytes of stack a call of the function takes. What
// calls nobody counts for nothing, since its calls cannot be many at a time.
func (b *body) frame() int {
	if !b.calls {
		return 0
	}
	return frameLeast + frameLocal*len(b.variables) + len(b.code)/frameCode
}

// room is memory that one function leaves to the next.
type room struct {
	locals, stack []ValueType
	blocks        []block
	edits         []edit
	weights       []int
	kept          []ValueType
}

func (c *code) here() int { return c.r.at - c.begin }

func (c *code) top() *block { return &c.blocks[len(c.blocks)-1] }

func (c *code) edit(at, old int, kind editKind, value int) {
	c.body.edits = append(c.body.edits, edit{at: at, old: old, kind: kind, value: value})
}

// replace puts bytes in the place of what was read since from.
func (c *code) replace(from int, bytes []byte) {
	c.body.edits = append(c.body.edits, edit{at: from, old: c.here() - from, kind: editBytes, bytes: bytes})
}

// spend adds to what the instruction costs and to how long it takes.
func (c *code) spend(cost, weight int) {
	if c.segment >= 0 {
		c.body.edits[c.segment].value += cost
		if c.p.options.Profile && cost > 0 {
			c.body.costs = append(c.body.costs, Cost{uint32(c.at), cost}) //nolint:gosec // less than 4 GiB
		}
	}
	c.body.weights[c.top().region] += weight
}

// straight begins a stretch of instructions that are executed one after the
// other, if at all. What comes before the next branch or end is part of it.
func (c *code) straight() {
	c.segment = -1
	if c.p.options.Grade == Exact && c.top().reached() {
		c.segment = len(c.body.edits)
		c.edit(c.here(), 0, editSegment, 0)
	}
}

// call is one of a function of the guest's.
func (c *code) call() {
	c.body.calls = true
}

// branch counts what makes the engine's work grow faster than the code.
func (c *code) branch() {
	if c.total++; c.total > c.p.limits.Branches {
		fail(c.r.position(), "function with more than %d blocks and branches", c.p.limits.Branches)
	}
}

func (c *code) push(types ...ValueType) { c.stack = append(c.stack, types...) }

// pop takes a value of a type from the stack; unknown takes any.
func (c *code) pop(want ValueType) ValueType {
	b := c.top()
	if len(c.stack) == b.height {
		if b.dead {
			return want
		}
		fail(c.r.position(), "an instruction lacks an operand")
	}
	have := c.stack[len(c.stack)-1]
	c.stack = c.stack[:len(c.stack)-1]
	if have != want && have != unknown && want != unknown {
		fail(c.r.position(), "an operand is %s instead of %s", have, want)
	}
	if have == unknown {
		return want
	}
	return have
}

func (c *code) popAll(types []ValueType) {
	for i := len(types) - 1; i >= 0; i-- {
		c.pop(types[i])
	}
}

// unreachable says that what follows in the block is not executed.
func (c *code) unreachable() {
	b := c.top()
	c.stack = c.stack[:b.height]
	b.dead = true
	c.segment = -1
}

func (c *code) shape(s shape) {
	c.popAll(s.params)
	c.push(s.results...)
}

// label reads the number of a block, and returns the block and the number that
// it has in the rewritten code.
func (c *code) label() (*block, int) {
	l := c.r.index("label", len(c.blocks))
	b := &c.blocks[len(c.blocks)-1-l]
	b.targeted = true
	lift := c.top().lift - b.lift
	if b.wrapped {
		lift++ // from within the block in the loop
	}
	return b, l + lift
}

// instruction reads one.
func (c *code) instruction() {
	r := c.r
	start := r.position()
	at := c.here()
	c.at = at
	op := r.byte()
	c.p.features |= opFeatures[op]
	if op != opMisc && op != opLoop {
		c.spend(cost(op), weight(op))
	}
	if s := &plainShapes[op]; s.known {
		offset := c.plain(op, at)
		if op >= opStore && op <= opStoreLast {
			c.store(at, s.params[1], offset)
		}
		c.shape(*s)
		return
	}
	switch op {
	case opUnreachable:
		c.unreachable()
	case opNop:
	case opBlock, opLoop, opIf:
		c.open(op, at)
	case opElse:
		c.otherwise()
	case opEnd:
		c.end()
	case opBr:
		c.branch()
		b := c.jump(at)
		c.popAll(b.label())
		c.unreachable()
	case opBrIf:
		c.branch()
		b := c.target()
		b.switching.spoil()
		c.pop(I32)
		c.popAll(b.label())
		c.push(b.label()...)
		c.straight()
	case opBrTable:
		c.branchTable()
	case opReturn:
		c.edit(at, 1, editReturn, len(c.blocks)-1+c.top().lift)
		c.popAll(c.body.results)
		c.unreachable()
	case opCall, opReturnCall:
		c.direct(op, at)
	case opCallIndirect, opReturnCallIn:
		signature := c.p.types[r.index("type", len(c.p.types))]
		if table := r.index("table", len(c.p.tables)); c.p.tables[table] != FuncRef {
			fail(start, "call through a table of %s", c.p.tables[table])
		}
		c.pop(I32)
		c.call()
		c.body.blind = true
		c.spend(0, weightIndirect)
		c.called(op, at, signature)
	case opDrop:
		c.pop(unknown)
	case opSelect:
		c.pop(I32)
		t := c.pop(unknown)
		u := c.pop(t)
		if isReference(t) || isReference(u) {
			fail(start, "select of %s must name the type", max(t, u))
		}
		c.push(u)
	case opSelectTyped:
		if n := r.count("types of select", 1, 1); n != 1 {
			fail(start, "select of %d types", n)
		}
		t := r.valueType()
		c.pop(I32)
		c.pop(t)
		c.pop(t)
		c.push(t)
	case opLocalGet:
		c.push(c.locals[r.index("local variable", len(c.locals))])
	case opLocalSet:
		l := r.index("local variable", len(c.locals))
		c.pop(c.locals[l])
		c.chosen(at, l)
	case opLocalTee:
		t := c.locals[r.index("local variable", len(c.locals))]
		c.pop(t)
		c.push(t)
	case opGlobalGet:
		c.push(c.p.globals[r.index("global", len(c.p.globals))].kind)
	case opGlobalSet:
		g := c.p.globals[r.index("global", len(c.p.globals))]
		if !g.mutable {
			fail(start, "a constant global is set")
		}
		c.pop(g.kind)
	case opTableGet:
		t := c.p.tables[r.index("table", len(c.p.tables))]
		c.pop(I32)
		c.push(t)
	case opTableSet:
		c.taint(at)
		c.pop(c.p.tables[r.index("table", len(c.p.tables))])
		c.pop(I32)
	case opRefNull:
		c.push(r.referenceType("null reference"))
	case opRefIsNull:
		if t := c.pop(unknown); t != unknown && !isReference(t) {
			fail(start, "an operand is %s instead of a reference", t)
		}
		c.push(I32)
	case opRefFunc:
		f := c.functionIndex()
		if !c.p.referred[f] {
			fail(start, "reference to function %d, which is declared nowhere", f)
		}
		c.push(FuncRef)
	case opMisc:
		c.misc(at)
	case opVector:
		c.vector(at, start)
	case opAtomic:
		fail(start, "instruction of the threads proposal; threads are not offered")
	case 0x06, 0x07, 0x08, 0x09, 0x0a, 0x18, 0x19, 0x1f:
		fail(start, "instruction of the exceptions proposal (0x%02x), which is not offered: build without exceptions", op)
	case 0x14, 0x15, 0xd3, 0xd4, 0xd5, 0xd6:
		fail(start, "instruction of the typed references proposal (0x%02x), which is not offered", op)
	case 0xfb:
		fail(start, "instruction of the garbage collection proposal, which is not offered")
	default:
		fail(start, "unknown instruction 0x%02x", op)
	}
}

// plain reads the operands of an instruction whose types are always the same, and
// returns the offset of one that accesses memory.
func (c *code) plain(op byte, at int) (offset int) {
	switch {
	case op < opMemorySize:
		offset = c.memoryArgument(int(alignments[op-opLoad]))
	case op <= opMemoryGrow:
		c.memoryIndex()
		if op == opMemoryGrow {
			c.edit(at, c.here()-at, editMemoryGrow, 0)
		}
	case op == opI32Const:
		c.r.signed(32)
		c.choice = choice{value: c.r.buf[c.begin+at+1 : c.r.at], variable: -1, end: c.here()}
	case op == opI64Const:
		c.r.signed(64)
	case op == opF32Const:
		c.r.bytes(4)
	case op == opF64Const:
		c.r.bytes(8)
	}
	return offset
}

// blockType reads what a block takes and leaves.
func (c *code) blockType() (params, results []ValueType) {
	r := c.r
	start := r.position()
	// It is a single negative byte, or the number of a type.
	switch t := ValueType(r.peek()); t {
	case 0x40:
		r.byte()
		return nil, nil
	case I32, I64, F32, F64, V128, FuncRef, ExternRef:
		from := r.at
		r.byte()
		return nil, c.p.single(r.buf[from])
	default:
		if t&0xc0 == 0x40 {
			fail(start, "block of an unknown type 0x%02x", byte(t))
		}
	}
	signature := c.p.types[r.index("type", len(c.p.types))]
	// The number is a signed one. A longer form of the single bytes above
	// is none to the specification, but is to wazero.
	if r.buf[r.at-1]&0x40 != 0 {
		fail(start, "block of an unknown type")
	}
	return signature.Params, signature.Results
}

// singles are the value types, each as a list of one.
var singles = [...][]ValueType{{I32}, {I64}, {F32}, {F64}, {V128}, {FuncRef}, {ExternRef}}

func (p *parser) single(t byte) []ValueType {
	for _, one := range singles {
		if one[0] == ValueType(t) {
			return one
		}
	}
	return nil
}

func (c *code) open(op byte, at int) {
	start := c.r.position()
	params, results := c.blockType()
	c.branch()
	if len(c.blocks) > c.p.limits.Nesting {
		fail(start, "blocks nested more than %d deep", c.p.limits.Nesting)
	}
	around := c.top()
	b := block{
		op: op, params: params, results: results, skipped: !around.reached(),
		region: around.region, lift: around.lift,
	}
	if op == opIf {
		c.pop(I32)
	}
	c.popAll(params)
	b.height = len(c.stack)
	if op == opLoop {
		if c.p.loops++; c.p.loops > maxLoops {
			fail(start, "more than %d loops", maxLoops)
		}
		if c.loops++; c.loops > c.p.limits.LoopNesting {
			fail(start, "loops nested more than %d deep", c.p.limits.LoopNesting)
		}
		b.region = len(c.body.weights)
		c.body.weights = append(c.body.weights, 1)
		c.branch()
		b.saver = -1
		if !b.skipped && len(params) == 0 {
			b.saver = c.p.saver(c.locals)
		}
		switch {
		case b.skipped:
		case b.saver >= 0:
			b.lift += 2
			b.wrapped = true
			kind := c.r.buf[c.begin+at+1 : c.r.at]
			c.body.edits = append(c.body.edits, edit{at: at, kind: editLoop, bytes: kind})
			if b.switching = c.switches(results); b.switching.sound() {
				c.edit(c.here(), 0, editHeadSwitch, 0)
			} else {
				c.edit(c.here(), 0, editHead, b.region)
			}
		default:
			c.edit(c.here(), 0, editHeadOnly, b.region)
		}
	}
	if op == opBlock && c.cases > 0 { // one after the other, none between
		c.cases--
		b.caseOf = c.switching
	}
	c.blocks = append(c.blocks, b)
	c.push(params...)
	if op != opBlock {
		c.straight()
	}
}

func (c *code) otherwise() {
	b := c.top()
	if b.op != opIf {
		fail(c.r.position(), "else without if")
	}
	c.close(b)
	b.op, b.dead = opElse, false
	c.push(b.params...)
	c.straight()
}

// close checks that a block leaves what it says, and takes it from the stack.
func (c *code) close(b *block) {
	c.popAll(b.results)
	if len(c.stack) != b.height {
		fail(c.r.position(), "a block leaves %d values too many", len(c.stack)-b.height)
	}
}

func (c *code) end() {
	b := *c.top()
	c.close(&b)
	if b.op == opIf && !same(b.params, b.results) {
		fail(c.r.position(), "if without else changes the stack")
	}
	if b.op == opLoop {
		c.loops--
	}
	if b.caseOf != nil {
		b.caseOf.closed++
	}
	if b.switching != nil {
		c.endSwitch(&b)
	}
	if b.wrapped {
		c.edit(c.here()-1, 0, editCold, b.saver)
		c.edit(c.here(), 0, editLoopEnd, 0)
	}
	c.blocks = c.blocks[:len(c.blocks)-1]
	if len(c.blocks) == 0 {
		return
	}
	c.push(b.results...)
	// Behind a loop, and behind a block that nothing branches out of, the straight
	// stretch goes on.
	if b.op == opIf || b.op == opElse || b.targeted && b.op != opLoop || b.dead {
		c.straight()
	}
}

func same(a, b []ValueType) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// target is the label of a branch.
func (c *code) target() *block {
	from := c.here()
	b, l := c.label()
	if c.top().lift > 0 {
		c.replace(from, number(nil, l))
	}
	return b
}

func (c *code) branchTable() {
	r := c.r
	start := r.position()
	from := c.here()
	n := r.count("targets of br_table", 1, c.p.limits.BranchTargets)
	c.targets += n
	if c.p.targets += n; c.targets > c.p.limits.BranchTargets || c.p.targets > 256*c.p.limits.BranchTargets {
		fail(start, "too many targets of br_table, limit %d in a function and %d in a module", c.p.limits.BranchTargets, 256*c.p.limits.BranchTargets)
	}
	c.branch()
	c.pop(I32)
	lifted := c.top().lift > 0
	var table []byte
	if lifted {
		table = number(nil, n)
	}
	arity := -1
	for range n + 1 {
		b, l := c.label()
		b.switching.spoil()
		if lifted {
			table = number(table, l)
		}
		types := b.label()
		if arity >= 0 && arity != len(types) {
			fail(start, "targets of br_table take %d and %d values", arity, len(types))
		}
		arity = len(types)
		c.holds(types)
	}
	if lifted {
		c.replace(from, table)
	}
	c.unreachable()
}

// holds checks what is on top of the stack without taking it.
func (c *code) holds(types []ValueType) {
	n := min(len(types), len(c.stack)-c.top().height)
	top := len(c.stack) - n
	saved := append(make([]ValueType, 0, 8), c.stack[top:]...)
	c.popAll(types)
	c.stack = append(c.stack[:top], saved...)
}

// functionIndex reads one and notes that it will be another.
func (c *code) functionIndex() int {
	from := c.here()
	f := c.r.index("function", len(c.p.functions))
	if f >= c.p.imported {
		c.edit(from, c.here()-from, editFunction, f)
	}
	return f
}

func (c *code) direct(op byte, at int) {
	f := c.r.index("function", len(c.p.functions))
	if f >= c.p.imported {
		c.call()
		weight := c.p.calls(f - c.p.imported)
		c.spend(0, weight)
		if c.since += weight; c.since > weightVisit {
			c.since = 0
			c.edit(at, 0, editVisit, 0)
		}
	} else {
		c.spend(costHostCall, weightHostCall)
		if op == opReturnCall {
			c.call() // ends as an ordinary one with us
		}
	}
	c.called(op, at, c.p.types[c.p.functions[f]])
}

// called is the end of a call: its types, and its new form.
func (c *code) called(op byte, at int, signature Signature) {
	from := at + 1
	operands := c.r.buf[c.begin+from : c.r.at]
	direct := op == opCall || op == opReturnCall
	f := 0
	if direct {
		f = (&reader{buf: operands}).u32()
	}
	c.popAll(signature.Params)
	if op == opCall || op == opCallIndirect {
		if direct && f >= c.p.imported {
			c.edit(from, c.here()-from, editFunction, f)
		}
		c.push(signature.Results...)
		return
	}
	c.body.blind = true
	if !same(signature.Results, c.body.results) {
		fail(c.r.position(), "a call that ends the function returns %s instead of %s", list(signature.Results), list(c.body.results))
	}
	switch proper := inRegisters(signature); {
	case proper && (!direct || f >= c.p.imported):
		c.edit(at, 0, editTailCall, 0)
	default:
		// The engine makes it an ordinary call, which takes stack: so do we.
		c.body.edits = append(c.body.edits, edit{at: at, old: 1, kind: editBytes, bytes: []byte{op - opReturnCall + opCall}})
	}
	if direct && f >= c.p.imported {
		c.edit(from, c.here()-from, editFunction, f)
	}
	if !inRegisters(signature) || direct && f < c.p.imported {
		c.edit(c.here(), 0, editReturn, len(c.blocks)-1+c.top().lift)
	}
	c.unreachable()
}

// inRegisters reports whether parameters and results surely are in registers
// with the engine, whatever the processor. If not, its tail calls take stack.
func inRegisters(s Signature) bool {
	for _, types := range [][]ValueType{s.Params, s.Results} {
		integers, others := 0, 0
		for _, t := range types {
			if t == F32 || t == F64 || t == V128 {
				others++
			} else {
				integers++
			}
		}
		if integers > 5 || others > 7 {
			return false
		}
	}
	return true
}

func (c *code) memoryArgument(natural int) (offset int) {
	start := c.r.position()
	if align := c.r.u32(); align > natural {
		fail(start, "memory access with alignment %d, at most %d is possible", align, natural)
	}
	offset = c.r.u32()
	if c.p.memories == 0 {
		fail(start, "memory access in a module without memory")
	}
	return offset
}

func (c *code) memoryIndex() {
	start := c.r.position()
	if c.r.byte() != 0 || c.p.memories == 0 {
		fail(start, "use of a memory that the module does not have")
	}
}

// taint marks an instruction after which an instance cannot be put back.
func (c *code) taint(at int) {
	if prepare := c.p.prepare; prepare != nil {
		prepare.taints = true
		c.edit(at, 0, editTaint, 0)
	}
}

func (c *code) dataIndex() int {
	if prepare := c.p.prepare; prepare != nil {
		prepare.usesData = true
	}
	if c.p.declared < 0 {
		fail(c.r.position(), "use of a data segment without the section that counts them")
	}
	return c.r.index("data segment", c.p.declared)
}

func (c *code) tableIndex() ValueType { return c.p.tables[c.r.index("table", len(c.p.tables))] }

func (c *code) elementIndex() ValueType {
	return c.p.elements[c.r.index("element segment", len(c.p.elements))]
}

func (c *code) misc(at int) {
	r := c.r
	start := r.position()
	op := r.u32()
	c.p.features.misc(op)
	switch {
	case op < miscMemoryInit:
		c.spend(1, 1)
	case op == miscTableGrow:
		c.spend(costGrow, costGrow)
	case op == miscTableSize:
		c.spend(1, 1)
	default:
		c.spend(costBulk, weightBulk)
	}
	switch op {
	case 0, 1, 2, 3, 4, 5, 6, 7: // saturating conversions
	case miscMemoryInit:
		segment := c.dataIndex()
		c.memoryIndex()
		c.edit(at, c.here()-at, editMemoryInit, segment)
	case miscDataDrop:
		c.dataIndex()
		c.taint(at)
	case miscMemoryCopy:
		c.memoryIndex()
		c.memoryIndex()
		c.edit(at, c.here()-at, editMemoryCopy, 0)
	case miscMemoryFill:
		c.memoryIndex()
		c.edit(at, c.here()-at, editMemoryFill, 0)
	case miscTableInit:
		elements, table := c.elementIndex(), c.tableIndex()
		if elements != table {
			fail(start, "table of %s initialised from %s", table, elements)
		}
		c.taint(at)
		c.edit(at, 0, editLength, 0)
	case miscElemDrop:
		c.elementIndex()
		c.taint(at)
	case miscTableCopy:
		to, from := c.tableIndex(), c.tableIndex()
		if to != from {
			fail(start, "table of %s copied from one of %s", to, from)
		}
		c.taint(at)
		c.edit(at, 0, editLength, 0)
	case miscTableGrow:
		table := c.tableIndex()
		c.taint(at)
		c.edit(at, 0, editLength, 0)
		c.pop(I32)
		c.pop(table)
		c.push(I32)
		return
	case miscTableFill:
		table := c.tableIndex()
		c.taint(at)
		c.edit(at, 0, editLength, 0)
		c.pop(I32)
		c.pop(table)
		c.pop(I32)
		return
	case miscTableSize:
		c.tableIndex()
	default:
		fail(start, "unknown instruction 0xfc %d", op)
	}
	c.shape(miscShapes[op])
}

func (c *code) vector(at, start int) {
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
	if !vectorShapes[op].known {
		fail(start, "unknown vector instruction %d", op)
	}
	lane := func(n int) {
		if r.byte() >= byte(n) {
			fail(start, "a vector has no such lane")
		}
	}
	switch {
	case op == vectorStore:
		c.store(at, V128, c.memoryArgument(vectorAlignment(op)))
	case op < vectorStore || op >= vectorLoadZero && op <= vectorZeroLast:
		c.memoryArgument(vectorAlignment(op))
	case op == vectorConst:
		r.bytes(16)
	case op == vectorShuffle:
		for range 16 {
			lane(32)
		}
	case op >= vectorLane && op <= vectorLaneLast:
		lane(lanes(op))
	case op >= vectorLoadLane && op <= vectorLaneEnd:
		offset := c.memoryArgument(vectorAlignment(op))
		lane(lanes(op))
		if op >= vectorStoreLane {
			c.store(at, V128, offset)
		}
	}
	c.shape(vectorShapes[op])
}

func isReference(t ValueType) bool { return t == FuncRef || t == ExternRef }

func (r *reader) peek() byte {
	b := r.byte()
	r.at--
	return b
}

// referenceType reads a type of references, for what.
func (r *reader) referenceType(what string) ValueType {
	start := r.position()
	t := r.valueType()
	if !isReference(t) {
		fail(start, "%s of %s", what, t)
	}
	return t
}

// signed skips a signed LEB128 number of so many bits.
func (r *reader) signed(bits int) {
	start := r.position()
	for i := 0; ; i++ {
		b := r.byte()
		if b < 0x80 {
			// What is left of the last byte is the sign, over and over.
			if rest := bits - 7*i; rest < 7 {
				if high := int8(b<<1) >> rest; high != 0 && high != -1 { //nolint:gosec // the sign is wanted
					fail(start, "a number of more than %d bits", bits)
				}
			}
			return
		}
		if 7*(i+1) >= bits {
			fail(start, "a number that is too long")
		}
	}
}
