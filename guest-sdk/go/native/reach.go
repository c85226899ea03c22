package native

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// The error numbers of beacon_v1 that a native host answers with.
const (
	denied  = guest.Errno(5)
	network = guest.Errno(12)
	failed  = guest.Errno(14)
)

// A Callee stands for the capabilities that a provider calls. The call's source
// is source, nil when it has none. Outputs become JSON; output, if any, is the
// content of the callee's output file.
type Callee func(c guest.Call, source []byte) (outputs map[string]any, output []byte, err error)

// reached says what a host was not given.
type reached struct {
	text  string
	errno guest.Errno
}

func (r *reached) Error() string { return r.text }
func (r *reached) Unwrap() error { return r.errno }

// HasSecret reports whether Secrets has one.
func (h *Host) HasSecret(name string) bool {
	_, ok := h.Secrets[name]
	return ok
}

// Send makes a request by Transport.
func (h *Host) Send(r *guest.Request, description guest.JSON) (guest.Exchange, error) {
	var asked struct{ BodyLength int64 }
	if err := json.Unmarshal([]byte(description), &asked); err != nil {
		return nil, err
	}
	req, err := http.NewRequest(r.Method, r.URL, nil) //nolint:noctx // the exchange ends when it is closed
	if err != nil {
		return nil, &reached{err.Error(), 2}
	}
	for name, value := range r.Header {
		for secret, text := range h.Secrets {
			value = strings.ReplaceAll(value, guest.Secret(secret), text)
		}
		if strings.Contains(value, "{{secret:") {
			return nil, &reached{"header " + name + " names a secret that was not granted", denied}
		}
		req.Header.Set(name, value)
	}
	if h.Transport == nil {
		return nil, &reached{"HTTP is not permitted: give the host a Transport", denied}
	}
	x := &exchange{answered: make(chan struct{})}
	if r.Body != nil && asked.BodyLength != 0 {
		from, to := io.Pipe()
		x.body = to
		req.Body, req.ContentLength = from, asked.BodyLength
	}
	client := &http.Client{Transport: h.Transport, Timeout: r.Timeout}
	if r.NoRedirects {
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	x.task.Go(func() {
		defer close(x.answered)
		var err error
		if x.response, err = client.Do(req); err != nil { //nolint:bodyclose // Close does
			x.failure = &reached{err.Error(), network}
		}
		if req.Body != nil {
			_ = req.Body.Close() // nobody reads on
		}
	})
	return x, nil
}

// WaitAny waits for responses. A call has ended when it has begun, and a body is as
// good as there once its response is.
func (h *Host) WaitAny(timeout time.Duration, of []guest.Handle) (int, error) {
	ended := make(chan struct{})
	close(ended)
	cases := make([]reflect.SelectCase, len(of), len(of)+1)
	for i, handle := range of {
		var ready <-chan struct{}
		switch handle := handle.(type) {
		case *exchange:
			if handle.closed {
				return 0, guest.Errno(9)
			}
			ready = handle.answered
		case *invocation:
			if handle.closed {
				return 0, guest.Errno(9)
			}
			ready = ended
		}
		cases[i] = reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(ready)}
	}
	for i := range cases { // the first that is ready counts, and not any
		if chosen, _, _ := reflect.Select([]reflect.SelectCase{cases[i], {Dir: reflect.SelectDefault}}); chosen == 0 {
			return i, nil
		}
	}
	if timeout >= 0 {
		timer := time.NewTimer(timeout)
		defer timer.Stop()
		cases = append(cases, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(timer.C)})
	}
	if len(cases) == 0 {
		return 0, errors.New("nothing to wait for, and without an end")
	}
	chosen, _, _ := reflect.Select(cases)
	return chosen, nil
}

type exchange struct {
	closed   bool
	body     *io.PipeWriter
	task     sync.WaitGroup
	answered chan struct{}
	response *http.Response
	failure  *reached // nil with a response
}

func (x *exchange) Write(b []byte) (int, error) {
	n, err := x.body.Write(b)
	if errors.Is(err, io.ErrClosedPipe) {
		return 0, nil
	}
	return n, err
}

func (x *exchange) Wait() (int, error) {
	if x.body != nil {
		_ = x.body.Close() // which cannot fail
	}
	<-x.answered
	if x.failure != nil {
		return 0, x.failure
	}
	return x.response.StatusCode, nil
}

func (x *exchange) Response() (guest.JSON, error) {
	r := x.response
	b, err := json.Marshal(map[string]any{
		"Status": r.StatusCode, "URL": r.Request.URL.String(), "Proto": r.Proto, "Headers": r.Header, "Length": r.ContentLength,
	})
	return guest.JSON(b), err
}

func (x *exchange) Header(name string) (string, bool, error) {
	values := x.response.Header.Values(name)
	return strings.Join(values, ", "), len(values) > 0, nil
}

func (x *exchange) Read(b []byte) (int, error) {
	for {
		n, err := x.response.Body.Read(b)
		if n > 0 || errors.Is(err, io.EOF) {
			return n, nil
		}
		if err != nil {
			return 0, &reached{err.Error(), network}
		}
	}
}

func (x *exchange) Close() error {
	x.closed = true
	if x.body != nil {
		_ = x.body.CloseWithError(errors.New("the request was given up")) // which cannot fail
	}
	x.task.Wait()
	if x.response == nil {
		return nil
	}
	return x.response.Body.Close()
}

// Begin carries out a call by Callee, at once.
func (h *Host) Begin(c *guest.Call, _ guest.JSON) (guest.Invocation, error) {
	if h.Callee == nil {
		return nil, &reached{"calling " + c.Capability + " is not permitted: give the host a Callee", denied}
	}
	file := func(name string) string { return path.Join(h.Dir(), strings.TrimPrefix(name, "/work/")) }
	var source []byte
	if c.Source != "" {
		var err error
		if source, err = os.ReadFile(file(c.Source)); err != nil {
			return nil, err
		}
	}
	outputs, output, failure := h.Callee(*c, source)
	if failure != nil {
		return &invocation{result: []byte(`{"Outputs":{},"Log":[]}`), failure: &reached{failure.Error(), failed}}, nil //nolint:nilerr // the call's, not its beginning's
	}
	if c.Output != "" {
		if err := os.WriteFile(file(c.Output), output, 0o600); err != nil {
			return nil, err
		}
	}
	if outputs == nil {
		outputs = map[string]any{}
	}
	if _, ok := outputs["ExitCode"]; !ok {
		outputs["ExitCode"] = 0
	}
	raw, err := json.Marshal(map[string]any{"Outputs": outputs, "Log": []string{}})
	return &invocation{result: raw}, err
}

type invocation struct {
	closed  bool
	result  []byte
	failure *reached // nil when the callee ended well
}

func (*invocation) Progress() (guest.JSON, bool, error) { return "", false, nil }
func (i *invocation) Result() (guest.JSON, error)       { return guest.JSON(i.result), nil }

func (i *invocation) Close() error {
	i.closed = true
	return nil
}

func (i *invocation) Wait() error {
	if i.failure != nil {
		return i.failure
	}
	return nil
}
