package toolchain

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
)

// getRust is how to get a compiler for Rust.
const getRust = "in Debian apt-get install rustc cargo libstd-rust-dev-wasm32 lld; elsewhere install Rust (https://rustup.rs), then rustup target add wasm32-wasip1"

// findRust finds a crate.
func findRust(folder source) (compile, error) {
	names, err := folder.files(".toml")
	if !slices.Contains(names, "Cargo.toml") || err != nil {
		return nil, err
	}
	return func(ctx context.Context, made string) error { return compileRust(ctx, folder, made) }, nil
}

func compileRust(ctx context.Context, folder source, made string) error {
	rust, err := findRustc(ctx, folder)
	if err != nil {
		return err
	}
	// The same source is the same module, wherever it lies and wherever what it
	// depends on does.
	flags := []string{"--remap-path-prefix=" + folder.path + "=."}
	if home, err := cargoHome(); err == nil {
		flags = append(flags, "--remap-path-prefix="+home+"=cargo")
	}
	list, err := json.Marshal(flags) // which is a list in TOML, too
	if err != nil {
		return fmt.Errorf("word the compiler's flags: %w", err)
	}
	var said bytes.Buffer
	c := command{folder: folder, what: "cargo", env: []string{"RUSTC=" + rust.compiler}, stdout: &said}
	err = c.run(ctx, rust.cargo, "build", "--release", "--quiet", "--target", rust.target,
		// What is built of the crates it depends on stays for the next time.
		"--target-dir", filepath.Join(filepath.Dir(filepath.Dir(made)), "cargo"),
		"--config", "target."+rust.target+".rustflags="+string(list),
		"--config", `profile.release.strip="debuginfo"`,
		"--message-format", "json-render-diagnostics")
	if err != nil {
		return folder.failed(err)
	}
	module, err := artifact(folder, said.Bytes())
	if err != nil {
		return err
	}
	binary, err := os.ReadFile(module) //nolint:gosec // cargo has just made it
	if err != nil {
		return fmt.Errorf("read the module: %w", err)
	}
	return keep(made, binary)
}

// A rustToolchain is what builds crates for the target, by its name there.
type rustToolchain struct{ compiler, cargo, target string }

// findRustc finds a compiler with a standard library for WebAssembly, among all that
// are in PATH: that of rustup may hide the one of the distribution, which has one.
func findRustc(ctx context.Context, folder source) (found rustToolchain, err error) {
	lacks := ""
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		compiler, err := exec.LookPath(filepath.Join(dir, "rustc"))
		if err != nil || !filepath.IsAbs(compiler) {
			continue
		}
		for _, target := range []string{"wasm32-wasip1", "wasm32-wasi"} { // as it is called since Rust 1.78, and was before
			cmd := exec.CommandContext(ctx, compiler, "--print", "target-libdir", "--target", target)
			cmd.Dir = folder.path // which may say which toolchain it wants
			dir, err := cmd.Output()
			if ctx.Err() != nil {
				return found, context.Cause(ctx)
			}
			if err == nil {
				_, err = os.Stat(strings.TrimSpace(string(dir)))
			}
			if err != nil {
				lacks = "and " + compiler + " has no standard library for WebAssembly"
				continue
			}
			cargo, err := exec.LookPath(filepath.Join(filepath.Dir(compiler), "cargo"))
			if err != nil {
				lacks = "and there is no cargo beside " + compiler
				continue
			}
			return rustToolchain{compiler, cargo, target}, nil
		}
	}
	if lacks == "" {
		lacks = "and there is no command rustc"
	}
	return found, beacon.Errorf(beacon.Invalid, "building %s takes Rust for WebAssembly, %s: %s", folder.name, lacks, getRust)
}

func cargoHome() (string, error) {
	if home := os.Getenv("CARGO_HOME"); home != "" {
		return home, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".cargo"), nil
}

// artifact is the one module of the crate itself, by what cargo said that it made.
func artifact(folder source, said []byte) (string, error) {
	var modules []string
	for line := range bytes.Lines(said) {
		var message struct {
			Reason       string   `json:"reason"`
			ManifestPath string   `json:"manifest_path"`
			Filenames    []string `json:"filenames"`
		}
		if err := json.Unmarshal(line, &message); err != nil {
			continue // what a build script has said
		}
		if message.Reason != "compiler-artifact" || !sameFile(message.ManifestPath, filepath.Join(folder.path, "Cargo.toml")) {
			continue
		}
		for _, name := range message.Filenames {
			if filepath.Ext(name) == ".wasm" {
				modules = append(modules, name)
			}
		}
	}
	switch len(modules) {
	case 1:
		return modules[0], nil
	case 0:
		return "", beacon.Errorf(beacon.Invalid, "crate %s makes no module: a provider's Cargo.toml has [lib] with crate-type = [\"cdylib\"], or it is a program", folder.name)
	}
	return "", beacon.Errorf(beacon.Invalid, "crate %s makes %d modules: a provider is one", folder.name, len(modules))
}

func sameFile(a, b string) bool {
	one, err := os.Stat(a)
	if err != nil {
		return false
	}
	two, err := os.Stat(b)
	return err == nil && os.SameFile(one, two)
}
