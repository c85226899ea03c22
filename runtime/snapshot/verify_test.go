package snapshot

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// What the system says is believed, and looked at now and then.
func TestVerify(t *testing.T) {
	i, err := NewImage(2*pageSize, Piece{Bytes: []byte("content")})
	require.NoError(t, err)
	m, err := i.NewMemory(4*pageSize, i.Methods()[0])
	require.NoError(t, err)
	m.method = Method(9) // does nothing
	m.Bytes()[pageSize] = 1
	require.ErrorIs(t, m.Restore(), ErrNotRestored, "the first time")
	for range verifyEvery - 1 {
		require.NoError(t, m.Restore())
	}
	require.ErrorIs(t, m.Restore(), ErrNotRestored)
	m.method = Compare
	require.NoError(t, m.Restore())
	require.Empty(t, m.Changed())
	require.NoError(t, m.Close())
	require.NoError(t, i.Close())
}
