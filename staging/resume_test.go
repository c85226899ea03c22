package staging_test

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
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

// quick tries again at once.
func quick() staging.DownloadConfig { return staging.DownloadConfig{Backoff: time.Nanosecond} }

func sum(content []byte) string {
	digest := sha256.Sum256(content)
	return hex.EncodeToString(digest[:])
}

// An origin serves one content, and breaks answers off as the test says.
type origin struct {
	mu       sync.Mutex
	content  []byte
	etag     string
	modified time.Time
	ranges   bool
	// cut says of each request after how many bytes of its answer the connection
	// breaks; the last holds for all later ones; -1 is never.
	cut []int
	// change is called before each request.
	change func(n int, o *origin)
	asked  []string // Range of each request
}

func (o *origin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	n := len(o.asked)
	if o.change != nil {
		o.change(n, o)
	}
	o.asked = append(o.asked, r.Header.Get("Range"))
	content, etag, modified, ranges, cut := o.content, o.etag, o.modified, o.ranges, -1
	if len(o.cut) > 0 {
		cut = o.cut[min(n, len(o.cut)-1)]
	}
	o.mu.Unlock()
	if etag != "" {
		w.Header().Set("Etag", etag)
	}
	if cut >= 0 {
		w = &cutting{ResponseWriter: w, left: cut}
	}
	if ranges {
		http.ServeContent(w, r, "", modified, bytes.NewReader(content))
		return
	}
	if !modified.IsZero() {
		w.Header().Set("Last-Modified", modified.UTC().Format(http.TimeFormat))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(content)))
	_, _ = w.Write(content)
}

// cutting breaks the connection after so many bytes of the body.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.ResponseWriter.Write(p)
	}
	_, _ = c.ResponseWriter.Write(p[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	panic(http.ErrAbortHandler)
}

func (c *cutting) Unwrap() http.ResponseWriter { return c.ResponseWriter }

func TestResume(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // 256 KiB
	other := bytes.Repeat([]byte("fedcba9876543210"), 1<<14)
	old := time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)
	swap := func(n int, o *origin) {
		if n == 1 {
			o.content, o.etag, o.modified = other, `"2"`, old.Add(time.Hour)
		}
	}
	tests := map[string]struct {
		origin *origin
		want   []byte
		asked  []string
		fails  string
	}{
		"by ETag": {&origin{content: content, etag: `"1"`, ranges: true, cut: []int{100_000, 50_000, -1}}, content,
			[]string{"", "bytes=100000-", "bytes=150000-"}, ""},
		"by date": {&origin{content: content, modified: old, ranges: true, cut: []int{100_000, -1}}, content,
			[]string{"", "bytes=100000-"}, ""},
		"before the first byte": {&origin{content: content, etag: `"1"`, ranges: true, cut: []int{0, -1}}, content,
			[]string{"", ""}, ""},
		"many times, always further": {&origin{content: content, etag: `"1"`, ranges: true, cut: []int{20_000}}, content,
			nil, ""},
		"weak ETag":                      {&origin{content: content, etag: `W/"1"`, ranges: true, cut: []int{100_000, -1}}, content, []string{"", ""}, ""},
		"a date within the last second":  {&origin{content: content, modified: time.Now().Add(time.Hour), ranges: true, cut: []int{100_000, -1}}, content, []string{"", ""}, ""},
		"nothing to tell versions apart": {&origin{content: content, ranges: true, cut: []int{100_000, -1}}, content, []string{"", ""}, ""},
		"no ranges":                      {&origin{content: content, etag: `"1"`, cut: []int{100_000, -1}}, content, []string{"", "bytes=100000-"}, ""},
		"the content changes": {&origin{content: content, etag: `"1"`, ranges: true, cut: []int{100_000, -1}, change: swap}, other,
			[]string{"", "bytes=100000-"}, ""},
		"the content changes, dated": {&origin{content: content, modified: old, ranges: true, cut: []int{100_000, -1}, change: swap}, other,
			[]string{"", "bytes=100000-"}, ""},
		"never whole": {&origin{content: content, cut: []int{100_000}}, nil, []string{"", "", "", "", ""}, "unexpected EOF"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			address := serve(t, tt.origin.ServeHTTP)
			for _, digest := range []string{"", sum(tt.want)} {
				tt.origin.asked = nil
				if tt.origin.change != nil {
					tt.origin.content, tt.origin.etag = content, `"1"`
					if !tt.origin.modified.IsZero() {
						tt.origin.etag, tt.origin.modified = "", old
					}
				}
				dir := item(t)
				var last int64
				got, err := downloads(t, quick()).Fetch(t.Context(), dir, "f", staging.Source{URL: address, SHA256: digest}, func(done, _ int64) { last = done })
				if tt.asked != nil {
					require.Equal(t, tt.asked, tt.origin.asked)
				}
				if tt.fails != "" {
					require.ErrorContains(t, err, tt.fails)
					require.Empty(t, entries(t, dir.Name()))
					continue
				}
				require.NoError(t, err)
				require.EqualValues(t, len(tt.want), got.Size)
				require.Equal(t, got.Size, last)
				there, err := dir.ReadFile("f")
				require.NoError(t, err)
				require.True(t, bytes.Equal(tt.want, there))
			}
		})
	}
}

// Servers that answer a request for the rest with something else.
func TestResumeWithALiar(t *testing.T) {
	const whole = "the whole content of the file"
	for name, lie := range map[string]func(w http.ResponseWriter){
		"another part":       func(w http.ResponseWriter) { part(w, `"1"`, "bytes 1-28/29", whole[1:]) },
		"of another size":    func(w http.ResponseWriter) { part(w, `"1"`, "bytes 4-29/30", whole[4:]+"x") },
		"of another version": func(w http.ResponseWriter) { part(w, `"2"`, "bytes 4-28/29", strings.ToUpper(whole[4:])) },
		"without saying":     func(w http.ResponseWriter) { part(w, `"1"`, "", whole[4:]) },
		"backwards":          func(w http.ResponseWriter) { part(w, `"1"`, "bytes 4-3/29", whole[4:]) },
		"beyond its end":     func(w http.ResponseWriter) { part(w, `"1"`, "bytes 4-40/29", whole[4:]) },
		"has nothing more":   func(w http.ResponseWriter) { w.WriteHeader(http.StatusRequestedRangeNotSatisfiable) },
		"breaks down":        func(w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) },
		"encoded": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			_, _ = io.WriteString(z, whole[4:])
			_ = z.Close()
			part(w, `"1"`, "bytes 4-28/29", b.String())
		},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int32
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch requests.Add(1) {
				case 1:
					w.Header().Set("Etag", `"1"`)
					w.Header().Set("Content-Length", "29")
					(&cutting{w, 4}).Write([]byte(whole))
				case 2:
					require.Equal(t, "bytes=4-", r.Header.Get("Range"))
					require.Equal(t, `"1"`, r.Header.Get("If-Range"))
					lie(w)
				default:
					_, _ = io.WriteString(w, whole)
				}
			})
			dir := item(t)
			_, err := downloads(t, quick()).Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
			require.NoError(t, err)
			there, err := dir.ReadFile("f")
			require.NoError(t, err)
			require.Equal(t, whole, string(there))
			require.EqualValues(t, 3, requests.Load())
		})
	}
}

func part(w http.ResponseWriter, etag, span, content string) {
	w.Header().Set("Etag", etag)
	if span != "" {
		w.Header().Set("Content-Range", span)
	}
	w.WriteHeader(http.StatusPartialContent)
	_, _ = io.WriteString(w, content)
}

// Parts of two versions that the server cannot tell apart are found out by the
// digest, and then the content is fetched in one piece.
func TestResumeAcrossVersions(t *testing.T) {
	first, second := strings.Repeat("1", 1000), strings.Repeat("2", 1000)
	var requests atomic.Int32
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"same"`)
		switch requests.Add(1) {
		case 1:
			w.Header().Set("Content-Length", "1000")
			(&cutting{w, 500}).Write([]byte(first))
		case 2:
			part(w, `"same"`, "bytes 500-999/1000", second[500:])
		default:
			require.Empty(t, r.Header.Get("Range"))
			_, _ = io.WriteString(w, second)
		}
	})
	dir := item(t)
	_, err := downloads(t, quick()).Fetch(t.Context(), dir, "f", staging.Source{URL: address, SHA256: strings.ToUpper(sum([]byte(second)))}, nil)
	require.NoError(t, err)
	there, err := dir.ReadFile("f")
	require.NoError(t, err)
	require.Equal(t, second, string(there))
}

func TestTryAgain(t *testing.T) {
	tests := map[string]struct {
		answers []func(http.ResponseWriter)
		tries   int32
		fails   string
	}{
		"busy, then not": {[]func(http.ResponseWriter){status(503), status(429), status(500), status(408), func(w http.ResponseWriter) { _, _ = io.WriteString(w, "x") }}, 5, ""},
		"always busy":    {[]func(http.ResponseWriter){status(503)}, 5, "HTTP 503"},
		"not found":      {[]func(http.ResponseWriter){status(404)}, 1, "HTTP 404"},
		"forbidden":      {[]func(http.ResponseWriter){status(403)}, 1, "HTTP 403"},
		"cannot":         {[]func(http.ResponseWriter){status(501)}, 1, "HTTP 501"},
		"wrong digest":   {[]func(http.ResponseWriter){func(w http.ResponseWriter) { _, _ = io.WriteString(w, "y") }}, 1, "instead of " + sum([]byte("x"))},
		"not changed":    {[]func(http.ResponseWriter){status(304)}, 1, "HTTP 304"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				tt.answers[min(int(n.Add(1)), len(tt.answers))-1](w)
			})
			dir := item(t)
			_, err := downloads(t, quick()).Fetch(t.Context(), dir, "f", staging.Source{URL: address, SHA256: sum([]byte("x"))}, nil)
			require.Equal(t, tt.tries, n.Load())
			if tt.fails == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, tt.fails)
			require.Equal(t, beacon.Failed, beacon.CodeOf(err))
			require.Empty(t, entries(t, dir.Name()))
		})
	}
}

func status(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(code) }
}

// A server that stalls is tried again, then given up.
func TestStall(t *testing.T) {
	var n atomic.Int32
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "some")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	cfg := quick()
	cfg.RateWindow, cfg.Attempts = 20*time.Millisecond, 2
	dir := item(t)
	_, err := downloads(t, cfg).Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
	require.ErrorIs(t, err, egress.ErrTooSlow)
	require.ErrorContains(t, err, "Download failed: the server sends too slowly")
	require.EqualValues(t, 2, n.Load())
	require.Empty(t, entries(t, dir.Name()))
}

func TestEncodedSource(t *testing.T) {
	content := bytes.Repeat([]byte("text "), 100_000)
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write(content)
	require.NoError(t, z.Close())
	for name, cut := range map[string]int{"whole": -1, "cut off once": b.Len() / 2} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			address := serve(t, func(w http.ResponseWriter, r *http.Request) {
				require.Empty(t, r.Header.Get("Range"), "a part of what is encoded is no part of the content")
				w.Header().Set("Content-Encoding", "gzip")
				w.Header().Set("Etag", `"1"`)
				w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
				if n.Add(1) == 1 && cut >= 0 {
					w = &cutting{w, cut}
				}
				_, _ = w.Write(b.Bytes())
			})
			dir := item(t)
			got, err := downloads(t, quick()).Fetch(t.Context(), dir, "f.csv", staging.Source{URL: address, SHA256: sum(content)}, nil)
			require.NoError(t, err)
			require.EqualValues(t, len(content), got.Size)
		})
	}
}

// A server that excuses itself with a page and status 200.
func TestPageInsteadOfAFile(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "\n<!DOCTYPE html><html><title>Please log in</title></html>")
	})
	dir := item(t)
	d := downloads(t, quick())
	for _, name := range []string{"photo.jpg", "data.CSV", "archive.tar.gz"} {
		_, err := d.Fetch(t.Context(), dir, name, staging.Source{URL: address}, nil)
		require.ErrorContains(t, err, "answered with a web page instead of a "+strings.ToLower(filepath.Ext(name))+" file")
	}
	for _, name := range []string{"source_file", "page.html", "page.HTM", "text.txt"} {
		_, err := d.Fetch(t.Context(), dir, name, staging.Source{URL: address}, nil)
		require.NoError(t, err, name)
	}
}

func TestFileURLs(t *testing.T) {
	folder, outside := t.TempDir(), t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "a b.txt"), []byte("content"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("secret"), 0o600))
	require.NoError(t, os.WriteFile(folder+"-2", []byte("neighbour"), 0o600))
	t.Cleanup(func() { os.Remove(folder + "-2") })
	require.NoError(t, os.Symlink(outside, filepath.Join(folder, "link")))
	url := func(path string) string {
		return "file://" + (map[bool]string{true: "/"}[!strings.HasPrefix(path, "/")]) + strings.ReplaceAll(filepath.ToSlash(path), " ", "%20")
	}
	cfg := quick()
	_, err := downloads(t, cfg).Fetch(t.Context(), item(t), "f", staging.Source{URL: url(folder + "/a b.txt")}, nil)
	require.Equal(t, beacon.Denied, beacon.CodeOf(err), "not unless a folder is named")

	cfg.AllowFiles = []string{folder}
	cfg.MaxBytes = 10
	d := downloads(t, cfg)
	dir := item(t)
	got, err := d.Fetch(t.Context(), dir, "f", staging.Source{URL: url(folder + "/a b.txt"), SHA256: sum([]byte("content"))}, nil)
	require.NoError(t, err)
	require.EqualValues(t, 7, got.Size)
	there, err := dir.ReadFile("f")
	require.NoError(t, err)
	require.Equal(t, "content", string(there))
	require.NoError(t, dir.Remove("f"))

	require.NoError(t, os.WriteFile(filepath.Join(folder, "large"), []byte("more than ten"), 0o600))
	for address, want := range map[string]string{
		url(outside + "/secret"):      "must lie in one of the folders",
		url(folder + "/../x"):         "must lie in one of the folders",
		url(folder + "-2"):            "must lie in one of the folders",
		"file://host" + folder + "/x": "must lie in one of the folders",
		url(folder + "/link/secret"):  "open the source",
		url(folder + "/absent"):       "open the source",
		url(folder):                   "not a regular file",
		url(folder + "/large"):        "limit 10",
	} {
		_, err := d.Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
		require.ErrorContains(t, err, want, address)
		require.NotContains(t, err.Error(), outside)
		require.Empty(t, entries(t, dir.Name()), address)
	}
	_, err = d.Fetch(t.Context(), dir, "f", staging.Source{URL: url(folder + "/a b.txt"), SHA256: sum(nil)}, nil)
	require.ErrorContains(t, err, "the source has SHA-256")
	require.Empty(t, entries(t, dir.Name()))
}

// For a tenant's items private addresses are closed, for a worker without
// tenants they are open.
func TestPolicyOfTenants(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "x") })
	d := downloads(t, quick())
	for _, tenant := range []string{"", beacon.DefaultTenant} {
		_, err := d.Fetch(t.Context(), item(t), "f", staging.Source{URL: address, Tenant: tenant}, nil)
		require.NoError(t, err)
	}
	_, err := d.Fetch(t.Context(), item(t), "f", staging.Source{URL: address, Tenant: "acme"}, nil)
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))

	cfg := quick()
	cfg.Policy = func(tenant string) egress.Policy {
		return egress.Policy{Private: true, Allow: []egress.Rule{{Host: tenant + ".test"}}}
	}
	_, err = downloads(t, cfg).Fetch(t.Context(), item(t), "f", staging.Source{URL: address, Tenant: "acme"}, nil)
	require.ErrorContains(t, err, "not among what the policy allows")
}
