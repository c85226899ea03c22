package sandbox

import (
	"errors"
	"fmt"
	goruntime "runtime"
	"time"
)

// errThreads ends a process that makes threads as no process of ours does. Threads
// are the one thing of which a process can take from all others without end: its
// memory and its files have limits of the kernel, but the number of threads has
// one for all processes of a user only, and for all of the machine.
var errThreads = errors.New("the process has too many threads")

const (
	// threadsTime is how often threads are counted. In that time a process can make
	// a thousand, of the 32,768 that a small machine has.
	threadsTime = 50 * time.Millisecond
	// baseThreads and those for each processor are for Go's runtime, the compiler
	// and the lanes; a process that works has some twenty.
	baseThreads, processorThreads = 256, 4
	// itemThreads are for an item: Go has a thread for each call to the system that
	// takes long, and an item makes one by itself and one for each of its 16 handles
	// at the most.
	itemThreads = 17
	// mostThreads is where Go's runtime itself ends a process.
	mostThreads = 10_000
)

// threadsFor is how many threads a process may have that has had so many items at
// a time. Go keeps those that it once had.
func threadsFor(items int) int {
	return min(baseThreads+processorThreads*goruntime.NumCPU()+itemThreads*items, mostThreads)
}

// census ends processes that have too many threads, until the sandbox is closed.
// It counts whether they have items or not: what broke out of its guest can wait
// until nobody looks.
func (s *Sandbox) census() {
	tick := time.NewTicker(threadsTime)
	defer tick.Stop()
	var all []*process
	for {
		select {
		case <-s.life.Done():
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for p := range s.live {
			all = append(all, p)
		}
		s.mu.Unlock()
		for n, p := range all {
			p.countThreads()
			all[n] = nil
		}
		all = all[:0]
	}
}

func (p *process) countThreads() {
	p.mu.Lock()
	over, most := p.why != nil, threadsFor(p.peak)
	p.mu.Unlock()
	if over {
		return // its number may be another's by now
	}
	if n := threads(p.cmd.Process.Pid); n > most {
		p.end(fmt.Errorf("%w: %d, limit %d", errThreads, n, most))
	}
}
