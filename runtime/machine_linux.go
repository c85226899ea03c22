package runtime

import (
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// machineMemory is the memory that the process may have, in bytes: what the
// machine has, or less, where its group or one of those around it is bounded.
func machineMemory() int64 {
	least := int64(otherMemory)
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		least = int64(info.Totalram) * int64(info.Unit) //nolint:gosec // bytes of a machine
	}
	groups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return least
	}
	for line := range strings.Lines(string(groups)) {
		// Version 2 has one line, "0::/name".
		name, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		for ok {
			if limit, err := readNumber("/sys/fs/cgroup" + name + "/memory.max"); err == nil {
				least = min(least, limit)
			}
			if name == "/" || name == "." || name == "" {
				break
			}
			name = path.Dir(name)
		}
	}
	return least
}

func readNumber(file string) (int64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is an error
}
