package hub_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
)

func TestMain(m *testing.M) {
	// The NATS client starts this goroutine with a publisher, and leaves it when
	// the publisher has ended before it ran.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// patience bounds what a test waits for; it is no measure of anything, and on a
// machine that has much else to do only what hangs takes so long.
const patience = 2 * time.Minute

type testServer struct {
	t   *testing.T
	url string
	hub *hub.Hub
	web *httptest.Server
}

func start(t *testing.T, cfg hub.Config) *testServer {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	return startOn(t, httptest.NewUnstartedServer(nil), cfg)
}

// startOn starts a hub behind a listener that is there.
func startOn(t *testing.T, web *httptest.Server, cfg hub.Config) *testServer {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	h := hub.New(cfg)
	web.Config.Handler = h
	web.Start()
	s := &testServer{t, web.URL, h, web}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, h.Close(ctx))
		web.Close()
	})
	return s
}

type answer struct {
	status int
	header http.Header
	raw    []byte
}

func (a answer) json(t *testing.T) map[string]any {
	t.Helper()
	var out map[string]any
	require.NoError(t, json.Unmarshal(a.raw, &out), "%s", a.raw)
	return out
}

func (s *testServer) call(method, path, body string, header ...string) answer {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	for i := 0; i+1 < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	response, err := s.web.Client().Do(r)
	require.NoError(s.t, err)
	defer func() { _ = response.Body.Close() }()
	raw, err := io.ReadAll(response.Body)
	require.NoError(s.t, err)
	return answer{response.StatusCode, response.Header, raw}
}

func (s *testServer) post(path, body string, header ...string) answer {
	s.t.Helper()
	return s.call(http.MethodPost, path, body, header...)
}

func (s *testServer) get(path string) answer {
	s.t.Helper()
	return s.call(http.MethodGet, path, "")
}

// enqueue returns the hash of a new item.
func (s *testServer) enqueue(body string, header ...string) string {
	s.t.Helper()
	a := s.post("/Beacon/Work/Enqueue", body, header...)
	require.Equal(s.t, http.StatusOK, a.status, "%s", a.raw)
	var out protocol.Enqueued
	require.NoError(s.t, json.Unmarshal(a.raw, &out))
	require.True(s.t, out.Success)
	return out.WorkItemHash
}

func (s *testServer) record(hash string) protocol.WorkRecord {
	s.t.Helper()
	a := s.get("/Beacon/Work/" + url.PathEscape(hash))
	require.Equal(s.t, http.StatusOK, a.status, "%s", a.raw)
	var out protocol.WorkRecord
	require.NoError(s.t, json.Unmarshal(a.raw, &out))
	return out
}

func (s *testServer) eventually(why string, check func() bool) {
	s.t.Helper()
	require.Eventually(s.t, check, patience, 2*time.Millisecond, why)
}

// later runs a request that is answered in its own time.
func (s *testServer) later(path, body string) <-chan answer {
	out := make(chan answer, 1)
	s.t.Helper()
	go func() {
		response, err := s.web.Client().Post(s.url+path, "application/json", strings.NewReader(body))
		if err != nil {
			out <- answer{raw: []byte(err.Error())}
			return
		}
		defer func() { _ = response.Body.Close() }()
		raw, _ := io.ReadAll(response.Body)
		out <- answer{response.StatusCode, response.Header, raw}
	}()
	return out
}

func (s *testServer) await(c <-chan answer) answer {
	s.t.Helper()
	select {
	case a := <-c:
		return a
	case <-time.After(patience):
		require.FailNow(s.t, "no answer")
		return answer{}
	}
}

// A worker is a raw WebSocket client.
type worker struct {
	t    *testing.T
	conn *websocket.Conn
	id   string
}

func (s *testServer) dial(header ...string) *worker {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	conn, response, err := websocket.Dial(ctx, s.url+"/any/path", &websocket.DialOptions{HTTPHeader: h, HTTPClient: s.web.Client()})
	require.NoError(s.t, err)
	if response.Body != nil {
		_ = response.Body.Close()
	}
	conn.SetReadLimit(128 << 20)
	s.t.Cleanup(func() { _ = conn.CloseNow() })
	return &worker{t: s.t, conn: conn}
}

func (s *testServer) join(name string, slots int, capabilities ...string) *worker {
	s.t.Helper()
	w := s.dial()
	w.register(name, slots, capabilities...)
	return w
}

func (w *worker) register(name string, slots int, capabilities ...string) {
	w.t.Helper()
	list, err := json.Marshal(capabilities)
	require.NoError(w.t, err)
	w.send(fmt.Sprintf(`{"Action":"BeaconRegister","Name":%q,"Capabilities":%s,"MaxConcurrent":%d,"Tags":{}}`, name, list, slots))
	m := w.receive()
	require.Equal(w.t, "BeaconRegistered", m["EventType"], "%v", m)
	w.id, _ = m["BeaconID"].(string)
}

func (w *worker) send(frame string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(w.t, w.conn.Write(ctx, websocket.MessageText, []byte(frame)))
}

func (w *worker) raw() ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, raw, err := w.conn.Read(ctx)
	return raw, err
}

func (w *worker) receive() map[string]any {
	w.t.Helper()
	raw, err := w.raw()
	require.NoError(w.t, err)
	var out map[string]any
	require.NoError(w.t, json.Unmarshal(raw, &out))
	return out
}

// item waits for a work item.
func (w *worker) item() protocol.WorkItem {
	w.t.Helper()
	raw, err := w.raw()
	require.NoError(w.t, err)
	var out struct {
		EventType string
		WorkItem  protocol.WorkItem
	}
	require.NoError(w.t, json.Unmarshal(raw, &out))
	require.Equal(w.t, "WorkItem", out.EventType, "%s", raw)
	return out.WorkItem
}

// nothing proves that no frame is on the way: the answer to a message that has
// one comes next. It costs the registration.
func (w *worker) nothing() {
	w.t.Helper()
	w.send(`{"Action":"Deregister","BeaconID":"` + w.id + `"}`)
	require.Equal(w.t, map[string]any{"EventType": "Deregistered"}, w.receive())
}

func (w *worker) complete(hash string) {
	w.t.Helper()
	w.send(fmt.Sprintf(`{"Action":"WorkComplete","WorkItemHash":%q,"Outputs":{"StdOut":"hello world\n","ExitCode":0,"Result":"hello world\n"},"Log":["Command executed: echo hello world"]}`, hash))
}

func TestNodeWorkerConversation(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.dial()
	w.send(`{"Action":"BeaconRegister","Name":"n002","Capabilities":["Shell","FileSystem","Bench"],"MaxConcurrent":1,"Tags":{}}`)
	raw, err := w.raw()
	require.NoError(t, err)
	require.Regexp(t, `^\{"EventType":"BeaconRegistered","BeaconID":"bcn-n002-\d{13}"\}$`, string(raw))
	w.id = strings.Split(string(raw), `"`)[7]

	dispatched := s.later("/Beacon/Work/Dispatch", `{"Capability":"Shell","Settings":{"Command":"echo hello","Parameters":"world","Big":12345678901234567890}}`)
	raw, err = w.raw()
	require.NoError(t, err)
	hash := `wi-unknown-unknown-\d{13}-1`
	meta := `\{"RunID":"","WorkItemHash":"` + hash + `","EnqueuedAt":"[^"]+Z","DispatchedAt":"[^"]+Z","QueueWaitMs":\d+,"AttemptNumber":1,"HubInstanceID":"[^"]+"\}`
	require.Regexp(t, `^\{"EventType":"WorkItem","WorkItem":\{"WorkItemHash":"`+hash+`","Capability":"Shell","Action":"Execute","Settings":\{"Big":12345678901234567890,"Command":"echo hello","Parameters":"world","QueueMetadata":`+meta+`\},"OperationHash":"","TimeoutMs":300000,"AttemptNumber":1,"QueueMetadata":`+meta+`\}\}$`, string(raw))
	var event struct{ WorkItem protocol.WorkItem }
	require.NoError(t, json.Unmarshal(raw, &event))
	item := event.WorkItem

	w.send(`{"Action":"WorkProgress","WorkItemHash":"` + item.WorkItemHash + `","ProgressData":{"Percent":33,"Message":"step 1","Step":1,"TotalSteps":3,"Log":["log 1"]}}`)
	w.send(`{"Action":"BeaconHeartbeat","BeaconID":"` + w.id + `","ActiveItems":["` + item.WorkItemHash + `"]}`)
	w.send(`{"Action":"NoSuchAction"}`)
	w.send(`not json`)
	w.complete(item.WorkItemHash)
	a := s.await(dispatched)
	require.Equal(t, http.StatusOK, a.status)
	require.JSONEq(t, `{"Success":true,"WorkItemHash":"`+item.WorkItemHash+`","Outputs":{"StdOut":"hello world\n","ExitCode":0,"Result":"hello world\n"},"Log":["log 1","Command executed: echo hello world"]}`, string(a.raw))

	record := s.record(item.WorkItemHash)
	require.Equal(t, protocol.StatusComplete, record.Status)
	require.JSONEq(t, `{"Percent":33,"Message":"step 1","Step":1,"TotalSteps":3}`, string(record.Progress))
	require.JSONEq(t, `{"StdOut":"hello world\n","ExitCode":0,"Result":"hello world\n"}`, string(record.Outputs))
	require.Equal(t, []string{"log 1", "Command executed: echo hello world"}, record.Log)

	failing := s.later("/Beacon/Work/Dispatch", `{"Capability":"Bench","Action":"Fail"}`)
	item = w.item()
	w.send(`{"Action":"WorkError","WorkItemHash":"` + item.WorkItemHash + `","ErrorMessage":"provider says no","Log":[]}`)
	a = s.await(failing)
	require.Equal(t, http.StatusInternalServerError, a.status)
	require.Equal(t, "provider says no", a.json(t)["Error"])
	require.Equal(t, false, a.json(t)["Success"])

	w.send(`{"Action":"Deregister","BeaconID":"` + w.id + `"}`)
	raw, err = w.raw()
	require.NoError(t, err)
	require.Equal(t, `{"EventType":"Deregistered"}`, string(raw))
	require.Equal(t, http.StatusNotFound, s.call(http.MethodDelete, "/Beacon/"+w.id, "").status)
	require.Equal(t, "[]", string(s.get("/Beacon").raw))
	w.register("n002", 1, "Shell") // the same socket may come back
}

func TestPollingConversation(t *testing.T) {
	s := start(t, hub.Config{})
	login := s.post("/1.0/Authenticate", `{"UserName":"n002h","Password":""}`)
	require.Equal(t, true, login.json(t)["LoggedIn"])
	cookie := strings.SplitN(login.header.Get("Set-Cookie"), ";", 2)[0]
	require.Regexp(t, `^SessionID=[\w-]+\.[\w-]+$`, cookie)
	require.Equal(t, login.json(t), s.call(http.MethodGet, "/1.0/CheckSession", "", "Cookie", cookie).json(t))

	a := s.post("/Beacon/Register", `{"Name":"N 002/h","Capabilities":["Bench"],"MaxConcurrent":1,"Tags":{"a":"b"}}`, "Cookie", cookie)
	require.Equal(t, http.StatusOK, a.status)
	record := a.json(t)
	id, _ := record["BeaconID"].(string)
	require.Regexp(t, `^bcn-n-002-h-\d{13}$`, id)
	for _, field := range []string{"Name", "SessionID", "Capabilities", "Status", "LastHeartbeat", "CurrentWorkItems", "MaxConcurrent", "Tags", "Contexts", "BindAddresses", "HostID", "SharedMounts", "RegisteredAt"} {
		require.Contains(t, record, field)
	}
	poll := `{"BeaconID":"` + id + `"}`
	require.Equal(t, `{"WorkItem":null}`, string(s.post("/Beacon/Work/Poll", poll, "Cookie", cookie).raw))

	hash := s.enqueue(`{"Capability":"Bench","Action":"Progress","NodeHash":"a/b c%2F..","TimeoutMs":1}`)
	require.Contains(t, hash, "a/b c%2F..")
	second := s.enqueue(`{"Capability":"Bench"}`)
	var polled struct{ WorkItem *protocol.WorkItem }
	require.NoError(t, json.Unmarshal(s.post("/Beacon/Work/Poll", poll, "Cookie", cookie).raw, &polled))
	require.Equal(t, hash, polled.WorkItem.WorkItemHash)
	require.Equal(t, `{"WorkItem":null}`, string(s.post("/Beacon/Work/Poll", poll).raw), "full")
	require.Equal(t, "Busy", s.get("/Beacon/" + id).json(t)["Status"])

	path := "/Beacon/Work/" + url.PathEscape(hash)
	a = s.post(path+"/Progress", `{"Percent":50,"Log":["half"]}`, "Cookie", cookie)
	require.JSONEq(t, `{"Success":true,"WorkItemHash":`+quote(hash)+`}`, string(a.raw))
	a = s.post(path+"/Complete", `{"Outputs":{"ExitCode":0},"Log":["done"]}`, "Cookie", cookie)
	require.JSONEq(t, `{"Status":"Completed","WorkItemHash":`+quote(hash)+`}`, string(a.raw))
	a = s.post(path+"/Complete", `{"Outputs":{"ExitCode":1}}`)
	require.Equal(t, http.StatusBadRequest, a.status)
	require.Equal(t, "BeaconCoordinator: work item ["+hash+"] already finalized (Complete).", a.json(t)["Error"])
	require.JSONEq(t, `{"ExitCode":0}`, string(s.record(hash).Outputs), "the first counts")

	require.NoError(t, json.Unmarshal(s.post("/Beacon/Work/Poll", poll).raw, &polled))
	require.Equal(t, second, polled.WorkItem.WorkItemHash)
	a = s.post("/Beacon/Work/"+second+"/Error", `{"ErrorMessage":"no","Log":["why"]}`)
	require.JSONEq(t, `{"Status":"Failed","WorkItemHash":`+quote(second)+`}`, string(a.raw))
	require.Equal(t, "no", s.record(second).Error)
	a = s.post("/Beacon/"+id+"/Heartbeat", `{"ActiveItems":["x"]}`)
	require.Equal(t, id, a.json(t)["BeaconID"])
	require.Equal(t, "Online", a.json(t)["Status"])
	a = s.call(http.MethodDelete, "/Beacon/"+id, "")
	require.JSONEq(t, `{"Status":"Deregistered","BeaconID":"`+id+`"}`, string(a.raw))

	events := s.get(path + "/Events").json(t)["Events"]
	var kinds []any
	for _, e := range events.([]any) {
		kinds = append(kinds, e.(map[string]any)["EventType"])
	}
	require.Equal(t, []any{"enqueued", "dispatched", "completed"}, kinds)
}

func quote(s string) string {
	raw, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

func TestRefusals(t *testing.T) {
	s := start(t, hub.Config{AllowedHosts: []string{"Hub.Example"}})
	deep := strings.Repeat("[", 20_000)
	tests := map[string]struct {
		method, path, body string
		header             []string
		status             int
		text               string
	}{
		"register without name":       {"POST", "/Beacon/Register", `{"Capabilities":["A"]}`, nil, 400, "Name and Capabilities are required."},
		"register without ability":    {"POST", "/Beacon/Register", `{"Name":"a"}`, nil, 400, "Name and Capabilities are required."},
		"register with a long name":   {"POST", "/Beacon/Register", `{"Name":"` + strings.Repeat("x", 257) + `","Capabilities":[]}`, nil, 400, "at most 256"},
		"register, mistyped":          {"POST", "/Beacon/Register", `{"Name":7,"Capabilities":[]}`, nil, 400, "Name cannot be of the type number"},
		"poll without id":             {"POST", "/Beacon/Work/Poll", `{}`, nil, 400, "BeaconID is required."},
		"poll of an unknown beacon":   {"POST", "/Beacon/Work/Poll", `{"BeaconID":"x"}`, nil, 200, ""},
		"heartbeat of an unknown one": {"POST", "/Beacon/x/Heartbeat", `{}`, nil, 404, "Beacon [x] not found."},
		"unknown beacon":              {"GET", "/Beacon/x", "", nil, 404, "Beacon [x] not found."},
		"deregister an unknown one":   {"DELETE", "/Beacon/x", "", nil, 404, "Beacon [x] not found."},
		"complete unknown":            {"POST", "/Beacon/Work/a%2Fb/Complete", `{}`, nil, 400, "BeaconCoordinator: work item [a/b] not found."},
		"fail unknown":                {"POST", "/Beacon/Work/x/Error", ``, nil, 400, "BeaconCoordinator: work item [x] not found."},
		"progress of unknown":         {"POST", "/Beacon/Work/x/Progress", `{}`, nil, 404, "Work item [x] not found or not running."},
		"progress that is none":       {"POST", "/Beacon/Work/x/Progress", `[]`, nil, 400, "Invalid progress"},
		"upload for unknown":          {"POST", "/Beacon/Work/x/Upload", `abc`, nil, 400, "not found"},
		"unknown work":                {"GET", "/Beacon/Work/x", "", nil, 404, "Work item [x] not found."},
		"events of unknown":           {"GET", "/Beacon/Work/x/Events", "", nil, 404, "Work item [x] not found."},
		"cancel unknown":              {"POST", "/Beacon/Work/x/Cancel", "{}", nil, 404, "Work item [x] not found."},
		"dispatch to nobody":          {"POST", "/Beacon/Work/Dispatch", `{"Capability":"A"}`, nil, 503, "No Beacon workers are registered."},
		"stream to nobody":            {"POST", "/Beacon/Work/DispatchStream", `{"Capability":"A"}`, nil, 503, "No Beacon workers are registered."},
		"dispatch of nothing":         {"POST", "/Beacon/Work/Dispatch", `{}`, nil, 400, "Capability is required."},
		"no object":                   {"POST", "/Beacon/Work/Enqueue", `[]`, nil, 400, "The body cannot be of the type array"},
		"settings that are none":      {"POST", "/Beacon/Work/Enqueue", `{"Capability":"A","Settings":[]}`, nil, 400, "Settings cannot be of the type array"},
		"long affinity key":           {"POST", "/Beacon/Work/Enqueue", `{"Capability":"A","AffinityKey":"` + strings.Repeat("k", 1025) + `"}`, nil, 400, "AffinityKey"},
		"malformed":                   {"POST", "/Beacon/Work/Enqueue", `{"Capability":`, nil, 400, "Invalid JSON"},
		"deep":                        {"POST", "/Beacon/Work/Enqueue", deep, nil, 400, "Invalid JSON"},
		"malformed login":             {"POST", "/1.0/Authenticate", `{`, nil, 400, "Invalid JSON"},
		"too large":                   {"POST", "/Beacon/Work/Enqueue", `{"Capability":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, "over the limit"},
		"batch without items":         {"POST", "/Beacon/Work/Complete/Batch", `{}`, nil, 400, "Items is required."},
		"batch too long":              {"POST", "/Beacon/Work/Progress/Batch", `{"Items":[` + strings.Repeat("{},", 256) + `{}]}`, nil, 400, "at most 256"},
		"unknown path":                {"GET", "/nothing/here", "", nil, 404, "/nothing/here does not exist"},
		"root":                        {"GET", "/", "", nil, 404, "does not exist"},
		"wrong method":                {"PATCH", "/Beacon/Work/Dispatch", "", nil, 405, "PATCH is not allowed"},
		"bad escape":                  {"GET", "/Beacon/%FF", "", nil, 400, "percent-encoded"},
		"bad limit":                   {"GET", "/Beacon/Queue?limit=0", "", nil, 400, "limit"},
		"foreign page":                {"POST", "/Beacon/Work/Enqueue", `{}`, []string{"Origin", "http://evil.example"}, 403, "other sites"},
		"page from a file":            {"POST", "/Beacon/Work/Enqueue", `{}`, []string{"Origin", "null"}, 403, "other sites"},
		"page without origin":         {"GET", "/status", ``, []string{"Sec-Fetch-Site", "cross-site"}, 403, "other sites"},
		"rebound name":                {"GET", "/status", "", []string{"Host", "evil.example:54321"}, 403, `does not go by the name "evil.example"`},
		"no name":                     {"GET", "/status", "", []string{"Host", "localhost.evil.example"}, 403, "does not go by"},
		"allowed name":                {"GET", "/status", "", []string{"Host", "HUB.example:1"}, 200, ""},
		"localhost":                   {"GET", "/status", "", []string{"Host", "localhost:1"}, 200, ""},
		"IPv6":                        {"GET", "/status", "", []string{"Host", "[::1]:1"}, 200, ""},
		"own page":                    {"GET", "/status", "", []string{"Host", "localhost:1", "Origin", "http://localhost:1"}, 200, ""},
		"trailing slash":              {"GET", "/Beacon/", "", nil, 200, ""},
		"head":                        {"HEAD", "/status", "", nil, 200, ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			a := s.call(tt.method, tt.path, tt.body, tt.header...)
			require.Equal(t, tt.status, a.status, "%s", a.raw)
			require.Equal(t, "application/json", a.header.Get("Content-Type"))
			if tt.status >= 400 {
				require.Contains(t, a.json(t)["Error"], tt.text)
			}
		})
	}
	require.Equal(t, "DELETE, GET", sorted(s.call("PATCH", "/Beacon/x", "").header.Get("Allow")))
	require.Equal(t, "Running", s.get("/status").json(t)["Status"])
	require.Equal(t, false, s.post("/1.0/Authenticate", `{}`).json(t)["LoggedIn"])
	require.Equal(t, false, s.get("/1.0/CheckSession").json(t)["LoggedIn"])
}

func sorted(list string) string {
	parts := strings.Split(list, ", ")
	if len(parts) == 2 && parts[0] > parts[1] {
		parts[0], parts[1] = parts[1], parts[0]
	}
	return strings.Join(parts, ", ")
}

func TestForeignSocketIsRefused(t *testing.T) {
	s := start(t, hub.Config{})
	for _, origin := range []string{"http://evil.example", "null"} {
		_, response, err := websocket.Dial(t.Context(), s.url, &websocket.DialOptions{HTTPHeader: http.Header{"Origin": {origin}}, HTTPClient: s.web.Client()})
		require.Error(t, err)
		require.Equal(t, http.StatusForbidden, response.StatusCode)
	}
	s.dial("Origin", s.url)
}

func TestCloseAnswersEverybody(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("a", 1, "A")
	dispatched := s.later("/Beacon/Work/Dispatch", `{"Capability":"A"}`)
	w.item()
	streamed := s.later("/Beacon/Work/DispatchStream", `{"Capability":"A"}`)
	s.eventually("second item", func() bool { return bytes.Count(s.get("/Beacon/Work").raw, []byte("WorkItemHash")) == 2 })
	closed := make(chan error, 1)
	go func() { closed <- s.hub.Close(context.Background()) }()
	_, err := w.raw()
	require.Equal(t, websocket.StatusGoingAway, websocket.CloseStatus(err))
	require.NoError(t, <-closed)
	require.Equal(t, http.StatusServiceUnavailable, s.await(dispatched).status)
	a := s.await(streamed)
	kind, payload, err := protocol.ReadFrame(bytes.NewReader(a.raw), 1<<20)
	require.NoError(t, err)
	require.Equal(t, protocol.FrameError, kind)
	require.Contains(t, string(payload), "shutting down")
	require.Equal(t, http.StatusServiceUnavailable, s.get("/status").status)
	require.NoError(t, s.hub.Close(context.Background()), "again")
}

func TestTemporaryFilesAreRemoved(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir)
	s := start(t, hub.Config{})
	require.Equal(t, http.StatusOK, s.post("/Beacon/File?name=a", "abc").status)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.NoError(t, s.hub.Close(t.Context()))
	entries, err = os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries)
}
