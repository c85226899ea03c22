package sandbox

import (
	"os"
	"syscall"
)

func program() (string, error) { return os.Executable() }

func attributes() *syscall.SysProcAttr { return nil }
