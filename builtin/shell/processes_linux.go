package shell

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// processes looks after what commands leave behind. Their groups are killed,
// but a process can leave its group. So each command has a mark in its
// environment, which its descendants inherit; and if the program owns all its
// children, their orphans become its children, which are found and ended.
type processes struct {
	owner bool
	log   *slog.Logger
	mark  string // of this worker; "" where there is no /proc
	// handles is false only in tests: as if the kernel had no descriptors of processes.
	handles bool

	mu       sync.Mutex
	started  bool
	active   bool     // between start and stop, of an owner
	null     *os.File // what commands read that have no input; nil before the first
	number   uint64
	running  map[uint64]*life
	groups   map[int]bool      // whose first process has ended, not yet all others
	strays   map[int]time.Time // dead children that nobody may have started, and since when
	age      time.Duration     // of those that are ours
	wake     chan struct{}     // something may be to be done
	ended    chan struct{}     // closed by stop
	watching sync.WaitGroup
}

// A life is that of one command.
type life struct {
	number uint64
	pid    int
}

// markVariable is the mark in the environment: <pid namespace>-<pid of the
// worker>-<start time of the worker>-<of this processes>-<number of the command>.
const markVariable = "BEACON_PROCESS"

func newProcesses(owner bool, log *slog.Logger) *processes {
	p := &processes{owner: owner, log: log, handles: true, running: map[uint64]*life{}, groups: map[int]bool{}, strays: map[int]time.Time{}, age: strayAge}
	namespace, err := os.Readlink("/proc/self/ns/pid")
	self, ok := readStat(os.Getpid())
	if err == nil && ok {
		namespace = strings.Trim(namespace, "pid:[]")
		p.mark = fmt.Sprintf("%s-%d-%s-%s-", namespace, os.Getpid(), self.start, rand.Text())
	}
	return p
}

// begin marks a command.
func (p *processes) begin(cmd *exec.Cmd) *life {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.number++
	l := &life{number: p.number}
	p.running[l.number] = l
	if p.mark != "" {
		cmd.Env = append(cmd.Env, markVariable+"="+p.mark+strconv.FormatUint(l.number, 10))
	}
	return l
}

// launch starts a command.
func (p *processes) launch(l *life, cmd *exec.Cmd, out, errs *capture) (*process, error) {
	p.mu.Lock()
	if p.active {
		// The signal comes at the death of the thread that starts the process. Threads
		// of a Go program live as long as it does, see Config.Owner.
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	var err error
	if p.null == nil {
		p.null, err = os.Open(os.DevNull)
	}
	null := p.null
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	first, err := start(cmd, null, p.handles, out, errs)
	if err == nil {
		p.mu.Lock()
		l.pid = first.pid
		p.mu.Unlock()
	}
	return first, err
}

// end is called when the first process of a command is reaped and its group
// killed.
func (p *processes) end(l *life) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.running, l.number)
	if !p.active || l.pid == 0 {
		return
	}
	if !reapGroup(l.pid) {
		p.groups[l.pid] = true
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// start ends what workers that were killed have left and, if the program owns
// its children, begins to look after them.
func (p *processes) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started {
		return nil
	}
	p.started = true
	p.endLeftovers()
	if !p.owner || p.mark == "" {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	p.active, p.wake, p.ended = true, make(chan struct{}, 1), make(chan struct{})
	wake, ended := p.wake, p.ended
	p.watching.Go(func() { p.watch(wake, ended) })
	return nil
}

// stop ends everything; no command runs any more.
func (p *processes) stop() {
	p.mu.Lock()
	active, ended := p.active, p.ended
	p.active, p.started = false, false
	if p.null != nil {
		_ = p.null.Close() // it was only read
		p.null = nil
	}
	p.mu.Unlock()
	if !active {
		return
	}
	close(ended)
	p.watching.Wait()
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) // it could be set, so it can be unset
}

// Times of watch.
const (
	// watchRest is the least time between two looks, and watchShare the share of
	// the time that looking may take.
	watchRest  = 100 * time.Millisecond
	watchShare = 50
	// watchAgain is the wait for what is dying.
	watchAgain = 10 * time.Millisecond
	// strayAge is from when on a dead child that nobody waits for is ours.
	strayAge = 30 * time.Second
	// stopTime is how long stop waits for what is dying.
	stopTime = 2 * time.Second
)

// watch looks for orphans after commands have ended.
func (p *processes) watch(wake, ended <-chan struct{}) {
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	pause := func(d time.Duration) bool {
		timer.Reset(d)
		select {
		case <-timer.C:
			return true
		case <-ended:
			return false
		}
	}
	var again <-chan time.Time
	for {
		select {
		case <-wake:
		case <-again:
		case <-ended:
			for until := time.Now().Add(stopTime); p.look() && time.Now().Before(until); {
				time.Sleep(watchAgain)
			}
			return
		}
		began := time.Now()
		dying := p.look()
		took := time.Since(began)
		again = nil
		if !pause(max(watchRest, watchShare*took)) {
			continue // to the end
		}
		p.mu.Lock()
		strays := len(p.strays) > 0
		p.mu.Unlock()
		if dying {
			again = time.After(watchAgain)
		} else if strays {
			again = time.After(strayAge / 4)
		}
	}
}

// look ends and reaps orphans of commands that have ended. It reports whether
// some are still dying.
func (p *processes) look() (dying bool) {
	p.mu.Lock()
	groups := make([]int, 0, len(p.groups))
	for pid := range p.groups {
		groups = append(groups, pid)
	}
	leaders := map[int]bool{}
	alive := map[uint64]bool{}
	for number, l := range p.running {
		leaders[l.pid] = true
		alive[number] = true
	}
	latest := p.number // those after it begin while we look
	p.mu.Unlock()

	for _, pid := range groups {
		if reapGroup(pid) {
			p.mu.Lock()
			delete(p.groups, pid)
			p.mu.Unlock()
		} else {
			dying = true
		}
	}
	seen := map[int]bool{}
	for _, pid := range children() {
		if leaders[pid] {
			continue
		}
		mark := markOf(pid)
		text, ours := strings.CutPrefix(mark, p.mark)
		number, err := strconv.ParseUint(text, 10, 64)
		switch {
		case ours && (err != nil || alive[number] || number > latest):
			// It is of a command that still runs.
		case ours:
			p.log.Warn("a process that a command has left behind is killed", "pid", pid)
			_ = unix.Kill(pid, unix.SIGKILL)
			if !reap(pid) {
				dying = true
			}
		case mark == "":
			seen[pid] = true
		}
	}
	p.noteStrays(seen)
	return dying
}

// noteStrays reaps children that are dead, have no mark any more, and that
// nobody has waited for for so long that nobody will.
func (p *processes) noteStrays(unmarked map[int]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pid := range p.strays {
		if !unmarked[pid] {
			delete(p.strays, pid)
		}
	}
	for pid := range unmarked {
		stat, ok := readStat(pid)
		if !ok || stat.state != 'Z' {
			delete(p.strays, pid)
			continue
		}
		since, known := p.strays[pid]
		if !known {
			p.strays[pid] = time.Now()
		} else if time.Since(since) > p.age {
			reap(pid)
			delete(p.strays, pid)
		}
	}
}

// endLeftovers kills the commands of workers that do not live any more.
func (p *processes) endLeftovers() {
	namespace, _, _ := strings.Cut(p.mark, "-")
	if namespace == "" {
		return
	}
	for _, pid := range everybody() {
		parts := strings.Split(markOf(pid), "-")
		if len(parts) != 5 || parts[0] != namespace {
			continue // not ours to judge
		}
		worker, err := strconv.Atoi(parts[1])
		if err != nil {
			continue
		}
		if stat, ok := readStat(worker); ok && stat.start == parts[2] && stat.state != 'Z' {
			continue
		}
		p.log.Warn("a process that a killed worker's command has left behind is killed", "pid", pid)
		_ = unix.Kill(pid, unix.SIGKILL)
	}
}

// reapGroup reaps the dead of a group and reports whether nobody of it is left
// among our children.
func reapGroup(pid int) bool {
	for {
		got, err := unix.Wait4(-pid, nil, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR: //nolint:errorlint // as it comes from the system
		case err != nil:
			return true
		case got == 0:
			return false
		}
	}
}

func reap(pid int) bool {
	got, err := unix.Wait4(pid, nil, unix.WNOHANG, nil)
	return err != nil || got == pid
}

// A stat is what is read of /proc/<pid>/stat.
type stat struct {
	state  byte
	parent int
	start  string // in ticks since the system started
}

func readStat(pid int) (stat, bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stat{}, false
	}
	// The name may hold anything, parentheses too.
	fields := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	if len(fields) < 20 {
		return stat{}, false
	}
	parent, err := strconv.Atoi(fields[1])
	return stat{state: fields[0][0], parent: parent, start: fields[19]}, err == nil
}

// markOf reads the mark of a process, "" if it has none or is dead.
func markOf(pid int) string {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return ""
	}
	for entry := range bytes.SplitSeq(raw, []byte{0}) {
		if value, found := bytes.CutPrefix(entry, []byte(markVariable+"=")); found {
			return string(value)
		}
	}
	return ""
}

// children lists our children.
func children() (pids []int) {
	if lists, err := filepath.Glob("/proc/self/task/*/children"); err == nil && len(lists) > 0 {
		for _, list := range lists {
			raw, err := os.ReadFile(list)
			if err != nil {
				continue // the thread has ended
			}
			for _, field := range strings.Fields(string(raw)) {
				if pid, err := strconv.Atoi(field); err == nil {
					pids = append(pids, pid)
				}
			}
		}
		return pids
	}
	// A kernel without these lists.
	self := os.Getpid()
	for _, pid := range everybody() {
		if stat, ok := readStat(pid); ok && stat.parent == self {
			pids = append(pids, pid)
		}
	}
	return pids
}

func everybody() (pids []int) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1) // as far as it goes
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}
