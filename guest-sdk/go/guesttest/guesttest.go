// Package guesttest runs a provider's actions under plain go test: the same code
// that becomes a module, with real files in a temporary directory, and no
// WebAssembly.
package guesttest

import (
	"encoding/json"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/native"
)

// An Item is a work item for a test.
type Item struct {
	// Action "" is the provider's first.
	Action   string
	Settings map[string]any
	Config   map[string]any
	// Source is the content of the staged source, in a file called SourceName.
	// Without Source and SourceName the item has no source.
	Source     string
	SourceName string // "" is source
	// OutputName is the file the item is to leave behind; "" is none.
	OutputName string
	// Files lie in the item's directory from the start.
	Files map[string]string
	// Timeout is the time until the deadline, 0 for none. A test that ends
	// later is not interrupted: there is no sandbox here.
	Timeout time.Duration
	// Cancelled items are so from the start.
	Cancelled bool
	// HTTP answers the item's requests, whatever their host; nil denies them.
	HTTP http.Handler
	// Callee carries out the item's calls; nil denies them.
	Callee native.Callee
	// Secrets are put into requests in place of guest.Secret.
	Secrets map[string]string
}

// A Result is what became of the item.
type Result struct {
	// Outputs are the values set, decoded from JSON: numbers are float64.
	Outputs  map[string]any
	ExitCode int
	Log      []string
	Progress []guest.Progress
	// Output is the content of the file OutputName, Files of every file in the
	// item's directory, by name with slashes, the source included.
	Output string
	Files  map[string]string
	// Err is the failure of the item: what the server gets as its error.
	Err error
}

// Run has the provider carry out an item. What goes wrong outside of the
// provider fails the test.
func Run(t testing.TB, p guest.Provider, item Item) Result {
	t.Helper()
	dir := t.TempDir()
	for name, content := range item.Files {
		write(t, filepath.Join(dir, filepath.FromSlash(name)), content)
	}
	h := &native.Host{
		Item:      guest.WorkItem{Hash: "wi-test-1", Capability: p.Capability, Action: item.Action, Attempt: 1},
		Directory: filepath.ToSlash(dir),
	}
	if item.Source != "" || item.SourceName != "" {
		name := item.SourceName
		if name == "" {
			name = "source"
		}
		h.Item.SourcePath = filepath.Join(dir, name)
		write(t, h.Item.SourcePath, item.Source)
	}
	if item.OutputName != "" {
		h.Item.OutputPath = filepath.Join(dir, item.OutputName)
	}
	h.Values = values(t, item.Settings)
	h.ConfigValues = values(t, item.Config)
	if item.HTTP != nil {
		h.Transport = handler{item.HTTP}
	}
	h.Callee, h.Secrets = item.Callee, item.Secrets
	if item.Timeout > 0 {
		h.Deadline = time.Now().Add(item.Timeout)
	}
	if item.Cancelled {
		cancel := make(chan struct{})
		close(cancel)
		h.Cancel = cancel
	}

	ran, err := native.Run(p, h)
	r := Result{Outputs: map[string]any{}, Progress: ran.Progress, Err: err, Files: read(t, dir)}
	for name, raw := range ran.Outputs {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("output %s: %v", name, err)
		}
		r.Outputs[name] = v
	}
	if code, ok := r.Outputs["ExitCode"].(float64); ok {
		r.ExitCode = int(code)
	}
	for _, line := range ran.Log {
		r.Log = append(r.Log, line.Text)
	}
	r.Output = r.Files[item.OutputName]
	return r
}

// A handler answers requests without a network. The answer is there when it is
// whole.
type handler struct{ http.Handler }

func (h handler) RoundTrip(r *http.Request) (*http.Response, error) {
	served := r.Clone(r.Context())
	served.RequestURI, served.RemoteAddr = r.URL.RequestURI(), "192.0.2.1:1234"
	served.Host = r.URL.Host
	if served.Body == nil {
		served.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, served)
	_ = served.Body.Close() // nobody reads on
	res := w.Result()
	res.Request = r
	return res, nil
}

func values(t testing.TB, settings map[string]any) map[string]json.RawMessage {
	t.Helper()
	v, err := native.Values(settings)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func write(t testing.TB, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path) //nolint:gosec // a file of the test's own directory
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		files[filepath.ToSlash(name)] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}
