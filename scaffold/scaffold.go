// Package scaffold makes the folder of a new provider: source, cases for beacon
// test, and the SDK, so that it builds without a network.
package scaffold

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/ultravisor/beacon"
	sdk "github.com/ultravisor/beacon/guest-sdk"
)

//go:embed templates
var templates embed.FS

// A language says what a project in it has beside of its template.
type language struct {
	name string
	// sdk adds the SDK to the project's files.
	sdk func(files map[string][]byte) error
}

var languages = []language{
	{"go", goSDK},
	{"c", copySDK(sdk.C, "sdk/")},
	{"rust", copySDK(sdk.Rust, "sdk/")},
	{"assemblyscript", copySDK(sdk.AssemblyScript, "sdk/beacon/")},
	{"javascript", copySDK(sdk.JavaScript, "sdk/")}, // for editors: it comes with the engine
}

// Languages are those that a provider can be begun in.
func Languages() []string {
	names := make([]string, len(languages))
	for i, l := range languages {
		names[i] = l.name
	}
	return names
}

// name is what all languages take as the name of a package.
var name = regexp.MustCompile(`^[a-z][a-z0-9]*([-_][a-z0-9]+)*$`)

// Create makes a provider in a folder that is empty or not there yet. The last
// part of its path is the provider's name. It returns the names of the files
// that it made, relative to the folder. Errors have code beacon.Invalid where
// the caller asked for what cannot be.
func Create(folder, lang string) ([]string, error) {
	abs, err := filepath.Abs(folder)
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", folder, err)
	}
	called := filepath.Base(abs)
	if len(called) > 64 || !name.MatchString(called) {
		return nil, beacon.Errorf(beacon.Invalid, "%q cannot be the name of a provider: want small letters, digits and single hyphens, beginning with a letter, such as resize-images", beacon.Excerpt(called, 80))
	}
	made, err := project(called, lang)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, beacon.Errorf(beacon.Invalid, "%s is there already, and no folder", folder)
	case len(entries) > 0:
		return nil, beacon.Errorf(beacon.Invalid, "folder %s is there already and not empty: choose another name", folder)
	}
	if err := os.MkdirAll(abs, 0o777); err != nil { //nolint:gosec // a folder of the user's work, by their umask
		return nil, fmt.Errorf("create %s: %w", folder, err)
	}
	root, err := os.OpenRoot(abs)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", folder, err)
	}
	defer func() { _ = root.Close() }() // it is only a folder
	names := slices.Sorted(maps.Keys(made))
	for _, name := range names {
		if err := root.MkdirAll(path.Dir(name), 0o777); err != nil {
			return nil, fmt.Errorf("create a folder in %s: %w", folder, err)
		}
		if err := root.WriteFile(name, made[name], 0o666); err != nil {
			return nil, fmt.Errorf("create a file in %s: %w", folder, err)
		}
	}
	return names, nil
}

// project is the content of a provider's folder.
func project(called, lang string) (map[string][]byte, error) {
	for _, l := range languages {
		if l.name != lang {
			continue
		}
		files := map[string][]byte{}
		// The cases are the same in all languages.
		if err := errors.Join(fill(files, "templates/testdata", "testdata/", called), fill(files, "templates/"+l.name, "", called)); err != nil {
			return nil, fmt.Errorf("make a project in %s: %w", lang, err)
		}
		return files, l.sdk(files)
	}
	return nil, beacon.Errorf(beacon.Invalid, "there is no template for the language %q: there are %s", beacon.Excerpt(lang, 40), strings.Join(Languages(), ", "))
}

// fill adds the files of a template. They end in .tmpl where a tool would
// otherwise take them for source of ours.
func fill(files map[string][]byte, folder, prefix, called string) error {
	words := strings.NewReplacer("__NAME__", called, "__CAPABILITY__", capability(called))
	return fs.WalkDir(templates, folder, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := templates.ReadFile(file)
		if err != nil {
			return err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(file, folder+"/"), ".tmpl")
		if name == "gitignore" { // as .gitignore it would count here
			name = ".gitignore"
		}
		files[prefix+name] = []byte(words.Replace(string(text)))
		return nil
	})
}

// capability makes ResizeImages of resize-images.
func capability(called string) string {
	var b strings.Builder
	upper := true
	for _, r := range called {
		if r == '-' || r == '_' {
			upper = true
			continue
		}
		if upper {
			r = unicode.ToUpper(r)
		}
		b.WriteRune(r)
		upper = false
	}
	return b.String()
}

// goSDK adds the Go SDK as a module of its own, with the path that it is
// published under. Its tests stay behind.
func goSDK(files map[string][]byte) error {
	files["sdk/go.mod"] = []byte("module github.com/ultravisor/beacon\n\ngo 1.24\n")
	return addFiles(files, sdk.Go, "sdk/guest-sdk/", func(name string) bool { return !strings.HasSuffix(name, "_test.go") })
}

// copySDK adds all of an SDK.
func copySDK(from fs.FS, prefix string) func(map[string][]byte) error {
	return func(files map[string][]byte) error {
		return addFiles(files, from, prefix, func(string) bool { return true })
	}
}

// addFiles adds those files of an SDK that are wanted.
func addFiles(files map[string][]byte, from fs.FS, prefix string, wanted func(name string) bool) error {
	return fs.WalkDir(from, ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !wanted(name) {
			return err
		}
		text, err := fs.ReadFile(from, name)
		files[prefix+name] = text
		return err
	})
}
