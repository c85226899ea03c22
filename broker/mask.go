package broker

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"html"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/ultravisor/beacon/policy"
)

// masks are the secrets that whoever answers an exchange knows. He may say them
// again, in an error message or by mistake: they are starred out of what comes
// back, length by length. The zero value stars out nothing.
type masks struct {
	forms  [][]byte // as they stand in bodies
	folded [][]byte // in lower case, for what is in a head: its letters change their case on the way
}

func masksOf(secrets []string) (m masks) {
	for _, secret := range secrets {
		for _, part := range parts(secret) {
			for _, form := range forms(part) {
				m.forms = append(m.forms, []byte(form))
				m.folded = append(m.folded, folded(form))
			}
		}
	}
	for _, list := range []*[][]byte{&m.forms, &m.folded} {
		slices.SortFunc(*list, bytes.Compare)
		*list = slices.CompactFunc(*list, bytes.Equal)
	}
	return m
}

func (m masks) empty() bool { return len(m.forms) == 0 }

// parts are a secret and what is the secret in it: what follows the name of a
// scheme ("Bearer …"), and what "Basic" has in base64, with its password.
func parts(secret string) []string {
	all := []string{secret}
	if _, rest, found := strings.Cut(secret, " "); found {
		secret = strings.TrimSpace(rest)
		all = append(all, secret)
	}
	for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		text, err := encoding.DecodeString(secret)
		if err != nil || !utf8.Valid(text) || bytes.ContainsFunc(text, unicode.IsControl) {
			continue
		}
		_, password, _ := strings.Cut(string(text), ":")
		all = append(all, string(text), password)
		break
	}
	return slices.DeleteFunc(all, func(s string) bool { return len(s) < policy.MinSecret })
}

// forms are the ways in which programs write a text: as it is, in URLs, JSON, HTML
// and Go, in hexadecimal, and in base64, wherever it begins there.
func forms(text string) []string {
	quoted, _ := json.Marshal(text) // of a string it cannot fail
	var plain bytes.Buffer
	enc := json.NewEncoder(&plain)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(text) // the same
	inner := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	all := []string{
		text, inner(string(quoted)), inner(strings.TrimSpace(plain.String())), inner(strconv.Quote(text)),
		html.EscapeString(text), strings.NewReplacer("&#34;", "&quot;", "&#39;", "&apos;").Replace(html.EscapeString(text)),
		hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text))),
	}
	for _, form := range []string{url.QueryEscape(text), url.PathEscape(text), (&url.URL{Path: text}).EscapedPath()} {
		all = append(all, form, lowerPercent(form))
	}
	for before := range 3 {
		b64 := base64.StdEncoding.EncodeToString(append(make([]byte, before), text...))
		// Letters that other bytes have a share in are not known.
		b64 = b64[(8*before+5)/6 : 8*(before+len(text))/6]
		all = append(all, b64, strings.NewReplacer("+", "-", "/", "_").Replace(b64))
	}
	return all
}

// lowerPercent writes %2F as %2f.
func lowerPercent(escaped string) string {
	b := []byte(escaped)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			copy(b[i:], bytes.ToLower(b[i:i+3]))
		}
	}
	return string(b)
}

// folded has the letters of ASCII in lower case, and is as long as the text.
func folded(text string) []byte {
	b := []byte(text)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}

// A span is a part of a text, from one byte to before another.
type span struct{ from, to int }

// find finds all places of forms in a text.
func find(text []byte, forms [][]byte) (all []span) {
	for _, form := range forms {
		for at := 0; ; {
			i := bytes.Index(text[at:], form)
			if i < 0 {
				break
			}
			at += i
			all = append(all, span{at, at + len(form)})
			at++ // one may begin in another
		}
	}
	return all
}

func star(b []byte, spans []span) {
	for _, s := range spans {
		for i := s.from; i < min(s.to, len(b)); i++ {
			b[i] = '*'
		}
	}
}

// mask stars out the secrets of a text that is in a head, or in an error.
func (m masks) mask(text string) string {
	if m.empty() {
		return text
	}
	lower := folded(text)
	spans := find(lower, m.folded)
	// What was made shorter may end in a secret.
	const cut, least = "…", 4
	for at := 0; ; at += len(cut) {
		i := strings.Index(text[at:], cut)
		if i < 0 {
			break
		}
		at += i
		if begun := begin(lower[:at], m.folded); at-begun >= least {
			spans = append(spans, span{begun, at})
		}
	}
	if len(spans) == 0 {
		return text
	}
	b := []byte(text)
	star(b, spans)
	return string(b)
}

// begin is where the first of the forms begins that the end of a text may be the
// beginning of; the text's length if there is none.
func begin(text []byte, forms [][]byte) int {
	first := len(text)
	for _, form := range forms {
		for at := max(0, len(text)-len(form)+1); at < first; at++ {
			i := bytes.IndexByte(text[at:first], form[0])
			if i < 0 {
				break
			}
			at += i
			if bytes.HasPrefix(form, text[at:]) {
				first = at
				break
			}
		}
	}
	return first
}

// reader stars them out of a stream, which it holds back no further than where
// a secret might have begun.
func (m masks) reader(from io.Reader) io.Reader {
	if m.empty() {
		return from
	}
	return &masked{from: from, forms: m.forms}
}

type masked struct {
	from  io.Reader
	forms [][]byte
	ready []byte // starred out
	raw   []byte // read, and held back
	over  int    // how many bytes at raw's beginning are of secrets that began before
	err   error  // of from, when all else is used up
}

func (m *masked) Read(p []byte) (int, error) {
	for len(m.ready) == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill(len(p))
	}
	n := copy(p, m.ready)
	m.ready = m.ready[n:]
	return n, nil
}

// fill reads once and stars out.
func (m *masked) fill(size int) {
	held := len(m.raw)
	raw := make([]byte, held+max(1, min(size, 32<<10)))
	copy(raw, m.raw)
	n, err := m.from.Read(raw[held:])
	raw = raw[:held+n]
	spans := find(raw, m.forms)
	hold := len(raw)
	if err == nil {
		hold = begin(raw, m.forms)
	}
	// What is held back stays as it came, so that more can be found in it.
	m.raw, m.err = bytes.Clone(raw[hold:]), err
	star(raw, append(spans, span{0, m.over}))
	m.ready = raw[:hold]
	m.over = max(0, m.over-hold)
	for _, s := range spans {
		if s.from < hold {
			m.over = max(m.over, s.to-hold)
		}
	}
}
