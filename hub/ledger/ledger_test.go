package ledger_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// A book is a ledger with hubs that write to it.
type book struct {
	t      *testing.T
	l      *ledger.Ledger
	at     time.Time
	n      map[string]uint64
	events []ledger.Event
}

func open(t *testing.T) *book {
	b := &book{t: t, l: ledger.New(), at: time.UnixMilli(1_800_000_000_000), n: map[string]uint64{}}
	b.ok(ledger.Entry{Start: &ledger.Start{}})
	return b
}

// from appends entries of a hub.
func (b *book) from(hub string, entries ...ledger.Entry) []ledger.Answer {
	b.t.Helper()
	if entries[0].Start != nil {
		b.n[hub] = 0
	}
	b.n[hub]++
	answers, events, err := b.l.Apply(b.at, ledger.Record{Version: ledger.Version, Hub: hub, N: b.n[hub], Entries: entries})
	require.NoError(b.t, err)
	b.events = events
	return answers
}

func (b *book) one(e ledger.Entry) ledger.Answer {
	b.t.Helper()
	return b.from("hub", e)[0]
}

func (b *book) ok(e ledger.Entry) ledger.Answer {
	b.t.Helper()
	a := b.one(e)
	require.NoError(b.t, a.Err)
	return a
}

func (b *book) pass(d time.Duration) {
	b.t.Helper()
	b.at = b.at.Add(d)
	b.ok(ledger.Entry{Tick: &ledger.Tick{}})
}

func (b *book) submit(s ledger.Spec) string {
	b.t.Helper()
	if s.Capability == "" {
		s.Capability = "A"
	}
	return b.ok(ledger.Entry{Submit: &ledger.Submit{Spec: &s}}).Item.Hash
}

// join registers a beacon; links count up.
func (b *book) join(j ledger.Join, name string, slots int, capabilities ...string) string {
	b.t.Helper()
	j.Info = protocol.Registration{Name: name, MaxConcurrent: slots, Capabilities: capabilities}
	return b.ok(ledger.Entry{Join: &j}).Beacon
}

// lists has a beacon say what it has.
func (b *book) lists(id string, active ...string) {
	b.t.Helper()
	b.ok(ledger.Entry{Listed: &ledger.Listed{Beacon: id, Active: active, Grace: 15_000}})
}

func (b *book) get(hash string) ledger.Item {
	b.t.Helper()
	it, err := b.l.Get(hash)
	require.NoError(b.t, err)
	return it
}

func (b *book) finish(hash, beacon, status string) error {
	b.t.Helper()
	return b.one(ledger.Entry{Finish: &ledger.Finish{Hash: hash, Beacon: beacon, Outcome: ledger.Outcome{Status: status, Error: "it said no"}}}).Err
}

func (b *book) happened(kind ledger.Kind) []string {
	var hashes []string
	for _, e := range b.events {
		if e.Kind == kind {
			hashes = append(hashes, e.Hash)
		}
	}
	return hashes
}

func TestRetriesBackOffAndEndAsDeadLetters(t *testing.T) {
	b := open(t)
	w := b.join(ledger.Join{Link: 1}, "w", 1, "A")
	hash := b.submit(ledger.Spec{Attempts: 3, BackoffMs: 1000})
	for attempt := 1; ; attempt++ {
		require.Equal(t, attempt, b.get(hash).Attempt)
		require.NoError(t, b.finish(hash, w, protocol.StatusError))
		if attempt == 3 {
			break
		}
		it := b.get(hash)
		require.Equal(t, protocol.StatusRetryScheduled, it.Status)
		least := time.Duration(attempt) * time.Second
		b.pass(least - time.Millisecond)
		require.Equal(t, protocol.StatusRetryScheduled, b.get(hash).Status)
		b.pass(least/10 + 2*time.Millisecond)
		require.Equal(t, protocol.StatusRunning, b.get(hash).Status)
	}
	it := b.get(hash)
	require.Equal(t, protocol.StatusError, it.Status)
	require.True(t, it.Dead)
	require.Error(t, b.one(ledger.Entry{Requeue: &ledger.Requeue{Hash: "unknown"}}).Err)

	// A dead letter outlives the history, and may be given a new life.
	other := b.submit(ledger.Spec{})
	require.NoError(t, b.finish(other, w, protocol.StatusComplete))
	b.pass(2 * time.Hour)
	_, err := b.l.Get(other)
	require.ErrorIs(t, err, ledger.ErrNotFound)
	require.NoError(t, b.one(ledger.Entry{Requeue: &ledger.Requeue{Hash: hash}}).Err)
	require.Equal(t, 4, b.get(hash).Attempt, "attempts count on, so that late reports stay stale")
	require.ErrorIs(t, b.one(ledger.Entry{Requeue: &ledger.Requeue{Hash: hash}}).Err, ledger.ErrNotFinal)
	require.NoError(t, b.finish(hash, w, protocol.StatusComplete))
	require.ErrorIs(t, b.one(ledger.Entry{Requeue: &ledger.Requeue{Hash: hash}}).Err, ledger.ErrComplete)
	var kinds []string
	it = b.get(hash)
	for _, e := range it.History() {
		kinds = append(kinds, e.EventType)
	}
	require.Equal(t, "enqueued dispatched retry_scheduled requeued dispatched retry_scheduled requeued dispatched failed requeued_by_operator dispatched completed", strings.Join(kinds, " "))
}

func TestDelayedItems(t *testing.T) {
	b := open(t)
	b.join(ledger.Join{Link: 1}, "w", 9, "A")
	delayed := b.submit(ledger.Spec{DelayMs: 5000})
	scheduled := b.submit(ledger.Spec{NotBefore: b.at.UnixMilli() + 3000})
	past := b.submit(ledger.Spec{NotBefore: b.at.UnixMilli() - 3000})
	require.Equal(t, protocol.StatusScheduled, b.get(delayed).Status)
	require.Equal(t, protocol.StatusRunning, b.get(past).Status)
	require.Equal(t, b.at.Add(3*time.Second), b.l.Next())
	b.pass(4 * time.Second)
	require.Equal(t, protocol.StatusRunning, b.get(scheduled).Status)
	require.Equal(t, protocol.StatusScheduled, b.get(delayed).Status)
	require.NoError(t, b.one(ledger.Entry{Cancel: &ledger.Cancel{Hash: delayed}}).Err)
	require.Equal(t, protocol.StatusCanceled, b.get(delayed).Status)
}

func TestAttemptsAreFenced(t *testing.T) {
	b := open(t)
	slow := b.join(ledger.Join{Link: 1, Session: "its own"}, "slow", 1, "A")
	hash := b.submit(ledger.Spec{TimeoutMs: 1000})
	require.Equal(t, slow, b.get(hash).Beacon)
	b.ok(ledger.Entry{Release: &ledger.Release{Hash: hash, Attempt: 1, Reason: "lost"}})
	require.Equal(t, 2, b.get(hash).Attempt, "the only beacon gets it again")
	require.ErrorIs(t, b.one(ledger.Entry{Release: &ledger.Release{Hash: hash, Attempt: 1, Reason: "again"}}).Err, ledger.ErrNotRunning)

	var stale *ledger.StaleError
	late := func(attempt int, status string) error {
		return b.one(ledger.Entry{Finish: &ledger.Finish{Hash: hash, Attempt: attempt, Outcome: ledger.Outcome{Status: status}}}).Err
	}
	require.ErrorAs(t, late(1, protocol.StatusComplete), &stale)
	require.ErrorAs(t, late(1, protocol.StatusError), &stale)
	require.ErrorAs(t, b.one(ledger.Entry{Finish: &ledger.Finish{Hash: hash, Session: "someone else's", Outcome: ledger.Outcome{Status: protocol.StatusError}}}).Err, &stale,
		"a failure that may be of any attempt ends none")
	require.NoError(t, late(2, protocol.StatusComplete))
	var final *ledger.FinalizedError
	require.ErrorAs(t, late(2, protocol.StatusComplete), &final)
	require.Equal(t, protocol.StatusComplete, final.Status)
}

func TestABeaconThatListsKeepsItsItems(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 3, "A")
	b.lists(id)
	kept, lost, done := b.submit(ledger.Spec{}), b.submit(ledger.Spec{}), b.submit(ledger.Spec{})
	require.ElementsMatch(t, []string{kept, lost, done}, keys(b.l.Beacon(id).Held))
	b.ok(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: 1, Lost: true, Reason: "cut"}})
	require.Equal(t, protocol.StatusRunning, b.get(kept).Status, "it may come back")
	b.pass(30 * time.Second)
	b.finish(done, "", protocol.StatusComplete)
	other := b.join(ledger.Join{Link: 2}, "other", 9, "A")
	again := b.join(ledger.Join{Link: 3}, "w", 3, "A")
	require.Equal(t, id, again)
	b.lists(again, kept, done)
	require.Equal(t, []string{done}, b.happened(ledger.Unwanted), "it need not be brought any more")
	require.Equal(t, 1, b.get(kept).Attempt)
	require.Equal(t, 2, b.get(lost).Attempt)
	require.Equal(t, other, b.get(lost).Beacon)

	// Away for too long, its items go to others; those that wait still it may keep.
	hubs := b.submit(ledger.Spec{Capability: "B"})
	b.ok(ledger.Entry{Leave: &ledger.Leave{Beacon: other, Reason: "done"}})
	require.Equal(t, again, b.get(lost).Beacon)
	b.ok(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: 3, Lost: true, Reason: "cut"}})
	b.pass(46 * time.Second)
	require.Equal(t, protocol.StatusPending, b.get(kept).Status)
	require.Nil(t, b.l.Beacon(id))
	b.submit(ledger.Spec{Priority: 1})
	again = b.join(ledger.Join{Link: 4}, "w", 1, "A")
	b.lists(again, kept)
	require.Equal(t, protocol.StatusRunning, b.get(kept).Status)
	require.Equal(t, 1, b.get(kept).Attempt, "the same attempt goes on")
	require.Equal(t, protocol.StatusPending, b.get(lost).Status)
	require.Equal(t, protocol.StatusPending, b.get(hubs).Status)
	require.ErrorIs(t, b.one(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: 3, Lost: true}}).Err, ledger.ErrUnknownBeacon, "an old link has nothing to leave")
}

func TestWhatIsNotListedIsLost(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 2, "A")
	first := b.submit(ledger.Spec{})
	b.pass(20 * time.Second)
	second := b.submit(ledger.Spec{})
	b.join(ledger.Join{Link: 2}, "other", 1, "A")
	b.ok(ledger.Entry{Listed: &ledger.Listed{Beacon: id, Active: []string{}, Grace: 10_000, Draining: true}})
	require.Equal(t, 2, b.get(first).Attempt)
	require.Equal(t, 1, b.get(second).Attempt, "it may be on its way")
	b.submit(ledger.Spec{})
	require.Len(t, b.l.Beacon(id).Held, 1, "who is draining gets no more")
}

func TestAnItemThatIsLostTooOftenIsADeadLetter(t *testing.T) {
	b := open(t)
	b.ok(ledger.Entry{Configure: &ledger.Settings{MostLost: 2}})
	hash := b.submit(ledger.Spec{})
	for i := range 3 {
		id := b.join(ledger.Join{Link: uint64(i + 1)}, fmt.Sprint("w", i), 1, "A")
		require.Equal(t, id, b.get(hash).Beacon)
		b.ok(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: uint64(i + 1), Lost: true, Reason: "it crashed"}})
	}
	it := b.get(hash)
	require.True(t, it.Dead)
	require.Equal(t, "The work item was lost with its beacon 3 times, the last time since it crashed.", it.Outcome.Error)
}

func TestOverrunIsGivenUp(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 1, "A")
	hash := b.submit(ledger.Spec{TimeoutMs: 10_000, Attempts: 2, BackoffMs: 1})
	b.pass(71 * time.Second)
	require.Equal(t, []string{hash}, b.happened(ledger.Unwanted))
	require.Equal(t, protocol.StatusRetryScheduled, b.get(hash).Status)
	b.pass(time.Second)
	require.Equal(t, protocol.StatusPending, b.get(hash).Status, "its beacon has the slot taken until it says so")
	require.Equal(t, []ledger.Cancellation{{Hash: hash, Attempt: 1, Reason: "the work item is not this beacon's any more"}}, b.l.Unwanted(id))
	var stale *ledger.StaleError
	require.NoError(t, b.finish(hash, id, protocol.StatusComplete), "late, but nobody else has begun")
	require.False(t, errorAs(b.finish(hash, id, protocol.StatusComplete), &stale))
}

// Workers report until they know that a report has arrived, so some arrive
// twice.
func TestAFailureCountsOnce(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 1, "A")
	hash := b.submit(ledger.Spec{Attempts: 3, BackoffMs: 1000})
	var stale *ledger.StaleError
	require.NoError(t, b.finish(hash, id, protocol.StatusError))
	require.ErrorAs(t, b.finish(hash, id, protocol.StatusError), &stale)
	b.lists(id, hash) // whose report it thinks is not known yet
	require.Equal(t, protocol.StatusRetryScheduled, b.get(hash).Status)
	b.ok(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Reason: "gone"}})
	b.pass(2 * time.Second)
	require.Equal(t, protocol.StatusPending, b.get(hash).Status)
	again := b.join(ledger.Join{Link: 2}, "other", 1, "B")
	require.ErrorAs(t, b.finish(hash, again, protocol.StatusError), &stale)
	id = b.join(ledger.Join{Link: 3}, "w", 0, "A")
	b.lists(id, hash)
	require.Equal(t, 2, b.get(hash).Attempt, "another attempt, not the one that failed")
	require.Equal(t, 1, b.get(hash).Failures)
}

func errorAs(err error, target any) bool {
	switch target := target.(type) {
	case **ledger.StaleError:
		e, ok := err.(*ledger.StaleError) //nolint:errorlint // never wrapped
		*target = e
		return ok
	}
	return false
}

func TestTenantsShareByWeightAndCost(t *testing.T) {
	b := open(t)
	b.ok(ledger.Entry{Configure: &ledger.Settings{Tenants: map[string]ledger.TenantSettings{"heavy": {Weight: 300}, "bounded": {Running: 1, Queue: 2}}}})
	id := b.join(ledger.Join{Link: 1}, "w", 1, "A", "B")
	for range 200 {
		b.submit(ledger.Spec{Tenant: "heavy"})
		b.submit(ledger.Spec{Tenant: "light"})
		b.submit(ledger.Spec{Tenant: "slow", Capability: "B"})
	}
	given := map[string]int{}
	spent := map[string]time.Duration{}
	for range 220 {
		hash := keys(b.l.Beacon(id).Held)[0]
		it := b.get(hash)
		took := time.Second
		if it.Spec.Tenant == "slow" {
			took = 10 * time.Second
		}
		b.at = b.at.Add(took)
		require.NoError(t, b.finish(hash, id, protocol.StatusComplete))
		given[it.Spec.Tenant]++
		spent[it.Spec.Tenant] += took
	}
	require.InDelta(t, 3, float64(spent["heavy"])/float64(spent["light"]), 0.3, "%v", spent)
	require.InDelta(t, 1, float64(spent["slow"])/float64(spent["light"]), 0.3, "%v", spent)

	// Who comes late neither waits behind the crowd nor pushes it aside for what
	// it has not used before.
	late := b.submit(ledger.Spec{Tenant: "late"})
	waited := 0
	for b.get(late).Status == protocol.StatusPending {
		hash := keys(b.l.Beacon(id).Held)[0]
		b.at = b.at.Add(time.Second)
		require.NoError(t, b.finish(hash, id, protocol.StatusComplete))
		waited++
	}
	require.LessOrEqual(t, waited, 3)

	// Bounds of one tenant are no others' bounds.
	b.join(ledger.Join{Link: 2}, "x", 5, "C")
	first := b.submit(ledger.Spec{Tenant: "bounded", Capability: "C"})
	second := b.submit(ledger.Spec{Tenant: "bounded", Capability: "C"})
	require.Equal(t, protocol.StatusPending, b.get(second).Status)
	third := ledger.Spec{Tenant: "bounded", Capability: "C"}
	require.ErrorIs(t, b.one(ledger.Entry{Submit: &ledger.Submit{Spec: &third}}).Err, ledger.ErrTenantFull)
	require.Equal(t, protocol.StatusRunning, b.get(b.submit(ledger.Spec{Tenant: "free", Capability: "C"})).Status)
	require.NoError(t, b.finish(first, b.get(first).Beacon, protocol.StatusComplete))
	require.Equal(t, protocol.StatusRunning, b.get(second).Status)
}

// A tenant that had the hub to itself for long is not locked out by newcomers.
func TestThePastIsForgiven(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 1, "A")
	for range 10 {
		hash := b.submit(ledger.Spec{Tenant: "old"})
		b.at = b.at.Add(time.Hour)
		require.NoError(t, b.finish(hash, id, protocol.StatusComplete))
	}
	for range 10 {
		b.submit(ledger.Spec{Tenant: "new"})
	}
	old := b.submit(ledger.Spec{Tenant: "old"})
	for range 3 {
		b.at = b.at.Add(time.Second)
		require.NoError(t, b.finish(keys(b.l.Beacon(id).Held)[0], id, protocol.StatusComplete))
	}
	require.NotEqual(t, protocol.StatusPending, b.get(old).Status)
}

func TestABeaconOfOneTenantGetsNoOthersItems(t *testing.T) {
	b := open(t)
	b.join(ledger.Join{Link: 1, Tenant: "a"}, "w", 9, "A")
	require.Equal(t, protocol.StatusPending, b.get(b.submit(ledger.Spec{Tenant: "b"})).Status)
	require.Equal(t, protocol.StatusPending, b.get(b.submit(ledger.Spec{Tenant: "b", AffinityKey: "w"})).Status)
	require.Equal(t, protocol.StatusRunning, b.get(b.submit(ledger.Spec{Tenant: "a", AffinityKey: "k"})).Status)
	b.join(ledger.Join{Link: 2}, "x", 9, "A")
	require.Equal(t, "x", b.get(b.submit(ledger.Spec{Tenant: "b", AffinityKey: "k"})).LastName, "keys are a tenant's own")
}

func TestHubsComeAndGo(t *testing.T) {
	b := open(t)
	b.from("two", ledger.Entry{Start: &ledger.Start{URL: "http://two"}})
	listing := b.from("two", ledger.Entry{Join: &ledger.Join{Link: 1, Info: protocol.Registration{Name: "l", Capabilities: []string{"A"}, MaxConcurrent: 1}}})[0].Beacon
	b.lists(listing)
	plain := b.from("two", ledger.Entry{Join: &ledger.Join{Link: 2, Info: protocol.Registration{Name: "p", Capabilities: []string{"B"}, MaxConcurrent: 1}}})[0].Beacon
	a, p := b.submit(ledger.Spec{}), b.submit(ledger.Spec{Capability: "B"})
	require.Equal(t, plain, b.get(p).Beacon)
	for range 25 {
		b.pass(time.Second)
	}
	require.Nil(t, b.l.Hub("two"))
	require.Equal(t, protocol.StatusPending, b.get(p).Status)
	require.Nil(t, b.l.Beacon(plain))
	require.Equal(t, protocol.StatusRunning, b.get(a).Status)
	require.NotZero(t, b.l.Beacon(listing).Away)
	answers := b.from("two", ledger.Entry{Tick: &ledger.Tick{}})
	require.ErrorIs(t, answers[0].Err, ledger.ErrUnknownHub, "it has to begin anew")

	// The beacon comes back by the other hub with what it has.
	require.Equal(t, listing, b.ok(ledger.Entry{Join: &ledger.Join{Link: 7, Info: protocol.Registration{Name: "l", Capabilities: []string{"A"}, MaxConcurrent: 1}}}).Beacon)
	b.lists(listing, a)
	require.Equal(t, 1, b.get(a).Attempt)

	// A hub that is alone knows that those before are gone, at once; and who was
	// away while there was none has all its time to come back.
	b.at = b.at.Add(time.Hour)
	b.from("three", ledger.Entry{Start: &ledger.Start{Alone: true}})
	require.Len(t, b.l.Hubs(), 1)
	require.NotZero(t, b.l.Beacon(listing).Away)
	require.Equal(t, 1, b.get(a).Attempt)
	b.at = b.at.Add(24 * time.Hour)
	b.from("four", ledger.Entry{Start: &ledger.Start{}})
	require.NotZero(t, b.l.Beacon(listing).Away)
	b.at = b.at.Add(46 * time.Second)
	b.from("four", ledger.Entry{Tick: &ledger.Tick{}})
	require.Nil(t, b.l.Beacon(listing))
	require.Equal(t, protocol.StatusPending, b.get(a).Status)
}

func TestRecordsCountOnceAndNoneIsMissing(t *testing.T) {
	b := open(t)
	r := ledger.Record{Version: ledger.Version, Hub: "hub", N: 2, Entries: []ledger.Entry{{Submit: &ledger.Submit{Spec: &ledger.Spec{Capability: "A"}}}}}
	for range 2 {
		_, _, err := b.l.Apply(b.at, r)
		require.NoError(t, err)
	}
	live, _, _ := b.l.Sizes()
	require.Equal(t, 1, live)
	r.N = 4
	_, _, err := b.l.Apply(b.at, r)
	require.ErrorContains(t, err, "damaged: after record 2 of hub hub comes 4")
	r.N, r.Version = 3, ledger.Version+1
	_, _, err = b.l.Apply(b.at, r)
	require.ErrorContains(t, err, "use a newer one")
	answers, _, err := b.l.Apply(b.at, ledger.Record{Version: ledger.Version, Hub: "hub", N: 3, Entries: []ledger.Entry{{}, {Submit: &ledger.Submit{}}}})
	require.NoError(t, err)
	require.ErrorIs(t, answers[0].Err, ledger.ErrInvalid)
	require.ErrorIs(t, answers[1].Err, ledger.ErrInvalid)
}

func TestWhatAWorkerWritesIsBounded(t *testing.T) {
	b := open(t)
	id := b.join(ledger.Join{Link: 1}, "w", 1, "A")
	b.ok(ledger.Entry{Configure: &ledger.Settings{MostLost: 1000}})
	hash := b.submit(ledger.Spec{})
	line := strings.Repeat("x", 1<<18)
	for range 300 {
		b.ok(ledger.Entry{Progress: &ledger.Progress{Hash: hash, Beacon: id, Log: []string{line}}})
		b.ok(ledger.Entry{Release: &ledger.Release{Hash: hash, Attempt: b.get(hash).Attempt, Reason: "lost"}})
	}
	it := b.get(hash)
	require.LessOrEqual(t, len(it.Log), 5)
	require.Contains(t, it.Log[len(it.Log)-1], "left out")
	require.Len(t, it.Events, 100)
	require.Equal(t, protocol.WorkEnqueued, it.Events[0].Kind)
}

func keys[V any](m map[string]V) []string {
	var out []string
	for key := range m {
		out = append(out, key)
	}
	return out
}

// script makes records out of bytes: whatever they are, it is a journal.
type script struct {
	in    []byte
	at    time.Time
	n     map[string]uint64
	links map[string]uint64
	l     *ledger.Ledger // to pick what exists
}

func (s *script) byte() int {
	if len(s.in) == 0 {
		return 0
	}
	b := s.in[0]
	s.in = s.in[1:]
	return int(b)
}

func (s *script) pick(n int) int { return s.byte() % n }

func (s *script) hash() string {
	k := s.byte()
	for it := range s.l.Live() {
		if k--; k < 0 {
			return it.Hash
		}
	}
	for it := range s.l.Dead() {
		return it.Hash
	}
	for it := range s.l.Finished() {
		return it.Hash
	}
	return "unknown"
}

func (s *script) beacon() string {
	if all := s.l.Beacons(); len(all) > 0 {
		return all[s.pick(len(all))].ID
	}
	return "unknown"
}

func (s *script) some(names ...string) []string {
	var out []string
	bits := s.byte()
	for i, name := range names {
		if bits>>i&1 == 1 {
			out = append(out, name)
		}
	}
	return out
}

func (s *script) held() []string {
	var out []string
	for _, b := range s.l.Beacons() {
		for _, hash := range sortedKeys(b.Held) {
			if s.byte()%3 > 0 {
				out = append(out, hash)
			}
		}
	}
	return out
}

func sortedKeys[V any](m map[string]V) []string {
	out := keys(m)
	for i := range out {
		for j := range i {
			if out[i] < out[j] {
				out[i], out[j] = out[j], out[i]
			}
		}
	}
	return out
}

func (s *script) entry(hub string) ledger.Entry {
	tenant := []string{"default", "a", "b"}[s.pick(3)]
	switch s.pick(20) {
	case 0, 1, 2, 3:
		return ledger.Entry{Submit: &ledger.Submit{Spec: &ledger.Spec{
			Tenant: tenant, Capability: []string{"A", "B", "C"}[s.pick(3)], Action: "X", Priority: float64(s.pick(3)),
			AffinityKey: []string{"", "", "w0", "k1", "k2"}[s.pick(5)], OnlyMatch: s.pick(4) == 0,
			TimeoutMs: float64(s.pick(4) * 20_000), Attempts: s.pick(4), BackoffMs: int64(s.byte() * 10), DelayMs: int64(s.pick(3) * s.byte() * 5),
			Key: []string{"", "", "", "once", "twice"}[s.pick(5)], Digest: fmt.Sprint(s.pick(2)), Waited: s.pick(5) == 0,
			Settings: json.RawMessage(`{"a":1}`), Files: s.some("f", "g"),
		}}}
	case 4, 5:
		s.links[hub]++
		j := &ledger.Join{
			Link: s.links[hub], Session: fmt.Sprint(s.pick(3)),
			Info: protocol.Registration{
				Name: fmt.Sprint("w", s.pick(4)), Capabilities: s.some("A", "B", "C"), MaxConcurrent: s.pick(4),
				ActionSchemas: []protocol.ActionSchema{{Capability: "A", Action: fmt.Sprint(s.pick(3))}},
			},
		}
		if s.pick(4) == 0 {
			j.Link = 0
		} else if s.pick(4) == 0 {
			j.Link = max(1, j.Link-1)
		}
		if s.pick(3) == 0 {
			j.Tenant = tenant
		}
		return ledger.Entry{Join: j}
	case 6:
		e := &ledger.Leave{Beacon: s.beacon(), Lost: s.pick(2) == 0, Reason: "r"}
		if s.pick(2) == 0 {
			e.Link = s.links[hub]
		}
		return ledger.Entry{Leave: e}
	case 7, 8, 9, 10:
		f := &ledger.Finish{Hash: s.hash(), Attempt: s.pick(3), Outcome: ledger.Outcome{Status: []string{protocol.StatusComplete, protocol.StatusError}[s.pick(2)], Error: "e", Log: []string{"l"}}}
		switch s.pick(3) {
		case 0:
			f.Beacon = s.beacon()
		case 1:
			f.Session = fmt.Sprint(s.pick(3))
		}
		return ledger.Entry{Finish: f}
	case 11, 12:
		return ledger.Entry{Poll: &ledger.Poll{Beacon: s.beacon()}}
	case 13:
		return ledger.Entry{Progress: &ledger.Progress{Hash: s.hash(), Beacon: []string{"", s.beacon()}[s.pick(2)], Data: json.RawMessage(`{"Percent":1}`), Log: []string{"p"}}}
	case 14:
		return ledger.Entry{Cancel: &ledger.Cancel{Hash: s.hash(), Reason: "c"}}
	case 15:
		return ledger.Entry{Requeue: &ledger.Requeue{Hash: s.hash()}}
	case 16:
		return ledger.Entry{Listed: &ledger.Listed{Beacon: s.beacon(), Active: append(s.held(), s.hash()), Draining: s.pick(4) == 0, Grace: int64(s.byte())}}
	case 17:
		return ledger.Entry{Release: &ledger.Release{Hash: s.hash(), Attempt: s.pick(4), Reason: "r"}}
	case 18:
		switch s.pick(6) {
		case 0:
			return ledger.Entry{Abandon: &ledger.Abandon{Hash: s.hash()}}
		case 1:
			return ledger.Entry{Forget: &ledger.Forget{Hash: s.hash()}}
		case 2:
			return ledger.Entry{Attach: &ledger.Attach{Hash: s.hash(), File: protocol.StoredFile{Name: "f"}}}
		case 3:
			return ledger.Entry{Revoke: &ledger.Revoke{Session: fmt.Sprint(s.byte()), Until: s.at.UnixMilli() + int64(s.byte())*1000}}
		case 4:
			return ledger.Entry{Secret: &ledger.NewSecret{Key: []byte{byte(s.byte())}}}
		}
		return ledger.Entry{Seen: &ledger.Seen{Beacons: map[string]int64{s.beacon(): s.at.UnixMilli()}}}
	}
	return ledger.Entry{Configure: &ledger.Settings{
		HeartbeatMs: 1000 * int64(1+s.byte()), HistoryItems: 1 + s.byte(), DeadItems: 1 + s.byte(), MostLost: 1 + s.pick(5), QueueItems: 20 + s.byte(),
		HistoryMs: 1000 * int64(1+s.byte()), DeadMs: 1000 * int64(1+s.byte()), AffinityMs: 100 * int64(1+s.byte()),
		Tenants: map[string]ledger.TenantSettings{"a": {Weight: int64(s.byte()), Running: s.pick(3), Queue: s.byte()}},
	}}
}

// record is the next one.
func (s *script) record() ledger.Record {
	s.at = s.at.Add(time.Duration(s.byte()*s.byte()) * time.Millisecond)
	hub := []string{"one", "two"}[s.pick(2)]
	s.n[hub]++
	r := ledger.Record{Version: ledger.Version, Hub: hub, N: s.n[hub]}
	switch {
	case s.l.Hub(hub) == nil:
		s.n[hub], r.N, s.links[hub] = 1, 1, 0
		r.Entries = []ledger.Entry{{Start: &ledger.Start{Alone: s.pick(4) == 0}}}
	case s.pick(100) == 0:
		r.Entries = []ledger.Entry{{Stop: &ledger.Stop{}}}
	}
	for range 1 + s.pick(3) {
		r.Entries = append(r.Entries, s.entry(hub))
	}
	return r
}

func picture(t *testing.T, l *ledger.Ledger) string {
	t.Helper()
	s, err := l.Snapshot()
	require.NoError(t, err)
	var out bytes.Buffer
	_, err = s.WriteTo(&out)
	require.NoError(t, err)
	return out.String()
}

// play runs a script on two ledgers, of which one is taken down and restored
// again and again, and checks what must always hold.
func play(t *testing.T, in []byte, every int) {
	a, b := ledger.New(), ledger.New()
	s := &script{in: in, at: time.UnixMilli(1_800_000_000_000), n: map[string]uint64{}, links: map[string]uint64{}, l: a}
	ended := map[string]string{}
	for step := 0; len(s.in) > 0; step++ {
		r := s.record()
		apply := func(l *ledger.Ledger, at time.Time, r ledger.Record) []ledger.Event {
			raw, err := json.Marshal(r)
			require.NoError(t, err)
			var read ledger.Record
			require.NoError(t, json.Unmarshal(raw, &read))
			answers, events, err := l.Apply(at, read)
			require.NoError(t, err)
			require.Len(t, answers, len(r.Entries))
			return events
		}
		before := map[string]string{}
		for it := range a.Live() {
			before[it.Hash] = it.Status
		}
		events := apply(a, s.at, r)
		told, heard := tell(events), ""
		if r.At = s.at.UnixMilli(); s.pick(4) == 0 { // written down with the next one, if it is of the same hub
			check(t, a)
			next := s.record()
			if next.Hub == r.Hub && next.N == r.N+1 {
				next.Before = []ledger.Record{r}
			} else {
				heard = tell(apply(b, time.UnixMilli(r.At), r))
			}
			r = next
			more := apply(a, s.at, r)
			told += tell(more)
			events = append(events, more...)
		}
		heard += tell(apply(b, s.at, r))
		require.Equal(t, told, heard)
		if every > 0 && step%every == 0 {
			image := picture(t, b)
			restored, err := ledger.Restore(strings.NewReader(image))
			require.NoError(t, err)
			require.Equal(t, image, picture(t, restored))
			b = restored
		}
		for _, e := range events {
			switch e.Kind {
			case ledger.Ended:
				require.Empty(t, ended[e.Hash], "%s ended twice", e.Hash)
				ended[e.Hash] = e.Item.Status
			case ledger.Queued:
				delete(ended, e.Hash)
			case ledger.Assigned:
				delete(before, e.Hash)
			}
		}
		check(t, a)
	}
	require.Equal(t, picture(t, a), picture(t, b), "a restored ledger comes to other conclusions")
}

func tell(events []ledger.Event) string {
	var out strings.Builder
	for _, e := range events {
		fmt.Fprintln(&out, e.Kind, e.Hub, e.Link, e.Beacon, e.Hash, e.Reason)
	}
	return out.String()
}

func check(t *testing.T, l *ledger.Ledger) {
	holders := map[string]string{}
	for _, b := range l.Beacons() {
		for hash := range b.Held {
			if it, err := l.Get(hash); err == nil && it.Status == protocol.StatusRunning && it.Beacon == b.ID {
				require.Empty(t, holders[hash])
				holders[hash] = b.ID
				require.Equal(t, it.Attempt, b.Held[hash])
			}
		}
		if b.Link != 0 {
			require.False(t, l.Has(b.ID), "%s is idle while something waits for it", b.ID)
		}
	}
	counts := map[string]int{}
	busy, live := map[string]int{}, map[string]int{}
	backlogs := map[string]map[string]*ledger.Backlog{"": {}}
	for it := range l.Live() {
		require.False(t, it.Final())
		counts[it.Status]++
		live[it.Spec.Tenant]++
		for _, tenant := range []string{"", it.Spec.Tenant} {
			if backlogs[tenant] == nil {
				backlogs[tenant] = map[string]*ledger.Backlog{}
			}
			b := backlogs[tenant][it.Spec.Capability]
			if b == nil {
				b = &ledger.Backlog{Capability: it.Spec.Capability}
				backlogs[tenant][b.Capability] = b
			}
			switch since := time.UnixMilli(it.Ready); {
			case it.Status == protocol.StatusRunning:
				b.Running++
			case it.Status != protocol.StatusPending:
				b.Later++
			default:
				if b.Waiting++; b.Oldest.IsZero() || since.Before(b.Oldest) {
					b.Oldest = since
				}
			}
		}
		if it.Status == protocol.StatusRunning {
			require.Equal(t, it.Beacon, holders[it.Hash], "%s runs nowhere", it.Hash)
			busy[it.Spec.Tenant]++
		}
	}
	for it := range l.Dead() {
		counts[it.Status]++
	}
	for it := range l.Finished() {
		counts[it.Status]++
	}
	require.Equal(t, l.Counts(), counts)
	for tenant, want := range backlogs {
		got := l.Backlogs(tenant)
		require.Len(t, got, len(want))
		for _, b := range got {
			require.Equal(t, *want[b.Capability], b)
		}
	}
	require.Empty(t, l.Backlogs("nobody"))
	for _, tenant := range l.Tenants() {
		require.Equal(t, live[tenant.Name], tenant.Live)
		require.Equal(t, busy[tenant.Name], tenant.Busy)
	}
}

func TestAnyJournalLeadsEveryHubToTheSameLedger(t *testing.T) {
	for seed := range uint64(14) {
		random := rand.New(rand.NewPCG(seed, 7))
		in := make([]byte, 6000)
		for i := range in {
			in[i] = byte(random.Uint32())
		}
		play(t, in, 1+int(seed%7))
		if t.Failed() {
			t.Fatal("seed", seed)
		}
	}
}

func FuzzLedger(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		in := make([]byte, 400)
		for i := range in {
			in[i] = byte(random.Uint32())
		}
		f.Add(in)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4000 {
			in = in[:4000]
		}
		play(t, in, 3)
	})
}

// FuzzRestore checks that a damaged snapshot is an error and nothing worse.
func FuzzRestore(f *testing.F) {
	l := ledger.New()
	_, _, err := l.Apply(time.UnixMilli(1), ledger.Record{Hub: "h", N: 1, Entries: []ledger.Entry{
		{Start: &ledger.Start{}},
		{Submit: &ledger.Submit{Spec: &ledger.Spec{Tenant: "t", Capability: "A", Key: "k"}}},
		{Join: &ledger.Join{Link: 1, Info: protocol.Registration{Name: "w", Capabilities: []string{"A"}, MaxConcurrent: 1}}},
		{Submit: &ledger.Submit{Spec: &ledger.Spec{Tenant: "t", Capability: "A"}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	s, err := l.Snapshot()
	if err != nil {
		f.Fatal(err)
	}
	var image bytes.Buffer
	if _, err := s.WriteTo(&image); err != nil {
		f.Fatal(err)
	}
	f.Add(image.Bytes())
	f.Add([]byte(`{"Format":1,"Live":1}` + "\n" + `{"Hash":"x","Spec":{}}`))
	f.Fuzz(func(_ *testing.T, in []byte) {
		l, err := ledger.Restore(bytes.NewReader(in))
		if err == nil {
			l.Next()
		}
	})
}
