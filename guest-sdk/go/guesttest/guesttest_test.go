package guesttest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/guesttest"
)

var shout = guest.Provider{
	Capability: "Shout",
	Actions: []guest.Action{{
		Name: "File",
		Run: func(item *guest.Item) error {
			b, err := item.ReadSource()
			if err != nil {
				return err
			}
			return item.WriteOutput([]byte(strings.ToUpper(string(b))))
		},
	}},
}

func TestRun(t *testing.T) {
	r := guesttest.Run(t, shout, guesttest.Item{Action: "File", Source: "hello", SourceName: "in.txt", OutputName: "out.txt"})
	require.NoError(t, r.Err)
	require.Equal(t, "HELLO", r.Output)
	require.Equal(t, map[string]string{"in.txt": "hello", "out.txt": "HELLO"}, r.Files)
	require.Zero(t, r.ExitCode)
}

// An empty source is a source.
func TestEmptySource(t *testing.T) {
	r := guesttest.Run(t, shout, guesttest.Item{SourceName: "in.txt", OutputName: "out.txt"})
	require.NoError(t, r.Err)
	require.Equal(t, map[string]string{"in.txt": "", "out.txt": ""}, r.Files)
}
