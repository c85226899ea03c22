package toolchain

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	sdk "github.com/ultravisor/beacon/guest-sdk"
)

// getC is how to get a compiler for C.
const getC = "in Debian apt-get install clang lld wasi-libc libclang-rt-14-dev-wasm32 (the number is clang's version); elsewhere install the WASI SDK (https://github.com/WebAssembly/wasi-sdk) and set WASI_SDK_PATH to its folder"

// findC finds a program in C or C++: all such files of a folder.
func findC(folder source) (compile, error) {
	names, err := folder.files(".c", ".cc", ".cpp", ".cxx")
	if len(names) == 0 || err != nil {
		return nil, err
	}
	reactor := false
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(folder.path, name))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", filepath.Join(folder.name, name), err)
		}
		reactor = reactor || bytes.Contains(text, []byte(`"beacon.h"`)) || bytes.Contains(text, []byte("beacon_execute"))
	}
	return func(ctx context.Context, made string) error { return compileC(ctx, folder, names, made, reactor) }, nil
}

func compileC(ctx context.Context, folder source, names []string, made string, reactor bool) error {
	name := "clang"
	if path := os.Getenv("WASI_SDK_PATH"); path != "" {
		name = filepath.Join(path, "bin", "clang")
	}
	compiler, err := exec.LookPath(name)
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "building %s takes clang, and there is no command %s: %s", folder.name, name, getC)
	}
	// The header is there for projects that do not bring it.
	headers := filepath.Join(filepath.Dir(made), "sdk")
	if err := os.CopyFS(headers, sdk.C); err != nil {
		return fmt.Errorf("put the SDK beside the source: %w", err)
	}
	args := []string{
		"--target=wasm32-wasi", "-O2", "-Isdk", "-idirafter", headers,
		"-ffile-prefix-map=" + headers + "=sdk", "-ffile-prefix-map=" + folder.path + "=.",
		"-Wl,--strip-debug", "-Wno-deprecated", "-o", made,
	}
	if reactor {
		args = append(args, "-mexec-model=reactor")
	}
	if slices.ContainsFunc(names, func(n string) bool { return filepath.Ext(n) != ".c" }) {
		args = append(args, "-fno-exceptions")
	}
	for _, n := range names {
		args = append(args, "./"+n) // which is no flag, whatever it is called
	}
	err = command{folder: folder, what: "clang"}.run(ctx, compiler, args...)
	var said *complaint
	if errors.As(err, &said) {
		for _, sign := range []string{"'stdio.h' file not found", "'stdlib.h' file not found", "'stddef.h' file not found", "'math.h' file not found", "'string.h' file not found", "crt1", "libclang_rt.builtins", "wasm-ld", "invalid linker name", "No available targets"} {
			if strings.Contains(said.text, sign) && !strings.Contains(said.text, "undefined symbol") {
				said.text += "\nclang lacks what it takes to build for WebAssembly: " + getC
				break
			}
		}
	}
	return folder.failed(err)
}

// files lists the files of the folder itself that have one of the extensions.
func (s source) files(extensions ...string) ([]string, error) {
	entries, err := os.ReadDir(s.path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", s.name, err)
	}
	var names []string
	for _, e := range entries {
		if e.Type()&fs.ModeDir == 0 && slices.Contains(extensions, filepath.Ext(e.Name())) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
