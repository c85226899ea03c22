// Package sandbox makes modules ready in processes that hold nothing but them.
// The processes are the same program as their supervisor, have no environment,
// no network and no files but the module's, and are killed when they misbehave.
//
// A program that makes a Sandbox calls Main first in its main function.
package sandbox

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
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
}

// A Sandbox supervises processes. It is safe for concurrent use.
type Sandbox struct {
	cfg     Config
	log     *slog.Logger
	runtime *wasmrt.Runtime
	spawn   *spawner
	dir     *folder // has a folder for each process
	tell    sync.Once
	// registering bounds the processes that make modules ready.
	registering chan struct{}

	mu     sync.Mutex
	closed bool
	stats  Stats
	users  sync.WaitGroup // of processes
	work   sync.WaitGroup // that wait for processes
}

// New makes a Sandbox. No process is started yet. Close it.
func New(cfg Config) (*Sandbox, error) {
	if !ready.Load() {
		return nil, errNotReady
	}
	cfg.RegisterTime = cmp.Or(cfg.RegisterTime, defaultRegisterTime)
	cfg.RegisterCPU = cmp.Or(cfg.RegisterCPU, defaultRegisterCPU)
	cfg.RegisterMemory = cmp.Or(cfg.RegisterMemory, defaultRegisterMemory)
	s := &Sandbox{cfg: cfg, log: cmp.Or(cfg.Runtime.Log, slog.Default()), registering: make(chan struct{}, 2)}
	cfg.Runtime.Registrar = registrar{s}
	var err error
	if s.runtime, err = wasmrt.New(cfg.Runtime); err != nil {
		return nil, err
	}
	if s.dir, err = newFolder(cfg.Runtime.CacheDir); err != nil {
		return nil, err
	}
	s.spawn = newSpawner()
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

// Stats are numbers of a Sandbox.
type Stats struct {
	// Processes there are now, and have been started so far.
	Processes int
	Started   int64
}

// Stats returns numbers.
func (s *Sandbox) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// began and ended count processes.
func (s *Sandbox) began() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Processes++
	s.stats.Started++
}

func (s *Sandbox) ended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stats.Processes--
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
	s.work.Wait()
	s.spawn.close()
	return s.dir.close()
}
