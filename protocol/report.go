package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
)

// Reports are what a busy worker sends most of, so they are put together by
// hand; what there is of JSON in them already is copied.

// EncodeComplete makes the frame that reports a result. It fails when an
// output cannot be represented in JSON.
func EncodeComplete(hash string, r beacon.Result, attempt int) ([]byte, error) {
	return appendCompletion([]byte(`{"Action":"`+ActionComplete+`",`), hash, r, attempt)
}

// appendCompletion appends the hash and what became of it, and ends the object.
func appendCompletion(b []byte, hash string, r beacon.Result, attempt int) ([]byte, error) {
	b = append(b, `"WorkItemHash":`...)
	b = appendText(b, hash)
	b = append(b, `,"Outputs":`...)
	b, err := appendOutputs(b, r.Outputs)
	if err != nil {
		return nil, err
	}
	b = append(b, `,"Log":`...)
	b = appendTexts(b, r.Log)
	if attempt != 0 {
		b = strconv.AppendInt(append(b, `,"AttemptNumber":`...), int64(attempt), 10)
	}
	if usage := NewUsage(r.Usage); usage != nil {
		raw, err := json.Marshal(usage)
		if err != nil {
			return nil, fmt.Errorf("encode the usage: %w", err)
		}
		b = append(append(b, `,"Usage":`...), raw...)
	}
	return valid(append(b, '}')), nil
}

// valid is text that a server survives.
func valid(text []byte) []byte {
	if utf8.Valid(text) {
		return text
	}
	return []byte(strings.ToValidUTF8(string(text), "\uFFFD"))
}

func appendOutputs(b []byte, outputs beacon.Outputs) ([]byte, error) {
	var few [8]string
	names := slices.AppendSeq(few[:0], maps.Keys(outputs))
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), ':')
		if raw, ok := outputs[name].(json.RawMessage); ok && json.Valid(raw) {
			b = append(b, raw...)
			continue
		}
		raw, err := json.Marshal(outputs[name])
		if err != nil {
			return nil, fmt.Errorf("encode output %s: %w", beacon.Excerpt(name, 80), err)
		}
		b = append(b, raw...)
	}
	return append(b, '}'), nil
}

func appendTexts(b []byte, texts []string) []byte {
	b = append(b, '[')
	for i, text := range texts {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(b, text)
	}
	return append(b, ']')
}

// appendText appends a JSON string. Most texts need no escapes.
func appendText(b []byte, text string) []byte {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			raw, err := json.Marshal(text)
			if err != nil {
				panic(fmt.Sprintf("a string did not marshal: %v", err)) // json.Marshal of a string cannot fail
			}
			return append(b, raw...)
		}
	}
	b = append(b, '"')
	b = append(b, text...)
	return append(b, '"')
}

// PathCompleteBatch takes the results of many items. Servers before May 2026 do
// not have it.
const PathCompleteBatch = "Beacon/Work/Complete/Batch"

// MaxBatch is how many items a batch holds at most.
const MaxBatch = 256

// EncodeBatchEntry makes one entry of a batch of results.
func EncodeBatchEntry(hash string, r beacon.Result, attempt int) ([]byte, error) {
	return appendCompletion([]byte(`{`), hash, r, attempt)
}

// EncodeBatch makes the body of a batch from its entries.
func EncodeBatch(entries [][]byte) []byte {
	return slices.Concat([]byte(`{"Items":[`), bytes.Join(entries, []byte(`,`)), []byte(`]}`))
}

// DecodeBatch reads the answer to a batch of so many entries: the error text of
// those that were not accepted, by their index. Anything that does not account
// for every entry is an error.
func DecodeBatch(body []byte, entries int) (map[int]string, error) {
	fields, err := object(body)
	if err != nil {
		return nil, err
	}
	var items []json.RawMessage
	var failures []struct {
		Index int    `json:"Index"`
		Error string `json:"Error"`
	}
	if json.Unmarshal(fields["Items"], &items) != nil || json.Unmarshal(fields["Errors"], &failures) != nil {
		return nil, errors.New("not the answer to a batch")
	}
	refused := map[int]string{}
	for _, f := range failures {
		if f.Index < 0 || f.Index >= entries {
			return nil, fmt.Errorf("the answer to a batch of %d speaks of entry %d", entries, f.Index)
		}
		refused[f.Index] = f.Error
	}
	if len(items)+len(refused) != entries {
		return nil, fmt.Errorf("the answer to a batch of %d accounts for %d entries", entries, len(items)+len(refused))
	}
	return refused, nil
}

// DecodeCurrent reads from a beacon's record which items the server thinks that
// the beacon has. It is false if the record does not say.
func DecodeCurrent(body []byte) (hashes []string, ok bool) {
	var record struct {
		CurrentWorkItems *[]string `json:"CurrentWorkItems"`
	}
	if json.Unmarshal(body, &record) != nil || record.CurrentWorkItems == nil {
		return nil, false
	}
	return *record.CurrentWorkItems, true
}
