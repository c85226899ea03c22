package main

import (
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// wat is the folder of small modules.
func modulePath(name string) string { return filepath.Join("testdata", "modules", name+".wasm") }

func isolate(t *testing.T) string {
	dir := t.TempDir()
	t.Setenv("BEACON_CACHE_DIR", dir)
	t.Setenv("BEACON_STAGING_PATH", "")
	return dir
}

func TestExitCodes(t *testing.T) {
	dir := isolate(t)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer busy.Close()
	source := filepath.Join(dir, "source.txt")
	require.NoError(t, os.WriteFile(source, []byte("x"), 0o600))

	exec := func(module string, more ...string) []string {
		return append([]string{"exec", "--module", modulePath(module)}, more...)
	}
	tests := map[string]struct {
		args []string
		want int
		says string // on standard error
	}{
		"success":             {exec("hello"), exitOK, "logged"},
		"the program fails":   {exec("exit"), exitFailed, "exit code 7"},
		"passed through":      {exec("exit", "--passthrough"), 7, ""},
		"trap":                {exec("trap"), exitFailed, "broke down: unreachable"},
		"deadline":            {exec("loop", "--timeout", "200ms"), exitLimit, "limit of 200ms"},
		"deadline, recursion": {exec("recursion", "--timeout", "200ms"), exitLimit, "limit of 200ms"},
		"deadline, asleep":    {exec("sleep", "--timeout", "200ms"), exitLimit, "limit of 200ms"},
		"memory":              {exec("grow", "--memory", "8M"), exitLimit, "more than 8 MiB of memory"},
		"fuel":                {exec("loop", "--fuel", "1000000"), exitLimit, "used more than 1000000 units of fuel; raise it with --fuel"},
		"fuel, recursion":     {exec("recursion", "--fuel", "1000000"), exitLimit, "units of fuel"},
		"enough fuel":         {exec("hello", "--fuel", "1000000"), exitOK, "of 1000000 units"},
		"malformed fuel":      {exec("hello", "--fuel", "-1"), exitUsage, "--fuel -1: want a number"},
		"output":              {exec("flood"), exitLimit, "standard output"},
		"no output file":      {exec("hello", "--output", filepath.Join(dir, "o")), exitFailed, "Output file not found"},
		"outside":             {exec("escape", "--passthrough"), 40, ""},
		"component":           {exec("component"), exitRefused, "component"},
		"truncated":           {exec("truncated"), exitRefused, "cut off"},
		"unknown import":      {exec("unknown-import"), exitRefused, "env.launch_missiles"},
		"no entry":            {exec("no-entry"), exitRefused, "exports neither"},
		"too much memory":     {exec("big-memory"), exitRefused, "--memory"},
		"inspect, refused":    {[]string{"inspect", modulePath("component")}, exitRefused, "component"},
		"no module":           {[]string{"exec"}, exitUsage, "--module is missing"},
		"absent module":       {[]string{"exec", "--module", "absent.wasm"}, exitUsage, "no such file"},
		"absent source":       {exec("hello", "--source", "absent"), exitUsage, "no such file"},
		"unwritable output":   {exec("hello", "--output", filepath.Join(dir, "a", "b")), exitUsage, "cannot write there"},
		"output over source":  {exec("hello", "--source", source, "--output", source), exitUsage, "it is the source"},
		"unknown action":      {exec("hello", "--action", "Nope"), exitUsage, "Unknown action"},
		"malformed set":       {exec("hello", "--set", "x"), exitUsage, "NAME=TEXT"},
		"malformed config":    {exec("hello", "--config-json", "[]"), exitUsage, "--config-json"},
		"unknown flag":        {exec("hello", "--frob"), exitUsage, "unknown flag"},
		"unknown command":     {[]string{"frob"}, exitUsage, "unknown command"},
		"too many arguments":  {[]string{"version", "x"}, exitUsage, ""},
		"server not there":    {[]string{"submit", "--server", "http://127.0.0.1:1", "--capability", "X"}, exitServer, "does not answer"},
		"run, no server":      {[]string{"run", "--server", "http://127.0.0.1:1", "--module", modulePath("hello")}, exitServer, "127.0.0.1:1"},
		"run, no capability":  {[]string{"run", "--capabilities", "Shel"}, exitUsage, "--capabilities Shel: built in are FileSystem, LLM, Shell"},
		"run, no address":     {[]string{"run", "--listen", ":abc", "--module", modulePath("hello")}, exitUsage, `--listen ":abc": want an address and a port, such as 127.0.0.1:54321`},
		"run, no such port":   {[]string{"run", "--metrics-listen", "127.0.0.1:99999", "--module", modulePath("hello")}, exitUsage, "--metrics-listen \"127.0.0.1:99999\": want an address and a port"},
		"run, port taken":     {[]string{"run", "--listen", busy.Addr().String(), "--module", modulePath("hello")}, exitServer, "something else has the port"},
		"hub, port taken":     {[]string{"hub", "--listen", busy.Addr().String()}, exitUsage, "cannot listen"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := run(tt.args, streams{strings.NewReader(""), &out, &errs})
			require.Equal(t, tt.want, code, "%s%s", &out, &errs)
			require.Contains(t, errs.String(), tt.says)
			require.NotContains(t, errs.String(), "goroutine ")
		})
	}
	left, err := filepath.Glob(filepath.Join(dir, "staging", "*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestExecJSON(t *testing.T) {
	isolate(t)
	var out, errs bytes.Buffer
	code := run([]string{"exec", "--json", "--timeout", "200ms", "--module", modulePath("loop")}, streams{strings.NewReader(""), &out, &errs})
	require.Equal(t, exitLimit, code)
	require.Empty(t, errs.String())
	var shown struct {
		Outputs map[string]any
		Log     []string
		Error   struct{ Code, Message string }
	}
	require.NoError(t, json.Unmarshal(out.Bytes(), &shown), "%s", &out)
	require.Equal(t, "timeout", shown.Error.Code)
	require.Contains(t, shown.Error.Message, "TimeoutMs")
}

func TestByteSize(t *testing.T) {
	for text, want := range map[string]int64{
		"1": 1, "64K": 64 << 10, "64KB": 64 << 10, "64KiB": 64 << 10, "16m": 16 << 20, "2G": 2 << 30, "1048576": 1 << 20, "7B": 7,
	} {
		var b byteSize
		require.NoError(t, b.Set(text), text)
		require.Equal(t, want, int64(b), text)
	}
	for _, text := range []string{"", "0", "-1", "x", "1X", "1KK", "99999999999999G", "1.5G", "KB"} {
		var b byteSize
		require.Error(t, b.Set(text), text)
	}
}

func TestQuote(t *testing.T) {
	require.Equal(t, `beacon submit --set 'A=b c' --set 'Q=it'\''s' ''`, quote([]string{"beacon", "submit", "--set", "A=b c", "--set", "Q=it's", ""}))
}
