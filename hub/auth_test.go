package hub_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coder/websocket"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/protocol"
)

func user(t *testing.T, name string, role hub.Role, tenant string) hub.User {
	t.Helper()
	hash, err := hub.HashPassword(name + "'s password")
	require.NoError(t, err)
	require.NotContains(t, hash, "password")
	return hub.User{Name: name, PasswordHash: hash, Role: role, Tenant: tenant}
}

// login returns the header of a user's requests.
func (s *testServer) login(name string) []string {
	s.t.Helper()
	a := s.post("/1.0/Authenticate", `{"UserName":"`+name+`","Password":"`+name+`'s password"}`)
	require.Equal(s.t, http.StatusOK, a.status)
	require.Equal(s.t, true, a.json(s.t)["LoggedIn"], "%s", a.raw)
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	require.Equal(s.t, "SessionID="+a.json(s.t)["SessionID"].(string), cookie)
	return []string{"Cookie", cookie}
}

func TestUsers(t *testing.T) {
	memory := journal.NewMemory()
	cfg := hub.Config{Journal: memory, Users: []hub.User{
		user(t, "root", hub.Admin, ""), user(t, "ann", hub.Submitter, "a"), user(t, "bob", hub.Submitter, "b"), user(t, "eve", hub.Viewer, "a"), user(t, "wes", hub.Worker, ""),
	}}
	require.NoError(t, cfg.Check())
	s := start(t, cfg)
	status := s.get("/status").json(t)
	require.Equal(t, true, status["AuthEnabled"])
	require.Equal(t, "authenticated", status["AuthMode"])
	for _, path := range []string{"/Beacon", "/Beacon/Work", "/Beacon/Queue", "/Beacon/Work/x", "/Beacon/File/o" + strings.Repeat("a", 52) + "/x"} {
		a := s.get(path)
		require.Equal(t, http.StatusUnauthorized, a.status, path)
		require.JSONEq(t, `{"Error":"Authentication required.","LoggedIn":false}`, string(a.raw))
	}
	for _, body := range []string{`{"UserName":"ann","Password":"bob's password"}`, `{"UserName":"nobody","Password":"x"}`, `{"UserName":"ann","Password":7}`, `{"UserName":"ann"}`} {
		a := s.post("/1.0/Authenticate", body)
		require.Equal(t, http.StatusOK, a.status)
		require.JSONEq(t, `{"LoggedIn":false,"Error":"Authentication failed."}`, string(a.raw))
		require.Empty(t, a.header.Get("Set-Cookie"))
	}
	root, ann, bob, eve, wes := s.login("root"), s.login("ann"), s.login("bob"), s.login("eve"), s.login("wes")

	// Each sees the own tenant's items, and only those.
	mine, theirs := s.enqueue(`{"Capability":"A","Settings":{"Tenant":"b","x":"1"}}`, ann...), s.enqueue(`{"Capability":"A"}`, bob...)
	get := func(path string, who []string) answer { return s.call(http.MethodGet, path, "", who...) }
	require.Equal(t, http.StatusOK, get("/Beacon/Work/"+mine, ann).status)
	require.Equal(t, http.StatusOK, get("/Beacon/Work/"+mine, eve).status)
	require.Equal(t, http.StatusNotFound, get("/Beacon/Work/"+mine, bob).status)
	require.Equal(t, http.StatusNotFound, get("/Beacon/Work/"+mine+"/Events", bob).status)
	require.Equal(t, http.StatusNotFound, s.post("/Beacon/Work/"+mine+"/Cancel", "", bob...).status)
	require.NotContains(t, string(get("/Beacon/Work", ann).raw)+string(get("/Beacon/Queue", ann).raw)+string(get("/Beacon/Tenants", ann).raw), theirs)
	require.Contains(t, string(get("/Beacon/Work", root).raw), theirs)
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Tenant":"b"}`, ann...).status)
	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/Enqueue", `{"Capability":"B","Tenant":"b"}`, root...).status)
	require.Equal(t, http.StatusBadRequest, s.post("/Beacon/Work/Enqueue", `{"Capability":"A","Tenant":"../b"}`, root...).status)
	// The same key is another one for another tenant.
	require.NotEqual(t, s.enqueue(`{"Capability":"K"}`, append(ann, "X-Idempotency-Key", "k")...), s.enqueue(`{"Capability":"K"}`, append(bob, "X-Idempotency-Key", "k")...))

	// Each does what the role allows.
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`, eve...).status)
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`, wes...).status)
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Register", `{"Name":"x","Capabilities":[]}`, ann...).status)
	require.Equal(t, http.StatusUnauthorized, s.post("/Beacon/Register", `{"Name":"x","Capabilities":[]}`).status)
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Work/"+mine+"/Complete", `{}`, ann...).status)

	w := s.dial(wes...)
	w.register("w", 2, "A")
	item := w.item()
	require.Equal(t, mine, item.WorkItemHash)
	require.Equal(t, "a", item.Settings.Text("Tenant"), "whose it is, is not the submitter's to say")
	require.Contains(t, string(item.QueueMetadata), `"Tenant":"a"`)
	w.complete(mine)
	s.eventually("done", func() bool {
		return strings.Contains(string(get("/Beacon/Work/"+mine, ann).raw), `"Status":"Complete"`)
	})

	stranger := s.dial()
	stranger.send(`{"Action":"BeaconRegister","Name":"s","Capabilities":["A"],"MaxConcurrent":1}`)
	require.Equal(t, "BeaconRejected", stranger.receive()["EventType"])
	_, err := stranger.raw()
	require.Equal(t, websocket.StatusCode(4403), websocket.CloseStatus(err))
	silent := s.dial() // who is nobody is not listened to
	silent.send(`{"Action":"WorkComplete","WorkItemHash":"` + theirs + `","Outputs":{},"Log":[]}`)
	silent.send(`{"Action":"BeaconRegister","Name":"s","Capabilities":[]}`)
	require.Equal(t, "BeaconRejected", silent.receive()["EventType"])
	require.NotContains(t, string(get("/Beacon/Work/"+theirs, bob).raw), `"Status":"Complete"`)

	// Files want a login, or a signature.
	file := s.post("/Beacon/File?name=a", "abc", ann...)
	require.Equal(t, http.StatusOK, file.status)
	url, _ := file.json(t)["URL"].(string)
	require.Equal(t, http.StatusUnauthorized, s.get(url).status)
	require.Equal(t, "abc", string(get(url, ann).raw))

	// Sessions: those that were changed are none, those that were ended are over,
	// and those of an earlier hub are as good as ever.
	forged := []string{"Cookie", ann[1][:len(ann[1])-1] + "x"}
	require.Equal(t, http.StatusUnauthorized, get("/Beacon", forged).status)
	require.Equal(t, false, get("/1.0/CheckSession", forged).json(t)["LoggedIn"])
	require.Equal(t, "ann", get("/1.0/CheckSession", ann).json(t)["UserRecord"].(map[string]any)["LoginID"])
	require.Equal(t, http.StatusOK, s.post("/1.0/Deauthenticate", "", bob...).status)
	require.Equal(t, http.StatusUnauthorized, get("/Beacon", bob).status)
	require.NoError(t, s.hub.Close(t.Context()))
	cfg.Users[1] = user(t, "ann", hub.Submitter, "a") // another hash: another password
	next := start(t, cfg)
	require.Equal(t, http.StatusOK, next.call(http.MethodGet, "/Beacon", "", root...).status)
	require.Equal(t, http.StatusUnauthorized, next.call(http.MethodGet, "/Beacon", "", bob...).status)
	require.Equal(t, http.StatusUnauthorized, next.call(http.MethodGet, "/Beacon", "", ann...).status)
}

func TestJoinSecret(t *testing.T) {
	s := start(t, hub.Config{JoinSecret: "open sesame"})
	register := func(secret string) map[string]any {
		w := s.dial()
		w.send(`{"Action":"BeaconRegister","Name":"w","Capabilities":["A"],"MaxConcurrent":1,"JoinSecret":"` + secret + `"}`)
		return w.receive()
	}
	require.Equal(t, map[string]any{"EventType": "BeaconRejected", "Reason": "Bootstrap auth secret mismatch"}, register("sesame"))
	require.Equal(t, "BeaconRejected", register("")["EventType"])
	registered := register("open sesame")
	require.Equal(t, "BeaconRegistered", registered["EventType"])
	session := []string{"Cookie", "SessionID=" + registered["SessionID"].(string)}
	id := registered["BeaconID"].(string)
	require.Equal(t, http.StatusOK, s.post("/Beacon/"+id+"/Heartbeat", `{}`, session...).status)
	require.Equal(t, http.StatusForbidden, s.post("/Beacon/Work/Enqueue", `{"Capability":"A"}`, session...).status)

	a := s.post("/Beacon/Register", `{"Name":"p","Capabilities":["A"],"JoinSecret":"open sesame"}`)
	require.Equal(t, http.StatusOK, a.status)
	require.NotContains(t, string(a.raw), "sesame")
	cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
	poll := `{"BeaconID":"` + a.json(t)["BeaconID"].(string) + `"}`
	require.Equal(t, http.StatusUnauthorized, s.post("/Beacon/Work/Poll", poll).status)
	require.Equal(t, `{"WorkItem":null}`, string(s.post("/Beacon/Work/Poll", poll, "Cookie", cookie).raw))
	require.Equal(t, http.StatusUnauthorized, s.post("/Beacon/Register", `{"Name":"p","Capabilities":["A"],"JoinSecret":"x"}`).status)
	require.Equal(t, false, s.post("/1.0/Authenticate", `{"UserName":"p","Password":""}`).json(t)["LoggedIn"])
}

func TestOnlyThisMachineIsServedWithoutLogin(t *testing.T) {
	ask := func(cfg hub.Config, address string, header ...string) int {
		cfg.Log = silent
		h := hub.New(cfg)
		defer func() { require.NoError(t, h.Close(t.Context())) }()
		r := httptest.NewRequest(http.MethodGet, "http://localhost/Beacon", nil)
		r.RemoteAddr = address
		for i := 0; i+1 < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Code
	}
	require.Equal(t, http.StatusOK, ask(hub.Config{}, "127.0.0.1:5"))
	require.Equal(t, http.StatusOK, ask(hub.Config{}, "[::1]:5"))
	require.Equal(t, http.StatusOK, ask(hub.Config{}, "[::ffff:127.0.0.1]:5"))
	require.Equal(t, http.StatusUnauthorized, ask(hub.Config{}, "192.0.2.1:5"))
	require.Equal(t, http.StatusUnauthorized, ask(hub.Config{}, "127.0.0.1:5", "X-Forwarded-For", "192.0.2.1"), "a proxy's callers are not here")
	require.Equal(t, http.StatusUnauthorized, ask(hub.Config{Anonymous: hub.AnonymousNobody}, "127.0.0.1:5"))
	require.Equal(t, http.StatusOK, ask(hub.Config{Anonymous: hub.AnonymousEveryone}, "192.0.2.1:5"))
	require.Equal(t, http.StatusUnauthorized, ask(hub.Config{JoinSecret: "x"}, "127.0.0.1:5"))
	require.Equal(t, http.StatusOK, ask(hub.Config{JoinSecret: "x", Anonymous: hub.AnonymousLocal}, "127.0.0.1:5"))
}

func TestRates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hub.New(hub.Config{Log: silent, Anonymous: hub.AnonymousEveryone, RequestRate: 10, RequestBurst: 20})
		ask := func(address string) int {
			r := httptest.NewRequest(http.MethodGet, "http://localhost/Beacon", nil)
			r.RemoteAddr = address
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code == http.StatusTooManyRequests {
				require.Equal(t, "1", w.Header().Get("Retry-After"))
			}
			return w.Code
		}
		for range 20 {
			require.Equal(t, http.StatusOK, ask("192.0.2.1:5"))
		}
		require.Equal(t, http.StatusTooManyRequests, ask("192.0.2.1:6"))
		require.Equal(t, http.StatusOK, ask("192.0.2.2:5"), "another caller is not concerned")
		for range 100 {
			require.Equal(t, http.StatusOK, ask("127.0.0.1:5"))
		}
		time.Sleep(time.Second)
		for range 10 {
			require.Equal(t, http.StatusOK, ask("192.0.2.1:5"))
		}
		require.Equal(t, http.StatusTooManyRequests, ask("192.0.2.1:5"))
		require.NoError(t, h.Close(t.Context()))
	})
}

// Of many who guess at the same time only some may, however long a password takes
// to check.
func TestGuessingPasswordsIsSlow(t *testing.T) {
	s := start(t, hub.Config{Users: []hub.User{user(t, "ann", hub.Admin, "")}})
	var refused atomic.Int64
	var guesses sync.WaitGroup
	for range 100 {
		guesses.Go(func() {
			if s.post("/1.0/Authenticate", `{"UserName":"ann","Password":"x"}`).status == http.StatusTooManyRequests {
				refused.Add(1)
			}
		})
	}
	guesses.Wait()
	require.Positive(t, refused.Load())
}

func TestConfigOfUsers(t *testing.T) {
	good := user(t, "ann", hub.Admin, "")
	tests := map[string]struct {
		change func(*hub.User)
		says   string
	}{
		"no name":  {func(u *hub.User) { u.Name = "" }, "without a name"},
		"no hash":  {func(u *hub.User) { u.PasswordHash = "secret" }, "none of argon2id"},
		"no role":  {func(u *hub.User) { u.Role = "king" }, `the role "king"`},
		"odd name": {func(u *hub.User) { u.Tenant = "a/b" }, `the tenant "a/b"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			u := good
			tt.change(&u)
			err := (&hub.Config{Users: []hub.User{u}}).Check()
			require.ErrorContains(t, err, tt.says)
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			require.NotContains(t, err.Error(), "secret")
		})
	}
	require.ErrorContains(t, (&hub.Config{Users: []hub.User{good, good}}).Check(), "two users")
	require.ErrorContains(t, (&hub.Config{Anonymous: "some"}).Check(), `Anonymous is "some"`)
}

func TestDeadLettersAreOperated(t *testing.T) {
	s := start(t, hub.Config{})
	w := s.join("w", 1, "A")
	fail := func() string {
		hash := s.enqueue(`{"Capability":"A","Settings":{"maxRetries":"2","retryBackoffMs":"1"}}`)
		for range 2 {
			require.Equal(t, hash, w.item().WorkItemHash)
			w.send(`{"Action":"WorkError","WorkItemHash":"` + hash + `","ErrorMessage":"no","Log":["why"]}`)
		}
		s.eventually("a dead letter", func() bool { return s.record(hash).DeadLetter })
		return hash
	}
	first, second := fail(), fail()
	var letters struct {
		Count int
		Items []protocol.WorkRecord
	}
	require.NoError(t, json.Unmarshal(s.get("/Beacon/Work/DeadLetters").raw, &letters))
	require.Equal(t, 2, letters.Count)
	require.Equal(t, second, letters.Items[0].WorkItemHash)
	require.Equal(t, "no", s.record(first).Error)
	require.Equal(t, []string{"why", "why"}, s.record(first).Log)

	require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+first+"/Requeue", "").status)
	item := w.item()
	require.Equal(t, first, item.WorkItemHash)
	require.Equal(t, 3, item.AttemptNumber)
	require.Equal(t, http.StatusConflict, s.post("/Beacon/Work/"+first+"/Requeue", "").status)
	require.Equal(t, http.StatusConflict, s.call(http.MethodDelete, "/Beacon/Work/"+first, "").status)
	w.complete(first)
	s.eventually("done", func() bool { return s.record(first).Status == protocol.StatusComplete })
	require.Equal(t, http.StatusConflict, s.post("/Beacon/Work/"+first+"/Requeue", "").status)
	require.JSONEq(t, `{"Success":true,"Requeued":["`+second+`"]}`, string(s.post("/Beacon/Work/DeadLetters/Requeue", `{"Capability":"A"}`).raw))
	w.complete(w.item().WorkItemHash)
	s.eventually("done", func() bool { return s.record(second).Status == protocol.StatusComplete })
	require.Equal(t, http.StatusOK, s.call(http.MethodDelete, "/Beacon/Work/"+second, "").status)
	require.Equal(t, http.StatusNotFound, s.get("/Beacon/Work/"+second).status)
	require.Equal(t, http.StatusNotFound, s.post("/Beacon/Work/x/Requeue", "").status)

	s.enqueue(`{"Capability":"B"}`)
	backlog := s.get("/Beacon/Backlog?Capability=B").json(t)
	require.EqualValues(t, 1, backlog["Waiting"])
	require.Len(t, s.get("/Beacon/Backlog").json(t)["Backlog"], 2)
	require.Len(t, s.get("/Beacon/Hubs").json(t)["Hubs"], 1)
	require.EqualValues(t, 2, s.get("/Beacon/Tenants").json(t)["Tenants"].([]any)[0].(map[string]any)["Completed"])
}
