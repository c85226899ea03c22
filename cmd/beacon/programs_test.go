package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// program builds one that knows nothing of Beacon. Without the compiler the
// test is skipped, unless BEACON_REQUIRE_TOOLS is set.
func program(t *testing.T, out string, env []string, words ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), words[0], words[1:]...)
	cmd.Env = append(os.Environ(), env...)
	text, err := cmd.CombinedOutput()
	if err != nil && os.Getenv("BEACON_REQUIRE_TOOLS") != "1" {
		t.Skipf("cannot build %s here: %v\n%s", filepath.Base(out), err, text)
	}
	require.NoError(t, err, "%s", text)
}

func beaconExec(args ...string) (code int, out, errs string) {
	var o, e bytes.Buffer
	code = run(append([]string{"exec"}, args...), streams{strings.NewReader(""), &o, &e})
	return code, o.String(), e.String()
}

// Programs that exist run unmodified: their arguments, standard input and
// output, files and exit codes are what they are on any system.
func TestProgramInC(t *testing.T) {
	dir := isolate(t)
	fold := filepath.Join(dir, "fold.wasm")
	program(t, fold, nil, "clang", "--target=wasm32-wasi", "-O1", "-Wall", "-Werror", "-o", fold, "testdata/programs/fold.c")
	source := filepath.Join(dir, "in.txt")
	require.NoError(t, os.WriteFile(source, []byte("abcdefgh\n\nxyz\n"), 0o600))
	const folded = "abc\ndef\ngh\n\nxyz\n"

	code, out, errs := beaconExec("--module", fold, "--source", source, "--", "-w", "3", "{SourcePath}")
	require.Equal(t, exitOK, code, errs)
	require.Equal(t, folded, out)

	code, out, errs = beaconExec("--module", fold, "--source", source, "--set", "Stdin=source", "--", "-w3")
	require.Equal(t, exitOK, code, errs)
	require.Equal(t, folded, out)

	target := filepath.Join(dir, "out.txt")
	code, out, errs = beaconExec("--module", fold, "--source", source, "--output", target, "--", "-w", "3", "-o", "{OutputPath}", "{SourcePath}")
	require.Equal(t, exitOK, code, errs)
	require.Empty(t, out)
	written, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, folded, string(written))

	code, _, errs = beaconExec("--module", fold, "--", "missing.txt")
	require.Equal(t, exitFailed, code)
	require.Equal(t, "fold: missing.txt: No such file or directory\nbeacon: the item failed with exit code 3\n", errs)
	code, _, errs = beaconExec("--module", fold, "--passthrough", "--", "-x")
	require.Equal(t, 2, code)
	require.Contains(t, errs, "usage: fold")
}

// The same of a program in Go that somebody else wrote: it takes archives apart.
func TestProgramInGo(t *testing.T) {
	dir := isolate(t)
	extract := filepath.Join(dir, "extract.wasm")
	program(t, extract, []string{"GOOS=wasip1", "GOARCH=wasm", "CGO_ENABLED=0"},
		"go", "build", "-buildvcs=false", "-o", extract, "github.com/rogpeppe/go-internal/cmd/txtar-x")
	archive := filepath.Join(dir, "in.txtar")
	require.NoError(t, os.WriteFile(archive, []byte("-- sub/dir/one.txt --\n1\n-- two.txt --\n2\n"), 0o600))

	target := filepath.Join(dir, "two.txt")
	code, out, errs := beaconExec("--module", extract, "--source", archive, "--output", target, "--", "{SourcePath}")
	require.Equal(t, exitOK, code, errs)
	require.Empty(t, out)
	written, err := os.ReadFile(target)
	require.NoError(t, err)
	require.Equal(t, "2\n", string(written))

	// An absolute path means the same directory to it as any other.
	outside := filepath.Join(dir, "outside")
	code, _, errs = beaconExec("--module", extract, "--source", archive, "--", "-C", outside, "{SourcePath}")
	require.Equal(t, exitOK, code, errs)
	require.NoDirExists(t, outside)
	code, _, errs = beaconExec("--module", extract, "--", "missing.txtar")
	require.Equal(t, exitFailed, code)
	require.Contains(t, errs, "missing.txtar: No such file or directory\nbeacon: the item failed with exit code 1\n")
}
