package sandbox

import (
	"context"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A tenant has one process, once it needs one, in each folder that its items are
// in: usually one.
type tenant struct {
	current  *process
	starting *starting // nil unless one is being started
	hinders  time.Time // when its process hindered others the last time
}

// starting is a process that is being started. waiting is guarded by the Sandbox's
// mu; the others are there once done is closed.
type starting struct {
	done    chan struct{}
	waiting int // who uses it from the beginning
	process *process
	err     error // why there is none
}

func (p *process) alive() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.why == nil
}

// wake has watch look.
func (p *process) wake() {
	select {
	case p.woken <- struct{}{}:
	default:
	}
}

// processOf returns the tenant's process, which is started if need be; leave must
// follow. folder is the one around an item's directory.
func (s *Sandbox) processOf(ctx context.Context, name, folder string) (*process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := name + "\x00" + folder
	for {
		t := s.tenants[key]
		if t == nil {
			t = &tenant{}
			s.tenants[key] = t
		}
		if p := t.current; p != nil {
			if p.alive() && !p.retired {
				p.users++
				return p, nil
			}
			t.current = nil
			s.retire(p)
		}
		if t.starting == nil {
			s.makeRoom(t)
			next := &starting{done: make(chan struct{})}
			t.starting = next
			before := effort{hinder: t.hinders}
			s.work.Go(func() {
				next.process, next.err = s.start(name, folder, before)
				s.mu.Lock()
				defer s.mu.Unlock()
				t.current, t.starting = next.process, nil
				if p := next.process; p != nil {
					p.users += next.waiting
					s.left(p) // who has started it
				}
				close(next.done)
			})
		}
		next := t.starting
		next.waiting++
		s.mu.Unlock()
		select {
		case <-next.done:
		case <-ctx.Done():
		}
		s.mu.Lock()
		select {
		case <-next.done:
		default:
			next.waiting--
			return nil, context.Cause(ctx)
		}
		p, err := next.process, next.err
		switch {
		case p != nil && ctx.Err() == nil && p.alive() && !p.retired:
			return p, nil
		case p != nil:
			s.left(p)
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case err != nil:
			return nil, err
		}
	}
}

// makeRoom ends the process that was not needed for the longest time if there are
// as many as share the memory. mu is held.
func (s *Sandbox) makeRoom(except *tenant) {
	var oldest *process
	n := 0
	for key, t := range s.tenants {
		p := t.current
		if t == except {
			continue
		}
		if p == nil && t.starting == nil || p != nil && !p.alive() && p.users == 0 {
			delete(s.tenants, key)
			continue
		}
		n++
		if p != nil && p.users == 0 && (oldest == nil || p.used.Before(oldest.used)) {
			oldest = p
		}
	}
	if n >= s.cfg.Shares && oldest != nil {
		s.retire(oldest)
	}
}

// retire has a process end when it has nothing to do. mu is held.
func (s *Sandbox) retire(p *process) {
	p.retired = true
	if p.users == 0 {
		p.stop()
	}
}

// leave ends what processOf began.
func (s *Sandbox) leave(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left(p)
}

// left is leave while mu is held.
func (*Sandbox) left(p *process) {
	p.users--
	p.used = time.Now()
	if p.users == 0 && p.retired {
		p.stop()
	}
}

// start starts a process for items, which takes the place of one with an effort.
func (s *Sandbox) start(tenant, folder string, before effort) (*process, error) {
	release := func() error { return nil }
	if s.cfg.Folder != nil {
		path, free, err := s.cfg.Folder(tenant)
		if err != nil {
			return nil, err
		}
		if path, err = filepath.Abs(path); err != nil || path != folder {
			if free != nil {
				_ = free() // the error is another one
			}
			return nil, beacon.Errorf(beacon.Internal, "an item's directory is not in the folder of its tenant")
		}
		if free != nil {
			release = free
		}
	}
	return s.launch(s.life, hello{
		Role: roleItems, Write: folder, Memory: s.runtime.Memory() / int64(s.cfg.Shares), Extra: extraMemory, Level: s.level(),
	}, before, release)
}

// laneCount is how many items of a process can go the short way at a time. Many
// more than there are processors are of no use: who waits need not be woken faster.
var laneCount = min(2*goruntime.GOMAXPROCS(0), 16)

// watch kills the process when it is silent, too large, or an item is overdue, and
// stops it when it has had nothing to do for long.
func (p *process) watch() {
	const step, look, rest = 50 * time.Millisecond, time.Second, time.Second
	cfg := &p.sandbox.cfg
	most := p.sandbox.runtime.Memory()/int64(cfg.Shares) + extraMemory
	timer := time.NewTimer(0)
	defer timer.Stop()
	var ping *wire.Waiter
	var asked, looked time.Time
	last := time.Now() // when there was something to watch
	for {
		select {
		case <-p.sandbox.life.Done():
			p.stop()
		case <-p.woken:
		case <-timer.C:
		}
		now := time.Now()
		p.mu.Lock()
		over, busy := p.why != nil, len(p.flights) > 0
		if busy || p.moved {
			last, p.moved = now, false
		}
		// Who has nothing to watch for a while is woken for the next item: not before,
		// which would cost each item more than all else on its way to the process.
		resting := ping == nil && now.Sub(last) > rest
		p.resting = resting
		var overdue *flight
		for _, f := range p.flights {
			if !f.over.IsZero() && now.After(f.over) {
				overdue = f
			}
		}
		if overdue != nil && !over {
			p.offender = overdue
		}
		p.mu.Unlock()
		if ping != nil {
			select {
			case <-ping.Done:
				_ = ping.Result(nil) // that it came is enough
				ping = nil
			default:
			}
		}
		switch {
		case over:
			if ping != nil {
				p.conn.Abandon(ping)
			}
			return
		case overdue != nil:
			p.end(errOverdue)
			continue
		case ping != nil && now.Sub(asked) > cfg.Heartbeat:
			p.end(errSilent)
			continue
		case busy && ping == nil && now.Sub(asked) > cfg.Heartbeat/4:
			ping, asked = p.conn.Ask(p.conn.Number(), methodPing, nil, 0), now
		}
		if busy && now.Sub(looked) > look {
			looked = now
			if size := privateMemory(p.cmd.Process.Pid); size > most {
				p.end(errLarge)
				continue
			}
		}
		p.yield(&p.effort, now)
		next := step
		if resting {
			if next = p.idle(now); next <= 0 {
				p.stop()
				continue
			}
		}
		timer.Reset(next)
	}
}

// extraMemory is what a process may have besides its guests' memory.
const extraMemory = 1 << 30

// idle is how long the process may go on having nothing to do.
func (p *process) idle(now time.Time) time.Duration {
	s := p.sandbox
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.users > 0 {
		return s.cfg.Idle
	}
	left := s.cfg.Idle - now.Sub(p.used)
	if left <= 0 {
		p.retired = true
	}
	return left
}
