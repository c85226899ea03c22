package sandbox

import "syscall"

// program is the one that runs, even if a newer one has taken its place.
func program() (string, error) { return "/proc/self/exe", nil }

// attributes make a process a group of its own, which does not survive the thread
// that started it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
