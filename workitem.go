package beacon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// A WorkItem is one request from an Ultravisor server, as received. Everything
// in it is untrusted: the hash is not a file name, settings may hold anything.
type WorkItem struct {
	// Hash names the item on its server. It is the only key under which a
	// result can be reported.
	Hash string
	// Capability and Action say what to do. An empty Action means the first
	// action of the capability.
	Capability string
	Action     string
	// Settings are the parameters of the action.
	Settings Settings
	// OperationHash and RunID tie the item to a workflow; empty for items that
	// were dispatched on their own.
	OperationHash string
	RunID         string
	// Timeout bounds the execution; 0 means the server gave none.
	Timeout time.Duration
	// Attempt counts deliveries from 1; 0 means the server does not count.
	Attempt int
}

// Settings are a work item's parameters by name, kept as the JSON they arrived
// in, so that nothing is lost on the way to a provider: numbers keep all their
// digits, and text that only looks like JSON stays text. On Ultravisor's wire
// nearly all settings are JSON strings, whatever they mean, so the methods
// accept both forms ("4" and 4, "true" and true).
type Settings map[string]json.RawMessage

// Has reports whether the setting is present and neither null nor "". Servers
// send "" for settings that nobody filled in.
func (s Settings) Has(name string) bool {
	raw := bytes.TrimSpace(s[name])
	return len(raw) > 0 && string(raw) != "null" && string(raw) != `""`
}

// Text returns the setting as text: the content of a JSON string, or the JSON
// itself of any other value. An absent or null setting is "".
func (s Settings) Text(name string) string {
	raw := bytes.TrimSpace(s[name])
	if len(raw) == 0 || string(raw) == "null" {
		return ""
	}
	if raw[0] == '"' {
		var text string
		if json.Unmarshal(raw, &text) == nil {
			return text
		}
	}
	return string(raw)
}

// Bool returns the setting as a truth value, false when absent. Anything other
// than the forms of strconv.ParseBool is an Invalid error.
func (s Settings) Bool(name string) (bool, error) {
	if !s.Has(name) {
		return false, nil
	}
	value, err := strconv.ParseBool(s.Text(name))
	if err != nil {
		return false, Errorf(Invalid, "setting %s is %q: want true or false", name, Excerpt(s.Text(name), 80))
	}
	return value, nil
}

// Int returns the setting as a whole number, fallback when absent.
func (s Settings) Int(name string, fallback int64) (int64, error) {
	if !s.Has(name) {
		return fallback, nil
	}
	value, err := strconv.ParseInt(s.Text(name), 10, 64)
	if err != nil {
		return 0, Errorf(Invalid, "setting %s is %q: want a whole number", name, Excerpt(s.Text(name), 80))
	}
	return value, nil
}

// SetText stores a text value.
func (s Settings) SetText(name, value string) {
	raw, err := json.Marshal(value)
	if err != nil {
		panic(fmt.Sprintf("a string did not marshal: %v", err)) // json.Marshal of a string cannot fail
	}
	s[name] = raw
}
