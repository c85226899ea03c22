package javascript_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guest-sdk/javascript"
)

// The lines of a program's files are where it says, whatever is before them and
// however they end; cmd/beacon has programs that run.
func TestProgramLines(t *testing.T) {
	program := javascript.Program{
		Entry: "main.cjs", Version: "1.2.3", Description: "two\nlines",
		Files: []javascript.File{
			{Path: "main.cjs", Source: "#!/usr/bin/env node\r\nmark('main', 2);\r\n// the end", Requires: map[string]string{"./lib": "lib/a.js"}},
			{Path: "lib/a.js", Source: "\uFEFFmark('a', 1);\n\nmark('a', 3);\n"},
			{Path: "data.json", Source: "{\"\u2028\": \"mark('data', 1);\"}\n"},
		},
	}
	script := program.Script("main.cjs")
	require.Equal(t, script, program.Script("main.cjs"))
	lines := strings.Split(script, "\n")
	var about string
	for _, line := range lines {
		if _, rest, found := strings.Cut(line, "})(Object.assign("); found {
			about = rest
		}
	}
	require.Contains(t, about, `"requires":{"data.json":{},"lib/a.js":{},"main.cjs":{"./lib":"lib/a.js"}}`)
	require.Contains(t, about, `"version":"1.2.3"`)
	begin := func(path string) int {
		before, _, found := strings.Cut(about, `,"`+path+`"]`)
		require.True(t, found, about)
		n := 0
		for _, digit := range before[strings.LastIndex(before, "[")+1:] {
			n = 10*n + int(digit-'0')
		}
		return n
	}
	require.Equal(t, "mark('main', 2);", lines[begin("main.cjs")-1+1])
	require.Equal(t, "mark('a', 1);", lines[begin("lib/a.js")-1])
	require.Equal(t, "mark('a', 3);", lines[begin("lib/a.js")-1+2])
	require.Contains(t, lines[begin("data.json")-1], `module.exports = JSON.parse("{\"\u2028\": \"mark('data', 1);\"}\n");`)
	require.Contains(t, script, "//#!/usr/bin/env node")
}
