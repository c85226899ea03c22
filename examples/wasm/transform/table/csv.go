package table

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

// A csvReader reads CSV as RFC 4180 has it, and forgives a bit: line ends may be
// LF or CRLF, empty lines are skipped, a quote inside of a field that does not
// begin with one is a character like others.
type csvReader struct {
	in        *input
	delimiter byte
	noHeader  bool
	columns   []string
	line      int64 // of the next row
	row       int64 // rows of data read
	start     int   // where the row begins in the buffer
	escaped   []int // columns of the row with doubled quotes
}

func (c *csvReader) header() ([]string, error) {
	r := row{spans: make([]span, MaxColumns)}
	if c.noHeader {
		n, err := c.record(&r, false) // look at the first row, and read it again later
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, c.headerError(err)
		}
		if err == nil {
			c.in.pos, c.line = c.start, r.line
		}
		names := make([]string, min(n, MaxColumns))
		for i := range names {
			names[i] = "c" + strconv.Itoa(i+1)
		}
		return names, c.tooMany(n)
	}
	n, err := c.record(&r, true)
	if errors.Is(err, io.EOF) {
		return nil, errors.New("the source is empty: want a header row, or Header false")
	}
	if err != nil {
		return nil, c.headerError(err)
	}
	if err := c.tooMany(n); err != nil {
		return nil, err
	}
	names := make([]string, n)
	seen := make(map[string]bool, n)
	for i := range names {
		name := strings.TrimSpace(string(r.field(i)))
		switch {
		case name == "":
			name = "c" + strconv.Itoa(i+1)
			if seen[name] {
				return nil, errors.New("header: column " + strconv.Itoa(i+1) + " has no name, and " + name + " is taken")
			}
		case seen[name]:
			return nil, errors.New("header: two columns are called " + quote(name) + ": rename one in the source, or use Header false")
		}
		seen[name] = true
		names[i] = name
	}
	return names, nil
}

func (c *csvReader) tooMany(n int) error {
	if n > MaxColumns {
		return errors.New("the first row has " + strconv.Itoa(n) + " columns: the limit is " + strconv.Itoa(MaxColumns) + ", is the delimiter right?")
	}
	return nil
}

// headerError says that it is the header that is wrong; then there is no going on.
func (c *csvReader) headerError(err error) error {
	var bad *RowError
	if errors.As(err, &bad) {
		bad.Row = 0
	}
	return err
}

func (c *csvReader) bind(columns []string, _ bool) { c.columns = columns }

func (c *csvReader) next(r *row) error {
	n, err := c.record(r, true)
	if err != nil {
		if err != io.EOF { //nolint:errorlint // record returns it bare
			c.row++
		}
		return err
	}
	c.row++
	r.row = c.row
	if n != len(c.columns) {
		return &RowError{Row: c.row, Line: r.line, Text: strconv.Itoa(n) + " fields, want " + strconv.Itoa(len(c.columns)) + " as in the first row"}
	}
	return nil
}

// record reads one record into the spans of r and returns how many fields it
// has, which may be more than there are spans. Until the whole record is in the
// buffer nothing in the buffer is changed, so that it can begin again.
func (c *csvReader) record(r *row, unescape bool) (int, error) {
	in := c.in
	newline, delim := pattern('\n'), pattern(c.delimiter)
	// Empty lines.
	for {
		if in.pos+1 >= in.end && !in.eof {
			if err := in.fill(); err != nil {
				return 0, err
			}
			continue
		}
		if in.pos >= in.end {
			return 0, io.EOF
		}
		switch {
		case in.buf[in.pos] == '\n':
			in.pos++
		case in.buf[in.pos] == '\r' && in.buf[in.pos+1] == '\n': // the padding begins with a line feed
			in.pos = min(in.pos+2, in.end)
		default:
			goto again
		}
		c.line++
	}

again:
	r.line = c.line
	c.start = in.pos
	c.escaped = c.escaped[:0]
	var (
		buf   = in.buf
		end   = in.end
		p     = in.pos // where the current field begins
		spans = r.spans
		n     = 0
		lines = int64(1)
		q     int
	)
	for {
		if buf[p] == '"' && p < end {
			goto quoted
		}
		q = p
		for {
			w := load64(buf, q)
			m := zeros(w^delim) | zeros(w^newline)
			if m != 0 {
				q += lowest(m)
				break
			}
			q += 8
		}
		if q >= end { // the line feed after the data
			if !in.eof {
				goto more
			}
			q = end
		}
		if n < len(spans) {
			spans[n] = span{uint32(p), uint32(q)}
		}
		n++
		if q < end && buf[q] != '\n' {
			p = q + 1
			continue
		}
		if q > p && buf[q-1] == '\r' && n <= len(spans) {
			spans[n-1].end--
		}
		break

	quoted:
		{
			start := p + 1
			q = start
			doubled := false
			for {
				i := bytes.IndexByte(buf[q:end], '"')
				if i < 0 {
					if !in.eof {
						goto more
					}
					return 0, c.resume(&RowError{Column: c.name(n), Text: "the quote that opens the field is never closed"})
				}
				q += i
				if q+2 >= end && !in.eof {
					goto more
				}
				if buf[q+1] != '"' || q+1 >= end {
					break
				}
				doubled = true
				q += 2
			}
			lines += int64(bytes.Count(buf[start:q], lineFeed))
			if n < len(spans) {
				spans[n] = span{uint32(start), uint32(q)}
				if doubled {
					c.escaped = append(c.escaped, n)
				}
			}
			n++
			q++ // behind the closing quote
			switch {
			case q >= end || buf[q] == '\n':
			case buf[q] == c.delimiter:
				p = q + 1
				continue
			case buf[q] == '\r' && (q+1 >= end || buf[q+1] == '\n'):
				q++
			default:
				bad := &RowError{Row: c.row + 1, Line: c.line, Column: c.name(n - 1), Text: "text after the closing quote: inside of quotes, double a quote"}
				c.line += lines
				if err := in.skipLine(q); err != nil {
					return 0, err
				}
				return 0, bad
			}
		}
		break
	}
	if q-in.pos > in.maxLine {
		bad := longLine(c.row+1, c.line, in.maxLine)
		c.line += lines
		in.pos = min(q+1, end)
		return 0, bad
	}
	r.size = q - in.pos
	in.pos = min(q+1, end)
	c.line += lines
	r.buf = buf
	if unescape {
		for _, i := range c.escaped {
			spans[i].end = spans[i].start + uint32(undouble(buf[spans[i].start:spans[i].end]))
		}
	}
	return n, nil

more:
	if err := in.fill(); err != nil {
		if err == errLong { //nolint:errorlint // fill returns it bare
			return 0, c.resume(longLine(0, 0, in.maxLine))
		}
		return 0, err
	}
	goto again
}

// resume gives up a row whose end is unknown, as a quote in it is open, and goes
// on with the line after the one it begins in: that loses least.
func (c *csvReader) resume(bad *RowError) error {
	bad.Row, bad.Line = c.row+1, c.line
	c.line++
	if err := c.in.skipLine(c.in.pos); err != nil {
		return err
	}
	return bad
}

var lineFeed = []byte{'\n'}

// name is the name of a column for a message.
func (c *csvReader) name(i int) string {
	if i < len(c.columns) {
		return c.columns[i]
	}
	return strconv.Itoa(i + 1)
}

// undouble makes each pair of quotes one, in place, and returns the new length.
func undouble(b []byte) int {
	n := 0
	for i := 0; i < len(b); i++ {
		b[n] = b[i]
		n++
		if b[i] == '"' {
			i++
		}
	}
	return n
}
