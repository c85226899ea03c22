package audit_test

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/audit"
)

func lines(t *testing.T, path string) (all []map[string]any) {
	t.Helper()
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	for line := range strings.Lines(string(content)) {
		var entry map[string]any
		require.NoError(t, json.Unmarshal([]byte(line), &entry), line)
		all = append(all, entry)
	}
	return all
}

func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	for range 2 { // it goes on where it ended
		l, err := audit.Open(path, slog.Default())
		require.NoError(t, err)
		l.Module(audit.Module{Source: "a.wasm", SHA256: "abc"})
		l.Item(audit.Item{
			Tenant: "acme", WorkItemHash: "0x1\n{\"forged\":1}\x1b[31m" + strings.Repeat("x", 10_000), Capability: "C", Action: "A",
			Modules: []string{"abc"}, Permissions: []string{"call LLM"}, Hosts: []string{"example.com:443"}, Fuel: 5, Sent: 6, ExitCode: 3,
		})
		require.NoError(t, l.Close())
	}
	all := lines(t, path)
	require.Len(t, all, 4)
	require.Equal(t, "module", all[0]["Event"])
	require.Equal(t, []any{}, all[0]["Granted"])
	item := all[3]
	require.Equal(t, "item", item["Event"])
	require.Equal(t, "acme", item["Tenant"])
	require.Equal(t, []any{"abc"}, item["Modules"])
	require.Equal(t, []any{"example.com:443"}, item["Hosts"])
	require.Equal(t, 3.0, item["ExitCode"])
	require.LessOrEqual(t, len(item["WorkItemHash"].(string)), 1000)
	require.NotContains(t, item["WorkItemHash"], "\x1b")
	require.NotContains(t, item, "Tokens")
	info, err := os.Stat(path)
	require.NoError(t, err)
	if os.PathSeparator == '/' {
		require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	}
}

func TestConcurrently(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.jsonl")
	var tasks sync.WaitGroup
	for range 2 { // two workers
		l, err := audit.Open(path, slog.Default())
		require.NoError(t, err)
		defer l.Close()
		for range 20 {
			tasks.Go(func() {
				for range 20 {
					l.Item(audit.Item{Hosts: []string{strings.Repeat("host", 50)}})
				}
			})
		}
	}
	tasks.Wait()
	require.Len(t, lines(t, path), 800)
}

func TestThatCannotBeWritten(t *testing.T) {
	_, err := audit.Open(t.TempDir(), slog.Default())
	require.Error(t, err)
	var log strings.Builder
	l, err := audit.Open(filepath.Join(t.TempDir(), "a"), slog.New(slog.NewTextHandler(&log, nil)))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	l.Item(audit.Item{})
	l.Item(audit.Item{})
	require.Equal(t, 1, strings.Count(log.String(), "cannot be written"))
	require.Error(t, l.Close())
	var none *audit.Log
	none.Item(audit.Item{})
	none.Module(audit.Module{})
	require.NoError(t, none.Close())
}
