// Package table transforms tables of text, CSV and JSON lines, row by row.
//
// One pass reads a source, filters its rows, derives columns, selects and
// renames, groups and aggregates if asked to, and writes CSV or JSON lines. The
// source may be of any size: memory depends on the longest row and on the
// number of groups, both limited. Reading, computing and writing a row
// allocates nothing.
package table

import (
	"errors"
	"io"
	"strconv"
)

// A Format is a way to write a table.
type Format uint8

// The formats. Auto detects the format of a source, and gives the output the
// format that its file name tells, or else that of the source.
const (
	Auto Format = iota
	CSV
	TSV
	JSONLines
)

// Limits of what one transformation may ask for.
const (
	DefaultMaxLine   = 1 << 20  // bytes of one row
	LargestMaxLine   = 16 << 20 // the most that MaxLine may be
	DefaultMaxGroups = 100_000
	LargestMaxGroups = 10_000_000
	MaxGroupBytes    = 64 << 20 // bytes of keys and texts kept of all groups
	MaxColumns       = 16_384
	maxExpression    = 64 << 10 // bytes of one setting
	maxTokens        = 4000     // words and signs of one setting
	maxDepth         = 100      // of nested parentheses
	maxScratch       = 64 << 20 // bytes of text that expressions make of one row
	progressEvery    = 4 << 20  // bytes
)

// Options say what a transformation does. The zero value copies CSV.
type Options struct {
	// From and To are the formats; SourceName and OutputName help to detect
	// those that are Auto.
	From, To               Format
	SourceName, OutputName string
	// Delimiter and OutputDelimiter separate fields of CSV: one ASCII
	// character. 0 detects that of the source, and means a comma in the output.
	Delimiter, OutputDelimiter byte
	// NoHeader sources have no header row: columns are called c1, c2, …
	// NoOutputHeader leaves it out of the output.
	NoHeader, NoOutputHeader bool
	// KeepText writes CSV fields to JSON as strings. Otherwise those that are
	// JSON numbers, true and false become such, and empty ones become null.
	KeepText bool
	// Filter is a condition; only rows that fulfil it go on.
	Filter string
	// Derive is a list of name = expression.
	Derive string
	// GroupBy lists the columns whose values make a group, Aggregate what to
	// compute of each: count, sum(x), min(x), max(x), mean(x), with "as name".
	GroupBy, Aggregate string
	// Select lists columns of the output in order; with a minus, all but those.
	// Rename is a list of old = new.
	Select, Rename string
	// SkipBad leaves out rows that are wrong, and counts them; otherwise the
	// first one ends the transformation. OnSkip, if any, is told of each.
	SkipBad bool
	OnSkip  func(*RowError)
	// MaxLine and MaxGroups are limits; 0 means the default.
	MaxLine, MaxGroups int
	// OnProgress, if any, is called about every 4 MiB. An error ends the work.
	OnProgress func(Stats) error
}

// Stats count what was done.
type Stats struct {
	RowsRead     int64 // without the header
	RowsWritten  int64 // without the header
	RowsSkipped  int64 // wrong rows, left out
	RowsFiltered int64 // rows that Filter left out
	Groups       int64
	BytesRead    int64
	BytesWritten int64
}

// A RowError is what is wrong with one row.
type RowError struct {
	Row    int64  // from 1, without the header
	Line   int64  // of the file, from 1; where the row begins
	Column string // "" when it is the row as a whole
	Text   string
}

func (e *RowError) Error() string {
	s := "row " + strconv.FormatInt(e.Row, 10) + " (line " + strconv.FormatInt(e.Line, 10) + ")"
	if e.Row == 0 {
		s = "header (line " + strconv.FormatInt(e.Line, 10) + ")"
	}
	if e.Column != "" {
		s += ", column " + e.Column
	}
	return s + ": " + e.Text
}

// kind says what a value is.
type kind uint8

const (
	plain   kind = iota // a field of CSV: text that may mean anything
	text                // a string of JSON
	number              // a number of JSON, digit for digit
	boolean             // true or false
	object              // an array or an object of JSON
	null                // null
	absent              // no such key in the row
)

// A span is a part of the row's buffer.
type span struct{ start, end uint32 }

// A row is the current row. Its fields are parts of the reader's buffer, so that
// nothing is copied; they are valid until the next one is read.
type row struct {
	buf     []byte // has padding bytes after the row, see load64
	spans   []span // by column of the source
	kinds   []kind // by column of the source; nil means all plain
	derived []cell
	scratch []byte // text made by expressions
	size    int    // at least as many bytes as all fields
	row     int64
	line    int64
	err     *RowError // the first that an expression met
}

// A cell is a computed value.
type cell struct {
	kind  kind
	num   float64 // of a number without text
	text  []byte
	isNum bool // num counts, not text
}

func (r *row) field(i int) []byte {
	s := r.spans[i]
	return r.buf[s.start:s.end]
}

func (r *row) kind(i int) kind {
	if r.kinds == nil {
		return plain
	}
	return r.kinds[i]
}

// fail notes that the row is wrong.
func (r *row) fail(column, text string) {
	if r.err == nil {
		r.err = &RowError{Row: r.row, Line: r.line, Column: column, Text: text}
	}
}

// A reader reads rows of one format.
type reader interface {
	// header returns the names of the columns. It consumes no row of data.
	header() ([]string, error)
	// bind tells the columns wanted: those of the header, and more.
	bind(columns []string, open bool)
	// next reads a row: io.EOF at the end, a *RowError for a wrong row, after
	// which reading may go on, or an error that ends it.
	next(r *row) error
}

// Transform reads a table from src and writes what becomes of it to dst. The
// stats are valid even with an error.
func Transform(dst io.Writer, src io.Reader, o Options) (Stats, error) {
	t := &transformation{options: o}
	err := t.run(dst, src)
	if t.in != nil {
		t.stats.BytesRead = t.in.read
	}
	if t.out != nil {
		t.stats.BytesWritten = t.out.written
	}
	return t.stats, err
}

type transformation struct {
	options Options
	stats   Stats
	in      *input
	reader  reader
	out     *writer
	row     row
	plan    *plan
	groups  *groups
}

func (t *transformation) run(dst io.Writer, src io.Reader) error {
	o := &t.options
	if err := o.check(); err != nil {
		return err
	}
	p, err := parsePlan(o)
	if err != nil {
		return err
	}
	t.plan = p
	t.in = newInput(src, o.MaxLine)
	t.in.onProgress = t.progress
	from, delimiter, err := detect(t.in, o)
	if err != nil {
		return err
	}
	if from == JSONLines {
		t.reader = &jsonReader{in: t.in, line: 1}
	} else {
		t.reader = &csvReader{in: t.in, line: 1, delimiter: delimiter, noHeader: o.NoHeader}
	}
	columns, err := t.header()
	if err != nil {
		return err
	}
	columns, open, err := p.bind(columns, from == JSONLines)
	if err != nil {
		return err
	}
	t.reader.bind(columns, open)
	t.row.spans = make([]span, len(columns))
	if from == JSONLines {
		t.row.kinds = make([]kind, len(columns))
	}
	t.row.derived = make([]cell, len(p.derive))
	t.out = newWriter(dst, o, from, p.output)
	if err := t.out.header(); err != nil {
		return err
	}
	if p.grouped {
		t.groups = newGroups(p, o.MaxGroups)
	}
	if err := t.rows(); err != nil {
		return err
	}
	if t.groups != nil {
		if err := t.groups.write(t.out); err != nil {
			return err
		}
		t.stats.Groups = int64(len(t.groups.keys))
		t.stats.RowsWritten = t.stats.Groups
	}
	return t.out.flush()
}

// header asks for the columns, leaving out wrong rows before the first right
// one if wrong rows are to be left out.
func (t *transformation) header() ([]string, error) {
	for {
		columns, err := t.reader.header()
		var bad *RowError
		if !errors.As(err, &bad) || bad.Row == 0 || !t.options.SkipBad {
			return columns, err
		}
		t.stats.RowsRead++
		t.skip(bad)
	}
}

func (t *transformation) skip(bad *RowError) {
	t.stats.RowsSkipped++
	if t.options.OnSkip != nil {
		t.options.OnSkip(bad)
	}
}

func (t *transformation) rows() error {
	r, p := &t.row, t.plan
	for {
		err := t.reader.next(r)
		if err == nil {
			t.stats.RowsRead++
			err = t.carry(r, p)
		} else if err == io.EOF { //nolint:errorlint // our own readers return it bare, and this is the inner loop
			return nil
		} else if _, ok := err.(*RowError); ok { //nolint:errorlint // likewise
			t.stats.RowsRead++
		}
		if err != nil {
			bad, ok := err.(*RowError) //nolint:errorlint // likewise
			if !ok || !t.options.SkipBad {
				return err
			}
			t.skip(bad)
		}
	}
}

// carry takes one row through the plan.
func (t *transformation) carry(r *row, p *plan) error {
	r.err = nil
	r.scratch = r.scratch[:0]
	if p.filter != nil && !p.filterDerived {
		keep := p.filter(r)
		if r.err != nil {
			return r.err
		}
		if !keep {
			t.stats.RowsFiltered++
			return nil
		}
	}
	for i := range p.derive {
		p.derive[i].eval(r, &r.derived[i])
	}
	if r.err != nil {
		return r.err
	}
	if p.filter != nil && p.filterDerived {
		keep := p.filter(r)
		if r.err != nil {
			return r.err
		}
		if !keep {
			t.stats.RowsFiltered++
			return nil
		}
	}
	if t.groups != nil {
		return t.groups.add(r)
	}
	t.stats.RowsWritten++
	return t.out.row(r)
}

func (t *transformation) progress() error {
	if t.options.OnProgress == nil {
		return nil
	}
	s := t.stats
	s.BytesRead = t.in.read
	if t.out != nil {
		s.BytesWritten = t.out.written
	}
	return t.options.OnProgress(s)
}
