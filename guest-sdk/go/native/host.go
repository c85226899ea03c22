// Package native runs a provider as plain Go, without WebAssembly: for tests,
// for debuggers, for comparing speed. It gives an item what a beacon gives it,
// but no sandbox and no limits.
package native

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// A LogLine is one line of an item's log.
type LogLine struct {
	Level guest.Level
	Text  string
}

// Host is the other side of one item. Its fields are set before it is used; its
// methods may be called from several goroutines.
type Host struct {
	// Item is the request. Its paths may be anywhere.
	Item guest.WorkItem
	// Values are the settings, and ConfigValues the provider's configuration,
	// as JSON.
	Values       map[string]json.RawMessage
	ConfigValues map[string]json.RawMessage
	// Directory is the item's own; "" is the current one.
	Directory string
	// Deadline bounds the item; zero means none.
	Deadline time.Time
	// Cancel, when closed, asks the item to end; nil never does.
	Cancel <-chan struct{}
	// Transport carries requests; nil denies them. Any http.RoundTripper does,
	// such as http.DefaultTransport or a test's own.
	Transport http.RoundTripper
	// Callee carries out calls; nil denies them.
	Callee Callee
	// Secrets are put into requests in place of guest.Secret, for every host.
	Secrets map[string]string
	// OnProgress and OnLog, if any, are told at once.
	OnProgress func(guest.Progress)
	OnLog      func(LogLine)

	mu       sync.Mutex
	outputs  map[string]json.RawMessage
	log      []LogLine
	progress []guest.Progress
}

var _ guest.Host = (*Host)(nil)

// WorkItem returns Item.
func (h *Host) WorkItem() (guest.WorkItem, error) { return h.Item, nil }

// Setting returns one of Values as text.
func (h *Host) Setting(name string) (string, bool, error) { return lookup(h.Values, name) }

// Settings returns Values.
func (h *Host) Settings() (guest.JSON, error) {
	b, err := object(h.Values)
	return guest.JSON(b), err
}

// Config returns one of ConfigValues as text, or with an empty name all.
func (h *Host) Config(name string) (string, bool, error) {
	if name == "" {
		b, err := object(h.ConfigValues)
		return string(b), err == nil, err
	}
	return lookup(h.ConfigValues, name)
}

func object(values map[string]json.RawMessage) ([]byte, error) {
	if values == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(values)
}

func lookup(values map[string]json.RawMessage, name string) (string, bool, error) {
	raw, ok := values[name]
	if !ok || string(raw) == "null" {
		return "", false, nil
	}
	if len(raw) > 0 && raw[0] == '"' {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return "", false, err
		}
		return text, true, nil
	}
	return string(raw), true, nil
}

// Progress records progress.
func (h *Host) Progress(p guest.Progress) {
	h.mu.Lock()
	h.progress = append(h.progress, p)
	h.mu.Unlock()
	if h.OnProgress != nil {
		h.OnProgress(p)
	}
}

// Log records each line of text.
func (h *Host) Log(level guest.Level, text string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		line := LogLine{Level: level, Text: line}
		h.mu.Lock()
		h.log = append(h.log, line)
		h.mu.Unlock()
		if h.OnLog != nil {
			h.OnLog(line)
		}
	}
}

// Output records an output. What is not JSON is refused.
func (h *Host) Output(name string, value guest.JSON) error {
	if name == "" || !json.Valid([]byte(value)) {
		return guest.Errno(2)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.outputs == nil {
		h.outputs = map[string]json.RawMessage{}
	}
	h.outputs[name] = json.RawMessage(value)
	return nil
}

// Remaining is the time until Deadline.
func (h *Host) Remaining() (time.Duration, bool) {
	if h.Deadline.IsZero() {
		return 0, false
	}
	return max(0, time.Until(h.Deadline)), true
}

// Cancelled reports whether Cancel is closed.
func (h *Host) Cancelled() bool {
	select {
	case <-h.Cancel:
		return true
	default:
		return false
	}
}

// Dir returns Directory.
func (h *Host) Dir() string {
	if h.Directory == "" {
		return "."
	}
	return strings.TrimRight(h.Directory, "/")
}

// A Result is what became of an item.
type Result struct {
	// Outputs that the provider set; ExitCode is filled in, as a beacon does.
	Outputs  map[string]json.RawMessage
	Log      []LogLine
	Progress []guest.Progress
}

// Run starts the provider, carries out the item of h, and stops the provider.
// The result's log and progress are valid even with an error.
func Run(p guest.Provider, h *Host) (Result, error) {
	err := p.Start()
	if err == nil {
		err = p.Execute(h)
		if stopErr := p.Stop(); stopErr != nil {
			err = errors.Join(err, stopErr)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	result := Result{Outputs: h.outputs, Log: h.log, Progress: h.progress}
	if result.Outputs == nil {
		result.Outputs = map[string]json.RawMessage{}
	}
	if _, ok := result.Outputs["ExitCode"]; !ok {
		result.Outputs["ExitCode"] = json.RawMessage("0")
	}
	return result, err
}

// Values turns settings into the form that Host holds.
func Values(settings map[string]any) (map[string]json.RawMessage, error) {
	values := make(map[string]json.RawMessage, len(settings))
	for name, v := range settings {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, fmt.Errorf("setting %s: %w", name, err)
		}
		values[name] = b
	}
	return values, nil
}
