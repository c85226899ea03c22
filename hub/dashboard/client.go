package dashboard

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/ultravisor/beacon/protocol"
)

// A client calls the hub's API in the same process, as the sender of a request.
type client struct {
	hub    http.Handler
	w      http.ResponseWriter // for its deadlines
	r      *http.Request
	viewer protocol.Viewer
	// ended is the last page of an item that has ended, and its events then: while
	// they are the same, so is the item, and what it left may be large.
	ended struct {
		hash, events string
		page         page
	}
}

// client finds out who sent a request.
func (d *Dashboard) client(w http.ResponseWriter, r *http.Request) (*client, error) {
	c := &client{hub: d.hub, w: w, r: r}
	return c, c.get("/Beacon/Viewer", nil, &c.viewer)
}

// writes reports whether the sender may change anything by way of a page: only
// after a login, even where the API would not ask for one.
func (c *client) writes() bool { return c.viewer.LoggedIn && c.viewer.Writes }

// A refusal is an answer of the API that is not the one that was wanted.
type refusal struct {
	status  int
	message string
}

func (e *refusal) Error() string { return fmt.Sprintf("the hub answers %d: %s", e.status, e.message) }

// get reads from the API.
func (c *client) get(path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.call(c.r.Context(), http.MethodGet, path, nil, into)
}

// post writes by way of the API; body is JSON.
func (c *client) post(path string, body, into any) error {
	raw, err := protocol.Encode(body)
	if err != nil {
		return err
	}
	return c.call(c.r.Context(), http.MethodPost, path, bytes.NewReader(raw), into)
}

func (c *client) call(ctx context.Context, method, target string, body io.Reader, into any) error {
	answer, err := c.do(ctx, method, target, body, nil)
	if err != nil {
		return err
	}
	return answer.read(into)
}

// do carries out one call and returns whatever is answered.
func (c *client) do(ctx context.Context, method, target string, body io.Reader, header http.Header) (*recorder, error) {
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, fmt.Errorf("call the hub: %w", err)
	}
	r := c.r.Clone(ctx)
	r.Method, r.URL, r.RequestURI, r.Pattern = method, u, target, ""
	r.Body, r.ContentLength = http.NoBody, 0
	if body != nil {
		r.Body, r.ContentLength = io.NopCloser(body), -1
	}
	r.Header = http.Header{}
	// What the hub goes by to tell who asks, from where, and from whose page.
	for _, name := range []string{"Cookie", "Forwarded", "Origin", "Sec-Fetch-Site", "X-Forwarded-For"} {
		if values := c.r.Header.Values(name); values != nil {
			r.Header[name] = values
		}
	}
	for name, values := range header {
		r.Header[name] = values
	}
	out := &recorder{w: c.w, header: http.Header{}}
	c.hub.ServeHTTP(out, r)
	return out, nil
}

// A recorder takes an answer. Its deadlines are those of the connection.
type recorder struct {
	w      http.ResponseWriter
	header http.Header
	status int
	body   bytes.Buffer
}

func (o *recorder) Header() http.Header { return o.header }

func (o *recorder) WriteHeader(status int) {
	if o.status == 0 {
		o.status = status
	}
}

func (o *recorder) Write(p []byte) (int, error) {
	o.WriteHeader(http.StatusOK)
	return o.body.Write(p)
}

// Unwrap is for http.ResponseController.
func (o *recorder) Unwrap() http.ResponseWriter { return o.w }

// read decodes the answer, if it is a good one.
func (o *recorder) read(into any) error {
	if o.status >= http.StatusMultipleChoices {
		var body struct {
			Error string `json:"Error"`
		}
		if json.Unmarshal(o.body.Bytes(), &body) != nil || body.Error == "" {
			body.Error = http.StatusText(o.status)
		}
		return &refusal{o.status, body.Error}
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(o.body.Bytes(), into); err != nil {
		return fmt.Errorf("read the hub's answer: %w", err)
	}
	return nil
}

// login logs in and gives the session to the browser.
func (c *client) login(w http.ResponseWriter, credentials map[string]string) error {
	raw, err := protocol.Encode(credentials)
	if err != nil {
		return err
	}
	answer, err := c.do(c.r.Context(), http.MethodPost, "/1.0/Authenticate", bytes.NewReader(raw), nil)
	if err != nil {
		return err
	}
	var body struct {
		LoggedIn bool   `json:"LoggedIn"`
		Error    string `json:"Error"`
	}
	if err := answer.read(&body); err != nil {
		return err
	}
	if !body.LoggedIn {
		return &refusal{http.StatusForbidden, body.Error}
	}
	w.Header()["Set-Cookie"] = answer.header["Set-Cookie"]
	return nil
}
