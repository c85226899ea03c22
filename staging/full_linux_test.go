package staging_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// smallDisk is a folder on a disk of so many bytes.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	folder := t.TempDir()
	if err := unix.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mounting a small disk takes root: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, unix.Unmount(folder, 0)) })
	return folder
}

// A worker on a full disk fails the item with a clear message and goes on.
func TestFullDisk(t *testing.T) {
	folder := smallDisk(t, 8<<20)
	large := bytes.Repeat([]byte("x"), 1<<20)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Path[1:])
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		for range n {
			if _, err := w.Write(large); err != nil {
				return
			}
		}
	})
	store, err := staging.Open(filepath.Join(folder, "staging"))
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	cache := store.OpenCache(staging.CacheConfig{Log: quiet})
	download := staging.NewDownloader(staging.DownloadConfig{Cache: cache, Log: quiet, Backoff: time.Nanosecond})
	t.Cleanup(func() { // before the disk goes
		cache.Close()
		download.CloseIdle()
		_ = store.Close() // a directory may be open still
	})
	fetch := func(megabytes int, key string) error {
		t.Helper()
		dir, err := store.Create()
		require.NoError(t, err)
		got, err := download.Fetch(t.Context(), dir, "f", staging.Source{URL: fmt.Sprint(address, "/", megabytes), AffinityKey: key}, nil)
		if err == nil {
			require.EqualValues(t, megabytes<<20, got.Size)
		}
		require.NoError(t, dir.Close(), "the directory can be removed")
		return err
	}
	full := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, unix.ENOSPC)
		require.Equal(t, beacon.Failed, beacon.CodeOf(err))
		require.EqualError(t, err, "no space left on the worker's disk, in the folder for the files of work items: no space left on device")
	}
	full(fetch(9, ""))
	require.NoError(t, fetch(7, ""), "and on it goes")
	full(fetch(9, "k"))
	require.NoError(t, fetch(3, "k"), "the content and the item's copy")

	// What is kept for later makes room for what is needed now.
	require.NoError(t, fetch(7, ""))
	kept, err := filepath.Glob(filepath.Join(folder, "staging", "affinity", "*", "*.data"))
	require.NoError(t, err)
	require.Empty(t, kept)

	// Not even a directory can be made.
	info := fill(t, filepath.Join(folder, "fill"))
	full(fetch(1, ""))
	if dir, err := store.Create(); err == nil { // it may have one that was kept
		require.NoError(t, dir.Close())
	} else {
		require.ErrorIs(t, err, unix.ENOSPC)
	}
	require.NoError(t, os.Remove(info))
	require.NoError(t, fetch(1, "k"))
}

// fill takes all the room that there is.
func fill(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, f.Close())
	return path
}
