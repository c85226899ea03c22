package sandbox_test

import (
	"os"
	"slices"
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
	// The process is looked at beside, too, and may have been busy when it began.
	becomes := func(n int, why string, do func()) {
		t.Helper()
		require.Eventually(t, func() bool {
			do()
			return !slices.ContainsFunc(processors(t, s.PID("heavy")), func(k int) bool { return k != n })
		}, time.Minute, time.Millisecond, why)
	}
	run("heavy")
	becomes(n, "nobody else has items", func() { s.Yield("heavy", true, true) })
	aside := func() { run("brief"); s.Yield("heavy", true, false) }
	becomes(n-1, "another has", aside)
	becomes(n, "it takes little now", func() { s.Yield("heavy", false, true) })
	becomes(n-1, "and much again", aside)
	becomes(n, "the other has no items any more", func() { s.Yield("heavy", true, true) })
	becomes(n-1, "and has again", aside)
	becomes(n, "the other takes as much", func() {
		run("brief")
		s.Yield("brief", true, false)
		s.Yield("heavy", true, true)
	})
}
