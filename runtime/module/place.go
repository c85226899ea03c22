package module

import "sort"

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
