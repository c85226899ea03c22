package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

// A yard is hubs in processes of their own, whose work and workers are this one's.
type yard struct {
	*fleet

	hubs, nodes []*process
	workers     sync.WaitGroup
	stop        context.CancelFunc
	life        context.Context //nolint:containedctx // that of the workers
}

// newYard starts a hub on a folder of its own, or so many on a NATS cluster of
// three nodes. Everything is synced to the disk in either case.
func newYard(b *testing.B, clustered int) *yard {
	y := &yard{fleet: newFleet(b)}
	y.client.Timeout, y.client.Transport = 0, &http.Transport{MaxIdleConnsPerHost: 256}
	y.life, y.stop = context.WithCancel(context.Background())
	b.Cleanup(func() {
		y.stop()
		y.workers.Wait()
	})
	args := []string{"beacon", "hub"}
	if clustered > 0 {
		var urls string
		y.nodes, urls = y.cluster(3)
		args = append(args, "--nats", urls)
	}
	for i := range max(clustered, 1) {
		address := freeAddress(b)
		hub := y.process(append(args, "--listen", address, "--data", filepath.Join(y.dir, fmt.Sprint("data-", i)))...)
		y.hubs, y.servers = append(y.hubs, hub), append(y.servers, address)
		y.start(hub)
	}
	y.eventually("hubs answer", func() bool {
		for i := range y.servers {
			answer, err := y.client.Get(y.at(i) + "/status")
			if err != nil {
				return false
			}
			_ = answer.Body.Close()
		}
		return true
	})
	return y
}

func (y *yard) at(hub int) string { return "http://" + y.servers[hub%len(y.servers)] }

// worker takes part with so many slots and returns when it is registered.
// Results are kept in memory: what a worker's disk costs is measured elsewhere.
func (y *yard) worker(name string, hub, slots int, does time.Duration) {
	quiet := slog.New(slog.DiscardHandler)
	registered := make(chan struct{}, 1)
	dial := ws.Dial(session.Config{
		ServerURL: y.at(hub), Logger: quiet,
		Registration: protocol.NewRegistration(name, slots, []beacon.Capability{{Name: "Nothing", Actions: []beacon.Action{{Name: "Do"}}}}),
	})
	y.workers.Go(func() {
		_ = worker.Run(y.life, dial, func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			if does > 0 {
				time.Sleep(does)
			}
			return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0}}, nil
		}, worker.Config{MaxConcurrent: slots, Logger: quiet, OnRegistered: func(string, string) {
			select {
			case registered <- struct{}{}:
			default:
			}
		}})
	})
	select {
	case <-registered:
	case <-time.After(patience):
		y.t.Fatal("the worker is not registered")
	}
}

// post submits an item and reads the answer.
func (y *yard) post(hub int, what, tenant string, into any) error {
	body := `{"Capability":"Nothing","Action":"Do","Settings":{"N":"1"},"Tenant":"` + tenant + `"}`
	answer, err := y.client.Post(y.at(hub)+"/Beacon/Work/"+what, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, raw)
	}
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	return err
}

// enqueue submits items that nobody waits for, many at once.
func (y *yard) enqueue(tenant string, items int) {
	var left atomic.Int64
	left.Store(int64(items))
	var submitters sync.WaitGroup
	for range 64 {
		submitters.Go(func() {
			for left.Add(-1) >= 0 {
				var e protocol.Enqueued
				if err := y.post(0, "Enqueue", tenant, &e); err != nil {
					y.t.Error(err)
					return
				}
			}
		})
	}
	submitters.Wait()
}

// processor is what processes have used of the processor.
func (y *yard) processor(of []*process) time.Duration {
	var ticks int64
	for _, p := range of {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
		require.NoError(y.t, err)
		fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+2:]))
		for _, field := range fields[11:13] { // utime and stime
			n, err := strconv.ParseInt(field, 10, 64)
			require.NoError(y.t, err)
			ticks += n
		}
	}
	return time.Duration(ticks) * (time.Second / 100)
}

// resident is what a hub keeps in memory, without the program's file, in MiB.
func (y *yard) resident() float64 {
	return float64(status(y.t, y.hubs[0].cmd.Process.Pid, "RssAnon")) / (1 << 20)
}

// quantiles of durations, in milliseconds.
func quantiles(took []time.Duration, of ...int) []float64 {
	slices.Sort(took)
	out := make([]float64, len(of))
	for i, q := range of {
		out[i] = float64(took[min(len(took)*q/100, len(took)-1)].Microseconds()) / 1000
	}
	return out
}

// BenchmarkHubItemsFloor is what such a cluster takes for an item at least: two
// records of three copies, the second after the first is safe, written by a client
// that does nothing else.
func BenchmarkHubItemsFloor(b *testing.B) {
	f := newFleet(b)
	_, urls := f.cluster(3)
	nc, err := nats.Connect(urls)
	require.NoError(b, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(b, err)
	f.eventually("the cluster has a stream", func() bool {
		ctx, cancel := context.WithTimeout(b.Context(), 5*time.Second)
		defer cancel()
		_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: "floor", Subjects: []string{"floor"}, Replicas: 3, Storage: jetstream.FileStorage})
		return err == nil
	})
	record := make([]byte, 400)
	b.ResetTimer()
	for range b.N {
		for range 2 {
			_, err := js.Publish(b.Context(), "floor", record)
			require.NoError(b, err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
}

// BenchmarkHubItems is the way of items that do nothing, from a submitter to a
// worker and back, with so many on the way at once: a hub of its own, and two
// hubs on a cluster of three NATS nodes.
func BenchmarkHubItems(b *testing.B) {
	for _, kind := range []struct {
		name string
		hubs int
	}{{"embedded", 0}, {"cluster", 2}} {
		for _, flight := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s/in flight %d", kind.name, flight), func(b *testing.B) {
				y := newYard(b, kind.hubs)
				for i := range y.hubs {
					y.worker(fmt.Sprint("worker-", i), i, flight, 0)
				}
				y.dispatch(min(b.N, 20*flight), flight) // what is done once is done
				hubs, nodes := y.processor(y.hubs), y.processor(y.nodes)
				b.ResetTimer()
				took := y.dispatch(b.N, flight)
				b.StopTimer()
				at := quantiles(took, 50, 99)
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
				b.ReportMetric(at[0], "p50-ms")
				b.ReportMetric(at[1], "p99-ms")
				perItem := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N) }
				b.ReportMetric(perItem(y.processor(y.hubs)-hubs), "hub-µs/item")
				if kind.hubs > 0 {
					b.ReportMetric(perItem(y.processor(y.nodes)-nodes), "nodes-µs/item")
				}
			})
		}
	}
}

// dispatch has items carried out, and says how long each took.
func (y *yard) dispatch(items, flight int) []time.Duration {
	took := make([]time.Duration, items)
	var next atomic.Int64
	var submitters sync.WaitGroup
	for range flight {
		submitters.Go(func() {
			for i := next.Add(1) - 1; i < int64(items); i = next.Add(1) - 1 {
				began := time.Now()
				var d protocol.Dispatched
				if err := y.post(int(i), "Dispatch", "", &d); err != nil || !d.Success {
					y.t.Error(err, d.Error)
					return
				}
				took[i] = time.Since(began)
			}
		})
	}
	submitters.Wait()
	return took
}

// BenchmarkHubQueue is what a hub takes for 100,000 items that wait, and how long
// it needs to be back with them after it was killed.
func BenchmarkHubQueue(b *testing.B) {
	const items = 100_000
	y := newYard(b, 0)
	before := y.resident()
	began := time.Now()
	y.enqueue("", items)
	b.ReportMetric(items/time.Since(began).Seconds(), "enqueued/s")
	b.ReportMetric(before, "MiB-empty")
	b.ReportMetric(y.resident(), "MiB-full")
	y.kill(y.hubs[0])
	began = time.Now()
	y.start(y.hubs[0])
	y.eventually("the hub has its items again", func() bool {
		var view struct {
			Summary struct{ Buckets map[string]int }
		}
		return y.get("/Beacon/Queue?limit=1", &view) && view.Summary.Buckets["Upcoming"] == items
	})
	b.ReportMetric(time.Since(began).Seconds(), "s-restart")
	b.ReportMetric(y.resident(), "MiB-restarted")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHubBeacons is what 1,000 beacons cost that are connected and have
// nothing to do.
func BenchmarkHubBeacons(b *testing.B) {
	const beacons, watch = 1000, 40 * time.Second
	y := newYard(b, 0)
	before, began := y.resident(), y.processor(y.hubs)
	var joining sync.WaitGroup
	for part := range 8 {
		joining.Go(func() {
			for i := part; i < beacons; i += 8 {
				y.worker(fmt.Sprint("idle-", i), 0, 1, 0)
			}
		})
	}
	joining.Wait()
	b.ReportMetric(float64((y.processor(y.hubs)-began).Microseconds())/beacons, "µs/registration")
	began = y.processor(y.hubs)
	time.Sleep(watch) // heartbeats and pings come and go
	b.ReportMetric(100*float64(y.processor(y.hubs)-began)/float64(watch), "%-of-a-core")
	b.ReportMetric(before, "MiB-without")
	b.ReportMetric(y.resident(), "MiB-with")
	b.ReportMetric((y.resident()-before)*1024/beacons, "KiB/beacon")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkHubSmallTenant is how long a tenant waits that has an item now and then
// while another has 10,000 of them in the queue, and when there is nobody else.
// Items take 20 ms, in 8 slots.
func BenchmarkHubSmallTenant(b *testing.B) {
	const others, samples, slots, does = 10_000, 200, 8, 20 * time.Millisecond
	y := newYard(b, 0)
	y.worker("worker", 0, slots, does)
	alone, aloneWaits := y.now(samples)
	y.enqueue("large", others)
	beside, besideWaits := y.now(samples)
	var left struct{ Tenants []protocol.TenantRecord }
	require.True(b, y.get("/Beacon/Tenants", &left))
	for _, t := range left.Tenants {
		if t.Tenant == "large" {
			require.Positive(b, t.Queued, "the queue of the large tenant was empty before the end")
			b.ReportMetric(float64(t.Queued), "still-queued")
		}
	}
	a, s := quantiles(alone, 50, 95), quantiles(beside, 50, 95)
	b.ReportMetric(a[0], "p50-ms-alone")
	b.ReportMetric(a[1], "p95-ms-alone")
	b.ReportMetric(s[0], "p50-ms-beside")
	b.ReportMetric(s[1], "p95-ms-beside")
	b.ReportMetric(s[1]/a[1], "p95-ratio")
	b.ReportMetric(quantiles(aloneWaits, 95)[0], "p95-ms-queued-alone")
	b.ReportMetric(quantiles(besideWaits, 95)[0], "p95-ms-queued-beside")
	b.ReportMetric(0, "ns/op")
}

// now submits items one by one, with pauses, and says how long each result took,
// and how much of that the item was in the queue.
func (y *yard) now(samples int) (took, waited []time.Duration) {
	for range samples {
		began := time.Now()
		var d protocol.Dispatched
		require.NoError(y.t, y.post(0, "Dispatch", "small", &d))
		took = append(took, time.Since(began))
		var item protocol.WorkRecord
		require.True(y.t, y.get("/Beacon/Work/"+d.WorkItemHash, &item))
		waited = append(waited, time.Duration(item.QueueWaitMs)*time.Millisecond)
		time.Sleep(7 * time.Millisecond) // not in step with the slots
	}
	return took, waited
}

// BenchmarkHubDashboard is what the first page of the dashboard and one update of
// it cost while so many items wait and some run.
func BenchmarkHubDashboard(b *testing.B) {
	for _, items := range []int{10_000, 200_000} {
		b.Run(strconv.Itoa(items), func(b *testing.B) {
			y := newYard(b, 0)
			y.enqueue("", items-100)
			y.worker("worker", 0, 8, 50*time.Millisecond)
			for _, path := range []string{"/", "/items"} {
				name := map[string]string{"/": "overview", "/items": "items"}[path]
				bytes, took := 0, []time.Duration{}
				for range 20 {
					began := time.Now()
					answer, err := y.client.Get(y.at(0) + path)
					require.NoError(b, err)
					raw, err := io.ReadAll(answer.Body)
					require.NoError(b, err)
					require.Equal(b, http.StatusOK, answer.StatusCode)
					_ = answer.Body.Close()
					took, bytes = append(took, time.Since(began)), len(raw)
				}
				b.ReportMetric(float64(bytes), "B-"+name)
				b.ReportMetric(quantiles(took, 50)[0], "ms-"+name)
			}
			y.watch(b)
			b.ReportMetric(0, "ns/op")
		})
	}
}

// watch looks at the first page for a while, as a browser does.
func (y *yard) watch(b *testing.B) {
	const window = 10 * time.Second
	began, idle := y.processor(y.hubs), time.Now()
	time.Sleep(window) // what the work itself costs
	base := float64(y.processor(y.hubs)-began) / float64(time.Since(idle))
	ctx, cancel := context.WithTimeout(b.Context(), window)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, y.at(0)+"/live?page=%2F", nil)
	require.NoError(b, err)
	began, idle = y.processor(y.hubs), time.Now()
	answer, err := y.client.Do(r)
	require.NoError(b, err)
	defer answer.Body.Close()
	bytes, updates := 0, 0
	lines := bufio.NewReader(answer.Body)
	for {
		line, err := lines.ReadString('\n')
		bytes += len(line)
		if strings.HasPrefix(line, ":") { // ends an update
			updates++
		}
		if err != nil {
			break
		}
	}
	busy := float64(y.processor(y.hubs)-began)/float64(time.Since(idle)) - base
	require.Positive(b, updates)
	b.ReportMetric(float64(bytes)/float64(updates), "B/update")
	b.ReportMetric(busy*time.Since(idle).Seconds()*1000/float64(updates), "cpu-ms/update")
	b.ReportMetric(float64(updates)/time.Since(idle).Seconds(), "updates/s")
}
