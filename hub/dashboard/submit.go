package dashboard

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on a form for a work item: the texts of all its fields in bytes, and
// the fields that an action's schema makes.
const (
	mostFields     = 1 << 20
	mostSettings   = 200
	mostActions    = 500 // that are listed
	fieldPrefix    = "set."
	dataNumber     = "number"
	dataBoolean    = "boolean"
	dataText       = "string"
	dataJSON       = "json"
	longestMessage = 1000
)

// A field is a setting in a form.
type field struct {
	ID, Name, Kind, Description, Value, Default string
	Required                                    bool
}

// A submission is what the form for a work item shows.
type submission struct {
	Capability, Action, Description string
	Fields                          []field
	Left                            int // settings for which there is no field
	More                            string
	Tenant, Output, Affinity        string
	Priority, Attempts, Minutes     string
	ForTenant                       string // whom the user acts for; empty for all
	Key                             string
	Error                           string
	Write                           bool
}

// newItem is the page with all actions, or the form for one of them.
func (d *Dashboard) newItem(c *client, query url.Values) (page, error) {
	var known struct{ Actions []protocol.ActionRecord }
	if err := c.get("/Beacon/Actions", nil, &known); err != nil {
		return page{}, err
	}
	s := submission{Capability: query.Get("capability"), Action: query.Get("action")}
	settings := beacon.Settings{}
	if from := query.Get("from"); from != "" {
		var r protocol.WorkRecord
		if err := c.get(itemPath(from), nil, &r); err != nil {
			return page{}, err
		}
		s.Capability, s.Action, settings = r.Capability, r.Action, r.Settings
		s.Tenant, s.Affinity = r.Tenant, r.AffinityKey
	}
	if s.Capability == "" {
		slices.SortStableFunc(known.Actions, func(a, b protocol.ActionRecord) int { // those first that somebody can do
			return cmp.Compare(btoi(b.Available), btoi(a.Available))
		})
		left := max(0, len(known.Actions)-mostActions)
		return page{"Submit", []part{{"actions", false, struct {
			Actions []protocol.ActionRecord
			Left    int
			Write   bool
		}{known.Actions[:len(known.Actions)-left], left, c.writes()}}}}, nil
	}
	s.describe(known.Actions)
	if err := s.fill(settings); err != nil {
		return page{}, err
	}
	return s.page(c), nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (s *submission) page(c *client) page {
	s.Write, s.ForTenant = c.writes(), c.viewer.Tenant
	s.Key = cmp.Or(s.Key, rand.Text())
	return page{"Submit", []part{{"form", false, *s}}}
}

// describe makes the fields of the action's schema. An action that no beacon
// has told of has none.
func (s *submission) describe(known []protocol.ActionRecord) {
	for _, a := range known {
		if a.Capability != s.Capability || a.Action != s.Action {
			continue
		}
		s.Description = a.Description
		s.Left = max(0, len(a.SettingsSchema)-mostSettings)
		for i, setting := range a.SettingsSchema[:len(a.SettingsSchema)-s.Left] {
			f := field{
				ID: "field-" + strconv.Itoa(i), Name: setting.Name, Description: setting.Description,
				Required: setting.Required && setting.Default == nil, Kind: strings.ToLower(setting.DataType),
			}
			switch f.Kind {
			case dataNumber, dataBoolean, dataText:
			case "", "text":
				f.Kind = dataText
			default:
				f.Kind = dataJSON
			}
			if setting.Default != nil {
				raw, err := json.Marshal(setting.Default)
				if err == nil {
					f.Default = cut(text(raw), longestMessage)
				}
			}
			s.Fields = append(s.Fields, f)
		}
	}
}

// fill puts the settings of an item into the form.
func (s *submission) fill(settings beacon.Settings) error {
	more := beacon.Settings{}
	for name, raw := range settings {
		i := slices.IndexFunc(s.Fields, func(f field) bool { return f.Name == name })
		switch {
		case i >= 0:
			s.Fields[i].Value = text(raw)
		case name == "OutputFilename":
			s.Output = text(raw)
		case name != "ReturnOutputAsBase64":
			more[name] = raw
		}
	}
	if len(more) == 0 {
		return nil
	}
	raw, err := json.MarshalIndent(more, "", "  ")
	s.More = string(raw)
	return err
}

// submit takes a form for a work item, with the file that it may come with.
func (d *Dashboard) submit(w http.ResponseWriter, r *http.Request) {
	c, err := d.client(w, r)
	if err == nil && !c.writes() {
		err = errReadOnly
	}
	if err != nil {
		d.failed(w, r, err)
		return
	}
	values, file, err := c.readForm(r)
	if err != nil {
		d.failed(w, r, err)
		return
	}
	s := submission{
		Capability: values.Get("capability"), Action: values.Get("action"), More: values.Get("more"), Tenant: values.Get("tenant"),
		Output: strings.TrimSpace(values.Get("output")), Affinity: values.Get("affinity"), Priority: values.Get("priority"),
		Attempts: values.Get("attempts"), Minutes: values.Get("minutes"), Key: values.Get("key"),
	}
	var known struct{ Actions []protocol.ActionRecord }
	if err := c.get("/Beacon/Actions", url.Values{"Capability": {s.Capability}}, &known); err != nil {
		d.failed(w, r, err)
		return
	}
	s.describe(known.Actions)
	for i := range s.Fields {
		s.Fields[i].Value = strings.ReplaceAll(values.Get(fieldPrefix+s.Fields[i].Name), "\r\n", "\n")
	}
	item, err := s.item(file)
	var enqueued protocol.Enqueued
	if err == nil {
		var raw []byte
		if raw, err = protocol.Encode(item); err == nil {
			err = c.enqueue(raw, s.Key, &enqueued)
		}
	}
	var refused *refusal
	switch {
	case errors.As(err, &refused):
		s.Error = refused.message
		d.render(w, r, c, refused.status, s.page(c), "")
	case err != nil:
		d.failed(w, r, err)
	default:
		seeItem(w, r, enqueued.WorkItemHash, "submitted")
	}
}

var errReadOnly = &refusal{http.StatusForbidden, "Log in first: without a login, and as a viewer, one may only look."}

func (c *client) enqueue(raw []byte, key string, into *protocol.Enqueued) error {
	header := http.Header{}
	if key != "" {
		header.Set(protocol.IdempotencyHeader, "form-"+key) // a form that is sent twice is one item
	}
	answer, err := c.do(c.r.Context(), http.MethodPost, "/Beacon/Work/Enqueue", bytes.NewReader(raw), header)
	if err != nil {
		return err
	}
	return answer.read(into)
}

func seeItem(w http.ResponseWriter, r *http.Request, hash, word string) {
	http.Redirect(w, r, "/item?hash="+url.QueryEscape(hash)+"&said="+word, http.StatusSeeOther)
}

// An upload is the file of a form.
type upload struct {
	name, url string
}

// readForm reads a form in the order in which it comes; its file goes on to the
// hub as it arrives.
func (c *client) readForm(r *http.Request) (url.Values, *upload, error) {
	bad := func(message string) error { return &refusal{http.StatusBadRequest, message} }
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return nil, nil, bad("The form is of no kind that is known here.")
	}
	form := multipart.NewReader(r.Body, params["boundary"])
	values, room := url.Values{}, int64(mostFields)
	var file *upload
	for {
		part, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return values, file, nil
		}
		if err != nil {
			return nil, nil, bad("The form did not arrive in full.")
		}
		name := part.FileName()
		if name == "" {
			raw, err := io.ReadAll(io.LimitReader(part, room+1))
			if err != nil {
				return nil, nil, bad("The form did not arrive in full.")
			}
			if room -= int64(len(raw)) + 100; room < 0 {
				return nil, nil, &refusal{http.StatusRequestEntityTooLarge, fmt.Sprintf("The form is over the limit of %d bytes.", mostFields)}
			}
			values.Add(part.FormName(), string(raw))
			continue
		}
		if file != nil {
			return nil, nil, bad("The form has more than one file.")
		}
		var stored protocol.StoredFile
		answer, err := c.do(r.Context(), http.MethodPost, "/Beacon/File?name="+url.QueryEscape(name), part, nil)
		if err == nil {
			err = answer.read(&stored)
		}
		if err != nil {
			return nil, nil, err
		}
		scheme := "http://"
		if r.TLS != nil {
			scheme = "https://"
		}
		file = &upload{name, scheme + r.Host + stored.URL}
	}
}

// item makes a work item of what was filled in.
func (s *submission) item(file *upload) (protocol.Submission, error) {
	bad := func(format string, args ...any) (protocol.Submission, error) {
		return protocol.Submission{}, &refusal{http.StatusBadRequest, fmt.Sprintf(format, args...)}
	}
	settings := beacon.Settings{}
	if strings.TrimSpace(s.More) != "" && json.Unmarshal([]byte(s.More), &settings) != nil {
		return bad("The further settings are not a JSON object.")
	}
	for _, f := range s.Fields {
		switch {
		case strings.TrimSpace(f.Value) == "" && f.Required:
			return bad("The setting %s is required.", beacon.Excerpt(f.Name, 100))
		case f.Value == "":
		case f.Kind == dataJSON && !json.Valid([]byte(f.Value)):
			return bad("The setting %s is not valid JSON.", beacon.Excerpt(f.Name, 100))
		case f.Kind == dataJSON:
			settings[f.Name] = json.RawMessage(f.Value)
		case f.Kind == dataNumber && !isNumber(f.Value):
			return bad("The setting %s is not a number.", beacon.Excerpt(f.Name, 100))
		default: // texts on the wire, as Ultravisor's are
			settings.SetText(f.Name, f.Value)
		}
	}
	if file != nil {
		settings.SetText("SourceURL", file.url)
		if !settings.Has("SourceFilename") {
			settings.SetText("SourceFilename", file.name)
		}
	}
	if s.Output != "" {
		settings.SetText("OutputFilename", s.Output)
		settings.SetText("ReturnOutputAsBase64", "true")
	}
	item := protocol.Submission{Capability: s.Capability, Action: s.Action, Settings: settings, AffinityKey: s.Affinity, Tenant: strings.TrimSpace(s.Tenant)}
	numbers := map[string]float64{}
	for name, said := range map[string]string{"Priority": s.Priority, "Attempts": s.Attempts, "Minutes": s.Minutes} {
		if said = strings.TrimSpace(said); said == "" {
			continue
		}
		if !isNumber(said) {
			return bad("%s is not a number.", name)
		}
		numbers[name], _ = strconv.ParseFloat(said, 64)
	}
	if priority, ok := numbers["Priority"]; ok {
		item.Priority = &priority
	}
	item.MaxAttempts = int(min(max(numbers["Attempts"], 0), 1e6))
	item.TimeoutMs = min(max(numbers["Minutes"], 0), 1e6) * 60_000
	return item, nil
}

func isNumber(s string) bool {
	n, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
	return err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
}

// An act does something to the item that a form names, by way of the API.
func (d *Dashboard) act(word string, do func(c *client, hash string) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c, err := d.client(w, r)
		if err == nil && !c.writes() {
			err = errReadOnly
		}
		r.Body = http.MaxBytesReader(w, r.Body, mostForm)
		if err == nil && r.ParseForm() != nil {
			err = &refusal{http.StatusBadRequest, "The form cannot be read."}
		}
		hash := r.PostForm.Get("hash")
		if err == nil {
			err = do(c, hash)
		}
		switch {
		case err != nil:
			d.failed(w, r, err)
		case word == "forgotten":
			http.Redirect(w, r, "/items?list=finished&said="+word, http.StatusSeeOther)
		case word == "all":
			http.Redirect(w, r, "/items?list=dead&said="+word, http.StatusSeeOther)
		default:
			seeItem(w, r, hash, word)
		}
	}
}

func (d *Dashboard) acts() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"POST /submit": d.submit,
		"POST /item/cancel": d.act("canceled", func(c *client, hash string) error {
			return c.post(itemPath(hash)+"/Cancel", map[string]string{"Reason": "canceled in the dashboard"}, nil)
		}),
		"POST /item/requeue": d.act("requeued", func(c *client, hash string) error {
			return c.post(itemPath(hash)+"/Requeue", struct{}{}, nil)
		}),
		"POST /item/forget": d.act("forgotten", func(c *client, hash string) error {
			return c.call(c.r.Context(), http.MethodDelete, itemPath(hash), nil, nil)
		}),
		"POST /dead/requeue": d.act("all", func(c *client, _ string) error {
			return c.post("/Beacon/Work/DeadLetters/Requeue", map[string]string{"Capability": c.r.PostForm.Get("capability")}, nil)
		}),
	}
}
