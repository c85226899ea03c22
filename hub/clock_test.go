package hub_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
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
	return d.from(ctx, "127.0.0.1:1", "", method, path, body)
}

// from is a call from elsewhere, by whoever has a session.
func (d direct) from(ctx context.Context, address, session, method, path, body string) answer {
	r := httptest.NewRequestWithContext(ctx, method, "http://localhost"+path, strings.NewReader(body))
	r.RemoteAddr = address
	if session != "" {
		r.Header.Set("Cookie", protocol.SessionCookie+"="+session)
	}
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

func TestHistoryAndFilesExpire(t *testing.T) {
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

// The address of a file that a worker is given is good for everybody, for a while,
// and for that file only.
func TestAddressesExpire(t *testing.T) {
	inBubble(t, hub.Config{DataDir: t.TempDir(), FileAge: 1000 * time.Hour, URL: "http://localhost"}, func(t *testing.T, d direct) {
		get := func(path string) answer {
			return d.from(t.Context(), "192.0.2.1:1", "", http.MethodGet, path, "")
		}
		path, _ := d.post("/Beacon/File?name=a", "abc").json(t)["URL"].(string)
		require.Equal(t, http.StatusUnauthorized, get(path).status)
		id := d.register("p", "1")
		d.enqueue(`{"Capability":"A","TimeoutMs":7200000,"Settings":{"SourceURL":"` + path + `"}}`)
		var polled struct{ WorkItem protocol.WorkItem }
		require.NoError(t, json.Unmarshal(d.post("/Beacon/Work/Poll", `{"BeaconID":"`+id+`"}`).raw, &polled))
		source, err := url.Parse(polled.WorkItem.Settings.Text("SourceURL"))
		require.NoError(t, err)
		until, err := strconv.ParseInt(source.Query().Get("e"), 10, 64)
		require.NoError(t, err)
		good := time.Until(time.Unix(until, 0))
		require.GreaterOrEqual(t, good, 3*time.Hour, "an hour more than the item may take")

		address := source.RequestURI()
		require.Equal(t, "abc", string(get(address).raw))
		later := strings.Replace(address, "e="+strconv.FormatInt(until, 10), "e="+strconv.FormatInt(until+1, 10), 1)
		other, _ := d.post("/Beacon/File?name=a", "other").json(t)["URL"].(string)
		for _, changed := range []string{later, address[:len(address)-1], other + "?" + source.RawQuery, path + "?s=", path + "?e=x&s=y"} {
			a := get(changed)
			require.Equal(t, http.StatusForbidden, a.status, changed)
			require.Contains(t, a.json(t)["Error"], "was changed")
		}
		time.Sleep(good - time.Second)
		require.Equal(t, "abc", string(get(address).raw))
		time.Sleep(time.Second)
		for range 2 {
			a := get(address)
			require.Equal(t, http.StatusGone, a.status)
			require.Contains(t, a.json(t)["Error"], "has expired: it was good until "+time.Unix(until, 0).UTC().Format(time.RFC3339))
			time.Sleep(time.Hour)
		}
		require.Equal(t, "abc", string(d.get(path).raw), "who may read it without")
	})
}

// A session ends after a day, for users, workers and whoever has the hub's token;
// what was connected with it stays so.
func TestSessionsExpire(t *testing.T) {
	alone := hub.Config{Anonymous: hub.AnonymousNobody}
	secured := hub.Config{Users: []hub.User{user(t, "ann", hub.Admin, "")}, JoinSecret: "open sesame"}
	session := func(a answer) string {
		cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
		_, value, _ := strings.Cut(cookie, "=")
		return value
	}
	for name, tt := range map[string]struct {
		cfg   hub.Config
		login func(d direct) answer
	}{
		"a user": {secured, func(d direct) answer {
			return d.post("/1.0/Authenticate", `{"UserName":"ann","Password":"ann's password"}`)
		}},
		"a worker": {secured, func(d direct) answer {
			return d.post("/Beacon/Register", `{"Name":"p","Capabilities":["A"],"JoinSecret":"open sesame"}`)
		}},
		"the token": {alone, func(d direct) answer {
			return d.post("/1.0/Authenticate", `{"Token":"`+d.hub.Token()+`"}`)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, tt.cfg, func(t *testing.T, d direct) {
				require.NoError(t, d.hub.Ready(t.Context()))
				held := session(tt.login(d))
				require.NotEmpty(t, held)
				get := func(path string) answer {
					return d.from(t.Context(), "192.0.2.1:1", held, http.MethodGet, path, "")
				}
				time.Sleep(24*time.Hour - time.Second)
				require.Equal(t, http.StatusOK, get("/Beacon").status)
				time.Sleep(time.Second)
				a := get("/Beacon")
				require.Equal(t, http.StatusUnauthorized, a.status)
				require.JSONEq(t, `{"Error":"Authentication required.","LoggedIn":false}`, string(a.raw))
				require.Equal(t, false, get("/1.0/CheckSession").json(t)["LoggedIn"])
				require.Equal(t, http.StatusUnauthorized, d.from(t.Context(), "192.0.2.1:1", held, http.MethodPost, "/Beacon/Work/Poll", `{"BeaconID":"x"}`).status)
				held = session(tt.login(d))
				require.Equal(t, http.StatusOK, get("/Beacon").status, "until one logs in again")
			})
		})
	}
}
