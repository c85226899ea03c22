package staging_test

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/staging"
)

// A shelf is a store with a cache, over as many runs of a worker as wanted.
type shelf struct {
	t      *testing.T
	folder string
	cfg    staging.CacheConfig
	store  *staging.Store
	cache  *staging.Cache
	fetch  *staging.Downloader
}

func openShelf(t *testing.T, cfg staging.CacheConfig) *shelf {
	t.Helper()
	s := &shelf{t: t, folder: t.TempDir(), cfg: cfg}
	s.cfg.Log = slog.New(slog.DiscardHandler)
	s.open()
	t.Cleanup(s.close)
	return s
}

func (s *shelf) open() {
	var err error
	s.store, err = staging.Open(s.folder)
	require.NoError(s.t, err)
	s.cache = s.store.OpenCache(s.cfg)
	s.fetch = staging.NewDownloader(staging.DownloadConfig{
		Cache: s.cache, Backoff: time.Nanosecond, Log: s.cfg.Log, MaxBytes: 16 << 30,
		Policy: func(string) egress.Policy { return egress.Policy{Private: true} },
	})
}

func (s *shelf) close() {
	if s.store == nil {
		return
	}
	s.cache.Close()
	s.fetch.CloseIdle()
	require.NoError(s.t, s.store.Close())
	s.store = nil
	left, err := filepath.Glob(filepath.Join(s.folder, "worker-*"))
	require.NoError(s.t, err)
	require.Empty(s.t, left)
}

// want stages a source in a directory of its own and returns its content.
func (s *shelf) want(src staging.Source, name string) (string, staging.Fetched, error) {
	s.t.Helper()
	dir, err := s.store.Create()
	require.NoError(s.t, err)
	defer func() { require.NoError(s.t, dir.Close()) }()
	got, err := s.fetch.Fetch(s.t.Context(), dir, name, src, nil)
	if err != nil {
		return "", got, err
	}
	content, err := dir.ReadFile(name)
	require.NoError(s.t, err)
	// What an item does to its copy is its own business.
	require.NoError(s.t, dir.WriteFile(name, []byte("spoiled"), 0o600))
	return string(content), got, nil
}

func (s *shelf) must(src staging.Source, want string, cached bool) {
	s.t.Helper()
	content, got, err := s.want(src, "f")
	require.NoError(s.t, err)
	require.Equal(s.t, want, content)
	require.Equal(s.t, cached, got.Cached)
	require.EqualValues(s.t, len(want), got.Size)
}

// contents lists the files that are kept, of all tenants.
func (s *shelf) contents() []string {
	found, err := filepath.Glob(filepath.Join(s.folder, "affinity", "*", "*.data"))
	require.NoError(s.t, err)
	return found
}

// A page is a resource that can change, and counts how often it was sent.
type page struct {
	mu          sync.Mutex
	text, etag  string
	modified    string
	sent, asked int
	unavailable bool
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	if p.unavailable {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if p.etag != "" {
		w.Header().Set("Etag", p.etag)
	}
	if p.modified != "" {
		w.Header().Set("Last-Modified", p.modified)
	}
	if p.etag != "" && r.Header.Get("If-None-Match") == p.etag || p.modified != "" && r.Header.Get("If-Modified-Since") == p.modified {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	p.sent++
	_, _ = io.WriteString(w, p.text)
}

func (p *page) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *page) count() (sent, asked int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent, p.asked
}

// protocol.md §10: the Node worker's cache was keyed by file name only, so that
// another URL gave the old file.
func TestCache(t *testing.T) {
	p := &page{text: "one", etag: `"1"`}
	address := serve(t, p.ServeHTTP)
	s := openShelf(t, staging.CacheConfig{})
	src := staging.Source{URL: address + "/a?token=secret", AffinityKey: "k"}
	s.must(src, "one", false)
	s.must(src, "one", true)
	sent, asked := p.count()
	require.Equal(t, 1, sent)
	require.Equal(t, 2, asked, "the server is asked whether it is still right")

	p.set(func() { p.text, p.etag = "two", `"2"` })
	s.must(src, "two", false)
	s.must(src, "two", true)

	other := src
	other.URL = address + "/b"
	s.must(other, "two", false)
	other = src
	other.AffinityKey = "l"
	s.must(other, "two", false)
	other.AffinityKey = ""
	s.must(other, "two", false)
	require.Len(t, s.contents(), 2, "the same content is kept once")

	// The server cannot be asked: better than nothing.
	p.set(func() { p.unavailable = true })
	_, got, err := s.want(src, "f")
	require.NoError(t, err)
	require.True(t, got.Cached && got.Stale)
	other.AffinityKey = "never seen"
	_, _, err = s.want(other, "f")
	require.ErrorContains(t, err, "HTTP 502")
	p.set(func() { p.unavailable = false })

	// It survives the worker, and shows nobody where it is from.
	s.close()
	s.open()
	sent, _ = p.count()
	s.must(src, "two", true)
	again, _ := p.count()
	require.Equal(t, sent, again)
	require.NoError(t, filepath.Walk(filepath.Join(s.folder, "affinity"), func(path string, info os.FileInfo, err error) error {
		require.NoError(t, err)
		require.NotContains(t, path, "secret")
		if strings.HasSuffix(path, ".json") {
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NotContains(t, string(raw), "secret")
		}
		return nil
	}))
}

// protocol.md §10: keys a/b and a_b, and keys equal in the first 64 characters,
// shared a directory.
func TestCacheKeys(t *testing.T) {
	var n atomic.Int32
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, n.Add(1)) })
	s := openShelf(t, staging.CacheConfig{})
	long := strings.Repeat("k", 64)
	sources := []staging.Source{
		{AffinityKey: "a/b"}, {AffinityKey: "a_b"}, {AffinityKey: "../a"}, {AffinityKey: long}, {AffinityKey: long + "x"},
		{AffinityKey: strings.Repeat("y", 1<<20)}, {AffinityKey: "a\x00b"}, {AffinityKey: "a", URL: "b"}, {AffinityKey: "ab"},
		{AffinityKey: "a/b", Tenant: "acme"}, {AffinityKey: "a/b", Tenant: "ACME"}, {AffinityKey: "a/b", Tenant: "../acme"},
	}
	for i := range sources {
		sources[i].URL = address + "/" + sources[i].URL
		s.must(sources[i], fmt.Sprint(i+1), false)
	}
	for i := range sources {
		s.must(sources[i], fmt.Sprint(i+1), true)
	}
}

// Without an ETag, a date or a digest nobody can say whether content is still
// right; then it is, for a while.
func TestCacheWithoutValidators(t *testing.T) {
	p := &page{text: "one"}
	address := serve(t, p.ServeHTTP)
	for name, tt := range map[string]struct {
		ttl    time.Duration
		cached bool
	}{"for a while": {time.Hour, true}, "not any more": {time.Nanosecond, false}} {
		t.Run(name, func(t *testing.T) {
			s := openShelf(t, staging.CacheConfig{TTL: tt.ttl})
			src := staging.Source{URL: address, AffinityKey: "k"}
			s.must(src, "one", false)
			s.must(src, "one", tt.cached)
		})
	}
	p.set(func() { p.modified = "Thu, 02 Jan 2020 03:04:05 GMT" })
	s := openShelf(t, staging.CacheConfig{TTL: time.Nanosecond})
	src := staging.Source{URL: address, AffinityKey: "k"}
	s.must(src, "one", false)
	s.must(src, "one", true)
}

// An item that says the digest needs no server, and gets nothing else.
func TestCacheByDigest(t *testing.T) {
	p := &page{text: "one", etag: `"1"`}
	address := serve(t, p.ServeHTTP)
	s := openShelf(t, staging.CacheConfig{})
	src := staging.Source{URL: address, AffinityKey: "k", SHA256: sum([]byte("one"))}
	s.must(src, "one", false)
	s.must(src, "one", true)
	src.AffinityKey, src.SHA256 = "l", strings.ToUpper(src.SHA256)
	s.must(src, "one", true)
	_, asked := p.count()
	require.Equal(t, 1, asked, "the content is here, whatever the key")
	src.Tenant = "acme"
	s.must(src, "one", false)
	_, asked = p.count()
	require.Equal(t, 2, asked, "but another tenant's is not")

	p.set(func() { p.text, p.etag = "two", `"2"` })
	src.SHA256 = sum([]byte("two"))
	s.must(src, "two", false)
	src.SHA256 = sum([]byte("three"))
	_, _, err := s.want(src, "f")
	require.ErrorContains(t, err, "the source has SHA-256")
	src.SHA256 = ""
	s.must(src, "two", true)
	src.SHA256 = "x"
	_, _, err = s.want(src, "f")
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

// protocol.md §10: a partial download counted as cached. Whatever is in the
// cache is verified before it is used.
func TestCacheIsVerified(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut off":     func(path string) error { return os.Truncate(path, 3) },
		"longer":      func(path string) error { return os.WriteFile(path, []byte("the content and more"), 0o600) },
		"other":       func(path string) error { return os.WriteFile(path, []byte("THE CONTENT"), 0o600) },
		"gone":        os.Remove,
		"a directory": func(path string) error { return firstErr(os.Remove(path), os.Mkdir(path, 0o700)) },
		"a link":      func(path string) error { return firstErr(os.Remove(path), os.Symlink("/etc/passwd", path)) },
		"record":      func(path string) error { return spoilRecords(path, "{") },
		"record lies": func(path string) error { return spoilRecords(path, `{"SHA256":"../../x","Size":11}`) },
		"record wrong": func(path string) error {
			return spoilRecords(path, `{"SHA256":"`+strings.Repeat("ab", 32)+`","Size":11,"ETag":"\"1\""}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, restart := range []bool{false, true} {
				p := &page{text: "the content", etag: `"1"`}
				s := openShelf(t, staging.CacheConfig{})
				src := staging.Source{URL: serve(t, p.ServeHTTP), AffinityKey: "k"}
				s.must(src, "the content", false)
				if restart {
					s.close()
				}
				found, err := filepath.Glob(filepath.Join(s.folder, "affinity", "*", "*.data"))
				require.NoError(t, err)
				require.Len(t, found, 1)
				_ = os.Chmod(found[0], 0o600)
				require.NoError(t, spoil(found[0]))
				if restart {
					s.open()
				}
				s.must(src, "the content", false)
				s.must(src, "the content", true)
			}
		})
	}
}

func firstErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func spoilRecords(data, text string) error {
	records, err := filepath.Glob(filepath.Join(filepath.Dir(data), "*.json"))
	if err != nil || len(records) == 0 {
		return fmt.Errorf("no records: %w", err)
	}
	for _, r := range records {
		if err := os.WriteFile(r, []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Many items that want one file at the same time share one download; one that
// is canceled meanwhile takes nothing from the others.
func TestCacheSingleFlight(t *testing.T) {
	const items = 50
	var downloads atomic.Int32
	piece := strings.Repeat("p", 1<<20) // of which progress tells
	more := make(chan struct{})
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		downloads.Add(1)
		for range more {
			_, _ = io.WriteString(w, piece)
			w.(http.Flusher).Flush()
		}
	})
	s := openShelf(t, staging.CacheConfig{})
	src := staging.Source{URL: address, AffinityKey: "k"}

	// The first to come goes first, too.
	ctx, cancel := context.WithCancelCause(t.Context())
	gone, arrived := make(chan error), make(chan struct{}, 1<<16)
	go func() {
		dir, err := s.store.Create()
		if err == nil {
			_, err = s.fetch.Fetch(ctx, dir, "f", src, func(int64, int64) { arrived <- struct{}{} })
			err = firstErr(err, dir.Close())
		}
		gone <- err
	}()
	more <- struct{}{}
	<-arrived
	var others sync.WaitGroup
	var told, cached atomic.Int64
	var size atomic.Int64
	for range items {
		others.Go(func() {
			dir, err := s.store.Create()
			if err != nil {
				t.Error(err)
				return
			}
			defer dir.Close()
			var once sync.Once
			got, err := s.fetch.Fetch(t.Context(), dir, "f", src, func(int64, int64) { once.Do(func() { told.Add(1) }) })
			if err != nil {
				t.Error(err)
				return
			}
			if got.Cached {
				cached.Add(1)
			}
			size.Store(got.Size)
			if info, err := dir.Stat("f"); err != nil || info.Size() != got.Size {
				t.Error("not the content", err)
			}
		})
	}
	pieces := int64(1)
	for told.Load() < items { // by then all have joined
		more <- struct{}{}
		<-arrived
		pieces++
		time.Sleep(time.Millisecond)
	}
	cancel(beacon.Errorf(beacon.Canceled, "not wanted any more"))
	require.ErrorContains(t, <-gone, "not wanted any more")
	close(more)
	others.Wait()
	require.EqualValues(t, 1, downloads.Load())
	require.EqualValues(t, items, cached.Load())
	require.Equal(t, pieces<<20, size.Load())
	require.Len(t, s.contents(), 1)
}

// The last of those who wait takes the download along.
func TestCacheDownloadEndsWithTheLast(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		close(begun)
		<-r.Context().Done()
		close(ended)
	})
	s := openShelf(t, staging.CacheConfig{})
	dir, err := s.store.Create()
	require.NoError(t, err)
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-begun; cancel(beacon.Errorf(beacon.Timeout, "the item's time is over")) }()
	_, err = s.fetch.Fetch(ctx, dir, "f", staging.Source{URL: address, AffinityKey: "k"}, nil)
	require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
	<-ended
	require.Empty(t, entries(t, dir.Name()))
	require.NoError(t, dir.Close())
	require.Empty(t, s.contents())
}

// What was not used for the longest time goes first, what is in use stays, and
// one tenant's files never make room for another's.
func TestCacheQuota(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("If-None-Match") != "" {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, strings.Repeat(r.URL.Path[1:], 1000))
	})
	s := openShelf(t, staging.CacheConfig{Quota: func(string) int64 { return 3000 }})
	source := func(name, tenant string) staging.Source {
		return staging.Source{URL: address + "/" + name, AffinityKey: "k", Tenant: tenant}
	}
	kept := func() (names string) {
		for _, path := range s.contents() {
			raw, err := os.ReadFile(path)
			require.NoError(t, err)
			names += string(raw[0])
		}
		return names
	}
	// Times of use that do not depend on how fast the test is.
	age := func(hours int) {
		found, err := filepath.Glob(filepath.Join(s.folder, "affinity", "*", "*"))
		require.NoError(t, err)
		for _, path := range found {
			info, err := os.Stat(path)
			require.NoError(t, err)
			if strings.HasSuffix(path, ".json") {
				require.NoError(t, os.Chtimes(path, time.Time{}, info.ModTime().Add(-time.Duration(hours)*time.Hour)))
			} else {
				require.NoError(t, os.Chtimes(path, time.Time{}, info.ModTime().Add(-1000*time.Hour)))
			}
		}
	}
	s.must(source("x", "other"), strings.Repeat("x", 1000), false)
	for _, name := range []string{"a", "b", "c"} {
		age(1)
		s.must(source(name, ""), strings.Repeat(name, 1000), false)
	}
	age(1)
	s.must(source("a", ""), strings.Repeat("a", 1000), true)
	age(1)
	s.must(source("d", ""), strings.Repeat("d", 1000), false)
	require.ElementsMatch(t, []rune("acdx"), []rune(kept()), "b was not used for the longest time")
	age(1)
	s.must(source("ee", ""), strings.Repeat("ee", 1000), false)
	require.ElementsMatch(t, []rune("dex"), []rune(kept()))

	// What never fits is staged, and not kept.
	s.must(source("ffff", ""), strings.Repeat("ffff", 1000), false)
	require.NotContains(t, kept(), "f")
	require.Contains(t, kept(), "x")

	require.True(t, s.cache.Shrink())
	require.Empty(t, s.contents())
	require.False(t, s.cache.Shrink())
	s.must(source("a", ""), strings.Repeat("a", 1000), false)
}

// Two workers in one folder share the cache, and the end of one takes nothing
// from the other.
func TestCacheOfTwoWorkers(t *testing.T) {
	p := &page{text: "one", etag: `"1"`}
	address := serve(t, p.ServeHTTP)
	s := openShelf(t, staging.CacheConfig{})
	second := &shelf{t: t, folder: s.folder, cfg: s.cfg}
	second.open()
	src := staging.Source{URL: address, AffinityKey: "k"}
	s.must(src, "one", false)
	second.must(src, "one", true)
	// One removes what the other has verified, and so believes to be there.
	require.True(t, s.cache.Shrink())
	second.must(src, "one", false)
	second.cache.Close()
	second.fetch.CloseIdle()
	require.NoError(t, second.store.Close())
	s.must(src, "one", true)
}

func TestCacheClosed(t *testing.T) {
	s := openShelf(t, staging.CacheConfig{})
	s.cache.Close()
	_, _, err := s.want(staging.Source{URL: "http://127.0.0.1:1/", AffinityKey: "k"}, "f")
	require.ErrorContains(t, err, "closed")
}

func FuzzCacheRecord(f *testing.F) {
	f.Add([]byte(`{"SHA256":"` + hex.EncodeToString(make([]byte, 32)) + `","Size":1}`))
	f.Add([]byte(`{"SHA256":"../../../etc/passwd"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p := &page{text: "the content", etag: `"1"`}
		s := openShelf(t, staging.CacheConfig{})
		src := staging.Source{URL: serve(t, p.ServeHTTP), AffinityKey: "k"}
		s.must(src, "the content", false)
		records, err := filepath.Glob(filepath.Join(s.folder, "affinity", "*", "*.json"))
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(records[0], raw, 0o600))
		content, _, err := s.want(src, "f")
		require.NoError(t, err)
		require.Equal(t, "the content", content)
	})
}
