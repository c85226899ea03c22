// Package coordinator is an Ultravisor server for tests: it speaks the worker's
// part of the protocol over real sockets, with the habits of either generation
// of the real server, and misbehaves on request.
package coordinator

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/protocol"
)

// A Flavour is a generation of the real server.
type Flavour string

// The flavours. ERA, of March 2026, pushes an item only when it arrives and
// there is room at that moment; what waited is given to pollers only. HEAD
// pushes whenever there is room, and reuses the record of a beacon that
// registers under the same name.
const (
	ERA  Flavour = "ERA"
	HEAD Flavour = "HEAD"
)

// Config says how the server behaves. The zero value is a friendly HEAD.
type Config struct {
	Flavour Flavour
	// Prefix is a path, escaped, that everything is under: "/ultra%20visor".
	Prefix string
	// Sessions makes requests without a login fail with 401.
	Sessions bool
	// NoLogin has logins answered with LoggedIn false.
	NoLogin bool
	// Reject, if not empty, is the reason for which beacons are rejected.
	Reject string
	// Generous pushes items whether there is room or not.
	Generous bool
	// MaxFrame is the largest text frame that the server survives; 0 means what
	// the real ones do: 100 MiB on ERA, 256 MiB on HEAD.
	MaxFrame int
	// TLS, if not nil, has the server speak HTTPS, with a certificate of its
	// own that Certificate gives unless TLS has one.
	TLS *tls.Config
}

// A Coordinator is such a server. It implements beacontest.Coordinator. It is
// safe for concurrent use.
type Coordinator struct {
	t      testing.TB
	cfg    Config
	server *httptest.Server
	socks  sync.WaitGroup

	mu        sync.Mutex
	noUpgrade bool
	down      bool // until the next login
	intercept func(w http.ResponseWriter, r *http.Request) bool
	onFrame   func(raw []byte) bool
	serial    int
	sessions  map[string]bool
	logins    int
	beacons   map[string]*record
	waiting   []*work // given to nobody, in order of arrival
	byHash    map[string]*work
	load      map[string]int // items that a beacon has
	reports   []beacontest.Report
	frames    []string
	requests  []string
	maxLoad   int
	active    []string // of the last sign of life
	drained   bool
	held      bool
	files     map[string][]byte       // by hash and name
	canceled  []protocol.Cancellation // for answers, until the item is reported
	changed   chan struct{}
}

type record struct {
	ID            string `json:"BeaconID"`
	Name          string
	MaxConcurrent int
	socket        *socket
}

type socket struct {
	conn *websocket.Conn
	out  chan []byte
	id   string // of the beacon that registered here last

	upload *announced // the file that comes next
}

type announced struct {
	WorkItemHash, OutputFilename string
	OutputSize                   int
}

type work struct {
	raw      json.RawMessage
	hash     string
	beacon   string // who has it, "" while it waits
	done     bool
	stalled  bool
	ticked   bool // given out by the scheduler: progress is refused
	alive    bool // since the last Stall
	progress []beacon.Progress
}

// Start runs a server until the test ends.
func Start(t testing.TB, cfg Config) *Coordinator {
	c := &Coordinator{t: t, cfg: cfg, sessions: map[string]bool{}, beacons: map[string]*record{}, byHash: map[string]*work{}, load: map[string]int{}, changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", c.status)
	mux.HandleFunc("POST /1.0/Authenticate", c.authenticate)
	mux.HandleFunc("POST /Beacon/Register", c.private(c.register))
	mux.HandleFunc("POST /Beacon/Work/Poll", c.private(c.poll))
	mux.HandleFunc("POST /Beacon/{id}/Heartbeat", c.private(c.heartbeat))
	mux.HandleFunc("DELETE /Beacon/{id}", c.leave)
	if cfg.Flavour != ERA {
		mux.HandleFunc("POST /Beacon/Work/Complete/Batch", c.private(c.completeBatch))
	}
	mux.HandleFunc("POST /Beacon/Work/{hash}/Complete", c.private(c.complete))
	mux.HandleFunc("POST /Beacon/Work/{hash}/Error", c.private(c.fail))
	mux.HandleFunc("POST /Beacon/Work/{hash}/Progress", c.private(c.progressed))
	c.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := strings.CutPrefix(r.URL.EscapedPath(), cfg.Prefix)
		c.mu.Lock()
		c.requests = append(c.requests, r.Method+" "+r.URL.EscapedPath())
		intercept, noUpgrade, down := c.intercept, c.noUpgrade, c.down
		c.mu.Unlock()
		switch {
		case !ok:
			http.NotFound(w, r)
		case intercept != nil && intercept(w, r):
		case r.Header.Get("Upgrade") != "":
			if noUpgrade {
				answer(w, http.StatusBadRequest, map[string]any{"Error": "no upgrade here"})
				return
			}
			c.upgrade(w, r)
		case down && path != "/1.0/Authenticate":
			answer(w, http.StatusServiceUnavailable, map[string]any{"Error": "down"})
		default:
			r.URL.RawPath = path
			r.URL.Path, _ = url.PathUnescape(path)
			mux.ServeHTTP(w, r)
		}
	}))
	if cfg.TLS != nil {
		c.server.TLS = cfg.TLS
		c.server.Config.ErrorLog = log.New(io.Discard, "", 0) // handshakes fail in tests
		c.server.StartTLS()
	} else {
		c.server.Start()
	}
	t.Cleanup(func() {
		c.Intercept(nil)
		c.OnFrame(nil)
		c.CutSockets()
		c.socks.Wait()
		c.server.Close()
	})
	return c
}

// Tick is a run of HEAD's scheduler: what waits is Dispatched to any beacon with
// room. On a socket it arrives, and its progress is refused; from a beacon that
// polls it is gone, since a poll gives out only what is Pending.
func (c *Coordinator) Tick() {
	c.locked(func() {
		c.waiting = slices.DeleteFunc(c.waiting, func(w *work) bool {
			for _, b := range c.beacons {
				if c.load[b.ID] < b.MaxConcurrent {
					c.give(w, b)
					w.ticked = true
					if b.socket != nil {
						b.socket.send(frame(w))
					}
					return true
				}
			}
			return false
		})
	})
}

// Stall drops the items that have given no sign of life since the last call, as
// HEAD does with those that are silent for two minutes.
func (c *Coordinator) Stall() {
	c.locked(func() {
		for _, w := range c.byHash {
			if w.beacon != "" && !w.done && !w.ticked && !w.alive {
				w.done, w.stalled = true, true
				c.load[w.beacon]--
			}
			w.alive = false
		}
	})
}

// Stalled reports whether an item was dropped because it gave no sign of life.
func (c *Coordinator) Stalled(hash string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.byHash[hash]
	return w != nil && w.stalled
}

func (c *Coordinator) status(w http.ResponseWriter, _ *http.Request) {
	status := map[string]any{"Status": "Running", "ScheduleEntries": 0, "ScheduleRunning": false}
	if c.cfg.Flavour != ERA {
		status["AuthEnabled"], status["AuthMode"], status["SupportsUserManagement"] = false, "promiscuous", false
	}
	answer(w, http.StatusOK, status)
}

// URL is where the server is, its prefix included.
func (c *Coordinator) URL() string { return c.server.URL + c.cfg.Prefix }

// Certificate is what a server that speaks HTTPS shows.
func (c *Coordinator) Certificate() *x509.Certificate { return c.server.Certificate() }

func (c *Coordinator) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

// Intercept has f see each request first; when it returns true it has answered.
func (c *Coordinator) Intercept(f func(w http.ResponseWriter, r *http.Request) bool) {
	c.locked(func() { c.intercept = f })
}

// OnFrame has f see each frame first; when it returns true the frame is
// ignored. While f blocks, nothing is read from the socket, pings included.
func (c *Coordinator) OnFrame(f func(raw []byte) bool) { c.locked(func() { c.onFrame = f }) }

// AllowUpgrade says whether WebSocket upgrades succeed, which is the default.
func (c *Coordinator) AllowUpgrade(allowed bool) { c.locked(func() { c.noUpgrade = !allowed }) }

// ForgetBeacons drops all registrations but no connection, and the sessions of
// logins, too, if so said: a server that was restarted behind a proxy.
func (c *Coordinator) ForgetBeacons(sessions bool) {
	c.locked(func() {
		for id := range c.beacons {
			c.remove(id)
		}
		if sessions {
			clear(c.sessions)
		}
	})
}

// ForgetSessions ends all logins.
func (c *Coordinator) ForgetSessions() { c.locked(func() { clear(c.sessions) }) }

// CutSockets closes all WebSocket connections without a word.
func (c *Coordinator) CutSockets() {
	c.locked(func() {
		for id, b := range c.beacons {
			if b.socket != nil {
				_ = b.socket.conn.CloseNow()
				c.remove(id)
			}
		}
	})
}

// Drop cuts all links; HTTP answers 503 until somebody logs in.
func (c *Coordinator) Drop() {
	c.locked(func() { c.down = true })
	c.CutSockets()
	c.ForgetBeacons(false)
}

// SendRaw sends text to every connected beacon.
func (c *Coordinator) SendRaw(text string) {
	c.locked(func() {
		for _, b := range c.beacons {
			if b.socket != nil {
				b.socket.send([]byte(text))
			}
		}
	})
}

// Push queues items and pushes them where the flavour would.
func (c *Coordinator) Push(items ...beacon.WorkItem) {
	for _, item := range items {
		raw, err := protocol.Encode(protocol.WorkItem{
			WorkItemHash: item.Hash, Capability: item.Capability, Action: item.Action, Settings: item.Settings,
			OperationHash: item.OperationHash, RunID: item.RunID, TimeoutMs: float64(item.Timeout.Milliseconds()), AttemptNumber: item.Attempt,
		})
		if err != nil {
			panic(fmt.Sprintf("a test pushes an item that does not marshal: %v", err))
		}
		c.PushRaw(item.Hash, string(raw))
	}
}

// Queue takes items in and gives them to nobody: that is left to Tick, to polls,
// and to whatever makes room.
func (c *Coordinator) Queue(items ...beacon.WorkItem) {
	c.locked(func() { c.held = true })
	c.Push(items...)
	c.locked(func() { c.held = false })
}

// PushRaw is Push for an item whose JSON is malformed.
func (c *Coordinator) PushRaw(hash, raw string) {
	c.locked(func() {
		w := &work{raw: json.RawMessage(raw), hash: hash}
		c.byHash[hash] = w
		if !c.push(w) {
			c.waiting = append(c.waiting, w)
		}
	})
}

// Redeliver pushes an item again to whoever is connected.
func (c *Coordinator) Redeliver(hash string) {
	c.locked(func() {
		w := c.byHash[hash]
		for _, b := range c.beacons {
			if b.socket != nil {
				b.socket.send(frame(w))
				return
			}
		}
	})
}

func frame(w *work) []byte {
	return slices.Concat([]byte(`{"EventType":"WorkItem","WorkItem":`), w.raw, []byte(`}`))
}

// push gives an item to a connected beacon with room; mu is held.
func (c *Coordinator) push(w *work) bool {
	for _, b := range c.beacons {
		if !c.held && b.socket != nil && (c.cfg.Generous || c.load[b.ID] < b.MaxConcurrent) {
			c.give(w, b)
			b.socket.send(frame(w))
			return true
		}
	}
	return false
}

// give notes that a beacon has an item; mu is held.
func (c *Coordinator) give(w *work, b *record) {
	w.beacon, w.alive = b.ID, true
	c.load[b.ID]++
	c.maxLoad = max(c.maxLoad, c.load[b.ID])
}

// pushWaiting is what only HEAD does when a slot is free; mu is held.
func (c *Coordinator) pushWaiting() {
	for c.cfg.Flavour != ERA && len(c.waiting) > 0 && c.push(c.waiting[0]) {
		c.waiting = c.waiting[1:]
	}
}

// remove drops a beacon; its items wait again. mu is held.
func (c *Coordinator) remove(id string) {
	delete(c.beacons, id)
	delete(c.load, id)
	for _, w := range c.byHash {
		if w.beacon == id && !w.done {
			w.beacon = ""
			c.waiting = append(c.waiting, w)
		}
	}
}

func (c *Coordinator) add(r protocol.Registration, s *socket) *record {
	if c.cfg.Flavour != ERA {
		for _, b := range c.beacons {
			if b.Name == r.Name {
				b.MaxConcurrent, b.socket = r.MaxConcurrent, s
				return b
			}
		}
	}
	c.serial++
	b := &record{ID: fmt.Sprintf("bcn-%s-%d", r.Name, 1795346270823+c.serial), Name: r.Name, MaxConcurrent: r.MaxConcurrent, socket: s}
	c.beacons[b.ID] = b
	return b
}

// wait blocks until condition, checked under mu, holds.
func (c *Coordinator) wait(ctx context.Context, condition func() bool) error {
	for {
		c.mu.Lock()
		met, changed := condition(), c.changed
		c.mu.Unlock()
		if met {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Cancel takes an item back the way that our hub does it: by a frame, and in
// the answers to those that are not connected, until the item is reported.
func (c *Coordinator) Cancel(hash, reason string) {
	cancel := protocol.Cancellation{WorkItemHash: hash, Reason: reason}
	text, err := protocol.EncodeCancel(cancel)
	if err != nil {
		panic(fmt.Sprintf("a test cancels what does not marshal: %v", err))
	}
	c.locked(func() {
		w := c.byHash[hash]
		if w == nil || w.done {
			return
		}
		if b := c.beacons[w.beacon]; b != nil && b.socket != nil {
			b.socket.send(text)
			return
		}
		c.canceled = append(c.canceled, cancel)
	})
}

// Active lists what the last heartbeat said that its beacon has, sorted.
func (c *Coordinator) Active() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.active
}

// Drained reports whether a heartbeat said that its beacon wants no more.
func (c *Coordinator) Drained() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.drained
}

func (c *Coordinator) lives(h protocol.Heartbeat) {
	c.locked(func() {
		c.active = slices.Sorted(slices.Values(h.ActiveWorkItems))
		c.drained = h.Draining
	})
}

// uploaded takes a binary frame. Like HEAD it keeps files of items of operations
// only.
func (c *Coordinator) uploaded(s *socket, content []byte) {
	a := s.upload
	s.upload = nil
	if a == nil {
		return
	}
	c.locked(func() {
		w := c.byHash[a.WorkItemHash]
		var item protocol.WorkItem
		keeps := w != nil && json.Unmarshal(w.raw, &item) == nil && item.OperationHash != "" && a.OutputSize == len(content)
		if keeps {
			if c.files == nil {
				c.files = map[string][]byte{}
			}
			c.files[a.WorkItemHash+"/"+a.OutputFilename] = content
		}
		text, _ := protocol.Encode(map[string]any{"Action": protocol.ActionUploadAck, "WorkItemHash": a.WorkItemHash, "Success": keeps})
		s.send(text)
	})
}

// File is a file that was sent beside of a result, nil if there is none.
func (c *Coordinator) File(hash, name string) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.files[hash+"/"+name]
}

// Report waits for the next report that was not returned yet.
func (c *Coordinator) Report(ctx context.Context) (beacontest.Report, error) {
	var r beacontest.Report
	err := c.wait(ctx, func() bool {
		if len(c.reports) == 0 {
			return false
		}
		r = c.reports[0]
		c.reports = c.reports[1:]
		return true
	})
	return r, err
}

// Progress returns what was reported about an item so far.
func (c *Coordinator) Progress(hash string) []beacon.Progress {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.byHash[hash]; w != nil {
		return slices.Clone(w.progress)
	}
	return nil
}

// Connected reports whether a beacon is registered.
func (c *Coordinator) Connected() bool { return len(c.Beacons()) > 0 }

// Beacons lists the ids of the beacons that are registered.
func (c *Coordinator) Beacons() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id := range c.beacons {
		ids = append(ids, id)
	}
	return ids
}

// Sockets counts the beacons that are connected by WebSocket.
func (c *Coordinator) Sockets() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, b := range c.beacons {
		if b.socket != nil {
			n++
		}
	}
	return n
}

// Frames lists the text frames that arrived, Requests the requests, as method
// and escaped path.
func (c *Coordinator) Frames() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

// Requests lists the requests that arrived, as method and escaped path.
func (c *Coordinator) Requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.requests)
}

// Logins counts the logins.
func (c *Coordinator) Logins() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.logins
}

// MaxLoad is the most items that one beacon had at once.
func (c *Coordinator) MaxLoad() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.maxLoad
}

// Until waits until condition holds, checking it at every change.
func (c *Coordinator) Until(ctx context.Context, condition func() bool) error {
	for {
		c.mu.Lock()
		changed := c.changed
		c.mu.Unlock()
		if condition() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

func (c *Coordinator) authenticate(w http.ResponseWriter, r *http.Request) {
	var who protocol.Credentials
	if err := json.NewDecoder(r.Body).Decode(&who); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"code": "InvalidContent", "message": "bad JSON"})
		return
	}
	if c.cfg.NoLogin {
		c.locked(func() { c.logins++; c.down = false })
		answer(w, http.StatusOK, map[string]any{"LoggedIn": false, "Error": "Authentication failed."})
		return
	}
	var id string
	c.locked(func() {
		c.down = false
		c.logins++
		id = fmt.Sprintf("session-%d", c.logins)
		c.sessions[id] = true
	})
	// A load balancer's cookie comes first, as it does behind one.
	w.Header().Add("Set-Cookie", "Balancer=east; Path=/")
	w.Header().Add("Set-Cookie", "SessionID="+id+"; Path=/; HttpOnly")
	answer(w, http.StatusOK, map[string]any{"LoggedIn": true, "SessionID": id, "UserID": 0, "UserRecord": map[string]any{"LoginID": who.UserName, "IDUser": 0}})
}

func (c *Coordinator) private(handle http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if c.cfg.Sessions {
			cookie, err := r.Cookie(protocol.SessionCookie)
			c.mu.Lock()
			known := err == nil && c.sessions[cookie.Value]
			c.mu.Unlock()
			if !known {
				answer(w, http.StatusUnauthorized, map[string]any{"Error": "Authentication required.", "LoggedIn": false})
				return
			}
		}
		handle(w, r)
	}
}

func (c *Coordinator) register(w http.ResponseWriter, r *http.Request) {
	var reg protocol.Registration
	if err := json.NewDecoder(r.Body).Decode(&reg); err != nil || reg.Name == "" || reg.Capabilities == nil {
		answer(w, http.StatusBadRequest, map[string]any{"Error": "Name and Capabilities are required."})
		return
	}
	var b record
	c.locked(func() { b = *c.add(reg, nil) })
	answer(w, http.StatusOK, map[string]any{"BeaconID": b.ID, "Name": b.Name, "SessionID": nil, "Status": "Online", "CurrentWorkItems": []string{}})
}

func (c *Coordinator) poll(w http.ResponseWriter, r *http.Request) {
	var who struct{ BeaconID string }
	if err := json.NewDecoder(r.Body).Decode(&who); err != nil || who.BeaconID == "" {
		answer(w, http.StatusBadRequest, map[string]any{"Error": "BeaconID is required."})
		return
	}
	var item json.RawMessage = []byte("null")
	var canceled []protocol.Cancellation
	c.locked(func() {
		canceled = slices.Clone(c.canceled)
		b := c.beacons[who.BeaconID]
		if b == nil || c.load[b.ID] >= b.MaxConcurrent && !c.cfg.Generous || len(c.waiting) == 0 {
			return
		}
		item = c.waiting[0].raw
		c.give(c.waiting[0], b)
		c.waiting = c.waiting[1:]
	})
	answer(w, http.StatusOK, struct {
		WorkItem          json.RawMessage
		CanceledWorkItems []protocol.Cancellation `json:",omitempty"`
	}{item, canceled})
}

func (c *Coordinator) heartbeat(w http.ResponseWriter, r *http.Request) {
	var sign protocol.Heartbeat
	if json.NewDecoder(r.Body).Decode(&sign) == nil {
		c.lives(sign)
	}
	c.mu.Lock()
	b, canceled := c.beacons[r.PathValue("id")], slices.Clone(c.canceled)
	current := []string{}
	for hash, w := range c.byHash {
		if b != nil && w.beacon == b.ID && !w.done {
			current = append(current, hash)
		}
	}
	c.mu.Unlock()
	if b == nil {
		answer(w, http.StatusNotFound, map[string]any{"Error": "Beacon [" + r.PathValue("id") + "] not found."})
		return
	}
	record := map[string]any{"BeaconID": b.ID, "Name": b.Name, "Status": "Online", "CurrentWorkItems": current}
	if len(canceled) > 0 {
		record["CanceledWorkItems"] = canceled
	}
	answer(w, http.StatusOK, record)
}

func (c *Coordinator) leave(w http.ResponseWriter, r *http.Request) {
	known := false
	c.locked(func() {
		known = c.beacons[r.PathValue("id")] != nil
		c.remove(r.PathValue("id"))
	})
	if !known {
		answer(w, http.StatusNotFound, map[string]any{"Error": "Beacon not found."})
		return
	}
	answer(w, http.StatusOK, map[string]any{"Status": "Deregistered", "BeaconID": r.PathValue("id")})
}

func (c *Coordinator) complete(w http.ResponseWriter, r *http.Request) {
	var body protocol.Completion
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"code": "InvalidContent", "message": "bad JSON"})
		return
	}
	hash := r.PathValue("hash")
	c.finished(w, "Completed", beacontest.Report{Hash: hash, Result: beacon.Result{Outputs: body.Outputs, Log: body.Log}})
}

func (c *Coordinator) completeBatch(w http.ResponseWriter, r *http.Request) {
	type entry struct {
		WorkItemHash string
		protocol.Completion
	}
	type failure struct {
		Index int
		Error string
	}
	var body struct{ Items []entry }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || len(body.Items) > protocol.MaxBatch {
		answer(w, http.StatusBadRequest, map[string]any{"code": "InvalidContent", "message": "bad JSON"})
		return
	}
	items, failures := []any{}, []failure{}
	for i, e := range body.Items {
		if err := c.record(beacontest.Report{Hash: e.WorkItemHash, Result: beacon.Result{Outputs: e.Outputs, Log: e.Log}}); err != nil {
			failures = append(failures, failure{i, err.Error()})
			continue
		}
		items = append(items, map[string]string{"WorkItemHash": e.WorkItemHash, "Status": "Completed"})
	}
	answer(w, http.StatusOK, map[string]any{"Items": items, "Errors": failures})
}

func (c *Coordinator) fail(w http.ResponseWriter, r *http.Request) {
	var body protocol.WorkFailure
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"code": "InvalidContent", "message": "bad JSON"})
		return
	}
	hash := r.PathValue("hash")
	c.finished(w, "Failed", beacontest.Report{Hash: hash, Result: beacon.Result{Log: body.Log}, Failed: true, Message: body.ErrorMessage})
}

func (c *Coordinator) finished(w http.ResponseWriter, status string, r beacontest.Report) {
	if err := c.record(r); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"Error": err.Error()})
		return
	}
	answer(w, http.StatusOK, map[string]any{"Status": status, "WorkItemHash": r.Hash})
}

func (c *Coordinator) record(r beacontest.Report) (err error) {
	c.locked(func() {
		w := c.byHash[r.Hash]
		switch {
		case w == nil:
			err = fmt.Errorf("BeaconCoordinator: work item [%s] not found.", r.Hash) //nolint:staticcheck,revive // the server's words
			return
		case w.done:
			err = fmt.Errorf("BeaconCoordinator: work item [%s] already finalized (Complete).", r.Hash) //nolint:staticcheck,revive // the server's words
			return
		}
		w.done = true
		c.canceled = slices.DeleteFunc(c.canceled, func(x protocol.Cancellation) bool { return x.WorkItemHash == r.Hash })
		if w.beacon != "" {
			c.load[w.beacon]--
		} else {
			c.waiting = slices.DeleteFunc(c.waiting, func(x *work) bool { return x == w })
		}
		c.reports = append(c.reports, r)
		c.pushWaiting()
	})
	return err
}

func (c *Coordinator) progressed(w http.ResponseWriter, r *http.Request) {
	var body protocol.Progress
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		answer(w, http.StatusBadRequest, map[string]any{"code": "InvalidContent", "message": "bad JSON"})
		return
	}
	hash := r.PathValue("hash")
	if !c.note(hash, body) {
		answer(w, http.StatusNotFound, map[string]any{"Error": "Work item [" + hash + "] not found or not running."})
		return
	}
	answer(w, http.StatusOK, map[string]any{"Success": true, "WorkItemHash": hash})
}

func (c *Coordinator) note(hash string, p protocol.Progress) (ok bool) {
	c.locked(func() {
		if w := c.byHash[hash]; w != nil && !w.done && !w.ticked {
			w.alive = true
			w.progress = append(w.progress, p.Beacon())
			ok = true
		}
	})
	return ok
}

func (s *socket) send(frame []byte) {
	s.out <- frame
}

func (c *Coordinator) upgrade(w http.ResponseWriter, r *http.Request) {
	c.socks.Add(1)
	defer c.socks.Done()
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	conn.SetReadLimit(300 << 20)
	s := &socket{conn: conn, out: make(chan []byte, 1<<16)}
	ctx, cancel := context.WithCancel(context.Background())
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case frame := <-s.out:
				if conn.Write(ctx, websocket.MessageText, frame) != nil {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	})
	defer writer.Wait()
	defer cancel()
	defer func() {
		_ = conn.CloseNow()
		c.locked(func() {
			// The trap of HEAD: the end of a socket is that of the beacon which
			// registered on it, also when it has another one by now.
			if c.cfg.Flavour != ERA && c.beacons[s.id] != nil {
				c.remove(s.id)
			}
			for id, b := range c.beacons {
				if b.socket == s {
					c.remove(id)
				}
			}
		})
	}()
	for {
		kind, raw, err := conn.Read(ctx)
		if err != nil {
			return
		}
		if kind != websocket.MessageText {
			c.uploaded(s, raw)
			continue
		}
		if s.upload != nil {
			c.t.Errorf("%.200s came between the announcement of a file and the file", raw)
		}
		if !utf8.Valid(raw) || len(raw) > c.deadly() {
			c.t.Errorf("a text frame of %d bytes, UTF-8 %v: the real server would be dead now", len(raw), utf8.Valid(raw))
		}
		c.mu.Lock()
		onFrame := c.onFrame
		c.mu.Unlock()
		if onFrame != nil && onFrame(raw) {
			continue
		}
		c.locked(func() { c.frames = append(c.frames, string(raw[:min(len(raw), 4096)])) })
		if err := c.frame(s, raw); err != nil {
			_ = conn.Close(protocol.CloseRejected, "Beacon admission denied")
			return
		}
	}
}

var errRejected = errors.New("rejected")

// deadly is the size of a text frame beyond which the real server ends.
func (c *Coordinator) deadly() int {
	if c.cfg.MaxFrame > 0 {
		return c.cfg.MaxFrame
	}
	if c.cfg.Flavour == ERA {
		return 100 << 20
	}
	return 256 << 20
}

func (c *Coordinator) frame(s *socket, raw []byte) error {
	var m struct {
		Action       string
		BeaconID     string
		WorkItemHash string
		ErrorMessage string
		ProgressData protocol.Progress
		protocol.Heartbeat
		protocol.Registration
		protocol.Completion
	}
	if json.Unmarshal(raw, &m) != nil {
		return nil
	}
	switch m.Action {
	case protocol.ActionRegister:
		if c.cfg.Reject != "" {
			text, _ := protocol.Encode(map[string]string{"EventType": protocol.EventRejected, "Reason": c.cfg.Reject})
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_ = s.conn.Write(ctx, websocket.MessageText, text) // the close says it, too
			return errRejected
		}
		c.locked(func() {
			b := c.add(m.Registration, s)
			s.id = b.ID
			text, _ := protocol.Encode(map[string]string{"EventType": protocol.EventRegistered, "BeaconID": b.ID})
			s.send(text)
			c.pushWaiting()
		})
	case protocol.ActionResultUpload:
		if c.cfg.Flavour != ERA { // which does not know it
			s.upload = &announced{}
			_ = json.Unmarshal(raw, s.upload) // what is missing is missed below
		}
	case protocol.ActionHeartbeat:
		c.lives(m.Heartbeat)
	case protocol.ActionDeregister:
		c.locked(func() {
			c.remove(m.BeaconID)
			s.send([]byte(`{"EventType":"Deregistered"}`))
		})
	case protocol.ActionProgress:
		c.note(m.WorkItemHash, m.ProgressData)
	case protocol.ActionComplete:
		_ = c.record(beacontest.Report{Hash: m.WorkItemHash, Result: beacon.Result{Outputs: m.Outputs, Log: m.Log}}) // nobody is told
	case protocol.ActionError:
		_ = c.record(beacontest.Report{Hash: m.WorkItemHash, Result: beacon.Result{Log: m.Log}, Failed: true, Message: m.ErrorMessage}) // nobody is told
	}
	return nil
}

// Discard reads what is left of a body, for tests that answer without reading.
func Discard(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }
