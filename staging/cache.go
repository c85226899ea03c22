package staging

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// Defaults of CacheConfig.
const (
	DefaultQuota = 10 << 30
	DefaultTTL   = time.Hour
)

// CacheConfig has what a cache may do. The zero value works.
type CacheConfig struct {
	// Quota is how many bytes a tenant's files may take; nil means 10 GiB for
	// each. What was not used for the longest time goes first.
	Quota func(tenant string) int64
	// TTL is how long content counts as right whose server gives neither an ETag
	// nor a date, and so cannot say whether it still is; 0 means an hour, as the
	// affinity of items to workers lasts on servers.
	TTL time.Duration
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// A Cache keeps sources for items that share an affinity key. It is in the
// store's folder and outlives the store; stores of several workers in one folder
// share it. Each tenant has one of its own.
//
// Content is kept under its digest, and found by tenant, affinity key and URL.
// Before it is used the server is asked whether it is still right, unless the
// item says the digest itself. An item gets a copy (the file system shares the
// blocks where it can), so that nothing an item does reaches another: a hard
// link would be the cache itself.
type Cache struct {
	cfg  CacheConfig
	path string // of all tenants
	temp string // where downloads grow; it goes with the worker

	ctx    context.Context // of flights; it ends with the cache
	cancel context.CancelFunc
	active sync.WaitGroup

	mu       sync.Mutex
	flights  map[string]*flight
	pins     map[string]int   // content in use, by path
	verified map[string]stamp // content whose digest this process has seen to be right
	closed   bool
}

// A stamp says that a file is as it was.
type stamp struct {
	size     int64
	modified time.Time
}

// A record says what an affinity key and a URL lead to. Its own time is when it
// was last used.
type record struct {
	ETag         string    `json:",omitempty"`
	LastModified string    `json:",omitempty"`
	SHA256       string    // the name of the content
	Size         int64     // of the content
	Asked        time.Time // when the server last said that it is right
}

const (
	cacheFolder  = "affinity"
	recordEnding = ".json"
	dataEnding   = ".data"
)

// OpenCache opens the cache in the store's folder, where nothing is made before
// it is needed. Close it before the store.
func (s *Store) OpenCache(cfg CacheConfig) *Cache {
	if cfg.Quota == nil {
		cfg.Quota = func(string) int64 { return DefaultQuota }
	}
	cfg.TTL = cmp.Or(cfg.TTL, DefaultTTL)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	c := &Cache{
		cfg: cfg, path: filepath.Join(filepath.Dir(s.path), cacheFolder), temp: s.path,
		flights: map[string]*flight{}, pins: map[string]int{}, verified: map[string]stamp{},
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends downloads that are under way. What is kept stays.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.active.Wait()
}

// digest makes one name of several; their lengths keep them apart.
func digest(parts ...string) string {
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(sum, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(sum.Sum(nil)[:16])
}

func (c *Cache) folder(tenant string) string { return filepath.Join(c.path, digest(tenant)) }

// fetch gives the directory a file, from the cache if it is there.
func (c *Cache) fetch(ctx context.Context, d *Downloader, dir *Dir, name string, src Source, report Report) (Fetched, error) {
	for attempt := 1; ; attempt++ {
		got, err := c.provide(ctx, d, name, src, report)
		if err != nil {
			return Fetched{}, err
		}
		err = c.copyTo(ctx, dir, name, got)
		c.unpin(got.path)
		if quota := c.cfg.Quota(src.Tenant); got.size > quota {
			c.evict(c.folder(src.Tenant), quota) // it could not go before
		}
		if err == nil {
			return Fetched{Size: got.size, Cached: got.cached, Stale: got.stale}, nil
		}
		// Another worker may have removed what this one has not pinned there.
		if !errors.Is(err, fs.ErrNotExist) || attempt == 3 {
			return Fetched{}, err
		}
	}
}

func (c *Cache) copyTo(ctx context.Context, dir *Dir, name string, got provided) error {
	f, err := os.Open(got.path)
	if err != nil {
		return hostless(err)
	}
	defer f.Close()
	return dir.Import(ctx, name, f)
}

// provided is content in the cache, pinned until it is copied.
type provided struct {
	path          string
	size          int64
	cached, stale bool
}

// A flight finds or fetches one content for all who want it at the same time.
// It ends with the last of them.
type flight struct {
	done   chan struct{}
	cancel context.CancelCauseFunc

	// Guarded by the cache's mu.
	waiting int
	joined  int // counts all who ever did
	reports map[int]Report

	// Set before done is closed.
	got provided
	err error
}

// provide joins the flight to the content, or starts it.
func (c *Cache) provide(ctx context.Context, d *Downloader, name string, src Source, report Report) (provided, error) {
	// What is wrong with the name is part of what is wanted: a web page is
	// refused as a picture, and not as a text.
	key := digest(src.Tenant, src.AffinityKey, src.URL, src.SHA256, strings.ToLower(filepath.Ext(name)))
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return provided{}, errors.New("the affinity cache is closed")
	}
	f := c.flights[key]
	if f == nil {
		flying, cancel := context.WithCancelCause(c.ctx)
		f = &flight{done: make(chan struct{}), cancel: cancel, reports: map[int]Report{}}
		c.flights[key] = f
		c.active.Add(1)
		go func() {
			defer c.active.Done()
			defer cancel(nil)
			got, err := c.find(flying, d, name, src, func(done, total int64) { c.told(f, done, total) })
			c.mu.Lock()
			if c.flights[key] == f {
				delete(c.flights, key)
			}
			f.got, f.err = got, err
			if err == nil { // find has pinned it once
				c.pins[got.path] += f.waiting
				c.unpinned(got.path)
			}
			c.mu.Unlock()
			close(f.done)
		}()
	}
	number := f.joined
	f.joined++
	f.waiting++
	if report != nil {
		f.reports[number] = report
	}
	c.mu.Unlock()
	select {
	case <-f.done:
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		select {
		case <-f.done: // and this one's pin was counted
			if f.err == nil {
				c.unpinned(f.got.path)
			}
		default:
			delete(f.reports, number)
			if f.waiting--; f.waiting == 0 {
				f.cancel(context.Cause(ctx))
				if c.flights[key] == f {
					delete(c.flights, key) // whoever comes now begins anew
				}
			}
		}
		return provided{}, context.Cause(ctx)
	}
	if f.err != nil {
		return provided{}, f.err
	}
	got := f.got
	got.cached = got.cached || number > 0
	return got, nil
}

// told passes progress on to all who wait.
func (c *Cache) told(f *flight, done, total int64) {
	c.mu.Lock()
	reports := slices.Collect(maps.Values(f.reports))
	c.mu.Unlock()
	for _, report := range reports {
		report(done, total)
	}
}

func (c *Cache) unpin(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unpinned(path)
}

// unpinned is unpin; mu is held.
func (c *Cache) unpinned(path string) {
	if c.pins[path]--; c.pins[path] <= 0 {
		delete(c.pins, path)
	}
}

func (c *Cache) pin(path string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pins[path]++
}

// find gives content that is right, from the cache or from the server; it is
// pinned.
func (c *Cache) find(ctx context.Context, d *Downloader, name string, src Source, report Report) (provided, error) {
	folder := c.folder(src.Tenant)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return provided{}, fmt.Errorf("create the tenant's affinity cache: %w", hostless(err))
	}
	place := filepath.Join(folder, digest(src.AffinityKey, src.URL)+recordEnding)
	known, data, err := c.known(folder, place, src)
	if err != nil {
		return provided{}, err
	}
	hit := provided{path: data, size: known.Size, cached: true}
	t := &transfer{src: src, name: name, limit: d.cfg.MaxBytes, report: report, hashed: true}
	if data != "" {
		switch {
		case src.SHA256 == known.SHA256, known.ETag == "" && known.LastModified == "" && time.Since(known.Asked) < c.cfg.TTL:
			c.used(place)
			return hit, nil
		case src.SHA256 == "":
			t.known = validators{known.ETag, known.LastModified}
		}
	}
	got, fetched, err := c.download(ctx, d, folder, t)
	switch {
	case err == nil && got.notModified:
		known.Asked = time.Now()
		if err := c.write(place, known); err != nil {
			c.unpin(data)
			return provided{}, err
		}
		return hit, nil
	case err != nil && data != "" && src.SHA256 == "" && unreachable(ctx, err):
		// What was right the last time is better than nothing.
		c.cfg.Log.Warn("the server of a cached source cannot be asked whether it has changed; using it as it is", "url", Redact(src.URL), "err", err)
		hit.stale = true
		return hit, nil
	}
	if data != "" {
		c.unpin(data)
	}
	if err != nil {
		return provided{}, err
	}
	kept := record{ETag: got.ETag, LastModified: got.LastModified, SHA256: got.sha256, Size: got.size, Asked: time.Now()}
	if err := c.write(place, kept); err != nil {
		c.unpin(fetched)
		return provided{}, err
	}
	c.evict(folder, c.cfg.Quota(src.Tenant))
	return provided{path: fetched, size: got.size}, nil
}

// unreachable reports whether an error says nothing of the content.
func unreachable(ctx context.Context, err error) bool {
	var status *statusError
	return ctx.Err() == nil && beacon.CodeOf(err) == beacon.Failed && !isFull(err) && (!errors.As(err, &status) || status.status >= http.StatusInternalServerError || status.status == http.StatusTooManyRequests)
}

// known reads a record and pins its content, whose path is "" if there is none
// that is right.
func (c *Cache) known(folder, place string, src Source) (r record, data string, err error) {
	if raw, err := os.ReadFile(place); err == nil && json.Unmarshal(raw, &r) == nil && CheckSHA256("", r.SHA256) == nil {
		data = filepath.Join(folder, strings.ToLower(r.SHA256)+dataEnding)
	} else if !errors.Is(err, fs.ErrNotExist) {
		c.cfg.Log.Warn("an entry of the affinity cache cannot be read; it is fetched again", "err", err)
	}
	if src.SHA256 != "" && r.SHA256 != src.SHA256 { // it may be here under another key
		r = record{SHA256: src.SHA256}
		data = filepath.Join(folder, src.SHA256+dataEnding)
	}
	if data == "" {
		return record{}, "", nil
	}
	c.pin(data)
	info, err := c.check(data, r)
	if err == nil && info == nil {
		c.unpin(data)
		return record{}, "", nil
	}
	if err != nil {
		c.unpin(data)
		return record{}, "", err
	}
	if r.Size == 0 {
		r.Size = info.Size()
		return r, data, c.write(place, r)
	}
	return r, data, nil
}

// check verifies content before it is used: the first time in this process by
// its digest, then by size and time. What is not right is removed; then info is
// nil.
func (c *Cache) check(data string, r record) (info fs.FileInfo, err error) {
	f, err := os.OpenFile(data, os.O_RDONLY|nonblock, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open the cached source: %w", hostless(err))
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, hostless(err)
	}
	now := stamp{info.Size(), info.ModTime()}
	c.mu.Lock()
	before, seen := c.verified[data]
	c.mu.Unlock()
	if info.Mode().IsRegular() && seen && before == now {
		return info, nil
	}
	if info.Mode().IsRegular() && (r.Size == 0 || r.Size == info.Size()) {
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return nil, fmt.Errorf("read the cached source: %w", hostless(err))
		}
		if hex.EncodeToString(sum.Sum(nil)) == r.SHA256 {
			c.mu.Lock()
			c.verified[data] = now
			c.mu.Unlock()
			return info, nil
		}
	}
	c.cfg.Log.Warn("a file in the affinity cache is not what it was; it is fetched again", "bytes", info.Size(), "want", r.Size)
	if err := remove(data); err != nil {
		return nil, fmt.Errorf("remove the damaged file from the affinity cache: %w", hostless(err))
	}
	return nil, nil
}

// download fetches content into the cache, where it is pinned.
func (c *Cache) download(ctx context.Context, d *Downloader, folder string, t *transfer) (got content, data string, err error) {
	f, err := os.OpenFile(filepath.Join(c.temp, "part-"+random()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return content{}, "", fmt.Errorf("create the file: %w", hostless(err))
	}
	defer func() {
		err = errors.Join(err, ignore(f.Close(), fs.ErrClosed), ignore(hostless(os.Remove(f.Name())), fs.ErrNotExist))
	}()
	t.to = f
	if got, err = d.download(ctx, t); err != nil || got.notModified {
		return got, "", err
	}
	// It is there after a crash of the machine as a whole, or not at all.
	if err := f.Chmod(0o400); err != nil {
		return content{}, "", hostless(err)
	}
	if err := f.Sync(); err != nil {
		return content{}, "", fmt.Errorf("flush the source to the disk: %w", hostless(err))
	}
	info, err := f.Stat()
	if err != nil {
		return content{}, "", hostless(err)
	}
	if err := closed(f); err != nil {
		return content{}, "", err
	}
	data = filepath.Join(folder, got.sha256+dataEnding)
	c.pin(data)
	if err := replace(f.Name(), data); err != nil {
		c.unpin(data)
		return content{}, "", fmt.Errorf("keep the source: %w", linkless(err))
	}
	c.mu.Lock()
	c.verified[data] = stamp{info.Size(), info.ModTime()}
	c.mu.Unlock()
	return got, data, nil
}

// replace renames a file to a name that may be taken by the same content.
func replace(from, to string) error {
	err := os.Rename(from, to)
	if errors.Is(err, fs.ErrPermission) { // of Windows, while somebody reads it
		if _, there := os.Lstat(to); there == nil {
			return nil
		}
	}
	return err
}

func ignore(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}

// write stores a record, whole or not at all. That need not reach the disk at
// once: a record that is lost costs a download.
func (c *Cache) write(place string, r record) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	temporary := filepath.Join(c.temp, "part-"+random())
	if err = os.WriteFile(temporary, raw, 0o600); err == nil {
		err = os.Rename(temporary, place)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("note the source in the affinity cache: %w", hostless(linkless(err))), ignore(hostless(os.Remove(temporary)), fs.ErrNotExist))
	}
	return nil
}

// used notes when a record was used last.
func (c *Cache) used(place string) {
	now := time.Now()
	if err := os.Chtimes(place, now, now); err != nil {
		c.cfg.Log.Debug("cannot note the use of a cached source", "err", err)
	}
}

// Shrink removes everything that is not in use, and reports whether that was
// anything. It is for a disk that is full.
func (c *Cache) Shrink() bool {
	tenants, err := os.ReadDir(c.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.cfg.Log.Error("cannot read the affinity cache", "err", err)
		return false
	}
	freed := false
	for _, t := range tenants {
		freed = c.evict(filepath.Join(c.path, t.Name()), 0) || freed
	}
	return freed
}

// evict removes what was not used for the longest time until the folder is
// within its quota. It reports whether anything went.
func (c *Cache) evict(folder string, quota int64) (freed bool) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		c.cfg.Log.Error("cannot read the affinity cache", "err", err)
		return false
	}
	type held struct {
		size    int64
		records []string
		used    time.Time
	}
	contents := map[string]*held{}
	var total int64
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // another worker was quicker
		}
		if name, isData := strings.CutSuffix(e.Name(), dataEnding); isData {
			// Until there is a record, its own time is when it was used.
			contents[name] = &held{size: info.Size(), used: info.ModTime()}
			total += info.Size()
		}
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), recordEnding) {
			continue
		}
		place := filepath.Join(folder, e.Name())
		var r record
		info, err := e.Info()
		raw, rerr := os.ReadFile(place)
		if err != nil || rerr != nil || json.Unmarshal(raw, &r) != nil || contents[r.SHA256] == nil {
			continue // it is found out, and replaced, when it is next used
		}
		h := contents[r.SHA256]
		h.records = append(h.records, place)
		if info.ModTime().After(h.used) {
			h.used = info.ModTime()
		}
	}
	oldest := make([]string, 0, len(contents))
	for name := range contents {
		oldest = append(oldest, name)
	}
	slices.SortFunc(oldest, func(a, b string) int {
		return cmp.Or(contents[a].used.Compare(contents[b].used), cmp.Compare(a, b))
	})
	for _, name := range oldest {
		if total <= quota {
			break
		}
		h, data := contents[name], filepath.Join(folder, name+dataEnding)
		if !c.removeUnused(data, h.records) {
			continue
		}
		total -= h.size
		freed = true
	}
	return freed
}

// removeUnused removes content and the records that lead to it, unless it is in
// use.
func (c *Cache) removeUnused(data string, records []string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pins[data] > 0 {
		return false
	}
	for _, place := range append(records, data) {
		if err := os.Remove(place); err != nil && !errors.Is(err, fs.ErrNotExist) {
			c.cfg.Log.Error("cannot remove a file from the affinity cache", "err", err)
			return false
		}
	}
	delete(c.verified, data)
	return true
}
