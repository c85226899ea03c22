//go:build unix

package shell

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// signal asks the group to end, or kills it; mu is held, and the first process
// is not reaped, so the number is still the group's.
func (g *group) signal(kill bool) {
	signal := unix.SIGTERM
	if kill {
		signal = unix.SIGKILL
	}
	_ = unix.Kill(-g.process.Pid, signal) // that there is nobody is no error
}

// exitCode is that of a shell: 128 and more for a signal.
func exitCode(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return state.ExitCode()
}

// readNow reads what is there, and says whether there may be more.
func readNow(fd uintptr, b []byte) (int, bool) {
	for {
		n, err := unix.Read(int(fd), b) //nolint:gosec // a descriptor fits
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return max(n, 0), err == nil && n > 0
	}
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
