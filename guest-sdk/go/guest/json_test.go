package guest

import (
	"encoding/json"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestParseWorkItem(t *testing.T) {
	w, err := parseWorkItem(` {"WorkItemHash":"wi-\u00e9\ud83d\ude00\"", "Capability":"C","Action":"A","OperationHash":"","RunID":"r","TimeoutMs":300000,
		"AttemptNumber":2,"SourcePath":"/work/in","OutputPath":"/work/out","Later":{"a":[1,{"b":"}"}],"c":null},"X":true} `)
	require.NoError(t, err)
	require.Equal(t, WorkItem{Hash: `wi-é😀"`, Capability: "C", Action: "A", RunID: "r", Attempt: 2, SourcePath: "/work/in", OutputPath: "/work/out"}, w)
	for _, bad := range []string{"", "[]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a" 1}`, `{1:2}`, `{"a":"x`} {
		_, err := parseWorkItem(bad)
		require.Error(t, err, bad)
	}
}

// Of any JSON object, members finds the names and values that encoding/json does.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1,"b":"\u00e9\\\"\n","c":[1,{"d":"]"}],"e":{}}`, ` { "a" : null , "b":true}`, `{"a":"\ud800"}`, `{"a":`, `{"a":"\`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		got := map[string]string{}
		err := members(in, func(name, raw string) { got[name] = raw })
		var want map[string]json.RawMessage
		if json.Unmarshal([]byte(in), &want) != nil || want == nil || !utf8.ValidString(in) {
			return // hosts send JSON; of anything else it is enough not to panic
		}
		require.NoError(t, err)
		require.Len(t, got, len(want))
		for name, raw := range want {
			require.JSONEq(t, string(raw), got[name])
			var s string
			if json.Unmarshal(raw, &s) == nil && raw[0] == '"' {
				require.Equal(t, s, text(got[name]))
			}
		}
	})
}

// Text that is written is read back by encoding/json, invalid bytes as U+FFFD.
func FuzzAppendString(f *testing.F) {
	f.Add("plain")
	f.Add("\x00\"\\\n\r\t\x7f\xff\xe2\x28 é😀")
	f.Fuzz(func(t *testing.T, in string) {
		b, err := json.Marshal(in)
		require.NoError(t, err)
		var got, want string
		require.NoError(t, json.Unmarshal(b, &want))
		require.NoError(t, json.Unmarshal(appendString(nil, in), &got))
		require.Equal(t, want, got)
	})
}
