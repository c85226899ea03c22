// Package sandbox runs modules in processes that hold nothing but them: one for
// each module that is made ready, and one for the items of each tenant. The
// processes are the same program as their supervisor, have no environment, no
// network and no files but the modules' and the items', and are killed when they
// misbehave.
//
// A program that makes a Sandbox calls Main first in its main function.
package sandbox

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox/confine"
)

// Config says how a Sandbox works. The zero value does.
type Config struct {
	// Runtime is that of the modules: the cache, what guests may have of memory, who
	// is told of what they use. A Registrar cannot be given.
	Runtime wasmrt.Config
	// RegisterTime, RegisterCPU and RegisterMemory bound the process that makes a
	// module ready: the time on the wall, on the processors, and the memory in bytes
	// besides the guest's own. Defaults 2 minutes, 30 s and 1 GiB. Memory and
	// processors are bounded on Linux only.
	RegisterTime   time.Duration
	RegisterCPU    time.Duration
	RegisterMemory int64

	// Folder gives the folder that the directories of a tenant's items are made in:
	// its process reaches no other files. The folder stays until release, which may
	// be nil, is called. Without it, the folder around an item's directory counts.
	Folder func(tenant string) (path string, release func() error, err error)
	// Shares is how many processes there are for items, as long as not more tenants
	// have items at a time: each gets its share of the memory. Default 1.
	Shares int
	// Grace is how long an item may go on after its deadline, and after it was
	// canceled and had its second to end, before its process is killed. Default
	// 500 ms.
	Grace time.Duration
	// Heartbeat is how long a process that has items may be silent before it is
	// killed. Default 10 s.
	Heartbeat time.Duration
	// Idle is how long a process without items is kept. Default 10 minutes.
	Idle time.Duration
}

// A Sandbox supervises processes. It is safe for concurrent use.
type Sandbox struct {
	cfg     Config
	log     *slog.Logger
	runtime *wasmrt.Runtime
	spawn   *spawner
	dir     *folder // has a folder for each process
	tell    sync.Once
	unable  sync.Once // to tell that processes do not give way
	// registering bounds the processes that make modules ready.
	registering chan struct{}

	life context.Context
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	stats   Stats
	tenants map[string]*tenant
	live    map[*process]struct{} // all of them, of whatever role
	modules uint64                // so far
	running atomic.Int64
	users   sync.WaitGroup // of processes
	work    sync.WaitGroup // that wait for processes, and count their threads
}

// New makes a Sandbox. No process is started yet. Close it.
func New(cfg Config) (*Sandbox, error) {
	if !ready.Load() {
		return nil, errNotReady
	}
	cfg.RegisterTime = cmp.Or(cfg.RegisterTime, defaultRegisterTime)
	cfg.RegisterCPU = cmp.Or(cfg.RegisterCPU, defaultRegisterCPU)
	cfg.RegisterMemory = cmp.Or(cfg.RegisterMemory, defaultRegisterMemory)
	cfg.Shares = max(cfg.Shares, 1)
	cfg.Grace = cmp.Or(cfg.Grace, 500*time.Millisecond)
	cfg.Heartbeat = cmp.Or(cfg.Heartbeat, 10*time.Second)
	cfg.Idle = cmp.Or(cfg.Idle, 10*time.Minute)
	s := &Sandbox{tenants: map[string]*tenant{}, live: map[*process]struct{}{}, cfg: cfg, log: cmp.Or(cfg.Runtime.Log, slog.Default()), registering: make(chan struct{}, 2)}
	cfg.Runtime.Registrar = registrar{s}
	var err error
	if s.runtime, err = wasmrt.New(cfg.Runtime); err != nil {
		return nil, err
	}
	if s.dir, err = newFolder(cfg.Runtime.CacheDir); err != nil {
		return nil, err
	}
	s.spawn = newSpawner()
	s.life, s.end = context.WithCancel(context.Background())
	s.work.Go(s.census)
	return s, nil
}

// Runtime makes modules ready in a process, and runs them in this one.
func (s *Sandbox) Runtime() *wasmrt.Runtime { return s.runtime }

// enter says that a process is going to be used, until users.Done.
func (s *Sandbox) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return beacon.Errorf(beacon.Internal, "the sandbox is closed")
	}
	s.users.Add(1)
	return nil
}

// Confinement starts a process as one for items is, and says what is in force
// there.
func (s *Sandbox) Confinement(ctx context.Context) (confine.Report, error) {
	if err := s.enter(); err != nil {
		return confine.Report{}, err
	}
	defer s.users.Done()
	h := hello{Role: roleRegister, Memory: wasmrt.DefaultMemory, Extra: s.cfg.RegisterMemory, CPU: s.cfg.RegisterCPU, Level: s.level()}
	p, err := s.launch(ctx, h, effort{}, func() error { return nil })
	if err != nil {
		return confine.Report{}, err
	}
	report := p.confinement
	p.stop()
	<-p.gone
	return report, nil
}

// Stats are numbers of a Sandbox.
type Stats struct {
	// Processes there are now, and have been started so far.
	Processes int
	Started   int64
	// Running are items in processes.
	Running int
}

// Stats returns numbers.
func (s *Sandbox) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Processes = len(s.live)
	stats.Running = int(s.running.Load())
	return stats
}

// began and ended count processes.
func (s *Sandbox) began(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[p] = struct{}{}
	s.stats.Started++
}

func (s *Sandbox) ended(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, p)
}

// level is the lowest level of log lines that anybody wants.
func (s *Sandbox) level() slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn} {
		if s.log.Enabled(context.Background(), level) {
			return level
		}
	}
	return slog.LevelError
}

// Close waits for what is under way, and removes what the processes had.
func (s *Sandbox) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.users.Wait()
	s.end()
	s.work.Wait()
	s.spawn.close()
	return s.dir.close()
}
