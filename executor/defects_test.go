package executor_test

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
)

// protocol.md §10: the Node worker took the hash of an item for a file name, so
// that one with ../ had a directory of somebody else removed.
func TestHashIsNoPath(t *testing.T) {
	b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		name := filepath.Base(job.Dir.Name())
		require.NotContains(t, job.Item.Hash, name)
		require.NotContains(t, name, "canary")
		return done(), nil
	}, executor.Config{})
	canary := filepath.Join(b.folder, "canary")
	require.NoError(t, os.Mkdir(canary, 0o700))
	for _, hash := range []string{"../canary", "../../canary", "x/../../canary", "", ".", "..", canary, "a\x00b", strings.Repeat("h", 5000)} {
		item := work(nil)
		item.Hash = hash
		result, err := b.Run(t.Context(), item, nil)
		require.NoError(t, err)
		require.Equal(t, done(), result)
		require.DirExists(t, canary, hash)
	}
	require.NoError(t, os.Remove(canary))
}

// protocol.md §10: the Node worker uploaded what the text of a result happened
// to be the path of.
func TestResultIsNoPath(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, []byte("private"), 0o600))
	want := beacon.Outputs{"StdOut": file, "ExitCode": 0, "Result": file}
	b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: want}, nil
	}, executor.Config{})
	for name, settings := range map[string]map[string]any{"plain": nil, "base64": {"ReturnOutputAsBase64": true}} {
		result, err := b.Run(t.Context(), work(settings), nil)
		require.NoError(t, err)
		require.Equal(t, want, result.Outputs, name)
	}
	require.FileExists(t, file)
}

// protocol.md §10: settings that are not text ended the Node worker.
func TestSettingsThatAreNotText(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) })
	for _, value := range []any{7, true, nil, []any{"a", 1}, map[string]any{"a": map[string]any{}}} {
		for _, name := range []string{"Command", "Parameters", "AffinityKey", "SourceURL", "SourceFilename", "SourceSHA256", "Sources", "OutputFilename", "OutputFile", "Outputs", "ReturnOutputAsBase64"} {
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				if job.Output != "" {
					return done(), job.Dir.WriteFile(job.Output, nil, 0o600)
				}
				return done(), nil
			}, executor.Config{})
			settings := map[string]any{"SourceURL": address}
			settings[name] = value
			result, err := b.Run(t.Context(), work(settings), nil)
			require.NoError(t, err)
			require.NotEmpty(t, result.Outputs["StdOut"], "%s = %v", name, value)
		}
	}
}
