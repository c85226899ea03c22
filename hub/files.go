package hub

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/object"
	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

const (
	filePath    = "/Beacon/File/"
	partSuffix  = ".part"
	infoSuffix  = ".json"
	storeName   = "store" // holds the name of a folder of files
	longestFile = 200
)

// An id says where a file is: "o" with all hubs, "d" on the disk of the one whose
// folder has the name that follows, "p" what is no file but a part of an item.
// The rest is twice rand.Text, 130 bits each: who knows the URL may read.
const (
	randomLength = 52
	storeLength  = 10
	idShared     = 'o'
	idDisk       = 'd'
	idPayload    = 'p'
)

// files keeps uploads for a while. Small ones are where all hubs find them,
// large ones on the disk: ID holds the bytes, ID.json what is known of them, so
// that a hub with a data directory still has them after a restart.
type files struct {
	log    *slog.Logger
	limits fileLimits
	base   string       // the data directory; empty for a temporary one
	shared object.Store // nil if there is none

	mu      sync.Mutex
	root    *os.Root // nil until needed
	store   string   // the name of the folder
	temp    string   // to be removed by close
	known   map[string]fileInfo
	uploads uploads
	total   int64 // bytes, those of unfinished uploads included
}

type fileLimits struct {
	size, total int64
	share       int64 // up to this size files go where all hubs find them
	age         time.Duration
}

type fileInfo struct {
	Name    string
	Size    int64
	SHA256  string
	Created time.Time
}

var (
	errNoRoom   = errors.New("the hub has no room for the file")
	errStopping = errors.New("the hub is shutting down")
)

func newFiles(log *slog.Logger, dataDir string, shared object.Store, limits fileLimits) *files {
	f := &files{log: log, limits: limits, base: dataDir, shared: shared, known: map[string]fileInfo{}, uploads: uploads{}}
	if dataDir != "" {
		if _, err := f.open(); err != nil {
			log.Error("files cannot be kept", "error", err)
		}
	}
	return f
}

// open makes the directory on first use and finds what an earlier hub left.
func (f *files) open() (*os.Root, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.root != nil {
		return f.root, nil
	}
	dir := filepath.Join(f.base, "files")
	if f.base == "" {
		temp, err := os.MkdirTemp("", "beacon-hub-")
		if err != nil {
			return nil, fmt.Errorf("make a directory for files: %w", err)
		}
		f.temp, dir = temp, temp
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make a directory for files: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open the directory for files: %w", err)
	}
	if f.store, err = nameOf(root); err != nil {
		return nil, errors.Join(fmt.Errorf("open the directory for files: %w", err), root.Close())
	}
	f.root = root
	f.find()
	return root, nil
}

// nameOf is the name of a folder of files, a new one if it has none.
func nameOf(root *os.Root) (string, error) {
	raw, err := root.ReadFile(storeName)
	if name := strings.TrimSpace(string(raw)); err == nil && storePattern.MatchString(name) {
		return name, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	name := strings.ToLower(rand.Text()[:storeLength])
	return name, root.WriteFile(storeName, []byte(name+"\n"), 0o600)
}

var (
	storePattern = regexp.MustCompile(`^[a-z2-7]{10}$`)
	idPattern    = regexp.MustCompile(`^(?:[op]|d[a-z2-7]{10})[a-z2-7]{52}$`)
	// urlPattern finds addresses of files in JSON.
	urlPattern = regexp.MustCompile(`(?:https?://[^"\\\s]*?)?/Beacon/File/((?:o|d[a-z2-7]{10})[a-z2-7]{52})/([^"\\\s?#]+)(\?[^"\\\s#]*)?`)
)

func isID(id string) bool { return idPattern.MatchString(id) }

// storeOf is the name of the folder that an id says the file is in; empty if it
// is in none.
func storeOf(id string) string {
	if id[0] != idDisk {
		return ""
	}
	return id[1 : 1+storeLength]
}

func newID(kind byte, store string) string {
	return string(kind) + store + strings.ToLower(rand.Text()+rand.Text())
}

// find reads the directory. What an interrupted upload left is removed; what is
// not the hub's is left alone.
func (f *files) find() {
	dir, err := f.root.Open(".")
	if err != nil {
		f.log.Error("files of an earlier hub cannot be found", "error", err)
		return
	}
	defer func() { _ = dir.Close() }()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		f.log.Error("files of an earlier hub cannot be found", "error", err)
	}
	for _, entry := range entries {
		id, isUpload := strings.CutSuffix(entry.Name(), uploadSuffix)
		if isUpload && isID(id) {
			if err := f.recallUpload(id); err != nil {
				f.log.Warn("an upload that an earlier hub began is unusable and removed", "file", id, "error", err)
				f.unlink(id + uploadSuffix)
			}
			continue
		}
		id, isInfo := strings.CutSuffix(entry.Name(), infoSuffix)
		if !isInfo || !isID(id) {
			continue
		}
		info, err := f.recall(id)
		if err != nil {
			f.log.Warn("file of an earlier hub is unusable and removed", "file", id, "error", err)
			f.unlink(id)
			f.unlink(id + infoSuffix)
			continue
		}
		f.known[id] = info
		f.total += info.Size
	}
	for _, entry := range entries { // what was broken off, and is nobody's to go on with
		if id, isPart := strings.CutSuffix(entry.Name(), partSuffix); isPart && isID(id) && f.uploads[id] == nil {
			f.unlink(entry.Name())
		}
	}
}

func (f *files) recall(id string) (fileInfo, error) {
	var info fileInfo
	raw, err := f.root.ReadFile(id + infoSuffix)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(raw, &info); err != nil {
		return info, err
	}
	stat, err := f.root.Stat(id)
	if err != nil {
		return info, err
	}
	if stat.Size() != info.Size {
		return info, fmt.Errorf("%d bytes instead of %d", stat.Size(), info.Size)
	}
	return info, nil
}

// save keeps what comes from in, under a name that is for people only.
func (f *files) save(ctx context.Context, name string, in io.Reader) (protocol.StoredFile, error) {
	name, err := fileName(name)
	if err != nil {
		return protocol.StoredFile{}, err
	}
	root, err := f.open()
	if err != nil {
		return protocol.StoredFile{}, err
	}
	id := newID(idDisk, f.store)
	out, err := root.OpenFile(id+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return protocol.StoredFile{}, full(fmt.Errorf("keep a file: %w", err))
	}
	sum := sha256.New()
	metered := &metered{files: f, w: out}
	_, err = io.Copy(io.MultiWriter(metered, sum), in)
	if err == nil {
		err = out.Sync()
	}
	if closing := out.Close(); err == nil {
		err = closing
	}
	if err != nil {
		f.giveUp(id, metered.size)
		return protocol.StoredFile{}, full(err)
	}
	return f.finish(ctx, id, fileInfo{name, metered.size, hex.EncodeToString(sum.Sum(nil)), time.Now()})
}

// giveUp forgets an upload of which so many bytes were counted.
func (f *files) giveUp(id string, size int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total -= size
	f.unlink(id + partSuffix)
	f.unlink(id + infoSuffix)
}

// finish makes a file of an upload that is there in full: a small one goes where
// all hubs find it.
func (f *files) finish(ctx context.Context, id string, info fileInfo) (protocol.StoredFile, error) {
	if f.shared != nil && info.Size <= f.limits.share {
		shared, err := f.share(ctx, id, info)
		f.giveUp(id, info.Size)
		return shared, full(err)
	}
	raw, err := json.Marshal(info)
	if err == nil {
		err = f.root.WriteFile(id+infoSuffix, raw, 0o600)
	}
	if err == nil {
		err = f.root.Rename(id+partSuffix, id)
	}
	if err != nil {
		f.giveUp(id, info.Size)
		return protocol.StoredFile{}, full(err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[id] = info
	return stored(id, info), nil
}

func (f *files) share(ctx context.Context, id string, info fileInfo) (protocol.StoredFile, error) {
	part, err := f.root.Open(id + partSuffix)
	if err != nil {
		return protocol.StoredFile{}, err
	}
	defer part.Close()
	shared := newID(idShared, "")
	err = f.shared.Put(ctx, object.Info{ID: shared, Name: info.Name, Size: info.Size, SHA256: info.SHA256, Created: info.Created}, part)
	if err != nil {
		return protocol.StoredFile{}, err
	}
	return stored(shared, info), nil
}

func stored(id string, info fileInfo) protocol.StoredFile {
	return protocol.StoredFile{Name: info.Name, URL: filePath + id + "/" + url.PathEscape(info.Name), Size: info.Size, SHA256: info.SHA256}
}

// fileID is the id in the address of a file; empty if it is none.
func fileID(address string) string {
	found := urlPattern.FindStringSubmatch(address)
	if found == nil {
		return ""
	}
	return found[1]
}

// spill keeps a part of an item that is too large for the journal.
func (f *files) spill(ctx context.Context, data []byte) (string, error) {
	id := newID(idPayload, "")
	sum := sha256.Sum256(data)
	info := object.Info{ID: id, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Created: time.Now()}
	return id, full(f.shared.Put(ctx, info, bytes.NewReader(data)))
}

// spilled is what spill has kept.
func (f *files) spilled(ctx context.Context, id string) ([]byte, error) {
	if f.shared == nil {
		return nil, fmt.Errorf("read a part of an item: %w", fs.ErrNotExist)
	}
	r, info, err := f.shared.Open(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("read a part of an item: %w", err)
	}
	defer func() { _ = r.Close() }()
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("read a part of an item: %w", err)
	}
	return data, nil
}

// full says so when it was the disk that ended a write.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, journal.ErrFull) {
		return errors.Join(errNoRoom, err)
	}
	return err
}

// metered counts what is written against the limits before it is written.
type metered struct {
	files *files
	w     io.Writer
	size  int64
}

func (m *metered) Write(p []byte) (int, error) {
	limits := m.files.limits
	if m.size+int64(len(p)) > limits.size {
		return 0, beacon.Errorf(beacon.FileLimit, "The file is over the limit of %d bytes.", limits.size)
	}
	m.files.mu.Lock()
	if m.files.total+int64(len(p)) > limits.total {
		m.files.mu.Unlock()
		return 0, errNoRoom
	}
	m.files.total += int64(len(p))
	m.files.mu.Unlock()
	m.size += int64(len(p))
	return m.w.Write(p)
}

// fileName accepts what can be a plain file name on any system.
func fileName(name string) (string, error) {
	if name == "" {
		return "file", nil
	}
	switch {
	case len(name) > longestFile:
		return "", beacon.Errorf(beacon.Invalid, "The file name is %d bytes long: at most %d are allowed.", len(name), longestFile)
	case !utf8.ValidString(name) || name != beacon.Excerpt(name, longestFile):
		return "", beacon.Errorf(beacon.Invalid, "The file name holds characters that are not printable.")
	case name == "." || name == ".." || strings.ContainsAny(name, `/\:`):
		return "", beacon.Errorf(beacon.Invalid, "The file name %q is a path: a plain name is wanted.", name)
	}
	return name, nil
}

// get opens a file that is with all hubs, or on the disk of this one.
func (f *files) get(ctx context.Context, id, name string) (io.ReadSeekCloser, fileInfo, error) {
	if id[0] == idShared && f.shared != nil {
		r, found, err := f.shared.Open(ctx, id)
		if err != nil {
			return nil, fileInfo{}, err
		}
		info := fileInfo{found.Name, found.Size, found.SHA256, found.Created}
		if info.Name != name {
			return nil, info, errors.Join(fs.ErrNotExist, r.Close())
		}
		return r, info, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	info, ok := f.known[id]
	if !ok || info.Name != name {
		return nil, info, fs.ErrNotExist
	}
	file, err := f.root.Open(id)
	return file, info, err
}

// remove drops a file that nobody knows of yet.
func (f *files) remove(ctx context.Context, id string) {
	if id[0] != idDisk {
		if err := f.shared.Delete(ctx, id); err != nil && !errors.Is(err, fs.ErrNotExist) {
			f.log.Warn("file cannot be removed", "file", id, "error", err)
		}
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop(id)
}

// drop removes a file. One that cannot be removed now, since somebody reads it
// on a system that minds, is tried again.
func (f *files) drop(id string) {
	info, ok := f.known[id]
	if !ok || !f.unlink(id) {
		return
	}
	f.unlink(id + infoSuffix)
	f.total -= info.Size
	delete(f.known, id)
}

func (f *files) unlink(name string) bool {
	err := f.root.Remove(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		f.log.Warn("file cannot be removed", "error", err)
		return false
	}
	return true
}

// payloadAge is how old a part of an item is at least that no item needs: it may
// be on its way into the journal.
const payloadAge = time.Hour

// sweep removes what has expired and no item needs any more.
func (f *files) sweep(ctx context.Context, needed func(id string) bool) {
	f.mu.Lock()
	for id, info := range f.known {
		if time.Since(info.Created) >= f.limits.age && !needed(id) {
			f.drop(id)
		}
	}
	f.mu.Unlock()
	f.sweepUploads()
	if f.shared == nil {
		return
	}
	all, err := f.shared.List(ctx)
	if err != nil {
		f.log.Warn("files cannot be swept", "error", err)
		return
	}
	for _, info := range all {
		age := f.limits.age
		if info.ID != "" && info.ID[0] == idPayload {
			age = payloadAge
		}
		if time.Since(info.Created) >= age && isID(info.ID) && !needed(info.ID) {
			f.remove(ctx, info.ID)
		}
	}
	if err := f.shared.Sweep(ctx); err != nil {
		f.log.Warn("files cannot be swept", "error", err)
	}
}

// signature is what makes an address of a file good until a moment.
func signature(secret []byte, id, name string, expires int64) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "file\n%s\n%s\n%d", id, name, expires)
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// signed reports whether a request for a file brings a signature that is right,
// and until when it was good.
func signed(secret []byte, id, name string, query url.Values) (time.Time, bool) {
	expires, err := strconv.ParseInt(query.Get("e"), 10, 64)
	if err != nil || len(secret) == 0 {
		return time.Time{}, false
	}
	return time.Unix(expires, 0), hmac.Equal([]byte(query.Get("s")), []byte(signature(secret, id, name, expires)))
}

// validity is the least time that an address is good for, beside what the item
// may take, and the step by which it is rounded up: the same file has the same
// address for that long, which is what caches of workers go by.
const (
	validity     = time.Hour
	validityStep = 24 * time.Hour
)

// addresses rewrites the addresses of files in settings to ones that are good
// for whoever has them, for long enough, by way of base.
func addresses(settings []byte, secret []byte, base string, now time.Time, timeoutMs float64) []byte {
	if !bytes.Contains(settings, []byte(filePath)) || base == "" {
		return settings
	}
	expires := now.Add(validity + milliseconds(timeoutMs)).Truncate(validityStep).Add(validityStep).Unix()
	return urlPattern.ReplaceAllFunc(settings, func(found []byte) []byte {
		parts := urlPattern.FindSubmatch(found)
		id, escaped := string(parts[1]), string(parts[2])
		name, err := url.PathUnescape(escaped)
		if err != nil {
			return found
		}
		return fmt.Appendf(nil, "%s%s%s/%s?e=%d&s=%s", base, filePath, id, escaped, expires, signature(secret, id, name, expires))
	})
}

// filesIn lists the files that settings name.
func filesIn(settings []byte) []string {
	var ids []string
	for _, found := range urlPattern.FindAllSubmatch(settings, 1000) {
		ids = append(ids, string(found[1]))
	}
	return ids
}

func (f *files) close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.root == nil {
		return nil
	}
	err := f.root.Close()
	if f.temp != "" {
		err = errors.Join(err, os.RemoveAll(f.temp))
	}
	return err
}

func (h *Hub) upload(reply responder, r *http.Request, _ []string) {
	if r.Header.Get("Upload-Length") != "" {
		h.beginUpload(reply, r)
		return
	}
	body := reply.stream(h, r)
	defer body.done()
	file, err := h.files.save(r.Context(), r.URL.Query().Get("name"), body)
	if err != nil {
		reply.notKept(h, r, "", err)
		return
	}
	reply.json(http.StatusOK, file)
}

// notKept answers an upload that failed.
func (p responder) notKept(h *Hub, r *http.Request, hash string, err error) {
	switch code := beacon.CodeOf(err); {
	case errors.Is(err, errNoRoom):
		p.error(http.StatusInsufficientStorage, "The hub has no room for the file. Try again when older files have expired.")
	case code == beacon.FileLimit:
		p.error(http.StatusRequestEntityTooLarge, err.Error())
	case code == beacon.Invalid:
		p.error(http.StatusBadRequest, err.Error())
	case errors.Is(err, errStopping):
		p.error(http.StatusServiceUnavailable, closingText)
	case errors.Is(err, pace.ErrSlow):
		p.slow(r)
	case errors.Is(err, errBody):
		p.error(http.StatusBadRequest, "The file did not arrive in full.")
	default:
		if text, known := refusal(hash, err); known {
			p.error(http.StatusBadRequest, text)
			return
		}
		h.log.Error("file not kept", "error", err)
		p.error(http.StatusInternalServerError, "The file cannot be kept now.")
	}
}

func (h *Hub) download(reply responder, r *http.Request, args []string) {
	id, name := args[0], args[1]
	if !isID(id) || id[0] == idPayload {
		reply.error(http.StatusNotFound, "There is no such file, or not any more.")
		return
	}
	query := r.URL.Query()
	if query.Has("s") {
		switch until, right := signed(h.core.secret(), id, name, query); {
		case !right:
			reply.error(http.StatusForbidden, "This address of a file was changed, or is another hub's.")
			return
		case !time.Now().Before(until):
			reply.error(http.StatusGone, "This address of a file has expired: it was good until "+until.UTC().Format(time.RFC3339)+". Hand the work item in again for a new one.")
			return
		}
	} else if _, known := h.identify(r); !known {
		reply.unauthorized()
		return
	}
	if store := storeOf(id); store != "" && !h.files.has(store) {
		h.fetch(reply, r, store)
		return
	}
	file, info, err := h.files.get(r.Context(), id, name)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.log.Error("file not read", "error", err)
		}
		reply.error(http.StatusNotFound, "There is no such file, or not any more.")
		return
	}
	defer func() { _ = file.Close() }()
	header := reply.w.Header()
	header.Set("Content-Type", "application/octet-stream")
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": info.Name}))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("ETag", `"`+info.SHA256+`"`)
	out := &steady{responder: reply, ctx: h.ctx}
	unhook := context.AfterFunc(h.ctx, func() { _ = reply.control.SetWriteDeadline(time.Unix(1, 0)) })
	defer unhook()
	http.ServeContent(out, r, "", info.Created, file)
}

// A steady writer gives up on a reader who is too slow, and when the hub closes.
type steady struct {
	responder
	ctx   context.Context //nolint:containedctx // lives as long as one download
	began time.Time       // the first part
	bytes int64
}

func (s *steady) Header() http.Header    { return s.w.Header() }
func (s *steady) WriteHeader(status int) { s.w.WriteHeader(status) }

func (s *steady) Write(p []byte) (int, error) {
	if s.began.IsZero() {
		s.began = time.Now()
	}
	s.bytes += int64(len(p))
	_ = s.control.SetWriteDeadline(s.began.Add(pace.Time(s.bytes)))
	if s.ctx.Err() != nil { // after setting the deadline, which the end of ctx sets too
		return 0, errStopping
	}
	n, err := s.w.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) && s.ctx.Err() == nil {
		s.log.Warn("a client reads a file too slowly and is cut off", "bytes", s.bytes, "since", time.Since(s.began))
	}
	return n, err
}

// errBody marks a body that broke off.
var errBody = errors.New("the body broke off")

// A stream is a body of any length, which ends when the hub closes.
type stream struct {
	ctx  context.Context //nolint:containedctx // lives as long as one upload
	body io.Reader
	done func() bool
}

func (p responder) stream(h *Hub, r *http.Request) *stream {
	return &stream{h.ctx, r.Body, context.AfterFunc(h.ctx, func() { _ = p.control.SetReadDeadline(time.Unix(1, 0)) })}
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	switch {
	case err == nil || errors.Is(err, io.EOF):
	case s.ctx.Err() != nil:
		err = errStopping
	default:
		err = errors.Join(errBody, err)
	}
	return n, err
}

// name is that of the folder of files, empty while there is none.
func (f *files) name() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.store
}

// has reports whether files of a folder of that name would be here.
func (f *files) has(store string) bool { return f.name() == store }

// hopHeader marks requests that another hub has passed on.
const hopHeader = "X-Beacon-Hub"

// fetch passes a request for what is on another hub's disk on to that hub.
func (h *Hub) fetch(reply responder, r *http.Request, store string) {
	var target *url.URL
	h.core.mu.RLock()
	for _, other := range h.core.ledger.Hubs() {
		if other.Files == store {
			target, _ = url.Parse(other.URL)
		}
	}
	h.core.mu.RUnlock()
	if target == nil || target.Host == "" || r.Header.Get(hopHeader) != "" {
		reply.error(http.StatusNotFound, "There is no such file, or the hub that has it is not there.")
		return
	}
	proxy := httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = target.Host
			p.Out.Header.Set(hopHeader, "1")
			p.Out.Header.Del("Origin")
		},
		Transport: h.between,
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			h.log.Warn("a file of another hub cannot be fetched", "hub", target.Host, "error", err)
			reply.error(http.StatusBadGateway, "The hub that has this file does not answer.")
		},
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
	}
	proxy.ServeHTTP(&steady{responder: reply, ctx: h.ctx}, r)
}

// baseOf is how a caller addresses this hub.
func (h *Hub) baseOf(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host
}
