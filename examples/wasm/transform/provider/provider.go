// Package provider is the provider of capability Transform: its actions, their
// settings, and how they become options of package table. It is the same code
// in the module, in the native command and in tests.
package provider

import (
	"slices"

	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// Settings, by what they are about.
var (
	choose = []guest.Setting{
		{Name: "Select", Description: `Columns of the output, in order: "station, temperature". With a minus, all but those: "-note". Empty means all.`},
		{Name: "Rename", Description: `New names of columns: "temperature=temp_c, station=id".`},
	}
	filter = guest.Setting{Name: "Filter", Description: `Which rows to keep: "temperature > 20 and not (note contains 'snow' or quality in ('C', 'D'))".`}
	derive = guest.Setting{Name: "Derive", Description: `New columns: "fahrenheit = round(temperature * 1.8 + 32, 1), day = substr(time, 1, 10)".`}
	group  = []guest.Setting{
		{Name: "GroupBy", Description: `Columns whose values make a group: "station". Empty with Aggregate means one group of all rows.`},
		{Name: "Aggregate", Description: `What to compute of each group: "count, mean(temperature) as mean_c, max(wind)". Also sum, min, count(x).`},
	}
	groupLimit = guest.Setting{Name: "MaxGroups", Type: guest.Integer, Default: "100000", Description: "The most groups that may come about, as they are kept in memory."}
	format     = []guest.Setting{
		{Name: "From", Default: "auto", Options: []string{"auto", "csv", "tsv", "jsonl"}, Description: "The format of the source; auto looks at its name and first byte."},
		{Name: "To", Default: "auto", Options: []string{"auto", "csv", "tsv", "jsonl"}, Description: "The format of the output; auto looks at its name, and else keeps that of the source."},
		{Name: "Delimiter", Default: "auto", Description: "What separates fields of a CSV source: one ASCII character, or tab, comma, semicolon, pipe; auto looks at the first row."},
		{Name: "OutputDelimiter", Default: "auto", Description: "What separates fields of CSV output, like Delimiter; auto is a comma, or a tab for tsv."},
		{Name: "Header", Type: guest.Boolean, Default: "true", Description: "Whether a CSV source begins with a header row. Without one, columns are c1, c2, …"},
		{Name: "OutputHeader", Type: guest.Boolean, Default: "true", Description: "Whether CSV output begins with a header row."},
		{Name: "KeepText", Type: guest.Boolean, Default: "false", Description: "Write CSV fields to JSON as text always. Otherwise numbers, true and false become such, and empty fields null."},
		{Name: "OnError", Default: "fail", Options: []string{"fail", "skip"}, Description: "What to do with a wrong row, such as one with a field too many: fail, or skip and count it."},
		{Name: "MaxLine", Type: guest.Integer, Default: "1048576", Description: "The longest row, in bytes; at most 16777216."},
	}
)

const readings = "data/readings.csv"

// New returns the provider.
func New() guest.Provider {
	return guest.Provider{
		Name: "transform", Version: "1.0.0", Capability: "Transform",
		Description: "Transforms tables, CSV and JSON lines of any size, in one pass and constant memory.",
		Actions: []guest.Action{
			{
				Name: "Transform", Run: run,
				Description: "Filters, derives, groups, selects and renames in one pass, and converts if asked to.",
				Settings:    all(choose, []guest.Setting{filter, derive}, group, []guest.Setting{groupLimit}, format),
				Example: &guest.Example{
					Settings: map[string]string{
						"Filter":    "temperature is not empty",
						"GroupBy":   "station",
						"Aggregate": "count, mean(temperature), max(wind)",
					},
					Source: readings, Output: "stations.jsonl",
				},
			},
			{
				Name: "Convert", Run: run,
				Description: "Converts between CSV, TSV and JSON lines.",
				Settings:    all(format),
				Example:     &guest.Example{Settings: map[string]string{"To": "jsonl"}, Source: readings, Output: "readings.jsonl"},
			},
			{
				Name: "Select", Run: run,
				Description: "Keeps some columns, in the order given.",
				Settings:    all(required(choose[:1]), choose[1:], format),
				Example:     &guest.Example{Settings: map[string]string{"Select": "station, time, temperature"}, Source: readings, Output: "temperatures.csv"},
			},
			{
				Name: "Rename", Run: run,
				Description: "Gives columns new names.",
				Settings:    all(required(choose[1:]), format),
				Example:     &guest.Example{Settings: map[string]string{"Rename": "temperature=temp_c, wind=wind_ms"}, Source: readings, Output: "renamed.csv"},
			},
			{
				Name: "Filter", Run: run,
				Description: "Keeps the rows that fulfil a condition.",
				Settings:    all(required([]guest.Setting{filter}), format),
				Example:     &guest.Example{Settings: map[string]string{"Filter": "wind >= 12 or note contains 'storm'"}, Source: readings, Output: "windy.csv"},
			},
			{
				Name: "Derive", Run: run,
				Description: "Adds columns that are computed from others.",
				Settings:    all(required([]guest.Setting{derive}), format),
				Example: &guest.Example{
					Settings: map[string]string{"Derive": "fahrenheit = round(temperature * 1.8 + 32, 1), wet = rain > 0"},
					Source:   readings, Output: "fahrenheit.csv",
				},
			},
			{
				Name: "Aggregate", Run: run,
				Description: "Groups rows by columns and computes counts, sums, means and extremes of each group.",
				Settings:    all(group[:1], required(group[1:]), []guest.Setting{groupLimit}, format),
				Example: &guest.Example{
					Settings: map[string]string{"GroupBy": "station", "Aggregate": "count, mean(temperature), max(wind), sum(rain), max(time) as latest"},
					Source:   readings, Output: "stations.csv",
				},
			},
		},
	}
}

func all(parts ...[]guest.Setting) []guest.Setting { return slices.Concat(parts...) }

func required(settings []guest.Setting) []guest.Setting {
	out := slices.Clone(settings)
	for i := range out {
		out[i].Required = true
	}
	return out
}
