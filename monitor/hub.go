package monitor

import (
	"log/slog"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ultravisor/beacon/protocol"
)

// Hub serves /metrics, /healthz and /readyz for a hub. census counts what it has,
// ready says why it cannot be used; nil if it can.
func Hub(version string, census func() protocol.Census, ready func() error, log *slog.Logger) http.Handler {
	r := newRegistry(version)
	r.MustRegister(&hubFigures{census: census, ofCapability: ofCapabilities(), ofTenant: ofTenants()})
	return handler(r, ready, log)
}

// hubFigures are counted when they are asked for: the hub has counters of its own.
type hubFigures struct {
	census                func() protocol.Census
	ofCapability          []figure[backlog]
	ofTenant              []figure[tenant]
	tenants, capabilities names
}

// A figure is what is told of each capability, or of each tenant.
type figure[T any] struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*T) float64
	// most is for what is not added up for those that share a label.
	most bool
}

func figureOf[T any](kind prometheus.ValueType, name, help, label string, value func(*T) float64) figure[T] {
	return figure[T]{prometheus.NewDesc("beacon_hub_"+name, help, []string{label}, nil), kind, value, false}
}

type (
	backlog = protocol.BacklogRecord
	tenant  = protocol.TenantRecord
)

func ofCapabilities() []figure[backlog] {
	of := func(name, help string, value func(*backlog) float64) figure[backlog] {
		return figureOf(prometheus.GaugeValue, name, help, "capability", value)
	}
	oldest := of("oldest_wait_seconds", "How long the item waits that has waited longest.", func(b *backlog) float64 { return float64(b.OldestMs) / 1000 })
	oldest.most = true
	return []figure[backlog]{
		oldest,
		of("items_waiting", "Items that a beacon could have now, if it had a free slot.", func(b *backlog) float64 { return float64(b.Waiting) }),
		of("items_running", "Items that beacons have.", func(b *backlog) float64 { return float64(b.Running) }),
		of("free_slots", "Items that beacons could have besides.", func(b *backlog) float64 { return float64(b.FreeSlots) }),
		of("capability_beacons", "Beacons that offer the capability.", func(b *backlog) float64 { return float64(b.Beacons) }),
	}
}

func ofTenants() []figure[tenant] {
	gauge := func(name, help string, value func(*tenant) float64) figure[tenant] {
		return figureOf(prometheus.GaugeValue, "tenant_"+name, help, "tenant", value)
	}
	counter := func(name, help string, value func(*tenant) float64) figure[tenant] {
		return figureOf(prometheus.CounterValue, "tenant_"+name+"_total", help, "tenant", value)
	}
	return []figure[tenant]{
		gauge("items_waiting", "Items of the tenant that wait.", func(t *tenant) float64 { return float64(t.Queued) }),
		gauge("items_running", "Items of the tenant that beacons have.", func(t *tenant) float64 { return float64(t.Running) }),
		counter("items_completed", "Items that have ended with a result.", func(t *tenant) float64 { return float64(t.Completed) }),
		counter("items_failed", "Items that have failed for good.", func(t *tenant) float64 { return float64(t.Failed) }),
		counter("items_canceled", "Items that were canceled.", func(t *tenant) float64 { return float64(t.Canceled) }),
		counter("items_given", "How often an item was given to a beacon.", func(t *tenant) float64 { return float64(t.Given) }),
		counter("wait_seconds", "What given items have waited, all together.", func(t *tenant) float64 { return float64(t.WaitMs) / 1000 }),
		counter("slot_seconds", "Time in slots of beacons.", func(t *tenant) float64 { return float64(t.SlotMs) / 1000 }),
		counter("fuel", "Instructions that guests have executed.", func(t *tenant) float64 { return float64(t.Usage.Fuel) }),
		counter("staged_bytes", "Bytes of sources and of files written.", func(t *tenant) float64 { return float64(t.Usage.Staged) }),
		counter("sent_bytes", "Bytes that items have sent over the network.", func(t *tenant) float64 { return float64(t.Usage.Sent) }),
		counter("received_bytes", "Bytes that items have received over the network.", func(t *tenant) float64 { return float64(t.Usage.Received) }),
		counter("llm_tokens", "Tokens of language models.", func(t *tenant) float64 { return float64(t.Usage.Tokens) }),
		counter("llm_cost", "What language models have cost.", func(t *tenant) float64 { return t.Usage.Cost }),
	}
}

var (
	descBeacons  = prometheus.NewDesc("beacon_hub_beacons", "Beacons by status.", []string{"status"}, nil)
	descFinished = prometheus.NewDesc("beacon_hub_items_finished", "Items that have ended and are still known.", nil, nil)
	descDead     = prometheus.NewDesc("beacon_hub_items_dead", "Items that have failed for good and can be had again.", nil, nil)
	descHubs     = prometheus.NewDesc("beacon_hub_hubs", "Hubs that share the work, this one included.", nil, nil)
)

// Describe implements prometheus.Collector.
func (f *hubFigures) Describe(out chan<- *prometheus.Desc) { prometheus.DescribeByCollect(f, out) }

// Collect implements prometheus.Collector.
func (f *hubFigures) Collect(out chan<- prometheus.Metric) {
	c := f.census()
	gauge := func(desc *prometheus.Desc, value int, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(value), labels...)
	}
	for status, n := range c.Beacons {
		gauge(descBeacons, n, status)
	}
	gauge(descFinished, c.Finished)
	gauge(descDead, c.Dead)
	gauge(descHubs, c.Hubs)
	collect(out, f.ofCapability, c.Backlog, func(b *backlog) string { return f.capabilities.label(b.Capability) })
	collect(out, f.ofTenant, c.Tenants, func(t *tenant) string { return f.tenants.label(t.Tenant) })
}

// collect tells all figures of all records. Those with the same label are one.
func collect[T any](out chan<- prometheus.Metric, figures []figure[T], records []T, label func(*T) string) {
	sums := map[string][]float64{}
	for i := range records {
		name := label(&records[i])
		sum := sums[name]
		if sum == nil {
			sum = make([]float64, len(figures))
			sums[name] = sum
		}
		for n, f := range figures {
			if v := f.value(&records[i]); f.most {
				sum[n] = max(sum[n], v)
			} else {
				sum[n] += v
			}
		}
	}
	for name, sum := range sums {
		for n, f := range figures {
			out <- prometheus.MustNewConstMetric(f.desc, f.kind, sum[n], name)
		}
	}
}
