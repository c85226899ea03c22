package jetstream_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/hub/object"
)

// An upload that broke off leaves messages that belong to no object. They go once
// they are old, and objects stay.
func TestSweepRemovesWhatNobodyKnows(t *testing.T) {
	srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	require.NoError(t, err)
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	require.True(t, srv.ReadyForConnections(5*time.Minute))
	nc, err := nats.Connect(srv.ClientURL())
	require.NoError(t, err)
	defer nc.Close()
	js, err := natsjs.New(nc)
	require.NoError(t, err)
	orphans := func() uint64 {
		stream, err := js.Stream(within(t), "OBJ_BEACON_FILES")
		require.NoError(t, err)
		info, err := stream.Info(within(t), natsjs.WithSubjectFilter("$O.BEACON_FILES.C.nobody"))
		require.NoError(t, err)
		return info.State.Subjects["$O.BEACON_FILES.C.nobody"]
	}
	for _, age := range []time.Duration{0, time.Nanosecond} {
		s, err := jetstream.Connect(within(t), []string{srv.ClientURL()}, "", jetstream.Config{OrphanAge: age, Log: quiet})
		require.NoError(t, err)
		objects, err := s.Objects(within(t))
		require.NoError(t, err)
		if age == 0 {
			require.NoError(t, objects.Put(within(t), object.Info{ID: "kept", Size: 7, Created: time.Now()}, strings.NewReader("content")))
			for range 3 {
				_, err := js.Publish(within(t), "$O.BEACON_FILES.C.nobody", []byte("part"))
				require.NoError(t, err)
			}
		}
		require.NoError(t, objects.Sweep(within(t)))
		if age == 0 {
			require.EqualValues(t, 3, orphans(), "it may be on its way")
		} else {
			require.Zero(t, orphans())
		}
		r, _, err := objects.Open(within(t), "kept")
		require.NoError(t, err)
		raw, err := io.ReadAll(r)
		require.NoError(t, err)
		require.NoError(t, r.Close())
		require.Equal(t, "content", string(raw))
		closed(t, s)
	}
}
