package toolchain

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/ultravisor/beacon"
	sdk "github.com/ultravisor/beacon/guest-sdk"
)

// getAssemblyScript is how to get a compiler for AssemblyScript.
const getAssemblyScript = "with npm (in Debian apt-get install npm; where its Node is older than 20, npm install node@20 in the project, too), npm install in the folder of a project that has a package.json, as beacon new makes it; or npm install --global assemblyscript@0.28.20"

// findAssemblyScript finds a program in AssemblyScript.
func findAssemblyScript(folder source) (compile, error) {
	program, err := folder.entry(".ts")
	if program == "" || err != nil {
		return nil, err
	}
	return func(ctx context.Context, made string) error { return compileAssemblyScript(ctx, folder, program, made) }, nil
}

func compileAssemblyScript(ctx context.Context, folder source, program, made string) error {
	compiler, err := folder.nodeTool("asc")
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "building %s takes the compiler of AssemblyScript, and there is no command asc: %s", folder.name, getAssemblyScript)
	}
	// The SDK is the package beacon: the project's own, or the one that is here.
	packages := filepath.Join(filepath.Dir(made), "sdk")
	if own := filepath.Join(folder.path, "sdk"); isFile(filepath.Join(own, "beacon", "index.ts")) {
		packages = own
	} else if err := os.CopyFS(filepath.Join(packages, "beacon"), sdk.AssemblyScript); err != nil {
		return fmt.Errorf("put the SDK beside the source: %w", err)
	}
	args := []string{
		"./" + program, "--outFile", made, "--path", packages, "-O2", "--runtime", "incremental",
		"--debug", // which is but the names of functions, for what breaks down
	}
	text, err := os.ReadFile(filepath.Join(folder.path, program))
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(folder.name, program), err)
	}
	if importsBeacon.Match(text) {
		args = append(args, "--exportStart", "_initialize", "--use", "abort=~lib/beacon/panic/abort")
	}
	// Its own Node goes first, if there is one beside it.
	path := filepath.Dir(compiler) + string(filepath.ListSeparator) + os.Getenv("PATH")
	c := command{folder: folder, what: "asc", env: []string{"PATH=" + path}}
	return folder.failed(c.run(ctx, compiler, args...))
}

// importsBeacon finds out whether a program is written with the SDK.
var importsBeacon = regexp.MustCompile(`\bfrom\s*["']beacon["']`)

// nodeTool finds a program of a package from npm: that of the project, or of a
// folder that it lies in, as Node would, or the one that is installed for all.
func (s source) nodeTool(name string) (string, error) {
	for dir := s.path; ; dir = filepath.Dir(dir) {
		if path, err := exec.LookPath(filepath.Join(dir, "node_modules", ".bin", name)); err == nil {
			return path, nil
		}
		if dir == filepath.Dir(dir) {
			return exec.LookPath(name)
		}
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}
