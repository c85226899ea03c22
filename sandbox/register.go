package sandbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A registrar has a process for each module that is made ready.
type registrar struct{ sandbox *Sandbox }

// errSlow ends a process that takes too long.
var errSlow = errors.New("it took too long")

// Register implements wasmrt.Registrar.
func (r registrar) Register(ctx context.Context, reg wasmrt.Registration) error {
	s := r.sandbox
	select {
	case s.registering <- struct{}{}:
		defer func() { <-s.registering }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := s.enter(); err != nil {
		return err
	}
	defer s.users.Done()
	name := beacon.Excerpt(reg.Source.Name, 128)
	guest := cmp.Or(reg.Source.Limits.Memory, wasmrt.DefaultMemory)
	p, err := s.launch(ctx, hello{Role: roleRegister, Write: reg.Dir, Memory: guest, Extra: s.cfg.RegisterMemory, CPU: s.cfg.RegisterCPU, Level: s.level()}, effort{}, func() error { return nil })
	if err != nil {
		return fmt.Errorf("make module %s ready: %w", name, err)
	}
	defer func() {
		p.stop()
		<-p.gone
	}()
	if err := os.WriteFile(filepath.Join(p.dir, binaryFile), reg.Source.Binary, 0o600); err != nil {
		return fmt.Errorf("hand module %s to a process: %w", name, err)
	}
	inner, cancel := context.WithTimeoutCause(ctx, s.cfg.RegisterTime, errSlow)
	defer cancel()
	err = p.ask(inner, methodRegister, registerRequest{Source: sourceOf(reg.Source), Dir: reg.Dir, Key: reg.Key}, nil)
	if !errors.Is(err, wire.ErrClosed) && !errors.Is(err, wire.ErrProtocol) {
		return err
	}
	p.end(errDied)
	<-p.gone
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return r.died(name, p)
}

// died says why a process that made a module ready has ended.
func (r registrar) died(name string, p *process) error {
	cfg, said := &r.sandbox.cfg, p.said.String()
	used := p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
	switch {
	case errors.Is(p.reason(), errSlow):
		return beacon.Errorf(beacon.Timeout, "module %s took longer than %s to be compiled and initialised; raise --register-time, or make its functions smaller", name, cfg.RegisterTime)
	case errors.Is(p.reason(), errThreads):
		return beacon.Errorf(beacon.Refused, "module %s broke the process that compiled and initialised it: %v", name, p.reason())
	// The kernel counts in ticks, which is not quite what was used.
	case p.cmd.ProcessState.ExitCode() == exitCPU, wasKilled(p.cmd.ProcessState) && used >= cfg.RegisterCPU/2:
		return beacon.Errorf(beacon.Timeout, "module %s took more than %s of the processor to be compiled and initialised; raise --register-time, or make its functions smaller", name, cfg.RegisterCPU)
	case wasKilled(p.cmd.ProcessState) && !ranOut(said) && errors.Is(p.reason(), errDied):
		// Not by this program, nor for its time or memory: there its limits end it first.
		// So it is no reason to refuse the module from now on.
		return beacon.Errorf(beacon.Internal, "module %s: the process that compiled and initialised it was killed from outside, as the kernel does where a machine or a container has no memory left; give it more, and try again", name)
	case ranOut(said):
		return beacon.Errorf(beacon.MemoryLimit, "module %s took more than %s to be compiled and initialised; raise --register-memory, or make its functions smaller", name, megabytes(cfg.RegisterMemory))
	}
	r.sandbox.log.Error("the process that made a module ready has ended", "module", name, "status", p.cmd.ProcessState, "said", beacon.Excerpt(said, 1000))
	// Whatever it was, the module has brought it about, and would again.
	return beacon.Errorf(beacon.Refused, "module %s broke the process that compiled and initialised it", name)
}

// ranOut reports whether a process says that it had no memory left.
func ranOut(said string) bool {
	return slices.ContainsFunc([]string{
		"out of memory", "cannot allocate memory", "cannot map pages",
		"failed to create new OS thread", "pthread_create failed", // for want of a stack
	}, func(text string) bool { return strings.Contains(said, text) })
}

func megabytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

// The defaults of a Config.
const (
	defaultRegisterTime   = 2 * time.Minute
	defaultRegisterCPU    = 30 * time.Second
	defaultRegisterMemory = 1 << 30
)
