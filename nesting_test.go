package beacon_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

func TestNesting(t *testing.T) {
	for text, want := range map[string]int{
		`1`: 0, `"[[["`: 0, `[]`: 1, `{"a":[1,{"b":2}],"c":3}`: 3, `["\\",[]]`: 2, `["\"[",{"\"":1}]`: 2, ` [ [ ] , [ ] ] `: 2,
		strings.Repeat("[", 5000) + strings.Repeat("]", 5000): 5000,
	} {
		require.True(t, json.Valid([]byte(text)))
		require.Equal(t, want, beacon.Nesting([]byte(text)), beacon.Excerpt(text, 100))
	}
}

func FuzzNesting(f *testing.F) {
	for _, seed := range []string{`{"a":[1,"\\\""]}`, `[[["["]]]`, `"\u005b\\"`, strings.Repeat("[", 2000) + strings.Repeat("]", 2000)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		var value any
		if json.Unmarshal(raw, &value) != nil {
			return
		}
		var depth func(any) int
		depth = func(value any) (deepest int) {
			switch v := value.(type) {
			case []any:
				for _, e := range v {
					deepest = max(deepest, depth(e))
				}
			case map[string]any:
				for _, e := range v {
					deepest = max(deepest, depth(e))
				}
			default:
				return 0
			}
			return deepest + 1
		}
		// Of two members of one name the value has one.
		require.GreaterOrEqual(t, beacon.Nesting(raw), depth(value))
	})
}
