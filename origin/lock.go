package origin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
)

// LockName is what the lock file is called; it lies beside the configuration.
const LockName = "beacon.lock"

// lockVersion is that of the file's form.
const lockVersion = 1

// maxLock is the largest lock file in bytes.
const maxLock = 16 << 20

// A Lock pins modules: what each was, and what it wanted, when the operator
// accepted it.
type Lock struct {
	// Version is that of the file's form.
	Version int
	// Modules are by their source, as the configuration has it.
	Modules map[string]Locked
}

// Locked is one module as it was accepted.
type Locked struct {
	// SHA256 of the module, in hexadecimal.
	SHA256 string
	// Name and Release are the module's own words, for people.
	Name    string `json:",omitempty"`
	Release string `json:",omitempty"`
	// Permissions are those that it wanted, sorted.
	Permissions []string
}

// ReadLock reads a lock file. Without one it is nil.
func ReadLock(file string) (*Lock, error) {
	raw, err := readLock(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	wrong := func(err error) (*Lock, error) {
		return nil, beacon.Errorf(beacon.Invalid, "lock file %s: %w", file, err)
	}
	if err != nil {
		return wrong(pathless(err))
	}
	l, err := parseLock(raw)
	if err != nil {
		return wrong(err)
	}
	return l, nil
}

// readLock reads the file, which came with a folder from somewhere, maybe.
func readLock(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a device has no end, a pipe no beginning
		return nil, errors.New("it is not a regular file")
	}
	opened, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return bounded(opened, maxLock)
}

// unique refuses an object with two members of one name: a reader of the file
// would see one, and the program take the other. Names that differ in capitals are
// one to it, but for those of modules.
func unique(dec *json.Decoder, path ...string) error {
	token, err := dec.Token()
	if err != nil || token != json.Delim('{') && token != json.Delim('[') {
		return err
	}
	seen := map[string]bool{}
	for dec.More() {
		name := ""
		if token == json.Delim('{') {
			key, err := dec.Token()
			if err != nil {
				return err
			}
			name, _ = key.(string)
			same := name
			if len(path) != 1 || !strings.EqualFold(path[0], "Modules") {
				same = strings.ToLower(name)
			}
			if seen[same] {
				return fmt.Errorf("%q stands in it twice", beacon.Excerpt(name, 200))
			}
			seen[same] = true
		}
		if err := unique(dec, append(path, name)...); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

func parseLock(raw []byte) (*Lock, error) {
	var l Lock
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return nil, fmt.Errorf("not the JSON that is expected: %s", beacon.Excerpt(err.Error(), 200))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	if err := unique(json.NewDecoder(bytes.NewReader(raw))); err != nil {
		return nil, err
	}
	if l.Version != lockVersion {
		return nil, fmt.Errorf("it has version %d, this program knows %d", l.Version, lockVersion)
	}
	for source, m := range l.Modules {
		if pin, err := parsePin(m.SHA256); err != nil || pin == "" {
			return nil, fmt.Errorf("module %s has no SHA256", beacon.Excerpt(source, 200))
		}
	}
	return &l, nil
}

// Write stores the lock, all at once.
func (l *Lock) Write(file string) error {
	l.Version = lockVersion
	if l.Modules == nil {
		l.Modules = map[string]Locked{}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(l); err != nil {
		return fmt.Errorf("encode the lock file: %w", err)
	}
	mode := fs.FileMode(0o644)
	if info, err := os.Stat(file); err == nil {
		mode = info.Mode().Perm()
	}
	if err := write(file, b.Bytes()); err != nil {
		return err
	}
	return os.Chmod(file, mode)
}

// Pin is the digest that a source must have; "" when it is not locked.
func (l *Lock) Pin(source string) string {
	if l == nil {
		return ""
	}
	return l.Modules[source].SHA256
}

// NewLocked describes a module for the lock.
func NewLocked(digest, name, release string, permissions []string) Locked {
	sorted := slices.Clone(permissions)
	slices.Sort(sorted)
	sorted = slices.Compact(sorted)
	if sorted == nil {
		sorted = []string{}
	}
	return Locked{digest, beacon.Excerpt(name, 200), beacon.Excerpt(release, 200), sorted}
}

// A Change is how a module differs from what was accepted.
type Change struct {
	Source   string
	New      bool // it is not locked yet
	Was, Is  Locked
	More     []string // permissions that it wants and did not
	Less     []string // those that it wanted and does not any more
	Replaced bool     // its bytes are others
}

// Any reports whether there is a difference at all.
func (c Change) Any() bool { return c.New || c.Replaced || len(c.More)+len(c.Less) > 0 }

// Asks reports whether somebody must agree: a module that was there before wants
// more.
func (c Change) Asks() bool { return !c.New && len(c.More) > 0 }

// Compare tells how a module differs from what the lock has.
func (l *Lock) Compare(source string, is Locked) Change {
	c := Change{Source: source, Is: is}
	was, known := Locked{}, false
	if l != nil {
		was, known = l.Modules[source]
	}
	c.Was, c.New = was, !known
	c.Replaced = known && was.SHA256 != is.SHA256
	for _, p := range is.Permissions {
		if !slices.Contains(was.Permissions, p) {
			c.More = append(c.More, p)
		}
	}
	for _, p := range was.Permissions {
		if !slices.Contains(is.Permissions, p) {
			c.Less = append(c.Less, p)
		}
	}
	return c
}

// String tells the difference, one thing a line.
func (c Change) String() string {
	var b strings.Builder
	shown := beacon.Excerpt(Redact(c.Source), 200)
	switch {
	case c.New:
		fmt.Fprintf(&b, "module %s is not in %s", shown, LockName)
	case c.Replaced:
		fmt.Fprintf(&b, "module %s has changed: sha256 %s, was %s", shown, short(c.Is.SHA256), short(c.Was.SHA256))
		if c.Is.Release != c.Was.Release {
			fmt.Fprintf(&b, " (version %s, was %s)", orNone(c.Is.Release), orNone(c.Was.Release))
		}
	case len(c.More)+len(c.Less) > 0:
		fmt.Fprintf(&b, "module %s wants other permissions", shown)
	default:
		fmt.Fprintf(&b, "module %s is as it was accepted", shown)
	}
	for _, p := range c.More {
		fmt.Fprintf(&b, "\n  + %s", beacon.Excerpt(p, 300))
	}
	for _, p := range c.Less {
		fmt.Fprintf(&b, "\n  - %s", beacon.Excerpt(p, 300))
	}
	return b.String()
}

func orNone(text string) string {
	if text == "" {
		return "none"
	}
	return text
}

func short(digest string) string { return digest[:min(len(digest), 12)] }

// Refusal is the error of a module that is not as it was accepted; nil when it
// is.
func (c Change) Refusal() error {
	if !c.Any() {
		return nil
	}
	remedy := "run \"beacon lock\" to pin it"
	if c.Asks() {
		remedy = "run \"beacon lock --accept\" to accept it"
	}
	return beacon.Errorf(beacon.Refused, "%s\n%s", c, remedy)
}
