package module

// This file has guests of small memories mark what they write to: each store sets the
// bit of its granule in a global. Asking the kernel takes longer than many a small item
// does, and where there is none to ask, all of the memory must be compared.

const (
	// ExportMarks is a global of type i64 that the module has if Prepared.Granule is
	// not 0. A guest sets the bit of each granule that it writes to, and may have written
	// to MarkSlack bytes behind it, too. What the host writes it must add, and the marks
	// mean nothing once the memory has grown beyond 64 granules.
	ExportMarks = MeterModule + ".marks"
	// MarkSlack is as many bytes as the widest store may reach into the next granule.
	MarkSlack = 15
	// MarksUnknown says that the guest may have written to anything.
	MarksUnknown = 1<<64 - 1
)

const (
	marks       = 64
	granuleMost = 12 // as a power of two: 64 granules are 256 KiB
	granuleBest = 10
	// markedCode is how much code there may be, in bytes, in a module that marks: each
	// store becomes several instructions.
	markedCode = 128 << 10
)

// granule decides whether the module marks, and is the size of a granule as a power
// of two; 0 if it does not.
func (p *parser) granule() int {
	size := p.facts.MemoryMin * PageSize
	if p.prepare == nil || !p.facts.ownsMemory() || size > marks<<granuleMost || len(p.sections[10]) > markedCode {
		return 0
	}
	power := granuleBest
	for size > marks<<power {
		power++
	}
	return power
}

// store reads a store: an instruction whose value is of that type.
func (c *code) store(at int, value ValueType, offset int) {
	if c.p.power == 0 || !c.top().reached() {
		return
	}
	if len(c.body.kept) == 0 {
		c.body.kept = append(c.body.kept, I32)
	}
	which := 1
	for which < len(c.body.kept) && c.body.kept[which] != value {
		which++
	}
	if which == len(c.body.kept) {
		c.body.kept = append(c.body.kept, value)
	}
	c.edit(at, 0, editStore, which)
	c.edit(c.here(), 0, editMark, offset)
}

// keep takes the address of a store from below its value.
func (w *writer) keep(b []byte, f body, which int) []byte {
	address := len(f.variables)
	b = number(append(b, opLocalSet), address+which)
	b = number(append(b, opLocalTee), address)
	return number(append(b, opLocalGet), address+which)
}

// markStore marks where a store has written to. It did not trap, so its address is within
// the memory.
func (w *writer) markStore(b []byte, f body, offset int) []byte {
	b = append(global(b, opGlobalGet, w.marks()), opI64Const, 1)
	b = number(append(b, opLocalGet), len(f.variables))
	if offset > 0 {
		b = append(signed(append(b, opI32Const), int64(int32(uint32(offset)))), 0x6a) //nolint:gosec // i32.add of these 32 bits
	}
	b = append(w.bit(b), 0x84) // i64.or
	return global(b, opGlobalSet, w.marks())
}

// bit makes an address on the stack, with 1 below it, its granule's bit.
func (w *writer) bit(b []byte) []byte {
	b = signed(append(b, opI32Const), int64(w.p.power))
	return append(b, 0x76, 0xad, 0x86) // i32.shr_u, i64.extend_i32_u, i64.shl
}

// declared are the local variables of a function, with those that are added.
func (w *writer) declared(b []byte, f body) []byte {
	if len(f.kept) == 0 {
		return append(b, f.locals...)
	}
	r := &reader{buf: f.locals}
	n := r.u32()
	b = append(number(b, n+len(f.kept)), f.locals[r.at:]...)
	for _, t := range f.kept {
		b = append(b, 1, byte(t))
	}
	return b
}

// markRange marks what a bulk instruction writes to: from local variable 0, as much
// as local variable 2 says.
func (w *writer) markRange(b []byte) []byte {
	if w.p.power == 0 {
		return b
	}
	b = append(b, opLocalGet, 2)
	b = signed(append(b, opI32Const), 1<<w.p.power)
	b = append(b, 0x4d, opIf, byte(I64)) // i32.le_u
	b = global(b, opGlobalGet, w.marks())
	b = w.bit(append(b, opI64Const, 1, opLocalGet, 0))
	b = w.bit(append(b, opI64Const, 1, opLocalGet, 0, opLocalGet, 2, 0x6a, opI32Const, 1, 0x6b)) // its last byte
	b = append(b, 0x84, 0x84, opElse, opI64Const, 0x7f, opEnd)                                   // MarksUnknown
	return global(b, opGlobalSet, w.marks())
}
