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

// SECURITY.md names every requirement once, and only tests that there are.
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
		next++
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
				declared := regexp.MustCompile(`(?m)^func ` + regexp.QuoteMeta(name) + `\(`)
				require.True(t, declared.MatchString(functions[pkg]), "package %s has no test %s", pkg, name)
			}
		}
	}
	require.Equal(t, 31, next, "S1 to S30")
}
