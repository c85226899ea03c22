package hub

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/cork"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// Close codes that are used.
const (
	closeNormal  = websocket.StatusNormalClosure
	closeAway    = websocket.StatusGoingAway
	closeInvalid = websocket.StatusInvalidFramePayloadData
	closePolicy  = websocket.StatusPolicyViolation
	closeReject  = websocket.StatusCode(protocol.CloseRejected)
)

// mostOutbox bounds the bytes that wait for a worker who does not read: beyond
// it the connection is given up, and its items go to others.
const mostOutbox = 64 << 20

// A socket is one worker's WebSocket. Frames that it is to get go into its
// outbox, which never waits; its own goroutine writes them.
type socket struct {
	conn     *websocket.Conn
	cork     *cork.Conn // below conn
	session  string
	base     string // how the worker addresses this hub
	who      caller // by the session that the connection began with
	known    bool
	handout  string      // a session for the worker that has none
	admitted atomic.Bool // it is known who it is
	link     uint64
	beacon   string // guarded by the coordinator's mutex; empty until registered
	lastRead atomic.Int64
	listed   atomic.Int64  // when the worker last said what it has; 0 if never
	owed     atomic.Int64  // reports that are not durable yet
	paid     chan struct{} // owed has become 0
	room     chan struct{} // holds a token for each
	wake     chan struct{}
	stopped  chan struct{} // closed by stop

	mu     sync.Mutex
	outbox [][]byte
	size   int
	over   bool
	code   websocket.StatusCode
	reason string
}

// send puts a frame into the outbox.
func (s *socket) send(frame []byte) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.outbox = append(s.outbox, frame)
	s.size += len(frame)
	// A single frame may be of any size: it was accepted as a whole.
	full := s.size > mostOutbox && len(s.outbox) > 1
	s.mu.Unlock()
	if full {
		s.stop(closePolicy, "the worker does not read")
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// stop ends the connection once the outbox is written. Only the first call
// counts.
func (s *socket) stop(code websocket.StatusCode, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over {
		return
	}
	s.over, s.code, s.reason = true, code, reason
	close(s.stopped)
}

func (s *socket) ended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

func (s *socket) take() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.outbox
	s.outbox, s.size = nil, 0
	return out
}

// mostOwed bounds the reports of one worker that are not durable yet.
const mostOwed = 1024

func newSocket(conn *websocket.Conn, corked *cork.Conn, session string) *socket {
	return &socket{
		conn: conn, cork: corked, session: session,
		wake: make(chan struct{}, 1), stopped: make(chan struct{}), paid: make(chan struct{}, 1), room: make(chan struct{}, mostOwed),
	}
}

// settled waits until all that the worker has reported is durable. It is false
// if that will not be.
func (s *socket) settled(ctx context.Context) bool {
	for s.owed.Load() > 0 {
		select {
		case <-s.paid:
		case <-s.stopped:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return !s.ended()
}

// report writes down what the worker says, without waiting for it to be durable.
// One that cannot be written ends the connection, so that the worker, whose
// pings are not answered then, reports it again.
func (h *Hub) report(s *socket, e ledger.Entry, applied func(ledger.Answer)) {
	select {
	case s.room <- struct{}{}:
	case <-s.stopped:
		return
	}
	s.owed.Add(1)
	h.core.offer(e, applied, func(err error) {
		if err != nil {
			h.log.Warn("what a worker reported is not written down; its connection is closed", "error", err)
			s.stop(closeAway, "the hub cannot write down what was reported")
		}
		<-s.room
		if s.owed.Add(-1) == 0 {
			signal(s.paid)
		}
	})
}

// event sends one.
func (s *socket) event(e event) {
	raw, err := protocol.Encode(e)
	if err != nil {
		panic(fmt.Sprintf("hub: an event does not marshal: %v", err)) // raw JSON in it was checked
	}
	s.send(raw)
}

// cancel tells the worker that an item is not wanted any more.
func (s *socket) cancel(hash string, attempt int, reason string) {
	raw, err := protocol.EncodeCancel(protocol.Cancellation{WorkItemHash: hash, AttemptNumber: attempt, Reason: reason})
	if err == nil { // it is two texts
		s.send(raw)
	}
}

// serveSocket runs one worker's connection to its end.
func (h *Hub) serveSocket(w http.ResponseWriter, r *http.Request) {
	var s *socket
	upgraded := &upgrade{ResponseWriter: w}
	conn, err := websocket.Accept(upgraded, r, &websocket.AcceptOptions{
		CompressionMode: websocket.CompressionDisabled,
		// Workers take the answer for a sign that all that they sent before is safe.
		OnPingReceived: func(ctx context.Context, _ []byte) bool { return s.settled(ctx) },
	})
	if err != nil { // it is answered
		h.log.Debug("websocket upgrade refused", "error", err)
		return
	}
	conn.SetReadLimit(mostResult)
	s = newSocket(conn, upgraded.cork, sessionOf(r))
	s.base = h.baseOf(r)
	s.who, s.known = h.identify(r)
	s.admitted.Store(s.known)
	h.core.connect(s)
	// Reading ends with the connection, never by a context: that would cut off
	// the close frame that tells the worker why.
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.ctx))
	var writing, watching sync.WaitGroup
	writing.Go(func() { h.write(ctx, s) })
	watching.Go(func() { h.watchOver(ctx, s) })
	err = h.read(ctx, s)
	if errors.Is(err, pace.ErrSlow) {
		h.log.Warn("a worker sends a message too slowly and is cut off; what it was given goes to others", "beacon", h.core.beaconOf(s))
		s.stop(closePolicy, "a message came too slowly")
	}
	s.stop(closeNormal, "")
	h.core.disconnect(s)
	// Nor does writing: each frame has its time, and the last one is the reason.
	writing.Wait()
	cancel()
	watching.Wait()
	_ = conn.CloseNow()
	h.log.Debug("websocket ended", "error", err)
}

// An upgrade puts a cork below a WebSocket: on a link that needs longer for a
// large item than the library gives a ping to be answered, the ping's answer
// waits outside of the library.
type upgrade struct {
	http.ResponseWriter

	cork *cork.Conn
}

// Hijack implements http.Hijacker.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(u.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	u.cork = &cork.Conn{Conn: conn}
	u.cork.Pull()
	buffers.Writer.Reset(u.cork)
	return u.cork, buffers, nil
}

// write sends a frame. Only here is a slow link waited for.
func (s *socket) write(ctx context.Context, frame []byte) error {
	deadline := time.Now().Add(pace.Time(int64(len(frame))))
	s.cork.Hold()
	err := s.conn.Write(ctx, websocket.MessageText, frame)
	return errors.Join(err, s.cork.Release(deadline))
}

// closeTimeout is for taking leave of a worker.
const closeTimeout = 6 * time.Second

// write sends what is in the outbox until the socket is stopped, then closes.
func (h *Hub) write(ctx context.Context, s *socket) {
	for {
		stopped := false
		select {
		case <-s.wake:
		case <-s.stopped:
			stopped = true
		}
		for _, frame := range s.take() {
			if err := s.write(ctx, frame); err != nil { // the connection is broken now, so reading ends, too
				if errors.Is(err, os.ErrDeadlineExceeded) {
					h.log.Warn("a worker reads too slowly and is cut off; what it was given goes to others", "beacon", h.core.beaconOf(s), "bytes", len(frame))
				}
				_ = s.conn.CloseNow()
				return
			}
		}
		if stopped {
			// It waits a few seconds for the peer's answer, but for as long as it takes
			// for the rest of a frame that the peer has begun.
			enough := time.AfterFunc(closeTimeout, func() { _ = s.cork.Close() })
			_ = s.conn.Close(s.code, s.reason)
			enough.Stop()
			return
		}
	}
}

// watchOver ends the connection of a worker that neither answers pings nor
// sends anything, and every connection when the hub closes.
func (h *Hub) watchOver(ctx context.Context, s *socket) {
	limit, began := h.heartbeat(), time.Now()
	period := limit / 2
	timer := time.NewTicker(period)
	defer timer.Stop()
	for {
		select {
		case <-h.ctx.Done():
			s.stop(closeAway, "the hub is shutting down")
			return
		case <-s.stopped:
			return
		case <-timer.C:
		}
		if !s.admitted.Load() && time.Since(began) >= pace.Grace {
			h.log.Warn("a connection that nobody has logged in on, or registered by, is closed")
			s.stop(closePolicy, "no login and no registration")
			return
		}
		pinging, cancel := context.WithTimeout(ctx, period)
		unhook := context.AfterFunc(h.ctx, cancel)
		err := s.conn.Ping(pinging)
		unhook()
		cancel()
		if err == nil {
			s.lastRead.Store(time.Now().UnixNano())
		}
		silent := time.Since(time.Unix(0, s.lastRead.Load()))
		if err != nil && h.ctx.Err() == nil && ctx.Err() == nil && silent > limit {
			h.log.Warn("worker does not answer and is taken for gone", "silent", silent)
			_ = s.conn.CloseNow()
			s.stop(closePolicy, "no answer")
			return
		}
		if listed := s.listed.Load(); listed != 0 && time.Since(time.Unix(0, listed)) > h.cfg.StallTimeout {
			h.log.Warn("worker has not said for long what it has and is taken for stalled", "since", time.Since(time.Unix(0, listed)))
			s.stop(closePolicy, "no heartbeat")
			return
		}
	}
}

// noted remembers when bytes last came in, since a pong cannot overtake a large
// frame, and ends one that comes too slowly.
type noted struct {
	r     io.Reader
	last  *atomic.Int64
	began time.Time
	bytes int64
}

// notedPart is how much comes in before it is noted: the library fills what it is
// given.
const notedPart = 1 << 10

func (n *noted) Read(p []byte) (int, error) {
	count, err := n.r.Read(p[:min(len(p), notedPart)])
	n.last.Store(time.Now().UnixNano())
	n.bytes += int64(count)
	if err == nil && time.Since(n.began) > pace.Time(n.bytes) {
		err = pace.ErrSlow
	}
	return count, err
}

// An announced upload is the one that the next binary frame carries.
type announced struct {
	hash, name string
	size       float64
}

// read handles frames until the connection ends. What a frame holds never ends
// more than this connection.
func (h *Hub) read(ctx context.Context, s *socket) error {
	var pending *announced
	s.lastRead.Store(time.Now().UnixNano())
	for {
		kind, frame, err := s.conn.Reader(ctx)
		if err != nil {
			return err
		}
		in := &noted{r: frame, last: &s.lastRead, began: time.Now()}
		if kind == websocket.MessageBinary {
			if err := h.receive(ctx, s, pending, in); err != nil {
				return err
			}
			pending = nil
			continue
		}
		raw, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		if !utf8.Valid(raw) {
			s.stop(closeInvalid, "a text frame must be UTF-8")
			return errors.New("a text frame is not UTF-8")
		}
		m, err := decodeMessage(raw)
		if err != nil {
			h.log.Debug("frame ignored", "error", err)
			continue
		}
		pending = nil // a file follows its announcement at once
		if m.Action == protocol.ActionResultUpload {
			pending = &announced{m.WorkItemHash, m.OutputFilename, m.OutputSize}
			continue
		}
		h.handle(ctx, s, m, raw)
	}
}

// handle does what a message asks for. As on the real server there is no answer
// to most of them, and unknown ones are ignored.
func (h *Hub) handle(ctx context.Context, s *socket, m message, raw []byte) {
	refused := func(a ledger.Answer) {
		if a.Err != nil {
			h.log.Info("message not accepted", "action", m.Action, "item", beacon.Excerpt(m.WorkItemHash, 200), "error", a.Err)
		}
	}
	ctx = context.WithValue(ctx, callerKey{}, s.who)
	if m.Action != protocol.ActionRegister && (!s.known || !s.who.role.may(serve)) {
		h.log.Debug("message of somebody unknown ignored", "action", beacon.Excerpt(m.Action, 80))
		return
	}
	switch m.Action {
	case protocol.ActionRegister:
		h.join(s, raw)
	case protocol.ActionHeartbeat:
		h.socketHeartbeat(s, raw)
	case protocol.ActionComplete:
		h.reportEnd(ctx, s, m, completion(m.Outputs, m.Log, m.Usage), refused)
	case protocol.ActionError:
		h.reportEnd(ctx, s, m, failure(m.ErrorMessage, m.Log, m.Usage), refused)
	case protocol.ActionProgress:
		p, err := decodeProgress(m.ProgressData)
		if err == nil {
			err = h.reportable(ctx, m.WorkItemHash)
		}
		if err != nil {
			h.log.Info("message not accepted", "action", m.Action, "item", beacon.Excerpt(m.WorkItemHash, 200), "error", err)
			return
		}
		for _, e := range h.progressEntries(m.WorkItemHash, p, h.core.beaconOf(s), "") {
			h.report(s, e, refused)
		}
	case protocol.ActionDeregister:
		if id := h.core.beaconOf(s); id != "" {
			h.report(s, ledger.Entry{Leave: &ledger.Leave{Beacon: id, Link: s.link, Reason: "beacon " + id + " was deregistered"}}, func(ledger.Answer) {
				s.event(event{EventType: protocol.EventDeregistered})
			})
			return
		}
		s.event(event{EventType: protocol.EventDeregistered})
	default:
		h.log.Debug("message ignored", "action", beacon.Excerpt(m.Action, 80))
	}
}

func (h *Hub) reportEnd(ctx context.Context, s *socket, m message, outcome ledger.Outcome, applied func(ledger.Answer)) {
	if err := h.reportable(ctx, m.WorkItemHash); err != nil {
		applied(ledger.Answer{Err: err})
		return
	}
	e, err := h.finish(ctx, m.WorkItemHash, attempt(m.AttemptNumber), outcome, h.core.beaconOf(s), "")
	if err != nil {
		h.log.Warn("a result is not kept; its worker's connection is closed", "item", beacon.Excerpt(m.WorkItemHash, 200), "error", err)
		s.stop(closeAway, "the hub cannot keep the result")
		return
	}
	h.report(s, e, applied)
}

// join registers the beacon that a socket is.
func (h *Hub) join(s *socket, raw []byte) {
	var info protocol.Registration
	err := json.Unmarshal(raw, &info)
	if err == nil && len(raw) > mostBody {
		err = beacon.Errorf(beacon.Invalid, "the registration is over the limit of %d bytes", mostBody)
	}
	if err == nil {
		if info.Name == "" {
			info.Name = "unnamed"
		}
		who, known, wrong := s.who, s.known, false
		if h.cfg.JoinSecret != "" && info.JoinSecret != "" {
			switch wrong = !h.joins(info.JoinSecret); {
			case wrong:
			case !known || !who.role.may(serve):
				// It need not log in, so it gets a session with its registration.
				who, known = caller{user: info.Name, role: Worker}, true
				s.session = h.session(kindJoin, info.Name)
				s.handout = s.session
			}
		}
		switch {
		case wrong:
			err = beacon.Errorf(beacon.Rejected, "Bootstrap auth secret mismatch")
		case !known:
			err = beacon.Errorf(beacon.Rejected, "Authentication required: log in as a user with the role worker, or give the join secret")
		case !who.role.may(serve):
			err = beacon.Errorf(beacon.Rejected, "The role %s may not register beacons", who.role)
		default:
			s.who, s.known = who, true
			s.admitted.Store(true)
			_, err = h.register(info, who, s.session, s)
		}
	}
	if err == nil {
		return
	}
	h.log.Warn("registration rejected", "error", err)
	s.event(event{EventType: protocol.EventRejected, Reason: err.Error()})
	s.stop(closeReject, "Beacon admission denied")
}

// receive takes a binary frame: the announced file, or nothing that is wanted.
func (h *Hub) receive(ctx context.Context, s *socket, pending *announced, in io.Reader) error {
	if pending == nil || !s.known || !s.who.role.may(serve) {
		_, err := io.Copy(io.Discard, in)
		return err
	}
	ctx = context.WithValue(ctx, callerKey{}, s.who)
	broken := &broken{r: in}
	err := h.attach(ctx, pending.hash, pending.name, broken, int64(pending.size))
	if broken.err != nil {
		return broken.err
	}
	if err != nil {
		h.log.Info("result file not kept", "item", beacon.Excerpt(pending.hash, 200), "error", err)
		if _, err := io.Copy(io.Discard, in); err != nil {
			return err
		}
	}
	ack, encodeErr := protocol.Encode(uploadAck{protocol.ActionUploadAck, pending.hash, err == nil})
	if encodeErr != nil {
		return encodeErr
	}
	s.send(ack)
	return nil
}

// broken tells a failing reader from a failing disk.
type broken struct {
	r   io.Reader
	err error
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}
