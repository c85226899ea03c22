package beacon_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

func TestSettings(t *testing.T) {
	var s beacon.Settings
	require.NoError(t, json.Unmarshal([]byte(`{
		"text": "a\"b", "number": 4, "numberText": "5", "big": 12345678901234567890,
		"yes": true, "yesText": "true", "null": null, "empty": "", "object": {"a": [1, 2]}, "word": "maybe"
	}`), &s))

	require.Equal(t, `a"b`, s.Text("text"))
	require.Equal(t, "12345678901234567890", s.Text("big"), "no digit is lost")
	require.Equal(t, `{"a": [1, 2]}`, s.Text("object"))
	require.Empty(t, s.Text("null"))
	require.Empty(t, s.Text("absent"))

	require.True(t, s.Has("number"))
	for _, name := range []string{"null", "empty", "absent"} {
		require.False(t, s.Has(name), name)
	}
	for _, name := range []string{"yes", "yesText"} {
		value, err := s.Bool(name)
		require.NoError(t, err)
		require.True(t, value, name)
	}
	value, err := s.Bool("empty")
	require.NoError(t, err)
	require.False(t, value)
	_, err = s.Bool("word")
	require.EqualError(t, err, `setting word is "maybe": want true or false`)

	for name, want := range map[string]int64{"number": 4, "numberText": 5, "absent": 7, "empty": 7} {
		n, err := s.Int(name, 7)
		require.NoError(t, err)
		require.Equal(t, want, n, name)
	}
	_, err = s.Int("big", 0)
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))

	s.SetText("new", "x\ny")
	require.Equal(t, "x\ny", s.Text("new"))
}

func TestExcerpt(t *testing.T) {
	tests := map[string]struct {
		in    string
		limit int
		want  string
	}{
		"plain":          {"héllo\t✓", 100, "héllo\t✓"},
		"cut":            {"abcdef", 3, "abc…"},
		"cut in a rune":  {"aé", 2, "a…"},
		"escape code":    {"a\x1b[31mred", 100, `a\u001b[31mred`},
		"line":           {"a\nb\r", 100, `a\u000ab\u000d`},
		"not UTF-8":      {"a\xffb", 100, `a\xffb`},
		"reversed":       {"a\u202eb", 100, `a\u202eb`},
		"line separator": {"a\u2028b", 100, `a\u2028b`},
		"tag":            {"a\U000e0041", 100, `a\U000e0041`},
		"nothing":        {"", 0, ""},
		"no room":        {"abc", 0, "…"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { require.Equal(t, tt.want, beacon.Excerpt(tt.in, tt.limit)) })
	}
}

func FuzzExcerpt(f *testing.F) {
	f.Add("a\x1b[31m", 5)
	f.Add("\xff\xfe", 1)
	f.Fuzz(func(t *testing.T, in string, limit int) {
		limit = max(0, min(limit, 1<<16))
		out := beacon.Excerpt(in, limit)
		require.True(t, utf8.ValidString(out))
		require.False(t, strings.ContainsAny(out, "\x00\x1b\n\r\x7f"))
		require.LessOrEqual(t, len(out), limit*10+len("…"))
		require.Equal(t, out, beacon.Excerpt(out, len(out)), "what is clean stays as it is")
	})
}

func TestErrorCodes(t *testing.T) {
	err := beacon.Errorf(beacon.Denied, "open %s: %w", "x", json.Unmarshal([]byte("{"), new(int)))
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
	var syntax *json.SyntaxError
	require.ErrorAs(t, err, &syntax)
	require.Equal(t, beacon.Code(""), beacon.CodeOf(nil))
	require.Equal(t, beacon.Internal, beacon.CodeOf(syntax))
	require.True(t, beacon.Timeout.Limit())
	require.False(t, beacon.Failed.Limit())
}
