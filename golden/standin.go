package golden

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"sync"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
)

// A StandIn is a broker that answers from a case. Permissions count as they do in
// a worker.
type StandIn struct {
	test   *Case
	grants policy.Grants

	mu       sync.Mutex
	requests []bool // which have answered
	calls    []bool
	asked    []string // that had no answer
}

// NewStandIn makes the broker of a case's item, to which grants were given.
func NewStandIn(c *Case, grants policy.Grants) *StandIn {
	return &StandIn{test: c, grants: grants, requests: make([]bool, len(c.Requests)), calls: make([]bool, len(c.Calls))}
}

// Asked lists, once the item has ended, what had no answer, and the answers that
// nobody asked for.
func (s *StandIn) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := slices.Clone(s.asked)
	for i, used := range s.requests {
		if r := s.test.Requests[i]; !used {
			list = append(list, fmt.Sprintf("Requests: nobody asked for %s %s", method(r), r.URL))
		}
	}
	for i, used := range s.calls {
		if c := s.test.Calls[i]; !used {
			list = append(list, fmt.Sprintf("Calls: nobody called %s/%s with these settings", c.Capability, c.Action))
		}
	}
	return list
}

func method(r Request) string {
	if r.Method == "" {
		return "GET"
	}
	return r.Method
}

// unanswered notes what the case has no answer for.
func (s *StandIn) unanswered(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	s.asked = append(s.asked, text)
	return beacon.Errorf(beacon.Failed, "%s", text)
}

// Fetch implements hostfuncs.Broker.
func (s *StandIn) Fetch(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Host == "" {
		return nil, beacon.Errorf(beacon.Invalid, "the URL is not one")
	}
	_, ok := s.grants.HTTP(func(rule egress.Rule) bool {
		p := egress.Policy{Allow: []egress.Rule{rule}}
		return p.Check(r.Method, u) == nil
	})
	if !ok {
		return nil, beacon.Errorf(beacon.Denied, "%s %s is not permitted", beacon.Excerpt(r.Method, 20), egress.Redact(u))
	}
	var body []byte
	if r.Body != nil {
		if body, err = io.ReadAll(io.LimitReader(r.Body, MaxFile)); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, answer := range s.test.Requests {
		if s.requests[i] || method(answer) != r.Method || answer.URL != r.URL || answer.Body != nil && *answer.Body != string(body) {
			continue
		}
		s.requests[i] = true
		content := []byte(answer.Response)
		if answer.ResponseFile != "" {
			if content, err = s.test.read(answer.ResponseFile); err != nil {
				return nil, s.unanswered("Requests: the answer to %s: %s", r.URL, err)
			}
		}
		header := map[string][]string{"Content-Length": {strconv.Itoa(len(content))}}
		for name, value := range answer.Headers {
			header[name] = []string{value}
		}
		status := answer.Status
		if status == 0 {
			status = 200
		}
		return &hostfuncs.Response{
			Status: status, URL: r.URL, Proto: "HTTP/1.1", Header: header, Length: int64(len(content)), Body: io.NopCloser(bytes.NewReader(content)),
		}, nil
	}
	sent := ""
	if len(body) > 0 {
		sent = " with the body " + beacon.Excerpt(string(body), 300)
	}
	return nil, s.unanswered("Requests: the case has no answer for %s %s%s", beacon.Excerpt(r.Method, 20), beacon.Excerpt(r.URL, 300), sent)
}

// Call implements hostfuncs.Broker.
func (s *StandIn) Call(_ context.Context, c beacon.Call) (beacon.Result, error) {
	// Without an action it is the capability's first, which only the answer knows.
	if i := slices.IndexFunc(s.test.Calls, func(a Call) bool { return a.Capability == c.Capability }); i >= 0 {
		c.Action = cmp.Or(c.Action, s.test.Calls[i].Action)
	}
	what := beacon.Excerpt(c.Capability, 80) + "/" + beacon.Excerpt(c.Action, 80)
	if _, ok := s.grants.Call(c.Capability, c.Action); !ok {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "calling %s is not permitted", what)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, answer := range s.test.Calls {
		if s.calls[i] || answer.Capability != c.Capability || answer.Action != "" && answer.Action != c.Action || !fits(answer.Settings, c.Settings) {
			continue
		}
		s.calls[i] = true
		result := beacon.Result{Outputs: beacon.Outputs{beacon.OutputExitCode: 0}, Log: answer.Log}
		for name, value := range answer.Outputs {
			result.Outputs[name] = value
		}
		if answer.Error != nil {
			code := answer.Error.Code
			if code == "" {
				code = beacon.Failed
			}
			return result, beacon.Errorf(code, "%s", answer.Error.Message)
		}
		return result, nil
	}
	settings := ""
	for _, name := range sortedNames(c.Settings) {
		settings += fmt.Sprintf("\n  %s: %s", beacon.Excerpt(name, 80), beacon.Excerpt(c.Settings.Text(name), 300))
	}
	return beacon.Result{}, s.unanswered("Calls: the case has no answer for %s with the settings%s", what, settings)
}

func sortedNames(s beacon.Settings) []string {
	names := make([]string, 0, len(s))
	for name := range s {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// fits reports whether a call has the settings that an answer is for.
func fits(want, have beacon.Settings) bool {
	for name, value := range want {
		if !same(value, have[name]) {
			return false
		}
	}
	return true
}

// HasSecret implements hostfuncs.Broker.
func (s *StandIn) HasSecret(name string) bool {
	_, ok := s.grants.Secret(name)
	return ok
}
