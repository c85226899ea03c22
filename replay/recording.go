// Package replay records what a module's work item is given and answered, and
// runs it again from that: with the same files, answers, clocks and random
// numbers, and without anything leaving the machine.
package replay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
)

// Format and Version name the format of recordings. Whatever changes what a file
// means changes the version.
const (
	Format  = "beacon replay"
	Version = 1
)

// Suffix ends the names of recordings.
const Suffix = ".replay.json"

// MaxSize bounds a recording: what is kept of files, of answers and of random
// numbers together, in bytes. An item that takes more cannot be recorded.
const MaxSize = 64 << 20

// A Recording is one item of one module. It holds what the guest saw, which is
// without secrets: the host puts those into requests, and takes them out of
// answers.
type Recording struct {
	Format  string
	Version int
	// Recorded is when, and Beacon by which version of the program.
	Recorded time.Time
	Beacon   string

	Module Module
	Item   Item
	// Sources are the files that were staged, in order.
	Sources []File
	Tape    Tape
	// Exchanges, Calls and Secrets are what was answered.
	Exchanges []Exchange
	Calls     []Call
	Secrets   map[string]bool
	Outcome   Outcome
}

// A Module says what ran.
type Module struct {
	Source, Name, SHA256 string
	Config               beacon.Settings
	Memory, Fuel         int64 // limits, 0 for the defaults
}

// An Item is a work item as its provider got it.
type Item struct {
	Hash, Capability, Action string
	Settings                 beacon.Settings
	OperationHash, RunID     string
	TimeoutMs                int64
	Attempt                  int
	Source, Output           string   // names in the item's directory
	Outputs                  []string `json:",omitempty"`
}

// A File is one in the item's directory.
type File struct {
	Name    string
	Content []byte
}

// A Tape has the numbers that the host came up with, in order: of each its kind
// (see hostfuncs.TapeKind) and value; and all random bytes.
type Tape struct {
	Kinds  string
	Values []uint64
	Random []byte
}

// An Exchange is a request and its answer: a response, of whose body there is
// what the guest read, or an error.
type Exchange struct {
	Method, URL string
	Status      int                 `json:",omitempty"`
	FinalURL    string              `json:",omitempty"`
	Proto       string              `json:",omitempty"`
	Header      map[string][]string `json:",omitempty"`
	Length      int64               `json:",omitempty"`
	Body        []byte              `json:",omitempty"`
	// BodyError is how reading the body ended, other than with its end.
	BodyError *Error `json:",omitempty"`
	Error     *Error `json:",omitempty"`
}

// A Call is a call of another capability, and what it came to.
type Call struct {
	Capability, Action string
	Settings           beacon.Settings
	Progress           []beacon.Progress          `json:",omitempty"`
	Outputs            map[string]json.RawMessage `json:",omitempty"`
	Log                []string                   `json:",omitempty"`
	// Output is the content of the callee's output file, nil if there was none.
	Output []byte `json:",omitempty"`
	Error  *Error `json:",omitempty"`
}

// An Error is a failure as guests see it.
type Error struct {
	Code    beacon.Code
	Message string
}

func errorOf(err error) *Error {
	if err == nil {
		return nil
	}
	var ours *beacon.Error
	if errors.As(err, &ours) {
		return &Error{ours.Code, ours.Message}
	}
	return &Error{beacon.CodeOf(err), "the host failed"}
}

func (e *Error) err() error {
	if e == nil {
		return nil
	}
	return beacon.Errorf(e.Code, "%s", e.Message)
}

// An Outcome is how the item ended.
type Outcome struct {
	Outputs map[string]json.RawMessage
	Log     []string
	Error   *Error `json:",omitempty"`
}

// OutcomeOf is what became of an item.
func OutcomeOf(result beacon.Result, err error) (Outcome, error) {
	values, encodeErr := encode(result.Outputs)
	return Outcome{values, append([]string{}, result.Log...), errorOf(err)}, encodeErr
}

func encode(outputs beacon.Outputs) (map[string]json.RawMessage, error) {
	values := make(map[string]json.RawMessage, len(outputs))
	for name, value := range outputs {
		raw, err := json.Marshal(value)
		if err != nil {
			return nil, fmt.Errorf("output %s: %w", name, err)
		}
		values[name] = raw
	}
	return values, nil
}

// Equal reports whether two items ended in the same way.
func (o Outcome) Equal(other Outcome) bool {
	a, erra := json.Marshal(o)
	b, errb := json.Marshal(other)
	return erra == nil && errb == nil && bytes.Equal(a, b)
}

// Read reads a recording. Errors have code beacon.Invalid.
func Read(from io.Reader) (*Recording, error) {
	// Base64 takes a third more than what it stands for.
	raw, err := io.ReadAll(io.LimitReader(from, 2*MaxSize+1))
	if err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "read the recording: %w", err)
	}
	if len(raw) > 2*MaxSize {
		return nil, beacon.Errorf(beacon.Invalid, "the recording has more than %d bytes", 2*MaxSize)
	}
	var head struct {
		Format  string
		Version int
		Beacon  string
	}
	if err := json.Unmarshal(raw, &head); err != nil || head.Format != Format {
		return nil, beacon.Errorf(beacon.Invalid, "this is no recording of an item: beacon exec --record and beacon run --record make them")
	}
	if head.Version != Version {
		return nil, beacon.Errorf(beacon.Invalid, "the recording has version %d of its format, and this Beacon knows version %d: replay it with the Beacon that made it (%s)",
			head.Version, Version, beacon.Excerpt(head.Beacon, 80))
	}
	r := new(Recording)
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "the recording is damaged: %s", beacon.Excerpt(err.Error(), 200))
	}
	if len(r.Tape.Kinds) != len(r.Tape.Values) {
		return nil, beacon.Errorf(beacon.Invalid, "the recording is damaged: %d numbers of %d kinds", len(r.Tape.Values), len(r.Tape.Kinds))
	}
	return r, nil
}

// WriteFile writes the recording to a file that is for its owner only: it holds
// the item's files and settings.
func (r *Recording) WriteFile(path string) error {
	raw, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the recording: %w", err)
	}
	temporary := strings.TrimSuffix(path, Suffix) + ".partial"
	if err := os.WriteFile(temporary, append(raw, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("write the recording: %w", errors.Join(err, os.Remove(temporary)))
	}
	return nil
}
