package hub

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/ultravisor/beacon"
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
	session  string
	member   *member // guarded by the queue's mutex; nil until registered
	lastRead atomic.Int64
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

// serveSocket runs one worker's connection to its end.
func (h *Hub) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil { // it is answered
		h.log.Debug("websocket upgrade refused", "error", err)
		return
	}
	conn.SetReadLimit(mostResult)
	s := &socket{conn: conn, session: sessionOf(r), wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	// Reading ends with the connection, never by a context: that would cut off
	// the close frame that tells the worker why.
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.ctx))
	var writing, watching sync.WaitGroup
	writing.Go(func() { h.write(ctx, s) })
	watching.Go(func() { h.watchOver(ctx, s) })
	err = h.read(ctx, s)
	s.stop(closeNormal, "")
	h.queue.leave(ctx, s)
	// Nor does writing: each frame has its time, and the last one is the reason.
	writing.Wait()
	cancel()
	watching.Wait()
	_ = conn.CloseNow()
	h.log.Debug("websocket ended", "error", err)
}

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
			writing, cancel := context.WithTimeout(ctx, sendTimeout)
			err := s.conn.Write(writing, websocket.MessageText, frame)
			cancel()
			if err != nil { // the connection is broken now, so reading ends, too
				_ = s.conn.CloseNow()
				return
			}
		}
		if stopped {
			_ = s.conn.Close(s.code, s.reason) // waits a few seconds for the peer
			return
		}
	}
}

// watchOver ends the connection of a worker that neither answers pings nor
// sends anything, and every connection when the hub closes.
func (h *Hub) watchOver(ctx context.Context, s *socket) {
	period := h.cfg.HeartbeatTimeout / 2
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
		pinging, cancel := context.WithTimeout(ctx, period)
		unhook := context.AfterFunc(h.ctx, cancel)
		err := s.conn.Ping(pinging)
		unhook()
		cancel()
		silent := time.Since(time.Unix(0, s.lastRead.Load()))
		if err != nil && h.ctx.Err() == nil && ctx.Err() == nil && silent > h.cfg.HeartbeatTimeout {
			h.log.Warn("worker does not answer and is taken for gone", "silent", silent)
			_ = s.conn.CloseNow()
			s.stop(closePolicy, "no answer")
			return
		}
	}
}

// noted remembers when bytes last came in: a pong cannot overtake a large frame.
type noted struct {
	r    io.Reader
	last *atomic.Int64
}

func (n noted) Read(p []byte) (int, error) {
	count, err := n.r.Read(p)
	n.last.Store(time.Now().UnixNano())
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
		in := noted{frame, &s.lastRead}
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
	var err error
	switch m.Action {
	case protocol.ActionRegister:
		h.join(ctx, s, raw)
	case protocol.ActionHeartbeat:
		h.queue.heartbeatSocket(s)
	case protocol.ActionComplete:
		err = h.queue.report(ctx, m.WorkItemHash, completion(m.Outputs, m.Log), h.queue.of(s))
	case protocol.ActionError:
		err = h.queue.report(ctx, m.WorkItemHash, failure(m.ErrorMessage, m.Log), h.queue.of(s))
	case protocol.ActionProgress:
		var p progress
		if p, err = decodeProgress(m.ProgressData); err == nil {
			err = h.queue.progress(ctx, m.WorkItemHash, p, h.queue.of(s))
		}
	case protocol.ActionDeregister:
		h.queue.deregisterSocket(ctx, s)
	default:
		h.log.Debug("message ignored", "action", beacon.Excerpt(m.Action, 80))
	}
	if err != nil {
		h.log.Info("message not accepted", "action", m.Action, "item", beacon.Excerpt(m.WorkItemHash, 200), "error", err)
	}
}

func (h *Hub) join(ctx context.Context, s *socket, raw []byte) {
	var info protocol.Registration
	err := json.Unmarshal(raw, &info)
	if err == nil && len(raw) > mostBody {
		err = beacon.Errorf(beacon.Invalid, "the registration is over the limit of %d bytes", mostBody)
	}
	if err == nil {
		if info.Name == "" {
			info.Name = "unnamed"
		}
		_, err = h.queue.join(ctx, info, s.session, s)
	}
	if err == nil {
		return
	}
	h.log.Warn("registration rejected", "error", err)
	frame, encodeErr := protocol.Encode(event{EventType: protocol.EventRejected, Reason: err.Error()})
	if encodeErr == nil {
		s.send(frame)
	}
	s.stop(closeReject, "Beacon admission denied")
}

// receive takes a binary frame: the announced file, or nothing that is wanted.
func (h *Hub) receive(ctx context.Context, s *socket, pending *announced, in io.Reader) error {
	if pending == nil {
		_, err := io.Copy(io.Discard, in)
		return err
	}
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
