package provider

import (
	"errors"
	"path"
	"strconv"

	"github.com/ultravisor/beacon/examples/wasm/transform/table"
	"github.com/ultravisor/beacon/guest-sdk/go/guest"
)

// mostWarnings bounds how many wrong rows are named in the log; all are counted.
const mostWarnings = 20

// run carries out any of the actions: they differ in the settings they have.
func run(item *guest.Item) error {
	o, err := options(item)
	if err != nil {
		return err
	}
	source, err := item.OpenSource()
	if err != nil {
		return err
	}
	output, err := item.CreateOutput()
	if err != nil {
		return err
	}
	warnings := 0
	o.OnSkip = func(bad *table.RowError) {
		if warnings++; warnings <= mostWarnings {
			item.Warn("skipped " + bad.Error())
		}
	}
	o.OnProgress = func(s table.Stats) error {
		if item.Cancelled() {
			return errors.New("cancelled after " + count(s.RowsRead, "row"))
		}
		item.Progress(source.Percent(), count(s.RowsRead, "row"))
		return nil
	}
	stats, err := table.Transform(output, source, o)
	if err != nil {
		return err
	}
	if err := output.Close(); err != nil {
		return errors.New("close the output: " + err.Error())
	}
	if warnings > mostWarnings {
		item.Warn("and " + strconv.Itoa(warnings-mostWarnings) + " more rows skipped")
	}
	report(item, stats)
	return nil
}

func report(item *guest.Item, s table.Stats) {
	summary := count(s.RowsRead, "row") + " read, " + count(s.RowsWritten, "row") + " written"
	if s.Groups > 0 {
		summary = count(s.RowsRead, "row") + " read, " + count(s.Groups, "group") + " written"
	}
	if s.RowsFiltered > 0 {
		summary += ", " + count(s.RowsFiltered, "row") + " filtered out"
	}
	if s.RowsSkipped > 0 {
		summary += ", " + count(s.RowsSkipped, "wrong row") + " skipped"
	}
	item.Progress(100, summary)
	item.Result(summary)
	item.StdOut(summary)
	item.Set("RowsRead", s.RowsRead)
	item.Set("RowsWritten", s.RowsWritten)
	item.Set("RowsFiltered", s.RowsFiltered)
	item.Set("RowsSkipped", s.RowsSkipped)
	item.Set("BytesRead", s.BytesRead)
	item.Set("BytesWritten", s.BytesWritten)
}

func count(n int64, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return strconv.FormatInt(n, 10) + " " + noun
}

// options reads the settings that the item's action has.
func options(item *guest.Item) (table.Options, error) {
	text := func(name string) string {
		if !item.Declares(name) {
			return ""
		}
		return item.Text(name)
	}
	o := table.Options{
		SourceName: path.Base(item.SourcePath), OutputName: path.Base(item.OutputPath),
		NoHeader: !item.Bool("Header"), NoOutputHeader: !item.Bool("OutputHeader"), KeepText: item.Bool("KeepText"),
		Select: text("Select"), Rename: text("Rename"), Filter: text("Filter"), Derive: text("Derive"),
		GroupBy: text("GroupBy"), Aggregate: text("Aggregate"),
		SkipBad: item.Text("OnError") == "skip",
	}
	var err error
	if o.From, err = table.ParseFormat(item.Text("From")); err != nil {
		return o, err
	}
	if o.To, err = table.ParseFormat(item.Text("To")); err != nil {
		return o, err
	}
	if o.Delimiter, err = table.ParseDelimiter(item.Text("Delimiter")); err != nil {
		return o, err
	}
	if o.OutputDelimiter, err = table.ParseDelimiter(item.Text("OutputDelimiter")); err != nil {
		return o, err
	}
	if o.MaxLine, err = limit(item, "MaxLine", table.LargestMaxLine); err != nil {
		return o, err
	}
	if item.Declares("MaxGroups") {
		o.MaxGroups, err = limit(item, "MaxGroups", table.LargestMaxGroups)
	}
	return o, err
}

func limit(item *guest.Item, name string, largest int64) (int, error) {
	n := item.Int(name)
	if n < 1 || n > largest {
		return 0, errors.New("setting " + name + " is " + strconv.FormatInt(n, 10) + ": want 1 to " + strconv.FormatInt(largest, 10))
	}
	return int(n), nil
}
