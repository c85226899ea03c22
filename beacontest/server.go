// Package beacontest helps to test what is built from beacons: an in-memory
// server for programs that embed a worker, and suites that every provider and
// every transport must pass.
package beacontest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// A Report is what a server was told about an item.
type Report struct {
	Hash string
	// Result holds the outputs as they came off the wire: numbers are
	// float64, objects map[string]any.
	Result  beacon.Result
	Failed  bool
	Message string // of a failure
}

// A Server is a server in memory. Its method Dial is a transport.Dial; only one
// session is open at a time. It is safe for concurrent use.
type Server struct {
	mu       sync.Mutex
	refusal  error
	sessions int
	current  *memorySession
	queue    []beacon.WorkItem
	running  map[string]beacon.WorkItem
	done     map[string]bool
	progress map[string][]beacon.Progress
	reports  []Report
	drained  bool
	changed  chan struct{}
}

// NewServer makes a server without items.
func NewServer() *Server {
	return &Server{
		running:  map[string]beacon.WorkItem{},
		done:     map[string]bool{},
		progress: map[string][]beacon.Progress{},
		changed:  make(chan struct{}),
	}
}

func (s *Server) announce() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Dial opens a session and ends the one before.
func (s *Server) Dial(ctx context.Context) (transport.Session, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refusal != nil {
		return nil, s.refusal
	}
	s.drop()
	s.sessions++
	s.drained = false
	s.current = &memorySession{server: s, id: fmt.Sprintf("bcn-memory-%d", s.sessions), done: make(chan struct{})}
	return s.current, nil
}

// Refuse makes every further Dial fail with err; nil lets them succeed again.
func (s *Server) Refuse(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = err
}

// Drop loses the link that is open. Items that were taken over it and not
// reported wait again, in no particular order, as on a real server.
func (s *Server) Drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
}

func (s *Server) drop() {
	if s.current == nil {
		return
	}
	close(s.current.done)
	s.current = nil
	for hash, item := range s.running {
		s.queue = append(s.queue, item)
		delete(s.running, hash)
	}
	s.announce()
}

// Push queues items for whoever asks next.
func (s *Server) Push(items ...beacon.WorkItem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, item := range items {
		delete(s.done, item.Hash)
	}
	s.queue = append(s.queue, items...)
	s.announce()
}

// Report waits for the next report that was not returned yet.
func (s *Server) Report(ctx context.Context) (Report, error) {
	for {
		s.mu.Lock()
		if len(s.reports) > 0 {
			r := s.reports[0]
			s.reports = s.reports[1:]
			s.mu.Unlock()
			return r, nil
		}
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Report{}, ctx.Err()
		}
	}
}

// Progress returns what was reported about an item so far.
func (s *Server) Progress(hash string) []beacon.Progress {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]beacon.Progress(nil), s.progress[hash]...)
}

// Cancel takes an item back from whoever has it.
func (s *Server) Cancel(hash, reason string) {
	s.mu.Lock()
	var owner transport.Owner
	waits := slices.ContainsFunc(s.queue, func(w beacon.WorkItem) bool { return w.Hash == hash })
	if s.current != nil && !waits {
		owner = s.current.owner
	}
	s.queue = slices.DeleteFunc(s.queue, func(w beacon.WorkItem) bool { return w.Hash == hash })
	s.mu.Unlock()
	if owner != nil {
		owner.Cancel(hash, 0, reason)
	}
}

// Active lists what the beacon that is connected says that it has, sorted.
func (s *Server) Active() []string {
	s.mu.Lock()
	var owner transport.Owner
	if s.current != nil {
		owner = s.current.owner
	}
	s.mu.Unlock()
	if owner == nil {
		return nil
	}
	return slices.Sorted(slices.Values(owner.Active()))
}

// Drained reports whether the beacon that is connected has said that it wants
// no more items.
func (s *Server) Drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil && s.drained
}

// Sessions counts the sessions that were opened.
func (s *Server) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions
}

// Connected reports whether a session is open.
func (s *Server) Connected() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current != nil
}

type memorySession struct {
	server *Server
	id     string
	done   chan struct{}
	owner  transport.Owner // guarded by the server's mu
}

func (m *memorySession) BeaconID() string      { return m.id }
func (m *memorySession) Transport() string     { return "memory" }
func (m *memorySession) Done() <-chan struct{} { return m.done }

func (m *memorySession) Attend(o transport.Owner) {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	m.owner = o
}

func (m *memorySession) Drain(context.Context) error {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	if m.lost() {
		return transport.ErrDisconnected
	}
	m.server.drained = true
	m.server.announce()
	return nil
}

func (m *memorySession) lost() bool {
	select {
	case <-m.done:
		return true
	default:
		return false
	}
}

func (m *memorySession) Next(ctx context.Context) (beacon.WorkItem, error) {
	for {
		m.server.mu.Lock()
		if m.lost() {
			m.server.mu.Unlock()
			return beacon.WorkItem{}, transport.ErrDisconnected
		}
		if ctx.Err() == nil && len(m.server.queue) > 0 {
			item := m.server.queue[0]
			m.server.queue = m.server.queue[1:]
			m.server.running[item.Hash] = item
			m.server.mu.Unlock()
			return item, nil
		}
		changed := m.server.changed
		m.server.mu.Unlock()
		select {
		case <-changed:
		case <-m.done:
		case <-ctx.Done():
			return beacon.WorkItem{}, ctx.Err()
		}
	}
}

func (m *memorySession) Progress(_ context.Context, hash string, p beacon.Progress) error {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	if m.lost() {
		return transport.ErrDisconnected
	}
	m.server.progress[hash] = append(m.server.progress[hash], p)
	m.server.announce()
	return nil
}

func (m *memorySession) Complete(_ context.Context, hash string, r beacon.Result) error {
	raw, err := json.Marshal(r.Outputs)
	if err != nil {
		return fmt.Errorf("%w: %w", transport.ErrRefused, err)
	}
	r.Outputs = nil
	if err := json.Unmarshal(raw, &r.Outputs); err != nil {
		return fmt.Errorf("%w: %w", transport.ErrRefused, err)
	}
	return m.report(Report{Hash: hash, Result: r})
}

func (m *memorySession) Fail(_ context.Context, hash, message string, log []string) error {
	return m.report(Report{Hash: hash, Result: beacon.Result{Log: log}, Failed: true, Message: message})
}

func (m *memorySession) report(r Report) error {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	if m.lost() {
		return transport.ErrDisconnected
	}
	if m.server.done[r.Hash] {
		return nil
	}
	m.server.done[r.Hash] = true
	delete(m.server.running, r.Hash)
	m.server.queue = slices.DeleteFunc(m.server.queue, func(w beacon.WorkItem) bool { return w.Hash == r.Hash })
	m.server.reports = append(m.server.reports, r)
	m.server.announce()
	return nil
}

func (m *memorySession) Close(context.Context) error {
	m.server.mu.Lock()
	defer m.server.mu.Unlock()
	if m.server.current == m {
		m.server.drop()
	}
	return nil
}

func isDisconnected(err error) bool { return errors.Is(err, transport.ErrDisconnected) }

func isRefused(err error) bool { return errors.Is(err, transport.ErrRefused) }
