package snapshot

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// A Timing is what one method takes, for writing to some pages and putting
// them back: some methods make the next write dearer.
type Timing struct {
	Method Method
	Time   time.Duration
}

// Measure times all methods that work here for an item that writes to the given
// pages, fastest first. It takes some milliseconds.
func (i *Image) Measure(pages []int) ([]Timing, error) {
	var timings []Timing
	for _, method := range i.Methods() {
		t, err := i.measure(method, pages)
		if err != nil {
			return nil, err
		}
		timings = append(timings, Timing{method, t})
	}
	slices.SortStableFunc(timings, func(a, b Timing) int { return int(a.Time - b.Time) })
	return timings, nil
}

const (
	measureRounds = 50
	measureTime   = time.Millisecond
)

// measure returns the shortest time of some rounds: what else the machine does
// can only add to it.
func (i *Image) measure(method Method, pages []int) (best time.Duration, err error) {
	size := i.size
	for _, p := range pages {
		size = max(size, (p+1)*pageSize)
	}
	m, err := i.NewMemory(size, method)
	if err != nil {
		return 0, fmt.Errorf("measure method %s: %w", method, err)
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	begin := time.Now()
	for round := range measureRounds {
		start := time.Now()
		if !m.Grow(size) {
			return 0, fmt.Errorf("measure method %s: no memory left", method)
		}
		b := m.Bytes()
		for _, p := range pages {
			b[p*pageSize]++
		}
		if err := m.Restore(); err != nil {
			return 0, err
		}
		// The first rounds make the pages.
		if took := time.Since(start); round < 2 || took < best {
			best = took
		}
		if round >= 3 && time.Since(begin) > measureTime {
			break
		}
	}
	return best, nil
}
