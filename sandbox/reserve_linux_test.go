package sandbox_test

import (
	"os"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/sandbox"
)

// givesWay reports whether all threads of a process, or none, are of the class that
// gives way to all others.
func givesWay(t *testing.T, pid int) (all, none bool) {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	require.NoError(t, err)
	all, none = true, true
	for _, thread := range threads {
		tid, err := strconv.Atoi(thread.Name())
		require.NoError(t, err)
		attr, err := unix.SchedGetAttr(tid, 0)
		if err != nil { // it has ended
			continue
		}
		if attr.Policy == unix.SCHED_IDLE {
			none = false
		} else {
			all = false
		}
	}
	return all, none
}

// neighbours are two tenants, each with a process, and what has one run an item.
func neighbours(t *testing.T) (s *sandbox.Sandbox, try func(tenant string) error) {
	s, _ = open(t, sandbox.Config{Shares: 2})
	m := load(t, s, "order", nil)
	return s, func(tenant string) error {
		job := jobOf(t, nil)
		job.Tenant = tenant
		_, err := m.Run(t.Context(), job)
		return err
	}
}

// hinder has the process of the heavy tenant hinder the brief one, so that it gives
// way, and says when.
func hinder(t *testing.T, s *sandbox.Sandbox, run func(string), effort *sandbox.Effort) (when time.Time) {
	require.Eventually(t, func() bool { // the brief item must have been a moment ago
		run("brief")
		when = time.Now()
		s.Yield("heavy", effort, true, when)
		all, _ := givesWay(t, s.PID("heavy"))
		return all
	}, time.Minute, time.Millisecond)
	return when
}

// S11: a process that takes much of the processors gives way to others that do
// not, as long as these have items, and a while longer.
func TestS11ProcessesGiveWay(t *testing.T) {
	// What the watch of the process itself finds is nothing: it takes little.
	s, try := neighbours(t)
	run := func(tenant string) { require.NoError(t, try(tenant)) }
	run("heavy")
	pid := s.PID("heavy")
	var effort sandbox.Effort
	now := time.Now()
	requireNormal := func(why string) {
		t.Helper()
		_, none := givesWay(t, pid)
		require.True(t, none, why)
	}
	s.Yield("heavy", &effort, true, now)
	requireNormal("nobody else has items")
	run("brief")
	s.Yield("heavy", &effort, false, time.Now())
	requireNormal("it takes little")
	now = hinder(t, s, run, &effort)
	s.Yield("heavy", &effort, true, now.Add(sandbox.AsideTime-time.Second))
	all, _ := givesWay(t, pid)
	require.True(t, all, "others may come again")
	run("heavy") // it works as before
	s.Yield("heavy", &effort, true, now.Add(sandbox.AsideTime))
	if run("heavy"); s.PID("heavy") == pid { // with privileges
		requireNormal("nobody was hindered for long")
	}

	// The one that takes its place does so, too, as soon as it has begun. If that has
	// taken too long, it is tried again.
	require.Eventually(t, func() bool {
		hinder(t, s, run, &sandbox.Effort{})
		pid := s.PID("heavy")
		s.Kill("heavy")
		for s.PID("heavy") == pid {
			_ = try("heavy") // it may have been in the one that ends
		}
		for range 100 {
			if all, _ := givesWay(t, s.PID("heavy")); all {
				return true
			}
			time.Sleep(10 * time.Millisecond)
		}
		return false
	}, time.Minute, time.Millisecond, "it is the same tenant")
}

// Without privileges a process does not come back from the class of those that give
// way: another one takes its place.
func TestProcessesGiveWayOnce(t *testing.T) {
	s, try := neighbours(t)
	run := func(tenant string) { require.NoError(t, try(tenant)) }
	run("heavy")
	pid := s.PID("heavy")
	var effort sandbox.Effort
	now := hinder(t, s, run, &effort)
	done := make(chan struct{})
	go func() { // its thread ends with it
		defer close(done)
		runtime.LockOSThread()
		withoutPrivileges(t)
		s.Yield("heavy", &effort, false, now.Add(sandbox.AsideTime))
	}()
	<-done
	run("heavy")
	require.NotEqual(t, pid, s.PID("heavy"))
}

// withoutPrivileges takes the privilege to schedule others from this thread.
func withoutPrivileges(t *testing.T) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Error(err)
		return
	}
	data[0].Effective &^= 1 << unix.CAP_SYS_NICE
	if err := unix.Capset(&header, &data[0]); err != nil {
		t.Error(err)
	}
}
