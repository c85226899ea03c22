package provider_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/examples/wasm/transform/provider"
	"github.com/ultravisor/beacon/guest-sdk/go/guest"
	"github.com/ultravisor/beacon/guest-sdk/go/guesttest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// head is the beginning of the example's data: few enough rows to look at.
func head(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("../data/readings.csv")
	require.NoError(t, err)
	lines := strings.SplitAfterN(string(data), "\n", 302)
	return strings.Join(lines[:301], "")
}

func anySettings(settings map[string]string) map[string]any {
	out := map[string]any{}
	for name, value := range settings {
		out[name] = value
	}
	return out
}

// Each action's example gives what its golden file says.
func TestExamples(t *testing.T) {
	p := provider.New()
	require.NoError(t, p.Validate())
	for _, action := range p.Actions {
		t.Run(action.Name, func(t *testing.T) {
			example := action.Example
			require.NotNil(t, example)
			require.FileExists(t, filepath.Join("..", example.Source))
			r := guesttest.Run(t, p, guesttest.Item{
				Action: action.Name, Settings: anySettings(example.Settings),
				Source: head(t), SourceName: "readings.csv", OutputName: example.Output,
			})
			require.NoError(t, r.Err)
			require.Zero(t, r.ExitCode)
			require.EqualValues(t, 300, r.Outputs["RowsRead"])
			require.EqualValues(t, len(r.Output), r.Outputs["BytesWritten"])
			golden := filepath.Join("testdata", action.Name+filepath.Ext(example.Output))
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(r.Output), 0o600))
			}
			want, err := os.ReadFile(golden) //nolint:gosec // our own golden file
			require.NoError(t, err)
			require.Equal(t, string(want), r.Output)
		})
	}
}

func TestReport(t *testing.T) {
	r := guesttest.Run(t, provider.New(), guesttest.Item{
		Settings: map[string]any{"Filter": "a > 1", "OnError": "skip", "Header": true, "MaxLine": 100},
		Source:   "a,b\n1,2\n3,4\n5\nx,1\n", OutputName: "out.csv",
	})
	require.NoError(t, r.Err)
	require.Equal(t, "a,b\n3,4\n", r.Output)
	require.Equal(t, map[string]any{
		"ExitCode": 0.0, "Result": "4 rows read, 1 row written, 1 row filtered out, 2 wrong rows skipped",
		"StdOut":   "4 rows read, 1 row written, 1 row filtered out, 2 wrong rows skipped",
		"RowsRead": 4.0, "RowsWritten": 1.0, "RowsFiltered": 1.0, "RowsSkipped": 2.0, "BytesRead": 18.0, "BytesWritten": 8.0,
	}, r.Outputs)
	require.Equal(t, []string{"skipped row 3 (line 4): 1 fields, want 2 as in the first row", `skipped row 4 (line 5), column a: "x" is not a number`}, r.Log)
	require.Equal(t, guest.Progress{Percent: 100, Message: r.Outputs["Result"].(string)}, r.Progress[len(r.Progress)-1])
}

func TestManyWarnings(t *testing.T) {
	r := guesttest.Run(t, provider.New(), guesttest.Item{
		Settings: map[string]any{"OnError": "skip"}, Source: "a,b\n" + strings.Repeat("1\n", 30), OutputName: "out.csv",
	})
	require.NoError(t, r.Err)
	require.Len(t, r.Log, 21)
	require.Equal(t, "and 10 more rows skipped", r.Log[20])
}

func TestProgress(t *testing.T) {
	r := guesttest.Run(t, provider.New(), guesttest.Item{
		Action: "Convert", Source: "a\n" + strings.Repeat(strings.Repeat("x", 99)+"\n", 100_000), OutputName: "out.jsonl",
	})
	require.NoError(t, r.Err)
	require.Greater(t, len(r.Progress), 2)
	require.InDelta(t, 45, r.Progress[0].Percent, 5)
	require.Regexp(t, `^\d+ rows$`, r.Progress[0].Message)
}

func TestErrors(t *testing.T) {
	tests := map[string]struct {
		item guesttest.Item
		want string
	}{
		"no source":       {guesttest.Item{OutputName: "o"}, "no source file"},
		"no output":       {guesttest.Item{Source: "a\n"}, "no output file"},
		"missing setting": {guesttest.Item{Action: "Filter", Source: "a\n", OutputName: "o"}, "setting Filter is missing"},
		"bad format":      {guesttest.Item{Settings: map[string]any{"To": "xml"}, Source: "a\n", OutputName: "o"}, `setting To is "xml": want one of auto, csv, tsv, jsonl`},
		"bad delimiter":   {guesttest.Item{Settings: map[string]any{"Delimiter": "::"}, Source: "a\n", OutputName: "o"}, `delimiter "::": want one ASCII character`},
		"bad limit":       {guesttest.Item{Settings: map[string]any{"MaxGroups": 0}, Source: "a\n", OutputName: "o"}, "setting MaxGroups is 0: want 1 to 10000000"},
		"bad row":         {guesttest.Item{Source: "a,b\n1\n", OutputName: "o"}, "row 1 (line 2): 1 fields, want 2"},
		"unknown action":  {guesttest.Item{Action: "Sort"}, `unknown action "Sort": Transform has Transform, Convert, Select`},
		"cancelled":       {guesttest.Item{Cancelled: true, Source: "a\n" + strings.Repeat("0123456789\n", 1<<20), OutputName: "o"}, "cancelled after"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := guesttest.Run(t, provider.New(), tt.item)
			require.ErrorContains(t, r.Err, tt.want)
		})
	}
}
