package hostfuncs

import (
	"encoding/json"
	"errors"
	"io/fs"
	"strings"

	"github.com/ultravisor/beacon"
)

// Limits of manifests, from ABI.md.
const (
	maxManifest = 1 << 20
	maxActions  = 256
	maxSettings = 256     // of an action, of an example, and permissions
	maxWords    = 4 << 10 // bytes of one description, default or example's value
)

// A Manifest is what a provider says about itself. It is the module author's
// word: it informs, and it grants nothing.
type Manifest struct {
	Name        string
	Version     string
	Capability  beacon.Capability
	Permissions []Permission
	// WarmUp is an item that a module does once after its initialisation, so that
	// what it makes on the way is there for all others; nil for none.
	WarmUp *WarmUp
}

// A WarmUp is an item without a server.
type WarmUp struct {
	Action   string
	Settings beacon.Settings
	// Source is the name of a staged file with the given Content, "" for none.
	Source, Content string
	Output          string
}

// A Permission is something that the provider wants and why.
type Permission struct {
	Permission string
	Reason     string
	// Optional is true of what the provider can do without.
	Optional bool
}

// ParseManifest reads a manifest. All text in it is made fit for terminals and
// logs. Errors have code beacon.Refused and name the field.
func ParseManifest(raw []byte) (Manifest, error) {
	var m struct {
		Name        string
		Version     string
		Capability  string
		Description string
		Actions     []struct {
			Name           string
			Description    string
			SettingsSchema []beacon.Setting
			Example        *beacon.Example
		}
		Permissions []Permission
		WarmUp      *WarmUp
	}
	refuse := func(format string, args ...any) (Manifest, error) {
		return Manifest{}, beacon.Errorf(beacon.Refused, "the module's manifest: "+format, args...)
	}
	if len(raw) > maxManifest {
		return refuse("%d bytes, limit %d", len(raw), maxManifest)
	}
	var wrong *json.UnmarshalTypeError
	if err := json.Unmarshal(raw, &m); errors.As(err, &wrong) && wrong.Field != "" {
		return refuse("%s is of the JSON type %s, which it cannot be", beacon.Excerpt(wrong.Field, 200), beacon.Excerpt(wrong.Value, 40))
	} else if err != nil {
		// The error repeats the number that does not fit, however long.
		return refuse("not the JSON that is expected: %s", beacon.Excerpt(err.Error(), 200))
	}
	switch {
	case m.Capability == "":
		return refuse("Capability is missing")
	case len(m.Actions) == 0:
		return refuse("Actions is empty: a capability has at least one")
	case len(m.Actions) > maxActions:
		return refuse("%d actions, limit %d", len(m.Actions), maxActions)
	case len(m.Permissions) > maxSettings:
		return refuse("%d permissions, limit %d", len(m.Permissions), maxSettings)
	}
	if m.Name == "" {
		m.Name = m.Capability
	}
	out := Manifest{
		Name:       beacon.Excerpt(m.Name, maxName),
		Version:    beacon.Excerpt(m.Version, maxName),
		Capability: beacon.Capability{Name: m.Capability, Description: beacon.Excerpt(m.Description, maxWords)},
	}
	if err := checkName(m.Capability); err != nil {
		return refuse("Capability %w", err)
	}
	seen := map[string]bool{}
	for _, a := range m.Actions {
		if err := checkName(a.Name); err != nil {
			return refuse("action %w", err)
		}
		if seen[a.Name] {
			return refuse("action %s stands twice", a.Name)
		}
		seen[a.Name] = true
		if len(a.SettingsSchema) > maxSettings {
			return refuse("action %s has %d settings, limit %d", a.Name, len(a.SettingsSchema), maxSettings)
		}
		if err := checkExample(a.Example); err != nil {
			return refuse("the example of action %s: %w", a.Name, err)
		}
		for j, s := range a.SettingsSchema {
			if !plainDefault(s.Default) {
				return refuse("action %s, setting %s: Default must be a text of at most %d bytes, a number, true or false",
					a.Name, beacon.Excerpt(s.Name, 80), maxWords)
			}
			a.SettingsSchema[j].Name = beacon.Excerpt(s.Name, maxName)
			a.SettingsSchema[j].DataType = beacon.Excerpt(s.DataType, maxName)
			a.SettingsSchema[j].Description = beacon.Excerpt(s.Description, maxWords)
		}
		out.Capability.Actions = append(out.Capability.Actions, beacon.Action{
			Name: a.Name, Description: beacon.Excerpt(a.Description, maxWords), Settings: a.SettingsSchema, Example: a.Example,
		})
	}
	if w := m.WarmUp; w != nil {
		if !seen[w.Action] {
			return refuse("WarmUp has an Action %q, which is none of Actions", beacon.Excerpt(w.Action, 80))
		}
		if err := w.check(); err != nil {
			return refuse("WarmUp: %w", err)
		}
		out.WarmUp = w
	}
	for _, p := range m.Permissions {
		out.Permissions = append(out.Permissions, Permission{beacon.Excerpt(p.Permission, maxName), beacon.Excerpt(p.Reason, maxWords), p.Optional})
	}
	return out, nil
}

// checkExample admits an example that can be shown as a command line and whose
// files are beside the provider: it ends in a terminal.
func checkExample(e *beacon.Example) error {
	if e == nil {
		return nil
	}
	for _, name := range []string{e.Source, e.Output} {
		if name != "" && (!fs.ValidPath(name) || !plain(name) || strings.ContainsAny(name, `\:`)) {
			return beacon.Errorf(beacon.Refused, "%q must be a relative path inside of the provider's folder", beacon.Excerpt(name, 80))
		}
	}
	if len(e.Settings) > maxSettings {
		return beacon.Errorf(beacon.Refused, "%d settings, limit %d", len(e.Settings), maxSettings)
	}
	for name, value := range e.Settings {
		if !plain(name) || !plain(value) {
			return beacon.Errorf(beacon.Refused, "setting %q must be one line of at most %d bytes", beacon.Excerpt(name, 80), maxWords)
		}
	}
	return nil
}

func (w *WarmUp) check() error {
	for _, name := range []string{w.Source, w.Output} {
		if name != "" && (name == "." || !fs.ValidPath(name) || !plain(name) || strings.ContainsAny(name, `/\:`)) {
			return beacon.Errorf(beacon.Refused, "%q must be a plain file name", beacon.Excerpt(name, 80))
		}
	}
	switch {
	case len(w.Settings) > maxSettings:
		return beacon.Errorf(beacon.Refused, "%d settings, limit %d", len(w.Settings), maxSettings)
	case w.Source == "" && w.Content != "":
		return beacon.Errorf(beacon.Refused, "there is Content but no name of a Source")
	}
	return nil
}

// plain reports whether text can be shown as it is.
func plain(text string) bool { return beacon.Excerpt(text, maxWords) == text }

func plainDefault(value any) bool {
	switch v := value.(type) {
	case nil, bool, float64:
		return true
	case string:
		return len(v) <= maxWords
	}
	return false
}

// checkName admits what can stand in a message, a path and a command line.
func checkName(name string) error {
	if name == "" || len(name) > 128 {
		return beacon.Errorf(beacon.Refused, "%q must have 1 to 128 bytes", beacon.Excerpt(name, 40))
	}
	for _, r := range name {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.'
		if !letter {
			return beacon.Errorf(beacon.Refused, "%q may hold letters, digits, '-', '_' and '.' only", beacon.Excerpt(name, 40))
		}
	}
	return nil
}
