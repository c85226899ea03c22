package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// mostBatch is how many items a batch may have.
const mostBatch = 256

func (h *Hub) status(reply responder, _ *http.Request, _ []string) {
	reply.json(http.StatusOK, map[string]any{
		"Status": "Running", "ScheduleEntries": 0, "ScheduleRunning": false,
		"AuthEnabled": false, "AuthMode": "promiscuous", "SupportsUserManagement": false,
		"Server": "beacon hub", // ours, so that a client can tell
	})
}

func (h *Hub) register(reply responder, r *http.Request, _ []string) {
	var info protocol.Registration
	if !reply.body(r, mostBody, &info) {
		return
	}
	if info.Name == "" || info.Capabilities == nil {
		reply.error(http.StatusBadRequest, "Name and Capabilities are required.")
		return
	}
	record, err := h.queue.join(r.Context(), info, sessionOf(r), nil)
	switch {
	case beacon.CodeOf(err) == beacon.Rejected:
		reply.error(http.StatusServiceUnavailable, err.Error())
	case err != nil:
		reply.error(http.StatusBadRequest, err.Error())
	default:
		reply.json(http.StatusOK, record)
	}
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
	item, ok := h.queue.poll(r.Context(), body.BeaconID)
	if !ok {
		reply.json(http.StatusOK, map[string]any{"WorkItem": nil})
		return
	}
	reply.json(http.StatusOK, map[string]any{"WorkItem": item})
}

func (h *Hub) heartbeat(reply responder, r *http.Request, args []string) {
	// A list of active items may come along; it has no meaning yet.
	if !reply.body(r, mostBody, &map[string]json.RawMessage{}) {
		return
	}
	record, err := h.queue.heartbeat(args[0])
	if err != nil {
		reply.error(http.StatusNotFound, "Beacon ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, record)
}

func (h *Hub) deregister(reply responder, r *http.Request, args []string) {
	if err := h.queue.deregister(r.Context(), args[0]); err != nil {
		reply.error(http.StatusNotFound, "Beacon ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, map[string]any{"Status": "Deregistered", "BeaconID": args[0]})
}

func (h *Hub) beacon(reply responder, _ *http.Request, args []string) {
	record, err := h.queue.beacon(args[0])
	if err != nil {
		reply.error(http.StatusNotFound, "Beacon ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, record)
}

func (h *Hub) listBeacons(reply responder, _ *http.Request, _ []string) {
	reply.json(http.StatusOK, h.queue.list())
}

// result is the body of Complete and an entry of its batch.
type result struct {
	WorkItemHash string          `json:"WorkItemHash"`
	Outputs      json.RawMessage `json:"Outputs"`
	Log          json.RawMessage `json:"Log"`
}

func (h *Hub) complete(reply responder, r *http.Request, args []string) {
	var body result
	if !reply.body(r, mostResult, &body) {
		return
	}
	if err := h.queue.report(r.Context(), args[0], completion(body.Outputs, body.Log), reporter{session: sessionOf(r)}); err != nil {
		reply.refused(h, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"Status": "Completed", "WorkItemHash": args[0]})
}

func (h *Hub) fail(reply responder, r *http.Request, args []string) {
	var body struct {
		ErrorMessage json.RawMessage `json:"ErrorMessage"`
		Log          json.RawMessage `json:"Log"`
	}
	if !reply.body(r, mostResult, &body) {
		return
	}
	if err := h.queue.report(r.Context(), args[0], failure(body.ErrorMessage, body.Log), reporter{session: sessionOf(r)}); err != nil {
		reply.refused(h, args[0], err)
		return
	}
	reply.json(http.StatusOK, map[string]any{"Status": "Failed", "WorkItemHash": args[0]})
}

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
	var final *FinalizedError
	switch {
	case errors.Is(err, ErrNotFound):
		return "BeaconCoordinator: work item [" + hash + "] not found.", true
	case errors.As(err, &final):
		return "BeaconCoordinator: work item [" + hash + "] already finalized (" + final.Status + ").", true
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
	if err := h.queue.progress(r.Context(), args[0], p, reporter{session: sessionOf(r)}); err != nil {
		reply.error(http.StatusNotFound, notRunning(args[0]))
		return
	}
	reply.json(http.StatusOK, map[string]any{"Success": true, "WorkItemHash": args[0]})
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
	from := reporter{session: sessionOf(r)}
	batch(reply, r, mostResult, "Completed", func(entry result) (string, error) {
		err := h.queue.report(r.Context(), entry.WorkItemHash, completion(entry.Outputs, entry.Log), from)
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
	from := reporter{session: sessionOf(r)}
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
		if h.queue.progress(r.Context(), hash, p, from) != nil {
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
		reply.notKept(h, args[0], err)
		return
	}
	record, err := h.cfg.Store.Get(r.Context(), args[0])
	if err != nil || len(record.Files) == 0 {
		reply.error(http.StatusBadRequest, "BeaconCoordinator: work item ["+args[0]+"] not found.")
		return
	}
	reply.json(http.StatusOK, map[string]any{"Success": true, "FilePath": record.Files[len(record.Files)-1].URL})
}

// attach keeps a file as part of a running item's outcome. A size of 0 or less
// is unknown.
func (h *Hub) attach(ctx context.Context, hash, name string, in io.Reader, size int64) error {
	record, err := h.cfg.Store.Get(ctx, hash)
	if err != nil {
		return err
	}
	if protocol.Final(record.Status) {
		return &FinalizedError{record.Status}
	}
	file, err := h.files.save(name, in)
	if err != nil {
		return err
	}
	if size > 0 && file.Size != size {
		h.files.remove(file)
		return beacon.Errorf(beacon.Invalid, "%d bytes were announced and %d came", size, file.Size)
	}
	if err := h.cfg.Store.Attach(ctx, hash, file); err != nil {
		h.files.remove(file)
		return err
	}
	return nil
}
