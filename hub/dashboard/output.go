package dashboard

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/csv"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on what of an output a page shows. All of it is a link away.
const (
	mostText    = 64 << 10
	mostTable   = 1 << 20 // bytes of which a table is made
	mostRows    = 100
	mostColumns = 30
	mostCell    = 500
	mostImage   = 16 << 20
	mostOutputs = 100
)

// An output is one thing that an item has brought forth. At most one of
// Image, Table and Text is set.
type output struct {
	Name  string
	File  string // its name, if it is a file
	Size  int64
	Link  string // where it can be had whole
	Image string // where the picture is
	Table *table
	Text  string
	Cut   bool // there is more than what is shown
}

type table struct {
	Head []string
	Rows [][]string
}

// outputsOf are the outputs of an item, in the order in which one wants to see them.
func outputsOf(r *protocol.WorkRecord) []output {
	var fields map[string]json.RawMessage
	_ = json.Unmarshal(r.Outputs, &fields) // nothing but objects is taken in
	var out []output
	encoded := text(fields["OutputData"])
	name := path.Base(strings.ReplaceAll(text(fields["OutputFilename"]), `\`, "/"))
	if encoded != "" {
		data, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil {
			link := "/item/output?hash=" + url.QueryEscape(r.WorkItemHash)
			out = append(out, showData("OutputData", name, data, int64(len(data)), link))
			delete(fields, "OutputData")
			delete(fields, "OutputFilename")
		}
	}
	for i, file := range r.Files {
		o := output{Name: "File", File: file.Name, Size: file.Size, Link: file.URL}
		if kind := imageByName(file.Name); kind != "" && file.Size <= mostImage {
			o.Image = "/item/file?hash=" + url.QueryEscape(r.WorkItemHash) + "&n=" + strconv.Itoa(i)
		}
		if len(out) < mostOutputs {
			out = append(out, o)
		}
	}
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	first := []string{"Result", "StdOut", "StdErr"}
	slices.SortFunc(names, func(a, b string) int {
		at := func(name string) int {
			if i := slices.Index(first, name); i >= 0 {
				return i
			}
			return len(first)
		}
		return cmp.Or(cmp.Compare(at(a), at(b)), cmp.Compare(a, b))
	})
	for _, name := range names {
		if name == "StdOut" && bytes.Equal(fields[name], fields["Result"]) || len(out) >= mostOutputs {
			continue // said already
		}
		if value := fields[name]; text(value) != "" {
			out = append(out, showValue(name, value))
		}
	}
	return out
}

// showData is a file that is here.
func showData(name, file string, data []byte, size int64, link string) output {
	o := output{Name: name, File: file, Size: size, Link: link}
	switch {
	case imageOf(data) != "":
		o.Image = link + "&show=1"
	case !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
	default:
		if separator := separatorOf(file); separator != 0 {
			if o.Table, o.Cut = readTable(data, separator); o.Table != nil {
				return o
			}
		}
		o.Text = cut(string(data), mostText)
		o.Cut = len(data) > mostText
	}
	return o
}

// showValue is one of the named outputs.
func showValue(name string, raw json.RawMessage) output {
	o := output{Name: name}
	var value any
	decode := json.NewDecoder(bytes.NewReader(raw))
	decode.UseNumber()
	if decode.Decode(&value) != nil {
		o.Text, o.Cut = cut(string(raw), mostText), len(raw) > mostText
		return o
	}
	if list, ok := value.([]any); ok {
		if o.Table, o.Cut = tableOf(list); o.Table != nil {
			return o
		}
	}
	all, ok := value.(string)
	if !ok {
		var pretty bytes.Buffer
		if json.Indent(&pretty, raw, "", "  ") == nil {
			all = pretty.String()
		}
	}
	o.Text, o.Cut = cut(all, mostText), len(all) > mostText
	return o
}

// tableOf makes a table of a list of objects, or of lists; nil if it is neither.
func tableOf(list []any) (*table, bool) {
	if len(list) == 0 {
		return nil, false
	}
	t := &table{}
	index := map[string]int{}
	_, objects := list[0].(map[string]any)
	for _, entry := range list {
		switch entry := entry.(type) {
		case map[string]any:
			if !objects {
				return nil, false
			}
			for name := range entry {
				index[name] = 0
			}
		case []any:
			if objects {
				return nil, false
			}
		default:
			return nil, false
		}
	}
	for name := range index {
		t.Head = append(t.Head, name)
	}
	slices.Sort(t.Head)
	t.Head = t.Head[:min(len(t.Head), mostColumns)]
	for _, entry := range list[:min(len(list), mostRows)] {
		var row []string
		switch entry := entry.(type) {
		case map[string]any:
			for _, name := range t.Head {
				value, there := entry[name]
				row = append(row, cell(value, there))
			}
		case []any:
			for _, value := range entry[:min(len(entry), mostColumns)] {
				row = append(row, cell(value, true))
			}
		}
		t.Rows = append(t.Rows, row)
	}
	return t, len(list) > mostRows || len(index) > mostColumns
}

func cell(value any, there bool) string {
	switch value := value.(type) {
	case nil:
		return ""
	case string:
		return cut(value, mostCell)
	default:
		if !there {
			return ""
		}
		raw, err := json.Marshal(value)
		if err != nil {
			return ""
		}
		return cut(string(raw), mostCell)
	}
}

func separatorOf(file string) rune {
	switch strings.ToLower(path.Ext(file)) {
	case ".csv":
		return ','
	case ".tsv":
		return '\t'
	}
	return 0
}

// readTable reads a file of separated values; nil if it is none.
func readTable(data []byte, separator rune) (_ *table, more bool) {
	if len(data) > mostTable {
		data, more = data[:bytes.LastIndexByte(data[:mostTable], '\n')+1], true
	}
	in := csv.NewReader(bytes.NewReader(data))
	in.Comma, in.FieldsPerRecord, in.LazyQuotes = separator, -1, true
	t := &table{}
	for {
		row, err := in.Read()
		if err != nil {
			if err != io.EOF || t.Head == nil { //nolint:errorlint // csv returns it as it is
				return nil, false
			}
			return t, more
		}
		more = more || len(row) > mostColumns
		row = row[:min(len(row), mostColumns)]
		for i := range row {
			row[i] = cut(row[i], mostCell)
		}
		switch {
		case t.Head == nil:
			t.Head = row
		case len(t.Rows) >= mostRows:
			return t, true
		default:
			t.Rows = append(t.Rows, row)
		}
	}
}

// Pictures that browsers show and that run nothing; SVG can.
var images = []string{"image/png", "image/jpeg", "image/gif", "image/webp"}

// imageOf is the kind of a picture, by what it begins with; empty if it is none.
func imageOf(data []byte) string {
	if kind := http.DetectContentType(data); slices.Contains(images, kind) {
		return kind
	}
	return ""
}

func imageByName(file string) string {
	if kind := mime.TypeByExtension(strings.ToLower(path.Ext(file))); slices.Contains(images, kind) {
		return kind
	}
	return ""
}

// cut shortens a text to so many bytes.
func cut(s string, most int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most] + "…"
}

// itemOutput serves the file that an item has returned in its outputs.
func (d *Dashboard) itemOutput(w http.ResponseWriter, r *http.Request) {
	c := &client{hub: d.hub, w: w, r: r}
	var record protocol.WorkRecord
	if err := c.get(itemPath(r.URL.Query().Get("hash")), nil, &record); err != nil {
		d.failed(w, r, err)
		return
	}
	var outputs struct {
		OutputData     string `json:"OutputData"`
		OutputFilename string `json:"OutputFilename"`
	}
	_ = json.Unmarshal(record.Outputs, &outputs)
	data, err := base64.StdEncoding.DecodeString(outputs.OutputData)
	if err != nil || len(data) == 0 {
		d.problem(w, r, http.StatusNotFound, "The work item has returned no file.")
		return
	}
	d.data(w, r, outputs.OutputFilename, data)
}

// data serves bytes that strangers have made: a picture to show, or a file to keep.
func (d *Dashboard) data(w http.ResponseWriter, r *http.Request, name string, data []byte) {
	header := w.Header()
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	kind := imageOf(data)
	if kind != "" && r.URL.Query().Has("show") {
		header.Set("Content-Type", kind)
	} else {
		name = beacon.Excerpt(path.Base(strings.ReplaceAll(name, `\`, "/")), 200)
		if name == "." || name == "/" || name == "" {
			name = "output"
		}
		header.Set("Content-Type", "application/octet-stream")
		header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	}
	header.Set("Content-Length", strconv.Itoa(len(data)))
	pace.Limit(w, int64(len(data)))
	_, _ = w.Write(data)
}

// itemFile shows a picture that an item has uploaded.
func (d *Dashboard) itemFile(w http.ResponseWriter, r *http.Request) {
	c := &client{hub: d.hub, w: w, r: r}
	var record protocol.WorkRecord
	if err := c.get(itemPath(r.URL.Query().Get("hash")), nil, &record); err != nil {
		d.failed(w, r, err)
		return
	}
	n, err := strconv.Atoi(r.URL.Query().Get("n"))
	if err != nil || n < 0 || n >= len(record.Files) || record.Files[n].Size > mostImage {
		d.problem(w, r, http.StatusNotFound, "The work item has no such picture.")
		return
	}
	answer, err := c.do(r.Context(), http.MethodGet, record.Files[n].URL, nil, nil)
	if err == nil {
		err = answer.read(nil)
	}
	if err != nil {
		d.failed(w, r, err)
		return
	}
	if imageOf(answer.body.Bytes()) == "" {
		d.problem(w, r, http.StatusNotFound, "The file is no picture.")
		return
	}
	query := r.URL.Query()
	query.Set("show", "1")
	r.URL.RawQuery = query.Encode()
	d.data(w, r, record.Files[n].Name, answer.body.Bytes())
}
