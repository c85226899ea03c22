package beacon

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// A Registry is a fixed set of providers, one per capability. It never
// changes, so it is safe for concurrent use.
type Registry struct {
	providers map[string]Provider
	order     []string
}

// NewRegistry indexes providers by the name of their capability. Two providers
// of one capability, and a capability without name or actions, are errors.
func NewRegistry(providers ...Provider) (*Registry, error) {
	r := &Registry{providers: make(map[string]Provider, len(providers))}
	for _, p := range providers {
		c := p.Capability()
		switch {
		case c.Name == "":
			return nil, Errorf(Invalid, "a provider declares a capability without a name")
		case len(c.Actions) == 0:
			return nil, Errorf(Invalid, "capability %s declares no actions", c.Name)
		case r.providers[c.Name] != nil:
			return nil, Errorf(Invalid, "capability %s is offered by two providers: give one of them another name", c.Name)
		}
		seen := map[string]bool{}
		for _, a := range c.Actions {
			if a.Name == "" || seen[a.Name] {
				return nil, Errorf(Invalid, "capability %s declares action %q twice or without a name", c.Name, a.Name)
			}
			seen[a.Name] = true
		}
		r.providers[c.Name] = p
		r.order = append(r.order, c.Name)
	}
	slices.Sort(r.order)
	return r, nil
}

// Capabilities lists what the registry can do, sorted by name.
func (r *Registry) Capabilities() []Capability {
	list := make([]Capability, len(r.order))
	for i, name := range r.order {
		list[i] = r.providers[name].Capability()
	}
	return list
}

// Resolve finds the provider and the action that a work item asks for. An empty
// action means the capability's first. The errors are NotFound and name what
// there is.
func (r *Registry) Resolve(capability, action string) (Provider, Action, error) {
	p := r.providers[capability]
	if p == nil {
		name := Excerpt(capability, 80)
		if action != "" {
			name += "/" + Excerpt(action, 80)
		}
		return nil, Action{}, Errorf(NotFound, "Unknown capability: %s", name)
	}
	c := p.Capability()
	if action == "" {
		return p, c.Actions[0], nil
	}
	names := make([]string, len(c.Actions))
	for i, a := range c.Actions {
		if a.Name == action {
			return p, a, nil
		}
		names[i] = a.Name
	}
	return nil, Action{}, Errorf(NotFound, "Unknown action: %s/%s (%s has %s)", capability, Excerpt(action, 80), capability, join(names))
}

func join(names []string) string {
	const most = 20
	rest := ""
	if len(names) > most {
		names, rest = names[:most], fmt.Sprintf(" and %d more", len(names)-most)
	}
	out := ""
	for i, n := range names {
		if i > 0 {
			out += ", "
		}
		out += n
	}
	return out + rest
}

// Initialize prepares every provider that is an Initializer, in order of
// capability. When one fails, those before it are shut down again.
func (r *Registry) Initialize(ctx context.Context) error {
	for i, name := range r.order {
		p, ok := r.providers[name].(Initializer)
		if !ok {
			continue
		}
		if err := p.Initialize(ctx); err != nil {
			err = fmt.Errorf("initialize %s: %w", name, err)
			return errors.Join(err, r.shutdown(context.WithoutCancel(ctx), r.order[:i]))
		}
	}
	return nil
}

// Shutdown releases every provider that is a Shutdowner, in reverse order. It
// goes on after an error and returns all of them.
func (r *Registry) Shutdown(ctx context.Context) error {
	return r.shutdown(ctx, r.order)
}

func (r *Registry) shutdown(ctx context.Context, names []string) error {
	var errs []error
	for _, name := range slices.Backward(names) {
		if p, ok := r.providers[name].(Shutdowner); ok {
			if err := p.Shutdown(ctx); err != nil {
				errs = append(errs, fmt.Errorf("shut down %s: %w", name, err))
			}
		}
	}
	return errors.Join(errs...)
}
