package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/runtime/module"
	"github.com/ultravisor/beacon/toolchain"
)

type buildOptions struct {
	streams
	flags  moduleFlags
	output string
	asJSON bool
}

func newBuildCommand(s streams) *cobra.Command {
	o := &buildOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "build [FOLDER|SCRIPT]",
		Short: "Build a provider from source: one module that says what it is",
		Long: `Build a provider from source, with the compiler that is installed. The module is
NAME.wasm in its folder, unless --output says otherwise; the same source makes the same
module, wherever it lies.

The module is run in the sandbox to describe itself, and what it says is put into the
binary as its manifest, so that others can read it without running anything. For a
program that does not know Beacon, ` + toolchain.ManifestFile + ` in the folder is the manifest.

SCRIPT is a provider of the Node worker, such as my-provider.cjs, or one in JavaScript
that is written with the SDK. What a provider of the Node worker requires comes into the
module, too, if it is JavaScript or JSON: its own files, and packages from node_modules.
Modules of Node (fs, http, ...) do not exist in a module, and are refused with a list.
docs/node.md has the rest.`,
		Example: `  beacon build
  beacon build resize --output dist/resize-1.0.wasm
  beacon build my-provider.cjs`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("build takes one folder, or one script")
			}
			return o.run(cmd.Context(), cmp.Or(strings.Join(args, ""), "."))
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.output, "output", "o", "", "the file to write (default NAME.wasm in the folder)")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.Var(&o.flags.memory, "memory", "memory that the module may use to describe itself (default 256M)")
	f.StringVar(&o.flags.config, "config-json", "", "configuration that the module can read while it describes itself, a JSON object")
	return cmd
}

func (o *buildOptions) run(ctx context.Context, folder string) (err error) {
	info, err := os.Stat(folder)
	if err != nil {
		return usagef("folder %s: %w", folder, unwrapPath(err))
	}
	script := !info.IsDir()
	if script && !toolchain.IsSource(folder) {
		return usagef("%s is a file, and no script (.js, .cjs, .mjs): build takes the folder of a provider's source", folder)
	}
	dirs, err := locate("")
	if err != nil {
		return err
	}
	path, err := toolchain.Build(ctx, folder, dirs.built)
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read the module: %w", unwrapPath(err))
	}
	name := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	box, err := o.flags.sandbox(dirs, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	made, err := o.describe(ctx, box.Runtime(), name, binary)
	if err != nil {
		return err
	}
	target := cmp.Or(o.output, filepath.Join(folder, name+".wasm"))
	if script && o.output == "" {
		target = filepath.Join(filepath.Dir(folder), name+".wasm")
	}
	if err := writeFile(target, made.binary); err != nil {
		return usagef("--output %s: %w", target, unwrapPath(err))
	}
	return o.say(target, made)
}

// A product is a built module, and what it offers.
type product struct {
	binary []byte
	offers beacon.Capability
	wants  []string
	// silent is true if nobody says what the module offers.
	silent bool
}

// describe asks the module what it is, and puts that into it. A module from whose
// source it has no manifest keeps none.
func (o *buildOptions) describe(ctx context.Context, rt *wasmrt.Runtime, name string, binary []byte) (b product, err error) {
	written, err := manifestOf(binary)
	if err != nil {
		return b, beacon.Errorf(beacon.Refused, "module %s: %w", name, err)
	}
	bare, err := module.WithManifest(binary, nil)
	if err != nil {
		return b, beacon.Errorf(beacon.Refused, "module %s: %w", name, err)
	}
	limits := wasmrt.Limits{Memory: int64(o.flags.memory)}
	config, err := o.flags.settings()
	if err != nil {
		return b, err
	}
	m, err := rt.Load(ctx, wasmrt.Source{Name: name, Binary: bare, Config: config, Limits: limits, Pool: wasmrt.Pool{Ready: -1}})
	if err != nil {
		return b, err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	said := m.ManifestJSON()
	switch {
	case said == nil && written == nil:
		return product{bare, m.Capability(), nil, true}, nil
	case said != nil && written != nil && !sameJSON(said, written):
		return b, beacon.Errorf(beacon.Refused, "module %s says of itself something else than %s beside its source: it must be right, or be removed, since the module speaks for itself", name, toolchain.ManifestFile)
	case said == nil:
		// What it says must make sense for this module: it is read once more, as it
		// will be by those who run it.
		again, err := rt.Load(ctx, wasmrt.Source{Name: name, Binary: binary, Config: config, Limits: limits, Pool: wasmrt.Pool{Ready: -1}})
		if err != nil {
			return b, err
		}
		defer func() { err = errors.Join(err, again.Close(context.WithoutCancel(ctx))) }()
		m, said = again, written
	}
	manifest := m.Manifest()
	b.offers = manifest.Capability
	for _, p := range manifest.Permissions {
		b.wants = append(b.wants, p.Permission)
	}
	b.binary, err = module.WithManifest(bare, said)
	return b, err
}

func manifestOf(binary []byte) ([]byte, error) {
	facts, err := module.Parse(binary, module.Limits{})
	if err != nil {
		return nil, err
	}
	return facts.Manifest, nil
}

func sameJSON(a, b []byte) bool {
	var va, vb any
	return json.Unmarshal(a, &va) == nil && json.Unmarshal(b, &vb) == nil && reflect.DeepEqual(va, vb)
}

// writeFile replaces a file as a whole or not at all.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".beacon-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone if all went well
	_, err = f.Write(content)
	if err == nil {
		err = f.Chmod(0o644) //nolint:gosec // a file like any that a compiler makes
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func (o *buildOptions) say(path string, b product) error {
	digest := sha256.Sum256(b.binary)
	if o.asJSON {
		enc := json.NewEncoder(o.out)
		enc.SetIndent("", "  ")
		return enc.Encode(struct {
			File       string
			SHA256     string
			Size       int
			Capability beacon.Capability
			Wants      []string
		}{path, hex.EncodeToString(digest[:]), len(b.binary), b.offers, append([]string{}, b.wants...)})
	}
	names := make([]string, len(b.offers.Actions))
	for i, a := range b.offers.Actions {
		names[i] = a.Name
	}
	fmt.Fprintf(o.out, "%s  %d bytes, sha256 %s\n", path, len(b.binary), hex.EncodeToString(digest[:]))
	fmt.Fprintf(o.out, "offers the capability %s with the actions %s\n", b.offers.Name, strings.Join(names, ", "))
	for _, w := range b.wants {
		fmt.Fprintf(o.out, "wants %s\n", w)
	}
	if b.silent {
		fmt.Fprintf(o.out, "it does not say what it is: %s beside the source may, or beacon_describe\n", toolchain.ManifestFile)
	}
	return nil
}
