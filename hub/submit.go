package hub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
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
	if s.TimeoutMs <= 0 {
		s.TimeoutMs = protocol.DefaultTimeoutMs
	}
	if s.Priority == nil { // the real server takes it from the settings, too
		priority, err := strconv.ParseFloat(s.Settings.Text("priority"), 64)
		if err != nil || math.IsNaN(priority) || math.IsInf(priority, 0) {
			priority = 0
		}
		s.Priority = &priority
	}
	return s, true
}

// refuse answers a submitter.
func (p responder) refuse(status int, message string) {
	if status == http.StatusTooManyRequests {
		p.w.Header().Set("Retry-After", strconv.Itoa(retryAfter))
	}
	p.json(status, map[string]any{"Success": false, "Error": message})
}

// notTaken answers a submission that the queue refused.
func (h *Hub) notTaken(reply responder, err error) {
	switch {
	case errors.Is(err, errNoBeacons):
		reply.refuse(http.StatusServiceUnavailable, err.Error())
	case errors.Is(err, ErrFull):
		reply.refuse(http.StatusTooManyRequests, "The queue is full. Try again later.")
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
	item, existed, err := h.queue.submit(r.Context(), s, key, nil)
	if err != nil {
		h.notTaken(reply, err)
		return
	}
	if existed && !same(s, item) {
		reply.refuse(http.StatusConflict, "This "+protocol.IdempotencyHeader+" was used for another work item. Use a new key for new work.")
		return
	}
	reply.json(http.StatusOK, protocol.Enqueued{
		Success: true, RunID: item.RunID, WorkItemHash: item.WorkItemHash,
		Status: item.Status, EnqueuedAt: item.EnqueuedAt, Priority: item.Priority,
	})
}

// same reports whether a submission asks for what an item is.
func same(s protocol.Submission, item protocol.WorkRecord) bool {
	if s.Capability != item.Capability || s.Action != item.Action || s.AffinityKey != item.AffinityKey || len(s.Settings) != len(item.Settings) {
		return false
	}
	for name, value := range s.Settings {
		if !bytes.Equal(value, item.Settings[name]) {
			return false
		}
	}
	return true
}

// begin hands in an item that its submitter waits for. Such items belong to no
// run.
func (h *Hub) begin(reply responder, r *http.Request, live bool) (protocol.WorkRecord, *watcher, bool) {
	s, ok := submission(reply, r)
	if !ok {
		return protocol.WorkRecord{}, nil, false
	}
	s.RunID, s.RunHash, s.NodeHash, s.OperationHash = "", "", "", ""
	w := newWatcher(live)
	item, _, err := h.queue.submit(r.Context(), s, "", w)
	if err != nil {
		h.notTaken(reply, err)
		return protocol.WorkRecord{}, nil, false
	}
	return item, w, true
}

// follow calls see with all that happens to an item until see returns false. An
// item that takes too long ends for its submitter; the beacon goes on. When the
// submitter goes away it returns as well.
func (h *Hub) follow(ctx context.Context, item protocol.WorkRecord, w *watcher, see func(news) bool) {
	timer := time.NewTimer(milliseconds(item.TimeoutMs))
	defer timer.Stop()
	for {
		select {
		case <-w.wake:
			if !see(w.look()) {
				h.queue.abandon(ctx, item.WorkItemHash, w)
				return
			}
		case <-timer.C:
			h.queue.expire(ctx, item.WorkItemHash, item.TimeoutMs)
		case <-ctx.Done():
			h.queue.abandon(ctx, item.WorkItemHash, w)
			return
		}
	}
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
			reply.json(status, dispatched(*n.item))
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
func dispatched(item protocol.WorkRecord) protocol.Dispatched {
	d := protocol.Dispatched{
		Success: item.Status == protocol.StatusComplete, WorkItemHash: item.WorkItemHash,
		Outputs: item.Outputs, Log: item.Log, Error: item.Error,
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
	item, err := h.queue.cancel(r.Context(), args[0], beacon.Excerpt(body.Reason, longestKey))
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	canceled := item.Status == protocol.StatusCanceled
	reply.json(http.StatusOK, protocol.Canceled{
		Success: canceled || !protocol.Final(item.Status), WorkItemHash: item.WorkItemHash,
		Canceled: canceled, CancelRequested: item.CancelRequested && !canceled, Status: item.Status,
	})
}

func (h *Hub) notFound(reply responder, hash string, err error) {
	if !errors.Is(err, ErrNotFound) {
		h.log.Error("work item not read", "item", hash, "error", err)
		reply.refuse(http.StatusServiceUnavailable, "The work item cannot be read now.")
		return
	}
	reply.refuse(http.StatusNotFound, "Work item ["+hash+"] not found.")
}

func (h *Hub) work(reply responder, r *http.Request, args []string) {
	item, err := h.cfg.Store.Get(r.Context(), args[0])
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	reply.json(http.StatusOK, item)
}

func (h *Hub) events(reply responder, r *http.Request, args []string) {
	events, err := h.cfg.Store.Events(r.Context(), args[0])
	if err != nil {
		h.notFound(reply, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"WorkItemHash": args[0], "Events": events})
}

func (h *Hub) listWork(reply responder, r *http.Request, _ []string) {
	items, err := h.cfg.Store.Live(r.Context())
	if err != nil {
		h.notFound(reply, "*", err)
		return
	}
	// One by one: together they may be as large as the queue may be.
	reply.w.Header().Set("Content-Type", "application/json")
	reply.w.Header().Set("X-Content-Type-Options", "nosniff")
	separator := []byte("[")
	for _, item := range items {
		raw, err := protocol.Encode(item)
		if err != nil {
			h.log.Error("work item cannot be encoded", "item", item.WorkItemHash, "error", err)
			continue
		}
		reply.limit(sendTimeout)
		if _, err := reply.w.Write(append(separator, raw...)); err != nil {
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
	beacons := h.queue.list()
	names := []string{}
	for _, b := range beacons {
		names = append(names, b.Capabilities...)
	}
	slices.Sort(names)
	reply.json(http.StatusOK, map[string]any{
		"Capabilities": slices.Compact(names), "BeaconCount": len(beacons), "ActionCatalog": h.queue.catalog(""),
	})
}

func (h *Hub) listActions(reply responder, r *http.Request, _ []string) {
	reply.json(http.StatusOK, map[string]any{"Actions": h.queue.catalog(r.URL.Query().Get("Capability"))})
}

func (h *Hub) affinity(reply responder, _ *http.Request, _ []string) {
	reply.json(http.StatusOK, h.queue.affinities())
}

// bucket is the word that the queue view has for a state.
func bucket(status string) string {
	switch status {
	case protocol.StatusPending:
		return "Upcoming"
	case protocol.StatusRunning:
		return "InProgress"
	case protocol.StatusComplete:
		return "Completed"
	}
	return "Errored"
}

// queueView shows the queue in short: counts, and items without what is large.
func (h *Hub) queueView(reply responder, r *http.Request, _ []string) {
	query := r.URL.Query()
	limit := 100
	if asked := query.Get("limit"); asked != "" {
		n, err := strconv.Atoi(asked)
		if err != nil || n < 1 || n > 1000 {
			reply.error(http.StatusBadRequest, "limit must be a number from 1 to 1000.")
			return
		}
		limit = n
	}
	counts, err := h.cfg.Store.Counts(r.Context())
	if err == nil {
		err = h.showQueue(reply, r.Context(), counts, query.Get("bucket"), strings.Contains(query.Get("include"), "history"), limit)
	}
	if err != nil {
		h.notFound(reply, "*", err)
	}
}

func (h *Hub) showQueue(reply responder, ctx context.Context, counts map[string]int, only string, history bool, limit int) error { //nolint:revive // a responder comes first everywhere
	live, err := h.cfg.Store.Live(ctx)
	if err != nil {
		return err
	}
	buckets := map[string]int{"Upcoming": 0, "InProgress": 0, "Stalled": 0, "Completed": 0, "Errored": 0}
	for status, n := range counts {
		buckets[bucket(status)] += n
	}
	byCapability := map[string]map[string]int{}
	items := []protocol.WorkRecord{}
	for _, item := range live {
		of := byCapability[item.Capability]
		if of == nil {
			of = map[string]int{"Upcoming": 0, "InProgress": 0}
			byCapability[item.Capability] = of
		}
		of[bucket(item.Status)]++
		if len(items) < limit && (only == "" || strings.EqualFold(only, bucket(item.Status))) {
			items = append(items, short(item))
		}
	}
	var past []protocol.WorkRecord // null unless asked for
	finished := strings.EqualFold(only, "Completed") || strings.EqualFold(only, "Errored")
	if history || finished {
		all, err := h.cfg.Store.History(ctx, limit)
		if err != nil {
			return err
		}
		for _, item := range all {
			if finished && strings.EqualFold(only, bucket(item.Status)) {
				items = append(items, short(item))
			}
			if history {
				past = append(past, short(item))
			}
		}
		if history && past == nil {
			past = []protocol.WorkRecord{}
		}
	}
	reply.json(http.StatusOK, map[string]any{
		"Summary": map[string]any{"At": protocol.Timestamp{Time: time.Now()}, "Buckets": buckets, "ByCapability": byCapability},
		"Items":   items,
		"History": past,
	})
	return nil
}

// short leaves out what may be large.
func short(item protocol.WorkRecord) protocol.WorkRecord {
	item.Settings, item.Metadata, item.Outputs, item.Log, item.AccumulatedLog = nil, nil, nil, nil, []string{}
	return item
}
