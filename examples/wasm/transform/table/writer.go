package table

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// A column of the output is one of the source, or a computed one.
type column struct {
	name   string
	source int // < 0: the computed column ^source
}

// A writer writes rows in one format, through a buffer.
type writer struct {
	dst      io.Writer
	buf      []byte
	n        int
	json     bool
	keepText bool
	noHeader bool
	delim    byte
	columns  []column
	keys     []key // JSON: what comes before each value
	fixed    int   // what a row takes besides its values, at most
	written  int64
	num      [32]byte
}

// A key is the beginning of a member of a JSON object: a comma, the name and a
// colon.
type key struct {
	padded []byte
	length int
}

const nullWord = 'n' | 'u'<<8 | 'l'<<16 | 'l'<<24

const piece = 16 << 10 // what is written at once, at most; six times it fit the buffer

func newWriter(dst io.Writer, o *Options, from Format, columns []column) *writer {
	to := o.To
	if to == Auto {
		to = byName(o.OutputName)
	}
	if to == Auto {
		to = from
	}
	w := &writer{
		dst: dst, buf: make([]byte, bufferSize+padding), json: to == JSONLines,
		keepText: o.KeepText, noHeader: o.NoOutputHeader, delim: o.OutputDelimiter, columns: columns,
		fixed: 2 * padding,
	}
	if w.delim == 0 {
		w.delim = ','
		if to == TSV {
			w.delim = '\t'
		}
	}
	for _, c := range columns {
		b := append(appendJSONString([]byte{','}, []byte(c.name)), ':')
		w.keys = append(w.keys, key{append(b, make([]byte, padding)...), len(b)})
		w.fixed += len(b) + padding
	}
	return w
}

func (w *writer) header() error {
	if w.json || w.noHeader || len(w.columns) == 0 {
		return nil
	}
	for i, c := range w.columns {
		if err := w.field(i, plain, []byte(c.name)); err != nil {
			return err
		}
	}
	return w.end(true)
}

// row writes the current row. Rows that fit the buffer as a whole, nearly all,
// take the fast way: one loop in one function, as calls and branches are what a
// module is slow at.
func (w *writer) row(r *row) error {
	if size := r.size + w.fixed; size <= bufferSize/4 {
		if err := w.reserve(size); err != nil {
			return err
		}
		if w.json {
			return w.fastJSON(r, size)
		}
		return w.fastCSV(r, size)
	}
	alone := true // for CSV: the row is one empty field
	for i := range w.columns {
		var err error
		if s := w.columns[i].source; s >= 0 {
			b := r.field(s)
			alone = alone && len(b) == 0
			err = w.field(i, r.kind(s), b)
		} else {
			c := &r.derived[^s]
			alone = alone && !c.isNum && len(c.text) == 0
			err = w.cell(i, c)
		}
		if err != nil {
			return err
		}
	}
	return w.end(!alone)
}

// fastCSV writes a row for which there is room. Copying a field and looking for
// what needs quotes is one loop over words.
func (w *writer) fastCSV(r *row, size int) error {
	const quotes, feeds, returns = ones * '"', ones * '\n', ones * '\r'
	delim := pattern(w.delim)
	src, dst, n := r.buf, w.buf, w.n
	begin := n
	for i := range w.columns {
		s := w.columns[i].source
		if s < 0 {
			w.n = n
			if err := w.cell(i, &r.derived[^s]); err != nil {
				return err
			}
			if err := w.reserve(size); err != nil {
				return err
			}
			n, begin = w.n, -1
			continue
		}
		at := n
		if i > 0 {
			dst[n] = w.delim
			at++
		}
		start, end := int(r.spans[s].start), int(r.spans[s].end)
		special := uint64(0)
		if end > start {
			special = uint64(src[start]-' '-1) & 0x80 // it begins with a space or less
			to := at
			for p := start; ; {
				v := load64(src, p)
				store64(dst, to, v)
				m := zeros(v^quotes) | zeros(v^feeds) | zeros(v^returns) | zeros(v^delim)
				if left := end - p; left <= 8 {
					special |= m & masks[left&15]
					break
				}
				special |= m
				p += 8
				to += 8
			}
		}
		if special == 0 {
			n = at + end - start
			continue
		}
		w.n = n
		if err := w.field(i, text, src[start:end]); err != nil {
			return err
		}
		if err := w.reserve(size); err != nil {
			return err
		}
		n, begin = w.n, -1
	}
	w.n = n
	return w.end(n != begin)
}

// fastJSON writes a row for which there is room.
func (w *writer) fastJSON(r *row, size int) error {
	const quotes, slashes = ones * '"', ones * '\\'
	src, dst, n := r.buf, w.buf, w.n
	for i := range w.columns {
		s := w.columns[i].source
		if s < 0 {
			w.n = n
			if err := w.cell(i, &r.derived[^s]); err != nil {
				return err
			}
			if err := w.reserve(size); err != nil {
				return err
			}
			n = w.n
			continue
		}
		key := &w.keys[i]
		at := n
		for p := 0; ; {
			store64(dst, at+p, load64(key.padded, p))
			if p += 8; p >= key.length {
				break
			}
		}
		if i == 0 {
			dst[at] = '{'
		}
		at += key.length
		start, end := int(r.spans[s].start), int(r.spans[s].end)
		k := plain
		if r.kinds != nil {
			k = r.kinds[s]
		}
		if k == plain {
			if !w.keepText && w.bare(src, start, end) {
				if start == end {
					store64(dst, at, nullWord)
					n = at + 4
					continue
				}
				k = number
			}
		}
		if k == null || k == absent {
			store64(dst, at, nullWord)
			n = at + 4
			continue
		}
		special := uint64(0)
		if k == plain || k == text {
			dst[at] = '"'
			at++
			to := at
			for p := start; p < end; {
				v := load64(src, p)
				store64(dst, to, v)
				m := zeros(v^quotes) | zeros(v^slashes) | (v-ones*' ')&highs | v&highs
				if left := end - p; left < 8 {
					m &= masks[left&15]
				}
				special |= m
				p += 8
				to += 8
			}
			dst[at+end-start] = '"'
			n = at + end - start + 1
		} else {
			to := at
			for p := start; p < end; {
				store64(dst, to, load64(src, p))
				p += 8
				to += 8
			}
			n = at + end - start
		}
		if special != 0 {
			w.n = at - 1
			if err := w.jsonText(src[start:end]); err != nil {
				return err
			}
			if err := w.reserve(size); err != nil {
				return err
			}
			n = w.n
		}
	}
	w.n = n
	return w.end(true)
}

// bare reports whether the field src[start:end] needs no quotes in JSON: it is
// empty, a number, true or false. Short numbers, nearly all, are recognised
// without a loop.
func (w *writer) bare(src []byte, start, end int) bool {
	n := end - start
	if n == 0 {
		return true
	}
	v := load64(src, start)
	first := byte(v)
	if first > '9' {
		return (first == 't' || first == 'f') && bare(src[start:end])
	}
	if n > 8 {
		return bare(src[start:end])
	}
	digits := v ^ ones*'0'
	other := ((digits&^highs + ones*(0x80-10)) | digits) & highs & masks[n] // the high bit of each byte that is no digit
	begin := 0
	if first == '-' {
		begin = 1
		other &^= 0x80
		v >>= 8
	}
	whole := n // where the digits before the point end
	if other != 0 {
		whole = lowest(other)
		if src[start+whole] != '.' || whole == n-1 || other&(other-1) != 0 {
			return n > 2 && bare(src[start:end]) // 1e5
		}
	}
	whole -= begin
	return whole == 1 || whole > 1 && byte(v) != '0'
}

func (w *writer) cell(i int, c *cell) error {
	if c.isNum {
		return w.field(i, number, appendNumber(w.num[:0], c.num))
	}
	return w.field(i, c.kind, c.text)
}

// end ends a row. An empty line would be no row for readers of CSV, so a row
// that is one empty field gets quotes.
func (w *writer) end(filled bool) error {
	if err := w.reserve(8); err != nil {
		return err
	}
	if w.json {
		if len(w.columns) == 0 {
			w.buf[w.n] = '{'
			w.n++
		}
		w.buf[w.n] = '}'
		w.n++
	} else if !filled && len(w.columns) == 1 {
		w.n += copy(w.buf[w.n:], `""`)
	}
	w.buf[w.n] = '\n'
	w.n++
	return nil
}

// reserve makes room for n bytes, which are fewer than the buffer has, and for
// a whole word after them.
func (w *writer) reserve(n int) error {
	if w.n+n <= bufferSize {
		return nil
	}
	return w.flush()
}

func (w *writer) flush() error {
	n, err := w.dst.Write(w.buf[:w.n])
	w.written += int64(n)
	if err != nil {
		return errors.New("write the output: " + err.Error())
	}
	w.n = 0
	return nil
}

// begin writes what comes before column i.
func (w *writer) begin(i int) error {
	if !w.json {
		if i > 0 {
			if err := w.reserve(1); err != nil {
				return err
			}
			w.buf[w.n] = w.delim
			w.n++
		}
		return nil
	}
	key := w.keys[i].padded[:w.keys[i].length]
	if len(key) > piece {
		return errors.New("the name of a column is too long to write")
	}
	if err := w.reserve(len(key)); err != nil {
		return err
	}
	at := w.n
	w.n += copy(w.buf[at:], key)
	if i == 0 {
		w.buf[at] = '{'
	}
	return nil
}

// field writes any value as column i.
func (w *writer) field(i int, k kind, b []byte) error {
	if err := w.begin(i); err != nil {
		return err
	}
	if !w.json {
		if needsQuotes(b, w.delim) {
			return w.csvText(b)
		}
		return w.raw(b)
	}
	switch k {
	case null, absent:
		return w.raw(jsonNull)
	case number, boolean, object:
		return w.raw(b)
	case plain:
		if !w.keepText && bare(b) {
			return w.verbatim(b)
		}
	}
	return w.jsonText(b)
}

var jsonNull = []byte("null")

// verbatim writes a CSV field that is a JSON value; an empty one is null.
func (w *writer) verbatim(b []byte) error {
	if len(b) == 0 {
		b = jsonNull
	}
	return w.raw(b)
}

// bare reports whether a field of CSV needs no quotes in JSON.
func bare(b []byte) bool {
	if len(b) == 0 {
		return true
	}
	switch c := b[0]; {
	case c == '-' || c >= '0' && c <= '9':
		return numberLength(b) == len(b)
	case c == 't':
		return string(b) == "true"
	case c == 'f':
		return string(b) == "false"
	}
	return false
}

func (w *writer) raw(b []byte) error {
	for {
		n := min(len(b), piece)
		if err := w.reserve(n); err != nil {
			return err
		}
		w.n += copy(w.buf[w.n:], b[:n])
		b = b[n:]
		if len(b) == 0 {
			return nil
		}
	}
}

func needsQuotes(b []byte, delim byte) bool {
	if len(b) == 0 {
		return false
	}
	if b[0] == ' ' || b[0] == '\t' {
		return true
	}
	for _, c := range b {
		if c == '"' || c == '\n' || c == '\r' || c == delim {
			return true
		}
	}
	return false
}

// csvText writes a field in quotes.
func (w *writer) csvText(b []byte) error {
	if err := w.raw(quoteMark); err != nil {
		return err
	}
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			break
		}
		if err := w.raw(b[:i+1]); err != nil {
			return err
		}
		if err := w.raw(quoteMark); err != nil {
			return err
		}
		b = b[i+1:]
	}
	if err := w.raw(b); err != nil {
		return err
	}
	return w.raw(quoteMark)
}

var quoteMark = []byte{'"'}

// jsonText writes a string, in pieces that end between characters.
func (w *writer) jsonText(b []byte) error {
	if err := w.raw(quoteMark); err != nil {
		return err
	}
	for len(b) > 0 {
		n := min(len(b), piece)
		for k := n; n < len(b) && k > n-utf8.UTFMax; k-- {
			if utf8.RuneStart(b[k]) {
				n = k
				break
			}
		}
		if err := w.reserve(6 * n); err != nil {
			return err
		}
		w.n = len(appendJSONText(w.buf[:w.n], b[:n]))
		b = b[n:]
	}
	return w.raw(quoteMark)
}

func appendJSONString(dst, b []byte) []byte {
	dst = append(dst, '"')
	dst = appendJSONText(dst, b)
	return append(dst, '"')
}

// appendJSONText writes the inside of a string. Invalid UTF-8 becomes U+FFFD.
func appendJSONText(dst, b []byte) []byte {
	start := 0
	for i := 0; i < len(b); {
		c := b[i]
		if c >= utf8.RuneSelf {
			r, size := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, b[start:i]...)
				dst = append(dst, "\ufffd"...)
				start = i + 1
			}
			i += size
			continue
		}
		if c >= ' ' && c != '"' && c != '\\' {
			i++
			continue
		}
		dst = append(dst, b[start:i]...)
		switch c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		i++
		start = i
	}
	return append(dst, b[start:]...)
}
