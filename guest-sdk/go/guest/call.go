package guest

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Call asks another capability of the beacon for an action: an LLM, files,
// another module. The operator decides which calls are permitted; a provider
// declares those that it makes in its Permissions:
//
//	{Permission: "call LLM/ChatCompletion", Reason: "to summarise the text"}
type Call struct {
	Capability string
	Action     string // "" is the capability's first
	// Settings hold values as [Item.Set] takes them.
	Settings map[string]any
	// Source is a file of the item's directory, which the callee gets a copy of.
	// Output is where the callee's output goes, in the same directory.
	Source string
	Output string
	// Timeout bounds the call; 0 is no bound but the item's.
	Timeout time.Duration
	// Forward makes the callee's progress the item's.
	Forward bool
	// OnProgress, if any, is told of the callee's progress while the call is
	// waited for.
	OnProgress func(Progress)
}

// An Invocation is the host's side of a call. Providers have [Running].
type Invocation interface {
	// Progress waits for the next message, JSON as ABI.md has it; not ok after
	// the last one.
	Progress() (message JSON, ok bool, err error)
	// Wait waits for the end. An error is the callee's.
	Wait() error
	// Result is JSON as ABI.md has it, also after an error of Wait.
	Result() (JSON, error)
	Close() error
}

func (c *Call) json() (JSON, error) {
	b := []byte(`{"Capability":`)
	b = appendString(b, c.Capability)
	if c.Action != "" {
		b = appendMember(b, "Action", c.Action)
	}
	b = append(b, `,"Settings":{`...)
	for i, name := range sorted(c.Settings) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		var err error
		if b, err = appendValue(b, c.Settings[name]); err != nil {
			return "", errors.New("setting " + name + ": " + err.Error())
		}
	}
	b = append(b, '}')
	if c.Source != "" {
		b = appendMember(b, "Source", c.Source)
	}
	if c.Output != "" {
		b = appendMember(b, "Output", c.Output)
	}
	b = appendTimeout(b, c.Timeout)
	switch {
	case c.Forward:
		b = appendMember(b, "Progress", "forward")
	case c.OnProgress != nil:
		b = appendMember(b, "Progress", "keep")
	}
	return JSON(append(b, '}')), nil
}

func (c *Call) name() string {
	if c.Action == "" {
		return "call " + c.Capability
	}
	return "call " + c.Capability + "/" + c.Action
}

// Begin starts a call, which goes on meanwhile; many can be under way. What is
// left open ends with the item.
func (it *Item) Begin(c Call) (*Running, error) {
	if c.Forward && c.OnProgress != nil {
		return nil, errors.New(c.name() + ": want Forward or OnProgress, not both")
	}
	request, err := c.json()
	if err != nil {
		return nil, &reachError{c.name(), err}
	}
	x, err := it.host.Begin(&c, request)
	if err != nil {
		return nil, &reachError{c.name(), err}
	}
	return &Running{c, x}, nil
}

// Call has another capability carry out an action, and waits for it. A callee
// that did its work with a non-zero exit code is no error; see
// [CallResult.ExitCode]. With an error of the callee the result has its log.
func (it *Item) Call(c Call) (*CallResult, error) {
	r, err := it.Begin(c)
	if err != nil {
		return nil, err
	}
	return r.Wait()
}

// A Running is a call that is under way.
type Running struct {
	call       Call
	invocation Invocation
}

// Wait waits for the end of the call and frees it.
func (r *Running) Wait() (*CallResult, error) {
	for r.call.OnProgress != nil {
		message, ok, err := r.invocation.Progress()
		if err != nil {
			return nil, &reachError{r.call.name(), errors.Join(err, r.Close())}
		}
		if !ok {
			break
		}
		p, err := parseProgress(string(message))
		if err != nil {
			return nil, &reachError{r.call.name(), errors.Join(err, r.Close())}
		}
		r.call.OnProgress(p)
	}
	failure := r.invocation.Wait()
	raw, err := r.invocation.Result()
	if err = errors.Join(failure, err, r.Close()); err != nil {
		err = &reachError{r.call.name(), err}
	}
	result := &CallResult{}
	parseErr := members(string(raw), func(name, value string) {
		switch name {
		case "Outputs":
			result.Outputs = JSON(value)
		case "Log":
			result.Log = JSON(value)
		}
	})
	if err == nil && parseErr != nil {
		err = &reachError{r.call.name(), parseErr}
	}
	return result, err
}

// Close ends the call.
func (r *Running) Close() error { return r.invocation.Close() }

func parseProgress(s string) (Progress, error) {
	p := Progress{Percent: Unknown}
	err := members(s, func(name, raw string) {
		switch name {
		case "Percent":
			if v, err := strconv.ParseFloat(raw, 64); err == nil {
				p.Percent = v
			}
		case "Message":
			p.Message = text(raw)
		case "Step":
			p.Step, _ = strconv.Atoi(raw) // informative; the host writes a number
		case "TotalSteps":
			p.Total, _ = strconv.Atoi(raw) // the same
		}
	})
	return p, err
}

// A CallResult is what became of a call.
type CallResult struct {
	// Outputs is a JSON object, Log a JSON array of lines.
	Outputs JSON
	Log     JSON
}

// Lookup returns one output as text: the content of a JSON string, the JSON of
// anything else. Absent and null outputs are not ok.
func (r *CallResult) Lookup(name string) (value string, ok bool) {
	// What the host sent was read before, so there is no error to report.
	_ = members(string(r.Outputs), func(n, raw string) {
		if n == name && strings.TrimSpace(raw) != "null" {
			value, ok = text(raw), true
		}
	})
	return value, ok
}

// Text returns one output as text, "" when there is none.
func (r *CallResult) Text(name string) string {
	value, _ := r.Lookup(name)
	return value
}

// ExitCode is the callee's: 0 is success.
func (r *CallResult) ExitCode() int {
	code, err := strconv.Atoi(r.Text("ExitCode"))
	if err != nil {
		return 0
	}
	return code
}

// HasSecret reports whether the operator granted a secret; see [Secret].
func (it *Item) HasSecret(name string) bool { return it.host.HasSecret(name) }
