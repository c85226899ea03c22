package journal_test

import (
	"context"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/journal"
)

func TestMemory(t *testing.T) {
	m := journal.NewMemory()
	ctx := t.Context()
	r, _, err := m.Snapshot(ctx)
	require.NoError(t, err)
	require.Nil(t, r)
	for _, data := range []string{"a", "b", "c"} {
		require.NoError(t, m.Append(ctx, data, []byte(data)))
	}
	read := func(after uint64, until string) (string, error) {
		reading, stop := context.WithCancel(ctx)
		defer stop()
		var got string
		err := m.Follow(reading, after, func(r journal.Record) error {
			got += string(r.Data)
			if string(r.Data) == until {
				stop()
			}
			return nil
		})
		return got, err
	}
	got, err := read(1, "c")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "bc", got)

	for seq, image := range []string{"", "one", "two"} {
		if image != "" {
			require.NoError(t, m.Save(ctx, uint64(seq), func(w io.Writer) error { _, err := io.WriteString(w, image); return err }))
		}
	}
	r, seq, err := m.Snapshot(ctx)
	require.NoError(t, err)
	raw, err := io.ReadAll(r)
	require.NoError(t, err)
	require.Equal(t, "two", string(raw))
	require.EqualValues(t, 2, seq)
	got, err = read(seq, "c")
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "c", got)
	got, err = read(1, "c") // the one before the last goes on being of use
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, "bc", got)
	_, err = read(0, "c")
	require.ErrorIs(t, err, journal.ErrTrimmed)
	last, err := m.Last(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 3, last)
}
