package guest_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/guest/testdata/reach"
	"github.com/ultravisor/beacon/guest-sdk/go/guesttest"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// site is a server that the provider of testdata/reach talks to.
func site(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return
	case r.URL.Path == "/away":
		http.Redirect(w, r, "/x", http.StatusFound)
		return
	case r.Method == http.MethodPost:
		w.WriteHeader(http.StatusCreated)
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, strings.Join([]string{r.Method, r.URL.Path, r.Header.Get("X-One"), r.Header.Get("Authorization"), string(body)}, " "))
}

// callee is what the provider calls.
func callee(c guest.Call, source []byte) (map[string]any, []byte, error) {
	if c.Capability == "Broken" {
		return nil, nil, errors.New("it broke")
	}
	return map[string]any{"Result": "called " + c.Capability, "Source": string(source), "Settings": c.Settings, "ExitCode": 4}, []byte("output"), nil
}

// The same provider does the same in WebAssembly, with a real host, and under
// go test.
func TestReach(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(site))
	t.Cleanup(server.Close)
	url := "http://example.com"
	cases := []struct {
		name     string
		action   string
		settings map[string]any
		bare     bool // without anything granted
		outputs  map[string]any
		err      string
	}{
		{"get", "Fetch", map[string]any{"URL": url + "/x"}, false, map[string]any{"Status": 200.0, "Result": "GET /x 1 Bearer hidden ", "None": ""}, ""},
		{"post", "Fetch", map[string]any{"URL": url + "/x", "Method": "POST", "Body": "text"}, false, map[string]any{"Status": 201.0, "Result": "POST /x 1 Bearer hidden text"}, ""},
		{"stream", "Fetch", map[string]any{"URL": url + "/x", "Method": "PUT", "Body": strings.Repeat("x", 100_000), "Stream": true}, false, map[string]any{"Result": "PUT /x 1 Bearer hidden " + strings.Repeat("x", 100_000)}, ""},
		{"redirect", "Fetch", map[string]any{"URL": url + "/away"}, false, map[string]any{"Status": 200.0}, ""},
		{"no redirect", "Fetch", map[string]any{"URL": url + "/away", "NoRedirects": true}, false, map[string]any{"Status": 302.0}, ""},
		{"many", "Many", map[string]any{"URL": url}, false, map[string]any{"Result": "GET /a   GET /b   GET /c   "}, ""},
		{"denied", "Fetch", map[string]any{"URL": url}, true, map[string]any{"ExitCode": 3.0}, ""},
		{"call", "Call", map[string]any{"Capability": "LLM"}, false, map[string]any{"Result": "called LLM", "CalleeExitCode": 4.0}, ""},
		{"files", "Call", map[string]any{"Capability": "LLM", "Source": "in.txt", "Output": "out.txt"}, false,
			map[string]any{"Outputs": map[string]any{"Result": "called LLM", "Source": "the source", "Settings": map[string]any{"A": "1", "B": 2.0}, "ExitCode": 4.0}}, ""},
		{"failed", "Call", map[string]any{"Capability": "Broken"}, false, nil, "call Broken/Do: it broke"},
		{"call denied", "Call", map[string]any{"Capability": "LLM"}, true, map[string]any{"ExitCode": 3.0}, ""},
	}
	check := func(t *testing.T, want map[string]any, failure string, got map[string]any, err error) {
		t.Helper()
		if failure != "" {
			require.ErrorContains(t, err, failure)
			return
		}
		require.NoError(t, err)
		for name, value := range want {
			require.Equal(t, value, got[name], name)
		}
	}
	for _, tt := range cases {
		t.Run("native "+tt.name, func(t *testing.T) {
			item := guesttest.Item{Action: tt.action, Settings: tt.settings, Files: map[string]string{"in.txt": "the source"}}
			if !tt.bare {
				item.HTTP, item.Callee, item.Secrets = http.HandlerFunc(site), callee, map[string]string{"key": "hidden"}
			}
			r := guesttest.Run(t, reach.Provider, item)
			check(t, tt.outputs, tt.err, r.Outputs, r.Err)
			if tt.name == "files" {
				require.Equal(t, "output", r.Files["out.txt"])
			}
		})
	}

	if testing.Short() || race {
		// Its compilation takes ten times as long under the race detector, which
		// sees nothing of the module.
		t.Skip("builds and compiles a module")
	}
	module := load(t, server)
	for _, tt := range cases {
		t.Run("wasm "+tt.name, func(t *testing.T) {
			job := &beacon.Job{Item: beacon.WorkItem{Action: tt.action, Settings: beacon.Settings{}}, Tenant: map[bool]string{true: "bare", false: ""}[tt.bare]}
			for name, value := range tt.settings {
				raw, err := json.Marshal(value)
				require.NoError(t, err)
				job.Item.Settings[name] = raw
			}
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "in.txt"), []byte("the source"), 0o600))
			root, err := os.OpenRoot(dir)
			require.NoError(t, err)
			defer root.Close()
			job.Dir = root
			result, err := module.Run(t.Context(), job)
			raw, jsonErr := json.Marshal(result.Outputs)
			require.NoError(t, jsonErr)
			var got map[string]any
			require.NoError(t, json.Unmarshal(raw, &got))
			check(t, tt.outputs, tt.err, got, err)
			if tt.name == "files" {
				content, err := os.ReadFile(filepath.Join(dir, "out.txt"))
				require.NoError(t, err)
				require.Equal(t, "output", string(content))
			}
		})
	}
}

func load(t *testing.T, server *httptest.Server) *wasmrt.Module {
	t.Helper()
	path := filepath.Join(t.TempDir(), "reach.wasm")
	build := exec.CommandContext(t.Context(), "go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-buildvcs=false", "-o", path, "./testdata/reach/module") //nolint:gosec // our own test module
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	binary, err := os.ReadFile(path) //nolint:gosec // the module just built
	require.NoError(t, err)
	r, err := wasmrt.New(wasmrt.Config{})
	require.NoError(t, err)
	module, err := r.Load(t.Context(), wasmrt.Source{Name: "reach", Binary: binary, Admit: func(c wasmrt.Candidate) (wasmrt.Brokers, error) {
		require.Equal(t, "http * https://api.example.com", c.Manifest.Permissions[0].Permission)
		require.Len(t, c.Digest, 64)
		return func(job *beacon.Job) hostfuncs.Broker {
			if job.Tenant == "bare" {
				return nil
			}
			return broker{server}
		}, nil
	}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, module.Close(context.WithoutCancel(t.Context()))) })
	return module
}

// A broker permits everything, and leads every host to one server.
type broker struct{ server *httptest.Server }

func (b broker) Fetch(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	_, rest, _ := strings.Cut(r.URL, "//example.com")
	req, err := http.NewRequestWithContext(ctx, r.Method, b.server.URL+rest, r.Body)
	if err != nil {
		return nil, err
	}
	req.ContentLength = r.BodyLength
	for name, values := range r.Header {
		req.Header.Set(name, strings.ReplaceAll(values[0], "{{secret:key}}", "hidden"))
	}
	client := *b.server.Client()
	if r.Redirects == 0 {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	res, err := client.Do(req)
	if err != nil {
		return nil, beacon.Errorf(beacon.Unreachable, "%w", err)
	}
	return &hostfuncs.Response{Status: res.StatusCode, URL: r.URL, Proto: res.Proto, Header: res.Header, Length: res.ContentLength, Body: res.Body}, nil
}

func (b broker) Call(_ context.Context, r beacon.Call) (beacon.Result, error) {
	settings := map[string]any{}
	for name, raw := range r.Settings {
		settings[name] = raw
	}
	var source []byte
	if r.Source != nil {
		var err error
		if source, err = io.ReadAll(r.Source); err != nil {
			return beacon.Result{}, err
		}
	}
	outputs, output, err := callee(guest.Call{Capability: r.Capability, Action: r.Action, Settings: settings}, source)
	if err != nil {
		return beacon.Result{}, beacon.Errorf(beacon.Failed, "%w", err)
	}
	if r.Output != nil {
		w, err := r.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		if _, err := w.Write(output); err != nil {
			return beacon.Result{}, err
		}
		if err := w.Close(); err != nil {
			return beacon.Result{}, err
		}
	}
	return beacon.Result{Outputs: outputs}, nil
}

func (broker) HasSecret(name string) bool { return name == "key" }
