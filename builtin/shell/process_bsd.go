//go:build unix && !linux

package shell

import (
	"os"
	"os/exec"
	"syscall"
)

// attributes make a command a process group of its own.
func attributes(cmd *exec.Cmd, _ string) *int {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	return nil
}

// wait returns when the first process has ended. Its number might be given to
// another from here on; the group is killed at once.
func (g *group) wait() (take func() (*os.ProcessState, error)) {
	state, err := g.process.Wait()
	return func() (*os.ProcessState, error) { return state, err }
}

func newPipe() (read, write *os.File, err error) { return os.Pipe() }
