package llm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/model"
)

// A checker says whether an answer has the format that was asked for.
type checker func(model.Answer) error

// newChecker makes a checker. A schema that is none is an error now, before
// anything is paid for.
func newChecker(f model.Format) (checker, error) {
	var schema *jsonschema.Schema
	if f.Type == model.FormatJSONSchema {
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Schema))
		if err != nil {
			return nil, wrong(settingFormat, "the schema is not JSON: %s", beacon.Excerpt(err.Error(), 200))
		}
		c := jsonschema.NewCompiler()
		c.UseLoader(nowhere{})
		const name = "schema:response"
		if err := c.AddResource(name, doc); err != nil {
			return nil, wrong(settingFormat, "%s", beacon.Excerpt(err.Error(), 500))
		}
		if schema, err = c.Compile(name); err != nil {
			return nil, wrong(settingFormat, "the schema is not valid: %s", beacon.Excerpt(err.Error(), 500))
		}
	}
	return func(a model.Answer) error {
		if f.Type == "" || a.Finish == model.FinishToolCalls || a.Finish == model.FinishContentFilter {
			return nil
		}
		v, err := jsonschema.UnmarshalJSON(strings.NewReader(a.Content))
		switch {
		case err != nil && a.Finish == model.FinishLength:
			return beacon.Errorf(beacon.Failed, "ResponseFormat: the answer ended at its limit of tokens before its JSON did; raise MaxTokens")
		case err != nil:
			return beacon.Errorf(beacon.Failed, "ResponseFormat: the answer is not JSON: %s", beacon.Excerpt(err.Error(), 300))
		case schema == nil:
			if _, ok := v.(map[string]any); !ok {
				return beacon.Errorf(beacon.Failed, "ResponseFormat: the answer is JSON, but not an object")
			}
			return nil
		}
		if err := schema.Validate(v); err != nil {
			return beacon.Errorf(beacon.Failed, "ResponseFormat: the answer does not fit the schema: %s", beacon.Excerpt(reason(err), 500))
		}
		return nil
	}, nil
}

// reason says in one line where an answer does not fit.
func reason(err error) string {
	var e *jsonschema.ValidationError
	if !errors.As(err, &e) {
		return err.Error()
	}
	for len(e.Causes) > 0 {
		e = e.Causes[0]
	}
	at, _ := json.Marshal("/" + strings.Join(e.InstanceLocation, "/")) // of a string it cannot fail
	lines := strings.Split(strings.TrimSpace(e.Error()), "\n")
	_, what, found := strings.Cut(lines[len(lines)-1], ": ")
	if !found {
		what = lines[len(lines)-1]
	}
	return fmt.Sprintf("at %s: %s", at, what)
}

// nowhere loads no schemas: what a schema of a stranger refers to is neither
// read from this machine nor fetched.
type nowhere struct{}

func (nowhere) Load(string) (any, error) {
	return nil, errors.New("a schema may refer to nothing outside of itself")
}
