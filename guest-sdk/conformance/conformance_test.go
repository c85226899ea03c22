// Package conformance holds one provider, written with every SDK, and one table
// of what it is to do: each SDK must give the same results.
//
//	go test -v -run TestConformance ./guest-sdk/conformance
//
// prints the table. Languages whose compiler is missing are skipped, unless
// BEACON_REQUIRE_TOOLS=1; BEACON_CONFORMANCE_STREAM is the size in bytes of the
// file that is streamed, by default 64 MiB.
package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A conformanceCase is one item and what must become of it.
type conformanceCase struct {
	name     string
	action   string
	settings map[string]any
	source   []byte // nil is none
	stream   *large // the source, and what the output file must be
	output   bool   // whether an output file is expected
	granted  bool   // whether the broker is there
	timeout  time.Duration
	cancel   bool // once it reports progress

	want outcome
	// check looks at what is too large, or too various, for want.
	check func(t *testing.T, got outcome)
}

// An outcome is what a host sees of an item.
type outcome struct {
	outputs  map[string]any // as they would be after JSON
	code     beacon.Code    // of the error
	message  string         // of the error; in want, how it begins
	log      []string       // in want, nil is any
	progress []beacon.Progress
	file     string // the output file
	memory   int64  // the most that the guest had, in bytes
}

var errCancelled = errors.New("somebody lost interest")

// long is a text of ten million bytes, with something in it that takes escaping.
var long = strings.Repeat("0123456789abcdefgh\n\u00e9\"\\\u20ac", 10_000_000/26+1)

func streamSize(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("BEACON_CONFORMANCE_STREAM")
	if text == "" {
		return 64<<20 + 321
	}
	size, err := strconv.ParseInt(text, 10, 64)
	require.NoError(t, err, "BEACON_CONFORMANCE_STREAM")
	return size
}

func cases(t *testing.T) []conformanceCase {
	t.Helper()
	echo := func(changes map[string]any) map[string]any {
		out := map[string]any{"Result": "x", "Size": 1.0, "Count": 1.0, "Factor": 1.5, "Flag": true, "Plain": false, "Choice": "red"}
		maps.Copy(out, changes)
		return out
	}
	url := "https://api.example.com/v1"
	head := func(status int, path string, length int) map[string]any {
		return map[string]any{
			"Status": float64(status), "URL": url + path, "Proto": "HTTP/1.1", "Length": float64(length),
			"Headers": map[string]any{"Content-Type": []any{"text/plain"}, "X-Two": []any{"1", "2"}},
		}
	}
	response := func(status int, path, body string) map[string]any {
		return map[string]any{
			"Status": float64(status), "Type": "text/plain", "None": "", "Result": body, "HasOther": false, "Head": head(status, path, len(body)),
		}
	}
	list := []conformanceCase{
		// Settings.
		{name: "defaults", action: "Echo", settings: map[string]any{"Text": "x"}, want: outcome{outputs: echo(nil)}},
		{name: "default action", settings: map[string]any{"Text": "x"}, want: outcome{outputs: echo(nil)}},
		{name: "typed settings", action: "Echo", settings: map[string]any{"Text": "x", "Count": -3, "Factor": 0.25, "Flag": false, "Plain": true, "Choice": "green"},
			want: outcome{outputs: echo(map[string]any{"Count": -3.0, "Factor": 0.25, "Flag": false, "Plain": true, "Choice": "green"})}},
		{name: "settings as text", action: "Echo", settings: map[string]any{"Text": "x", "Count": "10.0", "Factor": "-1e3", "Flag": "F", "Plain": "1"},
			want: outcome{outputs: echo(map[string]any{"Count": 10.0, "Factor": -1000.0, "Flag": false, "Plain": true})}},
		{name: "settings left empty", action: "Echo", settings: map[string]any{"Text": "x", "Count": "", "Factor": nil, "Flag": "", "Choice": ""}, want: outcome{outputs: echo(nil)}},
		{name: "text of everything", action: "Echo", settings: map[string]any{"Text": "quote \" \\ \n\t\x01 é € 😀 \u2028"},
			want: outcome{outputs: echo(map[string]any{"Result": "quote \" \\ \n\t\x01 é € 😀 \u2028", "Size": 29.0})}},
		{name: "text with a zero", action: "Echo", settings: map[string]any{"Text": "a\x00b"}, want: outcome{outputs: echo(map[string]any{"Result": "a\x00b", "Size": 3.0})}},
		{name: "text that is JSON", action: "Echo", settings: map[string]any{"Text": map[string]any{"a": []any{1, true}}},
			want: outcome{outputs: echo(map[string]any{"Result": `{"a":[1,true]}`, "Size": 14.0})}},
		{name: "10 MB setting", action: "Echo", settings: map[string]any{"Text": long}, want: outcome{outputs: echo(map[string]any{"Result": long, "Size": float64(len(long))})}},
		{name: "no settings", action: "Echo", want: outcome{code: beacon.Failed, message: "setting Text is missing: what to say"}},
		{name: "empty setting", action: "Echo", settings: map[string]any{"Text": ""}, want: outcome{code: beacon.Failed, message: "setting Text is missing: what to say"}},
		{name: "no option", action: "Echo", settings: map[string]any{"Text": "x", "Choice": "blue"},
			want: outcome{code: beacon.Failed, message: `setting Choice is "blue": want one of red, green`}},
		{name: "unknown action", action: "Nothing", want: outcome{code: beacon.Failed, message: `unknown action "Nothing": Conformance has Echo, Item, Report`}},
	}
	for name, bad := range map[string]struct {
		setting, value, want string
	}{
		"word for a number":         {"Factor", "x\"y", `setting Factor is "x\"y": want a number`},
		"no number":                 {"Factor", "NaN", `setting Factor is "NaN": want a number`},
		"infinity":                  {"Factor", "inf", `setting Factor is "inf": want a number`},
		"number too large":          {"Factor", "1e999", `setting Factor is "1e999": want a number`},
		"hexadecimal number":        {"Factor", "0x10", `setting Factor is "0x10": want a number`},
		"fraction":                  {"Count", "1.5", `setting Count is "1.5": want a whole number`},
		"whole number too large":    {"Count", "9223372036854775808", `setting Count is "9223372036854775808": want a whole number`},
		"space":                     {"Count", " 1", `setting Count is " 1": want a whole number`},
		"neither true nor false":    {"Flag", "yes", `setting Flag is "yes": want true or false`},
		"text that is far too long": {"Flag", strings.Repeat("y", 100), `setting Flag is "` + strings.Repeat("y", 80) + `"…: want true or false`},
	} {
		list = append(list, conformanceCase{name: name, action: "Echo", settings: map[string]any{"Text": "x", bad.setting: bad.value},
			want: outcome{code: beacon.Failed, message: bad.want}})
	}
	slices.SortStableFunc(list[13:], func(a, b conformanceCase) int { return strings.Compare(a.name, b.name) })

	stream := newLarge(t, streamSize(t))
	lines := slices.Concat([]string{"debug: fine", "first", "second", "warning: careful: \"é\" 😀"}, slices.Repeat([]string{"0123456789"}, 10_000), []string{"the end"})
	list = append(list,
		// The item and what it reports.
		conformanceCase{name: "work item", action: "Item", settings: map[string]any{"Undeclared": 7, "B": nil}, source: []byte("source"), output: true, timeout: time.Hour, want: outcome{outputs: map[string]any{
			"Hash": "wi-1", "Capability": "Conformance", "Action": "Item", "OperationHash": "op-\"1\"", "RunID": "run-1", "Attempt": 2.0,
			"SourcePath": "/work/in.txt", "OutputPath": "/work/out.txt", "Settings": map[string]any{"Undeclared": 7.0, "B": nil},
			"Undeclared": "7", "HasUndeclared": true, "HasNothing": false, "Host": "example.com", "HasNoConfig": false,
			"Config": map[string]any{"Host": "example.com"}, "Deadline": true, "Cancelled": false, "Clock": true, "Monotonic": true,
			"Random": true, "Initialized": true, "Reseeded": true, "Items": 1.0,
		}, log: []string{"the end"}}},
		conformanceCase{name: "no deadline, no files", action: "Item", want: outcome{}, check: func(t *testing.T, got outcome) {
			require.Equal(t, false, got.outputs["Deadline"])
			require.Equal(t, "", got.outputs["SourcePath"])
			require.Equal(t, "", got.outputs["OutputPath"])
			require.Equal(t, map[string]any{}, got.outputs["Settings"])
			require.Equal(t, 1.0, got.outputs["Items"], "an item left something behind")
		}},
		conformanceCase{name: "reports", action: "Report", want: outcome{
			outputs: map[string]any{
				"Text": "quote \" backslash \\ line\n tab\t é € 😀 \x01", "Replaced": 2.0, "Int": -42.0, "Big": 4503599627370497.0, "Float": 0.1, "Tiny": 1.5e-7, "Huge": 1e300,
				"Yes": true, "No": false, "Null": nil, "Bytes": "AP8QIA==", "Texts": []any{"a", "b\"c", ""}, "JSON": map[string]any{"a": []any{1.0, 2.0, map[string]any{"b": nil}}},
				"StdOut": "for people", "Result": 7.0,
			},
			progress: []beacon.Progress{
				{Percent: 25, HasPercent: true, Message: "a quarter"}, {Message: "wondering"},
				{Percent: 25, HasPercent: true, Message: "the second", Step: 2, TotalSteps: 4},
			},
			log: lines,
		}},
		conformanceCase{name: "output that is none", action: "BadOutput", want: outcome{code: beacon.Failed, message: "set output Bad: it is not a finite number, which JSON cannot say"}},
		conformanceCase{name: "progress flood", action: "Flood", settings: map[string]any{"Times": 20_000}, want: outcome{outputs: map[string]any{"Result": 20_000.0}}, check: func(t *testing.T, got outcome) {
			require.Len(t, got.progress, 20_000)
			require.Equal(t, "item 19999", got.progress[19_999].Message)
		}},

		// Files.
		conformanceCase{name: "streams", action: "Copy", stream: stream, output: true, want: outcome{
			outputs: map[string]any{"Bytes": float64(stream.size), "Size": float64(stream.size), "Hash": float64(stream.hash)},
		}, check: func(t *testing.T, got outcome) {
			require.Equal(t, beacon.Progress{Percent: 100, HasPercent: true, Message: "copying"}, got.progress[len(got.progress)-1])
			t.Logf("%d MiB in and out with %.1f MiB of memory", stream.size>>20, float64(got.memory)/(1<<20))
			require.LessOrEqual(t, got.memory, int64(streamMemory), "bytes of memory, however large the file is")
		}},
		conformanceCase{name: "empty stream", action: "Copy", source: []byte{}, output: true, want: outcome{outputs: map[string]any{"Bytes": 0.0, "Size": 0.0, "Hash": 2166136261.0}}},
		conformanceCase{name: "no source", action: "Copy", output: true, want: outcome{code: beacon.Failed, message: "the item has no source file: give it one (setting SourceURL, or --source)"}},
		conformanceCase{name: "no output", action: "Copy", source: []byte("x"), want: outcome{code: beacon.Failed, message: "the item names no output file: give it one (setting OutputFilename, or --output)"}},
		conformanceCase{name: "a whole file", action: "Text", source: []byte("all é of it"), output: true, want: outcome{outputs: map[string]any{"Result": "all é of it"}, file: "all é of it"}},
		conformanceCase{name: "invalid UTF-8", action: "Text", source: []byte("a\xffb\xe2\x82c\xc0\xaf\xed\xa0\x80\xf0\x9f\x98\x80\xc3"), output: true,
			want: outcome{outputs: map[string]any{"Result": "a\ufffdb\ufffd\ufffdc\ufffd\ufffd\ufffd\ufffd\ufffd😀\ufffd"}, file: "a\xffb\xe2\x82c\xc0\xaf\xed\xa0\x80\xf0\x9f\x98\x80\xc3"}},
		conformanceCase{name: "file functions", action: "Files", source: []byte("source"), want: outcome{outputs: map[string]any{
			"Size": 11.0, "Position": 6.0, "Text": "world", "List": []any{map[string]any{"Name": "2.txt", "Size": 11.0, "Directory": false}},
			"Missing": "not_found", "Exclusive": "exists", "Source": "denied", "Outside": true, "NotEmpty": "exists", "Removed": "ok", "RemovedDirectory": "ok",
			"Left": []any{map[string]any{"Name": "in.txt", "Size": 6.0, "Directory": false}},
		}}},

		// What leads out of the item.
		conformanceCase{name: "get", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/x"}, want: outcome{outputs: response(200, "/x", "GET /x 1 Bearer hidden ")}},
		conformanceCase{name: "post", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/x", "Method": "POST", "Body": "the body"}, want: outcome{outputs: response(201, "/x", "POST /x 1 Bearer hidden the body")}},
		conformanceCase{name: "streamed body", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/x", "Method": "POST", "Body": strings.Repeat("é", 50_000), "Stream": true},
			want: outcome{outputs: response(201, "/x", "POST /x 1 Bearer hidden "+strings.Repeat("é", 50_000))}},
		conformanceCase{name: "status 404", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/missing"}, want: outcome{outputs: response(404, "/missing", "GET /missing 1 Bearer hidden ")}},
		conformanceCase{name: "no redirects", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/x", "NoRedirects": true}, want: outcome{outputs: response(302, "/x", "GET /x 1 Bearer hidden ")}},
		conformanceCase{name: "unreachable", action: "Fetch", granted: true, settings: map[string]any{"URL": url + "/down"}, want: outcome{code: beacon.Failed, message: `request "` + url + `/down": nobody is there`}},
		conformanceCase{name: "not granted", action: "Fetch", settings: map[string]any{"URL": url + "/x"}, want: outcome{outputs: map[string]any{
			"HasOther": false, "ExitCode": 3.0, "StdOut": `request "` + url + `/x": HTTP is not permitted: nothing was granted to this provider`,
		}}},
		conformanceCase{name: "no URL", action: "Fetch", granted: true, settings: map[string]any{"URL": "x"}, want: outcome{code: beacon.Failed, message: `request "x": `}},
		conformanceCase{name: "several requests", action: "Many", granted: true, settings: map[string]any{"URL": url}, want: outcome{outputs: map[string]any{"Result": "GET /a   \nGET /b   \nGET /c   \n"}}},
		conformanceCase{name: "call", action: "Call", granted: true, settings: map[string]any{"Capability": "LLM"}, want: outcome{
			outputs:  map[string]any{"Result": `LLM/Do {"A":"1","B":"é\""} `, "CalleeExitCode": 4.0, "Seen": []any{}},
			progress: []beacon.Progress{{Percent: 10, HasPercent: true, Message: "one \"1\""}, {Message: "two é"}},
		}},
		conformanceCase{name: "call that is watched", action: "Call", granted: true, settings: map[string]any{"Capability": "LLM", "Watch": true}, want: outcome{
			outputs: map[string]any{"Result": `LLM/Do {"A":"1","B":"é\""} `, "CalleeExitCode": 4.0, "Seen": []any{"one \"1\"", "two é"}},
		}},
		conformanceCase{name: "call with files", action: "Call", granted: true, source: []byte("the source"), output: true, settings: map[string]any{"Capability": "LLM", "Source": "in.txt", "Output": "out.txt"}, want: outcome{
			outputs: map[string]any{"Result": `LLM/Do {"A":"1","B":"é\""} the source`, "CalleeExitCode": 4.0, "Seen": []any{}}, file: "from the callee",
		}},
		conformanceCase{name: "call that fails", action: "Call", granted: true, settings: map[string]any{"Capability": "Broken"}, want: outcome{code: beacon.Failed, message: "call Broken/Do: it broke"}},
		conformanceCase{name: "call that is watched and fails", action: "Call", granted: true, settings: map[string]any{"Capability": "Broken", "Watch": true}, want: outcome{code: beacon.Failed, message: "call Broken/Do: it broke"}},
		conformanceCase{name: "call not granted", action: "Call", settings: map[string]any{"Capability": "LLM"}, want: outcome{outputs: map[string]any{
			"ExitCode": 3.0, "StdOut": "call LLM/Do: calling LLM is not permitted: nothing was granted to this provider",
		}}},

		// Ends.
		conformanceCase{name: "error", action: "Fail", settings: map[string]any{"Message": "no disk: 100% \"full\" é"}, want: outcome{code: beacon.Failed, message: "no disk: 100% \"full\" é"}},
		conformanceCase{name: "exit code", action: "Exit", settings: map[string]any{"Code": 3, "Message": "bad picture"}, want: outcome{outputs: map[string]any{"ExitCode": 3.0, "StdOut": "bad picture"}, log: []string{"the end"}}},
		conformanceCase{name: "exit code with output", action: "Exit", settings: map[string]any{"Code": -1, "Message": "bad", "Say": "said"}, want: outcome{outputs: map[string]any{"ExitCode": -1.0, "StdOut": "said"}}},
		conformanceCase{name: "panic", action: "Panic", want: outcome{code: beacon.Failed, message: "panic in action Panic: boom"}},
		conformanceCase{name: "setting not declared", action: "Undeclared", want: outcome{code: beacon.Failed, message: "panic in action Undeclared: setting Nothing is not among the "}},
		conformanceCase{name: "trap", action: "Trap", want: outcome{code: beacon.Trapped, message: "module conformance broke down: unreachable"}},
		conformanceCase{name: "process exit", action: "Quit", want: outcome{code: beacon.Failed, message: "module conformance exited with code 3"}},
		conformanceCase{name: "shutdown that fails", action: "BadShutdown", want: outcome{code: beacon.Failed, message: "shutdown: no end", log: []string{"the end"}}},
		conformanceCase{name: "cancel", action: "Cancel", cancel: true, timeout: time.Hour, want: outcome{code: beacon.Internal, message: errCancelled.Error()}},
		conformanceCase{name: "endless loop", action: "Spin", timeout: 200 * time.Millisecond, want: outcome{code: beacon.Timeout}},
	)
	return list
}

// streamMemory is what a guest may take to read and write a file of any size.
const streamMemory = 16 << 20

// A large file does not repeat within a buffer. It is made once for all languages.
type large struct {
	path string
	size int64
	hash uint32 // the FNV-1a of every 1024th byte
}

func newLarge(t *testing.T, size int64) *large {
	t.Helper()
	l := &large{path: filepath.Join(t.TempDir(), "large"), size: size, hash: 2166136261}
	f, err := os.Create(l.path)
	require.NoError(t, err)
	defer f.Close()
	b := make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(b)) {
		b = b[:min(int64(len(b)), size-at)]
		for i := range b {
			n := at + int64(i)
			b[i] = byte(n>>16 ^ n>>8 ^ n*31)
		}
		for i := 0; i < len(b); i += 1024 {
			l.hash = (l.hash ^ uint32(b[i])) * 16777619
		}
		_, err = f.Write(b)
		require.NoError(t, err)
	}
	return l
}

func (l *large) copy(t *testing.T, path string) {
	t.Helper()
	from, err := os.Open(l.path)
	require.NoError(t, err)
	defer from.Close()
	to, err := os.Create(path) //nolint:gosec // in the test's directory
	require.NoError(t, err)
	_, err = io.Copy(to, from)
	require.NoError(t, err)
	require.NoError(t, to.Close())
}

// same compares a file with it.
func (l *large) same(t *testing.T, other io.Reader) {
	t.Helper()
	f, err := os.Open(l.path)
	require.NoError(t, err)
	defer f.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(a)) {
		n, err := io.ReadFull(f, a)
		m, otherErr := io.ReadFull(other, b)
		require.True(t, n == m && bytes.Equal(a[:n], b[:m]), "the output file is another one, from somewhere behind byte %d on", at)
		if err != nil {
			require.Equal(t, err, otherErr)
			return
		}
	}
}

func TestConformance(t *testing.T) {
	if testing.Short() || race {
		// The engine compiles ten times as long under the race detector, which sees
		// nothing of the modules.
		t.Skip("builds and compiles modules")
	}
	list := cases(t)
	results := map[string][]string{}
	var languages []string
	for _, l := range sdks {
		languages = append(languages, l.name)
		cells := slices.Repeat([]string{"not run"}, len(list)+1) // as without its compiler
		results[l.name] = cells
		t.Run(l.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "conformance.wasm")
			l.build(t, path)
			module := load(t, path)
			cell := func(i int, t *testing.T) {
				cells[i] = "ok"
				if t.Failed() {
					cells[i] = "FAIL"
				}
			}
			t.Run("manifest", func(t *testing.T) {
				defer cell(0, t)
				checkManifest(t, module.Manifest())
			})
			for i, c := range list {
				t.Run(c.name, func(t *testing.T) {
					defer cell(i+1, t)
					c.verify(t, run(t, module, c))
				})
			}
		})
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	row := func(name string, cell func(language string) string) {
		line := name
		for _, l := range languages {
			line += "\t" + cell(l)
		}
		_, _ = io.WriteString(w, line+"\n")
	}
	row("", func(l string) string { return l })
	row("manifest", func(l string) string { return results[l][0] })
	for i, c := range list {
		row(c.name, func(l string) string { return results[l][i+1] })
	}
	require.NoError(t, w.Flush())
	t.Log("\n" + text.String())
}

func load(t testing.TB, path string) *wasmrt.Module {
	t.Helper()
	module, err := open(t, path)
	require.NoError(t, err)
	return module
}

// open loads a module, which may not want to be.
func open(t testing.TB, path string) (*wasmrt.Module, error) {
	t.Helper()
	binary, err := os.ReadFile(path) //nolint:gosec // the module just built
	require.NoError(t, err)
	r, err := wasmrt.New(wasmrt.Config{})
	require.NoError(t, err)
	module, err := r.Load(t.Context(), wasmrt.Source{
		Name: "conformance", Binary: binary, Config: beacon.Settings{"Host": json.RawMessage(`"example.com"`)},
		Limits: wasmrt.Limits{Describe: time.Hour, Initialize: time.Hour}, // for machines that are busy
		Admit: func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(job *beacon.Job) hostfuncs.Broker {
				if job.Tenant == "granted" {
					return broker{}
				}
				return nil
			}, nil
		},
	})
	if err == nil {
		t.Cleanup(func() { require.NoError(t, module.Close(context.WithoutCancel(t.Context()))) })
	}
	return module, err
}

func checkManifest(t *testing.T, m hostfuncs.Manifest) {
	t.Helper()
	require.Equal(t, "conformance", m.Name)
	require.Equal(t, "1.2.3", m.Version)
	require.Equal(t, "Conformance", m.Capability.Name)
	require.Equal(t, "Uses all that a host offers.", m.Capability.Description)
	require.Equal(t, []hostfuncs.Permission{
		{Permission: "http GET,POST https://api.example.com/v1", Reason: "to fetch \"pages\""},
		{Permission: "secret key", Reason: "to be let in", Optional: true},
	}, m.Permissions)
	require.Nil(t, m.WarmUp)
	var names []string
	for _, a := range m.Capability.Actions {
		names = append(names, a.Name)
	}
	require.Equal(t, "Echo Item Report BadOutput Flood Copy Text Files Fetch Many Call Fail Exit Panic Undeclared Trap BadShutdown Quit Cancel Spin", strings.Join(names, " "))
	echo := m.Capability.Actions[0]
	require.Equal(t, "Hands back its settings.", echo.Description)
	require.Equal(t, &beacon.Example{Settings: map[string]string{"Text": "hello"}, Source: "in.txt", Output: "out.txt"}, echo.Example)
	require.Equal(t, []beacon.Setting{
		{Name: "Text", DataType: "String", Required: true, Description: "what to say"},
		{Name: "Count", DataType: "Number", Default: 1.0, Description: "a whole number"},
		{Name: "Factor", DataType: "Number", Default: 1.5},
		{Name: "Flag", DataType: "Boolean", Default: true},
		{Name: "Plain", DataType: "Boolean"},
		{Name: "Choice", DataType: "String", Default: "red"},
	}, echo.Settings)
}

// run carries out an item.
func run(t *testing.T, module *wasmrt.Module, c conformanceCase) outcome {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	require.NoError(t, err)
	defer root.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	if c.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, c.timeout)
		defer stop()
	}
	var got outcome
	job := &beacon.Job{
		Item: beacon.WorkItem{
			Hash: "wi-1", Capability: "Conformance", Action: c.action, OperationHash: `op-"1"`, RunID: "run-1", Attempt: 2, Settings: beacon.Settings{},
		},
		Dir: root,
		OnProgress: func(p beacon.Progress) {
			got.progress = append(got.progress, p)
			if c.cancel {
				cancel(errCancelled)
			}
		},
	}
	if c.granted {
		job.Tenant = "granted"
	}
	for name, value := range c.settings {
		raw, err := json.Marshal(value)
		require.NoError(t, err)
		job.Item.Settings[name] = raw
	}
	if c.source != nil {
		job.Source, job.Sources = "in.txt", []string{"in.txt"}
		require.NoError(t, root.WriteFile("in.txt", c.source, 0o600))
	}
	if c.stream != nil {
		job.Source, job.Sources = "in.txt", []string{"in.txt"}
		c.stream.copy(t, filepath.Join(dir, "in.txt"))
	}
	job.Account = beacon.NewAccount(nil)
	if c.output {
		job.Output, job.Outputs = "out.txt", []string{"out.txt"}
	}
	result, err := module.Run(ctx, job)
	got.log = result.Log
	if err != nil {
		got.code, got.message = beacon.CodeOf(err), err.Error()
		return got
	}
	raw, err := json.Marshal(result.Outputs)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &got.outputs))
	got.memory = job.Account.Statement().Usage.Memory
	if c.stream != nil {
		f, err := root.Open("out.txt")
		require.NoError(t, err)
		defer f.Close()
		c.stream.same(t, f)
	} else if b, err := root.ReadFile("out.txt"); err == nil {
		got.file = string(b)
	}
	return got
}

func (c conformanceCase) verify(t *testing.T, got outcome) {
	t.Helper()
	if c.want.code != "" {
		require.Equal(t, c.want.code, got.code, got.message)
		require.True(t, strings.HasPrefix(got.message, c.want.message), "%s\nwant %s", got.message, c.want.message)
	} else {
		require.Empty(t, got.message)
	}
	if c.want.outputs != nil {
		// What the host fills in, where the provider sets nothing.
		want := map[string]any{"StdOut": "", "ExitCode": 0.0, "Result": ""}
		maps.Copy(want, c.want.outputs)
		require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got.outputs)))
		for name, value := range want {
			// A message with ten million bytes helps nobody.
			if text, ok := value.(string); ok && len(text) > 1000 {
				require.True(t, value == got.outputs[name], name)
				continue
			}
			require.Equal(t, value, got.outputs[name], name)
		}
		require.True(t, c.want.file == got.file, "the output file has %d bytes, want %d", len(got.file), len(c.want.file))
	}
	if c.want.log != nil {
		require.Equal(t, len(c.want.log), len(got.log), "lines of the log")
		require.Equal(t, c.want.log, got.log)
	}
	if c.want.progress != nil {
		require.Equal(t, c.want.progress, got.progress)
	}
	if c.check != nil {
		c.check(t, got)
	}
}

// A broker answers without a network, so that all that comes back is known.
type broker struct{}

func (broker) Fetch(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		if r.BodyLength >= 0 && r.BodyLength != int64(len(body)) {
			return nil, beacon.Errorf(beacon.Invalid, "the body has %d bytes, and was to have %d", len(body), r.BodyLength)
		}
	}
	path, ok := strings.CutPrefix(r.URL, "https://api.example.com/v1")
	status := 200
	switch {
	case !ok:
		return nil, beacon.Errorf(beacon.Invalid, "%s is somewhere else", r.URL)
	case path == "/down":
		return nil, beacon.Errorf(beacon.Unreachable, "nobody is there")
	case path == "/missing":
		status = 404
	case r.Redirects == 0:
		status = 302
	case r.Method == http.MethodPost:
		status = 201
	}
	header := func(name string) string {
		return strings.ReplaceAll(strings.Join(r.Header[name], ", "), "{{secret:key}}", "hidden")
	}
	text := strings.Join([]string{r.Method, path, header("X-One"), header("Authorization"), string(body)}, " ")
	return &hostfuncs.Response{
		Status: status, URL: r.URL, Proto: "HTTP/1.1", Length: int64(len(text)), Body: io.NopCloser(strings.NewReader(text)),
		Header: map[string][]string{"Content-Type": {"text/plain"}, "X-Two": {"1", "2"}},
	}, nil
}

func (broker) Call(_ context.Context, r beacon.Call) (beacon.Result, error) {
	if r.OnProgress != nil {
		r.OnProgress(beacon.Progress{Percent: 10, HasPercent: true, Message: "one \"1\""})
		r.OnProgress(beacon.Progress{Message: "two é"})
	}
	if r.Capability == "Broken" {
		return beacon.Result{}, beacon.Errorf(beacon.Failed, "it broke")
	}
	var settings, source bytes.Buffer
	settings.WriteString("{")
	for i, name := range slices.Sorted(maps.Keys(r.Settings)) {
		if i > 0 {
			settings.WriteString(",")
		}
		settings.WriteString(strconv.Quote(name) + ":" + string(r.Settings[name]))
	}
	settings.WriteString("}")
	if r.Source != nil {
		if _, err := source.ReadFrom(r.Source); err != nil {
			return beacon.Result{}, err
		}
	}
	if r.Output != nil {
		w, err := r.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		if _, err := io.WriteString(w, "from the callee"); err != nil {
			return beacon.Result{}, err
		}
		if err := w.Close(); err != nil {
			return beacon.Result{}, err
		}
	}
	return beacon.Result{Outputs: beacon.Outputs{
		"Result": r.Capability + "/" + r.Action + " " + settings.String() + " " + source.String(), "ExitCode": 4, "Large": math.Pi,
	}}, nil
}

func (broker) HasSecret(name string) bool { return name == "key" }
