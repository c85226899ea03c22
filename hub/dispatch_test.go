package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

func TestWhatWaitsIsPushedInOrder(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A", "B")
	first := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, first, w.item().WorkItemHash)
	low := s.enqueue(`{"Capability":"A","Priority":-1}`)
	one := s.enqueue(`{"Capability":"A"}`)
	two := s.enqueue(`{"Capability":"B"}`)
	other := s.enqueue(`{"Capability":"C","Priority":9}`)
	high := s.enqueue(`{"Capability":"B","Priority":5}`)
	higher := s.enqueue(`{"Capability":"A","Settings":{"priority":"6"}}`)
	w.complete(first)
	for _, want := range []string{higher, high, one, two, low} {
		require.Equal(t, want, w.item().WorkItemHash)
		w.complete(want)
	}
	w.nothing()
	require.Equal(t, protocol.StatusPending, s.record(other).Status)
	c := s.join("c", 1, "C")
	require.Equal(t, other, c.item().WorkItemHash)
}

// Forty dispatches at once is what made the real server lose answers.
func TestManyAtOnceNeverExceedSlots(t *testing.T) {
	s := start(t, hub.Config{})
	const each = 3
	var workers sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	most := map[string]int{}
	for _, name := range []string{"a", "b"} {
		w := s.join(name, each, "A")
		workers.Go(func() {
			held := []string{}
			for ctx.Err() == nil {
				_, raw, err := w.conn.Read(ctx)
				if err != nil {
					return
				}
				var event struct{ WorkItem protocol.WorkItem }
				if json.Unmarshal(raw, &event) != nil {
					return
				}
				held = append(held, event.WorkItem.WorkItemHash)
				mu.Lock()
				most[name] = max(most[name], len(held))
				mu.Unlock()
				if len(held) == each || strings.HasSuffix(held[0], "9") {
					hash := held[0]
					held = held[1:]
					frame := fmt.Sprintf(`{"Action":"WorkComplete","WorkItemHash":%q,"Outputs":{"By":%q,"Hash":%q},"Log":[]}`, hash, name, hash)
					if w.conn.Write(ctx, websocket.MessageText, []byte(frame)) != nil {
						return
					}
				}
			}
		})
	}
	const total = 40
	answers := make(chan answer, total)
	for range total {
		c := s.later("/Beacon/Work/Dispatch", `{"Capability":"A","TimeoutMs":60000}`)
		go func() { answers <- <-c }()
	}
	hashes, by := map[any]bool{}, map[any]int{}
	// The workers hold back their last few items, which is what keeps them full.
	done := 0
	for done < total-2*(each-1) {
		a := s.await(answers)
		require.Equal(t, http.StatusOK, a.status, "%s", a.raw)
		outputs, _ := a.json(t)["Outputs"].(map[string]any)
		require.Equal(t, a.json(t)["WorkItemHash"], outputs["Hash"])
		hashes[outputs["Hash"]] = true
		by[outputs["By"]]++
		done++
	}
	cancel()
	workers.Wait()
	require.Len(t, hashes, done, "no hash twice")
	for _, name := range []string{"a", "b"} {
		require.LessOrEqual(t, most[name], each)
		require.Positive(t, by[name], "both took part")
	}
	require.NoError(t, s.hub.Close(t.Context())) // answers the rest
	for ; done < total; done++ {
		s.await(answers)
	}
}

func TestDisconnectGivesItemsBack(t *testing.T) {
	s := start(t, hub.Config{})
	a := s.join("a", 2, "A")
	first, second := s.enqueue(`{"Capability":"A"}`), s.enqueue(`{"Capability":"A"}`)
	a.item()
	a.item()
	third := s.enqueue(`{"Capability":"A"}`)
	b := s.join("b", 1, "A")
	require.Equal(t, third, b.item().WorkItemHash)
	require.NoError(t, a.conn.CloseNow())
	s.eventually("requeued", func() bool { return s.record(first).Status == protocol.StatusPending })
	require.Nil(t, s.record(first).AssignedBeaconID)
	b.complete(third)
	item := b.item()
	require.Equal(t, first, item.WorkItemHash, "it waits where it waited")
	require.Equal(t, 2, item.AttemptNumber)

	// The lost worker is back over HTTP with a result: it counts once.
	late := s.post("/Beacon/Work/"+second+"/Complete", `{"Outputs":{"Late":true}}`)
	require.Equal(t, http.StatusOK, late.status)
	late = s.post("/Beacon/Work/"+second+"/Complete", `{"Outputs":{"Late":true}}`)
	require.Equal(t, "BeaconCoordinator: work item ["+second+"] already finalized (Complete).", late.json(t)["Error"])
	b.complete(first)
	b.nothing()
}

func TestLateResultOfAnotherSessionFreesNoSlot(t *testing.T) {
	s := start(t, hub.Config{})
	a := s.dial("Cookie", "SessionID=aaaa")
	a.register("a", 1, "A")
	hash := s.enqueue(`{"Capability":"A"}`)
	a.item()
	b := s.dial("Cookie", "SessionID=bbbb")
	b.register("b", 1, "A")
	require.NoError(t, a.conn.CloseNow())
	require.Equal(t, hash, b.item().WorkItemHash)
	next := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+hash+"/Complete", `{}`, "Cookie", "SessionID=aaaa").status)
	require.Equal(t, []any{hash}, s.get("/Beacon/" + b.id).json(t)["CurrentWorkItems"], "b is still at it")
	require.Equal(t, protocol.StatusPending, s.record(next).Status)
	require.Equal(t, map[string]any{"EventType": "WorkCancel", "WorkItemHash": hash, "AttemptNumber": 2.0, "Reason": "another beacon has brought the result"}, b.receive())
	b.complete(hash) // too late to count, but its slot is free now
	require.Equal(t, next, b.item().WorkItemHash)
	// A large result goes by HTTP and frees the slot of the socket.
	third := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+next+"/Complete", `{}`, "Cookie", "SessionID=bbbb").status)
	require.Equal(t, third, b.item().WorkItemHash)
}

func TestSameNameAgain(t *testing.T) {
	s := start(t, hub.Config{})
	before := s.join("a", 1, "A")
	hash := s.enqueue(`{"Capability":"A"}`)
	before.item()
	after := s.join("a", 1, "A")
	require.Equal(t, before.id, after.id)
	require.Equal(t, 2, after.item().AttemptNumber)
	_, err := before.raw()
	require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err), "%v", err)
	_ = before.conn.CloseNow()
	after.complete(hash)
	s.eventually("still registered", func() bool { return s.record(hash).Status == protocol.StatusComplete })
	answered := s.later("/Beacon/Work/Dispatch", `{"Capability":"A"}`)
	after.complete(after.item().WorkItemHash)
	require.Equal(t, http.StatusOK, s.await(answered).status)

	// Over HTTP the name moves as well, and the socket is told.
	a := s.post("/Beacon/Register", `{"Name":"a","Capabilities":["A"]}`)
	require.Equal(t, before.id, a.json(t)["BeaconID"])
	_, err = after.raw()
	require.Equal(t, websocket.StatusPolicyViolation, websocket.CloseStatus(err))
	require.Equal(t, "http", s.get("/Beacon/" + before.id).json(t)["Transport"])

	// News on the same socket keeps what runs.
	c := s.join("c", 1, "C")
	running := s.enqueue(`{"Capability":"C"}`)
	c.item()
	c.register("c", 2, "C", "D")
	require.Equal(t, protocol.StatusRunning, s.record(running).Status)
	require.Equal(t, s.enqueue(`{"Capability":"D"}`), c.item().WorkItemHash)
	// Another name on the same socket is another beacon.
	c.register("e", 1, "E")
	require.Equal(t, protocol.StatusPending, s.record(running).Status)
}

func TestPollerRegistersAgain(t *testing.T) {
	s := start(t, hub.Config{})
	register := func(session string) string {
		id, _ := s.post("/Beacon/Register", `{"Name":"p","Capabilities":["A","B"]}`, "Cookie", "SessionID="+session).json(t)["BeaconID"].(string)
		return id
	}
	id := register("one")
	hash := s.enqueue(`{"Capability":"A"}`)
	s.post("/Beacon/Work/Poll", `{"BeaconID":"`+id+`"}`)
	require.Equal(t, id, register("one"))
	require.Equal(t, protocol.StatusRunning, s.record(hash).Status, "the same process is still at it")
	require.Equal(t, id, register("two"))
	require.Equal(t, protocol.StatusPending, s.record(hash).Status, "another process knows nothing of it")
}

func TestDeadPeerIsNoticed(t *testing.T) {
	s := start(t, hub.Config{Settings: ledger.Settings{HeartbeatMs: 1500}})
	pings := make(chan struct{}, 1000)
	conn, _, err := websocket.Dial(t.Context(), s.url, &websocket.DialOptions{ //nolint:bodyclose // it is the connection's
		HTTPClient:     s.web.Client(),
		OnPingReceived: func(context.Context, []byte) bool { pings <- struct{}{}; return true },
	})
	require.NoError(t, err)
	alive := &worker{t: t, conn: conn}
	alive.register("alive", 1, "A")
	reading, cancel := context.WithCancel(t.Context())
	var reader sync.WaitGroup
	ended := make(chan error, 1)
	reader.Go(func() {
		_, _, err := conn.Read(reading)
		ended <- err
	})

	dead := s.join("dead", 1, "B") // answers no pings, since it does not read
	hash := s.enqueue(`{"Capability":"B"}`)
	s.eventually("given back", func() bool { return s.record(hash).Status == protocol.StatusPending })
	require.Equal(t, http.StatusNotFound, s.get("/Beacon/"+dead.id).status)
	for range 2 {
		select {
		case <-pings:
		case err := <-ended:
			require.NoError(t, err, "a worker that answers was taken for gone")
		}
	}
	require.Equal(t, http.StatusOK, s.get("/Beacon/"+alive.id).status)
	cancel()
	reader.Wait()
	_ = conn.CloseNow()
}

func TestDeleteClosesTheSocket(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	require.Equal(t, http.StatusOK, s.call(http.MethodDelete, "/Beacon/"+w.id, "").status)
	_, err := w.raw()
	require.Equal(t, websocket.StatusNormalClosure, websocket.CloseStatus(err))
}

func TestPollersAreNotStarved(t *testing.T) {
	s := start(t, hub.Config{})
	id, _ := s.post("/Beacon/Register", `{"Name":"p","Capabilities":["A"],"MaxConcurrent":2}`).json(t)["BeaconID"].(string)
	w := s.join("w", 1, "A")
	first := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, first, w.item().WorkItemHash, "pushed where it can be")
	second, third := s.enqueue(`{"Capability":"A"}`), s.enqueue(`{"Capability":"A"}`)
	poll := func(id string) string {
		var out struct{ WorkItem *protocol.WorkItem }
		require.NoError(t, json.Unmarshal(s.post("/Beacon/Work/Poll", `{"BeaconID":"`+id+`"}`).raw, &out))
		if out.WorkItem == nil {
			return ""
		}
		return out.WorkItem.WorkItemHash
	}
	require.Equal(t, second, poll(id))
	require.Equal(t, third, poll(id))
	require.Empty(t, poll(id))
	// A connected beacon may poll, too, within its slots.
	fourth := s.enqueue(`{"Capability":"A"}`)
	require.Empty(t, poll(w.id))
	w.complete(first)
	require.Equal(t, fourth, w.item().WorkItemHash)
	require.Empty(t, poll(w.id))
	s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+second+"/Complete", `{}`).status)
	require.NotEmpty(t, poll(id))
}

func TestAffinity(t *testing.T) {
	s := start(t, hub.Config{})
	a, b := s.join("a", 1, "A"), s.join("b", 4, "A", "B")
	named := s.enqueue(`{"Capability":"A","AffinityKey":"a"}`)
	require.Equal(t, named, a.item().WorkItemHash)
	waiting := s.enqueue(`{"Capability":"A","AffinityKey":"a"}`)
	require.Equal(t, protocol.StatusPending, s.record(waiting).Status, "it waits for its beacon though the other is idle")
	elsewhere := s.enqueue(`{"Capability":"B","AffinityKey":"a"}`)
	require.Equal(t, elsewhere, b.item().WorkItemHash, "the named one cannot do it")
	strict := s.enqueue(`{"Capability":"B","AffinityKey":"a","RequireAffinityMatch":true}`)
	require.Equal(t, protocol.StatusPending, s.record(strict).Status)

	// Sticky: b is bound by the first item and gets the second one, too.
	require.Equal(t, s.enqueue(`{"Capability":"A","AffinityKey":"k","RunHash":"r"}`), b.item().WorkItemHash)
	a.complete(named)
	require.Equal(t, waiting, a.item().WorkItemHash)
	a.complete(waiting)
	s.eventually("a is idle", func() bool { return s.get("/Beacon/" + a.id).json(t)["Status"] == "Online" })
	require.Equal(t, s.enqueue(`{"Capability":"A","AffinityKey":"k"}`), b.item().WorkItemHash)
	var bindings []map[string]any
	require.NoError(t, json.Unmarshal(s.get("/Beacon/Affinity").raw, &bindings))
	require.Len(t, bindings, 1)
	require.Equal(t, "k", bindings[0]["AffinityKey"])
	require.Equal(t, b.id, bindings[0]["BeaconID"])
	require.Equal(t, "r", bindings[0]["RunHash"])

	// The binding ends with the beacon.
	require.NoError(t, b.conn.CloseNow())
	a.item() // one of those that b had
	s.eventually("unbound", func() bool { return !strings.Contains(string(s.get("/Beacon/Affinity").raw), b.id) })
}

func TestCancel(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	running := s.enqueue(`{"Capability":"A"}`)
	w.item()
	waiting := s.later("/Beacon/Work/Dispatch", `{"Capability":"A"}`)
	var hash string
	s.eventually("waits", func() bool {
		var items []protocol.WorkRecord
		require.NoError(t, json.Unmarshal(s.get("/Beacon/Work").raw, &items))
		for _, item := range items {
			if item.Status == protocol.StatusPending {
				hash = item.WorkItemHash
			}
		}
		return hash != ""
	})
	require.JSONEq(t, `{"Success":true,"WorkItemHash":"`+hash+`","Canceled":true,"Status":"Canceled"}`,
		string(s.post("/Beacon/Work/"+hash+"/Cancel", `{"Reason":"enough"}`).raw))
	a := s.await(waiting)
	require.Equal(t, http.StatusInternalServerError, a.status)
	require.Equal(t, "Work item ["+hash+"] was canceled: enough", a.json(t)["Error"])

	require.JSONEq(t, `{"Success":true,"WorkItemHash":"`+running+`","Canceled":false,"CancelRequested":true,"Status":"Running"}`,
		string(s.post("/Beacon/Work/"+running+"/Cancel", ``).raw))
	require.NoError(t, w.conn.CloseNow())
	s.eventually("not given again", func() bool { return s.record(running).Status == protocol.StatusCanceled })
	require.JSONEq(t, `{"Success":true,"WorkItemHash":"`+running+`","Canceled":true,"Status":"Canceled"}`,
		string(s.post("/Beacon/Work/"+running+"/Cancel", ``).raw))
}

func TestDispatchStream(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/Beacon/Work/DispatchStream", strings.NewReader(`{"Capability":"A"}`))
	require.NoError(t, err)
	response, err := s.web.Client().Do(r)
	require.NoError(t, err)
	defer func() { _ = response.Body.Close() }()
	require.Equal(t, "binary-frames-v1", response.Header.Get("X-Ultravisor-Protocol"))
	require.Equal(t, "application/octet-stream", response.Header.Get("Content-Type"))
	next := func() (protocol.FrameType, string) {
		kind, payload, err := protocol.ReadFrame(response.Body, 2<<20)
		require.NoError(t, err)
		return kind, string(payload)
	}
	hash := w.item().WorkItemHash
	// Each is read before the next is sent: they are live.
	w.send(`{"Action":"WorkProgress","WorkItemHash":"` + hash + `","ProgressData":{"Percent":25,"Message":"working","Log":["l"]}}`)
	kind, payload := next()
	require.Equal(t, protocol.FrameProgress, kind)
	require.JSONEq(t, `{"Percent":25,"Message":"working","Log":["l"]}`, payload)
	w.send(`{"Action":"WorkProgress","WorkItemHash":"` + hash + `","ProgressData":{"BinaryData":"AAEC"}}`)
	kind, payload = next()
	require.Equal(t, protocol.FrameIntermediate, kind)
	require.Equal(t, "\x00\x01\x02", payload)
	w.send(`{"Action":"WorkComplete","WorkItemHash":"` + hash + `","Outputs":{"ExitCode":0,"OutputData":"vu8=","OutputFilename":"o"},"Log":["done"]}`)
	kind, payload = next()
	require.Equal(t, protocol.FrameOutput, kind)
	require.Equal(t, "\xbe\xef", payload)
	kind, payload = next()
	require.Equal(t, protocol.FrameResult, kind)
	require.JSONEq(t, `{"Success":true,"WorkItemHash":"`+hash+`","Outputs":{"ExitCode":0,"OutputFilename":"o"},"Log":["l","done"]}`, payload)
	_, _, err = protocol.ReadFrame(response.Body, 1)
	require.Equal(t, io.EOF, err)
	require.Contains(t, string(s.record(hash).Outputs), "vu8=", "the record keeps the result as it came")

	failed := s.later("/Beacon/Work/DispatchStream", `{"Capability":"A"}`)
	w.send(`{"Action":"WorkError","WorkItemHash":"` + w.item().WorkItemHash + `","ErrorMessage":"no"}`)
	frame, raw, err := protocol.ReadFrame(bytes.NewReader(s.await(failed).raw), 1<<20)
	require.NoError(t, err)
	require.Equal(t, protocol.FrameError, frame)
	require.Contains(t, string(raw), `"Error":"no"`)
}

func TestAbandonedDispatch(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	ctx, cancel := context.WithCancel(t.Context())
	var submitters sync.WaitGroup
	for range 2 {
		submitters.Go(func() {
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/Beacon/Work/Dispatch", strings.NewReader(`{"Capability":"A"}`))
			if err != nil {
				return
			}
			if response, err := s.web.Client().Do(r); err == nil {
				_ = response.Body.Close()
			}
		})
	}
	running := w.item().WorkItemHash
	s.eventually("second item", func() bool { return bytes.Count(s.get("/Beacon/Work").raw, []byte("WorkItemHash")) == 2 })
	cancel()
	submitters.Wait()
	s.eventually("what waited is taken back", func() bool { return bytes.Count(s.get("/Beacon/Work").raw, []byte("WorkItemHash")) == 1 })
	w.complete(running)
	s.eventually("what ran is kept", func() bool { return s.record(running).Status == protocol.StatusComplete })
	w.nothing()
}

func TestIdempotency(t *testing.T) {
	memory := journal.NewMemory()
	s := start(t, hub.Config{Journal: memory})
	first := s.enqueue(`{"Capability":"A","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k1")
	require.Equal(t, first, s.enqueue(`{"Capability":"A","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k1"))
	require.NotEqual(t, first, s.enqueue(`{"Capability":"A","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k2"))
	require.NotEqual(t, s.enqueue(`{"Capability":"A"}`), s.enqueue(`{"Capability":"A"}`))
	require.Equal(t, http.StatusConflict, s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Settings":{"x":"2"}}`, "X-Idempotency-Key", "k1").status)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+first+"/Complete", `{"Outputs":{"Result":"one"}}`).status)
	require.Equal(t, first, s.enqueue(`{"Capability":"A","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k1"), "also when it is done")
	require.JSONEq(t, `{"Result":"one"}`, string(s.record(first).Outputs))

	// Many at once are one.
	same := make(chan string)
	for range 32 {
		go func() {
			a, err := s.web.Client().Do(keyed(s.url+"/Beacon/Work/Enqueue", `{"Capability":"A"}`, "many"))
			if err != nil {
				same <- err.Error()
				return
			}
			defer a.Body.Close()
			var out protocol.Enqueued
			_ = json.NewDecoder(a.Body).Decode(&out)
			same <- out.WorkItemHash
		}()
	}
	one := <-same
	require.NotEmpty(t, s.record(one).Status)
	for range 31 {
		require.Equal(t, one, <-same)
	}

	// And so they are for the next hub.
	require.NoError(t, s.hub.Close(t.Context()))
	s = start(t, hub.Config{Journal: memory})
	require.Equal(t, first, s.enqueue(`{"Capability":"A","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k1"))
	require.JSONEq(t, `{"Result":"one"}`, string(s.record(first).Outputs))
	require.Equal(t, http.StatusConflict, s.post("/Beacon/Work/Enqueue", `{"Capability":"B","Settings":{"x":"1"}}`, "X-Idempotency-Key", "k1").status)
	require.Equal(t, http.StatusBadRequest, s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`, "X-Idempotency-Key", strings.Repeat("k", 1025)).status)
}

func keyed(address, body, key string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, address, strings.NewReader(body))
	r.RequestURI = ""
	r.Header.Set(protocol.IdempotencyHeader, key)
	return r
}

func TestBounds(t *testing.T) {
	s := start(t, hub.Config{Settings: ledger.Settings{QueueItems: 2, HistoryItems: 2, HistoryBytes: 20_000}})
	first, second := s.enqueue(`{"Capability":"A"}`), s.enqueue(`{"Capability":"A"}`)
	a := s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`)
	require.Equal(t, http.StatusTooManyRequests, a.status)
	require.Equal(t, "5", a.header.Get("Retry-After"))
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+first+"/Complete", `{}`).status)
	third := s.enqueue(`{"Capability":"A"}`)
	for _, hash := range []string{second, third} {
		require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+hash+"/Complete", `{}`).status)
	}
	require.Equal(t, http.StatusNotFound, s.get("/Beacon/Work/"+first).status, "two are kept")
	require.Equal(t, protocol.StatusComplete, s.record(second).Status)
	large := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+large+"/Complete", `{"Outputs":{"x":"`+strings.Repeat("x", 30_000)+`"}}`).status)
	require.Equal(t, http.StatusNotFound, s.get("/Beacon/Work/"+third).status, "no room beside this one")
	require.Equal(t, protocol.StatusComplete, s.record(large).Status)

	s = start(t, hub.Config{Settings: ledger.Settings{QueueBytes: 10_000}})
	require.Equal(t, http.StatusTooManyRequests, s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Settings":{"x":"`+strings.Repeat("x", 10_000)+`"}}`).status)
}

func TestBatches(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 2, "A")
	first, second := s.enqueue(`{"Capability":"A"}`), s.enqueue(`{"Capability":"A"}`)
	w.item()
	w.item()
	a := s.post("/Beacon/Work/Progress/Batch", `{"Items":[{"WorkItemHash":"`+first+`","Percent":5},{"WorkItemHash":"`+second+`","ProgressData":{"Percent":6}},{"WorkItemHash":"x"},7]}`)
	require.Equal(t, http.StatusOK, a.status)
	require.Len(t, a.json(t)["Items"], 2)
	require.Len(t, a.json(t)["Errors"], 2)
	require.JSONEq(t, `{"Percent":5}`, string(s.record(first).Progress))
	require.JSONEq(t, `{"Percent":6}`, string(s.record(second).Progress))
	a = s.post("/Beacon/Work/Complete/Batch", `{"Items":[{"WorkItemHash":"x"},{"WorkItemHash":"`+first+`","Outputs":{"a":1},"Log":["l"]},{"WorkItemHash":"`+first+`"}]}`)
	require.JSONEq(t, `{"Items":[{"WorkItemHash":"`+first+`","Status":"Completed"}],"Errors":[
		{"Index":0,"Error":"BeaconCoordinator: work item [x] not found."},
		{"Index":2,"Error":"BeaconCoordinator: work item [`+first+`] already finalized (Complete)."}]}`, string(a.raw))
}

func TestOddResultsAreKept(t *testing.T) {
	s := start(t, hub.Config{})
	tests := map[string]struct{ body, outputs, log string }{
		"nothing":          {``, `{}`, `null`},
		"null":             {`{"Outputs":null,"Log":null}`, `{}`, `null`},
		"a bare value":     {`{"Outputs":[1]}`, `{"Result":[1]}`, `null`},
		"log of all sorts": {`{"Outputs":{},"Log":["a",1,null,{"b":2}]}`, `{}`, `["a","1","",` + quote(`{"b":2}`) + `]`},
		"log is text":      {`{"Outputs":{},"Log":"a"}`, `{}`, `["a"]`},
		"large number":     {`{"Outputs":{"n":12345678901234567890}}`, `{"n":12345678901234567890}`, `null`},
		"bad UTF-8":        {"{\"Outputs\":{\"s\":\"a\xffb\"}}", `{"s":"a` + "\uFFFD" + `b"}`, `null`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			hash := s.enqueue(`{"Capability":"A"}`)
			require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+hash+"/Complete", tt.body).status)
			record := s.record(hash)
			require.Equal(t, tt.outputs, string(record.Outputs))
			log, err := json.Marshal(record.Log)
			require.NoError(t, err)
			require.Equal(t, tt.log, string(log))
		})
	}
}

func TestViews(t *testing.T) {
	s := start(t, hub.Config{})
	require.Equal(t, "[]", string(s.get("/Beacon/Work").raw))
	w := s.dial()
	w.send(`{"Action":"BeaconRegister","Name":"nodews","Capabilities":["Shell"],"ActionSchemas":[{"Capability":"Shell","Action":"Execute","Description":"Execute a shell command.","SettingsSchema":[{"Name":"Command","DataType":"String","Required":true,"Description":"The command to run"}]}],"MaxConcurrent":1,"Tags":{},"HostID":"vm","SharedMounts":[]}`)
	require.Equal(t, "BeaconRegistered", w.receive()["EventType"])
	action := `{"Capability":"Shell","Action":"Execute","Description":"Execute a shell command.","SettingsSchema":[{"Name":"Command","DataType":"String","Required":true,"Description":"The command to run"}],"Available":%v,"SourceBeacons":["nodews"]}`
	require.JSONEq(t, `{"Capabilities":["Shell"],"BeaconCount":1,"ActionCatalog":[`+fmt.Sprintf(action, true)+`]}`, string(s.get("/Beacon/Capabilities").raw))
	require.JSONEq(t, `{"Actions":[]}`, string(s.get("/Beacon/Actions?Capability=X").raw))

	running, waiting := s.enqueue(`{"Capability":"Shell","Settings":{"Command":"x"}}`), s.enqueue(`{"Capability":"Other"}`)
	done := s.enqueue(`{"Capability":"Shell"}`)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+done+"/Complete", `{}`).status)
	view := s.get("/Beacon/Queue?include=history").json(t)
	summary, _ := view["Summary"].(map[string]any)
	require.Equal(t, map[string]any{"Upcoming": 1.0, "InProgress": 1.0, "Stalled": 0.0, "Completed": 1.0, "Errored": 0.0}, summary["Buckets"])
	require.Equal(t, map[string]any{"Shell": map[string]any{"Upcoming": 0.0, "InProgress": 1.0}, "Other": map[string]any{"Upcoming": 1.0, "InProgress": 0.0}}, summary["ByCapability"])
	require.Len(t, view["Items"], 2)
	require.Len(t, view["History"], 1)
	require.Contains(t, string(s.get("/Beacon/Queue?bucket=upcoming").raw), waiting)
	require.NotContains(t, string(s.get("/Beacon/Queue?bucket=upcoming").raw), running)
	require.Contains(t, string(s.get("/Beacon/Queue?bucket=completed").raw), done)
	require.Nil(t, s.get("/Beacon/Queue").json(t)["History"])

	var items []protocol.WorkRecord
	require.NoError(t, json.Unmarshal(s.get("/Beacon/Work").raw, &items))
	require.Len(t, items, 2)
	require.Equal(t, `"x"`, string(items[0].Settings["Command"]))
	require.Equal(t, running, w.item().WorkItemHash)
	w.nothing()
	require.JSONEq(t, `{"Actions":[`+fmt.Sprintf(action, false)+`]}`, string(s.get("/Beacon/Actions").raw), "what is known stays known")
}

// A worker that is still reading when its connection ends gets all that was on
// its way, and then the reason.
func TestTheReasonComesLast(t *testing.T) {
	s := start(t, hub.Config{})
	const items = 12 // of almost a megabyte: more than fits between the two
	w := s.join("slow", items, "A")
	for range items {
		s.enqueue(`{"Capability":"A","Settings":{"Text":"` + strings.Repeat("x", 1<<20-1000) + `"}}`)
	}
	w.send("{\"Action\":\"BeaconHeartbeat\xff\"}")
	s.eventually("gone", func() bool { return s.get("/Beacon/"+w.id).status == http.StatusNotFound })
	for range items {
		require.NotEmpty(t, w.item().WorkItemHash)
	}
	_, err := w.raw()
	require.Equal(t, websocket.StatusInvalidFramePayloadData, websocket.CloseStatus(err), "%v", err)
}

func TestBadFramesEndOneConnection(t *testing.T) {
	s := start(t, hub.Config{})
	good, bad, huge := s.join("good", 1, "A"), s.join("bad", 1, "B"), s.join("huge", 1, "C")
	bad.send("{\"Action\":\"BeaconHeartbeat\xff\"}")
	_, err := bad.raw()
	require.Equal(t, websocket.StatusInvalidFramePayloadData, websocket.CloseStatus(err), "%v", err)
	s.eventually("gone", func() bool { return s.get("/Beacon/"+bad.id).status == http.StatusNotFound })

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	out, err := huge.conn.Writer(ctx, websocket.MessageText)
	require.NoError(t, err)
	chunk := bytes.Repeat([]byte(" "), 1<<20)
	for range 130 {
		if _, err = out.Write(chunk); err != nil {
			break
		}
	}
	err = errors.Join(err, out.Close())
	_, readErr := huge.raw()
	require.Error(t, errors.Join(err, readErr))
	s.eventually("gone", func() bool { return s.get("/Beacon/"+huge.id).status == http.StatusNotFound })

	hash := s.enqueue(`{"Capability":"A"}`)
	require.Equal(t, hash, good.item().WorkItemHash)

	for name, frame := range map[string]string{
		"mistyped": `{"Action":"BeaconRegister","Name":{},"Capabilities":[]}`,
		"too long": `{"Action":"BeaconRegister","Name":"` + strings.Repeat("n", 300) + `","Capabilities":[]}`,
		"oversize": `{"Action":"BeaconRegister","Name":"n","Capabilities":[],"Tags":{"t":"` + strings.Repeat("t", 1<<20) + `"}}`,
	} {
		w := s.dial()
		w.send(frame)
		require.Equal(t, "BeaconRejected", w.receive()["EventType"], name)
		_, err := w.raw()
		require.Equal(t, websocket.StatusCode(4403), websocket.CloseStatus(err), name)
	}
	w := s.dial()
	w.send(`{"Action":"BeaconRegister"}`)
	require.Equal(t, "BeaconRegistered", w.receive()["EventType"])
	require.Contains(t, string(s.get("/Beacon").raw), `"Name":"unnamed"`)
}
