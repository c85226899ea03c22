package confine_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/sandbox/confine"
)

// A try is one thing that the process may not do, or may.
type try struct {
	Name  string
	Error string // "" if it worked
}

// confined is what the process tells that was confined.
type confined struct {
	Report confine.Report
	Tries  []try
}

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "confined" {
		attempt(os.Args[2])
		return
	}
	os.Exit(m.Run())
}

// attempt tries what it can in a folder with the folders read and write, after
// it was confined to them.
func attempt(dir string) {
	read, write := filepath.Join(dir, "read"), filepath.Join(dir, "write")
	var c confined
	c.Report = confine.Apply(confine.Rules{Read: []string{read}, Write: []string{write}, Memory: 1 << 30, OpenFiles: 100, FileSize: 1 << 20, CPU: time.Minute})
	do := func(name string, err error) {
		t := try{Name: name}
		if err != nil {
			t.Error = err.Error()
		}
		c.Tries = append(c.Tries, t)
	}
	_, err := os.ReadFile(filepath.Join(read, "file"))
	do("may read", err)
	do("may write", os.WriteFile(filepath.Join(write, "file"), []byte("x"), 0o600))
	do("may make a folder", os.Mkdir(filepath.Join(write, "folder"), 0o700))
	do("may rename", os.Rename(filepath.Join(write, "file"), filepath.Join(write, "folder", "file")))
	do("may remove", os.RemoveAll(filepath.Join(write, "folder")))
	done := make(chan struct{})
	go func() { close(done) }()
	<-done

	_, err = os.ReadFile(filepath.Join(dir, "secret"))
	do("read outside", err)
	_, err = os.ReadFile("/etc/passwd")
	do("read the system", err)
	_, err = os.ReadFile("/proc/self/environ")
	do("read /proc", err)
	do("write to what is read", os.WriteFile(filepath.Join(read, "file"), []byte("x"), 0o600))
	do("write outside", os.WriteFile(filepath.Join(dir, "new"), nil, 0o600))
	do("link", os.Link(filepath.Join(read, "file"), filepath.Join(write, "link")))
	do("symlink", os.Symlink("/etc/passwd", filepath.Join(write, "link")))
	do("pipe", unix.Mkfifo(filepath.Join(write, "pipe"), 0o600))
	_, err = net.Dial("tcp", "127.0.0.1:1")
	if errors.Is(err, unix.ECONNREFUSED) {
		err = nil // it went out
	}
	do("dial", err)
	_, err = net.Listen("tcp", "127.0.0.1:0")
	do("listen", err)
	_, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	do("socket", err)
	_, err = syscall.ForkExec("/proc/self/exe", []string{"x", "none"}, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}})
	do("start a program", err)
	for name, flags := range map[string]uintptr{"fork": 0, "share memory with a process": unix.CLONE_VM, "have a namespace": unix.CLONE_NEWUSER} {
		do(name, clone(flags|uintptr(unix.SIGCHLD)))
	}
	do("signal its parent", syscall.Kill(os.Getppid(), 0))
	do("trace", unix.PtraceAttach(os.Getppid()))
	_, err = unix.OpenByHandleAt(-1, unix.NewFileHandle(1, []byte("12345678")), 0)
	if errors.Is(err, unix.EBADF) {
		err = nil
	}
	do("open by handle", err)
	_, _, errno := unix.Syscall(unix.SYS_PROCESS_VM_READV, uintptr(os.Getppid()), 0, 0)
	do("read memory", zero(errno))
	_, _, errno = unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	if errno == unix.EFAULT {
		errno = 0
	}
	do("io_uring", zero(errno))
	_, _, errno = unix.Syscall(unix.SYS_UNSHARE, 0, 0, 0)
	do("unshare", zero(errno))
	do("raise limits", unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1000, Max: 1000}))
	do("be dumpable", unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0))
	_, err = unix.Mmap(-1, 0, 4<<30, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	do("have more memory", err)
	if err := json.NewEncoder(os.Stdout).Encode(c); err != nil {
		panic(err)
	}
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it was looked at
}

// clone makes a process that ends at once.
func clone(flags uintptr) error {
	if flags&unix.CLONE_VM != 0 {
		flags |= unix.CLONE_VFORK // until it has ended, it has this stack
	}
	pid, _, errno := unix.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
	if errno == 0 && pid == 0 {
		unix.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
	return zero(errno)
}

func zero(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// S3: a confined process reaches nothing but its folders.
func TestS3Confined(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"read", "write"} {
		require.NoError(t, os.Mkdir(filepath.Join(dir, name), 0o700))
	}
	for _, name := range []string{"secret", "read/file"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600))
	}
	cmd := exec.Command("/proc/self/exe", "confined", dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var c confined
	require.NoError(t, json.NewDecoder(out).Decode(&c))
	t.Log(c.Report)
	proc := filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid))
	threads, err := os.ReadDir(filepath.Join(proc, "task"))
	require.NoError(t, err)
	for _, thread := range threads {
		status, err := os.ReadFile(filepath.Join(proc, "task", thread.Name(), "status"))
		require.NoError(t, err)
		require.Regexp(t, `(?m)^CapPrm:\t0+$`, string(status))
		require.Regexp(t, `(?m)^CapEff:\t0+$`, string(status))
		if c.Report.Calls {
			require.Regexp(t, `(?m)^NoNewPrivs:\t1$`, string(status))
			require.Regexp(t, `(?m)^Seccomp:\t2$`, string(status))
		}
	}
	limits, err := os.ReadFile(filepath.Join(proc, "limits"))
	require.NoError(t, err)
	require.Regexp(t, `(?m)^Max core file size +0 +0 `, string(limits))
	require.Regexp(t, `(?m)^Max open files +100 +100 `, string(limits))
	require.Regexp(t, `(?m)^Max file size +1048576 +1048576 `, string(limits))
	require.Regexp(t, `(?m)^Max cpu time +60 +62 `, string(limits))
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
	require.Len(t, c.Tries, 29)
	files := []string{"read outside", "read the system", "read /proc", "write to what is read", "write outside"}
	for _, try := range c.Tries {
		switch name := try.Name; {
		case strings.HasPrefix(name, "may "):
			require.Empty(t, try.Error, name)
		case slices.Contains(files, name) && !c.Report.Files:
		case !slices.Contains(files, name) && name != "have more memory" && !c.Report.Calls:
		default:
			require.NotEmpty(t, try.Error, name)
		}
	}
}

// S3: nobody may look into a confined process. What that is true of is root's, which
// shows where the process is not.
func TestS3NotLookedInto(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "confined", filepath.Join(t.TempDir(), "none"))
	user := os.Geteuid()
	if user == 0 {
		user = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	stdin, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	if err := cmd.Start(); errors.Is(err, fs.ErrPermission) {
		t.Skip("no other user can be taken:", err)
	} else {
		require.NoError(t, err)
	}
	var c confined
	require.NoError(t, json.NewDecoder(out).Decode(&c))
	if !c.Report.Calls {
		t.Skip("without seccomp it has made itself one that can be looked into")
	}
	info, err := os.Stat(filepath.Join("/proc", strconv.Itoa(cmd.Process.Pid), "environ"))
	require.NoError(t, err)
	owner := info.Sys().(*syscall.Stat_t).Uid //nolint:forcetypeassert // it is that on Linux
	require.NotEqual(t, user, int(owner))
	require.NoError(t, stdin.Close())
	require.NoError(t, cmd.Wait())
}
