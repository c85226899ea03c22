package hostfuncs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
	"github.com/ultravisor/beacon/runtime/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The error numbers of ABI.md.
const (
	ok uint32 = iota
	fault
	invalid
	notFound
	rangeError
	denied
	limit
	canceled
	ioError
	badDescriptor
	exists
	notNow
	network
	timeout
	failed
)

// Places in the memory of the guest, which has two pages.
const (
	name   = 0x100
	value  = 0x1000
	buffer = 0x8000
	cell   = 0x40
	end    = 2 * 65536
)

const secret = "CANARY-of-the-host"

// A guest is an instance of the forwarding guest with an item.
type guest struct {
	t      testing.TB
	mod    api.Module
	item   *hostfuncs.Item
	ctx    context.Context
	dir    string
	seen   []beacon.Progress
	counts int
}

type setup struct {
	job         *beacon.Job // nil for the default one
	describing  bool
	config      beacon.Settings
	deadline    time.Time
	limits      hostfuncs.Limits
	files       guestfs.Limits
	countEvents bool // instead of keeping them
	broker      hostfuncs.Broker
}

func settingsOf(t testing.TB, text string) beacon.Settings {
	t.Helper()
	var s beacon.Settings
	require.NoError(t, json.Unmarshal([]byte(text), &s))
	return s
}

func start(t testing.TB, s setup) *guest {
	t.Helper()
	base := t.TempDir()
	g := &guest{t: t, dir: filepath.Join(base, "item")}
	canary := filepath.Join(base, "canary")
	require.NoError(t, os.WriteFile(canary, []byte(secret), 0o600))
	require.NoError(t, os.Mkdir(g.dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(g.dir, "input.txt"), []byte("the input"), 0o600))
	root, err := os.OpenRoot(g.dir)
	require.NoError(t, err)
	if s.job == nil {
		s.job = &beacon.Job{
			Item: beacon.WorkItem{
				Hash: "0xabc", Capability: "Test", Action: "Do", OperationHash: "op", RunID: "run",
				Timeout: 1500 * time.Millisecond, Attempt: 2,
				Settings: settingsOf(t, `{"Text": "héllo", "Number": 12345678901234567890, "Empty": "", "Null": null, "Object": {"a": [1]}}`),
			},
			Source: "input.txt", Output: "out.txt",
		}
	}
	s.job.Dir = root
	s.job.OnProgress = func(p beacon.Progress) {
		g.counts++
		if !s.countEvents {
			g.seen = append(g.seen, p)
		}
	}
	if s.describing {
		g.item = hostfuncs.NewDescription(s.config, s.limits)
	} else {
		g.item = hostfuncs.NewItem(s.job, guestfs.New(root, guestfs.Config{Limits: s.files, ReadOnly: []string{"input.txt"}}), s.config, s.deadline, s.limits)
	}
	if s.broker != nil {
		g.item.Reach(s.broker)
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfigInterpreter())
	require.NoError(t, engine.Offer(ctx, r, hostfuncs.Interface().Library()))
	binary, err := os.ReadFile("testdata/forward.wasm")
	require.NoError(t, err)
	g.ctx = abi.WithState(ctx, g.item)
	g.mod, err = r.Instantiate(g.ctx, binary)
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, r.Close(ctx))
		require.NoError(t, g.item.Close())
		require.NoError(t, root.Close())
		got, err := os.ReadFile(canary)
		require.NoError(t, err)
		require.Equal(t, secret, string(got), "the file outside was changed")
		entries, err := os.ReadDir(base)
		require.NoError(t, err)
		require.Len(t, entries, 2, "something was made outside")
	})
	return g
}

// try calls a host function. Numbers of any type may be given.
func (g *guest) try(function string, params ...any) (uint32, error) {
	raw := make([]uint64, len(params))
	for i, p := range params {
		switch p := p.(type) {
		case int:
			raw[i] = uint64(p)
		case uint32:
			raw[i] = uint64(p)
		case float64:
			raw[i] = math.Float64bits(p)
		default:
			g.t.Fatalf("parameter of type %T", p)
		}
	}
	results, err := g.mod.ExportedFunction(function).Call(g.ctx, raw...)
	if err != nil || len(results) == 0 {
		return 0, err
	}
	return uint32(results[0]), nil
}

func (g *guest) call(function string, params ...any) uint32 {
	g.t.Helper()
	errno, err := g.try(function, params...)
	require.NoError(g.t, err)
	return errno
}

// put stores text and returns its place and length.
func (g *guest) put(at int, text string) (int, int) {
	require.True(g.t, g.mod.Memory().WriteString(uint32(at), text))
	return at, len(text)
}

func (g *guest) text(at, n int) string {
	b, ok := g.mod.Memory().Read(uint32(at), uint32(n))
	require.True(g.t, ok)
	return string(b)
}

func (g *guest) u32(at int) int {
	v, ok := g.mod.Memory().ReadUint32Le(uint32(at))
	require.True(g.t, ok)
	return int(v)
}

func (g *guest) u64(at int) uint64 {
	v, ok := g.mod.Memory().ReadUint64Le(uint32(at))
	require.True(g.t, ok)
	return v
}

// filled calls a function that fills a buffer and returns what is in it.
func (g *guest) filled(function string, params ...any) string {
	g.t.Helper()
	require.Equal(g.t, ok, g.call(function, append(params, buffer, 0x4000, cell)...))
	return g.text(buffer, g.u32(cell))
}

func (g *guest) open(path string, flags int) int {
	g.t.Helper()
	at, n := g.put(name, path)
	require.Equal(g.t, ok, g.call("file_open", at, n, flags, cell))
	return g.u32(cell)
}

// The committed binary is what the text beside it says.
func TestForwardingGuestIsCurrent(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	out := filepath.Join(t.TempDir(), "forward.wasm")
	text, err := exec.Command(tool, "testdata/forward.wat", "-o", out).CombinedOutput()
	require.NoError(t, err, string(text))
	want, err := os.ReadFile(out)
	require.NoError(t, err)
	have, err := os.ReadFile("testdata/forward.wasm")
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, have), "run wat2wasm testdata/forward.wat -o testdata/forward.wasm")
}

// Every function that ABI.md lists is offered, and no other.
func TestInterfaceIsTheNormativeOne(t *testing.T) {
	text, err := os.ReadFile("ABI.md")
	require.NoError(t, err)
	_, functions, found := strings.Cut(string(text), "\n## Functions\n")
	require.True(t, found)
	functions, _, _ = strings.Cut(functions, "\n## The manifest\n")
	var listed []string
	for line := range strings.Lines(functions) {
		if rest, isRow := strings.CutPrefix(line, "| `"); isRow {
			listed = append(listed, rest[:strings.IndexByte(rest, '`')])
		}
	}
	var offered []string
	for _, f := range hostfuncs.Interface().Functions {
		offered = append(offered, f.Name)
	}
	require.Equal(t, listed, offered)
	require.Equal(t, "beacon_v1", hostfuncs.Interface().Name)
}

func TestWorkItem(t *testing.T) {
	g := start(t, setup{})
	require.JSONEq(t, `{"WorkItemHash":"0xabc","Capability":"Test","Action":"Do","OperationHash":"op","RunID":"run",
		"TimeoutMs":1500,"AttemptNumber":2,"SourcePath":"/work/input.txt","OutputPath":"/work/out.txt"}`, g.filled("work_item"))
	g = start(t, setup{job: &beacon.Job{}})
	require.JSONEq(t, `{"WorkItemHash":"","Capability":"","Action":"","OperationHash":"","RunID":"",
		"TimeoutMs":0,"AttemptNumber":0,"SourcePath":"","OutputPath":""}`, g.filled("work_item"))
}

func TestSettings(t *testing.T) {
	g := start(t, setup{config: settingsOf(t, `{"Key": "value", "Null": null}`)})
	require.JSONEq(t, `{"Text": "héllo", "Number": 12345678901234567890, "Empty": "", "Null": null, "Object": {"a": [1]}}`, g.filled("settings"))
	for setting, want := range map[string]string{"Text": "héllo", "Number": "12345678901234567890", "Empty": "", "Object": `{"a": [1]}`} {
		at, n := g.put(name, setting)
		require.Equal(t, want, g.filled("setting", at, n), setting)
	}
	for _, missing := range []string{"Null", "Nothing", "text", "", "\xff"} {
		at, n := g.put(name, missing)
		require.Equal(t, notFound, g.call("setting", at, n, buffer, 100, cell), missing)
	}
	at, n := g.put(name, "Key")
	require.Equal(t, "value", g.filled("config", at, n))
	require.JSONEq(t, `{"Key": "value", "Null": null}`, g.filled("config", at, 0))
	at, n = g.put(name, "Null")
	require.Equal(t, notFound, g.call("config", at, n, buffer, 100, cell))

	g = start(t, setup{job: &beacon.Job{}})
	require.Equal(t, "{}", g.filled("settings"), "an object even when there are none")
	require.Equal(t, "{}", g.filled("config", name, 0))
}

// A buffer that is too small gets nothing, and the size is told.
func TestFilling(t *testing.T) {
	g := start(t, setup{})
	at, n := g.put(name, "Text")
	size := len("héllo")
	for room := range size + 2 {
		g.put(buffer, "........")
		g.put(cell, "????")
		errno := g.call("setting", at, n, buffer, room, cell)
		require.Equal(t, size, g.u32(cell))
		if room < size {
			require.Equal(t, rangeError, errno)
			require.Equal(t, "........", g.text(buffer, 8), "nothing is copied")
		} else {
			require.Equal(t, ok, errno)
			require.Equal(t, "héllo..", g.text(buffer, size+2))
		}
	}
	require.Equal(t, rangeError, g.call("setting", at, n, end, 0, cell), "a place for nothing at the end")
	require.Equal(t, fault, g.call("setting", at, n, end-4, 5, cell))
}

func TestProgress(t *testing.T) {
	g := start(t, setup{})
	at, n := g.put(name, "half\x1bway\xff")
	for _, tt := range []struct {
		percent     float64
		step, total int
		want        beacon.Progress
	}{
		{50, 1, 2, beacon.Progress{Percent: 50, HasPercent: true, Step: 1, TotalSteps: 2}},
		{math.NaN(), 0, 0, beacon.Progress{}},
		{math.Inf(1), 0, 0, beacon.Progress{Percent: 100, HasPercent: true}},
		{math.Inf(-1), 0, 0, beacon.Progress{HasPercent: true}},
		{-3, 0xffffffff, 0x80000000, beacon.Progress{HasPercent: true}},
		{1e300, 0x7fffffff, 5, beacon.Progress{Percent: 100, HasPercent: true, Step: math.MaxInt32, TotalSteps: 5}},
	} {
		require.Equal(t, ok, g.call("progress", tt.percent, tt.step, tt.total, at, n))
		tt.want.Message = `half\u001bway\xff`
		require.Equal(t, tt.want, g.seen[len(g.seen)-1])
	}
	// Cut by what it became, not by what it was.
	at, n = g.put(value, strings.Repeat("\x00", 9000))
	require.Equal(t, ok, g.call("progress", 0.0, 0, 0, at, n))
	message := g.seen[len(g.seen)-1].Message
	require.LessOrEqual(t, len(message), 4096)
	require.True(t, strings.HasSuffix(message, "…"))
}

func TestLog(t *testing.T) {
	g := start(t, setup{})
	for level, text := range []string{"one\n", "two\r\nlines", "", "\n"} {
		at, n := g.put(value, text)
		require.Equal(t, ok, g.call("log", level, at, n))
	}
	at, n := g.put(value, "forged\x1b[31m\u202e\xff")
	require.Equal(t, ok, g.call("log", 1, at, n))
	require.Equal(t, invalid, g.call("log", 4, at, n))
	require.Equal(t, invalid, g.call("log", 0xffffffff, at, n))
	_, err := g.item.Stderr().Write([]byte("no end"))
	require.NoError(t, err)
	at, n = g.put(value, "a line of its own")
	require.Equal(t, ok, g.call("log", 3, at, n))
	require.Equal(t, []string{
		"debug: one", "two", "lines", "error: ", `forged\u001b[31m\u202e\xff`, "no end", "error: a line of its own",
	}, g.item.Log())
}

// No line is over 8 KiB, also after escaping, and the sum is limited; S17.
func TestLogLimits(t *testing.T) {
	g := start(t, setup{limits: hostfuncs.Limits{Log: 20_000}})
	at, n := g.put(value, strings.Repeat("\x00", 70_000)) // over 64 KiB
	require.Equal(t, ok, g.call("log", 1, at, n))
	lines := g.item.Log()
	require.Len(t, lines, 1)
	require.LessOrEqual(t, len(lines[0]), 8<<10)
	at, n = g.put(value, strings.Repeat("line\n", 10_000))
	require.Equal(t, ok, g.call("log", 1, at, n))
	lines = g.item.Log()
	size := 0
	for _, line := range lines {
		size += len(line)
	}
	require.LessOrEqual(t, size, 21_000)
	require.Regexp(t, `^\(\d+ more lines dropped: the log limit is 20000 bytes\)$`, lines[len(lines)-1])
}

func TestOutputs(t *testing.T) {
	g := start(t, setup{})
	set := func(output, json string) uint32 {
		at, n := g.put(name, output)
		place, size := g.put(value, json)
		return g.call("output", at, n, place, size)
	}
	require.Equal(t, ok, set("A", `{"x": 1}`))
	require.Equal(t, ok, set("A", `[2]`), "replaces")
	require.Equal(t, ok, set("Bad\xffName", `"\u00e9`+"\xff\xfe"+`"`))
	for _, broken := range []string{"", "{", "text", `{"a":1}x`, "\x00"} {
		require.Equal(t, invalid, set("B", broken), broken)
	}
	require.Equal(t, invalid, set("", "1"))
	require.Equal(t, limit, set(strings.Repeat("n", 1025), "1"))
	_, err := g.item.Stdout().Write([]byte("printed\xff\n"))
	require.NoError(t, err)

	result := g.item.Result(0)
	raw, err := json.Marshal(result.Outputs)
	require.NoError(t, err)
	require.JSONEq(t, `{"A":[2],"Bad\ufffdName":"é\ufffd","StdOut":"printed\ufffd\n","StdOutBase64":"cHJpbnRlZP8K","ExitCode":0,"Result":"printed\ufffd\n"}`, string(raw))
}

// What is in one result is read together with it, and maybe with others'.
func TestOutputsThatAreTooDeep(t *testing.T) {
	g := start(t, setup{})
	for depth, want := range map[int]uint32{1000: ok, 1001: invalid, 10_000: invalid, 20_000: invalid} {
		at, n := g.put(name, "Deep")
		place, size := g.put(value, strings.Repeat("[", depth)+strings.Repeat("]", depth))
		require.Equal(t, want, g.call("output", at, n, place, size), depth)
	}
}

func TestOutputExitCode(t *testing.T) {
	for value, want := range map[string]int{"7": 7, "-1": -1, "7.0": 7, "1e2": 100, `"7"`: 0, "1.5": 0, "1e300": 0, "null": 0, "-2147483648": math.MinInt32, "-2147483649": 0} {
		g := start(t, setup{})
		at, n := g.put(name, "ExitCode")
		place, size := g.put(0x1000, value)
		require.Equal(t, ok, g.call("output", at, n, place, size))
		require.Equal(t, want, g.item.Result(0).ExitCode(), value)
	}
}

// Outputs and standard output have one limit; more of either ends the guest,
// and replacing an output costs nothing.
func TestOutputLimit(t *testing.T) {
	g := start(t, setup{limits: hostfuncs.Limits{Output: 10_000}})
	at, n := g.put(name, "Name")
	place, _ := g.put(value, strings.Repeat("1", 9000))
	for range 100 {
		require.Equal(t, ok, g.call("output", at, n, place, 9000))
	}
	require.Equal(t, ok, g.call("output", at, n, place, 10))
	_, err := g.item.Stdout().Write(make([]byte, 9000))
	require.NoError(t, err)
	_, err = g.try("output", at, n, place, 9000)
	require.Error(t, err)
	require.Equal(t, beacon.OutputLimit, beacon.CodeOf(err))
	_, err = g.item.Stdout().Write(make([]byte, 9000))
	require.Equal(t, beacon.OutputLimit, beacon.CodeOf(err))
	require.ErrorContains(t, err, "10000 bytes")
}

func TestFail(t *testing.T) {
	g := start(t, setup{})
	require.Empty(t, g.item.Failure())
	at, n := g.put(value, "it broke\n\x1b\xff")
	require.Equal(t, ok, g.call("fail", at, n))
	require.Equal(t, `it broke\u000a\u001b\ufffd`, g.item.Failure())
	at, n = g.put(value, strings.Repeat("\x00", 5000))
	require.Equal(t, ok, g.call("fail", at, n))
	require.LessOrEqual(t, len(g.item.Failure()), 4096)
}

func TestDescribing(t *testing.T) {
	g := start(t, setup{describing: true, config: settingsOf(t, `{"Key": "value"}`)})
	require.Nil(t, g.item.Manifest())
	at, n := g.put(value, `{"Capability":"X"}`)
	require.Equal(t, ok, g.call("describe", at, n))
	g.put(value, "overwritten, which the host must not see")
	require.Equal(t, `{"Capability":"X"}`, string(g.item.Manifest()))
	require.Equal(t, ok, g.call("describe", at, 0))
	require.NotNil(t, g.item.Manifest())
	require.Equal(t, limit, g.call("describe", at, 1<<20+1))

	key, length := g.put(name, "Key")
	require.Equal(t, "value", g.filled("config", key, length))
	require.Equal(t, ok, g.call("log", 1, at, n))
	require.Equal(t, ok, g.call("fail", at, n))
	require.Equal(t, ok, g.call("remaining", cell))
	require.Equal(t, uint64(math.MaxUint64), g.u64(cell))
	require.Equal(t, ok, g.call("cancelled"))
	// There is no work item.
	require.Equal(t, notNow, g.call("work_item", buffer, 100, cell))
	require.Equal(t, notNow, g.call("settings", buffer, 100, cell))
	require.Equal(t, notNow, g.call("setting", key, length, buffer, 100, cell))
	require.Equal(t, notNow, g.call("progress", 1.0, 0, 0, key, length))
	require.Equal(t, notNow, g.call("output", key, length, key, length))
	require.Equal(t, notNow, g.call("file_open", key, length, 1, cell))
	require.Equal(t, notNow, g.call("file_list", key, length, buffer, 100, cell))
	require.Equal(t, badDescriptor, g.call("file_read", 0, buffer, 10, cell))

	require.Equal(t, notNow, start(t, setup{}).call("describe", value, 2), "an item is no time for it")
}

func TestTime(t *testing.T) {
	g := start(t, setup{})
	require.Equal(t, ok, g.call("remaining", cell))
	require.Equal(t, uint64(math.MaxUint64), g.u64(cell))
	require.Equal(t, ok, g.call("cancelled"))
	g.item.Cancel()
	require.Equal(t, canceled, g.call("cancelled"))

	g = start(t, setup{deadline: time.Now().Add(time.Hour)})
	require.Equal(t, ok, g.call("remaining", cell))
	require.LessOrEqual(t, g.u64(cell), uint64(3_600_000))
	require.Greater(t, g.u64(cell), uint64(3_000_000))
	g = start(t, setup{deadline: time.Now().Add(-time.Hour)})
	require.Equal(t, ok, g.call("remaining", cell))
	require.Zero(t, g.u64(cell))
}

// The flags of file_open.
const (
	read = 1 << iota
	write
	create
	truncate
	appending
	exclusive
)

func TestFiles(t *testing.T) {
	g := start(t, setup{})
	in := g.open("input.txt", read)
	require.Equal(t, ok, g.call("file_size", in, cell))
	require.EqualValues(t, 9, g.u64(cell))
	require.Equal(t, ok, g.call("file_read", in, buffer, 4, cell))
	require.Equal(t, "the ", g.text(buffer, g.u32(cell)))
	require.Equal(t, ok, g.call("file_read", in, buffer, 100, cell))
	require.Equal(t, "input", g.text(buffer, g.u32(cell)))
	require.Equal(t, ok, g.call("file_read", in, buffer, 100, cell))
	require.Zero(t, g.u32(cell), "the end")
	require.Equal(t, ok, g.call("file_seek", in, -5, 2, cell))
	require.EqualValues(t, 4, g.u64(cell))
	require.Equal(t, ok, g.call("file_seek", in, 1, 1, cell))
	require.EqualValues(t, 5, g.u64(cell))
	require.Equal(t, ok, g.call("file_seek", in, 0, 0, cell))
	require.Equal(t, invalid, g.call("file_seek", in, 0, 3, cell))
	require.Equal(t, invalid, g.call("file_seek", in, 0, 0xffffffff, cell))
	require.Equal(t, invalid, g.call("file_seek", in, -1, 0, cell), "before the start")
	require.Equal(t, denied, g.call("file_write", in, value, 3, cell), "not opened for it")

	out := g.open("/work/out.txt", write|create|exclusive)
	require.NotEqual(t, in, out)
	at, n := g.put(value, "written")
	require.Equal(t, ok, g.call("file_write", out, at, n, cell))
	require.Equal(t, n, g.u32(cell))
	require.Equal(t, ok, g.call("file_close", out))
	require.Equal(t, badDescriptor, g.call("file_close", out))
	content, err := os.ReadFile(filepath.Join(g.dir, "out.txt"))
	require.NoError(t, err)
	require.Equal(t, "written", string(content))

	again := g.open("//out.txt", write|appending)
	require.Equal(t, out, again, "a closed number is used again")
	require.Equal(t, ok, g.call("file_write", again, at, n, cell))
	require.Equal(t, ok, g.call("file_size", again, cell))
	require.EqualValues(t, 14, g.u64(cell))

	for _, tt := range []struct {
		path  string
		flags int
		want  uint32
	}{
		{"nothing", read, notFound},
		{"out.txt", write | create | exclusive, exists},
		{"input.txt", write, denied},
		{"input.txt", read | truncate, denied},
		{"../canary", read, denied},
		{"/work/../../canary", read, denied},
		{"/../canary", read, denied},
		{"a/b/../../../canary", read, denied},
		{"", write, invalid}, // the directory
		{"/work", write, invalid},
		{"out.txt/x", read, invalid},
		{"a\x00b", read, invalid},
		{strings.Repeat("x", 256), read | write | create, limit},
		{strings.Repeat("d/", 70) + "x", read, limit},
		{strings.Repeat("x", 4097), read, limit},
		{"out.txt", 64, invalid},
		{"out.txt", -1, invalid},
	} {
		at, n := g.put(name, tt.path)
		require.Equal(t, tt.want, g.call("file_open", at, n, tt.flags&0xffffffff, cell), "%.40q %d", tt.path, tt.flags)
	}
	for _, fd := range []int{-1, 2, 1000, math.MaxInt32} {
		fd := fd & 0xffffffff
		require.Equal(t, badDescriptor, g.call("file_read", fd, buffer, 1, cell))
		require.Equal(t, badDescriptor, g.call("file_write", fd, buffer, 1, cell))
		require.Equal(t, badDescriptor, g.call("file_seek", fd, 0, 0, cell))
		require.Equal(t, badDescriptor, g.call("file_size", fd, cell))
		require.Equal(t, badDescriptor, g.call("file_close", fd))
	}
}

func TestFileList(t *testing.T) {
	g := start(t, setup{})
	require.NoError(t, os.Mkdir(filepath.Join(g.dir, "dir"), 0o700))
	require.NoError(t, os.Symlink("/etc/passwd", filepath.Join(g.dir, "link")))
	want := `[{"Name":"dir","Size":0,"Directory":true},{"Name":"input.txt","Size":9,"Directory":false}]`
	for _, path := range []string{"", ".", "/", "/work", "/work/", "dir/.."} {
		at, n := g.put(name, path)
		require.JSONEq(t, want, g.filled("file_list", at, n), path)
	}
	at, n := g.put(name, "dir")
	require.Equal(t, "[]", g.filled("file_list", at, n))
	for path, errno := range map[string]uint32{"nothing": notFound, "input.txt": invalid, "..": denied, "link": denied} {
		at, n := g.put(name, path)
		require.Equal(t, errno, g.call("file_list", at, n, buffer, 100, cell), path)
	}
}

func TestFileLimits(t *testing.T) {
	g := start(t, setup{files: guestfs.Limits{OpenFiles: 3, Bytes: 100}})
	for range 3 {
		g.open("input.txt", read)
	}
	at, n := g.put(name, "input.txt")
	require.Equal(t, limit, g.call("file_open", at, n, read, cell))
	require.Equal(t, ok, g.call("file_close", 1))
	fd := g.open("big", write|create)
	require.Equal(t, 1, fd)
	for range 20 {
		errno := g.call("file_write", fd, value, 10, cell)
		if errno != ok {
			require.Equal(t, limit, errno)
			break
		}
	}
	info, err := os.Stat(filepath.Join(g.dir, "big"))
	require.NoError(t, err)
	require.LessOrEqual(t, info.Size(), int64(100))
}

// After an item is over no call returns to the guest.
func TestOver(t *testing.T) {
	g := start(t, setup{})
	ctx, cancel := context.WithCancelCause(g.ctx)
	g.ctx = ctx
	cancel(beacon.Errorf(beacon.Timeout, "over"))
	_, err := g.try("cancelled")
	require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
}

// S17, S30: floods take constant memory and end at their limit.
func TestFloods(t *testing.T) {
	heap := func() uint64 {
		var m goruntime.MemStats
		goruntime.GC()
		goruntime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, tt := range []struct {
		name     string
		limits   hostfuncs.Limits
		function string
		params   []any
		code     beacon.Code
		most     uint64 // bytes kept
	}{
		{"log", hostfuncs.Limits{Log: 1 << 20}, "flood_log", []any{2_000, value, 60_000}, "", 4 << 20},
		{"empty log lines", hostfuncs.Limits{Log: 1 << 20}, "flood_log", []any{100, end - 65536, 65536}, "", 8 << 20},
		{"progress", hostfuncs.Limits{}, "flood_progress", []any{20_000, name, 100}, "", 1 << 20},
		{"tiny outputs", hostfuncs.Limits{Output: 1 << 20}, "flood_output", []any{1 << 20, name, value, 1}, beacon.OutputLimit, 4 << 20},
		{"calls", hostfuncs.Limits{Calls: 1000}, "flood_calls", []any{1_000_000}, beacon.CallLimit, 1 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := start(t, setup{limits: tt.limits, countEvents: true})
			g.put(value, strings.Repeat("1", 60_000))
			g.put(end-65536, strings.Repeat("\n", 65536))
			before := heap()
			_, err := g.try(tt.function, tt.params...)
			require.Equal(t, tt.code, beacon.CodeOf(err), "%v", err)
			require.Less(t, heap(), before+tt.most)
			goruntime.KeepAlive(g)
		})
	}
	t.Run("output", func(t *testing.T) {
		g := start(t, setup{})
		before := heap()
		var err error
		n := 0
		for ; err == nil; n++ {
			_, err = g.item.Stdout().Write(make([]byte, 1<<16))
		}
		require.Equal(t, beacon.OutputLimit, beacon.CodeOf(err))
		require.Equal(t, 16<<20>>16+1, n)
		require.Less(t, heap(), before+40<<20)
	})
}

// S17: a line that does not end takes no more memory than its beginning.
func TestS17LineWithoutEnd(t *testing.T) {
	g := start(t, setup{limits: hostfuncs.Limits{Log: 1 << 30}})
	part := []byte(strings.Repeat("x", 1<<20))
	var before, after goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&before)
	for range 64 {
		n, err := g.item.Stderr().Write(part)
		require.NoError(t, err)
		require.Equal(t, len(part), n)
	}
	goruntime.GC()
	goruntime.ReadMemStats(&after)
	require.Less(t, after.HeapAlloc, before.HeapAlloc+16<<20)
	lines := g.item.Log()
	require.Len(t, lines, 1)
	require.LessOrEqual(t, len(lines[0]), 8<<10)
}

// S30: whatever a guest passes, every function answers with an error number or
// ends the item for a reason of ours; nothing outside changes.
func FuzzCalls(f *testing.F) {
	for n := range hostfuncs.Interface().Functions {
		f.Add(byte(n), uint64(0), uint64(0), uint64(0), uint64(0), uint64(0), uint64(0), []byte("input.txt"))
		f.Add(byte(n), uint64(name), uint64(9), uint64(buffer), uint64(100), uint64(cell), uint64(cell), []byte("/work/../canary"))
		f.Add(byte(n), uint64(math.MaxUint32), uint64(math.MaxUint32), uint64(math.MaxUint32), uint64(end), uint64(1), uint64(1), []byte("\xff"))
		f.Add(byte(n), uint64(end-1), uint64(1), uint64(end), uint64(0), uint64(end-4), uint64(end), []byte(`{"a":1}`))
		f.Add(byte(n), uint64(1), uint64(end), uint64(math.MaxUint32-3), uint64(8), uint64(end-3), uint64(0), []byte(nil))
		f.Add(byte(n), uint64(name), uint64(52), uint64(cell), uint64(cell), uint64(0), uint64(0), []byte(`{"URL":"http://a/","Headers":{"A":["b"]},"TimeoutMs":5}`))
		f.Add(byte(n), uint64(name), uint64(68), uint64(cell), uint64(cell), uint64(0), uint64(0), []byte(`{"Capability":"C","Settings":{"a":1},"Output":"o","Progress":"keep"}`))
		f.Add(byte(n), uint64(0), uint64(name), uint64(5), uint64(buffer), uint64(100), uint64(cell), []byte("\x00\x00\x00\x00\x01\x00\x00\x00"))
	}
	// The guest keeps what it opens, so later calls meet it.
	g := start(f, setup{
		countEvents: true,
		broker:      echo{},
		limits:      hostfuncs.Limits{Log: 1 << 16, Output: 1 << 20, Calls: 1 << 40},
		files:       guestfs.Limits{Bytes: 1 << 20, Written: 1 << 30, Entries: 50, OpenFiles: 20},
	})
	functions := hostfuncs.Interface().Functions
	signatures := hostfuncs.Interface().Signatures()
	f.Fuzz(func(t *testing.T, n byte, a, b, c, d, e, h uint64, memory []byte) {
		function := functions[int(n)%len(functions)].Name
		g.mod.Memory().Write(name, memory[:min(len(memory), end-name)])
		params := []uint64{a, b, c, d, e, h}[:len(signatures[function].Params)]
		if function == "handle_wait" {
			params[2] %= 3 // milliseconds; a guest may wait for as long as its item lasts
		}
		results, err := g.mod.ExportedFunction(function).Call(g.ctx, params...)
		if err != nil {
			require.Equal(t, beacon.OutputLimit, beacon.CodeOf(err), "%v", err)
			return
		}
		require.LessOrEqual(t, uint32(results[0]), failed)
	})
}

func ExampleInterface() {
	signature := hostfuncs.Interface().Signatures()["cancelled"]
	fmt.Println(hostfuncs.Interface().Name, len(signature.Params), len(signature.Results), signature.Memory)
	// Output: beacon_v1 0 1 false
}
