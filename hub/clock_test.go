package hub_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// direct calls the handler without a network, so that time can be a bubble's.
type direct struct {
	t   *testing.T
	hub *hub.Hub
}

func (d direct) call(ctx context.Context, method, path, body string) answer {
	r := httptest.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	r.RemoteAddr = "127.0.0.1:1"
	w := httptest.NewRecorder()
	d.hub.ServeHTTP(w, r)
	return answer{w.Code, w.Header(), w.Body.Bytes()}
}

func (d direct) post(path, body string) answer {
	return d.call(d.t.Context(), http.MethodPost, path, body)
}
func (d direct) get(path string) answer { return d.call(d.t.Context(), http.MethodGet, path, "") }

func (d direct) register(name string, slots string) string {
	d.t.Helper()
	id, _ := d.post("/Beacon/Register", `{"Name":"`+name+`","Capabilities":["A"],"MaxConcurrent":`+slots+`}`).json(d.t)["BeaconID"].(string)
	require.NotEmpty(d.t, id)
	return id
}

func (d direct) poll(id string) string {
	d.t.Helper()
	var out struct{ WorkItem *protocol.WorkItem }
	require.NoError(d.t, json.Unmarshal(d.post("/Beacon/Work/Poll", `{"BeaconID":"`+id+`"}`).raw, &out))
	if out.WorkItem == nil {
		return ""
	}
	return out.WorkItem.WorkItemHash
}

func (d direct) enqueue(body string) string {
	d.t.Helper()
	hash, _ := d.post("/Beacon/Work/Enqueue", body).json(d.t)["WorkItemHash"].(string)
	require.NotEmpty(d.t, hash)
	return hash
}

func inBubble(t *testing.T, cfg hub.Config, test func(t *testing.T, d direct)) {
	synctest.Test(t, func(t *testing.T) {
		cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
		d := direct{t, hub.New(cfg)}
		test(t, d)
		require.NoError(t, d.hub.Close(context.Background()))
	})
}

func TestDispatchTimesOut(t *testing.T) {
	inBubble(t, hub.Config{}, func(t *testing.T, d direct) {
		id := d.register("p", "1")
		began := time.Now()
		got := make(chan answer, 1)
		go func() { got <- d.post("/Beacon/Work/Dispatch", `{"Capability":"A","TimeoutMs":1500}`) }()
		synctest.Wait()
		hash := d.poll(id)
		require.NotEmpty(t, hash)
		a := <-got
		require.Equal(t, 1500*time.Millisecond, time.Since(began))
		require.Equal(t, http.StatusInternalServerError, a.status)
		require.Equal(t, "Direct dispatch timed out after 1500ms.", a.json(t)["Error"])
		require.Equal(t, false, a.json(t)["Success"])
		require.Equal(t, protocol.StatusTimeout, d.get("/Beacon/Work/" + hash).json(t)["Status"])

		// The worker is still at it, and its slot is taken until it says so.
		next := d.enqueue(`{"Capability":"A"}`)
		require.Empty(t, d.poll(id))
		a = d.post("/Beacon/Work/"+hash+"/Complete", `{}`)
		require.Equal(t, http.StatusBadRequest, a.status)
		require.Equal(t, "BeaconCoordinator: work item ["+hash+"] already finalized (Timeout).", a.json(t)["Error"])
		require.Equal(t, next, d.poll(id))
	})
}

func TestTimeoutOfAnAbandonedDispatch(t *testing.T) {
	inBubble(t, hub.Config{}, func(t *testing.T, d direct) {
		id := d.register("p", "1")
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan answer)
		go func() {
			gone <- d.call(ctx, http.MethodPost, "/Beacon/Work/Dispatch", `{"Capability":"A","TimeoutMs":5000}`)
		}()
		synctest.Wait()
		hash := d.poll(id)
		cancel()
		<-gone
		require.Equal(t, protocol.StatusRunning, d.get("/Beacon/Work/" + hash).json(t)["Status"])
		time.Sleep(7 * time.Second)
		require.Equal(t, protocol.StatusTimeout, d.get("/Beacon/Work/" + hash).json(t)["Status"])
	})
}

func TestSilentPollerIsGone(t *testing.T) {
	inBubble(t, hub.Config{}, func(t *testing.T, d direct) {
		silent, alive := d.register("silent", "2"), d.register("alive", "1")
		hash := d.enqueue(`{"Capability":"A"}`)
		require.Equal(t, hash, d.poll(silent))
		for range 5 {
			time.Sleep(10 * time.Second)
			require.Empty(t, d.poll(alive))
		}
		require.Equal(t, http.StatusOK, d.post("/Beacon/Work/"+hash+"/Progress", `{}`).status) // a sign of life
		for range 5 {
			time.Sleep(10 * time.Second)
			require.Equal(t, http.StatusOK, d.post("/Beacon/"+alive+"/Heartbeat", `{}`).status)
		}
		require.Equal(t, http.StatusOK, d.get("/Beacon/"+silent).status)
		time.Sleep(11 * time.Second)
		require.Equal(t, http.StatusNotFound, d.get("/Beacon/"+silent).status)
		require.Equal(t, hash, d.poll(alive), "its item is given to another")
		require.EqualValues(t, 2, d.get("/Beacon/Work/" + hash).json(t)["AttemptNumber"])
		require.Empty(t, d.poll(silent))
	})
}

func TestAffinityExpires(t *testing.T) {
	inBubble(t, hub.Config{Settings: ledger.Settings{HeartbeatMs: 36_000_000}}, func(t *testing.T, d direct) {
		bound, other := d.register("bound", "9"), d.register("other", "9")
		d.enqueue(`{"Capability":"A","AffinityKey":"k"}`)
		require.NotEmpty(t, d.poll(bound))
		hash := d.enqueue(`{"Capability":"A","AffinityKey":"k"}`)
		time.Sleep(59 * time.Minute)
		require.Empty(t, d.poll(other))
		time.Sleep(time.Minute + time.Second)
		require.Equal(t, hash, d.poll(other))
		require.Contains(t, string(d.get("/Beacon/Affinity").raw), other)
	})
}

func TestHistoryFilesAndSessionsExpire(t *testing.T) {
	inBubble(t, hub.Config{DataDir: t.TempDir()}, func(t *testing.T, d direct) {
		hash := d.enqueue(`{"Capability":"A"}`)
		require.Equal(t, http.StatusOK, d.post("/Beacon/Work/"+hash+"/Complete", `{}`).status)
		path, _ := d.post("/Beacon/File?name=a", "abc").json(t)["URL"].(string)
		time.Sleep(58 * time.Minute)
		require.Equal(t, http.StatusOK, d.get("/Beacon/Work/"+hash).status)
		time.Sleep(4 * time.Minute)
		require.Equal(t, http.StatusNotFound, d.get("/Beacon/Work/"+hash).status)
		require.Equal(t, http.StatusOK, d.get(path).status)
		time.Sleep(23 * time.Hour)
		require.Equal(t, http.StatusNotFound, d.get(path).status)
	})
}
