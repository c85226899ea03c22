package javascript_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guest-sdk/javascript"
)

// The shim in the tree is the one that its source describes.
func TestShim(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatal(err)
		}
		t.Skip("wat2wasm is not there: apt-get install wabt")
	}
	path := filepath.Join(t.TempDir(), "shim.wasm")
	out, err := exec.CommandContext(t.Context(), tool, "shim.wat", "-o", path).CombinedOutput() //nolint:gosec // our own text
	require.NoError(t, err, string(out))
	want, err := os.ReadFile(path) //nolint:gosec // just made
	require.NoError(t, err)
	require.Equal(t, want, javascript.Shim, "run wat2wasm shim.wat -o shim.wasm")
}

// The engine in the tree is what its source makes: the package from npm, joined with the
// shim. BEACON_UPDATE_MODULES=1 puts it there.
func TestEngine(t *testing.T) {
	const remedy = "npm install " + javascript.EnginePackage + " " + javascript.BinaryenPackage + ", and have its node_modules/.bin in PATH"
	merge, err := exec.LookPath("wasm-merge")
	var quickjs string
	if err == nil {
		quickjs = filepath.Join(filepath.Dir(filepath.Dir(merge)), filepath.FromSlash(javascript.EngineFile)) // of node_modules/.bin
		_, err = os.Stat(quickjs)
	}
	if err != nil {
		if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
			t.Fatalf("%s: %s", err, remedy)
		}
		t.Skipf("%s: %s", err, remedy)
	}
	joined := filepath.Join(t.TempDir(), "engine.wasm")
	out, err := exec.CommandContext(t.Context(), merge, javascript.MergeArgs("shim.wasm", quickjs, joined)...).CombinedOutput() //nolint:gosec // our own words
	require.NoError(t, err, string(out))
	want, err := os.ReadFile(joined) //nolint:gosec // just made
	require.NoError(t, err)
	if os.Getenv("BEACON_UPDATE_MODULES") == "1" {
		require.NoError(t, os.WriteFile("engine.wasm", want, 0o644)) //nolint:gosec // a file of the tree
		return
	}
	require.True(t, bytes.Equal(want, javascript.Engine), "engine.wasm is of another engine or shim: run BEACON_UPDATE_MODULES=1 go test -run TestEngine")
}

// The shim's functions and their numbers in beacon.js are the same.
func TestNumbers(t *testing.T) {
	text, err := os.ReadFile("shim.wat")
	require.NoError(t, err)
	n := 0
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(line, `(import "beacon_v1" "`); ok {
			name, _, _ := strings.Cut(rest, `"`)
			require.Regexp(t, `\b`+name+": "+strconv.Itoa(n)+`,`, javascript.Prelude)
			n++
		}
	}
	require.Equal(t, 38, n)
}

// Editors are told of all that scripts find, and of nothing else.
func TestDeclarations(t *testing.T) {
	text, err := os.ReadFile("beacon.d.ts")
	require.NoError(t, err)
	declared := string(text)
	member := regexp.MustCompile(`(?m)^    (?:get )?([a-zA-Z]+)(?:\(.*\) \{|: .*,|,|;.*)$`)
	words := func(text string) (names []string) {
		for _, m := range member.FindAllStringSubmatch(text, -1) {
			names = append(names, m[1])
		}
		return names
	}
	part := func(text, begin, end string) string {
		_, rest, found := strings.Cut(text, begin)
		require.True(t, found, begin)
		inside, _, found := strings.Cut(rest, end)
		require.True(t, found, begin)
		return inside
	}
	of := part(declared, "declare const beacon: {", "\n};")
	for _, name := range words(part(javascript.Prelude, "globalThis.beacon = Object.freeze({", "\n  });")) {
		require.Regexp(t, `(?m)^  `+name+`[:(]`, of)
	}
	for class, parent := range map[string]string{"Item": "", "File": "", "Pending": " extends Handle", "Response": "", "Running": " extends Handle"} {
		inside := part(javascript.Prelude, "\n  class "+class+parent+" {", "\n  }")
		of := part(declared, "\ninterface "+class, "\n}")
		for _, name := range words(inside) {
			if name != "constructor" && name != "wrong" {
				require.Regexp(t, `(?m)^  (readonly )?`+name+`[:(]`, of, class)
			}
		}
		for _, m := range regexp.MustCompile(`(?m)^  (?:readonly )?([a-zA-Z]+)[:(]`).FindAllStringSubmatch(of, -1) {
			require.Regexp(t, `(?m)^    (get )?`+m[1]+`\(|this\.`+m[1]+` =|item\.`+m[1]+` =`, inside+"\n"+part(javascript.Prelude, "async function execute() {", "\n  }"), class)
		}
	}
}

// Bytes that are no engine are refused; package conformance has the real one.
func TestAssemble(t *testing.T) {
	tests := map[string]struct {
		engine []byte
		name   string
		want   string
	}{
		"nothing":         {nil, "a.js", "no WebAssembly module"},
		"text":            {[]byte("(module) and more"), "a.js", "no WebAssembly module"},
		"another module":  {[]byte("\x00asm\x01\x00\x00\x00"), "a.js", "has no data"},
		"cut off":         {javascript.Shim[:len(javascript.Shim)-3], "a.js", "the engine"},
		"cut off exports": {[]byte("\x00asm\x01\x00\x00\x00\x07\x03\x01\x05a"), "a.js", "cut off"},
		"not joined":      {javascript.Shim, "a.js", "not joined with the shim"},
		"bad name":        {javascript.Shim, "a\x00.js", "byte 0"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := javascript.Assemble(test.engine, test.name, "")
			require.ErrorContains(t, err, test.want)
		})
	}
}

func FuzzAssemble(f *testing.F) {
	f.Add(javascript.Shim)
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x07\x0a\x01\x06memory\x02\x00\x0b\x10\x01\x01\x0dBEACON-SCRIPT"))
	f.Fuzz(func(t *testing.T, engine []byte) {
		if out, err := javascript.Assemble(engine, "a.js", "1"); err == nil {
			require.Contains(t, string(out), "a.js\x001\x00")
		}
	})
}
