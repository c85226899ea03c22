package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/origin"
)

type lockOptions struct {
	streams
	flags      moduleFlags
	configPath string
	modules    []string
	accept     bool
	check      bool
}

func newLockCommand(s streams) *cobra.Command {
	o := &lockOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "lock [--accept] [--check]",
		Short: "Pin the modules of the configuration, and see what has changed about them",
		Long: `Pin the modules of the configuration in ` + origin.LockName + ` beside it: what each is, by its
SHA-256, and the permissions that it wants. From then on a worker refuses a module that
is not as it was pinned. Say it again to pin newer versions; one that wants more than it
did is shown, and takes --accept.`,
		Example: `  beacon lock
  beacon lock --accept`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	f := cmd.Flags()
	f.StringVarP(&o.configPath, "config", "f", "", "configuration file (default "+configName+", if there is one)")
	f.StringArrayVarP(&o.modules, "module", "m", nil, "pin this module, too; may be repeated")
	f.BoolVar(&o.accept, "accept", false, "accept that a module wants more")
	f.BoolVar(&o.check, "check", false, "only say what has changed, and fail if anything has")
	o.flags.register(f)
	return cmd
}

func (o *lockOptions) run(ctx context.Context) (err error) {
	if o.accept && o.check {
		return usagef("--accept and --check are both given: either something is changed or not")
	}
	file, err := readConfig(o.configPath)
	if err != nil {
		return err
	}
	list := file.Providers
	for _, path := range o.modules {
		if !slices.ContainsFunc(list, func(p providerConfig) bool { return p.Source == path }) {
			list = append(list, providerConfig{Source: path})
		}
	}
	list = slices.DeleteFunc(slices.Clone(list), func(p providerConfig) bool { return builtin.Is(p.Source) })
	if len(list) == 0 {
		return usagef("there is nothing to lock: the configuration names no modules; --module names one")
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
	if err := g.readLock(o.configPath); err != nil {
		return err
	}
	box, err := o.flags.sandbox(dirs, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	now := origin.Lock{Modules: map[string]origin.Locked{}}
	asks, changed := false, g.lock == nil
	for _, p := range list {
		if err := p.size(o.flags.memory); err != nil {
			return err
		}
		m, err := load(ctx, box.Runtime(), dirs, p, g)
		if err != nil {
			return err
		}
		is := locked(m.Digest(), m.Manifest())
		if err := m.Close(context.WithoutCancel(ctx)); err != nil {
			return err
		}
		change := g.lock.Compare(p.Source, is)
		asks, changed = asks || change.Asks(), changed || change.Any()
		now.Modules[p.Source] = is
		fmt.Fprintln(o.out, change)
	}
	if g.lock != nil {
		for _, source := range slices.Sorted(maps.Keys(g.lock.Modules)) {
			if _, there := now.Modules[source]; !there {
				changed = true
				fmt.Fprintf(o.out, "module %s is in %s and not in the configuration\n", beacon.Excerpt(origin.Redact(source), 200), origin.LockName)
			}
		}
	}
	name := lockFile(o.configPath)
	switch {
	case !changed:
		return nil
	case o.check:
		return &coded{exitRefused, errors.New("modules are not as they were accepted")}
	case asks && !o.accept:
		return beacon.Errorf(beacon.Refused, "a module wants more than was accepted; nothing is written; if you agree, run \"beacon lock --accept\"")
	}
	if err := now.Write(name); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "beacon: %s pins %d modules\n", name, len(now.Modules))
	return nil
}
