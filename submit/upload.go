package submit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// pieceSize is how large a file is at least that is uploaded so that a broken
// connection does not lose what has arrived.
const pieceSize = 8 << 20

// Upload hands a file to the server, which keeps it for a while, and returns
// the URL under which beacons find it. file opens it, once for each try;
// sent is told how many bytes are on their way, by one goroutine at a time. A
// large file goes on where it was when the connection broke, if the server can
// do that.
func (c *Client) Upload(ctx context.Context, name string, size int64, file func() (io.ReadCloser, error), sent func(int64)) (string, error) {
	path := "/Beacon/File?name=" + url.QueryEscape(name)
	if size >= pieceSize {
		stored, err := c.uploadInPieces(ctx, path, name, size, file, sent)
		if !errors.Is(err, errOnlyWhole) {
			return c.fileURL(stored, err)
		}
	}
	var body *counting
	defer func() {
		if body != nil {
			_ = body.Close() // it was only read
		}
	}()
	res, err := c.do(ctx, http.MethodPost, path, "application/octet-stream", func() (io.Reader, int64, error) {
		if body != nil {
			_ = body.Close() // of the try before
		}
		opened, err := file()
		if err != nil {
			return nil, 0, err
		}
		body = &counting{file: opened, sent: sent}
		return body, size, nil
	}, nil)
	if failure := body.failed(); failure != nil && err != nil {
		return "", fmt.Errorf("read %s: %w", name, failure)
	}
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	return c.fileURL(c.stored(name, res))
}

// stored reads the answer to an upload.
func (c *Client) stored(name string, res *http.Response) (protocol.StoredFile, error) {
	var stored protocol.StoredFile
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusMethodNotAllowed:
		return stored, beacon.Errorf(beacon.Invalid, "server %s takes no files: put the file where beacons can fetch it and give its address as the setting SourceURL", c.base.Redacted())
	case res.StatusCode != http.StatusOK:
		return stored, fmt.Errorf("upload %s: %w", name, c.refusal("/Beacon/File", res))
	}
	if err := decode(res.Body, &stored); err != nil || !strings.HasPrefix(stored.URL, "/") {
		return stored, beacon.Errorf(beacon.Unreachable, "server %s did not say where it put the file", c.base.Redacted())
	}
	return stored, nil
}

// fileURL is where a file is.
func (c *Client) fileURL(stored protocol.StoredFile, err error) (string, error) {
	if err != nil {
		return "", err
	}
	// Who sees the item sees this address, so it has no password.
	open := *c.base
	open.User = nil
	return strings.TrimSuffix(open.String(), "/") + stored.URL, nil
}

// errOnlyWhole says that the server takes files only in one piece.
var errOnlyWhole = errors.New("files are taken only in one piece")

// Waits between attempts to go on with an upload, and how many of them may fail
// one after the other.
const (
	resumeLeast    = 250 * time.Millisecond
	resumeMost     = 10 * time.Second
	resumeAttempts = 8
)

func (c *Client) uploadInPieces(ctx context.Context, path, name string, size int64, file func() (io.ReadCloser, error), sent func(int64)) (protocol.StoredFile, error) {
	header := http.Header{"Upload-Length": {strconv.FormatInt(size, 10)}}
	res, err := c.do(ctx, http.MethodPost, path, "", nothing, header)
	if err != nil {
		return protocol.StoredFile{}, err
	}
	defer res.Body.Close()
	var begun struct{ URL string }
	if res.StatusCode != http.StatusCreated {
		if res.StatusCode == http.StatusRequestEntityTooLarge || res.StatusCode == http.StatusInsufficientStorage {
			return c.stored(name, res)
		}
		return protocol.StoredFile{}, errOnlyWhole
	}
	if err := decode(res.Body, &begun); err != nil || !strings.HasPrefix(begun.URL, "/") {
		return protocol.StoredFile{}, errOnlyWhole
	}
	offset, failures, pause := int64(0), 0, resumeLeast
	for {
		stored, done, err := c.piece(ctx, begun.URL, name, offset, size, file, sent)
		if done || ctx.Err() != nil {
			return stored, err
		}
		reached, known := c.offset(ctx, begun.URL)
		if failures++; known && reached > offset {
			failures, pause = 0, resumeLeast
		}
		if known {
			offset = reached
		}
		if failures >= resumeAttempts {
			return stored, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return stored, context.Cause(ctx)
		}
		pause = min(2*pause, resumeMost)
	}
}

func nothing() (io.Reader, int64, error) { return http.NoBody, 0, nil }

// piece sends what is missing. It is done when trying again cannot help.
func (c *Client) piece(ctx context.Context, at, name string, offset, size int64, file func() (io.ReadCloser, error), sent func(int64)) (stored protocol.StoredFile, done bool, err error) {
	var body *counting
	defer func() {
		if body != nil {
			_ = body.Close() // it was only read
		}
	}()
	header := http.Header{"Upload-Offset": {strconv.FormatInt(offset, 10)}}
	res, err := c.do(ctx, http.MethodPatch, at, "application/offset+octet-stream", func() (io.Reader, int64, error) {
		if body != nil {
			_ = body.Close()
		}
		opened, err := file()
		if err != nil {
			return nil, 0, err
		}
		body = &counting{file: opened, sent: sent, n: offset}
		if err := skip(opened, offset); err != nil {
			return nil, 0, fmt.Errorf("read %s: %w", name, err)
		}
		return body, size - offset, nil
	}, header)
	if failure := body.failed(); failure != nil && err != nil {
		return stored, true, fmt.Errorf("read %s: %w", name, failure)
	}
	if err != nil {
		return stored, beacon.CodeOf(err) != beacon.Unreachable, err
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusConflict || res.StatusCode >= 500 && res.StatusCode != http.StatusInsufficientStorage {
		return stored, false, fmt.Errorf("upload %s: %w", name, c.refusal("/Beacon/Upload", res))
	}
	stored, err = c.stored(name, res)
	return stored, true, err
}

// skip goes to where a file is to be read on.
func skip(r io.Reader, n int64) error {
	if s, ok := r.(io.Seeker); ok {
		_, err := s.Seek(n, io.SeekStart)
		return err
	}
	_, err := io.CopyN(io.Discard, r, n)
	return err
}

// offset asks how much of an upload has arrived.
func (c *Client) offset(ctx context.Context, at string) (int64, bool) {
	ctx, cancel := c.brief(ctx)
	defer cancel()
	res, err := c.do(ctx, http.MethodHead, at, "", nothing, nil)
	if err != nil {
		return 0, false
	}
	defer res.Body.Close()
	n, err := strconv.ParseInt(res.Header.Get("Upload-Offset"), 10, 64)
	return n, err == nil && res.StatusCode == http.StatusOK
}

// counting is the body of an upload. The HTTP transport may still read it when
// the answer is there; after Close it calls nobody.
type counting struct {
	file io.ReadCloser
	sent func(int64)

	mu     sync.Mutex
	n      int64
	closed bool
	err    error
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.file.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return n, err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		c.err = err
	}
	c.n += int64(n)
	if c.sent != nil {
		c.sent(c.n)
	}
	return n, err
}

func (c *counting) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.file.Close()
}

// failed is why the file could not be read.
func (c *counting) failed() error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
