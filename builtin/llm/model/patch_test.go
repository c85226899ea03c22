package model_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/model"
)

// The examples of RFC 7396, appendix A, whose target is an object.
func TestPatch(t *testing.T) {
	for _, test := range [][3]string{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"a":1,"e":null}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{`{"a":1}`, ``, `{"a":1}`},
		{`{"a":12345678901234567890}`, `{"b":1.10}`, `{"a":12345678901234567890,"b":1.10}`},
		{`{"a":"<&>"}`, `{}`, `{"a":"<&>"}`},
	} {
		got, err := model.Patch([]byte(test[0]), []byte(test[1]))
		require.NoError(t, err)
		require.Equal(t, test[2], string(got))
	}
	_, err := model.Patch([]byte(`{`), []byte(`{}`))
	require.Error(t, err)
	_, err = model.Patch([]byte(`{}`), []byte(`{`))
	require.Error(t, err)
}

func FuzzPatch(f *testing.F) {
	f.Add([]byte(`{"a":{"b":1}}`), []byte(`{"a":{"b":null,"c":[1]}}`))
	f.Fuzz(func(t *testing.T, object, patch []byte) {
		if !json.Valid(object) || !json.Valid(patch) || len(patch) == 0 {
			t.Skip()
		}
		once, err := model.Patch(object, patch)
		require.NoError(t, err)
		twice, err := model.Patch(once, patch)
		require.NoError(t, err)
		require.JSONEq(t, string(once), string(twice)) // to apply it again changes nothing
	})
}
