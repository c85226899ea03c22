package sandbox

import (
	"time"
)

const (
	// heavyShare of one processor makes a process heavy, for as long as heavyTime.
	heavyShare = 4 // a quarter
	heavyTime  = time.Second
	// reserveTime is how long a processor is kept free for the next item of a process
	// that is not heavy.
	reserveTime = 250 * time.Millisecond
)

// A load is what a process takes of the processors, for watch.
type load struct {
	looked time.Time
	used   time.Duration
	heavy  time.Time // when it was the last time
	aside  bool
}

// yield keeps the last processor free of the process as long as it takes much of
// the processors, and others, which do not, have items. Guests leave each other
// room within a process by themselves (package runtime, lane); between processes
// the kernel lets who has just woken wait for milliseconds behind who computes.
//
// Priorities would be no way: without privileges they can only be lowered, for ever.
func (p *process) yield(l *load, now time.Time) {
	if now.Sub(l.looked) < yieldEvery {
		return
	}
	used, ok := processorTime(p.cmd.Process.Pid)
	if !ok {
		return
	}
	if !l.looked.IsZero() && used-l.used > now.Sub(l.looked)/heavyShare {
		l.heavy = now
	}
	l.looked, l.used = now, used
	heavy := now.Sub(l.heavy) < heavyTime
	p.heavy.Store(heavy)
	if aside := heavy && p.sandbox.wanted(p, now); aside != l.aside {
		l.aside = aside
		stepAside(p.cmd.Process.Pid, aside)
	}
}

// yieldEvery is how often that is looked at.
const yieldEvery = 50 * time.Millisecond

// wanted reports whether other processes than p that are not heavy have items.
func (s *Sandbox) wanted(p *process, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tenants {
		if q := t.current; q != nil && q != p && !q.heavy.Load() && now.UnixNano()-q.worked.Load() < int64(reserveTime) {
			return true
		}
	}
	return false
}
