// Package confine takes from the process that calls it what it does not need:
// files, system calls, the network, privileges, and memory without end. What is
// taken is never given back.
//
// On Linux it uses resource limits, capabilities, no_new_privs, Landlock and
// seccomp, each as far as the kernel has it. On other systems of the Unix family
// there are the resource limits only, on Windows nothing.
package confine

import (
	"strings"
	"time"
)

// Rules say what a process keeps.
type Rules struct {
	// Read are folders in which files may be read; in those of Write files and
	// folders may be made, changed and removed, too. Everything else on the file
	// systems is out of reach, apart from what is open.
	Read, Write []string
	// Memory is how much more than now the process may have, in bytes, 0 for no
	// limit: what it can write to, whether it does or not (RLIMIT_DATA).
	Memory int64
	// Addresses is how much more it may reserve in all (RLIMIT_AS), 0 for no limit.
	Addresses int64
	// CPU is the time on processors that the process may use in all, in seconds, 0
	// for no limit: then it gets SIGXCPU, and two seconds later SIGKILL.
	CPU time.Duration
	// OpenFiles and FileSize bound what it has open, and each file in bytes; 0 for
	// no limit.
	OpenFiles uint64
	FileSize  int64
}

// A Report says what is in force.
type Report struct {
	// Files is true if files outside of Rules' folders are out of reach, Calls if
	// only the system calls that are needed work: no network, no other program.
	Files, Calls bool
	// Missing says in words what is not in force, and why.
	Missing []string
}

// Complete reports whether everything is in force.
func (r Report) Complete() bool { return len(r.Missing) == 0 }

func (r *Report) lacks(what string, err error) {
	r.Missing = append(r.Missing, what+": "+err.Error())
}

func (r Report) String() string {
	if r.Complete() {
		return "complete"
	}
	return "without " + strings.Join(r.Missing, "; ")
}
