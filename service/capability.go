package service

import (
	"context"

	"github.com/ultravisor/beacon"
)

// A Handler carries out one action. It may be called concurrently, returns
// soon after ctx is done, and keeps nothing of the job afterwards.
//
// Work that did not succeed is a Result with a non-zero ExitCode. An error says
// that the handler itself could not do the work, and servers may retry it: the
// text of a beacon.Error reaches whoever submitted the item, the text of any
// other error only the log.
type Handler func(ctx context.Context, job *beacon.Job) (beacon.Result, error)

// A Capability describes a kind of work and has the functions that do it. It is
// a beacon.Provider.
type Capability struct {
	Name        string
	Description string
	// Actions has at least one entry; the first is what an item without an
	// action gets.
	Actions []Action
}

// An Action is one verb of a Capability. Name and Handler are required.
type Action struct {
	Name        string
	Description string
	Settings    []beacon.Setting
	Handler     Handler
}

// Capability implements beacon.Provider.
func (c Capability) Capability() beacon.Capability {
	described := beacon.Capability{Name: c.Name, Description: c.Description}
	for _, a := range c.Actions {
		described.Actions = append(described.Actions, beacon.Action{Name: a.Name, Description: a.Description, Settings: a.Settings})
	}
	return described
}

// Run implements beacon.Provider: it calls the action's handler.
func (c Capability) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	for _, a := range c.Actions {
		if a.Name == job.Item.Action && a.Handler != nil {
			return a.Handler(ctx, job)
		}
	}
	return beacon.Result{}, beacon.Errorf(beacon.NotFound, "capability %s has no action %s", c.Name, beacon.Excerpt(job.Item.Action, 80))
}

// check finds what would only show when an item arrives.
func (c Capability) check() error {
	for _, a := range c.Actions {
		if a.Handler == nil {
			return beacon.Errorf(beacon.Invalid, "action %s of capability %s has no handler: set Action.Handler", a.Name, c.Name)
		}
	}
	return nil
}
