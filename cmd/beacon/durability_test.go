//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// Programs that the tests run as processes of their own, by the name they are
// called: a worker whose results say which execution they are of, and a node of
// a NATS cluster.
var processes = map[string]func(){"fleet-worker": fleetWorker, "nats-node": natsNode}

// TestHubIsKilled has items pass through a hub that is killed again and again,
// and started again on the same folder.
//
// BEACON_HUB_CHAOS is how many items, without which the test is skipped; the hub
// is killed once for every 160 of them.
func TestHubIsKilled(t *testing.T) {
	f := chaosFleet(t)
	address := freeAddress(t)
	hub := f.process("beacon", "hub", "--listen", address, "--data", filepath.Join(f.dir, "data"))
	f.servers = []string{address}
	f.start(hub)
	for _, name := range []string{"one", "two"} {
		f.start(f.process("fleet-worker", "http://"+address, name, f.dir))
	}
	f.run(160, func() string {
		f.kill(hub)
		f.start(hub)
		return "hub"
	})
}

// TestClusterIsKilled has items pass through two hubs that share a NATS cluster
// of three nodes, to four workers. Whatever it hits, one after the other is
// killed and started again: nodes, hubs and workers.
func TestClusterIsKilled(t *testing.T) {
	f := chaosFleet(t)
	nodes, urls := f.cluster(3)
	var hubs []*process
	for i := range 2 {
		address := freeAddress(t)
		hub := f.process("beacon", "hub", "--listen", address, "--data", filepath.Join(f.dir, fmt.Sprint("files-", i)), "--nats", urls)
		hubs = append(hubs, hub)
		f.servers = append(f.servers, address)
		f.start(hub)
	}
	front := f.balance()
	var workers []*process
	for i := range 4 {
		workers = append(workers, f.process("fleet-worker", "http://"+front, fmt.Sprint("worker-", i), f.dir))
		f.start(workers[i])
	}
	turn := 0
	f.run(60, func() string {
		turn++
		switch turn % 3 {
		case 0:
			n := f.dice.IntN(len(nodes))
			f.kill(nodes[n])
			f.start(nodes[n])
			f.healthy(nodes) // one at a time: two of three are no cluster
			return "node"
		case 1:
			hub := hubs[f.dice.IntN(len(hubs))]
			f.kill(hub)
			f.start(hub)
			return "hub"
		}
		one := workers[f.dice.IntN(len(workers))]
		f.kill(one)
		f.start(one)
		return "worker"
	})
}

// A fleet is everything that a durability test starts.
type fleet struct {
	t       testing.TB
	items   int
	dir     string
	dice    *rand.Rand
	servers []string // addresses of hubs
	running []*process
	client  *http.Client

	mu    sync.Mutex
	first map[string]string // by hash: the result that was seen first
}

// chaosFleet is one for so many items as the environment asks for.
func chaosFleet(t *testing.T) *fleet {
	items, _ := strconv.Atoi(os.Getenv("BEACON_HUB_CHAOS"))
	if items == 0 {
		t.Skip("takes minutes; set BEACON_HUB_CHAOS to the number of items, 5000 for all of it")
	}
	seed, _ := strconv.ParseUint(cmp.Or(os.Getenv("BEACON_CHAOS_SEED"), "1"), 10, 64)
	f := newFleet(t)
	f.items, f.dice = items, rand.New(rand.NewPCG(seed, 1))
	return f
}

func newFleet(t testing.TB) *fleet {
	f := &fleet{
		t: t, dir: t.TempDir(), first: map[string]string{},
		client: &http.Client{Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 32}},
	}
	t.Cleanup(func() {
		for _, p := range f.running {
			if p.cmd != nil {
				_ = p.cmd.Process.Kill()
				_ = p.cmd.Wait()
			}
			if t.Failed() {
				t.Logf("%v said at last:\n%s", p.args, p.said.tail())
			}
		}
		f.client.CloseIdleConnections()
	})
	return f
}

// A process is one that can be killed and started again.
type process struct {
	args []string
	cmd  *exec.Cmd
	said *lockedBuffer
}

func (f *fleet) process(args ...string) *process {
	p := &process{args: args, said: &lockedBuffer{}}
	f.running = append(f.running, p)
	return p
}

func (f *fleet) start(p *process) {
	self, err := os.Executable()
	require.NoError(f.t, err)
	p.cmd = exec.CommandContext(context.Background(), self, p.args[1:]...)
	p.cmd.Args[0] = p.args[0]
	p.cmd.Env = append(os.Environ(), "BEACON_CACHE_DIR="+filepath.Join(f.dir, "cache"))
	p.cmd.Stdout, p.cmd.Stderr = p.said, p.said
	require.NoError(f.t, p.cmd.Start())
}

// kill ends a process that must not have ended by itself.
func (f *fleet) kill(p *process) {
	require.NoError(f.t, p.cmd.Process.Kill())
	_ = p.cmd.Wait()
	require.Equal(f.t, -1, p.cmd.ProcessState.ExitCode(), "%v had ended by itself:\n%s", p.args, p.said.tail())
	p.cmd = nil
}

// run submits the items, has strike called once for every so many that are done,
// and looks at the results.
func (f *fleet) run(every int, strike func() string) {
	t := f.t
	began := time.Now()
	f.eventually("beacons register", func() bool {
		var beacons []json.RawMessage
		return f.get("/Beacon", &beacons) && len(beacons) > 0
	})
	ctx, stop := context.WithCancel(context.Background())
	hashes := make([]string, f.items)
	next := make(chan int)
	var submitters, looker sync.WaitGroup
	for range 8 {
		submitters.Go(func() {
			for n := range next {
				hashes[n] = f.submit(ctx, n)
			}
		})
	}
	submitters.Go(func() {
		defer close(next)
		for n := range f.items {
			select {
			case next <- n:
			case <-ctx.Done():
				return
			}
		}
	})
	looker.Go(func() { f.look(ctx) })
	defer func() {
		stop()
		submitters.Wait()
		looker.Wait()
	}()

	strikes := map[string]int{}
	threshold, last, change := every/2, 0, time.Now()
	for {
		done, ok := f.done()
		if done != last {
			last, change = done, time.Now()
		}
		require.Less(t, time.Since(change), patience, "nothing happens any more after %d of %d items", last, f.items)
		if ok && done >= f.items {
			break
		}
		if done < threshold {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		threshold += every
		time.Sleep(time.Duration(f.dice.IntN(100)) * time.Millisecond)
		strikes[strike()]++
	}
	took := time.Since(began)
	submitters.Wait()
	attempts := 0
	seen := map[string]bool{}
	for n, hash := range hashes {
		require.NotEmpty(t, hash)
		require.False(t, seen[hash], "two items have the hash %s", hash)
		seen[hash] = true
		attempts += f.check(n, hash)
	}
	executions := f.executions()
	t.Logf("%d items in %.1f s, none lost, none finished twice; killed: %v; %d attempts for %d items, %d executions",
		f.items, took.Seconds(), strikes, attempts, f.items, executions)
}

// fails is how often an item fails before it succeeds.
func fails(n int) int {
	if n%25 == 7 {
		return 2
	}
	return 0
}

// submit hands in an item until a hub has it for certain.
func (f *fleet) submit(ctx context.Context, n int) string {
	body := fmt.Sprintf(`{"Capability":"Fleet","Action":"Work","Settings":{"N":"%d","Fails":"%d","Sleep":"%d","maxRetries":"3","retryBackoffMs":"50"},"DelayMs":%d}`,
		n, fails(n), n%20, max(0, n%40-37)*200)
	for ctx.Err() == nil {
		for _, address := range f.servers {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/Beacon/Work/Enqueue", strings.NewReader(body))
			if err != nil {
				return ""
			}
			r.Header.Set(protocol.IdempotencyHeader, fmt.Sprint("item-", n))
			var enqueued protocol.Enqueued
			if f.ask(r, &enqueued) && enqueued.WorkItemHash != "" {
				return enqueued.WorkItemHash
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ""
}

func (f *fleet) ask(r *http.Request, into any) bool {
	answer, err := f.client.Do(r)
	if err != nil {
		return false
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return err == nil && answer.StatusCode == http.StatusOK && json.Unmarshal(raw, into) == nil
}

// get asks whichever hub answers.
func (f *fleet) get(path string, into any) bool {
	for _, address := range f.servers {
		r, err := http.NewRequest(http.MethodGet, "http://"+address+path, nil)
		if err == nil && f.ask(r, into) {
			return true
		}
	}
	return false
}

// done counts the items that have ended.
func (f *fleet) done() (int, bool) {
	var view struct {
		Summary struct{ Buckets map[string]int }
	}
	if !f.get("/Beacon/Queue?limit=1", &view) {
		return 0, false
	}
	b := view.Summary.Buckets
	return b["Completed"] + b["Errored"], b["Upcoming"]+b["InProgress"]+b["Stalled"] == 0
}

func (f *fleet) eventually(what string, holds func() bool) {
	require.Eventually(f.t, holds, patience, 20*time.Millisecond, what)
}

// look keeps the results of items as soon as they are there.
func (f *fleet) look(ctx context.Context) {
	for ctx.Err() == nil {
		var view struct{ Items []protocol.WorkRecord }
		if f.get("/Beacon/Queue?bucket=completed&limit=20", &view) {
			for _, item := range view.Items {
				f.note(item.WorkItemHash)
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// note remembers the result that an item had first.
func (f *fleet) note(hash string) {
	f.mu.Lock()
	known := f.first[hash] != ""
	f.mu.Unlock()
	var item protocol.WorkRecord
	if known || !f.get("/Beacon/Work/"+url.PathEscape(hash), &item) || item.Status != protocol.StatusComplete {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.first[hash] = string(item.Outputs)
}

// check looks at the end of an item and counts its attempts.
func (f *fleet) check(n int, hash string) int {
	t := f.t
	var item protocol.WorkRecord
	var events struct{ Events []protocol.WorkEvent }
	require.True(t, f.get("/Beacon/Work/"+url.PathEscape(hash), &item), "item %d is lost", n)
	require.True(t, f.get("/Beacon/Work/"+url.PathEscape(hash)+"/Events", &events))
	require.Equal(t, protocol.StatusComplete, item.Status, "item %d: %s %v", n, item.Error, events)
	var outputs struct{ Result, Run string }
	require.NoError(t, json.Unmarshal(item.Outputs, &outputs))
	require.Equal(t, digestOf(strconv.Itoa(n)), outputs.Result)
	require.NotEmpty(t, outputs.Run)
	if first := f.first[hash]; first != "" {
		require.JSONEq(t, first, string(item.Outputs), "item %d has another result than it had", n)
	}
	completed := 0
	for _, e := range events.Events {
		if e.EventType == protocol.WorkCompleted {
			completed++
		}
	}
	require.Equal(t, 1, completed, "item %d: %v", n, events)
	return item.AttemptNumber
}

// executions counts what the workers have begun.
func (f *fleet) executions() int {
	paths, err := filepath.Glob(filepath.Join(f.dir, "executions-*"))
	require.NoError(f.t, err)
	n := 0
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		require.NoError(f.t, err)
		n += bytes.Count(raw, []byte("\n"))
	}
	return n
}

func digestOf(text string) string {
	h := fnv.New64a()
	_, _ = io.WriteString(h, text)
	return fmt.Sprintf("%016x", h.Sum64())
}

// fleetWorker is a worker: fleet-worker SERVER NAME DIR.
func fleetWorker() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	serverURL, name, dir := os.Args[1], os.Args[2], os.Args[3]
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	box, err := outbox.Open(filepath.Join(dir, "outbox-"+name), log)
	if err != nil {
		log.Error("outbox", "error", err)
		os.Exit(1)
	}
	began, err := os.OpenFile(filepath.Join(dir, "executions-"+name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Error("executions", "error", err)
		os.Exit(1)
	}
	registration := protocol.NewRegistration(name, 8, []beacon.Capability{{Name: "Fleet", Actions: []beacon.Action{{Name: "Work"}}}})
	dial := ws.Dial(session.Config{
		ServerURL: serverURL, Registration: registration, Logger: log,
		HeartbeatInterval: 2 * time.Second, PollInterval: time.Second, RequestTimeout: 10 * time.Second, PingInterval: time.Second, PingTimeout: 10 * time.Second,
	})
	err = worker.Run(ctx, dial, func(ctx context.Context, item beacon.WorkItem, _ func(beacon.Progress)) (beacon.Result, error) {
		run := fmt.Sprintf("%s-%x", name, rand.Uint64())
		fmt.Fprintln(began, item.Hash, item.Attempt, run)
		sleep, _ := item.Settings.Int("Sleep", 0)
		select {
		case <-time.After(time.Duration(sleep) * time.Millisecond):
		case <-ctx.Done():
			return beacon.Result{}, context.Cause(ctx)
		}
		// Attempts count deliveries, so that some failures never happen.
		if fails, _ := item.Settings.Int("Fails", 0); item.Attempt <= int(fails) {
			return beacon.Result{}, beacon.Errorf(beacon.Failed, "not yet")
		}
		return beacon.Result{Outputs: beacon.Outputs{"Result": digestOf(item.Settings.Text("N")), "Run": run, "ExitCode": 0}}, nil
	}, worker.Config{MaxConcurrent: 8, Outbox: box, Logger: log, ReconnectInterval: 50 * time.Millisecond, ReconnectMax: time.Second})
	if err != nil {
		log.Error("worker", "error", err)
		os.Exit(1)
	}
}

// natsNode is a NATS server: nats-node NAME CLIENT-ADDRESS CLUSTER-ADDRESS ROUTES DIR.
func natsNode() {
	name, client, cluster, routes, dir := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	host, port, _ := net.SplitHostPort(client)
	clientPort, _ := strconv.Atoi(port)
	_, port, _ = net.SplitHostPort(cluster)
	clusterPort, _ := strconv.Atoi(port)
	srv, err := server.NewServer(&server.Options{
		ServerName: name, Host: host, Port: clientPort, JetStream: true, StoreDir: dir, SyncAlways: true,
		Cluster: server.ClusterOpts{Name: "fleet", Host: host, Port: clusterPort}, Routes: server.RoutesFromStr(routes),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	srv.ConfigureLogger()
	srv.Start()
	srv.WaitForShutdown()
}

// cluster starts NATS nodes and waits until they are one.
func (f *fleet) cluster(n int) (nodes []*process, urls string) {
	clients, routes, all := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		clients[i], routes[i] = freeAddress(f.t), freeAddress(f.t)
		all[i] = "nats://" + clients[i]
	}
	for i := range n {
		var others []string
		for k := range n {
			others = append(others, "nats://"+routes[k])
		}
		node := f.process("nats-node", fmt.Sprint("node-", i), clients[i], routes[i], strings.Join(others, ","), filepath.Join(f.dir, fmt.Sprint("node-", i)))
		nodes = append(nodes, node)
		f.start(node)
	}
	f.healthy(nodes)
	return nodes, strings.Join(all, ",")
}

// healthy waits until every node has caught up with the others.
func (f *fleet) healthy(nodes []*process) {
	f.eventually("the NATS cluster is well", func() bool {
		for _, node := range nodes {
			if !jetStreamIsWell(node.args[2], len(nodes)) {
				return false
			}
		}
		return true
	})
}

// freeAddress is one on which nothing listens. It lies below the ports that the
// system gives to outgoing connections, since whoever listens there comes back.
func freeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 12000+rand.IntN(18000))
		l, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		require.NoError(t, l.Close())
		return address
	}
	t.Fatal("no free port")
	return ""
}

// balance passes connections on to whichever hub takes them.
func (f *fleet) balance() string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(f.t, err)
	var passing sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	track := func(c net.Conn, on bool) {
		mu.Lock()
		defer mu.Unlock()
		if on {
			open[c] = true
		} else {
			delete(open, c)
			_ = c.Close()
		}
	}
	turn := 0
	passing.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			turn++
			first := turn
			passing.Go(func() {
				track(in, true)
				defer track(in, false)
				for i := range f.servers {
					out, err := net.Dial("tcp", f.servers[(first+i)%len(f.servers)])
					if err != nil {
						continue
					}
					track(out, true)
					defer track(out, false)
					back := make(chan struct{})
					go func() {
						defer close(back)
						_, _ = io.Copy(in, out)
						_ = in.Close()
					}()
					_, _ = io.Copy(out, in)
					_ = out.Close()
					<-back
					return
				}
			})
		}
	})
	f.t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		mu.Unlock()
		passing.Wait()
	})
	return l.Addr().String()
}
