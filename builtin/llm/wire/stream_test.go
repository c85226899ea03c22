package wire_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/builtin/llm/wire"
)

func events(t testing.TB, r io.Reader) (list []string, err error) {
	e := wire.NewEvents(r)
	for {
		event, err := e.Next()
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, event.Type+"|"+string(event.Data))
	}
}

func TestEvents(t *testing.T) {
	for name, tt := range map[string]struct {
		in   string
		want []string
	}{
		"plain":                  {"data: a\n\ndata: b\n\n", []string{"|a", "|b"}},
		"typed":                  {"event: ping\ndata: {}\n\n", []string{"ping|{}"}},
		"CRLF":                   {"event: x\r\ndata: a\r\n\r\ndata: b\r\n\r\n", []string{"x|a", "|b"}},
		"CR":                     {"data: a\r\rdata: b\r\r", []string{"|a", "|b"}},
		"mixed ends":             {"data: a\r\n\ndata: b\n\r\n", []string{"|a", "|b"}},
		"comments keep alive":    {": ping\n\n:\n\ndata: a\n: in between\n\n", []string{"|a"}},
		"several lines":          {"data: a\ndata: b\ndata:\n\n", []string{"|a\nb\n"}},
		"no space":               {"data:a\n\ndata:  b\n\n", []string{"|a", "| b"}},
		"type without data":      {"event: x\n\ndata: a\n\n", []string{"|a"}},
		"unknown fields":         {"id: 1\nretry: 5\nfoo\ndata: a\n\n", []string{"|a"}},
		"byte order mark":        {"\ufeffdata: a\n\n", []string{"|a"}},
		"the last is not ended":  {"data: a\n\ndata: [DONE]", []string{"|a", "|[DONE]"}},
		"the last is half ended": {"data: a\n\ndata: [DONE]\n", []string{"|a", "|[DONE]"}},
		"empty data":             {"data\n\n", []string{"|"}},
		"nothing":                {"", nil},
		"only ends":              {"\n\r\n\r", nil},
	} {
		t.Run(name, func(t *testing.T) {
			for way, r := range map[string]io.Reader{
				"at once":      strings.NewReader(tt.in),
				"bytewise":     iotest.OneByteReader(strings.NewReader(tt.in)),
				"EOF at once":  iotest.DataErrReader(strings.NewReader(tt.in)),
				"half buffers": iotest.HalfReader(strings.NewReader(tt.in)),
			} {
				got, err := events(t, r)
				require.NoError(t, err)
				require.Equal(t, tt.want, got, way)
			}
		})
	}
}

// What follows a line is not waited for: a CR may be all that comes for a while.
func TestEventsDoNotWait(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		_, _ = io.WriteString(w, "data: a\r\n\r")
	}()
	event, err := wire.NewEvents(r).Next()
	require.NoError(t, err)
	require.Equal(t, "a", string(event.Data))
}

func TestEventsErrors(t *testing.T) {
	broken := errors.New("broken")
	got, err := events(t, io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	require.Equal(t, []string{"|a"}, got)

	long := io.MultiReader(strings.NewReader("data: "), io.LimitReader(endless{}, 20<<20))
	_, err = events(t, long)
	var e *wire.Error
	require.ErrorAs(t, err, &e)
	require.Contains(t, e.Message, "longer than 16777216 bytes")
	require.True(t, e.Lost)

	many := io.MultiReader()
	for range 20 {
		many = io.MultiReader(many, strings.NewReader("data: "), io.LimitReader(endless{}, 1<<20), strings.NewReader("\n"))
	}
	_, err = events(t, many)
	require.ErrorAs(t, err, &e)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestLines(t *testing.T) {
	l := wire.NewLines(iotest.OneByteReader(strings.NewReader("{\"a\":1}\n\n  \r\n{\"b\":2}\r\n{\"c\":3}")))
	for _, want := range []string{`{"a":1}`, `{"b":2}`, `{"c":3}`} {
		line, err := l.NextJSON()
		require.NoError(t, err)
		require.Equal(t, want, string(line))
	}
	_, err := l.NextJSON()
	require.Equal(t, io.EOF, err)
}

// However a stream is cut into pieces, its events are the same, and they are
// those that a plain reading of the standard finds.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("data: a\n\nevent: x\r\ndata: b\r\ndata: c\r\n\r\n: ping\n\ndata: [DONE]"), uint8(1))
	f.Add([]byte("\ufeffdata\r\rdata:  \r\n\r\nid: 1\nfoo: bar\n\n"), uint8(3))
	f.Add([]byte("data: {\"choices\":[{\"delta\":{\"content\":\"\xff\"}}]}\n\n"), uint8(7))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		got, err := events(t, bytes.NewReader(in))
		require.NoError(t, err)
		pieces, err := events(t, bufio.NewReaderSize(&chunks{in, int(size)%17 + 1}, 16))
		require.NoError(t, err)
		require.Equal(t, got, pieces)
		require.Equal(t, reference(string(in)), got)
	})
}

// reference reads events line by line from text that is all there.
func reference(in string) (list []string) {
	in = strings.TrimPrefix(in, "\ufeff")
	in = strings.ReplaceAll(strings.ReplaceAll(in, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(in, "\n")
	kind, data := "", []string(nil)
	dispatch := func() {
		if data != nil {
			list = append(list, fmt.Sprintf("%s|%s", kind, strings.Join(data, "\n")))
		}
		kind, data = "", nil
	}
	for _, line := range lines {
		if line == "" {
			dispatch()
			continue
		}
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			kind = value
		case "data":
			data = append(data, value)
		}
	}
	dispatch()
	return list
}

type chunks struct {
	rest []byte
	size int
}

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.rest[:min(c.size, len(c.rest))])
	c.rest = c.rest[n:]
	return n, nil
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("{\"a\":1}\n{\"b\":2}\r\n\r\n[]"), uint8(1))
	f.Fuzz(func(t *testing.T, in []byte, size uint8) {
		var want [][]byte
		for _, line := range bytes.FieldsFunc(in, func(r rune) bool { return r == '\n' || r == '\r' }) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				want = append(want, line)
			}
		}
		l := wire.NewLines(&chunks{in, int(size)%17 + 1})
		var got [][]byte
		for {
			line, err := l.NextJSON()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			got = append(got, bytes.Clone(line))
		}
		require.Equal(t, want, got)
	})
}
