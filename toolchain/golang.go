package toolchain

import (
	"context"
	"errors"
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/modfile"

	"github.com/ultravisor/beacon"
)

// guestPackage is imported by Go providers that are written with the SDK.
const guestPackage = "github.com/ultravisor/beacon/guest-sdk/go/guest"

// findGo finds a program in Go.
func findGo(folder source) (compile, error) {
	sources, err := programSources(folder.path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", folder.name, err)
	}
	if len(sources) == 0 {
		tool, err := onlyTool(folder)
		if tool == "" || err != nil {
			return nil, err
		}
		return func(ctx context.Context, made string) error { return compileGo(ctx, folder, made, tool, false) }, nil
	}
	reactor, err := isReactor(folder.name, sources)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, made string) error { return compileGo(ctx, folder, made, ".", reactor) }, nil
}

func compileGo(ctx context.Context, folder source, made, program string, reactor bool) error {
	compiler, err := exec.LookPath("go")
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "building %s takes the Go toolchain, and there is no go command: install Go 1.24 or later (https://go.dev/dl), or name a .wasm file", folder.name)
	}
	// The same source is the same module, wherever it lies and whatever its
	// repository says.
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-w", "-o", made}
	if reactor {
		args = append(args, "-buildmode=c-shared")
	}
	c := command{folder: folder, what: "the Go toolchain", env: []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"}}
	err = c.run(ctx, compiler, append(args, program)...)
	var said *complaint
	if errors.As(err, &said) && (strings.Contains(said.text, "go.mod file not found") || strings.Contains(said.text, "no required module provides package "+guestPackage)) {
		said.text += "\nthe folder needs a go.mod that knows the SDK, as beacon new makes it: or go mod init NAME, then go get github.com/ultravisor/beacon, or go work init . PATH with a checkout of it"
	}
	return folder.failed(err)
}

// onlyTool is the tool of a go.mod that has no program beside it: somebody else's
// program, in the version that go.mod and go.sum pin. It is "" without a go.mod,
// or without tools in it.
func onlyTool(folder source) (string, error) {
	raw, err := os.ReadFile(filepath.Join(folder.path, "go.mod"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read go.mod: %w", err)
	}
	file, err := modfile.Parse(filepath.Join(folder.name, "go.mod"), raw, nil)
	if err != nil {
		return "", beacon.Errorf(beacon.Invalid, "read the provider's source: %w", err)
	}
	switch len(file.Tool) {
	case 0:
		return "", nil
	case 1:
		return file.Tool[0].Path, nil
	}
	return "", beacon.Errorf(beacon.Invalid, "folder %s has no program of its own, and %d tools in its go.mod: a provider is one program", folder.name, len(file.Tool))
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
