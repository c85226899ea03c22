package runtime

import "golang.org/x/sys/unix"

// yieldProcessor has the system run another thread that wants this processor, if
// there is one. Go's scheduler is not told: it takes less than that would.
func yieldProcessor() { _, _ = unix.RawSyscallNoError(unix.SYS_SCHED_YIELD, 0, 0, 0) }
