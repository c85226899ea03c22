package beacon_test

import (
	"encoding/json"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// layers says which of our packages each package may import: data flows from
// transport to provider, and only the command sees everything. Test files may
// import anything.
var layers = map[string][]string{
	"":                   {},
	"protocol":           {""},
	"address":            {"", "protocol"},
	"cork":               {},
	"transport":          {""},
	"transport/session":  {"", "cork", "protocol", "transport"},
	"transport/ws":       {"", "cork", "protocol", "transport", "transport/session"},
	"transport/poll":     {"", "protocol", "transport", "transport/session"},
	"transport/fallback": {"", "transport"},
	"worker":             {"", "transport"},
	"worker/outbox":      {"", "worker"},
	"service": {
		"", "address", "executor", "protocol", "staging",
		"transport", "transport/fallback", "transport/poll", "transport/session", "transport/ws", "worker",
	},
	"egress":                 {""},
	"jsonfile":               {""},
	"policy":                 {"", "egress", "jsonfile"},
	"broker":                 {"", "egress", "hostfuncs", "policy"},
	"origin":                 {"", "policy"},
	"audit":                  {""},
	"monitor":                {"", "protocol"},
	"staging":                {"", "egress", "guestfs"},
	"executor":               {"", "staging"},
	"guestfs":                {},
	"builtin":                {"", "builtin/filesystem", "builtin/llm", "builtin/shell", "jsonfile"},
	"builtin/filesystem":     {""},
	"builtin/shell":          {""},
	"hostfuncs/abi":          {},
	"hostfuncs/wasi":         {"guestfs", "hostfuncs/abi"},
	"hostfuncs":              {"", "guestfs", "hostfuncs/abi"},
	"runtime/module":         {},
	"runtime/source":         {},
	"runtime/profile":        {"runtime/module", "runtime/source"},
	"runtime/snapshot":       {},
	"runtime/engine":         {"hostfuncs/abi"},
	"runtime":                {"", "guestfs", "hostfuncs", "hostfuncs/abi", "hostfuncs/wasi", "runtime/engine", "runtime/module", "runtime/profile", "runtime/snapshot", "runtime/source"},
	"sandbox":                {"", "hostfuncs", "runtime", "runtime/snapshot", "sandbox/confine", "sandbox/wire"},
	"sandbox/confine":        {},
	"sandbox/wire":           {},
	"toolchain":              {"", "guest-sdk", "guest-sdk/javascript", "runtime/module"},
	"scaffold":               {"", "guest-sdk"},
	"replay":                 {"", "hostfuncs"},
	"golden":                 {"", "egress", "hostfuncs", "policy"},
	"hub":                    {"", "cork", "protocol", "hub/journal", "hub/ledger", "hub/object", "hub/pace"},
	"hub/dashboard":          {"", "protocol", "hub/pace"},
	"hub/ledger":             {"", "protocol"},
	"hub/journal":            {},
	"hub/object":             {},
	"hub/pace":               {},
	"hub/jetstream":          {"", "hub/journal", "hub/object"},
	"submit":                 {"", "protocol"},
	"beacontest":             {"", "protocol", "transport"},
	"beacontest/coordinator": {"", "protocol", "beacontest"},
	"beacontest/faultproxy":  {},
	"beacontest/nameserver":  {},
	"guest-sdk":              {},
	"guest-sdk/go/guest":     {},
	"guest-sdk/go/native":    {"guest-sdk/go/guest"},
	"guest-sdk/go/guesttest": {
		"guest-sdk/go/guest", "guest-sdk/go/native",
	},
	"guest-sdk/conformance":            {},
	"guest-sdk/conformance/go":         {"guest-sdk/go/guest"},
	"guest-sdk/javascript":             {},
	"examples/wasm/transform":          {"examples/wasm/transform/table", "examples/wasm/transform/provider", "guest-sdk/go/guest"},
	"examples/wasm/transform/provider": {"examples/wasm/transform/table", "guest-sdk/go/guest"},
	"examples/wasm/transform/table":    {},
	"examples/wasm/transform/native":   {"examples/wasm/transform/provider", "guest-sdk/go/guest", "guest-sdk/go/native"},
	"examples/wasm/transform/generate": {},
	"examples/wasm/image":              {"guest-sdk/go/guest"},
	"examples/wasm/summarize":          {"guest-sdk/go/guest"},
	"builtin/llm": {
		"", "builtin/llm/anthropic", "builtin/llm/model", "builtin/llm/ollama", "builtin/llm/openai", "builtin/llm/price",
		"builtin/llm/quota", "builtin/llm/secret", "builtin/llm/voyage", "builtin/llm/wire",
	},
	"builtin/llm/anthropic": {"", "builtin/llm/model", "builtin/llm/secret", "builtin/llm/wire"},
	"builtin/llm/model":     {},
	"builtin/llm/ollama":    {"", "builtin/llm/model", "builtin/llm/secret", "builtin/llm/wire"},
	"builtin/llm/openai":    {"builtin/llm/model", "builtin/llm/secret", "builtin/llm/wire"},
	"builtin/llm/price":     {"builtin/llm/model"},
	"builtin/llm/quota":     {""},
	"builtin/llm/secret":    {},
	"builtin/llm/voyage":    {"builtin/llm/model", "builtin/llm/openai", "builtin/llm/secret", "builtin/llm/wire"},
	"builtin/llm/wire":      {""},
	"hostile":               {}, // nothing but tests
	"cmd/beacon": {
		"", "address", "audit", "broker", "builtin", "egress", "executor", "golden", "hostfuncs", "hub", "hub/jetstream", "hub/journal", "hub/ledger", "jsonfile", "monitor", "origin", "policy", "protocol", "replay", "runtime", "runtime/module", "sandbox", "scaffold", "staging", "submit", "toolchain",
		"hub/dashboard", "transport", "transport/fallback", "transport/poll", "transport/session", "transport/ws", "worker", "worker/outbox",
	},
}

func TestLayers(t *testing.T) {
	const module = "github.com/ultravisor/beacon"
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	require.NoError(t, err)
	short := func(path string) (string, bool) {
		rest, ours := strings.CutPrefix(path, module)
		return strings.TrimPrefix(rest, "/"), ours
	}
	found := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var pkg struct {
			ImportPath string
			Imports    []string
		}
		require.NoError(t, dec.Decode(&pkg))
		name, _ := short(pkg.ImportPath)
		found++
		allowed, known := layers[name]
		if !known {
			t.Errorf("package %q has no layer: say in layers_test.go what it may import", name)
		}
		for _, path := range pkg.Imports {
			if imported, ours := short(path); ours && !slices.Contains(allowed, imported) {
				t.Errorf("%q must not import %q", name, imported)
			}
		}
	}
	require.Equal(t, len(layers), found, "layers_test.go names a package that is gone")
}

// The packages that carry out work without guests must not link the engine:
// programs that embed a worker for their own capabilities stay small.
func TestNoEngineOutsideRuntime(t *testing.T) {
	for _, pkg := range []string{"./worker", "./service", "./executor", "./transport/...", "./hub", "./submit", "./protocol", "./guestfs", "./hostfuncs/...", "./runtime/module", "./runtime/snapshot", "./egress", "./builtin/..."} {
		out, err := exec.Command("go", "list", "-deps", pkg).Output()
		require.NoError(t, err)
		require.NotContains(t, string(out), "tetratelabs/wazero", pkg)
		require.NotContains(t, string(out), "nats-io/nats-server", pkg)
	}
}
