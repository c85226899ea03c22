package hub

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// What is in this file is ours: the real server has no dead letters, tenants or
// other hubs.

// seen is an item that a caller may see; otherwise it is as if there were none.
func (h *Hub) seen(r *http.Request, hash string) (ledger.Item, error) {
	who := callerOf(r)
	item, err := h.core.visible(hash, who)
	if errors.Is(err, ledger.ErrNotFound) && h.core.catchUp(r.Context()) {
		item, err = h.core.visible(hash, who) // another hub was told of it a moment ago
	}
	return item, err
}

func (c *coordinator) visible(hash string, who caller) (ledger.Item, error) {
	item, err := c.get(hash)
	if err == nil && !who.sees(item.Spec.Tenant) {
		return ledger.Item{}, ledger.ErrNotFound
	}
	return item, err
}

// deadLetters lists items that failed for good and that nobody waited for.
func (h *Hub) deadLetters(reply responder, r *http.Request, _ []string) {
	limit, ok := reply.limitOf(r.URL.Query())
	if !ok {
		return
	}
	who := callerOf(r)
	items, count := []protocol.WorkRecord{}, 0
	h.core.mu.RLock()
	for it := range h.core.ledger.Dead() {
		if !who.sees(it.Spec.Tenant) {
			continue
		}
		if count++; len(items) < limit {
			items = append(items, short(it))
		}
	}
	h.core.mu.RUnlock()
	reply.json(http.StatusOK, map[string]any{"Count": count, "Items": items})
}

// requeue gives an item that failed, dead letter or not, a new life.
func (h *Hub) requeue(reply responder, r *http.Request, args []string) {
	item, err := h.seen(r, args[0])
	if err == nil {
		item, err = h.core.item(ledger.Entry{Requeue: &ledger.Requeue{Hash: args[0]}})
	}
	switch {
	case errors.Is(err, ledger.ErrNotFinal) || errors.Is(err, ledger.ErrComplete):
		reply.refuse(http.StatusConflict, "Work item ["+args[0]+"] has not failed: it is "+item.Status+".")
	case errors.Is(err, ledger.ErrFull) || errors.Is(err, ledger.ErrTenantFull):
		h.notTaken(reply, err)
	case err != nil:
		h.notFound(reply, args[0], err)
	default:
		reply.json(http.StatusOK, map[string]any{"Success": true, "WorkItemHash": item.Hash, "Status": item.Status})
	}
}

// requeueAll does so for all dead letters of a capability, or of all.
func (h *Hub) requeueAll(reply responder, r *http.Request, _ []string) {
	var body struct {
		Capability string `json:"Capability"`
	}
	if !reply.body(r, mostBody, &body) {
		return
	}
	who := callerOf(r)
	var hashes []string
	h.core.mu.RLock()
	for it := range h.core.ledger.Dead() {
		if who.sees(it.Spec.Tenant) && (body.Capability == "" || it.Spec.Capability == body.Capability) {
			hashes = append(hashes, it.Hash)
		}
	}
	h.core.mu.RUnlock()
	requeued := []string{}
	for i := len(hashes) - 1; i >= 0; i-- { // the oldest first
		if _, err := h.core.item(ledger.Entry{Requeue: &ledger.Requeue{Hash: hashes[i]}}); err == nil {
			requeued = append(requeued, hashes[i])
		}
	}
	reply.json(http.StatusOK, map[string]any{"Success": len(requeued) == len(hashes), "Requeued": requeued})
}

// forget drops an item that has ended.
func (h *Hub) forget(reply responder, r *http.Request, args []string) {
	item, err := h.seen(r, args[0])
	if err == nil {
		item, err = h.core.item(ledger.Entry{Forget: &ledger.Forget{Hash: args[0]}})
	}
	switch {
	case errors.Is(err, ledger.ErrNotFinal):
		reply.refuse(http.StatusConflict, "Work item ["+args[0]+"] has not ended: it is "+item.Status+". Cancel it first.")
	case err != nil:
		h.notFound(reply, args[0], err)
	default:
		reply.json(http.StatusOK, map[string]any{"Success": true, "WorkItemHash": args[0]})
	}
}

func (h *Hub) tenants(reply responder, r *http.Request, _ []string) {
	h.core.mu.RLock()
	out := h.core.tenants(callerOf(r))
	h.core.mu.RUnlock()
	reply.json(http.StatusOK, map[string]any{"Tenants": out})
}

// tenants are those that somebody sees. It is called with the lock held.
func (c *coordinator) tenants(who caller) []protocol.TenantRecord {
	out := []protocol.TenantRecord{}
	for _, t := range c.ledger.Tenants() {
		if who.sees(t.Name) {
			out = append(out, protocol.TenantRecord{
				Tenant: t.Name, Weight: t.Share(), Queued: t.Queued(), Running: t.Busy, Live: t.Live,
				Completed: t.Usage.Completed, Failed: t.Usage.Failed, Canceled: t.Usage.Canceled,
				SlotMs: t.Usage.SlotMs, WaitMs: t.Usage.WaitMs, Given: t.Usage.Given, Usage: t.Usage.Work,
			})
		}
	}
	return out
}

func (h *Hub) hubs(reply responder, _ *http.Request, _ []string) {
	type record struct {
		Name  string             `json:"Name"`
		URL   string             `json:"URL,omitempty"`
		Since protocol.Timestamp `json:"Since"`
		Last  protocol.Timestamp `json:"Last"`
		Self  bool               `json:"Self,omitempty"`
	}
	out := []record{}
	h.core.mu.RLock()
	for _, other := range h.core.ledger.Hubs() {
		out = append(out, record{
			other.Name, other.URL, protocol.Timestamp{Time: time.UnixMilli(other.Since)},
			protocol.Timestamp{Time: time.UnixMilli(other.Last)}, other.Name == h.core.name,
		})
	}
	h.core.mu.RUnlock()
	reply.json(http.StatusOK, map[string]any{"Hubs": out})
}

// backlog shows, for each capability, what waits and what could be done about
// it.
func (h *Hub) backlog(reply responder, r *http.Request, _ []string) {
	h.core.mu.RLock()
	all := h.core.backlog(callerOf(r).tenant)
	h.core.mu.RUnlock()
	only := r.URL.Query().Get("Capability")
	if only == "" {
		reply.json(http.StatusOK, map[string]any{"Backlog": all})
		return
	}
	record := protocol.BacklogRecord{Capability: beacon.Excerpt(only, longestName)}
	if i := slices.IndexFunc(all, func(b protocol.BacklogRecord) bool { return b.Capability == only }); i >= 0 {
		record = all[i]
	}
	reply.json(http.StatusOK, record)
}

// backlog is that of a tenant, or with "" of all, by capability. It is called
// with the lock held.
func (c *coordinator) backlog(tenant string) []protocol.BacklogRecord {
	of := map[string]*protocol.BacklogRecord{}
	get := func(capability string) *protocol.BacklogRecord {
		b := of[capability]
		if b == nil {
			b = &protocol.BacklogRecord{Capability: capability}
			of[capability] = b
		}
		return b
	}
	for _, b := range c.ledger.Beacons() {
		for _, capability := range b.Info.Capabilities {
			record := get(capability)
			record.Beacons++
			if b.Away == 0 && !b.Draining {
				record.FreeSlots += max(0, b.Free())
			}
		}
	}
	for _, b := range c.ledger.Backlogs(tenant) {
		record := get(b.Capability)
		record.Waiting, record.Running = b.Waiting, b.Running
		if b.Waiting > 0 {
			record.OldestMs = max(0, time.Since(b.Oldest).Milliseconds())
		}
	}
	out := make([]protocol.BacklogRecord, 0, len(of))
	for _, name := range slices.Sorted(maps.Keys(of)) {
		out = append(out, *of[name])
	}
	return out
}

// Census counts what the hub has now, whoever's it is.
func (h *Hub) Census() protocol.Census {
	c := h.core
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := protocol.Census{Backlog: c.backlog(""), Tenants: c.tenants(caller{}), Beacons: map[string]int{
		protocol.BeaconOnline: 0, protocol.BeaconBusy: 0, protocol.BeaconOffline: 0,
	}, Hubs: len(c.ledger.Hubs())}
	for _, b := range c.ledger.Beacons() {
		out.Beacons[status(b)]++
	}
	_, out.Finished, out.Dead = c.ledger.Sizes()
	return out
}
