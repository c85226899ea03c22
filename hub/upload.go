package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// Uploads in pieces: a POST of a file that says its Upload-Length and brings
// nothing yet answers with an address, to which PATCH appends, from the
// Upload-Offset that HEAD tells. Methods and headers are those of the tus
// protocol, without its extensions.

const uploadSuffix = ".upload"

// An upload is a file that comes in pieces. ID.upload holds it, ID.part the
// bytes so far.
type upload struct {
	Name    string
	Length  int64
	Created time.Time
	// Stored is set when the file is complete: the last answer may get lost.
	Stored *protocol.StoredFile `json:",omitempty"`

	busy sync.Mutex // held while a piece is written
	size int64
}

// uploads are those that are known, by id; files.mu guards it.
type uploads map[string]*upload

var errOffset = errors.New("another offset")

// recallUpload finds an upload that an earlier hub began. It is called with mu
// held.
func (f *files) recallUpload(id string) error {
	raw, err := f.root.ReadFile(id + uploadSuffix)
	if err != nil {
		return err
	}
	u := &upload{}
	if err := json.Unmarshal(raw, u); err != nil {
		return err
	}
	if u.Stored == nil {
		stat, err := f.root.Stat(id + partSuffix)
		if err != nil {
			return err
		}
		if u.size = stat.Size(); u.size > u.Length {
			return fmt.Errorf("%d bytes of %d", u.size, u.Length)
		}
		f.total += u.size
	}
	f.uploads[id] = u
	return nil
}

func (f *files) note(id string, u *upload) error {
	raw, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return f.root.WriteFile(id+uploadSuffix, raw, 0o600)
}

// begin makes room for a file of so many bytes.
func (f *files) begin(name string, length int64) (string, error) {
	name, err := fileName(name)
	if err != nil {
		return "", err
	}
	if length > f.limits.size {
		return "", beacon.Errorf(beacon.FileLimit, "The file is over the limit of %d bytes.", f.limits.size)
	}
	root, err := f.open()
	if err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total+length > f.limits.total || len(f.uploads) >= mostUploads {
		return "", errNoRoom
	}
	id := newID(idDisk, f.store)
	part, err := root.OpenFile(id+partSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", full(fmt.Errorf("keep a file: %w", err))
	}
	u := &upload{Name: name, Length: length, Created: time.Now()}
	if err := errors.Join(part.Close(), f.note(id, u)); err != nil {
		f.unlink(id + partSuffix)
		return "", full(err)
	}
	f.uploads[id] = u
	return id, nil
}

const mostUploads = 10_000

func (f *files) upload(id string) (*upload, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.uploads[id]
	if u == nil {
		return nil, fs.ErrNotExist
	}
	return u, nil
}

// progress is how much of an upload is there.
func (f *files) progress(u *upload) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if u.Stored != nil {
		return u.Length
	}
	return u.size
}

// add appends a piece. What came of one that broke off stays. The file is nil
// while pieces are missing.
func (f *files) add(ctx context.Context, id string, u *upload, offset int64, in io.Reader) (*protocol.StoredFile, error) {
	if !u.busy.TryLock() {
		return nil, errOffset
	}
	defer u.busy.Unlock()
	if offset != f.progress(u) {
		return nil, errOffset
	}
	if u.Stored != nil {
		return u.Stored, nil
	}
	out, err := f.root.OpenFile(id+partSuffix, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("keep a file: %w", err)
	}
	// What was written and not counted is written again.
	if err := out.Truncate(offset); err != nil {
		return nil, errors.Join(fmt.Errorf("keep a file: %w", err), out.Close())
	}
	metered := &metered{files: f, w: out, size: offset}
	_, err = io.Copy(metered, io.LimitReader(in, u.Length-offset+1))
	if err == nil && metered.size > u.Length {
		err = beacon.Errorf(beacon.Invalid, "More than the %d bytes came that were announced.", u.Length)
	}
	if err == nil {
		err = out.Sync()
	}
	if cerr := out.Close(); err == nil {
		err = cerr
	}
	size := metered.size
	if stat, serr := f.root.Stat(id + partSuffix); serr == nil {
		f.mu.Lock()
		f.total += stat.Size() - size // a write may have been cut short
		size = stat.Size()
		f.mu.Unlock()
	}
	f.mu.Lock()
	u.size = size
	f.mu.Unlock()
	switch {
	case beacon.CodeOf(err) == beacon.Invalid:
		f.abort(id)
		return nil, err
	case err != nil:
		return nil, full(err)
	case size < u.Length:
		return nil, nil
	}
	return f.complete(ctx, id, u)
}

// complete makes a file of an upload.
func (f *files) complete(ctx context.Context, id string, u *upload) (*protocol.StoredFile, error) {
	part, err := f.root.Open(id + partSuffix)
	if err != nil {
		return nil, fmt.Errorf("read a file: %w", err)
	}
	sum := sha256.New()
	_, err = io.Copy(sum, part)
	if cerr := part.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fmt.Errorf("read a file: %w", err)
	}
	file, err := f.finish(ctx, id, fileInfo{u.Name, u.Length, hex.EncodeToString(sum.Sum(nil)), time.Now()})
	if err != nil {
		f.mu.Lock()
		f.forgetUpload(id)
		f.mu.Unlock()
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	u.Stored, u.size = &file, 0
	if err := f.note(id, u); err != nil {
		f.log.Warn("a complete upload cannot be noted", "error", err)
	}
	return &file, nil
}

// abort forgets an upload and what came of it.
func (f *files) abort(id string) {
	f.mu.Lock()
	u := f.uploads[id]
	if u == nil {
		f.mu.Unlock()
		return
	}
	size := u.size
	f.forgetUpload(id)
	done := u.Stored != nil
	f.mu.Unlock()
	if !done {
		f.giveUp(id, size)
	}
}

func (f *files) forgetUpload(id string) {
	delete(f.uploads, id)
	f.unlink(id + uploadSuffix)
}

// sweepUploads forgets uploads that nobody goes on with.
func (f *files) sweepUploads() {
	f.mu.Lock()
	var old []string
	for id, u := range f.uploads {
		if time.Since(u.Created) >= f.limits.age {
			old = append(old, id)
		}
	}
	f.mu.Unlock()
	for _, id := range old {
		f.abort(id)
	}
}

const uploadPath = "/Beacon/Upload/"

// beginUpload answers a POST that announces a file.
func (h *Hub) beginUpload(reply responder, r *http.Request) {
	length, err := strconv.ParseInt(r.Header.Get("Upload-Length"), 10, 64)
	if err != nil || length < 0 {
		reply.error(http.StatusBadRequest, "Upload-Length must be the size of the file in bytes.")
		return
	}
	id, err := h.files.begin(r.URL.Query().Get("name"), length)
	if err != nil {
		reply.notKept(h, r, "", err)
		return
	}
	reply.w.Header().Set("Location", uploadPath+id)
	reply.w.Header().Set("Upload-Offset", "0")
	reply.json(http.StatusCreated, map[string]any{"URL": uploadPath + id, "Offset": 0, "Length": length})
}

// resumed finds the upload that a request is about. When it returns nil the
// request is answered.
func (h *Hub) resumed(reply responder, r *http.Request, id string) *upload {
	if isID(id) && id[0] == idDisk && !h.files.has(storeOf(id)) {
		h.fetch(reply, r, storeOf(id))
		return nil
	}
	u, err := h.files.upload(id)
	if err != nil {
		reply.error(http.StatusNotFound, "There is no such upload, or not any more.")
		return nil
	}
	return u
}

func (h *Hub) uploadProgress(reply responder, r *http.Request, args []string) {
	u := h.resumed(reply, r, args[0])
	if u == nil {
		return
	}
	offset := h.files.progress(u)
	reply.w.Header().Set("Upload-Offset", strconv.FormatInt(offset, 10))
	reply.w.Header().Set("Upload-Length", strconv.FormatInt(u.Length, 10))
	reply.w.Header().Set("Cache-Control", "no-store")
	reply.json(http.StatusOK, map[string]any{"URL": uploadPath + args[0], "Offset": offset, "Length": u.Length})
}

func (h *Hub) uploadPiece(reply responder, r *http.Request, args []string) {
	u := h.resumed(reply, r, args[0])
	if u == nil {
		return
	}
	offset, err := strconv.ParseInt(r.Header.Get("Upload-Offset"), 10, 64)
	if err != nil || offset < 0 {
		reply.error(http.StatusBadRequest, "Upload-Offset must be the number of bytes that are there.")
		return
	}
	body := reply.stream(h, r)
	defer body.done()
	file, err := h.files.add(r.Context(), args[0], u, offset, body)
	reply.w.Header().Set("Upload-Offset", strconv.FormatInt(h.files.progress(u), 10))
	switch {
	case errors.Is(err, errOffset):
		reply.error(http.StatusConflict, "This is not where the upload goes on; HEAD tells its Upload-Offset.")
	case err != nil:
		reply.notKept(h, r, "", err)
	case file == nil:
		reply.json(http.StatusOK, map[string]any{"URL": uploadPath + args[0], "Offset": h.files.progress(u), "Length": u.Length})
	default:
		reply.json(http.StatusOK, file)
	}
}

func (h *Hub) uploadAborted(reply responder, r *http.Request, args []string) {
	if u := h.resumed(reply, r, args[0]); u != nil {
		h.files.abort(args[0])
		reply.json(http.StatusOK, map[string]any{"Success": true})
	}
}
