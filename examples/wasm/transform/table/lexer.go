package table

import (
	"errors"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokenEnd tokenKind = iota
	tokenName
	tokenText
	tokenNumber
	tokenSign
)

type token struct {
	kind   tokenKind
	text   string // the name, the text's content, the sign; names of words are as written
	quoted bool   // a name in backticks, which is never a word of the language
	at     int    // offset in bytes
}

// A script is one setting, being parsed.
type script struct {
	setting string
	source  string
	tokens  []token
	next    int
	depth   int
}

// scan splits a setting into tokens.
func scan(setting, source string) (*script, error) {
	s := &script{setting: setting, source: source}
	if len(source) > maxExpression {
		return nil, errors.New(setting + " is longer than " + strconv.Itoa(maxExpression) + " bytes")
	}
	for i := 0; i < len(source); {
		r, size := utf8.DecodeRuneInString(source[i:])
		switch {
		case unicode.IsSpace(r):
			i += size
		case r == '"' || r == '\'' || r == '`':
			var b strings.Builder
			at := i
			i++
			for {
				k := strings.IndexByte(source[i:], byte(r))
				if k < 0 {
					return nil, s.wrong(at, "a quote is not closed")
				}
				b.WriteString(source[i : i+k])
				i += k + 1
				if i >= len(source) || source[i] != byte(r) {
					break
				}
				b.WriteByte(byte(r)) // doubled
				i++
			}
			kind := tokenText
			if r == '`' {
				kind = tokenName
			}
			s.tokens = append(s.tokens, token{kind, b.String(), r == '`', at})
		case r >= '0' && r <= '9' || r == '.' && i+1 < len(source) && source[i+1] >= '0' && source[i+1] <= '9':
			at := i
			for i < len(source) && (source[i] >= '0' && source[i] <= '9' || source[i] == '.') {
				i++
			}
			if i < len(source) && (source[i] == 'e' || source[i] == 'E') {
				k := i + 1
				if k < len(source) && (source[k] == '+' || source[k] == '-') {
					k++
				}
				for k < len(source) && source[k] >= '0' && source[k] <= '9' {
					k++
					i = k
				}
			}
			s.tokens = append(s.tokens, token{tokenNumber, source[at:i], false, at})
		case nameRune(r):
			at := i
			for i < len(source) {
				r, size := utf8.DecodeRuneInString(source[i:])
				if !nameRune(r) && r != '.' && !unicode.IsDigit(r) {
					break
				}
				i += size
			}
			s.tokens = append(s.tokens, token{tokenName, source[at:i], false, at})
		default:
			n := size
			if i+1 < len(source) {
				switch source[i : i+2] {
				case "<=", ">=", "!=", "<>", "==", "&&", "||":
					n = 2
				}
			}
			sign := source[i : i+n]
			if !strings.Contains(" = == != <> < <= > >= + - * / % & && || ! ( ) , ; ", " "+sign+" ") {
				return nil, s.wrong(i, "unexpected "+quote(sign))
			}
			s.tokens = append(s.tokens, token{tokenSign, sign, false, i})
			i += n
		}
	}
	if len(s.tokens) > maxTokens {
		return nil, errors.New(setting + " has more than " + strconv.Itoa(maxTokens) + " words and signs")
	}
	s.tokens = append(s.tokens, token{kind: tokenEnd, at: len(source)})
	return s, nil
}

func nameRune(r rune) bool {
	return r == '_' || unicode.IsLetter(r) && r != utf8.RuneError
}

// wrong makes an error that says where in the setting something is wrong.
func (s *script) wrong(at int, text string) error {
	return errors.New(s.setting + ", at character " + strconv.Itoa(utf8.RuneCountInString(s.source[:at])+1) + ": " + text)
}

func (s *script) peek() token { return s.tokens[s.next] }

func (s *script) take() token {
	t := s.tokens[s.next]
	if t.kind != tokenEnd {
		s.next++
	}
	return t
}

// sign takes the sign if it comes next.
func (s *script) sign(signs ...string) (string, bool) {
	if t := s.peek(); t.kind == tokenSign {
		for _, want := range signs {
			if t.text == want {
				s.next++
				return want, true
			}
		}
	}
	return "", false
}

// word takes a word of the language if it comes next, in any case.
func (s *script) word(words ...string) (string, bool) {
	if t := s.peek(); t.kind == tokenName && !t.quoted {
		for _, want := range words {
			if strings.EqualFold(t.text, want) {
				s.next++
				return want, true
			}
		}
	}
	return "", false
}

// name takes a name.
func (s *script) name(what string) (string, error) {
	t := s.peek()
	if t.kind != tokenName && t.kind != tokenText {
		return "", s.unexpected("want " + what)
	}
	s.next++
	if t.text == "" {
		return "", s.wrong(t.at, "the name is empty")
	}
	return t.text, nil
}

func (s *script) unexpected(want string) error {
	t := s.peek()
	if t.kind == tokenEnd {
		return s.wrong(t.at, "it ends too early: "+want)
	}
	return s.wrong(t.at, "unexpected "+quote(t.text)+": "+want)
}

func (s *script) expect(sign string) error {
	if _, ok := s.sign(sign); !ok {
		return s.unexpected("want " + sign)
	}
	return nil
}

func (s *script) ended() bool { return s.peek().kind == tokenEnd }

// list splits a list of names at commas. Names are as they are, but may be in
// double quotes or backticks if they have commas or spaces at their ends.
func list(setting, source string) ([]string, error) {
	if len(source) > maxExpression {
		return nil, errors.New(setting + " is longer than " + strconv.Itoa(maxExpression) + " bytes")
	}
	var names []string
	rest := strings.TrimSpace(source)
	for rest != "" {
		var name string
		if c := rest[0]; c == '"' || c == '`' {
			end := strings.IndexByte(rest[1:], c)
			if end < 0 {
				return nil, errors.New(setting + ": a quote is not closed")
			}
			name, rest = rest[1:1+end], strings.TrimSpace(rest[end+2:])
			if rest != "" && rest[0] != ',' {
				return nil, errors.New(setting + ": want a comma after " + quote(name))
			}
		} else {
			end := strings.IndexByte(rest, ',')
			if end < 0 {
				end = len(rest)
			}
			name, rest = strings.TrimSpace(rest[:end]), rest[end:]
		}
		if name == "" {
			return nil, errors.New(setting + ": a name is empty")
		}
		names = append(names, name)
		if rest != "" {
			rest = strings.TrimSpace(rest[1:])
			if rest == "" {
				return nil, errors.New(setting + ": it ends with a comma")
			}
		}
	}
	return names, nil
}
