package llm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strconv"
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
		if _, err := expand(doc, doc, map[string]int{}); err != nil {
			return nil, wrong(settingFormat, "%s", err)
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

// maxExpanded bounds a schema whose references are put in. A schema of a
// stranger may otherwise double itself with every line, and checking an answer
// would take for ever. Services allow some thousand properties.
const maxExpanded = 20_000

// expand counts the values of a schema with its references put in, each again
// wherever it is used. known has the counts of references, 0 of those whose
// counting has begun: to refer to oneself costs nothing until there is something
// to check.
func expand(root, at any, known map[string]int) (n int, err error) {
	n = 1
	add := func(v any) error {
		m, err := expand(root, v, known)
		if n += m; err == nil && n > maxExpanded {
			err = fmt.Errorf("the schema is larger than %d values, counted with all that it refers to", maxExpanded)
		}
		return err
	}
	switch v := at.(type) {
	case []any:
		for _, item := range v {
			if err := add(item); err != nil {
				return n, err
			}
		}
	case map[string]any:
		for _, item := range v {
			if err := add(item); err != nil {
				return n, err
			}
		}
		for _, key := range []string{"$ref", "$dynamicRef", "$recursiveRef"} {
			to, ok := v[key].(string)
			if !ok {
				continue
			}
			count, begun := known[to]
			if !begun {
				known[to] = 0
				if count, err = expand(root, target(root, to), known); err != nil {
					return n, err
				}
				known[to] = count
			}
			if n += count; n > maxExpanded {
				return n, fmt.Errorf("the schema is larger than %d values, counted with all that it refers to", maxExpanded)
			}
		}
	}
	return n, nil
}

// target finds what a reference within a schema refers to. For what is not a
// plain path, it is taken to be the whole schema.
func target(root any, ref string) any {
	path, plain := strings.CutPrefix(ref, "#/")
	if !plain {
		return root
	}
	at := root
	for name := range strings.SplitSeq(path, "/") {
		if decoded, err := url.PathUnescape(name); err == nil {
			name = decoded
		}
		name = strings.ReplaceAll(strings.ReplaceAll(name, "~1", "/"), "~0", "~")
		switch v := at.(type) {
		case map[string]any:
			at = v[name]
		case []any:
			i, err := strconv.Atoi(name)
			if err != nil || i < 0 || i >= len(v) {
				return root
			}
			at = v[i]
		default:
			return root
		}
	}
	return at
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
