// Package jsonfile reads JSON that people write: a key that nobody reads is a
// setting that does not work, and errors say where something is wrong, what is
// there and what is wanted, in no words of a programming language.
package jsonfile

import (
	"bytes"
	"cmp"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
)

// Decode reads one JSON object into what into points to: a struct without names
// of its own for its fields. Keys are those names, letter for letter. Types that
// decode themselves word their own errors.
func Decode(raw []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	var all json.RawMessage
	if err := dec.Decode(&all); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("not a JSON object: it is empty")
		}
		return fmt.Errorf("not a JSON object: %s%w", line(raw, err), err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one JSON value")
	}
	if all[0] != '{' {
		return fmt.Errorf("not a JSON object: it is %s", kind(all))
	}
	if err := check(all, reflect.TypeOf(into), ""); err != nil {
		return err
	}
	return json.Unmarshal(all, into)
}

// line says in which line a syntax error is.
func line(raw []byte, err error) string {
	at := int64(len(raw))
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = min(at, syntax.Offset)
	}
	return fmt.Sprintf("line %d: ", 1+bytes.Count(raw[:at], []byte("\n")))
}

// check compares a value with the type that it is for. path is where it is.
func check(raw json.RawMessage, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer && !decodes(t) {
		t = t.Elem()
	}
	is := kind(raw)
	if decodes(t) || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) || is == kindNull {
		return nil
	}
	wrong := func(want string) error {
		if is == want {
			return nil
		}
		return fmt.Errorf("%s is %s: want %s", cmp.Or(path, "the file"), is, want)
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return wrong(kindText)
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if err := wrong(kindObject); err != nil {
			return err
		}
		return checkObject(raw, t, path)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return wrong(kindText)
		}
		if err := wrong(kindList); err != nil {
			return err
		}
		var list []json.RawMessage
		if err := json.Unmarshal(raw, &list); err != nil {
			return err
		}
		for n, value := range list {
			if err := check(value, t.Elem(), fmt.Sprintf("%s[%d]", path, n)); err != nil {
				return err
			}
		}
	case reflect.String:
		return wrong(kindText)
	case reflect.Bool:
		return wrong(kindTruth)
	case reflect.Float32, reflect.Float64:
		return wrong(kindNumber)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		if err := wrong(kindNumber); err != nil {
			return err
		}
		if _, err := strconv.ParseInt(string(raw), 10, t.Bits()); err != nil {
			return fmt.Errorf("%s is %s: want a whole number of %d bits", path, beacon.Excerpt(string(raw), 40), t.Bits())
		}
	}
	return nil
}

func checkObject(raw json.RawMessage, t reflect.Type, path string) error {
	var values map[string]json.RawMessage
	if err := json.Unmarshal(raw, &values); err != nil {
		return err
	}
	var known []string
	if t.Kind() == reflect.Struct {
		for _, f := range reflect.VisibleFields(t) {
			if f.IsExported() && !f.Anonymous && f.Tag.Get("json") != "-" {
				known = append(known, f.Name)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		where := strings.TrimPrefix(path+"."+beacon.Excerpt(key, 60), ".")
		var of reflect.Type
		if t.Kind() == reflect.Map {
			of = t.Elem()
		} else {
			if !slices.Contains(known, key) {
				return unknown(key, path, known)
			}
			f, _ := t.FieldByName(key) // which is among them
			of = f.Type
		}
		if err := check(values[key], of, where); err != nil {
			return err
		}
	}
	return nil
}

// unknown says of a key what may have been meant.
func unknown(key, path string, known []string) error {
	in := ""
	if path != "" {
		in = " in " + path
	}
	meant := "the known ones are " + strings.Join(slices.Sorted(slices.Values(known)), ", ")
	if len(known) == 0 {
		meant = "there are none"
	} else if near := Nearest(key, known); distance(key, near) <= max(2, len(near)/2) {
		meant = fmt.Sprintf("the nearest known one is %q", near)
	}
	return fmt.Errorf("unknown key %q%s; %s", beacon.Excerpt(key, 60), in, meant)
}

// decodes reports whether a type decodes itself.
func decodes(t reflect.Type) bool { return t.Implements(reflect.TypeFor[json.Unmarshaler]()) }

// What a value is, in words.
const (
	kindText   = "text in quotes"
	kindTruth  = "true or false"
	kindNumber = "a number"
	kindObject = "an object {…}"
	kindList   = "a list […]"
	kindNull   = "null"
)

func kind(raw json.RawMessage) string {
	switch raw[0] {
	case '"':
		return kindText
	case 't', 'f':
		return kindTruth
	case '{':
		return kindObject
	case '[':
		return kindList
	case 'n':
		return kindNull
	}
	return kindNumber
}

// Nearest is the name that takes the fewest changes of letters; names are not empty.
func Nearest(key string, names []string) string {
	return slices.MinFunc(names, func(a, b string) int {
		return cmp.Compare(distance(key, a), distance(key, b))
	})
}

// distance counts the letters to change, insert or remove between two words.
func distance(a, b string) int {
	a, b = strings.ToLower(a), strings.ToLower(b)
	if len(a) > 100 {
		a = a[:100]
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := before
			if a[i] != b[j] {
				change++
			}
			before = row[j+1]
			row[j+1] = min(change, row[j]+1, before+1)
		}
	}
	return row[len(b)]
}
