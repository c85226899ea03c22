//go:build unix

package sandbox_test

import (
	"context"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// S3: a process has no files that the worker was started with.
func TestS3Inherited(t *testing.T) {
	var ends [2]int
	require.NoError(t, syscall.Pipe(ends[:])) // inherited by whoever is started
	s, _ := open(t, sandbox.Config{})
	m := load(t, s, "order", nil)
	_, err := m.Run(t.Context(), jobOf(t, nil))
	require.NoError(t, err)
	require.NoError(t, syscall.Close(ends[1]))
	look := []unix.PollFd{{Fd: int32(ends[0]), Events: unix.POLLIN}} //nolint:gosec // a small number
	_, err = unix.Poll(look, 0)
	require.NoError(t, err)
	require.NotZero(t, look[0].Revents&unix.POLLHUP, "somebody else has the other end")
	require.NoError(t, syscall.Close(ends[0]))
}

// S2: an item that does not end when it should is ended with its process, and
// those beside it are run again.
func TestS2Overdue(t *testing.T) {
	// How long it takes until the item works is the machine's business.
	for timeout := time.Second / 2; !overdue(t, timeout); timeout *= 2 {
	}
}

// overdue stops a process before an item in it can end at its deadline, and is
// false if the deadline came first.
func overdue(t *testing.T, timeout time.Duration) bool {
	s, _ := open(t, sandbox.Config{Heartbeat: time.Hour})
	m := load(t, s, "loop", nil)
	beside := load(t, s, "sleep", nil)
	second, enough := context.WithCancelCause(t.Context())
	stop := beacon.Errorf(beacon.Canceled, "stop")
	other, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := beside.Run(second, jobOf(t, nil))
		other <- err
	}()
	started(t, s, 1)
	before, job := s.Stats().Started, jobOf(t, nil)
	ctx, cancel := context.WithTimeoutCause(t.Context(), timeout, beacon.Errorf(beacon.Timeout, "too long"))
	defer cancel()
	go func() {
		_, err := m.Run(ctx, job)
		ended <- err
	}()
	require.Eventually(t, func() bool { return ctx.Err() != nil || s.Stats().Running == 2 }, time.Minute, time.Millisecond)
	s.Signal(beacon.DefaultTenant, syscall.SIGSTOP)
	late := ctx.Err() != nil
	if late {
		s.Signal(beacon.DefaultTenant, syscall.SIGCONT)
	}
	require.Equal(t, beacon.Timeout, beacon.CodeOf(<-ended))
	if !late {
		require.Eventually(t, func() bool { now := s.Stats(); return now.Started == before+1 && now.Running == 1 }, time.Minute, time.Millisecond)
	}
	enough(stop)
	require.ErrorIs(t, <-other, stop, "it goes on in another process")
	return !late
}

// S2: a process that is silent while it has items is ended, even if none has a
// deadline.
func TestS2Silent(t *testing.T) {
	s, _ := open(t, sandbox.Config{Heartbeat: 5 * time.Second})
	m := load(t, s, "loops", nil)
	job, begun := telling(t)
	ended := make(chan error, 1)
	go func() {
		_, err := m.Run(t.Context(), job)
		ended <- err
	}()
	<-begun // or else it would be run again in another process
	s.Signal(beacon.DefaultTenant, syscall.SIGSTOP)
	err := <-ended
	require.Equal(t, beacon.Internal, beacon.CodeOf(err))
	require.ErrorContains(t, err, "did not answer in time")
}

// What is canceled may be known in the process before the item is there: it ends
// all the same.
func TestCancelEarly(t *testing.T) {
	s, said := open(t, sandbox.Config{Grace: time.Minute})
	m := load(t, s, "loops", nil)
	stop := beacon.Errorf(beacon.Canceled, "nobody wants it")
	for n := range 20 {
		ctx, cancel := context.WithCancelCause(t.Context())
		ended := make(chan error, 1)
		job, begun := telling(t)
		if n > 0 { // the module is there
			s.Signal(beacon.DefaultTenant, syscall.SIGSTOP)
		}
		go func() {
			_, err := m.Run(ctx, job)
			ended <- err
		}()
		if n == 0 {
			<-begun
		}
		started(t, s, 1)
		cancel(stop)
		s.Signal(beacon.DefaultTenant, syscall.SIGCONT)
		require.ErrorIs(t, <-ended, stop)
	}
	require.NotContains(t, said.String(), "has ended")
}

// Who kills a process that makes a module ready, as the kernel does where memory
// runs out, says nothing of the module: it is tried again.
func TestRegistrationIsKilled(t *testing.T) {
	s, _ := open(t, sandbox.Config{RegisterCPU: time.Hour, RegisterMemory: 8 << 30})
	for n := range int64(2) {
		loaded := make(chan error, 1)
		go func() {
			_, err := s.Runtime().Load(t.Context(), wasmrt.Source{Name: "bomb", Binary: bomb()})
			loaded <- err
		}()
		var err error
		for err == nil {
			s.SignalAll(syscall.SIGKILL)
			select {
			case err = <-loaded:
			case <-time.After(10 * time.Millisecond):
			}
		}
		require.Equal(t, beacon.Internal, beacon.CodeOf(err), "%v", err)
		require.ErrorContains(t, err, "module bomb: the process that compiled and initialised it was killed from outside")
		require.Equal(t, n+1, s.Stats().Started)
	}
}
