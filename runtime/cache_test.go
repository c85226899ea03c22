package runtime_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// files lists the files below a directory.
func files(t testing.TB, dir string) map[string]fs.FileInfo {
	t.Helper()
	all := map[string]fs.FileInfo{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) == ".lock" {
			return err
		}
		info, err := entry.Info()
		all[path] = info
		return err
	}))
	return all
}

// compiled lists what the engine has of a module, and its seal.
func compiled(t testing.TB, dir string) map[string]fs.FileInfo {
	t.Helper()
	all := files(t, dir)
	for name := range all {
		if base := filepath.Base(name); base == "key" || strings.HasPrefix(base, "snapshot-") {
			delete(all, name)
		}
	}
	return all
}

// once loads the guest, runs an item and closes it again.
func once(t testing.TB, dir string, log *recorder) {
	t.Helper()
	r, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Log: log.logger()})
	require.NoError(t, err)
	m, err := r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "exit")})
	require.NoError(t, err)
	job, _ := newJob(t, `{"Code": "7"}`)
	result, err := m.Run(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, 7, result.ExitCode())
	require.NoError(t, m.Close(context.Background()))
}

func TestCacheIsUsed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "cache")
	var log recorder
	once(t, dir, &log)
	first := files(t, dir)
	require.Len(t, first, 4, "the code and its seal, the snapshot and its key")
	require.Len(t, compiled(t, dir), 2)
	once(t, dir, &log)
	second := files(t, dir)
	require.Len(t, second, 4)
	for name, info := range second {
		require.True(t, os.SameFile(first[name], info), "%s was written again", name)
		require.Equal(t, first[name].ModTime(), info.ModTime())
	}
	require.Empty(t, log.String())
	if goruntime.GOOS != "windows" {
		info, err := os.Stat(dir)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	}
}

// Whatever happens to a file of the cache, the module runs, and is in the cache
// again afterwards.
func TestDamagedCache(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	var log recorder
	once(t, dir, &log)
	require.Empty(t, log.String())
	var code, sum string
	var original []byte
	for name := range compiled(t, dir) {
		if filepath.Base(name) == "seal" {
			sum = name
			continue
		}
		code = name
		var err error
		original, err = os.ReadFile(name)
		require.NoError(t, err)
	}
	require.NotEmpty(t, code)
	require.NotEmpty(t, sum)

	damages := map[string]func(){
		"empty":     func() { require.NoError(t, os.Truncate(code, 0)) },
		"cut":       func() { require.NoError(t, os.Truncate(code, int64(len(original)/2))) },
		"last byte": func() { require.NoError(t, os.Truncate(code, int64(len(original)-1))) },
		"gone":      func() { require.NoError(t, os.Remove(code)) },
		"more": func() {
			require.NoError(t, os.WriteFile(code, append(original[:len(original):len(original)], 0), 0o600))
		},
		"other":    func() { require.NoError(t, os.WriteFile(code, []byte("garbage"), 0o600)) },
		"stranger": func() { require.NoError(t, os.WriteFile(code+".tmp", []byte("garbage"), 0o600)) },
		"no seal":  func() { require.NoError(t, os.Remove(sum)) },
		"bad seal": func() {
			require.NoError(t, os.WriteFile(sum, []byte("00000000"), 0o600))
		},
	}
	// The header's numbers among them: one makes the engine ask for 32 GiB.
	for at := 0; at < len(original); at += max(1, len(original)/200) {
		damages[fmt.Sprintf("flipped %d", at)] = func() {
			changed := append([]byte{}, original...)
			changed[at] ^= 0xff
			require.NoError(t, os.WriteFile(code, changed, 0o600))
		}
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			damage()
			once(t, dir, &log)
			got, err := os.ReadFile(code)
			require.NoError(t, err)
			require.Equal(t, original, got, "compiled anew")
			require.Len(t, compiled(t, dir), 2)
		})
	}
	require.Contains(t, log.String(), "the cached module is damaged")
	require.NotContains(t, log.String(), "cannot be used")
}

// What cannot be compiled leaves nothing behind, and is no fault of the cache.
func TestCacheOfInvalidModule(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	var log recorder
	r, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Log: log.logger()})
	require.NoError(t, err)
	_, err = r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x05\x01\x03\x00\x6a\x0b")})
	requireFailure(t, err, beacon.Refused, "lacks an operand")
	require.Empty(t, files(t, dir))
	require.Empty(t, log.String())
}

// Several beacons may start at once.
func TestCacheIsShared(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.Chmod(dir, 0o700))
	done := make(chan error, 6)
	for range cap(done) {
		go func() {
			r, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Log: quiet()})
			if err != nil {
				done <- err
				return
			}
			m, err := r.Load(context.Background(), wasmrt.Source{Name: "subject", Binary: guest(t, "exit")})
			if err == nil {
				err = m.Close(context.Background())
			}
			done <- err
		}()
	}
	for range cap(done) {
		require.NoError(t, <-done)
	}
	var log recorder
	once(t, dir, &log)
}

// S27: what others can write to is not executed.
func TestCacheDirectory(t *testing.T) {
	if goruntime.GOOS == "windows" {
		t.Skip("no modes")
	}
	for _, mode := range []fs.FileMode{0o755, 0o770, 0o702, 0o777} {
		dir := filepath.Join(t.TempDir(), "cache")
		require.NoError(t, os.Mkdir(dir, 0o700))
		require.NoError(t, os.Chmod(dir, mode))
		_, err := wasmrt.New(wasmrt.Config{CacheDir: dir})
		require.Equal(t, beacon.Denied, beacon.CodeOf(err))
		require.ErrorContains(t, err, "chmod 700")
	}
	base := t.TempDir()
	file := filepath.Join(base, "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := wasmrt.New(wasmrt.Config{CacheDir: file})
	require.Error(t, err)
	target, link := filepath.Join(base, "target"), filepath.Join(base, "link")
	require.NoError(t, os.Mkdir(target, 0o700))
	require.NoError(t, os.Symlink(target, link))
	_, err = wasmrt.New(wasmrt.Config{CacheDir: link})
	require.ErrorContains(t, err, "is not a directory")
}

// How long a module took to compile is known of one that comes from the cache, too,
// and loading it from there does not change that.
func TestCompiled(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	src := wasmrt.Source{Name: "work", Binary: guest(t, "work")}
	r, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Log: quiet()})
	require.NoError(t, err)
	kept, err := r.Register(t.Context(), src)
	require.NoError(t, err)
	var first time.Duration
	for range 2 {
		m, err := r.Open(t.Context(), kept.Kept, src)
		require.NoError(t, err)
		require.Positive(t, m.Compiled())
		if first == 0 {
			first = m.Compiled()
		}
		require.Equal(t, first, m.Compiled())
		require.NoError(t, m.Close(t.Context()))
	}
	require.Positive(t, loadWith(t, wasmrt.Config{Log: quiet()}, src).Compiled())
}
