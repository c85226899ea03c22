package table

import (
	"errors"
	"io"
	"strconv"
)

const (
	bufferSize = 256 << 10 // one read; calls out of a module are not free
	padding    = 16        // bytes after the data that may be looked at
)

// An input is a buffer over the source. Readers look at buf[pos:end], and may
// look at, and not trust, the padding after end.
type input struct {
	src        io.Reader
	buf        []byte
	pos, end   int
	eof        bool
	maxLine    int
	read       int64
	reported   int64
	onProgress func() error
}

func newInput(src io.Reader, maxLine int) *input {
	return &input{src: src, buf: make([]byte, bufferSize+padding), maxLine: maxLine}
}

var errLong = errors.New("row too long")

// fill reads more data behind what is in buf[pos:end], which moves to the front.
// It grows the buffer when that is all of it, up to maxLine. It returns errLong,
// or the source's error; the end of the source sets eof.
func (in *input) fill() error {
	if in.read-in.reported >= progressEvery {
		in.reported = in.read
		if err := in.onProgress(); err != nil {
			return err
		}
	}
	rest := in.end - in.pos
	room := len(in.buf) - padding
	if rest > in.maxLine {
		return errLong
	}
	if rest >= room-room/4 {
		larger := make([]byte, 2*room+padding)
		copy(larger, in.buf[in.pos:in.end])
		in.buf = larger
		room *= 2
	} else {
		copy(in.buf, in.buf[in.pos:in.end])
	}
	in.pos, in.end = 0, rest
	for in.end < room && !in.eof {
		n, err := in.src.Read(in.buf[in.end:room])
		in.end += n
		in.read += int64(n)
		if err != nil {
			if !errors.Is(err, io.EOF) {
				return errors.New("read the source after " + strconv.FormatInt(in.read, 10) + " bytes: " + err.Error())
			}
			in.eof = true
		}
	}
	clear(in.buf[in.end : in.end+padding])
	in.buf[in.end] = '\n' // ends every search for the end of a line
	return nil
}

// skipLine moves behind the next line feed at or after from, however far.
func (in *input) skipLine(from int) error {
	in.pos = from
	for {
		if i := indexByte(in.buf[in.pos:in.end], '\n'); i >= 0 {
			in.pos += i + 1
			return nil
		}
		in.pos = in.end
		if in.eof {
			return nil
		}
		if err := in.fill(); err != nil {
			return err
		}
	}
}

func longLine(row, line int64, limit int) *RowError {
	return &RowError{Row: row, Line: line, Text: "the row is longer than " + strconv.Itoa(limit) +
		" bytes: raise MaxLine, or look for a quote that is never closed"}
}
