package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/csv"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// The committed data is what the documented command makes.
func TestReadings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "readings.csv")
	require.NoError(t, run([]string{"-rows", "12500", "-o", path}, nil, nil))
	got, err := os.ReadFile(path) //nolint:gosec // a file of the test's own
	require.NoError(t, err)
	want, err := os.ReadFile("../data/readings.csv")
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256(want), sha256.Sum256(got))
	rows, err := csv.NewReader(bytes.NewReader(got)).ReadAll()
	require.NoError(t, err)
	require.Len(t, rows, 12_501)
}

func TestSize(t *testing.T) {
	var a, b, c bytes.Buffer
	require.NoError(t, run([]string{"-size", "3MB"}, &a, nil))
	require.InDelta(t, 3e6, a.Len(), 200)
	require.Equal(t, byte('\n'), a.Bytes()[a.Len()-1])
	require.NoError(t, run([]string{"-size", "3MB", "-seed", "1"}, &b, nil))
	require.Equal(t, a.Bytes(), b.Bytes())
	require.NoError(t, run([]string{"-size", "3MB", "-seed", "2"}, &c, nil))
	require.NotEqual(t, a.Bytes(), c.Bytes())
}

func TestErrors(t *testing.T) {
	for _, args := range [][]string{{}, {"-size", "x"}, {"-size", "-1"}, {"-size", "9999999GiB"}, {"-rows", "1", "-o", t.TempDir()}} {
		require.Error(t, run(args, &bytes.Buffer{}, &bytes.Buffer{}), "%v", args)
	}
}
