package staging_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// downloader gives up at the first failure.
func downloader(t *testing.T, limit int64) *staging.Downloader {
	t.Helper()
	return downloads(t, staging.DownloadConfig{MaxBytes: limit, Attempts: 1})
}

func downloads(t *testing.T, cfg staging.DownloadConfig) *staging.Downloader {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	d := staging.NewDownloader(cfg)
	t.Cleanup(d.CloseIdle)
	return d
}

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func TestFetch(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 5<<20/16)
	long := strings.Repeat("n", 255)
	tests := map[string]struct {
		handle http.HandlerFunc
		name   string
		size   int
		total  int64
	}{
		"of known length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content)
		}, "f", len(content), int64(len(content))},
		"of unknown length": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(content[:2<<20])
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[2<<20:])
		}, "f", len(content), -1},
		"empty":         {func(http.ResponseWriter, *http.Request) {}, "f", 0, 0},
		"at the limit":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }, "f", len(content), -1},
		"longest name":  {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content[:10]) }, long, 10, 10},
		"three hops":    {redirects(3, content[:10]), "f", 10, 10},
		"no encoding":   {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Accept-Encoding")) }, "f", len("identity"), 8},
		"no body, HTML": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/html") }, "f", 0, 0},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := item(t)
			var last, total int64
			got, err := downloader(t, int64(len(content))).Fetch(t.Context(), dir, test.name, staging.Source{URL: serve(t, test.handle)}, func(done, of int64) {
				require.GreaterOrEqual(t, done, last)
				require.Empty(t, stat(dir, test.name), "the file appears when it is whole")
				last, total = done, of
			})
			require.NoError(t, err)
			require.EqualValues(t, test.size, got.Size)
			require.Equal(t, []string{test.name}, entries(t, dir.Name()))
			there, err := dir.ReadFile(test.name)
			require.NoError(t, err)
			require.Len(t, there, test.size)
			if test.size > 10 {
				require.True(t, bytes.Equal(content, there))
				require.Equal(t, test.total, total)
				require.Positive(t, last)
			}
		})
	}
}

func stat(dir *staging.Dir, name string) string {
	if info, err := dir.Lstat(name); err == nil {
		return info.Name()
	}
	return ""
}

// redirects answers so many times with a relative redirect before the content.
func redirects(hops int, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if n := len(r.URL.Query().Get("n")); n < hops {
			http.Redirect(w, r, "?n="+strings.Repeat("x", n+1), http.StatusFound)
			return
		}
		_, _ = w.Write(content)
	}
}

// raw answers with bytes that no HTTP library would send.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, answer)
	}
}

func to(location string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", location)
		w.WriteHeader(http.StatusFound)
	}
}

func TestFetchFails(t *testing.T) {
	const limit = 1 << 20
	kilobyte := bytes.Repeat([]byte("x"), 1024)
	tests := map[string]struct {
		handle http.HandlerFunc
		code   beacon.Code
		text   string
	}{
		"announces too much": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(limit+1))
			_, _ = w.Write(kilobyte)
		}, beacon.FileLimit, "1048577 bytes, limit 1048576"},
		"sends too much": {func(w http.ResponseWriter, _ *http.Request) {
			for range limit/1024 + 1 {
				_, _ = w.Write(kilobyte)
			}
		}, beacon.FileLimit, "more than 1048576 bytes"},
		"sends without end": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write(kilobyte)
			}
		}, beacon.FileLimit, "more than 1048576 bytes"},
		"cut off":                  {raw("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"), beacon.Failed, "unexpected EOF"},
		"cut off in a chunk":       {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc"), beacon.Failed, "unexpected EOF"},
		"cut off between chunks":   {raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"), beacon.Failed, "unexpected EOF"},
		"two lengths":              {raw("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"), beacon.Failed, "Content-Length"},
		"negative length":          {raw("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nabcd"), beacon.Failed, "Content-Length"},
		"endless header":           {func(w http.ResponseWriter, r *http.Request) { endless(w) }, beacon.Failed, ""},
		"not HTTP":                 {raw("SSH-2.0-OpenSSH_9\r\n"), beacon.Failed, "malformed HTTP"},
		"nothing":                  {raw(""), beacon.Failed, "EOF"},
		"not found":                {http.NotFound, beacon.Failed, "Download failed: HTTP 404 for http://127.0.0.1"},
		"a part only":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusPartialContent) }, beacon.Failed, "HTTP 206"},
		"four hops":                {redirects(4, nil), beacon.Denied, "more than 3 redirects"},
		"redirect loop":            {redirects(1<<30, nil), beacon.Denied, "more than 3 redirects"},
		"redirect to a file":       {to("file:///etc/passwd"), beacon.Denied, `URL scheme "file"`},
		"redirect to metadata":     {to("http://169.254.169.254/latest/meta-data/?secret"), beacon.Denied, "link-local, multicast or a metadata service"},
		"redirect to a number":     {to("http://2852039166/?secret"), beacon.Denied, "is a number"},
		"redirect to nonsense":     {to("http://%zz/?secret=1"), beacon.Failed, "a redirect to something that is not a URL"},
		"redirect without a place": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusFound) }, beacon.Failed, "302"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir := item(t)
			address := strings.Replace(serve(t, test.handle), "://", "://someone:secret@", 1) + "/path?secret=1#secret"
			_, err := downloader(t, limit).Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
			require.ErrorContains(t, err, test.text)
			require.Equal(t, test.code, beacon.CodeOf(err), "%v", err)
			require.NotContains(t, err.Error(), "secret")
			require.NotContains(t, err.Error(), dir.Name())
			require.Empty(t, entries(t, dir.Name()), "nothing of it stays")
		})
	}
}

// endless sends header lines until nobody takes them.
func endless(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	_, err = io.WriteString(conn, "HTTP/1.1 200 OK\r\n")
	for err == nil {
		_, err = io.WriteString(conn, "X-Filler: "+strings.Repeat("x", 1000)+"\r\n")
	}
}

func TestFetchRefusesAddresses(t *testing.T) {
	tests := map[string]struct {
		code beacon.Code
		text string
	}{
		"":                                          {beacon.Denied, "scheme"},
		"file:///etc/passwd?secret":                 {beacon.Denied, `scheme "file"`},
		"ftp://secret@host/":                        {beacon.Denied, `scheme "ftp"`},
		"gopher://127.0.0.1:70/?secret":             {beacon.Denied, "scheme"},
		"data:text/plain,secret":                    {beacon.Denied, "scheme"},
		"no-scheme/?secret":                         {beacon.Denied, "scheme"},
		"http://":                                   {beacon.Invalid, "no host"},
		"http://:80/":                               {beacon.Invalid, "no host"},
		"http:secret":                               {beacon.Invalid, "no host"},
		"http://secret\x7f/":                        {beacon.Invalid, "not a URL"},
		"http://a:b:c/?secret":                      {beacon.Invalid, "not a URL"},
		"http://%zz/?secret":                        {beacon.Invalid, "not a URL"},
		"http://169.254.169.254/?secret":            {beacon.Denied, "never requested"},
		"http://user:secret@169.254.1.1:8080":       {beacon.Denied, "never requested"},
		"http://[fe80::1]/?secret":                  {beacon.Denied, "never requested"},
		"http://[fe80::1%25lo]/?secret":             {beacon.Denied, "network interface"},
		"http://[::ffff:169.254.169.254]/?secret":   {beacon.Denied, "never requested"},
		"http://[::ffff:a9fe:a9fe]/?secret":         {beacon.Denied, "never requested"},
		"http://[64:ff9b::169.254.169.254]/?secret": {beacon.Denied, "never requested"},
		"http://[fd00:ec2::254]/?secret":            {beacon.Denied, "never requested"},
		"http://[fd20:ce::254]/?secret":             {beacon.Denied, "never requested"},
		"http://100.100.100.200/?secret":            {beacon.Denied, "never requested"},
		"http://168.63.129.16/?secret":              {beacon.Denied, "never requested"},
		"http://192.0.0.192/?secret":                {beacon.Denied, "never requested"},
		"http://224.0.0.1/?secret":                  {beacon.Denied, "never requested"},
		"https://169.254.169.254/?secret":           {beacon.Denied, "never requested"},
		"http://2852039166/?secret":                 {beacon.Denied, "number"},
		"http://0xa9fea9fe/?secret":                 {beacon.Denied, "number"},
		"http://0xa9.254.169.0xfe/?secret":          {beacon.Denied, "number"},
		"http://169.254.43518/?secret":              {beacon.Denied, "number"},
		"http://0251.0376.0251.0376/?secret":        {beacon.Denied, "number"},
	}
	dir := item(t)
	d := downloader(t, 0)
	for address, test := range tests {
		_, err := d.Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
		require.ErrorContains(t, err, test.text, address)
		require.Equal(t, test.code, beacon.CodeOf(err), "%s: %v", address, err)
		require.NotContains(t, err.Error(), "secret", address)
	}
	require.Empty(t, entries(t, dir.Name()))

	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, nobody.Close())
	_, err = d.Fetch(t.Context(), dir, "f", staging.Source{URL: "http://u:secret@" + nobody.Addr().String() + "/?secret"}, nil)
	require.ErrorContains(t, err, "cannot connect")
	require.NotContains(t, err.Error(), "secret")
}

// Neither the query nor the password of one server is shown to the next.
func TestFetchKeepsSecretsAcrossHosts(t *testing.T) {
	var seen atomic.Pointer[http.Header]
	second := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen.Store(&r.Header)
		fmt.Fprint(w, "data")
	})
	first := serve(t, func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if name != "u" || password != "secret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, strings.Replace(second, "127.0.0.1", "localhost", 1), http.StatusFound)
	})
	_, err := downloader(t, 0).Fetch(t.Context(), item(t), "f", staging.Source{URL: strings.Replace(first, "://", "://u:secret@", 1) + "/?token=secret"}, nil)
	require.NoError(t, err)
	for name, values := range *seen.Load() {
		require.NotContains(t, strings.Join(values, " "), "secret", name)
	}
	require.NotContains(t, *seen.Load(), "Authorization")
	require.NotContains(t, *seen.Load(), "Referer")
}

func TestFetchVerifiesTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // it would tell of our refusal
	s.StartTLS()
	defer s.Close()
	_, err := downloader(t, 0).Fetch(t.Context(), item(t), "f", staging.Source{URL: s.URL}, nil)
	require.ErrorContains(t, err, "certificate")
}

func TestFetchEnds(t *testing.T) {
	reason := beacon.Errorf(beacon.Timeout, "the item's time is over")
	for name, before := range map[string]string{
		"before the header": "",
		"in the header":     "HTTP/1.1 200 OK\r\nContent-",
		"in the body":       "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			address := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					panic(err)
				}
				defer conn.Close()
				_, _ = io.WriteString(conn, before)
				cancel(reason)
				_, _ = io.Copy(io.Discard, conn) // until the client gives up
			})
			dir := item(t)
			_, err := downloader(t, 0).Fetch(ctx, dir, "f", staging.Source{URL: address}, nil)
			require.ErrorIs(t, err, reason)
			require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
			require.Empty(t, entries(t, dir.Name()))
		})
	}
}

func TestFetchWhereItCannot(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "data") })
	dir := item(t)
	require.NoError(t, dir.WriteFile("f.part", nil, 0o600))
	_, err := downloader(t, 0).Fetch(t.Context(), dir, "f", staging.Source{URL: address}, nil)
	require.ErrorIs(t, err, os.ErrExist)
	require.Equal(t, []string{"f.part"}, entries(t, dir.Name()), "what was there is not ours to remove")
	require.NoError(t, dir.Mkdir("g", 0o700))
	require.NoError(t, dir.Mkdir("g/h", 0o700))
	_, err = downloader(t, 0).Fetch(t.Context(), dir, "g", staging.Source{URL: address}, nil)
	require.ErrorContains(t, err, "name the file")
	require.NotContains(t, err.Error(), dir.Name())
	require.Equal(t, []string{"f.part", "g"}, entries(t, dir.Name()))
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"http://host/a?secret#secret":          "http://host/a",
		"http://u:secret@host:80/a":            "http://host:80/a",
		"http:u:secret@host":                   "(not a URL)",
		"http://u:secret@ho st/":               "(not a URL)",
		"mailto:secret":                        "(not a URL)",
		"http://host/" + "\u202e":              "http://host/%E2%80%AE",
		"http://h/" + strings.Repeat("x", 600): "http://h/" + strings.Repeat("x", 491) + "…",
	} {
		require.Equal(t, want, staging.Redact(in))
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("http://u:SECRET@host/?SECRET")
	f.Add("http:SECRET")
	f.Fuzz(func(t *testing.T, in string) {
		out := staging.Redact(in)
		if u, err := url.Parse(in); err == nil && u.User != nil {
			shown, err := url.Parse(strings.TrimSuffix(out, "…"))
			require.True(t, err != nil || shown.User == nil, "%q of %q", out, in)
		}
		require.LessOrEqual(t, len(out), 5200)
	})
}
