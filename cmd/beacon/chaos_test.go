//go:build unix

package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/beacontest/faultproxy"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// TestChaos has a worker of its own process carry out items from a hub, through
// a proxy that cuts, delays, truncates, doubles, reorders and refuses, while the
// worker is killed and the hub restarted again and again. In the end every item
// must have ended once, with the right result, and nothing may be left over.
//
// BEACON_CHAOS is how many items, without which the test is skipped; one kill
// comes with every 40 of them and a restart of the hub with every 400.
// BEACON_CHAOS_SEED is the seed, 1 if there is none.
func TestChaos(t *testing.T) {
	items, _ := strconv.Atoi(os.Getenv("BEACON_CHAOS"))
	if items == 0 {
		t.Skip("takes a minute or more; set BEACON_CHAOS to the number of items, 2000 for all of it")
	}
	seed, _ := strconv.ParseUint(cmp.Or(os.Getenv("BEACON_CHAOS_SEED"), "1"), 10, 64)
	before := goleak.IgnoreCurrent()
	c := &chaos{t: t, items: items, seed: seed, dice: rand.New(rand.NewPCG(seed, 0)), dir: t.TempDir(), expected: map[string]string{}}
	t.Cleanup(c.clear)
	c.run()
	c.clear()
	goleak.VerifyNone(t, before)
}

type chaos struct {
	t     *testing.T
	items int
	seed  uint64
	dice  *rand.Rand
	dir   string

	journal journal.Journal
	hub     *hub.Hub
	server  *httptest.Server
	proxy   *faultproxy.Proxy

	worker *exec.Cmd
	said   *lockedBuffer

	expected map[string]string // result by hash; "" is one that must fail
	kills    int
	restarts int
}

// A lockedBuffer keeps what a process said.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text.Len() > 4<<20 {
		b.text.Next(2 << 20)
	}
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// tail is the end of what was said.
func (b *lockedBuffer) tail() string {
	text := b.String()
	return text[max(0, len(text)-8000):]
}

func (c *chaos) run() {
	t := c.t
	c.journal = journal.NewMemory()
	c.startHub()
	proxy, err := faultproxy.Start(c.server.URL, faultproxy.Config{
		Seed: c.seed,
		Frames: faultproxy.Rates{
			faultproxy.Cut: 0.01, faultproxy.Truncate: 0.005, faultproxy.HalfOpen: 0.002, faultproxy.Delay: 0.05,
			faultproxy.Duplicate: 0.05, faultproxy.Reorder: 0.05,
		},
		Requests: faultproxy.Rates{
			faultproxy.Cut: 0.02, faultproxy.Truncate: 0.01, faultproxy.HalfOpen: 0.005, faultproxy.Delay: 0.05,
			faultproxy.Unauthorized: 0.05, faultproxy.Unavailable: 0.03, faultproxy.BadGateway: 0.03,
		},
		HalfOpenTime: 3 * time.Second,
	})
	require.NoError(t, err)
	c.proxy = proxy
	require.NoError(t, os.WriteFile(filepath.Join(c.dir, "config.json"), fmt.Appendf(nil, `{
		"ServerURL": %q, "Name": "chaos", "MaxConcurrent": 4,
		"ReconnectIntervalMs": 20, "ReconnectMaxMs": 500, "HeartbeatIntervalMs": 500, "PollIntervalMs": 200,
		"RequestTimeoutMs": 5000, "PingIntervalMs": 500, "PingTimeoutMs": 3000, "DrainTimeoutMs": 60000
	}`, proxy.URL()), 0o600))
	began := time.Now()
	c.startWorker()
	submitted, done, nextKill, nextRestart := 0, 0, 20, 200
	lastDone, lastChange := 0, time.Now()
	for done < c.items {
		for submitted < c.items && submitted-done < 60 {
			c.submit(submitted)
			submitted++
		}
		time.Sleep(20 * time.Millisecond)
		done = submitted - c.live()
		if done != lastDone {
			lastDone, lastChange = done, time.Now()
		}
		require.Less(t, time.Since(lastChange), 3*time.Minute, "nothing happens any more after %d of %d items; the worker said:\n%s", done, c.items, c.said.tail())
		switch {
		case done >= nextKill:
			nextKill += 40
			time.Sleep(time.Duration(c.dice.IntN(30)) * time.Millisecond)
			c.kill()
			if done >= nextRestart {
				nextRestart += 400
				c.restartHub()
			}
			c.startWorker()
		case done >= nextRestart:
			nextRestart += 400
			c.restartHub()
		}
	}
	took := time.Since(began)
	// One that has only just been started would not know yet what a signal means, and
	// one that is between two connections has nobody to take its leave of.
	ready := func() int { return strings.Count(c.said.String(), "ready for work") }
	before := ready()
	c.proxy.Calm()
	require.Eventually(t, func() bool { return ready() > before || c.polls() }, 3*time.Minute, 10*time.Millisecond,
		"the worker does not come back; it said:\n%s", c.said.tail())
	require.NoError(t, c.worker.Process.Signal(syscall.SIGTERM))
	_ = c.worker.Wait()
	require.Zero(t, c.worker.ProcessState.ExitCode(), "the worker ended badly:\n%s", c.said.tail())
	c.worker = nil

	again := c.check()
	t.Logf("seed %d: %d items, each ended once with its result; %d kills, %d restarts of the hub, %d times an item was given out again; %.1f s",
		c.seed, c.items, c.kills, c.restarts, again, took.Seconds())
	counts := c.proxy.Counts()
	for _, fault := range slices.Sorted(maps.Keys(counts)) {
		t.Logf("  %-14s %5d", fault, counts[fault])
	}
}

func (c *chaos) startHub() {
	quiet := slog.New(slog.DiscardHandler)
	c.hub = hub.New(hub.Config{Journal: c.journal, Log: quiet, Settings: ledger.Settings{HeartbeatMs: 5000}})
	c.server = httptest.NewServer(c.hub)
}

// restartHub is a crash and a new process with the same memory: connections end
// without a word, beacons, sessions and slots are forgotten.
func (c *chaos) restartHub() {
	c.restarts++
	require.NoError(c.t, c.proxy.Retarget(""))
	c.proxy.CutAll()
	c.stopHub()
	time.Sleep(time.Duration(c.dice.IntN(300)) * time.Millisecond)
	c.startHub()
	require.NoError(c.t, c.proxy.Retarget(c.server.URL))
}

func (c *chaos) stopHub() {
	c.server.CloseClientConnections()
	if err := c.hub.Close(c.t.Context()); err != nil && c.t.Context().Err() == nil {
		c.t.Errorf("close the hub: %v", err)
	}
	c.server.Close()
}

func (c *chaos) startWorker() {
	module, err := filepath.Abs("testdata/modules/digest.wasm")
	require.NoError(c.t, err)
	transport := []string{"auto", "auto", "auto", "http"}[c.dice.IntN(4)]
	c.worker = beaconCommand(c.t, filepath.Join(c.dir, "cache"), "run", "--transport", transport, "--config", filepath.Join(c.dir, "config.json"),
		"--module", module, "--wait", "--staging", filepath.Join(c.dir, "staging"), "--verbose")
	c.said = &lockedBuffer{}
	c.worker.Stdout, c.worker.Stderr = c.said, c.said
	require.NoError(c.t, c.worker.Start())
}

// polls reports whether the worker is registered over HTTP: each request of such a
// one is a connection of its own, and cutting those that are open has it register
// no more.
func (c *chaos) polls() bool {
	said := c.said.String()
	end := strings.LastIndex(said, ", ready for work")
	return end >= 0 && strings.HasSuffix(said[:end], " over http")
}

func (c *chaos) kill() {
	c.kills++
	require.NoError(c.t, c.worker.Process.Kill())
	_ = c.worker.Wait()
	require.Equal(c.t, -1, c.worker.ProcessState.ExitCode(), "the worker had ended by itself:\n%s", c.said.tail())
}

// ask has the hub answer, by the door that has no proxy before it.
func (c *chaos) ask(method, path, key, body string) (int, string) {
	r := httptest.NewRequestWithContext(c.t.Context(), method, path, strings.NewReader(body))
	r.Host, r.RemoteAddr = "localhost", "127.0.0.1:1"
	r.Header.Set(protocol.IdempotencyHeader, key)
	w := httptest.NewRecorder()
	c.hub.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func (c *chaos) submit(n int) {
	command := fmt.Sprintf("%d item-%d-%x", c.dice.IntN(40), n, c.dice.Uint64())
	action := "Execute"
	if n%50 == 49 {
		action = "Nonsense"
	}
	status, text := c.ask("POST", "/Beacon/Work/Enqueue", fmt.Sprint("item-", n),
		fmt.Sprintf(`{"Capability":"digest","Action":%q,"Settings":{"Command":%q}}`, action, command))
	require.Equal(c.t, http.StatusOK, status, text)
	var enqueued protocol.Enqueued
	require.NoError(c.t, json.Unmarshal([]byte(text), &enqueued))
	result := ""
	if action == "Execute" {
		h := fnv.New64a()
		fmt.Fprint(h, strings.ReplaceAll(command, " ", "\x00")+"\x00")
		result = fmt.Sprintf("%016x\n", h.Sum64())
	}
	c.expected[enqueued.WorkItemHash] = result
}

// live counts the items that have not ended.
func (c *chaos) live() int {
	status, text := c.ask("GET", "/Beacon/Work", "", "")
	require.Equal(c.t, http.StatusOK, status, text)
	var list []json.RawMessage
	require.NoError(c.t, json.Unmarshal([]byte(text), &list))
	return len(list)
}

// check looks at every item, and at what is left on the disk. It counts how
// often items were given out again.
func (c *chaos) check() (again int) {
	t := c.t
	require.Len(t, c.expected, c.items)
	for hash, want := range c.expected {
		status, text := c.ask("GET", "/Beacon/Work/"+hash, "", "")
		require.Equal(t, http.StatusOK, status, text)
		var item protocol.WorkRecord
		require.NoError(t, json.Unmarshal([]byte(text), &item))
		require.Equal(t, protocol.StatusComplete, item.Status, text)
		var outputs struct {
			Result   string
			ExitCode int
		}
		require.NoError(t, json.Unmarshal(item.Outputs, &outputs))
		if want == "" {
			require.NotZero(t, outputs.ExitCode, text)
		} else {
			require.Zero(t, outputs.ExitCode, text)
			require.Equal(t, want, outputs.Result, text)
		}
		again += item.AttemptNumber - 1
		_, text = c.ask("GET", "/Beacon/Work/"+hash+"/Events", "", "")
		require.Equal(t, 1, strings.Count(text, `"EventType":"`+protocol.WorkCompleted+`"`), text)
	}
	_, text := c.ask("GET", "/Beacon", "", "")
	require.JSONEq(t, "[]", text, "the worker did not take its leave; it said:\n%s", c.said.tail())

	staged, err := os.ReadDir(filepath.Join(c.dir, "staging"))
	require.NoError(t, err)
	require.Empty(t, staged, "left in the staging folder")
	var kept []string
	require.NoError(t, filepath.WalkDir(filepath.Join(c.dir, "cache", "outbox"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			kept = append(kept, d.Name())
		}
		return err
	}))
	require.Equal(t, []string{"lock"}, kept, "left in the outbox")
	return again
}

// clear ends what a failed test has left running.
func (c *chaos) clear() {
	if c.worker != nil {
		_ = c.worker.Process.Kill()
		_ = c.worker.Wait()
		c.worker = nil
	}
	if c.proxy != nil {
		_ = c.proxy.Close()
	}
	if c.hub != nil {
		c.stopHub()
		c.hub = nil
	}
}
