package hub

import (
	"net/http"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

const (
	stepMs    = 20_000
	mostSteps = 180 // an hour of them
	// mostSeries bounds the tenants whose items are counted one by one; each takes
	// up to a megabyte.
	mostSeries = 50
	longestMs  = 24 * 3600 * 1000 // what takes longer counts as this
)

// series count what ended in the last hour. They are no part of the ledger: a hub
// makes them of what it reads, beginning with the items of the snapshot, so that
// all hubs of a journal come to about the same. The coordinator's mu guards them.
type series struct {
	all     *counts
	tenants map[string]*counts
}

// counts are steps, each in the place of its number.
type counts [mostSteps]step

type step struct {
	number                      int64 // of steps since 1970; those of long ago are stale
	completed, failed, canceled int
	wait, run                   *hdrhistogram.Histogram
	usage                       protocol.Usage
}

func newSeries() *series { return &series{&counts{}, map[string]*counts{}} }

// seriesOf counts the final items of a ledger.
func seriesOf(l *ledger.Ledger) *series {
	s := newSeries()
	for it := range l.Finished() {
		s.ended(it)
	}
	for it := range l.Dead() {
		s.ended(it)
	}
	return s
}

// ended counts an item.
func (s *series) ended(it *ledger.Item) {
	s.all.ended(it)
	one := s.tenants[it.Spec.Tenant]
	if one == nil {
		if len(s.tenants) >= mostSeries {
			return
		}
		one = &counts{}
		s.tenants[it.Spec.Tenant] = one
	}
	one.ended(it)
}

func (c *counts) ended(it *ledger.Item) {
	number := it.Ended / stepMs
	s := &c[number%mostSteps]
	switch {
	case s.number > number:
		return // too long ago
	case s.number < number:
		*s = step{number: number}
	}
	switch it.Status {
	case protocol.StatusComplete:
		s.completed++
	case protocol.StatusCanceled:
		s.canceled++
	default:
		s.failed++
	}
	if it.Usage != nil {
		s.usage = s.usage.Plus(*it.Usage)
	}
	if it.Dispatched == 0 {
		return // it never ran
	}
	if s.wait == nil {
		s.wait, s.run = hdrhistogram.New(1, longestMs, 1), hdrhistogram.New(1, longestMs, 1)
	}
	record(s.wait, it.WaitMs)
	record(s.run, it.Ended-it.Dispatched)
}

// record cannot fail within the bounds.
func record(h *hdrhistogram.Histogram, ms int64) { _ = h.RecordValue(min(max(ms, 0), longestMs)) }

// until lists the steps up to one that holds a moment.
func (c *counts) until(now time.Time) protocol.Series {
	out := protocol.Series{StepMs: stepMs}
	last := now.UnixMilli() / stepMs
	for number := last - mostSteps + 1; number <= last; number++ {
		shown := protocol.Step{At: protocol.Timestamp{Time: time.UnixMilli(number * stepMs)}}
		if s := &c[number%mostSteps]; s.number == number {
			shown.Completed, shown.Failed, shown.Canceled, shown.Usage = s.completed, s.failed, s.canceled, s.usage
			if s.wait != nil {
				shown.WaitMs50, shown.WaitMs95 = s.wait.ValueAtQuantile(50), s.wait.ValueAtQuantile(95)
				shown.RunMs50, shown.RunMs95 = s.run.ValueAtQuantile(50), s.run.ValueAtQuantile(95)
			}
		}
		out.Steps = append(out.Steps, shown)
	}
	return out
}

// showSeries shows the last hour, of a tenant or of all that the caller sees.
func (h *Hub) showSeries(reply responder, r *http.Request, _ []string) {
	who := callerOf(r)
	tenant := r.URL.Query().Get("tenant")
	if tenant == "" {
		tenant = who.tenant
	}
	h.core.mu.RLock()
	of := h.core.series.all
	if tenant != "" {
		of = h.core.series.tenants[tenant]
	}
	if of == nil || !who.sees(tenant) {
		of = &counts{}
	}
	out := of.until(time.Now())
	h.core.mu.RUnlock()
	reply.json(http.StatusOK, out)
}
