package sandbox

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// Kill has the process of a tenant end.
func (s *Sandbox) Kill(tenant string) { s.Signal(tenant, syscall.SIGKILL) }

// Signal sends a signal to the process of a tenant.
func (s *Sandbox) Signal(tenant string, signal syscall.Signal) {
	if p := s.processNow(tenant); p != nil {
		_ = p.cmd.Process.Signal(signal)
	}
}

// processNow is the process that a tenant's items run in, nil if there is none.
// Those of other folders, which it has taken the place of, may not be gone yet.
func (s *Sandbox) processNow(tenant string) *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, t := range s.tenants {
		if p := t.current; p != nil && !p.retired && strings.HasPrefix(key, tenant+"\x00") {
			return p
		}
	}
	return nil
}

// SignalAll sends a signal to all processes that have something to do.
func (s *Sandbox) SignalAll(signal syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.live {
		if p.quiet { // it makes a module ready, once it has the binary
			if _, err := os.Stat(filepath.Join(p.dir, binaryFile)); err != nil {
				continue
			}
		}
		_ = p.cmd.Process.Signal(signal)
	}
}

// ProcessName is the first argument of a process.
const ProcessName = processName

// Threads is how many threads a process has, and ThreadsFor how many it may have
// after so many items at a time.
var (
	Threads    = threads
	ThreadsFor = threadsFor
)

// ParseAnswers parses a payload as everything that a process may send.
func ParseAnswers(payload []byte) error {
	_, err1 := parseResult(payload)
	_, _, err2 := parseProgress(payload)
	_, err3 := parseAmount(payload)
	_, err4 := parseRun(payload)
	return errors.Join(err1, err2, err3, err4)
}

// PID is the number of the process of a tenant, 0 if there is none.
func (s *Sandbox) PID(tenant string) int {
	if p := s.processNow(tenant); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// An Effort is what watch knows of a process.
type Effort struct{ effort effort }

// Yield has the process of a tenant be looked at as watch does, at a time, as one
// that has taken much of the processors, or not.
func (s *Sandbox) Yield(tenant string, e *Effort, heavy bool, now time.Time) {
	e.effort.looked = time.Time{}
	if e.effort.heavy = (time.Time{}); heavy {
		e.effort.heavy = now
	}
	s.processNow(tenant).yield(&e.effort, now)
}

// AsideTime is how long a process gives way.
const AsideTime = asideTime

// Flood is what becomes of a process that asks again and again, and does not read.
func Flood(times int) error {
	ours, theirs := net.Pipe()
	p := &process{sandbox: &Sandbox{}, conn: wire.New(ours), flights: map[uint64]*flight{}}
	defer p.sandbox.work.Wait()
	defer func() { _, _ = p.conn.Close(), theirs.Close() }()
	request := amount{1, 1}.bytes()
	for range times {
		if err := p.Request(1, methodSpend, request); err != nil {
			return err
		}
	}
	return nil
}

// GiveBack is what becomes of a process that gives back bytes of files, of which
// its item holds so many.
func GiveBack(held, back int64) error {
	p := &process{flights: map[uint64]*flight{}}
	f := &flight{process: p, job: &beacon.Job{Account: beacon.NewAccount(nil)}}
	f.held.Store(held)
	p.flights[1] = f
	return p.Notice(noticeHold, amount{1, -back}.bytes())
}
