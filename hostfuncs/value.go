package hostfuncs

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// maxNesting is how deep an output may be. Parsers, ours too, refuse what is too
// deep together with all that it comes in: results of others, if many go together.
const maxNesting = 1000

// ValidValue reports whether JSON can be an output: it is well-formed, not nested
// more than 1,000 deep, and its numbers are none that a float64 cannot hold, which
// others have no number for.
func ValidValue(raw []byte) bool {
	if !json.Valid(raw) {
		return false
	}
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case c == '[' || c == '{':
			if depth++; depth > maxNesting {
				return false
			}
		case c == ']' || c == '}':
			depth--
		case c == '-' || '0' <= c && c <= '9':
			number := raw[i:]
			if end := bytes.IndexFunc(number, func(r rune) bool {
				return (r < '0' || r > '9') && r != '-' && r != '+' && r != '.' && r != 'e' && r != 'E'
			}); end >= 0 {
				number = number[:end]
			}
			const sure = 300 // digits are less than what a float64 can hold
			if len(number) > sure || bytes.ContainsAny(number, "eE") {
				if _, err := strconv.ParseFloat(string(number), 64); err != nil {
					return false
				}
			}
			i += len(number) - 1
		}
	}
	return true
}
