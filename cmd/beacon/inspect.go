package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/runtime/module"
)

type inspectOptions struct {
	streams
	flags  moduleFlags
	asJSON bool
}

func newInspectCommand(s streams) *cobra.Command {
	o := &inspectOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "inspect MODULE",
		Short: "Say what a module is, what it wants and what it offers",
		Long: `Say what a module is, what it wants and what it offers.

MODULE is a .wasm file, or the folder of a provider's source, which is built first.
The module is compiled. In the sandbox and without any work item it is run to
initialise itself, as before the first item, and to describe itself, if it has no
manifest in its binary.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("inspect takes one module: a .wasm file or a folder of source")
			}
			return o.run(cmd.Context(), args[0])
		},
	}
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
	Kind        string // command or reactor
	Capability  string
	Description string `json:",omitempty"`
	Actions     []beacon.Action
	Permissions []permission
	Memory      *memory
	Functions   int
	Imports     []string
	Exports     []string
	Sections    []section
	Instances   instances
	LoadMs      int64
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

type permission struct{ Permission, Reason string }

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
	rt, err := o.flags.runtime(dirs, log)
	if err != nil {
		return err
	}
	started := time.Now()
	m, err := load(ctx, rt, dirs, path, config, o.flags.limits())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	v := describe(m, time.Since(started))
	found, err := m.Instances(ctx)
	if err != nil {
		return err
	}
	v.Instances = instances{
		Restored: found.Restored, Reason: found.Reason, Initialized: found.Initialized, WarmedUp: found.WarmedUp,
		MemoryBytes: found.Memory, TookMs: float64(found.Took.Microseconds()) / 1000, Method: found.Method, Taints: found.Taints, Random: string(found.Random),
	}
	if o.asJSON {
		enc := json.NewEncoder(o.out)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
	return v.print(o.out)
}

func describe(m loaded, took time.Duration) view {
	facts, manifest := m.Facts(), m.Manifest()
	v := view{
		Name: manifest.Name, Version: manifest.Version, SHA256: m.Digest(), Size: facts.Size,
		Kind: "reactor", Capability: manifest.Capability.Name, Description: manifest.Capability.Description,
		Actions: manifest.Capability.Actions, Permissions: []permission{}, Functions: facts.Functions,
		Imports: []string{}, Exports: []string{}, Sections: []section{}, LoadMs: took.Milliseconds(),
	}
	if m.Command() {
		v.Kind = "command"
	}
	for _, p := range manifest.Permissions {
		v.Permissions = append(v.Permissions, permission(p))
	}
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
	return v
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
	row("kind", "%s", map[string]string{"command": "command (a plain WASI program)", "reactor": "reactor (written for Beacon)"}[v.Kind])
	row("size", "%d bytes, %d functions", v.Size, v.Functions)
	row("sha256", "%s", v.SHA256)
	row("loaded in", "%d ms", v.LoadMs)
	if v.Memory != nil {
		most := "no maximum of its own"
		if v.Memory.MaxBytes >= 0 {
			most = fmt.Sprintf("at most %d KiB", v.Memory.MaxBytes/1024)
		}
		row("memory", "at least %d KiB, %s", v.Memory.MinBytes/1024, most)
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
	if len(v.Permissions) == 0 {
		row("permissions", "none wanted")
	}
	for _, p := range v.Permissions {
		row("permission", "%s: %s", p.Permission, p.Reason)
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

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
