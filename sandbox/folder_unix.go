//go:build unix

package sandbox

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockFolder takes a folder as long as this process lives, or the file is open.
func lockFolder(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor
		_ = f.Close() // it was only opened
		return nil, err
	}
	return f, nil
}

// sweep removes a folder whose owner has died, or has not locked it yet.
func sweep(path string) {
	f, err := lockFolder(path)
	if err != nil {
		return // somebody lives
	}
	_ = os.RemoveAll(path) // what stays is tried again by the next one
	_ = f.Close()
}
