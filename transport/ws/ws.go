// Package ws connects a worker to an Ultravisor server by WebSocket, over which
// the server pushes work.
//
// Servers acknowledge nothing on the socket, so a report counts as delivered
// once the server has answered a ping that was sent after it: frames are
// handled in order. What is too large for a frame, or cannot be confirmed that
// way, goes by HTTP. And since servers of March 2026 never push what had to
// wait, the session also asks for work by HTTP while it has a free slot.
package ws

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/cork"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
)

// patience is how long a server may take to push the next item after a report
// before it is asked for one.
const patience = 25 * time.Millisecond

// Dial makes a transport.Dial that logs in, upgrades and registers.
func Dial(cfg session.Config) transport.Dial {
	return func(ctx context.Context) (transport.Session, error) {
		client, err := session.NewClient(cfg)
		if err != nil {
			return nil, err
		}
		s, err := open(ctx, client)
		if err != nil {
			client.Close()
			return nil, fmt.Errorf("connect by WebSocket: %w", err)
		}
		return s, nil
	}
}

// Probe makes a function that finds out whether the server can be reached by
// WebSocket, without registering.
func Probe(cfg session.Config) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		client, err := session.NewClient(cfg)
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.Authenticate(ctx); err != nil {
			return err
		}
		conn, _, err := upgrade(ctx, client)
		if err != nil {
			return err
		}
		if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
			return fmt.Errorf("close WebSocket: %w", err)
		}
		return nil
	}
}

func upgrade(ctx context.Context, client *session.Client) (*websocket.Conn, *cork.Conn, error) {
	cfg := client.Config()
	ctx, cancel := context.WithTimeout(ctx, cfg.RequestTimeout)
	defer cancel()
	var corked *cork.Conn
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) { corked = corkOf(got.Conn) }})
	//nolint:bodyclose // Dial closes the body; its documentation says so
	conn, answer, err := websocket.Dial(ctx, client.URL().String(), &websocket.DialOptions{HTTPClient: client.Upgrader()})
	if err != nil {
		if answer != nil && answer.StatusCode != http.StatusSwitchingProtocols {
			return nil, nil, fmt.Errorf("upgrade refused with status %d %s", answer.StatusCode, http.StatusText(answer.StatusCode))
		}
		return nil, nil, fmt.Errorf("upgrade at %s: %w", client.URL().Host, err)
	}
	conn.SetReadLimit(cfg.MaxMessage)
	if corked != nil {
		corked.Pull()
	}
	return conn, corked, nil
}

// corkOf finds the cork below a connection; nil if it was not made by us.
func corkOf(conn net.Conn) *cork.Conn {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	corked, _ := conn.(*cork.Conn)
	return corked
}

func open(ctx context.Context, client *session.Client) (*socket, error) {
	if err := client.Authenticate(ctx); err != nil {
		return nil, err
	}
	conn, corked, err := upgrade(ctx, client)
	if err != nil {
		return nil, err
	}
	s := &socket{
		client: client, cfg: client.Config(), conn: conn, cork: corked,
		intake:     session.NewIntake(client.Config(), patience),
		log:        client.Config().Logger,
		sending:    make(chan struct{}, 1),
		registered: make(chan struct{}, 1),
		left:       make(chan struct{}),
		due:        make(chan struct{}, 1),
		stilled:    make(chan struct{}),
		asked:      make(chan struct{}, 1),
		acks:       map[string]chan bool{},
	}
	client.Canceled = s.intake.Cancel
	s.life, s.end = context.WithCancelCause(context.Background())
	context.AfterFunc(s.life, func() { _ = conn.CloseNow() }) // ends what reads and writes
	s.tasks.Go(s.read)
	if err := s.await(ctx); err != nil {
		s.stop(err)
		return nil, err
	}
	s.tasks.Go(s.ping)
	s.beats, s.still = context.WithCancel(s.life)
	s.tasks.Go(func() {
		defer close(s.stilled)
		s.heartbeat()
	})
	s.tasks.Go(s.poll)
	return s, nil
}

type socket struct {
	client *session.Client
	cfg    session.Config
	conn   *websocket.Conn
	cork   *cork.Conn // below conn; nil if it has none
	intake *session.Intake
	log    *slog.Logger

	life  context.Context // of the session; its cause says why it ended
	end   context.CancelCauseFunc
	tasks sync.WaitGroup
	close sync.Once

	sending    chan struct{} // held while frames are written that must be adjacent
	begun      atomic.Int64  // bytes of frames, whose writing has begun
	written    atomic.Int64  // bytes of frames that are written
	confirmed  atomic.Int64  // bytes of frames that the server has read
	heard      atomic.Int64  // counts arrivals of bytes
	registered chan struct{}
	left       chan struct{} // closed when the server has acknowledged our leave
	leftOnce   sync.Once
	draining   atomic.Bool
	due        chan struct{} // a heartbeat is to be sent now

	beats   context.Context // of the heartbeats, which end before the beacon leaves
	still   context.CancelFunc
	stilled chan struct{} // closed when they have ended

	mu        sync.Mutex
	inquiries []inquiry
	asked     chan struct{}        // there are inquiries
	acks      map[string]chan bool // of uploads, by item
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (s *socket) BeaconID() string      { return s.client.BeaconID() }
func (s *socket) Transport() string     { return "websocket" }
func (s *socket) Done() <-chan struct{} { return s.life.Done() }

// await registers and waits until the server has confirmed it.
func (s *socket) await(ctx context.Context) error {
	if err := s.register(ctx); err != nil {
		return err
	}
	timer := time.NewTimer(s.cfg.RequestTimeout)
	defer timer.Stop()
	select {
	case <-s.registered:
		return nil
	case <-s.life.Done():
		return s.cause()
	case <-timer.C:
		return fmt.Errorf("register: the server did not answer within %v", s.cfg.RequestTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// again is await for a session that was registered before.
func (s *socket) again(ctx context.Context) error {
	select { // an answer to an earlier registration confirms nothing now
	case <-s.registered:
	default:
	}
	return s.await(ctx)
}

func (s *socket) register(ctx context.Context) error {
	frame, err := protocol.EncodeRegister(s.client.Registration())
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "register: %w", err)
	}
	return s.write(ctx, frame)
}

// Register introduces the beacon anew, as r says, on the same link: what runs
// goes on and is reported as before.
func (s *socket) Register(ctx context.Context, r protocol.Registration) error {
	earlier := s.BeaconID()
	s.client.SetRegistration(r)
	if err := s.again(ctx); err != nil {
		return err
	}
	return s.during(ctx, func(ctx context.Context) error { return s.client.Retire(ctx, earlier) })
}

// Attend has the next heartbeat, which is sent now, say what the owner has: what
// it does not have any more others may get, and only that.
func (s *socket) Attend(o transport.Owner) {
	s.intake.Attend(o)
	s.sign()
}

// sign has a heartbeat sent now.
func (s *socket) sign() { signal(s.due) }

// Drain has the server know that the beacon can do nothing any more, where that
// stops it from giving out work: servers that count attempts keep one record for
// the name and change it. The server of March 2026 would keep two, and has no
// ear for anything else; what it pushes now it gets back at the end.
func (s *socket) Drain(ctx context.Context) error {
	if s.intake.Counts() {
		r := s.client.Registration()
		r.Capabilities, r.ActionSchemas = nil, nil
		s.client.SetRegistration(r)
		if err := s.register(ctx); err != nil {
			return err
		}
	}
	s.draining.Store(true)
	s.sign()
	return nil
}

// cause is why the session ended: ErrDisconnected, or that the server rejected
// the beacon.
func (s *socket) cause() error {
	err := context.Cause(s.life)
	if errors.Is(err, transport.ErrDisconnected) || beacon.CodeOf(err) == beacon.Rejected {
		return err
	}
	return fmt.Errorf("%w: session closed", transport.ErrDisconnected)
}

// lose ends the session because of an error on the link.
func (s *socket) lose(err error) {
	if beacon.CodeOf(err) != beacon.Rejected && !errors.Is(err, transport.ErrDisconnected) {
		err = fmt.Errorf("%w: %w", transport.ErrDisconnected, err)
	}
	s.end(err)
}

// stop ends the session and waits for everything that it started.
func (s *socket) stop(err error) {
	s.end(err)
	_ = s.conn.CloseNow() // closed already, or closed now
	if s.still != nil {
		s.still()
	}
	s.tasks.Wait()
	s.client.Close()
}

// keptBuffer is the capacity up to which the reader's buffer is used again.
const keptBuffer = 1 << 20

// read owns the receiving end.
func (s *socket) read() {
	var buffer bytes.Buffer
	for {
		// Not s.life: it closes the connection when it ends, and to watch it for
		// every message costs more than to read it.
		kind, r, err := s.conn.Reader(context.Background())
		if err == nil {
			if buffer.Cap() > keptBuffer {
				buffer = bytes.Buffer{}
			}
			buffer.Reset()
			_, err = buffer.ReadFrom(counted{r, &s.heard})
		}
		if err != nil {
			s.lose(s.readError(err))
			return
		}
		if kind != websocket.MessageText {
			s.log.Debug("ignored a binary frame from the server", "bytes", buffer.Len())
			continue
		}
		s.heard.Add(1)
		if err := s.handle(buffer.Bytes()); err != nil {
			s.lose(err)
			return
		}
	}
}

// counted notes every arrival, so that a large message on a slow link does not
// look like silence.
type counted struct {
	io.Reader
	arrivals *atomic.Int64
}

func (c counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.arrivals.Add(1)
	return n, err
}

func (s *socket) readError(err error) error {
	var closed websocket.CloseError
	switch {
	case errors.As(err, &closed) && closed.Code == protocol.CloseRejected:
		return rejected(closed.Reason)
	case errors.As(err, &closed):
		return fmt.Errorf("the server closed the connection with code %d (%s)", closed.Code, beacon.Excerpt(closed.Reason, 120))
	case errors.Is(err, websocket.ErrMessageTooBig):
		return fmt.Errorf("the server sent a message larger than the limit of %d bytes: raise the limit if it is meant", s.cfg.MaxMessage)
	}
	return fmt.Errorf("read: %w", err)
}

func rejected(reason string) error {
	if reason == "" {
		reason = "no reason given"
	}
	return beacon.Errorf(beacon.Rejected, "the server rejected this beacon: %s (check the join secret)", beacon.Excerpt(reason, 200))
}

func (s *socket) handle(frame []byte) error {
	if item, ok := protocol.DecodePush(frame); ok {
		return s.intake.PushItem(s.life, item, len(frame))
	}
	e, err := protocol.DecodeEvent(frame)
	if err != nil {
		s.log.Warn("ignored a frame from the server", "err", err)
		return nil
	}
	switch e.EventType {
	case protocol.EventWorkItem:
		return s.intake.Push(s.life, e.WorkItem)
	case protocol.EventRegistered:
		if e.BeaconID == "" {
			s.log.Warn("the server registered this beacon without an id")
		}
		s.client.SetBeaconID(e.BeaconID)
		s.client.SetSession(e.SessionID)
		signal(s.registered)
	case protocol.EventRejected:
		return rejected(e.Reason)
	case protocol.EventCancel:
		s.intake.Cancel([]protocol.Cancellation{{WorkItemHash: e.WorkItemHash, AttemptNumber: e.AttemptNumber, Reason: e.Reason}})
	case protocol.EventDeregistered:
		s.leftOnce.Do(func() { close(s.left) })
	case "":
		if e.Action == protocol.ActionUploadAck {
			s.mu.Lock()
			ack := s.acks[e.WorkItemHash]
			delete(s.acks, e.WorkItemHash)
			s.mu.Unlock()
			if ack != nil {
				ack <- e.Success
			}
		}
	default:
		s.log.Debug("ignored an unknown event", "event", beacon.Excerpt(e.EventType, 80), "action", beacon.Excerpt(e.Action, 80))
	}
	return nil
}

// acquire waits for the socket's turn to write.
func (s *socket) acquire(ctx context.Context) error {
	select {
	case s.sending <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return s.cause()
	}
}

func (s *socket) release() { <-s.sending }

// write sends frames without another one between them. Ctx bounds the wait for
// the socket; a frame that has begun is finished, or the link ends, since half a
// frame cannot be taken back.
func (s *socket) write(ctx context.Context, frames ...[]byte) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	total := int64(0)
	for _, frame := range frames {
		total += int64(len(frame))
	}
	s.begun.Add(total)
	defer s.written.Add(total)
	err := s.writeWithin(s.cfg.RequestTimeout+session.Allowance(total), func(ctx context.Context, room func() error) error {
		for _, frame := range frames {
			if err := s.writeMessage(ctx, websocket.MessageText, frame, room); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		s.lose(fmt.Errorf("write: %w", err))
		return s.cause()
	}
	return nil
}

// writeWithin calls write, whose ctx is for the connection. Write calls room
// between pieces of what it writes: only there does it wait for a slow link, so
// that pings can go between the pieces.
func (s *socket) writeWithin(timeout time.Duration, write func(ctx context.Context, room func() error) error) error {
	if s.cork == nil {
		ctx, cancel := context.WithTimeout(s.life, timeout)
		defer cancel()
		return write(ctx, func() error { return nil })
	}
	deadline := time.Now().Add(timeout)
	s.cork.Hold()
	err := write(context.Background(), func() error { return s.cork.Room(deadline) })
	return errors.Join(err, s.cork.Release(deadline))
}

// piece is the size of the pieces in which messages are sent.
const piece = 64 << 10

// writeMessage sends a message.
func (s *socket) writeMessage(ctx context.Context, kind websocket.MessageType, content []byte, room func() error) error {
	if len(content) <= piece {
		if err := s.conn.Write(ctx, kind, content); err != nil {
			return err
		}
		return room()
	}
	return s.copyMessage(ctx, kind, bytes.NewReader(content), int64(len(content)), room)
}

func (s *socket) copyMessage(ctx context.Context, kind websocket.MessageType, content io.Reader, size int64, room func() error) error {
	w, err := s.conn.Writer(ctx, kind)
	if err != nil {
		return err
	}
	for left := size; left > 0; {
		n, err := io.CopyN(w, content, min(left, piece))
		if err == nil {
			err = room()
		}
		if err != nil {
			return err
		}
		left -= n
	}
	return w.Close()
}

// ping finds out when the peer is gone without a word.
func (s *socket) ping() {
	tick := time.NewTicker(s.cfg.PingInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.life.Done():
			return
		}
		if s.intake.Stalled() {
			continue // nobody reads, so no pong could arrive
		}
		if err := s.pong(); err != nil && s.life.Err() == nil && !errors.Is(err, errUnconfirmed) {
			s.lose(err)
		}
	}
}

// errUnconfirmed says that a pong could not arrive, for reasons that are no
// fault of the link.
var errUnconfirmed = errors.New("not confirmed")

// pong sends a ping and waits for its answer.
func (s *socket) pong() error {
	for {
		heard, written := s.heard.Load(), s.written.Load()
		timeout := s.cfg.PingTimeout + session.Allowance(s.begun.Load()-s.confirmed.Load())
		ctx, cancel := context.WithTimeout(s.life, timeout)
		err := s.conn.Ping(ctx)
		late := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			s.confirm(written)
			return nil
		case s.life.Err() != nil:
			return s.cause()
		case s.intake.Stalled():
			return errUnconfirmed
		case s.heard.Load() != heard:
			continue // slow, not silent
		}
		if late {
			return fmt.Errorf("the server has been silent for %v", timeout)
		}
		select { // who reads knows better why the connection is at its end
		case <-s.life.Done():
			return s.cause()
		case <-time.After(time.Second):
			return err
		}
	}
}

// confirm notes that the server has read so many bytes.
func (s *socket) confirm(bytes int64) {
	for before := s.confirmed.Load(); before < bytes && !s.confirmed.CompareAndSwap(before, bytes); before = s.confirmed.Load() {
	}
}

func (s *socket) poll() {
	failing := false
	// The only end is that of the session: a server that cannot be polled can
	// still push.
	_ = s.intake.Run(s.life, func(ctx context.Context) ([]byte, error) {
		raw, err := s.client.Poll(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			s.log.Warn("asking for work by HTTP failed; relying on what the server pushes", "err", err)
		}
		failing = err != nil
		return raw, err
	})
}

func (s *socket) Next(ctx context.Context) (beacon.WorkItem, error) {
	item, err := s.intake.Next(ctx, s.life.Done())
	if errors.Is(err, transport.ErrDisconnected) {
		err = s.cause()
	}
	return item, err
}

func (s *socket) Progress(ctx context.Context, hash string, p beacon.Progress) error {
	frame, err := protocol.EncodeProgress(hash, p)
	if err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	if len(frame) > s.cfg.MaxFrame {
		return s.during(ctx, func(ctx context.Context) error { return s.client.Progress(ctx, hash, p) })
	}
	return s.write(ctx, frame)
}

// during runs a call that ends with the session.
func (s *socket) during(ctx context.Context, call func(context.Context) error) error {
	return session.During(ctx, s.life, s.cause, call)
}

func (s *socket) Close(ctx context.Context) error {
	var err error
	s.close.Do(func() {
		s.intake.Close()
		if s.life.Err() == nil {
			err = s.deregister(ctx)
		}
		s.stop(nil)
	})
	return err
}

// deregister takes leave and shakes hands on the end of the connection, so that
// the server has let go of it before the next one begins.
func (s *socket) deregister(ctx context.Context) error {
	frame, err := protocol.EncodeDeregister(s.BeaconID())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = s.conn.CloseNow() })() // ends what waits below
	// A heartbeat on its way would learn that the beacon is unknown, and register
	// it again.
	s.still()
	select {
	case <-s.stilled:
	case <-ctx.Done():
		return fmt.Errorf("deregister: %w", ctx.Err())
	}
	if err := s.write(ctx, frame); err != nil {
		return fmt.Errorf("deregister: %w", err)
	}
	select {
	case <-s.left:
	case <-s.life.Done():
		return fmt.Errorf("deregister: %w", s.cause())
	case <-ctx.Done():
		return fmt.Errorf("deregister: %w", ctx.Err())
	}
	if err := s.conn.Close(websocket.StatusNormalClosure, "done"); err != nil && websocket.CloseStatus(err) == -1 {
		s.log.Debug("the connection did not end in order", "err", err)
	}
	return nil
}
