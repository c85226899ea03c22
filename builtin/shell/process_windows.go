package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// signal kills the processes that the command has started, as far as they are
// still its descendants, and the command. There is no signal that asks.
func (g *group) signal(kill bool) {
	if kill {
		// taskkill knows the tree; without it the first process goes alone.
		tree := exec.Command("taskkill", "/T", "/F", "/PID", strconv.Itoa(g.process.Pid)) //nolint:noctx // it ends by itself
		_ = tree.Run()
		_ = g.process.Kill() // it may have ended
	}
}

// wait returns when the first process has ended; its number stays its own while
// there is a handle.
func (g *group) wait() (take func() (*os.ProcessState, error)) {
	if h, err := syscall.OpenProcess(syscall.SYNCHRONIZE, false, uint32(g.process.Pid)); err == nil { //nolint:gosec // a number of a process
		_, _ = syscall.WaitForSingleObject(h, syscall.INFINITE)
		_ = syscall.CloseHandle(h)
	}
	return g.process.Wait
}

func attributes(cmd *exec.Cmd, line string) *int {
	cmd.SysProcAttr = &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP, HideWindow: true}
	if line != "" {
		cmd.SysProcAttr.CmdLine = syscall.EscapeArg(cmd.Path) + " " + line
	}
	return nil
}

func exitCode(state *os.ProcessState) int { return state.ExitCode() }

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

func newPipe() (read, write *os.File, err error) { return os.Pipe() }
