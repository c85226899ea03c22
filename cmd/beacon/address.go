package main

import (
	"errors"
	"sync/atomic"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/address"
	"github.com/ultravisor/beacon/transport/session"
)

// places are what universal addresses are resolved with.
type places struct {
	*address.Resolver
	client *session.Client
	id     atomic.Pointer[string] // that the server gave this worker
}

// newPlaces opens the contexts of the configuration.
func newPlaces(file config, cfg session.Config) (*places, error) {
	contexts, err := address.Open(file.Contexts, func(context string, err error) {
		// The Node worker does not look at it at all.
		cfg.Logger.Warn("a context cannot be used as a source of items", "context", context, "err", err)
	})
	if err != nil {
		return nil, usage(err)
	}
	client, err := session.NewClient(cfg)
	if err != nil {
		return nil, errors.Join(err, contexts.Close())
	}
	p := &places{client: client}
	p.Resolver = &address.Resolver{Contexts: contexts, Peers: client.Peers, Tenants: file.ContextTenants, Self: func() []string {
		names := []string{cfg.Registration.Name}
		if id := p.id.Load(); id != nil {
			names = append(names, *id)
		}
		return names
	}}
	if len(file.ContextTenants) == 0 {
		p.Tenants = []string{beacon.DefaultTenant}
	}
	return p, nil
}

func (p *places) registered(id string) { p.id.Store(&id) }

func (p *places) close() error {
	p.client.Close()
	return p.Contexts.Close()
}
