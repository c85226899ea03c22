package replay_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/replay"
)

// recorded is a recording of about so many bytes.
func recorded(at time.Time, capability string, size int) *replay.Recording {
	r := &replay.Recording{Format: replay.Format, Version: replay.Version, Recorded: at}
	r.Item.Capability = capability
	r.Sources = []replay.File{{Name: "source", Content: make([]byte, size/4*3)}}
	return r
}

func names(t *testing.T, folder string) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// The newest are kept, within a number and a size, and nothing else is touched.
func TestFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "failures")
	folder, err := replay.OpenFolder(path, 3, 40_000)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(path, "notes.txt"), make([]byte, 100_000), 0o600))
	start := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	var files []string
	for n := range 5 {
		file, err := folder.Keep(recorded(start.Add(time.Duration(n)*time.Second), "A", 1000))
		require.NoError(t, err)
		files = append(files, filepath.Base(file))
	}
	require.Equal(t, append(append([]string{}, files[2:]...), "notes.txt"), names(t, path))

	// A large one takes the place of all that it leaves no room for.
	large, err := folder.Keep(recorded(start.Add(time.Minute), "../B/c", 38_700))
	require.NoError(t, err)
	require.Equal(t, path, filepath.Dir(large))
	require.Contains(t, large, "-___B_c.replay.json")
	require.Equal(t, []string{filepath.Base(large), "notes.txt"}, names(t, path))

	// One that is too large takes nobody's place.
	_, err = folder.Keep(recorded(start.Add(time.Hour), "A", 50_000))
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "and the folder keeps 40000 in all")
	require.Equal(t, []string{filepath.Base(large), "notes.txt"}, names(t, path))

	// Two of one moment are two, and the folder of a worker with lower bounds keeps
	// to these.
	for range 2 {
		_, err = folder.Keep(recorded(start.Add(2*time.Hour), "A", 100))
		require.NoError(t, err)
	}
	require.Len(t, names(t, path), 3) // which left no room for the large one
	_, err = replay.OpenFolder(path, 1, 0)
	require.NoError(t, err)
	require.Len(t, names(t, path), 2)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.True(t, info.IsDir())

	_, err = replay.OpenFolder(path, -1, 0)
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	_, err = replay.OpenFolder(filepath.Join(path, "notes.txt"), 0, 0)
	require.Error(t, err)
}
