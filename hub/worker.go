package hub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// mostBatch is how many items a batch may have.
const mostBatch = 256

func (h *Hub) status(reply responder, _ *http.Request, _ []string) {
	mode := "promiscuous"
	if h.cfg.secured() {
		mode = "authenticated"
	}
	reply.json(http.StatusOK, map[string]any{
		"Status": "Running", "ScheduleEntries": 0, "ScheduleRunning": false,
		"AuthEnabled": h.cfg.secured(), "AuthMode": mode, "SupportsUserManagement": false,
		"Server": "beacon hub", // ours, so that a client can tell
	})
}

func (h *Hub) registerPoller(reply responder, r *http.Request, _ []string) {
	var info protocol.Registration
	if !reply.body(r, mostBody, &info) {
		return
	}
	who, known := h.identify(r)
	session := sessionOf(r)
	switch {
	case !known && h.joins(info.JoinSecret):
		// It cannot log in, so it gets a session with its registration.
		who, session = caller{user: info.Name, role: Worker}, h.session(kindJoin, info.Name)
		reply.setSession(r, session)
	case !known:
		reply.unauthorized()
		return
	case !who.role.may(serve):
		reply.error(http.StatusForbidden, "The role "+string(who.role)+" may not do this.")
		return
	}
	if info.Name == "" || info.Capabilities == nil {
		reply.error(http.StatusBadRequest, "Name and Capabilities are required.")
		return
	}
	record, err := h.register(info, who, session, nil)
	switch code := beacon.CodeOf(err); {
	case code == beacon.Rejected || code == beacon.Unreachable:
		reply.error(http.StatusServiceUnavailable, err.Error())
	case err != nil:
		reply.error(http.StatusBadRequest, err.Error())
	default:
		reply.json(http.StatusOK, record)
	}
}

// A polled answer is what a beacon that asks for work gets. What it should stop
// is ours, and left out when there is nothing.
type polled struct {
	WorkItem          *protocol.WorkItem      `json:"WorkItem"`
	CanceledWorkItems []protocol.Cancellation `json:"CanceledWorkItems,omitempty"`
}

func (h *Hub) poll(reply responder, r *http.Request, _ []string) {
	var body struct {
		BeaconID string `json:"BeaconID"`
	}
	if !reply.body(r, mostBody, &body) {
		return
	}
	if body.BeaconID == "" {
		reply.error(http.StatusBadRequest, "BeaconID is required.")
		return
	}
	if r.Context().Err() != nil { // who asked is gone, and would lose the item
		return
	}
	reply.json(http.StatusOK, polled{h.next(r.Context(), body.BeaconID, h.baseOf(r)), h.core.unwanted(body.BeaconID)})
}

// next gives a beacon an item; nil when there is none for it.
func (h *Hub) next(ctx context.Context, id, base string) *protocol.WorkItem {
	h.core.mu.RLock()
	known, has := h.core.ledger.Beacon(id) != nil, h.core.ledger.Has(id)
	h.core.mu.RUnlock()
	if known {
		h.core.heard(id)
	}
	if !has { // the usual answer costs no entry
		return nil
	}
	var given *ledger.Item
	err := h.core.propose(ledger.Entry{Poll: &ledger.Poll{Beacon: id}}, func(a ledger.Answer) {
		if a.Item != nil {
			item := a.Item.Copy()
			given = &item
		}
	})
	if err == nil && given == nil {
		return nil
	}
	var item protocol.WorkItem
	if err == nil {
		item, err = h.core.wireItem(ctx, given, base)
	}
	if err != nil {
		h.log.Warn("a poll is not answered with an item", "beacon", beacon.Excerpt(id, longestName), "error", err)
		if given != nil {
			h.core.giveBack(given, "its settings cannot be read")
		}
		return nil
	}
	return &item
}

// wireItem is an item the way workers get it: with the queue's metadata twice,
// as the real server sends it, and with addresses of files under base that are
// good for whoever has them.
func (c *coordinator) wireItem(ctx context.Context, it *ledger.Item, base string) (protocol.WorkItem, error) {
	s := it.Spec
	settings := s.Settings
	if s.Blob != "" {
		var err error
		if settings, err = c.files.spilled(ctx, s.Blob); err != nil {
			return protocol.WorkItem{}, err
		}
	}
	item := protocol.WorkItem{
		WorkItemHash: it.Hash, RunID: s.RunID, Capability: s.Capability, Action: s.Action,
		OperationHash: s.OperationHash, TimeoutMs: s.TimeoutMs, AttemptNumber: it.Attempt,
		Settings: beacon.Settings{},
	}
	if len(s.Files) > 0 {
		settings = addresses(settings, c.ledger.Secret(), base, time.UnixMilli(it.Dispatched), s.TimeoutMs)
	}
	if len(settings) > 0 {
		_ = json.Unmarshal(settings, &item.Settings) // it was an object when it was taken in
	}
	tenant := s.Tenant
	if tenant == beacon.DefaultTenant {
		tenant = ""
	}
	if tenant != "" || c.cfg.secured() {
		// What a provider takes for the tenant is not the submitter's to say.
		delete(item.Settings, "Tenant")
	}
	if tenant != "" {
		item.Settings.SetText("Tenant", tenant)
	}
	meta, err := protocol.Encode(protocol.QueueMetadata{
		Tenant: tenant,
		RunID:  s.RunID, WorkItemHash: it.Hash, EnqueuedAt: protocol.Timestamp{Time: time.UnixMilli(it.Enqueued)},
		DispatchedAt: protocol.Timestamp{Time: time.UnixMilli(it.Dispatched)},
		QueueWaitMs:  it.WaitMs, AttemptNumber: it.Attempt, HubInstanceID: c.name,
	})
	if err == nil {
		item.QueueMetadata = meta
		item.Settings["QueueMetadata"] = meta
	}
	return item, nil
}

// deliver sends an item to its worker. It is called with mu held.
func (c *coordinator) deliver(s *socket, it *ledger.Item) {
	if it.Spec.Blob == "" { // nothing to wait for
		item, err := c.wireItem(c.life, it, s.base)
		if err == nil {
			s.event(event{EventType: protocol.EventWorkItem, WorkItem: &item}) // if the socket is ending, its end takes the item back
		}
		return
	}
	given := it.Copy()
	c.loading.Go(func() {
		item, err := c.wireItem(c.life, &given, s.base)
		if err != nil {
			c.log.Error("an item cannot be sent to its beacon", "item", given.Hash, "error", err)
			c.giveBack(&given, "its settings cannot be read")
			return
		}
		s.event(event{EventType: protocol.EventWorkItem, WorkItem: &item})
	})
}

// giveBack has an item wait again that its beacon cannot get.
func (c *coordinator) giveBack(it *ledger.Item, why string) {
	c.offer(ledger.Entry{Release: &ledger.Release{Hash: it.Hash, Attempt: it.Attempt, Reason: why}}, nil, func(error) {})
}

func (h *Hub) heartbeatPoller(reply responder, r *http.Request, args []string) {
	var sign protocol.Heartbeat
	if !reply.body(r, mostBody, &sign) {
		return
	}
	id := args[0]
	if _, ok := h.core.beacon(id); !ok {
		reply.error(http.StatusNotFound, "Beacon ["+id+"] not found.")
		return
	}
	h.core.heard(id)
	if e, news := h.listing(id, sign); news {
		if err := h.core.propose(e, nil); err != nil {
			h.log.Warn("what a beacon says it has is not written down", "beacon", beacon.Excerpt(id, longestName), "error", err)
		}
	}
	record, ok := h.core.beacon(id)
	if !ok {
		reply.error(http.StatusNotFound, "Beacon ["+id+"] not found.")
		return
	}
	record.CanceledWorkItems = h.core.unwanted(id)
	reply.json(http.StatusOK, record)
}

func (h *Hub) deregister(reply responder, r *http.Request, args []string) {
	id := args[0]
	var refused error
	err := h.core.propose(ledger.Entry{Leave: &ledger.Leave{Beacon: id, Dismissed: true, Reason: "beacon " + id + " was deregistered"}},
		func(a ledger.Answer) { refused = a.Err })
	switch {
	case err != nil:
		reply.error(http.StatusServiceUnavailable, "The beacon cannot be deregistered now.")
	case refused != nil:
		reply.error(http.StatusNotFound, "Beacon ["+id+"] not found.")
	default:
		reply.json(http.StatusOK, map[string]any{"Status": "Deregistered", "BeaconID": id})
	}
}

func (h *Hub) beacon(reply responder, _ *http.Request, args []string) {
	record, ok := h.core.beacon(args[0])
	if !ok {
		reply.error(http.StatusNotFound, "Beacon ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, record)
}

func (h *Hub) listBeacons(reply responder, _ *http.Request, _ []string) {
	reply.json(http.StatusOK, h.core.list())
}

// result is the body of Complete and an entry of its batch.
type result struct {
	WorkItemHash string          `json:"WorkItemHash"`
	Outputs      json.RawMessage `json:"Outputs"`
	Log          json.RawMessage `json:"Log"`
	Attempt      json.RawMessage `json:"AttemptNumber"`
	Usage        json.RawMessage `json:"Usage"`
}

func (h *Hub) complete(reply responder, r *http.Request, args []string) {
	var body result
	if !reply.body(r, mostResult, &body) {
		return
	}
	if err := h.ended(r.Context(), args[0], attempt(body.Attempt), completion(body.Outputs, body.Log, body.Usage), sessionOf(r)); err != nil {
		reply.refused(h, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"Status": "Completed", "WorkItemHash": args[0]})
}

func (h *Hub) fail(reply responder, r *http.Request, args []string) {
	var body struct {
		ErrorMessage json.RawMessage `json:"ErrorMessage"`
		Log          json.RawMessage `json:"Log"`
		Attempt      json.RawMessage `json:"AttemptNumber"`
		Usage        json.RawMessage `json:"Usage"`
	}
	if !reply.body(r, mostResult, &body) {
		return
	}
	if err := h.ended(r.Context(), args[0], attempt(body.Attempt), failure(body.ErrorMessage, body.Log, body.Usage), sessionOf(r)); err != nil {
		reply.refused(h, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"Status": "Failed", "WorkItemHash": args[0]})
}

// ended reports an item by HTTP.
func (h *Hub) ended(ctx context.Context, hash string, attempt int, outcome ledger.Outcome, session string) error {
	if err := h.reportable(ctx, hash); err != nil {
		return err
	}
	e, err := h.finish(ctx, hash, attempt, outcome, "", session)
	if err == nil {
		_, err = h.core.item(e)
	}
	return err
}

// reportable is an error for items of tenants that a caller does not act for.
func (h *Hub) reportable(ctx context.Context, hash string) error {
	who, _ := ctx.Value(callerKey{}).(caller)
	if who.tenant == "" {
		return nil
	}
	_, err := h.core.visible(hash, who)
	return err
}

// finish is the entry that ends an item. What is large goes elsewhere first.
func (h *Hub) finish(ctx context.Context, hash string, attempt int, outcome ledger.Outcome, beacon, session string) (ledger.Entry, error) {
	size := len(outcome.Outputs)
	for _, line := range outcome.Log {
		size += len(line)
	}
	switch {
	case size <= mostInline:
	case outcome.Status != protocol.StatusComplete:
		outcome.Log = shortened(outcome.Log)
	case h.files.shared != nil:
		raw, err := json.Marshal(ledger.Outcome{Outputs: outcome.Outputs, Log: outcome.Log})
		if err != nil {
			return ledger.Entry{}, fmt.Errorf("encode a result: %w", err)
		}
		id, err := h.files.spill(ctx, raw)
		if err != nil {
			return ledger.Entry{}, err
		}
		outcome.Outputs, outcome.Log, outcome.Blob = nil, nil, id
	}
	return ledger.Entry{Finish: &ledger.Finish{Hash: hash, Attempt: attempt, Outcome: outcome, Beacon: beacon, Session: digest(session)}}, nil
}

// shortened is a log of which the end is left out.
func shortened(log []string) []string {
	size := 0
	for i, line := range log {
		if size += len(line); size > mostInline {
			return append(log[:i:i], "(more log lines than the hub keeps of a failure; the rest is left out)")
		}
	}
	return log
}

// digest is how a session is written down: nobody who reads it can use it.
func digest(session string) string {
	if session == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(session))
	return hex.EncodeToString(sum[:16])
}

// mostPiece is how large the log and the bytes of one progress entry become.
const mostPiece = 128 << 10

// progressEntries are what one report of progress comes to.
func (h *Hub) progressEntries(hash string, p progress, beacon, session string) []ledger.Entry {
	var entries []ledger.Entry
	add := func(part ledger.Progress) {
		part.Hash, part.Beacon, part.Session = hash, beacon, digest(session)
		entries = append(entries, ledger.Entry{Progress: &part})
	}
	first := ledger.Progress{Data: p.data}
	size := 0
	for _, line := range p.log {
		if len(line) > mostPiece {
			line = strings.ToValidUTF8(line[:mostPiece], "") + "…"
		}
		if size += len(line); size > mostPiece && len(first.Log) > 0 {
			add(first)
			first, size = ledger.Progress{}, len(line)
		}
		first.Log = append(first.Log, line)
	}
	add(first)
	if item, err := h.core.get(hash); err == nil && item.Spec.Live { // who else would want them?
		for rest := p.binary; len(rest) > 0; {
			n := min(len(rest), mostPiece)
			add(ledger.Progress{Binary: rest[:n]})
			rest = rest[n:]
		}
	}
	return entries
}

// progressed reports progress by HTTP.
func (h *Hub) progressed(ctx context.Context, hash string, p progress, session string) error {
	if err := h.reportable(ctx, hash); err != nil {
		return err
	}
	if len(p.data) > mostPiece {
		return errTooMuch
	}
	for _, e := range h.progressEntries(hash, p, "", session) {
		item, err := h.core.item(e)
		if err != nil {
			return err
		}
		h.core.heard(item.Beacon)
	}
	return nil
}

var errTooMuch = errors.New("the progress is too large")

// refused answers a report that does not count, in the real server's words, and
// one that could not be stored so that it is sent again.
func (p responder) refused(h *Hub, hash string, err error) {
	text, known := refusal(hash, err)
	if !known {
		h.log.Error("result not stored", "item", hash, "error", err)
		p.error(http.StatusServiceUnavailable, text)
		return
	}
	p.error(http.StatusBadRequest, text)
}

func refusal(hash string, err error) (text string, known bool) {
	var final *ledger.FinalizedError
	var stale *ledger.StaleError
	switch {
	case errors.Is(err, ledger.ErrNotFound):
		return "BeaconCoordinator: work item [" + hash + "] not found.", true
	case errors.As(err, &final):
		return "BeaconCoordinator: work item [" + hash + "] already finalized (" + final.Status + ").", true
	case errors.As(err, &stale): // the words are those by which workers know that they may forget it
		return "BeaconCoordinator: work item [" + hash + "] already finalized (" + stale.Error() + ").", true
	}
	return "The result of work item [" + hash + "] cannot be stored now.", false
}

func (h *Hub) progress(reply responder, r *http.Request, args []string) {
	var body json.RawMessage
	if !reply.body(r, mostBody, &body) {
		return
	}
	if body == nil {
		body = json.RawMessage("{}")
	}
	p, err := decodeProgress(body)
	if err != nil {
		reply.problem(http.StatusBadRequest, "InvalidContent", "Invalid progress: "+err.Error())
		return
	}
	switch err := h.progressed(r.Context(), args[0], p, sessionOf(r)); {
	case errors.Is(err, ledger.ErrNotFound) || errors.Is(err, ledger.ErrNotRunning):
		reply.error(http.StatusNotFound, notRunning(args[0]))
		return
	case errors.Is(err, errTooMuch):
		reply.error(http.StatusRequestEntityTooLarge, "The progress is too large.")
		return
	case err != nil:
		h.log.Warn("progress not written down", "item", beacon.Excerpt(args[0], 200), "error", err)
		reply.error(http.StatusServiceUnavailable, "The progress cannot be stored now.")
		return
	}
	answer := map[string]any{"Success": true, "WorkItemHash": args[0]}
	if item, err := h.core.get(args[0]); err == nil && item.CancelAsked {
		answer["CanceledWorkItems"] = []protocol.Cancellation{{WorkItemHash: args[0], AttemptNumber: item.Attempt, Reason: item.CancelReason}}
	}
	reply.json(http.StatusOK, answer)
}

func notRunning(hash string) string { return "Work item [" + hash + "] not found or not running." }

// batchItem is what became of one entry of a batch.
type batchItem struct {
	WorkItemHash string `json:"WorkItemHash"`
	Status       string `json:"Status"`
}

type batchError struct {
	Index int    `json:"Index"`
	Error string `json:"Error"`
}

// batch applies each entry on its own: one that is refused does not hold up the
// others.
func batch[T any](reply responder, r *http.Request, most int64, status string, apply func(T) (hash string, err error)) {
	var body struct {
		Items []json.RawMessage `json:"Items"`
	}
	if !reply.body(r, most, &body) {
		return
	}
	if body.Items == nil {
		reply.error(http.StatusBadRequest, "Items is required.")
		return
	}
	if len(body.Items) > mostBatch {
		reply.error(http.StatusBadRequest, fmt.Sprintf("%d Items: a batch holds at most %d.", len(body.Items), mostBatch))
		return
	}
	items, failed := []batchItem{}, []batchError{}
	for i, raw := range body.Items {
		var entry T
		err := json.Unmarshal(raw, &entry)
		var hash string
		if err == nil {
			hash, err = apply(entry)
		}
		if err != nil {
			failed = append(failed, batchError{i, err.Error()})
			continue
		}
		items = append(items, batchItem{hash, status})
	}
	reply.json(http.StatusOK, map[string]any{"Items": items, "Errors": failed})
}

func (h *Hub) completeBatch(reply responder, r *http.Request, _ []string) {
	batch(reply, r, mostResult, "Completed", func(entry result) (string, error) {
		err := h.ended(r.Context(), entry.WorkItemHash, attempt(entry.Attempt), completion(entry.Outputs, entry.Log, entry.Usage), sessionOf(r))
		if err != nil {
			text, known := refusal(entry.WorkItemHash, err)
			if !known {
				h.log.Error("result not stored", "item", entry.WorkItemHash, "error", err)
			}
			err = errors.New(text)
		}
		return entry.WorkItemHash, err
	})
}

func (h *Hub) progressBatch(reply responder, r *http.Request, _ []string) {
	// Entries are seen with the data beside the hash and with it inside.
	batch(reply, r, mostBody, "Accepted", func(entry map[string]json.RawMessage) (string, error) {
		hash, data := text(entry["WorkItemHash"]), entry["ProgressData"]
		if data == nil {
			delete(entry, "WorkItemHash")
			raw, err := protocol.Encode(entry)
			if err != nil {
				return hash, err
			}
			data = raw
		}
		p, err := decodeProgress(data)
		if err != nil {
			return hash, fmt.Errorf("invalid progress: %w", err)
		}
		if h.progressed(r.Context(), hash, p, sessionOf(r)) != nil {
			return hash, errors.New(notRunning(hash))
		}
		return hash, nil
	})
}

// uploadResult takes the output file of a running item. On the real server this
// endpoint has never worked.
func (h *Hub) uploadResult(reply responder, r *http.Request, args []string) {
	name := r.Header.Get("X-Output-Filename")
	body := reply.stream(h, r)
	defer body.done()
	if err := h.attach(r.Context(), args[0], name, body, r.ContentLength); err != nil {
		reply.notKept(h, r, args[0], err)
		return
	}
	record, err := h.core.get(args[0])
	if err != nil || len(record.Files) == 0 {
		reply.error(http.StatusBadRequest, "BeaconCoordinator: work item ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, map[string]any{"Success": true, "FilePath": record.Files[len(record.Files)-1].URL})
}

// attach keeps a file as part of a running item's outcome. A size of 0 or less
// is unknown.
func (h *Hub) attach(ctx context.Context, hash, name string, in io.Reader, size int64) error {
	if err := h.reportable(ctx, hash); err != nil {
		return err
	}
	record, err := h.core.get(hash)
	if err != nil {
		return err
	}
	if record.Final() {
		return &ledger.FinalizedError{Status: record.Status}
	}
	file, err := h.files.save(ctx, name, in)
	if err != nil {
		return err
	}
	if size > 0 && file.Size != size {
		h.files.remove(ctx, fileID(file.URL))
		return beacon.Errorf(beacon.Invalid, "%d bytes were announced and %d came", size, file.Size)
	}
	if _, err := h.core.item(ledger.Entry{Attach: &ledger.Attach{Hash: hash, File: file, ID: fileID(file.URL)}}); err != nil {
		h.files.remove(ctx, fileID(file.URL))
		return err
	}
	return nil
}
