package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A runRequest is an item on its way to a process.
type runRequest struct {
	Module           uint64
	Left             time.Duration // until the deadline; 0 if there is none
	Dir              string
	Item             beacon.WorkItem
	Tenant           string
	Depth            int
	Source, Output   string
	Sources, Outputs []string
	Progress         bool // somebody listens
}

func (r *runRequest) append(b []byte) []byte {
	b = wire.AppendUint(b, r.Module)
	b = wire.AppendInt(b, int64(r.Left))
	b = wire.AppendString(b, r.Dir)
	i := &r.Item
	for _, s := range [...]string{i.Hash, i.Capability, i.Action, i.OperationHash, i.RunID, r.Tenant, r.Source, r.Output} {
		b = wire.AppendString(b, s)
	}
	b = wire.AppendInt(b, int64(i.Timeout))
	b = wire.AppendInt(b, int64(i.Attempt))
	b = wire.AppendInt(b, int64(r.Depth))
	b = wire.AppendStrings(b, r.Sources)
	b = wire.AppendStrings(b, r.Outputs)
	b = wire.AppendBool(b, r.Progress)
	b = wire.AppendUint(b, uint64(len(i.Settings)))
	for name, value := range i.Settings {
		b = wire.AppendBytes(wire.AppendString(b, name), value)
	}
	return b
}

func parseRun(payload []byte) (*runRequest, error) {
	d := wire.NewDecoder(payload)
	r := &runRequest{Module: d.Uint(), Left: time.Duration(d.Int()), Dir: d.String()}
	i := &r.Item
	for _, s := range [...]*string{&i.Hash, &i.Capability, &i.Action, &i.OperationHash, &i.RunID, &r.Tenant, &r.Source, &r.Output} {
		*s = d.String()
	}
	i.Timeout, i.Attempt, r.Depth = time.Duration(d.Int()), int(d.Int()), int(d.Int())
	r.Sources, r.Outputs, r.Progress = d.Strings(), d.Strings(), d.Bool()
	n := d.Count(2)
	i.Settings = make(beacon.Settings, n)
	for range n {
		name := d.String()
		i.Settings[name] = json.RawMessage(d.String()) // a copy
	}
	return r, d.End()
}

// The ways in which an item ends in a process.
const (
	endedWell = iota
	endedFailed
	endedOver // with its context
)

// A runResult is what became of an item in a process, or of what it has called.
type runResult struct {
	How     int
	Failure wire.Failure
	Result  beacon.Result
	Fuel    int64 // that the supervisor has not been told of
	Memory  int64
}

// The kinds of values of outputs.
const (
	valueJSON = iota
	valueText
	valueInt
)

// size is about how long it is when it is appended.
func (r *runResult) size() int {
	n := 1 << 10
	for _, line := range r.Result.Log {
		n += len(line) + 4
	}
	for name, value := range r.Result.Outputs {
		n += len(name) + 16
		switch v := value.(type) {
		case string:
			n += len(v)
		case json.RawMessage:
			n += len(v)
		}
	}
	return n
}

func (r *runResult) append(b []byte) ([]byte, error) {
	b = wire.AppendUint(b, uint64(r.How)) //nolint:gosec // one of three
	b = wire.AppendString(wire.AppendString(b, r.Failure.Code), r.Failure.Message)
	b = wire.AppendInt(wire.AppendInt(b, r.Fuel), r.Memory)
	b = wire.AppendStrings(b, r.Result.Log)
	b = wire.AppendUint(b, uint64(len(r.Result.Outputs)))
	for name, value := range r.Result.Outputs {
		b = wire.AppendString(b, name)
		if v, ok := value.(int); ok && (v < math.MinInt32 || v > math.MaxUint32) {
			value = json.Number(strconv.Itoa(v)) // as providers of this worker may set it
		}
		switch v := value.(type) {
		case string:
			b = wire.AppendString(append(b, valueText), v)
		case int:
			b = wire.AppendInt(append(b, valueInt), int64(v))
		case json.RawMessage: // what guests set; it was checked
			b = wire.AppendBytes(append(b, valueJSON), v)
		default:
			raw, err := marshal(value)
			if err != nil {
				return nil, fmt.Errorf("encode output %s: %w", beacon.Excerpt(name, 80), err)
			}
			b = wire.AppendBytes(append(b, valueJSON), raw)
		}
	}
	return b, nil
}

// marshal is json.Marshal, but for the characters of HTML, each of which that makes
// six of: a guest's text must not become longer on the way than it may be.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// parseResult reads what a process says became of an item. It is a stranger's
// word.
func parseResult(payload []byte) (*runResult, error) {
	d := wire.NewDecoder(payload)
	r := &runResult{}
	how := d.Uint()
	r.Failure = wire.Failure{Code: d.String(), Message: d.String()}
	r.Fuel, r.Memory = d.Int(), d.Int()
	r.Result.Log = d.Strings()
	n := d.Count(3)
	if n > 0 {
		r.Result.Outputs = make(beacon.Outputs, n)
	}
	for range n {
		name := d.String()
		var value any
		switch d.Byte() {
		case valueJSON:
			raw := json.RawMessage(d.String())
			if !json.Valid(raw) || beacon.Nesting(raw) > beacon.MaxNesting {
				return nil, fmt.Errorf("%w: an output that cannot be one", wire.ErrProtocol)
			}
			value = raw
		case valueText:
			value = d.String()
		case valueInt:
			v := d.Int()
			if v < math.MinInt32 || v > math.MaxUint32 {
				return nil, fmt.Errorf("%w: a number that is none", wire.ErrProtocol)
			}
			value = int(v)
		default:
			return nil, fmt.Errorf("%w: an output of no kind", wire.ErrProtocol)
		}
		r.Result.Outputs[name] = value
	}
	if how > endedOver || r.Fuel < 0 || r.Memory < 0 {
		return nil, fmt.Errorf("%w: a result of another form", wire.ErrProtocol)
	}
	r.How = int(how)
	return r, d.End()
}

// appendProgress is the progress of an item, or of what it calls.
func appendProgress(b []byte, number uint64, p beacon.Progress) []byte {
	b = wire.AppendUint(b, number)
	b = wire.AppendBool(wire.AppendFloat(b, p.Percent), p.HasPercent)
	b = wire.AppendInt(wire.AppendInt(wire.AppendString(b, p.Message), int64(p.Step)), int64(p.TotalSteps))
	return wire.AppendStrings(b, p.Log)
}

func parseProgress(payload []byte) (number uint64, p beacon.Progress, err error) {
	d := wire.NewDecoder(payload)
	number = d.Uint()
	p.Percent, p.HasPercent = d.Float(), d.Bool()
	p.Message, p.Step, p.TotalSteps = d.String(), int(d.Int()), int(d.Int())
	p.Log = d.Strings()
	if p.HasPercent && !(p.Percent >= 0 && p.Percent <= 100) || p.Step < 0 || p.TotalSteps < 0 {
		return 0, p, fmt.Errorf("%w: a progress of another form", wire.ErrProtocol)
	}
	if !p.HasPercent {
		p.Percent = 0
	}
	return number, p, d.End()
}

// An amount is a request about an item, with a number.
type amount struct {
	flight uint64
	n      int64
}

func (a amount) bytes() []byte { return wire.AppendInt(wire.AppendUint(nil, a.flight), a.n) }

func parseAmount(payload []byte) (amount, error) {
	d := wire.NewDecoder(payload)
	return amount{d.Uint(), d.Int()}, d.End()
}

// A fetchRequest is a hostfuncs.Request.
type fetchRequest struct {
	Flight, Number uint64
	Method, URL    string
	Header         map[string][]string
	Body           bool
	BodyLength     int64
	Redirects      int
}

// A fetchResponse is a hostfuncs.Response.
type fetchResponse struct {
	Status     int
	URL, Proto string
	Header     map[string][]string
	Length     int64
}

// A callRequest is a beacon.Call.
type callRequest struct {
	Flight, Number     uint64
	Capability, Action string
	Settings           beacon.Settings
	Timeout            time.Duration
	SourceName         string
	Source             bool
	OutputName         string
	Output             bool
	Progress           bool
}

// A secretRequest asks whether an item may use a secret.
type secretRequest struct {
	Flight uint64
	Name   string
}
