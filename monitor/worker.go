package monitor

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ultravisor/beacon"
)

// An Item is an item that has ended.
type Item struct {
	Tenant, Capability string
	Waited, Took       time.Duration
	Usage              beacon.Usage
	ExitCode           int
	Code               beacon.Code // of the provider's error
}

// outcome is what is said of it: ok, failed with an exit code, or a code.
func (i Item) outcome() string {
	switch {
	case i.Code != "":
		return string(i.Code)
	case i.ExitCode != 0:
		return "exit_code"
	}
	return "ok"
}

// A Worker has the figures of a worker. It is safe for concurrent use.
type Worker struct {
	registry *prometheus.Registry

	connected                            *prometheus.GaugeVec
	registrations, losses                prometheus.Counter
	waiting, running                     *prometheus.GaugeVec
	items, refused                       *prometheus.CounterVec
	wait, time                           *prometheus.HistogramVec
	fuel, staged, traffic, tokens, costs *prometheus.CounterVec
	memory                               *prometheus.GaugeVec

	tenants names

	mu        sync.Mutex
	peaks     map[string]int64
	transport string // of the link; "" for none
	draining  bool
}

// NewWorker makes the figures of a worker that runs so many items at once.
// undelivered says how many results the server has not confirmed; nil leaves that
// out.
func NewWorker(version string, slots int, undelivered func() int) *Worker {
	w := &Worker{registry: newRegistry(version), peaks: map[string]int64{}}
	whose := []string{"tenant", "capability"}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
		w.registry.MustRegister(g)
		return g
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		w.registry.MustRegister(c)
		return c
	}
	seconds := func(name, help string) *prometheus.HistogramVec {
		h := prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name, Help: help, Buckets: []float64{.001, .005, .025, .1, .5, 2.5, 10, 60, 300, 1800},
		}, whose)
		w.registry.MustRegister(h)
		return h
	}
	gauge("beacon_slots", "How many items may run at once.").WithLabelValues().Set(float64(slots))
	w.connected = gauge("beacon_connected", "1 for the transport of the link to the server; 0 for one that was used before.", "transport")
	w.registrations = counter("beacon_registrations_total", "How often the worker has registered with its server.").WithLabelValues()
	w.losses = counter("beacon_link_losses_total", "How often the link was lost, or could not be made.").WithLabelValues()
	w.waiting = gauge("beacon_items_waiting", "Items that are here and wait for their tenant's turn.", whose...)
	w.running = gauge("beacon_items_running", "Items that run.", whose...)
	w.items = counter("beacon_items_total", "Items that have ended: ok, exit_code for one other than 0, or the code of an error.", append(whose, "outcome")...)
	w.refused = counter("beacon_items_refused_total", "Items that had no turn, such as those that are over a quota, by the code of the error.", append(whose, "outcome")...)
	w.wait = seconds("beacon_item_wait_seconds", "From an item's arrival to its turn.")
	w.time = seconds("beacon_item_duration_seconds", "From an item's turn to its end, with its files.")
	w.fuel = counter("beacon_fuel_total", "Instructions that guests have executed, as they are metered.", whose...)
	w.staged = counter("beacon_staged_bytes_total", "Bytes of sources and of files written.", whose...)
	w.traffic = counter("beacon_network_bytes_total", "Bytes over the network on behalf of items.", append(whose, "direction")...)
	w.tokens = counter("beacon_llm_tokens_total", "Tokens of language models, in and out.", whose...)
	w.costs = counter("beacon_llm_cost_total", "What language models have cost, in the currency of the price table.", whose...)
	w.memory = gauge("beacon_guest_memory_peak_bytes", "The most that one guest of a tenant has had.", "tenant")
	if undelivered != nil {
		w.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "beacon_results_undelivered", Help: "Results that are kept until the server has confirmed them.",
		}, func() float64 { return float64(undelivered()) }))
	}
	return w
}

// Handler serves /metrics, /healthz and /readyz, which is ready while the worker is
// registered and takes work.
func (w *Worker) Handler(log *slog.Logger) http.Handler { return handler(w.registry, w.ready, log) }

func (w *Worker) ready() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.draining:
		return errors.New("it takes no more work: it is stopping")
	case w.transport == "":
		return errors.New("it has no link to its server")
	}
	return nil
}

// Registered notes that the worker is registered, over a transport.
func (w *Worker) Registered(transport string) {
	w.link(transport)
	w.registrations.Inc()
}

// Lost notes that there is no link to a server, or none any more.
func (w *Worker) Lost() {
	w.link("")
	w.losses.Inc()
}

func (w *Worker) link(transport string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.transport != "" {
		w.connected.WithLabelValues(w.transport).Set(0)
	}
	w.transport = transport
	if transport != "" {
		w.connected.WithLabelValues(transport).Set(1)
	}
}

// Draining notes that no more items are taken.
func (w *Worker) Draining() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.draining = true
}

// Arrived notes that an item waits for its turn. Call what it returns when it has
// had it, with the error of one that gets none; that returns what to call when the
// item has ended.
func (w *Worker) Arrived(tenant, capability string) (turn func(err error) (ended func())) {
	tenant = w.tenants.label(tenant)
	waiting := w.waiting.WithLabelValues(tenant, capability)
	waiting.Inc()
	return func(err error) func() {
		waiting.Dec()
		if err != nil {
			w.refused.WithLabelValues(tenant, capability, string(beacon.CodeOf(err))).Inc()
			return func() {}
		}
		running := w.running.WithLabelValues(tenant, capability)
		running.Inc()
		return running.Dec
	}
}

// Ended counts an item that has ended.
func (w *Worker) Ended(i Item) {
	tenant, u := w.tenants.label(i.Tenant), i.Usage
	w.items.WithLabelValues(tenant, i.Capability, i.outcome()).Inc()
	w.wait.WithLabelValues(tenant, i.Capability).Observe(i.Waited.Seconds())
	w.time.WithLabelValues(tenant, i.Capability).Observe(i.Took.Seconds())
	w.fuel.WithLabelValues(tenant, i.Capability).Add(float64(u.Fuel))
	w.staged.WithLabelValues(tenant, i.Capability).Add(float64(max(u.Staged, 0)))
	w.traffic.WithLabelValues(tenant, i.Capability, "sent").Add(float64(max(u.Sent, 0)))
	w.traffic.WithLabelValues(tenant, i.Capability, "received").Add(float64(max(u.Received, 0)))
	w.tokens.WithLabelValues(tenant, i.Capability).Add(float64(max(u.Tokens, 0)))
	w.costs.WithLabelValues(tenant, i.Capability).Add(max(u.Cost, 0))
	w.mu.Lock()
	defer w.mu.Unlock()
	if u.Memory > w.peaks[tenant] {
		w.peaks[tenant] = u.Memory
		w.memory.WithLabelValues(tenant).Set(float64(u.Memory))
	}
}
