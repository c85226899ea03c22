package beacon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// S28: one version of the engine, everywhere. Whoever changes it runs the proofs
// first (BEACON_PROOFS=1, in .ci/run), all targets of bench/fuzz for two hours,
// and looks through what RATIONALE.md says about its defects.
func TestS28EngineIsPinned(t *testing.T) {
	const pinned = "github.com/tetratelabs/wazero v1.12.0"
	modules, err := filepath.Glob("bench/*/go.mod")
	require.NoError(t, err)
	for _, name := range append(modules, "go.mod") {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "tetratelabs/wazero") {
				line, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "require "), " //")
				require.Equal(t, pinned, line, name)
			}
		}
		require.NotContains(t, string(text), "replace github.com/tetratelabs", name)
	}
}

// SECURITY.md names every requirement once, and only tests that there are; at
// least one of each names the requirement.
func TestSecurityTable(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	require.NoError(t, err)
	functions := map[string]string{} // of tests, by package
	next := 1
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "| S") {
			continue
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		require.Len(t, cells, 3, line)
		require.Equal(t, fmt.Sprint("S", next), strings.TrimSpace(cells[0]))
		number := regexp.MustCompile(fmt.Sprintf(`S%d\D`, next))
		next++
		listed, named := false, false
		for group := range strings.SplitSeq(cells[2], ";") {
			if strings.TrimSpace(group) == "" {
				continue
			}
			pkg, tests, found := strings.Cut(strings.TrimSpace(group), ": ")
			require.True(t, found, "want package: tests in %q", group)
			if functions[pkg] == "" {
				files, err := filepath.Glob(filepath.Join(filepath.FromSlash(pkg), "*_test.go"))
				require.NoError(t, err)
				for _, file := range files {
					source, err := os.ReadFile(file)
					require.NoError(t, err)
					functions[pkg] += string(source)
				}
			}
			for name := range strings.SplitSeq(tests, ", ") {
				source := regexp.MustCompile(`(?m)(^//.*\n)*^func ` + regexp.QuoteMeta(name) + `\((.*\n)+?}\n`).FindString(functions[pkg])
				require.NotEmpty(t, source, "package %s has no test %s", pkg, name)
				named = named || number.MatchString(source)
				listed = true
			}
		}
		require.Equal(t, listed, named, "no test of S%d names its number", next-1)
	}
	require.Equal(t, 31, next, "S1 to S30")
}
