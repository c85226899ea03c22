// Package hostfuncs is the host's end of the guest interface beacon_v1. ABI.md
// beside it is normative; a function here does what it says there and nothing
// else. Pointers are checked by package abi before a function runs.
package hostfuncs

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// Name is the import module's name; it contains the version.
const Name = "beacon_v1"

// The error numbers of ABI.md.
const (
	ok abi.Errno = iota
	fault
	invalid
	notFound
	rangeError
	denied
	limit
	canceled
	ioError
	badDescriptor
	exists
	notNow
	network
	timeout
	failed
)

// Limits of single parameters, from ABI.md.
const (
	maxName    = 1 << 10
	maxPath    = 4 << 10
	maxMessage = 4 << 10
	maxLog     = 64 << 10
	maxOutput  = 16 << 20
	maxChunk   = 8 << 20
	maxBuffer  = math.MaxUint32
	maxRequest = 64 << 10
	maxRandom  = 1 << 20
)

// Interface lists the host functions of beacon_v1.
func Interface() abi.Interface[*Item] {
	return abi.Interface[*Item]{
		Name:  Name,
		Fault: fault,
		Long:  limit,
		Enter: (*Item).Count,
		Functions: []abi.Function[*Item]{
			{Name: "work_item", Params: []abi.Param{abi.Out(maxBuffer), abi.Cell(4)}, Func: workItem},
			{Name: "settings", Params: []abi.Param{abi.Out(maxBuffer), abi.Cell(4)}, Func: settings},
			{Name: "setting", Params: []abi.Param{abi.In(maxName), abi.Out(maxBuffer), abi.Cell(4)}, Func: setting},
			{Name: "config", Params: []abi.Param{abi.In(maxName), abi.Out(maxBuffer), abi.Cell(4)}, Func: config},
			{Name: "progress", Params: []abi.Param{abi.F64, abi.I32, abi.I32, abi.Prefix(maxMessage)}, Func: progress},
			{Name: "log", Params: []abi.Param{abi.I32, abi.Prefix(maxLog)}, Func: log},
			{Name: "output", Params: []abi.Param{abi.In(maxName), abi.In(maxOutput)}, Func: output},
			{Name: "fail", Params: []abi.Param{abi.Prefix(maxMessage)}, Func: fail},
			{Name: "describe", Params: []abi.Param{abi.In(maxManifest)}, Func: describe},
			{Name: "last_error", Params: []abi.Param{abi.Out(maxBuffer), abi.Cell(4)}, Func: lastError},
			{Name: "remaining", Params: []abi.Param{abi.Cell(8)}, Func: remaining},
			{Name: "cancelled", Func: cancelled},
			{Name: "now", Params: []abi.Param{abi.I32, abi.Cell(8)}, Func: now(time.Now())},
			{Name: "random", Params: []abi.Param{abi.In(maxRandom)}, Func: random},
			{Name: "file_open", Params: []abi.Param{abi.In(maxPath), abi.I32, abi.Cell(4)}, Func: fileOpen},
			{Name: "file_read", Params: []abi.Param{abi.I32, abi.Out(maxChunk), abi.Cell(4)}, Func: fileRead},
			{Name: "file_write", Params: []abi.Param{abi.I32, abi.Prefix(maxChunk), abi.Cell(4)}, Func: fileWrite},
			{Name: "file_seek", Params: []abi.Param{abi.I32, abi.I64, abi.I32, abi.Cell(8)}, Func: fileSeek},
			{Name: "file_size", Params: []abi.Param{abi.I32, abi.Cell(8)}, Func: fileSize},
			{Name: "file_close", Params: []abi.Param{abi.I32}, Func: fileClose},
			{Name: "file_list", Params: []abi.Param{abi.In(maxPath), abi.Out(maxBuffer), abi.Cell(4)}, Func: fileList},
			{Name: "file_remove", Params: []abi.Param{abi.In(maxPath)}, Func: fileRemove},
			{Name: "file_rename", Params: []abi.Param{abi.In(maxPath), abi.In(maxPath)}, Func: fileRename},
			{Name: "file_make_directory", Params: []abi.Param{abi.In(maxPath)}, Func: fileMakeDirectory},
			{Name: "handle_wait", Params: []abi.Param{abi.In(4 * maxHandles), abi.I64, abi.Cell(4)}, Waits: true, Func: handleWait},
			{Name: "handle_close", Params: []abi.Param{abi.I32}, Func: handleClose},
			{Name: "http_open", Params: []abi.Param{abi.In(maxRequest), abi.Cell(4)}, Waits: true, Func: httpOpen},
			{Name: "http_write", Params: []abi.Param{abi.I32, abi.Prefix(maxChunk), abi.Cell(4)}, Waits: true, Func: httpWrite},
			{Name: "http_wait", Params: []abi.Param{abi.I32, abi.Cell(4)}, Waits: true, Func: httpWait},
			{Name: "http_response", Params: []abi.Param{abi.I32, abi.Out(maxBuffer), abi.Cell(4)}, Waits: true, Func: httpResponse},
			{Name: "http_header", Params: []abi.Param{abi.I32, abi.In(maxName), abi.Out(maxBuffer), abi.Cell(4)}, Func: httpHeader},
			{Name: "http_read", Params: []abi.Param{abi.I32, abi.Out(maxChunk), abi.Cell(4)}, Waits: true, Func: httpRead},
			{Name: "call_open", Params: []abi.Param{abi.In(maxOutput), abi.Cell(4)}, Waits: true, Func: callOpen},
			{Name: "call_progress", Params: []abi.Param{abi.I32, abi.Out(maxBuffer), abi.Cell(4)}, Func: callProgress},
			{Name: "call_wait", Params: []abi.Param{abi.I32}, Waits: true, Func: callWait},
			{Name: "call_result", Params: []abi.Param{abi.I32, abi.Out(maxBuffer), abi.Cell(4)}, Func: callResult},
			{Name: "call_output", Params: []abi.Param{abi.I32, abi.In(maxName), abi.Out(maxBuffer), abi.Cell(4)}, Func: callOutput},
			{Name: "secret", Params: []abi.Param{abi.In(maxName)}, Func: secret},
		},
	}
}

// fill answers with data the way of all functions that fill a buffer: Out at
// buffer, its size at buffer+1.
func fill(c *abi.Call, buffer int, data []byte) abi.Errno {
	c.PutU32(buffer+1, uint32(len(data)))
	if len(data) > len(c.Bytes(buffer)) {
		return rangeError
	}
	copy(c.Bytes(buffer), data)
	return ok
}

// text is a parameter that is text.
func text(c *abi.Call, parameter int) string {
	return strings.ToValidUTF8(c.Text(parameter), "\uFFFD")
}

func workItem(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	raw, err := i.itemJSON()
	if err != nil {
		return ioError
	}
	return fill(c, 0, raw)
}

func settings(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	return fillObject(c, 0, i.job.Item.Settings)
}

func setting(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	return fillText(c, i.job.Item.Settings)
}

func config(i *Item, c *abi.Call) abi.Errno {
	if len(c.Bytes(0)) == 0 {
		return fillObject(c, 1, i.config)
	}
	return fillText(c, i.config)
}

func fillObject(c *abi.Call, buffer int, s beacon.Settings) abi.Errno {
	if s == nil {
		s = beacon.Settings{}
	}
	raw, err := json.Marshal(s)
	if err != nil {
		return invalid
	}
	return fill(c, buffer, raw)
}

func fillText(c *abi.Call, s beacon.Settings) abi.Errno {
	name := text(c, 0)
	raw, present := s[name]
	if !present || string(raw) == "null" {
		return notFound
	}
	if raw = bytes.TrimSpace(raw); len(raw) > 0 && raw[0] != '"' { // is its own text
		return fill(c, 1, raw)
	}
	return fill(c, 1, []byte(s.Text(name)))
}

func progress(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	p := beacon.Progress{
		Message:    excerpt(c.Text(3), maxMessage),
		Step:       int(max(0, int32(c.U32(1)))),
		TotalSteps: int(max(0, int32(c.U32(2)))),
	}
	if percent := c.F64(0); !math.IsNaN(percent) {
		p.Percent, p.HasPercent = min(max(percent, 0), 100), true
	}
	i.job.Progress(p)
	return ok
}

var levels = [...]string{"debug: ", "", "warning: ", "error: "}

func log(i *Item, c *abi.Call) abi.Errno {
	if c.U32(0) >= uint32(len(levels)) {
		return invalid
	}
	i.log.flush() // what standard error has left open is a line of its own
	text := c.Text(1)
	if i.log.dropped > 0 { // then lines are only counted
		i.log.write([]byte(text))
		i.log.flush()
		return ok
	}
	for line := range strings.Lines(text) {
		i.log.write([]byte(levels[c.U32(0)] + strings.TrimSuffix(line, "\n") + "\n"))
	}
	return ok
}

func output(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	name, value := text(c, 0), json.RawMessage(copyOf(c.Bytes(1)))
	if name == "" || !json.Valid(value) || beacon.Nesting(value) > beacon.MaxNesting {
		return invalid
	}
	// A small output costs more than its bytes.
	cost := outputCost + len(name) + len(value)
	if err := i.charge(cost - i.charged(name)); err != nil {
		panic(&abi.Stop{Cause: err})
	}
	if i.outputs == nil {
		i.outputs = beacon.Outputs{}
	}
	i.outputs[name] = plainValue(name, value)
	if name == beacon.OutputExitCode {
		i.exitCodeCost = cost
	}
	return ok
}

// charged is the cost of the output that has the name now.
func (i *Item) charged(name string) int {
	switch value := i.outputs[name].(type) {
	case nil:
		return 0
	case json.RawMessage:
		return outputCost + len(name) + len(value)
	}
	return i.exitCodeCost
}

// copyOf keeps a parameter that is text.
func copyOf(b []byte) []byte {
	if utf8.Valid(b) {
		return bytes.Clone(b)
	}
	return bytes.ToValidUTF8(b, []byte("\uFFFD"))
}

// plainValue decodes the values that the host itself looks at.
func plainValue(name string, value json.RawMessage) any {
	if name == beacon.OutputExitCode {
		var code float64
		if json.Unmarshal(value, &code) == nil && code == math.Trunc(code) && code >= math.MinInt32 && code <= math.MaxUint32 {
			return int(code)
		}
	}
	return value
}

func fail(i *Item, c *abi.Call) abi.Errno {
	i.failure = excerpt(text(c, 0), maxMessage)
	return ok
}

func describe(i *Item, c *abi.Call) abi.Errno {
	if !i.describing {
		return notNow
	}
	i.manifest = append([]byte{}, c.Bytes(0)...)
	return ok
}

func remaining(i *Item, c *abi.Call) abi.Errno {
	left := uint64(math.MaxUint64)
	if !i.deadline.IsZero() {
		left = uint64(max(0, time.Until(i.deadline).Milliseconds()))
	}
	c.PutU64(0, i.taped(TapeRemaining, left))
	return ok
}

// resolution is that of guests' clocks; WASI's are the same.
const resolution = uint64(time.Millisecond)

// now reads the clocks; the monotonic one counts from start, whose own time it
// begins with, so that it goes on in a guest that a later process continues.
func now(start time.Time) func(*Item, *abi.Call) abi.Errno {
	return func(i *Item, c *abi.Call) abi.Errno {
		var ns int64
		kind := TapeWall
		switch c.U32(0) {
		case 0:
			ns = time.Now().UnixNano()
		case 1:
			ns, kind = start.UnixNano()+int64(time.Since(start)), TapeMonotonic
		default:
			return invalid
		}
		v := i.taped(kind, uint64(max(0, ns))) //nolint:gosec // not negative
		c.PutU64(1, v-v%resolution)
		return ok
	}
}

func random(i *Item, c *abi.Call) abi.Errno {
	if i.tape != nil {
		if i.tape.Random(c.Bytes(0)) != nil {
			return ioError
		}
		return ok
	}
	if _, err := rand.Read(c.Bytes(0)); err != nil {
		return ioError
	}
	return ok
}

func cancelled(i *Item, _ *abi.Call) abi.Errno {
	ends := uint64(0)
	if i.cancel.Load() {
		ends = 1
	}
	if i.taped(TapeCancelled, ends) != 0 {
		return canceled
	}
	return ok
}
