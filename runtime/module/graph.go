package module

import (
	"cmp"
	"slices"
)

// This file decides which functions look at fuel and stack when they are called.
// It need not be all: what matters is that nobody gets far without passing one.

// A survey is what the first reading of the code finds out about its functions,
// which are numbered without the imported ones.
type survey struct {
	calls   []int32 // whom each calls, one after the other, once for each call
	ends    []int32 // where those of each function end
	weights []int32 // of each, with every loop once
	frames  []int32 // of each, 0 if it calls none of the guest's
	blind   []bool  // whether it calls without saying whom, or ends with a call
}

func (s *survey) callees(f int) []int32 {
	begin := int32(0)
	if f > 0 {
		begin = s.ends[f-1]
	}
	return s.calls[begin:s.ends[f]]
}

// A plan says for each function what is done when it is called.
type plan struct {
	// checked functions are charged and look at fuel and stack. For others their
	// callers do.
	checked []bool
	// weights are about how long a call takes, in instructions, until something
	// else is charged for it.
	weights []int32
	// depths are about how many bytes of stack a call takes, until something else
	// accounts for it.
	depths []int32
	// indirect is the highest depth of a function that may be called through a
	// table, and is not checked.
	indirect int32
}

// What functions may take that are not checked: instructions, and bytes of stack,
// which are fewer where they may be called through a table.
const (
	weightUnchecked   = 600
	depthUnchecked    = 4096
	depthUncheckedRef = 256
	// weightIndirect is what a call through a table counts for.
	weightIndirect = 100
)

// plan chooses: every circle of calls gets a function that is checked, and so
// does what takes long or much of the stack in the sum. referred tells what may
// be called through a table.
func (s *survey) plan(referred func(f int) bool) *plan {
	n := len(s.ends)
	p := &plan{checked: slices.Clone(s.blind), weights: make([]int32, n), depths: make([]int32, n)}

	// Where a search that goes along calls comes back to a function whose callees
	// it is still searching, there is a circle. It begins with the functions that
	// are called most, so that few are on many circles.
	popularity := make([]int32, n)
	for _, f := range s.calls {
		popularity[f]++
	}
	order := make([]int32, n)
	for i := range order {
		order[i] = int32(i) //nolint:gosec // there are at most millions
	}
	slices.SortStableFunc(order, func(a, b int32) int { return cmp.Compare(popularity[b], popularity[a]) })

	const (
		fresh = iota
		open
		done
	)
	state := make([]byte, n)
	type visit struct{ f, next int32 }
	var path []visit
	for _, root := range order {
		if state[root] != fresh {
			continue
		}
		state[root] = open
		path = append(path[:0], visit{f: root})
		for len(path) > 0 {
			v := &path[len(path)-1]
			if callees := s.callees(int(v.f)); int(v.next) < len(callees) {
				callee := callees[v.next]
				v.next++
				switch state[callee] {
				case fresh:
					state[callee] = open
					path = append(path, visit{f: callee})
				case open:
					p.checked[callee] = true
				}
				continue
			}
			s.settle(p, int(v.f), referred(int(v.f)))
			state[v.f] = done
			path = path[:len(path)-1]
		}
	}
	for f := range n {
		if !p.checked[f] && referred(f) {
			p.indirect = max(p.indirect, p.depths[f])
		}
	}
	for f := range n {
		if s.blind[f] {
			p.depths[f] += p.indirect
		}
	}
	return p
}

// settle sums up what a function takes, all of whose callees are settled or
// checked.
func (s *survey) settle(p *plan, f int, referred bool) {
	weight, depth := int64(s.weights[f]), int32(0)
	for _, callee := range s.callees(f) {
		if !p.checked[callee] {
			weight += int64(p.weights[callee])
			depth = max(depth, p.depths[callee])
		}
	}
	depth += s.frames[f]
	most := int32(depthUnchecked)
	if referred {
		most = depthUncheckedRef
	}
	if weight > weightUnchecked || depth > most {
		p.checked[f] = true
	}
	p.weights[f] = int32(min(weight, 1<<30)) //nolint:gosec // it is less
	p.depths[f] = depth
}
