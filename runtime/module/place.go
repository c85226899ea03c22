package module

import (
	"encoding/binary"
	"errors"
	"sort"
)

// Places lead from the rewritten code to the original: offsets in the contents
// of both sections of code, in order.
type Places []span

// A span of the original code that stands in the rewritten code as it was.
type span struct{ to, from, size uint32 }

// Original is the place in the original's section of code of what is at an
// offset of the rewritten one. Of what was inserted it is the place of the
// instruction that follows. It is false for what has none.
func (p Places) Original(offset uint32) (uint32, bool) {
	i := sort.Search(len(p), func(i int) bool { return p[i].to > offset })
	if i == 0 {
		return 0, false
	}
	s := p[i-1]
	return s.from + min(offset-s.to, s.size), true
}

// Append appends the places in the form that ParsePlaces reads.
func (p Places) Append(b []byte) []byte {
	for _, s := range p {
		for _, n := range [...]uint32{s.to, s.from, s.size} {
			b = binary.LittleEndian.AppendUint32(b, n)
		}
	}
	return b
}

// ParsePlaces reads what Append has written.
func ParsePlaces(b []byte) (Places, error) {
	const size = 12
	if len(b)%size != 0 {
		return nil, errors.New("not a list of places")
	}
	p := make(Places, len(b)/size)
	for i := range p {
		at := b[i*size:]
		p[i] = span{binary.LittleEndian.Uint32(at), binary.LittleEndian.Uint32(at[4:]), binary.LittleEndian.Uint32(at[8:])}
		if i > 0 && p[i].to < p[i-1].to {
			return nil, errors.New("not a list of places: out of order")
		}
	}
	return p, nil
}

// places are complete when all functions are written.
func (w *writer) places() Places {
	begin := uint32(len(number(nil, w.functions()))) //nolint:gosec // 5 at most
	for i := range w.spans {
		w.spans[i].to += begin
	}
	return w.spans
}

// linesMost is how many bytes of code a module may have whose places are kept.
const linesMost = 8 << 20

// lineSection is the custom section that tells source lines.
const lineSection = ".debug_line"
