package hub_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	beaconworker "github.com/ultravisor/beacon/worker"
)

// On a full disk new work is refused, what was taken is neither lost nor stuck,
// and work is taken again once there is room.
func TestFullDisk(t *testing.T) {
	disk := t.TempDir()
	err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=160m")
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		t.Skip("mounting takes root")
	}
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(disk, 0)) })
	data := filepath.Join(disk, "hub")
	store, err := jetstream.Embed(t.Context(), data, jetstream.Config{Log: silent})
	require.NoError(t, err)
	objects, err := store.Objects(t.Context())
	require.NoError(t, err)
	s := start(t, hub.Config{Journal: store.Journal(), Objects: objects, DataDir: data})

	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	registered, finish := make(chan struct{}, 1), make(chan struct{})
	var work sync.WaitGroup
	work.Go(func() {
		dial := ws.Dial(session.Config{
			ServerURL: s.url, Logger: silent, PollInterval: 50 * time.Millisecond,
			Registration: protocol.NewRegistration("w", 1, []beacon.Capability{{Name: "A", Actions: []beacon.Action{{Name: "Do"}}}}),
		})
		_ = beaconworker.Run(ctx, dial, func(ctx context.Context, _ beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return beacon.Result{Outputs: beacon.Outputs{"Result": "done"}}, nil
		}, beaconworker.Config{MaxConcurrent: 1, Logger: silent, ReconnectInterval: 50 * time.Millisecond, OnRegistered: func(string, string) {
			select {
			case registered <- struct{}{}:
			default:
			}
		}})
	})
	defer work.Wait()
	defer stop()
	<-registered
	running, waiting := s.enqueue(`{"Capability":"A","Action":"Do"}`), s.enqueue(`{"Capability":"A","Action":"Do"}`)
	s.eventually("one runs", func() bool { return s.record(running).Status == protocol.StatusRunning })

	filler := filepath.Join(disk, "filler")
	require.NoError(t, os.WriteFile(filler, nil, 0o600))
	var st unix.Statfs_t
	require.NoError(t, unix.Statfs(disk, &st))
	fill := int64(st.Bavail)*st.Bsize - 1<<20
	f, err := os.OpenFile(filler, os.O_WRONLY, 0)
	require.NoError(t, err)
	require.NoError(t, unix.Fallocate(int(f.Fd()), 0, 0, fill))
	require.NoError(t, f.Close())

	refused := s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Action":"Do"}`)
	require.Equal(t, http.StatusInsufficientStorage, refused.status, "%s", refused.raw)
	require.Equal(t, http.StatusInsufficientStorage, s.post("/Beacon/File?name=a", "content").status)
	close(finish) // its result cannot be written down now
	require.Equal(t, protocol.StatusRunning, s.record(running).Status)
	require.Equal(t, protocol.StatusPending, s.record(waiting).Status)

	require.NoError(t, os.Remove(filler))
	s.eventually("work is taken again", func() bool {
		return s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Action":"Do"}`).status == http.StatusOK
	})
	for _, hash := range []string{running, waiting} {
		s.eventually("done", func() bool { return s.record(hash).Status == protocol.StatusComplete })
	}
}
