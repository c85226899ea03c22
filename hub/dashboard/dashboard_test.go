package dashboard_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/dashboard"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds what a test waits for; it is no measure of anything.
const patience = 8 * time.Minute

// A site is a hub with its dashboard.
type site struct {
	t   *testing.T
	url string
	hub *hub.Hub
}

func open(t *testing.T, cfg hub.Config) *site {
	t.Helper()
	cfg.Log = slog.New(slog.NewTextHandler(io.Discard, nil))
	h := hub.New(cfg)
	web := httptest.NewServer(dashboard.New(h, cfg.Log))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(t, h.Close(ctx))
		web.Close()
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, h.Ready(ctx))
	return &site{t, web.URL, h}
}

// A visitor is a browser that runs no scripts.
type visitor struct {
	*site
	http   *http.Client
	header http.Header
}

func (s *site) visitor() *visitor {
	jar, err := cookiejar.New(nil)
	require.NoError(s.t, err)
	transport := &http.Transport{}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &visitor{s, &http.Client{Jar: jar, Transport: transport, Timeout: patience}, http.Header{}}
}

func (v *visitor) do(r *http.Request) (int, string, http.Header) {
	v.t.Helper()
	for name, values := range v.header {
		r.Header[name] = values
	}
	answer, err := v.http.Do(r)
	require.NoError(v.t, err)
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(answer.Body)
	require.NoError(v.t, err)
	return answer.StatusCode, string(body), answer.Header
}

func (v *visitor) get(path string) (int, string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodGet, v.url+path, nil)
	require.NoError(v.t, err)
	status, body, _ := v.do(r)
	return status, body
}

// send sends a form as a page of the hub does.
func (v *visitor) send(path string, form url.Values, header ...string) (int, string) {
	v.t.Helper()
	r, err := http.NewRequestWithContext(v.t.Context(), http.MethodPost, v.url+path, strings.NewReader(form.Encode()))
	require.NoError(v.t, err)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Origin", v.url)
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
		if header[i+1] == "" {
			r.Header.Del(header[i])
		}
	}
	status, body, _ := v.do(r)
	return status, body
}

// api calls the hub's API and returns its answer.
func (s *site) api(method, path string, body any, into any) {
	s.t.Helper()
	raw, err := json.Marshal(body)
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(raw))
	require.NoError(s.t, err)
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	require.NoError(s.t, err)
	defer func() { _ = answer.Body.Close() }()
	all, err := io.ReadAll(answer.Body)
	require.NoError(s.t, err)
	require.Equal(s.t, http.StatusOK, answer.StatusCode, "%s", all)
	if into != nil {
		require.NoError(s.t, json.Unmarshal(all, into), "%s", all)
	}
}

func (s *site) enqueue(item protocol.Submission) string {
	s.t.Helper()
	var out protocol.Enqueued
	s.api(http.MethodPost, "/Beacon/Work/Enqueue", item, &out)
	return out.WorkItemHash
}

func (s *site) record(hash string) (r protocol.WorkRecord) {
	s.t.Helper()
	s.api(http.MethodGet, "/Beacon/Work/"+url.PathEscape(hash), nil, &r)
	return r
}

// until waits for an item to be in a state.
func (s *site) until(hash, status string) {
	s.t.Helper()
	require.Eventually(s.t, func() bool { return s.record(hash).Status == status }, patience, 5*time.Millisecond)
}

// work starts a beacon that has a capability; its end is that of the test.
func (s *site) work(name string, slots int, c service.Capability) {
	s.t.Helper()
	app, err := service.New(service.Config{
		ServerURL: s.url, Name: name, MaxConcurrent: slots, Logger: slog.New(slog.DiscardHandler), StagingPath: s.t.TempDir(), Tags: map[string]any{"Version": "1.2.3"},
	})
	require.NoError(s.t, err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(s.t, app.RegisterCapability(ctx, c))
	require.NoError(s.t, app.Enable(ctx))
	s.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		require.NoError(s.t, app.Disable(ctx))
	})
}

func answers(outputs beacon.Outputs, log ...string) service.Handler {
	return func(context.Context, *beacon.Job) (beacon.Result, error) {
		return beacon.Result{Outputs: outputs, Log: log}, nil
	}
}

const hostile = `<script>document.title="pwned"</script><img src=x onerror="document.title='pwned'">"' onfocus=alert(1) x='`

func TestWhatStrangersWriteIsText(t *testing.T) {
	s := open(t, hub.Config{})
	s.work(hostile, 1, service.Capability{Name: "A" + hostile, Actions: []service.Action{{
		Name: "B" + hostile, Description: hostile, Settings: []beacon.Setting{{Name: hostile, DataType: "String", Description: hostile, Default: hostile}},
		Handler: func(_ context.Context, j *beacon.Job) (beacon.Result, error) {
			j.Progress(beacon.Progress{Percent: 10, HasPercent: true, Message: hostile, Log: []string{hostile}})
			return beacon.Result{Log: []string{hostile}, Outputs: beacon.Outputs{
				"Result": hostile, hostile: "x", "Rows": []map[string]string{{hostile: hostile}},
				"OutputFilename": hostile + ".csv", "OutputData": []byte(hostile + "\n" + hostile),
			}}, nil
		},
	}}})
	settings := beacon.Settings{}
	settings.SetText(hostile, hostile)
	hash := s.enqueue(protocol.Submission{
		Capability: "A" + hostile, Action: "B" + hostile, Settings: settings, RunHash: "../" + hostile, SubmitterTag: hostile, AffinityKey: hostile,
	})
	s.until(hash, protocol.StatusComplete)
	v := s.visitor()
	for _, path := range []string{
		"/", "/items?list=finished", "/items?list=finished&search=" + url.QueryEscape(hostile) + "&tenant=" + url.QueryEscape(hostile),
		"/item?hash=" + url.QueryEscape(hash), "/beacons", "/item?hash=" + url.QueryEscape(hostile), "/login?to=" + url.QueryEscape(hostile),
	} {
		_, body := v.get(path)
		require.NotContains(t, body, "<script>document", path)
		require.NotContains(t, body, "<img src=x", path)
		require.NotContains(t, body, `"' onfocus`, path)
	}
	_, body := v.get("/item?hash=" + url.QueryEscape(hash))
	require.Contains(t, body, "&lt;script&gt;")
	require.Contains(t, body, "<th scope=\"col\">")
}

func TestPagesAreConfined(t *testing.T) {
	s := open(t, hub.Config{})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url+"/", nil)
	require.NoError(t, err)
	status, body, header := s.visitor().do(r)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, header.Get("Content-Security-Policy"), "default-src 'none'; script-src 'self'")
	require.Equal(t, "nosniff", header.Get("X-Content-Type-Options"))
	require.Equal(t, "same-origin", header.Get("Referrer-Policy"))
	require.NotContains(t, body, " style=")
	require.NotContains(t, body, " onclick=")
	require.NotContains(t, body, "://", "a page refers to nothing elsewhere")
}

func TestTokenOpensForms(t *testing.T) {
	s := open(t, hub.Config{})
	v := s.visitor()
	_, body := v.get("/")
	require.Contains(t, body, "Read-only")
	status, body := v.get("/?token=wrong")
	require.Equal(t, http.StatusForbidden, status)
	require.Contains(t, body, "Authentication failed")
	_, body = v.get("/")
	require.Contains(t, body, "Read-only")
	status, body = v.get("/?token=" + s.hub.Token())
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Operator")
	require.NotContains(t, body, s.hub.Token())
	v.send("/logout", nil)
	_, body = v.get("/")
	require.Contains(t, body, "Read-only")
	status, _ = v.send("/login", url.Values{"token": {"x"}})
	require.Equal(t, http.StatusForbidden, status)
	status, body = v.send("/login", url.Values{"token": {s.hub.Token()}, "to": {"//elsewhere.example/"}})
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Operator")
}

func TestFormsOfOtherSitesAreRefused(t *testing.T) {
	s := open(t, hub.Config{})
	v := s.visitor()
	v.get("/?token=" + s.hub.Token())
	for name, header := range map[string][]string{
		"another site":    {"Origin", "https://elsewhere.example", "Sec-Fetch-Site", "cross-site"},
		"an old browser":  {"Origin", "https://elsewhere.example", "Sec-Fetch-Site", ""},
		"a sandbox":       {"Origin", "null", "Sec-Fetch-Site", ""},
		"the same domain": {"Sec-Fetch-Site", "same-site"},
		"nowhere":         {"Origin", "", "Sec-Fetch-Site", ""},
	} {
		status, _ := v.send("/logout", nil, header...)
		require.Equal(t, http.StatusForbidden, status, name)
	}
	_, body := v.get("/")
	require.Contains(t, body, "Operator")
}

func TestUsersLogIn(t *testing.T) {
	hash, err := hub.HashPassword("secret")
	require.NoError(t, err)
	s := open(t, hub.Config{Users: []hub.User{
		{Name: "vera", PasswordHash: hash, Role: hub.Viewer, Tenant: "red"},
		{Name: "sam", PasswordHash: hash, Role: hub.Submitter, Tenant: "blue"},
	}})
	require.Empty(t, s.hub.Token(), "a hub with users has no token")
	v := s.visitor()
	status, body := v.get("/items?list=dead")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, `name="password"`, "who has to log in is asked to")
	status, _ = v.send("/login", url.Values{"user": {"vera"}, "password": {"wrong"}})
	require.Equal(t, http.StatusForbidden, status)
	status, body = v.send("/login", url.Values{"user": {"vera"}, "password": {"secret"}, "to": {"/beacons"}})
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "vera · red · may look only")
	require.Contains(t, body, "<h1>Beacons</h1>")
}

// events reads the parts that a page is sent.
func (v *visitor) events(page string) (next func() (kind, data string)) {
	v.t.Helper()
	ctx, cancel := context.WithTimeout(v.t.Context(), patience)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, v.url+"/live?page="+url.QueryEscape(page), nil)
	require.NoError(v.t, err)
	answer, err := v.http.Do(r)
	require.NoError(v.t, err)
	v.t.Cleanup(func() {
		cancel()
		_ = answer.Body.Close()
	})
	require.Equal(v.t, http.StatusOK, answer.StatusCode)
	lines := bufio.NewScanner(answer.Body)
	return func() (kind, data string) {
		for lines.Scan() {
			switch line := lines.Text(); {
			case line == "" && kind != "":
				return kind, data
			case strings.HasPrefix(line, "event: "):
				kind = line[len("event: "):]
			case strings.HasPrefix(line, "data: "):
				data += line[len("data: "):] + "\n"
			}
		}
		require.NoError(v.t, lines.Err())
		return "end", ""
	}
}

func TestNewsAreSent(t *testing.T) {
	s := open(t, hub.Config{})
	next := s.visitor().events("/items")
	expect := func(what string) {
		t.Helper()
		for {
			kind, data := next()
			require.NotEqual(t, "end", kind)
			if kind == "part" && strings.Contains(data, what) {
				return
			}
		}
	}
	expect("There is none")
	hash := s.enqueue(protocol.Submission{Capability: "Nobody"})
	expect(hash)
	one := s.visitor().events("/item?hash=" + url.QueryEscape(hash))
	kind, _ := one()
	require.Equal(t, "hello", kind)
	var canceled protocol.Canceled
	s.api(http.MethodPost, "/Beacon/Work/"+url.PathEscape(hash)+"/Cancel", map[string]string{"Reason": "tired of it"}, &canceled)
	for data := ""; !strings.Contains(data, "tired of it"); {
		kind, data = one()
		require.NotEqual(t, "end", kind)
	}
	// An item that is forgotten has no page any more.
	s.api(http.MethodDelete, "/Beacon/Work/"+url.PathEscape(hash), nil, nil)
	for kind != "reload" {
		kind, _ = one()
		require.NotEqual(t, "end", kind)
	}
}

// What somebody sees of a tenant does not tell of another, not even when
// something happens there.
func TestTenantsSeeTheirOwn(t *testing.T) {
	hash, err := hub.HashPassword("secret")
	require.NoError(t, err)
	s := open(t, hub.Config{
		Users:    []hub.User{{Name: "ruth", PasswordHash: hash, Role: hub.Viewer, Tenant: "red"}, {Name: "boss", PasswordHash: hash, Role: hub.Admin}},
		Settings: ledger.Settings{},
	})
	boss, ruth := s.visitor(), s.visitor()
	boss.send("/login", url.Values{"user": {"boss"}, "password": {"secret"}})
	ruth.send("/login", url.Values{"user": {"ruth"}, "password": {"secret"}})
	for _, tenant := range []string{"red", "blue"} {
		raw, err := json.Marshal(protocol.Submission{Capability: "Cap" + tenant, Tenant: tenant, SubmitterTag: "tag-" + tenant})
		require.NoError(t, err)
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/Beacon/Work/Enqueue", bytes.NewReader(raw))
		require.NoError(t, err)
		status, body, _ := boss.do(r)
		require.Equal(t, http.StatusOK, status, body)
	}
	_, body := boss.get("/items")
	require.Contains(t, body, "Capblue")
	for _, path := range []string{"/", "/items", "/items?tenant=blue", "/items?capability=Capblue", "/items?search=tag-blue"} {
		_, body := ruth.get(path)
		require.NotContains(t, body, ">Capblue", path)
		require.NotContains(t, body, ">blue<", path)
	}
	_, body = ruth.get("/items")
	require.Contains(t, body, "Capred")
	_, changes := ruth.get("/Beacon/Changes")
	require.JSONEq(t, `{"Version":0}`, changes)
}

func TestTheAPIIsStillThere(t *testing.T) {
	s := open(t, hub.Config{})
	status, body := s.visitor().get("/status")
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "{")
	status, body = s.visitor().get("/nothing/here")
	require.Equal(t, http.StatusNotFound, status)
	require.Contains(t, body, "ResourceNotFound")
}

const tick = 5 * time.Millisecond
