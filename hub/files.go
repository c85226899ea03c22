package hub

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

const (
	filePath    = "/Beacon/File/"
	partSuffix  = ".part"
	infoSuffix  = ".json"
	idLength    = 52 // twice rand.Text, 130 bits each: who knows the URL may read
	longestFile = 200
)

// files keeps uploads for a while: ID holds the bytes, ID.json what is known of
// them, so that a hub with a data directory still has them after a restart.
type files struct {
	log    *slog.Logger
	limits fileLimits
	base   string // the data directory; empty for a temporary one

	mu    sync.Mutex
	root  *os.Root // nil until needed
	temp  string   // to be removed by close
	known map[string]fileInfo
	total int64 // bytes, those of unfinished uploads included
}

type fileLimits struct {
	size, total int64
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

func newFiles(log *slog.Logger, dataDir string, limits fileLimits) *files {
	f := &files{log: log, limits: limits, base: dataDir, known: map[string]fileInfo{}}
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
	f.root = root
	f.find()
	return root, nil
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
		id, isPart := strings.CutSuffix(entry.Name(), partSuffix)
		if isPart && isID(id) {
			f.unlink(entry.Name())
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

func isID(id string) bool {
	if len(id) != idLength {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}

// save keeps what comes from in, under a name that is for people only.
func (f *files) save(name string, in io.Reader) (protocol.StoredFile, error) {
	name, err := fileName(name)
	if err != nil {
		return protocol.StoredFile{}, err
	}
	root, err := f.open()
	if err != nil {
		return protocol.StoredFile{}, err
	}
	id := strings.ToLower(rand.Text() + rand.Text())
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
	info := fileInfo{name, metered.size, hex.EncodeToString(sum.Sum(nil)), time.Now()}
	if err == nil {
		var raw []byte
		if raw, err = json.Marshal(info); err == nil {
			err = root.WriteFile(id+infoSuffix, raw, 0o600)
		}
	}
	if err == nil {
		err = root.Rename(id+partSuffix, id)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.total -= metered.size
		f.unlink(id + partSuffix)
		f.unlink(id + infoSuffix)
		return protocol.StoredFile{}, full(err)
	}
	f.known[id] = info
	return protocol.StoredFile{Name: name, URL: filePath + id + "/" + url.PathEscape(name), Size: info.Size, SHA256: info.SHA256}, nil
}

// full says so when it was the disk that ended a write.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
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

func (f *files) get(id, name string) (*os.File, fileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, ok := f.known[id]
	if !ok || info.Name != name || time.Since(info.Created) >= f.limits.age {
		return nil, info, os.ErrNotExist
	}
	file, err := f.root.Open(id)
	return file, info, err
}

func (f *files) remove(file protocol.StoredFile) {
	id, _, _ := strings.Cut(strings.TrimPrefix(file.URL, filePath), "/")
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

// sweep removes what has expired.
func (f *files) sweep() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, info := range f.known {
		if time.Since(info.Created) >= f.limits.age {
			f.drop(id)
		}
	}
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
	body := reply.stream(h, r)
	defer body.done()
	file, err := h.files.save(r.URL.Query().Get("name"), body)
	if err != nil {
		reply.notKept(h, "", err)
		return
	}
	reply.json(http.StatusOK, file)
}

// notKept answers an upload that failed.
func (p responder) notKept(h *Hub, hash string, err error) {
	switch code := beacon.CodeOf(err); {
	case errors.Is(err, errNoRoom):
		p.error(http.StatusInsufficientStorage, "The hub has no room for the file. Try again when older files have expired.")
	case code == beacon.FileLimit:
		p.error(http.StatusRequestEntityTooLarge, err.Error())
	case code == beacon.Invalid:
		p.error(http.StatusBadRequest, err.Error())
	case errors.Is(err, errStopping):
		p.error(http.StatusServiceUnavailable, closingText)
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
	file, info, err := h.files.get(args[0], args[1])
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
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

// A steady writer gives up on a reader who takes nothing for a while, and when
// the hub closes.
type steady struct {
	responder
	ctx context.Context //nolint:containedctx // lives as long as one download
}

func (s *steady) Header() http.Header    { return s.w.Header() }
func (s *steady) WriteHeader(status int) { s.w.WriteHeader(status) }

func (s *steady) Write(p []byte) (int, error) {
	s.limit(sendTimeout)
	if s.ctx.Err() != nil { // after setting the deadline, which the end of ctx sets too
		return 0, errStopping
	}
	return s.w.Write(p)
}

// errBody marks a body that broke off.
var errBody = errors.New("the body broke off")

// A stream is a body of any length: each part of it has to come in time.
type stream struct {
	responder
	ctx    context.Context //nolint:containedctx // lives as long as one upload
	body   io.Reader
	unhook func() bool
}

func (p responder) stream(h *Hub, r *http.Request) *stream {
	return &stream{p, h.ctx, r.Body, context.AfterFunc(h.ctx, func() { _ = p.control.SetReadDeadline(time.Unix(1, 0)) })}
}

func (s *stream) Read(p []byte) (int, error) {
	s.patience(bodyTimeout)
	if s.ctx.Err() != nil {
		return 0, errStopping
	}
	n, err := s.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = errors.Join(errBody, err)
	}
	return n, err
}

func (s *stream) done() {
	s.unhook()
	s.patience(0)
}
