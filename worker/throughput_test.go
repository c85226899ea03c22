//go:build unix

package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/pprof"
	"strconv"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

func TestMain(m *testing.M) {
	if text := os.Getenv("BEACON_BENCH_WORKER"); text != "" {
		benchmarked(text)
		return
	}
	goleak.VerifyTestMain(m)
}

// A benchmarked worker is a process of its own, so that its processor time is
// known.
type benchmark struct {
	URL, Way, Outbox, Profile string
	Slots                     int
}

func benchmarked(text string) {
	var b benchmark
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		panic(err)
	}
	if b.Profile != "" {
		f, err := os.Create(b.Profile)
		if err != nil {
			panic(err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			panic(err)
		}
		defer pprof.StopCPUProfile()
	}
	cfg := session.Config{
		ServerURL:    b.URL,
		Registration: protocol.Registration{Name: "n", Capabilities: []string{"Test"}, MaxConcurrent: b.Slots},
		Logger:       quiet, Queue: 1 << 20,
	}
	dial := ws.Dial(cfg)
	if b.Way == "http" {
		dial = poll.Dial(cfg)
	}
	run := worker.Config{MaxConcurrent: b.Slots, Logger: quiet}
	if b.Outbox != "" {
		box, err := outbox.Open(b.Outbox, quiet)
		if err != nil {
			panic(err)
		}
		defer box.Close()
		run.Outbox = box
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // until the benchmark has what it wants
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	if err := worker.Run(ctx, dial, echo, run); err != nil {
		panic(err)
	}
}

// A stub is as little of a server as a worker can be measured with. It keeps so
// many items at the worker, and answers nothing that costs time.
type stub struct {
	window, total int
	done          chan struct{}
	pushed, left  int
	seen          map[string]bool
}

func startStub(b *testing.B, window, total int) (*stub, string) {
	s := &stub{window: window, total: total, left: total, done: make(chan struct{}), seen: map[string]bool{}}
	server := httptest.NewServer(http.HandlerFunc(s.serve))
	b.Cleanup(server.Close)
	return s, server.URL
}

const stubBeacon = `{"BeaconID":"bcn-1","CurrentWorkItems":[]}`

func (s *stub) serve(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case strings.HasSuffix(r.URL.Path, "/Poll"):
			fmt.Fprint(w, `{"WorkItem":null}`)
		case strings.HasSuffix(r.URL.Path, "/Heartbeat"):
			fmt.Fprint(w, stubBeacon)
		default:
			fmt.Fprint(w, `{"LoggedIn":true}`)
		}
		return
	}
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer conn.CloseNow()
	conn.SetReadLimit(1 << 20)
	ctx := context.Background()
	var buffer bytes.Buffer
	for {
		_, reader, err := conn.Reader(ctx)
		if err != nil {
			return
		}
		buffer.Reset()
		if _, err := buffer.ReadFrom(reader); err != nil {
			return
		}
		frame := buffer.Bytes()
		switch {
		case bytes.HasPrefix(frame, []byte(`{"Action":"BeaconRegister"`)):
			err = conn.Write(ctx, websocket.MessageText, []byte(`{"EventType":"BeaconRegistered","BeaconID":"bcn-1"}`))
			for s.pushed < min(s.window, s.total) && err == nil {
				err = s.push(ctx, conn)
			}
		case bytes.HasPrefix(frame, []byte(`{"Action":"WorkComplete"`)):
			_, rest, _ := bytes.Cut(frame, []byte(`"WorkItemHash":"`))
			hash, _, _ := bytes.Cut(rest, []byte(`"`))
			if s.seen[string(hash)] {
				continue // it is sent again until that was confirmed
			}
			s.seen[string(hash)] = true
			if s.left--; s.left == 0 {
				close(s.done)
			}
			if s.pushed < s.total {
				err = s.push(ctx, conn)
			}
		case bytes.HasPrefix(frame, []byte(`{"Action":"Deregister"`)):
			err = conn.Write(ctx, websocket.MessageText, []byte(`{"EventType":"Deregistered"}`))
		}
		if err != nil {
			return
		}
	}
}

func (s *stub) push(ctx context.Context, conn *websocket.Conn) error {
	s.pushed++
	n := strconv.Itoa(s.pushed)
	return conn.Write(ctx, websocket.MessageText, []byte(`{"EventType":"WorkItem","WorkItem":{"WorkItemHash":"wi-unknown-unknown-1795346298900-`+n+
		`","RunID":"","Capability":"Test","Action":"Run","Settings":{"Command":"echo hello","Parameters":"world"},"OperationHash":"","TimeoutMs":300000,"AttemptNumber":1}}`))
}

// BenchmarkWorker measures a worker in a process of its own, its results on
// disk before they are sent, against a server in this one. "Strict" is a server
// that gives out no more than the worker registered for, as real ones do;
// "ahead" one that always has a thousand items at the worker, which shows what
// the worker itself can do.
func BenchmarkWorker(b *testing.B) {
	for _, durable := range []bool{true, false} {
		for _, ahead := range []bool{false, true} {
			for _, slots := range []int{1, 4, 16} {
				window, name := slots, fmt.Sprintf("outbox=%v/strict/slots=%d", durable, slots)
				if ahead {
					window, name = 1000, fmt.Sprintf("outbox=%v/ahead/slots=%d", durable, slots)
				}
				b.Run(name, func(b *testing.B) {
					s, url := startStub(b, window, b.N)
					setup := benchmark{URL: url, Way: "websocket", Slots: slots, Profile: os.Getenv("BEACON_BENCH_PROFILE")}
					if durable {
						setup.Outbox = b.TempDir()
					}
					measure(b, setup, s.done)
					require.Zero(b, s.left)
				})
			}
		}
	}
}

// BenchmarkNode measures bench/worker/floor.mjs against the same server, in the
// same way: what a worker in Node cannot do without. BEACON_BENCH_NODE_MODULES is
// a folder of packages that has ws; without it there is nothing to run.
func BenchmarkNode(b *testing.B) {
	if os.Getenv("BEACON_BENCH_NODE_MODULES") == "" {
		b.Skip("bash bench/run worker sets it up")
	}
	for _, window := range []int{1, 4, 16, 1000} {
		name := fmt.Sprintf("strict/slots=%d", window)
		if window == 1000 {
			name = "ahead"
		}
		b.Run(name, func(b *testing.B) {
			s, url := startStub(b, window, b.N)
			measureProcess(b, exec.Command("node", "../bench/worker/floor.mjs", strings.Replace(url, "http", "ws", 1)), s.done)
			require.Zero(b, s.left)
		})
	}
}

// measure runs a worker process until done is closed.
func measure(b *testing.B, setup benchmark, done <-chan struct{}) {
	text, err := json.Marshal(setup)
	require.NoError(b, err)
	self, err := os.Executable()
	require.NoError(b, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "BEACON_BENCH_WORKER="+string(text))
	measureProcess(b, cmd, done)
}

func measureProcess(b *testing.B, cmd *exec.Cmd, done <-chan struct{}) {
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	require.NoError(b, err)
	b.ResetTimer()
	require.NoError(b, cmd.Start())
	<-done
	b.StopTimer()
	require.NoError(b, stdin.Close())
	require.NoError(b, cmd.Wait())
	cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(b.N), "µs-cpu/item")
}
