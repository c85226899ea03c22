package module_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"

	"github.com/ultravisor/beacon/runtime/module"
)

// A program makes a random module that is valid and ends: loops have bounded
// counts, functions call those before them, and global 2 bounds it all. It
// traps now and then.
type program struct {
	*rand.Rand
	b      bytes.Buffer
	labels []bool   // blocks that can be branched to, the innermost last
	jumps  []func() // of switching loops, to go to one of its places
	loops  int
	number int // of the function
	pages  int // of memory
}

// newProgram makes programs with a lot of memory, newSmallProgram with at most four
// pages, as those have that mark what they write to.
func newProgram(seed, stream uint64) *program {
	return &program{Rand: rand.New(rand.NewPCG(seed, stream)), pages: programPages}
}

func newSmallProgram(seed, stream uint64) *program {
	p := newProgram(seed, stream)
	p.pages = 1 + p.IntN(4)
	return p
}

const (
	programPages     = 80
	programFunctions = 5
	programSegment   = 1<<20 + 1<<19
	// Locals: two parameters, four i32, one i64, and of nested loops counters and
	// what they switch by.
	localWide = 6
	counters  = 7
	nesting   = 3
	switches  = counters + nesting
)

// module puts it together: a memory of 5 MiB, two tables, three globals, and
// functions of which the last is called.
func (p *program) module() []byte {
	const two = "\x60\x02\x7f\x7f\x01\x7f" // (i32, i32) -> i32
	out := header + section(1, "\x03"+two+"\x60\x01\x7f\x02\x7f\x7e"+"\x60\x00\x00")
	out += section(3, "\x05\x00\x00\x00\x00\x00")
	out += section(4, "\x02\x70\x00\x08\x6f\x01\x04\x20")
	out += section(5, "\x01\x01"+leb(uint64(p.pages))+leb(uint64(p.pages)+8))
	out += section(6, "\x03\x7f\x01\x41\x05\x0b\x7e\x01\x42\x07\x0b\x7f\x01\x41\xe8\x07\x0b") // 5, 7, 1000
	out += section(7, "\x05\x04main\x00\x04\x06memory\x02\x00\x01a\x03\x00\x01b\x03\x01\x01c\x03\x02")
	out += section(9, "\x02\x00\x41\x00\x0b\x03\x00\x01\x02\x01\x00\x02\x01\x00") // active at 0, and passive
	out += section(12, "\x01")
	var bodies string
	for p.number = range programFunctions {
		bodies += body("\x03\x04\x7f\x01\x7e\x06\x7f" + p.function())
	}
	out += section(10, leb(programFunctions)+bodies)
	data := make([]byte, programSegment)
	for i := range data {
		data[i] = byte(i * i >> 7)
	}
	return []byte(out + section(11, "\x01\x01"+leb(programSegment)+string(data)))
}

func (p *program) op(format string) { p.b.WriteString(format) }

func (p *program) constant(n int32) {
	p.op("\x41")
	for {
		c := byte(n & 0x7f)
		n >>= 7
		if n == 0 && c&0x40 == 0 || n == -1 && c&0x40 != 0 {
			p.b.WriteByte(c)
			return
		}
		p.b.WriteByte(c | 0x80)
	}
}

func (p *program) function() string {
	p.b.Reset()
	p.labels, p.jumps, p.loops = nil, nil, 0
	p.op("\x23\x02\x45\x04\x40\x41\x00\x0f\x0b") // no budget: return 0
	for range 3 + p.IntN(8) {
		p.statement(0)
	}
	p.value(0)
	p.op("\x0b")
	return p.b.String()
}

// value leaves an i32.
func (p *program) value(depth int) {
	kind := p.IntN(19)
	if depth > 4 {
		kind = p.IntN(4)
	}
	switch kind {
	case 0:
		p.constant(int32(p.Uint32()))
	case 1, 2, 3:
		p.op("\x20" + leb(p.Uint64N(6)))
	case 4, 5:
		p.value(depth + 1)
		p.value(depth + 1)
		// add, sub, mul, and, or, xor, shl, shr_u, eq, lt_u, gt_s, rotl
		p.op([]string{"\x6a", "\x6b", "\x6c", "\x71", "\x72", "\x73", "\x74", "\x76", "\x46", "\x49", "\x4a", "\x77"}[p.IntN(12)])
	case 6: // load
		p.address(depth + 1)
		p.op([]string{"\x28\x02", "\x2d\x00", "\x2e\x01"}[p.IntN(3)] + leb(p.Uint64N(100)))
	case 7:
		p.op("\x23\x00")
	case 8: // wrap
		p.op("\x20" + leb(localWide) + "\xa7")
	case 9: // if with a result
		p.value(depth + 1)
		p.op("\x04\x7f")
		p.labels = append(p.labels, false)
		p.value(depth + 1)
		p.op("\x05")
		p.value(depth + 1)
		p.op("\x0b")
		p.labels = p.labels[:len(p.labels)-1]
	case 10: // block of two results, by its type
		p.value(depth + 1)
		p.op("\x02\x01\x20" + leb(localWide) + "\x0b\x21" + leb(localWide))
	case 11: // select
		p.value(depth + 1)
		p.value(depth + 1)
		p.value(depth + 1)
		p.op("\x1b")
	case 12: // call
		if p.number == 0 {
			p.op("\x3f\x00") // memory.size
			return
		}
		p.value(depth + 2)
		p.value(depth + 2)
		p.op("\x10" + leb(p.Uint64N(uint64(p.number))))
	case 13: // call_indirect: of the first function, but for what may trap
		p.value(depth + 2)
		p.value(depth + 2)
		if p.IntN(30) == 0 {
			p.constant(p.Int32N(9))
		} else {
			p.constant(0)
		}
		if p.number == 0 {
			p.op("\x1a\x1a") // it would call itself
			return
		}
		p.op("\x11\x00\x00")
	case 14:
		p.op("\xfc\x10" + leb(p.Uint64N(2))) // table.size
	case 15: // divide, by zero as well
		p.value(depth + 1)
		p.value(depth + 1)
		if p.IntN(20) > 0 {
			p.op("\x41\x01\x72")
		}
		p.op("\x6e")
	case 16: // vectors of four
		p.value(depth + 1)
		p.op("\xfd\x11")
		p.value(depth + 1)
		p.op("\xfd\x11")
		// add, sub, mul, min_s, max_u, eq, swizzle
		p.op([]string{"\xfd\xae\x01", "\xfd\xb1\x01", "\xfd\xb5\x01", "\xfd\xb6\x01", "\xfd\xb9\x01", "\xfd\x37", "\xfd\x0e"}[p.IntN(7)])
		p.op("\xfd\x1b" + leb(p.Uint64N(4)))
	case 17: // floating point
		p.value(depth + 1)
		p.op("\xb7")
		p.value(depth + 1)
		p.op("\xb8")
		p.op([]string{"\xa0", "\xa1", "\xa2", "\xa3", "\xa4"}[p.IntN(5)] + "\xfc\x02")
	case 18: // a loop that takes a value
		p.value(depth + 1)
		if p.loops >= nesting {
			return
		}
		counter := leb(uint64(counters + p.loops))
		p.constant(1 + p.Int32N(5))
		p.op("\x21" + counter + "\x03\x01" + "\x20" + counter + "\x41\x01\x6b\x22" + counter + "\x0d\x00")
		p.op("\x20" + leb(localWide) + "\x0b\x21" + leb(localWide))
	}
}

// address leaves one that is in the memory, most of the time.
func (p *program) address(depth int) {
	p.value(depth)
	if p.IntN(200) > 0 {
		if p.pages < programPages { // the ends of granules, too
			p.constant(int32(p.pages*module.PageSize) - 400)
			p.op("\x70") // rem_u
			return
		}
		p.constant(programPages*module.PageSize/2 - 1)
		p.op("\x71")
	}
}

// place and length leave numbers around the borders of pieces.
func (p *program) place() {
	if p.pages < programPages {
		p.constant(p.Int32N(int32(p.pages*module.PageSize) - p.pick(1, 5000)))
		return
	}
	p.constant(p.pick(p.Int32N(100), p.Int32N(3<<20), 1<<20, 1<<20+p.Int32N(3)))
}

func (p *program) length() {
	if p.pages < programPages {
		p.constant(p.pick(0, p.Int32N(100), 1024, 1025, 2048, 4096, p.Int32N(5000)))
		return
	}
	n := p.pick(0, p.Int32N(100), 1<<20-1, 1<<20, 1<<20+1, p.Int32N(5<<19), 2<<20, 2<<20+5)
	if p.IntN(60) == 0 {
		n = p.pick(6<<20, -1, -1<<20)
	}
	p.constant(n)
}

func (p *program) pick(from ...int32) int32 { return from[p.IntN(len(from))] }

func (p *program) statement(depth int) {
	kind := p.IntN(22)
	if depth >= nesting {
		kind = p.IntN(4)
	}
	if p.pages < programPages && (kind == 15 || kind == 16) && p.IntN(10) > 0 {
		kind = 2 // what taints leaves nothing to be put back
	}
	switch kind {
	case 0, 1:
		p.value(1)
		p.op([]string{"\x21", "\x22"}[kind] + leb(p.Uint64N(6)))
		if kind == 1 {
			p.op("\x24\x00")
		}
	case 2: // store
		p.address(1)
		p.value(1)
		// i32, i64, f32, f64, of vectors all and a lane
		p.op([]string{
			"\x36\x02", "\x3a\x00", "\x3b\x01", "\xac\x37\x00", "\xac\x3c\x00", "\xac\x3d\x01", "\xac\x3e\x00", "\xb2\x38\x00", "\xb7\x39\x03",
			"\xfd\x11\xfd\x0b\x00", "\xfd\x11\xfd\x58\x00", "\xfd\x11\xfd\x5b\x00",
		}[p.IntN(12)])
		lane := strings.HasSuffix(p.b.String(), "\xfd\x58\x00") || strings.HasSuffix(p.b.String(), "\xfd\x5b\x00")
		p.op(leb(p.Uint64N(100)))
		if lane {
			p.op("\x01")
		}
	case 3: // arithmetic of 64 bits
		p.op("\x23\x01")
		p.value(1)
		p.op("\xac\x7e\x42\x03\x7c\x22" + leb(localWide) + "\x24\x01")
	case 4, 5: // if
		p.value(1)
		p.op("\x04\x40")
		p.nested(depth, true)
		if kind == 5 {
			p.op("\x05")
			p.nested(depth, true)
		}
		p.op("\x0b")
	case 6: // block
		p.op("\x02\x40")
		p.nested(depth, true)
		p.op("\x0b")
	case 7, 8, 9: // loop, with or without a block around it
		counter := leb(uint64(counters + p.loops))
		p.loops++
		p.constant(1 + p.Int32N(6))
		p.op("\x21" + counter)
		p.op("\x03\x40")
		p.op("\x23\x02\x45\x45\x04\x40\x23\x02\x41\x01\x6b\x24\x02") // while there is a budget
		p.labels = append(p.labels, false)
		p.nested(depth, true)
		p.labels = p.labels[:len(p.labels)-1]
		p.op("\x20" + counter + "\x41\x01\x6b\x22" + counter + "\x0d\x01\x0b\x0b")
		p.loops--
	case 10: // branch
		var targets []uint64
		for i, block := range p.labels {
			if block {
				targets = append(targets, uint64(len(p.labels)-1-i))
			}
		}
		if len(targets) == 0 {
			return
		}
		p.value(1)
		p.op("\x0d" + leb(targets[p.IntN(len(targets))]))
	case 11: // br_table
		p.op("\x02\x40\x02\x40\x02\x40")
		p.value(1)
		p.op("\x41\x07\x71\x0e\x03\x00\x02\x01\x01\x0b")
		p.labels = append(p.labels, true, true)
		p.nested(depth, false)
		p.op("\x0c\x01\x0b")
		p.labels = p.labels[:len(p.labels)-1]
		p.nested(depth, false)
		p.op("\x0b")
		p.labels = p.labels[:len(p.labels)-1]
	case 12: // memory.copy
		p.place()
		p.place()
		p.length()
		p.op("\xfc\x0a\x00\x00")
	case 13: // memory.fill
		p.place()
		p.value(2)
		p.length()
		p.op("\xfc\x0b\x00")
	case 14: // memory.init
		p.place()
		p.constant(p.pick(0, p.Int32N(1<<19)))
		p.constant(p.pick(0, p.Int32N(100), 1<<20-1, 1<<20, 1<<20+1, programSegment-1<<19, p.pick(0, programSegment+1)))
		p.op("\xfc\x08\x00\x00")
	case 15: // memory.grow, data.drop and elem.drop
		p.constant(p.Int32N(3))
		p.op("\x40\x00\x1a" + p.rarely("\xfc\x09\x00") + p.rarely("\xfc\x0d\x01"))
	case 16: // tables
		p.constant(5)
		p.constant(p.Int32N(2))
		p.constant(p.Int32N(3))
		p.op("\xfc\x0c\x01\x00") // table.init
		p.constant(4)
		p.constant(p.Int32N(4))
		p.constant(p.Int32N(4))
		p.op("\xfc\x0e\x00\x00") // table.copy
		p.op("\xd0\x6f")
		p.constant(p.Int32N(4))
		p.op("\xfc\x0f\x01\x1a") // table.grow
		p.constant(p.Int32N(4))
		p.op("\xd0\x6f")
		p.constant(p.Int32N(2))
		p.op("\xfc\x11\x01") // table.fill
	case 17: // return
		p.value(1)
		p.op("\x41\x0f\x71\x45\x04\x40")
		p.value(2)
		p.op("\x0f\x0b")
	case 18:
		p.op(p.rarely("\x00") + "\x01")
	case 19: // a call that ends the function
		if p.number == 0 {
			return
		}
		p.value(1)
		p.op("\x41\x07\x71\x45\x04\x40")
		p.value(2)
		p.value(2)
		if p.IntN(2) == 0 {
			p.op("\x12" + leb(p.Uint64N(uint64(p.number))))
		} else {
			p.constant(0)
			p.op("\x13\x00\x00")
		}
		p.op("\x0b")
	case 20:
		p.switching(depth)
	case 21: // on in such a loop
		if len(p.jumps) == 0 {
			p.switching(depth)
			return
		}
		p.jumpIf(1)
	}
}

// jumpIf goes on elsewhere in one of the switching loops around, if a value says so.
func (p *program) jumpIf(depth int) {
	p.value(depth)
	p.op("\x04\x40")
	p.labels = append(p.labels, true)
	p.jumps[p.IntN(len(p.jumps))]()
	p.op("\x0b")
	p.labels = p.labels[:len(p.labels)-1]
}

// switching is a loop as Go's compiler makes them, which begins with a br_table out of
// as many blocks as there are places to go to, and what must not be taken for one.
func (p *program) switching(depth int) {
	counter, place := leb(uint64(counters+p.loops)), leb(uint64(switches+p.loops))
	if p.IntN(8) == 0 {
		place = leb(p.Uint64N(6)) // which others change
	}
	p.loops++
	p.constant(1 + p.Int32N(12))
	p.op("\x21" + counter + "\x02\x40\x03\x40")
	out := len(p.labels)
	p.labels = append(p.labels, true, false)
	label := func(block int) string { return leb(uint64(len(p.labels) - 1 - block)) }
	cases := 1 + p.IntN(5)
	for range cases {
		p.op("\x02\x40")
		p.labels = append(p.labels, true)
	}
	targets := p.IntN(7)
	p.op("\x20" + place + "\x0e" + leb(uint64(targets)))
	for range targets + 1 {
		if p.IntN(12) == 0 {
			p.op(label(out))
		} else {
			p.op(leb(p.Uint64N(uint64(cases))))
		}
	}
	p.jumps = append(p.jumps, func() {
		// As long as counter and budget last.
		p.op("\x20" + counter + "\x41\x01\x6b\x22" + counter + "\x45\x0d" + label(out))
		p.op("\x23\x02\x45\x0d" + label(out) + "\x23\x02\x41\x01\x6b\x24\x02")
		p.constant(p.Int32N(int32(targets)+3) - 1)
		p.op([]string{"\x21", "\x21", "\x21", "\x21", "\x01\x21", "\x45\x21"}[p.IntN(6)] + place)
		if p.IntN(40) == 0 {
			p.op("\x20" + counter + "\x0d" + label(out+1)) // which nobody knows whether it repeats
		}
		p.op(p.rarely("\x01") + "\x0c" + label(out+1))
	})
	for range cases {
		p.op("\x0b")
		p.labels = p.labels[:len(p.labels)-1]
		for range 1 + p.IntN(3) {
			if p.IntN(2) == 0 {
				p.statement(depth + 1)
				continue
			}
			p.jumpIf(2)
		}
		if p.IntN(3) == 0 {
			p.jumps[p.IntN(len(p.jumps))]()
		}
	}
	p.op("\x0b\x0b")
	p.jumps = p.jumps[:len(p.jumps)-1]
	p.labels = p.labels[:out]
	p.loops--
}

func (p *program) rarely(op string) string {
	if p.IntN(20) > 0 {
		return ""
	}
	return op
}

// nested is the content of a block.
func (p *program) nested(depth int, label bool) {
	if label {
		p.labels = append(p.labels, true)
		defer func() { p.labels = p.labels[:len(p.labels)-1] }()
	}
	for range 1 + p.IntN(3) {
		p.statement(depth + 1)
	}
}

// run calls main and says what is left of it.
func run(t *testing.T, engine wazero.Runtime, binary []byte) (outcome string, memory []byte) {
	ctx := context.Background()
	instance, err := engine.InstantiateWithConfig(ctx, binary, wazero.NewModuleConfig().WithName(""))
	require.NoError(t, err)
	defer instance.Close(ctx)
	results, err := instance.ExportedFunction("main").Call(ctx, 3, 4)
	memory, ok := instance.Memory().Read(0, instance.Memory().Size())
	require.True(t, ok)
	outcome = fmt.Sprintf("%s %d", reason(err), results)
	for _, name := range []string{"a", "b", "c"} {
		outcome += fmt.Sprintf(" %d", instance.ExportedGlobal(name).Get())
	}
	return outcome, memory
}

// compare runs a program as it is and in both grades, which must be the same.
func compare(ctx context.Context, t *testing.T, seed, stream uint64) (outcome string, refills int) {
	binary := newProgram(seed, stream).module()
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features))
	defer engine.Close(ctx)
	count := offerFuel(ctx, t, engine, 1+seed%100)
	outcome, memory := run(t, engine, binary)
	for name, grade := range grades {
		r, err := module.Rewrite(binary, module.Options{Limits: module.Limits{Size: 8 << 20}, Grade: grade})
		require.NoError(t, err, "seed %d", seed)
		again, changed := run(t, engine, r.Binary)
		require.Equal(t, outcome, again, "seed %d, %s", seed, name)
		require.True(t, bytes.Equal(memory, changed), "memory, seed %d, %s", seed, name)
	}
	return outcome, *count
}

// Programs without end, for as long as one likes.
func FuzzPrograms(f *testing.F) {
	f.Add(uint64(0), uint64(0))
	f.Fuzz(func(t *testing.T, seed, stream uint64) { compare(t.Context(), t, seed, stream) })
}

func TestMeterPrograms(t *testing.T) {
	ctx := context.Background()
	programs := uint64(150)
	if short() {
		programs = 40
	}
	outcomes := map[string]int{}
	came := 0
	for seed := range programs {
		outcome, refills := compare(ctx, t, seed, 1)
		came += refills
		kind, _, _ := strings.Cut(outcome, " [")
		outcomes[kind]++
	}
	t.Log(outcomes)
	require.Greater(t, came, int(programs))
	require.Greater(t, outcomes["ok"], int(programs)/4)
	require.Greater(t, len(outcomes), 2, "none trapped")
}
