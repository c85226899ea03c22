package shell

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is the first one of a command, with the pipes that its group writes
// to. One goroutine looks after all of them, that of the item: the kernel tells
// it what there is to do by one descriptor. Most commands have ended before a
// goroutine for each would have begun.
type process struct {
	pid    int
	ended  int    // readable once the process has ended, see handle
	pipes  [2]int // ends to read; -1 is closed
	write  [2]int // our copies of the others, so that pipes have no end before the group
	into   [2]*capture
	epoll  int      // of the above
	events *os.File // it, watched by the runtime
	over   bool     // the process has ended

	heralds sync.WaitGroup // where ended is no descriptor of the process
}

// theEnd is what events call the process; pipes have their index.
const theEnd = 2

// attributes make a command a process group of its own.
func attributes(cmd *exec.Cmd, _ string) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
}

// start starts a command whose standard input, if it has none, is null. It takes
// of cmd what os/exec would, which opens and watches what need not be. handles is
// false for kernels that have no descriptors of processes.
func start(cmd *exec.Cmd, null *os.File, handles bool, out, errs *capture) (_ *process, err error) {
	p := &process{ended: -1, pipes: [2]int{-1, -1}, write: [2]int{-1, -1}, into: [2]*capture{out, errs}}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	events, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	if err := unix.SetNonblock(events, true); err != nil { // which tells os that it can be watched
		return nil, errors.Join(os.NewSyscallError("fcntl", err), unix.Close(events))
	}
	p.epoll, p.events = events, os.NewFile(uintptr(events), "command") //nolint:gosec // a descriptor
	for i := range p.pipes {
		var ends [2]int
		if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
			return nil, os.NewSyscallError("pipe2", err)
		}
		p.pipes[i], p.write[i] = ends[0], ends[1]
		if err := p.watch(ends[0], i); err != nil {
			return nil, err
		}
	}
	in := null
	if file, ok := cmd.Stdin.(*os.File); ok {
		in = file
	}
	if handles {
		cmd.SysProcAttr.PidFD = &p.ended
	}
	p.pid, _, err = syscall.StartProcess(cmd.Path, cmd.Args, &syscall.ProcAttr{
		Dir: cmd.Dir, Env: cmd.Environ(), Sys: cmd.SysProcAttr,
		Files: []uintptr{in.Fd(), uintptr(p.write[0]), uintptr(p.write[1])}, //nolint:gosec // descriptors
	})
	runtime.KeepAlive(in)
	if err != nil {
		return nil, err
	}
	if p.ended >= 0 && p.watch(p.ended, theEnd) == nil {
		return p, nil
	}
	if err = p.herald(); err != nil {
		p.signal(true)
		_, _ = p.take() // the first error counts
	}
	return p, err
}

// watch has events tell of a descriptor by a name.
func (p *process) watch(fd, name int) error {
	err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(name)}) //nolint:gosec // a descriptor, and 0 to 2
	return os.NewSyscallError("epoll_ctl", err)
}

// herald has a goroutine wait for the end of the process, and tell of it by a pipe.
func (p *process) herald() error {
	p.shut(&p.ended)
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	p.ended = ends[0]
	if err := p.watch(p.ended, theEnd); err != nil {
		return errors.Join(err, unix.Close(ends[1]))
	}
	p.heralds.Go(func() {
		for {
			err := unix.Waitid(unix.P_PID, p.pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		_ = unix.Close(ends[1])
	})
	return nil
}

// wait returns when the process has ended; until then it passes on what the group
// writes. The process stays a zombie until it is taken, so that its number, which is
// the group's, is not given to anybody else.
func (p *process) wait() {
	p.await(func() bool { return p.over })
	for !p.over { // the runtime cannot watch
		p.look(-1, func() bool { return p.over })
	}
}

// finish passes on what is left in the pipes, of a group that is no more.
func (p *process) finish() {
	closeAll(p.write[:])
	until := time.Now().Add(strayTime)
	enough := func() bool { return p.pipes == [2]int{-1, -1} || time.Now().After(until) }
	if p.look(0, enough) {
		return
	}
	if p.events.SetReadDeadline(until) == nil {
		p.await(enough)
	}
	for i, fd := range p.pipes {
		if fd < 0 {
			continue
		}
		// What is there now; whoever still writes could go on for ever.
		n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
		if err != nil || n <= 0 {
			continue
		}
		rest := make([]byte, n)
		if n, err = unix.Read(fd, rest); err == nil {
			p.into[i].take(rest[:n])
		}
	}
}

// await looks at what has happened, and again when more has, until it is enough
// or the time of events is over.
func (p *process) await(enough func() bool) {
	raw, err := p.events.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Read(func(uintptr) bool { return p.look(0, enough) }) // that the time is over is no error
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }} // a pipe has as much

// look does what there is to do, which it waits for so many milliseconds, until it
// is enough, or there is nothing.
func (p *process) look(wait int, enough func() bool) bool {
	var happened [3]unix.EpollEvent
	for !enough() {
		n, err := unix.EpollWait(p.epoll, happened[:], wait)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return false
		}
		wait = 0
		for _, e := range happened[:n] {
			switch {
			case e.Fd == theEnd:
				p.over = true
				p.shut(&p.ended)
			case e.Events&unix.EPOLLIN != 0:
				p.read(int(e.Fd))
			default: // all writers are gone
				p.shut(&p.pipes[e.Fd])
			}
		}
	}
	return true
}

// read passes on what is in a pipe; there is something.
func (p *process) read(i int) {
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	n, err := unix.Read(p.pipes[i], *buffer)
	switch {
	case n > 0:
		p.into[i].take((*buffer)[:n])
	case !errors.Is(err, unix.EINTR):
		p.shut(&p.pipes[i])
	}
}

// shut closes a descriptor. A process that is just being started may have it, too,
// so events is told.
func (p *process) shut(fd *int) {
	if *fd >= 0 {
		_ = unix.EpollCtl(p.epoll, unix.EPOLL_CTL_DEL, *fd, nil) // it may not know it
		_ = unix.Close(*fd)
		*fd = -1
	}
}

// take reaps the process, which has ended, and returns its exit code.
func (p *process) take() (int, error) {
	var status unix.WaitStatus
	for {
		_, err := unix.Wait4(p.pid, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, os.NewSyscallError("wait4", err)
		default:
			return exitCode(syscall.WaitStatus(status)), nil
		}
	}
}

// signal asks the group to end, or kills it. The process is not reaped, so the
// number is still the group's.
func (p *process) signal(kill bool) { signalGroup(p.pid, kill) }

func (p *process) close() {
	p.heralds.Wait()
	closeAll(p.write[:])
	closeAll(p.pipes[:])
	closeAll([]int{p.ended})
	_ = p.events.Close()
}

func closeAll(descriptors []int) {
	for i, fd := range descriptors {
		if fd >= 0 {
			_ = unix.Close(fd) // nothing waits to be written
			descriptors[i] = -1
		}
	}
}
