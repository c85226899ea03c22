package table

import (
	"errors"
	"io"
	"unicode/utf8"
)

// A jsonReader reads JSON lines: an object on each line. The columns are the
// keys of the first, and those that the plan names. Values keep their text, so
// that numbers lose no digit.
type jsonReader struct {
	in      *input
	columns []string
	index   map[string]int
	open    bool // other keys are left out; otherwise they are wrong
	line    int64
	row     int64
}

func (j *jsonReader) bind(columns []string, open bool) {
	j.columns, j.open = columns, open
	j.index = make(map[string]int, len(columns))
	for i, name := range columns {
		j.index[name] = i
	}
}

// header looks at the first row.
func (j *jsonReader) header() ([]string, error) {
	end, err := j.find()
	if errors.Is(err, io.EOF) {
		return nil, nil // nothing in, nothing out
	}
	if err != nil {
		return nil, err
	}
	p := parser{buf: j.in.buf, end: end}
	var names []string
	seen := map[string]bool{}
	if p.object(j.in.pos, func(start, stop int, escaped bool) int {
		key := append([]byte(nil), p.buf[start:stop]...)
		if escaped {
			key = key[:unescape(key)]
		}
		if name := string(key); !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
		return -1
	}, nil) {
		if len(names) > MaxColumns {
			return nil, errors.New("the first row has more than 16384 keys")
		}
		return names, nil
	}
	return nil, j.wrong(&p, end)
}

// find skips empty lines and returns where the line at in.pos ends.
func (j *jsonReader) find() (int, error) {
	in := j.in
	for {
		i := indexByte(in.buf[in.pos:in.end], '\n')
		if i < 0 && !in.eof {
			if err := in.fill(); err != nil {
				if err == errLong { //nolint:errorlint // fill returns it bare
					return 0, j.long()
				}
				return 0, err
			}
			continue
		}
		end := in.end
		if i >= 0 {
			end = in.pos + i
		}
		if end-in.pos > in.maxLine {
			return 0, j.long()
		}
		start := in.pos
		for start < end && blank(in.buf[start]) {
			start++
		}
		if start < end {
			in.pos = start
			return end, nil
		}
		if i < 0 {
			in.pos = in.end
			return 0, io.EOF
		}
		in.pos = end + 1
		j.line++
	}
}

func (j *jsonReader) long() error {
	j.row++
	bad := &RowError{Row: j.row, Line: j.line, Text: "the row is longer than the limit: raise MaxLine"}
	j.line++
	if err := j.in.skipLine(j.in.pos); err != nil {
		return err
	}
	return bad
}

// wrong makes the error for what the parser met, and moves to the next line.
func (j *jsonReader) wrong(p *parser, end int) error {
	j.row++
	bad := &RowError{Row: j.row, Line: j.line, Column: p.column, Text: p.problem}
	j.in.pos = min(end+1, j.in.end)
	j.line++
	return bad
}

func (j *jsonReader) next(r *row) error {
	end, err := j.find()
	if err != nil {
		return err
	}
	for i := range r.kinds {
		r.kinds[i] = absent
		r.spans[i] = span{}
	}
	in := j.in
	p := parser{buf: in.buf, end: end}
	expected := 0
	ok := p.object(in.pos, func(start, stop int, escaped bool) int {
		if escaped {
			stop = start + unescape(p.buf[start:stop])
		}
		key := p.buf[start:stop]
		i := expected
		if i >= len(j.columns) || string(key) != j.columns[i] {
			var known bool
			i, known = j.index[string(key)]
			if !known {
				if !j.open && p.problem == "" {
					p.column = string(key)
					p.problem = "the first row has no such key: name the columns you want with Select"
				}
				return -1
			}
		}
		expected = i + 1
		return i
	}, r)
	r.buf, r.size = in.buf, end-in.pos
	r.row, r.line = j.row+1, j.line
	if !ok || p.problem != "" {
		return j.wrong(&p, end)
	}
	j.row++
	j.line++
	in.pos = min(end+1, in.end)
	return nil
}

// A parser reads JSON in buf up to end; behind end a look is allowed.
type parser struct {
	buf     []byte
	end     int
	column  string
	problem string
}

func blank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func (p *parser) space(i int) int {
	for i < p.end && blank(p.buf[i]) {
		i++
	}
	return i
}

func (p *parser) wrong(text string) int {
	if p.problem == "" {
		p.problem = text
	}
	return -1
}

// object reads the object that is all there is from i to the end. It calls key
// for each key; the value is stored in r at the index that key returns, unless
// that is negative.
func (p *parser) object(i int, key func(start, stop int, escaped bool) int, r *row) bool {
	i = p.space(i)
	if i >= p.end || p.buf[i] != '{' {
		p.wrong("not a JSON object")
		return false
	}
	i = p.space(i + 1)
	if i < p.end && p.buf[i] == '}' {
		return p.done(i + 1)
	}
	for {
		if i >= p.end || p.buf[i] != '"' {
			p.wrong("not JSON: want a key in quotes")
			return false
		}
		stop, escaped := p.text(i + 1)
		if stop < 0 {
			return false
		}
		column := key(i+1, stop, escaped)
		i = stop + 1
		if i < p.end && p.buf[i] != ':' {
			i = p.space(i)
		}
		if i >= p.end || p.buf[i] != ':' {
			p.wrong("not JSON: want a colon after a key")
			return false
		}
		i = p.space(i + 1)
		start := i
		var k kind
		if i < p.end && p.buf[i] == '"' {
			stop, escaped = p.text(i + 1)
			if stop < 0 {
				return false
			}
			start, i, k = i+1, stop+1, text
			if column >= 0 && r != nil && escaped {
				stop = start + unescape(p.buf[start:stop])
			}
		} else {
			stop, k = p.value(i, 0)
			if stop < 0 {
				return false
			}
			i = stop
		}
		if column >= 0 && r != nil {
			r.spans[column] = span{uint32(start), uint32(stop)}
			r.kinds[column] = k
			if k == null {
				r.spans[column] = span{}
			}
		}
		if i < p.end && p.buf[i] != ',' {
			i = p.space(i)
		}
		if i >= p.end {
			p.wrong("not JSON: the object does not end on its line")
			return false
		}
		if p.buf[i] == '}' {
			return p.done(i + 1)
		}
		if p.buf[i] != ',' {
			p.wrong("not JSON: want a comma or a brace after a value")
			return false
		}
		i = p.space(i + 1)
	}
}

func (p *parser) done(i int) bool {
	if p.space(i) < p.end {
		p.wrong("not JSON lines: there is more on the line after the object")
		return false
	}
	return true
}

// text finds the end of a string whose content begins at i, and tells whether
// it has escapes, which it checks.
func (p *parser) text(i int) (stop int, escaped bool) {
	const quotes, slashes = ones * '"', ones * '\\'
	for {
		w := load64(p.buf, i)
		// Below a space: the high bit of (w - 0x20…) &^ w, like zeros.
		m := zeros(w^quotes) | zeros(w^slashes) | (w-ones*' ')&^w&highs
		if m == 0 {
			i += 8
			if i >= p.end {
				return p.wrong("not JSON: a string does not end on its line"), false
			}
			continue
		}
		i += lowest(m)
		if i >= p.end {
			return p.wrong("not JSON: a string does not end on its line"), false
		}
		switch p.buf[i] {
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			i++
			if i >= p.end {
				return p.wrong("not JSON: a string does not end on its line"), false
			}
			switch p.buf[i] {
			case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
				i++
			case 'u':
				if i+4 >= p.end || hex4(p.buf[i+1:i+5]) < 0 {
					return p.wrong(`not JSON: \u wants four hexadecimal digits`), false
				}
				i += 5
			default:
				return p.wrong("not JSON: a string has an unknown escape"), false
			}
		default:
			return p.wrong("not JSON: a string has a control character"), false
		}
	}
}

// value finds the end and the kind of the value at i, and checks it.
func (p *parser) value(i, depth int) (int, kind) {
	if i >= p.end {
		return p.wrong("not JSON: a value is missing"), 0
	}
	switch c := p.buf[i]; {
	case c == '"':
		stop, _ := p.text(i + 1)
		if stop < 0 {
			return -1, 0
		}
		return stop + 1, text
	case c == '-' || c >= '0' && c <= '9':
		n := numberLength(p.buf[i:p.end])
		if n == 0 {
			return p.wrong("not JSON: malformed number"), 0
		}
		return i + n, number
	case c == 't':
		return p.word(i, "true"), boolean
	case c == 'f':
		return p.word(i, "false"), boolean
	case c == 'n':
		return p.word(i, "null"), null
	case c == '[':
		return p.nested(i, depth, ']'), object
	case c == '{':
		return p.nested(i, depth, '}'), object
	}
	return p.wrong("not JSON: malformed value"), 0
}

func (p *parser) word(i int, word string) int {
	if i+len(word) > p.end || string(p.buf[i:i+len(word)]) != word {
		return p.wrong("not JSON: malformed value")
	}
	return i + len(word)
}

func (p *parser) nested(i, depth int, closing byte) int {
	if depth >= 1000 {
		return p.wrong("arrays and objects are nested more than 1000 deep")
	}
	i = p.space(i + 1)
	if i < p.end && p.buf[i] == closing {
		return i + 1
	}
	for {
		if closing == '}' {
			if i >= p.end || p.buf[i] != '"' {
				return p.wrong("not JSON: want a key in quotes")
			}
			stop, _ := p.text(i + 1)
			if stop < 0 {
				return -1
			}
			i = p.space(stop + 1)
			if i >= p.end || p.buf[i] != ':' {
				return p.wrong("not JSON: want a colon after a key")
			}
			i = p.space(i + 1)
		}
		i, _ = p.value(i, depth+1)
		if i < 0 {
			return -1
		}
		i = p.space(i)
		switch {
		case i < p.end && p.buf[i] == ',':
			i = p.space(i + 1)
		case i < p.end && p.buf[i] == closing:
			return i + 1
		default:
			return p.wrong("not JSON: an array or object does not end")
		}
	}
}

// numberLength is the length of the JSON number that b begins with, 0 if none.
func numberLength(b []byte) int {
	i := 0
	if i < len(b) && b[i] == '-' {
		i++
	}
	first := i
	for i < len(b) && b[i]-'0' <= 9 {
		i++
	}
	if i == first || b[first] == '0' && i > first+1 {
		return 0
	}
	if i < len(b) && b[i] == '.' {
		i++
		first = i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == first {
			return 0
		}
	}
	if i < len(b) && (b[i] == 'e' || b[i] == 'E') {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		first = i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		if i == first {
			return 0
		}
	}
	return i
}

// hex4 reads four hexadecimal digits, -1 if they are not.
func hex4(b []byte) rune {
	var r rune
	for _, c := range b[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}

// unescape resolves the escapes of a string that text has checked, in place, as
// the result is never longer. It returns the new length. A lone surrogate
// becomes U+FFFD.
func unescape(b []byte) int {
	n := 0
	for i := 0; i < len(b); i++ {
		c := b[i]
		if c == '\\' {
			i++
			switch b[i] {
			case 'b':
				c = '\b'
			case 'f':
				c = '\f'
			case 'n':
				c = '\n'
			case 'r':
				c = '\r'
			case 't':
				c = '\t'
			case 'u':
				r := hex4(b[i+1:])
				i += 4
				if r >= 0xd800 && r < 0xdc00 && i+6 < len(b) && b[i+1] == '\\' && b[i+2] == 'u' {
					if low := hex4(b[i+3:]); low >= 0xdc00 && low < 0xe000 {
						r = 0x10000 + (r-0xd800)<<10 + (low - 0xdc00)
						i += 6
					}
				}
				var tmp [utf8.UTFMax]byte
				n += copy(b[n:], tmp[:utf8.EncodeRune(tmp[:], r)])
				continue
			default:
				c = b[i]
			}
		}
		b[n] = c
		n++
	}
	return n
}
