package module

import "strings"

// This file is the table of instructions: of WebAssembly 2.0, and of tail calls.
// What the engine knows beyond that is recognised and refused by name.

// Instructions that need more than their types.
const (
	opUnreachable  = 0x00
	opNop          = 0x01
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
	opDrop         = 0x1a
	opSelect       = 0x1b
	opSelectTyped  = 0x1c
	opLocalGet     = 0x20
	opLocalSet     = 0x21
	opLocalTee     = 0x22
	opGlobalGet    = 0x23
	opGlobalSet    = 0x24
	opTableGet     = 0x25
	opTableSet     = 0x26
	opLoad         = 0x28 // the first load
	opStore        = 0x36 // the first store
	opStoreLast    = 0x3e
	opMemorySize   = 0x3f
	opMemoryGrow   = 0x40
	opI32Const     = 0x41
	opI64Const     = 0x42
	opF32Const     = 0x43
	opF64Const     = 0x44
	opNumeric      = 0x45 // the first that takes and gives numbers only
	opNumericLast  = 0xc4
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

// Instructions after opVector.
const (
	vectorLoadLast  = 10
	vectorStore     = 11
	vectorConst     = 12
	vectorShuffle   = 13
	vectorLane      = 21 // the first of one lane
	vectorLaneLast  = 34
	vectorLoadLane  = 84
	vectorStoreLane = 88
	vectorLaneEnd   = 91
	vectorLoadZero  = 92
	vectorZeroLast  = 93
)

// A shape is what an instruction takes from the stack and leaves there.
type shape struct {
	params, results []ValueType
	known           bool
}

// letters are the value types in the tables below.
var letters = map[byte]ValueType{'i': I32, 'l': I64, 'f': F32, 'd': F64, 'v': V128}

func shapeOf(text string) shape {
	s := shape{known: true}
	params, results, _ := strings.Cut(text, ":")
	for _, c := range []byte(params) {
		s.params = append(s.params, letters[c])
	}
	for _, c := range []byte(results) {
		s.results = append(s.results, letters[c])
	}
	return s
}

// A run is a number of neighbours with one shape.
type run struct {
	first, last int
	shape       string
}

func shapesOf(runs []run) *[256]shape {
	table := new([256]shape)
	for _, r := range runs {
		s := shapeOf(r.shape)
		for op := r.first; op <= r.last; op++ {
			table[op] = s
		}
	}
	return table
}

// plainShapes are those of instructions of one byte, without those whose types
// depend on what is around them.
var plainShapes = shapesOf([]run{
	{0x28, 0x28, "i:i"},
	{0x29, 0x29, "i:l"},
	{0x2a, 0x2a, "i:f"},
	{0x2b, 0x2b, "i:d"},
	{0x2c, 0x2f, "i:i"},
	{0x30, 0x35, "i:l"},
	{0x36, 0x36, "ii:"},
	{0x37, 0x37, "il:"},
	{0x38, 0x38, "if:"},
	{0x39, 0x39, "id:"},
	{0x3a, 0x3b, "ii:"},
	{0x3c, 0x3e, "il:"},
	{opMemorySize, opMemorySize, ":i"},
	{opMemoryGrow, opMemoryGrow, "i:i"},
	{opI32Const, opI32Const, ":i"},
	{opI64Const, opI64Const, ":l"},
	{opF32Const, opF32Const, ":f"},
	{opF64Const, opF64Const, ":d"},
	{0x45, 0x45, "i:i"},  // i32.eqz
	{0x46, 0x4f, "ii:i"}, // comparisons
	{0x50, 0x50, "l:i"},
	{0x51, 0x5a, "ll:i"},
	{0x5b, 0x60, "ff:i"},
	{0x61, 0x66, "dd:i"},
	{0x67, 0x69, "i:i"}, // arithmetic
	{0x6a, 0x78, "ii:i"},
	{0x79, 0x7b, "l:l"},
	{0x7c, 0x8a, "ll:l"},
	{0x8b, 0x91, "f:f"},
	{0x92, 0x98, "ff:f"},
	{0x99, 0x9f, "d:d"},
	{0xa0, 0xa6, "dd:d"},
	{0xa7, 0xa7, "l:i"}, // conversions
	{0xa8, 0xa9, "f:i"},
	{0xaa, 0xab, "d:i"},
	{0xac, 0xad, "i:l"},
	{0xae, 0xaf, "f:l"},
	{0xb0, 0xb1, "d:l"},
	{0xb2, 0xb3, "i:f"},
	{0xb4, 0xb5, "l:f"},
	{0xb6, 0xb6, "d:f"},
	{0xb7, 0xb8, "i:d"},
	{0xb9, 0xba, "l:d"},
	{0xbb, 0xbb, "f:d"},
	{0xbc, 0xbc, "f:i"},
	{0xbd, 0xbd, "d:l"},
	{0xbe, 0xbe, "i:f"},
	{0xbf, 0xbf, "l:d"},
	{0xc0, 0xc1, "i:i"},
	{0xc2, 0xc4, "l:l"},
})

// miscShapes are those after opMisc.
var miscShapes = shapesOf([]run{
	{0, 1, "f:i"},
	{2, 3, "d:i"},
	{4, 5, "f:l"},
	{6, 7, "d:l"},
	{miscMemoryInit, miscMemoryInit, "iii:"},
	{miscDataDrop, miscDataDrop, ":"},
	{miscMemoryCopy, miscMemoryFill, "iii:"},
	{miscTableInit, miscTableInit, "iii:"},
	{miscElemDrop, miscElemDrop, ":"},
	{miscTableCopy, miscTableCopy, "iii:"},
	{miscTableSize, miscTableSize, ":i"},
})

// vectorShapes are those after opVector.
var vectorShapes = shapesOf([]run{
	{0, vectorLoadLast, "i:v"},
	{vectorStore, vectorStore, "iv:"},
	{vectorConst, vectorConst, ":v"},
	{vectorShuffle, 14, "vv:v"},
	{15, 17, "i:v"}, // splats
	{18, 18, "l:v"},
	{19, 19, "f:v"},
	{20, 20, "d:v"},
	{21, 22, "v:i"}, // lanes
	{23, 23, "vi:v"},
	{24, 25, "v:i"},
	{26, 26, "vi:v"},
	{27, 27, "v:i"},
	{28, 28, "vi:v"},
	{29, 29, "v:l"},
	{30, 30, "vl:v"},
	{31, 31, "v:f"},
	{32, 32, "vf:v"},
	{33, 33, "v:d"},
	{34, 34, "vd:v"},
	{35, 76, "vv:v"}, // comparisons
	{77, 77, "v:v"},
	{78, 81, "vv:v"},
	{82, 82, "vvv:v"},
	{83, 83, "v:i"},
	{vectorLoadLane, 87, "iv:v"},
	{vectorStoreLane, vectorLaneEnd, "iv:"},
	{vectorLoadZero, vectorZeroLast, "i:v"},
	{94, 98, "v:v"},
	{99, 100, "v:i"}, // bytes
	{101, 102, "vv:v"},
	{103, 106, "v:v"},
	{107, 109, "vi:v"},
	{110, 115, "vv:v"},
	{116, 117, "v:v"},
	{118, 121, "vv:v"},
	{122, 122, "v:v"},
	{123, 123, "vv:v"},
	{124, 129, "v:v"}, // 16 bits
	{130, 130, "vv:v"},
	{131, 132, "v:i"},
	{133, 134, "vv:v"},
	{135, 138, "v:v"},
	{139, 141, "vi:v"},
	{142, 147, "vv:v"},
	{148, 148, "v:v"},
	{149, 153, "vv:v"},
	{155, 159, "vv:v"},
	{160, 161, "v:v"}, // 32 bits
	{163, 164, "v:i"},
	{167, 170, "v:v"},
	{171, 173, "vi:v"},
	{174, 174, "vv:v"},
	{177, 177, "vv:v"},
	{181, 186, "vv:v"},
	{188, 191, "vv:v"},
	{192, 193, "v:v"}, // 64 bits
	{195, 196, "v:i"},
	{199, 202, "v:v"},
	{203, 205, "vi:v"},
	{206, 206, "vv:v"},
	{209, 209, "vv:v"},
	{213, 223, "vv:v"},
	{224, 225, "v:v"}, // floating point
	{227, 227, "v:v"},
	{228, 235, "vv:v"},
	{236, 237, "v:v"},
	{239, 239, "v:v"},
	{240, 247, "vv:v"},
	{248, 255, "v:v"},
})

// alignments are the natural ones, as powers of two, of the loads and stores
// from opLoad on.
const alignments = "\x02\x03\x02\x03\x00\x00\x01\x01\x00\x00\x01\x01\x02\x02\x02\x03\x02\x03\x00\x01\x00\x01\x02"

// vectorAlignment is the natural one of an instruction after opVector.
func vectorAlignment(op int) int {
	switch {
	case op == 0 || op == vectorStore:
		return 4
	case op <= 6:
		return 3
	case op <= vectorLoadLast:
		return op - 7
	case op >= vectorLoadZero:
		return op - vectorLoadZero + 2
	}
	return (op - vectorLoadLane) % 4 // of a lane
}

// lanes is how many an instruction after opVector chooses from.
func lanes(op int) int {
	switch {
	case op >= vectorLoadLane:
		return 16 >> ((op - vectorLoadLane) % 4)
	case op <= 23:
		return 16
	case op <= 26:
		return 8
	case op <= 28 || op == 31 || op == 32:
		return 4
	}
	return 2
}

// CostVersion names the table of costs below. Whatever changes the number of
// units that a run takes changes it.
const CostVersion = 1

// Costs in the exact grade: every instruction is one unit, but for these. Those
// that only structure the code (block, loop, else, end, nop) cost nothing.
const (
	costHostCall = 50  // a call of an imported function, besides what the function itself charges
	costGrow     = 500 // memory.grow and table.grow
	costPage     = 64  // for each page that memory.grow added
	costBulk     = 20  // copying, filling and initialising memories and tables; dropping segments
	// lengthShift makes units of lengths: bytes or elements that are copied,
	// filled or initialised cost one for 16, rounded down, and one more.
	lengthShift = 4
)

// cost is that of an instruction of one byte.
func cost(op byte) int {
	switch op {
	case opBlock, opLoop, opElse, opEnd, opNop:
		return 0
	case opMemoryGrow:
		return costGrow
	}
	return 1
}

// weight is about how long an instruction of one byte takes, where it is much
// longer than its cost says, for the deadline grade.
func weight(op byte) int {
	switch op {
	case opCall, opReturnCall, opCallIndirect, opReturnCallIn:
		return 8
	case 0x6d, 0x6e, 0x6f, 0x70, 0x7f, 0x80, 0x81, 0x82: // integer division
		return 12
	case 0x95, 0xa3, 0x91, 0x9f: // division and root
		return 6
	}
	return max(1, cost(op))
}
