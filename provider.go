package beacon

import "context"

// A Capability is a named kind of work and the actions it consists of.
type Capability struct {
	Name        string
	Description string
	// Actions has at least one entry; the first is the default action.
	Actions []Action
}

// An Action is one verb of a capability.
type Action struct {
	Name        string
	Description string
	// Settings describe what the action accepts. They inform people and forms;
	// a provider still checks what it is given.
	Settings []Setting
	// Example, if any, is a work item that shows the action at work.
	Example *Example
}

// A Setting describes one parameter of an action.
type Setting struct {
	Name string
	// DataType is one of Ultravisor's words: String, Number, Boolean.
	DataType    string
	Required    bool
	Description string
	// Default is the value when the setting is absent; nil means none.
	Default any
}

// An Example is a ready work item. File names are relative to the folder that
// the provider's source is in.
type Example struct {
	Settings map[string]string
	Source   string
	Output   string
}

// A Provider carries out the actions of one capability.
//
// Run may be called concurrently. It returns soon after ctx is done, and what
// it started has ended by then. A failing piece of work (a command that exits
// non-zero) is a Result with a non-zero ExitCode; an error says that the
// provider itself could not do the work, and servers may retry it. The log of
// the Result counts in both cases.
//
// A Provider may also be an Initializer and a Shutdowner.
type Provider interface {
	Capability() Capability
	Run(ctx context.Context, job *Job) (Result, error)
}

// An Initializer is a Provider that must be prepared before its first Run.
// Initialize is called once.
type Initializer interface {
	Initialize(ctx context.Context) error
}

// A Shutdowner is a Provider that holds resources. Shutdown is called once,
// after the last Run has returned.
type Shutdowner interface {
	Shutdown(ctx context.Context) error
}
