//go:build unix

package shell

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// The examples in the documentation of the Node worker.
func TestExamples(t *testing.T) {
	b := prepare(t, Config{})
	result := b.ran(b.job(map[string]any{"Command": "echo", "Parameters": "hello world"}))
	require.Equal(t, beacon.Result{
		Outputs: beacon.Outputs{"StdOut": "hello world\n", "ExitCode": 0, "Result": "hello world\n"},
		Log:     []string{"Command executed: echo hello world"},
	}, result)

	result = b.ran(b.job(nil))
	require.Equal(t, beacon.Result{
		Outputs: beacon.Outputs{"StdOut": "No command specified.", "ExitCode": -1, "Result": ""},
		Log:     []string{"Shell Provider: no command specified."},
	}, result)

	result = b.does("echo out; echo err >&2; exit 3")
	require.Equal(t, beacon.Outputs{"StdOut": "out\nerr\n", "ExitCode": 3, "Result": "", "StdErr": "err\n"}, result.Outputs)
	require.Equal(t, []string{"Command failed: echo out; echo err >&2; exit 3 (exit code 3)", "err\n"}, result.Log)

	result = b.does("wc -c < {SourcePath}", "data.csv")
	require.Equal(t, fmt.Sprintf("%d\n", len("content of data.csv")), strings.TrimLeft(result.Outputs["Result"].(string), " "))

	job := b.job(map[string]any{"Command": "tr a-z A-Z < {SourcePath} > {OutputPath}"}, "photo.jpg", "", "resized.jpg")
	require.Equal(t, 0, b.ran(job).ExitCode())
	made, err := job.Dir.ReadFile("resized.jpg")
	require.NoError(t, err)
	require.Equal(t, "CONTENT OF PHOTO.JPG", string(made))
}

// protocol.md §10: stderr dropped on success.
func TestStdErrOnSuccess(t *testing.T) {
	b := prepare(t, Config{})
	result := b.does("echo out; echo err >&2")
	require.Equal(t, beacon.Outputs{"StdOut": "out\n", "ExitCode": 0, "Result": "out\n", "StdErr": "err\n"}, result.Outputs)
}

// protocol.md §10: signal death = 1. Here it is what a shell says.
func TestSignalDeath(t *testing.T) {
	b := prepare(t, Config{})
	// INT, QUIT and HUP are ignored by what a script, or nohup, has started in the background.
	for signal, code := range map[string]int{"KILL": 137, "TERM": 143, "SEGV": 139, "ALRM": 142} {
		result := b.does("kill -" + signal + " $$")
		require.Equal(t, code, result.Outputs["ExitCode"], signal)
		require.Contains(t, result.Log[0], fmt.Sprintf("signal %d", code-128))
	}
	require.Equal(t, 255, b.does("exit 255").Outputs["ExitCode"])
}

// protocol.md §10: ExitCode becomes the string
// ERR_CHILD_PROCESS_STDIO_MAXBUFFER.
func TestTooMuchOutput(t *testing.T) {
	b := prepare(t, Config{MaxBufferBytes: 1001, KillGraceMs: 60_000})
	for name, line := range map[string]string{"standard output": "yes €", "standard error": "yes € >&2"} {
		result := b.does(line)
		require.Equal(t, 143, result.Outputs["ExitCode"], "SIGTERM")
		require.Contains(t, result.Log[0], "more than 1001 bytes on "+name)
		printed := result.Outputs["StdOut"].(string)
		require.Len(t, printed, 1000, "no character in parts")
		require.NotContains(t, result.Outputs, "StdOutBase64")
	}
	// At the limit all is well, and the other stream counts by itself.
	result := b.does("head -c 1001 /dev/zero | tr '\\0' x; head -c 1001 /dev/zero | tr '\\0' y >&2")
	require.Equal(t, 0, result.Outputs["ExitCode"])
	require.Len(t, result.Outputs["StdOut"], 1001)
	require.Len(t, result.Outputs["StdErr"], 1001)
	// A command that is asked to end, and does as if nothing were.
	result = b.does("trap 'exit 0' TERM PIPE; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; done")
	require.Equal(t, 124, result.Outputs["ExitCode"])
}

// protocol.md §10: binary output mangled.
func TestBinaryOutput(t *testing.T) {
	b := prepare(t, Config{})
	result := b.does(`printf 'a\377\376b'; printf '\000\200' >&2`)
	require.Equal(t, "a\ufffdb", result.Outputs["StdOut"])
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte("a\xff\xfeb")), result.Outputs["StdOutBase64"])
	require.Equal(t, "\x00\ufffd", result.Outputs["StdErr"])
	require.Equal(t, base64.StdEncoding.EncodeToString([]byte("\x00\x80")), result.Outputs["StdErrBase64"])
	require.Equal(t, "héllo ✓\n", b.does("echo 'héllo ✓'").Outputs["Result"])
}

// protocol.md §10: cwd is the shared StagingPath.
func TestWorkingDirectory(t *testing.T) {
	b := prepare(t, Config{})
	first, second := b.job(map[string]any{"Command": "pwd -P; echo x > f; ls"}), b.job(map[string]any{"Command": "ls"})
	require.Equal(t, real(t, first.Dir.Name())+"\nf\n", b.ran(first).Outputs["StdOut"])
	require.Equal(t, "", b.ran(second).Outputs["StdOut"])

	inside := b.job(map[string]any{"Command": "pwd -P", "WorkDir": "a/b"})
	require.Equal(t, filepath.Join(real(t, inside.Dir.Name()), "a", "b")+"\n", b.ran(inside).Outputs["StdOut"])
	for _, wrong := range []string{"..", "/tmp", "a/../../b", "link", "file/x", strings.Repeat("x", 2000), "a\x00b"} {
		job := b.job(map[string]any{"Command": "pwd", "WorkDir": wrong}, "file")
		require.NoError(t, job.Dir.Symlink("/tmp", "link"))
		result := b.ran(job)
		require.Equal(t, -1, result.Outputs["ExitCode"], wrong)
		require.Contains(t, result.Outputs["StdOut"], "WorkDir")
	}
	elsewhere := t.TempDir()
	require.Equal(t, real(t, elsewhere)+"\n", prepare(t, Config{WorkDir: elsewhere}).does("pwd -P").Outputs["StdOut"])
	for _, wrong := range []string{"relative", filepath.Join(elsewhere, "absent")} {
		_, err := New(Config{WorkDir: wrong})
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	}
}

func real(t *testing.T, path string) string {
	resolved, err := filepath.EvalSymlinks(path)
	require.NoError(t, err)
	return resolved
}

func TestArgs(t *testing.T) {
	b := prepare(t, Config{})
	nasty := "a b; $(touch pwned) 'x' \"y\" `z`\n*"
	for name, settings := range map[string]map[string]any{
		"with a command": {"Command": "printf", "Args": []string{"%s|", nasty, "{SourcePath}", "-o{SourcePath}"}},
		"alone":          {"Args": []string{"printf", "%s|", nasty, "{SourcePath}", "-o{SourcePath}"}},
		"as text":        {"Args": `["printf", "%s|", ` + fmt.Sprintf("%q", nasty) + `, "{SourcePath}", "-o{SourcePath}"]`},
	} {
		t.Run(name, func(t *testing.T) {
			job := b.job(settings, "in $(x).txt")
			path := filepath.Join(job.Dir.Name(), "in $(x).txt")
			result := b.ran(job)
			require.Equal(t, nasty+"|"+path+"|-o"+path+"|", result.Outputs["Result"])
			require.NotContains(t, result.Log[0], job.Dir.Name(), "the log shows no path of this machine")
			require.NoFileExists(t, filepath.Join(job.Dir.Name(), "pwned"))
		})
	}
	for name, tt := range map[string]struct {
		settings map[string]any
		code     int
		text     string
	}{
		"no such program":   {map[string]any{"Args": []string{"no-such-program"}}, 127, "no-such-program: not found"},
		"no such file":      {map[string]any{"Args": []string{"/no/such/program"}}, 127, "/no/such/program: not found"},
		"not executable":    {map[string]any{"Args": []string{"/etc/passwd"}}, 126, "cannot be executed"},
		"a folder":          {map[string]any{"Args": []string{"/etc"}}, 126, "cannot be executed"},
		"in the directory":  {map[string]any{"Args": []string{"file"}, "Env": map[string]string{"PATH": "."}}, 127, "not found"},
		"nothing":           {map[string]any{"Args": "[]"}, -1, "No command specified."},
		"not a list":        {map[string]any{"Args": "ls"}, -1, "not a JSON array"},
		"numbers":           {map[string]any{"Args": []int{1}}, -1, "not a JSON array"},
		"with Parameters":   {map[string]any{"Args": []string{"ls"}, "Parameters": "x"}, -1, "both given"},
		"NUL":               {map[string]any{"Args": []string{"echo", "a\x00b"}}, -1, "NUL"},
		"NUL in a line":     {map[string]any{"Command": "echo a\x00b"}, -1, "NUL"},
		"too long":          {map[string]any{"Args": []string{"echo", strings.Repeat("x", 2<<20)}}, -1, "limit 1048576"},
		"too long, as line": {map[string]any{"Command": "echo " + strings.Repeat("x", 2<<20)}, -1, "limit 1048576"},
		"too long for exec": {map[string]any{"Args": []string{"echo", strings.Repeat("x", 200<<10)}}, 126, "too long"},
	} {
		t.Run(name, func(t *testing.T) {
			result := b.ran(b.job(tt.settings, "file"))
			require.Equal(t, tt.code, result.Outputs["ExitCode"], result.Outputs)
			require.Contains(t, result.Outputs["StdOut"], tt.text)
			require.Equal(t, "", result.Outputs["Result"])
		})
	}
}

func TestStdin(t *testing.T) {
	b := prepare(t, Config{})
	require.Equal(t, "content of a", b.ran(b.job(map[string]any{"Command": "cat", "Stdin": "source"}, "a")).Outputs["Result"])
	require.Equal(t, "", b.ran(b.job(map[string]any{"Command": "cat"}, "a")).Outputs["Result"], "nothing to wait for")
	require.Equal(t, -1, b.ran(b.job(map[string]any{"Command": "cat", "Stdin": "source"})).Outputs["ExitCode"])
	require.Equal(t, -1, b.ran(b.job(map[string]any{"Command": "cat", "Stdin": "x"})).Outputs["ExitCode"])
}

// S26: commands see of the environment what was named, and nothing else.
func TestEnvironment(t *testing.T) {
	t.Setenv("LC_TEST", "usual")
	t.Setenv("TEST_API_KEY", "named")
	t.Setenv("BEACON_PASSWORD", "secret")
	t.Setenv("BEACON_JOIN_SECRET", "secret")
	seen := func(b *bench, settings map[string]any) string {
		settings["Command"] = "env"
		return b.ran(b.job(settings, "in put", "", "out", "more/out2")).Outputs["StdOut"].(string)
	}
	plain := seen(prepare(t, Config{}), map[string]any{})
	for _, name := range []string{"PATH=", "LC_TEST=usual", "BEACON_WORK_ITEM=wi-1", "BEACON_SOURCE_PATH=", "BEACON_OUTPUT_PATH=", "BEACON_OUTPUT_PATH_2=", "BEACON_WORK_PATH="} {
		require.Contains(t, "\n"+plain, "\n"+name)
	}
	require.NotContains(t, plain, "TEST_API_KEY")
	require.NotContains(t, plain, "secret")
	require.Contains(t, seen(prepare(t, Config{Env: []string{"TEST_*"}}), map[string]any{}), "TEST_API_KEY=named")
	all := seen(prepare(t, Config{Env: []string{"*"}}), map[string]any{})
	require.Contains(t, all, "TEST_API_KEY=named")
	require.NotContains(t, all, "secret")
	require.Contains(t, seen(prepare(t, Config{Env: []string{"BEACON_PASSWORD"}}), map[string]any{}), "BEACON_PASSWORD=secret")

	b := prepare(t, Config{})
	require.Contains(t, seen(b, map[string]any{"Env": `{"A": "b c", "PATH": "/usr/bin:/bin"}`}), "A=b c\n")
	for _, wrong := range []any{`{"A": 1}`, "x", map[string]string{"A=B": "c"}, map[string]string{"": "c"}, map[string]string{"A": "\x00"},
		map[string]string{"BEACON_PROCESS": "x"}, map[string]string{"beacon_x": "x"}} {
		result := b.ran(b.job(map[string]any{"Command": "env", "Env": wrong}))
		require.Equal(t, -1, result.Outputs["ExitCode"], wrong)
	}
}

func TestAllowedCommands(t *testing.T) {
	echo, err := exec.LookPath("echo")
	require.NoError(t, err)
	b := prepare(t, Config{AllowedCommands: []string{"echo", "env"}, Env: []string{"MAY_BE_SET"}})
	for name, settings := range map[string]map[string]any{
		"args":         {"Args": []string{"echo", "a b", "{SourcePath}"}},
		"path":         {"Args": []string{echo, "a b", "{SourcePath}"}},
		"words":        {"Command": "echo", "Parameters": `'a b' {SourcePath}`},
		"double quote": {"Command": `echo "a b" {SourcePath}`},
		"backslash":    {"Command": `echo a\ b "{SourcePath}"`},
	} {
		job := b.job(settings, "$(x) y")
		require.Equal(t, "a b "+filepath.Join(job.Dir.Name(), "$(x) y")+"\n", b.ran(job).Outputs["Result"], name)
	}
	require.Contains(t, b.ran(b.job(map[string]any{"Command": "env", "Env": map[string]string{"MAY_BE_SET": "1"}})).Outputs["StdOut"], "MAY_BE_SET=1")
	for name, settings := range map[string]map[string]any{
		"another":              {"Args": []string{"ls"}},
		"another as words":     {"Command": "ls -l"},
		"another of that name": {"Args": []string{"/tmp/echo"}},
		"relative":             {"Args": []string{"./echo"}},
		"shell":                {"Command": "echo a; ls"},
		"substitution":         {"Command": "echo $(ls)"},
		"quoted substitution":  {"Command": `echo "$(ls)"`},
		"backtick":             {"Command": "echo `ls`"},
		"redirection":          {"Command": "echo a > f"},
		"second line":          {"Command": "echo a\nls"},
		"pattern":              {"Command": "echo *"},
		"open quote":           {"Command": "echo 'a"},
		"preloading":           {"Command": "echo a", "Env": map[string]string{"LD_PRELOAD": "/tmp/x.so"}},
	} {
		result := b.ran(b.job(settings))
		require.Equal(t, -1, result.Outputs["ExitCode"], name)
		require.NotEmpty(t, result.Outputs["StdOut"], name)
	}
	_, err = New(Config{AllowedCommands: []string{"no-such-program"}})
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

func TestProgress(t *testing.T) {
	b := prepare(t, Config{})
	// Each line comes when the one before was told, and a while later.
	job := b.job(map[string]any{"Command": `told() { until [ -e $1 ]; do sleep 0.01; done; sleep 0.3; }
		echo first; told 1; printf 'half '; echo 'second \033[31m'; told 2; printf '10%%\r20%%\r'; told 3; echo last`})
	tell := job.OnProgress
	job.OnProgress = func(p beacon.Progress) {
		tell(p)
		if err := job.Dir.WriteFile(fmt.Sprint(len(b.progress)), nil, 0o600); err != nil {
			t.Error(err)
		}
	}
	require.Equal(t, 0, b.ran(job).Outputs["ExitCode"])
	require.Equal(t, []string{"first", `half second \u001b[31m`, "20%", "last"}, b.progress)
	b.progress = nil
	b.does("yes | head -n 100000")
	require.Less(t, len(b.progress), 100, "not every line")
	b.progress = nil
	b.does("head -c 100000 /dev/zero | tr '\\0' x; echo")
	for _, line := range b.progress {
		require.LessOrEqual(t, len(line), maxLine+len("…"))
	}
}

func TestLimits(t *testing.T) {
	b := prepare(t, Config{Limits: Limits{CPUSeconds: 1, FileBytes: 4096, OpenFiles: 20, MemoryBytes: 512 << 20}})
	require.Equal(t, "20\n", b.does("ulimit -n").Outputs["Result"])
	require.Equal(t, "1\n", b.does("ulimit -t").Outputs["Result"])
	result := b.ran(b.job(map[string]any{"Args": []string{"sh", "-c", "ulimit -n; printf '%s|' \"$@\"", "x", "a b", "$(c)"}}))
	require.Equal(t, "20\na b|$(c)|", result.Outputs["Result"], "arguments are as they were")
	require.NotEqual(t, 0, b.does("head -c 10000 /dev/zero > f").Outputs["ExitCode"])
	result = b.does("while :; do :; done")
	require.Contains(t, []any{137, 152}, result.Outputs["ExitCode"], "SIGXCPU or SIGKILL")
	require.Equal(t, 127, b.ran(b.job(map[string]any{"Args": []string{"no-such"}})).Outputs["ExitCode"])

	_, err := New(Config{Limits: Limits{Processes: -1}})
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		_, err := New(Config{User: "1000"})
		require.ErrorContains(t, err, "not root")
		t.Skip("only root can run commands as somebody else")
	}
	for _, wrong := range []string{"nobody", "1:x", "-1", "99999999999"} {
		_, err := New(Config{User: wrong})
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), wrong)
	}
	b := prepare(t, Config{User: "65534:65533"})
	job := b.job(map[string]any{"Command": "id -u; id -g; cat {SourcePath}; echo x > {OutputPath}"}, "in", "", "out")
	// Folders of tests are their owner's alone.
	for dir := filepath.Dir(job.Dir.Name()); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		require.NoError(t, os.Chmod(dir, 0o711))
	}
	result := b.ran(job)
	require.Equal(t, "65534\n65533\ncontent of in", result.Outputs["Result"], result.Outputs)
	require.FileExists(t, filepath.Join(job.Dir.Name(), "out"))
}

func TestDeadline(t *testing.T) {
	b := prepare(t, Config{KillGraceMs: 60_000})
	result := b.overdue("echo begun; : > begun; sleep 600")
	require.Equal(t, 143, result.Outputs["ExitCode"])
	require.Equal(t, "", result.Outputs["Result"])
	require.Contains(t, result.Log[0], "Command failed: echo begun; : > begun; sleep 600 (too long)")

	canceled, stop := context.WithCancelCause(t.Context())
	begun := make(chan struct{})
	job := b.job(map[string]any{"Command": "echo begun; sleep 600"})
	job.OnProgress = func(beacon.Progress) { close(begun) }
	go func() { <-begun; stop(beacon.Errorf(beacon.Canceled, "canceled: the beacon is shutting down")) }()
	_, err := b.Run(canceled, job)
	require.Equal(t, beacon.Canceled, beacon.CodeOf(err), "somebody else may carry it out")
	_, err = b.Run(canceled, job)
	require.Equal(t, beacon.Canceled, beacon.CodeOf(err))
}

// A command that does not listen is killed after a while.
func TestKill(t *testing.T) {
	b := prepare(t, Config{KillGraceMs: 20})
	result := b.overdue("trap '' TERM; : > begun; while :; do sleep 0.01; done")
	require.Equal(t, 137, result.Outputs["ExitCode"])
}
