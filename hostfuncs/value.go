package hostfuncs

import (
	"encoding/json"
	"iter"
)

// maxNesting is how deep an output may be. Parsers, ours too, refuse what is too
// deep together with all that it comes in: results of others, if many go together.
const maxNesting = 1000

// ValidValue reports whether JSON can be an output: it is well-formed, and not
// nested more than 1,000 deep.
func ValidValue(raw []byte) bool {
	if !json.Valid(raw) {
		return false
	}
	for _, depth := range structure(raw) {
		if depth > maxNesting {
			return false
		}
	}
	return true
}

// structure gives the places of all brackets and commas of well-formed JSON, and
// how deep each is: an opening bracket as what is inside of it, a closing one as
// what is outside.
func structure(raw []byte) iter.Seq2[int, int] {
	return func(yield func(at, depth int) bool) {
		depth := 0
		for i := 0; i < len(raw); i++ {
			switch raw[i] {
			case '"':
				for i++; raw[i] != '"'; i++ {
					if raw[i] == '\\' {
						i++
					}
				}
				continue
			case '[', '{':
				depth++
			case ']', '}':
				depth--
			case ',':
			default:
				continue
			}
			if !yield(i, depth) {
				return
			}
		}
	}
}
