package outbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/worker"
)

// spooled makes a report with a file, which is outside of the outbox.
func spooled(t testing.TB, hash, content string) (worker.Report, beacon.File) {
	t.Helper()
	f := beacon.File{Path: filepath.Join(t.TempDir(), "spooled"), Size: int64(len(content)), Name: "out.bin", Upload: true}
	require.NoError(t, os.WriteFile(f.Path, []byte(content), 0o600))
	return worker.Report{Hash: hash, Result: beacon.Result{Outputs: beacon.Outputs{
		"OutputData": f, "OutputSize": json.RawMessage(`3`),
	}}}, f
}

func kept(t testing.TB, path string) (names []string) {
	t.Helper()
	for _, name := range files(t, path) {
		if strings.HasPrefix(name, "file-") {
			names = append(names, name)
		}
	}
	return names
}

// The files of a report survive as the report does, whatever becomes of those
// that it came with, and go with it.
func TestFilesSurvive(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	r, f := spooled(t, "a", "abc")
	require.NoError(t, d.Put(r))
	require.Equal(t, f, r.Result.Outputs["OutputData"], "the report itself stays as it is")
	require.NoError(t, f.Remove())
	require.NoError(t, d.Close())

	d = mustOpen(t, path)
	waits, err := d.Pending()
	require.NoError(t, err)
	require.Len(t, waits, 1)
	require.Equal(t, json.RawMessage(`3`), waits[0].Result.Outputs["OutputSize"])
	back := waits[0].Result.Outputs["OutputData"].(beacon.File)
	require.Equal(t, path, filepath.Dir(back.Path))
	content, err := os.ReadFile(back.Path)
	require.NoError(t, err)
	require.Equal(t, "abc", string(content))
	back.Path = f.Path
	require.Equal(t, f, back)

	// A later report on the item takes the place of the earlier one's files.
	r, _ = spooled(t, "a", "later")
	require.NoError(t, d.Put(r))
	require.Len(t, kept(t, path), 1)
	require.NoError(t, d.Delivered("a"))
	require.Empty(t, kept(t, path))
	require.NoError(t, d.Close())
	require.Equal(t, []string{"lock"}, files(t, path))
}

// What a crash left between the file and the record, or between the record of
// the delivery and the removal of the file, goes at the next start.
func TestFilesThatNobodyWants(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	r, _ := spooled(t, "a", "abc")
	require.NoError(t, d.Put(r))
	require.NoError(t, d.Close())
	require.NoError(t, os.WriteFile(filepath.Join(path, "file-LEFTOVER2"), []byte("x"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(path, "file-of-somebody.else"), nil, 0o600))
	wanted := kept(t, path)[0]
	if wanted == "file-LEFTOVER2" {
		wanted = kept(t, path)[1]
	}
	require.Len(t, waiting(t, path), 1)
	require.ElementsMatch(t, []string{wanted, "file-of-somebody.else"}, kept(t, path))
}

func TestFilesOfAFailedPut(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	r, f := spooled(t, "a", "abc")
	r.Result.Outputs["Wrong"] = json.RawMessage(`{`)
	require.Error(t, d.Put(r))
	require.Empty(t, kept(t, path))
	require.FileExists(t, f.Path)
	require.NoError(t, f.Remove())
	delete(r.Result.Outputs, "Wrong")
	require.ErrorContains(t, d.Put(r), "output OutputData")
	require.Empty(t, kept(t, path))
}

// Files go along when the report that they belong to is copied.
func TestFilesAndCompaction(t *testing.T) {
	path := t.TempDir()
	d := mustOpen(t, path)
	r, _ := spooled(t, "old", "abc")
	require.NoError(t, d.Put(r))
	for i := range 500 {
		hash := fmt.Sprint(i)
		require.NoError(t, d.Put(sample(hash)))
		require.NoError(t, d.Delivered(hash))
	}
	require.Greater(t, d.reports["old"].segment.number(t), 1)
	require.Len(t, kept(t, path), 1)
	require.NoError(t, d.Close())
	waits := waiting(t, path)
	require.Len(t, waits, 1)
	require.FileExists(t, waits[0].Result.Outputs["OutputData"].(beacon.File).Path)
}

func (s *segment) number(t testing.TB) (n int) {
	_, err := fmt.Sscanf(s.name, "%d.log", &n)
	require.NoError(t, err)
	return n
}

// A record cannot make anybody read another file of this machine.
func TestRecordOfAFileElsewhere(t *testing.T) {
	for _, name := range []string{"../secret", "/etc/passwd", "lock", "file-X/../../y", ""} {
		raw, err := json.Marshal(entry{Hash: []byte("a"), Files: map[string]reference{"OutputData": {Path: name}}})
		require.NoError(t, err)
		require.True(t, bytes.Contains(raw, []byte("OutputData")))
		_, err = decode(raw)
		require.ErrorContains(t, err, "outside of the outbox", name)
	}
}
