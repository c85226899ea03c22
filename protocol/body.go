package protocol

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"

	"github.com/ultravisor/beacon"
)

// A Body is a message in JSON whose files are read and encoded while it is
// read: it takes the same memory however large they are.
type Body struct {
	// FileName is set for a body that is a file as it is, and not JSON.
	FileName string

	parts []part
	size  int64
}

// A part is text, or a file that becomes a string of base64 unless it is raw.
type part struct {
	text []byte
	file *beacon.File
	raw  bool
}

func completion(r beacon.Result, attempt int) Completion {
	c := NewCompletion(r)
	c.AttemptNumber = attempt
	return c
}

// EncodeCompletion makes the body that reports a result over HTTP. Files that are
// optional are left out. It fails when an output cannot be represented in JSON.
func EncodeCompletion(r beacon.Result, attempt int) (*Body, error) {
	files := r.Outputs.Files()
	for name, f := range files {
		if f.Optional {
			delete(files, name)
			r.Outputs = maps.Clone(r.Outputs)
			delete(r.Outputs, name)
		}
	}
	if len(files) == 0 {
		text, err := Encode(completion(r, attempt))
		if err != nil {
			return nil, err
		}
		return TextBody(text), nil
	}
	// A word that nobody can guess stands for each file until the rest is text.
	r.Outputs = maps.Clone(r.Outputs)
	words := map[string]beacon.File{}
	for name, f := range files {
		word := "file-" + rand.Text()
		words[word] = f
		r.Outputs[name] = word
	}
	text, err := Encode(completion(r, attempt))
	if err != nil {
		return nil, err
	}
	b := &Body{}
	for len(words) > 0 {
		next, at := "", len(text)
		for word := range words {
			if i := bytes.Index(text, []byte(word)); i >= 0 && i < at {
				next, at = word, i
			}
		}
		if next == "" {
			return nil, errors.New("encode the result: a file is not in it")
		}
		f := words[next]
		b.add(part{text: text[:at]}, part{file: &f})
		text = text[at+len(next):]
		delete(words, next)
	}
	b.add(part{text: text})
	return b, nil
}

// TextBody is a body without files.
func TextBody(text []byte) *Body {
	b := &Body{}
	b.add(part{text: text})
	return b
}

// FileBody is a file as it is, for PathUpload.
func FileBody(f beacon.File) *Body {
	b := &Body{FileName: f.Name}
	b.add(part{file: &f, raw: true})
	return b
}

func (b *Body) add(parts ...part) {
	for _, p := range parts {
		b.parts = append(b.parts, p)
		switch {
		case p.file == nil:
			b.size += int64(len(p.text))
		case p.raw:
			b.size += p.file.Size
		default: // more than 2 GiB are no int everywhere
			b.size += (p.file.Size + 2) / 3 * 4
		}
	}
}

// Size is the number of bytes that Open gives.
func (b *Body) Size() int64 { return b.size }

// ErrDamaged says that a file of a body is gone or shorter than it was: the body
// cannot be sent any more.
var ErrDamaged = errors.New("the output file is gone or was cut off")

// Open begins to read the body; it may be opened many times, also at the same
// time. A file that is not there as it was is ErrDamaged, of Open or of Read.
func (b *Body) Open() (io.ReadCloser, error) {
	o := &openBody{}
	var readers []io.Reader
	for _, p := range b.parts {
		if p.file == nil {
			readers = append(readers, bytes.NewReader(p.text))
			continue
		}
		f, err := os.Open(p.file.Path)
		if errors.Is(err, fs.ErrNotExist) {
			err = ErrDamaged
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open output file %s: %w", beacon.Excerpt(p.file.Name, 80), err), o.Close())
		}
		o.files = append(o.files, f)
		if p.raw {
			readers = append(readers, &exact{from: f, left: p.file.Size})
		} else {
			readers = append(readers, &encoder{from: f, left: p.file.Size})
		}
	}
	o.Reader = io.MultiReader(readers...)
	return o, nil
}

type openBody struct {
	io.Reader
	files []*os.File
}

func (o *openBody) Close() (err error) {
	for _, f := range slices.Backward(o.files) {
		err = errors.Join(err, f.Close())
	}
	return err
}

// exact reads so many bytes.
type exact struct {
	from io.Reader
	left int64
}

func (e *exact) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.from.Read(p[:min(int64(len(p)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) {
		err = nil
		if n == 0 {
			err = ErrDamaged
		}
	}
	return n, err
}

// An encoder turns what it reads into base64.
type encoder struct {
	from io.Reader
	left int64 // of the file
	in   []byte
	out  []byte
	rest []byte // of out
}

// encoded is how much of a file is encoded at a time: a multiple of three.
const encoded = 48 << 10

func (e *encoder) Read(p []byte) (int, error) {
	if len(e.rest) == 0 {
		if e.left == 0 {
			return 0, io.EOF
		}
		if e.in == nil {
			e.in = make([]byte, encoded)
			e.out = make([]byte, base64.StdEncoding.EncodedLen(encoded))
		}
		in := e.in[:min(encoded, e.left)]
		if _, err := io.ReadFull(e.from, in); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				err = ErrDamaged
			}
			return 0, err
		}
		e.left -= int64(len(in))
		base64.StdEncoding.Encode(e.out, in)
		e.rest = e.out[:base64.StdEncoding.EncodedLen(len(in))]
	}
	n := copy(p, e.rest)
	e.rest = e.rest[n:]
	return n, nil
}
