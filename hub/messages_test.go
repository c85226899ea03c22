package hub

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// FuzzMessage hands frames to a hub as a registered worker's. Whatever they
// hold, the hub goes on, nobody gets more than fits, and what it keeps can be
// shown.
func FuzzMessage(f *testing.F) {
	for _, seed := range []string{
		`{"Action":"BeaconRegister","Name":"n002","Capabilities":["Shell","FileSystem","Bench"],"MaxConcurrent":1,"Tags":{}}`,
		`{"Action":"BeaconRegister","Name":"w","Capabilities":["A"],"MaxConcurrent":-1,"BindAddresses":[1],"Operations":[{}],"Contexts":{"a":1}}`,
		`{"Action":"BeaconHeartbeat","BeaconID":"x","ActiveItems":["y"]}`,
		`{"Action":"WorkComplete","WorkItemHash":"HASH","Outputs":{"StdOut":"x"},"Log":["l"]}`,
		`{"Action":"WorkComplete","WorkItemHash":"HASH","Outputs":"\ud800","Log":{"a":[]}}`,
		`{"Action":"WorkError","WorkItemHash":"HASH","ErrorMessage":{"a":1},"Log":[]}`,
		`{"Action":"WorkProgress","WorkItemHash":"HASH","ProgressData":{"Percent":1e400,"BinaryData":"AAEC","Log":[null]}}`,
		`{"Action":"Deregister"}`,
		`{"Action":7,"WorkItemHash":[]}`, `[]`, `null`, `"x"`, `{`, "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, frame string) {
		ctx := context.Background()
		h := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
		defer func() { require.NoError(t, h.Close(ctx)) }()
		require.NoError(t, h.Ready(ctx))
		s := newSocket(nil, nil, "")
		s.who, s.known = caller{role: Admin}, true
		h.core.connect(s)
		_, err := h.register(protocol.Registration{Name: "w", Capabilities: []string{"A"}, MaxConcurrent: 1}, caller{role: Admin}, "", s)
		require.NoError(t, err)
		hash := ""
		for range 3 {
			item, err := h.submit(ctx, &ledger.Spec{Tenant: "default", Capability: "A", Action: "B"}, nil)
			require.NoError(t, err)
			if hash == "" {
				hash = item.Hash
			}
		}
		raw := []byte(frame)
		if utf8.Valid(raw) {
			if m, err := decodeMessage(raw); err == nil {
				if m.WorkItemHash == "HASH" {
					m.WorkItemHash = hash
				}
				h.handle(ctx, s, m, raw)
			}
		}
		require.True(t, s.settled(ctx) || s.ended())
		for _, b := range h.core.list() {
			require.LessOrEqual(t, len(b.CurrentWorkItems), b.MaxConcurrent)
		}
		item, err := h.core.get(hash)
		require.NoError(t, err)
		record := item.Record(nil, nil)
		shown, err := protocol.Encode(record)
		require.NoError(t, err)
		require.True(t, json.Valid(shown), "%s", shown)
		if record.Status == protocol.StatusComplete {
			var outputs map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(record.Outputs, &outputs))
		}
		for _, out := range s.take() {
			require.True(t, json.Valid(out))
			require.True(t, utf8.Valid(out))
		}
		// Whoever it is now, its end leaves nothing running where nobody is.
		h.core.disconnect(s)
		_, err = h.submit(ctx, &ledger.Spec{Tenant: "default", Capability: "Z"}, nil)
		require.NoError(t, err)
		h.core.mu.RLock()
		defer h.core.mu.RUnlock()
		for it := range h.core.ledger.Live() {
			if it.Status == protocol.StatusRunning {
				require.NotNil(t, h.core.ledger.Beacon(it.Beacon))
				require.NotZero(t, h.core.ledger.Beacon(it.Beacon).Away)
			}
		}
	})
}

// FuzzFileName checks that what is accepted is a plain name.
func FuzzFileName(f *testing.F) {
	for _, seed := range []string{"a.txt", "..", "../a", `a\b`, "a\x00", "", "für", "\u202etxt.exe"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		got, err := fileName(name)
		if err != nil {
			return
		}
		require.NotContains(t, got, "/")
		require.NotContains(t, got, `\`)
		require.NotContains(t, []string{"", ".", ".."}, got)
		require.True(t, utf8.ValidString(got))
	})
}
