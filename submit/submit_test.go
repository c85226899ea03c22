package submit_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/submit"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// patience bounds what a test waits for; it is no measure of anything.
const patience = 5 * time.Minute

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func serve(t *testing.T, handle http.Handler) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL
}

func client(t *testing.T, cfg submit.Config) *submit.Client {
	t.Helper()
	c, err := submit.New(cfg)
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return c
}

// system is a hub and a worker of capability Test on it, both real.
func system(t *testing.T, execute beacon.Execute) http.Handler {
	t.Helper()
	h := hub.New(hub.Config{Log: quiet})
	web := httptest.NewServer(h)
	ctx, stop := context.WithCancel(context.Background())
	registered, ended := make(chan struct{}), make(chan error, 1)
	capabilities := []beacon.Capability{{Name: "Test", Actions: []beacon.Action{{Name: "Run"}}}}
	go func() {
		ended <- worker.Run(ctx, ws.Dial(session.Config{
			ServerURL: web.URL, Registration: protocol.NewRegistration("n", 2, capabilities), Logger: quiet,
		}), execute, worker.Config{MaxConcurrent: 2, Logger: quiet, OnRegistered: func(string, string) { close(registered) }})
	}()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-ended)
		require.NoError(t, h.Close(within(t)))
		web.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	select {
	case <-registered:
	case err := <-ended:
		ended <- err
		require.NoError(t, err)
	}
	return h
}

// without a path, the server is an older one.
func without(h http.Handler, path string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == path {
			w.Header().Set("Content-Type", "text/html")
			w.WriteHeader(http.StatusNotFound)
			fmt.Fprint(w, "<html>Cannot POST</html>")
			return
		}
		h.ServeHTTP(w, r)
	})
}

var fileContent = bytes.Repeat([]byte("output\x00\xff"), 300_000) // of more than two frames

// execute does what the setting Do says.
func execute(_ context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
	progress(beacon.Progress{Percent: 50, HasPercent: true, Message: "half", Step: 1, TotalSteps: 2, Log: []string{"halfway"}})
	result := beacon.Result{Outputs: beacon.Outputs{"StdOut": "out", "ExitCode": 0}, Log: []string{"done"}}
	switch item.Settings.Text("Do") {
	case "fail":
		return result, beacon.Errorf(beacon.Failed, "provider says no")
	case "exit":
		result.Outputs["ExitCode"] = 3
	case "file":
		result.Outputs["OutputData"] = base64.StdEncoding.EncodeToString(fileContent)
		result.Outputs["OutputFilename"], result.Outputs["OutputSize"] = "o", len(fileContent)
	}
	return result, nil
}

func do(what string) protocol.Submission {
	s := protocol.Submission{Capability: "Test", Action: "Run", Settings: beacon.Settings{}, TimeoutMs: float64(patience.Milliseconds())}
	s.Settings.SetText("Do", what)
	return s
}

func TestDispatch(t *testing.T) {
	h := system(t, execute)
	servers := map[string]string{
		"streaming": serve(t, h),
		"plain":     serve(t, without(h, "/Beacon/Work/DispatchStream")),
		"prefix":    serve(t, http.StripPrefix("/ultra/visor", h)) + "/ultra/visor/",
	}
	for name, address := range servers {
		t.Run(name, func(t *testing.T) {
			c := client(t, submit.Config{ServerURL: address})
			require.NoError(t, c.Status(within(t)))
			names, err := c.Capabilities(within(t))
			require.NoError(t, err)
			require.Equal(t, []string{"Test"}, names)

			var seen []beacon.Progress
			var output bytes.Buffer
			result, err := c.Dispatch(within(t), do("file"), func(p beacon.Progress) { seen = append(seen, p) }, &output)
			require.NoError(t, err)
			require.True(t, bytes.Equal(fileContent, output.Bytes()), "%d bytes", output.Len())
			require.Equal(t, beacon.Outputs{"StdOut": "out", "ExitCode": 0.0, "OutputFilename": "o", "OutputSize": float64(len(fileContent))}, result.Outputs)
			require.Equal(t, []string{"halfway", "done"}, result.Log)
			if name == "streaming" {
				require.NotEmpty(t, seen)
				require.Equal(t, "half", seen[0].Message)
				require.True(t, seen[0].HasPercent)
				require.InEpsilon(t, 50, seen[0].Percent, 0.001)
			}

			result, err = c.Dispatch(within(t), do("file"), nil, nil)
			require.NoError(t, err)
			require.NotContains(t, result.Outputs, "OutputData", "a file that nobody wants is dropped")

			result, err = c.Dispatch(within(t), do("exit"), nil, nil)
			require.NoError(t, err)
			require.Equal(t, 3, result.ExitCode())

			_, err = c.Dispatch(within(t), do("fail"), nil, nil)
			require.Equal(t, beacon.Failed, beacon.CodeOf(err))
			require.ErrorContains(t, err, "provider says no")

			_, err = c.Dispatch(within(t), protocol.Submission{}, nil, nil)
			var status *submit.StatusError
			require.ErrorAs(t, err, &status)
			require.Equal(t, http.StatusBadRequest, status.Status)
			require.EqualError(t, err, "Capability is required.")

			_, err = c.Dispatch(within(t), do("file"), nil, broken{})
			require.ErrorIs(t, err, errFull)
		})
	}
}

var errFull = errors.New("no space left")

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errFull }

func TestDispatchEnds(t *testing.T) {
	reason := errors.New("somebody pressed Ctrl-C")
	started, over := make(chan struct{}), make(chan struct{})
	h := system(t, func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
		started <- struct{}{}
		<-over
		return beacon.Result{}, nil
	})
	defer close(over)
	for _, address := range []string{serve(t, h), serve(t, without(h, "/Beacon/Work/DispatchStream"))} {
		ctx, cancel := context.WithCancelCause(within(t))
		go func() {
			<-started
			cancel(reason)
		}()
		_, err := client(t, submit.Config{ServerURL: address}).Dispatch(ctx, do("end"), nil, nil)
		require.ErrorIs(t, err, reason)
	}
}

func TestEnqueue(t *testing.T) {
	c := client(t, submit.Config{ServerURL: serve(t, system(t, execute))})
	first, err := c.Enqueue(within(t), do("x"), "key")
	require.NoError(t, err)
	require.NotEmpty(t, first)
	again, err := c.Enqueue(within(t), do("x"), "key")
	require.NoError(t, err)
	require.Equal(t, first, again)
	for _, key := range []string{"other", "", ""} {
		another, err := c.Enqueue(within(t), do("x"), key)
		require.NoError(t, err)
		require.NotEqual(t, first, another)
	}
	_, err = c.Enqueue(within(t), do("y"), "key")
	var status *submit.StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, http.StatusConflict, status.Status)
}

// secured asks for a login as a real server does that is not promiscuous.
func secured(h http.Handler, logins *atomic.Int32) http.Handler {
	var mu sync.Mutex
	known := ""
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		cookie, err := r.Cookie("SessionID")
		mu.Lock()
		defer mu.Unlock()
		switch {
		case r.URL.Path == "/1.0/Authenticate":
			raw, _ := io.ReadAll(r.Body)
			w.Header().Set("Content-Type", "application/json")
			if string(raw) != `{"Password":"p","UserName":"u"}` {
				fmt.Fprint(w, `{"LoggedIn":false,"Error":"Authentication failed."}`)
				return
			}
			known = fmt.Sprint("session-", logins.Add(1))
			w.Header().Add("Set-Cookie", "other=1; Path=/")
			w.Header().Add("Set-Cookie", "SessionID="+known+"; Path=/; HttpOnly")
			fmt.Fprint(w, `{"LoggedIn":true}`)
		case err != nil || cookie.Value != known:
			_, _ = io.CopyN(io.Discard, r.Body, 100<<10)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"Error":"Authentication required.","LoggedIn":false}`)
		default:
			h.ServeHTTP(w, r)
		}
	})
}

func TestLogin(t *testing.T) {
	h := system(t, execute)
	var logins atomic.Int32
	address := serve(t, secured(h, &logins))
	c := client(t, submit.Config{ServerURL: address, UserName: "u", Password: "p"})
	var output bytes.Buffer
	_, err := c.Dispatch(within(t), do("file"), nil, &output)
	require.NoError(t, err)
	require.True(t, bytes.Equal(fileContent, output.Bytes()))
	_, err = c.Enqueue(within(t), do("x"), "")
	require.NoError(t, err)
	require.EqualValues(t, 1, logins.Load(), "the session is kept")

	for password, text := range map[string]string{"wrong": "Authentication failed.", "": "Authentication failed."} {
		refused := client(t, submit.Config{ServerURL: address, UserName: "u", Password: password})
		_, err = refused.Dispatch(within(t), do("x"), nil, nil)
		require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
		require.ErrorContains(t, err, text)
		require.NotContains(t, err.Error(), "wrong")
	}
	// A server that is never content is asked twice, not for ever.
	var asked atomic.Int32
	never := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if r.URL.Path == "/1.0/Authenticate" {
			fmt.Fprint(w, `{"LoggedIn":true}`)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	_, err = client(t, submit.Config{ServerURL: never}).Capabilities(within(t))
	var status *submit.StatusError
	require.ErrorAs(t, err, &status)
	require.Equal(t, http.StatusUnauthorized, status.Status)
	require.EqualValues(t, 3, asked.Load())
}

func TestUpload(t *testing.T) {
	h := system(t, execute)
	open := serve(t, h)
	var logins atomic.Int32
	big := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	for name, test := range map[string]struct {
		address string
		content []byte
		opened  int
	}{
		"open":            {open, big, 1},
		"empty":           {open, nil, 1},
		"behind a login":  {serve(t, secured(h, &logins)), big, 2},
		"with a password": {strings.Replace(open, "://", "://x:secret@", 1), big[:10], 1},
	} {
		t.Run(name, func(t *testing.T) {
			c := client(t, submit.Config{ServerURL: test.address, UserName: "u", Password: "p"})
			opened := 0
			var last int64
			address, err := c.Upload(within(t), "a b&c.txt", int64(len(test.content)), func() (io.ReadCloser, error) {
				opened++
				last = 0
				return io.NopCloser(bytes.NewReader(test.content)), nil
			}, func(n int64) { last = n })
			require.NoError(t, err)
			require.Equal(t, test.opened, opened)
			require.EqualValues(t, len(test.content), last)
			require.NotContains(t, address, "secret")
			u, err := url.Parse(address)
			require.NoError(t, err)
			require.True(t, strings.HasSuffix(u.Path, "/a b&c.txt"), u.Path)
			res, err := http.Get(open + u.EscapedPath())
			require.NoError(t, err)
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			require.NoError(t, err)
			require.True(t, bytes.Equal(test.content, got))
		})
	}
}

type failing struct{ io.Reader }

func (f failing) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil {
		err = errors.New("the disk is broken")
	}
	return n, err
}
func (failing) Close() error { return nil }

func TestUploadFails(t *testing.T) {
	h := system(t, execute)
	file := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("abc")), nil }
	c := client(t, submit.Config{ServerURL: serve(t, h)})
	_, err := c.Upload(within(t), "f", 3, func() (io.ReadCloser, error) { return nil, errFull }, nil)
	require.ErrorIs(t, err, errFull)
	_, err = c.Upload(within(t), "f", 1<<20, func() (io.ReadCloser, error) {
		return failing{bytes.NewReader(make([]byte, 512<<10))}, nil
	}, nil)
	require.EqualError(t, err, "read f: the disk is broken")
	_, err = c.Upload(within(t), "../f", 3, file, nil)
	require.ErrorContains(t, err, "is a path")

	_, err = client(t, submit.Config{ServerURL: serve(t, without(h, "/Beacon/File"))}).Upload(within(t), "f", 3, file, nil)
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "takes no files: put the file where beacons can fetch it and give its address as the setting SourceURL")
}

func frame(kind protocol.FrameType, payload string) string {
	var b bytes.Buffer
	if err := protocol.WriteFrame(&b, kind, []byte(payload)); err != nil {
		panic(err)
	}
	return b.String()
}

// stream answers with these bytes as a stream of frames.
func stream(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, body)
	}
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestStream(t *testing.T) {
	const result = `{"Success":true,"Outputs":{"ExitCode":0}}`
	tests := map[string]struct {
		body   string
		code   beacon.Code
		text   string
		output string
	}{
		"result":                  {frame(4, result), "", "", ""},
		"output in frames":        {frame(3, "ab") + frame(3, "") + frame(3, "c") + frame(4, result), "", "", "abc"},
		"output inside":           {frame(4, `{"Success":true,"Outputs":{"OutputData":"YWJj"}}`), "", "", "abc"},
		"output twice":            {frame(3, "abc") + frame(4, `{"Success":true,"Outputs":{"OutputData":"YWJj"}}`), "", "", "abc"},
		"unknown frames":          {frame(2, "x") + frame(9, "?") + frame(4, result), "", "", ""},
		"progress that is none":   {frame(1, "]") + frame(1, `{"Percent":"x"}`) + frame(4, result), "", "", ""},
		"no outputs":              {frame(4, `{"Success":true}`), "", "", ""},
		"null outputs":            {frame(4, `{"Success":true,"Outputs":null}`), "", "", ""},
		"error":                   {frame(5, `{"Success":false,"Error":"no\u001b[2J"}`), beacon.Failed, `no\u001b[2J`, ""},
		"error without text":      {frame(5, `{}`), beacon.Failed, "the item failed", ""},
		"result that is none":     {frame(4, `[1]`), beacon.Unreachable, "a result that is not the JSON that is expected", ""},
		"outputs that are none":   {frame(4, `{"Success":true,"Outputs":[1]}`), beacon.Unreachable, "outputs that are not a JSON object", ""},
		"output that is none":     {frame(4, `{"Success":true,"Outputs":{"OutputData":"*"}}`), beacon.Unreachable, "an output file that is not base64", ""},
		"nothing":                 {"", beacon.Unreachable, "ended the stream before the result", ""},
		"cut in a header":         {frame(1, "{}") + "\x04\x00", beacon.Unreachable, "ended the stream before the result", ""},
		"cut in a frame":          {frame(4, result)[:20], beacon.Unreachable, "ended the stream before the result", ""},
		"cut after progress":      {frame(1, "{}"), beacon.Unreachable, "ended the stream before the result", ""},
		"a frame that is too big": {"\x04\xff\xff\xff\xff", beacon.Unreachable, "ended the stream before the result", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var output bytes.Buffer
			got, err := client(t, submit.Config{ServerURL: serve(t, stream(test.body))}).Dispatch(within(t), do("x"), func(beacon.Progress) {}, &output)
			if test.text != "" {
				require.ErrorContains(t, err, test.text)
				require.Equal(t, test.code, beacon.CodeOf(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, test.output, output.String())
			require.Zero(t, got.ExitCode())
			require.NotContains(t, got.Outputs, "OutputData")
		})
	}
}

// What is not an Ultravisor server is found out by every call.
func TestWrongServer(t *testing.T) {
	tests := map[string]struct {
		handle http.Handler
		text   string
	}{
		"HTML":                   {answer(200, "text/html", "<html>Welcome</html>"), "server "},
		"HTML, not found":        {answer(404, "text/html", "<html>secret</html>"), ""},
		"JSON of another shape":  {answer(200, "application/json", `{"hello":"world"}`), "server "},
		"a list":                 {answer(200, "application/json", `[]`), "server "},
		"wrong types":            {answer(200, "application/json", `{"Capabilities":7,"WorkItemHash":{},"Status":[]}`), "server "},
		"nothing":                {answer(200, "application/json", ``), "server "},
		"half of it":             {answer(200, "application/json", `{"Capabilities":["a`), "server "},
		"an error without text":  {answer(500, "application/json", `{}`), ""},
		"an error as HTML":       {answer(502, "text/html", "<html>secret</html>"), ""},
		"an error with a gadget": {answer(503, "application/json", `{"Error":"\u001b[2J"}`), ""},
		"a redirect":             {http.RedirectHandler("http://127.0.0.1:1/?secret", http.StatusTemporaryRedirect), ""},
		"a cut answer": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, `{"Capabilities":[`)
		}), "server "},
		"not HTTP": {http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				fmt.Fprint(conn, "220 mail ready\r\n")
				conn.Close()
			}
		}), "does not answer"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c := client(t, submit.Config{ServerURL: strings.Replace(serve(t, test.handle), "://", "://x:secret@", 1), Password: "secret"})
			calls := map[string]func() error{
				"status":       func() error { return c.Status(within(t)) },
				"capabilities": func() error { _, err := c.Capabilities(within(t)); return err },
				"enqueue":      func() error { _, err := c.Enqueue(within(t), do("x"), ""); return err },
				"dispatch":     func() error { _, err := c.Dispatch(within(t), do("x"), nil, nil); return err },
				"upload": func() error {
					_, err := c.Upload(within(t), "f", 1, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("x")), nil }, nil)
					return err
				},
			}
			for call, run := range calls {
				err := run()
				require.ErrorContains(t, err, test.text, call)
				require.NotContains(t, err.Error(), "secret", call)
				require.NotContains(t, err.Error(), "\x1b", call)
				var status *submit.StatusError
				if !errors.As(err, &status) && call != "upload" && (call != "dispatch" || !strings.HasPrefix(name, "an error")) {
					require.Equal(t, beacon.Unreachable, beacon.CodeOf(err), "%s: %v", call, err)
				}
			}
		})
	}
}

func TestStatusErrors(t *testing.T) {
	for status, test := range map[int]struct{ body, text string }{
		400: {`{"Success":false,"Error":"Capability is required."}`, "Capability is required."},
		403: {`{}`, "/Beacon/Work/DispatchStream: HTTP status 403"},
		429: {`{"Error":"The queue is full."}`, "The queue is full."},
		500: {`not JSON`, "/Beacon/Work/DispatchStream: HTTP status 500"},
		503: {`{"Success":false,"Error":"No Beacon workers are registered."}`, "No Beacon workers are registered."},
		307: {``, "/Beacon/Work/DispatchStream: the server redirects elsewhere; if that is right, give the address that it redirects to as the server's URL"},
	} {
		_, err := client(t, submit.Config{ServerURL: serve(t, answer(status, "application/json; charset=utf-8", test.body))}).Dispatch(within(t), do("x"), nil, nil)
		var refused *submit.StatusError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, status, refused.Status)
		require.EqualError(t, err, test.text)
	}
}

// A password is sent to the server that was named and to nobody else.
func TestRedirectGetsNoPassword(t *testing.T) {
	var reached atomic.Bool
	other := serve(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	address := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/1.0/Authenticate" {
			http.Redirect(w, r, other, http.StatusTemporaryRedirect)
			return
		}
		w.WriteHeader(http.StatusUnauthorized)
	}))
	_, err := client(t, submit.Config{ServerURL: address, UserName: "u", Password: "p"}).Capabilities(within(t))
	require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
	require.False(t, reached.Load())
}

func TestNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, listener.Close())
	c := client(t, submit.Config{ServerURL: "http://u:secret@" + listener.Addr().String()})
	_, err = c.Dispatch(within(t), do("x"), nil, nil)
	require.Equal(t, beacon.Unreachable, beacon.CodeOf(err))
	require.ErrorContains(t, err, "does not answer")
	require.NotContains(t, err.Error(), "secret")
}

// A server that takes connections and says nothing does not hold anybody up.
func TestSilentServer(t *testing.T) {
	address := serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server sees that the client has gone
		<-r.Context().Done()
	}))
	c := client(t, submit.Config{ServerURL: address, Timeout: 50 * time.Millisecond})
	for _, call := range []func() error{
		func() error { return c.Status(within(t)) },
		func() error { _, err := c.Capabilities(within(t)); return err },
		func() error { _, err := c.Enqueue(within(t), do("x"), ""); return err },
	} {
		err := call()
		require.Equal(t, beacon.Unreachable, beacon.CodeOf(err))
		require.ErrorContains(t, err, "does not answer within 50ms")
	}
}

func TestNew(t *testing.T) {
	for _, address := range []string{
		"", "host", "host:80", "ftp://secret@host", "ws://host", "http://", "http://:80", "http:secret", "://secret",
		"http://u:secret@host/?query", "http://host/#fragment", "http://u:secret@ho st", "http://%zz", "file:///secret",
	} {
		_, err := submit.New(submit.Config{ServerURL: address})
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), address)
		require.ErrorContains(t, err, "is not a URL such as http://127.0.0.1:54321")
		if strings.Contains(address, "@") || strings.Contains(address, ":secret") {
			require.NotContains(t, err.Error(), "secret")
		}
	}
	_, err := submit.New(submit.Config{ServerURL: "127.0.0.1:80"})
	require.ErrorContains(t, err, `server "127.0.0.1:80" is not a URL such as http://127.0.0.1:54321`)
}
