// Package hub is a small Ultravisor coordinator: beacons register, submitters
// hand in work, the hub brings the two together and keeps the results for a
// while. It speaks Ultravisor's protocol to both, over HTTP and WebSocket, so
// that real workers and submitters cannot tell it from the server they know,
// and it is not a workflow engine: operations and schedules are the real
// server's.
//
// A [Hub] is an [http.Handler]; listening, TLS and header timeouts are up to
// the caller. What it knows is a ledger (package ledger), which any number of
// hubs share by way of one journal (package journal).
package hub

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/hub/object"
	"github.com/ultravisor/beacon/hub/pace"
)

// Config bounds a Hub. Its zero value works.
type Config struct {
	// Log receives what happens; nil means slog.Default().
	Log *slog.Logger
	// Journal is where everything is written down; nil means in memory, to end
	// with the process. The hub closes it.
	Journal journal.Journal
	// Settings are those that all hubs of one journal share: bounds, times and
	// tenants. The hub that was started last decides.
	Settings ledger.Settings
	// Guest has the hub take part by whatever settings are in force.
	Guest bool
	// SnapshotBytes is how much is written down at least between two snapshots;
	// 0 means 16 MiB.
	SnapshotBytes int64
	// URL is where other hubs, and beacons without a connection of their own,
	// reach this one; may be empty.
	URL string
	// DataDir is where uploaded files are kept, in a folder "files", over
	// restarts. Empty means a private temporary directory that Close removes.
	DataDir string
	// AllowedHosts are the names under which the hub may be addressed, besides
	// localhost and IP addresses. A request for any other name is refused, since
	// that is what a web page sends that had its own name point here (DNS
	// rebinding). Names are compared without port and regardless of case.
	AllowedHosts []string
	// Users may log in, and JoinSecret lets workers in that know it. Without
	// either, whom Anonymous names may do everything.
	Users      []User
	JoinSecret string
	Anonymous  Anonymous
	// RequestRate is how many requests per second a caller from another machine may
	// make on average, RequestBurst how many at once; 0 means 1,000 and twice the
	// rate, less than 0 that there is no bound.
	RequestRate  float64
	RequestBurst int
	// ListingGrace is how long what was sent to a beacon may not be among what it
	// says it has; 0 means 15 seconds. StallTimeout is how long a beacon that once
	// said what it has may not say so; 0 means 3 minutes.
	ListingGrace time.Duration
	StallTimeout time.Duration
	// Objects is where files are kept that all hubs of a journal should find; nil
	// means that there is no such place. ShareSize is up to which size they go
	// there; 0 means 64 MiB.
	Objects   object.Store
	ShareSize int64
	// FileSize and FileBytes bound one uploaded file and all those on the disk,
	// FileAge the time of those that no item needs; 0 means 4 GiB, 16 GiB and 24
	// hours.
	FileSize  int64
	FileBytes int64
	FileAge   time.Duration
}

func (c *Config) settings() ledger.Settings { return c.Settings }

// A Hub is a coordinator. It is safe for concurrent use.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	hosts    map[string]bool
	core     *coordinator
	files    *files
	between  *http.Transport // to other hubs
	users    map[string]User
	nobody   string        // a hash that no password has
	hashing  chan struct{} // holds a token for each password that is looked at
	logins   *limiters
	requests *limiters
	routes   []route

	ctx    context.Context //nolint:containedctx // ends when Close begins; requests have their own
	stop   context.CancelFunc
	mu     sync.Mutex
	closed bool
	active sync.WaitGroup // requests, sockets and the clock
}

// New makes a hub that runs until Close.
func New(cfg Config) *Hub {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	cfg.SnapshotBytes = cmp.Or(cfg.SnapshotBytes, 16<<20)
	cfg.ListingGrace = cmp.Or(cfg.ListingGrace, 15*time.Second)
	cfg.StallTimeout = cmp.Or(cfg.StallTimeout, 3*time.Minute)
	cfg.RequestRate = cmp.Or(cfg.RequestRate, 1000)
	cfg.RequestBurst = cmp.Or(cfg.RequestBurst, int(2*cfg.RequestRate))
	if cfg.Journal == nil {
		cfg.Journal = journal.NewMemory()
	}
	h := &Hub{
		cfg:      cfg,
		log:      cfg.Log,
		hosts:    map[string]bool{},
		between:  &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: time.Minute},
		users:    map[string]User{},
		hashing:  make(chan struct{}, loginsAtOnce),
		logins:   newLimiters(),
		requests: newLimiters(),
		files: newFiles(cfg.Log, cfg.DataDir, cfg.Objects, fileLimits{
			size: cmp.Or(cfg.FileSize, 4<<30), total: cmp.Or(cfg.FileBytes, 16<<30), age: cmp.Or(cfg.FileAge, 24*time.Hour),
			share: cmp.Or(cfg.ShareSize, 64<<20),
		}),
	}
	h.core = newCoordinator(cfg, h.files)
	for _, host := range cfg.AllowedHosts {
		h.hosts[strings.ToLower(host)] = true
	}
	h.routes = h.table()
	for _, u := range cfg.Users {
		h.users[u.Name] = u
		h.nobody = u.PasswordHash // as slow as anybody's
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	if u, err := url.Parse(cfg.URL); err == nil && u.Host != "" {
		h.hosts[hostname(u.Host)] = true
	}
	h.active.Go(func() { h.core.run(h.ctx) })
	h.active.Go(h.sweep)
	return h
}

// Ready waits until the hub has read the journal and takes part in it, and says
// why it cannot.
func (h *Hub) Ready(ctx context.Context) error {
	select {
	case <-h.core.ready:
		return h.core.failure()
	case <-h.core.failed:
		return h.core.failure()
	case <-h.ctx.Done():
		return errClosing
	case <-ctx.Done():
		return fmt.Errorf("read the journal: %w", ctx.Err())
	}
}

// Failed is closed when the hub cannot go on, since its journal is broken or
// damaged, say; Ready then says why. All that it can still do is to be closed.
func (h *Hub) Failed() <-chan struct{} { return h.core.failed }

func hostName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "hub"
	}
	return host
}

// sweep drops what has expired.
func (h *Hub) sweep() {
	minute := time.NewTicker(time.Minute)
	defer minute.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-minute.C:
		}
		h.files.sweep(h.ctx, h.core.needs)
		h.logins.sweep()
		h.requests.sweep()
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
	h.core.leave(ctx)
	h.stop()
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
	h.between.CloseIdleConnections()
	if err := h.files.close(); err != nil {
		return fmt.Errorf("close the hub: %w", err)
	}
	if err := h.cfg.Journal.Close(ctx); err != nil {
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

// startTimeout is how long a request waits for a hub that is still reading the
// journal.
const startTimeout = 10 * time.Second

// ServeHTTP implements http.Handler. A WebSocket upgrade is a worker's,
// whatever its path.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reply := responder{w, http.NewResponseController(w), h.log}
	_ = reply.control.SetWriteDeadline(time.Time{}) // an earlier request on this connection may have left one
	pace.Watch(h.ctx, w, r)
	if !h.enter() {
		reply.problem(http.StatusServiceUnavailable, "ServiceUnavailable", closingText)
		return
	}
	defer h.active.Done()
	if reason := h.foreign(r); reason != "" {
		reply.problem(http.StatusForbidden, "Forbidden", reason)
		return
	}
	starting, cancel := context.WithTimeout(r.Context(), startTimeout)
	err := h.Ready(starting)
	cancel()
	if err != nil {
		reply.problem(http.StatusServiceUnavailable, "ServiceUnavailable", "The hub cannot use its journal now; its log says why.")
		return
	}
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		h.serveSocket(w, r)
		return
	}
	h.route(reply, r)
}
