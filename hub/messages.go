package hub

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// A message is whatever a worker sends over its socket. What providers filled
// in stays raw: a result is not lost because its log has an odd shape.
type message struct {
	Action         string          `json:"Action"`
	WorkItemHash   string          `json:"WorkItemHash"`
	Outputs        json.RawMessage `json:"Outputs"`
	Log            json.RawMessage `json:"Log"`
	ErrorMessage   json.RawMessage `json:"ErrorMessage"`
	ProgressData   json.RawMessage `json:"ProgressData"`
	OutputFilename string          `json:"OutputFilename"`
	OutputSize     float64         `json:"OutputSize"`
	AttemptNumber  json.RawMessage `json:"AttemptNumber"`
	Usage          json.RawMessage `json:"Usage"`
}

// An event is what the hub sends to a worker, in the real server's order.
type event struct {
	EventType string             `json:"EventType"`
	BeaconID  string             `json:"BeaconID,omitempty"`
	SessionID string             `json:"SessionID,omitempty"` // ours
	WorkItem  *protocol.WorkItem `json:"WorkItem,omitempty"`
	Reason    string             `json:"Reason,omitempty"`
}

// An uploadAck answers a result file.
type uploadAck struct {
	Action       string `json:"Action"`
	WorkItemHash string `json:"WorkItemHash"`
	Success      bool   `json:"Success"`
}

// decodeMessage reads a frame. Fields of the wrong type are taken for absent,
// as the real server would; anything that is not a JSON object is an error.
func decodeMessage(raw []byte) (message, error) {
	var m message
	err := json.Unmarshal(raw, &m)
	var mistyped *json.UnmarshalTypeError
	if errors.As(err, &mistyped) && mistyped.Field != "" {
		err = nil
	}
	return m, err
}

// completion reads the outcome of WorkComplete.
func completion(outputs, log, usage json.RawMessage) ledger.Outcome {
	trimmed := bytes.TrimSpace(outputs)
	switch {
	case len(trimmed) == 0 || string(trimmed) == "null":
		trimmed = []byte("{}")
	case trimmed[0] != '{': // outputs are named; this one gets the name of the primary value
		trimmed = append(append([]byte(`{"Result":`), trimmed...), '}')
	}
	return ledger.Outcome{Status: protocol.StatusComplete, Outputs: trimmed, Log: lines(log), Usage: protocol.DecodeUsage(usage)}
}

// failure reads the outcome of WorkError.
func failure(reason, log, usage json.RawMessage) ledger.Outcome {
	text := text(reason)
	if text == "" {
		text = "Unknown error"
	}
	return ledger.Outcome{Status: protocol.StatusError, Error: text, Log: lines(log), Usage: protocol.DecodeUsage(usage)}
}

// A progress is a ProgressData taken apart.
type progress struct {
	data   json.RawMessage // what is neither log nor bytes; nil when that is nothing
	log    []string
	binary []byte
}

func decodeProgress(raw []byte) (progress, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil {
		return progress{}, err
	}
	var p progress
	if encoded := text(fields["BinaryData"]); encoded != "" {
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return progress{}, errors.New("BinaryData is not base64")
		}
		p.binary = decoded
	}
	p.log = lines(fields["Log"])
	delete(fields, "BinaryData")
	delete(fields, "Log")
	if len(fields) > 0 {
		data, err := protocol.Encode(fields)
		if err != nil {
			return progress{}, err
		}
		p.data = data
	}
	return p, nil
}

// lines reads a log: an array, a single text, or nothing.
func lines(raw json.RawMessage) []string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 || string(raw) == "null" {
		return nil
	}
	var entries []json.RawMessage
	if json.Unmarshal(raw, &entries) != nil {
		return []string{text(raw)}
	}
	out := make([]string, len(entries))
	for i, entry := range entries {
		out[i] = text(entry)
	}
	return out
}

// attempt is the number of a delivery; 0 for anything that is none.
func attempt(raw json.RawMessage) int {
	n, err := strconv.Atoi(text(raw))
	if err != nil || n < 0 {
		return 0
	}
	return n
}

// text is the content of a JSON string, the JSON of any other value, and ""
// for nothing.
func text(raw json.RawMessage) string {
	var s *string
	switch err := json.Unmarshal(raw, &s); {
	case err == nil && s != nil:
		return *s
	case err == nil || len(raw) == 0:
		return ""
	}
	return strings.ToValidUTF8(string(raw), "\uFFFD")
}
