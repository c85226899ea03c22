package table

import (
	"errors"
	"slices"
	"strings"
)

// A plan is what the options ask for: first as parsed, then bound to columns.
type plan struct {
	filterScript, deriveScript, aggregateScript *script
	selected, groupBy                           []string
	renames                                     [][2]string

	filter        func(*row) bool
	filterDerived bool // the filter needs computed columns
	derive        []derivation
	grouped       bool
	keys          []*expression
	aggregates    []aggregate
	output        []column
}

type derivation struct {
	name string
	expr *expression
}

// eval computes the column for the current row.
func (d *derivation) eval(r *row, c *cell) {
	x := d.expr
	*c = cell{}
	switch {
	case x.isColumn && x.column >= 0:
		c.kind, c.text = r.kind(x.column), r.field(x.column)
	case x.isColumn:
		*c = r.derived[^x.column]
	case x.typ == numberType:
		c.num, c.isNum = x.num(r)
		c.kind = null
	case x.typ == boolType:
		c.kind, c.text = boolean, x.text(r)
	case x.typ == textType:
		c.kind, c.text = text, x.text(r)
	default:
		c.kind, c.text = plain, x.text(r)
	}
}

// parsePlan checks what can be checked without knowing the columns.
func parsePlan(o *Options) (*plan, error) {
	p := &plan{}
	var err error
	for _, part := range []struct {
		name, text string
		to         **script
	}{
		{"Filter", o.Filter, &p.filterScript},
		{"Derive", o.Derive, &p.deriveScript},
		{"Aggregate", o.Aggregate, &p.aggregateScript},
	} {
		if strings.TrimSpace(part.text) == "" {
			continue
		}
		if *part.to, err = scan(part.name, part.text); err != nil {
			return nil, err
		}
	}
	if p.selected, err = list("Select", o.Select); err != nil {
		return nil, err
	}
	if p.groupBy, err = list("GroupBy", o.GroupBy); err != nil {
		return nil, err
	}
	if len(p.groupBy) > 0 && p.aggregateScript == nil {
		p.aggregateScript, _ = scan("Aggregate", "count") // which scans
	}
	p.grouped = p.aggregateScript != nil
	pairs, err := list("Rename", o.Rename)
	if err != nil {
		return nil, err
	}
	for _, pair := range pairs {
		old, name, ok := strings.Cut(pair, "=")
		old, name = strings.TrimSpace(old), strings.TrimSpace(name)
		if !ok || old == "" || name == "" {
			return nil, errors.New("Rename: " + quote(pair) + ": want old=new, with commas between")
		}
		p.renames = append(p.renames, [2]string{old, name})
	}
	return p, nil
}

// wanted are names that the plan takes from the source: those of settings that
// a source of JSON lines may have although its first row has not.
func (p *plan) wanted() []string {
	names := slices.Clone(p.groupBy)
	if !p.grouped {
		for _, name := range p.selected {
			if name != "*" && !strings.HasPrefix(name, "-") {
				names = append(names, name)
			}
		}
	}
	derived := map[string]bool{}
	for _, s := range []*script{p.deriveScript, p.filterScript, p.aggregateScript} {
		if s == nil {
			continue
		}
		depth := 0
		for i, t := range s.tokens {
			if t.kind == tokenSign && t.text == "(" {
				depth++
			}
			if t.kind == tokenSign && t.text == ")" {
				depth--
			}
			if t.kind != tokenName {
				continue
			}
			next := s.tokens[min(i+1, len(s.tokens)-1)]
			switch {
			case next.text == "(" && !t.quoted:
			case s == p.deriveScript && depth == 0 && s.names(i):
				derived[t.text] = true
			case s == p.aggregateScript && depth == 0:
			case !t.quoted && isWord(t.text):
			default:
				names = append(names, t.text)
			}
		}
	}
	return slices.DeleteFunc(names, func(name string) bool { return derived[name] })
}

// names reports whether token i, in no parentheses, is what a derivation gives a
// name to.
func (s *script) names(i int) bool {
	if i > 0 {
		switch s.tokens[i-1].text {
		case ";", ",":
		default:
			return false
		}
	}
	return s.tokens[i+1].kind == tokenSign && s.tokens[i+1].text == "="
}

func isWord(name string) bool {
	switch strings.ToLower(name) {
	case "and", "or", "not", "contains", "startswith", "endswith", "matches", "in", "is", "empty", "null", "true", "false", "as":
		return true
	}
	return false
}

// bind compiles the plan for the columns of the source. It returns the columns
// that the reader must provide, and whether others may be left out.
func (p *plan) bind(names []string, loose bool) (columns []string, open bool, err error) {
	columns = names
	if loose {
		for _, name := range p.wanted() {
			if !slices.Contains(columns, name) {
				columns = append(columns, name)
			}
		}
	}
	b := &binder{names: columns, source: map[string]int{}, derived: map[string]int{}}
	for i, name := range columns {
		b.source[name] = i
	}
	if err := p.bindDerive(b); err != nil {
		return nil, false, err
	}
	if p.filterScript != nil {
		s := p.filterScript
		b.used = false
		x, err := s.expression(b)
		if err != nil {
			return nil, false, err
		}
		if !s.ended() {
			return nil, false, s.unexpected("want and, or, or the end")
		}
		p.filter, p.filterDerived = x.cond, b.used
	}
	// Everything after this may name computed columns.
	all := make([]column, 0, len(names)+len(p.derive))
	for i, name := range names {
		if k, ok := b.derived[name]; ok {
			all = append(all, column{name, ^k}) // computed anew, in its old place
		} else {
			all = append(all, column{name, i})
		}
	}
	for i, d := range p.derive {
		if !slices.Contains(names, d.name) {
			all = append(all, column{d.name, ^i})
		}
	}
	if p.grouped {
		if all, err = p.bindGroups(b); err != nil {
			return nil, false, err
		}
	} else if loose {
		for i, name := range columns[len(names):] {
			if slices.Contains(p.selected, name) {
				all = append(all, column{name, len(names) + i})
			}
		}
	}
	if p.output, err = p.choose(all); err != nil {
		return nil, false, err
	}
	open = p.grouped
	for _, name := range p.selected {
		if name != "*" && !strings.HasPrefix(name, "-") {
			open = true
		}
	}
	if slices.Contains(p.selected, "*") {
		open = p.grouped
	}
	return columns, open, nil
}

func (p *plan) bindDerive(b *binder) error {
	s := p.deriveScript
	if s == nil {
		return nil
	}
	for !s.ended() {
		at := s.peek().at
		name, err := s.name("the name of a new column, as in: total = price * count")
		if err != nil {
			return err
		}
		if err := s.expect("="); err != nil {
			return err
		}
		x, err := s.expression(b)
		if err != nil {
			return err
		}
		if _, ok := b.derived[name]; ok {
			return s.wrong(at, "column "+quote(name)+" is computed twice")
		}
		if len(p.derive) == MaxColumns {
			return s.wrong(at, "too many columns")
		}
		b.derived[name] = len(p.derive)
		b.types = append(b.types, x.typ)
		if _, ok := b.source[name]; !ok {
			b.names = append(slices.Clip(b.names), name)
		}
		p.derive = append(p.derive, derivation{name, x})
		if _, ok := s.sign(",", ";"); !ok && !s.ended() {
			return s.unexpected("want a comma, or the end")
		}
	}
	return nil
}

// bindGroups compiles keys and aggregates and returns the columns that result.
func (p *plan) bindGroups(b *binder) ([]column, error) {
	for _, name := range p.groupBy {
		x, err := b.column(&script{setting: "GroupBy"}, 0, name)
		if err != nil {
			return nil, errors.New("GroupBy: there is no column " + quote(name) + ": there are " + someOf(b.names))
		}
		p.keys = append(p.keys, x)
	}
	s := p.aggregateScript
	for !s.ended() {
		a, err := s.aggregate(b)
		if err != nil {
			return nil, err
		}
		p.aggregates = append(p.aggregates, a)
		if _, ok := s.sign(",", ";"); !ok && !s.ended() {
			return nil, s.unexpected("want a comma, or the end")
		}
	}
	var all []column
	seen := map[string]bool{}
	add := func(name string) error {
		if seen[name] {
			return errors.New("two columns of the groups are called " + quote(name) + `: give one another name with "as"`)
		}
		seen[name] = true
		all = append(all, column{name, ^len(all)})
		return nil
	}
	for _, name := range p.groupBy {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	for _, a := range p.aggregates {
		if err := add(a.name); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// choose applies Select and Rename to the columns there are.
func (p *plan) choose(all []column) ([]column, error) {
	index := func(setting, name string) (int, error) {
		i := slices.IndexFunc(all, func(c column) bool { return c.name == name })
		if i >= 0 {
			return i, nil
		}
		names := make([]string, len(all))
		for i := range all {
			names[i] = all[i].name
		}
		return 0, errors.New(setting + ": there is no column " + quote(name) + ": there are " + someOf(names))
	}
	var out []column
	dropped := make([]bool, len(all))
	drops, picks := 0, 0
	for _, name := range p.selected {
		if rest, ok := strings.CutPrefix(name, "-"); ok {
			// A column may really be called -x.
			if _, err := index("Select", name); err != nil {
				i, err := index("Select", strings.TrimSpace(rest))
				if err != nil {
					return nil, err
				}
				dropped[i] = true
				drops++
				continue
			}
		}
		picks++
		if name == "*" {
			out = append(out, all...)
			continue
		}
		i, err := index("Select", name)
		if err != nil {
			return nil, err
		}
		out = append(out, all[i])
	}
	if drops > 0 && picks > 0 {
		return nil, errors.New("select either names columns to keep, or columns to leave out, each with a minus")
	}
	if picks == 0 {
		for i, c := range all {
			if !dropped[i] {
				out = append(out, c)
			}
		}
	}
	if drops > 0 && len(out) == 0 {
		return nil, errors.New("select leaves no column")
	}
	for _, rename := range p.renames {
		if _, err := index("Rename", rename[0]); err != nil {
			return nil, err
		}
	}
	seen := make(map[string]bool, len(out))
	for i := range out {
		for _, rename := range p.renames {
			if out[i].name == rename[0] {
				out[i].name = rename[1]
				break
			}
		}
		if seen[out[i].name] {
			return nil, errors.New("two columns of the output are called " + quote(out[i].name))
		}
		seen[out[i].name] = true
	}
	return out, nil
}
