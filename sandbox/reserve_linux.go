package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// processorTime is what a process has had of the processors.
func processorTime(pid int) (time.Duration, bool) {
	var t unix.Timespec
	err := unix.ClockGettime(int32(^pid<<3|2), &t) //nolint:gosec // the clock of a process, see clock_getcpuclockid(3)
	return time.Duration(t.Nano()), err == nil
}

// giveWay has a process run only where nobody else wants the processor, or again
// as this one does, for which it may lack the privilege. A process that is gone
// stays as it is.
func giveWay(pid int, on bool) error {
	attr, err := unix.SchedGetAttr(0, 0)
	if err != nil {
		return fmt.Errorf("ask how this process is scheduled: %w", err)
	}
	if on {
		attr.Policy = unix.SCHED_IDLE
	}
	// Threads that begin meanwhile are like the one that has made them, which may
	// not have had its turn yet.
	done := map[string]bool{}
	for more := true; more; {
		more = false
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return nil //nolint:nilerr // it has ended
		}
		for _, t := range threads {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[t.Name()] {
				continue
			}
			done[t.Name()], more = true, true
			if err := unix.SchedSetAttr(tid, attr, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("set how a process is scheduled: %w", err)
			}
		}
	}
	return nil
}
