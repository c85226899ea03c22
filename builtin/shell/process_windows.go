package shell

import (
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// signal kills the processes that the command has started, as far as they are
// still its descendants, and the command. There is no signal that asks.
func (p *process) signal(kill bool) {
	if kill {
		// taskkill knows the tree; without it the first process goes alone.
		tree := exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(p.cmd.Process.Pid)) //nolint:noctx // it ends by itself
		_ = tree.Run()
		_ = p.cmd.Process.Kill() // it may have ended
	}
}

// end waits for the process, whose number stays its own while there is a handle.
func (p *process) end() {
	if h, err := syscall.OpenProcess(syscall.SYNCHRONIZE, false, uint32(p.cmd.Process.Pid)); err == nil { //nolint:gosec // a number of a process
		_, _ = syscall.WaitForSingleObject(h, syscall.INFINITE)
		_ = syscall.CloseHandle(h)
	}
}

func (p *process) take() (int, error) {
	state, err := p.cmd.Process.Wait()
	if err != nil {
		return 0, err
	}
	return state.ExitCode(), nil
}

func attributes(cmd *exec.Cmd, line string) {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
	if line != "" {
		cmd.SysProcAttr.CmdLine = syscall.EscapeArg(cmd.Path) + " " + line
	}
}

// readNow has nothing to read: pipes have no deadlines here.
func readNow(uintptr, []byte) (int, bool) { return 0, false }

func hasFolder(name string) bool { return strings.ContainsAny(name, `/\:`) }

func lookPath(name string, _ []string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", err
	}
	return filepath.Abs(path)
}
