//go:build unix

package session

import (
	"fmt"
	"io/fs"
	"syscall"
)

// device is the number of the device that a file is on, in decimal.
func device(info fs.FileInfo) (string, bool) {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", false
	}
	return fmt.Sprint(stat.Dev), true
}
