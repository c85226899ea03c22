package table

import (
	"errors"
	"strconv"
	"strings"
)

// check makes the options complete, or tells what is wrong with them.
func (o *Options) check() error {
	if o.MaxLine == 0 {
		o.MaxLine = DefaultMaxLine
	}
	if o.MaxGroups == 0 {
		o.MaxGroups = DefaultMaxGroups
	}
	if o.MaxLine < 0 || o.MaxLine > LargestMaxLine {
		return errors.New("MaxLine is " + strconv.Itoa(o.MaxLine) + ": want 1 to " + strconv.Itoa(LargestMaxLine) + " bytes")
	}
	if o.MaxGroups < 0 || o.MaxGroups > LargestMaxGroups {
		return errors.New("MaxGroups is " + strconv.Itoa(o.MaxGroups) + ": want 1 to " + strconv.Itoa(LargestMaxGroups))
	}
	for _, d := range []byte{o.Delimiter, o.OutputDelimiter} {
		if d == '"' || d == '\n' || d == '\r' || d >= 0x80 || (d < ' ' && d != 0 && d != '\t') {
			return errors.New("a delimiter is one ASCII character that is no quote and no line end")
		}
	}
	return nil
}

// ParseFormat reads the name of a format; "" is Auto.
func ParseFormat(name string) (Format, error) {
	switch strings.ToLower(name) {
	case "", "auto":
		return Auto, nil
	case "csv":
		return CSV, nil
	case "tsv":
		return TSV, nil
	case "jsonl", "ndjson", "jsonlines":
		return JSONLines, nil
	}
	return Auto, errors.New("format " + quote(name) + ": want auto, csv, tsv or jsonl")
}

// ParseDelimiter reads a delimiter: one ASCII character, or "tab", "comma",
// "semicolon", "pipe"; "" is 0.
func ParseDelimiter(name string) (byte, error) {
	switch strings.ToLower(name) {
	case "", "auto":
		return 0, nil
	case "tab", `\t`:
		return '\t', nil
	case "comma":
		return ',', nil
	case "semicolon":
		return ';', nil
	case "pipe":
		return '|', nil
	}
	if len(name) == 1 {
		o := Options{Delimiter: name[0]}
		return name[0], o.check()
	}
	return 0, errors.New("delimiter " + quote(name) + ": want one ASCII character, or tab, comma, semicolon, pipe")
}

// byName guesses a format from a file name.
func byName(name string) Format {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".csv"):
		return CSV
	case strings.HasSuffix(name, ".tsv"), strings.HasSuffix(name, ".tab"):
		return TSV
	case strings.HasSuffix(name, ".jsonl"), strings.HasSuffix(name, ".ndjson"), strings.HasSuffix(name, ".json"):
		return JSONLines
	}
	return Auto
}

// detect looks at the beginning of the source: it skips a byte order mark,
// refuses what is no text, and finds format and delimiter unless they are given.
func detect(in *input, o *Options) (Format, byte, error) {
	if err := in.fill(); err != nil {
		return 0, 0, err
	}
	head := string(in.buf[:min(in.end, 64<<10)])
	switch {
	case strings.HasPrefix(head, "\xef\xbb\xbf"):
		in.pos, head = 3, head[3:]
	case strings.HasPrefix(head, "\xff\xfe"), strings.HasPrefix(head, "\xfe\xff"):
		return 0, 0, errors.New("the source is UTF-16: convert it to UTF-8 first")
	case strings.HasPrefix(head, "\x1f\x8b"):
		return 0, 0, errors.New("the source is compressed with gzip: unpack it first")
	case strings.HasPrefix(head, "PK\x03\x04"):
		return 0, 0, errors.New("the source is a ZIP file, perhaps a spreadsheet: save it as CSV first")
	}
	first := strings.TrimLeft(head, " \t\r\n")
	from := o.From
	if from == Auto {
		from = byName(o.SourceName)
		if strings.HasPrefix(first, "{") {
			from = JSONLines
		} else if from == Auto {
			from = CSV
		}
	}
	if from == JSONLines && strings.HasPrefix(first, "[") {
		return 0, 0, errors.New("the source is a JSON array: want JSON lines, one object on each line")
	}
	delimiter := o.Delimiter
	switch {
	case delimiter != 0:
	case from == TSV:
		delimiter = '\t'
	default:
		delimiter = sniff(first)
	}
	return from, delimiter, nil
}

// sniff finds the likeliest delimiter: the one most frequent in the first row,
// outside of quotes. A comma wins a tie.
func sniff(head string) byte {
	const candidates = ",;\t|"
	var counts [len(candidates)]int
	quoted := false
	for i := range len(head) {
		c := head[i]
		if c == '"' {
			quoted = !quoted
		}
		if quoted {
			continue
		}
		if c == '\n' {
			break
		}
		if k := strings.IndexByte(candidates, c); k >= 0 {
			counts[k]++
		}
	}
	best := 0
	for k := range counts {
		if counts[k] > counts[best] {
			best = k
		}
	}
	return candidates[best]
}

// quote shows text from strangers in a message.
func quote(s string) string {
	const most = 60
	if len(s) > most {
		return strconv.Quote(s[:most]) + "…"
	}
	return strconv.Quote(s)
}

// someOf lists names for a message.
func someOf(names []string) string {
	const most = 30
	rest := ""
	if len(names) > most {
		rest = " and " + strconv.Itoa(len(names)-most) + " more"
		names = names[:most]
	}
	return strings.Join(names, ", ") + rest
}
