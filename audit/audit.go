// Package audit writes down who ran what: for every work item whose it was, which
// modules ran, which permissions they made use of, whom they contacted and what
// they used; for every module how it was admitted. One JSON object a line, in a
// file that is only added to.
package audit

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// An Item is what became of a work item.
type Item struct {
	Tenant       string
	WorkItemHash string
	RunID        string `json:",omitempty"`
	Attempt      int    `json:",omitempty"`
	Capability   string
	Action       string
	// Began is when it had its turn.
	Began            time.Time
	WaitedMs, TookMs int64
	ExitCode         int
	Error            beacon.Code `json:",omitempty"` // the provider's
	// Modules are the digests of those that ran, Permissions those that were made
	// use of, as they were granted, Hosts those that were asked for something.
	Modules     []string `json:",omitempty"`
	Permissions []string `json:",omitempty"`
	Hosts       []string `json:",omitempty"`
	Fuel        uint64   `json:",omitempty"` // instructions
	Memory      int64    `json:",omitempty"` // bytes, of the largest guest
	Staged      int64    `json:",omitempty"` // bytes
	Sent        int64    `json:",omitempty"` // bytes
	Received    int64    `json:",omitempty"` // bytes
	Tokens      int64    `json:",omitempty"`
	Cost        float64  `json:",omitempty"`
}

// A Module is a module that was admitted.
type Module struct {
	Source   string
	Name     string
	Release  string `json:",omitempty"`
	SHA256   string
	SignedBy string `json:",omitempty"`
	Tenant   string `json:",omitempty"`
	// Granted are the permissions that it has.
	Granted []string
}

// A Log is open for writing. It is safe for concurrent use, and a nil Log drops
// what it is given.
type Log struct {
	log *slog.Logger

	mu   sync.Mutex
	file *os.File
	told bool // that it cannot be written
}

// Open opens a log, at whose end it goes on. Nobody but this user may read it.
// log is told when it cannot be written.
func Open(path string, log *slog.Logger) (*Log, error) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the audit log: %w", err)
	}
	return &Log{log: log, file: f}, nil
}

// Close closes the log.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("close the audit log: %w", err)
	}
	return nil
}

// Item writes down what became of a work item.
func (l *Log) Item(i Item) {
	for _, text := range []*string{&i.Tenant, &i.WorkItemHash, &i.RunID, &i.Capability, &i.Action} {
		*text = beacon.Excerpt(*text, maxText) // a server's
	}
	l.write(struct {
		Event string
		Time  time.Time
		Item
	}{"item", time.Now(), i})
}

// Module writes down how a module was admitted.
func (l *Log) Module(m Module) {
	for _, text := range []*string{&m.Source, &m.Name, &m.Release} {
		*text = beacon.Excerpt(*text, maxText)
	}
	if m.Granted == nil {
		m.Granted = []string{}
	}
	l.write(struct {
		Event string
		Time  time.Time
		Module
	}{"module", time.Now(), m})
}

// maxText is the longest text from strangers in an entry, in bytes.
const maxText = 512

// write adds a line, with one write, so that lines of several workers that share
// a file do not mix.
func (l *Log) write(entry any) {
	if l == nil {
		return
	}
	line, err := json.Marshal(entry)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil && !l.told {
		l.told = true
		l.log.Error("the audit log cannot be written", "err", err)
	}
	if err == nil {
		l.told = false
	}
}
