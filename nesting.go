package beacon

// MaxNesting is how deep the JSON of an output may be. Parsers refuse what is too
// deep together with all that it comes in, results of other items included.
const MaxNesting = 1000

// Nesting is how many arrays and objects are inside of each other in JSON, which
// must be well-formed.
func Nesting(raw []byte) (deepest int) {
	depth := 0
	for i := 0; i < len(raw); i++ {
		switch raw[i] {
		case '"':
			for i++; raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	return deepest
}
