package journal

import (
	"context"
	"io"
	"sync"
	"time"
)

// NewMemory makes a journal that nothing survives: for tests, and for programs
// that embed a hub and need no more. It has one follower, and forgets what that
// has seen.
func NewMemory() Journal { return &memory{more: make(chan struct{}, 1)} }

type memory struct {
	more chan struct{}

	mu      sync.Mutex
	seq     uint64
	records []Record
}

func (m *memory) Append(_ context.Context, _ string, data []byte) error {
	m.mu.Lock()
	m.seq++
	m.records = append(m.records, Record{m.seq, time.Now(), data})
	m.mu.Unlock()
	select {
	case m.more <- struct{}{}:
	default:
	}
	return nil
}

func (m *memory) Follow(ctx context.Context, _ uint64, each func(Record) error) error {
	for {
		m.mu.Lock()
		records := m.records
		m.records = nil
		m.mu.Unlock()
		for _, r := range records {
			if err := each(r); err != nil {
				return err
			}
		}
		if len(records) > 0 {
			continue
		}
		select {
		case <-m.more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (m *memory) Last(context.Context) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.seq, nil
}

func (m *memory) Most() int { return 1 << 30 }

func (m *memory) Snapshot(context.Context) (io.ReadCloser, uint64, error) { return nil, 0, nil }

func (m *memory) Save(context.Context, uint64, func(io.Writer) error) error { return nil }

func (m *memory) Shared() bool { return false }

func (m *memory) Close(context.Context) error { return nil }
