package hub

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on a submission, and how long one is asked to wait when the queue is
// full.
const (
	longestKey  = 1024 // AffinityKey, the hashes, tags
	longestHash = 256  // RunHash and NodeHash, which are parts of the item's own
	retryAfter  = 5    // seconds
)

// submission reads and completes a request for work. When it returns false the
// request is answered.
func submission(reply responder, r *http.Request) (protocol.Submission, bool) {
	var s protocol.Submission
	if !reply.body(r, mostBody, &s) {
		return s, false
	}
	if s.Capability == "" {
		reply.refuse(http.StatusBadRequest, "Capability is required.")
		return s, false
	}
	for name, field := range map[string]struct {
		text string
		most int
	}{
		"Capability": {s.Capability, longestName}, "Action": {s.Action, longestName},
		"AffinityKey": {s.AffinityKey, longestKey}, "RunID": {s.RunID, longestHash},
		"RunHash": {s.RunHash, longestHash}, "NodeHash": {s.NodeHash, longestHash},
		"OperationHash": {s.OperationHash, longestKey}, "SubmitterTag": {s.SubmitterTag, longestKey},
	} {
		if len(field.text) > field.most {
			reply.refuse(http.StatusBadRequest, fmt.Sprintf("%s is %d bytes long: at most %d are allowed.", name, len(field.text), field.most))
			return s, false
		}
	}
	if s.Action == "" {
		s.Action = "Execute"
	}
	if s.Settings == nil {
		s.Settings = beacon.Settings{}
	}
	if s.Priority == nil { // what the real server takes from the settings, too
		priority := fallback(s.Settings, 0, "priority", "Priority")
		s.Priority = &priority
	}
	if s.TimeoutMs <= 0 {
		s.TimeoutMs = max(0, fallback(s.Settings, protocol.DefaultTimeoutMs, "timeoutMs", "TimeoutMs"))
	}
	if s.TimeoutMs == 0 {
		s.TimeoutMs = protocol.DefaultTimeoutMs
	}
	if s.MaxAttempts <= 0 {
		s.MaxAttempts = int(fallback(s.Settings, 1, "maxRetries", "MaxAttempts"))
	}
	s.MaxAttempts = min(max(s.MaxAttempts, 1), mostAttempts)
	if s.RetryBackoffMs <= 0 {
		s.RetryBackoffMs = int64(fallback(s.Settings, usualBackoff, "retryBackoffMs", "RetryBackoffMs"))
	}
	s.RetryBackoffMs = min(max(s.RetryBackoffMs, 0), mostDelay)
	if s.DelayMs < 0 || s.DelayMs > mostDelay || s.NotBefore.After(time.Now().Add(mostDelay*time.Millisecond)) {
		reply.refuse(http.StatusBadRequest, "DelayMs and NotBefore must lie within a year from now.")
		return s, false
	}
	who := callerOf(r)
	if who.tenant != "" && s.Tenant != "" && s.Tenant != who.tenant {
		reply.refuse(http.StatusForbidden, "This user acts for the tenant "+who.tenant+" only.")
		return s, false
	}
	s.Tenant = cmp.Or(who.tenant, s.Tenant, beacon.DefaultTenant)
	if !tenantPattern.MatchString(s.Tenant) {
		reply.refuse(http.StatusBadRequest, "Tenant must be made of letters, digits, dots, - and _, 64 at most.")
		return s, false
	}
	return s, true
}

const (
	mostAttempts = 1000
	usualBackoff = 5000                   // milliseconds, as on the real server
	mostDelay    = 365 * 24 * 3600 * 1000 // milliseconds
)

// fallback is the number that a setting has, the first of those that are there.
func fallback(settings beacon.Settings, otherwise float64, names ...string) float64 {
	for _, name := range names {
		n, err := strconv.ParseFloat(settings.Text(name), 64)
		if err == nil && !math.IsNaN(n) && math.Abs(n) <= 1e15 {
			return n
		}
	}
	return otherwise
}

// spec is a submission the way it is written down.
func spec(s protocol.Submission, key string) (*ledger.Spec, error) {
	settings, err := protocol.Encode(s.Settings)
	if err != nil {
		return nil, err
	}
	out := &ledger.Spec{
		Files:  filesIn(settings),
		Tenant: s.Tenant, Capability: s.Capability, Action: s.Action, Settings: settings,
		AffinityKey: s.AffinityKey, OnlyMatch: s.RequireAffinityMatch && s.AffinityKey != "",
		TimeoutMs: s.TimeoutMs, Priority: *s.Priority, Attempts: s.MaxAttempts, BackoffMs: s.RetryBackoffMs, DelayMs: s.DelayMs,
		RunID: s.RunID, RunHash: s.RunHash, NodeHash: s.NodeHash, OperationHash: s.OperationHash,
		SubmitterTag: s.SubmitterTag, Metadata: s.Metadata, Key: key,
	}
	if !s.NotBefore.IsZero() {
		out.NotBefore = s.NotBefore.UnixMilli()
	}
	if key != "" {
		sum := sha256.New()
		for _, part := range []string{s.Capability, s.Action, s.AffinityKey, string(settings)} {
			fmt.Fprintf(sum, "%d:%s", len(part), part)
		}
		out.Digest = hex.EncodeToString(sum.Sum(nil)[:16])
	}
	return out, nil
}

// mostInline is the size up to which settings and results go into the journal, and
// into every hub's memory with it, where there is another place for larger ones.
const mostInline = 64 << 10

// submit hands in an item. A watcher sees all that happens to it.
func (h *Hub) submit(ctx context.Context, s *ledger.Spec, w *watcher) (ledger.Item, error) {
	if len(s.Settings) > mostInline && h.files.shared != nil {
		id, err := h.files.spill(ctx, s.Settings)
		if err != nil {
			return ledger.Item{}, err
		}
		s.Blob, s.Size, s.Settings = id, int64(len(s.Settings)), nil
		s.Files = append(s.Files, id)
	}
	var item ledger.Item
	var refused error
	err := h.core.propose(ledger.Entry{Submit: &ledger.Submit{Spec: s}}, func(a ledger.Answer) {
		refused = a.Err
		if a.Item == nil {
			return
		}
		item = a.Item.Copy()
		if w != nil && refused == nil {
			h.core.watch(item.Hash, w)
		}
	})
	if err == nil {
		err = refused
	}
	return item, err
}

// refuse answers a submitter.
func (p responder) refuse(status int, message string) {
	if status == http.StatusTooManyRequests {
		p.w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	p.json(status, map[string]any{"Success": false, "Error": message})
}

// notTaken answers a submission that was refused.
func (h *Hub) notTaken(reply responder, err error) {
	switch {
	case errors.Is(err, ledger.ErrNoBeacons):
		reply.refuse(http.StatusServiceUnavailable, "No Beacon workers are registered.")
	case errors.Is(err, ledger.ErrFull):
		reply.refuse(http.StatusTooManyRequests, "The queue is full. Try again later.")
	case errors.Is(err, ledger.ErrTenantFull):
		reply.refuse(http.StatusTooManyRequests, "The queue of this tenant is full. Try again later.")
	case errors.Is(err, ledger.ErrConflict):
		reply.refuse(http.StatusConflict, "This "+protocol.IdempotencyHeader+" was used for another work item. Use a new key for new work.")
	case errors.Is(err, journal.ErrTooLarge):
		reply.refuse(http.StatusRequestEntityTooLarge, "The work item is too large.")
	case errors.Is(err, journal.ErrFull) || errors.Is(err, errNoRoom):
		h.log.Error("work item refused: there is no room on the disk", "error", err)
		reply.refuse(http.StatusInsufficientStorage, "The hub has no room on its disk for more work. What it has taken is safe.")
	default:
		h.log.Error("work item not stored", "error", err)
		reply.refuse(http.StatusServiceUnavailable, "The work item cannot be stored now.")
	}
}

func (h *Hub) enqueue(reply responder, r *http.Request, _ []string) {
	key := r.Header.Get(protocol.IdempotencyHeader)
	if len(key) > longestKey {
		reply.refuse(http.StatusBadRequest, fmt.Sprintf("%s is %d bytes long: at most %d are allowed.", protocol.IdempotencyHeader, len(key), longestKey))
		return
	}
	s, ok := submission(reply, r)
	if !ok {
		return
	}
	what, err := spec(s, key)
	if err != nil {
		h.notTaken(reply, err)
		return
	}
	item, err := h.submit(r.Context(), what, nil)
	if err != nil {
		h.notTaken(reply, err)
		return
	}
	reply.json(http.StatusOK, protocol.Enqueued{
		Success: true, RunID: item.Spec.RunID, WorkItemHash: item.Hash,
		Status: item.Status, EnqueuedAt: protocol.Timestamp{Time: time.UnixMilli(item.Enqueued)}, Priority: item.Spec.Priority,
	})
}

// begin hands in an item that its submitter waits for. Such items belong to no
// run and begin at once.
func (h *Hub) begin(reply responder, r *http.Request, live bool) (ledger.Item, *watcher, bool) {
	s, ok := submission(reply, r)
	if !ok {
		return ledger.Item{}, nil, false
	}
	s.RunID, s.RunHash, s.NodeHash, s.OperationHash, s.DelayMs, s.NotBefore = "", "", "", "", 0, protocol.Timestamp{}
	w := newWatcher(live)
	what, err := spec(s, "")
	var item ledger.Item
	if err == nil {
		what.Waited, what.Live = true, live
		item, err = h.submit(r.Context(), what, w)
	}
	if err != nil {
		h.notTaken(reply, err)
		return ledger.Item{}, nil, false
	}
	return item, w, true
}

// follow calls see with all that happens to an item until see returns false. An
// item that takes too long ends for its submitter by itself. When the submitter
// goes away, follow returns as well.
func (h *Hub) follow(ctx context.Context, item ledger.Item, w *watcher, see func(news) bool) {
	defer h.core.unwatch(item.Hash, w)
	// Should the hub be cut off from its journal, nobody would end it.
	timer := time.NewTimer(milliseconds(item.Spec.TimeoutMs) + commitTimeout)
	defer timer.Stop()
	for {
		select {
		case <-w.wake:
			if see(w.look()) {
				continue
			}
		case <-timer.C:
			w.abort()
			continue
		case <-ctx.Done():
		}
		break
	}
	if now, err := h.core.get(item.Hash); err == nil && !now.Final() {
		h.core.offer(ledger.Entry{Abandon: &ledger.Abandon{Hash: item.Hash, Reason: "the submitter went away"}}, nil, func(error) {})
	}
}

// milliseconds is a Duration of at most a year.
func milliseconds(ms float64) time.Duration {
	return time.Duration(min(ms, mostDelay) * float64(time.Millisecond))
}

func (h *Hub) dispatch(reply responder, r *http.Request, _ []string) {
	item, w, ok := h.begin(reply, r, false)
	if !ok {
		return
	}
	h.follow(r.Context(), item, w, func(n news) bool {
		switch {
		case n.item != nil:
			status := http.StatusOK
			if n.item.Status != protocol.StatusComplete {
				status = http.StatusInternalServerError
			}
			reply.json(status, h.dispatched(r.Context(), n.item))
		case n.aborted:
			reply.refuse(http.StatusServiceUnavailable, closingText)
		default:
			return true
		}
		return false
	})
}

const closingText = "The hub is shutting down."

// dispatched is what a submitter who waits gets.
func (h *Hub) dispatched(ctx context.Context, item *ledger.Item) protocol.Dispatched {
	record, err := h.whole(ctx, item)
	if err != nil {
		h.log.Error("a result cannot be read", "item", item.Hash, "error", err)
		return protocol.Dispatched{WorkItemHash: item.Hash, Log: []string{}, Error: "The result cannot be read now. It will be at /Beacon/Work/" + item.Hash + "."}
	}
	d := protocol.Dispatched{
		Success: item.Status == protocol.StatusComplete, WorkItemHash: item.Hash,
		Outputs: record.Outputs, Log: record.Log, Error: record.Error,
	}
	if d.Log == nil {
		d.Log = []string{}
	}
	return d
}

func (h *Hub) cancel(reply responder, r *http.Request, args []string) {
	var body struct {
		Reason string `json:"Reason"`
	}
	if !reply.body(r, mostBody, &body) {
		return
	}
	item, err := h.seen(r, args[0])
	if err == nil {
		item, err = h.core.item(ledger.Entry{Cancel: &ledger.Cancel{Hash: args[0], Reason: beacon.Excerpt(body.Reason, longestKey)}})
	}
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	canceled := item.Status == protocol.StatusCanceled
	reply.json(http.StatusOK, protocol.Canceled{
		Success: canceled || !item.Final(), WorkItemHash: item.Hash,
		Canceled: canceled, CancelRequested: item.CancelAsked && !canceled, Status: item.Status,
	})
}

func (h *Hub) notFound(reply responder, hash string, err error) {
	if !errors.Is(err, ledger.ErrNotFound) {
		h.log.Error("work item not read", "item", hash, "error", err)
		reply.refuse(http.StatusServiceUnavailable, "The work item cannot be read now.")
		return
	}
	reply.refuse(http.StatusNotFound, "Work item ["+hash+"] not found.")
}

// whole is an item with all that is kept elsewhere.
func (h *Hub) whole(ctx context.Context, item *ledger.Item) (protocol.WorkRecord, error) {
	var settings json.RawMessage
	var outcome *ledger.Outcome
	if id := item.Spec.Blob; id != "" {
		raw, err := h.files.spilled(ctx, id)
		if err != nil {
			return protocol.WorkRecord{}, err
		}
		settings = raw
	}
	if o := item.Outcome; o != nil && o.Blob != "" {
		raw, err := h.files.spilled(ctx, o.Blob)
		if err != nil {
			return protocol.WorkRecord{}, err
		}
		outcome = &ledger.Outcome{}
		if err := json.Unmarshal(raw, outcome); err != nil {
			return protocol.WorkRecord{}, fmt.Errorf("read a result: %w", err)
		}
		outcome.Status, outcome.Error = o.Status, o.Error
	}
	return item.Record(settings, outcome), nil
}

func (h *Hub) work(reply responder, r *http.Request, args []string) {
	item, err := h.seen(r, args[0])
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	record, err := h.whole(r.Context(), &item)
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	reply.json(http.StatusOK, record)
}

func (h *Hub) events(reply responder, r *http.Request, args []string) {
	item, err := h.seen(r, args[0])
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"WorkItemHash": args[0], "Events": item.History()})
}

func (h *Hub) listWork(reply responder, r *http.Request, _ []string) {
	// One by one: together they may be as large as the queue may be.
	hashes := h.core.live(callerOf(r))
	reply.w.Header().Set("Content-Type", "application/json")
	reply.w.Header().Set("X-Content-Type-Options", "nosniff")
	separator := []byte("[")
	for _, hash := range hashes {
		item, err := h.core.get(hash)
		if err != nil || item.Final() {
			continue // it has ended meanwhile
		}
		record, err := h.whole(r.Context(), &item)
		var raw []byte
		if err == nil {
			raw, err = protocol.Encode(record)
		}
		if err != nil {
			h.log.Error("work item cannot be shown", "item", hash, "error", err)
			continue
		}
		if err := reply.write(append(separator, raw...)); err != nil {
			return
		}
		separator = []byte(",")
	}
	if separator[0] == '[' {
		separator = []byte("[]")
	} else {
		separator = []byte("]")
	}
	_, _ = reply.w.Write(separator)
}

func (h *Hub) capabilities(reply responder, _ *http.Request, _ []string) {
	beacons := h.core.list()
	names := []string{}
	for _, b := range beacons {
		names = append(names, b.Capabilities...)
	}
	slices.Sort(names)
	reply.json(http.StatusOK, map[string]any{
		"Capabilities": slices.Compact(names), "BeaconCount": len(beacons), "ActionCatalog": h.core.catalog(""),
	})
}

func (h *Hub) listActions(reply responder, r *http.Request, _ []string) {
	reply.json(http.StatusOK, map[string]any{"Actions": h.core.catalog(r.URL.Query().Get("Capability"))})
}

func (h *Hub) affinity(reply responder, _ *http.Request, _ []string) {
	reply.json(http.StatusOK, h.core.affinities())
}

// bucket is the word that the queue view has for a state.
func bucket(status string) string {
	switch status {
	case protocol.StatusPending, protocol.StatusScheduled, protocol.StatusRetryScheduled:
		return "Upcoming"
	case protocol.StatusRunning:
		return "InProgress"
	case protocol.StatusComplete:
		return "Completed"
	}
	return "Errored"
}

// live lists the hashes of items that are not final, oldest first.
func (c *coordinator) live(who caller) []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n, _, _ := c.ledger.Sizes()
	out := make([]string, 0, n)
	for it := range c.ledger.Live() {
		if who.sees(it.Spec.Tenant) {
			out = append(out, it.Hash)
		}
	}
	return out
}

// queueView shows the queue in short: counts, and items without what is large.
func (h *Hub) queueView(reply responder, r *http.Request, _ []string) {
	query := r.URL.Query()
	limit, ok := reply.limitOf(query)
	if !ok {
		return
	}
	reply.json(http.StatusOK, h.core.queueView(callerOf(r), query.Get("bucket"), strings.Contains(query.Get("include"), "history"), limit))
}

// limitOf is how many items a view may show.
func (p responder) limitOf(query url.Values) (int, bool) {
	asked := query.Get("limit")
	if asked == "" {
		return 100, true
	}
	n, err := strconv.Atoi(asked)
	if err != nil || n < 1 || n > 1000 {
		p.error(http.StatusBadRequest, "limit must be a number from 1 to 1000.")
		return 0, false
	}
	return n, true
}

func (c *coordinator) queueView(who caller, only string, history bool, limit int) map[string]any {
	c.mu.RLock()
	defer c.mu.RUnlock()
	finished := strings.EqualFold(only, "Completed") || strings.EqualFold(only, "Errored")
	buckets := map[string]int{"Upcoming": 0, "InProgress": 0, "Stalled": 0, "Completed": 0, "Errored": 0}
	for _, all := range []iter.Seq[*ledger.Item]{c.ledger.Finished(), c.ledger.Dead()} {
		if who.tenant == "" {
			break // there is a shorter way
		}
		for it := range all {
			if who.sees(it.Spec.Tenant) {
				buckets[bucket(it.Status)]++
			}
		}
	}
	for status, n := range c.ledger.Counts() {
		if who.tenant == "" && protocol.Final(status) {
			buckets[bucket(status)] += n
		}
	}
	byCapability := map[string]map[string]int{}
	for _, b := range c.ledger.Backlogs(who.tenant) {
		byCapability[b.Capability] = map[string]int{"Upcoming": b.Waiting + b.Later, "InProgress": b.Running}
		buckets["Upcoming"] += b.Waiting + b.Later
		buckets["InProgress"] += b.Running
	}
	stalled := func(it *ledger.Item) bool {
		// What is at a beacon that is away is not lost yet, and not moving either.
		b := c.ledger.Beacon(it.Beacon)
		return it.Status == protocol.StatusRunning && b != nil && b.Away != 0
	}
	for it := range c.running() {
		if who.sees(it.Spec.Tenant) && stalled(it) {
			buckets["InProgress"]--
			buckets["Stalled"]++
		}
	}
	shown := c.ledger.Live()
	if strings.EqualFold(only, "InProgress") || strings.EqualFold(only, "Stalled") {
		shown = c.running()
	}
	items := []protocol.WorkRecord{}
	for it := range shown {
		if len(items) == limit || finished {
			break
		}
		in := bucket(it.Status)
		if stalled(it) {
			in = "Stalled"
		}
		if who.sees(it.Spec.Tenant) && (only == "" || strings.EqualFold(only, in)) {
			items = append(items, short(it))
		}
	}
	var past []protocol.WorkRecord // null unless asked for
	if history {
		past = []protocol.WorkRecord{}
	}
	if history || finished {
		for _, all := range []iter.Seq[*ledger.Item]{c.ledger.Finished(), c.ledger.Dead()} {
			n := 0
			for it := range all {
				if !who.sees(it.Spec.Tenant) {
					continue
				}
				if n++; n > limit {
					break
				}
				if finished && strings.EqualFold(only, bucket(it.Status)) {
					items = append(items, short(it))
				}
				if history {
					past = append(past, short(it))
				}
			}
		}
	}
	return map[string]any{
		"Summary": map[string]any{"At": protocol.Timestamp{Time: time.Now()}, "Buckets": buckets, "ByCapability": byCapability},
		"Items":   items,
		"History": past,
	}
}

// short leaves out what may be large.
func short(it *ledger.Item) protocol.WorkRecord {
	item := *it
	spec := *it.Spec
	spec.Settings, spec.Metadata = nil, nil
	item.Spec, item.Log = &spec, nil
	if item.Outcome != nil {
		item.Outcome = &ledger.Outcome{Status: item.Outcome.Status, Error: item.Outcome.Error}
	}
	record := item.Record(nil, nil)
	record.Settings = nil
	return record
}
