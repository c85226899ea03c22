package executor_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/staging"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A provider of capability Test with the actions First and Second.
type provider func(ctx context.Context, job *beacon.Job) (beacon.Result, error)

func (provider) Capability() beacon.Capability {
	return beacon.Capability{Name: "Test", Actions: []beacon.Action{{Name: "First"}, {Name: "Second"}}}
}

func (p provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	return p(ctx, job)
}

// done is a result that says so.
func done() beacon.Result {
	return beacon.Result{Outputs: beacon.Outputs{"StdOut": "done\n", "ExitCode": 0, "Result": "done\n"}, Log: []string{"Command executed: done"}}
}

type bench struct {
	*executor.Executor
	folder string
	log    *bytes.Buffer
}

// prepare makes an executor with one provider. At the end of the test no item
// may have left a directory.
func prepare(t *testing.T, p provider, cfg executor.Config) bench {
	t.Helper()
	registry, err := beacon.NewRegistry(p)
	require.NoError(t, err)
	folder := t.TempDir()
	store, err := staging.Open(folder)
	require.NoError(t, err)
	download := staging.NewDownloader(staging.DownloadConfig{MaxBytes: 1 << 20, Attempts: 1, Log: slog.New(slog.DiscardHandler)})
	log := &bytes.Buffer{}
	cfg.Log = slog.New(slog.NewTextHandler(log, nil))
	b := bench{executor.New(registry, store, download, cfg), folder, log}
	t.Cleanup(func() {
		download.CloseIdle()
		require.Empty(t, b.items(t), "an item's directory stays behind")
		require.NoError(t, store.Close())
	})
	return b
}

// items lists the directories of items.
func (b bench) items(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.folder, "worker-*", "*"))
	require.NoError(t, err)
	tenants, err := filepath.Glob(filepath.Join(b.folder, "worker-*", "*", "*"))
	require.NoError(t, err)
	// Empty ones that are kept for the next items, and the folders of tenants, are
	// no item's.
	return slices.DeleteFunc(append(found, tenants...), func(path string) bool {
		inside, err := os.ReadDir(path)
		const digest = 32 // the name of a tenant's folder
		return err == nil && len(inside) == 0 || len(filepath.Base(path)) == digest
	})
}

func work(settings map[string]any) beacon.WorkItem {
	item := beacon.WorkItem{Hash: "wi-../../x", Capability: "Test", Action: "First", Settings: beacon.Settings{}}
	for name, value := range settings {
		raw, err := json.Marshal(value)
		if err != nil {
			panic(err)
		}
		item.Settings[name] = raw
	}
	return item
}

func TestNoProvider(t *testing.T) {
	tests := map[string]struct {
		capability, action string
		lenient            bool
		printed, log       string
	}{
		"capability":            {"X", "Y", false, "Unknown capability: X/Y", "Beacon Executor: no provider for [X/Y]."},
		"capability, lenient":   {"X", "Y", true, "Unknown capability: X/Y", "Beacon Executor: no provider for [X/Y]."},
		"nothing":               {"", "", false, "Unknown capability: Shell", "Beacon Executor: no provider for [Shell]."},
		"action":                {"Test", "Delete", false, "Unknown action: Test/Delete (Test has First, Second)", "Beacon Executor: no provider for [Test/Delete]."},
		"case of capability":    {"test", "First", false, "Unknown capability: test/First", "Beacon Executor: no provider for [test/First]."},
		"case of action":        {"Test", "first", false, "Unknown action: Test/first (Test has First, Second)", "Beacon Executor: no provider for [Test/first]."},
		"terminal sequence":     {"\x1b[2J", "\n", false, `Unknown capability: \u001b[2J/\u000a`, `Beacon Executor: no provider for [\u001b[2J/\u000a].`},
		"very long, and binary": {strings.Repeat("\xff", 5000), "", true, "Unknown capability: " + strings.Repeat(`\xff`, 80), ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) {
				t.Error("the provider runs")
				return beacon.Result{}, nil
			}, executor.Config{LenientActions: test.lenient})
			result, err := b.Run(t.Context(), beacon.WorkItem{Hash: "h", Capability: test.capability, Action: test.action}, nil)
			require.NoError(t, err)
			require.Contains(t, result.Outputs["StdOut"], test.printed)
			require.Equal(t, -1, result.Outputs["ExitCode"])
			require.Equal(t, "", result.Outputs["Result"])
			require.Len(t, result.Log, 1)
			require.Contains(t, result.Log[0], test.log)
		})
	}
}

func TestAction(t *testing.T) {
	for _, test := range []struct {
		action  string
		lenient bool
		runs    string
	}{{"", false, "First"}, {"Second", false, "Second"}, {"Second", true, "Second"}, {"Other", true, "First"}} {
		b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			require.Equal(t, test.runs, job.Item.Action)
			return done(), nil
		}, executor.Config{LenientActions: test.lenient})
		item := work(nil)
		item.Action = test.action
		result, err := b.Run(t.Context(), item, nil)
		require.NoError(t, err)
		require.Equal(t, done(), result)
	}
}

func serve(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func TestSource(t *testing.T) {
	content := bytes.Repeat([]byte("x"), 100_000)
	address := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/data":
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content)
		case "/huge":
			w.Header().Set("Content-Length", "1048577")
		case "/cut":
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "abc")
		default:
			http.NotFound(w, r)
		}
	})
	long := strings.Repeat("n", 256)
	tests := map[string]struct {
		settings map[string]any
		failure  string
		source   string
	}{
		"default name":     {map[string]any{"SourceURL": address + "/data"}, "", "source_file"},
		"named":            {map[string]any{"SourceURL": address + "/data", "SourceFilename": "in put.csv"}, "", "in put.csv"},
		"name is not text": {map[string]any{"SourceURL": address + "/data", "SourceFilename": 7}, "", "7"},
		"name only":        {map[string]any{"SourceFilename": "../ignored"}, "", ""},
		"empty URL":        {map[string]any{"SourceURL": ""}, "", ""},
		"name goes up":     {map[string]any{"SourceURL": address + "/data", "SourceFilename": "../../x"}, `SourceFilename "../../x" must be a plain file name, without a folder`, ""},
		"name is absolute": {map[string]any{"SourceURL": address + "/data", "SourceFilename": "/etc/passwd"}, `SourceFilename "/etc/passwd" must be a plain file name, without a folder`, ""},
		"name is dots":     {map[string]any{"SourceURL": address + "/data", "SourceFilename": ".."}, `SourceFilename ".." is not a file name`, ""},
		"name is long":     {map[string]any{"SourceURL": address + "/data", "SourceFilename": long}, "SourceFilename has 256 bytes, limit 255", ""},
		"name has a line":  {map[string]any{"SourceURL": address + "/data", "SourceFilename": "a\nb"}, `characters that a file name cannot have`, ""},
		"name is a list":   {map[string]any{"SourceURL": address + "/data", "SourceFilename": []string{"a/b"}}, `must be a plain file name`, ""},
		"not found":        {map[string]any{"SourceURL": address + "/missing?secret"}, "Download failed: HTTP 404 for " + address + "/missing", ""},
		"too large":        {map[string]any{"SourceURL": address + "/huge?secret"}, "1048577 bytes, limit 1048576", ""},
		"cut off":          {map[string]any{"SourceURL": address + "/cut?secret"}, "unexpected EOF", ""},
		"not a URL":        {map[string]any{"SourceURL": "http://%zz/secret"}, "SourceURL is not a URL", ""},
		"not text":         {map[string]any{"SourceURL": map[string]any{"a": 1}}, "URL", ""},
		"file":             {map[string]any{"SourceURL": "file:///etc/passwd"}, `URL scheme "file": only http and https are requested`, ""},
		"metadata":         {map[string]any{"SourceURL": "http://169.254.169.254/?secret"}, "link-local", ""},
		"output goes up":   {map[string]any{"OutputFilename": "../../x"}, `OutputFilename "../../x" must be a path inside of the item's directory`, ""},
		"output is beside": {map[string]any{"Outputs": []string{"/etc/passwd"}}, `Outputs "/etc/passwd" must be a path inside of the item's directory`, ""},
		"same names":       {map[string]any{"SourceURL": address + "/data", "OutputFilename": "source_file"}, `a source and an output are both called "source_file": give the output another name`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ran := false
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				ran = true
				require.Equal(t, test.source, job.Source)
				if job.Source != "" {
					got, err := job.Dir.ReadFile(job.Source)
					require.NoError(t, err)
					require.True(t, bytes.Equal(content, got))
				}
				return done(), nil
			}, executor.Config{})
			var last beacon.Progress
			result, err := b.Run(t.Context(), work(test.settings), func(p beacon.Progress) { last = p })
			require.NoError(t, err)
			require.Equal(t, test.failure == "", ran)
			if test.failure == "" {
				require.Equal(t, done().Outputs, result.Outputs)
				if test.source != "" {
					require.Equal(t, []string{"Downloading source: " + address + "/data", "Downloaded: " + test.source + " (97.7 KB)", "Command executed: done"}, result.Log)
					require.Equal(t, "Downloading source: 97.7 KB of 97.7 KB", last.Message)
				}
				return
			}
			require.Equal(t, -1, result.Outputs["ExitCode"])
			require.Equal(t, "", result.Outputs["Result"])
			printed := result.Outputs["StdOut"].(string)
			require.True(t, strings.HasPrefix(printed, "File transfer preparation failed: "), printed)
			require.Contains(t, printed, test.failure)
			text := strings.TrimPrefix(printed, "File transfer preparation failed: ")
			require.Equal(t, "File transfer error: "+text, result.Log[len(result.Log)-1])
			require.NotContains(t, text, "secret")
			require.NotContains(t, text, b.folder)
		})
	}
}

func TestOutput(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte("secret"), 0o600))
	write := func(content string) func(*beacon.Job) error {
		return func(job *beacon.Job) error { return job.Dir.WriteFile(job.Output, []byte(content), 0o600) }
	}
	returned := func(name, content string) beacon.Outputs {
		return beacon.Outputs{"StdOut": "done\n", "ExitCode": 0, "Result": "done\n", "OutputFilename": name,
			"OutputData": base64.StdEncoding.EncodeToString([]byte(content)), "OutputSize": int64(len(content))}
	}
	failed := func(why string) beacon.Outputs {
		return beacon.Outputs{"StdOut": "done\n\nOutput collection failed: " + why, "ExitCode": -1, "Result": "done\n"}
	}
	kept := done().Outputs
	tests := map[string]struct {
		settings map[string]any
		do       func(*beacon.Job) error
		outputs  beacon.Outputs
		log      string
	}{
		"collected": {map[string]any{"OutputFilename": "out.txt", "ReturnOutputAsBase64": true},
			write(strings.Repeat("o", 149)), returned("out.txt", strings.Repeat("o", 149)), "Output collected: out.txt (149 B)"},
		"asked for as text": {map[string]any{"OutputFilename": "out.txt", "ReturnOutputAsBase64": "true"},
			write("o"), returned("out.txt", "o"), "Output collected: out.txt (1 B)"},
		"not asked for, yet not lost": {map[string]any{"OutputFilename": "out.txt"},
			write("o"), returned("out.txt", "o"), "Output collected: out.txt (1 B)"},
		"name of workflows":  {map[string]any{"OutputFile": "out.txt"}, write("o"), returned("out.txt", "o"), "Output collected: out.txt (1 B)"},
		"empty":              {map[string]any{"OutputFilename": "out.txt"}, write(""), returned("out.txt", ""), "Output collected: out.txt (0 B)"},
		"binary":             {map[string]any{"OutputFilename": "b"}, write("\x00\xff\xfe"), returned("b", "\x00\xff\xfe"), "Output collected: b (3 B)"},
		"as much as fits":    {map[string]any{"OutputFilename": "b"}, write(strings.Repeat("b", 4096)), returned("b", strings.Repeat("b", 4096)), "Output collected: b (4.0 KB)"},
		"refused":            {map[string]any{"OutputFilename": "b", "ReturnOutputAsBase64": "false"}, write("b"), kept, "Output not returned: b (1 B), because ReturnOutputAsBase64 is false"},
		"refused, too large": {map[string]any{"OutputFilename": "b", "ReturnOutputAsBase64": false}, write(strings.Repeat("b", 4097)), kept, "Output not returned: b (4.0 KB), because ReturnOutputAsBase64 is false"},
		"not there":          {map[string]any{"OutputFilename": "b"}, func(*beacon.Job) error { return nil }, failed("Output file not found: b"), "Output file not found: b"},
		"refused, not there": {map[string]any{"OutputFilename": "b", "ReturnOutputAsBase64": false}, func(*beacon.Job) error { return nil }, failed("Output file not found: b"), "Output file not found: b"},
		"too large": {map[string]any{"OutputFilename": "b"}, write(strings.Repeat("b", 4097)), failed("Output file b cannot be collected: 4.0 KB, the limit for a result is 4.0 KB; raise MaxOutputBytes in the worker's configuration"),
			"Output file b cannot be collected: 4.0 KB, the limit for a result is 4.0 KB; raise MaxOutputBytes in the worker's configuration"},
		"a link": {map[string]any{"OutputFilename": "b"}, func(job *beacon.Job) error { return job.Dir.Symlink(secret, "b") }, failed("Output file b cannot be collected: output b is not a regular file"),
			"Output file b cannot be collected: output b is not a regular file"},
		"a hard link": {map[string]any{"OutputFilename": "b"}, func(job *beacon.Job) error { return os.Link(secret, filepath.Join(job.Dir.Name(), "b")) }, failed("Output file b cannot be collected: output b is not a regular file"),
			"Output file b cannot be collected: output b is not a regular file"},
		"a directory": {map[string]any{"OutputFilename": "b"}, func(job *beacon.Job) error { return job.Dir.Mkdir("b", 0o700) }, failed("Output file b cannot be collected: output b is not a regular file"),
			"Output file b cannot be collected: output b is not a regular file"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			shared := done().Outputs // which a provider may hand out again and again
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				return beacon.Result{Outputs: shared, Log: []string{"Command executed: done"}}, test.do(job)
			}, executor.Config{MaxOutput: 4096})
			result, err := b.Run(t.Context(), work(test.settings), nil)
			require.NoError(t, err)
			require.Equal(t, test.outputs, result.Outputs)
			require.Equal(t, []string{"Command executed: done", test.log}, result.Log)
			require.Equal(t, done().Outputs, shared)
		})
	}
}

// What is too large for memory leaves as a file, which belongs to the result.
func TestLargeOutput(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 1<<16)
	b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		return done(), job.Dir.WriteFile(job.Output, []byte(content), 0o400)
	}, executor.Config{})
	result, err := b.Run(t.Context(), work(map[string]any{"OutputFilename": "out.bin", "ReturnOutputAsBase64": true}), nil)
	require.NoError(t, err)
	require.Equal(t, "Output collected: out.bin (1.0 MB)", result.Log[1])
	require.EqualValues(t, len(content), result.Outputs["OutputSize"])
	f, ok := result.Outputs["OutputData"].(beacon.File)
	require.True(t, ok)
	require.Equal(t, beacon.File{Path: f.Path, Size: int64(len(content)), Name: "out.bin"}, f)
	require.Equal(t, []string{f.Path}, b.items(t))
	raw, err := json.Marshal(result.Outputs)
	require.NoError(t, err)
	var outputs map[string]any
	require.NoError(t, json.Unmarshal(raw, &outputs))
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte(content)), outputs["OutputData"])
	require.NoError(t, f.Remove())
}

func TestOutputNames(t *testing.T) {
	for name, settings := range map[string]map[string]any{
		"goes up":      {"OutputFilename": "../../etc/passwd"},
		"is absolute":  {"OutputFilename": "/etc/passwd"},
		"in workflows": {"OutputFile": "../x"},
		"a drive":      {"OutputFilename": "c:x"},
		"not text":     {"OutputFilename": map[string]any{"a": "b/c"}},
		"control":      {"OutputFilename": "a\x00b"},
		"a long list":  {"Outputs": json.RawMessage("[" + strings.Repeat("1,", 3<<20) + "1]")},
		"too many":     {"Outputs": []string{strings.Repeat("{a,b}", 9)}},
		"nested":       {"Outputs": []string{strings.Repeat("{a,{b,c}}", 20) + "b"}},
		"not a truth":  {"OutputFilename": "a", "ReturnOutputAsBase64": "perhaps"},
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) {
				t.Error("the provider runs")
				return done(), nil
			}, executor.Config{})
			result, err := b.Run(t.Context(), work(settings), nil)
			require.NoError(t, err)
			require.Equal(t, -1, result.ExitCode())
			require.Contains(t, result.Outputs["StdOut"], "File transfer preparation failed: ")
		})
	}
}

// A provider may say what its file is called, but not that it belongs elsewhere.
func TestOutputsThatNameOthersFiles(t *testing.T) {
	for name, outputs := range map[string]struct {
		given beacon.Outputs
		kept  bool
	}{
		"goes up":            {beacon.Outputs{"OutputFilename": "../../etc/cron.d/x"}, false},
		"as JSON":            {beacon.Outputs{"OutputFilename": json.RawMessage(`"..\u002f..\u002fx"`)}, false},
		"absolute":           {beacon.Outputs{"OutputFilename": "/etc/passwd"}, false},
		"Windows":            {beacon.Outputs{"OutputFilename": `..\x`}, false},
		"a drive":            {beacon.Outputs{"OutputFilename": "c:x"}, false},
		"control":            {beacon.Outputs{"OutputFilename": "a\x00b"}, false},
		"not text":           {beacon.Outputs{"OutputFilename": json.RawMessage(`["x"]`)}, false},
		"one of several":     {beacon.Outputs{"OutputFiles": json.RawMessage(`[{"Filename":"a"},{"Filename":"../b","Data":"OutputData2"}]`)}, false},
		"not a list":         {beacon.Outputs{"OutputFiles": json.RawMessage(`{"Filename":"a"}`)}, false},
		"a name":             {beacon.Outputs{"OutputFilename": "a.txt"}, true},
		"a name as JSON":     {beacon.Outputs{"OutputFilename": json.RawMessage(`"a.txt"`)}, true},
		"several with names": {beacon.Outputs{"OutputFiles": json.RawMessage(`[{"Filename":"a"},{"Filename":"b/c"}]`)}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) {
				return beacon.Result{Outputs: outputs.given}, nil
			}, executor.Config{})
			result, err := b.Run(t.Context(), work(nil), nil)
			require.NoError(t, err)
			if outputs.kept {
				require.Equal(t, outputs.given, result.Outputs)
				require.Empty(t, result.Log)
				return
			}
			require.Empty(t, result.Outputs)
			require.Contains(t, strings.Join(result.Log, ""), "does not name a file of the item")
		})
	}
}

func TestProvider(t *testing.T) {
	yes := errors.New("provider says no")
	tests := map[string]struct {
		run    provider
		result beacon.Result
		code   beacon.Code
		err    string
	}{
		"nothing at all": {func(context.Context, *beacon.Job) (beacon.Result, error) { return beacon.Result{}, nil },
			beacon.Result{Outputs: beacon.Outputs{"ExitCode": -1, "StdOut": "\nOutput collection failed: Output file not found: o"}, Log: []string{"Output file not found: o"}}, "", ""},
		"no outputs, but a file": {func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			return beacon.Result{}, job.Dir.WriteFile("o", []byte("x"), 0o600)
		}, beacon.Result{Outputs: beacon.Outputs{"OutputFilename": "o", "OutputData": "eA==", "OutputSize": int64(1)}, Log: []string{"Output collected: o (1 B)"}}, "", ""},
		"exit code": {func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3}, Log: []string{"l"}}, job.Dir.WriteFile("o", []byte("x"), 0o600)
		}, beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3, "OutputFilename": "o", "OutputData": "eA==", "OutputSize": int64(1)}, Log: []string{"l", "Output collected: o (1 B)"}}, "", ""},
		"exit code and no file": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3, "StdOut": "no"}, Log: []string{"l"}}, nil
		}, beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3, "StdOut": "no"}, Log: []string{"l", "Output file not found: o"}}, "", ""},
		"error": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Log: []string{"l"}}, yes
		}, beacon.Result{Log: []string{"l"}}, beacon.Internal, "provider says no"},
		"panic": {func(context.Context, *beacon.Job) (beacon.Result, error) { panic("secret /host/path") },
			beacon.Result{}, beacon.Internal, "provider Test panicked"},
		"nil pointer": {func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			var missing *beacon.Job
			return beacon.Result{Log: []string{missing.Source}}, nil
		}, beacon.Result{}, beacon.Internal, "provider Test panicked"},
		"its own deadline": {func(context.Context, *beacon.Job) (beacon.Result, error) {
			return beacon.Result{}, fmt.Errorf("ask: %w", context.DeadlineExceeded)
		}, beacon.Result{}, beacon.Timeout, "ask: context deadline exceeded"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, test.run, executor.Config{})
			result, err := b.Run(t.Context(), work(map[string]any{"OutputFilename": "o"}), nil)
			require.Equal(t, test.result, result)
			require.Equal(t, test.code, beacon.CodeOf(err))
			if test.err != "" {
				require.EqualError(t, err, test.err)
			}
			if strings.Contains(test.err, "panicked") {
				require.Contains(t, b.log.String(), "executor_test.go", "the stack")
				require.Contains(t, b.log.String(), "wi-../../x")
			}
		})
	}
}

func TestEnd(t *testing.T) {
	wait := func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
		<-ctx.Done()
		return beacon.Result{Log: []string{"waited"}}, fmt.Errorf("wait: %w", ctx.Err())
	}
	t.Run("time of the item", func(t *testing.T) {
		item := work(nil)
		item.Timeout = 20 * time.Millisecond
		result, err := prepare(t, wait, executor.Config{}).Run(t.Context(), item, nil)
		require.EqualError(t, err, "the item ran longer than its limit of 20ms; raise its TimeoutMs")
		require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
		require.Equal(t, []string{"waited"}, result.Log)
	})
	t.Run("time of the configuration", func(t *testing.T) {
		_, err := prepare(t, wait, executor.Config{Timeout: 10 * time.Millisecond}).Run(t.Context(), work(nil), nil)
		require.ErrorContains(t, err, "limit of 10ms")
	})
	t.Run("cause of the caller", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		reason := beacon.Errorf(beacon.Canceled, "the worker stops")
		_, err := prepare(t, func(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
			cancel(reason)
			return wait(ctx, job)
		}, executor.Config{}).Run(ctx, work(nil), nil)
		require.Equal(t, reason, err)
	})
	t.Run("another error at the end", func(t *testing.T) {
		_, err := prepare(t, func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
			<-ctx.Done()
			return beacon.Result{}, beacon.Errorf(beacon.MemoryLimit, "too much memory")
		}, executor.Config{Timeout: time.Millisecond}).Run(t.Context(), work(nil), nil)
		require.EqualError(t, err, "too much memory")
	})
	t.Run("during the download", func(t *testing.T) {
		address := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
		item := work(map[string]any{"SourceURL": address})
		item.Timeout = 50 * time.Millisecond
		result, err := prepare(t, wait, executor.Config{}).Run(t.Context(), item, nil)
		require.NoError(t, err)
		require.Equal(t, "File transfer preparation failed: the item ran longer than its limit of 50ms; raise its TimeoutMs", result.Outputs["StdOut"])
	})
}

// local runs an item with local files whose provider writes what it reads, in
// capitals.
func local(t *testing.T, source, output string) (bench, beacon.Result) {
	t.Helper()
	b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		in := []byte("nothing")
		if job.Source != "" {
			var err error
			if in, err = job.Dir.ReadFile(job.Source); err != nil {
				return beacon.Result{}, err
			}
		}
		if job.Output == "" {
			return done(), nil
		}
		require.NotEqual(t, job.Source, job.Output)
		return done(), job.Dir.WriteFile(job.Output, bytes.ToUpper(in), 0o600)
	}, executor.Config{})
	result, err := b.RunLocal(t.Context(), work(nil), source, output, nil)
	require.NoError(t, err)
	return b, result
}

func TestLocal(t *testing.T) {
	tests := map[string]struct{ source, output string }{
		"both":                     {"in.txt", "out.txt"},
		"no source":                {"", "out.txt"},
		"no output":                {"in.txt", ""},
		"same name":                {"x/same", "y/same"},
		"same name, a default one": {"x/output_file", "y/output_file"},
		"the source itself":        {"same", "same"},
		"names we would not take":  {"a\nb", "c\td"},
		"names without meaning":    {"a\nb", "source_file"},
		"longest name":             {"in.txt", strings.Repeat("n", 255)},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			require.NoError(t, os.Mkdir(filepath.Join(folder, "x"), 0o700))
			require.NoError(t, os.Mkdir(filepath.Join(folder, "y"), 0o700))
			source, output, want := "", "", "NOTHING"
			if test.source != "" {
				source, want = filepath.Join(folder, test.source), "INPUT"
				require.NoError(t, os.WriteFile(source, []byte("input"), 0o600))
			}
			if test.output != "" {
				output = filepath.Join(folder, test.output)
			}
			_, result := local(t, source, output)
			require.Equal(t, 0, result.ExitCode(), "%v", result)
			if output == "" {
				require.NotContains(t, result.Outputs, "OutputFilename")
				return
			}
			got, err := os.ReadFile(output)
			require.NoError(t, err)
			require.Equal(t, want, string(got))
			require.Equal(t, filepath.Base(output), result.Outputs["OutputFilename"])
			require.EqualValues(t, len(want), result.Outputs["OutputSize"])
			require.NotContains(t, result.Outputs, "OutputData")
			left, err := filepath.Glob(filepath.Join(filepath.Dir(output), ".beacon-*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestLocalFails(t *testing.T) {
	folder := t.TempDir()
	_, result := local(t, filepath.Join(folder, "missing"), "")
	require.Equal(t, -1, result.ExitCode())
	require.Contains(t, result.Outputs["StdOut"], "File transfer preparation failed: open ")
	require.Contains(t, result.Outputs["StdOut"], "missing")

	for _, output := range []string{folder, filepath.Join(folder, "no", "such", "folder")} {
		_, result = local(t, "", output)
		require.Equal(t, -1, result.ExitCode())
		last := result.Log[len(result.Log)-1]
		require.Contains(t, last, "cannot be collected: write "+output+": ", "not that the provider wrote nothing")
	}
}

func TestLocalOverOtherFiles(t *testing.T) {
	folder := t.TempDir()
	t.Run("a file keeps its permissions", func(t *testing.T) {
		old := filepath.Join(folder, "old")
		require.NoError(t, os.WriteFile(old, []byte("a longer text than the new one"), 0o640))
		local(t, "", old)
		got, err := os.ReadFile(old)
		require.NoError(t, err)
		require.Equal(t, "NOTHING", string(got))
		info, err := os.Stat(old)
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o640), info.Mode().Perm())
	})
	t.Run("a link is written through", func(t *testing.T) {
		target, link := filepath.Join(folder, "target"), filepath.Join(folder, "link")
		require.NoError(t, os.Symlink(target, link))
		for range 2 { // dangling at first
			_, result := local(t, "", link)
			require.Equal(t, 0, result.ExitCode())
			got, err := os.ReadFile(target)
			require.NoError(t, err)
			require.Equal(t, "NOTHING", string(got))
		}
		info, err := os.Lstat(link)
		require.NoError(t, err)
		require.Equal(t, os.ModeSymlink, info.Mode().Type())
	})
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 149: "149 B", 1023: "1023 B", 1024: "1.0 KB", 100_000: "97.7 KB", 1 << 20: "1.0 MB", 3 << 29: "1.50 GB", 1 << 40: "1024.00 GB", 1 << 62: "4294967296.00 GB",
	} {
		require.Equal(t, want, executor.Size(n))
	}
}
