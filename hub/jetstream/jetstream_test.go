package jetstream_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/hub/journal"
)

func TestMain(m *testing.M) {
	// The NATS client starts this goroutine with a publisher, and leaves it when
	// the publisher has ended before it ran.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

var quiet = slog.New(slog.DiscardHandler)

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func embed(t *testing.T, dir string) *jetstream.Store {
	t.Helper()
	s, err := jetstream.Embed(within(t), dir, jetstream.Config{Log: quiet})
	require.NoError(t, err)
	return s
}

func closed(t *testing.T, s *jetstream.Store) {
	t.Helper()
	require.NoError(t, s.Journal().Close(within(t)))
}

// read returns the records after one, up to the last.
func read(t *testing.T, j journal.Journal, after uint64) ([]string, error) {
	t.Helper()
	last, err := j.Last(within(t))
	require.NoError(t, err)
	ctx, stop := context.WithCancel(within(t))
	defer stop()
	var got []string
	if last == after {
		return nil, nil
	}
	err = j.Follow(ctx, after, func(r journal.Record) error {
		require.Equal(t, after+uint64(len(got))+1, r.Seq)
		require.False(t, r.Time.IsZero())
		got = append(got, string(r.Data))
		if r.Seq == last {
			stop()
		}
		return nil
	})
	if ctx.Err() != nil && within(t).Err() == nil {
		err = nil
	}
	return got, err
}

func TestEmbeddedJournalOutlivesItsServer(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hub")
	s := embed(t, dir)
	j := s.Journal()
	require.False(t, j.Shared())
	r, seq, err := j.Snapshot(within(t))
	require.NoError(t, err)
	require.Nil(t, r)
	require.Zero(t, seq)
	for i := range 5 {
		require.NoError(t, j.Append(within(t), fmt.Sprint("id-", i), fmt.Append(nil, i)))
	}
	require.NoError(t, j.Append(within(t), "id-4", []byte("again")), "an id counts once")
	got, err := read(t, j, 0)
	require.NoError(t, err)
	require.Equal(t, []string{"0", "1", "2", "3", "4"}, got)
	require.ErrorIs(t, j.Append(within(t), "huge", make([]byte, 9<<20)), journal.ErrTooLarge)

	_, err = jetstream.Embed(within(t), dir, jetstream.Config{Log: quiet})
	require.ErrorContains(t, err, "in use by another hub")
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	closed(t, s)

	s = embed(t, dir)
	j = s.Journal()
	got, err = read(t, j, 2)
	require.NoError(t, err)
	require.Equal(t, []string{"2", "3", "4"}, got)
	stop := fmt.Errorf("enough")
	require.ErrorIs(t, j.Follow(within(t), 0, func(journal.Record) error { return stop }), stop)
	closed(t, s)
}

func TestSnapshotsReplaceRecords(t *testing.T) {
	dir := t.TempDir()
	s := embed(t, dir)
	j := s.Journal()
	save := func(seq uint64, image string) {
		t.Helper()
		require.NoError(t, j.Save(within(t), seq, func(w io.Writer) error { _, err := io.WriteString(w, image); return err }))
	}
	for i := range 30 {
		require.NoError(t, j.Append(within(t), fmt.Sprint(i), fmt.Append(nil, i)))
		if i%10 == 9 {
			save(uint64(i+1), strings.Repeat(fmt.Sprint(i), 1<<18))
		}
	}
	save(20, "late") // another hub was faster
	require.Error(t, j.Save(within(t), 31, func(io.Writer) error { return io.ErrClosedPipe }))
	closed(t, s)

	s = embed(t, dir)
	j = s.Journal()
	r, seq, err := j.Snapshot(within(t))
	require.NoError(t, err)
	require.EqualValues(t, 30, seq)
	raw, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, strings.Repeat("29", 1<<18), string(raw))
	_, err = read(t, j, 10)
	require.ErrorIs(t, err, journal.ErrTrimmed)
	got, err := read(t, j, 20)
	require.NoError(t, err)
	require.Len(t, got, 10)
	closed(t, s)
}

// blocks are the files in which the journal is.
func blocks(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", "BEACON_JOURNAL", "msgs", "*.blk"))
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	return paths
}

// What is damaged is not used, not repaired, and said.
func TestDamagedFolders(t *testing.T) {
	streams := func(dir string) string { return filepath.Join(dir, "jetstream", "$G", "streams") }
	tests := map[string]struct {
		damage func(t *testing.T, dir string)
		says   string
	}{
		"journal gone": {func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(streams(dir), "BEACON_JOURNAL")))
		}, "BEACON_JOURNAL is gone"},
		"snapshots gone": {func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(streams(dir), "OBJ_BEACON_SNAPSHOTS")))
		}, "BEACON_SNAPSHOTS is gone"},
		"everything gone": {func(t *testing.T, dir string) { require.NoError(t, os.RemoveAll(filepath.Join(dir, "jetstream"))) }, "is gone"},
		"messages gone": {func(t *testing.T, dir string) {
			require.NoError(t, os.RemoveAll(filepath.Join(streams(dir), "BEACON_JOURNAL", "msgs")))
		}, "damaged"},
		"definition garbled": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(streams(dir), "BEACON_JOURNAL", "meta.inf"), []byte("{"), 0o600))
		}, "damaged"},
		"manifest garbled": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "hub.json"), nil, 0o600))
		}, "hub.json is not readable"},
		"mark garbled": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "written.json"), []byte("?"), 0o600))
		}, "written.json is not readable"},
		"manifest gone": {func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "hub.json"))) }, "is not a hub's"},
		"of a later hub": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "hub.json"), []byte(`{"Format":2}`), 0o600))
		}, "use a newer one"},
		"end of journal lost": {func(t *testing.T, dir string) {
			path := blocks(t, dir)[0]
			info, err := os.Stat(path)
			require.NoError(t, err)
			require.NoError(t, os.Truncate(path, info.Size()/2))
			forget(t, dir)
		}, "damaged"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := embed(t, dir)
			for i := range 20 {
				require.NoError(t, s.Journal().Append(within(t), fmt.Sprint(i), bytes.Repeat([]byte("x"), 1000)))
			}
			closed(t, s)
			tt.damage(t, dir)
			_, err := jetstream.Embed(within(t), dir, jetstream.Config{Log: quiet})
			require.ErrorContains(t, err, tt.says)
			require.Contains(t, []beacon.Code{beacon.Refused, beacon.Invalid}, beacon.CodeOf(err))
		})
	}
}

// forget removes what the server only keeps to start faster.
func forget(t *testing.T, dir string) {
	t.Helper()
	for _, path := range blocks(t, dir) {
		require.NoError(t, os.RemoveAll(filepath.Join(filepath.Dir(path), "index.db")))
	}
}

// A record that the disk has changed is noticed when it is read.
func TestAFlippedBitIsNoticed(t *testing.T) {
	for _, indexed := range []bool{true, false} {
		t.Run(fmt.Sprint("indexed ", indexed), func(t *testing.T) {
			dir := t.TempDir()
			s := embed(t, dir)
			for i := range 20 {
				require.NoError(t, s.Journal().Append(within(t), fmt.Sprint(i), bytes.Repeat([]byte("x"), 1000)))
			}
			closed(t, s)
			path := blocks(t, dir)[0]
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			raw[len(raw)/2] ^= 1
			require.NoError(t, os.WriteFile(path, raw, 0o600))
			if !indexed {
				forget(t, dir)
			}
			s, err = jetstream.Embed(within(t), dir, jetstream.Config{Log: quiet})
			if err == nil {
				_, err = read(t, s.Journal(), 0)
				closed(t, s)
			}
			require.ErrorIs(t, err, journal.ErrDamaged)
		})
	}
}
