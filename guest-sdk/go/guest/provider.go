// Package guest is what a Beacon provider written in Go is made of.
//
// A provider is an ordinary Go program whose main is empty. It hands a
// [Provider] to [Serve] from an init function and is built as a WebAssembly
// reactor:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -trimpath -ldflags="-s -w" -o hello.wasm .
//
// The worker then calls the [Action] that a work item asks for, with an [Item]
// to read settings from and to report to. Each action declares its settings;
// they are checked before the action runs, so an action never sees a missing
// or malformed one.
//
// Off WebAssembly the package compiles and behaves the same: package guesttest
// runs a provider under plain go test, package native runs it in a program.
//
// The package imports little, and neither fmt nor encoding/json: a provider
// without them is a module of two thirds of the size, which compiles faster.
package guest

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// A Provider is one capability: a kind of work that a beacon offers to the
// server, made of actions.
type Provider struct {
	// Name is the provider's own name; Version its version. Informative.
	Name    string
	Version string
	// Capability is the name under which servers dispatch work to it.
	Capability  string
	Description string
	// Actions has at least one entry; the first is the default action.
	Actions []Action
	// Permissions are what the provider wants to be allowed, with its reasons.
	// The operator decides.
	Permissions []Permission
	// Initialize, if any, runs once before there is an item. The host keeps what it
	// leaves in memory, and every item begins with a copy of that: nothing of one
	// item is there in the next.
	Initialize func() error
	// Reseed, if any, runs before each item: it makes anew what Initialize has made
	// of random numbers, which otherwise is the same in all items. The functions of
	// math/rand/v2 and crypto/rand need no such care, nor does the order of maps.
	Reseed func() error
	// Shutdown, if any, runs after each item that ended well.
	Shutdown func() error
	// WarmUp, if any, is an item that the host runs once after Initialize. What it
	// leaves in memory, such as caches, every item begins with: after it, Go's
	// encoding/json knows the types, for one. Its outputs are dropped, and it can
	// reach nothing outside.
	WarmUp *WarmUp
}

// A WarmUp is a work item that comes with its file.
type WarmUp struct {
	// Action is the default action if it is empty.
	Action   string
	Settings map[string]string
	// Source is the name of a source file with the given Content; Output that of
	// an output file. Either may be empty.
	Source, Content, Output string
}

// An Action is one verb of a capability.
type Action struct {
	// Name is how work items ask for it: "Resize", not "resize image".
	Name        string
	Description string
	// Settings are what the action accepts.
	Settings []Setting
	// Example, if any, is a work item that shows the action at work.
	Example *Example
	// Run carries out one item. An error means that the provider could not do
	// the work: the item ends as failed, with the error's text, and the server
	// may try again. The error of [Exit] is a result with an exit code instead.
	Run func(*Item) error
}

// A DataType says what a setting holds.
type DataType uint8

// The data types. Ultravisor knows Integer as Number.
const (
	String DataType = iota
	Number
	Integer
	Boolean
)

// A Setting declares one parameter of an action.
type Setting struct {
	Name string
	// Type is String when left out.
	Type        DataType
	Description string
	// Required settings must be given; "" counts as not given, as servers send
	// it for settings that nobody filled in.
	Required bool
	// Default is the value of an absent setting, in the form it would be given
	// in: "4", "true". Without one it is "", 0 or false.
	Default string
	// Options, if any, are the only values allowed.
	Options []string
}

// An Example is a ready work item. File names are relative to the folder of the
// provider's source.
type Example struct {
	Settings map[string]string
	Source   string
	Output   string
}

// A Permission is something the provider wants to be allowed, in the words of
// hostfuncs/ABI.md: "http GET https://api.example.com/v1", "call LLM", "secret
// openai".
type Permission struct {
	Permission string
	Reason     string
	// Optional permissions need not be granted: the provider can do without, and
	// finds out by trying.
	Optional bool
}

// Exit returns an error that makes the item end with a result, not a failure:
// with this exit code, and with the message as StdOut unless that is set. It is
// for work that was done and came out badly, as with a command that exits
// non-zero; servers do not try such items again.
func Exit(code int, message string) error { return &exitError{code, message} }

type exitError struct {
	code    int
	message string
}

func (e *exitError) Error() string {
	return "exit code " + strconv.Itoa(e.code) + ": " + e.message
}

// Validate reports what is wrong with the declaration of a provider: missing
// and repeated names, an action without Run, a default that its own type does
// not allow.
func (p *Provider) Validate() error {
	if p.Capability == "" {
		return errors.New("the provider has no Capability")
	}
	if len(p.Actions) == 0 {
		return errors.New("capability " + p.Capability + " has no actions")
	}
	if p.WarmUp != nil && p.action(p.WarmUp.Action) == nil {
		return errors.New("WarmUp has an action " + excerpt(p.WarmUp.Action) + " that capability " + p.Capability + " does not have")
	}
	for i := range p.Actions {
		a := &p.Actions[i]
		switch {
		case a.Name == "":
			return errors.New("capability " + p.Capability + " has an action without a name")
		case p.action(a.Name) != a:
			return errors.New("action " + a.Name + " is declared twice")
		case a.Run == nil:
			return errors.New("action " + a.Name + " has no Run")
		}
		for j := range a.Settings {
			s := &a.Settings[j]
			if s.Name == "" {
				return errors.New("action " + a.Name + " has a setting without a name")
			}
			if a.setting(s.Name) != j {
				return errors.New("action " + a.Name + " declares setting " + s.Name + " twice")
			}
			if s.Default != "" {
				if err := s.check(s.Default); err != nil {
					return errors.New("action " + a.Name + ": the default of " + err.Error())
				}
			}
		}
	}
	return nil
}

// action finds an action; "" is the first.
func (p *Provider) action(name string) *Action {
	if name == "" && len(p.Actions) > 0 {
		return &p.Actions[0]
	}
	for i := range p.Actions {
		if p.Actions[i].Name == name {
			return &p.Actions[i]
		}
	}
	return nil
}

// setting finds a declaration by name, -1 when there is none.
func (a *Action) setting(name string) int {
	return slices.IndexFunc(a.Settings, func(s Setting) bool { return s.Name == name })
}

// check tells whether the setting may have this value, which is not "".
func (s *Setting) check(text string) error {
	var err error
	want := ""
	switch s.Type {
	case Number:
		_, err = parseFloat(text)
		want = "a number"
	case Integer:
		_, err = parseInt(text)
		want = "a whole number"
	case Boolean:
		_, err = strconv.ParseBool(text)
		want = "true or false"
	}
	if err == nil && len(s.Options) > 0 && !slices.Contains(s.Options, text) {
		err, want = errOption, "one of "+list(s.Options)
	}
	if err != nil {
		return errors.New("setting " + s.Name + " is " + excerpt(text) + ": want " + want)
	}
	return nil
}

var errOption = errors.New("not an option")

// parseInt reads a whole number. JavaScript writes large ones as 1e+21 and
// people write 10.0, so what a float holds exactly is fine, too.
func parseInt(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err == nil {
		return n, nil
	}
	f, ferr := parseFloat(text)
	if ferr == nil && f > -1<<53 && f < 1<<53 && f == float64(int64(f)) {
		return int64(f), nil
	}
	return 0, err
}

// parseFloat reads a number as all SDKs do: decimal, and neither infinite nor NaN.
func parseFloat(text string) (float64, error) {
	if strings.Trim(text, "0123456789+-.eE") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(text, 64)
}

// Manifest returns the provider's description for the host: the JSON object of
// hostfuncs/ABI.md.
func (p *Provider) Manifest() JSON {
	b := []byte(`{"Name":`)
	b = appendString(b, p.Name)
	b = appendMember(b, "Version", p.Version)
	b = appendMember(b, "Capability", p.Capability)
	b = appendMember(b, "Description", p.Description)
	b = append(b, `,"Actions":[`...)
	for i := range p.Actions {
		if i > 0 {
			b = append(b, ',')
		}
		b = p.Actions[i].append(b)
	}
	b = append(b, `],"Permissions":[`...)
	for i, permission := range p.Permissions {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"Permission":`...)
		b = appendString(b, permission.Permission)
		b = appendMember(b, "Reason", permission.Reason)
		if permission.Optional {
			b = append(b, `,"Optional":true`...)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if p.WarmUp != nil {
		b = p.WarmUp.append(b, p)
	}
	return JSON(append(b, '}'))
}

func (w *WarmUp) append(b []byte, p *Provider) []byte {
	action := w.Action
	if action == "" && len(p.Actions) > 0 {
		action = p.Actions[0].Name
	}
	b = append(b, `,"WarmUp":{"Action":`...)
	b = appendString(b, action)
	b = appendSettings(append(b, ','), w.Settings)
	b = appendMember(b, "Source", w.Source)
	b = appendMember(b, "Content", w.Content)
	b = appendMember(b, "Output", w.Output)
	return append(b, '}')
}

// appendSettings appends the member Settings.
func appendSettings(b []byte, settings map[string]string) []byte {
	b = append(b, `"Settings":{`...)
	names := make([]string, 0, len(settings))
	for name := range settings {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = appendString(b, settings[name])
	}
	return append(b, '}')
}

func (a *Action) append(b []byte) []byte {
	b = append(b, `{"Name":`...)
	b = appendString(b, a.Name)
	b = appendMember(b, "Description", a.Description)
	b = append(b, `,"SettingsSchema":[`...)
	for i := range a.Settings {
		if i > 0 {
			b = append(b, ',')
		}
		b = a.Settings[i].append(b)
	}
	b = append(b, ']')
	if a.Example != nil {
		b = appendSettings(append(b, `,"Example":{`...), a.Example.Settings)
		b = appendMember(b, "Source", a.Example.Source)
		b = appendMember(b, "Output", a.Example.Output)
		b = append(b, '}')
	}
	return append(b, '}')
}

func (s *Setting) append(b []byte) []byte {
	dataType := "String"
	switch s.Type {
	case Number, Integer:
		dataType = "Number"
	case Boolean:
		dataType = "Boolean"
	}
	b = append(b, `{"Name":`...)
	b = appendString(b, s.Name)
	b = appendMember(b, "DataType", dataType)
	b = append(b, `,"Required":`...)
	b = strconv.AppendBool(b, s.Required)
	b = appendMember(b, "Description", s.Description)
	if s.Default != "" {
		b = append(b, `,"Default":`...)
		b = s.appendDefault(b)
	}
	if len(s.Options) > 0 {
		b = append(b, `,"Options":`...)
		b, _ = appendValue(b, s.Options)
	}
	return append(b, '}')
}

// appendDefault writes the default in its type. Validate has checked it; of a
// provider that was not validated, a bad default is kept as text.
func (s *Setting) appendDefault(b []byte) []byte {
	switch s.Type {
	case Number, Integer:
		if f, err := strconv.ParseFloat(s.Default, 64); err == nil {
			if out, err := appendValue(b, f); err == nil {
				return out
			}
		}
	case Boolean:
		if v, err := strconv.ParseBool(s.Default); err == nil {
			return strconv.AppendBool(b, v)
		}
	}
	return appendString(b, s.Default)
}

func list(names []string) string {
	out := ""
	for i, name := range names {
		if i > 0 {
			out += ", "
		}
		out += name
	}
	return out
}

// excerpt quotes text from strangers for a message: short, on one line.
func excerpt(text string) string {
	const most = 80
	if len(text) > most {
		return strconv.Quote(text[:most]) + "…"
	}
	return strconv.Quote(text)
}
