//go:build unix

package shell

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalGroup asks a group to end, or kills it.
func signalGroup(pid int, kill bool) {
	signal := unix.SIGTERM
	if kill {
		signal = unix.SIGKILL
	}
	_ = unix.Kill(-pid, signal) // that there is nobody is no error
}

// exitCode is that of a shell: 128 and more for a signal.
func exitCode(status syscall.WaitStatus) int {
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

func hasFolder(name string) bool { return strings.ContainsRune(name, '/') }

// lookPath finds a program on a command's own path.
func lookPath(name string, env []string) (string, error) {
	path := ""
	for _, entry := range env {
		if value, found := strings.CutPrefix(entry, "PATH="); found {
			path = value
		}
	}
	err := exec.ErrNotFound
	for _, folder := range filepath.SplitList(path) {
		if !filepath.IsAbs(folder) {
			continue // where the command starts, strangers write files
		}
		file := filepath.Join(folder, name)
		info, serr := os.Stat(file)
		switch {
		case serr != nil || info.IsDir():
		case unix.Access(file, unix.X_OK) == nil:
			return file, nil
		default:
			err = os.ErrPermission
		}
	}
	return "", err
}
