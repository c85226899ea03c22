package toolchain_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/toolchain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	manifest = "module example.test/provider\n\ngo 1.24\n"
	command  = "package main\n\nfunc main() { println(\"hello\") }\n"
	reactor  = "package main\n\n//go:wasmexport beacon_execute\nfunc execute() int32 { return 0 }\n\nfunc main() {}\n"
)

// provider makes a folder with a provider's source.
func provider(t *testing.T, name string, files map[string]string) string {
	t.Helper()
	folder := filepath.Join(t.TempDir(), name)
	require.NoError(t, os.MkdirAll(folder, 0o700))
	for name, text := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	return folder
}

func exports(t *testing.T, path string) []string {
	t.Helper()
	binary, err := os.ReadFile(path)
	require.NoError(t, err)
	facts, err := module.Parse(binary, module.Limits{})
	require.NoError(t, err)
	var names []string
	for _, e := range facts.Exports {
		names = append(names, e.Name)
	}
	return names
}

func TestBuild(t *testing.T) {
	tests := map[string]struct {
		folder string
		export string
	}{
		"command":         {provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command}), "_start"},
		"reactor":         {provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": reactor}), "beacon_execute"},
		"with the SDK":    {"../examples/wasm/transform", "beacon_execute"},
		"name with space": {provider(t, "two words [x]*", map[string]string{"go.mod": manifest, "main.go": command}), "_start"},
		"other programs beside it": {provider(t, "tool", map[string]string{
			"go.mod": manifest, "main.go": command,
			"generate.go":  "//go:build ignore\n\n" + reactor,
			"main_test.go": "package main_test\n\nthis is not Go",
			"x_windows.go": "package other\n",
			"_draft.go":    "not Go",
		}), "_start"},
	}
	// In a repository that git does not want to read, as of another user's.
	stranger := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command})
	require.NoError(t, os.Mkdir(filepath.Join(stranger, ".git"), 0o700))
	t.Setenv("GOFLAGS", "-buildvcs=auto")
	tests["version control"] = struct{ folder, export string }{stranger, "_start"}

	out := t.TempDir()
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, err := toolchain.Build(t.Context(), test.folder, out)
			require.NoError(t, err)
			require.Equal(t, filepath.Base(test.folder)+".wasm", filepath.Base(path))
			require.Contains(t, exports(t, path), test.export)
			left, err := os.ReadDir(filepath.Dir(path))
			require.NoError(t, err)
			require.Len(t, left, 1, "nothing but the module stays")
		})
	}
}

// The folder of what is built may be relative, and is not the compiler's.
func TestBuildIntoRelativeFolder(t *testing.T) {
	folder := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command})
	t.Chdir(t.TempDir())
	path, err := toolchain.Build(t.Context(), folder, "built")
	require.NoError(t, err)
	require.FileExists(t, path)
	require.DirExists(t, "built")
	require.NoDirExists(t, filepath.Join(folder, "built"))
}

func TestBuildAgain(t *testing.T) {
	out := t.TempDir()
	one := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command})
	two := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": reactor})
	first, err := toolchain.Build(t.Context(), one, out)
	require.NoError(t, err)
	second, err := toolchain.Build(t.Context(), two, out)
	require.NoError(t, err)
	require.NotEqual(t, first, second)
	require.Contains(t, exports(t, first), "_start", "two folders of one name do not mix")
	require.Contains(t, exports(t, second), "beacon_execute")

	require.NoError(t, os.WriteFile(filepath.Join(one, "main.go"), []byte(reactor), 0o600))
	again, err := toolchain.Build(t.Context(), one, out)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Contains(t, exports(t, again), "beacon_execute", "what changed is built anew")

	require.NoError(t, os.WriteFile(filepath.Join(one, "main.go"), []byte("package main\n\nfunc main() { undefined() }\n"), 0o600))
	_, err = toolchain.Build(t.Context(), one, out)
	require.Error(t, err)
	require.Contains(t, exports(t, again), "beacon_execute", "the module of before stays")
}

// Somebody else's program, which a go.mod names as its tool.
func TestBuildTool(t *testing.T) {
	files := func(tools string) map[string]string {
		return map[string]string{
			"go.mod": manifest + "\nrequire example.test/tool v0.0.0\n\nreplace example.test/tool => ./tool\n" + tools,
		}
	}
	folder := provider(t, "p", files("\ntool example.test/tool/cmd\n"))
	require.NoError(t, os.MkdirAll(filepath.Join(folder, "tool", "cmd"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "tool", "go.mod"), []byte("module example.test/tool\n\ngo 1.24\n"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(folder, "tool", "cmd", "main.go"), []byte(command), 0o600))
	path, err := toolchain.Build(t.Context(), folder, t.TempDir())
	require.NoError(t, err)
	require.Contains(t, exports(t, path), "_start")

	_, err = toolchain.Build(t.Context(), provider(t, "p", files("\ntool (\n\texample.test/tool/cmd\n\texample.test/tool/other\n)\n")), t.TempDir())
	require.ErrorContains(t, err, "2 tools in its go.mod: a provider is one program")
	_, err = toolchain.Build(t.Context(), provider(t, "p", files("")), t.TempDir())
	require.ErrorContains(t, err, "has no program in")
	_, err = toolchain.Build(t.Context(), provider(t, "p", files("\nnonsense\n")), t.TempDir())
	require.ErrorContains(t, err, "go.mod:")
}

// A manifest beside the source of a program that knows nothing of it.
func TestBuildWithManifest(t *testing.T) {
	folder := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command, toolchain.ManifestFile: `{"Name": "tool"}`})
	path, err := toolchain.Build(t.Context(), folder, t.TempDir())
	require.NoError(t, err)
	binary, err := os.ReadFile(path)
	require.NoError(t, err)
	facts, err := module.Parse(binary, module.Limits{})
	require.NoError(t, err)
	require.JSONEq(t, `{"Name": "tool"}`, string(facts.Manifest))
}

func TestBuildFails(t *testing.T) {
	tests := map[string]struct {
		files map[string]string
		texts []string
	}{
		"type error":   {map[string]string{"go.mod": manifest, "main.go": "package main\n\nfunc main() { missing() }\n"}, []string{"building ", " failed:\n", "main.go:3:15: undefined: missing"}},
		"syntax error": {map[string]string{"go.mod": manifest, "main.go": "package main\n\nfunc main( {}\n"}, []string{"read the provider's source", "main.go:3"}},
		"no module":    {map[string]string{"main.go": command}, []string{"go.mod"}},
		"import of nothing": {map[string]string{"go.mod": manifest, "main.go": "package main\n\nimport _ \"example.test/provider/missing\"\n\nfunc main() {}\n"},
			[]string{"failed:", "example.test/provider/missing"}},
		"a library":        {map[string]string{"go.mod": manifest, "lib.go": "package lib\n"}, []string{"has package lib, which is no program"}},
		"nothing":          {nil, []string{"has no program in Go", "name a folder with a provider's source, or a .wasm file"}},
		"tests only":       {map[string]string{"go.mod": manifest, "main_test.go": "package main\n"}, []string{"has no program in"}},
		"not for guests":   {map[string]string{"go.mod": manifest, "main.go": "//go:build !wasip1\n\n" + command}, []string{"has no program in"}},
		"another language": {map[string]string{"main.pas": "begin end."}, []string{"has no program in Go, Rust, C or C++, AssemblyScript, CommonJS, JavaScript"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder, out := provider(t, "tool", test.files), t.TempDir()
			_, err := toolchain.Build(t.Context(), folder, out)
			for _, text := range test.texts {
				require.ErrorContains(t, err, text)
			}
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			left, err := filepath.Glob(filepath.Join(out, "*", "*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
	_, err := toolchain.Build(t.Context(), filepath.Join(t.TempDir(), "missing"), t.TempDir())
	require.ErrorIs(t, err, os.ErrNotExist)
}

// needC skips a test where there is no clang that can build for WebAssembly.
func needC(t *testing.T) {
	t.Helper()
	_, err := toolchain.Build(t.Context(), provider(t, "c", map[string]string{"main.c": "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n"}), t.TempDir())
	if err == nil {
		return
	}
	if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
		t.Fatal(err)
	}
	t.Skip(err)
}

func TestBuildC(t *testing.T) {
	needC(t)
	tests := map[string]struct {
		files  map[string]string
		export string
	}{
		"command":         {map[string]string{"main.c": "#include <stdio.h>\nint main(void) { return puts(\"hello\") < 0; }\n"}, "_start"},
		"several files":   {map[string]string{"main.c": "int other(void);\nint main(void) { return other(); }\n", "other.c": "int other(void) { return 0; }\n"}, "_start"},
		"C++":             {map[string]string{"main.cpp": "template <class T> T zero() { return T(); }\nint main() { return zero<int>(); }\n"}, "_start"},
		"no flag":         {map[string]string{"-c.c": "int main(void) { return 0; }\n"}, "_start"},
		"without the SDK": {map[string]string{"p.c": "__attribute__((export_name(\"beacon_execute\"))) int run(void) { return 0; }\n"}, "beacon_execute"},
		"with the SDK of this program": {map[string]string{"p.c": `#define BEACON_IMPLEMENTATION
#include "beacon.h"
static int run(void) { return 0; }
static const beacon_action actions[] = {{.name = "Do", .run = run}, {0}};
static const beacon_provider provider = {.name = "p", .version = "1", .capability = "P", .actions = actions};
BEACON_SERVE(provider)
`}, "beacon_execute"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path, err := toolchain.Build(t.Context(), provider(t, "tool", test.files), t.TempDir())
			require.NoError(t, err)
			require.Contains(t, exports(t, path), test.export)
		})
	}
	_, err := toolchain.Build(t.Context(), provider(t, "tool", map[string]string{"main.c": "int main(void) { return missing; }\n"}), t.TempDir())
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "main.c:1:25: error: use of undeclared identifier 'missing'")
	require.NotContains(t, err.Error(), "clang lacks")
}

func TestBuildWithoutC(t *testing.T) {
	folder := provider(t, "tool", map[string]string{"main.c": "int main(void) { return 0; }\n"})
	t.Setenv("PATH", "")
	_, err := toolchain.Build(t.Context(), folder, t.TempDir())
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "apt-get install clang lld wasi-libc")
	t.Setenv("WASI_SDK_PATH", filepath.Join(t.TempDir(), "sdk"))
	_, err = toolchain.Build(t.Context(), folder, t.TempDir())
	require.ErrorContains(t, err, filepath.Join("sdk", "bin", "clang"))
}

func TestBuildWithoutGo(t *testing.T) {
	folder := provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command})
	t.Setenv("PATH", "")
	_, err := toolchain.Build(t.Context(), folder, t.TempDir())
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "install Go 1.24 or later (https://go.dev/dl), or name a .wasm file")
}

// The user's own settings for other builds do not get in the way.
func TestBuildEnvironment(t *testing.T) {
	t.Setenv("GOOS", "windows")
	t.Setenv("GOARCH", "arm64")
	t.Setenv("CGO_ENABLED", "1")
	path, err := toolchain.Build(t.Context(), provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command}), t.TempDir())
	require.NoError(t, err)
	require.Contains(t, exports(t, path), "_start")
}

func TestBuildEnds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	reason := errors.New("somebody pressed Ctrl-C")
	cancel(reason)
	out := t.TempDir()
	_, err := toolchain.Build(ctx, provider(t, "tool", map[string]string{"go.mod": manifest, "main.go": command}), out)
	require.ErrorIs(t, err, reason)
	left, err := filepath.Glob(filepath.Join(out, "*", "*"))
	require.NoError(t, err)
	require.Empty(t, strings.Join(left, " "))
}

func TestBuildJavaScript(t *testing.T) {
	out := t.TempDir()
	for name, files := range map[string]map[string]string{
		"only script":   {"hello.js": "1"},
		"among scripts": {"provider.js": "1", "rollup.config.js": "2"},
	} {
		t.Run(name, func(t *testing.T) {
			path, err := toolchain.Build(t.Context(), provider(t, "script", files), out)
			require.NoError(t, err)
			require.Contains(t, exports(t, path), "beacon_execute")
		})
	}
	_, err := toolchain.Build(t.Context(), provider(t, "scripts", map[string]string{"a.js": "1", "b.js": "2"}), out)
	require.ErrorContains(t, err, "has 2 files .js: call the one that a provider begins with provider.js")
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
}

// What is missing is said, and how to get it.
func TestBuildWithoutCompiler(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("the compilers here are scripts for a shell")
	}
	empty, old, lone := t.TempDir(), t.TempDir(), t.TempDir()
	say := func(dir, name, text string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o700)) //nolint:gosec // a program
	}
	say(old, "rustc", "echo "+filepath.Join(empty, "absent")) // where its library would be
	say(lone, "rustc", "echo "+empty)
	tests := map[string]struct {
		path  string
		files map[string]string
		want  string
	}{
		"Go":                 {empty, map[string]string{"go.mod": manifest, "main.go": command}, "takes the Go toolchain, and there is no go command: install Go"},
		"C":                  {empty, map[string]string{"main.c": ""}, "takes clang, and there is no command clang: in Debian apt-get install clang"},
		"Rust":               {empty, map[string]string{"Cargo.toml": ""}, "takes Rust for WebAssembly, and there is no command rustc: in Debian apt-get install rustc cargo"},
		"Rust's library":     {old, map[string]string{"Cargo.toml": ""}, "rustc has no standard library for WebAssembly: in Debian apt-get install rustc cargo libstd-rust-dev-wasm32 lld; elsewhere install Rust"},
		"cargo":              {lone, map[string]string{"Cargo.toml": ""}, "there is no cargo beside "},
		"AssemblyScript":     {empty, map[string]string{"provider.ts": ""}, "takes the compiler of AssemblyScript, and there is no command asc: with npm (in Debian apt-get install npm; "},
		"of several scripts": {empty, map[string]string{"a.ts": "", "b.ts": ""}, "has 2 files .ts: call the one that a provider begins with provider.ts"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Setenv("PATH", test.path)
			_, err := toolchain.Build(t.Context(), provider(t, "p", test.files), t.TempDir())
			require.ErrorContains(t, err, test.want)
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
		})
	}
}

// A program in AssemblyScript need not know the SDK.
func TestBuildAssemblyScript(t *testing.T) {
	if _, err := exec.LookPath("asc"); err != nil {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skip("asc is not there: npm install assemblyscript@0.28.20, and have its node_modules/.bin in PATH")
	}
	path, err := toolchain.Build(t.Context(), provider(t, "p", map[string]string{"provider.ts": "export function beacon_execute(): i32 { return 0; }\n"}), t.TempDir())
	require.NoError(t, err)
	require.Contains(t, exports(t, path), "beacon_execute")
}

// Which file of a folder, or of a package, is the provider: the one whose needs are
// named.
func TestBuildCommonJS(t *testing.T) {
	const program = "module.exports = require('fs');\n"
	tests := map[string]struct {
		files map[string]string
		want  string // "" for a script of the SDK
	}{
		"main":                 {map[string]string{"package.json": `{"main": "./a.js"}`, "a.js": program, "b.js": "1"}, "a.js:1:26"},
		"main without ending":  {map[string]string{"package.json": `{"main": "a"}`, "a.js": program}, "a.js:1:26"},
		"main is a folder":     {map[string]string{"package.json": `{"main": "lib"}`, "lib/index.js": program}, "lib/index.js:1:26"},
		"no main":              {map[string]string{"package.json": `{}`, "index.js": program}, "index.js:1:26"},
		"only file":            {map[string]string{"a.cjs": program}, "a.cjs:1:26"},
		"named provider":       {map[string]string{"provider.cjs": program, "a.cjs": "1"}, "provider.cjs:1:26"},
		"a program in .js":     {map[string]string{"a.js": program}, "a.js:1:26"},
		"required":             {map[string]string{"a.cjs": "require('./lib/b')", "lib/b.js": program}, "lib/b.js:1:26"},
		"script of the SDK":    {map[string]string{"provider.js": "beacon.serve({})", "eslint.config.cjs": program}, ""},
		"package with the SDK": {map[string]string{"package.json": `{"main": "a.js"}`, "a.js": "beacon.serve({})"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			folder := provider(t, "tool", nil)
			for name, text := range test.files {
				require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o700))
				require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
			}
			_, err := toolchain.Build(t.Context(), folder, t.TempDir())
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			require.ErrorContains(t, err, "  fs: required at "+test.want+"\n")
		})
	}
	for want, files := range map[string]map[string]string{
		"names gone.js as its main file, and there is no such file": {"package.json": `{"main": "gone.js"}`},
		"package.json: invalid character":                           {"package.json": "{main"},
		"style.css is required, and neither JavaScript nor JSON":    {"a.cjs": "require('./style.css')", "style.css": ""},
		`No loader is configured for ".node" files`:                 {"a.cjs": "require('./a.node')", "a.node": ""},
	} {
		_, err := toolchain.Build(t.Context(), provider(t, "tool", files), t.TempDir())
		require.ErrorContains(t, err, want)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), want)
	}
}
