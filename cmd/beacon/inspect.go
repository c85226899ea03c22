package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/runtime/module"
)

type inspectOptions struct {
	streams
	flags      moduleFlags
	configPath string
	asJSON     bool
}

func newInspectCommand(s streams) *cobra.Command {
	o := &inspectOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "inspect MODULE",
		Short: "Say what a module is, what it wants and what it offers",
		Long: `Say what a module is, what it wants and what it offers.

MODULE is a .wasm file, the folder of a provider's source, which is built first, a URL,
or a reference to a registry: oci://registry.example.com/team/resize:1.0. What it wants
is shown beside what the configuration, or --grant, grants it.

The module is compiled. In the sandbox and without any work item it is run to
initialise itself, as before the first item, and to describe itself, if it has no
manifest in its binary. A module that cannot run here is described as far as it goes,
with the reason; the exit code is 4 then.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("inspect takes one module: a .wasm file or a folder of source")
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	cmd.Flags().StringVarP(&o.configPath, "config", "f", "", "configuration file (default "+configName+", if there is one)")
	cmd.Flags().BoolVar(&o.asJSON, "json", false, "print JSON")
	o.flags.register(cmd.Flags())
	return cmd
}

// A view is what inspect shows; the field names are those of its JSON.
type view struct {
	Name        string
	Version     string `json:",omitempty"`
	SHA256      string
	Size        int
	Kind        string // command, reactor, component, or unknown where it cannot run
	Refused     string `json:",omitempty"` // why it cannot run here
	Remedy      string `json:",omitempty"`
	Capability  string
	Description string `json:",omitempty"`
	Actions     []beacon.Action
	Permissions []permission
	Unwanted    []string // that are granted and were not asked for
	SignedBy    string   `json:",omitempty"` // the number of a key that the policy trusts
	Comment     string   `json:",omitempty"` // the signer's
	Lock        string   `json:",omitempty"` // how it differs from what was accepted
	Memory      *memory
	Functions   int
	Modules     int      `json:",omitempty"` // core modules in a component
	Features    []string // beyond WebAssembly 1.0
	Producers   []string // the tools that made it, as they say
	MadeFor     string   `json:",omitempty"` // another host than one with WASI preview 1
	Imports     []string
	Exports     []string
	Sections    []section
	Instances   instances
	// LoadMs is what it took to get it ready here, and CompileMs what the engine took
	// to compile it, now or when that was put into the cache; 0 if that is not known.
	LoadMs, CompileMs int64
}

// instances is how items get theirs.
type instances struct {
	Restored    bool
	Reason      string `json:",omitempty"`
	Initialized bool
	WarmedUp    bool
	MemoryBytes int64
	TookMs      float64
	Method      string `json:",omitempty"`
	Taints      bool
	Random      string
}

type permission struct {
	Permission, Reason string
	Optional           bool
	Granted            bool
	Problem            string `json:",omitempty"`
}

type memory struct{ MinBytes, MaxBytes int64 }

type section struct {
	Name string
	Size int
}

func (o *inspectOptions) run(ctx context.Context, path string) (err error) {
	config, err := o.flags.settings()
	if err != nil {
		return err
	}
	dirs, err := locate("")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	file, err := readConfig(o.configPath)
	if err != nil {
		return err
	}
	p := providerConfig{Source: path, direct: true}
	for _, known := range file.Providers {
		if known.Source == path {
			p = known
		}
	}
	if config != nil {
		p.Config = config
	}
	p.Permissions = append(p.Permissions, o.flags.grants...)
	if err := p.size(o.flags.memory); err != nil {
		return err
	}
	rules, err := readPolicy(o.flags.policy, file)
	if err != nil {
		return err
	}
	if rules.Signatures == policy.Always {
		rules.Signatures = policy.Warn // it is only looked at
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
	from, err := g.bring(ctx, dirs, p)
	if err != nil {
		return err
	}
	started := time.Now()
	m, err := enliven(ctx, box.Runtime(), p, g, from)
	if err != nil {
		return o.refused(from, err)
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	v := describe(m, time.Since(started))
	if survey, err := module.Look(from.Binary, module.Limits{}); err == nil {
		v.Features, v.Producers = survey.Features, survey.Producers
	}
	found, err := m.Instances(ctx)
	if err != nil {
		return err
	}
	v.Instances = instances{
		Restored: found.Restored, Reason: found.Reason, Initialized: found.Initialized, WarmedUp: found.WarmedUp,
		MemoryBytes: found.Memory, TookMs: float64(found.Took.Microseconds()) / 1000, Method: found.Method, Taints: found.Taints, Random: string(found.Random),
	}
	if err := v.judge(m, p, g); err != nil {
		return err
	}
	return o.show(v)
}

func (o *inspectOptions) show(v view) error {
	if o.asJSON {
		enc := json.NewEncoder(o.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return v.print(o.out)
}

// refused shows what can be seen of a module that cannot run here.
func (o *inspectOptions) refused(from brought, reason error) error {
	if beacon.CodeOf(reason) != beacon.Refused {
		return reason
	}
	v := view{
		Name: from.Name, SHA256: from.Digest, Size: len(from.Binary), Kind: "unknown", Refused: reason.Error(),
		Actions: []beacon.Action{}, Permissions: []permission{}, Unwanted: []string{}, Features: []string{}, Producers: []string{},
		Imports: []string{}, Exports: []string{}, Sections: []section{},
	}
	if c, ok := module.LookComponent(from.Binary); ok {
		v.Kind, v.Modules, v.MadeFor = "component", c.Modules, "the component model (WASI 0.2 or later)"
		for _, name := range c.Imports {
			v.Imports = append(v.Imports, beacon.Excerpt(name, 200))
		}
		for _, name := range c.Exports {
			v.Exports = append(v.Exports, beacon.Excerpt(name, 200))
		}
		v.Remedy = "build it for WASI preview 1: for Rust --target wasm32-wasip1, for C --target=wasm32-wasip1 without an adapter, for TinyGo -target=wasip1"
	} else if s, err := module.Look(from.Binary, module.Limits{}); err == nil {
		v.facts(s.Facts)
		v.Features, v.Producers, v.MadeFor = s.Features, s.Producers, s.Origin()
		v.Remedy = remedies[v.MadeFor]
	} else if facts, err := module.Parse(from.Binary, module.Limits{}); err == nil {
		v.facts(facts)
		v.MadeFor = facts.Origin()
		v.Remedy = remedies[v.MadeFor]
	} else {
		return reason // there is nothing to be said about it
	}
	return errors.Join(o.show(v), reason)
}

// remedies are for modules that were made for something else, by what that is.
var remedies = map[string]string{
	"Emscripten":     "it expects functions of Emscripten's JavaScript: build it with clang --target=wasm32-wasi or the WASI SDK; emcc -sSTANDALONE_WASM is enough for programs that use little of the system",
	"wasm-bindgen":   "it expects functions of a browser's JavaScript: build it for wasm32-wasip1, without wasm-bindgen",
	"GOOS=js":        "it expects Go's wasm_exec.js: build it with GOOS=wasip1",
	"WASI preview 0": "build it with a toolchain of 2020 or later",
	"WASI 0.2":       "it is the core module of a component: build it for WASI preview 1",
	"AssemblyScript": "it expects env.abort: build it with --use abort= and a function of its own, as the SDK does",
}

func describe(m loaded, took time.Duration) view {
	facts, manifest := m.Facts(), m.Manifest()
	v := view{
		Name: manifest.Name, Version: manifest.Version, SHA256: m.Digest(), Size: facts.Size,
		Kind: "reactor", Capability: manifest.Capability.Name, Description: manifest.Capability.Description,
		Actions: manifest.Capability.Actions, Permissions: []permission{}, Unwanted: []string{},
		Features: []string{}, Producers: []string{}, Imports: []string{}, Exports: []string{}, Sections: []section{}, LoadMs: took.Milliseconds(), CompileMs: m.Compiled().Milliseconds(),
	}
	if m.Command() {
		v.Kind = "command"
	}
	v.facts(facts)
	return v
}

// facts sets what the binary says about itself.
func (v *view) facts(facts *module.Facts) {
	v.Functions = facts.Functions
	if facts.HasMemory {
		v.Memory = &memory{int64(facts.MemoryMin) * module.PageSize, -1}
		if facts.MemoryMax >= 0 {
			v.Memory.MaxBytes = int64(facts.MemoryMax) * module.PageSize
		}
	}
	for _, i := range facts.Imports {
		v.Imports = append(v.Imports, beacon.Excerpt(i.Module+"."+i.Name, 200))
	}
	for _, e := range facts.Exports {
		v.Exports = append(v.Exports, beacon.Excerpt(e.Name, 200))
	}
	for _, c := range facts.Custom {
		v.Sections = append(v.Sections, section{beacon.Excerpt(c.Name, 200), c.Size})
	}
}

// judge sets what the module wants beside what it gets.
func (v *view) judge(m loaded, p providerConfig, g *guard) error {
	grants, err := policy.ParseGrants(p.Permissions)
	if err != nil {
		return usage(err)
	}
	all := wants(m.Manifest())
	grants = grants.Resolve(parsed(all))
	for _, w := range all {
		shown := permission{w.Permission.Permission, w.Reason, w.Optional, w.err == nil && grants.Covers(w.parsed), ""}
		if w.err != nil {
			shown.Problem = "this version of Beacon does not know it"
		}
		v.Permissions = append(v.Permissions, shown)
	}
	for _, u := range grants.Unwanted(parsed(all)) {
		v.Unwanted = append(v.Unwanted, u.String())
	}
	v.SignedBy, v.Comment = m.from.SignedBy, m.from.Comment
	if g.lock != nil {
		v.Lock = g.lock.Compare(p.Source, locked(m.Digest(), m.Manifest())).String()
	}
	return nil
}

func (v view) print(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s %s\n", name, fmt.Sprintf(format, args...))
	}
	title := v.Name
	if v.Version != "" {
		title += " " + v.Version
	}
	row("module", "%s", title)
	row("kind", "%s", map[string]string{
		"command": "command (a plain WASI program)", "reactor": "reactor (written for Beacon)",
		"component": "component (of the component model)", "unknown": "core module",
	}[v.Kind])
	if v.Refused != "" {
		row("refused", "%s", v.Refused)
	}
	if v.MadeFor != "" {
		row("made for", "%s", v.MadeFor)
	}
	if v.Remedy != "" {
		row("remedy", "%s", v.Remedy)
	}
	if len(v.Producers) > 0 {
		row("made by", "%s", beacon.Excerpt(strings.Join(v.Producers, ", "), 500))
	}
	if v.Kind == "component" {
		row("size", "%d bytes, %d core modules", v.Size, v.Modules)
	} else {
		row("size", "%d bytes, %d functions", v.Size, v.Functions)
	}
	row("sha256", "%s", v.SHA256)
	if v.Refused == "" {
		if v.CompileMs > 0 {
			row("compiled in", "%d ms, and loaded in %d ms", v.CompileMs, v.LoadMs)
		} else {
			row("loaded in", "%d ms", v.LoadMs)
		}
	}
	if len(v.Features) > 0 {
		row("features", "%s", strings.Join(v.Features, ", "))
	}
	if v.Memory != nil {
		most := "no maximum of its own"
		if v.Memory.MaxBytes >= 0 {
			most = fmt.Sprintf("at most %d KiB", v.Memory.MaxBytes/1024)
		}
		row("memory", "at least %d KiB, %s", v.Memory.MinBytes/1024, most)
	}
	if v.Refused != "" {
		row("imports", "%s", orNone(v.Imports))
		row("exports", "%s", orNone(v.Exports))
		_, err := io.WriteString(w, b.String())
		return err
	}
	v.Instances.print(row)
	row("capability", "%s", v.Capability)
	if v.Description != "" {
		row("", "%s", v.Description)
	}
	for _, a := range v.Actions {
		row("  action", "%s: %s", a.Name, a.Description)
		for _, s := range a.Settings {
			text := s.DataType
			if s.Required {
				text += ", required"
			}
			if s.Default != nil {
				text += ", default " + beacon.Excerpt(textOf(s.Default), 100)
			}
			row("", "  %s (%s) %s", s.Name, text, s.Description)
		}
	}
	if v.SignedBy != "" {
		row("signed by", "key %s: %s", v.SignedBy, v.Comment)
	}
	for i, line := range strings.Split(v.Lock, "\n") {
		if line != "" {
			row(map[bool]string{true: "lock"}[i == 0], "%s", line)
		}
	}
	if len(v.Permissions)+len(v.Unwanted) == 0 {
		row("permissions", "none wanted, none granted")
	} else {
		fmt.Fprintln(&b)
		v.table(&b)
		fmt.Fprintln(&b)
	}
	row("imports", "%s", orNone(v.Imports))
	row("exports", "%s", orNone(v.Exports))
	for _, s := range v.Sections {
		row("section", "%s, %d bytes", s.Name, s.Size)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// print says how items get their instances, and what about random numbers.
func (i instances) print(row func(name, format string, args ...any)) {
	began := "before it runs"
	switch {
	case i.WarmedUp:
		began = "after initialisation and a warm-up item"
	case i.Initialized && i.TookMs > 0:
		began = "after initialisation"
	}
	switch {
	case i.Restored && i.Method == "":
		row("instances", "put back after each item to what they are %s", began)
	case i.Restored:
		ready := ""
		if i.TookMs > 0 {
			ready = fmt.Sprintf(", ready in %.3g ms", i.TookMs)
		}
		row("instances", "put back after each item (%s) to what they are %s: %d KiB%s", i.Method, began, i.MemoryBytes/1024, ready)
	default:
		row("instances", "a new one for each item: %s", i.Reason)
	}
	if i.Restored && i.Taints {
		row("", "an item that changes a table or drops a segment, as this module can, costs its instance")
	}
	switch wasmrt.Random(i.Random) {
	case wasmrt.RandomHost:
		row("", "the random state of its Go runtime is renewed before each item")
	case wasmrt.RandomGuest:
		row("", "it renews its random state before each item")
	case wasmrt.RandomAge:
		row("", "it keeps random state from its initialisation, which is done again every few minutes; beacon_reseed would renew it")
	}
}

// table shows wanted and granted side by side.
func (v view) table(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "PERMISSION\tWANTED\tGRANTED\tREASON")
	for _, p := range v.Permissions {
		wanted, granted := "yes", "no"
		if p.Optional {
			wanted = "optional"
		}
		if p.Granted {
			granted = "yes"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", p.Permission, wanted, granted, cmp.Or(p.Problem, p.Reason))
	}
	for _, text := range v.Unwanted {
		fmt.Fprintf(t, "%s\tno\tyes\t\n", text)
	}
	_ = t.Flush() // into memory
}

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
