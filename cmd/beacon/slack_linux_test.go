package main

import (
	"os"
	goruntime "runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Slack takes no memory, also where Go has to clear what others have used.
func TestSlack(t *testing.T) {
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	func() {
		used := make([]byte, heapSlack)
		for i := range used {
			used[i] = 1
		}
		goruntime.KeepAlive(used)
	}()
	goruntime.GC()
	before := status(t, os.Getpid(), "RssAnon")
	held := slack()
	require.Len(t, held, heapSlack)
	require.Less(t, status(t, os.Getpid(), "RssAnon")-before, int64(heapSlack/2))
	goruntime.KeepAlive(held)

	t.Setenv("GOMEMLIMIT", "100MiB")
	require.Empty(t, slack(), "somebody knows better")
	t.Setenv("GOMEMLIMIT", "")
	t.Setenv("GOGC", "off")
	require.Empty(t, slack(), "somebody knows better")
}
