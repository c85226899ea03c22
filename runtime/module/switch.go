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
//
// In loops of the program that are short, jumps stay as they are: where they meet by
// the br_table the engine keeps variables in the same registers, and without it moves
// them about. They need not be charged for either.

// tightCases is how many places a loop of the program has at most that is left as it
// is. Against 0, gzip and SHA-256 take a twentieth less with 5, and JSON no more; with
// 12 they take a tenth less, and JSON a tenth more.
const tightCases = 5

// A switching is the beginning of such a loop.
type switching struct {
	loop     int // its block's place among those that are open
	cases    int // blocks
	closed   int // of them, so far
	variable int // that chooses
	targets  []int
	// tight has for each case the last one that is in a short loop with it, of those
	// that begin there, so far, or, in the second reading, there or before.
	tight []int32
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
		c.p.tight = append(c.p.tight, nil)
		s.tight = make([]int32, s.cases)
	} else {
		s.tight = c.p.tight[s.number]
		s.plain = s.tight != nil
	}
	c.cases, c.switching = s.cases, s
	return s
}

// destination is the case whose end a branch to the loop leads to, -1 if that is not
// known. Where the branch is the variable has just been set.
func (c *code) destination(s *switching, at int) int {
	if c.choice.end != at || c.choice.variable != s.variable {
		return -1
	}
	if target := s.targets[min(c.choice.unsigned(), len(s.targets)-1)]; target < s.cases {
		return target
	}
	return -1
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
	if s := b.switching; s.sound() {
		to, here := c.destination(s, at), s.closed-1
		switch {
		case to < s.closed: // back, or who knows where
			if c.p.loops++; c.p.loops > maxLoops {
				fail(c.r.position(), "more than %d loops", maxLoops)
			}
			if c.p.plan == nil && to >= 0 && here-to <= tightCases {
				s.tight[to] = max(s.tight[to], int32(here)) //nolint:gosec // limited
			}
			c.body.edits = append(c.body.edits, edit{at: at, kind: editBack, value: b.region, bytes: number(nil, label-1)})
		case here >= 0 && int(s.tight[here]) >= to:
		default:
			place := s.loop + s.cases - to
			c.blocks[place].targeted = true
			label = len(c.blocks) - 1 - place + c.top().lift - c.blocks[place].lift
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
	if c.p.plan == nil && s.plain {
		for i := 1; i < s.cases; i++ {
			s.tight[i] = max(s.tight[i], s.tight[i-1])
		}
		c.p.tight[s.number] = s.tight
	}
	if s.plain {
		c.body.weights[c.blocks[len(c.blocks)-2].region] += c.body.weights[b.region]
	}
}
