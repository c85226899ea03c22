package submit_test

import (
	"bytes"
	"io"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/submit"
)

// flaky is a body that breaks off.
type flaky struct {
	io.ReadCloser
	left int
}

func (f *flaky) Read(p []byte) (int, error) {
	if f.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	n, err := f.ReadCloser.Read(p[:min(len(p), f.left)])
	f.left -= n
	return n, err
}

// A large file goes on where it was when the connection broke.
func TestAnUploadThatBreaksOffGoesOn(t *testing.T) {
	h := hub.New(hub.Config{Log: quiet})
	t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
	var pieces, bytesSent atomic.Int64
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			if n := pieces.Add(1); n <= 3 {
				r.Body = &flaky{r.Body, 3 << 20}
			}
		}
		h.ServeHTTP(w, r)
	}))
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	var last int64
	url, err := client(t, submit.Config{ServerURL: address}).Upload(within(t), "large.bin", int64(len(content)),
		func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
		func(sent int64) { last = sent; bytesSent.Store(sent) })
	require.NoError(t, err)
	require.EqualValues(t, 4, pieces.Load())
	require.EqualValues(t, len(content), last)
	answer, err := http.Get(url)
	require.NoError(t, err)
	defer answer.Body.Close()
	got, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	http.DefaultClient.CloseIdleConnections()
}

func TestAnUploadOfALargeFileToAServerOfBefore(t *testing.T) {
	h := hub.New(hub.Config{Log: quiet, FileSize: 9 << 20})
	t.Cleanup(func() { require.NoError(t, h.Close(within(t))) })
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Upload-Length") // which such a server does not know
		h.ServeHTTP(w, r)
	}))
	upload := func(size int) error {
		_, err := client(t, submit.Config{ServerURL: address}).Upload(within(t), "large.bin", int64(size),
			func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(make([]byte, size))), nil }, nil)
		return err
	}
	require.NoError(t, upload(8<<20))
	require.ErrorContains(t, upload(10<<20), "limit of")
	plain := hub.New(hub.Config{Log: quiet, FileSize: 9 << 20})
	t.Cleanup(func() { require.NoError(t, plain.Close(within(t))) })
	address = serve(t, plain)
	require.ErrorContains(t, upload(10<<20), "limit of")
	require.NotEqual(t, beacon.Unreachable, beacon.CodeOf(upload(10<<20)))
}
