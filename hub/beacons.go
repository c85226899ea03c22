package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on what strangers can register.
const (
	mostBeacons      = 10_000
	mostActions      = 10_000
	mostConcurrent   = 10_000
	mostCapabilities = 1000
	longestName      = 256
)

// errUnknownBeacon is the answer for a BeaconID that is not or no longer known.
var errUnknownBeacon = errors.New("beacon not found")

// A beaconRecord is what the hub shows of a beacon.
type beaconRecord struct {
	BeaconID         string                 `json:"BeaconID"`
	Name             string                 `json:"Name"`
	SessionID        *string                `json:"SessionID"`
	Capabilities     []string               `json:"Capabilities"`
	Status           string                 `json:"Status"`
	LastHeartbeat    protocol.Timestamp     `json:"LastHeartbeat"`
	CurrentWorkItems []string               `json:"CurrentWorkItems"`
	MaxConcurrent    int                    `json:"MaxConcurrent"`
	Tags             map[string]any         `json:"Tags"`
	Contexts         map[string]any         `json:"Contexts"`
	BindAddresses    []any                  `json:"BindAddresses"`
	HostID           *string                `json:"HostID"`
	SharedMounts     []protocol.SharedMount `json:"SharedMounts"`
	RegisteredAt     protocol.Timestamp     `json:"RegisteredAt"`
	Transport        string                 `json:"Transport"` // ours: websocket or http
}

func (m *member) record() beaconRecord {
	// A session is what the beacon proves itself with, so it is not shown.
	session := "anonymous"
	r := beaconRecord{
		BeaconID: m.id, Name: m.info.Name, Capabilities: m.info.Capabilities, Status: "Online",
		LastHeartbeat: protocol.Timestamp{Time: m.lastSeen}, RegisteredAt: protocol.Timestamp{Time: m.joined},
		CurrentWorkItems: make([]string, 0, len(m.held)), MaxConcurrent: m.info.MaxConcurrent,
		Tags: m.info.Tags, Contexts: m.info.Contexts, BindAddresses: []any{}, SharedMounts: m.info.SharedMounts,
		Transport: "websocket",
	}
	for hash := range m.held {
		r.CurrentWorkItems = append(r.CurrentWorkItems, hash)
	}
	slices.Sort(r.CurrentWorkItems)
	if m.free() <= 0 {
		r.Status = "Busy"
	}
	if m.socket == nil {
		r.SessionID, r.Transport = &session, "http"
	}
	if m.info.HostID != "" {
		r.HostID = &m.info.HostID
	}
	for _, address := range m.info.BindAddresses {
		r.BindAddresses = append(r.BindAddresses, address)
	}
	return r
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
	r.JoinSecret = "" // nothing here needs it, so nothing here keeps it
	return nil
}

// join registers a beacon, by socket or, when s is nil, for polling. A known
// name keeps its BeaconID; a socket that had it is put off first, so that its
// end cannot take the newcomer with it, and what it held waits again.
func (q *queue) join(ctx context.Context, info protocol.Registration, session string, s *socket) (beaconRecord, error) {
	ctx = context.WithoutCancel(ctx)
	if err := check(&info); err != nil {
		return beaconRecord{}, err
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	if s != nil && s.ended() {
		return beaconRecord{}, beacon.Errorf(beacon.Unreachable, "the connection has ended")
	}
	if s != nil && s.member != nil && s.member.info.Name != info.Name {
		q.remove(ctx, s.member, "beacon "+s.member.id+" registered under another name")
	}
	m := q.names[info.Name]
	switch {
	case m == nil:
		if len(q.beacons) >= mostBeacons {
			return beaconRecord{}, beacon.Errorf(beacon.Rejected, "%d beacons are registered, which is the most this hub takes", mostBeacons)
		}
		m = &member{id: q.newID(info.Name, now), joined: now, held: map[string]*ticket{}}
		q.beacons[m.id] = m
		q.names[info.Name] = m
		q.log.InfoContext(ctx, "beacon registered", "beacon", m.id, "capabilities", info.Capabilities, "slots", info.MaxConcurrent)
	case s == nil && m.socket == nil && session != "" && session == m.session:
		// The same process has news of itself; what it works on it keeps.
	case s == nil || m.socket != s: // on the same socket it is the same process, too
		if m.socket != nil {
			q.log.WarnContext(ctx, "a beacon registered under a name that is connected; the earlier connection is closed", "beacon", m.id)
			m.socket.member = nil
			m.socket.stop(closePolicy, "another beacon registered under this name")
			m.socket = nil
		}
		q.release(ctx, m, "beacon "+m.id+" registered anew")
	}
	m.info, m.session, m.lastSeen, m.socket = info, session, now, s
	if s != nil {
		s.member = m
		raw, err := protocol.Encode(event{EventType: protocol.EventRegistered, BeaconID: m.id})
		if err != nil {
			return beaconRecord{}, err
		}
		s.send(raw) // before any work
	}
	q.catalogue(info)
	q.fillAll(ctx) // released items, and items that waited for this name, may go elsewhere too
	return m.record(), nil
}

func (q *queue) newID(name string, now time.Time) string {
	for ms := now.UnixMilli(); ; ms++ {
		id := fmt.Sprintf("bcn-%s-%d", normalise(name), ms)
		if q.beacons[id] == nil {
			return id
		}
	}
}

func (q *queue) catalogue(info protocol.Registration) {
	for _, schema := range info.ActionSchemas {
		key := actionName{schema.Capability, schema.Action}
		known, ok := q.actions[key]
		if !ok && len(q.actions) >= mostActions {
			q.log.Warn("too many actions; a new one is not catalogued", "limit", mostActions)
			return
		}
		if schema.SettingsSchema == nil {
			schema.SettingsSchema = []protocol.SettingSchema{}
		}
		if !slices.Contains(known.sources, info.Name) && len(known.sources) < 1000 {
			known.sources = append(known.sources, info.Name)
		}
		known.schema = schema
		q.actions[key] = known
	}
}

// leave is for a socket that ended. One that was put off has nothing to leave.
func (q *queue) leave(ctx context.Context, s *socket) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.member != nil {
		q.remove(ctx, s.member, "beacon "+s.member.id+" disconnected")
	}
}

// deregister is for a beacon that says so itself. Over HTTP its socket, if it
// has one, is closed: left open it would be connected but unknown.
func (q *queue) deregister(ctx context.Context, id string) error {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.beacons[id]
	if m == nil {
		return errUnknownBeacon
	}
	if m.socket != nil {
		m.socket.stop(closeNormal, "deregistered")
	}
	q.remove(ctx, m, "beacon "+m.id+" was deregistered")
	return nil
}

// deregisterSocket is the same over the beacon's own socket, which stays open.
func (q *queue) deregisterSocket(ctx context.Context, s *socket) {
	ctx = context.WithoutCancel(ctx)
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.member != nil {
		q.remove(ctx, s.member, "beacon "+s.member.id+" was deregistered")
	}
	raw, err := protocol.Encode(event{EventType: protocol.EventDeregistered})
	if err == nil {
		s.send(raw)
	}
}

func (q *queue) remove(ctx context.Context, m *member, why string) {
	delete(q.beacons, m.id)
	delete(q.names, m.info.Name)
	for key, bound := range q.bindings {
		if bound.beaconID == m.id {
			delete(q.bindings, key)
		}
	}
	if m.socket != nil {
		m.socket.member = nil
		m.socket = nil
	}
	q.log.InfoContext(ctx, "beacon left", "beacon", m.id, "reason", why, "items", len(m.held))
	q.release(ctx, m, why)
	q.fillAll(ctx)
}

// release lets all that a beacon held wait again.
func (q *queue) release(ctx context.Context, m *member, why string) {
	for hash, t := range m.held {
		delete(m.held, hash)
		delete(q.holders, hash)
		item, err := q.store.Release(ctx, hash, why)
		switch {
		case errors.Is(err, ErrNotRunning) || errors.Is(err, ErrNotFound): // timed out or reported by another
		case err != nil:
			q.log.ErrorContext(ctx, "work item cannot be taken back", "item", hash, "beacon", m.id, "error", err)
		case protocol.Final(item.Status):
			q.ended(item)
		default:
			q.wait(t)
		}
	}
}

// heartbeat notes that a beacon lives.
func (q *queue) heartbeat(id string) (beaconRecord, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.beacons[id]
	if m == nil {
		return beaconRecord{}, errUnknownBeacon
	}
	m.lastSeen = time.Now()
	return m.record(), nil
}

func (q *queue) heartbeatSocket(s *socket) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s.member != nil {
		s.member.lastSeen = time.Now()
	}
}

// of says which beacon a socket is.
func (q *queue) of(s *socket) reporter {
	q.mu.Lock()
	defer q.mu.Unlock()
	return reporter{overSocket: true, member: s.member}
}

func (q *queue) beacon(id string) (beaconRecord, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.beacons[id]
	if m == nil {
		return beaconRecord{}, errUnknownBeacon
	}
	return m.record(), nil
}

func (q *queue) list() []beaconRecord {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := make([]beaconRecord, 0, len(q.beacons))
	for _, m := range q.beacons {
		out = append(out, m.record())
	}
	slices.SortFunc(out, func(a, b beaconRecord) int { return strings.Compare(a.BeaconID, b.BeaconID) })
	return out
}

// An actionRecord is what the hub shows of an action.
type actionRecord struct {
	protocol.ActionSchema
	Available     bool     `json:"Available"`
	SourceBeacons []string `json:"SourceBeacons"`
}

func (q *queue) catalog(capability string) []actionRecord {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := []actionRecord{}
	for key, known := range q.actions {
		if capability != "" && key.capability != capability {
			continue
		}
		available := false
		for _, m := range q.beacons {
			available = available || m.can(key.capability)
		}
		out = append(out, actionRecord{known.schema, available, slices.Clone(known.sources)})
	}
	slices.SortFunc(out, func(a, b actionRecord) int {
		return strings.Compare(a.Capability+"\x00"+a.Action, b.Capability+"\x00"+b.Action)
	})
	return out
}

func (q *queue) affinities() []map[string]any {
	q.mu.Lock()
	defer q.mu.Unlock()
	keys := make([]string, 0, len(q.bindings))
	for key := range q.bindings {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	out := make([]map[string]any, 0, len(keys))
	for _, key := range keys {
		bound := q.bindings[key]
		out = append(out, map[string]any{
			"AffinityKey": bound.key, "BeaconID": bound.beaconID, "RunHash": bound.runHash,
			"CreatedAt": protocol.Timestamp{Time: bound.created}, "ExpiresAt": protocol.Timestamp{Time: bound.expires},
		})
	}
	return out
}
