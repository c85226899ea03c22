// Package monitor tells those who run a worker or a hub how it fares, over HTTP at
// an address of its own: whether it lives, whether it takes work, and figures in
// Prometheus' format.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// mostScrapes is how many requests for figures are answered at a time.
const mostScrapes = 4

// newRegistry makes a registry that has the figures of the process, and which
// version of the program it is.
func newRegistry(version string) *prometheus.Registry {
	r := prometheus.NewRegistry()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "beacon_build_info", Help: "Always 1; the label says which version this is.", ConstLabels: prometheus.Labels{"version": version},
	})
	info.Set(1)
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), info)
	return r
}

// mostNames is how many tenants, and capabilities of a hub, have figures of their
// own. Those that come later are counted together, as others: strangers choose
// such names, and each takes memory here and in the system that monitors.
const mostNames = 200

// others is the label of those without figures of their own. Nobody is called
// that.
const others = "(others)"

// names are the labels there are. They are safe for concurrent use.
type names struct {
	mu   sync.Mutex
	seen map[string]bool
}

// label is how a name appears in figures.
func (n *names) label(name string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.seen[name]:
	case len(n.seen) >= mostNames:
		return others
	case n.seen == nil:
		n.seen = map[string]bool{name: true}
	default:
		n.seen[name] = true
	}
	return name
}

// handler serves /metrics, /healthz and /readyz. ready says why no work is taken;
// nil if it is.
func handler(r *prometheus.Registry, ready func() error, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn), MaxRequestsInFlight: mostScrapes,
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { say(w, nil) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { say(w, ready()) })
	return mux
}

func say(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	text := "ok"
	if err != nil {
		text = err.Error()
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_, _ = fmt.Fprintln(w, text) // whoever asked may be gone
}

// A Server serves a handler at an address. Close it.
type Server struct {
	listener net.Listener
	server   *http.Server
	serving  sync.WaitGroup
}

// Listen serves a handler at an address such as 127.0.0.1:9464. Whoever can reach
// it can read: it asks nobody who they are.
func Listen(ctx context.Context, address string, handler http.Handler, log *slog.Logger) (*Server, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for those who monitor: %w", err)
	}
	s := &Server{listener: listener, server: &http.Server{
		Handler: handler, ReadTimeout: 10 * time.Second, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}}
	s.serving.Go(func() {
		if err := s.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("those who monitor get no answer any more", "err", err)
		}
	})
	return s, nil
}

// URL is where it is, such as http://127.0.0.1:9464.
func (s *Server) URL() string { return "http://" + s.listener.Addr().String() }

// Close ends it at once.
func (s *Server) Close() error {
	err := s.server.Close()
	s.serving.Wait()
	return err
}
