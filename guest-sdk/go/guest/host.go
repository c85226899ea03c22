package guest

import (
	"strconv"
	"time"
)

// A WorkItem is the request that an item is about. Its Settings come by
// [Host.Setting].
type WorkItem struct {
	Hash          string
	Capability    string
	Action        string // "" means the first action
	OperationHash string // "" for items that belong to no operation
	RunID         string
	Attempt       int // counts from 1; 0 when the server does not count
	// SourcePath and OutputPath are absolute; "" when the item has none.
	SourcePath string
	OutputPath string
}

// Progress tells how far an item has come.
type Progress struct {
	// Percent is 0 to 100, NaN when unknown.
	Percent float64
	// Step counts from 1 to Total; both are 0 when unknown.
	Step, Total int
	Message     string
}

// A Level says how serious a log line is.
type Level int32

// The levels of beacon_v1.
const (
	Debug Level = iota
	Info
	Warning
	Error
)

// A Host is the other side of an item: in a module the functions of beacon_v1,
// off WebAssembly the host of package native. Providers do not use it; they
// have [Item]. The interface grows with the host, so implement it by embedding
// one of those.
type Host interface {
	WorkItem() (WorkItem, error)
	// Setting returns a setting as text: the content of a JSON string, the JSON
	// of anything else. Absent and null settings are not ok.
	Setting(name string) (value string, ok bool, err error)
	// Settings returns all settings as one JSON object.
	Settings() (JSON, error)
	// Config returns a value of the provider's configuration, like Setting;
	// with an empty name all of it.
	Config(name string) (value string, ok bool, err error)
	Progress(Progress)
	Log(level Level, text string)
	Output(name string, value JSON) error
	// Remaining is the time left; not ok when the item has no deadline.
	Remaining() (left time.Duration, ok bool)
	Cancelled() bool
	// Send starts a request; description is the request as the host reads it.
	Send(r *Request, description JSON) (Exchange, error)
	// Begin starts a call in the same way.
	Begin(c *Call, description JSON) (Invocation, error)
	// WaitAny waits until one of the exchanges and invocations can go on; see
	// the function [WaitAny]. A negative timeout has no end.
	WaitAny(timeout time.Duration, of []Handle) (index int, err error)
	HasSecret(name string) bool
	// Dir is the item's directory, without a slash at its end.
	Dir() string
}

// A Handle is an [Exchange] or an [Invocation].
type Handle interface{ Close() error }

// An Errno is an error number of beacon_v1.
type Errno int32

var errnoNames = [...]string{
	"no error", "bad pointer", "invalid parameter", "not found", "buffer too small", "not permitted",
	"over a limit of size or number", "the item is being cancelled", "the host or its file system failed",
	"not an open file or handle", "exists already", "not possible now", "the other side cannot be reached or broke off",
	"the time given is over", "the provider that was called failed",
}

// Numbers that a provider may want to tell apart, with errors.Is.
const (
	ErrNotFound = Errno(3)
	ErrDenied   = Errno(5)  // the operator did not permit it
	ErrLimit    = Errno(6)  // over a limit
	ErrNetwork  = Errno(12) // cannot be reached, or broke off
	ErrTimeout  = Errno(13) // the time that the provider gave is over
	ErrFailed   = Errno(14) // the provider that was called failed
)

func (e Errno) Error() string {
	if e >= 0 && int(e) < len(errnoNames) {
		return errnoNames[e]
	}
	return "host error " + strconv.Itoa(int(e))
}

// parseWorkItem reads the JSON of the function work_item.
func parseWorkItem(s string) (WorkItem, error) {
	var w WorkItem
	err := members(s, func(name, raw string) {
		switch name {
		case "WorkItemHash":
			w.Hash = text(raw)
		case "Capability":
			w.Capability = text(raw)
		case "Action":
			w.Action = text(raw)
		case "OperationHash":
			w.OperationHash = text(raw)
		case "RunID":
			w.RunID = text(raw)
		case "SourcePath":
			w.SourcePath = text(raw)
		case "OutputPath":
			w.OutputPath = text(raw)
		case "AttemptNumber":
			w.Attempt, _ = strconv.Atoi(raw) // informative; the host writes a number
		}
	})
	return w, err
}
