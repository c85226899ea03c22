package main

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/origin"
	"github.com/ultravisor/beacon/sandbox"
)

// An offered provider, and what people know it by: the name of its module or
// built-in source. folder is what the files of a module's examples are relative
// to, "" for a built-in provider.
type offered struct {
	beacon.Provider
	name, folder string
	config       providerConfig
}

// offers makes the providers of a configuration, in its order. Whatever
// happens, close frees what was loaded.
func offers(ctx context.Context, list []providerConfig, open func() (*sandbox.Sandbox, error), dirs folders, g *guard, host builtin.Host) (all []offered, closeAll func() error, err error) {
	var modules []runnable
	var box *sandbox.Sandbox
	var leftOut error
	closeAll = func() (err error) {
		for _, m := range modules {
			err = errors.Join(err, m.Close(context.WithoutCancel(ctx)))
		}
		if box != nil {
			err = errors.Join(err, box.Close())
		}
		return err
	}
	for _, p := range list {
		if builtin.Is(p.Source) {
			provider, err := builtin.Open(p.Source, p.Config, host)
			if err != nil {
				return nil, closeAll, err
			}
			if len(p.Permissions) > 0 {
				return nil, closeAll, usagef("provider %s is built in: Permissions are for modules", p.Source)
			}
			all = append(all, offered{provider, p.Source, "", p})
			continue
		}
		if box == nil {
			if box, err = open(); err != nil {
				return nil, closeAll, err
			}
		}
		m, provider, folder, err := loadIsolated(ctx, box, dirs, p, g)
		if err != nil && g.serving && len(list) > 1 && exhausts(err) {
			// The others are not to suffer for it.
			g.log.Error("a module is left out", "module", origin.Redact(p.Source), "err", err)
			leftOut = err
			continue
		}
		if err != nil {
			return nil, closeAll, err
		}
		modules = append(modules, m)
		all = append(all, offered{provider, m.Name(), folder, p})
	}
	if len(all) == 0 && leftOut != nil {
		return nil, closeAll, leftOut
	}
	return all, closeAll, nil
}

// exhausts reports whether a module takes more than it may to be made ready,
// which nobody can know before.
func exhausts(err error) bool {
	code := beacon.CodeOf(err)
	return code == beacon.Timeout || code == beacon.MemoryLimit
}

func registryOf(all []offered) (*beacon.Registry, error) {
	providers := make([]beacon.Provider, len(all))
	for i, p := range all {
		providers[i] = p.Provider
	}
	return beacon.NewRegistry(providers...)
}

// capable chooses the providers of a worker whose configuration may come from
// the Node worker: those in Providers, or else the sources in Capabilities, or
// else Shell. Names on the command line come first; what the file says about
// one of them still counts, so that nobody opens with a flag what a
// configuration restricts.
func (c *config) capable(names []string) {
	switch {
	case len(names) > 0:
		var chosen []providerConfig
		for _, name := range names {
			i := slices.IndexFunc(c.Providers, func(p providerConfig) bool { return p.Source == name })
			if i < 0 {
				chosen = append(chosen, providerConfig{Source: name})
			} else {
				chosen = append(chosen, c.Providers[i])
			}
		}
		c.Providers = chosen
	case c.Providers != nil:
	case c.Capabilities != nil:
		for _, name := range c.Capabilities {
			c.Providers = append(c.Providers, providerConfig{Source: name})
		}
	default:
		c.Providers = []providerConfig{{Source: "Shell"}}
	}
}

// errNothing is the answer to a call that offers nothing. To run any command
// for anybody is nothing to begin by chance, so it takes a word.
func errNothing() error {
	return usagef("nothing to offer: --module names a .wasm file or a folder of source, --capabilities names built-in providers (%s)",
		strings.Join(builtin.Names(), ", "))
}
