package confine

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Apply puts the rules into force, as far as the system can, for all threads.
// Whoever calls it has opened before what will be needed.
func Apply(r Rules) Report {
	var report Report
	if err := limit(r); err != nil {
		report.lacks("resource limits", err)
	}
	// Nobody may look into this process, and it leaves no image of itself.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		report.lacks("protection from being traced", err)
	}
	if err := dropCapabilities(); err != nil {
		report.lacks("dropping of capabilities", err)
	}
	if err := restrictFiles(r); err != nil {
		report.lacks("Landlock", err)
	} else {
		report.Files = true
	}
	if err := restrictCalls(); err != nil {
		report.lacks("seccomp", err)
	} else {
		report.Calls = true
	}
	return report
}

// limit sets the resource limits. The one on the number of processes counts all
// of the user's threads, so it is none here: no process can be made anyway.
func limit(r Rules) error {
	vm, data, err := memory()
	if err != nil && r.Memory+r.Addresses > 0 {
		return err
	}
	var errs []error
	set := func(resource int, most uint64) {
		errs = append(errs, setLimit(resource, most))
	}
	if r.Memory > 0 {
		set(unix.RLIMIT_DATA, data+uint64(r.Memory))
	}
	if r.Addresses > 0 {
		set(unix.RLIMIT_AS, vm+uint64(r.Addresses))
	}
	return errors.Join(append(errs, limitUnix(r))...)
}

// memory is what the process has now, in bytes: addresses, and writable ones.
func memory() (addresses, data uint64, err error) {
	raw, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, 0, err
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 6 {
		return 0, 0, errors.New("/proc/self/statm has another form")
	}
	page := uint64(os.Getpagesize()) //nolint:gosec // not negative
	if addresses, err = strconv.ParseUint(fields[0], 10, 64); err == nil {
		data, err = strconv.ParseUint(fields[5], 10, 64)
	}
	return addresses * page, data * page, err
}

// dropCapabilities makes root an ordinary user, for all threads.
func dropCapabilities() error {
	header, none := capabilities()
	_, _, errno := psx.Syscall3(unix.SYS_CAPSET, header, none, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

const (
	readRights  = ll.AccessFSReadFile | ll.AccessFSReadDir
	writeRights = readRights | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSRemoveDir | ll.AccessFSRemoveFile |
		ll.AccessFSMakeDir | ll.AccessFSMakeReg
)

// restrictFiles leaves the folders of the rules, and no TCP, no signals and no
// abstract sockets to the outside where Landlock knows them.
func restrictFiles(r Rules) error {
	version, err := ll.LandlockGetABIVersion()
	if err != nil || version < 1 {
		return errors.New("the kernel does not have it, or it is not enabled")
	}
	if version < 3 {
		return fmt.Errorf("the kernel has version %d of it, too old: files could be cut off", version)
	}
	return landlock.V7.BestEffort().Restrict(
		landlock.PathAccess(readRights, r.Read...),
		landlock.PathAccess(writeRights, r.Write...).WithRefer(),
	)
}

// needed are the system calls of Go's runtime and of what modules may do: work
// in memory, with files that Landlock leaves, and with what is open.
var needed = []string{
	// Memory. The engine makes code executable.
	"brk", "madvise", "membarrier", "memfd_create", "mincore", "mmap", "mprotect", "mremap", "munmap",
	// Threads of this process.
	"arch_prctl", "exit", "exit_group", "futex", "gettid", "rseq", "sched_getaffinity", "sched_yield", "set_robust_list", "set_tid_address",
	// Signals to itself.
	"restart_syscall", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
	// Time and chance.
	"clock_getres", "clock_gettime", "clock_nanosleep", "getrandom", "gettimeofday", "nanosleep", "time",
	// Itself.
	"getegid", "geteuid", "getgid", "getpid", "getppid", "getrusage", "getuid", "sysinfo", "uname",
	// What is open.
	"close", "dup", "dup3", "epoll_create1", "epoll_ctl", "epoll_pwait", "epoll_pwait2", "epoll_wait", "eventfd2", "fstat", "fsync",
	"fdatasync", "ftruncate", "getdents64", "lseek", "pipe2", "pread64", "preadv", "pwrite64", "pwritev", "read", "readv", "recvmsg",
	"write", "writev",
	// Files.
	"fchmod", "fchmodat", "fchmodat2", "mkdirat", "newfstatat", "openat", "openat2", "readlinkat", "renameat", "renameat2", "statx", "unlinkat",
	"utimensat", "getcwd",
}

// conditional are those that are needed for some purposes only.
func conditional() []seccomp.NameWithConditions {
	is := func(name string, argument uint32, values ...uint64) (list []seccomp.NameWithConditions) {
		for _, v := range values {
			list = append(list, seccomp.NameWithConditions{Name: name, Conditions: seccomp.ArgumentConditions{
				{Argument: argument, Operation: seccomp.Equal, Value: v},
			}})
		}
		return list
	}
	const (
		// What package snapshot asks of the files that it has opened.
		pagemapScan   = 0xc0606610 // PAGEMAP_SCAN
		faultRegister = 0xc020aa00 // UFFDIO_REGISTER
		faultProtect  = 0xc018aa06 // UFFDIO_WRITEPROTECT
		setVMA        = 0x53564d41 // PR_SET_VMA: Go names its memory
	)
	self := uint64(os.Getpid()) //nolint:gosec // not negative
	return slices.Concat(
		[]seccomp.NameWithConditions{{Name: "clone", Conditions: seccomp.ArgumentConditions{
			{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD},
		}}, {Name: "prlimit64", Conditions: seccomp.ArgumentConditions{ // only asking
			{Argument: 0, Operation: seccomp.Equal, Value: 0}, {Argument: 2, Operation: seccomp.Equal, Value: 0},
		}}},
		is("tgkill", 0, self),
		is("ioctl", 1, pagemapScan, faultRegister, faultProtect),
		is("prctl", 0, setVMA),
		is("fcntl", 1, unix.F_DUPFD, unix.F_DUPFD_CLOEXEC, unix.F_GETFD, unix.F_SETFD, unix.F_GETFL, unix.F_SETFL, unix.F_ADD_SEALS, unix.F_GET_SEALS),
	)
}

// restrictCalls refuses all other system calls: other programs and processes,
// sockets, tracing, mounts, and whatever a kernel learns in the future.
func restrictCalls() error {
	info, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	known := func(name string) bool { _, ok := info.SyscallNames[name]; return ok }
	names := slices.DeleteFunc(slices.Clone(needed), func(name string) bool { return !known(name) })
	conditions := slices.DeleteFunc(conditional(), func(c seccomp.NameWithConditions) bool { return !known(c.Name) })
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno, // EPERM
			Syscalls: []seccomp.SyscallGroup{
				// C libraries take clone instead only if that is not there.
				{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: []string{"clone3"}},
				{Action: seccomp.ActionAllow, Names: names, NamesWithCondtions: conditions},
			},
		},
	})
}
