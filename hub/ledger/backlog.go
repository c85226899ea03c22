package ledger

import (
	"cmp"
	"container/heap"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

// A Backlog tells how many items of a capability are not final, without anybody
// having to look at them.
type Backlog struct {
	Capability string
	Waiting    int // for a slot
	Running    int
	Later      int // at another time
	// Oldest is since when the item has waited that has waited longest; zero when
	// none waits.
	Oldest time.Time
}

// A backlog is that of one tenant and capability.
type backlog struct {
	waiting waitingItems
	running int
	later   int
}

// waitingItems is a heap, who has waited longest first.
type waitingItems []*Item

func (w waitingItems) Len() int { return len(w) }

func (w waitingItems) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(w[i].Ready, w[j].Ready), cmp.Compare(w[i].Seq, w[j].Seq)) < 0
}

func (w waitingItems) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].queued, w[j].queued = i, j
}

// Push implements heap.Interface.
func (w *waitingItems) Push(x any) {
	it := x.(*Item) //nolint:forcetypeassert // only line pushes
	it.queued = len(*w)
	*w = append(*w, it)
}

// Pop implements heap.Interface.
func (w *waitingItems) Pop() any {
	last := len(*w) - 1
	it := (*w)[last]
	(*w)[last] = nil
	*w = (*w)[:last]
	return it
}

// line counts an item in by its status, unless it is final. Ready must not change
// until it is counted out.
func (l *Ledger) line(it *Item) {
	if it.Final() {
		return
	}
	s := it.Spec
	byTenant := l.backlogs[s.Capability]
	if byTenant == nil {
		byTenant = map[string]*backlog{}
		l.backlogs[s.Capability] = byTenant
	}
	b := byTenant[s.Tenant]
	if b == nil {
		b = &backlog{}
		byTenant[s.Tenant] = b
	}
	switch it.Status {
	case protocol.StatusPending:
		heap.Push(&b.waiting, it)
	case protocol.StatusRunning:
		b.running++
	default:
		b.later++
	}
}

// unline counts it out.
func (l *Ledger) unline(it *Item) {
	if it.Status == "" || it.Final() {
		return
	}
	s := it.Spec
	byTenant := l.backlogs[s.Capability]
	b := byTenant[s.Tenant]
	switch it.Status {
	case protocol.StatusPending:
		heap.Remove(&b.waiting, it.queued)
	case protocol.StatusRunning:
		b.running--
	default:
		b.later--
	}
	if len(b.waiting)+b.running+b.later > 0 {
		return
	}
	if delete(byTenant, s.Tenant); len(byTenant) == 0 {
		delete(l.backlogs, s.Capability)
	}
}

// Backlogs lists the backlogs of all capabilities of which there is an item, by
// name; those of one tenant, or of all if it is empty.
func (l *Ledger) Backlogs(tenant string) []Backlog {
	out := make([]Backlog, 0, len(l.backlogs))
	for capability, byTenant := range l.backlogs {
		sum := Backlog{Capability: capability}
		var oldest *Item
		add := func(b *backlog) {
			sum.Waiting += len(b.waiting)
			sum.Running += b.running
			sum.Later += b.later
			if len(b.waiting) > 0 && (oldest == nil || b.waiting[0].Ready < oldest.Ready) {
				oldest = b.waiting[0]
			}
		}
		if tenant == "" {
			for _, b := range byTenant {
				add(b)
			}
		} else if b := byTenant[tenant]; b != nil {
			add(b)
		}
		if sum.Waiting+sum.Running+sum.Later == 0 {
			continue
		}
		if oldest != nil {
			sum.Oldest = time.UnixMilli(oldest.Ready)
		}
		out = append(out, sum)
	}
	slices.SortFunc(out, func(a, b Backlog) int { return strings.Compare(a.Capability, b.Capability) })
	return out
}
