package golden_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/golden"
)

// read makes a folder with one case and other files, and reads the case.
func read(t *testing.T, text string, files map[string]string) (*golden.Case, string) {
	t.Helper()
	folder := t.TempDir()
	files["a"+golden.Suffix] = text
	for name, content := range files {
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(content), 0o600))
	}
	cases, err := golden.Read(folder)
	require.NoError(t, err)
	require.Len(t, cases, 1)
	return cases[0], folder
}

func TestCompare(t *testing.T) {
	ok := beacon.Outputs{"ExitCode": 0, "StdOut": ""}
	with := func(name string, value any) beacon.Result {
		return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0, name: value}}
	}
	tests := map[string]struct {
		want string // JSON of Want
		got  golden.Got
		says []string // a part of each difference
	}{
		"nothing":               {`{}`, golden.Got{Result: beacon.Result{Outputs: ok}}, nil},
		"exit code":             {`{}`, golden.Got{Result: beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3, "StdOut": "no"}}}, []string{"Outputs.ExitCode: 3, and the case does not expect one; it says: no"}},
		"exit code expected":    {`{"Outputs": {"ExitCode": 3}}`, golden.Got{Result: beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3}}}, nil},
		"exit code matched":     {`{"Matches": {"ExitCode": "^[34]$"}}`, golden.Got{Result: beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3}}}, nil},
		"object, keys in order": {`{"Outputs": {"A": {"b": 1, "a": [1, 2]}}}`, golden.Got{Result: with("A", json.RawMessage(`{"a":[1,2],"b":1}`))}, nil},
		"long number":           {`{"Outputs": {"A": 12345678901234567890}}`, golden.Got{Result: with("A", json.RawMessage(`12345678901234567891`))}, []string{"Outputs.A:\n  want 12345678901234567890\n  got  12345678901234567891"}},
		"text and number":       {`{"Outputs": {"A": "3"}}`, golden.Got{Result: with("A", 3)}, []string{"want \"3\"\n  got  3"}},
		"HTML is not escaped":   {`{"Outputs": {"A": "<&>"}}`, golden.Got{Result: with("A", "<&>")}, nil},
		"lines":                 {`{"Outputs": {"A": "a\nb\nc"}}`, golden.Got{Result: with("A", "a\nx\nc")}, []string{" a\n  -b\n  +x\n"}},
		"a terminal's commands": {`{"Outputs": {"A": "a"}}`, golden.Got{Result: with("A", "\x1b[2J")}, []string{`got  \u001b[2J`}},
		"failure":               {`{}`, golden.Got{Err: beacon.Errorf(beacon.Trapped, "oh"), Result: beacon.Result{Log: []string{"why"}}}, []string{"failed with trapped: oh", "log: why"}},
		"failure expected":      {`{"Error": {"Code": "trapped", "Message": "h"}}`, golden.Got{Err: beacon.Errorf(beacon.Trapped, "oh")}, nil},
		"another failure":       {`{"Error": {"Code": "failed", "Message": "x"}}`, golden.Got{Err: beacon.Errorf(beacon.Trapped, "oh")}, []string{"want failed\n  got  trapped", "want x\n  got  oh"}},
		"no failure":            {`{"Error": {"Code": "failed"}}`, golden.Got{Result: beacon.Result{Outputs: ok}}, []string{"should have failed with failed, and did not"}},
		"log":                   {`{"Log": ["a"]}`, golden.Got{Result: beacon.Result{Outputs: ok, Log: []string{"a", "fuel: 3 of 5 units"}}}, nil},
		"no log":                {`{"Log": []}`, golden.Got{Result: beacon.Result{Outputs: ok, Log: []string{"a"}}}, []string{"Log:\n  want nothing\n  got  a"}},
		"progress":              {`{"Progress": [{"Percent": 0, "Message": "m"}]}`, golden.Got{Result: beacon.Result{Outputs: ok}, Progress: []beacon.Progress{{HasPercent: true, Message: "m"}}}, nil},
		"other progress":        {`{"Progress": [{"Percent": 0}]}`, golden.Got{Result: beacon.Result{Outputs: ok}, Progress: []beacon.Progress{{Message: "m"}}}, []string{"want {\"Percent\":0}\n  got  {\"Message\":\"m\"}"}},
		"file":                  {`{"Files": {"o": "want.txt"}}`, golden.Got{Result: beacon.Result{Outputs: ok}, Files: map[string][]byte{"o": []byte("one\n")}}, nil},
		"no file":               {`{"Files": {"o": "want.txt"}}`, golden.Got{Result: beacon.Result{Outputs: ok}}, []string{"Files.o: the item has not written it"}},
		"binary file":           {`{"Files": {"o": "want.txt"}}`, golden.Got{Result: beacon.Result{Outputs: ok}, Files: map[string][]byte{"o": []byte("on\x00")}}, []string{"from byte 2 on\n  want 4 bytes\n  got  3 bytes"}},
		"no golden file":        {`{"Files": {"o": "absent.txt"}}`, golden.Got{Result: beacon.Result{Outputs: ok}, Files: map[string][]byte{"o": nil}}, []string{"absent.txt, cannot be read"}},
		"fuel":                  {`{"Fuel": 10}`, golden.Got{Result: beacon.Result{Outputs: ok}, Fuel: 12}, []string{"12 units, which is 2 more than the budget of 10"}},
		"asked":                 {`{}`, golden.Got{Result: beacon.Result{Outputs: ok}, Asked: []string{"nobody asked"}}, []string{"nobody asked"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, _ := read(t, `{"Want": `+test.want+`}`, map[string]string{"want.txt": "one\n"})
			differences := c.Compare(test.got)
			require.Len(t, differences, len(test.says), "%q", differences)
			for i, part := range test.says {
				require.Contains(t, differences[i], part)
			}
		})
	}
}

func TestLongDifference(t *testing.T) {
	c, _ := read(t, `{"Want": {"Outputs": {"A": "x\ny"}}}`, map[string]string{})
	differences := c.Compare(golden.Got{Result: beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0, "A": strings.Repeat("line\n", 5000)}}})
	require.Len(t, differences, 1)
	require.Less(t, len(differences[0]), 2000)
	require.Contains(t, differences[0], "lines more")
}

// What was updated is as expected, and the second time nothing changes.
func TestUpdate(t *testing.T) {
	done := beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0, "StdOut": "x", "Result": "x", "Rows": 4}, Log: []string{"a"}}
	tests := map[string]struct {
		text string
		got  golden.Got
		want string
	}{
		"from nothing": {`{"Want": {}}`, golden.Got{Result: done}, `{"Want": {"Outputs": {"Rows": 4, "StdOut": "x"}}}`},
		"output file": {`{"Output": "o.csv", "Want": {}}`, golden.Got{Result: done, Files: map[string][]byte{"o.csv": []byte("1")}},
			`{"Output": "o.csv", "Want": {"Outputs": {"Rows": 4, "StdOut": "x"}, "Files": {"o.csv": "a.want.csv"}}}`},
		"what is mentioned": {`{"Want": {"Outputs": {"Rows": 3, "Gone": 1}, "Log": [], "Fuel": 8}}`, golden.Got{Result: done, Fuel: 100}, `{"Want": {"Outputs": {"Rows": 4}, "Log": ["a"], "Fuel": 125}}`},
		"within the budget": {`{"Want": {"Outputs": {"Rows": 3}, "Fuel": 800}}`, golden.Got{Result: done, Fuel: 100}, `{"Want": {"Outputs": {"Rows": 4}, "Fuel": 800}}`},
		"failure":           {`{"Want": {"Outputs": {"Rows": 3}}}`, golden.Got{Err: beacon.Errorf(beacon.Failed, "no")}, `{"Want": {"Error": {"Code": "failed", "Message": "no"}}}`},
		"failure with a file": {`{"Output": "o", "Want": {}}`, golden.Got{Err: beacon.Errorf(beacon.Failed, "no"), Files: map[string][]byte{"o": nil}},
			`{"Output": "o", "Want": {"Error": {"Code": "failed", "Message": "no"}}}`},
		"no failure any more": {`{"Want": {"Error": {"Code": "failed"}}}`, golden.Got{Result: done}, `{"Want": {"Outputs": {"Rows": 4, "StdOut": "x"}}}`},
		"exit code":           {`{"Want": {"Outputs": {"A": 3}}}`, golden.Got{Result: beacon.Result{Outputs: beacon.Outputs{"ExitCode": 2}}}, `{"Want": {"Outputs": {"ExitCode": 2}}}`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			c, folder := read(t, test.text, map[string]string{})
			changed, err := c.Update(test.got)
			require.NoError(t, err)
			require.True(t, changed)
			require.Empty(t, c.Compare(test.got))
			raw, err := os.ReadFile(filepath.Join(folder, "a"+golden.Suffix))
			require.NoError(t, err)
			require.JSONEq(t, test.want, string(raw))

			cases, err := golden.Read(folder)
			require.NoError(t, err)
			changed, err = cases[0].Update(test.got)
			require.NoError(t, err)
			require.False(t, changed)
		})
	}
}

func TestJUnit(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, golden.WriteJUnit(&b, "a<b", []golden.Report{
		{Name: "one", Took: 1500 * time.Microsecond},
		{Name: "two", Differences: []string{"first\nmore", "second & last"}},
	}))
	require.Equal(t, `<?xml version="1.0" encoding="UTF-8"?>
<testsuite name="a&lt;b" tests="2" failures="1" errors="0" time="0.002">
  <testcase name="one" classname="a&lt;b" time="0.002"></testcase>
  <testcase name="two" classname="a&lt;b" time="0.000">
    <failure message="first">first&#xA;more&#xA;second &amp; last</failure>
  </testcase>
</testsuite>
`, b.String())
}
