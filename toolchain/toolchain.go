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
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
)

// guestPackage is imported by Go providers that are written with the SDK.
const guestPackage = "github.com/ultravisor/beacon/guest-sdk/go/guest"

// Build compiles the provider in folder and returns the path of the module,
// which stays in outDir until the next build of the same folder replaces it.
// Errors that have code beacon.Invalid are the author's to mend; the
// compiler's own words are in them.
func Build(ctx context.Context, folder, outDir string) (string, error) {
	abs, err := filepath.Abs(folder)
	if err != nil {
		return "", fmt.Errorf("find %s: %w", folder, err)
	}
	sources, err := programSources(abs)
	if err != nil {
		return "", fmt.Errorf("list %s: %w", folder, err)
	}
	if len(sources) == 0 {
		return "", beacon.Errorf(beacon.Invalid, "folder %s has no Go program: name a folder with a provider in Go, or a .wasm file", folder)
	}
	reactor, err := isReactor(folder, sources)
	if err != nil {
		return "", err
	}
	compiler, err := exec.LookPath("go")
	if err != nil {
		return "", beacon.Errorf(beacon.Invalid, "building %s takes the Go toolchain, and there is no go command: install Go 1.24 or later, or name a .wasm file", folder)
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
	target := filepath.Join(dir, filepath.Base(abs)+".wasm")
	temporary, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return "", fmt.Errorf("create the build folder: %w", err)
	}
	defer os.RemoveAll(temporary)
	made := filepath.Join(temporary, "module.wasm")

	// The same source is the same module, wherever it lies and whatever its
	// repository says.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-o", made}
	if reactor {
		args = append(args, "-buildmode=c-shared")
	}
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, compiler, append(args, ".")...) //nolint:gosec // the compiler and fixed words
	cmd.Dir = abs
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = &said, &said
	// What the compiler has started may hold its output open.
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			text := strings.TrimSpace(said.String())
			if strings.Contains(text, "go.mod file not found") || strings.Contains(text, "no required module provides package "+guestPackage) {
				text += "\nthe folder needs a go.mod that knows the SDK: go mod init NAME, then go get github.com/ultravisor/beacon, or go work init . PATH with a checkout of it"
			}
			return "", beacon.Errorf(beacon.Invalid, "building %s failed:\n%s", folder, text)
		}
		return "", fmt.Errorf("run the Go toolchain: %w", err)
	}
	if err := os.Rename(made, target); err != nil {
		return "", fmt.Errorf("keep the module: %w", err)
	}
	return target, nil
}

// programSources lists the Go files that would be compiled.
func programSources(folder string) ([]string, error) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	target := build.Default
	target.GOOS, target.GOARCH, target.CgoEnabled = "wasip1", "wasm", false
	var sources []string
	for _, e := range entries {
		if e.IsDir() || !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		ok, err := target.MatchFile(folder, e.Name())
		if err != nil {
			return nil, err
		}
		if ok {
			sources = append(sources, filepath.Join(folder, e.Name()))
		}
	}
	return sources, nil
}

// isReactor finds out how a Go provider wants to be built: a program that uses
// the SDK, or exports beacon_execute itself, has no _start.
func isReactor(folder string, sources []string) (bool, error) {
	for _, name := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return false, beacon.Errorf(beacon.Invalid, "read the provider's source: %w", err)
		}
		if file.Name.Name != "main" {
			return false, beacon.Errorf(beacon.Invalid, "folder %s has package %s, which is no program: a provider is a package main", folder, file.Name.Name)
		}
		for _, i := range file.Imports {
			if path, err := strconv.Unquote(i.Path.Value); err == nil && path == guestPackage {
				return true, nil
			}
		}
		for _, group := range file.Comments {
			for _, c := range group.List {
				if strings.TrimSpace(c.Text) == "//go:wasmexport beacon_execute" {
					return true, nil
				}
			}
		}
	}
	return false, nil
}
