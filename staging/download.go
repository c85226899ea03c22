package staging

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
)

// Defaults of DownloadConfig.
const (
	DefaultMaxDownload = 16 << 30
	DefaultAttempts    = 5
	DefaultBackoff     = 500 * time.Millisecond
)

// DownloadConfig has what a downloader may do. The zero value works.
type DownloadConfig struct {
	// MaxBytes bounds a source; 0 means 16 GiB.
	MaxBytes int64
	// Policy says what a tenant's sources may be fetched from; nil means
	// DefaultPolicy. It is asked once for each tenant.
	Policy func(tenant string) egress.Policy
	// AllowFiles are folders whose files may be named by file: URLs, by anybody
	// who submits items; there are none by default.
	AllowFiles []string
	// Attempts is how often in a row a download may fail, for reasons that go
	// away by themselves, without one byte of progress; 0 means 5. Backoff is the
	// first wait between two, which then doubles; 0 means half a second.
	Attempts int
	Backoff  time.Duration
	// Cache keeps what items with an affinity key have fetched; nil keeps nothing.
	Cache *Cache
	// RateWindow, TLS, Servers and Resolver are as of egress.Config.
	RateWindow time.Duration
	TLS        *tls.Config
	Servers    map[string]*tls.Config
	Resolver   *net.Resolver
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// A Downloader brings sources. Link-local addresses, where clouds keep their
// credentials, are refused whatever the configuration. It is safe for concurrent
// use; close it with CloseIdle.
type Downloader struct {
	cfg DownloadConfig

	mu      sync.Mutex
	clients map[string]*egress.Client // by tenant
}

// NewDownloader makes a downloader.
func NewDownloader(cfg DownloadConfig) *Downloader {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = DefaultMaxDownload
	}
	if cfg.Policy == nil {
		cfg.Policy = DefaultPolicy
	}
	if cfg.Attempts <= 0 {
		cfg.Attempts = DefaultAttempts
	}
	if cfg.Backoff <= 0 {
		cfg.Backoff = DefaultBackoff
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	return &Downloader{cfg: cfg, clients: map[string]*egress.Client{}}
}

// CloseIdle frees connections that are kept for reuse.
func (d *Downloader) CloseIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.clients {
		c.CloseIdle()
	}
}

// client is a tenant's own: connections are never shared between tenants.
func (d *Downloader) client(tenant string) *egress.Client {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.clients[tenant]
	if c == nil {
		const many = 256
		if len(d.clients) >= many { // tenants that are not listed can be any number
			for _, other := range d.clients {
				other.CloseIdle()
			}
			clear(d.clients)
		}
		c = egress.New(egress.Config{
			Policy: d.cfg.Policy(tenant), MaxBody: d.cfg.MaxBytes, Decode: true,
			RateWindow: d.cfg.RateWindow, TLS: d.cfg.TLS, Servers: d.cfg.Servers, Resolver: d.cfg.Resolver,
		})
		d.clients[tenant] = c
	}
	return c
}

// A Report is told how many bytes there are, and of how many, or -1.
type Report func(done, total int64)

// Fetch brings a source into the directory under name, which appears when all
// of it is there and verified. An interrupted download goes on where it stopped
// if the server can do that and says that the content is still the same.
// Errors of the policy have code beacon.Denied, those of a limit
// beacon.FileLimit; none holds what may be secret in a URL, or a path.
func (d *Downloader) Fetch(ctx context.Context, dir *Dir, name string, src Source, report Report) (Fetched, error) {
	got, err := d.fetch(ctx, dir, name, src, report)
	if isFull(err) && d.cfg.Cache != nil && d.cfg.Cache.Shrink() {
		got, err = d.fetch(ctx, dir, name, src, report)
	}
	if err != nil {
		return Fetched{}, spaceless(err)
	}
	return got, nil
}

func (d *Downloader) fetch(ctx context.Context, dir *Dir, name string, src Source, report Report) (Fetched, error) {
	if src.SHA256 != "" {
		if err := CheckSHA256("SHA256", src.SHA256); err != nil {
			return Fetched{}, err
		}
		src.SHA256 = strings.ToLower(src.SHA256)
	}
	if src.Tenant == "" {
		src.Tenant = beacon.DefaultTenant
	}
	u, err := url.Parse(src.URL)
	if err != nil {
		return Fetched{}, beacon.Errorf(beacon.Invalid, "SourceURL is not a URL")
	}
	if u.Scheme == "file" && len(d.cfg.AllowFiles) > 0 {
		return d.copyLocal(ctx, dir, name, u, src)
	}
	if err := d.client(src.Tenant).Check(http.MethodGet, u); err != nil {
		return Fetched{}, err
	}
	if src.AffinityKey != "" && d.cfg.Cache != nil {
		return d.cfg.Cache.fetch(ctx, d, dir, name, src, report)
	}
	// The content goes to another name first: what a provider finds is whole.
	temporary := temporaryName(name)
	f, err := dir.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return Fetched{}, fmt.Errorf("create the file: %w", hostless(err))
	}
	defer f.Close()
	got, err := d.download(ctx, &transfer{src: src, name: name, to: f, report: report, limit: d.cfg.MaxBytes})
	if err == nil {
		// Not flushed: the directory goes with the worker, so nobody reads this
		// file after a crash.
		if err = closed(f); err == nil {
			if err = hostless(linkless(dir.Rename(temporary, name))); err != nil {
				err = fmt.Errorf("name the file: %w", err)
			}
		}
	}
	if err != nil {
		return Fetched{}, errors.Join(err, ignore(f.Close(), fs.ErrClosed), hostless(dir.Remove(temporary)))
	}
	return Fetched{Size: got.size}, nil
}

func closed(f *os.File) error { return hostless(f.Close()) }

func temporaryName(name string) string {
	const part = ".part"
	if len(name)+len(part) > 255 {
		return part
	}
	return name + part
}

func (d *Downloader) copyLocal(ctx context.Context, dir *Dir, name string, u *url.URL, src Source) (Fetched, error) {
	folder, file, err := localPath(u, d.cfg.AllowFiles)
	if err != nil {
		return Fetched{}, err
	}
	root, err := os.OpenRoot(folder)
	if err != nil {
		return Fetched{}, fmt.Errorf("open the folder of the source: %w", hostless(err))
	}
	defer root.Close() //nolint:errcheck // it was only read
	f, err := root.OpenFile(file, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return Fetched{}, fmt.Errorf("open the source: %w", hostless(err))
	}
	defer f.Close()
	return importFile(ctx, dir, name, f, d.cfg.MaxBytes, src.SHA256)
}

// Take copies a file of this machine into the directory under name, within the
// limit of sources, and checks its digest, if there is one.
func (d *Downloader) Take(ctx context.Context, dir *Dir, name string, file *os.File, sha256 string) (Fetched, error) {
	got, err := importFile(ctx, dir, name, file, d.cfg.MaxBytes, strings.ToLower(sha256))
	if err != nil {
		return Fetched{}, spaceless(err)
	}
	return got, nil
}

// importFile copies a file of this machine, and looks at what it copied.
func importFile(ctx context.Context, dir *Dir, name string, f *os.File, limit int64, digest string) (Fetched, error) {
	info, err := f.Stat()
	if err != nil {
		return Fetched{}, hostless(err)
	}
	if !info.Mode().IsRegular() {
		return Fetched{}, beacon.Errorf(beacon.Denied, "the source is not a regular file")
	}
	if info.Size() > limit {
		return Fetched{}, beacon.Errorf(beacon.FileLimit, "source of %d bytes, limit %d", info.Size(), limit)
	}
	if err := dir.Import(ctx, name, f); err != nil {
		return Fetched{}, err
	}
	if digest != "" {
		copied, err := dir.Open(name)
		if err != nil {
			return Fetched{}, hostless(err)
		}
		defer copied.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, copied); err != nil {
			return Fetched{}, hostless(err)
		}
		if err := verify(sum, digest); err != nil {
			return Fetched{}, errors.Join(err, hostless(dir.Remove(name)))
		}
	}
	return Fetched{Size: info.Size()}, nil
}

func verify(sum hash.Hash, want string) error {
	if got := hex.EncodeToString(sum.Sum(nil)); got != want {
		return beacon.Errorf(beacon.Failed, "the source has SHA-256 %s instead of %s", got, want)
	}
	return nil
}

// A transfer is one download, over as many requests as it takes.
type transfer struct {
	src    Source
	name   string // of the file, whose ending says what is expected
	to     *os.File
	limit  int64
	report Report
	// known is what a cache has: the server may say that it is still right.
	known validators
	// hashed has the digest computed even if nobody checks it.
	hashed bool

	got  content
	sum  hash.Hash // of what is written so far; nil if nobody wants it
	done int64     // bytes written
	told int64
	// What the first answer said of the content, which a later part must match.
	total int64 // -1 if unknown
	plain bool  // bytes are written as they come, so a range can go on
	pure  bool  // all of it came in one answer
}

// validators tell versions of a resource apart.
type validators struct{ ETag, LastModified string }

// content is what a server answered.
type content struct {
	validators
	date        string
	size        int64
	sha256      string
	notModified bool
}

// download runs the requests of a transfer until the whole content is written.
func (d *Downloader) download(ctx context.Context, t *transfer) (content, error) {
	failures, furthest := 0, int64(0)
	for {
		err := d.request(ctx, t)
		if err == nil {
			if t.got.notModified {
				return t.got, nil
			}
			if err = t.finish(); err == nil {
				return t.got, nil
			}
			if t.pure {
				return content{}, d.failed(ctx, t, err)
			}
			// Parts that do not belong together: once more, in one piece.
			t.got.validators = validators{}
			err = &retryError{err}
		}
		if t.done > furthest {
			failures, furthest = 0, t.done
		}
		failures++
		wait, temporary := retryAfter(err, d.cfg.Backoff<<min(failures-1, 10))
		if !temporary || failures >= d.cfg.Attempts || ctx.Err() != nil {
			return content{}, d.failed(ctx, t, err)
		}
		d.cfg.Log.Info("a download is interrupted; trying again", "url", Redact(t.src.URL), "err", err, "after", t.done, "in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return content{}, context.Cause(ctx)
		}
	}
}

// request makes one request and writes what it brings.
func (d *Downloader) request(ctx context.Context, t *transfer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, t.src.URL, nil)
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "SourceURL is not a URL")
	}
	req.Header.Set("Accept-Encoding", "identity") // or else there are no ranges
	condition := ifRange(t.got)
	resuming := t.done > 0 && t.plain && condition != ""
	switch {
	case resuming:
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", t.done))
		req.Header.Set("If-Range", condition)
	case t.known.ETag != "":
		req.Header.Set("If-None-Match", t.known.ETag)
	case t.known.LastModified != "":
		req.Header.Set("If-Modified-Since", t.known.LastModified)
	}
	res, err := d.client(t.src.Tenant).Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	switch {
	case resuming && res.StatusCode == http.StatusPartialContent:
		if err := t.resumes(res); err != nil {
			t.got.validators = validators{} // the next request asks for all of it
			return err
		}
		t.pure = false
	case res.StatusCode == http.StatusOK:
		if err := t.restart(res); err != nil {
			return err
		}
	case res.StatusCode == http.StatusNotModified && !resuming && t.known != (validators{}):
		t.got.notModified = true
		return nil
	case resuming && res.StatusCode == http.StatusRequestedRangeNotSatisfiable:
		t.got.validators = validators{}
		return &retryError{err: errors.New("the server has less than it had")}
	default:
		return &statusError{res.StatusCode, res.Header.Get("Retry-After")}
	}
	return t.write(res.Body)
}

// restart begins with the whole content.
func (t *transfer) restart(res *http.Response) error {
	t.done, t.told, t.pure = 0, 0, true
	t.total, t.plain = res.ContentLength, !res.Uncompressed
	t.got = content{validators: validators{res.Header.Get("Etag"), res.Header.Get("Last-Modified")}, date: res.Header.Get("Date")}
	t.sum = nil
	if t.src.SHA256 != "" || t.hashed {
		t.sum = sha256.New()
	}
	if err := t.to.Truncate(0); err != nil {
		return &diskError{hostless(err)}
	}
	if _, err := t.to.Seek(0, io.SeekStart); err != nil {
		return &diskError{hostless(err)}
	}
	return nil
}

// resumes checks that an answer is the missing part of the same content.
func (t *transfer) resumes(res *http.Response) error {
	var first, last, total int64
	n, _ := fmt.Sscanf(res.Header.Get("Content-Range"), "bytes %d-%d/%d", &first, &last, &total)
	tag := res.Header.Get("Etag")
	switch {
	case n < 2 || first != t.done || last < first || n == 3 && last >= total:
		return &retryError{err: errors.New("the server sent another part than was asked for")}
	case n == 3 && t.total >= 0 && total != t.total, tag != "" && t.got.ETag != "" && tag != t.got.ETag, res.Uncompressed:
		return &retryError{err: errors.New("the content changed between two parts")}
	}
	if n == 3 {
		t.total = total
	}
	return nil
}

// copyBuffer is how much is read at a time.
const copyBuffer = 256 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, copyBuffer); return &b }}

func (t *transfer) write(from io.Reader) error {
	buffer, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buffer)
	for {
		n, err := from.Read(*buffer)
		if n > 0 {
			if t.done+int64(n) > t.limit {
				return fmt.Errorf("%w: more than %d bytes, which is the limit", egress.ErrTooLarge, t.limit)
			}
			if _, err := t.to.Write((*buffer)[:n]); err != nil {
				return &diskError{hostless(err)}
			}
			if t.sum != nil {
				t.sum.Write((*buffer)[:n])
			}
			t.done += int64(n)
		}
		t.tell(err)
		if errors.Is(err, io.EOF) {
			if t.total >= 0 && t.plain && t.done != t.total {
				return &retryError{err: io.ErrUnexpectedEOF}
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (t *transfer) tell(err error) {
	const step = 1 << 20
	if t.report != nil && t.done > t.told && (t.done-t.told >= step || t.done == t.total || errors.Is(err, io.EOF)) {
		t.told = t.done
		t.report(t.done, t.total)
	}
}

// finish looks at the whole content.
func (t *transfer) finish() error {
	t.got.size = t.done
	if t.sum != nil {
		t.got.sha256 = hex.EncodeToString(t.sum.Sum(nil))
		if t.src.SHA256 != "" {
			return verify(t.sum, t.src.SHA256)
		}
	}
	return t.notAPage()
}

// pages are endings of files that may well be HTML.
var pages = map[string]bool{
	"": true, ".html": true, ".htm": true, ".xhtml": true, ".xht": true, ".shtml": true, ".mht": true, ".php": true, ".asp": true,
	".aspx": true, ".jsp": true, ".txt": true, ".xml": true, ".svg": true, ".md": true, ".tmpl": true, ".vue": true, ".eml": true,
}

// notAPage finds servers that excuse themselves with status 200: a picture that
// is a web page is the page of a login, or of an error. Who checks a digest
// knows better.
func (t *transfer) notAPage() error {
	ending := strings.ToLower(filepath.Ext(t.name))
	if pages[ending] || t.src.SHA256 != "" {
		return nil
	}
	head := make([]byte, 512)
	n, err := t.to.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return &diskError{hostless(err)}
	}
	if strings.HasPrefix(http.DetectContentType(head[:n]), "text/html") {
		return beacon.Errorf(beacon.Failed, "the server answered with a web page instead of a %s file", ending)
	}
	return nil
}

// ifRange is what identifies the content strongly enough to put parts of it
// together (RFC 9110, 13.1.5), "" if nothing does.
func ifRange(got content) string {
	if got.ETag != "" {
		if strings.HasPrefix(got.ETag, "W/") {
			return ""
		}
		return got.ETag
	}
	modified, err := http.ParseTime(got.LastModified)
	if err != nil {
		return ""
	}
	date, err := http.ParseTime(got.date)
	if err != nil || date.Sub(modified) < time.Second {
		return "" // it may have changed again within that second
	}
	return got.LastModified
}

// A statusError is an answer that is not the content.
type statusError struct {
	status     int
	retryAfter string
}

func (e *statusError) Error() string { return fmt.Sprintf("HTTP %d", e.status) }

// A retryError may go away by itself.
type retryError struct{ err error }

func (e *retryError) Error() string { return e.err.Error() }
func (e *retryError) Unwrap() error { return e.err }

// A diskError is of our own disk.
type diskError struct{ err error }

func (e *diskError) Error() string { return "write the file: " + e.err.Error() }
func (e *diskError) Unwrap() error { return e.err }

// maxRetryAfter is the longest wait that a server can ask for.
const maxRetryAfter = 30 * time.Second

// retryAfter says whether an error may go away by itself, and when to try again.
func retryAfter(err error, backoff time.Duration) (time.Duration, bool) {
	backoff = min(backoff, maxRetryAfter)
	wait := backoff/2 + rand.N(backoff/2+1)
	var status *statusError
	var again *retryError
	var ours *beacon.Error
	var disk *diskError
	var dns *net.DNSError
	var authority x509.UnknownAuthorityError
	var certificate *tls.CertificateVerificationError
	var host x509.HostnameError
	switch {
	case errors.As(err, &again):
		return wait, true
	case errors.As(err, &status):
		switch {
		case status.status == http.StatusTooManyRequests, status.status == http.StatusServiceUnavailable:
			if n, err := strconv.ParseUint(status.retryAfter, 10, 31); err == nil {
				wait = min(max(wait, time.Duration(n)*time.Second), maxRetryAfter) //nolint:gosec // 31 bits
			}
			return wait, true
		case status.status == http.StatusRequestTimeout, status.status >= 500 && status.status != http.StatusNotImplemented:
			return wait, true
		}
		return 0, false
	case errors.As(err, &ours), errors.As(err, &disk), errors.Is(err, egress.ErrTooLarge),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &authority), errors.As(err, &certificate), errors.As(err, &host):
		return 0, false
	case errors.As(err, &dns):
		return wait, !dns.IsNotFound
	}
	return wait, true // what is left comes from the network
}

// failed words the error that ends a download as the Node worker does, and gives
// it a code.
func (d *Downloader) failed(ctx context.Context, t *transfer, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var ours *beacon.Error
	switch {
	case errors.Is(err, egress.ErrTooLarge):
		return beacon.Errorf(beacon.FileLimit, "Download failed: %w for %s", err, Redact(t.src.URL))
	case isFull(err):
		return err
	case errors.As(err, &ours):
		return beacon.Errorf(ours.Code, "Download failed: %w for %s", err, Redact(t.src.URL))
	}
	return beacon.Errorf(beacon.Failed, "Download failed: %w for %s", err, Redact(t.src.URL))
}

// spaceless words the error of a full disk for people.
func spaceless(err error) error {
	var number syscall.Errno
	if isFull(err) && errors.As(err, &number) {
		return beacon.Errorf(beacon.Failed, "no space left on the worker's disk, in the folder for the files of work items: %w", number)
	}
	return err
}
