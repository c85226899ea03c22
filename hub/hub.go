// Package hub is a small Ultravisor coordinator: beacons register, submitters
// hand in work, the hub brings the two together and keeps the results for a
// while. It speaks Ultravisor's protocol to both, over HTTP and WebSocket, so
// that real workers and submitters cannot tell it from the server they know,
// and it is not a workflow engine: operations, schedules and users are the real
// server's.
//
// A [Hub] is an [http.Handler]; listening, TLS and header timeouts are up to
// the caller. What it holds is in a [Store].
package hub

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Config bounds a Hub. Its zero value works.
type Config struct {
	// Log receives what happens; nil means slog.Default().
	Log *slog.Logger
	// Store keeps the work items; nil means in memory, bounded by the fields
	// below. The hub closes it.
	Store Store
	// DataDir is where uploaded files are kept, in a folder "files", over
	// restarts. Empty means a private temporary directory that Close removes.
	DataDir string
	// AllowedHosts are the names under which the hub may be addressed, besides
	// localhost and IP addresses. A request for any other name is refused, since
	// that is what a web page sends that had its own name point here (DNS
	// rebinding). Names are compared without port and regardless of case.
	AllowedHosts []string
	// HeartbeatTimeout is the silence after which a polling beacon is taken for
	// gone, and a connected one that does not answer pings; 0 means 60 seconds.
	HeartbeatTimeout time.Duration
	// AffinityTTL is how long a key stays with a beacon; 0 means an hour.
	AffinityTTL time.Duration
	// QueueLimit and QueueBytes bound what waits or runs, in items and in bytes
	// of their settings; 0 means 5,000 and 256 MiB. More is refused with 429.
	QueueLimit int
	QueueBytes int64
	// HistoryLimit, HistoryBytes and HistoryAge bound the finished items that
	// can be asked for; 0 means 10,000, 256 MiB and an hour.
	HistoryLimit int
	HistoryBytes int64
	HistoryAge   time.Duration
	// FileSize and FileBytes bound one uploaded file and all of them, FileAge
	// their time; 0 means 4 GiB, 16 GiB and 24 hours.
	FileSize  int64
	FileBytes int64
	FileAge   time.Duration
}

// A Hub is a coordinator. It is safe for concurrent use.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	hosts    map[string]bool
	queue    *queue
	files    *files
	sessions *sessions
	routes   []route
	broken   error // of restoring the store; answered to everybody

	ctx    context.Context //nolint:containedctx // ends when Close begins; requests have their own
	stop   context.CancelFunc
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // requests, sockets and the clock
}

// NewMemory makes a Store in memory within the bounds of a configuration. It
// outlives the hubs that it is given to: they are one hub that is restarted.
func NewMemory(cfg Config) Store {
	return newMemory(memoryLimits{
		live:      cmp.Or(cfg.QueueLimit, 5000),
		liveBytes: cmp.Or(cfg.QueueBytes, 256<<20),
		finished:  cmp.Or(cfg.HistoryLimit, 10_000),
		doneBytes: cmp.Or(cfg.HistoryBytes, 256<<20),
		age:       cmp.Or(cfg.HistoryAge, time.Hour),
	})
}

// New makes a hub that runs until Close.
func New(cfg Config) *Hub {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.HeartbeatTimeout = cmp.Or(cfg.HeartbeatTimeout, time.Minute)
	cfg.AffinityTTL = cmp.Or(cfg.AffinityTTL, time.Hour)
	if cfg.Store == nil {
		cfg.Store = NewMemory(cfg)
	}
	h := &Hub{
		cfg:      cfg,
		log:      cfg.Log,
		hosts:    map[string]bool{},
		queue:    newQueue(cfg, instanceName()),
		sessions: newSessions(),
		files: newFiles(cfg.Log, cfg.DataDir, fileLimits{
			size: cmp.Or(cfg.FileSize, 4<<30), total: cmp.Or(cfg.FileBytes, 16<<30), age: cmp.Or(cfg.FileAge, 24*time.Hour),
		}),
	}
	for _, host := range cfg.AllowedHosts {
		h.hosts[strings.ToLower(host)] = true
	}
	h.routes = h.table()
	h.ctx, h.stop = context.WithCancel(context.Background())
	if err := h.queue.restore(h.ctx); err != nil {
		h.broken = err
		h.log.Error("the hub cannot use its store and refuses all requests", "error", err)
	}
	h.active.Go(h.clock)
	return h
}

// instanceName is how this hub is named in what it sends.
func instanceName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "hub"
	}
	return normalise(host) + "-" + strings.ToLower(rand.Text()[:6])
}

// clock does what is due.
func (h *Hub) clock() {
	second := time.NewTicker(time.Second)
	defer second.Stop()
	for ticks := 1; ; ticks++ {
		select {
		case <-h.ctx.Done():
			return
		case <-second.C:
		}
		h.queue.tick(h.ctx)
		if ticks%60 != 0 {
			continue
		}
		if err := h.cfg.Store.Sweep(h.ctx); err != nil {
			h.log.Error("old work items cannot be dropped", "error", err)
		}
		h.files.sweep()
		h.sessions.sweep()
	}
}

// Close ends the hub: requests that wait are answered, sockets are closed with
// a going-away frame, temporary files are removed, and it returns when all of
// that is done or ctx is. Later requests get 503. Only the first call does
// anything.
func (h *Hub) Close(ctx context.Context) error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	h.mu.Unlock()
	h.stop()
	h.queue.unwatch()
	done := make(chan struct{})
	go func() {
		h.active.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		return fmt.Errorf("close the hub: requests are still being answered: %w", ctx.Err())
	}
	if err := h.files.close(); err != nil {
		return fmt.Errorf("close the hub: %w", err)
	}
	if err := h.cfg.Store.Close(ctx); err != nil {
		return fmt.Errorf("close the hub: %w", err)
	}
	return nil
}

// enter counts a request in, unless the hub is closing.
func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.active.Add(1)
	return true
}

// ServeHTTP implements http.Handler. A WebSocket upgrade is a worker's,
// whatever its path.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := responder{w, http.NewResponseController(w)}
	reply.limit(0) // an earlier request on this connection may have left one
	if !h.enter() {
		reply.problem(http.StatusServiceUnavailable, "ServiceUnavailable", "The hub is shutting down.")
		return
	}
	defer h.active.Done()
	if reason := h.foreign(r); reason != "" {
		reply.problem(http.StatusForbidden, "Forbidden", reason)
		return
	}
	if h.broken != nil {
		reply.problem(http.StatusServiceUnavailable, "ServiceUnavailable", "The hub cannot use its store; see its log.")
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		h.serveSocket(w, r)
		return
	}
	h.route(reply, r)
}
