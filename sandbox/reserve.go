package sandbox

import (
	"time"

	"github.com/ultravisor/beacon/sandbox/wire"
)

const (
	// heavyShare of one processor makes a process heavy, for as long as heavyTime.
	heavyShare = 4 // a quarter
	heavyTime  = time.Second
	// reserveTime is how long others are waited for that have had an item and are not
	// heavy.
	reserveTime = 250 * time.Millisecond
	// asideTime is how long a process gives way after that was of use the last time,
	// and the one that takes its place. It is longer than tenants usually pause: to
	// begin anew costs the others the first items.
	asideTime = 5 * time.Second
	// yieldEvery is how often that is looked at.
	yieldEvery = 50 * time.Millisecond
)

// An effort is what a process takes of the processors, for watch.
type effort struct {
	looked time.Time
	used   time.Duration
	opened int64
	heavy  time.Time // when it was the last time
	hinder time.Time // when others had items meanwhile
	aside  bool      // it gives way
}

// yield has the process give way to all others as long as it takes much of the
// processors, and others, which do not, have items. Guests leave each other room
// within a process by themselves (package runtime, lane); between processes the
// kernel lets who has just woken wait for milliseconds behind who computes.
//
// Two things are needed. Threads of the lowest class (SCHED_IDLE) are interrupted
// when somebody else wakes, but they have a right to a little time, too, and keep a
// processor until the next tick when they have got it: so they also offer it to
// others every 100 us. Only with privileges can a process come back from that class.
// Without, another one takes its place, which costs its tenant's next item a start.
func (p *process) yield(l *effort, now time.Time) {
	if now.Sub(l.looked) < yieldEvery {
		return
	}
	opened := p.opened.Load()
	if opened == 0 {
		return // it begins, which must not take for ever on a busy machine
	}
	used, ok := processorTime(p.cmd.Process.Pid)
	if !ok {
		return
	}
	// To begin and to open modules takes much of a processor for a moment. That is not
	// the tenant's doing.
	if !l.looked.IsZero() && opened == l.opened && opened == p.opening.Load() && used-l.used > now.Sub(l.looked)/heavyShare {
		l.heavy = now
	}
	l.looked, l.used, l.opened = now, used, opened
	heavy := now.Sub(l.heavy) < heavyTime
	p.heavy.Store(heavy)
	if heavy && p.sandbox.wanted(p, now) {
		l.hinder = now
	}
	aside := now.Sub(l.hinder) < asideTime
	if aside == l.aside {
		return
	}
	l.aside = aside
	switch err := giveWay(p.cmd.Process.Pid, aside); {
	case err == nil:
		p.aside.Store(aside)
		p.conn.Notify(noticeAside, wire.AppendBool(nil, aside))
	case aside:
		p.sandbox.unable.Do(func() {
			p.sandbox.log.Warn("tenants that compute hinder others more than they could: their processes cannot be made to give way", "err", err)
		})
	case p.aside.Load():
		p.sandbox.log.Debug("another process is going to take the place of one that has given way", "err", err)
		p.sandbox.mu.Lock()
		defer p.sandbox.mu.Unlock()
		p.sandbox.retire(p)
	}
}

// turn has a process that gives way not keep this one busy either: with a few
// requests at once, and then a pause. Whoever reads from the process calls it.
func (p *process) turn() {
	const atOnce, pause = 4, time.Millisecond
	if !p.aside.Load() {
		return
	}
	if p.turns++; p.turns%atOnce == 0 {
		time.Sleep(pause)
	}
}

// wanted reports whether other processes than p that are not heavy have items, and
// remembers it for the process that takes p's place.
func (s *Sandbox) wanted(p *process, now time.Time) (wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var own *tenant
	for _, t := range s.tenants {
		switch q := t.current; {
		case q == nil:
		case q == p:
			own = t
		case !q.heavy.Load() && now.UnixNano()-q.worked.Load() < int64(reserveTime):
			wanted = true
		}
	}
	if wanted && own != nil {
		own.hinders = now
	}
	return wanted
}
