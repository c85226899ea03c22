package sandbox_test

import (
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon/sandbox"
)

// processors is how many each thread of a process may use.
func processors(t *testing.T, pid int) (all []int) {
	threads, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
	require.NoError(t, err)
	for _, thread := range threads {
		var set unix.CPUSet
		tid, err := strconv.Atoi(thread.Name())
		require.NoError(t, err)
		if unix.SchedGetaffinity(tid, &set) == nil { // it may have ended
			all = append(all, set.Count())
		}
	}
	require.NotEmpty(t, all)
	return all
}

// S11: a process that takes much of the processors leaves one of them to others
// that do not, as long as these have items.
func TestS11ProcessesLeaveRoom(t *testing.T) {
	var set unix.CPUSet
	require.NoError(t, unix.SchedGetaffinity(0, &set))
	n := set.Count()
	if n < 2 {
		t.Skip("there is one processor")
	}
	s, _ := open(t, sandbox.Config{Shares: 2})
	m := load(t, s, "order", nil)
	run := func(tenant string) {
		job := jobOf(t, nil)
		job.Tenant = tenant
		_, err := m.Run(t.Context(), job)
		require.NoError(t, err)
	}
	each := func(n int) {
		t.Helper()
		for _, k := range processors(t, s.PID("heavy")) {
			require.Equal(t, n, k)
		}
	}
	run("heavy")
	require.False(t, s.Yield("heavy", true, false), "nobody else has items")
	each(n)
	// The other's last item is forgotten soon, so it may have to have another one.
	require.Eventually(t, func() bool { run("brief"); return s.Yield("heavy", true, false) }, time.Minute, time.Millisecond)
	each(n - 1)
	require.False(t, s.Yield("heavy", false, true), "it has become quiet")
	each(n)
	require.Eventually(t, func() bool { return !s.Yield("heavy", true, true) }, time.Minute, time.Millisecond, "the other has no items any more")
	each(n)
	require.Eventually(t, func() bool {
		run("brief")
		s.Yield("brief", true, false)
		return !s.Yield("heavy", true, true)
	}, time.Minute, time.Millisecond, "the other takes as much")
}
