package sandbox

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
)

// A spawner starts processes from one thread, since Linux ends them with the
// thread that has started them.
type spawner struct {
	work chan func()
	done sync.WaitGroup
}

func newSpawner() *spawner {
	s := &spawner{work: make(chan func())}
	s.done.Go(func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.work {
			f()
		}
	})
	return s
}

func (s *spawner) start(cmd *exec.Cmd) error {
	started := make(chan error)
	s.work <- func() { started <- cmd.Start() }
	return <-started
}

// close may be called when no process is started any more, and all have ended.
func (s *spawner) close() {
	close(s.work)
	s.done.Wait()
}

var errNotReady = errors.New("sandbox.Main must be called first in the program's main function: the processes of a sandbox are the same program")
