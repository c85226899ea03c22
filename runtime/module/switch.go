package module

// This file knows loops that switch. WebAssembly has no jumps to just anywhere, so
// compilers whose code has them, and Go's is the foremost, put a function into a
// loop that begins with as many blocks as there are places to go to, and with a
// br_table that leaves one of them:
//
//	loop
//	  block block block
//	    local.get $place
//	    br_table 0 1 2
//	  end
//	  …
//	  i32.const 2
//	  local.set $place
//	  br to the loop
//
// Most jumps go forward, out of a block that is still open. Such a jump is made a
// branch there and then: it need not go by the br_table, and cannot repeat
// anything, so nothing is charged for it. Only those that go back are, where they
// are. With that metered code is often faster than it was.

// A switching is the beginning of such a loop.
type switching struct {
	loop     int // its block's place among those that are open
	cases    int // blocks
	variable int // that chooses
	targets  []int
	// plain is true if nothing but br has led to the loop, so far, or, in the second
	// reading, at all. number is that of the loop among those that switch.
	plain  bool
	number int
}

// sound reports whether the loop can be charged for where it is repeated.
func (s *switching) sound() bool { return s != nil && s.plain }

// spoil notes a branch that may lead to the loop or not.
func (s *switching) spoil() {
	if s != nil {
		s.plain = false
	}
}

// A choice is a constant that was put into a local variable.
type choice struct {
	value    []byte // as it is encoded
	variable int    // -1 for none yet
	end      int    // where the instruction after it is
}

// chosen notes that a local variable is set by the instruction at a place.
func (c *code) chosen(at, variable int) {
	if c.choice.end == at && c.choice.variable < 0 {
		c.choice.variable, c.choice.end = variable, c.here()
	}
}

// switches looks ahead whether the loop that opens is one that switches. What
// follows has not been checked yet.
func (c *code) switches(results []ValueType) *switching {
	if c.p.options.Grade != Deadline || len(results) > 0 {
		return nil
	}
	s := &switching{loop: len(c.blocks), plain: true}
	r := *c.r
	number := func() int {
		n := 0
		for shift := 0; r.left() > 0 && shift < 35; shift += 7 {
			b := r.byte()
			if n |= int(b&0x7f) << shift; b < 0x80 {
				return n
			}
		}
		return -1
	}
	for r.left() >= 2 && r.buf[r.at] == opBlock && r.buf[r.at+1] == 0x40 {
		r.at += 2
		s.cases++
	}
	if s.cases == 0 || r.left() == 0 || r.byte() != opLocalGet {
		return nil
	}
	if s.variable = number(); s.variable < 0 || r.left() == 0 || r.byte() != opBrTable {
		return nil
	}
	n := number()
	if n < 0 || n > c.p.limits.BranchTargets || n > r.left() {
		return nil
	}
	s.targets = make([]int, n+1)
	for i := range s.targets {
		if s.targets[i] = number(); s.targets[i] < 0 {
			return nil
		}
	}
	s.number = c.p.switches
	c.p.switches++
	if c.p.plan == nil {
		c.p.plain = append(c.p.plain, false)
	} else {
		s.plain = c.p.plain[s.number]
	}
	c.cases, c.switching = s.cases, s
	return s
}

// destination is the block that a branch to the loop will leave, nil if that is
// not known or it is closed already. Where the branch is the variable has just been
// set.
func (c *code) destination(s *switching, at int) (*block, int) {
	if c.choice.end != at || c.choice.variable != s.variable {
		return nil, 0
	}
	chosen := c.choice.unsigned()
	target := s.targets[min(chosen, len(s.targets)-1)]
	place := s.loop + s.cases - target
	if target >= s.cases || place >= len(c.blocks) || c.blocks[place].caseOf != s {
		return nil, 0
	}
	return &c.blocks[place], place
}

// unsigned is the value as br_table sees it.
func (c *choice) unsigned() int {
	v, shift := int64(0), 0
	for _, b := range c.value {
		v |= int64(b&0x7f) << shift
		shift += 7
	}
	if c.value[len(c.value)-1]&0x40 != 0 && shift < 64 {
		v |= -1 << shift
	}
	return int(uint32(v)) //nolint:gosec // these 32 bits
}

// jump reads the label of a br, the instruction at a place.
func (c *code) jump(at int) *block {
	from := c.here()
	b, label := c.label()
	if b.switching.sound() {
		if to, place := c.destination(b.switching, at); to != nil {
			to.targeted = true
			label = len(c.blocks) - 1 - place + c.top().lift - to.lift
		} else {
			if c.p.loops++; c.p.loops > maxLoops {
				fail(c.r.position(), "more than %d loops", maxLoops)
			}
			c.body.edits = append(c.body.edits, edit{at: at, kind: editBack, value: b.region, bytes: number(nil, label-1)})
		}
	}
	if c.top().lift > 0 {
		c.replace(from, number(nil, label))
	}
	return b
}

// endSwitch ends such a loop. If it is charged for where it is repeated, what is
// in it counts for what is around it: nobody else charges for the first time.
func (c *code) endSwitch(b *block) {
	s := b.switching
	if c.p.plan == nil {
		c.p.plain[s.number] = s.plain
	}
	if s.plain {
		c.body.weights[c.blocks[len(c.blocks)-2].region] += c.body.weights[b.region]
	}
}
