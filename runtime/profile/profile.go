// Package profile finds out where a guest's fuel went: by function, with the calls that
// led there, and by source line where the module tells lines. It is exact, since
// guests that are profiled tell the host about every straight stretch of
// instructions that they begin (see module.Options.Profile), and what they report
// adds up to the fuel of their items.
package profile

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"

	pprof "github.com/google/pprof/profile"

	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/runtime/source"
)

// How deep a stack is told, and how many different ones: what is deeper or comes
// later counts for the function itself, and its callers up to there.
const (
	maxDepth = 128
	maxCalls = 100_000
)

// A Profile collects the fuel of items of one module. It is safe for concurrent
// use.
type Profile struct {
	name      string
	stretches []module.Stretch
	names     map[int]string
	tables    source.Tables

	mu    sync.Mutex
	root  *call
	calls int // below root
}

// New makes a profile for a module from its bytes, without running anything. The name
// is for people.
func New(name string, binary []byte, limits module.Limits) (*Profile, error) {
	r, err := module.Rewrite(binary, module.Options{Limits: limits, Grade: module.Exact, Profile: true})
	if err != nil {
		return nil, fmt.Errorf("profile module %s: %w", name, err)
	}
	return &Profile{name: name, stretches: r.Stretches, names: r.Names, tables: source.Of(binary), root: &call{function: -1}}, nil
}

// A call is a function that was called by another one, in the tree of all calls.
type call struct {
	function int // -1 for the host
	from     *call
	calls    map[int]*call
	spent    map[int]*spending // by stretch
}

// spending is what a stretch took.
type spending struct {
	times, units int64
}

// A Recorder follows one guest. It belongs to the guest's goroutine.
type Recorder struct {
	profile *Profile
	// frames are the functions that are running, the last one innermost.
	frames  []frame
	skipped int // that are below the deepest frame
	told    int64
}

type frame struct {
	call  *call
	spent *spending // of the stretch that is being executed; nil before the first
}

// Record begins to follow a guest.
func (p *Profile) Record() *Recorder {
	return &Recorder{profile: p, frames: []frame{{call: p.root}}}
}

// Mark is told by the guest that a stretch begins, or that a function ends, and how
// much fuel was used before. A number that no stretch has is ignored.
func (r *Recorder) Mark(mark int32, used int64) {
	p := r.profile
	p.mu.Lock()
	defer p.mu.Unlock()
	r.spend(used)
	if mark == module.MarkReturn {
		switch {
		case r.skipped > 0:
			r.skipped--
		case len(r.frames) > 1:
			r.frames = r.frames[:len(r.frames)-1]
		}
		return
	}
	if mark < 0 || int(mark) >= len(p.stretches) {
		return
	}
	s := &p.stretches[mark]
	if s.Entry {
		r.enter(s.Function)
	}
	top := &r.frames[len(r.frames)-1]
	spent := top.call.spent[int(mark)]
	if spent == nil {
		if top.call.spent == nil {
			top.call.spent = map[int]*spending{}
		}
		spent = &spending{}
		top.call.spent[int(mark)] = spent
	}
	spent.times++
	top.spent = spent
}

// enter begins a function.
func (r *Recorder) enter(function int) {
	from := r.frames[len(r.frames)-1].call
	if r.skipped > 0 || len(r.frames) > maxDepth {
		r.skipped++
		return
	}
	c := from.calls[function]
	if c == nil {
		if r.profile.calls == maxCalls {
			r.skipped++
			return
		}
		if from.calls == nil {
			from.calls = map[int]*call{}
		}
		c = &call{function: function, from: from}
		from.calls[function] = c
		r.profile.calls++
	}
	r.frames = append(r.frames, frame{call: c})
}

// spend charges what was used since the last mark.
func (r *Recorder) spend(used int64) {
	if top := r.frames[len(r.frames)-1]; top.spent != nil {
		top.spent.units += used - r.told
	}
	r.told = used
}

// End is told what the guest has used in all.
func (r *Recorder) End(used int64) {
	r.profile.mu.Lock()
	defer r.profile.mu.Unlock()
	r.spend(used)
}

// Total is the fuel of all items together.
func (p *Profile) Total() (units int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.root.walk(func(c *call) {
		for _, s := range c.spent {
			units += s.units
		}
	})
	return units
}

func (c *call) walk(visit func(*call)) {
	visit(c)
	for _, f := range slices.Sorted(maps.Keys(c.calls)) {
		c.calls[f].walk(visit)
	}
}

// Write writes the profile in the format of pprof, compressed, for go tool pprof.
func (p *Profile) Write(w io.Writer) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := &builder{p: p, out: &pprof.Profile{
		SampleType:        []*pprof.ValueType{{Type: "fuel", Unit: "count"}},
		DefaultSampleType: "fuel",
		Mapping:           []*pprof.Mapping{{ID: 1, File: p.name, HasFunctions: true}},
	}}
	b.findLines()
	p.root.walk(b.add)
	if err := b.out.CheckValid(); err != nil {
		return fmt.Errorf("profile of %s: %w", p.name, err)
	}
	return b.out.Write(w)
}

// A builder makes a profile of pprof.
type builder struct {
	p         *Profile
	out       *pprof.Profile
	positions map[uint32]source.Position
	functions map[functionKey]*pprof.Function
	locations map[locationKey]*pprof.Location
}

type functionKey struct {
	index int
	file  string
}

type locationKey struct {
	function functionKey
	line     int
}

// findLines looks up the source lines of what was executed.
func (b *builder) findLines() {
	b.positions = map[uint32]source.Position{}
	b.functions = map[functionKey]*pprof.Function{}
	b.locations = map[locationKey]*pprof.Location{}
	if b.p.tables.Line == nil {
		return
	}
	wanted := map[uint32]bool{}
	b.p.root.walk(func(c *call) {
		for n := range c.spent {
			wanted[b.p.stretches[n].At] = true
			for _, cost := range b.p.stretches[n].Costs {
				wanted[cost.At] = true
			}
		}
	})
	for offsets := range slices.Chunk(slices.Sorted(maps.Keys(wanted)), source.MaxPlaces) {
		for i, position := range b.p.tables.Positions(offsets) {
			b.positions[offsets[i]] = position
		}
	}
	b.out.Mapping[0].HasFilenames, b.out.Mapping[0].HasLineNumbers = true, true
}

// add adds what a function used, for its lines.
func (b *builder) add(c *call) {
	lines := map[locationKey]int64{}
	for n, spent := range c.spent {
		s := b.p.stretches[n]
		rest := spent.units
		for _, cost := range s.Costs {
			units := min(int64(cost.Units)*spent.times, rest)
			lines[b.at(s.Function, cost.At)] += units
			rest -= units
		}
		lines[b.at(s.Function, s.At)] += rest // the lengths of bulk instructions
	}
	var callers []*pprof.Location
	for from := c.from; from != nil && from.function >= 0; from = from.from {
		callers = append(callers, b.location(locationKey{function: functionKey{index: from.function, file: b.file(from.function)}}))
	}
	for _, key := range slices.SortedFunc(maps.Keys(lines), compare) {
		if lines[key] == 0 {
			continue
		}
		stack := []*pprof.Location{b.location(key)}
		if c.function >= 0 && key.function.index != c.function { // too deep for the tree
			stack = append(stack, b.location(locationKey{function: functionKey{index: c.function, file: b.file(c.function)}}))
		}
		b.out.Sample = append(b.out.Sample, &pprof.Sample{Location: append(stack, callers...), Value: []int64{lines[key]}})
	}
}

func compare(a, b locationKey) int {
	switch {
	case a.function.index != b.function.index:
		return a.function.index - b.function.index
	case a.function.file < b.function.file:
		return -1
	case a.function.file > b.function.file:
		return 1
	}
	return a.line - b.line
}

func (b *builder) at(function int, offset uint32) locationKey {
	position := b.positions[offset]
	return locationKey{functionKey{function, position.File}, position.Line}
}

// file is where a function is, as far as it begins there.
func (b *builder) file(function int) string {
	n, found := slices.BinarySearchFunc(b.p.stretches, function, func(s module.Stretch, f int) int { return s.Function - f })
	if !found {
		return ""
	}
	return b.positions[b.p.stretches[n].At].File
}

func (b *builder) location(key locationKey) *pprof.Location {
	l := b.locations[key]
	if l == nil {
		l = &pprof.Location{ID: uint64(len(b.out.Location) + 1), Mapping: b.out.Mapping[0], Line: []pprof.Line{{Function: b.function(key.function), Line: int64(key.line)}}}
		b.locations[key] = l
		b.out.Location = append(b.out.Location, l)
	}
	return l
}

func (b *builder) function(key functionKey) *pprof.Function {
	f := b.functions[key]
	if f == nil {
		name := b.p.names[key.index]
		if name == "" {
			name = fmt.Sprintf("function %d", key.index)
		}
		f = &pprof.Function{ID: uint64(len(b.out.Function) + 1), Name: name, SystemName: name, Filename: key.file}
		b.functions[key] = f
		b.out.Function = append(b.out.Function, f)
	}
	return f
}
