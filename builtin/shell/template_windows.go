package shell

import (
	"os"
	"path/filepath"
	"strings"
)

const isWindows = true

// shellOf has cmd.exe run a line, as it is: /S takes away the outer quotes and
// nothing else, /D runs no other commands before it.
func shellOf(line string) (argv []string, forCmd string) {
	program := filepath.Join(os.Getenv("SYSTEMROOT"), "System32", "cmd.exe")
	if named := os.Getenv("COMSPEC"); named != "" {
		program = named
	}
	return []string{program}, `/D /S /C "` + line + `"`
}

// substitute replaces the placeholders in a line for cmd.exe with references to
// the variables that hold the paths, in double quotes. In these nothing but
// percent signs means anything, what a variable holds is not looked at again,
// and no name can have a quote.
func substitute(line string, names paths) (string, error) {
	var out strings.Builder
	quoted := false
next:
	for len(line) > 0 {
		for _, n := range names {
			if rest, found := strings.CutPrefix(line, n.placeholder); found {
				reference := "%" + n.variable + "%"
				if !quoted {
					reference = `"` + reference + `"`
				}
				out.WriteString(reference)
				line = rest
				continue next
			}
		}
		if line[0] == '"' {
			quoted = !quoted
		}
		out.WriteByte(line[0])
		line = line[1:]
	}
	return out.String(), nil
}
