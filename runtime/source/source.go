// Package source finds the source lines of places in a module's code, from the
// debug information that compilers leave in it (DWARF 2 to 5). Nobody vouches for
// that: everything is bounded by the size of what is read, and what is odd ends
// the search instead of prolonging it. It knows no engine and keeps no state, so
// it can run anywhere.
//
// Only the tables of lines are read (.debug_line). They say all there is to know
// of the innermost function, inlined ones included; the names of functions come
// from the module's section of names.
package source

import (
	"encoding/binary"
	"errors"
	"path"
	"slices"
)

// What is read at most, in bytes, and how many places are looked for. A table is read
// for each breakdown, on nobody's time: this much takes some 30 ms.
const (
	MaxTable  = 8 << 20
	MaxPlaces = 4096
	maxName   = 4096
)

// The names of the sections.
const (
	LineSection    = ".debug_line"
	LineStrSection = ".debug_line_str"
	StrSection     = ".debug_str"
)

// Tables are the sections that tell lines; those for strings may be missing.
type Tables struct{ Line, LineStr, Str []byte }

// A Position is a place in a source file. Without a File it is unknown; Line and
// Column count from 1, 0 is unknown.
type Position struct {
	File         string
	Line, Column int
}

// Of finds the tables in a module. It looks at nothing else, and copies them, so
// that the module's bytes need not be kept. They are empty if there are none, or
// if they are larger than MaxTable.
func Of(module []byte) (t Tables) {
	if len(module) < 8 {
		return t
	}
	r := &reader{b: module[8:]}
	for len(r.b) > 0 && !r.bad {
		id := r.byte()
		section := &reader{b: r.bytes(int(r.uleb()))}
		if id != 0 {
			continue
		}
		name := string(section.bytes(int(section.uleb())))
		if section.bad || len(section.b) > MaxTable {
			continue
		}
		for _, known := range []struct {
			name string
			to   *[]byte
		}{{LineSection, &t.Line}, {LineStrSection, &t.LineStr}, {StrSection, &t.Str}} {
			if name == known.name && *known.to == nil {
				*known.to = slices.Clone(section.b)
			}
		}
	}
	if t.Line == nil {
		return Tables{}
	}
	return t
}

// Positions finds offsets in the contents of the section of code. The result has
// a Position for each of them; those after the first MaxPlaces are unknown.
func (t Tables) Positions(offsets []uint32) []Position {
	found := make([]Position, len(offsets))
	if len(t.Line) > MaxTable {
		return found
	}
	s := &search{tables: t}
	for n, at := range offsets[:min(len(offsets), MaxPlaces)] {
		s.wanted = append(s.wanted, wanted{at: uint64(at), n: n})
	}
	slices.SortFunc(s.wanted, func(a, b wanted) int { return int(a.at) - int(b.at) })
	s.found = found
	for rest := (&reader{b: t.Line}); len(rest.b) > 0 && !rest.bad && len(s.wanted) > 0; {
		long := false
		size := uint64(rest.u32())
		if size == 0xffffffff {
			long = true
			size = rest.u64()
		}
		unit := &reader{b: rest.bytes(int(min(size, uint64(len(rest.b)+1))))} //nolint:gosec // at most a little more than there is
		if rest.bad {
			break
		}
		// What is odd in one unit is none of the others'.
		_ = s.unit(unit, long)
	}
	return found
}

type wanted struct {
	at uint64
	n  int // which of the offsets
}

type search struct {
	tables Tables
	wanted []wanted // by at; those that are found are taken out
	found  []Position
}

var errOdd = errors.New("odd table of lines")

// header is that of a unit.
type header struct {
	version    uint16
	long       bool
	least      uint64 // bytes an instruction has
	lineBase   int64
	lineRange  uint64
	opcodeBase byte
	lengths    []byte // how many operands standard opcodes have
}

func (s *search) unit(r *reader, long bool) error {
	h := header{long: long, version: r.u16()}
	if h.version < 2 || h.version > 5 {
		return errOdd
	}
	if h.version >= 5 {
		if size, segments := r.byte(), r.byte(); size != 4 || segments != 0 {
			return errOdd
		}
	}
	tables := &reader{b: r.bytes(int(min(r.offset(long), uint64(len(r.b)+1))))} //nolint:gosec // at most a little more than there is
	if r.bad {
		return errOdd
	}
	h.least = uint64(tables.byte())
	if h.version >= 4 {
		tables.byte() // operations an instruction has: 1, but on VLIW machines
	}
	tables.byte()                           // whether lines are statements, which we do not ask
	h.lineBase = int64(int8(tables.byte())) //nolint:gosec // it has a sign
	h.lineRange = uint64(tables.byte())
	h.opcodeBase = tables.byte()
	if h.lineRange == 0 || h.opcodeBase == 0 {
		return errOdd
	}
	h.lengths = tables.bytes(int(h.opcodeBase) - 1)
	if tables.bad {
		return errOdd
	}
	return s.program(r, h, tables)
}

// A row of the table holds for the code up to the next.
type row struct {
	at                 uint64
	file, line, column uint64
}

// program goes through the rows. Each of its instructions takes at least a byte.
func (s *search) program(r *reader, h header, tables *reader) error {
	state := row{file: 1, line: 1}
	var last row
	open := false // last is a row of this sequence
	emit := func(end bool) {
		if open && state.at > last.at && last.at != 0 && last.at < 1<<32-2 { // what was thrown away lies at 0 or at the end
			s.take(last, state.at, h, tables)
		}
		last, open = state, !end
	}
	for len(r.b) > 0 && !r.bad {
		op := r.byte()
		if op >= h.opcodeBase {
			n := uint64(op - h.opcodeBase)
			state.at += n / h.lineRange * h.least
			state.line += uint64(h.lineBase + int64(n%h.lineRange)) //nolint:gosec // it wraps around as it should
			emit(false)
			continue
		}
		switch op {
		case 0: // an extended one
			e := &reader{b: r.bytes(int(min(r.uleb(), uint64(len(r.b)+1))))} //nolint:gosec // at most a little more than there is
			if r.bad {
				return errOdd
			}
			switch e.byte() {
			case 1: // end of a sequence
				emit(true)
				state = row{file: 1, line: 1}
			case 2: // address
				switch len(e.b) {
				case 4:
					state.at = uint64(e.u32())
				case 8:
					state.at = e.u64()
				}
			}
		case 1: // copy
			emit(false)
		case 2:
			state.at += r.uleb() * h.least
		case 3:
			state.line += uint64(r.sleb()) //nolint:gosec // it wraps around as it should
		case 4:
			state.file = r.uleb()
		case 5:
			state.column = r.uleb()
		case 6, 7, 10, 11: // statements, blocks, prologues, epilogues
		case 8: // as much as opcode 255 adds
			state.at += uint64(255-h.opcodeBase) / h.lineRange * h.least
		case 9:
			state.at += uint64(r.u16())
		default:
			for range h.lengths[op-1] {
				r.uleb()
			}
		}
	}
	return nil
}

// take notes the position of all that lies between a row and the next.
func (s *search) take(r row, end uint64, h header, tables *reader) {
	from, _ := slices.BinarySearchFunc(s.wanted, r.at, func(w wanted, at uint64) int {
		switch {
		case w.at < at:
			return -1
		case w.at > at:
			return 1
		}
		return 0
	})
	to := from
	var p Position
	for ; to < len(s.wanted) && s.wanted[to].at < end; to++ {
		if to == from {
			copied := *tables
			p = Position{File: s.file(&copied, h, r.file), Line: small(r.line), Column: small(r.column)}
		}
		s.found[s.wanted[to].n] = p
	}
	s.wanted = slices.Delete(s.wanted, from, to)
}

func small(n uint64) int {
	if n > 1<<31-1 {
		return 0
	}
	return int(n)
}

// file is the name of a file in a unit's tables, with its directory.
func (s *search) file(r *reader, h header, number uint64) string {
	var name string
	var directory uint64
	var directories []string
	if h.version >= 5 {
		directories = s.entries(r, h, func(uint64, string, uint64) bool { return true })
		s.entries(r, h, func(n uint64, text string, dir uint64) bool {
			if n == number {
				name, directory = text, dir
			}
			return n < number
		})
	} else {
		directories = append(directories, "") // the compiler's own, which stands elsewhere
		for !r.bad {
			text := r.text()
			if text == "" {
				break
			}
			directories = append(directories, text)
		}
		for n := uint64(1); !r.bad && n <= number; n++ {
			text := r.text()
			if text == "" {
				break
			}
			dir := r.uleb()
			r.uleb()
			r.uleb()
			if n == number {
				name, directory = text, dir
			}
		}
	}
	if name == "" || path.IsAbs(name) || directory >= uint64(len(directories)) {
		return name
	}
	return path.Join(directories[directory], name)
}

// What an entry of a table in DWARF 5 holds, and how.
const (
	contentPath      = 1
	contentDirectory = 2

	formBlock   = 0x09
	formData1   = 0x0b
	formData2   = 0x05
	formData4   = 0x06
	formData8   = 0x07
	formData16  = 0x1e
	formString  = 0x08
	formStrp    = 0x0e
	formUdata   = 0x0f
	formLineStr = 0x1f
)

// entries reads a table of directories or files and tells each entry, as long as
// the answer is true; the result has all texts up to there.
func (s *search) entries(r *reader, h header, tell func(n uint64, text string, directory uint64) bool) (texts []string) {
	type format struct{ content, form uint64 }
	formats := make([]format, r.byte())
	for i := range formats {
		formats[i] = format{r.uleb(), r.uleb()}
	}
	count := r.uleb()
	if len(formats) == 0 {
		return nil // entries would take no bytes, however many there are
	}
	for n := uint64(0); n < count && !r.bad; n++ {
		var text string
		var directory uint64
		for _, f := range formats {
			var number uint64
			var read string
			switch f.form {
			case formString:
				read = r.text()
			case formStrp:
				read = at(s.tables.Str, r.offset(h.long))
			case formLineStr:
				read = at(s.tables.LineStr, r.offset(h.long))
			case formUdata:
				number = r.uleb()
			case formData1:
				number = uint64(r.byte())
			case formData2:
				number = uint64(r.u16())
			case formData4:
				number = uint64(r.u32())
			case formData8:
				number = r.u64()
			case formData16:
				r.bytes(16)
			case formBlock:
				r.bytes(int(min(r.uleb(), uint64(len(r.b)+1)))) //nolint:gosec // at most a little more than there is
			default:
				r.bad = true
			}
			switch f.content {
			case contentPath:
				text = read
			case contentDirectory:
				directory = number
			}
		}
		if r.bad {
			return texts
		}
		texts = append(texts, text)
		if !tell(n, text, directory) {
			break
		}
	}
	return texts
}

// at is the text at an offset of a table of strings.
func at(table []byte, offset uint64) string {
	if offset >= uint64(len(table)) {
		return ""
	}
	return (&reader{b: table[offset:]}).text()
}

// A reader takes from the front of b. Beyond the end everything is 0, and bad.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.bad = nil, true
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// offset is one into a section.
func (r *reader) offset(long bool) uint64 {
	if long {
		return r.u64()
	}
	return uint64(r.u32())
}

func (r *reader) uleb() (v uint64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
	r.bad = true
	return 0
}

func (r *reader) sleb() (v int64) {
	for shift := 0; shift < 64; shift += 7 {
		b := r.byte()
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if b&0x40 != 0 && shift < 57 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
	r.bad = true
	return 0
}

// text ends with a NUL. Longer ones than any path are none.
func (r *reader) text() string {
	end := slices.Index(r.b[:min(len(r.b), maxName)], 0)
	if end < 0 {
		r.b, r.bad = nil, true
		return ""
	}
	text := string(r.b[:end])
	r.b = r.b[end+1:]
	return text
}
