package hostfuncs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
)

// An echo answers every request with its body and every call with its settings,
// at once.
type echo struct{}

func (echo) Fetch(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	body := r.Body
	if body == nil {
		body = io.NopCloser(strings.NewReader(r.Method + " " + r.URL))
	}
	return &hostfuncs.Response{Status: 200, URL: r.URL, Header: r.Header, Length: -1, Body: body}, nil
}

func (echo) Call(_ context.Context, r beacon.Call) (beacon.Result, error) {
	if r.OnProgress != nil {
		r.OnProgress(beacon.Progress{Message: "calling " + r.Capability})
	}
	if r.Output != nil {
		w, err := r.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		_, err = io.WriteString(w, "output")
		if err := errors.Join(err, w.Close()); err != nil {
			return beacon.Result{}, err
		}
	}
	out := beacon.Outputs{}
	for name, value := range r.Settings {
		out[name] = value
	}
	return beacon.Result{Outputs: out}, nil
}

func (echo) HasSecret(name string) bool { return name == "key" }

// A stub is a broker made of functions; those that are nil deny.
type stub struct {
	fetch func(context.Context, hostfuncs.Request) (*hostfuncs.Response, error)
	call  func(context.Context, beacon.Call) (beacon.Result, error)
}

func (s stub) Fetch(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	if s.fetch == nil {
		return nil, beacon.Errorf(beacon.Denied, "no HTTP")
	}
	return s.fetch(ctx, r)
}

func (s stub) Call(ctx context.Context, r beacon.Call) (beacon.Result, error) {
	if s.call == nil {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "no calls")
	}
	return s.call(ctx, r)
}

func (stub) HasSecret(string) bool { return false }

// web is a broker that lets everything through net/http.
func web(client *http.Client) stub {
	return stub{fetch: func(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
		var body io.Reader
		if r.Body != nil {
			body = r.Body
		}
		req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, body)
		if err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "%w", err)
		}
		req.ContentLength = r.BodyLength
		req.Header = r.Header
		res, err := client.Do(req)
		if err != nil {
			return nil, beacon.Errorf(beacon.Unreachable, "cannot reach %s", req.URL.Host)
		}
		return &hostfuncs.Response{Status: res.StatusCode, URL: res.Request.URL.String(), Proto: res.Proto, Header: res.Header, Length: res.ContentLength, Body: res.Body}, nil
	}}
}

func (g *guest) request(json string) int {
	g.t.Helper()
	at, n := g.put(name, json)
	require.Equal(g.t, ok, g.call("http_open", at, n, cell), g.lastError())
	return g.u32(cell)
}

func (g *guest) begin(json string) int {
	g.t.Helper()
	at, n := g.put(name, json)
	require.Equal(g.t, ok, g.call("call_open", at, n, cell), g.lastError())
	return g.u32(cell)
}

func (g *guest) lastError() string {
	g.t.Helper()
	const apart = 0x60 // so that it can be asked for between a call and its result
	switch errno := g.call("last_error", 0x4000, 0x1000, apart); errno {
	case ok:
		return g.text(0x4000, g.u32(apart))
	default:
		require.Equal(g.t, notFound, errno)
		return ""
	}
}

func (g *guest) readAll(handle int) string {
	g.t.Helper()
	var b strings.Builder
	for {
		require.Equal(g.t, ok, g.call("http_read", handle, buffer, 1000, cell), g.lastError())
		n := g.u32(cell)
		if n == 0 {
			return b.String()
		}
		b.WriteString(g.text(buffer, n))
	}
}

func TestHTTP(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the guest broke off
		}
		w.Header()["X-Twice"] = []string{"a", "b\xff"}
		w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
		if r.Method == http.MethodPut {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+strings.Join(r.TransferEncoding, "")+": "+string(body))
	}))
	t.Cleanup(server.Close)
	g := start(t, setup{broker: web(server.Client())})

	h := g.request(`{"URL":"` + server.URL + `/x"}`)
	require.Equal(t, invalid, g.call("http_write", h, value, 1, cell), "no body")
	require.Equal(t, ok, g.call("http_wait", h, cell))
	require.Equal(t, 200, g.u32(cell))
	require.Equal(t, "GET /x : ", g.readAll(h))
	require.Equal(t, ok, g.call("http_read", h, buffer, 10, cell))
	require.Zero(t, g.u32(cell), "the end stays the end")
	require.Equal(t, ok, g.call("handle_close", h))
	require.Equal(t, badDescriptor, g.call("handle_close", h))

	// A body of known length, in pieces.
	h = g.request(`{"URL":"` + server.URL + `/put","Method":"PUT","BodyLength":10,"Headers":{"Content-Type":"text/x","A":["b","c"]}}`)
	at, n := g.put(value, "12345")
	require.Equal(t, ok, g.call("http_write", h, at, n, cell))
	require.Equal(t, n, g.u32(cell))
	require.Equal(t, invalid, g.call("http_wait", h, cell), "half of it is missing")
	require.Contains(t, g.lastError(), "5 bytes")
	require.Equal(t, invalid, g.call("http_write", h, value, 6, cell), "too much")
	require.Equal(t, ok, g.call("http_write", h, at, n, cell))
	require.Equal(t, invalid, g.call("http_write", h, at, 1, cell))
	require.Equal(t, ok, g.call("http_wait", h, cell))
	require.Equal(t, 418, g.u32(cell))
	require.Equal(t, ok, g.call("http_wait", h, cell), "again")
	require.Equal(t, "PUT /put : 1234512345", g.readAll(h))
	head := g.filled("http_response", h)
	require.Contains(t, head, `"Status":418,"URL":"`+server.URL+`/put","Proto":"HTTP/1.1"`)
	require.Contains(t, head, `"X-Twice":["a","b\ufffd"]`)
	require.Contains(t, head, `"Length":21`)
	at, n = g.put(name, "x-twice")
	require.Equal(t, "a, b\uFFFD", g.filled("http_header", h, at, n))
	at, n = g.put(name, "X-None")
	require.Equal(t, notFound, g.call("http_header", h, at, n, buffer, 10, cell))

	// A body whose length is not known.
	h = g.request(`{"URL":"` + server.URL + `/post","Method":"POST","BodyLength":-1}`)
	for range 50 {
		at, n = g.put(value, strings.Repeat("x", 1000))
		require.Equal(t, ok, g.call("http_write", h, at, n, cell))
	}
	require.Equal(t, ok, g.call("http_wait", h, cell))
	require.Equal(t, "POST /post chunked: "+strings.Repeat("x", 50_000), g.readAll(h))
}

func TestHTTPRequestsThatAreWrong(t *testing.T) {
	g := start(t, setup{broker: echo{}})
	for request, want := range map[string]string{
		``:                                    "not the JSON",
		`null x`:                              "more than one JSON value",
		`[]`:                                  "not the JSON",
		`{"URL":1}`:                           "not the JSON",
		`{"URL":"http://a/","Url2":1}`:        "Url2",
		`{"Headers":{"A":1}}`:                 "not the JSON",
		`{"Headers":{"A":["x",1]}}`:           "not the JSON",
		`{"URL":"http://a/","Redirects":4}`:   "want 0 to 3",
		`{"URL":"http://a/","Redirects":-1}`:  "want 0 to 3",
		`{"URL":"http://a/","BodyLength":-2}`: "BodyLength is -2",
		`{"URL":"http://a/","TimeoutMs":-2}`:  "TimeoutMs is -2",
	} {
		at, n := g.put(name, request)
		require.Equal(t, invalid, g.call("http_open", at, n, cell), request)
		require.Contains(t, g.lastError(), want, request)
	}
	require.Equal(t, limit, g.call("http_open", name, 64<<10+1, cell))
	for _, function := range []string{"http_write", "http_response", "http_read", "call_progress", "call_result"} {
		require.Equal(t, badDescriptor, g.call(function, 0, buffer, 10, cell))
	}
	h := g.begin(`{"Capability":"C"}`)
	require.Equal(t, badDescriptor, g.call("http_wait", h, cell), "a call is no request")
}

// Without a broker, and outside of an item, nothing leads out.
func TestS23Denied(t *testing.T) {
	g := start(t, setup{})
	h := g.request(`{"URL":"http://example.com/"}`)
	require.Equal(t, denied, g.call("http_wait", h, cell))
	require.Equal(t, "HTTP is not permitted: nothing was granted to this provider", g.lastError())
	require.Equal(t, denied, g.call("http_read", h, buffer, 10, cell))
	k := g.begin(`{"Capability":"Shell\u001b"}`)
	require.Equal(t, denied, g.call("call_wait", k))
	require.Contains(t, g.filled("call_result", k), `"Error":{"Code":"denied","Message":"calling Shell\\u001b is not permitted`)
	at, n := g.put(name, "key")
	require.Equal(t, notFound, g.call("secret", at, n))
	require.Equal(t, []string{
		"beacon: HTTP is not permitted: nothing was granted to this provider",
		`beacon: calling Shell\u001b is not permitted: nothing was granted to this provider`,
	}, g.item.Log())

	g = start(t, setup{describing: true})
	require.Equal(t, notNow, g.call("http_open", at, n, cell))
	require.Equal(t, notNow, g.call("call_open", at, n, cell))
	require.Equal(t, notNow, g.call("secret", at, n))
	g = start(t, setup{broker: echo{}})
	g.put(name, "key")
	require.Equal(t, ok, g.call("secret", at, n))
}

// The codes of a broker's errors reach the guest as numbers.
func TestBrokerErrors(t *testing.T) {
	for code, want := range map[beacon.Code]uint32{
		beacon.Denied: denied, beacon.Invalid: invalid, beacon.CallLimit: limit, beacon.MemoryLimit: limit,
		beacon.Unreachable: network, beacon.Timeout: timeout, beacon.Failed: failed, beacon.Trapped: failed,
		beacon.NotFound: notFound, beacon.Canceled: canceled, beacon.Internal: ioError,
	} {
		err := beacon.Errorf(code, "because\x1b")
		g := start(t, setup{broker: stub{
			fetch: func(context.Context, hostfuncs.Request) (*hostfuncs.Response, error) { return nil, err },
			call:  func(context.Context, beacon.Call) (beacon.Result, error) { return beacon.Result{}, err },
		}})
		h := g.request(`{"URL":"http://a/"}`)
		require.Equal(t, want, g.call("http_wait", h, cell), code)
		require.Equal(t, `because\u001b`, g.lastError())
		require.Equal(t, want, g.call("call_wait", g.begin(`{}`)), code)
	}
}

// A server that answers before it has read the body does not leave the guest
// hanging, and its answer is not lost.
func TestHTTPEarlyAnswer(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
		_, _ = io.WriteString(w, "too large")
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	for _, length := range []string{"-1", "100000000000"} {
		g := start(t, setup{broker: web(server.Client())})
		h := g.request(`{"URL":"` + server.URL + `","Method":"POST","BodyLength":` + length + `}`)
		for n := -1; n != 0; n = g.u32(cell) {
			require.Equal(t, ok, g.call("http_write", h, value, 60_000, cell), g.lastError())
		}
		require.Equal(t, ok, g.call("http_wait", h, cell), g.lastError())
		require.Equal(t, 413, g.u32(cell))
		require.Equal(t, ok, g.call("http_read", h, buffer, 9, cell))
		require.Equal(t, "too large", g.text(buffer, g.u32(cell)))
	}
}

// Requests of one guest run beside each other, and what it leaves open ends
// with the item; the leak check of this package looks for the rest.
func TestHandles(t *testing.T) {
	arrived := make(chan string, 1000) // nobody waits for a reader
	answers := map[string]chan struct{}{"/a": make(chan struct{}), "/b": make(chan struct{}), "/never": make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.URL.Path
		select {
		case <-answers[r.URL.Path]:
		case <-r.Context().Done():
			return
		}
		w.WriteHeader(http.StatusOK)
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-answers[r.URL.Path]:
			_, _ = io.WriteString(w, "body")
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(server.Close)
	g := start(t, setup{broker: web(server.Client())})
	a, b := g.request(`{"URL":"`+server.URL+`/a"}`), g.request(`{"URL":"`+server.URL+`/b"}`)
	<-arrived
	<-arrived
	wait := func(ms int, handles ...int) int {
		raw := []byte{}
		for _, h := range handles {
			raw = binary.LittleEndian.AppendUint32(raw, uint32(h))
		}
		at, n := g.put(value, string(raw))
		require.Equal(t, ok, g.call("handle_wait", at, n, ms, cell))
		return g.u32(cell)
	}
	require.Equal(t, 2, wait(0, a, b), "none is ready")
	require.Equal(t, notNow, g.call("http_read", a, buffer, 10, cell))
	require.Equal(t, notNow, g.call("http_response", a, buffer, 10, cell))
	require.Equal(t, 2, wait(1, a, b))
	answers["/b"] <- struct{}{}
	require.Equal(t, 1, wait(-1, a, b))
	require.Equal(t, 1, wait(-1, a, b), "its head stays what is waited for until http_wait has seen it")
	for _, early := range []uint32{
		g.call("http_read", b, buffer, 10, cell), g.call("http_response", b, buffer, 10, cell), g.call("http_header", b, value, 1, buffer, 10, cell),
	} {
		require.Equal(t, notNow, early, "it is there, but nobody has waited for it")
	}
	require.Equal(t, ok, g.call("http_wait", b, cell))
	require.Equal(t, 2, wait(0, a, b), "its body is not there")
	close(answers["/b"])
	require.Equal(t, 1, wait(-1, a, b))
	require.Equal(t, 1, wait(-1, a, b), "and stays ready until it is read")
	require.Equal(t, "body", g.readAll(b))
	require.Equal(t, 0, wait(-1, b), "the end is ready, too")
	require.Equal(t, 0, wait(1), "sleep")
	close(answers["/a"])
	require.Equal(t, ok, g.call("http_wait", a, cell))
	require.Equal(t, 1, wait(-1, b, a)&1|1, "either")
	require.Equal(t, "body", g.readAll(a))

	at, n := g.put(value, "xxx")
	require.Equal(t, invalid, g.call("handle_wait", at, n, 0, cell))
	at, n = g.put(value, "\xff\xff\xff\xff")
	require.Equal(t, badDescriptor, g.call("handle_wait", at, n, 0, cell))
	require.Equal(t, badDescriptor, g.call("handle_close", 0xffffffff))

	for len(arrived) > 0 {
		<-arrived
	}
	for range 14 {
		g.request(`{"URL":"` + server.URL + `/never"}`)
	}
	at, n = g.put(name, `{"URL":"`+server.URL+`/never"}`)
	require.Equal(t, limit, g.call("http_open", at, n, cell))
	require.Contains(t, g.lastError(), "more than 16 requests and calls are open")
	require.Equal(t, ok, g.call("handle_close", a))
	require.Equal(t, ok, g.call("http_open", at, n, cell))
	require.Equal(t, a, g.u32(cell), "a closed number is used again")
}

// A guest's own time limit ends its request, the item's ends the guest; S12.
func TestS12HTTPTimes(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/drip" {
			if err := http.NewResponseController(w).Flush(); err != nil {
				return
			}
		}
		<-release
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	g := start(t, setup{broker: web(server.Client())})
	h := g.request(`{"URL":"` + server.URL + `","TimeoutMs":1}`)
	require.Equal(t, timeout, g.call("http_wait", h, cell))
	require.Equal(t, "the request took longer than its TimeoutMs of 1", g.lastError())
	require.Empty(t, g.item.Log(), "which is the guest's own business")

	for name, use := range map[string]func(g *guest, h int) error{
		"wait": func(g *guest, h int) error { _, err := g.try("http_wait", h, cell); return err },
		"write": func(g *guest, h int) error {
			for {
				if _, err := g.try("http_write", h, value, 60_000, cell); err != nil {
					return err
				}
			}
		},
		"ready": func(g *guest, h int) error {
			g.put(value, string([]byte{byte(h), 0, 0, 0}))
			_, err := g.try("handle_wait", value, 4, 1<<62, cell)
			return err
		},
		"read": func(g *guest, h int) error {
			_, err := g.try("http_wait", h, cell)
			if err == nil {
				_, err = g.try("http_read", h, buffer, 10, cell)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, setup{broker: web(server.Client())})
			ctx, cancel := context.WithCancelCause(g.ctx)
			defer cancel(nil)
			g.ctx = ctx
			path, length := "/", ""
			if name == "read" {
				path = "/drip"
			}
			if name == "write" {
				length = `,"Method":"POST","BodyLength":-1`
			}
			h := g.request(`{"URL":"` + server.URL + path + `"` + length + `}`)
			timer := time.AfterFunc(20*time.Millisecond, func() { cancel(beacon.Errorf(beacon.Timeout, "over")) })
			defer timer.Stop()
			err := use(g, h)
			require.Equal(t, beacon.Timeout, beacon.CodeOf(err), "%v", err)
		})
	}
}

func TestCall(t *testing.T) {
	var got beacon.Call
	var source string
	g := start(t, setup{broker: stub{call: func(_ context.Context, r beacon.Call) (beacon.Result, error) {
		got = r
		b, err := io.ReadAll(r.Source)
		if err != nil {
			return beacon.Result{}, err
		}
		source = string(b)
		r.OnProgress(beacon.Progress{Message: "half", Percent: 50, HasPercent: true, Step: 1, TotalSteps: 2, Log: []string{"line"}})
		r.OnProgress(beacon.Progress{Message: "more"})
		w, err := r.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		if _, err := io.WriteString(w, "the output"); err != nil {
			return beacon.Result{}, err
		}
		return beacon.Result{
			Outputs: beacon.Outputs{"Result": "text", "Number": 5, "Null": nil, "Bytes": []byte("x"), "ExitCode": 3},
			Log:     []string{"logged"},
		}, w.Close()
	}}})
	k := g.begin(`{"Capability":"LLM","Action":"Chat","Settings":{"A":"b","N":12345678901234567890},"Source":"/work/input.txt","Output":"sub.txt","TimeoutMs":100000,"Progress":"keep"}`)
	require.JSONEq(t, `{"Percent":50,"Message":"half","Step":1,"TotalSteps":2,"Log":["line"]}`, g.filled("call_progress", k))
	require.Equal(t, rangeError, g.call("call_progress", k, buffer, 3, cell), "and it is not lost")
	require.JSONEq(t, `{"Message":"more"}`, g.filled("call_progress", k))
	require.Equal(t, notFound, g.call("call_progress", k, buffer, 100, cell))
	require.Equal(t, ok, g.call("call_wait", k))
	require.Equal(t, ok, g.call("call_wait", k), "again")
	require.Equal(t, "the input", source)
	require.Equal(t, "input.txt", got.SourceName)
	require.Equal(t, "sub.txt", got.OutputName)
	require.Equal(t, "12345678901234567890", got.Settings.Text("N"))
	content, err := os.ReadFile(filepath.Join(g.dir, "sub.txt"))
	require.NoError(t, err)
	require.Equal(t, "the output", string(content))
	require.JSONEq(t, `{"Outputs":{"Result":"text","Number":5,"Null":null,"Bytes":"eA==","ExitCode":3},"Log":["logged"]}`, g.filled("call_result", k))
	for output, want := range map[string]string{"Result": "text", "Number": "5", "Bytes": "eA=="} {
		at, n := g.put(name, output)
		require.Equal(t, want, g.filled("call_output", k, at, n))
	}
	for _, output := range []string{"Null", "None", ""} {
		at, n := g.put(name, output)
		require.Equal(t, notFound, g.call("call_output", k, at, n, buffer, 10, cell))
	}
}

func TestCallProgress(t *testing.T) {
	many := stub{call: func(_ context.Context, r beacon.Call) (beacon.Result, error) {
		for n := range 1000 {
			if r.OnProgress != nil {
				r.OnProgress(beacon.Progress{Step: n + 1, TotalSteps: 1000})
			}
		}
		return beacon.Result{}, nil
	}}
	g := start(t, setup{broker: many})
	k := g.begin(`{}`)
	require.Equal(t, ok, g.call("call_wait", k))
	require.Equal(t, invalid, g.call("call_progress", k, buffer, 10, cell))
	require.Empty(t, g.seen, "dropped")
	require.Equal(t, ok, g.call("call_wait", g.begin(`{"Progress":"forward"}`)))
	require.Len(t, g.seen, 1000)
	k = g.begin(`{"Progress":"keep"}`)
	require.Equal(t, ok, g.call("call_wait", k))
	require.JSONEq(t, `{"Step":937,"TotalSteps":1000}`, g.filled("call_progress", k), "the oldest were dropped")
	for range 63 {
		require.Equal(t, ok, g.call("call_progress", k, buffer, 100, cell))
	}
	require.Equal(t, notFound, g.call("call_progress", k, buffer, 100, cell))
	at, n := g.put(name, `{"Progress":"all"}`)
	require.Equal(t, invalid, g.call("call_open", at, n, cell))
}

func TestCallsThatDoNotWork(t *testing.T) {
	g := start(t, setup{broker: echo{}})
	for request, want := range map[string]uint32{
		`{"Capability":"C","Source":"nothing"}`:   notFound,
		`{"Capability":"C","Source":"../canary"}`: denied,
		`{"Capability":"C","Tenant":"other"}`:     invalid,
		`{"Settings":[]}`:                         invalid,
		`{"TimeoutMs":-1}`:                        invalid,
	} {
		at, n := g.put(name, request)
		require.Equal(t, want, g.call("call_open", at, n, cell), request)
	}
	// The callee's output goes through the guest's own file system.
	for output, want := range map[string]uint32{"input.txt": denied, "../out": denied, "no/such/dir": notFound} {
		k := g.begin(`{"Capability":"C","Output":"` + output + `"}`)
		require.Equal(t, want, g.call("call_wait", k), output)
	}
	// A result that is no JSON is the host's fault, and not the guest's end.
	g = start(t, setup{broker: stub{call: func(context.Context, beacon.Call) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"F": func() {}}}, nil
	}}})
	k := g.begin(`{}`)
	at, n := g.put(value, string([]byte{byte(k), 0, 0, 0}))
	require.Equal(t, ok, g.call("handle_wait", at, n, 1<<30, cell))
	require.Equal(t, notNow, g.call("call_result", k, buffer, 10, cell), "it is there, but nobody has waited for it")
	require.Equal(t, notNow, g.call("call_output", k, at, n, buffer, 10, cell))
	require.Equal(t, ok, g.call("call_wait", k))
	require.Equal(t, ioError, g.call("call_result", k, buffer, 10, cell))
	at, n = g.put(name, "F")
	require.Equal(t, ioError, g.call("call_output", k, at, n, buffer, 10, cell))
}

// S30: the settings of calls that wait are in memory, so they are bounded together.
func TestCallSettingsAreBounded(t *testing.T) {
	g := start(t, setup{broker: stub{call: func(ctx context.Context, _ beacon.Call) (beacon.Result, error) {
		<-ctx.Done()
		return beacon.Result{}, ctx.Err()
	}}})
	at := int(g.mod.Memory().Size())
	_, grown := g.mod.Memory().Grow(170)
	require.True(t, grown)
	_, n := g.put(at, `{"Settings":{"A":"`+strings.Repeat("x", 10<<20)+`"}}`)
	var open []int
	for range 3 {
		require.Equal(t, ok, g.call("call_open", at, n, cell), g.lastError())
		open = append(open, g.u32(cell))
	}
	require.Equal(t, limit, g.call("call_open", at, n, cell))
	require.Contains(t, g.lastError(), "the settings of calls under way take more than 32 MiB")
	g.begin(`{}`)
	require.Equal(t, ok, g.call("handle_close", open[1]))
	require.Equal(t, ok, g.call("call_open", at, n, cell), "there is room again")
}

// A call ends with its handle, and with its own time.
func TestCallEnds(t *testing.T) {
	ended := make(chan error, 1)
	g := start(t, setup{broker: stub{call: func(ctx context.Context, _ beacon.Call) (beacon.Result, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return beacon.Result{}, ctx.Err()
	}}})
	k := g.begin(`{"Progress":"keep"}`)
	require.Equal(t, notNow, g.call("call_result", k, buffer, 10, cell))
	require.Equal(t, ok, g.call("handle_close", k))
	require.ErrorIs(t, <-ended, context.Canceled)
	k = g.begin(`{"TimeoutMs":1}`)
	require.Equal(t, timeout, g.call("call_wait", k))
	require.ErrorIs(t, <-ended, context.DeadlineExceeded)
	require.Equal(t, "the call took longer than its TimeoutMs of 1", g.lastError())
}

func TestS25ClocksAndChance(t *testing.T) {
	g := start(t, setup{describing: true})
	require.Equal(t, ok, g.call("now", 0, cell))
	require.InDelta(t, time.Now().UnixNano(), g.u64(cell), float64(time.Hour))
	require.Zero(t, g.u64(cell)%1_000_000, "S25: milliseconds")
	last := uint64(0)
	for range 1000 {
		require.Equal(t, ok, g.call("now", 1, cell))
		require.GreaterOrEqual(t, g.u64(cell), last)
		last = g.u64(cell)
		require.Zero(t, last%1_000_000)
	}
	require.Equal(t, invalid, g.call("now", 2, cell))

	seen := map[string]bool{}
	for range 100 {
		require.Equal(t, ok, g.call("random", value, 16))
		seen[g.text(value, 16)] = true
	}
	require.Len(t, seen, 100, "S25: randomness is real")
	require.Equal(t, ok, g.call("random", end, 0))
	require.Equal(t, fault, g.call("random", end-4, 5))
	require.Equal(t, limit, g.call("random", 0, 1<<20+1))
}

func TestFileNames(t *testing.T) {
	g := start(t, setup{})
	at, n := g.put(name, "dir")
	require.Equal(t, ok, g.call("file_make_directory", at, n))
	require.Equal(t, exists, g.call("file_make_directory", at, n))
	fd := g.open("dir/a", write|create)
	require.Equal(t, ok, g.call("file_close", fd))
	require.Equal(t, exists, g.call("file_remove", at, n), "it is not empty")
	require.Contains(t, g.lastError(), "remove dir")
	from, size := g.put(value, "/work/dir/a")
	to, length := g.put(0x2000, "b")
	require.Equal(t, ok, g.call("file_rename", from, size, to, length))
	require.Equal(t, notFound, g.call("file_rename", from, size, to, length))
	require.Equal(t, ok, g.call("file_remove", at, n))
	require.Equal(t, ok, g.call("file_remove", to, length))
	require.Equal(t, notFound, g.call("file_remove", to, length))
	at, n = g.put(name, "input.txt")
	require.Equal(t, denied, g.call("file_remove", at, n))
	require.Equal(t, denied, g.call("file_rename", at, n, to, length))
	to, length = g.put(0x2000, "../outside")
	require.Equal(t, denied, g.call("file_make_directory", to, length))
	g = start(t, setup{describing: true})
	require.Equal(t, notNow, g.call("file_remove", at, n))
	require.Equal(t, notNow, g.call("file_rename", at, n, at, n))
	require.Equal(t, notNow, g.call("file_make_directory", at, n))
}
