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
The module is compiled. It is run only to describe itself, in the sandbox and
without any work item, and only if it has no manifest in its binary.`,
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
	LoadMs      int64
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

func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}
