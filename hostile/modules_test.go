package hostile_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A specimen is a module of the corpus, and what its text says about it.
type specimen struct {
	name   string
	binary []byte
	// wants are the outcomes that it may have: "ok", "exit N", "refused", or the
	// code of an error.
	wants []string
	// grants says what it may reach: "" for nothing.
	grants string
	// output is true when an output is expected of it.
	output bool
}

// specimens reads the modules of this folder.
func specimens(t testing.TB) (all []specimen) {
	t.Helper()
	texts, err := filepath.Glob("testdata/modules/*.wat")
	require.NoError(t, err)
	for _, path := range texts {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		name := strings.TrimSuffix(path, ".wat")
		binary, err := os.ReadFile(name + ".wasm")
		require.NoError(t, err)
		s := specimen{name: filepath.Base(name), binary: binary}
		for n, line := range strings.Split(string(text), "\n") {
			words := strings.Fields(strings.TrimPrefix(line, ";;"))
			switch {
			case !strings.HasPrefix(line, ";;"):
			case n == 0:
				s.wants = outcomes(words)
			case words[0] == "grants":
				s.grants = words[1]
			case slices.Equal(words, []string{"output"}):
				s.output = true
			}
		}
		require.NotEmpty(t, s.wants, path)
		all = append(all, s)
	}
	return all
}

// outcomes joins the words "exit" and a number.
func outcomes(words []string) (all []string) {
	for i := 0; i < len(words); i++ {
		if words[i] == "exit" {
			i++
			all = append(all, "exit "+words[i])
		} else {
			all = append(all, words[i])
		}
	}
	return all
}

var (
	mention = regexp.MustCompile(`\$[^\s()]+`)
	literal = regexp.MustCompile(`\(str "((?:[^"\\]|\\.)*)"\)`)
	escape  = regexp.MustCompile(`\\([0-9a-f]{2}|.)`)
)

// expand makes a module of a text: what it mentions of the prelude comes before
// it, and texts in it get a place in the second page of the memory.
func expand(prelude, text string) string {
	definitions := map[string]string{}
	var order []string
	for part := range strings.SplitSeq(prelude, "\n\n") {
		code := strings.TrimSpace(part)
		if !strings.HasPrefix(code, "(") && !strings.Contains(code, "\n(") {
			continue
		}
		name := mention.FindString(code[strings.Index("\n"+code, "\n("):])
		if strings.HasPrefix(code, "(memory") {
			name = "memory"
		}
		definitions[name] = code
		order = append(order, name)
	}
	wanted := map[string]bool{"memory": !strings.Contains(text, "(memory (export") && !strings.Contains(text, "(memory 1)")}
	var want func(string)
	want = func(code string) {
		for _, name := range mention.FindAllString(code, -1) {
			if definitions[name] != "" && !wanted[name] {
				wanted[name] = true
				want(definitions[name])
			}
		}
	}
	want(text)
	body := ""
	imports := ""
	for _, name := range order {
		switch {
		case !wanted[name]:
		case strings.HasPrefix(definitions[name], "(import"):
			imports += definitions[name] + "\n"
		default:
			body += definitions[name] + "\n"
		}
	}
	// Imports come before everything else.
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "(import") {
			imports += line
		} else {
			body += line
		}
	}
	if !strings.Contains(text, "(export ") || strings.Contains(text, "(memory (export") && strings.Count(text, "(export ") == 1 {
		body += `(export "_start" (func $main))` + "\n"
	}
	at, data := 1<<16, ""
	body = literal.ReplaceAllStringFunc(body, func(found string) string {
		content := literal.FindStringSubmatch(found)[1]
		size := len(escape.ReplaceAllString(content, "x"))
		place := fmt.Sprintf("(i32.const %d) (i32.const %d)", at, size)
		data += fmt.Sprintf("(data (i32.const %d) \"%s\")\n", at, content)
		at += size
		return place
	})
	return "(module\n" + imports + body + data + ")\n"
}

// The compiled modules are those of the texts beside them. With
// BEACON_UPDATE_MODULES=1 they become so.
func TestModulesAreCurrent(t *testing.T) {
	tool, err := exec.LookPath("wat2wasm")
	if err != nil {
		if required, _ := strconv.ParseBool(os.Getenv("BEACON_REQUIRE_TOOLS")); required {
			t.Fatal(err)
		}
		t.Skip("wat2wasm is not installed (Debian package wabt)")
	}
	update, _ := strconv.ParseBool(os.Getenv("BEACON_UPDATE_MODULES"))
	prelude, err := os.ReadFile("testdata/prelude.wat")
	require.NoError(t, err)
	texts, err := filepath.Glob("testdata/modules/*.wat")
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(texts), 100)
	dir := t.TempDir()
	for _, path := range texts {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		in, out := filepath.Join(dir, "in.wat"), filepath.Join(dir, "out.wasm")
		require.NoError(t, os.WriteFile(in, []byte(expand(string(prelude), string(text))), 0o600))
		said, err := exec.CommandContext(t.Context(), tool, "--debug-names", in, "-o", out).CombinedOutput()
		require.NoError(t, err, "%s: %s", path, said)
		made, err := os.ReadFile(out)
		require.NoError(t, err)
		compiled := strings.TrimSuffix(path, ".wat") + ".wasm"
		if update {
			require.NoError(t, os.WriteFile(compiled, made, 0o600))
		}
		kept, err := os.ReadFile(compiled)
		require.NoError(t, err)
		require.Equal(t, made, kept, "%s is another module now: run this test with BEACON_UPDATE_MODULES=1", path)
	}
}
