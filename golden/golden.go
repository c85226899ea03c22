// Package golden tests providers by example: a case says what an item is given,
// and what is expected of it.
package golden

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
)

// Suffix ends the names of files that hold a case.
const Suffix = ".case.json"

// MaxFile bounds a case and each of its files that are compared, which are held in
// memory.
const MaxFile = 64 << 20

// A Case is one item and what is expected of it. Names of files are relative to
// the folder that the case lies in, with slashes, and do not lead out of it.
type Case struct {
	// Name is the file's, without Suffix.
	Name string `json:"-"`

	Description string          `json:",omitempty"`
	Action      string          `json:",omitempty"` // "" is the provider's first
	Settings    beacon.Settings `json:",omitempty"`
	// Config is what the operator gives to the provider.
	Config beacon.Settings `json:",omitempty"`
	// Permissions are what the operator grants; without any, all that the module
	// asks for. An empty list grants nothing.
	Permissions *[]string `json:",omitempty"`
	// Source is a file that is staged, Files are more that lie in the item's
	// directory, by their names there.
	Source string            `json:",omitempty"`
	Files  map[string]string `json:",omitempty"`
	// Output is what the item's output file is called.
	Output string `json:",omitempty"`
	// Timeout, such as "5s", is one minute unless given.
	Timeout string `json:",omitempty"`
	// Requests and Calls answer what the provider asks for, each entry once: the
	// first that fits. Nothing leaves the machine.
	Requests []Request `json:",omitempty"`
	Calls    []Call    `json:",omitempty"`

	Want Want

	folder  string
	timeout time.Duration
	raw     []byte
}

// A Request is the answer to one HTTP request.
type Request struct {
	Method string `json:",omitempty"` // "" is GET
	URL    string
	// Body, if any, is what the request must have sent.
	Body *string `json:",omitempty"`
	// Status is 200 unless given. The response's body is Response, or the content
	// of ResponseFile.
	Status       int               `json:",omitempty"`
	Headers      map[string]string `json:",omitempty"`
	Response     string            `json:",omitempty"`
	ResponseFile string            `json:",omitempty"`
}

// A Call is the answer to one call of another capability.
type Call struct {
	Capability string
	Action     string `json:",omitempty"` // "" fits every one
	// Settings are those that the call must have; it may have more.
	Settings beacon.Settings            `json:",omitempty"`
	Outputs  map[string]json.RawMessage `json:",omitempty"`
	Log      []string                   `json:",omitempty"`
	Error    *Error                     `json:",omitempty"`
}

// An Error is a provider's failure.
type Error struct {
	Code beacon.Code `json:",omitempty"`
	// Message is a part of the text.
	Message string `json:",omitempty"`
}

// Want is what is expected of an item. What is not mentioned may be anything, but
// for two things: an item must not fail, and its exit code must be 0, unless that
// is mentioned.
type Want struct {
	// Outputs are equal to these, Matches are regular expressions for the text of
	// outputs that are not always the same.
	Outputs map[string]json.RawMessage `json:",omitempty"`
	Matches map[string]string          `json:",omitempty"`
	// Error is the provider's failure.
	Error *Error `json:",omitempty"`
	// Log and Progress are all that there is of it, in order.
	Log      *[]string   `json:",omitempty"`
	Progress *[]Progress `json:",omitempty"`
	// Files are those in the item's directory at its end, by their names there,
	// and the files that they are equal to.
	Files map[string]string `json:",omitempty"`
	// Fuel is how many instructions the item may take at most.
	Fuel uint64 `json:",omitempty"`
}

// Progress is one report.
type Progress struct {
	Percent    *float64 `json:",omitempty"`
	Message    string   `json:",omitempty"`
	Step       int      `json:",omitempty"`
	TotalSteps int      `json:",omitempty"`
}

// Got is what became of the item.
type Got struct {
	Result   beacon.Result
	Err      error
	Progress []beacon.Progress
	// Files are the contents of those that Wanted names; one that was not there is
	// missing.
	Files map[string][]byte
	Fuel  uint64
	Took  time.Duration
	// Asked lists what was asked for that had no answer, and answers that nobody
	// asked for.
	Asked []string
}

// Read reads the cases of a folder, sorted by name. Errors have code
// beacon.Invalid and name the file.
func Read(folder string) ([]*Case, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "read the cases in %s: %w", folder, plain(err))
	}
	var cases []*Case
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), Suffix) {
			continue
		}
		c, err := readCase(folder, e.Name())
		if err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "case %s: %w", filepath.Join(folder, e.Name()), err)
		}
		cases = append(cases, c)
	}
	return cases, nil
}

// plain is an error without the path, which its message has already.
func plain(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

func readCase(folder, name string) (*Case, error) {
	c := &Case{Name: strings.TrimSuffix(name, Suffix), folder: folder, timeout: time.Minute}
	raw, err := c.read(name)
	if err != nil {
		return nil, err
	}
	c.raw = raw
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(c); err != nil {
		return nil, at(raw, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is more after the case")
	}
	if c.Timeout != "" {
		if c.timeout, err = time.ParseDuration(c.Timeout); err != nil || c.timeout <= 0 {
			return nil, fmt.Errorf("the Timeout %q is none, such as 5s", c.Timeout) //nolint:staticcheck // the name of a key
		}
	}
	return c, c.check()
}

// at says in which line JSON is wrong.
func at(raw []byte, err error) error {
	var offset int64
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		offset = syntax.Offset
	case errors.As(err, &kind):
		return fmt.Errorf("line %d: %s cannot be a %s", line(raw, kind.Offset), kind.Field, kind.Value)
	default:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return fmt.Errorf("line %d: %w", line(raw, offset), err)
}

func line(raw []byte, offset int64) int {
	return 1 + bytes.Count(raw[:min(int(offset), len(raw))], []byte("\n"))
}

func (c *Case) check() error {
	names := []string{c.Source}
	for _, m := range []map[string]string{c.Files, c.Want.Files} {
		for inside, name := range m {
			if !fs.ValidPath(inside) || inside == "." {
				return fmt.Errorf("%q cannot be the name of a file in the item's directory", inside)
			}
			names = append(names, name)
		}
	}
	for _, r := range c.Requests {
		if r.URL == "" {
			return errors.New("one of Requests has no URL")
		}
		if r.Response != "" && r.ResponseFile != "" {
			return fmt.Errorf("the request of %s has a Response and a ResponseFile", r.URL)
		}
		names = append(names, r.ResponseFile)
	}
	for _, call := range c.Calls {
		if call.Capability == "" {
			return errors.New("one of Calls has no Capability")
		}
	}
	for _, name := range names {
		if name != "" && (!fs.ValidPath(name) || name == ".") {
			return fmt.Errorf("%q is not a file in the folder of the case", name)
		}
	}
	for output, text := range c.Want.Matches {
		if _, err := regexp.Compile(text); err != nil {
			return fmt.Errorf("output %s: %w", output, err)
		}
	}
	for _, name := range append([]string{c.Source}, values(c.Files)...) {
		if name == "" {
			continue
		}
		if _, err := os.Stat(c.Path(name)); err != nil {
			return fmt.Errorf("file %s: %w", name, plain(err))
		}
	}
	return nil
}

func values(m map[string]string) []string {
	list := make([]string, 0, len(m))
	for _, v := range m {
		list = append(list, v)
	}
	slices.Sort(list)
	return list
}

// Path is where a file of the case is.
func (c *Case) Path(name string) string { return filepath.Join(c.folder, filepath.FromSlash(name)) }

// Limit is how long the item may take.
func (c *Case) Limit() time.Duration { return c.timeout }

// Wanted are the names of the files in the item's directory that count at its
// end.
func (c *Case) Wanted() []string {
	names := make([]string, 0, len(c.Want.Files)+1)
	for name := range c.Want.Files {
		names = append(names, name)
	}
	if c.Output != "" && !slices.Contains(names, c.Output) {
		names = append(names, c.Output)
	}
	slices.Sort(names)
	return names
}

// read reads a file of the case, which must not lead out of its folder.
func (c *Case) read(name string) ([]byte, error) {
	root, err := os.OpenRoot(c.folder)
	if err != nil {
		return nil, plain(err)
	}
	defer func() { _ = root.Close() }() // it is only a folder
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, plain(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(raw) > MaxFile {
		err = fmt.Errorf("more than %d bytes", MaxFile)
	}
	return raw, err
}

// Update writes down what became of the item as what is expected of it. What the
// case mentions is renewed; a case that expects nothing yet gets the outputs, the
// failure and the output file. It reports whether anything has changed.
func (c *Case) Update(got Got) (bool, error) {
	w := &c.Want
	begin := w.Outputs == nil && w.Matches == nil && w.Error == nil && w.Files == nil && w.Log == nil && w.Progress == nil
	have, err := outputs(got.Result)
	if err != nil {
		return false, err
	}
	switch {
	case got.Err != nil:
		w.Error, w.Outputs, w.Matches = &Error{beacon.CodeOf(got.Err), got.Err.Error()}, nil, nil
	case begin || w.Error != nil:
		w.Error, w.Outputs = nil, map[string]json.RawMessage{}
		for name, value := range have {
			empty := name == beacon.OutputExitCode && got.Result.ExitCode() == 0 || name == beacon.OutputStdOut && string(value) == `""` ||
				name == beacon.OutputResult && string(value) == string(have[beacon.OutputStdOut]) || name == "OutputData"
			if !empty {
				w.Outputs[name] = value
			}
		}
	default:
		for name := range w.Outputs {
			if value, ok := have[name]; ok {
				w.Outputs[name] = value
			} else {
				delete(w.Outputs, name)
			}
		}
		if code := got.Result.ExitCode(); code != 0 {
			if w.Outputs == nil {
				w.Outputs = map[string]json.RawMessage{}
			}
			w.Outputs[beacon.OutputExitCode] = have[beacon.OutputExitCode]
		}
	}
	if w.Log != nil {
		*w.Log = got.log()
	}
	if w.Progress != nil {
		*w.Progress = reports(got.Progress)
	}
	if w.Fuel > 0 && got.Fuel > w.Fuel {
		w.Fuel = got.Fuel + got.Fuel/4 // so that a small change is no failure
	}
	if begin && got.Err == nil && c.Output != "" && got.Files[c.Output] != nil {
		w.Files = map[string]string{c.Output: c.Name + ".want" + path.Ext(c.Output)}
	}
	changed := false
	for name, file := range w.Files {
		content, ok := got.Files[name]
		if !ok {
			delete(w.Files, name)
			continue
		}
		if old, err := c.read(file); err == nil && bytes.Equal(old, content) {
			continue
		}
		changed = true
		if err := os.WriteFile(c.Path(file), content, 0o666); err != nil { //nolint:gosec // a file of the user's work, by their umask
			return changed, fmt.Errorf("write what is expected: %w", err)
		}
	}
	raw, err := c.encode()
	if err != nil {
		return changed, err
	}
	if same(raw, c.raw) {
		return changed, nil
	}
	c.raw = raw
	if err := os.WriteFile(c.Path(c.Name+Suffix), raw, 0o666); err != nil { //nolint:gosec // the same
		return changed, fmt.Errorf("write the case: %w", err)
	}
	return true, nil
}

func (c *Case) encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(c)
	return b.Bytes(), err
}

// same reports whether two texts are the same JSON.
func same(a, b []byte) bool {
	ca, erra := canonical(a)
	cb, errb := canonical(b)
	return erra == nil && errb == nil && bytes.Equal(ca, cb)
}

// canonical is JSON with sorted keys and without spaces; numbers keep their
// digits.
func canonical(raw []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// outputs are the values of a result as JSON.
func outputs(r beacon.Result) (map[string]json.RawMessage, error) {
	list := make(map[string]json.RawMessage, len(r.Outputs))
	for name, value := range r.Outputs {
		raw, ok := value.(json.RawMessage)
		if !ok {
			var err error
			if raw, err = json.Marshal(value); err != nil {
				return nil, fmt.Errorf("output %s: %w", name, err)
			}
		}
		var err error
		if list[name], err = canonical(raw); err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
	}
	return list, nil
}

// reports are progress messages as a case has them.
func reports(all []beacon.Progress) []Progress {
	list := make([]Progress, len(all))
	for i, p := range all {
		list[i] = Progress{Message: p.Message, Step: p.Step, TotalSteps: p.TotalSteps}
		if p.HasPercent {
			list[i].Percent = &p.Percent
		}
	}
	return list
}

// metered is the line that the runtime adds to the log of an item whose
// instructions are counted.
var metered = regexp.MustCompile(`^fuel: \d+ of \d+ units$`)

// log is the log without what the runtime adds.
func (g Got) log() []string {
	lines := g.Result.Log
	if n := len(lines); n > 0 && metered.MatchString(lines[n-1]) {
		lines = lines[:n-1]
	}
	return append([]string{}, lines...)
}
