package dashboard

import (
	"cmp"
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/ultravisor/beacon/protocol"
)

// functions are what templates may call.
func (d *Dashboard) functions() template.FuncMap {
	return template.FuncMap{
		"asset":    func(name string) string { return "/assets/" + name + "?v=" + d.assets[name].version },
		"ago":      func(t protocol.Timestamp) string { return ago(t.Time) },
		"moment":   func(t protocol.Timestamp) string { return t.UTC().Format("2006-01-02 15:04:05.000 UTC") },
		"since":    func(a, b protocol.Timestamp) string { return since(a.Time, b.Time) },
		"span":     func(ms any) string { return span(number(ms)) },
		"count":    func(n any) string { return humanize.Comma(int64(number(n))) },
		"size":     func(n int64) string { return humanize.IBytes(uint64(max(0, n))) }, //nolint:gosec // not negative
		"mean":     mean,
		"network":  func(u protocol.Usage) int64 { return u.Sent + u.Received },
		"used":     used,
		"quantity": func(n any) string { return quantity(number(n)) },
		"cost":     func(n float64) string { return humanize.CommafWithDigits(n, 4) },
		"class":    func(status string) string { return strings.ToLower(status) },
		"words":    words,
		"workURL":  itemPath,
		"step":     protocol.ProgressOf,
		"short":    shortHash,
		"version":  version,
		"deref":    func(s *string) string { return *s },
		"percent":  func(p *float64) string { return strconv.FormatFloat(min(100, max(0, *p)), 'f', 0, 64) },
		"add":      func(a, b int) int { return a + b },
		"join":     strings.Join,
		"excerpt":  cut,
		"waitedOf": func(r protocol.WorkRecord) string { return waited(r) },
		"ranFor":   func(r protocol.WorkRecord) string { return ran(r) },
	}
}

func number(n any) float64 {
	f, err := strconv.ParseFloat(fmt.Sprint(n), 64)
	if err != nil {
		return 0
	}
	return f
}

// ago is coarse, so that a page does not change without a reason.
func ago(t time.Time) string {
	switch d := time.Since(t); {
	case t.IsZero():
		return "never"
	case d < 30*time.Second:
		return "now"
	case d < time.Minute:
		return "half a minute ago"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + " min ago"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + " h ago"
	default:
		return strconv.Itoa(int(d.Hours()/24)) + " days ago"
	}
}

// span is a time in milliseconds, in words.
func span(ms float64) string {
	switch d := time.Duration(ms * float64(time.Millisecond)); {
	case d < 10*time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	case d < 24*time.Hour:
		return d.Round(time.Second).String()
	default:
		return humanize.CommafWithDigits(d.Hours()/24, 1) + " days"
	}
}

func since(a, b time.Time) string {
	if a.IsZero() || b.IsZero() || b.Before(a) {
		return "–"
	}
	return span(float64(b.Sub(a).Milliseconds()))
}

func mean(total int64, n uint64) string {
	if n == 0 {
		return "–"
	}
	return span(float64(total) / float64(n))
}

// used is a usage in words.
func used(u *protocol.Usage) string {
	var parts []string
	for _, part := range []struct {
		n    int64
		text string
	}{
		{u.Fuel, quantity(float64(u.Fuel)) + " fuel"},
		{u.Memory, humanize.IBytes(uint64(max(0, u.Memory))) + " of memory"},    //nolint:gosec // not negative
		{u.Staged, humanize.IBytes(uint64(max(0, u.Staged))) + " of files"},     //nolint:gosec // not negative
		{u.Sent, humanize.IBytes(uint64(max(0, u.Sent))) + " sent"},             //nolint:gosec // not negative
		{u.Received, humanize.IBytes(uint64(max(0, u.Received))) + " received"}, //nolint:gosec // not negative
		{u.Tokens, quantity(float64(u.Tokens)) + " tokens"},
	} {
		if part.n > 0 {
			parts = append(parts, part.text)
		}
	}
	if u.Cost > 0 {
		parts = append(parts, "cost "+humanize.CommafWithDigits(u.Cost, 4))
	}
	return strings.Join(parts, ", ")
}

// waited is how long an item had to wait in all.
func waited(r protocol.WorkRecord) string {
	if r.DispatchedAt.IsZero() {
		return "–"
	}
	return span(float64(r.QueueWaitMs))
}

// ran is how long an item has run, the last time.
func ran(r protocol.WorkRecord) string {
	if !protocol.Final(r.Status) || r.DispatchedAt.IsZero() {
		return "–"
	}
	return since(r.DispatchedAt.Time, r.CompletedAt.Time)
}

// words are those for a state.
func words(status string) string {
	switch status {
	case protocol.StatusPending:
		return "waiting"
	case protocol.StatusRetryScheduled:
		return "to be retried"
	case protocol.StatusScheduled:
		return "scheduled"
	case protocol.StatusError:
		return "failed"
	}
	return strings.ToLower(status)
}

// shortHash is the telling part of a hash: the time and the number at its end.
func shortHash(hash string) string {
	short := strings.TrimPrefix(strings.TrimPrefix(hash, "wi-"), "unknown-unknown-")
	return cut(short, 60)
}

// version is what a beacon says it is.
func version(b protocol.BeaconRecord) string {
	text, _ := b.Tags["Version"].(string)
	return cmp.Or(cut(text, 60), "–")
}
