package hub

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

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
		s := &socket{wake: make(chan struct{}, 1), stopped: make(chan struct{})}
		info := protocol.Registration{Name: "w", Capabilities: []string{"A"}, MaxConcurrent: 1}
		_, err := h.queue.join(ctx, info, "", s)
		require.NoError(t, err)
		zero := 0.0
		hash := ""
		for range 3 {
			item, _, err := h.queue.submit(ctx, protocol.Submission{Capability: "A", Action: "B", Priority: &zero}, "", nil)
			require.NoError(t, err)
			if hash == "" {
				hash = item.WorkItemHash
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
		for _, b := range h.queue.list() {
			require.LessOrEqual(t, len(b.CurrentWorkItems), b.MaxConcurrent)
		}
		record, err := h.cfg.Store.Get(ctx, hash)
		require.NoError(t, err)
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
		h.queue.leave(ctx, s)
		counts, err := h.cfg.Store.Counts(ctx)
		require.NoError(t, err)
		require.Zero(t, counts[protocol.StatusRunning], "nothing runs where nobody is")
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

// What an earlier hub left in a durable store is lined up again.
func TestRestore(t *testing.T) {
	ctx := t.Context()
	limits := memoryLimits{live: 10, liveBytes: 1 << 20, finished: 10, doneBytes: 1 << 20, age: 1 << 40}
	store := newMemory(limits)
	for _, hash := range []string{"one", "two", "three"} {
		_, _, err := store.Add(ctx, protocol.WorkRecord{WorkItemHash: hash, Capability: "A", Action: "B"}, "")
		require.NoError(t, err)
	}
	_, err := store.Take(ctx, "one", "gone")
	require.NoError(t, err)
	_, err = store.Finish(ctx, "two", Outcome{Status: protocol.StatusComplete, Outputs: json.RawMessage("{}")})
	require.NoError(t, err)

	h := New(Config{Store: store, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	defer func() { require.NoError(t, h.Close(ctx)) }()
	record, err := h.queue.join(ctx, protocol.Registration{Name: "p", Capabilities: []string{"A"}, MaxConcurrent: 5}, "", nil)
	require.NoError(t, err)
	for _, want := range []string{"one", "three"} {
		item, ok := h.queue.poll(ctx, record.BeaconID)
		require.True(t, ok)
		require.Equal(t, want, item.WorkItemHash)
	}
	_, ok := h.queue.poll(ctx, record.BeaconID)
	require.False(t, ok)
}

func TestMemoryBoundsWhatAWorkerWrites(t *testing.T) {
	ctx := t.Context()
	m := newMemory(memoryLimits{live: 1, liveBytes: 1 << 20, finished: 1, doneBytes: 1 << 30, age: 1 << 40})
	_, _, err := m.Add(ctx, protocol.WorkRecord{WorkItemHash: "h"}, "")
	require.NoError(t, err)
	line := string(make([]byte, 1<<20))
	for range 300 {
		_, err = m.Take(ctx, "h", "b")
		require.NoError(t, err)
		_, err = m.Progress(ctx, "h", nil, []string{line})
		require.NoError(t, err)
		_, err = m.Release(ctx, "h", "lost")
		require.NoError(t, err)
	}
	item, err := m.Get(ctx, "h")
	require.NoError(t, err)
	require.LessOrEqual(t, len(item.AccumulatedLog), 5)
	require.Equal(t, logCut, item.AccumulatedLog[len(item.AccumulatedLog)-1])
	events, err := m.Events(ctx, "h")
	require.NoError(t, err)
	require.Len(t, events, mostEvents)
	require.Equal(t, protocol.WorkEnqueued, events[0].EventType)
}
