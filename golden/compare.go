package golden

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"github.com/ultravisor/beacon"
)

// Compare lists what is not as expected, each difference fit for a terminal,
// with lines of its own for what it takes to see it.
func (c *Case) Compare(got Got) []string {
	var list []string
	note := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	switch want := c.Want.Error; {
	case want == nil && got.Err != nil:
		note("Error: the item failed with %s: %s", beacon.CodeOf(got.Err), got.Err)
		for _, line := range got.log() {
			note("  log: %s", beacon.Excerpt(line, 500))
		}
	case want != nil && got.Err == nil:
		note("Error: the item should have failed%s, and did not", with(want))
	case want != nil:
		if want.Code != "" && want.Code != beacon.CodeOf(got.Err) {
			list = append(list, differ("Error.Code", string(want.Code), string(beacon.CodeOf(got.Err))))
		}
		if !strings.Contains(got.Err.Error(), want.Message) {
			list = append(list, differ("Error.Message", want.Message, got.Err.Error()))
		}
	}
	if got.Err == nil {
		list = append(list, c.compareOutputs(got.Result)...)
	}
	if c.Want.Log != nil {
		if text := differ("Log", lines(*c.Want.Log), lines(got.log())); text != "" {
			list = append(list, text)
		}
	}
	if c.Want.Progress != nil {
		if text := differ("Progress", encoded(*c.Want.Progress), encoded(reports(got.Progress))); text != "" {
			list = append(list, text)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Want.Files)) {
		if text := c.compareFile(name, c.Want.Files[name], got); text != "" {
			list = append(list, text)
		}
	}
	if budget := c.Want.Fuel; budget > 0 && got.Fuel > budget {
		note("Fuel: %d units, which is %d more than the budget of %d", got.Fuel, got.Fuel-budget, budget)
	}
	return append(list, got.Asked...)
}

func with(e *Error) string {
	switch {
	case e.Code != "" && e.Message != "":
		return fmt.Sprintf(" with %s: %s", e.Code, e.Message)
	case e.Code != "":
		return " with " + string(e.Code)
	case e.Message != "":
		return " with " + e.Message
	}
	return ""
}

func (c *Case) compareOutputs(r beacon.Result) (list []string) {
	have, err := outputs(r)
	if err != nil {
		return []string{err.Error()}
	}
	_, listed := c.Want.Outputs[beacon.OutputExitCode]
	_, matched := c.Want.Matches[beacon.OutputExitCode]
	if code := r.ExitCode(); code != 0 && !listed && !matched {
		list = append(list, fmt.Sprintf("Outputs.ExitCode: %d, and the case does not expect one; it says: %s", code, beacon.Excerpt(text(have[beacon.OutputStdOut]), 500)))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Want.Outputs)) {
		value, ok := have[name]
		if !ok {
			list = append(list, missing(name, have))
			continue
		}
		want, err := canonical(c.Want.Outputs[name])
		if err == nil && bytes.Equal(want, value) {
			continue
		}
		a, b := text(want), text(value)
		if isText(want) != isText(value) { // 3 and "3" look alike without their quotes
			a, b = string(want), string(value)
		}
		list = append(list, differ("Outputs."+name, a, b))
	}
	for _, name := range slices.Sorted(maps.Keys(c.Want.Matches)) {
		value, ok := have[name]
		if !ok {
			list = append(list, missing(name, have))
			continue
		}
		if !regexp.MustCompile(c.Want.Matches[name]).MatchString(text(value)) {
			list = append(list, fmt.Sprintf("Matches.%s: does not match\n  want %s\n  got  %s", name, c.Want.Matches[name], beacon.Excerpt(text(value), 500)))
		}
	}
	return list
}

func missing(name string, have map[string]json.RawMessage) string {
	return fmt.Sprintf("Outputs.%s: is missing; there are %s", name, strings.Join(slices.Sorted(maps.Keys(have)), ", "))
}

func isText(raw []byte) bool { return len(raw) > 0 && raw[0] == '"' }

// text is a JSON text without its quotes, and other JSON with line breaks.
func text(raw []byte) string {
	if isText(raw) {
		return beacon.Settings{"": raw}.Text("")
	}
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}

func lines(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return strings.Join(list, "\n") + "\n"
}

// encoded has one line for each report.
func encoded(list []Progress) string {
	var b strings.Builder
	for _, p := range list {
		raw, err := json.Marshal(p)
		if err != nil {
			return err.Error()
		}
		b.Write(append(raw, '\n'))
	}
	return b.String()
}

func (c *Case) compareFile(name, file string, got Got) string {
	content, ok := got.Files[name]
	if !ok {
		return fmt.Sprintf("Files.%s: the item has not written it", name)
	}
	want, err := c.read(file)
	if err != nil {
		return fmt.Sprintf("Files.%s: what is expected, %s, cannot be read: %s (--update writes it)", name, file, err)
	}
	if bytes.Equal(want, content) {
		return ""
	}
	if isBinary(want) || isBinary(content) {
		at := 0
		for at < len(want) && at < len(content) && want[at] == content[at] {
			at++
		}
		return fmt.Sprintf("Files.%s: differs from %s from byte %d on\n  want %d bytes\n  got  %d bytes", name, file, at, len(want), len(content))
	}
	return differ("Files."+name, string(want), string(content))
}

func isBinary(content []byte) bool { return !utf8.Valid(content) || bytes.IndexByte(content, 0) >= 0 }

// maxShown is how many lines of a difference are shown.
const maxShown = 40

// differ shows how two texts differ; "" if they do not.
func differ(what, want, got string) string {
	if want == got {
		return ""
	}
	if !strings.Contains(strings.TrimSuffix(want, "\n"), "\n") && !strings.Contains(strings.TrimSuffix(got, "\n"), "\n") {
		if strings.HasSuffix(want, "\n") == strings.HasSuffix(got, "\n") || want == "" || got == "" {
			want, got = strings.TrimSuffix(want, "\n"), strings.TrimSuffix(got, "\n")
		}
		return fmt.Sprintf("%s:\n  want %s\n  got  %s", what, shown(want), shown(got))
	}
	var b strings.Builder
	b.WriteString(what + ":")
	// The first three lines have the names, which are the same in all.
	text := strings.TrimSuffix(string(diff.Diff("want", []byte(want), "got", []byte(got))), "\n")
	all := strings.Split(text, "\n")
	if len(all) > 0 {
		all = all[1:]
	}
	for i, line := range all {
		if i == maxShown {
			fmt.Fprintf(&b, "\n  … and %d lines more", len(all)-i)
			break
		}
		b.WriteString("\n  " + beacon.Excerpt(line, 300))
	}
	return b.String()
}

func shown(text string) string {
	if text == "" {
		return "nothing"
	}
	return beacon.Excerpt(text, 500)
}
