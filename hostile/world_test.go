// Package hostile has the corpus of modules that want out of the sandbox, and
// the tests that let them try, end to end: from a work item through staging,
// the engine and the host functions to the result.
package hostile_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/nameserver"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/staging"
)

func TestMain(m *testing.M) {
	if os.Getenv(busyVariable) != "" {
		beBusy()
	}
	sandbox.Main()
	goleak.VerifyTestMain(m)
}

// limits are low, so that what ends at one ends soon.
var limits = wasmrt.Limits{
	Memory: 16 << 20,
	Item:   hostfuncs.Limits{Output: 1 << 20, Log: 64 << 10, Calls: 10_000},
	Files:  guestfs.Limits{Bytes: 8 << 20, Written: 16 << 20, Entries: 100, OpenFiles: 32},
}

// What is no guest's to see.
type secrets struct {
	file   string // the content of a file beside the staging folder
	other  string // the content of another tenant's file, in its item's directory
	key    string // a secret of the policy
	others string // one of another tenant's
	server string // what a server says that nobody may ask
	env    string // a variable of the worker's environment
}

// A world is a worker without a server, with everything around it that a guest
// must not get at.
type world struct {
	t       *testing.T
	secrets secrets
	folder  string // of everything
	staging string
	source  string // of every item
	output  string
	store   *staging.Store
	other   *staging.Dir // of another tenant's item, which goes on all the time
	run     *executor.Executor
	// refused are the modules that could not be loaded.
	refused map[string]error
	// box has the processes of tenants, if items run in some, and isolated the modules.
	box      *sandbox.Sandbox
	isolated map[string]*sandbox.Module
	cache    string
	api      *httptest.Server // may be asked by some
	inside   *httptest.Server // may be asked by nobody
	visits   atomic.Int64     // of inside
	asked    sync.Map         // what api was asked for
	hijacked sync.Map         // connections that api does not speak HTTP on any more
	ended    []func()
}

// newWorld makes one with the modules as providers.
func newWorld(t *testing.T, modules []specimen, isolated bool) *world {
	w := &world{t: t, refused: map[string]error{}, isolated: map[string]*sandbox.Module{}, cache: filepath.Join(t.TempDir(), "cache")}
	w.secrets = secrets{rand.Text(), rand.Text(), "sk-" + rand.Text(), "sk-" + rand.Text(), rand.Text(), rand.Text()}
	t.Setenv("BEACON_TEST_SECRET", w.secrets.env)
	w.folder = t.TempDir()
	w.staging = filepath.Join(w.folder, "staging")
	w.write("canary", w.secrets.file)
	require.NoError(t, os.Mkdir(filepath.Join(w.folder, "empty"), 0o700))
	require.NoError(t, os.Mkdir(filepath.Join(w.folder, "results"), 0o700))
	w.source, w.output = w.write("input.txt", "the source"), filepath.Join(w.folder, "results", "out.bin")
	var err error
	w.store, err = staging.Open(w.staging)
	require.NoError(t, err)
	if isolated {
		w.store.Separate()
	}
	w.write(filepath.Join("staging", "canary"), w.secrets.file)
	w.other, err = w.store.CreateFor("other")
	require.NoError(t, err)
	require.NoError(t, w.other.WriteFile("canary", []byte(w.secrets.other), 0o600))
	w.serve()
	w.end(func() { require.NoError(t, w.store.Close()) })
	w.end(func() { require.NoError(t, w.other.Close()) })
	w.load(modules, isolated)
	return w
}

func (w *world) end(f func()) { w.ended = append(w.ended, f) }

// close ends the world; nothing of it is left.
func (w *world) close() {
	for i := len(w.ended) - 1; i >= 0; i-- {
		w.ended[i]()
	}
}

func (w *world) write(name, content string) string {
	path := filepath.Join(w.folder, name)
	require.NoError(w.t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

// serve starts the servers and the names that lead to them.
func (w *world) serve() {
	w.inside = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		w.visits.Add(1)
		fmt.Fprint(rw, w.secrets.server)
	}))
	w.api = httptest.NewServer(http.HandlerFunc(w.answer))
	w.end(func() {
		w.api.Close()
		w.hijacked.Range(func(conn, _ any) bool { return conn.(net.Conn).Close() == nil || true })
	})
	w.end(w.inside.Close)
}

// answer is what the server says that may be asked.
func (w *world) answer(rw http.ResponseWriter, r *http.Request) {
	w.asked.Store(r.Method+" "+r.URL.Path, true)
	switch r.URL.Path {
	case "/v1/echo":
		for name, values := range r.Header {
			for _, v := range values {
				rw.Header().Add("X-"+name, v)
			}
		}
		fmt.Fprintf(rw, "%v %s %s", r.Header, r.URL, strings.Repeat(r.Header.Get("Authorization"), 100))
	case "/v1/elsewhere":
		http.Redirect(rw, r, w.inside.URL, http.StatusTemporaryRedirect)
	case "/v1/file":
		rw.Header().Set("Location", "file:///etc/passwd")
		rw.WriteHeader(http.StatusFound)
	case "/v1/for-ever":
		http.Redirect(rw, r, "/v1/for-ever", http.StatusFound)
	case "/v1/endless":
		part := make([]byte, 64<<10)
		for r.Context().Err() == nil {
			if _, err := rw.Write(part); err != nil {
				return
			}
		}
	case "/v1/upgrade":
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		w.hijacked.Store(conn, true)
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
	case "/v1/silent":
		<-r.Context().Done()
	case "/v1/upload":
		_, _ = io.Copy(io.Discard, r.Body)
	case "/v1/short":
		fmt.Fprint(rw, "short")
	default:
		rw.WriteHeader(http.StatusNotFound)
	}
}

// requests are the settings of every item: what its guest may try to ask for.
func (w *world) requests() beacon.Settings {
	_, insidePort, _ := net.SplitHostPort(w.inside.Listener.Addr().String())
	api, host := w.api.URL+"/v1", w.api.Listener.Addr().String()
	all := beacon.Settings{}
	add := func(name string, request map[string]any) {
		raw, err := json.Marshal(request)
		require.NoError(w.t, err)
		all[name] = raw
	}
	url := func(name, url string) { add(name, map[string]any{"URL": url}) }
	header := func(name, url, header, value string) {
		add(name, map[string]any{"URL": url, "Headers": map[string]string{header: value}})
	}
	header("Echo", api+"/echo", "Authorization", "Bearer {{secret:key}}")
	header("SecretElsewhere", w.inside.URL, "Authorization", "{{secret:key}}")
	header("SecretUnfinished", api+"/echo", "Authorization", "{{secret:key")
	header("SecretInName", api+"/echo", "{{secret:key}}", "x")
	header("SecretUnknown", api+"/echo", "Authorization", "{{secret:others}}")
	header("SecretInURL", api+"/echo?{{secret:key}}", "X", "{{secret:key}}{{secret:key}}")
	header("SecretRedirected", api+"/elsewhere", "Authorization", "{{secret:key}}")
	url("Forbidden", w.inside.URL)
	url("Loopback", "http://localhost:"+insidePort)
	for n, name := range []string{"127.1", "2130706433", "0x7f000001", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0", "①②⑦.0.0.1", "inside.test"} {
		url(fmt.Sprint("Loopback", n+1), "http://"+name+":"+insidePort)
	}
	url("Rebinding", "http://rebinding.test:"+insidePort)
	add("OtherMethod", map[string]any{"URL": api + "/echo", "Method": "DELETE"})
	url("OtherPath", w.api.URL+"/v2")
	url("DottedPath", api+"/../v2")
	url("EncodedPath", api+"/%2e%2e/v2")
	url("UserInURL", "http://user:password@"+host+"/v1/echo")
	url("HostAsUser", "http://"+host+"@"+w.inside.Listener.Addr().String()+"/v1/echo")
	header("HeaderHost", api+"/echo", "Host", "inside.test")
	header("HeaderLine", api+"/echo", "X", "a\r\nHost: inside.test")
	header("HeaderLength", api+"/echo", "Content-Length", "7")
	header("HeaderChunked", api+"/echo", "Transfer-Encoding", "chunked")
	header("HeaderUpgrade", api+"/echo", "Upgrade", "websocket")
	header("HeaderName", api+"/echo", "X: y\r\nZ", "a")
	header("HeaderMethod", api+"/echo", "X-HTTP-Method-Override", "DELETE")
	header("HeaderProxy", api+"/echo", "Proxy-Authorization", "Basic eDp5")
	url("RedirectForbidden", api+"/elsewhere")
	url("RedirectFile", api+"/file")
	url("RedirectForEver", api+"/for-ever")
	url("Endless", api+"/endless")
	url("Silent", api+"/silent")
	url("Upgrade", api+"/upgrade")
	url("Short", api+"/short")
	add("Upload", map[string]any{"URL": api + "/upload", "Method": "POST", "BodyLength": -1})
	return all
}

// grants are what is granted to those modules that say so.
func (w *world) grants(kind string) []string {
	host := w.api.Listener.Addr().String()
	switch kind {
	case "":
		return nil
	case "open":
		return []string{"http * *://*:*"}
	case "api":
		return []string{"http GET,POST http://" + host + "/v1", "address 127.0.0.1", "secret key", "call honest/Execute", "call writer", "call numbers", "call deaf", "call time-sleep", "call trap-names", "call flood-forged-failure"}
	case "self":
		return []string{"call call-itself"}
	case "bomb":
		return []string{"call call-bomb"}
	case "hoard":
		return []string{"call large"}
	}
	w.t.Fatalf("grants %q", kind)
	return nil
}

// load makes providers of the modules, and an executor for them.
func (w *world) load(modules []specimen, isolated bool) {
	rules, err := policy.Parse(fmt.Appendf(nil, `{"Secrets": {"key": {"Value": %q, "For": [%q]}}, "Tenants": {
		"acme": {"Secrets": {"key": {"Value": %q, "For": [%q]}}}, "other": {"Secrets": {"others": {"Value": %q, "For": [%q]}}}}}`,
		w.secrets.key, w.api.URL, w.secrets.key, w.api.URL, w.secrets.others, w.api.URL), func(s string) (string, error) { return s, nil })
	require.NoError(w.t, err)
	log := slog.New(slog.DiscardHandler)
	load := w.engine(wasmrt.Config{Log: log, Budget: account{}}, isolated)
	resolver := w.names()
	var call func(context.Context, *beacon.Job, beacon.Call, func(string, string) error) (beacon.Result, error)
	var providers []beacon.Provider
	for _, s := range modules {
		grants, err := policy.ParseGrants(w.grants(s.grants))
		require.NoError(w.t, err)
		b := broker.New(broker.Config{
			Name: s.name, Grants: grants, Tenant: rules.Tenant, Resolver: resolver, Log: log,
			Limits: broker.Limits{Requests: 50, Received: 4 << 20, Sent: 4 << 20},
			Call: func(ctx context.Context, job *beacon.Job, c beacon.Call, permit func(string, string) error) (beacon.Result, error) {
				return call(ctx, job, c, permit)
			},
		})
		w.end(b.Close)
		m, err := load(wasmrt.Source{
			Name: s.name, Binary: s.binary, Limits: limits,
			Admit: func(wasmrt.Candidate) (wasmrt.Brokers, error) { return b.Job, nil },
		})
		if err != nil {
			w.refused[s.name] = err
			continue
		}
		if isolated {
			w.isolated[s.name], _ = m.(*sandbox.Module)
		}
		w.end(func() { require.NoError(w.t, m.Close(context.Background())) })
		providers = append(providers, m)
	}
	registry, err := beacon.NewRegistry(providers...)
	require.NoError(w.t, err)
	download := staging.NewDownloader(staging.DownloadConfig{Log: log})
	w.end(download.CloseIdle)
	scheduler := policy.NewScheduler(rules, 4)
	w.end(scheduler.Close)
	w.run = executor.New(registry, w.store, download, executor.Config{
		Log:    log,
		Tenant: func(item beacon.WorkItem) (string, error) { return cmp.Or(item.RunID, beacon.DefaultTenant), nil },
		Enter: func(ctx context.Context, tenant string, _ beacon.WorkItem) (beacon.Payer, func(), error) {
			turn, err := scheduler.Enter(ctx, tenant, limits.Memory)
			if err != nil {
				return nil, nil, err
			}
			return turn, turn.Leave, nil
		},
	})
	call = w.run.Call
}

// A provider is closed after its last item.
type provider interface {
	beacon.Provider
	Close(ctx context.Context) error
}

// engine returns what makes a module ready, in this process or in its tenants'.
func (w *world) engine(cfg wasmrt.Config, isolated bool) func(wasmrt.Source) (provider, error) {
	if !isolated {
		engine, err := wasmrt.New(cfg)
		require.NoError(w.t, err)
		return func(src wasmrt.Source) (provider, error) { return engine.Load(w.t.Context(), src) }
	}
	cfg.CacheDir = w.cache
	var err error
	w.box, err = sandbox.New(sandbox.Config{Runtime: cfg, Shares: 4, Folder: w.store.Folder})
	require.NoError(w.t, err)
	w.end(func() { require.NoError(w.t, w.box.Close()) })
	return func(src wasmrt.Source) (provider, error) { return w.box.Load(w.t.Context(), src) }
}

// account charges what guests execute to their item, as the command does.
type account struct{}

func (account) Spend(ctx context.Context, job *beacon.Job, instructions int64) error {
	return job.Account.Spend(ctx, beacon.Usage{Fuel: uint64(max(0, instructions))}) //nolint:gosec // not negative
}

// names is a resolver that knows a name for loopback, and one that leads there
// every second time only.
func (w *world) names() *net.Resolver {
	resolver, stop, err := nameserver.Serve(func(name string, asked int) []string {
		if strings.HasPrefix(name, "rebinding.") && asked%2 == 0 {
			return []string{"240.0.0.1"} // no route leads there
		}
		return []string{"127.0.0.1"}
	})
	require.NoError(w.t, err)
	w.end(stop)
	return resolver
}

// item carries out one item for a tenant, and returns how it ended and all that
// anybody was told.
func (w *world) item(ctx context.Context, s specimen, tenant string, timeout time.Duration) (outcome, said string) {
	item := beacon.WorkItem{Hash: "item-of-" + s.name, Capability: s.name, Settings: w.requests(), RunID: tenant, Timeout: timeout, Attempt: 1}
	output := ""
	if s.output {
		output = w.output
	}
	var mu sync.Mutex
	var told strings.Builder
	result, err := w.run.RunLocal(ctx, item, w.source, output, func(p beacon.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if told.Len() < 64<<10 { // enough to look at
			fmt.Fprintf(&told, "%+v\n", p)
		}
	})
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprintf(&told, "%v\n%s\n", err, strings.Join(result.Log, "\n"))
	raw, merr := json.Marshal(result.Outputs)
	require.NoError(w.t, merr)
	told.Write(raw)
	for _, name := range []string{beacon.OutputStdOut, "StdOutBase64"} {
		fmt.Fprintf(&told, "\n%s", result.Outputs[name])
	}
	switch code := result.ExitCode(); {
	case err != nil:
		return string(beacon.CodeOf(err)), told.String()
	case code == 0:
		return "ok", told.String()
	default:
		return fmt.Sprint("exit ", code), told.String()
	}
}

// A place is what there is to see of a file.
type place struct {
	mode    fs.FileMode
	size    int64
	time    time.Time
	content string
}

// tenantFolder is how long the name of a tenant's folder is, in which its items
// have their directories.
const tenantFolder = 32

// outside is all there is around the items' directories: what guests must leave
// as it is. No item is under way.
func (w *world) outside() map[string]place {
	all := map[string]place{}
	require.NoError(w.t, filepath.WalkDir(w.folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(w.folder, path)
		if err != nil {
			return err
		}
		parts := strings.Split(filepath.ToSlash(name), "/")
		if parts[0] == "results" {
			return nil
		}
		if len(parts) > 2 && strings.HasPrefix(parts[1], "worker-") && d.IsDir() && (len(parts) == 3 || len(parts) == 4 && len(parts[2]) == tenantFolder) {
			return nil // a tenant's; and empty directories are kept for other items, under other names
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		p := place{mode: info.Mode()}
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			p.size, p.time, p.content = info.Size(), info.ModTime(), string(content)
		}
		all[name] = p
		return nil
	}))
	return all
}

// hidden are the words that must not come up in what anybody is told.
func (w *world) hidden() map[string]string {
	all := map[string]string{
		"a file's content": w.secrets.file, "another tenant's file": w.secrets.other, "a secret": w.secrets.key, "another's secret": w.secrets.others,
		"a server that is not to be asked": w.secrets.server, "the environment": w.secrets.env,
		"the folder": w.folder, "the cache": w.cache, "the staging folder": "worker-", "a stack": "goroutine ", "Go": ".go:",
	}
	if host, err := os.Hostname(); err == nil && strings.ContainsAny(host, "-.0123456789") {
		all["the machine's name"] = host
	}
	if u, err := user.Current(); err == nil && len(u.Username) > 3 && len(u.HomeDir) > 1 {
		// The name alone may be a word like others.
		all["the user's home"], all["the user's name"], all["the user's folder"] = u.HomeDir+"/", "="+u.Username, "/"+u.Username+"/"
	}
	return all
}
