package beacon_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Documents that name tests name those that exist: `package: TestName`.
func TestDocumentsNameTests(t *testing.T) {
	named := regexp.MustCompile("`([a-z./]+): (Test[A-Za-z0-9]+)`")
	for _, document := range []string{"docs/compatibility.md"} {
		text, err := os.ReadFile(document)
		require.NoError(t, err)
		found := named.FindAllStringSubmatch(string(text), -1)
		require.NotEmpty(t, found, document)
		for _, m := range found {
			files, err := filepath.Glob(filepath.Join(filepath.FromSlash(m[1]), "*_test.go"))
			require.NoError(t, err)
			exists := false
			for _, file := range files {
				source, err := os.ReadFile(file)
				require.NoError(t, err)
				exists = exists || strings.Contains(string(source), "\nfunc "+m[2]+"(t *testing.T)")
			}
			require.True(t, exists, "%s names %s of %s, which is not there", document, m[2], m[1])
		}
	}
}
