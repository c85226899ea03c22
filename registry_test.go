package beacon_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

type provider struct {
	name    string
	actions []string
	events  *[]string
	fail    bool
}

func (p provider) Capability() beacon.Capability {
	c := beacon.Capability{Name: p.name}
	for _, a := range p.actions {
		c.Actions = append(c.Actions, beacon.Action{Name: a})
	}
	return c
}

func (p provider) Run(context.Context, *beacon.Job) (beacon.Result, error) {
	return beacon.Result{}, nil
}

func (p provider) Initialize(context.Context) error {
	if p.fail {
		return errors.New("broken")
	}
	*p.events = append(*p.events, "+"+p.name)
	return nil
}

func (p provider) Shutdown(context.Context) error {
	*p.events = append(*p.events, "-"+p.name)
	return nil
}

func TestRegistryResolve(t *testing.T) {
	r, err := beacon.NewRegistry(
		provider{name: "Shell", actions: []string{"Execute"}},
		provider{name: "FileSystem", actions: []string{"Read", "Write"}},
	)
	require.NoError(t, err)
	tests := map[string]struct {
		capability, action string
		want, message      string
	}{
		"known":              {capability: "FileSystem", action: "Write", want: "Write"},
		"no action":          {capability: "FileSystem", want: "Read"},
		"unknown action":     {capability: "FileSystem", action: "Delete", message: "Unknown action: FileSystem/Delete (FileSystem has Read, Write)"},
		"unknown capability": {capability: "Mail", action: "Send", message: "Unknown capability: Mail/Send"},
		"hostile name":       {capability: "a\x1b[2J", message: `Unknown capability: a\u001b[2J`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, action, err := r.Resolve(tt.capability, tt.action)
			if tt.message != "" {
				require.EqualError(t, err, tt.message)
				require.Equal(t, beacon.NotFound, beacon.CodeOf(err))
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, action.Name)
		})
	}
	names := []string{}
	for _, c := range r.Capabilities() {
		names = append(names, c.Name)
	}
	require.Equal(t, []string{"FileSystem", "Shell"}, names)
}

func TestRegistryRefuses(t *testing.T) {
	tests := map[string][]beacon.Provider{
		"no name":           {provider{actions: []string{"A"}}},
		"no actions":        {provider{name: "A"}},
		"two of a name":     {provider{name: "A", actions: []string{"A"}}, provider{name: "A", actions: []string{"B"}}},
		"an action twice":   {provider{name: "A", actions: []string{"A", "A"}}},
		"a nameless action": {provider{name: "A", actions: []string{""}}},
	}
	for name, providers := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := beacon.NewRegistry(providers...)
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err), "%v", err)
		})
	}
}

func TestRegistryLifecycle(t *testing.T) {
	var events []string
	r, err := beacon.NewRegistry(
		provider{name: "B", actions: []string{"X"}, events: &events},
		provider{name: "A", actions: []string{"X"}, events: &events},
	)
	require.NoError(t, err)
	require.NoError(t, r.Initialize(t.Context()))
	require.NoError(t, r.Shutdown(t.Context()))
	require.Equal(t, []string{"+A", "+B", "-B", "-A"}, events)

	events = nil
	r, err = beacon.NewRegistry(
		provider{name: "A", actions: []string{"X"}, events: &events},
		provider{name: "B", actions: []string{"X"}, events: &events, fail: true},
		provider{name: "C", actions: []string{"X"}, events: &events},
	)
	require.NoError(t, err)
	require.ErrorContains(t, r.Initialize(t.Context()), "initialize B: broken")
	require.Equal(t, []string{"+A", "-A"}, events, "what was initialised is shut down again")
}

// What is advertised can be routed to, and nothing else is advertised.
func TestRegistryAdvertisesWhatItHas(t *testing.T) {
	r, err := beacon.NewRegistry(
		provider{name: "Shell", actions: []string{"Execute"}},
		provider{name: "FileSystem", actions: []string{"Read", "Write"}},
	)
	require.NoError(t, err)
	require.Len(t, r.Capabilities(), 2)
	for _, c := range r.Capabilities() {
		for _, a := range c.Actions {
			p, action, err := r.Resolve(c.Name, a.Name)
			require.NoError(t, err)
			require.Equal(t, c.Name, p.Capability().Name)
			require.Equal(t, a.Name, action.Name)
		}
	}
}
