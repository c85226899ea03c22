package main

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMappings(t *testing.T) {
	const text = `00400000-02c1f000 r-xp 00000000 fe:00 42                                 /opt/beacon
Size:              41084 kB
Rss:               12000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
02c1f000-05a00000 r--p 0281f000 fe:00 42                                 /opt/beacon
Rss:                8000 kB
Anonymous:             0 kB
05a00000-05a10000 r--p 05600000 fe:00 42                                 /opt/beacon
Rss:                  64 kB
Anonymous:             8 kB
05a10000-05b00000 rw-p 05610000 fe:00 42                                 /opt/beacon
Rss:                 100 kB
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 43                         /opt/other
Anonymous:             0 kB
7f0000002000-7f0000003000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	require.Equal(t, []mapping{{0x400000, 0x2c1f000}, {0x2c1f000, 0x5a00000}}, mappings([]byte(text), "/opt/beacon"))
	for _, text := range []string{"", "Anonymous: 0 kB", "x-y r-xp 0 0 0 /opt/beacon\nAnonymous: 0 kB", "2-1 r-xp 0 0 0 /opt/beacon\nAnonymous: 0 kB", "1-2 r-xp 0 0 0 /opt/beacon\nAnonymous:"} {
		require.Empty(t, mappings([]byte(text), "/opt/beacon"), text)
	}
}

// What is forgotten is there when it is used, and much less of it is resident.
func TestForgetProgram(t *testing.T) {
	program, err := os.Readlink("/proc/self/exe")
	require.NoError(t, err)
	raw, err := os.ReadFile(program)
	require.NoError(t, err)
	require.NotEmpty(t, raw) // all of it is in the cache now
	before := status(t, os.Getpid(), "RssFile")
	forgetProgram()
	after := status(t, os.Getpid(), "RssFile")
	t.Logf("%d KiB of files before, %d after", before>>10, after>>10)
	require.Less(t, after, before)
	require.Equal(t, exitOK, run([]string{"version"}, streams{strings.NewReader(""), &strings.Builder{}, &strings.Builder{}}))
}
