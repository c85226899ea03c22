//go:build unix

package outbox

import (
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// limited fills its files up to a limit of the system. The large reports fail,
// small ones still find room, and when all is delivered there is room again.
func limited(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 3000, Max: 3000}); err != nil {
		return err
	}
	d, err := open(path, quiet, rotation)
	if err != nil {
		return err
	}
	large := worker.Report{Hash: "large", Result: beacon.Result{Outputs: beacon.Outputs{"x": strings.Repeat("x", 10000)}}}
	if err := d.Put(sample("small")); err != nil {
		return err
	}
	if err := d.Put(large); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("put too much: %w", err)
	}
	if err := d.Put(sample("small, too")); err != nil {
		return fmt.Errorf("after a failure: %w", err)
	}
	last := 0
	for ; err == nil; last++ {
		err = d.Put(sample(fmt.Sprint(last)))
	}
	if !errors.Is(err, unix.EFBIG) || last < 3 {
		return fmt.Errorf("filling with %d reports: %w", last, err)
	}
	waits, err := d.Pending()
	if err != nil || len(waits) != 2+last-1 {
		return fmt.Errorf("%d reports wait after %d were put: %w", len(waits), 2+last-1, err)
	}
	for _, r := range waits {
		// There may be no room to note it, except for the last, with which
		// everything goes.
		err = d.Delivered(r.Hash)
	}
	if err != nil {
		return fmt.Errorf("nothing waits any more: %w", err)
	}
	for _, hash := range []string{"a", "b"} {
		if err := d.Put(sample(hash)); err != nil {
			return fmt.Errorf("room again: %w", err)
		}
	}
	if err := d.Put(large); !errors.Is(err, unix.EFBIG) {
		return fmt.Errorf("put too much: %w", err)
	}
	return unix.Kill(unix.Getpid(), unix.SIGKILL)
}

func TestNoRoom(t *testing.T) {
	path := t.TempDir()
	out, err := child("limited", path).CombinedOutput()
	require.ErrorContains(t, err, "killed", string(out))
	require.Equal(t, samples("a", "b"), waiting(t, path))
}
