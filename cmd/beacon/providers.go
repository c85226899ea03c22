package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/sandbox"
)

type providersOptions struct {
	streams
	flags      moduleFlags
	configPath string
	asJSON     bool
}

func newProvidersCommand(s streams) *cobra.Command {
	o := &providersOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "providers [NAME]",
		Short: "List the providers that are built in, and those of the configuration",
		Long: `List the providers that are built in, and those of the configuration file, if there
is one. With NAME, a capability, show its actions and their settings.`,
		Example: `  beacon providers
  beacon providers Shell`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("providers takes one name at most")
			}
			return o.run(cmd.Context(), strings.Join(args, ""))
		},
	}
	cmd.Flags().StringVarP(&o.configPath, "config", "f", "", "configuration file (default "+configName+", if there is one)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	o.flags.register(cmd.Flags())
	return cmd
}

// A listing is one line of what providers shows; the field names are those of
// its JSON.
type listing struct {
	Capability  string
	Source      string
	BuiltIn     bool
	Configured  bool // the configuration has it
	Description string
	Actions     []beacon.Action
}

func (o *providersOptions) run(ctx context.Context, name string) (err error) {
	file, err := readConfig(o.configPath)
	if err != nil {
		return err
	}
	if file.found {
		file.capable(nil)
	}
	dirs, err := locate("")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	rules, err := readPolicy(o.flags.policy, file)
	if err != nil {
		return err
	}
	g, err := newGuard(rules, dirs, log)
	if err != nil {
		return err
	}
	g.looking = true
	all, closeAll, err := offers(ctx, file.Providers, func() (*sandbox.Sandbox, error) { return o.flags.sandbox(dirs, log) }, dirs, g, builtin.Host{Log: log})
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	var list []listing
	seen := map[string]bool{}
	for _, p := range all {
		c := p.Capability()
		seen[p.name] = true
		list = append(list, listing{c.Name, p.name, builtin.Is(p.name) && p.folder == "", true, c.Description, c.Actions})
	}
	for _, s := range builtin.Sources() {
		if seen[s.Name] {
			continue
		}
		p, err := s.Open(nil, builtin.Host{Log: log})
		if err != nil {
			return err
		}
		c := p.Capability()
		list = append(list, listing{c.Name, s.Name, true, false, c.Description, c.Actions})
	}
	if name != "" {
		list = slicesMatching(list, name)
		if len(list) == 0 {
			return usagef("there is no provider of the capability %s", beacon.Excerpt(name, 80))
		}
	}
	switch {
	case o.asJSON:
		enc := json.NewEncoder(o.out)
		enc.SetIndent("", "  ")
		return enc.Encode(list)
	case name != "":
		for _, l := range list {
			if err := l.detail(o); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "CAPABILITY\tSOURCE\tACTIONS\tCONFIGURED")
	for _, l := range list {
		names := make([]string, len(l.Actions))
		for i, a := range l.Actions {
			names[i] = beacon.Excerpt(a.Name, 80)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", beacon.Excerpt(l.Capability, 80), l.source(), strings.Join(names, ", "), yes(l.Configured))
	}
	return w.Flush()
}

func slicesMatching(list []listing, name string) (found []listing) {
	for _, l := range list {
		if l.Capability == name {
			found = append(found, l)
		}
	}
	return found
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func (l listing) source() string {
	if l.BuiltIn {
		return "built in"
	}
	return beacon.Excerpt(l.Source, 200)
}

// detail shows all that items may say to a provider.
func (l listing) detail(o *providersOptions) error {
	fmt.Fprintf(o.out, "%s (%s)", beacon.Excerpt(l.Capability, 80), l.source())
	if l.Description != "" {
		fmt.Fprintf(o.out, ": %s", beacon.Excerpt(l.Description, 500))
	}
	fmt.Fprintln(o.out)
	for _, a := range l.Actions {
		fmt.Fprintf(o.out, "\n%s  %s\n", beacon.Excerpt(a.Name, 80), beacon.Excerpt(a.Description, 500))
		w := tabwriter.NewWriter(o.out, 0, 0, 2, ' ', 0)
		for _, s := range a.Settings {
			need := ""
			switch {
			case s.Required:
				need = "required"
			case s.Default != nil:
				need = fmt.Sprintf("default %s", beacon.Excerpt(textOf(s.Default), 80))
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", beacon.Excerpt(s.Name, 80), beacon.Excerpt(s.DataType, 20), need, beacon.Excerpt(s.Description, 500))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}
