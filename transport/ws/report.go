package ws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
)

func (s *socket) Complete(ctx context.Context, hash string, r beacon.Result) error {
	return s.Deliver(ctx, []transport.Report{{Hash: hash, Result: r}}, func() {})[0]
}

func (s *socket) Fail(ctx context.Context, hash, message string, log []string) error {
	return s.Deliver(ctx, []transport.Report{{Hash: hash, Result: beacon.Result{Log: log}, Failed: true, Message: message}}, func() {})[0]
}

// Deliver implements transport.Deliverer. Reports go as frames, all at once.
// Since servers acknowledge nothing on the socket, they count as delivered when
// the server has answered a ping that was sent after them, and then does not
// list the items any more among those that the beacon works on: it says so in
// the answer to a heartbeat by HTTP. What it still lists, and what is no frame,
// goes by HTTP.
func (s *socket) Deliver(ctx context.Context, reports []transport.Report, sent func()) []error {
	sent = sync.OnceFunc(sent)
	defer sent()
	reports = slices.Clone(reports)
	errs := make([]error, len(reports))
	frames := make([][]byte, 0, len(reports))
	framed := make([]int, 0, len(reports)) // indices
	var others []int
	for i := range reports {
		reports[i].Result = s.upload(ctx, reports[i])
		frame, err := encode(reports[i])
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("%w: %w", transport.ErrRefused, err)
		case frame == nil || len(frame) > s.cfg.MaxFrame:
			others = append(others, i)
		default:
			frames, framed = append(frames, frame), append(framed, i)
		}
	}
	if len(framed) > 0 {
		unsure, err := s.send(ctx, reports, frames, framed, func() {
			if len(others) == 0 {
				sent()
			}
		})
		if err != nil {
			for _, i := range framed {
				errs[i] = err
			}
		}
		others = append(others, unsure...)
	}
	if len(others) > 0 {
		s.sendByHTTP(ctx, reports, others, errs)
	}
	for _, err := range errs {
		if err == nil {
			s.intake.Reported()
		}
	}
	return errs
}

// encode makes a frame, nil for a report with files, which would have to be in
// memory.
func encode(r transport.Report) ([]byte, error) {
	switch {
	case r.Failed:
		return protocol.EncodeError(r.Hash, r.Message, r.Result, r.Attempt)
	case len(r.Result.Outputs.Files()) > 0:
		return nil, nil
	}
	return protocol.EncodeComplete(r.Hash, r.Result, r.Attempt)
}

// send sends reports as frames and finds out whether they have arrived. It
// returns those that may not have, to be sent by HTTP.
func (s *socket) send(ctx context.Context, reports []transport.Report, frames [][]byte, framed []int, sent func()) (unsure []int, err error) {
	if s.intake.Stalled() {
		return framed, nil // nobody reads, so no answer could arrive
	}
	hashes := make([]string, len(framed))
	watches := map[int]*session.Watch{}
	for k, i := range framed {
		hashes[k] = reports[i].Hash
		if reports[i].Failed { // what a server tries again at once is no report that was lost
			watches[i] = s.intake.Watch(hashes[k])
			defer s.intake.Unwatch(watches[i])
		}
	}
	if err := s.write(ctx, frames...); err != nil {
		return nil, err
	}
	sent()
	listed, err := s.audit(ctx, hashes)
	if err != nil {
		return nil, err
	}
	for _, k := range listed {
		if i := framed[k]; watches[i] == nil || !s.intake.Unwatch(watches[i]) {
			unsure = append(unsure, i)
		}
	}
	return unsure, nil
}

func (s *socket) sendByHTTP(ctx context.Context, reports []transport.Report, which []int, errs []error) {
	list := make([]transport.Report, len(which))
	for k, i := range which {
		list[k] = reports[i]
	}
	unsent := s.during(ctx, func(ctx context.Context) error { // errs has what comes of it
		for k, err := range s.client.Deliver(ctx, list) {
			errs[which[k]] = err
		}
		return nil
	})
	for _, i := range which {
		if unsent != nil || errs[i] != nil && s.life.Err() != nil {
			errs[i] = s.cause()
		}
	}
}

// An inquiry asks whether the server has the reports of items: whether it has
// handled all that was sent so far, and then does not list them any more.
type inquiry struct {
	hashes []string
	listed chan []int // indices of those that it has, and of those of which it says nothing
}

// audit asks, together with all who ask at the time.
func (s *socket) audit(ctx context.Context, hashes []string) (listed []int, err error) {
	q := inquiry{hashes, make(chan []int, 1)}
	s.mu.Lock()
	s.inquiries = append(s.inquiries, q)
	s.mu.Unlock()
	signal(s.asked)
	select {
	case listed := <-q.listed:
		return listed, nil
	case <-s.intake.Stall(): // nobody reads, so no answer could arrive
		return every(hashes), nil
	case <-s.life.Done():
		return nil, s.cause()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// every gives all indices.
func every(hashes []string) []int {
	indices := make([]int, len(hashes))
	for k := range indices {
		indices[k] = k
	}
	return indices
}

func (s *socket) open() []inquiry {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := s.inquiries
	s.inquiries = nil
	return open
}

// ask puts inquiries off.
func (s *socket) ask(again []inquiry) {
	if len(again) == 0 {
		return
	}
	s.mu.Lock()
	s.inquiries = append(again, s.inquiries...)
	s.mu.Unlock()
	signal(s.asked)
}

// answer answers inquiries by what the server says that the beacon works on.
func (s *socket) answer(open []inquiry, current session.Current) {
	busy := make(map[string]bool, len(current.Hashes))
	for _, hash := range current.Hashes {
		busy[hash] = true
	}
	for _, q := range open {
		var listed []int
		for k, hash := range q.hashes {
			if !current.Known || busy[hash] {
				listed = append(listed, k)
			}
		}
		q.listed <- listed
	}
}

// Inquiries follow each other after this time. A slow answer is no reason to wait
// longer: what is not confirmed piles up meanwhile, until no more items are taken.
const inquiryPause = 10 * time.Millisecond

// heartbeat tells the server on the socket that the beacon is alive, and asks
// it by HTTP whether it still knows the beacon and what it thinks that the
// beacon works on: on the socket it would not say.
func (s *socket) heartbeat() {
	tick := time.NewTicker(s.cfg.HeartbeatInterval)
	defer tick.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	unknown, resting := 0, true
	for {
		asked := s.asked
		if resting {
			asked = nil
		}
		select {
		case <-pause.C:
			resting = false
			continue
		case <-asked:
		case <-tick.C:
			asked = nil
		case <-s.due:
			asked = nil
		case <-s.beats.Done():
			return
		}
		sign := protocol.Heartbeat{Draining: s.draining.Load()}
		if asked == nil {
			sign.ActiveWorkItems = s.intake.Active()
			frame, err := protocol.EncodeHeartbeat(s.BeaconID(), sign)
			if err == nil {
				err = s.write(s.beats, frame)
			}
			if err != nil {
				return
			}
		}
		open := s.open()
		if len(open) > 0 {
			switch err := s.pong(); {
			case errors.Is(err, errUnconfirmed):
				s.answer(open, session.Current{})
				open = nil
			case err != nil:
				s.lose(err)
				return
			}
		}
		current, err := s.client.Heartbeat(s.beats, sign)
		switch {
		case err == nil:
			unknown = 0
			s.answer(open, current)
		case s.beats.Err() != nil:
			return
		case errors.Is(err, session.ErrUnknownBeacon):
			s.answer(open, session.Current{})
			if unknown++; unknown > maxUnknown {
				s.lose(errors.New("the server keeps forgetting this beacon"))
				return
			}
			s.log.Warn("the server no longer knows this beacon; registering again", "beacon", s.BeaconID())
			// Until the server has answered, it knows the beacon no better: to ask
			// again would be to register twice.
			if err := s.again(s.beats); err != nil {
				if s.beats.Err() == nil {
					s.lose(err)
				}
				return
			}
		default:
			s.log.Warn("heartbeat by HTTP failed", "err", err)
			s.ask(open)
		}
		resting = true
		pause.Reset(inquiryPause)
	}
}

// maxUnknown is how often in a row a beacon registers again on one socket.
const maxUnknown = 3

// upload sends the files of a result that are wanted beside of it, where the
// server takes them. What remains is the result without those.
func (s *socket) upload(ctx context.Context, r transport.Report) beacon.Result {
	files := r.Result.Outputs.Files()
	if len(files) == 0 || r.Failed {
		return r.Result
	}
	result := r.Result
	result.Outputs = maps.Clone(result.Outputs)
	for _, output := range slices.Sorted(maps.Keys(files)) {
		f := files[output]
		sent := false
		// Servers that do not count attempts are older than uploads, and larger
		// messages kill others.
		switch {
		case !f.Upload || !s.intake.Counts():
			f.Upload = false
		case f.Size > int64(s.cfg.MaxFrame): // by HTTP, perhaps
		case !s.intake.Stalled():
			var err error
			if sent, err = s.uploadFile(ctx, r.Hash, f); err != nil {
				s.log.Warn("the output could not be sent beside of its result", "item", beacon.Excerpt(r.Hash, 200), "err", err)
			}
			f.Upload = false
		}
		if sent || f.Optional && !f.Upload {
			delete(result.Outputs, output)
		} else {
			result.Outputs[output] = f
		}
	}
	return result
}

// uploadFile announces a file, sends it, and waits for the server's word on it.
func (s *socket) uploadFile(ctx context.Context, hash string, f beacon.File) (taken bool, err error) {
	announcement, err := protocol.EncodeUpload(hash, f.Name, f.Size)
	if err != nil {
		return false, err
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return false, fmt.Errorf("open the output file: %w", err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || info.Size() != f.Size {
		return false, fmt.Errorf("%w (%w)", protocol.ErrDamaged, errors.Join(err))
	}
	ack := make(chan bool, 1)
	s.mu.Lock()
	s.acks[hash] = ack
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.acks, hash)
		s.mu.Unlock()
	}()
	timeout := s.cfg.RequestTimeout + session.Allowance(f.Size)
	if err := s.writeFile(ctx, announcement, file, f.Size, timeout); err != nil {
		return false, err
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case taken = <-ack:
		return taken, nil
	case <-timer.C:
		return false, fmt.Errorf("the server did not acknowledge the file within %v", timeout)
	case <-s.intake.Stall():
		return false, errUnconfirmed
	case <-s.life.Done():
		return false, s.cause()
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// writeFile sends an announcement and the file after it, with nothing between.
func (s *socket) writeFile(ctx context.Context, announcement []byte, file io.Reader, size int64, timeout time.Duration) error {
	if err := s.acquire(ctx); err != nil {
		return err
	}
	defer s.release()
	s.begun.Add(size)
	defer s.written.Add(size)
	err := s.writeWithin(timeout, func(ctx context.Context, room func() error) error {
		if err := s.writeMessage(ctx, websocket.MessageText, announcement, room); err != nil {
			return err
		}
		return s.copyMessage(ctx, websocket.MessageBinary, file, size, room)
	})
	if err != nil { // half a message cannot be taken back
		s.lose(fmt.Errorf("send a file: %w", err))
		return s.cause()
	}
	return nil
}
