package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ultravisor/beacon/sandbox"
)

// TestMain lets the scripts call this program as "beacon": the same code that
// main runs, in a process of its own.
func TestMain(m *testing.M) {
	sandbox.Main()
	commands := map[string]func(){"beacon": main}
	for name, run := range processes {
		commands[name] = run
	}
	testscript.Main(m, commands)
}

func TestScripts(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// The scripts have a home of their own; compilers keep their caches.
	goCache := os.Getenv("GOCACHE")
	if goCache == "" {
		goCache = filepath.Join(cache, "go-build")
	}
	// So do modules that were downloaded.
	modules, err := exec.CommandContext(t.Context(), "go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	compiled := t.TempDir()
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			// up VARIABLE PREFIX ARGUMENT...: starts beacon in the background, waits
			// for a line with the prefix, and keeps the word after it; what was said
			// until then is in the file VARIABLE.said. At the end of the script the
			// process is interrupted and must end well.
			"up": up,
			// site VARIABLE: a web server that shows what it is asked; its address.
			"site": func(ts *testscript.TestScript, _ bool, args []string) {
				serve(ts, args[0], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if strings.HasSuffix(r.URL.Path, "/chat/completions") { // a language model with one answer
						w.Header().Set("Content-Type", "application/json")
						fmt.Fprint(w, `{"id":"1","object":"chat.completion","model":"m","choices":[{"index":0,"finish_reason":"stop",
							"message":{"role":"assistant","content":"Paris"}}],"usage":{"prompt_tokens":20,"completion_tokens":12,"total_tokens":32}}`)
						return
					}
					fmt.Fprintf(w, "%s %s authorization=%q\n", r.Method, r.URL.Path, r.Header.Get("Authorization"))
				}))
			},
			// get VARIABLE PATH FILE: what is at a path of where a process that was
			// started by up tells its figures.
			"get": func(ts *testscript.TestScript, _ bool, args []string) {
				_, at, told := strings.Cut(ts.ReadFile(args[0]+".said"), "figures for Prometheus are at ")
				at, _, _ = strings.Cut(at, "/metrics\n")
				if !told {
					ts.Fatalf("%s does not say where its figures are", args[0])
				}
				answer, err := http.Get(at + args[1])
				ts.Check(err)
				defer answer.Body.Close() //nolint:errcheck // only read
				body, err := io.ReadAll(answer.Body)
				ts.Check(err)
				ts.Check(os.WriteFile(ts.MkAbs(args[2]), fmt.Appendf(nil, "%s\n%s", answer.Status, body), 0o600))
			},
			// bomb FILE: makes a module that keeps the compiler busy for a minute.
			"bomb": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), bomb(), 0o600))
			},
			// nats VARIABLE: a NATS server that keeps things.
			"nats": func(ts *testscript.TestScript, _ bool, args []string) {
				srv, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: ts.MkAbs("nats"), NoSigs: true})
				ts.Check(err)
				srv.Start()
				ts.Defer(func() {
					srv.Shutdown()
					srv.WaitForShutdown()
				})
				if !srv.ReadyForConnections(5 * time.Minute) {
					ts.Fatalf("the NATS server does not start")
				}
				ts.Setenv(args[0], srv.ClientURL())
			},
			// registry VARIABLE: an OCI registry.
			"registry": func(ts *testscript.TestScript, _ bool, args []string) {
				serve(ts, args[0], registry.New(registry.Logger(log.New(io.Discard, "", 0))))
			},
		},
		Condition: func(name string) (bool, error) {
			if name == "race" {
				return race, nil
			}
			if tool, ok := strings.CutPrefix(name, "tool:"); ok {
				return hasTool(tool)
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("GOCACHE", goCache)
			e.Setenv("GOMODCACHE", strings.TrimSpace(string(modules)))
			e.Setenv("EXAMPLES", mustAbs(t, "../../examples/wasm"))
			e.Setenv("BEACON_CACHE_DIR", compiled)
			e.Setenv("BEACON_STAGING_PATH", filepath.Join(e.WorkDir, "staging"))
			e.Setenv("MODULES", filepath.Join(mustAbs(t, "testdata"), "modules"))
			return nil
		},
	})
}

// hasTool reports whether a tool is there, which it must be where tests may not be
// skipped. What an example is built of counts as one: "jq"; so does "rust".
func hasTool(name string) (bool, error) {
	_, err := exec.LookPath(name)
	if name == "jq" {
		list := exec.Command("go", "list", "-deps", "tool")
		list.Dir = "../../examples/wasm/jq"
		list.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=readonly")
		err = list.Run()
	}
	if name == "rust" { // with a standard library for WebAssembly, which one of two may have
		for _, compiler := range []string{"rustc", "/usr/bin/rustc"} {
			for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} {
				var dir []byte
				if dir, err = exec.Command(compiler, "--print", "target-libdir", "--target", target).Output(); err != nil {
					continue
				}
				if _, err = os.Stat(strings.TrimSpace(string(dir))); err == nil {
					return true, nil
				}
			}
		}
	}
	if err != nil && os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
		return false, err
	}
	return err == nil, nil
}

// bomb is a module that the limits let through, and that takes the compiler about
// a minute.
func bomb() []byte {
	uleb := func(n int) string { return string(binary.AppendUvarint(nil, uint64(n))) } //nolint:gosec // not negative
	section := func(id byte, content string) string { return string(id) + uleb(len(content)) + content }
	const functions, branches = 16, 5_900
	code := "\x00\x02\x40" + strings.Repeat("\x20\x00\x0d\x00", branches) + "\x0b\x0b"
	return []byte("\x00asm\x01\x00\x00\x00" + section(1, "\x02\x60\x01\x7f\x00\x60\x00\x00") +
		section(3, uleb(functions+1)+strings.Repeat("\x00", functions)+"\x01") + section(5, "\x01\x00\x01") +
		section(7, "\x02\x06memory\x02\x00\x06_start\x00"+uleb(functions)) +
		section(10, uleb(functions+1)+strings.Repeat(uleb(len(code))+code, functions)+"\x02\x00\x0b"))
}

func up(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: up VARIABLE PREFIX ARGUMENT...")
	}
	self, err := os.Executable()
	ts.Check(err)
	cmd := exec.Command(self, args[2:]...)
	cmd.Args[0] = "beacon"
	cmd.Dir = ts.Getenv("WORK")
	for _, name := range []string{"PATH", "HOME", "GOCACHE", "BEACON_CACHE_DIR", "TMPDIR", "TOKEN"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	cmd.Env = append(cmd.Env, "BEACON_STAGING_PATH="+ts.Getenv("BEACON_STAGING_PATH"))
	read, write, err := os.Pipe()
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = write, write
	ts.Check(cmd.Start())
	ts.Check(write.Close())
	drained := make(chan struct{})
	ts.Defer(func() {
		ts.Check(cmd.Process.Signal(os.Interrupt))
		ts.Check(cmd.Wait())
		<-drained
		ts.Check(read.Close())
	})
	said := bufio.NewScanner(read)
	lines := ""
	for said.Scan() {
		ts.Logf("%s", said.Text())
		lines += said.Text() + "\n"
		if rest, ok := strings.CutPrefix(said.Text(), args[1]); ok {
			word, _, _ := strings.Cut(rest, " ")
			ts.Setenv(args[0], word)
			break
		}
	}
	go func() {
		defer close(drained)
		for said.Scan() {
			continue
		}
	}()
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".said"), []byte(lines), 0o600))
}

func serve(ts *testscript.TestScript, variable string, h http.Handler) {
	s := httptest.NewServer(h)
	ts.Defer(s.Close)
	ts.Setenv(variable, strings.TrimPrefix(s.URL, "http://"))
}

func mustAbs(t *testing.T, path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}
