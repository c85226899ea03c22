package executor_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
)

func sha(text string) string {
	digest := sha256.Sum256([]byte(text))
	return hex.EncodeToString(digest[:])
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestSources(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	type object = map[string]any
	tests := map[string]struct {
		settings object
		want     []string // names and contents, in order
		fails    string
	}{
		"one by the usual name": {object{"SourceURL": address + "/a", "SourceSHA256": sha("/a")}, []string{"source_file", "/a"}, ""},
		"two": {object{"Sources": []object{{"URL": address + "/a", "Filename": "x.csv"}, {"URL": address + "/b", "SHA256": strings.ToUpper(sha("/b"))}}},
			[]string{"x.csv", "/a", "b", "/b"}, ""},
		"as text, on the wire": {object{"Sources": `[{"URL": "` + address + `/a"}, "` + address + `/b?q=1"]`}, []string{"a", "/a", "b", "/b"}, ""},
		"after the one":        {object{"SourceURL": address + "/a", "SourceFilename": "first", "Sources": []string{address + "/b"}}, []string{"first", "/a", "b", "/b"}, ""},
		"without a name":       {object{"Sources": []string{address + "/", address + "/..", address}}, []string{"source_file_1", "/", "source_file_2", "/..", "source_file_3", "/"}, ""},
		"none":                 {object{"Sources": "[]"}, nil, ""},

		"wrong digest":     {object{"SourceURL": address + "/a", "SourceSHA256": sha("/b")}, nil, "the source has SHA-256"},
		"no digest":        {object{"SourceURL": address + "/a", "SourceSHA256": "abc"}, nil, "is not a SHA-256 digest"},
		"not a list":       {object{"Sources": "x"}, nil, "setting Sources is not a JSON array"},
		"not entries":      {object{"Sources": []int{1}}, nil, "entry 1 of Sources"},
		"unknown key":      {object{"Sources": []object{{"URL": address, "Name": "x"}}}, nil, "entry 1 of Sources"},
		"no URL":           {object{"Sources": []object{{"Filename": "x"}}}, nil, "entry 1 of Sources"},
		"goes up":          {object{"Sources": []object{{"URL": address, "Filename": "../x"}}}, nil, "must be a plain file name"},
		"twice":            {object{"Sources": []object{{"URL": address, "Filename": "x"}, {"URL": address, "Filename": "x"}}}, nil, `two sources are called "x"`},
		"also an output":   {object{"Sources": []object{{"URL": address, "Filename": "x"}}, "Outputs": []string{"x"}}, nil, `both called "x"`},
		"a folder of ours": {object{"Sources": []object{{"URL": address, "Filename": "x"}}, "Outputs": []string{"x/y"}}, nil, "there is no place for the output x/y"},
		"too many":         {object{"Sources": strings.Split(strings.Repeat("u,", 101), ",")[:101]}, nil, "101 entries, limit 100"},
		"universal":        {object{"SourceURL": ">B/File/x"}, nil, "this beacon resolves none"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				var got []string
				for _, name := range job.Sources {
					content, err := job.Dir.ReadFile(name)
					require.NoError(t, err)
					got = append(got, name, string(content))
				}
				require.Equal(t, tt.want, got)
				if len(got) > 0 {
					require.Equal(t, got[0], job.Source)
				}
				return done(), nil
			}, executor.Config{})
			result, err := b.Run(t.Context(), work(tt.settings), nil)
			require.NoError(t, err)
			if tt.fails == "" {
				require.Equal(t, 0, result.ExitCode(), result.Log)
				return
			}
			require.Equal(t, -1, result.ExitCode())
			require.Contains(t, result.Outputs["StdOut"], tt.fails)
		})
	}
}

func TestOutputs(t *testing.T) {
	type object = map[string]any
	written := map[string]string{"a.csv": "A", "b.csv": "BB", "out/c.csv": "C", "out/deep/d.png": "D", "odd [1].txt": "odd"}
	described := func(entries ...any) []executor.Collected {
		var all []executor.Collected
		for i := 0; i < len(entries); i += 3 {
			all = append(all, executor.Collected{Filename: entries[i].(string), Size: int64(entries[i+1].(int)), Data: entries[i+2].(string)})
		}
		return all
	}
	tests := map[string]struct {
		settings object
		outputs  beacon.Outputs // without StdOut, ExitCode and Result
		fails    string
	}{
		"one as ever":      {object{"OutputFilename": "a.csv"}, beacon.Outputs{"OutputData": b64("A"), "OutputFilename": "a.csv", "OutputSize": int64(1)}, ""},
		"one by the list":  {object{"Outputs": []string{"a.csv"}}, beacon.Outputs{"OutputData": b64("A"), "OutputFilename": "a.csv", "OutputSize": int64(1)}, ""},
		"one in a folder":  {object{"OutputFilename": "out/c.csv"}, beacon.Outputs{"OutputData": b64("C"), "OutputFilename": "out/c.csv", "OutputSize": int64(1)}, ""},
		"an odd name":      {object{"OutputFilename": "odd [1].txt"}, beacon.Outputs{"OutputData": b64("odd"), "OutputFilename": "odd [1].txt", "OutputSize": int64(3)}, ""},
		"two":              {object{"Outputs": `["b.csv", {"Filename": "a.csv"}]`}, beacon.Outputs{"OutputData": b64("BB"), "OutputData2": b64("A"), "OutputFilename": "b.csv", "OutputSize": int64(2), "OutputFiles": described("b.csv", 2, "OutputData", "a.csv", 1, "OutputData2")}, ""},
		"of one folder":    {object{"Outputs": []string{"*.csv"}}, beacon.Outputs{"OutputData": b64("A"), "OutputData2": b64("BB"), "OutputFilename": "a.csv", "OutputSize": int64(1), "OutputFiles": described("a.csv", 1, "OutputData", "b.csv", 2, "OutputData2")}, ""},
		"of all folders":   {object{"Outputs": []string{"**/*.{png,gif}", "out/*"}}, beacon.Outputs{"OutputData": b64("D"), "OutputData2": b64("C"), "OutputFilename": "out/deep/d.png", "OutputSize": int64(1), "OutputFiles": described("out/deep/d.png", 1, "OutputData", "out/c.csv", 1, "OutputData2")}, ""},
		"said twice":       {object{"OutputFilename": "a.csv", "Outputs": []string{"a.csv", "a*"}}, beacon.Outputs{"OutputData": b64("A"), "OutputFilename": "a.csv", "OutputSize": int64(1), "OutputFiles": described("a.csv", 1, "OutputData")}, ""},
		"optional, absent": {object{"Outputs": []object{{"Filename": "x", "Optional": true}, {"Filename": "*.x", "Optional": true}}}, beacon.Outputs{"OutputFiles": []executor.Collected{}}, ""},
		"refused":          {object{"Outputs": []string{"*.csv"}, "ReturnOutputAsBase64": "false"}, beacon.Outputs{}, ""},

		"absent":          {object{"Outputs": []string{"a.csv", "x"}}, nil, "Output file not found: x"},
		"nothing matches": {object{"Outputs": []string{"*.x"}}, nil, "Output file not found: *.x"},
		"links":           {object{"Outputs": []string{"link"}}, nil, "output link is not a regular file"},
		"too large":       {object{"Outputs": []string{"a.csv", "large"}}, nil, "the limit for a result is 1.0 KB"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				for name, content := range written {
					require.NoError(t, job.Dir.MkdirAll(filepath.Dir(name), 0o700))
					require.NoError(t, job.Dir.WriteFile(name, []byte(content), 0o600))
				}
				require.NoError(t, job.Dir.WriteFile("large", make([]byte, 1025), 0o600))
				require.NoError(t, job.Dir.Symlink("/etc/passwd", "link"))
				return done(), nil
			}, executor.Config{MaxOutput: 1024})
			result, err := b.Run(t.Context(), work(tt.settings), nil)
			require.NoError(t, err)
			if tt.fails != "" {
				require.Equal(t, -1, result.ExitCode())
				require.Contains(t, result.Outputs["StdOut"], "\nOutput collection failed: ")
				require.Contains(t, result.Log[len(result.Log)-1], tt.fails)
				require.NotContains(t, result.Outputs, "OutputData")
				return
			}
			for _, name := range []string{"StdOut", "ExitCode", "Result"} {
				require.Contains(t, result.Outputs, name)
				delete(result.Outputs, name)
			}
			require.Equal(t, tt.outputs, result.Outputs)
		})
	}
}

func TestWrongOutputs(t *testing.T) {
	for name, setting := range map[string]any{
		"not a list": "x", "not names": []int{1}, "no name": []string{""}, "goes up": []string{"../x"}, "up in a pattern": []string{"../*"},
		"absolute": []string{"/etc/passwd"}, "absolute pattern": []string{"/etc/*"}, "not a pattern": []string{"[a"},
		"long": []string{strings.Repeat("*", 1025)}, "empty part": []string{"a//b"}, "too many": strings.Split(strings.Repeat("u,", 101), ",")[:101],
	} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) {
				t.Error("the provider runs")
				return done(), nil
			}, executor.Config{})
			result, err := b.Run(t.Context(), work(map[string]any{"Outputs": setting}), nil)
			require.NoError(t, err)
			require.Equal(t, -1, result.ExitCode())
		})
	}
}

// An item of a workflow has its output sent beside of the result, if its server
// takes that.
func TestOutputOfAWorkflow(t *testing.T) {
	for name, tt := range map[string]struct {
		wish             any
		file, upload, ok bool
	}{"not said": {nil, true, true, false}, "as base64": {true, false, false, false}, "refused": {"false", true, true, true}} {
		t.Run(name, func(t *testing.T) {
			b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				return done(), job.Dir.WriteFile("a", []byte("A"), 0o600)
			}, executor.Config{})
			item := work(map[string]any{"OutputFilename": "a"})
			if tt.wish != nil {
				item = work(map[string]any{"OutputFilename": "a", "ReturnOutputAsBase64": tt.wish})
			}
			item.OperationHash = "OPR-1"
			result, err := b.Run(t.Context(), item, nil)
			require.NoError(t, err)
			f, isFile := result.Outputs["OutputData"].(beacon.File)
			require.Equal(t, tt.file, isFile)
			if isFile {
				require.Equal(t, tt.upload, f.Upload)
				require.Equal(t, tt.ok, f.Optional)
				require.NoError(t, f.Remove())
			}
		})
	}
}

func TestUniversalAddress(t *testing.T) {
	address := serve(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("local"), 0o600))
	cfg := executor.Config{Resolve: func(_ context.Context, tenant, address2 string) (string, *os.File, error) {
		require.Equal(t, beacon.DefaultTenant, tenant)
		switch address2 {
		case ">B/File/local":
			f, err := os.Open(path)
			return "", f, err
		case ">B/File/remote":
			return address + "/remote", nil, nil
		}
		return "", nil, fs.ErrNotExist
	}}
	for url, want := range map[string]string{">B/File/local": "local", ">B/File/remote": "/remote", ">B/File/none": ""} {
		b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			content, err := job.Dir.ReadFile("source_file")
			require.NoError(t, err)
			require.Equal(t, want, string(content))
			return done(), nil
		}, cfg)
		result, err := b.Run(t.Context(), work(map[string]any{"SourceURL": url}), nil)
		require.NoError(t, err)
		if want == "" {
			require.Contains(t, result.Outputs["StdOut"], "resolve >B/File/none: file does not exist")
			continue
		}
		require.Equal(t, 0, result.ExitCode())
		if want == "local" {
			require.Equal(t, []string{"Copying source: >B/File/local", "Copied: source_file (5 B)", "Command executed: done"}, result.Log)
		}
	}
}

// noHTTP keeps the fuzzer from calling anybody.
var noHTTP = regexp.MustCompile(`(?i)http`)

func FuzzRequest(f *testing.F) {
	f.Add(`[{"URL":"http://127.0.0.1:1/a"}]`, `["*.csv",{"Filename":"x/y"}]`, "../x", "a/b")
	f.Add(`["u"]`, `["[a"]`, "", `{"a":1}`)
	f.Fuzz(func(t *testing.T, sources, outputs, source, output string) {
		b := prepare(t, func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
			for _, name := range job.Outputs {
				require.True(t, filepath.IsLocal(filepath.FromSlash(name)))
			}
			return done(), nil
		}, executor.Config{Resolve: func(context.Context, string, string) (string, *os.File, error) { return "", nil, fs.ErrNotExist }})
		_, err := b.Run(t.Context(), work(map[string]any{
			"Sources": noHTTP.ReplaceAllString(sources, ">"), "Outputs": outputs, "SourceFilename": source, "OutputFilename": output,
		}), nil)
		require.NoError(t, err)
	})
}
