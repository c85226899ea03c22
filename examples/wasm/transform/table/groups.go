package table

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
)

type operation uint8

const (
	opCount operation = iota
	opCountValues
	opSum
	opMean
	opMin
	opMax
)

// An aggregate is what is computed of each group.
type aggregate struct {
	name string
	op   operation
	expr *expression
}

const operations = "count, count(x), sum(x), mean(x), min(x), max(x)"

// aggregate parses one: sum(x) as name.
func (s *script) aggregate(b *binder) (aggregate, error) {
	t := s.peek()
	var a aggregate
	op, ok := s.word("count", "sum", "mean", "avg", "min", "max")
	if !ok {
		return a, s.unexpected("want " + operations)
	}
	a.name = op
	switch op {
	case "sum":
		a.op = opSum
	case "mean", "avg":
		a.op = opMean
	case "min":
		a.op = opMin
	case "max":
		a.op = opMax
	}
	if _, ok := s.sign("("); ok {
		_, star := s.sign("*")
		_, closed := s.sign(")")
		switch {
		case star && !closed:
			return a, s.expect(")")
		case closed && op != "count":
			return a, s.wrong(t.at, op+" wants a column")
		case !closed:
			from := s.peek().at
			x, err := s.expression(b)
			if err != nil {
				return a, err
			}
			a.name = op + "_" + strings.TrimSpace(s.source[from:s.peek().at])
			if x.isColumn {
				a.name = op + "_" + x.name
			}
			if err := s.expect(")"); err != nil {
				return a, err
			}
			a.expr = x
			if op == "count" {
				a.op = opCountValues
			}
		}
	}
	if a.expr == nil && op != "count" {
		return a, s.wrong(t.at, op+" wants a column, as in: "+op+"(x)")
	}
	if _, ok := s.word("as"); ok {
		name, err := s.name("a name")
		if err != nil {
			return a, err
		}
		a.name = name
	}
	return a, nil
}

// A state is one aggregate of one group.
type state struct {
	count      int64
	sum, carry float64 // the sum, and what was lost in adding (Neumaier)
	isText     bool    // min, max: the value is text, not sum
	text       []byte
}

// groups are all groups so far, in the order of their first rows.
type groups struct {
	plan   *plan
	limit  int
	index  map[string]int32
	keys   []string
	values []value // of the current row, by aggregate
	states []state // len(aggregates) of each group
	bytes  int
	buf    []byte
	last   int32 // the group of the row before: often it is the same again
	row    row   // for writing
}

func newGroups(p *plan, limit int) *groups {
	return &groups{plan: p, limit: limit, values: make([]value, len(p.aggregates)), index: map[string]int32{}, last: -1}
}

// add adds the current row to its group.
func (g *groups) add(r *row) error {
	key := g.buf[:0]
	for _, x := range g.plan.keys {
		var k kind
		b := x.text(r)
		if x.column >= 0 {
			k = r.kind(x.column)
		} else if c := &r.derived[^x.column]; c.isNum {
			k = number
		} else {
			k = c.kind
		}
		n := len(b) // fits, as a row does
		key = append(key, byte(k), byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
		key = append(key, b...)
	}
	g.buf = key
	if r.err != nil {
		return r.err
	}
	// Ask for all values before any is counted: a wrong row must not count in part.
	n := len(g.plan.aggregates)
	i := g.last
	if i < 0 || g.keys[i] != string(key) {
		var ok bool
		if i, ok = g.index[string(key)]; !ok {
			i = -1
		}
	}
	for k := range g.plan.aggregates {
		g.plan.aggregates[k].value(r, &g.values[k])
	}
	if r.err != nil {
		return r.err
	}
	if i < 0 {
		if len(g.keys) >= g.limit {
			return errors.New("row " + strconv.FormatInt(r.row, 10) + " (line " + strconv.FormatInt(r.line, 10) + ") begins group " +
				strconv.Itoa(g.limit+1) + ", and MaxGroups is " + strconv.Itoa(g.limit) + ": group by fewer columns, or raise MaxGroups")
		}
		if err := g.keep(r, len(key)); err != nil {
			return err
		}
		i = int32(len(g.keys)) //nolint:gosec // at most LargestMaxGroups
		g.keys = append(g.keys, string(key))
		g.index[g.keys[i]] = i
		g.states = append(g.states, make([]state, n)...)
	}
	g.last = i
	states := g.states[int(i)*n : int(i)*n+n]
	for k := range states {
		if err := g.plan.aggregates[k].add(g, r, &states[k], &g.values[k]); err != nil {
			return err
		}
	}
	return nil
}

// keep accounts for bytes that stay in memory.
func (g *groups) keep(r *row, n int) error {
	g.bytes += n
	if g.bytes > MaxGroupBytes {
		return errors.New("row " + strconv.FormatInt(r.row, 10) + " (line " + strconv.FormatInt(r.line, 10) +
			"): the keys and texts of all groups take more than 64 MiB: group by shorter or fewer columns")
	}
	return nil
}

// A value is what an aggregate is given by a row.
type value struct {
	num   float64
	text  []byte
	isNum bool
	none  bool // the field is empty
}

// value asks the row for the aggregate's value.
func (a *aggregate) value(r *row, v *value) {
	*v = value{}
	switch {
	case a.op == opCount:
	case a.op == opSum, a.op == opMean, a.expr.typ == numberType:
		v.num, v.isNum = a.expr.num(r)
		v.none = !v.isNum
	default:
		v.text = a.expr.text(r)
		v.none = len(v.text) == 0
		if !v.none && a.op != opCountValues && a.expr.typ != textType {
			v.num, v.isNum = parseNumber(v.text)
		}
	}
}

func (a *aggregate) add(g *groups, r *row, s *state, v *value) error {
	if v.none {
		return nil
	}
	s.count++
	switch a.op {
	case opSum, opMean:
		f := v.num
		sum := s.sum + f
		if math.Abs(s.sum) >= math.Abs(f) {
			s.carry += (s.sum - sum) + f
		} else {
			s.carry += (f - sum) + s.sum
		}
		s.sum = sum
	case opMin, opMax:
		return a.extreme(g, r, s, v)
	}
	return nil
}

// extreme keeps the least or the greatest value. Numbers are less than text.
func (a *aggregate) extreme(g *groups, r *row, s *state, v *value) error {
	if s.count > 1 {
		order := 0
		switch {
		case v.isNum && s.isText:
			order = -1
		case !v.isNum && !s.isText:
			order = 1
		case !v.isNum:
			order = bytes.Compare(v.text, s.text)
		case v.num < s.sum:
			order = -1
		case v.num > s.sum:
			order = 1
		}
		if order == 0 || (order < 0) != (a.op == opMin) {
			return nil
		}
	}
	s.isText = !v.isNum
	if v.isNum {
		s.sum = v.num
		return nil
	}
	if err := g.keep(r, max(0, len(v.text)-cap(s.text))); err != nil {
		return err
	}
	s.text = append(s.text[:0], v.text...)
	return nil
}

// result gives the value of an aggregate.
func (a *aggregate) result(s *state, c *cell) error {
	*c = cell{kind: null}
	switch a.op {
	case opCount, opCountValues:
		c.num, c.isNum = float64(s.count), true
	case opSum:
		c.num, c.isNum = s.sum+s.carry, true
	case opMean:
		if s.count > 0 {
			c.num, c.isNum = (s.sum+s.carry)/float64(s.count), true
		}
	case opMin, opMax:
		switch {
		case s.count == 0:
		case s.isText:
			c.kind, c.text = text, s.text
		default:
			c.num, c.isNum = s.sum, true
		}
	}
	if c.isNum && (math.IsNaN(c.num) || math.IsInf(c.num, 0)) {
		return errors.New("column " + a.name + ": the result is too large for a number")
	}
	return nil
}

// write writes all groups.
func (g *groups) write(w *writer) error {
	r := &g.row
	n := len(g.plan.aggregates)
	r.derived = make([]cell, len(g.plan.keys)+n)
	for i, encoded := range g.keys {
		key := append(g.buf[:0], encoded...)
		g.buf = key
		for k := range g.plan.keys {
			kind := kind(key[0])
			length := int(key[1]) | int(key[2])<<8 | int(key[3])<<16 | int(key[4])<<24
			key = key[5:]
			r.derived[k] = cell{kind: kind, text: key[:length]}
			key = key[length:]
		}
		for k := range n {
			if err := g.plan.aggregates[k].result(&g.states[i*n+k], &r.derived[len(g.plan.keys)+k]); err != nil {
				return err
			}
		}
		if err := w.row(r); err != nil {
			return err
		}
	}
	return nil
}
