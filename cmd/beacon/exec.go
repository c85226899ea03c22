package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/jsonfile"
	"github.com/ultravisor/beacon/replay"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/staging"
)

type execOptions struct {
	streams
	module      string
	capability  string
	moduleFlags moduleFlags
	settings    settingFlags
	configPath  string
	tenant      string
	action      string
	source      string
	output      string
	timeout     time.Duration
	asJSON      bool
	quiet       bool
	passthrough bool
	record      string
	fuelProfile string
	args        []string
}

func newExecCommand(s streams) *cobra.Command {
	o := &execOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "exec (--module MODULE | --capability NAME) [flags] [-- ARGUMENT...]",
		Short: "Run one work item here, without a server",
		Long: `Run one work item here, without a server, in the same sandbox as a worker would.

MODULE is a .wasm file, or the folder of a provider's source, which is built first.
NAME is a provider that is built in, which no sandbox is around: ` + strings.Join(builtin.Names(), ", ") + `.
For a plain WASI program the words after -- are its arguments; in them {SourcePath}
and {OutputPath} stand for the files as the program sees them. Without arguments its
standard input is the work item as JSON; --set Stdin=source gives it the source instead,
--set Stdin=none nothing. Standard input of this command is not passed on.

Exit codes: 0 success, 1 the item failed, 2 usage, 4 the module was refused,
5 a limit was hit, 130 interrupted.`,
		Example: `  beacon exec --module ./examples/wasm/transform --set To=jsonl --source data.csv --output data.jsonl
  beacon exec --module jq.wasm --source data.json -- -c .items {SourcePath}
  beacon exec --capability Shell --source data.csv --set Command='wc -l {SourcePath}'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 && cmd.ArgsLenAtDash() != 0 {
				return usagef("unexpected argument %q: arguments for the program go after --", args[0])
			}
			o.args = args
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.module, "module", "m", "", "the provider: a .wasm file or a folder of source")
	f.StringVarP(&o.capability, "capability", "c", "", "instead of a module: a built-in provider, "+strings.Join(builtin.Names(), ", "))
	f.StringVarP(&o.action, "action", "a", "", "the action; default is the provider's first")
	f.StringVar(&o.source, "source", "", "a file to work on")
	f.StringVarP(&o.output, "output", "o", "", "where to put the output file")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long the item may take")
	f.BoolVar(&o.asJSON, "json", false, "print the whole result as JSON")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print neither progress nor log")
	f.BoolVar(&o.passthrough, "passthrough", false, "end with the program's own exit code")
	f.StringVar(&o.record, "record", "", "write down what the item is given and answered to this file, for beacon replay")
	f.StringVar(&o.fuelProfile, "fuel-profile", "", "file to write where the module's instructions went, for go tool pprof; slow: see beacon replay --help")
	f.StringVarP(&o.configPath, "config", "f", "", "configuration file, for the policy and for the other providers that the item may call")
	f.StringVar(&o.tenant, "tenant", "", "whose item it is: which secrets, permissions and limits of the policy count (default the provider's Tenant)")
	o.settings.register(f)
	o.moduleFlags.register(f)
	return cmd
}

func (o *execOptions) run(ctx context.Context) (err error) {
	switch {
	case o.module == "" && o.capability == "":
		return usagef("--module is missing: name a .wasm file or a folder of source (or, with --capability, a built-in provider)")
	case o.module != "" && o.capability != "":
		return usagef("--module and --capability are both given: an item has one provider")
	case o.capability != "" && o.record != "":
		return usagef("--record is for modules, and %s is built in", beacon.Excerpt(o.capability, 80))
	case o.capability != "" && o.fuelProfile != "":
		return usagef("--fuel-profile is for modules, and %s is built in", beacon.Excerpt(o.capability, 80))
	case o.capability != "" && !builtin.Is(o.capability):
		return usagef("--capability %s: built in are %s", beacon.Excerpt(o.capability, 80), strings.Join(builtin.Names(), ", "))
	}
	if o.timeout <= 0 {
		return usagef("--timeout %s: want a time above zero, such as 30s", o.timeout)
	}
	settings, err := o.settings.settings(o.in)
	if err != nil {
		return err
	}
	config, err := o.moduleFlags.settings()
	if err != nil {
		return err
	}
	if len(o.args) > 0 {
		raw, err := json.Marshal(o.args)
		if err != nil {
			return fmt.Errorf("encode the arguments: %w", err)
		}
		settings["Args"] = raw
	}
	// With a URL as its source the item is as a server would send it.
	remote := settings.Has("SourceURL") || settings.Has("Sources") || settings.Has("Outputs")
	if remote && (o.source != "" || o.output != "") {
		return usagef("--source and --output do not go with the settings SourceURL, Sources and Outputs: use OutputFilename, and --json to see OutputData")
	}
	if err := checkFiles(o.source, o.output); err != nil {
		return err
	}
	dirs, err := locate("")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	list, file, err := o.providers(config)
	if err != nil {
		return err
	}
	rules, err := readPolicy(o.moduleFlags.policy, file)
	if err != nil {
		return err
	}
	g, err := newGuard(rules, dirs, log)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.readLock(o.configPath); err != nil {
		return err
	}
	var profiled *wasmrt.Module
	if o.fuelProfile != "" {
		list[0].profiled = func(m *wasmrt.Module) { profiled = m }
	}
	if o.record != "" {
		list[0].record(func(beacon.Result, error) bool { return true }, o.keep)
	}
	all, closeAll, err := offers(ctx, list, func() (*sandbox.Sandbox, error) { return o.moduleFlags.sandbox(dirs, log) }, dirs, g, builtin.Host{Owner: true, DailyBudget: dailyBudget(rules), Log: log})
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	tenants, err := newTenancy(rules, all, 1)
	if err != nil {
		return err
	}
	defer tenants.scheduler.Close()
	registry, err := registryOf(all)
	if err != nil {
		return err
	}
	m := all[0].Capability()
	capability := m.Name
	if _, _, err := registry.Resolve(capability, o.action); err != nil {
		return usage(err)
	}
	store, err := staging.Open(dirs.staging)
	if err != nil {
		return usage(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	download := staging.NewDownloader(staging.DownloadConfig{Log: log})
	defer download.CloseIdle()

	if err := registry.Initialize(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Shutdown(context.WithoutCancel(ctx))) }()

	o.unknownSettings(m, settings)

	item := beacon.WorkItem{
		Hash:       "exec-" + rand.Text(),
		Capability: capability,
		Action:     o.action,
		Settings:   settings,
		Timeout:    o.timeout,
		Attempt:    1,
	}
	run := executor.New(registry, store, download, tenants.configure(executor.Config{Log: log}, nil))
	g.call = run.Call
	bar := newBar(o.err, o.quiet || o.asJSON)
	started := time.Now()
	var result beacon.Result
	if remote {
		result, err = run.Run(ctx, item, bar.update)
	} else {
		result, err = run.RunLocal(ctx, item, o.source, o.output, bar.update)
	}
	bar.end()
	if profiled != nil {
		if err := writeProfile(profiled, o.fuelProfile); err != nil {
			return err
		}
	}
	return outcome{o.streams, o.asJSON, o.quiet, o.passthrough}.show(result, err, time.Since(started))
}

// keep writes the recording.
func (o *execOptions) keep(r *replay.Recording, err error) {
	if err == nil {
		err = r.WriteFile(o.record)
	}
	if err != nil {
		fmt.Fprintf(o.err, "beacon: --record %s: %s\n", o.record, err)
	}
}

// providers are the one that carries out the item, and those of the
// configuration, if one is named, that it may call.
func (o *execOptions) providers(settings beacon.Settings) ([]providerConfig, config, error) {
	var file config
	if o.configPath != "" {
		var err error
		if file, err = readConfig(o.configPath); err != nil {
			return nil, file, err
		}
	}
	source := cmp.Or(o.capability, o.module)
	p := providerConfig{Source: source, Config: settings}
	list := []providerConfig{{}}
	for _, other := range file.Providers {
		switch {
		case other.Source != source:
			if err := other.size(0); err != nil {
				return nil, file, err
			}
			list = append(list, other)
		case settings != nil:
			p = other
			p.Config = settings
		default:
			p = other
		}
	}
	p.Permissions, p.direct = append(p.Permissions, o.moduleFlags.grants...), true
	if o.tenant != "" {
		p.Tenant, p.TenantFrom = o.tenant, ""
	}
	if o.moduleFlags.fuel > 0 {
		p.Fuel = o.moduleFlags.fuel
	}
	if err := p.size(o.moduleFlags.memory); err != nil {
		return nil, file, err
	}
	list[0] = p
	for i := range list {
		list[i].Instances.Ready = -1 // there is one item
	}
	return list, file, nil
}

// unknownSettings says which settings nobody is going to read: most likely they
// are misspelt.
func (o *execOptions) unknownSettings(c beacon.Capability, settings beacon.Settings) {
	actions := c.Actions
	action := actions[max(0, slices.IndexFunc(actions, func(a beacon.Action) bool { return a.Name == o.action }))]
	if o.quiet || len(action.Settings) == 0 {
		return
	}
	known := append(executor.Settings(), "Args", "Stdin", "Command", "Parameters")
	for _, s := range action.Settings {
		known = append(known, s.Name)
	}
	for name := range sorted(settings) {
		if !slices.Contains(known, name) {
			fmt.Fprintf(o.err, "note: %s/%s declares no setting %q; the nearest is %q\n",
				c.Name, action.Name, beacon.Excerpt(name, 80), jsonfile.Nearest(name, known))
		}
	}
}

// checkFiles finds out early what would otherwise end a long run badly.
func checkFiles(source, output string) error {
	if source != "" {
		info, err := os.Stat(source)
		if err != nil {
			return usagef("--source %s: %w", source, unwrapPath(err))
		}
		if !info.Mode().IsRegular() {
			return usagef("--source %s: not a regular file", source)
		}
		f, err := os.Open(source)
		if err != nil {
			return usagef("--source %s: %w", source, unwrapPath(err))
		}
		_ = f.Close() // it was only read
	}
	if output == "" {
		return nil
	}
	if info, err := os.Stat(output); err == nil {
		if info.IsDir() {
			return usagef("--output %s: it is a folder; name a file", output)
		}
		if !info.Mode().IsRegular() {
			return nil // a device or a pipe: written through at the end
		}
		if source != "" {
			if s, err := os.Stat(source); err == nil && os.SameFile(s, info) {
				return usagef("--output %s: it is the source", output)
			}
		}
	}
	probe, err := os.CreateTemp(filepath.Dir(output), ".beacon-*")
	if err != nil {
		return usagef("--output %s: cannot write there: %w", output, unwrapPath(err))
	}
	return errors.Join(probe.Close(), os.Remove(probe.Name()))
}
