package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.csv"), filepath.Join(dir, "out.jsonl")
	require.NoError(t, os.WriteFile(in, []byte("a,b\n1,x\n"), 0o600))
	var stdout, stderr bytes.Buffer
	require.NoError(t, run(t.Context(), []string{"-action", "Convert", "-set", "KeepText=true", "-source", in, "-output", out, "-progress"}, &stdout, &stderr))
	got, err := os.ReadFile(out) //nolint:gosec // a file of the test's own
	require.NoError(t, err)
	require.Equal(t, "{\"a\":\"1\",\"b\":\"x\"}\n", string(got))
	require.Contains(t, stdout.String(), `Result="1 row read, 1 row written"`)
	require.Contains(t, stderr.String(), "100% 1 row read")

	for _, args := range [][]string{{"x"}, {"-set", "x"}, {"-action", "Sort"}, {"-source", filepath.Join(dir, "none"), "-output", out}} {
		require.Error(t, run(t.Context(), args, &stdout, &stderr), "%v", args)
	}
}
