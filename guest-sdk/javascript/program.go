package javascript

import (
	_ "embed"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// What a provider of the Node worker finds around it.
//
//go:embed node.js
var node string

// A Program is a provider that was written for the Node worker: CommonJS modules, of
// which one exports the provider.
type Program struct {
	// Entry is the path of the file that exports the provider.
	Entry string
	// Version and Description go into the manifest, since providers do not say them.
	Version, Description string
	Files                []File
}

// A File is one module of a program.
type File struct {
	// Path is the file's name, relative to the program's folder, with slashes.
	Path string
	// Source is JavaScript in the body of a CommonJS module, or JSON if Path ends with
	// ".json". Its lines stay as they are, so that stacks tell them.
	Source string
	// Requires says which file a call of require gets, by its argument. What is not in
	// there is not found when the program runs.
	Requires map[string]string
}

// Script is the program as a script for Assemble, which must be given the same name.
// The same program gives the same script.
func (p Program) Script(name string) string {
	var bodies strings.Builder
	lines := make([][2]any, 0, len(p.Files))
	requires := make(map[string]map[string]string, len(p.Files))
	// The files begin on the line after the one that describes them, each below a
	// line of its own.
	line := strings.Count(p.head(), "\n") + 2
	files := slices.SortedFunc(slices.Values(p.Files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range files {
		body := f.body()
		lines = append(lines, [2]any{line + 1, f.Path})
		requires[f.Path] = maps.Clone(f.Requires)
		if f.Requires == nil {
			requires[f.Path] = map[string]string{}
		}
		bodies.WriteString(literal(f.Path) + ": function (exports, require, module, __filename, __dirname) {\n" + body + "\n},\n")
		line += strings.Count(body, "\n") + 3
	}
	about := literal(map[string]any{
		"name": name, "entry": p.Entry, "version": p.Version, "description": p.Description, "lines": lines, "requires": requires,
	})
	return p.head() + "(Object.assign(" + about + ", { files: {\n" + bodies.String() + "} }));\n"
}

// head is what stands before the program.
func (Program) head() string { return strings.TrimSuffix(strings.TrimSpace(node), ";") }

func (f File) body() string {
	source := strings.TrimPrefix(f.Source, "\uFEFF")
	if strings.HasSuffix(f.Path, ".json") {
		return "module.exports = JSON.parse(" + literal(source) + ");"
	}
	if strings.HasPrefix(source, "#!") {
		source = "//" + source
	}
	return strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(source)
}

// literal writes a value of JSON, which is one of JavaScript, too, on one line.
func literal(value any) string {
	raw, err := json.Marshal(value)
	if err != nil { // there is nothing in it that could fail
		panic(err)
	}
	return string(raw)
}
