package conformance_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guest-sdk/javascript"
	"github.com/ultravisor/beacon/toolchain"
)

// An sdk builds the provider in its language.
type sdk struct {
	name  string
	build func(t testing.TB, module string)
}

var sdks = []sdk{
	{"Go", buildGo},
	{"C", buildC("c", "c99")},
	{"C++", buildC("c++", "c++11")},
	{"Rust", func(t testing.TB, module string) { t.Helper(); rust(t, module, "rust/conformance.rs") }},
	{"AssemblyScript", func(t testing.TB, module string) {
		t.Helper()
		assemblyScript(t, module, "..", "conformance/assemblyscript/conformance.ts", "assemblyscript/assembly/panic/abort")
	}},
	{"JavaScript", func(t testing.TB, module string) {
		t.Helper()
		script, err := os.ReadFile("javascript/conformance.js")
		require.NoError(t, err)
		javaScript(t, module, "conformance.js", string(script))
	}},
}

// need skips the test where a tool is missing.
func need(t testing.TB, tool, remedy string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil {
		missing(t, tool+" is not there: "+remedy)
	}
	return path
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func compile(t testing.TB, env []string, name string, args ...string) {
	t.Helper()
	compileIn(t, "", env, name, args...)
}

func compileIn(t testing.TB, folder string, env []string, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...) //nolint:gosec // compilers, and words of ours
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
}

func buildGo(t testing.TB, module string) {
	t.Helper()
	compile(t, []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}, "go",
		"build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", module, "./go")
}

func buildC(language, standard string) func(t testing.TB, module string) {
	return func(t testing.TB, module string) {
		t.Helper()
		clang(t, module, "c/conformance.c", "-x"+language, "-std="+standard, "-Wall", "-Wextra", "-Werror", "-Wl,-s")
	}
}

func clang(t testing.TB, module, source string, args ...string) {
	t.Helper()
	path := need(t, "clang", "apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32")
	if err := exec.CommandContext(t.Context(), path, "--target=wasm32-wasi", "-fsyntax-only", "-include", "stdlib.h", "-xc", os.DevNull).Run(); err != nil { //nolint:gosec // a compiler
		missing(t, "clang has no C library for WebAssembly: apt-get install wasi-libc libclang-rt-14-dev-wasm32")
	}
	compile(t, nil, path, slices.Concat([]string{"--target=wasm32-wasi", "-O2", "-mexec-model=reactor", "-I../c", "-o", module}, args, []string{source})...)
}

// rustc finds a compiler with a standard library for WebAssembly, and what the
// target is called there.
func rustc(t testing.TB) (path, target string) {
	t.Helper()
	for _, name := range []string{"rustc", "/usr/bin/rustc"} { // rustup's may hide the one of the distribution
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} {
			dir, err := exec.CommandContext(t.Context(), name, "--print", "target-libdir", "--target", target).Output() //nolint:gosec // a compiler
			if err != nil {
				continue
			}
			if _, err := os.Stat(strings.TrimSpace(string(dir))); err == nil {
				return name, target
			}
		}
	}
	missing(t, "there is no Rust for WebAssembly: apt-get install rustc libstd-rust-dev-wasm32 lld, or rustup target add wasm32-wasip1")
	return "", ""
}

func rust(t testing.TB, module, source string) {
	t.Helper()
	path, target := rustc(t)
	library := filepath.Join(t.TempDir(), "libbeacon.rlib")
	flags := []string{"--edition", "2021", "--target", target, "-O", "-C", "panic=abort", "-D", "warnings"}
	compile(t, nil, path, append(flags, "--crate-type", "rlib", "--crate-name", "beacon", "-o", library, "../rust/src/lib.rs")...)
	compile(t, nil, path, append(flags, "--crate-type", "cdylib", "-C", "lto", "-C", "strip=symbols", "--extern", "beacon="+library, "-o", module, source)...)
}

const getAsc = "npm install assemblyscript@0.28.20, and have its node_modules/.bin in PATH"

// assemblyScript compiles in a folder, to which the names of the source and of the
// function for what is thrown are relative.
func assemblyScript(t testing.TB, module, folder, source, abort string) {
	t.Helper()
	path := need(t, "asc", getAsc)
	compileIn(t, folder, nil, path, source, "-O2", "--runtime", "incremental", "--exportStart", "_initialize", "--use", "abort="+abort, "-o", module)
}

// javaScript puts a script into the engine.
func javaScript(t testing.TB, module, name, script string) {
	t.Helper()
	binary, err := javascript.Assemble(javascript.Engine, name, script)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(module, binary, 0o600))
}

// The example of each README is what it says: a complete provider.
var readmes = map[string]func(t *testing.T, text, module string){
	"../c/README.md": func(t *testing.T, text, module string) {
		t.Helper()
		source := filepath.Join(t.TempDir(), "hello.c")
		require.NoError(t, os.WriteFile(source, []byte(text), 0o600))
		clang(t, module, source, "-Wall", "-Werror")
	},
	"../rust/README.md": func(t *testing.T, text, module string) {
		t.Helper()
		source := filepath.Join(t.TempDir(), "hello.rs")
		require.NoError(t, os.WriteFile(source, []byte(text), 0o600))
		rust(t, module, source)
	},
	"../assemblyscript/README.md": func(t *testing.T, text, module string) {
		t.Helper()
		need(t, "asc", getAsc)
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "hello.ts"), []byte(text), 0o600))
		made, err := toolchain.Build(t.Context(), folder, t.TempDir())
		require.NoError(t, err)
		require.NoError(t, os.Rename(made, module))
	},
	"../javascript/README.md": func(t *testing.T, text, module string) {
		t.Helper()
		javaScript(t, module, "hello.js", text)
	},
}

func TestReadmes(t *testing.T) {
	if testing.Short() || race {
		t.Skip("builds and compiles modules")
	}
	for name, build := range readmes {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			blocks := regexp.MustCompile("(?s)```[a-z]+\n(.*?)```").FindSubmatch(text)
			require.NotNil(t, blocks)
			path := filepath.Join(t.TempDir(), "hello.wasm")
			build(t, string(blocks[1]), path)
			module := load(t, path)
			require.Equal(t, "Greeting", module.Manifest().Capability.Name)
			for who, want := range map[string]string{"": "hello, world", "you": "hello, you"} {
				got := run(t, module, conformanceCase{action: "Greet", settings: map[string]any{"Who": who}})
				require.Empty(t, got.message)
				require.Equal(t, want, got.outputs["Result"])
				require.Equal(t, []beacon.Progress{{Percent: 50, HasPercent: true, Message: "thinking of something to say"}}, got.progress)
			}
		})
	}
}

// What is wrong with a script is said when its module is loaded.
func TestScripts(t *testing.T) {
	if testing.Short() || race {
		t.Skip("builds and compiles modules")
	}
	for name, test := range map[string]struct{ script, want string }{
		"syntax error":   {"let a = ;", "the script cannot be read: SyntaxError: "},
		"throws":         {"\nfunction f() { throw new Error('no good') }\nf()", "the script cannot be read: Error: no good"},
		"serves nothing": {"1", "the script serves no provider: call beacon.serve"},
		"bad default": {"beacon.serve({capability: 'Script', actions: {Do: {settings: {A: {type: 'number', default: 'x'}}, run() {}}}})",
			`action Do: the default of setting A is "x": want a number`},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "script.wasm")
			javaScript(t, path, "hello.js", test.script)
			_, err := open(t, path)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// What goes wrong in a script fails the item, and nothing else.
func TestScriptsThatFail(t *testing.T) {
	if testing.Short() || race {
		t.Skip("builds and compiles modules")
	}
	path := filepath.Join(t.TempDir(), "script.wasm")
	javaScript(t, path, "hello.js", `beacon.serve({capability: 'Script', actions: {
	promise: { run: () => new Promise(() => {}) },
	rejected: { run: async () => { await null; throw new Error('later') } },
	recursion: { run() { const f = () => f() + 1; f() } },
	thing: { run() { throw {a: 1} } },
	place: { run() {
		nothing()
	} },
	memory: { run() { const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1)) } },
	random: { run(item) { item.result([Math.random(), Math.random()]) } },
	globals: { run(item) { item.result(Object.keys(globalThis)); beacon.serve = 1 } },
	}})`)
	module := load(t, path)
	one, two := run(t, module, conformanceCase{action: "random"}), run(t, module, conformanceCase{action: "random"})
	require.Len(t, one.outputs["Result"], 2)
	require.NotEqual(t, one.outputs["Result"], two.outputs["Result"])
	for action, want := range map[string]struct{ message, log string }{
		"promise":   {"the script waits for a promise that nothing settles", ""},
		"rejected":  {"later", ""},
		"recursion": {"panic in action recursion: Maximum call stack size exceeded", ""},
		"thing":     {`panic in action thing: {"a":1}`, ""},
		"place":     {"panic in action place: nothing is not defined", "hello.js:7"},
		"memory":    {"out of memory", ""},
		"globals":   {"", ""},
	} {
		t.Run(action, func(t *testing.T) {
			got := run(t, module, conformanceCase{action: action})
			if want.message == "" {
				require.Empty(t, got.message)
			}
			require.Contains(t, got.message, want.message)
			require.Contains(t, strings.Join(got.log, "\n"), want.log)
		})
	}
}
