//go:build unix && !linux

package shell

import (
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// attributes make a command a process group of its own.
func attributes(cmd *exec.Cmd, _ string) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

// end waits for the process. Its number might be given to another from here on;
// the group is killed at once.
func (p *process) end() { p.state, p.err = p.cmd.Process.Wait() }

func (p *process) take() (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	status, _ := p.state.Sys().(syscall.WaitStatus)
	return exitCode(status), nil
}

func (p *process) signal(kill bool) { signalGroup(p.cmd.Process.Pid, kill) }

// readNow reads what is there, and says whether there may be more.
func readNow(fd uintptr, b []byte) (int, bool) {
	for {
		n, err := unix.Read(int(fd), b) //nolint:gosec // a descriptor fits
		if err == unix.EINTR {          //nolint:errorlint // as it comes from the system
			continue
		}
		return max(n, 0), err == nil && n > 0
	}
}
