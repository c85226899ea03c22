//go:build unix

package executor_test

import (
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLocalToAPipe(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	// The reader is there before the writer, who does not wait for one. What is
	// written stays in the pipe until it is read.
	reader, err := os.OpenFile(pipe, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	require.NoError(t, err)
	defer reader.Close()
	_, result := local(t, "", pipe)
	require.Equal(t, 0, result.ExitCode())
	got, err := io.ReadAll(reader)
	require.NoError(t, err)
	require.Equal(t, "NOTHING", string(got))
}

// A new file has the permissions that the user's new files have.
func TestLocalModes(t *testing.T) {
	for mask, want := range map[int]os.FileMode{0o022: 0o644, 0o077: 0o600} {
		before := syscall.Umask(mask)
		output := filepath.Join(t.TempDir(), "new")
		_, result := local(t, "", output)
		syscall.Umask(before)
		require.Equal(t, 0, result.ExitCode())
		info, err := os.Stat(output)
		require.NoError(t, err)
		require.Equal(t, want, info.Mode().Perm())
	}
}

// A place on another file system is reached by copying.
func TestLocalAcrossFileSystems(t *testing.T) {
	here, err := os.Stat(t.TempDir())
	require.NoError(t, err)
	const memory = "/dev/shm"
	there, err := os.Stat(memory)
	if err != nil || here.Sys().(*syscall.Stat_t).Dev == there.Sys().(*syscall.Stat_t).Dev {
		t.Skip("no second file system")
	}
	folder, err := os.MkdirTemp(memory, "beacon-test-")
	if err != nil {
		t.Skip("no second file system that can be written")
	}
	defer os.RemoveAll(folder)
	output := filepath.Join(folder, "new")
	before := syscall.Umask(0o027)
	_, result := local(t, "", output)
	syscall.Umask(before)
	require.Equal(t, 0, result.ExitCode())
	got, err := os.ReadFile(output)
	require.NoError(t, err)
	require.Equal(t, "NOTHING", string(got))
	info, err := os.Stat(output)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	left, err := os.ReadDir(folder)
	require.NoError(t, err)
	require.Len(t, left, 1)
}
