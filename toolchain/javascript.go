package toolchain

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/guest-sdk/javascript"
)

// findJavaScript finds a script. Whether it is a provider shows when its module is
// read.
func findJavaScript(folder source) (compile, error) {
	script, err := folder.entry(".js")
	if script == "" || err != nil {
		return nil, err
	}
	return findScript(folder, script)
}

// compileJavaScript makes a module of a script that is written with the SDK.
func compileJavaScript(folder source, script, made string) error {
	text, err := os.ReadFile(filepath.Join(folder.path, script))
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Join(folder.name, script), err)
	}
	return assemble(folder, script, string(text), made)
}

func assemble(folder source, name, script, made string) error {
	binary, err := javascript.Assemble(javascript.Engine, name, script)
	if err != nil {
		return fmt.Errorf("build %s: %w", folder.name, err)
	}
	return keep(made, binary)
}

// keep writes a module that was made elsewhere.
func keep(made string, binary []byte) error {
	if err := os.WriteFile(made, binary, 0o600); err != nil {
		return fmt.Errorf("keep the module: %w", err)
	}
	return nil
}

// entry is the file that a program with the extension begins with: the only one in
// the folder, or else the one called provider. It is "" if there is none.
func (s source) entry(extension string) (string, error) {
	names, err := s.files(extension)
	switch {
	case len(names) == 0 || err != nil:
		return "", err
	case len(names) == 1:
		return names[0], nil
	case slices.Contains(names, "provider"+extension):
		return "provider" + extension, nil
	}
	return "", beacon.Errorf(beacon.Invalid, "folder %s has %d files %s: call the one that a provider begins with provider%s", s.name, len(names), extension, extension)
}
