package dashboard_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"mime/multipart"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/service"
)

// picture is a small PNG.
func picture(t *testing.T) []byte {
	t.Helper()
	img := image.NewRGBA(image.Rect(0, 0, 160, 60))
	for x := range 160 {
		for y := range 60 {
			img.Set(x, y, color.RGBA{uint8(x), uint8(4 * y), 120, 255}) //nolint:gosec // small
		}
	}
	var out bytes.Buffer
	require.NoError(t, png.Encode(&out, img))
	return out.Bytes()
}

// form sends one with a file, as a browser does.
func (v *visitor) form(path string, fields map[string]string, name, content string) (int, string) {
	v.t.Helper()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for field, value := range fields {
		require.NoError(v.t, form.WriteField(field, value))
	}
	if name != "" {
		part, err := form.CreateFormFile("source", name)
		require.NoError(v.t, err)
		_, err = part.Write([]byte(content))
		require.NoError(v.t, err)
	}
	require.NoError(v.t, form.Close())
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.url+path, &body)
	require.NoError(v.t, err)
	r.Header.Set("Content-Type", form.FormDataContentType())
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	status, page, _ := v.do(r)
	return status, page
}

func counter() service.Capability {
	return service.Capability{Name: "Counter", Actions: []service.Action{{
		Name: "Count", Description: "Counts words.",
		Settings: []beacon.Setting{
			{Name: "Word", DataType: "String", Required: true, Description: "What to count."},
			{Name: "Most", DataType: "Number", Description: "Where to stop.", Default: 10},
			{Name: "Loud", DataType: "Boolean"},
			{Name: "Rules", DataType: "Object"},
		},
		Handler: func(_ context.Context, j *beacon.Job) (beacon.Result, error) {
			text := ""
			if j.Source != "" {
				raw, err := j.Dir.ReadFile(j.Source)
				if err != nil {
					return beacon.Result{}, err
				}
				text = string(raw)
			}
			return beacon.Result{Outputs: beacon.Outputs{
				"Result": strings.Count(text, j.Item.Settings.Text("Word")), "Said": j.Item.Settings.Text("Loud") + j.Item.Settings.Text("Rules"),
			}}, nil
		},
	}}}
}

func TestSubmitForm(t *testing.T) {
	s := open(t, hub.Config{})
	s.work("counter", 1, counter())
	v := s.visitor()
	full := map[string]string{"capability": "Counter", "action": "Count", "set.Word": "tick", "key": "one"}
	with := func(pairs ...string) map[string]string {
		out := map[string]string{}
		for name, value := range full {
			out[name] = value
		}
		for i := 0; i+1 < len(pairs); i += 2 {
			out[pairs[i]] = pairs[i+1]
		}
		return out
	}
	status, body := v.form("/submit", full, "", "")
	require.Equal(t, http.StatusForbidden, status, "a form takes a login")
	require.Contains(t, body, "Log in first")
	v.get("/?token=" + s.hub.Token())
	_, body = v.get("/submit")
	require.Contains(t, body, "Counts words.")
	_, body = v.get("/submit?capability=Counter&action=Count")
	require.Contains(t, body, `name="set.Word"`)
	require.Contains(t, body, `placeholder="10"`)

	for name, c := range map[string]struct {
		fields map[string]string
		says   string
	}{
		"missing":     {with("set.Word", " "), "The setting Word is required"},
		"number":      {with("set.Most", "many"), "The setting Most is not a number"},
		"JSON":        {with("set.Rules", "{"), "The setting Rules is not valid JSON"},
		"more":        {with("more", "[]"), "not a JSON object"},
		"tenant":      {with("tenant", "a b"), "Tenant must be"},
		"a priority":  {with("priority", "NaN"), "Priority is not a number"},
		"a file name": {with("output", "../../x"), ""},
	} {
		if c.says == "" {
			continue // the worker's to refuse
		}
		status, body := v.form("/submit", c.fields, "", "")
		require.Equal(t, http.StatusBadRequest, status, name)
		require.Contains(t, body, c.says, name)
		require.Contains(t, body, `name="set.Word"`, "what was filled in is still there")
	}

	status, body = v.form("/submit", with("set.Loud", "true", "set.Rules", `{"a":1}`, "more", `{"Extra":[1]}`, "priority", "7", "attempts", "3", "minutes", "2"), "clock.txt", "tick tock tick")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "The work item was taken")
	var all protocol.ItemPage
	require.Eventually(t, func() bool {
		s.api(http.MethodGet, "/Beacon/Items?list=finished", nil, &all)
		return len(all.Items) == 1
	}, patience, tick)
	r := s.record(all.Items[0].WorkItemHash)
	require.Equal(t, protocol.StatusComplete, r.Status, r.Error)
	require.JSONEq(t, `{"Result":2,"Said":"true{\"a\":1}"}`, string(r.Outputs))
	require.Equal(t, 7.0, r.Priority)
	require.Equal(t, 3, r.MaxAttempts)
	require.Equal(t, 120_000.0, r.TimeoutMs)
	require.Equal(t, "[1]", string(r.Settings["Extra"]))

	// The same form once more is the same item, one that has other words is refused.
	status, _ = v.form("/submit", with("key", "two"), "", "")
	require.Equal(t, http.StatusOK, status)
	status, _ = v.form("/submit", with("key", "two"), "", "")
	require.Equal(t, http.StatusOK, status)
	status, _ = v.form("/submit", with("key", "two", "set.Word", "tock"), "", "")
	require.Equal(t, http.StatusConflict, status)

	_, body = v.get("/submit?from=" + url.QueryEscape(r.WorkItemHash))
	require.Contains(t, body, "\ntick</textarea>")
	require.Contains(t, body, "&#34;Extra&#34;")
}

func TestFormsThatAreWrong(t *testing.T) {
	s := open(t, hub.Config{FileSize: 1000})
	v := s.visitor()
	v.get("/?token=" + s.hub.Token())
	status, _ := v.send("/submit", url.Values{"capability": {"A"}})
	require.Equal(t, http.StatusBadRequest, status, "no multipart")
	status, body := v.form("/submit", map[string]string{"capability": "A", "more": strings.Repeat("x", 2<<20)}, "", "")
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	require.Contains(t, body, "over the limit")
	status, body = v.form("/submit", map[string]string{"capability": "A"}, "large.bin", strings.Repeat("x", 2000))
	require.Equal(t, http.StatusRequestEntityTooLarge, status)
	require.Contains(t, body, "over the limit of 1000 bytes")
	status, body = v.form("/submit", map[string]string{"action": "A"}, "", "")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, body, "Capability is required")
	for _, path := range []string{"/item/cancel", "/item/requeue", "/item/forget"} {
		status, _ = v.send(path, url.Values{"hash": {"wi-none"}})
		require.Equal(t, http.StatusNotFound, status, path)
	}
	for _, path := range []string{"/item?hash=wi-none", "/item", "/item/output?hash=wi-none", "/assets/none.js", "/submit?from=wi-none"} {
		status, _ = v.get(path)
		require.Equal(t, http.StatusNotFound, status, path)
	}
}

// Without a login nothing is changed by a form, and with one of a viewer neither.
func TestOnlyWritersWrite(t *testing.T) {
	hash, err := hub.HashPassword("secret")
	require.NoError(t, err)
	s := open(t, hub.Config{Users: []hub.User{{Name: "vera", PasswordHash: hash, Role: hub.Viewer}}, Anonymous: hub.AnonymousLocal})
	item := s.enqueue(protocol.Submission{Capability: "Nobody"})
	stranger, viewer := s.visitor(), s.visitor()
	viewer.send("/login", url.Values{"user": {"vera"}, "password": {"secret"}})
	for name, v := range map[string]*visitor{"a stranger": stranger, "a viewer": viewer} {
		for _, path := range []string{"/item/cancel", "/item/requeue", "/item/forget", "/dead/requeue"} {
			status, _ := v.send(path, url.Values{"hash": {item}})
			require.Equal(t, http.StatusForbidden, status, "%s %s", name, path)
		}
		_, body := v.get("/item?hash=" + url.QueryEscape(item))
		require.NotContains(t, body, `id="cancel"`, name)
	}
	require.Equal(t, protocol.StatusPending, s.record(item).Status)
}

func TestOutputsAsWhatTheyAre(t *testing.T) {
	s := open(t, hub.Config{})
	shows := map[string]beacon.Outputs{
		"picture": {"OutputFilename": "plot.png", "OutputData": picture(t)},
		"csv":     {"OutputFilename": "a.csv", "OutputData": []byte("name,count\n\"x, y\",2\nz,3\n")},
		"rows":    {"Result": []map[string]any{{"b": 1, "a": "one"}, {"a": "two", "c": []int{1}}}},
		"lists":   {"Result": [][]any{{"p", 1}, {"q", nil}}},
		"svg":     {"OutputFilename": "x.svg", "OutputData": []byte(`<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`)},
		"binary":  {"OutputFilename": "a.bin", "OutputData": []byte{0, 1, 2, 255}},
		"long":    {"Result": strings.Repeat("é", 100_000)},
	}
	s.work("painter", 1, service.Capability{Name: "Show", Actions: []service.Action{{
		Name: "Show", Handler: func(_ context.Context, j *beacon.Job) (beacon.Result, error) {
			return beacon.Result{Outputs: shows[j.Item.Settings.Text("What")]}, nil
		},
	}}})
	v := s.visitor()
	page := func(what string) (hash, body string) {
		settings := beacon.Settings{}
		settings.SetText("What", what)
		hash = s.enqueue(protocol.Submission{Capability: "Show", Action: "Show", Settings: settings})
		s.until(hash, protocol.StatusComplete)
		_, body = v.get("/item?hash=" + url.QueryEscape(hash))
		return hash, body
	}
	raw := func(path string) (string, http.Header) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+path, nil)
		require.NoError(t, err)
		status, body, header := v.do(r)
		require.Equal(t, http.StatusOK, status)
		return body, header
	}

	hash, body := page("picture")
	require.Contains(t, body, `<img src="/item/output?hash=`)
	got, header := raw("/item/output?show=1&hash=" + url.QueryEscape(hash))
	require.Equal(t, "image/png", header.Get("Content-Type"))
	require.Equal(t, string(picture(t)), got)
	require.Contains(t, header.Get("Content-Security-Policy"), "sandbox")

	_, body = page("csv")
	require.Contains(t, body, `<th scope="col">count</th>`)
	require.Contains(t, body, "<td>x, y</td><td>2</td>")
	_, body = page("rows")
	require.Contains(t, body, `<th scope="col">a</th><th scope="col">b</th><th scope="col">c</th>`)
	require.Contains(t, body, "<td>two</td><td></td><td>[1]</td>")
	_, body = page("lists")
	require.Contains(t, body, "<td>p</td><td>1</td>")

	hash, body = page("svg")
	require.NotContains(t, body, "<img", "an SVG can run scripts")
	_, header = raw("/item/output?show=1&hash=" + url.QueryEscape(hash))
	require.Equal(t, "application/octet-stream", header.Get("Content-Type"))
	require.Equal(t, "attachment; filename=x.svg", header.Get("Content-Disposition"))
	_, body = page("binary")
	require.Contains(t, body, "a.bin")
	require.NotContains(t, body, "<pre")
	_, body = page("long")
	require.Contains(t, body, "There is more than is shown here")
	require.Less(t, len(body), 100_000)
}

func TestBrowserSubmitsAFileAndSeesTheResult(t *testing.T) {
	s := open(t, hub.Config{})
	lead := newSteps()
	seen := make(chan string, 1)
	s.work("press-1", 2, service.Capability{Name: "Press", Actions: []service.Action{{
		Name: "Print", Description: "Prints a file in colours.",
		Settings: []beacon.Setting{
			{Name: "Colours", DataType: "String", Required: true, Description: "Which ones, with commas between."},
			{Name: "Copies", DataType: "Number", Description: "How often.", Default: 1},
			{Name: "Glossy", DataType: "Boolean", Description: "Whether it shines."},
		},
		Handler: func(ctx context.Context, j *beacon.Job) (beacon.Result, error) {
			raw, err := j.Dir.ReadFile(j.Source)
			if err != nil {
				return beacon.Result{}, err
			}
			seen <- string(raw) + j.Item.Settings.Text("Colours") + j.Item.Settings.Text("Copies") + j.Item.Settings.Text("Glossy")
			return lead.run(ctx, j)
		},
	}}})
	file := filepath.Join(t.TempDir(), "leaflet.txt")
	require.NoError(t, os.WriteFile(file, []byte("to print:"), 0o600))
	b := s.browse()
	b.visit("/submit?capability=Press&action=Print")
	b.holds("document.querySelector('#submit') === null")
	b.visit("/?token=" + s.hub.Token())
	b.sees(".who", "Operator")
	b.holds("location.search === ''")
	b.visit("/submit")
	b.do(chromedp.Click(`main a[href*="action=Print"]`))
	b.holds("document.querySelector('#submit') !== null")
	b.do(
		chromedp.SendKeys("#field-0", "red, blue"), chromedp.SendKeys("#field-1", "2"), chromedp.SetValue("#field-2", "true"),
		chromedp.SetUploadFiles("#source", []string{file}),
	)
	b.shoot("submit")
	b.do(chromedp.Click("#submit"))
	b.sees(".said", "The work item was taken")
	require.Equal(t, "to print:red, blue2true", <-seen)
	b.eval("window.loaded = 'once'")
	for _, percent := range []string{"25", "75"} {
		lead.progress <- beacon.Progress{Percent: map[string]float64{"25": 25, "75": 75}[percent], HasPercent: true, Log: []string{"at " + percent}}
		b.holds("document.querySelector('#heading progress')?.value === " + percent)
	}
	lead.finish <- beacon.Result{Outputs: beacon.Outputs{
		"OutputFilename": "leaflet.png", "OutputData": base64.StdEncoding.EncodeToString(picture(t)),
		"Pages": []map[string]any{{"page": 1, "ink": "red"}, {"page": 2, "ink": "blue"}},
	}}
	b.sees("#heading", "complete")
	b.holds("document.querySelector('#outputs img')?.naturalWidth === 160")
	b.sees("#outputs table", "blue")
	b.sees("#log", "at 75")
	require.Equal(t, "once", eval[string](b, "window.loaded"), "the page was not loaded again")
	b.shoot("result")
	b.dark(true)
	b.shoot("result-dark")
}

func TestBrowserCancelsAndRequeues(t *testing.T) {
	s := open(t, hub.Config{})
	lead := newSteps()
	stopped, good := make(chan struct{}, 1), make(chan bool, 1)
	good <- false
	s.work("press-1", 2, service.Capability{Name: "Press", Actions: []service.Action{
		{Name: "Print", Handler: func(ctx context.Context, j *beacon.Job) (beacon.Result, error) {
			defer func() { stopped <- struct{}{} }()
			return lead.run(ctx, j)
		}},
		{Name: "Jam", Handler: func(context.Context, *beacon.Job) (beacon.Result, error) {
			if <-good {
				return beacon.Result{Outputs: beacon.Outputs{"Result": "not jammed"}}, nil
			}
			return beacon.Result{}, beacon.Errorf(beacon.Failed, "paper jam")
		}},
	}})
	b := s.browse()
	b.visit("/?token=" + s.hub.Token())

	running := s.enqueue(protocol.Submission{Capability: "Press", Action: "Print"})
	lead.progress <- beacon.Progress{Percent: 5, HasPercent: true}
	b.visit("/item?hash=" + url.QueryEscape(running))
	b.holds("document.querySelector('#heading progress')?.value === 5")
	b.do(chromedp.Click("#cancel"))
	<-stopped // the worker was told
	b.sees("#heading", "canceled")

	jammed := s.enqueue(protocol.Submission{Capability: "Press", Action: "Jam"})
	s.until(jammed, protocol.StatusError)
	b.visit("/items?list=dead")
	b.sees("#items", "paper jam")
	b.shoot("dead-letters")
	b.do(chromedp.Click("#items td a"))
	b.sees("#heading", "dead letter")
	good <- true
	b.do(chromedp.Click("#requeue"))
	b.sees("#heading", "complete")
	b.sees("#outputs", "not jammed")
	b.shoot("requeued")
	b.visit("/items?list=dead")
	b.sees("#total", "0")
}
