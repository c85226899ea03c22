//go:build unix && !linux

package sandbox

import (
	"os"
	"syscall"
)

func program() (string, error) { return os.Executable() }

// attributes make a process a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
