package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/protocol"
)

// What strangers wrote does nothing to a terminal, and a view that is longer than
// the screen is scrolled within its bounds.
func TestTopOnATerminal(t *testing.T) {
	const hostile = "a\x1b[2Jb\x07c\u202ed\te\nf"
	v := topView{
		Beacons: []protocol.BeaconRecord{{Name: hostile, BeaconID: hostile, Status: hostile, Capabilities: []string{hostile}, MaxConcurrent: 1}},
		Backlog: []protocol.BacklogRecord{{Capability: hostile}},
		Tenants: []protocol.TenantRecord{{Tenant: hostile}},
		Running: protocol.ItemPage{Total: 3, Items: []protocol.WorkRecord{{
			WorkItemHash: hostile, Capability: hostile, Action: hostile, Tenant: hostile, Progress: []byte(`{"Percent":150,"Message":"` + "\\u001b[2J" + `"}`),
		}}},
		StepMs: 20_000,
	}
	text := v.text()
	for line := range strings.Lines(text) {
		for _, r := range strings.TrimSuffix(line, "\n") {
			require.True(t, unicode.IsPrint(r), "%q in %q", r, line)
		}
	}
	require.Contains(t, text, "#################### 100 %")
	require.Contains(t, text, "and 2 more")

	var out bytes.Buffer
	s := &screen{out: &out}
	require.True(t, s.scroll("k"))
	require.NoError(t, s.show("http://127.0.0.1:1", v, nil))
	require.Zero(t, s.from)
	require.Contains(t, out.String(), "Items")
	require.Equal(t, 24, s.height)
	for range 100 {
		require.True(t, s.scroll("\x1b[B"))
	}
	require.NoError(t, s.show("http://127.0.0.1:1", v, nil))
	require.Less(t, s.from, 24)
	for _, key := range []string{"q", "\x1b", "\x03"} {
		require.False(t, s.scroll(key))
	}
}
