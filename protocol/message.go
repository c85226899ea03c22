package protocol

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
)

// HTTP endpoints that a worker uses, relative to the server's URL. A hash or a
// BeaconID in a path is escaped with url.PathEscape.
const (
	PathAuthenticate = "1.0/Authenticate"
	PathRegister     = "Beacon/Register"
	PathPoll         = "Beacon/Work/Poll"
	PathStatus       = "status"
	PathBeacons      = "Beacon"
)

// PathBeacon is where a beacon's record is, given its escaped id.
func PathBeacon(id string) string { return "Beacon/" + id }

// PathHeartbeat takes heartbeats, given the escaped id of the beacon.
func PathHeartbeat(id string) string { return "Beacon/" + id + "/Heartbeat" }

// PathComplete takes a result, given the escaped hash of the item.
func PathComplete(hash string) string { return "Beacon/Work/" + hash + "/Complete" }

// PathUpload takes an output file of a running item, as it is, with its name in
// the header HeaderOutputFilename.
func PathUpload(hash string) string { return "Beacon/Work/" + hash + "/Upload" }

// HeaderOutputFilename names a file that is uploaded.
const HeaderOutputFilename = "X-Output-Filename"

// PathError takes a provider's error.
func PathError(hash string) string { return "Beacon/Work/" + hash + "/Error" }

// PathProgress takes progress.
func PathProgress(hash string) string { return "Beacon/Work/" + hash + "/Progress" }

// SessionCookie is the name of the cookie that a login yields.
const SessionCookie = "SessionID"

// Credentials are what a login consists of.
type Credentials struct {
	UserName string `json:"UserName"`
	Password string `json:"Password"`
}

// A Login is the answer to Credentials. Servers answer with status 200 even
// when LoggedIn is false, and may serve the beacon nevertheless.
type Login struct {
	LoggedIn  bool   `json:"LoggedIn"`
	SessionID string `json:"SessionID"`
	Error     string `json:"Error"`
}

// EncodeRegister makes the frame that introduces a worker.
func EncodeRegister(r Registration) ([]byte, error) {
	return Encode(struct {
		Action string `json:"Action"`
		Registration
	}{ActionRegister, normal(r)})
}

// EncodeRegistration makes the body that introduces a worker over HTTP.
func EncodeRegistration(r Registration) ([]byte, error) { return Encode(normal(r)) }

// normal fills in what must not be null on the wire.
func normal(r Registration) Registration {
	if r.Capabilities == nil {
		r.Capabilities = []string{}
	}
	if r.Tags == nil {
		r.Tags = map[string]any{}
	}
	if r.SharedMounts == nil {
		r.SharedMounts = []SharedMount{}
	}
	r.MaxConcurrent = max(r.MaxConcurrent, 1)
	return r
}

// EncodeHeartbeat makes the frame that says that a worker is alive.
func EncodeHeartbeat(beaconID string, h Heartbeat) ([]byte, error) {
	return Encode(struct {
		Action   string `json:"Action"`
		BeaconID string `json:"BeaconID"`
		Heartbeat
	}{ActionHeartbeat, beaconID, h})
}

// EncodeDeregister makes the frame that takes a worker's leave.
func EncodeDeregister(beaconID string) ([]byte, error) {
	return encodeBeacon(ActionDeregister, beaconID)
}

func encodeBeacon(action, beaconID string) ([]byte, error) {
	return Encode(struct {
		Action   string `json:"Action"`
		BeaconID string `json:"BeaconID"`
	}{action, beaconID})
}

// NewWorkFailure translates a provider's error for the wire.
// Of the result, the log and the usage count.
func NewWorkFailure(message string, r beacon.Result, attempt int) WorkFailure {
	log := r.Log
	if log == nil {
		log = []string{}
	}
	return WorkFailure{ErrorMessage: message, Log: log, AttemptNumber: attempt, Usage: NewUsage(r.Usage)}
}

// EncodeError makes the frame that reports a provider's error; see NewWorkFailure.
func EncodeError(hash, message string, r beacon.Result, attempt int) ([]byte, error) {
	return Encode(struct {
		Action       string `json:"Action"`
		WorkItemHash string `json:"WorkItemHash"`
		WorkFailure
	}{ActionError, hash, NewWorkFailure(message, r, attempt)})
}

// EncodeProgress makes the frame that reports progress. It fails when the
// percentage is not a number.
func EncodeProgress(hash string, p beacon.Progress) ([]byte, error) {
	return Encode(struct {
		Action       string   `json:"Action"`
		WorkItemHash string   `json:"WorkItemHash"`
		ProgressData Progress `json:"ProgressData"`
	}{ActionProgress, hash, NewProgress(p)})
}

// EncodeCancel makes the frame by which a server takes an item back.
func EncodeCancel(c Cancellation) ([]byte, error) {
	return Encode(struct {
		EventType string `json:"EventType"`
		Cancellation
	}{EventCancel, c})
}

// EncodeUpload makes the frame that announces the binary frame after it, which
// is a file that an item made. Nothing may come between the two.
func EncodeUpload(hash, name string, size int64) ([]byte, error) {
	return Encode(struct {
		Action         string `json:"Action"`
		WorkItemHash   string `json:"WorkItemHash"`
		OutputFilename string `json:"OutputFilename"`
		OutputSize     int64  `json:"OutputSize"`
	}{ActionResultUpload, hash, name, size})
}

// An Event is a text frame from a server. Action is set instead of EventType
// in the acknowledgement of an upload.
type Event struct {
	EventType    string
	Action       string
	BeaconID     string
	Reason       string
	WorkItemHash string
	// SessionID is ours: with EventRegistered, a session for a worker that was let
	// in for its join secret and has none.
	SessionID string
	// AttemptNumber is that of a Cancellation.
	AttemptNumber int
	Success       bool
	// WorkItem is for DecodeWorkItem.
	WorkItem json.RawMessage
}

// DecodeEvent reads a text frame from a server. A field of the wrong type
// counts as absent; only text that is no JSON object is an error.
func DecodeEvent(frame []byte) (Event, error) {
	var e Event
	err := json.Unmarshal(frame, &e)
	if err == nil && !isNull(frame) {
		return e, nil
	}
	fields, err := object(frame)
	if err != nil {
		return Event{}, err
	}
	e = Event{WorkItem: fields["WorkItem"]}
	for name, field := range map[string]*string{
		"EventType": &e.EventType, "Action": &e.Action, "BeaconID": &e.BeaconID,
		"Reason": &e.Reason, "WorkItemHash": &e.WorkItemHash, "SessionID": &e.SessionID,
	} {
		*field, _ = text(fields[name])
	}
	e.AttemptNumber = attempt(fields["AttemptNumber"])
	e.Success = string(fields["Success"]) == "true"
	return e, nil
}

// DecodePush reads a frame that gives out a work item, which are most of a
// busy worker's. It is false for anything else, and for one that must be looked
// at more closely, by DecodeEvent and DecodeWorkItem.
func DecodePush(frame []byte) (beacon.WorkItem, bool) {
	if !bytes.HasPrefix(frame, []byte(`{"EventType":"`+EventWorkItem+`","WorkItem":{`)) {
		return beacon.WorkItem{}, false
	}
	var e struct {
		EventType string   `json:"EventType"`
		WorkItem  WorkItem `json:"WorkItem"`
	}
	if json.Unmarshal(frame, &e) != nil || e.EventType != EventWorkItem {
		return beacon.WorkItem{}, false
	}
	item, err := e.WorkItem.Beacon()
	return item, err == nil
}

// DecodeWorkItem reads a work item from a server. What a server got slightly
// wrong is tolerated: a timeout or an attempt that is text, negative or
// nonsense counts as the number in it or as none, and settings may be null or
// empty. An item that cannot be carried out as meant, because its settings are
// no object, say, is an Invalid error; the item then holds no more than the
// Hash, "" if there is none either.
func DecodeWorkItem(raw []byte) (beacon.WorkItem, error) {
	var w WorkItem
	if json.Unmarshal(raw, &w) == nil && !isNull(raw) {
		return w.Beacon()
	}
	fields, err := object(raw)
	if err != nil {
		return beacon.WorkItem{}, err
	}
	w = WorkItem{}
	var wrong []string
	for _, field := range []struct {
		name   string
		to     *string
		needed bool
	}{
		{"WorkItemHash", &w.WorkItemHash, true},
		{"Capability", &w.Capability, true},
		{"Action", &w.Action, true},
		{"OperationHash", &w.OperationHash, false},
		{"RunID", &w.RunID, false},
	} {
		value, ok := text(fields[field.name])
		if !ok && field.needed {
			wrong = append(wrong, field.name+" is "+kind(fields[field.name])+" instead of text")
		}
		*field.to = value
	}
	switch settings := bytes.TrimSpace(fields["Settings"]); string(settings) {
	case "", "null", `""`, "[]":
	default:
		if err := json.Unmarshal(settings, &w.Settings); err != nil {
			wrong = append(wrong, "Settings is "+kind(settings)+" instead of an object")
		}
	}
	w.TimeoutMs = number(fields["TimeoutMs"])
	w.AttemptNumber = attempt(fields["AttemptNumber"])
	item, err := w.Beacon()
	if err != nil {
		return beacon.WorkItem{}, err
	}
	if len(wrong) > 0 {
		return beacon.WorkItem{Hash: w.WorkItemHash}, beacon.Errorf(beacon.Invalid, "malformed work item: %s", strings.Join(wrong, ", "))
	}
	return item, nil
}

func object(raw []byte) (map[string]json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(raw, &fields); err != nil || fields == nil {
		return nil, beacon.Errorf(beacon.Invalid, "not a JSON object: %s", beacon.Excerpt(string(raw[:min(len(raw), 200)]), 120))
	}
	return fields, nil
}

func isNull(raw []byte) bool { return string(bytes.TrimSpace(raw)) == "null" }

// text reads a JSON string; absent and null are "".
func text(raw json.RawMessage) (value string, ok bool) {
	if len(raw) == 0 || isNull(raw) {
		return "", true
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return "", false
	}
	return value, true
}

// number reads a JSON number, or text that is one; anything else is 0.
func number(raw json.RawMessage) float64 {
	var value float64
	if json.Unmarshal(raw, &value) == nil {
		return value
	}
	digits, _ := text(raw)
	value, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || value != value {
		return 0
	}
	return value
}

// attempt reads the number of a delivery; nonsense is 0.
func attempt(raw json.RawMessage) int { return int(min(max(number(raw), 0), 1<<30)) }

func kind(raw json.RawMessage) string {
	raw = bytes.TrimSpace(raw)
	if len(raw) == 0 {
		return "absent"
	}
	switch raw[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "text"
	case 't', 'f':
		return "a truth value"
	case 'n':
		return "null"
	}
	return "a number"
}

// DecodePoll reads the answer to a poll: the item for DecodeWorkItem, nil when
// there is none.
func DecodePoll(body []byte) (json.RawMessage, error) {
	fields, err := object(body)
	if err != nil {
		return nil, err
	}
	item := fields["WorkItem"]
	if len(item) == 0 || isNull(item) {
		return nil, nil
	}
	return item, nil
}

// mostCanceled is far above what an honest server puts into one answer.
const mostCanceled = 10_000

// DecodeCanceled reads what an answer to Poll, Heartbeat or Progress says of
// items that are no longer wanted. What makes no sense counts as absent.
func DecodeCanceled(body []byte) []Cancellation {
	if !bytes.Contains(body, []byte(`"CanceledWorkItems"`)) {
		return nil // as is every answer of most servers
	}
	fields, err := object(body)
	if err != nil {
		return nil
	}
	var entries []json.RawMessage
	if json.Unmarshal(fields["CanceledWorkItems"], &entries) != nil {
		return nil
	}
	var list []Cancellation
	for _, raw := range entries[:min(len(entries), mostCanceled)] {
		fields, err := object(raw)
		if err != nil {
			continue
		}
		var c Cancellation
		c.WorkItemHash, _ = text(fields["WorkItemHash"])
		c.Reason, _ = text(fields["Reason"])
		c.AttemptNumber = attempt(fields["AttemptNumber"])
		if c.WorkItemHash != "" {
			list = append(list, c)
		}
	}
	return list
}

// DecodeRegistered reads the BeaconID from a beacon's record.
func DecodeRegistered(body []byte) (string, error) {
	fields, err := object(body)
	if err != nil {
		return "", err
	}
	id, ok := text(fields["BeaconID"])
	if !ok || id == "" {
		return "", beacon.Errorf(beacon.Invalid, "a beacon record without BeaconID: %s", beacon.Excerpt(string(body[:min(len(body), 200)]), 120))
	}
	return id, nil
}

// Finalized reports whether the error text of a 400 to a report says that the
// server no longer wants it: the item is unknown, or somebody else was first.
func Finalized(message string) bool {
	return strings.Contains(message, "not found") || strings.Contains(message, "already finalized")
}

// StarvesPollers reads the status of a server: whether it is one whose scheduler
// gives work away before beacons that poll can have it. Those are Ultravisor's
// since April 2026, every half second; what they give away so is not given out
// again.
func StarvesPollers(status []byte) bool {
	fields, err := object(status)
	if err != nil {
		return false
	}
	mode, _ := text(fields["AuthMode"])
	_, ours := fields["Server"]
	return mode != "" && !ours
}

// DecodePeers reads the list of all beacons. A beacon that makes no sense is left
// out, and so is a context.
func DecodePeers(body []byte) ([]Peer, error) {
	var records []json.RawMessage
	if err := json.Unmarshal(body, &records); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "not a list of beacons: %s", beacon.Excerpt(string(body[:min(len(body), 200)]), 120))
	}
	var peers []Peer
	for _, raw := range records {
		fields, err := object(raw)
		if err != nil {
			continue
		}
		p := Peer{Contexts: map[string]Context{}}
		p.BeaconID, _ = text(fields["BeaconID"])
		p.Name, _ = text(fields["Name"])
		var contexts map[string]json.RawMessage
		if json.Unmarshal(fields["Contexts"], &contexts) != nil {
			contexts = nil
		}
		for name, raw := range contexts {
			var c Context
			if json.Unmarshal(raw, &c) == nil {
				p.Contexts[name] = c
			}
		}
		if p.BeaconID != "" || p.Name != "" {
			peers = append(peers, p)
		}
	}
	return peers, nil
}

// DecodeError reads the text of an error answer, "" if there is none.
func DecodeError(body []byte) string {
	fields, err := object(body)
	if err != nil {
		return ""
	}
	for _, name := range []string{"Error", "message"} {
		if value, _ := text(fields[name]); value != "" {
			return value
		}
	}
	return ""
}

// DecodeLogin reads the answer to credentials; one that makes no sense counts
// as not logged in.
func DecodeLogin(body []byte) Login {
	fields, err := object(body)
	if err != nil {
		return Login{Error: "the answer is not a JSON object"}
	}
	l := Login{LoggedIn: string(bytes.TrimSpace(fields["LoggedIn"])) == "true"}
	l.SessionID, _ = text(fields["SessionID"])
	l.Error, _ = text(fields["Error"])
	return l
}
