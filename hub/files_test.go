package hub_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
)

func (s *testServer) store(name, content string) protocol.StoredFile {
	s.t.Helper()
	a := s.post("/Beacon/File?name="+name, content)
	require.Equal(s.t, http.StatusOK, a.status, "%s", a.raw)
	var file protocol.StoredFile
	require.NoError(s.t, json.Unmarshal(a.raw, &file))
	return file
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	s := start(t, hub.Config{DataDir: dir})
	const content = "0123456789"
	sum := sha256.Sum256([]byte(content))
	file := s.store("my%20f%C3%BCr.bin", content)
	require.Equal(t, int64(10), file.Size)
	require.Equal(t, hex.EncodeToString(sum[:]), file.SHA256)
	require.Regexp(t, `^/Beacon/File/d[a-z2-7]{62}/my%20f%C3%BCr\.bin$`, file.URL)
	etag := `"` + file.SHA256 + `"`

	tests := map[string]struct {
		header []string
		status int
		body   string
	}{
		"whole":            {nil, 200, content},
		"a range":          {[]string{"Range", "bytes=3-5"}, 206, "345"},
		"the rest":         {[]string{"Range", "bytes=7-"}, 206, "789"},
		"resume the same":  {[]string{"Range", "bytes=7-", "If-Range", etag}, 206, "789"},
		"resume another":   {[]string{"Range", "bytes=7-", "If-Range", `"x"`}, 200, content},
		"beyond":           {[]string{"Range", "bytes=10-"}, 416, "invalid range: failed to overlap\n"},
		"what one has":     {[]string{"If-None-Match", etag}, 304, ""},
		"what another has": {[]string{"If-None-Match", `"x"`}, 200, content},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := s.call(http.MethodGet, file.URL, "", tt.header...)
			require.Equal(t, tt.status, a.status)
			require.Equal(t, tt.body, string(a.raw))
			if tt.status == 200 || tt.status == 206 {
				require.Equal(t, etag, a.header.Get("ETag"))
				require.Equal(t, fmt.Sprint(len(tt.body)), a.header.Get("Content-Length"))
				require.Contains(t, a.header.Get("Content-Disposition"), "attachment")
			}
		})
	}
	again := s.call(http.MethodPut, "/Beacon/File", "")
	require.Equal(t, http.StatusOK, again.status, "a file may be empty and without a name")
	for _, path := range []string{
		strings.Replace(file.URL, "my", "your", 1), "/Beacon/File/" + strings.Split(file.URL, "/")[3][:11] + strings.Repeat("a", 52) + "/x", "/Beacon/File/..%2F..%2Fetc/passwd",
	} {
		require.Equal(t, http.StatusNotFound, s.get(path).status)
	}
	for _, name := range []string{"..", "a%2Fb", "a%5Cb", "c%3Ax", "a%00b", "a%0Ab", strings.Repeat("n", 201), "%FF"} {
		require.Equal(t, http.StatusBadRequest, s.post("/Beacon/File?name="+name, "x").status, name)
	}

	// A hub with a data directory finds its files again, and clears away the rest.
	require.NoError(t, s.hub.Close(t.Context()))
	id := strings.Split(file.URL, "/")[3]
	files := filepath.Join(dir, "files")
	part := filepath.Join(files, id[:11]+strings.Repeat("b", 52)+".part")
	foreign := filepath.Join(files, "foreign.json")
	torn := filepath.Join(files, id[:11]+strings.Repeat("c", 52))
	for _, path := range []string{part, foreign, torn, torn + ".json"} {
		require.NoError(t, os.WriteFile(path, []byte("{}x"), 0o600))
	}
	s = start(t, hub.Config{DataDir: dir})
	require.Equal(t, content, string(s.get(file.URL).raw))
	require.NoFileExists(t, part)
	require.NoFileExists(t, torn)
	require.NoFileExists(t, torn+".json")
	require.FileExists(t, foreign)
	require.FileExists(t, filepath.Join(files, id))
}

func TestFileLimits(t *testing.T) {
	dir := t.TempDir()
	s := start(t, hub.Config{DataDir: dir, FileSize: 100, FileBytes: 150})
	a := s.post("/Beacon/File?name=a", strings.Repeat("x", 101))
	require.Equal(t, http.StatusRequestEntityTooLarge, a.status)
	require.Contains(t, a.json(t)["Error"], "limit of 100 bytes")
	s.store("a", strings.Repeat("x", 100))
	require.Equal(t, http.StatusInsufficientStorage, s.post("/Beacon/File?name=a", strings.Repeat("x", 51)).status)
	s.store("a", strings.Repeat("x", 50))
	entries, err := os.ReadDir(filepath.Join(dir, "files"))
	require.NoError(t, err)
	require.Len(t, entries, 5, "what was refused leaves nothing")

	// A data directory that cannot be: uploads say so, all else works.
	blocked := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(blocked, nil, 0o600))
	s = start(t, hub.Config{DataDir: blocked})
	require.Equal(t, http.StatusInternalServerError, s.post("/Beacon/File?name=a", "x").status)
	require.Equal(t, http.StatusOK, s.get("/status").status)
}

func TestUploadThatBreaksOff(t *testing.T) {
	dir := t.TempDir()
	s := start(t, hub.Config{DataDir: dir})
	conn, err := net.Dial("tcp", s.web.Listener.Addr().String())
	require.NoError(t, err)
	_, err = io.WriteString(conn, "POST /Beacon/File?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nbegun")
	require.NoError(t, err)
	files := filepath.Join(dir, "files")
	s.eventually("begun", func() bool { entries, err := os.ReadDir(files); return err == nil && len(entries) == 2 })
	require.NoError(t, conn.Close())
	s.eventually("cleared away", func() bool { entries, err := os.ReadDir(files); return err == nil && len(entries) == 1 })
}

func TestResultUpload(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	hash := s.enqueue(`{"Capability":"A"}`)
	w.item()
	binary := func(data string) {
		require.NoError(t, w.conn.Write(t.Context(), websocket.MessageBinary, []byte(data)))
	}
	ack := func(hash string, ok bool) {
		t.Helper()
		require.Equal(t, map[string]any{"Action": "WorkResultUploadAck", "WorkItemHash": hash, "Success": ok}, w.receive())
	}
	announce := func(hash, name string, size int) {
		w.send(fmt.Sprintf(`{"Action":"WorkResultUpload","WorkItemHash":%q,"OutputFilename":%q,"OutputSize":%d}`, hash, name, size))
	}
	binary("unannounced")
	announce(hash, "res.bin", 14)
	binary("14 bytes of it")
	ack(hash, true)
	announce(hash, "../escape", 1)
	binary("x")
	ack(hash, false)
	announce(hash, "short", 5)
	binary("x")
	ack(hash, false)
	announce("unknown", "x", 1)
	binary("x")
	ack("unknown", false)

	a := s.post("/Beacon/Work/"+hash+"/Upload", "by http", "X-Output-Filename", "two.txt", "Content-Type", "application/octet-stream")
	require.Equal(t, true, a.json(t)["Success"], "%s", a.raw)
	require.Equal(t, http.StatusBadRequest, s.post("/Beacon/Work/"+hash+"/Upload", "x", "X-Output-Filename", "..").status)

	w.complete(hash)
	s.eventually("done", func() bool { return s.record(hash).Status == protocol.StatusComplete })
	files := s.record(hash).Files
	require.Len(t, files, 2)
	require.Equal(t, "res.bin", files[0].Name)
	require.Equal(t, "14 bytes of it", string(s.get(files[0].URL).raw))
	require.Equal(t, a.json(t)["FilePath"], files[1].URL)
	require.Equal(t, "by http", string(s.get(files[1].URL).raw))
	announce(hash, "late", 1)
	binary("x")
	ack(hash, false)
}
