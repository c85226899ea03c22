//go:build unix

package shell

import (
	"regexp"
	"strings"

	"github.com/ultravisor/beacon"
)

const isWindows = false

func shellOf(line string) (argv []string, forCmd string) { return []string{"/bin/sh", "-c", line}, "" }

// substitute replaces the placeholders in a line for the shell. It never puts a
// path there, but a reference to the variable that holds it: the shell does not
// look for commands in what a variable holds, so a file name cannot inject any,
// whatever it is and however it is quoted. Where the quotes are is followed only
// to have it arrive as one word.
func substitute(line string, names paths) (string, error) {
	if !strings.ContainsRune(line, '{') {
		return line, nil
	}
	s := &script{rest: line, names: names}
	s.read(0)
	if s.err != nil {
		return "", s.err
	}
	return s.out.String(), nil
}

// A script is a line of the shell that is being read.
type script struct {
	rest  string
	names paths
	out   strings.Builder
	err   error
	docs  []document // here-documents whose text begins after the next line end
	sums  int        // arithmetic that is being read, where << is a shift
}

// A document is a here-document.
type document struct {
	end            string
	quoted, indent bool
}

// take moves n bytes to the output.
func (s *script) take(n int) {
	s.out.WriteString(s.rest[:n])
	s.rest = s.rest[n:]
}

// placeholder replaces one at the start of what is left. around is what stands
// before and after the reference.
func (s *script) placeholder(before, after string) bool {
	if s.rest[0] != '{' {
		return false
	}
	for _, n := range s.names {
		if strings.HasPrefix(s.rest, n.placeholder) {
			s.out.WriteString(before + "${" + n.variable + "}" + after)
			s.rest = s.rest[len(n.placeholder):]
			return true
		}
	}
	return false
}

// read reads commands until the closing character, or to the end if that is 0.
func (s *script) read(closing byte) {
	wordStart := true
	depth := 0 // of other parentheses
	for len(s.rest) > 0 && s.err == nil {
		c := s.rest[0]
		switch {
		case c == closing && depth == 0:
			s.take(1)
			return
		case c == '\\' && len(s.rest) > 1:
			s.take(2)
		case c == '\'':
			s.single()
		case c == '"':
			s.double()
		case c == '`' || strings.HasPrefix(s.rest, "$("):
			s.command()
		case c == '#' && wordStart:
			s.comment()
			continue
		case strings.HasPrefix(s.rest, "<<<"):
			s.take(3)
		case strings.HasPrefix(s.rest, "<<") && s.sums == 0:
			s.document()
		case c == '\n':
			s.take(1)
			s.texts()
		case c == '{' && s.placeholder(`"`, `"`):
		default:
			if closing == ')' {
				depth += map[byte]int{'(': 1, ')': -1}[c]
			}
			s.take(1)
		}
		wordStart = strings.IndexByte(" \t\n;&|()", c) >= 0
	}
}

// command reads a command substitution, whose quotes are its own.
func (s *script) command() {
	if s.rest[0] == '`' {
		s.take(1)
		s.read('`')
		return
	}
	if strings.HasPrefix(s.rest, "$((") {
		s.sums++
		defer func() { s.sums-- }()
	}
	s.take(2)
	s.read(')')
}

// single reads single quotes. In them nothing is expanded: they end for the
// reference.
func (s *script) single() {
	end := strings.IndexByte(s.rest[1:], '\'')
	quoted := s.rest
	if end >= 0 {
		quoted = s.rest[:end+2]
	}
	after := s.rest[len(quoted):]
	s.checkNested(quoted)
	s.rest = quoted
	s.take(1)
	for len(s.rest) > 0 {
		if !s.placeholder(`'"`, `"'`) {
			s.take(1)
		}
	}
	s.rest = after
}

// double reads double quotes.
func (s *script) double() {
	s.checkNested(s.rest)
	s.take(1)
	for len(s.rest) > 0 && s.err == nil {
		switch c := s.rest[0]; {
		case c == '"':
			s.take(1)
			return
		case c == '\\' && len(s.rest) > 1:
			s.take(2)
		case c == '`' || strings.HasPrefix(s.rest, "$("):
			s.command()
		case c == '{' && s.placeholder("", ""):
		default:
			s.take(1)
		}
	}
}

func (s *script) comment() {
	end := strings.IndexByte(s.rest, '\n')
	if end < 0 {
		end = len(s.rest)
	}
	s.take(end)
}

// document reads the beginning of a here-document.
func (s *script) document() {
	s.take(2)
	d := document{}
	if strings.HasPrefix(s.rest, "-") {
		d.indent = true
		s.take(1)
	}
	for len(s.rest) > 0 && (s.rest[0] == ' ' || s.rest[0] == '\t') {
		s.take(1)
	}
	quote := byte(0)
	for len(s.rest) > 0 {
		c := s.rest[0]
		switch {
		case c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, d.quoted = c, true
		case quote == 0 && c == '\\' && len(s.rest) > 1:
			d.quoted = true
			s.take(1)
			d.end += s.rest[:1]
		case quote == 0 && strings.IndexByte(" \t\n;&|<>()", c) >= 0:
			if d.end != "" || d.quoted {
				s.docs = append(s.docs, d)
			}
			return
		default:
			d.end += string(c)
		}
		s.take(1)
	}
}

// texts reads the here-documents that begin at a line end.
func (s *script) texts() {
	for _, d := range s.docs {
		for len(s.rest) > 0 && s.err == nil {
			end := strings.IndexByte(s.rest, '\n') + 1
			if end == 0 {
				end = len(s.rest)
			}
			line, after := s.rest[:end], s.rest[end:]
			text := strings.TrimSuffix(line, "\n")
			if d.indent {
				text = strings.TrimLeft(text, "\t")
			}
			s.rest = line
			if text == d.end {
				s.take(len(line))
				s.rest = after
				break
			}
			for len(s.rest) > 0 {
				switch {
				case s.rest[0] != '{':
					s.take(1)
				case d.quoted && s.mentions(s.rest):
					s.err = beacon.Errorf(beacon.Invalid, "a here-document whose end is quoted cannot have placeholders: nothing in it is expanded; do without the quotes")
					return
				case !s.placeholder("", ""):
					s.take(1)
				}
			}
			s.rest = after
		}
	}
	s.docs = nil
}

func (s *script) mentions(text string) bool {
	for _, n := range s.names {
		if strings.HasPrefix(text, n.placeholder) {
			return true
		}
	}
	return false
}

// Other interpreters that may read a part of a line as their own script.
var nested = regexp.MustCompile(`(^|[^A-Za-z0-9_.])(sh|ash|bash|dash|ksh|zsh|fish|eval|ssh|su|sudo|watch|parallel|xargs|python[0-9.]*|perl|ruby|node|php|awk|sqlite3|psql|mysql)($|[^A-Za-z0-9_])`)

// active are the characters that an interpreter may act on.
const active = "$`;&|<>(){}[]*?!#~\"'\\\n"

// checkNested refuses what no quoting of ours can make safe: a script inside of
// quotes, for another shell, into which a name with active characters would be
// pasted.
func (s *script) checkNested(quoted string) {
	if end := strings.IndexByte(quoted[1:], quoted[0]); end >= 0 {
		quoted = quoted[1 : end+1]
	}
	if !strings.ContainsAny(quoted, " \t\n;") || !nested.MatchString(s.out.String()) {
		return
	}
	for _, n := range s.names {
		// Our own folders are what they are; the name is somebody else's.
		if name := n.path[strings.LastIndexByte(n.path, '/')+1:]; strings.Contains(quoted, n.placeholder) && strings.ContainsAny(name, active) {
			s.err = beacon.Errorf(beacon.Denied, "the name %s has characters that the script in quotes would act on: use \"$%s\" in it, or Args", beacon.Excerpt(name, 80), n.variable)
		}
	}
}
