// Package secret keeps keys out of everything that people or programs get to
// see: a Value cannot be printed by accident, and a Redactor takes secrets out
// of text that came from elsewhere.
package secret

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
)

// Mask stands where a secret was.
const Mask = "[redacted]"

// A Value is a secret. However it is printed, logged or encoded, there is the
// Mask; only Reveal shows it.
type Value struct {
	// A pointer, since printing a struct that holds a Value in an unexported field
	// calls none of the methods below, but does not follow pointers.
	text *string
}

// New makes a Value of text.
func New(text string) Value { return Value{&text} }

// Resolve reads what a configuration says of a secret: $NAME is in the
// environment, file:/path in a file, without the line's end; everything else is
// the secret itself. A secret that is not there is an error, which does not
// show what was read.
func Resolve(text string) (Value, error) {
	if name, ok := strings.CutPrefix(text, "$"); ok {
		found, present := os.LookupEnv(name)
		if !present {
			return Value{}, fmt.Errorf("the worker's environment has no %s", name)
		}
		return New(found), nil
	}
	if path, ok := strings.CutPrefix(text, "file:"); ok {
		raw, err := os.ReadFile(path)
		if err != nil {
			return Value{}, fmt.Errorf("read a secret: %w", err)
		}
		return New(strings.TrimRight(string(raw), "\r\n")), nil
	}
	return New(text), nil
}

// Reveal returns the secret, for the one place that sends it.
func (v Value) Reveal() string {
	if v.text == nil {
		return ""
	}
	return *v.text
}

// Empty reports whether there is no secret.
func (v Value) Empty() bool { return v.Reveal() == "" }

// String implements fmt.Stringer.
func (v Value) String() string { return Mask }

// GoString implements fmt.GoStringer.
func (v Value) GoString() string { return Mask }

// Format implements fmt.Formatter, which wins over every verb.
func (v Value) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Mask) }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(Mask) }

// MarshalText implements encoding.TextMarshaler.
func (v Value) MarshalText() ([]byte, error) { return []byte(Mask), nil }

// shortest is the length from which on a secret is taken out of text. Shorter
// ones are words that people write where a key is wanted but not needed, such
// as "ollama" or "none"; taking them out would change answers.
const shortest = 8

// A Redactor takes secrets out of text. The nil Redactor takes nothing out. It
// is safe for concurrent use.
type Redactor struct{ replacer *strings.Replacer }

// NewRedactor makes a Redactor of secrets. It also finds them as they stand in
// URLs, in JSON and in base64.
func NewRedactor(secrets ...Value) *Redactor {
	var forms []string
	for _, s := range secrets {
		text := s.Reveal()
		if len(text) < shortest {
			continue
		}
		quoted, _ := json.Marshal(text) // of a string it cannot fail
		forms = append(forms, text, url.QueryEscape(text), url.PathEscape(text), string(quoted[1:len(quoted)-1]),
			base64.StdEncoding.EncodeToString([]byte(text)), base64.RawURLEncoding.EncodeToString([]byte(text)))
	}
	// The longest first: one may be the beginning of another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	forms = slices.Compact(forms)
	if len(forms) == 0 {
		return nil
	}
	pairs := make([]string, 0, 2*len(forms))
	for _, form := range forms {
		pairs = append(pairs, form, Mask)
	}
	return &Redactor{strings.NewReplacer(pairs...)}
}

// Scrub returns the text without secrets.
func (r *Redactor) Scrub(text string) string {
	if r == nil {
		return text
	}
	return r.replacer.Replace(text)
}
