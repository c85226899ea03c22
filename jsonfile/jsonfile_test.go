package jsonfile_test

import (
	"encoding/json"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/jsonfile"
)

type size int

func (s *size) UnmarshalJSON(raw []byte) error {
	n, err := strconv.Atoi(string(raw))
	*s = size(n)
	return err
}

type inner struct {
	Source string
	Size   size
	Config json.RawMessage
}

type outer struct {
	Name      string
	Most      int
	Ratio     float64
	On        *bool
	Keys      []string
	Providers []inner
	Tenants   map[string]inner
	Anything  any
	hidden    int
}

func TestDecode(t *testing.T) {
	var got outer
	require.NoError(t, jsonfile.Decode([]byte(`{"Name": "n", "Most": 3, "Ratio": 1, "On": true, "Keys": ["a"], "Anything": {"x": [1]}, "Tenants": null,
		"Providers": [{"Source": "s", "Size": 5, "Config": {"anything": true}}]}`), &got))
	on := true
	require.Equal(t, outer{
		Name: "n", Most: 3, Ratio: 1, On: &on, Keys: []string{"a"}, Anything: map[string]any{"x": []any{1.0}},
		Providers: []inner{{"s", 5, json.RawMessage(`{"anything": true}`)}},
	}, got)
	require.Zero(t, got.hidden)
}

func TestErrors(t *testing.T) {
	for text, says := range map[string]string{
		``:                                    "not a JSON object: it is empty",
		"{\n\"Name\": \"n\",\n}":              "not a JSON object: line 3: invalid character '}'",
		"{\n\"Name\": \"n\"":                  "not a JSON object: line 2: unexpected EOF",
		`[]`:                                  "not a JSON object: it is a list […]",
		`{} {}`:                               "more than one JSON value",
		`{"Providers": [{"Colour": 1}]}`:      `unknown key "Colour" in Providers[0]; the known ones are Config, Size, Source`,
		`{"Nam": 1}`:                          `unknown key "Nam"; the nearest known one is "Name"`,
		`{"name": "n"}`:                       `unknown key "name"; the nearest known one is "Name"`,
		`{"hidden": 1}`:                       `unknown key "hidden"; `,
		`{"Providers": [{}, {"Sorce": "x"}]}`: `unknown key "Sorce" in Providers[1]; the nearest known one is "Source"`,
		`{"Tenants": {"a": {"Sorce": "x"}}}`:  `unknown key "Sorce" in Tenants.a; the nearest known one is "Source"`,
		`{"Name": 1}`:                         "Name is a number: want text in quotes",
		`{"Most": "four"}`:                    "Most is text in quotes: want a number",
		`{"Most": 1.5}`:                       "Most is 1.5: want a whole number of 64 bits",
		`{"Most": 1e30}`:                      "Most is 1e30: want a whole number of 64 bits",
		`{"On": "yes"}`:                       "On is text in quotes: want true or false",
		`{"Keys": "a"}`:                       "Keys is text in quotes: want a list […]",
		`{"Keys": [1]}`:                       "Keys[0] is a number: want text in quotes",
		`{"Providers": {}}`:                   "Providers is an object {…}: want a list […]",
		`{"Tenants": []}`:                     "Tenants is a list […]: want an object {…}",
		`{"Ratio": false}`:                    "Ratio is true or false: want a number",
		`{"Providers": [{"Size": "x"}]}`:      "invalid syntax",
	} {
		require.ErrorContains(t, jsonfile.Decode([]byte(text), &outer{}), says, text)
	}
}

// Whatever is read, an error or what json.Unmarshal makes of it comes out.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"Name": "n", "Most": 3, "Providers": [{"Source": "s", "Size": 5}], "Tenants": {"a": {}}}`))
	f.Add([]byte(`{"Name": null, "Keys": [null], "On": 1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var got, want outer
		if jsonfile.Decode(raw, &got) == nil {
			require.NoError(t, json.Unmarshal(raw, &want))
			require.Equal(t, want, got)
		}
	})
}
