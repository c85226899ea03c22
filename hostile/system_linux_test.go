package hostile_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// descriptors are the numbers of open files and of children of this process.
func descriptors(t *testing.T) [2]int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	require.NoError(t, err)
	lists, err := filepath.Glob("/proc/self/task/*/children")
	require.NoError(t, err)
	children := 0
	for _, list := range lists {
		if pids, err := os.ReadFile(list); err == nil && len(pids) > 0 {
			children++
		}
	}
	return [2]int{len(open), children}
}
