package protocol_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	goruntime "runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

func outputFile(t *testing.T, content []byte) beacon.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	return beacon.File{Path: path, Size: int64(len(content)), Name: "out"}
}

func TestCompletionBody(t *testing.T) {
	for _, size := range []int{0, 1, 2, 3, 48<<10 - 1, 48 << 10, 48<<10 + 1, 300_000} {
		content := bytes.Repeat([]byte{0, 0xff, 'a', 0x80, '"'}, size/5+1)[:size]
		f := outputFile(t, content)
		r := beacon.Result{
			Outputs: beacon.Outputs{"OutputData": f, "Other": f, "StdOut": json.RawMessage(`"a<b"`), "OutputSize": size},
			Log:     []string{"one"},
		}
		body, err := protocol.EncodeCompletion(r, 0)
		require.NoError(t, err)
		want, err := protocol.Encode(protocol.NewCompletion(r)) // which reads the files itself
		require.NoError(t, err)
		for range 2 { // it can be sent again
			opened, err := body.Open()
			require.NoError(t, err)
			got, err := io.ReadAll(opened)
			require.NoError(t, err)
			require.NoError(t, opened.Close())
			require.JSONEq(t, string(want), string(got))
			require.EqualValues(t, len(got), body.Size())
		}
		require.Contains(t, string(want), base64.StdEncoding.EncodeToString(content))
	}
	body, err := protocol.EncodeCompletion(beacon.Result{}, 0)
	require.NoError(t, err)
	require.EqualValues(t, len(`{"Outputs":{},"Log":[]}`), body.Size())
}

func TestCompletionBodyOfADamagedFile(t *testing.T) {
	f := outputFile(t, make([]byte, 100_000))
	body, err := protocol.EncodeCompletion(beacon.Result{Outputs: beacon.Outputs{"OutputData": f}}, 0)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(f.Path, 60_000))
	opened, err := body.Open()
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, opened)
	require.ErrorIs(t, err, protocol.ErrDamaged)
	require.NoError(t, opened.Close())
	require.NoError(t, f.Remove())
	require.NoError(t, f.Remove())
	_, err = body.Open()
	require.ErrorIs(t, err, protocol.ErrDamaged)
	_, err = json.Marshal(f)
	require.ErrorContains(t, err, "output file out")
	require.NotContains(t, err.Error(), filepath.Dir(f.Path))
}

// However large the file is, sending it takes the same memory.
func TestCompletionBodyTakesConstantMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := os.Create(path)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(64<<20))
	require.NoError(t, f.Close())
	body, err := protocol.EncodeCompletion(beacon.Result{Outputs: beacon.Outputs{"OutputData": beacon.File{Path: path, Size: 64 << 20}}}, 0)
	require.NoError(t, err)
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	opened, err := body.Open()
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, opened)
	require.NoError(t, err)
	require.NoError(t, opened.Close())
	goruntime.ReadMemStats(&after)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(4<<20))
}

func TestFileBody(t *testing.T) {
	f := outputFile(t, []byte("as it is\x00\xff"))
	body := protocol.FileBody(f)
	require.Equal(t, "out", body.FileName)
	require.EqualValues(t, 10, body.Size())
	opened, err := body.Open()
	require.NoError(t, err)
	got, err := io.ReadAll(opened)
	require.NoError(t, err)
	require.NoError(t, opened.Close())
	require.Equal(t, "as it is\x00\xff", string(got))
	require.NoError(t, os.Truncate(f.Path, 3))
	opened, err = body.Open()
	require.NoError(t, err)
	_, err = io.ReadAll(opened)
	require.ErrorIs(t, err, protocol.ErrDamaged)
	require.NoError(t, opened.Close())
}
