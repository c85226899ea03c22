package table

import (
	"bytes"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// valueType is what an expression is known to give.
type valueType uint8

const (
	anyType    valueType = iota // a column: text that may mean anything
	numberType                  // or empty
	textType
	boolType
)

// An expression is compiled to closures, once. Those of its type are set, and
// compile fills in the others, so that every expression can be asked for a
// number, for text, and for a truth value.
type expression struct {
	typ valueType
	// num gives a number; false when it is empty, as a field that is missing.
	num func(*row) (float64, bool)
	// text gives bytes that are valid until the row ends.
	text func(*row) []byte
	cond func(*row) bool
	// column is the column that the expression is, for messages and copies;
	// meaningless unless isColumn.
	column   int
	isColumn bool
	name     string
}

// A binder knows the columns while expressions are compiled.
type binder struct {
	names   []string
	source  map[string]int // columns of the source
	derived map[string]int // computed columns, as far as they are known
	types   []valueType    // of computed columns
	used    bool           // a computed column was named
}

func (b *binder) column(s *script, at int, name string) (*expression, error) {
	if i, ok := b.derived[name]; ok {
		b.used = true
		return derivedColumn(i, name, b.types[i]), nil
	}
	if i, ok := b.source[name]; ok {
		return sourceColumn(i, name), nil
	}
	return nil, s.wrong(at, "there is no column "+quote(name)+": there are "+someOf(b.names))
}

func sourceColumn(i int, name string) *expression {
	return &expression{
		column: i, isColumn: true, name: name,
		num: func(r *row) (float64, bool) {
			if s := r.spans[i]; s.start == s.end {
				return 0, false
			}
			f, ok := r.numberAt(i)
			if !ok {
				r.fail(name, quote(string(r.field(i)))+" is not a number")
			}
			return f, ok
		},
		text: func(r *row) []byte { return r.field(i) },
		cond: func(r *row) bool { return truth(r, name, r.field(i)) },
	}
}

func derivedColumn(i int, name string, typ valueType) *expression {
	return &expression{
		typ: typ, column: ^i, isColumn: true, name: name,
		num: func(r *row) (float64, bool) {
			c := &r.derived[i]
			if c.isNum {
				return c.num, true
			}
			if len(c.text) == 0 {
				return 0, false
			}
			f, ok := parseNumber(c.text)
			if !ok {
				r.fail(name, quote(string(c.text))+" is not a number")
			}
			return f, ok
		},
		text: func(r *row) []byte {
			c := &r.derived[i]
			if c.isNum {
				return r.number(c.num)
			}
			return c.text
		},
		cond: func(r *row) bool {
			c := &r.derived[i]
			if c.isNum {
				return c.num != 0
			}
			return truth(r, name, c.text)
		},
	}
}

// truth reads a truth value of a column.
func truth(r *row, name string, b []byte) bool {
	switch string(b) {
	case "true", "True", "TRUE", "1", "yes":
		return true
	case "false", "False", "FALSE", "0", "no", "":
		return false
	}
	r.fail(name, quote(string(b))+" is neither true nor false")
	return false
}

// number writes a number into the row's scratch space.
func (r *row) number(f float64) []byte {
	start := len(r.scratch)
	r.scratch = appendNumber(r.scratch, f)
	return r.scratch[start:len(r.scratch):len(r.scratch)]
}

// room reports whether n more bytes of text may be made of the row: expressions
// that double a text again and again must not take all memory.
func (r *row) room(n int) bool {
	if len(r.scratch)+n > maxScratch {
		r.fail("", "the expressions make more than 64 MiB of text of it")
		return false
	}
	return true
}

func numberOf(num func(*row) (float64, bool)) *expression {
	return &expression{
		typ: numberType, num: num,
		text: func(r *row) []byte {
			if f, ok := num(r); ok {
				return r.number(f)
			}
			return nil
		},
		cond: func(r *row) bool { f, ok := num(r); return ok && f != 0 },
	}
}

func textOf(text func(*row) []byte) *expression {
	return &expression{
		typ: textType, text: text,
		num: func(r *row) (float64, bool) {
			b := text(r)
			if len(b) == 0 {
				return 0, false
			}
			f, ok := parseNumber(b)
			if !ok {
				r.fail("", quote(string(b))+" is not a number")
			}
			return f, ok
		},
		cond: func(r *row) bool { return truth(r, "", text(r)) },
	}
}

var trueText, falseText = []byte("true"), []byte("false")

func condOf(cond func(*row) bool) *expression {
	return &expression{
		typ: boolType, cond: cond,
		text: func(r *row) []byte {
			if cond(r) {
				return trueText
			}
			return falseText
		},
		num: func(r *row) (float64, bool) {
			if cond(r) {
				return 1, true
			}
			return 0, true
		},
	}
}

// The grammar, from loosest to tightest:
//
//	or, and, not, comparison, &, + -, * / %, unary -, value
//
// expression parses and compiles one.
func (s *script) expression(b *binder) (*expression, error) {
	s.depth++
	defer func() { s.depth-- }()
	if s.depth > maxDepth {
		return nil, s.wrong(s.peek().at, "nested more than "+strconv.Itoa(maxDepth)+" deep")
	}
	left, err := s.conjunction(b)
	if err != nil {
		return nil, err
	}
	for s.either("||", "or") {
		right, err := s.conjunction(b)
		if err != nil {
			return nil, err
		}
		x, y := left.cond, right.cond
		left = condOf(func(r *row) bool { return x(r) || y(r) })
	}
	return left, nil
}

// either takes a sign or the word that means the same.
func (s *script) either(sign, word string) bool {
	if _, ok := s.sign(sign); ok {
		return true
	}
	_, ok := s.word(word)
	return ok
}

func (s *script) conjunction(b *binder) (*expression, error) {
	left, err := s.negation(b)
	if err != nil {
		return nil, err
	}
	for s.either("&&", "and") {
		right, err := s.negation(b)
		if err != nil {
			return nil, err
		}
		x, y := left.cond, right.cond
		left = condOf(func(r *row) bool { return x(r) && y(r) })
	}
	return left, nil
}

func (s *script) negation(b *binder) (*expression, error) {
	negated := false
	for s.either("!", "not") {
		negated = !negated
	}
	x, err := s.comparison(b)
	if err != nil || !negated {
		return x, err
	}
	cond := x.cond
	return condOf(func(r *row) bool { return !cond(r) }), nil
}

func (s *script) comparison(b *binder) (*expression, error) {
	left, err := s.concatenation(b)
	if err != nil {
		return nil, err
	}
	if op, ok := s.sign("=", "==", "!=", "<>", "<", "<=", ">", ">="); ok {
		right, err := s.concatenation(b)
		if err != nil {
			return nil, err
		}
		return compare(op, left, right), nil
	}
	at := s.next
	_, negated := s.word("not")
	op, ok := s.word("contains", "startswith", "endswith", "matches", "in", "is")
	if !ok {
		s.next = at
		return left, nil
	}
	result, err := s.textTest(op, left, b)
	if err != nil || !negated {
		return result, err
	}
	cond := result.cond
	return condOf(func(r *row) bool { return !cond(r) }), nil
}

func (s *script) textTest(op string, left *expression, b *binder) (*expression, error) {
	x := left.text
	switch op {
	case "is": // is empty, is not empty
		_, negated := s.word("not")
		if _, ok := s.word("empty", "null"); !ok {
			return nil, s.unexpected("want empty, as in: x is empty")
		}
		return condOf(func(r *row) bool { return (len(x(r)) == 0) != negated }), nil
	case "in":
		return s.membership(left, b)
	case "matches":
		t := s.take()
		if t.kind != tokenText {
			return nil, s.wrong(t.at, "matches wants a regular expression in quotes")
		}
		re, err := regexp.Compile(t.text)
		if err != nil {
			return nil, s.wrong(t.at, err.Error())
		}
		return condOf(func(r *row) bool { return re.Match(x(r)) }), nil
	}
	right, err := s.concatenation(b)
	if err != nil {
		return nil, err
	}
	y := right.text
	test := bytes.Contains
	switch op {
	case "startswith":
		test = bytes.HasPrefix
	case "endswith":
		test = bytes.HasSuffix
	}
	return condOf(func(r *row) bool { return test(x(r), y(r)) }), nil
}

func (s *script) membership(left *expression, b *binder) (*expression, error) {
	if err := s.expect("("); err != nil {
		return nil, err
	}
	var tests []func(*row) bool
	for {
		value, err := s.concatenation(b)
		if err != nil {
			return nil, err
		}
		tests = append(tests, compare("=", left, value).cond)
		if _, ok := s.sign(","); !ok {
			break
		}
	}
	if err := s.expect(")"); err != nil {
		return nil, err
	}
	return condOf(func(r *row) bool {
		for _, test := range tests {
			if test(r) {
				return true
			}
		}
		return false
	}), nil
}

// compare compares as numbers if one side is known to be one, as text if one is
// known to be text; two columns as numbers if both hold one. Against an empty
// number, only != holds.
func compare(op string, left, right *expression) *expression {
	var accept [3]bool // less, equal, greater
	switch op {
	case "=", "==":
		accept = [3]bool{false, true, false}
	case "!=", "<>":
		accept = [3]bool{true, false, true}
	case "<":
		accept = [3]bool{true, false, false}
	case "<=":
		accept = [3]bool{true, true, false}
	case ">":
		accept = [3]bool{false, false, true}
	case ">=":
		accept = [3]bool{false, true, true}
	}
	unequal := accept[0] && accept[2]
	x, y := left.text, right.text
	switch {
	case left.typ == numberType || right.typ == numberType:
		x, y := left.num, right.num
		return condOf(func(r *row) bool {
			a, aok := x(r)
			b, bok := y(r)
			switch {
			case !aok || !bok:
				return unequal && aok != bok
			case a < b:
				return accept[0]
			case a > b:
				return accept[2]
			}
			return accept[1]
		})
	case left.typ == anyType && right.typ == anyType:
		return condOf(func(r *row) bool {
			a, b := x(r), y(r)
			if f, ok := parseNumber(a); ok {
				if g, ok := parseNumber(b); ok {
					switch {
					case f < g:
						return accept[0]
					case f > g:
						return accept[2]
					}
					return accept[1]
				}
			}
			return accept[bytes.Compare(a, b)+1]
		})
	}
	return condOf(func(r *row) bool { return accept[bytes.Compare(x(r), y(r))+1] })
}

func (s *script) concatenation(b *binder) (*expression, error) {
	left, err := s.sum(b)
	if err != nil {
		return nil, err
	}
	for {
		if _, ok := s.sign("&"); !ok {
			return left, nil
		}
		right, err := s.sum(b)
		if err != nil {
			return nil, err
		}
		left = concat([]*expression{left, right})
	}
}

func concat(parts []*expression) *expression {
	return textOf(func(r *row) []byte {
		// The parts may use the scratch space themselves, so it is gathered
		// behind the last of them.
		var few [8][]byte
		values := few[:0]
		for _, part := range parts {
			values = append(values, part.text(r))
		}
		start := len(r.scratch)
		for _, v := range values {
			if !r.room(len(v)) {
				return nil
			}
			r.scratch = append(r.scratch, v...)
		}
		return r.scratch[start:len(r.scratch):len(r.scratch)]
	})
}

func (s *script) sum(b *binder) (*expression, error) {
	left, err := s.product(b)
	if err != nil {
		return nil, err
	}
	for {
		op, ok := s.sign("+", "-")
		if !ok {
			return left, nil
		}
		right, err := s.product(b)
		if err != nil {
			return nil, err
		}
		left = arithmetic(op, left, right)
	}
}

func (s *script) product(b *binder) (*expression, error) {
	left, err := s.unary(b)
	if err != nil {
		return nil, err
	}
	for {
		op, ok := s.sign("*", "/", "%")
		if !ok {
			return left, nil
		}
		right, err := s.unary(b)
		if err != nil {
			return nil, err
		}
		left = arithmetic(op, left, right)
	}
}

// arithmetic gives an empty result if an operand is empty, and fails the row if
// the result is no finite number.
func arithmetic(op string, left, right *expression) *expression {
	x, y := left.num, right.num
	return numberOf(func(r *row) (float64, bool) {
		a, ok := x(r)
		if !ok {
			return 0, false
		}
		b, ok := y(r)
		if !ok {
			return 0, false
		}
		switch op {
		case "+":
			a += b
		case "-":
			a -= b
		case "*":
			a *= b
		case "/":
			a /= b
		case "%":
			a = math.Mod(a, b)
		}
		if math.IsNaN(a) || math.IsInf(a, 0) {
			r.fail(left.name, "the result of "+op+" is not a finite number")
			return 0, false
		}
		return a, true
	})
}

func (s *script) unary(b *binder) (*expression, error) {
	negative := false
	for {
		if _, ok := s.sign("-"); !ok {
			break
		}
		negative = !negative
	}
	x, err := s.value(b)
	if err != nil || !negative {
		return x, err
	}
	num := x.num
	return numberOf(func(r *row) (float64, bool) { f, ok := num(r); return -f, ok }), nil
}

func (s *script) value(b *binder) (*expression, error) {
	if _, ok := s.sign("("); ok {
		x, err := s.expression(b)
		if err != nil {
			return nil, err
		}
		return x, s.expect(")")
	}
	t := s.peek()
	switch t.kind {
	case tokenNumber:
		s.next++
		f, ok := parseNumber([]byte(t.text))
		if !ok {
			return nil, s.wrong(t.at, quote(t.text)+" is not a number")
		}
		return numberOf(func(*row) (float64, bool) { return f, true }), nil
	case tokenText:
		s.next++
		b := []byte(t.text)
		return textOf(func(*row) []byte { return b }), nil
	case tokenName:
		s.next++
		if !t.quoted {
			if next := s.peek(); next.kind == tokenSign && next.text == "(" {
				return s.call(t, b)
			}
			switch strings.ToLower(t.text) {
			case "true":
				return condOf(func(*row) bool { return true }), nil
			case "false":
				return condOf(func(*row) bool { return false }), nil
			}
		}
		return b.column(s, t.at, t.text)
	}
	return nil, s.unexpected("want a column, a number or a text")
}

// A function of the language.
type function struct {
	least, most int
	build       func(args []*expression) *expression
}

func mathFunction(f func(float64) float64) function {
	return function{1, 1, func(args []*expression) *expression {
		num := args[0].num
		return numberOf(func(r *row) (float64, bool) {
			v, ok := num(r)
			return f(v), ok
		})
	}}
}

// textFunction is for functions that write what they make to the end of dst.
func textFunction(f func(dst, b []byte) []byte) function {
	return function{1, 1, func(args []*expression) *expression {
		text := args[0].text
		return textOf(func(r *row) []byte {
			b := text(r)
			if !r.room(len(b)) {
				return nil
			}
			start := len(r.scratch)
			r.scratch = f(r.scratch, b)
			return r.scratch[start:len(r.scratch):len(r.scratch)]
		})
	}}
}

func lookupFunction(name string) (function, bool) {
	switch name {
	case "abs":
		return mathFunction(math.Abs), true
	case "floor":
		return mathFunction(math.Floor), true
	case "ceil":
		return mathFunction(math.Ceil), true
	case "round":
		return function{1, 2, round}, true
	case "number":
		return mathFunction(func(f float64) float64 { return f }), true
	case "length":
		return function{1, 1, func(args []*expression) *expression {
			text := args[0].text
			return numberOf(func(r *row) (float64, bool) { return float64(utf8.RuneCount(text(r))), true })
		}}, true
	case "lower":
		return textFunction(func(dst, b []byte) []byte { return mapCase(dst, b, false) }), true
	case "upper":
		return textFunction(func(dst, b []byte) []byte { return mapCase(dst, b, true) }), true
	case "text":
		return textFunction(func(dst, b []byte) []byte { return append(dst, b...) }), true
	case "trim":
		return function{1, 1, func(args []*expression) *expression {
			text := args[0].text
			return textOf(func(r *row) []byte { return bytes.TrimSpace(text(r)) })
		}}, true
	case "concat":
		return function{1, 64, concat}, true
	case "substr":
		return function{2, 3, substr}, true
	case "replace":
		return function{3, 3, replace}, true
	case "coalesce":
		return function{1, 64, coalesce}, true
	case "if":
		return function{3, 3, conditional}, true
	}
	return function{}, false
}

const functions = "abs, ceil, coalesce, concat, floor, if, length, lower, number, replace, round, substr, text, trim, upper"

func (s *script) call(name token, b *binder) (*expression, error) {
	f, ok := lookupFunction(strings.ToLower(name.text))
	if !ok {
		return nil, s.wrong(name.at, "there is no function "+quote(name.text)+": there are "+functions)
	}
	s.next++ // the parenthesis
	var args []*expression
	for {
		arg, err := s.expression(b)
		if err != nil {
			return nil, err
		}
		args = append(args, arg)
		if _, ok := s.sign(","); !ok {
			break
		}
	}
	if err := s.expect(")"); err != nil {
		return nil, err
	}
	if len(args) < f.least || len(args) > f.most {
		want := strconv.Itoa(f.least)
		if f.most > f.least {
			want += " to " + strconv.Itoa(f.most)
		}
		return nil, s.wrong(name.at, name.text+" has "+strconv.Itoa(len(args))+" arguments, want "+want)
	}
	return f.build(args), nil
}

func round(args []*expression) *expression {
	num := args[0].num
	digits := func(*row) (float64, bool) { return 0, true }
	if len(args) == 2 {
		digits = args[1].num
	}
	return numberOf(func(r *row) (float64, bool) {
		f, ok := num(r)
		if !ok {
			return 0, false
		}
		d, ok := digits(r)
		if !ok || d < 0 || d > 15 || d != math.Trunc(d) {
			r.fail(args[0].name, "round wants 0 to 15 decimals")
			return 0, false
		}
		scale := powers[int(d)]
		if math.Abs(f) >= 1<<53/scale {
			return f, true // it has no more decimals than that
		}
		return math.Round(f*scale) / scale, true
	})
}

func mapCase(dst, b []byte, upper bool) []byte {
	for i, c := range b {
		if c >= utf8.RuneSelf {
			if upper {
				return append(dst, bytes.ToUpper(b[i:])...)
			}
			return append(dst, bytes.ToLower(b[i:])...)
		}
		switch {
		case upper && c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		case !upper && c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		dst = append(dst, c)
	}
	return dst
}

// substr(text, first, length) counts characters, from 1.
func substr(args []*expression) *expression {
	text, first := args[0].text, args[1].num
	length := func(*row) (float64, bool) { return math.MaxInt32, true }
	if len(args) == 3 {
		length = args[2].num
	}
	return textOf(func(r *row) []byte {
		b := text(r)
		from, ok1 := first(r)
		n, ok2 := length(r)
		if !ok1 || !ok2 || from < 1 || n < 0 {
			r.fail(args[0].name, "substr wants a first character from 1 and a length from 0")
			return nil
		}
		b = b[runes(b, from-1):]
		return b[:runes(b, n)]
	})
}

// runes is the length in bytes of the first n characters.
func runes(b []byte, n float64) int {
	i := 0
	for ; n >= 1 && i < len(b); n-- {
		_, size := utf8.DecodeRune(b[i:])
		i += size
	}
	return i
}

func replace(args []*expression) *expression {
	text, from, to := args[0].text, args[1].text, args[2].text
	return textOf(func(r *row) []byte {
		b, f, t := text(r), from(r), to(r)
		if len(f) == 0 {
			return b
		}
		start := len(r.scratch)
		for {
			i := bytes.Index(b, f)
			if i < 0 {
				break
			}
			if !r.room(i + len(t)) {
				return nil
			}
			r.scratch = append(append(r.scratch, b[:i]...), t...)
			b = b[i+len(f):]
		}
		r.scratch = append(r.scratch, b...)
		return r.scratch[start:len(r.scratch):len(r.scratch)]
	})
}

// common is the type that all have.
func common(args []*expression) valueType {
	typ := args[0].typ
	for _, a := range args[1:] {
		if a.typ != typ {
			return anyType
		}
	}
	return typ
}

func coalesce(args []*expression) *expression {
	typ := common(args)
	if typ == numberType {
		return numberOf(func(r *row) (float64, bool) {
			for _, a := range args {
				if f, ok := a.num(r); ok {
					return f, true
				}
			}
			return 0, false
		})
	}
	x := textOf(func(r *row) []byte {
		for _, a := range args {
			if b := a.text(r); len(b) > 0 {
				return b
			}
		}
		return nil
	})
	if typ != textType {
		x.typ = anyType
	}
	return x
}

func conditional(args []*expression) *expression {
	cond, x, y := args[0].cond, args[1], args[2]
	typ := common(args[1:])
	switch typ {
	case numberType:
		return numberOf(func(r *row) (float64, bool) {
			if cond(r) {
				return x.num(r)
			}
			return y.num(r)
		})
	case boolType:
		return condOf(func(r *row) bool {
			if cond(r) {
				return x.cond(r)
			}
			return y.cond(r)
		})
	}
	z := textOf(func(r *row) []byte {
		if cond(r) {
			return x.text(r)
		}
		return y.text(r)
	})
	if typ != textType {
		z.typ = anyType
	}
	return z
}
