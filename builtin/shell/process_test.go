//go:build linux

package shell

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// tasks are what this program does when a test starts it again.
var tasks = map[string]func() int{"owner": owner, "killed": killed}

// word is one that no other process has among its arguments.
func word() string { return fmt.Sprintf("w%d%d", os.Getpid(), rand.Uint64()) }

// gone waits until no process has the word any more.
func gone(t *testing.T, word string) {
	t.Helper()
	require.Eventually(t, func() bool { return len(alive(t, word)) == 0 }, time.Minute, 10*time.Millisecond, "%v", alive(t, word))
}

// sleeper is a command that a test finds by its word.
func sleeper(word string) string { return "sh -c 'while :; do sleep 1; done' " + word }

// protocol.md §10: a timeout killed only sh, its children lived on.
func TestTimeoutKillsTheGroup(t *testing.T) {
	b := prepare(t, Config{KillGraceMs: 100})
	for name, line := range map[string]string{
		"children":            "%s & %s & : > begun; wait",
		"pipeline":            ": > begun; %s | cat",
		"deaf":                "trap '' TERM; : > begun; %s",
		"subshells":           "( ( ( : > begun; %s ) ) )",
		"with the error pipe": "%s >&2 & : > begun; wait",
	} {
		t.Run(name, func(t *testing.T) {
			w := word()
			result := b.overdue(strings.ReplaceAll(line, "%s", sleeper(w)))
			require.Contains(t, []any{143, 137, 124}, result.Outputs["ExitCode"])
			gone(t, w)
		})
	}
}

// protocol.md §10: a background child holding stdout kept the item open.
func TestBackgroundChild(t *testing.T) {
	b := prepare(t, Config{})
	w := word()
	result := b.does("echo out; echo err >&2; " + sleeper(w) + " & echo more")
	require.Equal(t, beacon.Outputs{"StdOut": "out\nmore\n", "StdErr": "err\n", "ExitCode": 0, "Result": "out\nmore\n"}, result.Outputs)
	gone(t, w)
}

// S29: somebody who has left the group cannot hold the item open either, and what
// was written before the end is there.
func TestChildOutsideOfTheGroup(t *testing.T) {
	b := prepare(t, Config{})
	w := word()
	result := b.does("head -c 60000 /dev/zero | tr '\\0' x; setsid " + sleeper(w) + " & echo; sleep 0.1")
	require.Equal(t, 0, result.Outputs["ExitCode"])
	require.Equal(t, strings.Repeat("x", 60000)+"\n", result.Outputs["StdOut"])
	end(t, w)
}

// Nor can somebody who has left the group and writes on for ever.
func TestWriterOutsideOfTheGroup(t *testing.T) {
	b := prepare(t, Config{MaxBufferBytes: 1 << 20})
	w := word()
	result := b.does("setsid sh -c 'touch begun; yes & yes & yes; : " + w + "' & until [ -e begun ]; do sleep 0.01; done")
	require.Contains(t, []any{0, 143}, result.Outputs["ExitCode"], "it may have been too much before the end")
	end(t, w)
}

// end kills those with a word among their arguments, and their groups: nobody owns
// them. Some may be about to become another program, or to end.
func end(t *testing.T, word string) {
	t.Helper()
	require.Eventually(t, func() bool {
		left := alive(t, word)
		for _, p := range left {
			if pid, err := strconv.Atoi(filepath.Base(strings.SplitN(p, ":", 2)[0])); err == nil {
				_ = syscall.Kill(-pid, syscall.SIGKILL) // it may lead no group
			}
		}
		return len(left) == 0
	}, time.Minute, 10*time.Millisecond)
}

// Where the kernel has no descriptors of processes, all is the same.
func TestWithoutHandles(t *testing.T) {
	b := prepare(t, Config{})
	b.does("true")
	before := descriptors()
	b.processes.handles = false
	result := b.does("echo out; echo err >&2; exit 3")
	require.Equal(t, beacon.Outputs{"StdOut": "out\nerr\n", "StdErr": "err\n", "ExitCode": 3, "Result": ""}, result.Outputs)
	require.Equal(t, 137, b.does("kill -9 $$").Outputs["ExitCode"])
	w := word()
	result = b.overdue(sleeper(w) + " & : > begun; wait")
	require.Equal(t, 143, result.Outputs["ExitCode"])
	gone(t, w)
	require.Equal(t, before+3, descriptors(), "beside the directories of the three jobs")
}

// A program that owns its children ends what tried to get away, however it did,
// and no zombie is left. In a process of its own, since it takes over orphans.
func TestOwner(t *testing.T) {
	out, err := task(t, "owner").CombinedOutput()
	require.NoError(t, err, string(out))
}

func task(t testing.TB, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), "SHELL_TEST_TASK="+name)
	return cmd
}

func owner() int {
	p, err := New(Config{Owner: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fail("new", err)
	}
	if err := p.Initialize(context.Background()); err != nil {
		return fail("initialize", err)
	}
	before := descriptors()
	words := make(chan string, 100)
	var items sync.WaitGroup
	for range 4 {
		items.Go(func() {
			for range 5 {
				w := word()
				words <- w
				for _, line := range []string{
					"setsid " + sleeper(w) + " &",
					"( ( setsid setsid " + sleeper(w) + " & ) & )",
					"setsid sh -c '" + strings.ReplaceAll(sleeper(w), "'", `'\''`) + " & exit' &",
					"nohup " + sleeper(w) + " > /dev/null 2>&1 &",
					"true & true & setsid true & ( true & )",
					"exit 0",
				} {
					if code := run(p, line+"\nsleep 0.05"); code != 0 {
						fail("exit code of "+line, code)
						os.Exit(1)
					}
				}
			}
		})
	}
	// Children of others are left alone, also dead ones.
	other := exec.Command("true") //nolint:noctx // it ends by itself
	if err := other.Start(); err != nil {
		return fail("start", err)
	}
	items.Wait()
	if err := other.Wait(); err != nil {
		return fail("the child of somebody else was taken", err)
	}
	// What left its group and died by itself is told from somebody's child by
	// its age only.
	p.processes.mu.Lock()
	p.processes.age = 0
	p.processes.mu.Unlock()
	for until := time.Now().Add(time.Minute); len(children()) > 0 && time.Now().Before(until); {
		p.processes.look()
	}
	if err := p.Shutdown(context.Background()); err != nil {
		return fail("shutdown", err)
	}
	close(words)
	for w := range words {
		if left := aliveIn("/proc", w); len(left) > 0 {
			return fail("left behind", left)
		}
	}
	if left := children(); len(left) > 0 {
		return fail("children", left)
	}
	if after := descriptors(); after != before {
		return fail("descriptors", []int{before, after})
	}
	return 0
}

func run(p *Provider, line string) int {
	dir, err := os.MkdirTemp("", "owner-")
	if err != nil {
		return fail("mkdir", err)
	}
	defer os.RemoveAll(dir)
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fail("open", err)
	}
	defer root.Close()
	item := beacon.WorkItem{Hash: "h", Settings: beacon.Settings{}}
	item.Settings.SetText("Command", line)
	result, err := p.Run(context.Background(), &beacon.Job{Item: item, Dir: root})
	if err != nil {
		return fail("run", err)
	}
	return result.ExitCode()
}

func fail(what string, value any) int {
	fmt.Fprintln(os.Stderr, what, value)
	return 1
}

func descriptors() int {
	names, _ := os.ReadDir("/proc/self/fd")
	return len(names)
}

func aliveIn(proc, word string) (found []string) {
	all, _ := filepath.Glob(proc + "/[0-9]*/cmdline")
	for _, path := range all {
		if raw, err := os.ReadFile(path); err == nil && strings.Contains(string(raw), word) {
			found = append(found, path)
		}
	}
	return found
}

// A worker that is killed takes its commands along; what they have left behind,
// the next worker ends.
func TestKilledWorker(t *testing.T) {
	w := word()
	cmd := task(t, "killed", w, t.TempDir())
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	lines := bufio.NewScanner(out)
	require.True(t, lines.Scan())
	require.Equal(t, "running", lines.Text())
	require.NotEmpty(t, alive(t, w+"a"))
	require.NotEmpty(t, alive(t, w+"b"))

	// Those of a worker that lives are left alone.
	prepare(t, Config{})
	require.NotEmpty(t, alive(t, w+"a"))
	require.NotEmpty(t, alive(t, w+"b"))

	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait())
	gone(t, "first"+w)
	prepare(t, Config{})
	gone(t, w)
}

func killed() int {
	w := os.Args[1]
	p, err := New(Config{Owner: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return fail("new", err)
	}
	if err := p.Initialize(context.Background()); err != nil {
		return fail("initialize", err)
	}
	root, err := os.OpenRoot(os.Args[2])
	if err != nil {
		return fail("open", err)
	}
	item := beacon.WorkItem{Hash: "h", Settings: beacon.Settings{}}
	// The first process, one of its group, and one that left it.
	item.Settings.SetText("Command", sleeper(w+"a")+" & setsid "+sleeper(w+"b")+" & sleep 0.2; echo running; : first"+w+"; while :; do sleep 1; done")
	_, err = p.Run(context.Background(), &beacon.Job{Item: item, Dir: root, OnProgress: func(beacon.Progress) { fmt.Println("running") }})
	return fail("the command ended", err)
}

// Nothing is left of many commands: no process, descriptor or goroutine.
func TestMany(t *testing.T) {
	b := prepare(t, Config{})
	b.does("true")
	before := descriptors()
	var items sync.WaitGroup
	for range 8 {
		items.Go(func() {
			for range 25 {
				result, err := b.Run(t.Context(), b.job(map[string]any{"Command": "true"}))
				if err != nil || result.ExitCode() != 0 {
					t.Error(result, err)
				}
			}
		})
	}
	items.Wait()
	// Each job of this test has its directory open.
	require.Equal(t, before+200, descriptors())
	require.Empty(t, b.processes.running)
}

func BenchmarkTrue(b *testing.B) {
	for _, owner := range []bool{false, true} {
		b.Run(fmt.Sprintf("owner=%v", owner), func(b *testing.B) {
			p := prepare(b, Config{Owner: owner})
			job := p.job(map[string]any{"Command": "true"})
			b.ResetTimer()
			for range b.N {
				if result, err := p.Run(context.Background(), job); err != nil || result.ExitCode() != 0 {
					b.Fatal(result, err)
				}
			}
		})
	}
}
