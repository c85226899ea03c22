package sandbox

import (
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

// stepAside has a process use all processors that this one may use but the last,
// or all of them again. A process that is gone, or hidden, stays as it is.
func stepAside(pid int, aside bool) {
	var all unix.CPUSet
	if unix.SchedGetaffinity(os.Getpid(), &all) != nil || all.Count() < 2 {
		return
	}
	if aside {
		for cpu := len(all)*64 - 1; cpu >= 0; cpu-- {
			if all.IsSet(cpu) {
				all.Clear(cpu)
				break
			}
		}
	}
	// Threads that begin meanwhile are like the one that has made them, which may
	// not have had its turn yet.
	done := map[string]bool{}
	for more := true; more; {
		more = false
		threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return
		}
		for _, t := range threads {
			if tid, err := strconv.Atoi(t.Name()); err == nil && !done[t.Name()] {
				done[t.Name()], more = true, true
				_ = unix.SchedSetaffinity(tid, &all) // it may be gone
			}
		}
	}
}
