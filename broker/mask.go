package broker

import (
	"bytes"
	"io"
	"net/url"
	"strings"
)

// masks are the secrets that one exchange carries. Whoever answers knows them,
// and may say them again, in an error message or by mistake: they are starred
// out of what comes back, length by length. None is shorter than
// policy.MinSecret.
type masks []string

// mask stars out the secrets of a text, as they are and as a URL has them.
func (m masks) mask(text string) string {
	for _, secret := range m {
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			text = strings.ReplaceAll(text, form, strings.Repeat("*", len(form)))
		}
	}
	return text
}

// reader stars them out of a stream, which it holds back no further than where
// a secret might have begun.
func (m masks) reader(from io.Reader) io.Reader {
	if len(m) == 0 {
		return from
	}
	secrets := make([][]byte, len(m))
	for n, secret := range m {
		secrets[n] = []byte(secret)
	}
	return &masked{from: from, secrets: secrets}
}

type masked struct {
	from    io.Reader
	secrets [][]byte
	buf     []byte // read, and starred out up to ready
	ready   int
	err     error // of from, when buf is used up
}

func (m *masked) Read(p []byte) (int, error) {
	for m.ready == 0 {
		if m.err != nil {
			return 0, m.err
		}
		m.fill(len(p))
	}
	n := copy(p, m.buf[:m.ready])
	m.buf = m.buf[n:]
	m.ready -= n
	return n, nil
}

// fill reads once and stars out.
func (m *masked) fill(size int) {
	held := len(m.buf)
	buf := make([]byte, held+max(1, min(size, 32<<10)))
	copy(buf, m.buf)
	n, err := m.from.Read(buf[held:])
	m.buf, m.err = buf[:held+n], err
	for _, secret := range m.secrets {
		for at := 0; ; {
			i := bytes.Index(m.buf[at:], secret)
			if i < 0 {
				break
			}
			at += i
			for j := range secret {
				m.buf[at+j] = '*'
			}
			at += len(secret)
		}
	}
	m.ready = len(m.buf)
	if err == nil {
		m.ready -= m.begun()
	}
}

// begun is how many bytes at the end may be the beginning of a secret.
func (m *masked) begun() int {
	longest := 0
	for _, secret := range m.secrets {
		for n := min(len(secret)-1, len(m.buf)); n > longest; n-- {
			if bytes.HasSuffix(m.buf, secret[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}
