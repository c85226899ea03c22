// Package toolchain turns the folder of a provider's source into a module, with
// the compiler that is installed.
package toolchain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/runtime/module"
)

// ManifestFile beside the source is the manifest of a program that does not say
// itself what it is.
const ManifestFile = "manifest.json"

// A language knows providers that are written in it.
type language struct {
	name string
	// finds looks for a provider's source in a folder. It returns what compiles
	// it, or nil if there is none.
	finds func(folder source) (compile, error)
}

// A source is a folder: as the user calls it, and its absolute path.
type source struct{ name, path string }

// A compile makes the module in the file made.
type compile func(ctx context.Context, made string) error

// languages are tried in this order.
var languages = []language{
	{"Go", findGo},
	{"Rust", findRust},
	{"C or C++", findC},
	{"AssemblyScript", findAssemblyScript},
	{"CommonJS", findCommonJS},
	{"JavaScript", findJavaScript},
}

// IsSource reports whether a file is a provider's source by itself: a script, and not
// a module.
func IsSource(file string) bool {
	return slices.Contains([]string{".js", ".cjs", ".mjs"}, filepath.Ext(file))
}

// Build compiles the provider in a folder, or the script that path names, and returns
// the path of the module, which stays in outDir until the next build of the same
// source replaces it. A ManifestFile in the folder is put into the module. Errors that
// have code beacon.Invalid are the author's to mend; the compiler's own words are in
// them.
func Build(ctx context.Context, path, outDir string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", path, err)
	}
	name := filepath.Base(abs)
	from := source{path, abs}
	var build compile
	described := true
	if IsSource(abs) && !isFolder(abs) {
		// What else is in its folder has nothing to do with it.
		described = false
		from = source{filepath.Dir(path), filepath.Dir(abs)}
		build, err = findScript(from, name)
		name = strings.TrimSuffix(name, filepath.Ext(name))
	} else {
		build, err = find(from)
	}
	if err != nil {
		return "", err
	}
	// One folder a source, so that two providers of one name do not mix.
	key := sha256.Sum256([]byte(abs))
	if outDir, err = filepath.Abs(outDir); err != nil { // the compiler runs elsewhere
		return "", fmt.Errorf("find the build folder: %w", err)
	}
	dir := filepath.Join(outDir, hex.EncodeToString(key[:8]))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("create the build folder: %w", err)
	}
	target := filepath.Join(dir, name+".wasm")
	temporary, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("create the build folder: %w", err)
	}
	defer os.RemoveAll(temporary)
	made := filepath.Join(temporary, "module.wasm")
	if err := build(ctx, made); err != nil {
		return "", err
	}
	if described {
		if err := from.describe(made); err != nil {
			return "", err
		}
	}
	if err := os.Rename(made, target); err != nil {
		return "", fmt.Errorf("keep the module: %w", err)
	}
	return target, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// find decides which language a folder is in.
func find(from source) (compile, error) {
	if _, err := os.ReadDir(from.path); err != nil {
		return nil, fmt.Errorf("list %s: %w", from.name, err)
	}
	var names []string
	for _, l := range languages {
		build, err := l.finds(from)
		if build != nil || err != nil {
			return build, err
		}
		names = append(names, l.name)
	}
	return nil, beacon.Errorf(beacon.Invalid, "folder %s has no program in %s: name a folder with a provider's source, or a .wasm file",
		from.name, strings.Join(names, ", "))
}

// describe puts the manifest beside the source into the module.
func (s source) describe(made string) error {
	manifest, err := os.ReadFile(filepath.Join(s.path, ManifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the manifest: %w", err)
	}
	binary, err := os.ReadFile(made)
	if err != nil {
		return fmt.Errorf("read the module: %w", err)
	}
	with, err := module.WithManifest(binary, manifest)
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "what the compiler made of %s is refused: %w", s.name, err)
	}
	if err := os.WriteFile(made, with, 0o600); err != nil {
		return fmt.Errorf("keep the module: %w", err)
	}
	return nil
}

// A command is a compiler's call.
type command struct {
	folder source
	what   string   // "the Go toolchain"
	env    []string // besides the user's
	// stdout is for what the compiler says to programs; nil for one that speaks to
	// people only.
	stdout io.Writer
}

// run calls a compiler in the folder. A compiler that says no is the author's to
// mend, in its own words.
func (c command) run(ctx context.Context, program string, args ...string) error {
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = c.folder.path
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	if c.stdout != nil {
		cmd.Stdout = c.stdout
	}
	// What the compiler has started may hold its output open.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return &complaint{strings.TrimSpace(said.String())}
	}
	return fmt.Errorf("run %s: %w", c.what, err)
}

// A complaint is what a compiler said about the source.
type complaint struct{ text string }

func (c *complaint) Error() string { return c.text }

// failed words a complaint for the author.
func (s source) failed(err error) error {
	var said *complaint
	if errors.As(err, &said) {
		return beacon.Errorf(beacon.Invalid, "building %s failed:\n%s", s.name, said.text)
	}
	return err
}
