package snapshot

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

// A Timing is what one method takes, for writing to some pages and putting
// them back: some methods make the next write dearer.
type Timing struct {
	Method Method
	Time   time.Duration
}

// Measure times all methods that work here for an item that reads and writes the
// given pages, fastest first. It takes some milliseconds.
func (i *Image) Measure(read, written []int) ([]Timing, error) {
	var timings []Timing
	enough := time.Duration(math.MaxInt64)
	for _, method := range i.Methods() {
		t, err := i.measure(method, read, written, enough)
		if err != nil {
			return nil, err
		}
		timings = append(timings, Timing{method, t})
		enough = min(enough, measureHopeless*t)
	}
	slices.SortStableFunc(timings, func(a, b Timing) int { return int(a.Time - b.Time) })
	return timings, nil
}

const (
	measureLeast = 5 // rounds, of which the first ones make the pages
	measureMost  = 64
	measureTime  = 500 * time.Microsecond // after the least rounds
	// measureHopeless times as long as another method is not measured any better.
	measureHopeless = 4
)

// Fastest is the method to use for an item that reads and writes these pages: the
// most promising one, unless another is clearly faster, twice.
func (i *Image) Fastest(read, written []int) (Method, []Timing, error) {
	promising := i.Methods()[0]
	best := promising
	var timings []Timing
	for range 2 {
		var err error
		if timings, err = i.Measure(read, written); err != nil {
			return promising, nil, err
		}
		usual := timings[slices.IndexFunc(timings, func(t Timing) bool { return t.Method == promising })].Time
		if timings[0].Time > usual*3/4 {
			return promising, timings, nil
		}
		if best != promising && best != timings[0].Method {
			return promising, timings, nil
		}
		best = timings[0].Method
	}
	return best, timings, nil
}

// measure returns the shortest time of some rounds: what else the machine does
// can only add to it. It does less once that is more than enough.
func (i *Image) measure(method Method, read, written []int, enough time.Duration) (best time.Duration, err error) {
	size := i.size
	for _, p := range slices.Concat(read, written) {
		size = max(size, (p+1)*pageSize)
	}
	m, err := i.NewMemory(size, method)
	if err != nil {
		return 0, fmt.Errorf("measure method %s: %w", method, err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	sum := byte(0)
	begin := time.Now()
	for round := range measureMost {
		runtime.Gosched() // nobody waits for this
		start := time.Now()
		if !m.Grow(size) {
			return 0, fmt.Errorf("measure method %s: no memory left", method)
		}
		b := m.Bytes()
		for _, p := range read {
			sum += b[p*pageSize]
		}
		for _, p := range written {
			b[p*pageSize]++
		}
		if err := m.Restore(); err != nil {
			return 0, err
		}
		// The first rounds make the pages.
		if took := time.Since(start); round < 2 || took < best {
			best = took
		}
		if round >= 2 && best > enough || round >= measureLeast && time.Since(begin) > measureTime {
			break
		}
	}
	runtime.KeepAlive(sum) // the pages are to be read
	return best, nil
}
