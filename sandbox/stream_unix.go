//go:build unix

package sandbox

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/sandbox/wire"
)

// childStream is the number of the descriptor that a process finds its end of the
// connection at.
const childStream = 3

// connect gives a command that has not started its end of a socket pair, and
// returns ours. started must be called when the command has started or failed to.
func connect(cmd *exec.Cmd) (stream io.ReadWriteCloser, started func(), err error) {
	// A process that is started between the calls would inherit our end.
	syscall.ForkLock.RLock()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(pair[0])
		unix.CloseOnExec(pair[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pair of sockets: %w", err)
	}
	for _, fd := range pair {
		if err = unix.SetNonblock(fd, true); err != nil {
			return nil, nil, errors.Join(fmt.Errorf("make a pair of sockets: %w", err), unix.Close(pair[0]), unix.Close(pair[1]))
		}
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "sandbox"), os.NewFile(uintptr(pair[1]), "supervisor")
	cmd.ExtraFiles = []*os.File{theirs}
	return ours, func() { _ = theirs.Close() }, nil // it was handed on
}

// supervisor is this process's end of its connection.
func supervisor() (io.ReadWriteCloser, error) {
	kind, err := unix.GetsockoptInt(childStream, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil || kind != unix.SOCK_STREAM {
		return nil, errors.New("it has no connection to a supervisor")
	}
	unix.CloseOnExec(childStream)
	if err := unix.SetNonblock(childStream, true); err != nil {
		return nil, err
	}
	return os.NewFile(childStream, "supervisor"), nil
}

// closeInherited closes what nobody has given to this process: the worker may have
// been started with open files, which only those who start it know of. What this
// process has opened, or was given and has taken, is marked as not to be inherited.
func closeInherited() {
	numbers := make([]int, 0, 64)
	for _, dir := range []string{"/proc/self/fd", "/dev/fd"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if fd, err := strconv.Atoi(e.Name()); err == nil {
				numbers = append(numbers, fd)
			}
		}
		break
	}
	if len(numbers) == 0 { // no system of ours, but who knows
		for fd := range 1 << 12 {
			numbers = append(numbers, fd)
		}
	}
	for _, fd := range numbers {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0) //nolint:gosec // not negative
		if fd > childStream && err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd) // whatever it is
		}
	}
}

// openLane is this process's end of one of its lanes.
func openLane(n int) (*wire.Lane, error) { return wire.OpenLane(childStream + 1 + n) }

// exitCPU is the exit code of a process that has used up its time on processors.
const exitCPU = 75

// endAtLimit ends this process when it has used up its time on processors, if it
// gets to it; the kernel does soon after.
func endAtLimit() {
	over := make(chan os.Signal, 1)
	signal.Notify(over, unix.SIGXCPU)
	go func() {
		<-over
		os.Exit(exitCPU)
	}()
}

// kill ends a process, and what is in its group.
func kill(cmd *exec.Cmd) {
	// That it has ended already is as good.
	_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
	_ = cmd.Process.Kill()
}

// wasKilled reports whether a process was ended by somebody else, or the kernel.
func wasKilled(state *os.ProcessState) bool {
	status, ok := state.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}
