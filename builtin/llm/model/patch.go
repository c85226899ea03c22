package model

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Patch applies a JSON merge patch to a JSON object, as RFC 7396 has it: objects
// are merged, null removes, everything else replaces. Numbers keep their digits.
func Patch(object, patch []byte) ([]byte, error) {
	if len(patch) == 0 {
		return object, nil
	}
	target, err := decode(object)
	if err != nil {
		return nil, fmt.Errorf("patch a request: %w", err)
	}
	change, err := decode(patch)
	if err != nil {
		return nil, fmt.Errorf("read a patch: %w", err)
	}
	return Encode(merge(target, change))
}

func decode(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var v any
	err := dec.Decode(&v)
	return v, err
}

func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, change := range changes {
		if change == nil {
			delete(object, name)
			continue
		}
		object[name] = merge(object[name], change)
	}
	return object
}

// Encode is json.Marshal without the escapes that are for web pages.
func Encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
