package guest_test

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// host is as much of beacon_v1 as the SDK imports, written from ABI.md, so that
// the SDK is tested against the document and not against itself.
type host struct {
	item     map[string]any
	settings map[string]string
	outputs  map[string]any
	progress []float64
	log      []string
	failure  string
	manifest string
}

const (
	errnoOK       = 0
	errnoNotFound = 3
	errnoRange    = 4
)

func (h *host) instantiate(t *testing.T, r wazero.Runtime) {
	text := func(m api.Module, ptr, size uint32) string {
		b, ok := m.Memory().Read(ptr, size)
		require.True(t, ok, "pointer outside of the memory")
		return string(b)
	}
	fill := func(m api.Module, data string, buf, size, length uint32) uint32 {
		require.True(t, m.Memory().WriteUint32Le(length, uint32(len(data))))
		if len(data) > int(size) {
			return errnoRange
		}
		require.True(t, m.Memory().WriteString(buf, data))
		return errnoOK
	}
	b := r.NewHostModuleBuilder("beacon_v1")
	for name, f := range map[string]any{
		"work_item": func(_ context.Context, m api.Module, buf, size, length uint32) uint32 {
			data, err := json.Marshal(h.item)
			require.NoError(t, err)
			return fill(m, string(data), buf, size, length)
		},
		"settings": func(_ context.Context, m api.Module, buf, size, length uint32) uint32 {
			data, err := json.Marshal(h.settings)
			require.NoError(t, err)
			return fill(m, string(data), buf, size, length)
		},
		"setting": func(_ context.Context, m api.Module, name, nameLen, buf, size, length uint32) uint32 {
			value, ok := h.settings[text(m, name, nameLen)]
			if !ok {
				return errnoNotFound
			}
			return fill(m, value, buf, size, length)
		},
		"config": func(_ context.Context, m api.Module, name, nameLen, buf, size, length uint32) uint32 {
			if text(m, name, nameLen) != "Host" {
				return errnoNotFound
			}
			return fill(m, "example.org", buf, size, length)
		},
		"progress": func(_ context.Context, m api.Module, percent float64, _, _, message, messageLen uint32) uint32 {
			text(m, message, messageLen)
			h.progress = append(h.progress, percent)
			return errnoOK
		},
		"log": func(_ context.Context, m api.Module, _, ptr, size uint32) uint32 {
			require.LessOrEqual(t, size, uint32(64<<10))
			h.log = append(h.log, text(m, ptr, size))
			return errnoOK
		},
		"output": func(_ context.Context, m api.Module, name, nameLen, value, valueLen uint32) uint32 {
			var v any
			require.NoError(t, json.Unmarshal([]byte(text(m, value, valueLen)), &v))
			h.outputs[text(m, name, nameLen)] = v
			return errnoOK
		},
		"fail": func(_ context.Context, m api.Module, ptr, size uint32) uint32 {
			h.failure = text(m, ptr, size)
			return errnoOK
		},
		"describe": func(_ context.Context, m api.Module, ptr, size uint32) uint32 {
			h.manifest = text(m, ptr, size)
			return errnoOK
		},
		"remaining": func(_ context.Context, m api.Module, ptr uint32) uint32 {
			require.True(t, m.Memory().WriteUint64Le(ptr, 1500))
			return errnoOK
		},
		"cancelled": func(context.Context) uint32 { return errnoOK },
	} {
		b.NewFunctionBuilder().WithFunc(f).Export(name)
	}
	_, err := b.Instantiate(t.Context())
	require.NoError(t, err)
}

func TestInWebAssembly(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and compiles a module")
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "probe.wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", path, "./testdata/probe") //nolint:gosec // our own test module
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	binary, err := os.ReadFile(path) //nolint:gosec // the module just built
	require.NoError(t, err)

	r := wazero.NewRuntime(t.Context())
	defer func() { require.NoError(t, r.Close(context.WithoutCancel(t.Context()))) }()
	h := &host{}
	h.instantiate(t, r)
	wasi_snapshot_preview1.MustInstantiate(t.Context(), r)
	code, err := r.CompileModule(t.Context(), binary)
	require.NoError(t, err)
	module, err := r.InstantiateModule(t.Context(), code, wazero.NewModuleConfig().WithStartFunctions("_initialize").
		WithFSConfig(wazero.NewFSConfig().WithDirMount(dir, "/work")))
	require.NoError(t, err)
	call := func(name string) uint64 {
		result, err := module.ExportedFunction(name).Call(t.Context())
		require.NoError(t, err)
		return result[0]
	}

	require.Zero(t, call("beacon_describe"))
	require.True(t, json.Valid([]byte(h.manifest)), h.manifest)
	require.Contains(t, h.manifest, `"Capability":"Probe"`)
	require.Zero(t, call("beacon_initialize"))

	do := func(action string, settings map[string]string) uint64 {
		h.item = map[string]any{"WorkItemHash": "wi-1", "Capability": "Probe", "Action": action, "AttemptNumber": 1, "SourcePath": "/work/in.txt", "OutputPath": "/work/out.txt"}
		h.settings, h.outputs, h.log, h.progress, h.failure = settings, map[string]any{}, nil, nil, ""
		return call("beacon_execute")
	}
	large := strings.Repeat("é\"\n", 500_000) // the first buffer is too small for it
	require.Zero(t, do("Echo", map[string]string{"Text": large, "Times": "2"}))
	require.Equal(t, large+large, h.outputs["Result"])
	require.Equal(t, "wi-1", h.outputs["Hash"])
	require.Equal(t, true, h.outputs["Initialized"])
	require.Equal(t, float64(len(large)), h.outputs["Size"])
	require.Equal(t, "example.org", h.outputs["Config"])
	require.Equal(t, true, h.outputs["HasConfig"])
	require.Equal(t, 1500.0, h.outputs["Remaining"])
	require.Equal(t, false, h.outputs["Cancelled"])
	require.Equal(t, map[string]any{"Text": large, "Times": "2"}, h.outputs["All"])
	require.Equal(t, []float64{50, 0}, h.progress)
	require.Equal(t, []string{"logged"}, h.log)

	require.NotZero(t, do("Fail", nil))
	require.Equal(t, "no disk", h.failure)
	require.NotZero(t, do("Unknown", nil))
	require.Contains(t, h.failure, `unknown action "Unknown": Probe has Echo, Fail`)
	require.NotZero(t, do("Echo", map[string]string{"Times": "x"}))
	require.Equal(t, `setting Times is "x": want a whole number`, h.failure)
	require.Zero(t, do("Exit", nil))
	require.Equal(t, map[string]any{"ExitCode": 3.0, "StdOut": "bad picture"}, h.outputs)
	require.NotZero(t, do("Panic", nil))
	require.Contains(t, h.failure, "panic in action Panic: runtime error: index out of range")
	require.Contains(t, strings.Join(h.log, "\n"), "main.go")

	require.NotZero(t, do("Copy", nil))
	require.Contains(t, h.failure, "/work/in.txt")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in.txt"), []byte("hello"), 0o600))
	require.Zero(t, do("Copy", nil), h.failure)
	got, err := os.ReadFile(filepath.Join(dir, "out.txt")) //nolint:gosec // written by the module
	require.NoError(t, err)
	require.Equal(t, "HELLO", string(got))
	require.Zero(t, call("beacon_shutdown"))
}
