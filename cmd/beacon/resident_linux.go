package main

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// forgetProgram unmaps what is resident of the program's own file. What is used
// again is mapped again, from the kernel's cache, and what is not, as most of what a
// start touches, can be given up by the kernel when memory is short. A file that
// was just written lies in the cache in pieces of 2 MiB, of which a single access
// maps the whole: 58 MiB were resident in a worker that needs 8. So from now
// on small pages of it are mapped.
//
// Nothing is lost where it does not work: it is about what the system counts as ours.
func forgetProgram() {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return
	}
	for _, m := range mappings(text, program) {
		for _, advice := range []uintptr{unix.MADV_NOHUGEPAGE, unix.MADV_DONTNEED} {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, advice) // the kernel may not know it
		}
	}
}

// forgetMemory gives back the pages of memory that has only zeros, which it has
// again when it is used.
func forgetMemory(zeros []byte) {
	_ = unix.Madvise(zeros, unix.MADV_DONTNEED) // as above
}

// A mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// mappings reads in a text like /proc/self/smaps, see proc_pid_smaps(5), where
// a file is mapped only to be read, and no page has become memory of our own: a
// linker writes addresses into some before they are made read-only.
func mappings(smaps []byte, file string) (found []mapping) {
	var m mapping
	candidate := false
	for line := range bytes.Lines(smaps) {
		fields := bytes.Fields(line)
		switch {
		case len(fields) >= 5 && len(fields[1]) == 4 && !bytes.HasSuffix(fields[0], []byte(":")):
			// The range, permissions, offset, device, inode and path.
			first, end, _ := bytes.Cut(fields[0], []byte("-"))
			from, err1 := strconv.ParseUint(string(first), 16, 64)
			to, err2 := strconv.ParseUint(string(end), 16, 64)
			m = mapping{uintptr(from), uintptr(to)}
			candidate = err1 == nil && err2 == nil && from < to && fields[1][1] != 'w' && len(fields) == 6 && string(fields[5]) == file
		case candidate && len(fields) == 3 && string(fields[0]) == "Anonymous:":
			if string(fields[1]) == "0" {
				found = append(found, m)
			}
			candidate = false
		}
	}
	return found
}
