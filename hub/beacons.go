package hub

import (
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on what strangers can register.
const (
	mostActions      = 10_000
	mostConcurrent   = 10_000
	mostCapabilities = 1000
	longestName      = 256
)

type beaconRecord = protocol.BeaconRecord

// show is what the hub shows of a beacon. It is called with the lock held.
func (c *coordinator) show(b *ledger.Beacon) beaconRecord {
	// A session is what the beacon proves itself with, so it is not shown.
	session := "anonymous"
	r := beaconRecord{
		BeaconID: b.ID, Name: b.Name, Capabilities: b.Info.Capabilities, Status: status(b),
		LastHeartbeat: protocol.Timestamp{Time: c.lastSign(b)}, RegisteredAt: protocol.Timestamp{Time: time.UnixMilli(b.Joined)},
		CurrentWorkItems: make([]string, 0, len(b.Held)), MaxConcurrent: b.Info.MaxConcurrent,
		Tags: b.Info.Tags, Contexts: b.Info.Contexts, BindAddresses: []any{}, SharedMounts: b.Info.SharedMounts,
		Transport: "websocket", Hub: b.Hub, Tenant: b.Tenant, Draining: b.Draining,
	}
	for hash := range b.Held {
		r.CurrentWorkItems = append(r.CurrentWorkItems, hash)
	}
	slices.Sort(r.CurrentWorkItems)
	if b.Link == 0 {
		r.SessionID, r.Transport = &session, "http"
	}
	if host := b.Info.HostID; host != "" {
		r.HostID = &host
	}
	for _, address := range b.Info.BindAddresses {
		r.BindAddresses = append(r.BindAddresses, address)
	}
	return r
}

func status(b *ledger.Beacon) string {
	switch {
	case b.Away != 0:
		return protocol.BeaconOffline
	case b.Free() <= 0:
		return protocol.BeaconBusy
	}
	return protocol.BeaconOnline
}

// lastSign is when a beacon was last known to be there.
func (c *coordinator) lastSign(b *ledger.Beacon) time.Time {
	last := time.UnixMilli(b.Seen)
	switch {
	case b.Link == 0:
		if at := c.lastHeard(b.ID); at.After(last) {
			return at
		}
	case b.Away != 0:
	case b.Hub == c.name:
		if s := c.sockets[b.Link]; s != nil {
			return time.Unix(0, s.lastRead.Load())
		}
	default:
		if other := c.ledger.Hub(b.Hub); other != nil && other.Last > b.Seen {
			return time.UnixMilli(other.Last)
		}
	}
	return last
}

// check makes a registration complete and refuses an unreasonable one.
func check(r *protocol.Registration) error {
	switch {
	case len(r.Name) > longestName:
		return beacon.Errorf(beacon.Invalid, "Name is %d bytes long: at most %d are allowed", len(r.Name), longestName)
	case len(r.Capabilities) > mostCapabilities:
		return beacon.Errorf(beacon.Invalid, "%d Capabilities: at most %d are allowed", len(r.Capabilities), mostCapabilities)
	case len(r.ActionSchemas) > mostActions:
		return beacon.Errorf(beacon.Invalid, "%d ActionSchemas: at most %d are allowed", len(r.ActionSchemas), mostActions)
	}
	if r.MaxConcurrent < 1 {
		r.MaxConcurrent = 1
	}
	r.MaxConcurrent = min(r.MaxConcurrent, mostConcurrent)
	if r.Capabilities == nil {
		r.Capabilities = []string{}
	}
	if r.Tags == nil {
		r.Tags = map[string]any{}
	}
	if r.Contexts == nil {
		r.Contexts = map[string]any{}
	}
	if r.SharedMounts == nil {
		r.SharedMounts = []protocol.SharedMount{}
	}
	r.JoinSecret, r.Operations = "", nil // nothing here needs them, so nothing here keeps them
	return nil
}

// register makes a beacon known, by socket or, when s is nil, for polling.
func (h *Hub) register(info protocol.Registration, who caller, session string, s *socket) (beaconRecord, error) {
	if err := check(&info); err != nil {
		return beaconRecord{}, err
	}
	e := ledger.Entry{Join: &ledger.Join{Info: info, Session: digest(session), User: who.user, Tenant: who.tenant}}
	if s != nil {
		if s.ended() {
			return beaconRecord{}, beacon.Errorf(beacon.Unreachable, "the connection has ended")
		}
		e.Join.Link = s.link
	}
	var record beaconRecord
	var refused error
	err := h.core.propose(e, func(a ledger.Answer) {
		if refused = a.Err; refused == nil {
			record = h.core.show(h.core.ledger.Beacon(a.Beacon))
		}
	})
	switch {
	case errors.Is(err, journal.ErrTooLarge):
		return record, beacon.Errorf(beacon.Invalid, "the registration is over the limit of %d bytes", h.core.mostEntry())
	case err != nil:
		return record, beacon.Errorf(beacon.Unreachable, "the hub cannot take the registration now")
	case errors.Is(refused, ledger.ErrTooMany):
		return record, beacon.Errorf(beacon.Rejected, "%w, which is the most this hub takes", refused)
	case refused != nil:
		return record, refused
	}
	h.log.Info("beacon registered", "beacon", record.BeaconID, "capabilities", info.Capabilities, "slots", info.MaxConcurrent)
	if s == nil {
		h.core.heard(record.BeaconID)
	}
	return record, nil
}

// beaconOf is the BeaconID of a socket; empty while it has none.
func (c *coordinator) beaconOf(s *socket) string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return s.beacon
}

// heartbeat is the silence after which a beacon is taken for gone.
func (h *Hub) heartbeat() time.Duration {
	h.core.mu.RLock()
	defer h.core.mu.RUnlock()
	return time.Duration(h.core.ledger.Settings().HeartbeatMs) * time.Millisecond
}

// socketHeartbeat is one over a socket.
func (h *Hub) socketHeartbeat(s *socket, raw []byte) {
	var sign protocol.Heartbeat
	if err := json.Unmarshal(raw, &sign); err != nil {
		return
	}
	id := h.core.beaconOf(s)
	if id == "" {
		return
	}
	if sign.ActiveWorkItems != nil {
		s.listed.Store(time.Now().UnixNano())
	}
	if e, news := h.listing(id, sign); news {
		h.report(s, e, nil)
	}
}

// listing compares what a beacon says it has with what it was given. Most times
// there is no difference, and nothing to write down.
func (h *Hub) listing(id string, sign protocol.Heartbeat) (ledger.Entry, bool) {
	c := h.core
	c.mu.RLock()
	defer c.mu.RUnlock()
	b := c.ledger.Beacon(id)
	if b == nil || sign.ActiveWorkItems == nil && !sign.Draining {
		return ledger.Entry{}, false
	}
	active := sign.ActiveWorkItems
	if active == nil { // it only drains
		for hash := range b.Held {
			active = append(active, hash)
		}
	}
	e := ledger.Entry{Listed: &ledger.Listed{Beacon: id, Active: active, Draining: sign.Draining, Grace: h.cfg.ListingGrace.Milliseconds()}}
	if !b.Lists || b.Draining != sign.Draining {
		return e, true
	}
	listed := make(map[string]bool, len(active))
	for _, hash := range active {
		listed[hash] = true
		if b.Held[hash] != 0 {
			continue
		}
		if it, err := c.ledger.Get(hash); err == nil && !it.Final() {
			return e, true // it works on what is not its own, or waits for nobody
		}
	}
	before := c.ledger.Now().Add(-h.cfg.ListingGrace).UnixMilli()
	for hash := range b.Held {
		if listed[hash] {
			continue
		}
		it, err := c.ledger.Get(hash)
		if err != nil || it.Final() || it.Beacon != id || it.Dispatched <= before || it.Dispatched < b.Since {
			return e, true
		}
	}
	return ledger.Entry{}, false
}

func (c *coordinator) beacon(id string) (beaconRecord, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	b := c.ledger.Beacon(id)
	if b == nil {
		return beaconRecord{}, false
	}
	return c.show(b), true
}

func (c *coordinator) list() []beaconRecord {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := c.ledger.Beacons()
	out := make([]beaconRecord, len(all))
	for i, b := range all {
		out[i] = c.show(b)
	}
	return out
}

type actionRecord = protocol.ActionRecord

func (c *coordinator) catalog(capability string) []actionRecord {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []actionRecord{}
	for _, e := range c.ledger.Catalog(capability) {
		out = append(out, actionRecord{ActionSchema: e.Schema, Available: e.Available, SourceBeacons: e.Sources})
	}
	return out
}

func (c *coordinator) affinities() []map[string]any {
	c.mu.RLock()
	defer c.mu.RUnlock()
	out := []map[string]any{}
	for _, b := range c.ledger.Bindings() {
		out = append(out, map[string]any{
			"AffinityKey": b.Key, "BeaconID": b.Beacon, "RunHash": b.RunHash,
			"CreatedAt": protocol.Timestamp{Time: time.UnixMilli(b.Created)}, "ExpiresAt": protocol.Timestamp{Time: time.UnixMilli(b.Expires)},
		})
	}
	return out
}

// unwanted is what a beacon that polls is told of items that it should stop.
func (c *coordinator) unwanted(id string) []protocol.Cancellation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	var out []protocol.Cancellation
	for _, u := range c.ledger.Unwanted(id) {
		out = append(out, protocol.Cancellation{WorkItemHash: u.Hash, AttemptNumber: u.Attempt, Reason: u.Reason})
	}
	return out
}
