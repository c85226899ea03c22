package dashboard

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/go-analyze/charts"

	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// A chart is drawn as SVG, in the colours of one theme: the page chooses by what
// the browser prefers.
type chart struct {
	Name, Title string
	lines       []line
	format      func(float64) string
}

type line struct {
	name  string
	color [2]string // light, dark
	value func(protocol.Step) float64
	// gaps says that there is nothing to show where nothing ended.
	gaps bool
}

var (
	good = [2]string{"#17652f", "#7fd49a"}
	bad  = [2]string{"#a3181c", "#ff9592"}
	cool = [2]string{"#0b5cad", "#7db8f5"}
	warm = [2]string{"#b23c09", "#f08a4b"}
)

var drawings = []chart{
	{"throughput", "Items per minute", []line{
		{"completed", good, func(s protocol.Step) float64 { return float64(s.Completed) }, false},
		{"failed", bad, func(s protocol.Step) float64 { return float64(s.Failed) }, false},
	}, plain},
	{"wait", "Wait", []line{
		{"median", cool, func(s protocol.Step) float64 { return float64(s.WaitMs50) }, true},
		{"95 %", warm, func(s protocol.Step) float64 { return float64(s.WaitMs95) }, true},
	}, span},
	{"run", "Run time", []line{
		{"median", cool, func(s protocol.Step) float64 { return float64(s.RunMs50) }, true},
		{"95 %", warm, func(s protocol.Step) float64 { return float64(s.RunMs95) }, true},
	}, span},
	{"fuel", "Fuel per minute", []line{
		{"instructions", cool, func(s protocol.Step) float64 { return float64(s.Usage.Fuel) }, false},
	}, quantity},
}

func plain(v float64) string { return humanize.CommafWithDigits(v, 1) }

// quantity is a large number, in short.
func quantity(v float64) string {
	if v < 1000 {
		return humanize.CommafWithDigits(v, 0)
	}
	return strings.TrimSpace(humanize.SIWithDigits(v, 1, ""))
}

// Sizes of a chart in pixels; pages scale it.
const (
	chartWidth  = 560
	chartHeight = 200
)

// values are a line's, per minute if it counts.
func (l line) values(s protocol.Series) []float64 {
	out := make([]float64, len(s.Steps))
	for i, step := range s.Steps {
		switch {
		case l.gaps && step.Completed+step.Failed+step.Canceled == 0:
			out[i] = charts.GetNullValue()
		case l.gaps:
			out[i] = l.value(step)
		default:
			out[i] = l.value(step) * 60_000 / float64(max(1, s.StepMs))
		}
	}
	return out
}

// draw makes SVG of a chart.
func (c chart) draw(s protocol.Series, dark bool) ([]byte, error) {
	theme, shade, back, text, grid := charts.GetTheme(charts.ThemeLight), 0, "#ffffff", "#5d6670", "#e5e1da"
	if dark {
		theme, shade, back, text, grid = charts.GetTheme(charts.ThemeDark), 1, "#1d2125", "#a0a8b1", "#363c43"
	}
	values, names, colors, most := [][]float64{}, []string{}, []charts.Color{}, 0.0
	for _, l := range c.lines {
		line := l.values(s)
		for _, v := range line {
			if v != charts.GetNullValue() {
				most = max(most, v)
			}
		}
		values, names, colors = append(values, line), append(names, l.name), append(colors, charts.ColorFromHex(l.color[shade]))
	}
	theme = theme.WithBackgroundColor(charts.ColorFromHex(back)).WithTextColor(charts.ColorFromHex(text)).
		WithAxisSplitLineColor(charts.ColorFromHex(grid)).WithXAxisColor(charts.ColorFromHex(grid)).WithYAxisColor(charts.ColorFromHex(grid)).
		WithXAxisTextColor(charts.ColorFromHex(text)).WithYAxisTextColor(charts.ColorFromHex(text)).WithSeriesColors(colors)
	options := charts.NewLineChartOptionWithData(values)
	options.Theme, options.ValueFormatter, options.LineStrokeWidth = theme, c.format, 2
	options.Symbol = charts.Symbol{Shape: charts.SymbolDot, Size: 1.5} // a step alone makes no line
	options.Padding = charts.NewBoxEqual(8)
	options.Legend = charts.LegendOption{SeriesNames: names, FontStyle: charts.FontStyle{FontSize: 9}}
	options.XAxis.Labels = nil
	for _, step := range s.Steps {
		options.XAxis.Labels = append(options.XAxis.Labels, step.At.UTC().Format("15:04"))
	}
	options.XAxis.LabelCount, options.XAxis.LabelFontStyle = 7, charts.FontStyle{FontSize: 9}
	options.XAxis.BoundaryGap = charts.Ptr(false)
	options.YAxis[0].Min, options.YAxis[0].LabelCount, options.YAxis[0].LabelFontStyle = charts.Ptr(0.0), 4, charts.FontStyle{FontSize: 9}
	if least := float64(options.YAxis[0].LabelCount - 1); most < least { // or else two labels were the same
		options.YAxis[0].Max = charts.Ptr(least)
	}
	p := charts.NewPainter(charts.PainterOptions{OutputFormat: charts.ChartOutputSVG, Width: chartWidth, Height: chartHeight})
	if err := p.LineChart(options); err != nil {
		return nil, fmt.Errorf("draw the chart %s: %w", c.Name, err)
	}
	return p.Bytes()
}

// A figure is a chart in a page. Its address changes with what it shows.
type figure struct {
	Name, Title, Words string
	Version            int64
}

// figures are the charts of what happened, in words for who does not see them.
func figures(s protocol.Series) []figure {
	var out []figure
	for _, c := range drawings {
		f := figure{Name: c.Name, Title: c.Title}
		if n := len(s.Steps); n > 0 {
			f.Version = s.Steps[n-1].At.UnixMilli() / max(1, s.StepMs)
		}
		f.Words = c.Title + " in the last hour"
		for _, l := range c.lines {
			most := 0.0
			for _, v := range l.values(s) {
				if v != charts.GetNullValue() {
					most = max(most, v)
				}
			}
			f.Words += ", " + l.name + " at most " + c.format(most)
		}
		out = append(out, f)
	}
	return out
}

// picture serves a chart.
func (d *Dashboard) picture(w http.ResponseWriter, r *http.Request) {
	c := &client{hub: d.hub, w: w, r: r}
	for _, drawing := range drawings {
		if drawing.Name != r.PathValue("name") {
			continue
		}
		var s protocol.Series
		err := c.get("/Beacon/Series", nil, &s)
		var svg []byte
		if err == nil {
			svg, err = drawing.draw(s, r.URL.Query().Has("dark"))
		}
		if err != nil {
			d.failed(w, r, err)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "image/svg+xml")
		header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox")
		header.Set("Content-Length", strconv.Itoa(len(svg)))
		pace.Limit(w, int64(len(svg)))
		_, _ = w.Write(svg)
		return
	}
	d.problem(w, r, http.StatusNotFound, "There is no such chart.")
}
