package toolchain

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guest-sdk/javascript"
)

// given are the packages that a module finds without their being there, by all names
// that lead to them.
func given(name string) bool {
	return slices.Contains([]string{"ultravisor-beacon", "ultravisor-beacon/source/Ultravisor-Beacon-CapabilityProvider.cjs", "fable"}, name)
}

// packageFile is the part of a package.json that matters here.
type packageFile struct {
	Main, Version, Description string
}

// readPackage reads the package.json of a folder, if there is one.
func readPackage(folder source) (*packageFile, error) {
	raw, err := os.ReadFile(filepath.Join(folder.path, "package.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("read package.json: %w", err)
	}
	var p packageFile
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "%s: %w", filepath.Join(folder.name, "package.json"), err)
	}
	return &p, nil
}

// findCommonJS finds a provider of the Node worker: what package.json calls its main
// file, or a file that can be nothing else.
func findCommonJS(folder source) (compile, error) {
	about, err := readPackage(folder)
	if err != nil {
		return nil, err
	}
	var entry string
	if about == nil {
		entry, err = soleCommonJS(folder)
	} else {
		entry, err = about.entry(folder)
	}
	if entry == "" || err != nil {
		return nil, err
	}
	program, err := bundle(folder, entry)
	if program == nil || err != nil {
		return nil, err
	}
	return compileScript(folder, *program), nil
}

// soleCommonJS is the .cjs file of a folder without a package.json: provider.cjs, or the
// only one where there are no other scripts, which may be what configures a tool.
func soleCommonJS(folder source) (string, error) {
	names, err := folder.files(".js", ".cjs", ".mjs")
	switch {
	case err != nil:
		return "", err
	case slices.Contains(names, "provider.cjs"):
		return "provider.cjs", nil
	case len(names) == 1 && filepath.Ext(names[0]) == ".cjs":
		return names[0], nil
	}
	return "", nil
}

// findScript finds out what a file is: a provider of the Node worker, or one that is
// written with the SDK.
func findScript(folder source, file string) (compile, error) {
	if _, err := os.Stat(filepath.Join(folder.path, file)); err != nil {
		return nil, fmt.Errorf("find %s: %w", filepath.Join(folder.name, file), err)
	}
	program, err := bundle(folder, file)
	switch {
	case err != nil:
		return nil, err
	case program == nil:
		return func(_ context.Context, made string) error { return compileJavaScript(folder, file, made) }, nil
	}
	return compileScript(folder, *program), nil
}

func compileScript(folder source, program javascript.Program) compile {
	return func(_ context.Context, made string) error {
		name := path.Base(program.Entry)
		return assemble(folder, name, program.Script(name), made)
	}
}

// entry is the file that a package begins with, in the way of Node; "" for a package
// that has none.
func (p *packageFile) entry(folder source) (string, error) {
	main := path.Clean(filepath.ToSlash(cmp.Or(p.Main, "index.js")))
	for _, file := range []string{main, main + ".js", main + ".cjs", path.Join(main, "index.js")} {
		if isFile(filepath.Join(folder.path, filepath.FromSlash(file))) {
			return file, nil
		}
	}
	if p.Main == "" {
		return "", nil
	}
	return "", beacon.Errorf(beacon.Invalid, "%s names %s as its main file, and there is no such file", filepath.Join(folder.name, "package.json"), beacon.Excerpt(p.Main, 200))
}

// bundle reads the program that begins with a file of the folder: all files that it
// requires, in CommonJS. It is nil if the file neither requires nor exports
// anything, and so is no program for Node.
func bundle(folder source, entry string) (*javascript.Program, error) {
	// Paths below the folder's real one are the same wherever it lies.
	root, err := filepath.EvalSymlinks(folder.path)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", folder.name, err)
	}
	result := api.Build(api.BuildOptions{
		EntryPoints:       []string{filepath.Join(root, entry)},
		AbsWorkingDir:     root,
		Bundle:            true,
		Metafile:          true,
		Outdir:            root, // nothing is written
		Format:            api.FormatCommonJS,
		Platform:          api.PlatformNeutral, // nothing is built in
		MainFields:        []string{"main"},
		Conditions:        []string{"node", "require"},
		ResolveExtensions: []string{".js", ".json", ".cjs"},
		Loader:            map[string]api.Loader{".json": api.LoaderJSON},
		TsconfigRaw:       "{}",
		LogLevel:          api.LogLevelSilent,
		LogOverride: map[string]api.LogLevel{
			"unsupported-require-call":   api.LogLevelError,
			"indirect-require":           api.LogLevelError,
			"unsupported-dynamic-import": api.LogLevelError,
		},
		Plugins: []api.Plugin{{Name: "beacon", Setup: resolve}},
	})
	if len(result.Errors) > 0 {
		return nil, beacon.Errorf(beacon.Invalid, "%s", explain(filepath.Join(folder.name, entry), result.Errors))
	}
	var meta struct {
		Inputs map[string]input
	}
	if err := json.Unmarshal([]byte(result.Metafile), &meta); err != nil {
		return nil, fmt.Errorf("read what belongs to %s: %w", entry, err)
	}
	begin := meta.Inputs[entry]
	if begin.Format == "" && len(begin.Imports) == 0 {
		return nil, nil //nolint:nilnil // no error, and no program
	}
	about, err := readPackage(folder)
	if err != nil {
		return nil, err
	}
	program := &javascript.Program{Entry: entry}
	if about != nil {
		program.Version, program.Description = about.Version, about.Description
	}
	for name, in := range meta.Inputs {
		file, err := in.file(folder, root, name)
		if err != nil {
			return nil, err
		}
		program.Files = append(program.Files, file)
	}
	return program, nil
}

// An input is what the bundler says about a file.
type input struct {
	Format  string
	Imports []struct {
		Path, Original string
		External       bool
	}
}

func (in input) file(folder source, root, name string) (javascript.File, error) {
	file := javascript.File{Path: name, Requires: map[string]string{}}
	for _, i := range in.Imports {
		if !i.External && i.Original != "" {
			file.Requires[i.Original] = i.Path
		}
	}
	raw, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		return file, fmt.Errorf("read the provider's source: %w", err)
	}
	file.Source = string(raw)
	switch path.Ext(name) {
	case ".js", ".cjs", ".json":
	case ".mjs":
		in.Format = "esm"
	default:
		return file, beacon.Errorf(beacon.Invalid, "building %s failed: %s is required, and neither JavaScript nor JSON", folder.name, name)
	}
	if in.Format != "esm" {
		return file, nil
	}
	// A dependency that is not CommonJS is rewritten to be; its lines change.
	made := api.Transform(file.Source, api.TransformOptions{Format: api.FormatCommonJS, Platform: api.PlatformNode, Sourcefile: name, LogLevel: api.LogLevelSilent})
	if len(made.Errors) > 0 {
		return file, beacon.Errorf(beacon.Invalid, "%s", explain(filepath.Join(folder.name, name), made.Errors))
	}
	file.Source = string(made.Code)
	return file, nil
}

// resolve keeps out of the bundle what the module is given, and refuses what
// would be looked for when it runs.
func resolve(build api.PluginBuild) {
	build.OnResolve(api.OnResolveOptions{Filter: ".*"}, func(args api.OnResolveArgs) (api.OnResolveResult, error) {
		refuse := func(text string) (api.OnResolveResult, error) {
			return api.OnResolveResult{Errors: []api.Message{{Text: text}}}, nil
		}
		switch {
		case given(args.Path):
			return api.OnResolveResult{Path: args.Path, External: true}, nil
		case strings.HasPrefix(args.Path, "ultravisor-beacon/"), strings.HasPrefix(args.Path, "fable/"):
			return refuse(fmt.Sprintf("%q is a part of the Node worker that a module does not have: there is the base class, ultravisor-beacon's CapabilityProvider, and registerCapability", args.Path))
		case args.Kind == api.ResolveJSDynamicImport:
			return refuse("import() is not for modules: use require")
		case args.Kind == api.ResolveJSRequireResolve:
			return refuse("require.resolve is not for modules: there are no paths")
		}
		return api.OnResolveResult{}, nil
	})
}

// explain puts into words what keeps a program from becoming a module: first the
// modules of Node that it needs, then the rest.
func explain(program string, messages []api.Message) string {
	needs := map[string][]string{}
	var rest []string
	for _, m := range messages {
		where := ""
		if l := m.Location; l != nil {
			where = fmt.Sprintf("%s:%d:%d", l.File, l.Line, l.Column+1)
		}
		name, missing := strings.CutPrefix(m.Text, "Could not resolve ")
		name = strings.Trim(name, `"`)
		switch {
		case missing && (strings.HasPrefix(name, "node:") || slices.ContainsFunc(m.Notes, func(n api.Note) bool { return strings.Contains(n.Text, "built into node") })):
			name = strings.TrimPrefix(name, "node:")
			needs[name] = append(needs[name], where)
		case missing && strings.HasPrefix(name, "."):
			rest = append(rest, fmt.Sprintf("%s: there is no file %s", where, name))
		case missing:
			rest = append(rest, fmt.Sprintf("%s: there is no package %s: npm install it in the provider's folder", where, name))
		case m.ID == "unsupported-require-call" || m.ID == "indirect-require":
			rest = append(rest, where+": require takes a name in quotes here: what a module consists of must be known when it is built")
		case m.ID == "unsupported-dynamic-import":
			rest = append(rest, where+": import() is not for modules: use require")
		default:
			rest = append(rest, strings.TrimPrefix(where+": ", ": ")+m.Text)
		}
	}
	var b strings.Builder
	if len(needs) == 0 {
		fmt.Fprintf(&b, "building %s failed:\n", program)
	} else {
		fmt.Fprintf(&b, "building %s failed: it needs modules of Node, and a WebAssembly module has the language only:\n", program)
		for _, name := range slices.Sorted(maps.Keys(needs)) {
			fmt.Fprintf(&b, "  %s: required at %s\n", name, strings.Join(needs[name], ", "))
		}
	}
	for _, text := range rest {
		b.WriteString(text + "\n")
	}
	if len(needs) > 0 {
		b.WriteString("pContext.Item has files, requests and other capabilities in their place: see docs/node.md\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
