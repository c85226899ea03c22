package outbox_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// On a full disk an item fails clearly, and the worker lives on.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=128k")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skip("mounting takes root")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, 0)) })
	quiet := slog.New(slog.NewTextHandler(io.Discard, nil))
	path := filepath.Join(disk, "outbox")
	box, err := outbox.Open(path, quiet)
	require.NoError(t, err)

	server := beacontest.NewServer()
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Minute)
	defer stop()
	done := make(chan error, 1)
	go func() {
		done <- worker.Run(ctx, server.Dial, func(_ context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			size := 10
			if strings.HasPrefix(item.Hash, "large") {
				size = 200 << 10
			}
			return beacon.Result{Outputs: beacon.Outputs{"Result": strings.Repeat("x", size)}}, nil
		}, worker.Config{Outbox: box, Logger: quiet})
	}()
	for _, hash := range []string{"a", "large", "b", "large again", "c"} {
		server.Push(beacon.WorkItem{Hash: hash})
		report, err := server.Report(ctx)
		require.NoError(t, err)
		require.Equal(t, hash, report.Hash)
		require.Equal(t, strings.HasPrefix(hash, "large"), report.Failed)
		if report.Failed {
			require.Contains(t, report.Message, "could not store the result")
		}
	}
	// Full to the last byte: not even the failure finds room.
	filler, err := os.Create(filepath.Join(disk, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, filler.Close())
	server.Push(beacon.WorkItem{Hash: "large in vain"})
	report, err := server.Report(ctx)
	require.NoError(t, err)
	require.True(t, report.Failed)
	stop()
	require.NoError(t, <-done)
	require.NoError(t, box.Close())

	box, err = outbox.Open(path, quiet)
	require.NoError(t, err)
	waits, err := box.Pending()
	require.NoError(t, err)
	require.Empty(t, waits)
	require.NoError(t, box.Close())
}
