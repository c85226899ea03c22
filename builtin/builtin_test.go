package builtin_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
)

func TestSources(t *testing.T) {
	require.True(t, slices.IsSorted(builtin.Names()))
	for _, s := range builtin.Sources() {
		require.True(t, builtin.Is(s.Name))
		p, err := builtin.Open(s.Name, nil, builtin.Host{})
		require.NoError(t, err)
		require.Equal(t, s.Name, p.Capability().Name, "the source is called what it offers")
		_, err = beacon.NewRegistry(p)
		require.NoError(t, err)
		for _, a := range p.Capability().Actions {
			require.NotEmpty(t, a.Description, a.Name)
			for _, setting := range a.Settings {
				require.NotEmpty(t, setting.Description, setting.Name)
				require.Contains(t, []string{"String", "Number", "Boolean"}, setting.DataType)
			}
		}
		_, err = builtin.Open(s.Name, beacon.Settings{"NoSuchKey": json.RawMessage(`1`)}, builtin.Host{})
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
		require.ErrorContains(t, err, "configuration of "+s.Name)
		require.ErrorContains(t, err, "NoSuchKey")
	}
	require.False(t, builtin.Is("Nothing"))
	_, err := builtin.Open("Nothing", nil, builtin.Host{})
	require.Equal(t, beacon.NotFound, beacon.CodeOf(err))
	_, err = builtin.Open("Shell", beacon.Settings{"MaxBufferBytes": json.RawMessage(`"many"`)}, builtin.Host{})
	require.ErrorContains(t, err, "MaxBufferBytes is text in quotes: want a number")
}
