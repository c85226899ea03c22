package runtime_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/runtime/module"
)

// S10, S6: what cannot run is refused when it is loaded, with what to do.
func TestRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		binary []byte
		want   string
	}{
		"empty":             {nil, "the file is empty"},
		"text":              {[]byte("(module)"), "wat2wasm"},
		"component":         {[]byte("\x00asm\x0d\x00\x01\x00"), "build for wasm32-wasip1"},
		"truncated":         {guest(t, "exit")[:100], "cut off"},
		"31 bytes":          {[]byte("\x00asm\x01\x00\x00\x00\x0a\x05\xff\xff\xff\xff\x0f"), "4294967295 function bodies"},
		"invalid code":      {[]byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00\x07\x0a\x01\x06_start\x00\x00\x0a\x05\x01\x03\x00\x6a\x0b"), "an instruction lacks an operand"},
		"no entry":          {guest(t, "refused_no_entry"), "exports neither beacon_execute nor _start: build it as a WASI command, or as a reactor with an SDK (it exports memory, main)"},
		"nothing":           {guest(t, "refused_nothing"), "it exports nothing"},
		"_start":            {guest(t, "refused_wrong_start"), "_start is a function (i32) -> (), want () -> ()"},
		"beacon_execute":    {guest(t, "refused_wrong_execute"), "beacon_execute is a function () -> (), want () -> (i32)"},
		"beacon_describe":   {guest(t, "refused_wrong_describe"), "beacon_describe is a function () -> (), want () -> (i32)"},
		"_start, a memory":  {guest(t, "refused_start_memory"), "_start is a memory, want a function () -> ()"},
		"import of env":     {guest(t, "refused_import_env"), `it imports env.emscripten_resize_heap, and Beacon offers no module "env" (it offers beacon_v1 and wasi_snapshot_preview1); such imports come from Emscripten`},
		"import of js":      {guest(t, "refused_import_js"), "build with GOOS=wasip1"},
		"unknown function":  {guest(t, "refused_import_unknown"), "it imports beacon_v1.launch, which this version of Beacon does not offer"},
		"wrong function":    {guest(t, "refused_import_wrong"), "it imports beacon_v1.log as (i64) -> (), but it is (i32, i32, i32) -> (i32)"},
		"import of memory":  {guest(t, "refused_import_memory"), "it imports the memory env.memory: only functions can be imported"},
		"import of fuel":    {guest(t, "refused_import_meter"), "beacon_meter.refill"},
		"no memory":         {guest(t, "refused_no_memory"), "it imports beacon_v1.log but has no memory"},
		"memory over limit": {guest(t, "big"), "it needs at least 4096 MiB of memory, the limit is 256 MiB; raise it with --memory"},
		"long names":        {imports(strings.Repeat("\x1b", 3000), strings.Repeat("\u202e", 1000)), "it imports"},
		"long signature":    {signature(128), "but it is"},
		"bad manifest":      {withManifest(guest(t, "tiny"), `{"Capability":"`), "manifest: not the JSON"},
		"other manifest":    {withManifest(guest(t, "tiny"), `{"Capability":"../x","Actions":[{"Name":"A"}]}`), "may hold letters"},
		"describe fails":    {guest(t, "describe_fail"), "cannot describe itself: no words"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := wasmrt.New(wasmrt.Config{Log: quiet()})
			require.NoError(t, err)
			m, err := r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: tt.binary})
			require.Nil(t, m)
			requireFailure(t, err, beacon.Refused, tt.want)
			require.ErrorContains(t, err, "module")
		})
	}
}

func vector(n int, content string) string { return string(leb(n)) + content }

func leb(n int) []byte {
	var b []byte
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

func section(id byte, content string) string { return string(id) + vector(len(content), content) }

// imports is a module that imports one function.
func imports(from, name string) []byte {
	return []byte("\x00asm\x01\x00\x00\x00" + section(1, "\x01\x60\x00\x00") +
		section(2, "\x01"+vector(len(from), from)+vector(len(name), name)+"\x00\x00"))
}

// signature is a module that imports a function with n parameters and results.
func signature(n int) []byte {
	all := vector(n, strings.Repeat("\x6f", n))
	return []byte("\x00asm\x01\x00\x00\x00" + section(1, "\x01\x60"+all+all) + section(2, "\x01\x09beacon_v1\x03log\x00\x00"))
}

func withManifest(binary []byte, manifest string) []byte {
	return append(binary[:len(binary):len(binary)], section(0, vector(len(module.ManifestSection), module.ManifestSection)+manifest)...)
}

func TestDescription(t *testing.T) {
	m := load(t, "file", guest(t, "tiny"), wasmrt.Limits{})
	require.Equal(t, "file", m.Capability().Name, "named after the file")
	require.Equal(t, "Execute", m.Capability().Actions[0].Name)
	require.False(t, m.Command())
	require.Equal(t, "file", m.Name())
	require.Len(t, m.Digest(), 64)

	m = load(t, "file", guest(t, "describe"), wasmrt.Limits{})
	require.Equal(t, "Described", m.Capability().Name)
	require.Equal(t, "Do", m.Capability().Actions[0].Name)
	job, _ := newJob(t, "{}")
	result, err := m.Run(t.Context(), job)
	require.NoError(t, err)
	raw, err := json.Marshal(result.Outputs["N"])
	require.NoError(t, err)
	require.Equal(t, "11", string(raw), "describe is not for items")

	// The section wins, and nothing runs for it.
	m = load(t, "file", withManifest(guest(t, "describe_loop"), `{"Capability":"Written","Actions":[{"Name":"A"},{"Name":"B"}]}`), wasmrt.Limits{})
	require.Equal(t, "Written", m.Capability().Name)
	require.Len(t, m.Capability().Actions, 2)
	require.Equal(t, "Written", m.Manifest().Name)
}

func TestDescribeEnds(t *testing.T) {
	r, err := wasmrt.New(wasmrt.Config{Log: quiet()})
	require.NoError(t, err)
	_, err = r.Load(t.Context(), wasmrt.Source{Name: "slow", Binary: guest(t, "describe_loop"), Limits: wasmrt.Limits{Describe: 50 * time.Millisecond}})
	requireFailure(t, err, beacon.Refused, "module slow took longer than 50ms to describe itself")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = r.Load(ctx, wasmrt.Source{Name: "slow", Binary: guest(t, "describe_loop")})
	require.Error(t, err)
}

// What a module says of its trouble is not lost.
func TestDescribeFailureIsLogged(t *testing.T) {
	var log recorder
	r, err := wasmrt.New(wasmrt.Config{Log: log.logger()})
	require.NoError(t, err)
	_, err = r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "describe_trap")})
	requireFailure(t, err, beacon.Refused, "module subject cannot describe itself: module subject broke down: unreachable")
	require.Contains(t, log.String(), "error: the table of units is empty")
	require.Contains(t, log.String(), "at read_units()")
}

func TestEnds(t *testing.T) {
	for name, tt := range map[string]struct {
		guest  string
		limits wasmrt.Limits
		code   beacon.Code
		want   string
		log    []string // substrings
	}{
		"loop":               {guest: "loop", code: beacon.Timeout, want: "deadline"},
		"branching":          {guest: "branching", code: beacon.Timeout, want: "deadline"},
		"sleep":              {guest: "sleep", code: beacon.Timeout, want: "deadline"},
		"start that loops":   {guest: "start", code: beacon.Timeout, want: "deadline"},
		"ignores":            {guest: "ignores", code: beacon.Timeout, want: "deadline"},
		"recursion":          {guest: "recursion", code: beacon.StackLimit, want: "module subject called too deeply: more than 24 MiB of stack", log: []string{" times more)"}},
		"trap":               {guest: "trap", code: beacon.Trapped, want: "module subject broke down: unreachable", log: []string{"  at read_the_header()\n  at parse()\n  at "}},
		"out of bounds":      {guest: "trap_names", code: beacon.Trapped, want: "out of bounds memory access"},
		"start that traps":   {guest: "start_trap", code: beacon.Trapped, want: "unreachable"},
		"grows, traps":       {guest: "grow", limits: wasmrt.Limits{Memory: 32 << 20}, code: beacon.MemoryLimit, want: "wanted more than 32 MiB of memory; raise it with --memory"},
		"grows, exits":       {guest: "grow_exit", limits: wasmrt.Limits{Memory: 32 << 20}, code: beacon.MemoryLimit, want: "wanted more than 32 MiB"},
		"prints":             {guest: "stdout", code: beacon.OutputLimit, want: "16777216 bytes of standard output and outputs; raise"},
		"calls":              {guest: "ignores", limits: wasmrt.Limits{Item: hostfuncs.Limits{Calls: 10_000}}, code: beacon.CallLimit, want: "more than 10000 host calls; raise"},
		"initialise fails":   {guest: "initialize", code: beacon.Failed, want: `no licence\u001b[31m`},
		"execute fails":      {guest: "fail", code: beacon.Failed, want: "module subject: beacon_execute returned 5"},
		"shutdown fails":     {guest: "shutdown", code: beacon.Failed, want: "module subject: beacon_shutdown returned 6"},
		"reactor that exits": {guest: "reactor_exit", code: beacon.Failed, want: "module subject exited with code 0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := load(t, "subject", guest(t, tt.guest), tt.limits)
			deadline := time.Hour
			if tt.code == beacon.Timeout {
				deadline = 100 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), deadline)
			defer cancel()
			job, _ := newJob(t, "{}")
			result, err := m.Run(ctx, job)
			requireFailure(t, err, tt.code, tt.want)
			for _, want := range tt.log {
				require.Contains(t, strings.Join(result.Log, "\n"), want)
			}
			requireLog(t, result.Log)
		})
	}
}

// requireLog is S17 and S24 for the lines of a log.
func requireLog(t *testing.T, log []string) {
	t.Helper()
	size := 0
	for _, line := range log {
		require.LessOrEqual(t, len(line), 8<<10)
		require.Equal(t, beacon.Excerpt(line, len(line)), line)
		require.NotContains(t, line, "wasm stack trace")
		size += len(line)
	}
	require.LessOrEqual(t, size, 1<<20+16<<10)
}

func TestSucceeds(t *testing.T) {
	for _, name := range []string{"grow_fine", "table", "tiny", "no_memory", "stderr"} {
		t.Run(name, func(t *testing.T) {
			m := load(t, "subject", guest(t, name), wasmrt.Limits{})
			job, _ := newJob(t, "{}")
			result, err := m.Run(t.Context(), job)
			require.NoError(t, err)
			require.Equal(t, beacon.Outputs{"StdOut": "", "ExitCode": 0, "Result": ""}, result.Outputs)
			requireLog(t, result.Log)
			if name == "stderr" {
				require.Equal(t, `\u001b[31mforged`, result.Log[0])
			}
		})
	}
}

// S6: a table cannot take the memory that the guest may not have.
func TestTableIsBounded(t *testing.T) {
	m := load(t, "subject", guest(t, "table"), wasmrt.Limits{})
	job, _ := newJob(t, "{}")
	var before, after goruntime.MemStats
	goruntime.ReadMemStats(&before)
	_, err := m.Run(t.Context(), job)
	require.NoError(t, err)
	goruntime.ReadMemStats(&after)
	require.Less(t, after.Sys-before.Sys, uint64(256<<20))
}

// S13: the codes that mean a deadline or a cancellation to the engine are codes
// like others.
func TestExitCodes(t *testing.T) {
	m := load(t, "subject", guest(t, "exit"), wasmrt.Limits{})
	require.True(t, m.Command())
	for _, code := range []uint32{0, 1, 7, 255, 256, 0xefffffff, math.MaxUint32} {
		job, _ := newJob(t, fmt.Sprintf(`{"Code": "%d"}`, code))
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		result, err := m.Run(ctx, job)
		cancel()
		require.NoError(t, err)
		require.Equal(t, int(int32(code)), result.ExitCode())
	}
}

// The initialisation is part of the snapshot and of no item, unless every item
// has an instance of its own.
func TestOrderOfCalls(t *testing.T) {
	for name, fresh := range map[string]bool{"restored": false, "fresh": true} {
		t.Run(name, func(t *testing.T) {
			var log recorder
			m := loadWith(t, wasmrt.Config{Log: log.logger()}, wasmrt.Source{
				Name: "subject", Binary: guest(t, "order"), Pool: wasmrt.Pool{Fresh: fresh},
			})
			for range 3 {
				job, _ := newJob(t, "{}")
				result, err := m.Run(t.Context(), job)
				require.NoError(t, err)
				want := []string{"beacon_execute", "beacon_shutdown"}
				if fresh {
					want = append([]string{"_initialize", "beacon_initialize"}, want...)
				}
				require.Equal(t, want, result.Log)
			}
			said := 0
			if !fresh {
				said = 1
			}
			for _, line := range []string{"line=_initialize", "line=beacon_initialize"} {
				require.Equal(t, said, strings.Count(log.String(), line))
			}
		})
	}
}

// S4: nothing that an item leaves is there for the next one.
func TestIsolation(t *testing.T) {
	m := load(t, "subject", guest(t, "traces"), wasmrt.Limits{})
	run := func(job *beacon.Job) string {
		result, err := m.Run(t.Context(), job)
		require.NoError(t, err)
		raw, err := json.Marshal(result.Outputs["Seen"])
		require.NoError(t, err)
		return string(raw)
	}
	for range 3 {
		job, s := newJob(t, "{}")
		require.Equal(t, `"0000000"`, run(job))
		require.FileExists(t, filepath.Join(s.dir, "left.txt"))
		require.Equal(t, `"0000001"`, run(job), "the same directory: the guest sees what there is")
	}
}

func TestConcurrentRuns(t *testing.T) {
	traces := load(t, "subject", guest(t, "traces"), wasmrt.Limits{})
	exit := load(t, "subject", guest(t, "exit"), wasmrt.Limits{})
	loop := load(t, "subject", guest(t, "loop"), wasmrt.Limits{})
	var jobs []*beacon.Job
	for i := range 24 {
		job, _ := newJob(t, fmt.Sprintf(`{"Code": "%d"}`, i))
		jobs = append(jobs, job)
	}
	var all sync.WaitGroup
	for i, job := range jobs {
		all.Go(func() {
			switch i % 3 {
			case 0:
				result, err := traces.Run(t.Context(), job)
				if err != nil || fmt.Sprintf("%s", result.Outputs["Seen"]) != `"0000000"` {
					t.Errorf("traces: %v, %v", result, err)
				}
			case 1:
				if result, err := exit.Run(t.Context(), job); err != nil || result.ExitCode() != i {
					t.Errorf("exit %d: %v, %v", i, result, err)
				}
			case 2:
				ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
				if _, err := loop.Run(ctx, job); beacon.CodeOf(err) != beacon.Timeout {
					t.Errorf("loop: %v", err)
				}
			}
		})
	}
	all.Wait()
}

// The cause that a caller gives is the one that it gets.
func TestCancel(t *testing.T) {
	shutdown := beacon.Errorf(beacon.Canceled, "the worker shuts down")
	for name, tt := range map[string]struct {
		guest string
		code  beacon.Code
		want  string
	}{
		"one that does not ask": {"loop", beacon.Canceled, "the worker shuts down"},
		"one that sleeps":       {"sleep", beacon.Canceled, "the worker shuts down"},
		"one that gives up":     {"gives_up", beacon.Canceled, "the worker shuts down"},
		"one that finishes":     {"finishes", "", ""},
		"one that ignores it":   {"ignores", beacon.Canceled, "the worker shuts down"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := load(t, "subject", guest(t, tt.guest), wasmrt.Limits{})
			ctx, cancel := context.WithCancelCause(t.Context())
			defer cancel(nil)
			job, _ := newJob(t, "{}")
			job.OnProgress = func(beacon.Progress) { cancel(shutdown) }
			if tt.guest == "loop" || tt.guest == "sleep" {
				timer := time.AfterFunc(20*time.Millisecond, func() { cancel(shutdown) })
				defer timer.Stop()
			}
			_, err := m.Run(ctx, job)
			if tt.code == "" {
				require.NoError(t, err)
				return
			}
			requireFailure(t, err, tt.code, tt.want)
		})
	}
	t.Run("before", func(t *testing.T) {
		m := load(t, "subject", guest(t, "tiny"), wasmrt.Limits{})
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(shutdown)
		job, _ := newJob(t, "{}")
		_, err := m.Run(ctx, job)
		require.ErrorIs(t, err, shutdown)
	})
}

// S14: Close waits for what runs, and what comes later is told.
func TestClose(t *testing.T) {
	r, err := wasmrt.New(wasmrt.Config{Log: quiet()})
	require.NoError(t, err)
	m, err := r.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "finishes")})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	job, _ := newJob(t, "{}")
	running := make(chan struct{})
	job.OnProgress = func(beacon.Progress) { close(running) }
	ended := make(chan error, 1)
	go func() {
		_, err := m.Run(ctx, job)
		ended <- err
	}()
	<-running
	closed := make(chan error, 1)
	go func() { closed <- m.Close(context.Background()) }()
	select {
	case <-closed:
		require.Fail(t, "closed under a guest that runs")
	case <-time.After(20 * time.Millisecond): // it may only be late, never early
	}
	cancel()
	require.NoError(t, <-ended)
	require.NoError(t, <-closed)
	require.NoError(t, m.Shutdown(context.Background()), "again")
	_, err = m.Run(t.Context(), job)
	requireFailure(t, err, beacon.Internal, "module subject is closed")
}

// Memories are given back, also those of guests that failed.
func TestMemoryIsReleased(t *testing.T) {
	if goruntime.GOOS != "linux" {
		t.Skip("counts mappings in /proc")
	}
	mappings := func() int {
		maps, err := os.ReadFile("/proc/self/maps")
		require.NoError(t, err)
		return strings.Count(string(maps), "\n")
	}
	fine := load(t, "fine", guest(t, "tiny"), wasmrt.Limits{})
	grows := load(t, "grows", guest(t, "grow"), wasmrt.Limits{Memory: 16 << 20})
	traps := load(t, "traps", guest(t, "start_trap"), wasmrt.Limits{})
	job, _ := newJob(t, "{}")
	before := mappings()
	for range 200 {
		_, err := fine.Run(t.Context(), job)
		require.NoError(t, err)
		_, err = grows.Run(t.Context(), job)
		require.Equal(t, beacon.MemoryLimit, beacon.CodeOf(err))
		_, err = traps.Run(t.Context(), job)
		require.Equal(t, beacon.Trapped, beacon.CodeOf(err))
	}
	require.Less(t, mappings(), before+50)
}

// A quota of files that the guest hit is the reason, when it fails over it.
func TestFileLimit(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{
		Name: "program", Binary: built(t, goProgram), Limits: wasmrt.Limits{Files: guestfs.Limits{Bytes: 1000}},
	})
	job, s := newJob(t, `{"Args": ["copy", "{SourcePath}", "/work/copy"]}`)
	s.write(t, "in", strings.Repeat("x", 5000))
	job.Source = "in"
	_, err := m.Run(t.Context(), job)
	requireFailure(t, err, beacon.FileLimit, "a file larger than 1,000 bytes; raise the provider's Files limits")
}

func TestGoProgram(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{Name: "program", Binary: built(t, goProgram)})
	require.True(t, m.Command())
	run := func(t *testing.T, settings string, prepare func(*beacon.Job, stage)) (beacon.Result, error) {
		job, s := newJob(t, settings)
		if prepare != nil {
			prepare(job, s)
		}
		result, err := m.Run(t.Context(), job)
		if err != nil {
			requirePresentable(t, err.Error())
		}
		requireLog(t, result.Log)
		return result, err
	}
	withSource := func(job *beacon.Job, s stage) {
		s.write(t, "in put.txt", "the input")
		job.Source, job.Output = "in put.txt", "out put.txt"
	}
	for name, tt := range map[string]struct {
		settings string
		prepare  func(*beacon.Job, stage)
		want     string // standard output
	}{
		"args":            {`{"Args": ["args", "a b", "", "'\"", "{SourcePath}x{OutputPath}"]}`, withSource, `["args" "a b" "" "'\"" "/work/in put.txtx/work/out put.txt"]` + "\n"},
		"args, as text":   {`{"Args": "[\"args\", \"1\"]"}`, nil, `["args" "1"]` + "\n"},
		"command":         {`{"Command": "args one 'two three' \"f\\\"our\" fi\\ ve \"\" ''", "Parameters": "{SourcePath} last"}`, withSource, `["args" "one" "two three" "f\"our" "fi ve" "" "" "/work/in put.txt" "last"]` + "\n"},
		"parameters only": {`{"Parameters": "args 'a\\b' a\tb\nc"}`, nil, `["args" "a\\b" "a" "b" "c"]` + "\n"},
		"no source":       {`{"Parameters": "args {SourcePath} {OutputPath}"}`, nil, `["args" "" ""]` + "\n"},
		"command is null": {`{"Command": null, "Args": ["args"]}`, nil, `["args"]` + "\n"},
		"the action":      {`{}`, func(j *beacon.Job, _ stage) { j.Item.Action = "args" }, `["args"]` + "\n"},
		"item on stdin": {`{"N": 5}`, func(j *beacon.Job, s stage) { withSource(j, s); j.Item.Action = "stdin"; j.Item.Timeout = time.Second },
			`{"WorkItemHash":"hash","Capability":"Test","Action":"stdin","Settings":{"N":5},"TimeoutMs":1000,"SourcePath":"/work/in put.txt","OutputPath":"/work/out put.txt"}` + "\n"},
		"item on stdin, asked for": {`{"Args": ["stdin"], "Stdin": "item"}`, nil,
			`{"WorkItemHash":"hash","Capability":"Test","Action":"Execute","Settings":{"Args":["stdin"],"Stdin":"item"},"TimeoutMs":0}` + "\n"},
		"nothing on stdin": {`{"Args": ["stdin"]}`, nil, ""},
		"source on stdin":  {`{"Args": ["stdin"], "Stdin": "source"}`, withSource, "the input"},
		"environment":      {`{"Args": ["env"]}`, withSource, "PWD=/work\nTMPDIR=/work\nBEACON_CAPABILITY=Test\nBEACON_ACTION=Execute\nBEACON_SOURCE_PATH=/work/in put.txt\nBEACON_OUTPUT_PATH=/work/out put.txt\n"},
	} {
		t.Run(name, func(t *testing.T) {
			result, err := run(t, tt.settings, tt.prepare)
			require.NoError(t, err)
			require.Equal(t, beacon.Outputs{"StdOut": tt.want, "Result": tt.want, "ExitCode": 0}, result.Outputs)
		})
	}
	for name, tt := range map[string]struct{ settings, want string }{
		"args, no array":   {`{"Args": "x"}`, "setting Args is not a JSON array of texts"},
		"args, numbers":    {`{"Args": [1]}`, "setting Args is not a JSON array of texts"},
		"open quote":       {`{"Command": "a 'b"}`, "setting Command: a quote is not closed: a 'b"},
		"open escape":      {`{"Parameters": "a\\"}`, "setting Parameters: a quote is not closed"},
		"NUL":              {`{"Args": ["a\u0000b"]}`, "an argument contains a NUL character"},
		"NUL in command":   {`{"Command": "a\u0000b"}`, "an argument contains a NUL character"},
		"too long":         {`{"Args": ["` + strings.Repeat("x", 1<<20) + `"]}`, "the arguments take more than"},
		"many words":       {`{"Command": "` + strings.Repeat("x ", 1<<20) + `"}`, "the arguments take more than"},
		"words in words":   {`{"Command": "` + strings.Repeat("x ", 300_000) + `", "Parameters": "` + strings.Repeat(`\\y `, 300_000) + `"}`, "the arguments take more than"},
		"nothing often":    {`{"Args": [` + strings.Repeat(`"",`, 3<<20) + `""]}`, "the arguments take more than"},
		"unknown stdin":    {`{"Stdin": "file"}`, `setting Stdin is "file": want item, source or none`},
		"stdin, no source": {`{"Stdin": "source"}`, "but the item has no source"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := run(t, tt.settings, nil)
			requireFailure(t, err, beacon.Invalid, tt.want)
		})
	}
	t.Run("exit", func(t *testing.T) {
		result, err := run(t, `{"Args": ["exit", "3"]}`, nil)
		require.NoError(t, err)
		require.Equal(t, beacon.Outputs{"StdOut": "leaving\n", "Result": "leaving\n", "ExitCode": 3}, result.Outputs)
		require.Equal(t, []string{"a line for the log"}, result.Log)
	})
	t.Run("panic", func(t *testing.T) {
		result, err := run(t, `{"Args": ["panic"]}`, nil)
		require.NoError(t, err)
		require.Equal(t, 2, result.ExitCode())
		require.Equal(t, "panic: on purpose", result.Log[0])
	})
	t.Run("allocate", func(t *testing.T) {
		_, err := run(t, `{"Args": ["allocate"]}`, nil)
		requireFailure(t, err, beacon.MemoryLimit, "wanted more than 256 MiB")
	})
	t.Run("copy", func(t *testing.T) {
		job, s := newJob(t, `{"Args": ["copy", "{SourcePath}", "{OutputPath}"]}`)
		withSource(job, s)
		_, err := m.Run(t.Context(), job)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(s.dir, "out put.txt"))
		require.NoError(t, err)
		require.Equal(t, "the input", string(got))
	})
	t.Run("outside", func(t *testing.T) {
		for _, path := range []string{"../canary", "/../canary", "/etc/passwd", "/work/../../canary", "/proc/self/environ"} {
			raw, err := json.Marshal([]string{"copy", path, "stolen"})
			require.NoError(t, err)
			result, err := run(t, fmt.Sprintf(`{"Args": %s}`, raw), nil)
			require.NoError(t, err)
			require.Equal(t, 1, result.ExitCode(), path)
			require.NotContains(t, fmt.Sprint(result), secret)
		}
	})
	t.Run("sleep", func(t *testing.T) {
		job, _ := newJob(t, `{"Args": ["sleep"]}`)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := m.Run(ctx, job)
		requireFailure(t, err, beacon.Timeout, "")
	})
}

func TestGoReactor(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{Name: "file", Binary: built(t, goReactor)})
	require.False(t, m.Command())
	require.NotEqual(t, "file", m.Capability().Name, "it describes itself")
	require.NotEmpty(t, m.Capability().Actions)
	job, _ := newJob(t, "{}")
	job.Item.Action = "no such action"
	_, err := m.Run(t.Context(), job)
	requireFailure(t, err, beacon.Failed, "")
}

func TestSourceIsReadOnly(t *testing.T) {
	m := loadWith(t, wasmrt.Config{CacheDir: goCache(t), Log: quiet()}, wasmrt.Source{Name: "program", Binary: built(t, goProgram)})
	job, s := newJob(t, `{"Args": ["copy", "other", "{SourcePath}"]}`)
	s.write(t, "in", "the input")
	s.write(t, "other", "changed")
	job.Source = "in"
	result, err := m.Run(t.Context(), job)
	require.NoError(t, err)
	require.Equal(t, 1, result.ExitCode())
	got, err := os.ReadFile(filepath.Join(s.dir, "in"))
	require.NoError(t, err)
	require.Equal(t, "the input", string(got))
}

func BenchmarkRun(b *testing.B) {
	for name, binary := range map[string]func() []byte{
		"tiny": func() []byte { return guest(b, "tiny") },
		"Go":   func() []byte { return built(b, goProgram) },
	} {
		b.Run(name, func(b *testing.B) {
			m := loadWith(b, wasmrt.Config{CacheDir: goCache(b), Log: quiet()}, wasmrt.Source{Name: "subject", Binary: binary()})
			job, _ := newJob(b, `{"Args": []}`)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Run(b.Context(), job); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func ExampleModule_Run() {
	ctx := context.Background()
	binary, err := os.ReadFile("testdata/exit.wasm")
	if err != nil {
		panic(err)
	}
	r, err := wasmrt.New(wasmrt.Config{})
	if err != nil {
		panic(err)
	}
	m, err := r.Load(ctx, wasmrt.Source{Name: "exit", Binary: binary})
	if err != nil {
		panic(err)
	}
	defer m.Close(ctx)
	dir, err := os.MkdirTemp("", "item")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		panic(err)
	}
	defer root.Close()
	settings := beacon.Settings{}
	settings.SetText("Code", strconv.Itoa(7))
	result, err := m.Run(ctx, &beacon.Job{Item: beacon.WorkItem{Action: "Execute", Settings: settings}, Dir: root})
	fmt.Println(result.ExitCode(), err)
	// Output: 7 <nil>
}
