//go:build unix

package session_test

import (
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
)

func TestSharedMounts(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "missing")
	mounts, err := session.SharedMounts(
		protocol.SharedMount{Root: dir + "/."}, protocol.SharedMount{Root: missing}, protocol.SharedMount{},
		protocol.SharedMount{Root: missing, MountID: "given"})
	require.NoError(t, err)
	require.Len(t, mounts, 2)
	require.Equal(t, protocol.SharedMount{Root: missing, MountID: "given"}, mounts[1])
	require.Equal(t, dir, mounts[0].Root)
	var stat syscall.Stat_t
	require.NoError(t, syscall.Stat(dir, &stat))
	want := fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%d:%s", stat.Dev, dir)))
	require.Equal(t, want[:16], mounts[0].MountID)
	mounts, err = session.SharedMounts()
	require.NoError(t, err)
	require.NotNil(t, mounts)
}
