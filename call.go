package beacon

import (
	"io"
	"time"
)

// A Call is a request of a provider to another capability of its beacon, on
// behalf of the item that it works on.
type Call struct {
	Capability string
	Action     string // "" is the first
	Settings   Settings
	// Timeout bounds the callee besides the context; 0 is no bound of its own.
	Timeout time.Duration
	// SourceName and Source are the file that the callee gets; nil is none.
	SourceName string
	Source     io.Reader
	// OutputName is what the callee's output is called, and Output where it
	// goes once the callee has ended well; nil is nowhere.
	OutputName string
	Output     func() (io.WriteCloser, error)
	// OnProgress may be nil.
	OnProgress func(Progress)
}
