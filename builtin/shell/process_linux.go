package shell

import (
	"errors"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// newPipe is os.Pipe, whose write end is for the command only: it blocks, as
// commands expect, and is never watched.
func newPipe() (read, write *os.File, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, nil, os.NewSyscallError("pipe2", err)
	}
	if err := unix.SetNonblock(ends[0], true); err != nil {
		_, _ = unix.Close(ends[0]), unix.Close(ends[1]) // the first error counts
		return nil, nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(ends[0]), "|0"), os.NewFile(uintptr(ends[1]), "|1"), nil //nolint:gosec // descriptors
}

// attributes make a command a process group of its own, and ask for a descriptor
// of its first process.
func attributes(cmd *exec.Cmd, _ string) *int {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	handle := -1
	cmd.SysProcAttr.Setpgid = true
	cmd.SysProcAttr.PidFD = &handle
	return &handle
}

// wait returns when the first process has ended. It stays a zombie until it is
// taken, so that its number, which is the group's, is not given to anybody else.
func (g *group) wait() (take func() (*os.ProcessState, error)) {
	if !g.poll() {
		for {
			err := unix.Waitid(unix.P_PID, g.process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	return g.process.Wait
}

// poll waits as one waits for a socket, without a thread that sits in a call. It
// is false where the kernel has no descriptors of processes.
func (g *group) poll() bool {
	if *g.handle < 0 {
		return false
	}
	if err := unix.SetNonblock(*g.handle, true); err != nil {
		_ = unix.Close(*g.handle) // it is of no use
		return false
	}
	f := os.NewFile(uintptr(*g.handle), "process") //nolint:gosec // a descriptor
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	ended := false
	err = raw.Read(func(fd uintptr) bool {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PIDFD, int(fd), &info, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) //nolint:gosec // a descriptor
		ended = err == nil && info.Signo != 0
		return ended || err != nil && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN)
	})
	return err == nil && ended
}
