//go:build unix

package shell

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// protocol.md §10: {SourcePath} was substituted unquoted: spaces broke, file
// names injected commands, "$&" in a path corrupted it. features.md §0, 9.
var hostileNames = []string{
	"plain.txt", "with space.txt", "$(touch pwned)", "`touch pwned`", "; touch pwned;", "a'b", `a"b`, "a\\b", "$&", "$HOME", "&& touch pwned",
	"|touch pwned", "> pwned", "*", "?", "[a]", "~", "-rf", "--help", "#x", "{SourcePath}", "$(touch pwned)'\"", "'; touch pwned; '", "\"; touch pwned; \"",
	"é ✓", "${IFS}", "%s", "!!",
}

// templates are ways to write a placeholder; each prints the path and an end.
var templates = map[string]string{
	"bare":                       `printf '%s|' {SourcePath}`,
	"single quotes":              `printf '%s|' '{SourcePath}'`,
	"double quotes":              `printf '%s|' "{SourcePath}"`,
	"inside of a word":           `printf '%s|' pre{SourcePath}post | sed 's/^pre//; s/post|$/|/'`,
	"inside of single quotes":    `printf '%s|' 'pre {SourcePath} post' | sed 's/^pre //; s/ post|$/|/'`,
	"inside of double quotes":    `printf '%s|' "pre {SourcePath} post" | sed 's/^pre //; s/ post|$/|/'`,
	"substitution":               `printf '%s|' "$(printf '%s' {SourcePath})"`,
	"quotes in a substitution":   `printf '%s|' "$(printf '%s' "{SourcePath}")"`,
	"backticks":                  "printf '%s|' \"`printf '%s' '{SourcePath}'`\"",
	"after an apostrophe":        `printf '%s|' {SourcePath} # don't {SourcePath}`,
	"after a comment":            "# it's here\nprintf '%s|' {SourcePath}",
	"after a number sign":        `set -- a b; test $# = 2; printf '%s|' '{SourcePath}'`,
	"after an escape":            `printf '%s|' "\"{SourcePath}\"" | sed 's/^"//; s/"|$/|/'`,
	"after an escaped quote":     `printf '%s|' \'{SourcePath}\' | sed "s/^'//; s/'|\$/|/"`,
	"here-document":              "cat <<END | sed 's/$/|/' | tr -d '\\n'\n{SourcePath}\nEND",
	"two of them":                "cat <<A - <<-B > /dev/null\nit's\nA\n\t\"quoted\n\tB\nprintf '%s|' {SourcePath}",
	"arithmetic":                 "test $((1 << 2)) = 4\nprintf '%s|' '{SourcePath}'",
	"parameter with a default":   `printf '%s|' "${NO_SUCH:-{SourcePath}}"`,
	"redirection":                `cat < {SourcePath} > /dev/null; printf '%s|' {SourcePath}`,
	"function":                   "f() { printf '%s|' \"$1\"; }; f {SourcePath}",
	"case":                       "case x in (x) printf '%s|' '{SourcePath}';; esac",
	"group":                      "{ printf '%s|' {SourcePath}; }",
	"assignment":                 `x={SourcePath}; printf '%s|' "$x"`,
	"the variable":               `printf '%s|' "$BEACON_SOURCE_PATH"`,
	"the variable in a script":   `sh -c 'printf "%s|" "$BEACON_SOURCE_PATH"'`,
	"an argument of a script":    `sh -c 'printf "%s|" "$1"' x {SourcePath}`,
	"a quoted argument of that":  `sh -c 'printf "%s|" "$1"' x "{SourcePath}"`,
	"quoted and not, repeatedly": `printf '%s' '' "" {SourcePath} ''"" ; printf '|'`,
}

// S29: a value is a word, whatever is in it.
func TestSubstitution(t *testing.T) {
	b := prepare(t, Config{})
	for name, template := range templates {
		t.Run(name, func(t *testing.T) {
			for _, file := range hostileNames {
				job := b.job(map[string]any{"Command": template}, file)
				result := b.ran(job)
				require.Equal(t, filepath.Join(job.Dir.Name(), file)+"|", result.Outputs["StdOut"], "%q: %v", file, result.Outputs)
				require.NoFileExists(t, filepath.Join(job.Dir.Name(), "pwned"), file)
			}
		})
	}
}

// A script in quotes, for another shell, is refused if the name could do harm
// there; otherwise it works.
func TestNestedScripts(t *testing.T) {
	b := prepare(t, Config{})
	for _, template := range []string{
		`sh -c "printf '%s|' {SourcePath}"`, `sh -c 'printf %s\| {SourcePath}'`, `eval "printf '%s|' {SourcePath}"`, `/bin/sh -c "printf '%s|' '{SourcePath}'"`,
	} {
		for _, file := range hostileNames {
			job := b.job(map[string]any{"Command": template}, file)
			result := b.ran(job)
			require.NoFileExists(t, filepath.Join(job.Dir.Name(), "pwned"), "%s with %q", template, file)
			switch {
			case strings.ContainsAny(file, active):
				require.Equal(t, -1, result.Outputs["ExitCode"], file)
				require.Contains(t, result.Outputs["StdOut"], "$BEACON_SOURCE_PATH")
			case !strings.Contains(file, " "):
				require.Equal(t, filepath.Join(job.Dir.Name(), file)+"|", result.Outputs["StdOut"], "%s with %q", template, file)
			}
		}
	}
}

func TestPlaceholders(t *testing.T) {
	b := prepare(t, Config{})
	job := b.job(map[string]any{"Command": `printf '%s\n' {SourcePath} {SourcePath2} {SourcePath3} {OutputPath} {OutputPath2} {WorkPath} {Other} {}`}, "a", "b", "", "x", "out/y")
	dir := job.Dir.Name()
	require.Equal(t, strings.Join([]string{dir + "/a", dir + "/b", "{SourcePath3}", dir + "/x", dir + "/out/y", dir, "{Other}", "{}", ""}, "\n"), b.ran(job).Outputs["Result"])
	require.Equal(t, "{SourcePath}\n", b.does("echo {SourcePath}").Outputs["Result"], "there is no source")

	result := b.ran(b.job(map[string]any{"Command": "cat <<'END'\n{SourcePath}\nEND"}, "a"))
	require.Equal(t, -1, result.Outputs["ExitCode"])
	require.Contains(t, result.Outputs["StdOut"], "here-document")
	require.Equal(t, "{Other} $x\n", b.ran(b.job(map[string]any{"Command": "cat <<'END'\n{Other} $x\nEND"}, "a")).Outputs["Result"])
}

// Whatever the template and the name: the path is never in what the shell reads,
// and the rest of the template is as it was.
func FuzzSubstitute(f *testing.F) {
	for _, template := range templates {
		f.Add(template, "a b")
	}
	f.Add("<<'", "x")
	f.Add("$((\n<<{SourcePath}", "$(x)")
	f.Add("`{SourcePath}", "x")
	f.Fuzz(func(t *testing.T, template, name string) {
		if len(template) > 10_000 || strings.ContainsRune(template, 0) || strings.ContainsAny(name, "/\x00") {
			return // of which a line with a NUL has been refused before
		}
		path := "/staging/" + name
		line, err := substitute(template, paths{{"{SourcePath}", "BEACON_SOURCE_PATH", path}})
		if err != nil {
			require.Contains(t, []beacon.Code{beacon.Invalid, beacon.Denied}, beacon.CodeOf(err))
			return
		}
		if !strings.Contains(template, path) {
			require.NotContains(t, line, path)
		}
		restored := line
		for _, written := range []string{`'"${BEACON_SOURCE_PATH}"'`, `"${BEACON_SOURCE_PATH}"`, `${BEACON_SOURCE_PATH}`} {
			restored = strings.ReplaceAll(restored, written, "{SourcePath}")
		}
		if !strings.Contains(template, "BEACON_SOURCE_PATH") && !strings.ContainsAny(template, `"'`) {
			require.Equal(t, template, restored)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(`echo 'a b' "c\"d" e\ f`)
	f.Add(`'`)
	f.Fuzz(func(t *testing.T, text string) {
		words, err := split(text)
		if err != nil {
			return
		}
		total := 0
		for _, w := range words {
			total += len(w)
		}
		require.LessOrEqual(t, total, len(text))
	})
}

func TestMatches(t *testing.T) {
	require.True(t, matches("LC_ALL", usual))
	require.False(t, matches("LCX", usual))
	require.True(t, matches("anything", []string{"*"}))
	e := newEnvironment([]string{"=odd", "A=1", "B", "PATH=/bin"}, []string{"A"})
	require.Equal(t, []string{"A=1", "PATH=/bin"}, e.base)
	_ = os.Environ
}
