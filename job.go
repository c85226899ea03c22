package beacon

import (
	"context"
	"encoding/json"
	"os"
)

// A Job is a work item as a provider sees it: resolved, staged and bounded.
// A provider keeps nothing of it after Run returns.
type Job struct {
	// Item is the work item; its Action is one that the provider declared.
	Item WorkItem
	// Tenant is whose item it is: what one tenant's items store, spend or are
	// granted is never another's. DefaultTenant where nobody speaks of tenants.
	Tenant string
	// Account is charged with what is done on the item's behalf; nil is none.
	Account *Account
	// Depth is how many calls lead to this job: 0 for an item of a server, 1 for
	// what its provider calls.
	Depth int
	// Dir is the item's own directory, empty but for the staged source. It is
	// never nil, it is removed when the item ends, and everything a provider
	// does with files on an item's behalf goes through it.
	Dir *os.Root
	// Source and Output are names in Dir: the staged source, and where the
	// output is expected. Empty when the item has none.
	Source string
	Output string
	// Sources are the names of all staged sources; the first is Source. Outputs
	// are the names of all outputs that are expected, with slashes between
	// folders, as far as they are not patterns; the first is Output.
	Sources []string
	Outputs []string
	// OnProgress receives what Progress is given; nil drops it.
	OnProgress func(Progress)
}

// DefaultTenant owns every item that no other tenant does.
const DefaultTenant = "default"

// Progress reports how far the job has come. It may be called from any
// goroutine of the provider while Run runs, as often as it likes: whoever
// started the job throttles.
func (j *Job) Progress(p Progress) {
	if j.OnProgress != nil {
		j.OnProgress(p)
	}
}

// Progress is a provider's note on how far it has come. All parts are optional.
type Progress struct {
	// Percent is 0 to 100; HasPercent tells 0 from unknown.
	Percent    float64
	HasPercent bool
	Message    string
	// Step counts from 1 to TotalSteps; 0 means unknown.
	Step       int
	TotalSteps int
	// Log lines are appended to the item's log.
	Log []string
}

// Outputs are the named values that a provider hands back. Values must be
// representable in JSON; byte slices become base64, and so does the content of
// a File.
type Outputs map[string]any

// UnmarshalJSON decodes them one by one. What Go has no value for, such as a number
// that is too large for a float64, stays JSON, a json.RawMessage.
func (o *Outputs) UnmarshalJSON(raw []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(raw, &all); err != nil {
		return err
	}
	if all == nil {
		return nil
	}
	*o = make(Outputs, len(all))
	for name, raw := range all {
		var value any
		if json.Unmarshal(raw, &value) != nil {
			value = raw
		}
		(*o)[name] = value
	}
	return nil
}

// Names of the outputs that every Ultravisor task type knows.
const (
	OutputStdOut   = "StdOut"   // text: what the work printed
	OutputExitCode = "ExitCode" // number: 0 for success
	OutputResult   = "Result"   // the primary value
)

// A Result is what became of a work item: outputs and log lines.
type Result struct {
	Outputs Outputs
	Log     []string
	// Usage is what carrying it out has used, also if a provider failed.
	Usage Usage
}

// ExitCode returns the exit code among the outputs, 0 when there is none.
func (r Result) ExitCode() int {
	switch code := r.Outputs[OutputExitCode].(type) {
	case int:
		return code
	case int32:
		return int(code)
	case int64:
		return int(code)
	case float64:
		return int(code)
	}
	return 0
}

// Failure makes the result of an item that could not be carried out although
// no provider failed: an unknown capability, a download that did not work.
// Servers see it as completed with a non-zero exit code and do not retry it.
func Failure(message string, log ...string) Result {
	return Result{Outputs: Outputs{OutputStdOut: message, OutputExitCode: -1, OutputResult: ""}, Log: log}
}

// Execute runs one work item to its end and says what became of it. An error
// means that the provider failed; the result's log is valid even then.
type Execute func(ctx context.Context, item WorkItem, onProgress func(Progress)) (Result, error)
