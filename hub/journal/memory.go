package journal

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"
)

// NewMemory makes a journal that ends with the process: for tests, and for
// programs that embed a hub and need no more. Hubs may use it one after the
// other, as they would one on a disk.
func NewMemory() Journal { return &memory{changed: make(chan struct{})} }

type memory struct {
	mu       sync.Mutex
	records  []Record // those after the one before the first
	seq      uint64
	changed  chan struct{} // closed at the next Append
	snapshot []byte
	covers   uint64 // the records that the snapshot replaces
}

func (m *memory) Append(_ context.Context, _ string, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.seq++
	m.records = append(m.records, Record{m.seq, time.Now(), data})
	close(m.changed)
	m.changed = make(chan struct{})
	return nil
}

func (m *memory) Follow(ctx context.Context, after uint64, each func(Record) error) error {
	for {
		m.mu.Lock()
		first := m.seq - uint64(len(m.records)) // the last one that is dropped
		if after < first {
			m.mu.Unlock()
			return fmt.Errorf("%w: after record %d comes %d", ErrTrimmed, after, first+1)
		}
		records, changed := m.records[after-first:], m.changed
		m.mu.Unlock()
		for _, r := range records {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := each(r); err != nil {
				return err
			}
			after = r.Seq
		}
		if len(records) > 0 {
			continue
		}
		select {
		case <-changed:
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

func (m *memory) Snapshot(context.Context) (io.ReadCloser, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.snapshot == nil {
		return nil, 0, nil
	}
	return io.NopCloser(bytes.NewReader(m.snapshot)), m.covers, nil
}

func (m *memory) Save(_ context.Context, seq uint64, write func(io.Writer) error) error {
	var out bytes.Buffer
	if err := write(&out); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	first := m.seq - uint64(len(m.records))
	if seq > first { // those who follow may still want what the one before did not cover
		keep := m.covers - min(m.covers, first)
		m.records = append([]Record(nil), m.records[keep:]...)
	}
	m.snapshot, m.covers = out.Bytes(), seq
	return nil
}

func (m *memory) Shared() bool { return false }

func (m *memory) Close(context.Context) error { return nil }
