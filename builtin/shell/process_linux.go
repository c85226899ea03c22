package shell

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// wait returns when the first process has ended. It stays a zombie until it is
// taken, so that its number, which is the group's, is not given to anybody else.
func (g *group) wait() (take func() (*os.ProcessState, error)) {
	for {
		err := unix.Waitid(unix.P_PID, g.process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return g.process.Wait
		}
	}
}
