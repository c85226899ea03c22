package ledger

import (
	"cmp"
	"container/heap"
	"container/list"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

// What an alarm is for. The order is that of ringing at the same moment.
const (
	alarmHub byte = iota
	alarmBeacon
	alarmItem
	alarmBinding
	alarmFinished
	alarmDead
	alarmSession
)

// An alarm is due at a moment. When it rings early, or for what has changed,
// it is set again or forgotten: what is really due is asked of its object.
type alarm struct {
	due  int64
	kind byte
	key  string
}

func (a alarm) compare(b alarm) int {
	return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.kind, b.kind), strings.Compare(a.key, b.key))
}

// alarms is a heap.
type alarms []alarm

func (a alarms) Len() int           { return len(a) }
func (a alarms) Less(i, j int) bool { return a[i].compare(a[j]) < 0 }
func (a alarms) Swap(i, j int)      { a[i], a[j] = a[j], a[i] }

// Push implements heap.Interface.
func (a *alarms) Push(x any) { *a = append(*a, x.(alarm)) } //nolint:forcetypeassert // only set pushes

// Pop implements heap.Interface.
func (a *alarms) Pop() any {
	last := len(*a) - 1
	x := (*a)[last]
	(*a)[last] = alarm{}
	*a = (*a)[:last]
	return x
}

func (l *Ledger) set(a alarm) { heap.Push(&l.alarms, a) }

// Next is when something is due; zero when nothing is. Somebody should append
// an entry then, if only a Tick.
func (l *Ledger) Next() time.Time {
	if len(l.alarms) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(l.alarms[0].due)
}

// advance lets time pass.
func (l *Ledger) advance(now int64) {
	l.now = now
	for len(l.alarms) > 0 && l.alarms[0].due <= now {
		a := heap.Pop(&l.alarms).(alarm) //nolint:forcetypeassert // only set pushes
		// An alarm that is early only sets the right one, so that what is due
		// happens in the same order wherever alarms are left over from before.
		switch due := l.due(a); {
		case due == 0:
		case due > a.due:
			l.renew(a, due)
		default:
			l.ring(a)
		}
		l.fillFreed()
	}
}

// fillFreed gives the slots away that a tenant's bound kept free until now.
func (l *Ledger) fillFreed() {
	for l.refill {
		l.refill = false
		l.fillAll()
	}
}

// due is when the object of an alarm really has something due; 0 for never.
func (l *Ledger) due(a alarm) int64 {
	switch a.kind {
	case alarmHub:
		if h := l.hubs[a.key]; h != nil {
			return h.Last + l.settings.HubMs
		}
	case alarmBeacon:
		if b := l.beacons[a.key]; b != nil {
			if b.alarm == a.due {
				b.alarm = 0
			}
			return l.beaconDue(b)
		}
	case alarmItem:
		if it := l.items[a.key]; it != nil {
			if it.alarm == a.due {
				it.alarm = 0
			}
			return it.due()
		}
	case alarmBinding:
		tenant, key, _ := strings.Cut(a.key, "\x00")
		if b := l.bindings[affinity{tenant, key}]; b != nil {
			return b.Expires
		}
	case alarmFinished, alarmDead:
		if at := &l.rings[a.kind-alarmFinished]; *at == a.due {
			*at = 0
		}
		return l.oldest(a.kind)
	case alarmSession:
		return l.revoked[a.key]
	}
	return 0
}

func (l *Ledger) renew(a alarm, due int64) {
	switch a.kind {
	case alarmItem:
		l.armItem(l.items[a.key])
	case alarmBeacon:
		l.armBeacon(l.beacons[a.key])
	case alarmFinished, alarmDead:
		l.armList(a.kind)
	default:
		l.set(alarm{due, a.kind, a.key})
	}
}

func (l *Ledger) ring(a alarm) {
	switch a.kind {
	case alarmHub:
		l.hubGone(l.hubs[a.key], "hub "+a.key+" was silent for too long")
	case alarmBeacon:
		b := l.beacons[a.key]
		why := "beacon " + b.ID + " was silent for too long"
		if b.Away != 0 {
			why = "beacon " + b.ID + " disconnected and did not come back"
		}
		l.remove(b, why, true)
	case alarmItem:
		it := l.items[a.key]
		l.itemDue(it)
		l.armItem(it)
	case alarmBinding:
		tenant, key, _ := strings.Cut(a.key, "\x00")
		l.unbind(affinity{tenant, key})
	case alarmFinished:
		l.forget(itemOf(l.finished.Front()))
		l.armList(a.kind)
	case alarmDead:
		l.forget(itemOf(l.dead.Front()))
		l.armList(a.kind)
	case alarmSession:
		delete(l.revoked, a.key)
	}
}

// wind sets all alarms anew, since what they go by has changed.
func (l *Ledger) wind() {
	l.alarms = nil
	for _, h := range l.hubs {
		l.armHub(h)
	}
	for _, b := range l.beacons {
		b.alarm = 0
		l.armBeacon(b)
	}
	for _, it := range l.items {
		it.alarm = 0
		l.armItem(it)
	}
	for key, b := range l.bindings {
		l.set(alarm{b.Expires, alarmBinding, key.String()})
	}
	for session, until := range l.revoked {
		l.set(alarm{until, alarmSession, session})
	}
	l.rings = [2]int64{}
	l.armList(alarmFinished)
	l.armList(alarmDead)
}

func (l *Ledger) armHub(h *Hub) { l.set(alarm{h.Last + l.settings.HubMs, alarmHub, h.Name}) }

func (l *Ledger) beaconDue(b *Beacon) int64 {
	switch {
	case b.Away != 0:
		return b.Away + l.settings.GraceMs
	case b.Link == 0:
		return b.Seen + l.settings.HeartbeatMs
	}
	return 0
}

func (l *Ledger) armBeacon(b *Beacon) {
	due := l.beaconDue(b)
	if due == 0 || b.alarm != 0 && b.alarm <= due {
		return
	}
	b.alarm = due
	l.set(alarm{due, alarmBeacon, b.ID})
}

// due is when something happens to the item by itself.
func (it *Item) due() int64 {
	if it.Final() {
		return 0
	}
	due := it.Deadline
	earlier := func(at int64) {
		if at != 0 && (due == 0 || at < due) {
			due = at
		}
	}
	switch it.Status {
	case protocol.StatusScheduled, protocol.StatusRetryScheduled:
		earlier(it.NotBefore)
	case protocol.StatusRunning:
		earlier(it.Overrun)
	}
	return due
}

// armItem makes sure that an alarm rings when the item has something due.
func (l *Ledger) armItem(it *Item) {
	due := it.due()
	if due == 0 || it.alarm != 0 && it.alarm <= due {
		return
	}
	it.alarm = due
	l.set(alarm{due, alarmItem, it.Hash})
}

// itemDue does what is due.
func (l *Ledger) itemDue(it *Item) {
	switch now := l.now; {
	case it.Deadline != 0 && it.Deadline <= now:
		l.expire(it)
	case it.Status == protocol.StatusRunning:
		l.overrun(it)
	default:
		from := it.Status
		it.Ready = it.NotBefore
		l.move(it, protocol.StatusPending)
		l.happened(it, Happening{Kind: protocol.WorkRequeued, From: from, Text: "its time has come"})
		l.emit(Event{Kind: Queued, Item: it, Hash: it.Hash})
		l.wait(it)
	}
}

// expire ends an item whose submitter has waited long enough. Its beacon has
// the slot taken until it reports: it may still be at work.
func (l *Ledger) expire(it *Item) {
	if it.Status == protocol.StatusRunning {
		l.settle(it)
		if b := l.beacons[it.Beacon]; b != nil {
			l.unwanted(b, it.Hash, it.Attempt, "the submitter waits no longer")
		}
	}
	text := fmt.Sprintf("Direct dispatch timed out after %sms.", number(it.Spec.TimeoutMs))
	l.end(it, Outcome{Status: protocol.StatusTimeout, Error: text}, "")
}

// overrun gives up an attempt that takes much longer than it may.
func (l *Ledger) overrun(it *Item) {
	from := it.Beacon
	if b := l.beacons[from]; b != nil {
		l.unwanted(b, it.Hash, it.Attempt, "the work item runs longer than it may")
	}
	o := Outcome{Status: protocol.StatusTimeout, Error: fmt.Sprintf("The work item ran longer than its %sms and its beacon did not end it.", number(it.Spec.TimeoutMs))}
	l.conclude(it, o, from)
}

// number writes a number as JavaScript does.
func number(n float64) string {
	raw, err := json.Marshal(n)
	if err != nil {
		return "0"
	}
	return string(raw)
}

// oldest is when the first of the finished items, or of the dead letters, is
// dropped; 0 when there is none.
func (l *Ledger) oldest(kind byte) int64 {
	of, age := l.finished, l.settings.HistoryMs
	if kind == alarmDead {
		of, age = l.dead, l.settings.DeadMs
	}
	if it := itemOf(of.Front()); it != nil {
		return it.Ended + age
	}
	return 0
}

func (l *Ledger) armList(kind byte) {
	at, due := &l.rings[kind-alarmFinished], l.oldest(kind)
	if due == 0 || *at != 0 && *at <= due {
		return
	}
	*at = due
	l.set(alarm{due: due, kind: kind})
}

// end makes an item final and drops the oldest of the final ones that have no
// room any more.
func (l *Ledger) end(it *Item, o Outcome, from string) {
	l.unwait(it)
	was := it.Status
	l.endings++
	it.EndSeq, it.Ended, it.Overrun = l.endings, l.now, 0
	it.Outcome = &o
	l.keep(it, o.Blob)
	if from != "" {
		it.Beacon = from
	}
	t := l.tenant(it.Spec.Tenant)
	t.Live--
	kind := protocol.WorkCompleted
	switch o.Status {
	case protocol.StatusError:
		kind = protocol.WorkFailed
		t.Usage.Failed++
	case protocol.StatusTimeout:
		kind = protocol.WorkTimedOut
		t.Usage.Failed++
	case protocol.StatusCanceled:
		kind = protocol.WorkCanceled
		t.Usage.Canceled++
	default:
		t.Usage.Completed++
	}
	if o.Error != "" {
		it.LastError = o.Error
	}
	l.move(it, o.Status)
	l.happened(it, Happening{Kind: kind, From: was, Beacon: from, Text: o.Error, Attempt: it.Attempt})

	l.live.Remove(it.place)
	l.liveBytes -= it.Bytes
	it.Bytes = it.Spec.bytes() + it.outcomeBytes()
	it.Dead = !it.Spec.Waited && (o.Status == protocol.StatusError || o.Status == protocol.StatusTimeout)
	l.emit(Event{Kind: Ended, Item: it, Hash: it.Hash})
	if it.Dead {
		it.place = l.dead.PushBack(it)
		l.deadBytes += it.Bytes
		l.armList(alarmDead)
	} else {
		it.place = l.finished.PushBack(it)
		l.doneBytes += it.Bytes
		l.armList(alarmFinished)
	}
	l.trim()
}

// trim drops the oldest final items that have no room.
func (l *Ledger) trim() {
	for l.finished.Len() > l.settings.HistoryItems || l.doneBytes > l.settings.HistoryBytes && l.finished.Len() > 1 {
		l.forget(itemOf(l.finished.Front()))
	}
	for l.dead.Len() > l.settings.DeadItems || l.deadBytes > l.settings.DeadBytes && l.dead.Len() > 1 {
		l.forget(itemOf(l.dead.Front()))
	}
}

func (l *Ledger) cancel(hash, reason string) Answer {
	it := l.items[hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Final() || it.CancelAsked:
		return Answer{Item: it}
	}
	it.CancelAsked, it.CancelReason = true, reason
	if it.Status != protocol.StatusRunning {
		l.end(it, Outcome{Status: protocol.StatusCanceled, Error: canceledText(hash, reason)}, "")
		return Answer{Item: it}
	}
	l.happened(it, Happening{Kind: protocol.WorkCancelRequested, From: protocol.StatusRunning, Text: reason})
	if b := l.beacons[it.Beacon]; b != nil {
		l.unwanted(b, hash, it.Attempt, reason)
	}
	return Answer{Item: it}
}

// abandon is for an item nobody waits for any more.
func (l *Ledger) abandon(a *Abandon) Answer {
	it := l.items[a.Hash]
	switch {
	case it == nil:
		return Answer{Err: ErrNotFound}
	case it.Final() || it.Status == protocol.StatusRunning:
		return Answer{Item: it}
	}
	return l.cancel(a.Hash, a.Reason)
}

func canceledText(hash, reason string) string {
	if reason == "" {
		return "Work item [" + hash + "] was canceled."
	}
	return "Work item [" + hash + "] was canceled: " + reason
}

func itemOf(e *list.Element) *Item {
	if e == nil {
		return nil
	}
	it, ok := e.Value.(*Item)
	if !ok {
		panic("ledger: a list holds something else than items") // only Items are pushed
	}
	return it
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedAffinities(m map[affinity]bool) []affinity {
	return slices.SortedFunc(maps.Keys(m), func(a, b affinity) int {
		return cmp.Or(strings.Compare(a.tenant, b.tenant), strings.Compare(a.key, b.key))
	})
}

// mostWords bounds the texts of which one copy is kept.
const mostWords = 10_000

// word returns the one copy of a text that many items share.
func (l *Ledger) word(text string) string {
	if one, ok := l.words[text]; ok {
		return one
	}
	if len(l.words) < mostWords {
		l.words[text] = text
	}
	return text
}

func sortBy[T any](all []T, key func(T) string) {
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(key(a), key(b)) })
}
