// Package builtin lists the providers that are part of Beacon: native code,
// trusted like the worker itself. A configuration names them by their source.
package builtin

import (
	"encoding/json"
	"log/slog"
	"slices"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/filesystem"
	"github.com/ultravisor/beacon/builtin/llm"
	"github.com/ultravisor/beacon/builtin/shell"
	"github.com/ultravisor/beacon/jsonfile"
)

// A Source makes the provider of one built-in capability.
type Source struct {
	// Name is what a configuration calls it, and the capability it offers.
	Name string
	// Open makes the provider from its configuration, whose keys are the fields
	// of the provider's Config. An unknown key and a value that makes no sense
	// are errors with code beacon.Invalid. Nothing is started yet.
	Open func(config beacon.Settings, host Host) (beacon.Provider, error)
}

// A Host is the program that providers are part of. The zero value is any
// program.
type Host struct {
	// Owner says that the program's only children are those that it waits for
	// itself; see shell.Config.
	Owner bool
	// Folder is what relative paths of items are relative to; "" means the
	// working directory.
	Folder string
	// DailyBudget, if any, bounds what tenants use of language models in a day, in
	// tokens and dollars; 0 is no bound.
	DailyBudget func(tenant string) (tokens int64, cost float64)
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// Sources lists what there is, sorted by name.
func Sources() []Source {
	return []Source{
		{"FileSystem", source(func(cfg filesystem.Config, host Host) (*filesystem.Provider, error) {
			cfg.Folder = host.Folder
			return filesystem.New(cfg)
		})},
		{"LLM", source(func(cfg llm.Config, host Host) (*llm.Provider, error) {
			cfg.Log, cfg.DailyBudget = host.Log, host.DailyBudget
			return llm.New(cfg)
		})},
		{"Shell", source(func(cfg shell.Config, host Host) (*shell.Provider, error) {
			cfg.Owner, cfg.Log = host.Owner, host.Log
			return shell.New(cfg)
		})},
	}
}

// Names lists the names of the sources.
func Names() []string {
	var names []string
	for _, s := range Sources() {
		names = append(names, s.Name)
	}
	return names
}

// Is reports whether there is a source of that name.
func Is(name string) bool { return slices.Contains(Names(), name) }

// Open makes the provider of the source with that name. A name that there is
// none of is an error with code beacon.NotFound.
func Open(name string, config beacon.Settings, host Host) (beacon.Provider, error) {
	for _, s := range Sources() {
		if s.Name != name {
			continue
		}
		p, err := s.Open(config, host)
		if err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "configuration of %s: %w", name, err)
		}
		return p, nil
	}
	return nil, beacon.Errorf(beacon.NotFound, "there is no built-in provider %s (there is %q)", beacon.Excerpt(name, 80), Names())
}

// source adapts the constructor of a provider: C is its Config.
func source[C any, P beacon.Provider](open func(C, Host) (P, error)) func(beacon.Settings, Host) (beacon.Provider, error) {
	return func(config beacon.Settings, host Host) (beacon.Provider, error) {
		var c C
		if len(config) > 0 {
			raw, err := json.Marshal(config)
			if err != nil {
				return nil, err
			}
			if err := jsonfile.Decode(raw, &c); err != nil {
				return nil, beacon.Errorf(beacon.Invalid, "%w", err)
			}
		}
		return open(c, host)
	}
}
