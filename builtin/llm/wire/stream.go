package wire

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxEvent bounds one event or line of a stream.
const maxEvent = 16 << 20

// Lines reads lines that end with LF, CR or CRLF, without their ends. A last
// line may lack its end.
type Lines struct {
	r      *bufio.Reader
	line   []byte
	afterR bool // the byte before was a CR: an LF belongs to it
}

// NewLines reads from r.
func NewLines(r io.Reader) *Lines { return &Lines{r: bufio.NewReaderSize(r, 32<<10)} }

// Next returns the next line, which is valid until the next call. At the end it
// returns io.EOF. It does not wait for what follows a line.
func (l *Lines) Next() ([]byte, error) {
	l.line = l.line[:0]
	for {
		b, err := l.r.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(l.line) > 0:
			return l.line, nil
		case err != nil:
			return nil, err
		case b == '\n' && l.afterR:
			l.afterR = false
		case b == '\n' || b == '\r':
			l.afterR = b == '\r'
			return l.line, nil
		default:
			l.afterR = false
			if len(l.line) >= maxEvent {
				return nil, tooLong("a line")
			}
			l.line = append(l.line, b)
		}
	}
}

// NextJSON is Next without empty lines, for streams of one JSON value per line.
func (l *Lines) NextJSON() ([]byte, error) {
	for {
		line, err := l.Next()
		if line = bytes.TrimSpace(line); err != nil || len(line) > 0 {
			return line, err
		}
	}
}

func tooLong(what string) error {
	return &Error{Message: fmt.Sprintf("LLM request failed: %s of the answer is longer than %d bytes", what, maxEvent), RetryAfter: -1, Lost: true}
}

// An Event is one of a stream of server-sent events.
type Event struct {
	Type string // "" if the event has none
	Data []byte
}

// Events reads server-sent events as the HTML standard has them: comments, which
// keep connections alive, are skipped, and so are events without data. What is
// more than the standard: an event that the stream's end follows at once counts,
// since some services do not end their last one.
type Events struct {
	lines *Lines
	began bool
	data  []byte
}

// NewEvents reads from r.
func NewEvents(r io.Reader) *Events { return &Events{lines: NewLines(r)} }

// Next returns the next event, which is valid until the next call. At the end
// it returns io.EOF.
func (e *Events) Next() (Event, error) {
	var event Event
	e.data = e.data[:0]
	some := false
	for {
		line, err := e.lines.Next()
		if errors.Is(err, io.EOF) && some {
			event.Data = e.data
			return event, nil
		}
		if err != nil {
			return Event{}, err
		}
		if !e.began {
			e.began = true
			line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
		}
		if len(line) == 0 {
			if some {
				event.Data = e.data
				return event, nil
			}
			event = Event{}
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "event":
			event.Type = string(value)
		case "data":
			if len(e.data)+len(value) > maxEvent {
				return Event{}, tooLong("an event")
			}
			if some {
				e.data = append(e.data, '\n')
			}
			e.data = append(e.data, value...)
			some = true
		}
	}
}

// IsJSON looks whether an answer is a JSON object rather than a stream of
// events, whatever it calls itself: some servers ignore that a stream was asked
// for, others say nothing of its type.
func IsJSON(in *bufio.Reader) bool {
	for n := 1; n <= 4096; n++ {
		head, err := in.Peek(n)
		if err != nil && len(head) < n {
			return false
		}
		switch head[n-1] {
		case ' ', '\t', '\r', '\n':
			continue
		}
		return head[n-1] == '{' || head[n-1] == '<'
	}
	return false
}
