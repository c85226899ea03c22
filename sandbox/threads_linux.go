package sandbox

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// threads is how many threads a process has, 0 if nobody knows: a folder of the
// kernel has a link for each of its folders, and two more.
func threads(pid int) int {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/task", &st) != nil {
		return 0
	}
	return max(int(st.Nlink)-2, 0) //nolint:gosec,unconvert // its type differs; there are not that many
}
