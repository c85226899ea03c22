package snapshot

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A Record is a module that is ready to run, as a file: what was made of its
// binary, and the memory that its instances begin with. A file is only believed
// if it was written with the same key: what is in it is executed, and nothing in
// it is checked again.
//
// The format, all numbers little endian: the magic with the version; the length
// and content of Source, Meta and Binary; the size of the memory; the number of
// its pieces; of each its offset, its length and its content; and the
// HMAC-SHA-256 of all that.
type Record struct {
	// Source identifies what the record was made of.
	Source []byte
	// Meta is what the owner wants to know besides; Binary the module.
	Meta, Binary []byte
	// Size and Pieces are the memory, for NewImage.
	Size   int
	Pieces []Piece
	// Verbatim keeps the pieces as they are; otherwise pages of zeros are left
	// out. It is not part of the file.
	Verbatim bool
}

// magic begins a file. Its last byte is the version of the format.
const magic = "beacon snapshot\x01"

// ErrRecord is wrapped by errors about a file that is no record, or was not
// written with the key.
var ErrRecord = errors.New("not a snapshot of ours")

// maxRecord bounds a file: a memory of 4 GiB and what comes with it.
const maxRecord = 5 << 30

// Write stores the record in a file, which is there completely or not at all.
func (r *Record) Write(file string, key []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(file), filepath.Base(file)+".*")
	if err != nil {
		return fmt.Errorf("store a snapshot: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("store a snapshot: %w", err), os.Remove(temporary.Name()))
		}
	}()
	err = errors.Join(r.encode(temporary, key), temporary.Close())
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), file)
}

func (r *Record) encode(w io.Writer, key []byte) error {
	mac := hmac.New(sha256.New, key)
	out := io.MultiWriter(w, mac)
	var failed error
	put := func(b []byte) {
		if failed == nil {
			_, failed = out.Write(b)
		}
	}
	number := func(n int) { put(binary.LittleEndian.AppendUint64(nil, uint64(n))) } //nolint:gosec // not negative
	put([]byte(magic))
	for _, part := range [][]byte{r.Source, r.Meta, r.Binary} {
		number(len(part))
		put(part)
	}
	pieces := r.Pieces
	if !r.Verbatim {
		pieces = occupied(pieces)
	}
	number(r.Size)
	number(len(pieces))
	for _, p := range pieces {
		number(p.Offset)
		number(len(p.Bytes))
		put(p.Bytes)
	}
	if failed == nil {
		_, failed = w.Write(mac.Sum(nil))
	}
	return failed
}

// sum authenticates a content.
func sum(content, key []byte) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write(content)
	return mac.Sum(nil)
}

// occupied leaves out the pages that are zero.
func occupied(pieces []Piece) (out []Piece) {
	const page = 4096
	for _, p := range pieces {
		from := 0 // what is not zero, so far
		keep := func(to int) {
			if from < to {
				out = append(out, Piece{p.Offset + from, p.Bytes[from:to]})
			}
		}
		for at := 0; at < len(p.Bytes); at += page {
			end := min(at+page, len(p.Bytes))
			if zero(p.Bytes[at:end]) {
				keep(at)
				from = end
			}
		}
		keep(len(p.Bytes))
	}
	return out
}

// ReadRecord reads a file. Errors wrap ErrRecord, or those of the file system.
func ReadRecord(file string, key []byte) (*Record, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, fmt.Errorf("%w: no file of a possible size", ErrRecord)
	}
	content := make([]byte, info.Size())
	if _, err := io.ReadFull(f, content); err != nil {
		return nil, fmt.Errorf("read a snapshot: %w", err)
	}
	return decode(content, key)
}

// decode reads a record, whose parts are those of the content.
func decode(content, key []byte) (*Record, error) {
	rest, ok := bytes.CutPrefix(content, []byte(magic))
	if !ok || len(rest) < sha256.Size {
		return nil, fmt.Errorf("%w: another format or version", ErrRecord)
	}
	end := len(content) - sha256.Size
	if !hmac.Equal(sum(content[:end], key), content[end:]) {
		return nil, fmt.Errorf("%w: written with another key, or damaged", ErrRecord)
	}
	rest = content[len(magic):end]
	number := func() int {
		if len(rest) < 8 {
			ok = false
			return 0
		}
		n := binary.LittleEndian.Uint64(rest)
		rest = rest[8:]
		if n > maxRecord {
			ok = false
			return 0
		}
		return int(n)
	}
	part := func() []byte {
		n := number()
		if n > len(rest) {
			ok = false
			return nil
		}
		b := rest[:n:n]
		rest = rest[n:]
		return b
	}
	r := &Record{Source: part(), Meta: part(), Binary: part(), Size: number()}
	for n := number(); n > 0 && ok; n-- {
		r.Pieces = append(r.Pieces, Piece{number(), part()})
	}
	if !ok || len(rest) > 0 {
		return nil, fmt.Errorf("%w: its lengths do not fit", ErrRecord)
	}
	return r, nil
}
