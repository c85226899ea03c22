package llm_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const key = "sk-test-0123456789abcdef"

// A reply is what a server of the tests answers one request with.
type reply struct {
	status int // 0 means 200
	header map[string]string
	body   string
	// frame is the size of the pieces that are sent one by one; 0 means all at
	// once.
	frame int
	// cut ends the connection after the body, before the answer is complete.
	cut bool
	// hold keeps the connection open after the body until the client leaves.
	hold bool
	// mute ends the connection without a byte of an answer.
	mute bool
	// gate, when it is closed, lets the answer begin.
	gate chan struct{}
}

// A request as a server got it.
type request struct {
	path   string
	header http.Header
	raw    []byte
	body   map[string]any
}

// A backend replays answers, and records requests.
type backend struct {
	*httptest.Server
	t testing.TB

	mu       sync.Mutex
	replies  []reply
	requests []request
	arrived  chan struct{} // one for each request
	left     chan struct{} // one for each client that left a held answer
}

// serve starts a server. The last reply is repeated.
func serve(t testing.TB, replies ...reply) *backend {
	b := &backend{t: t, replies: replies, arrived: make(chan struct{}, 10000), left: make(chan struct{}, 10000)}
	b.Server = httptest.NewServer(b)
	t.Cleanup(func() {
		b.CloseClientConnections()
		b.Close()
	})
	return b
}

func (b *backend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodGet && r.URL.Path == "/api/tags" {
		_, _ = io.WriteString(w, `{"models":[]}`)
		return
	}
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	got := request{path: r.URL.RequestURI(), header: r.Header.Clone(), raw: raw}
	_ = json.Unmarshal(raw, &got.body)
	b.mu.Lock()
	b.requests = append(b.requests, got)
	next := b.replies[0]
	if len(b.replies) > 1 {
		b.replies = b.replies[1:]
	}
	b.mu.Unlock()
	b.arrived <- struct{}{}
	if next.gate != nil {
		<-next.gate
	}
	if next.mute {
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("X-Request-Id", "req_test_1")
	for name, value := range next.header {
		w.Header().Set(name, value)
	}
	if next.status != 0 {
		w.WriteHeader(next.status)
	}
	flush := http.NewResponseController(w).Flush
	rest := next.body
	for len(rest) > 0 {
		n := len(rest)
		if next.frame > 0 {
			n = min(n, next.frame)
		}
		if _, err := io.WriteString(w, rest[:n]); err != nil {
			return
		}
		if rest = rest[n:]; next.frame > 0 || next.cut || next.hold {
			_ = flush()
		}
	}
	if next.hold {
		_ = flush()
		<-r.Context().Done()
		b.left <- struct{}{}
	}
	if next.cut {
		_ = flush()
		panic(http.ErrAbortHandler)
	}
}

func (b *backend) got() []request {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]request(nil), b.requests...)
}

// last is the only request that came.
func (b *backend) only() request {
	b.t.Helper()
	require.Len(b.t, b.got(), 1)
	return b.got()[0]
}

// fixture reads a recorded answer.
func fixture(t testing.TB, dialect, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", dialect, name))
	require.NoError(t, err)
	return string(raw)
}

func has(dialect, name string) bool {
	_, err := os.Stat(filepath.Join("testdata", dialect, name))
	return err == nil
}

// dialects are the backends, whose tests are the same.
var dialects = []string{llm.OpenAI, llm.Anthropic, llm.Ollama, llm.OpenAICompatible}

// models are what each is asked for.
var models = map[string]string{
	llm.OpenAI: "gpt-4o", llm.Anthropic: "claude-sonnet-4-20250514", llm.Ollama: "llama3", llm.OpenAICompatible: "mistral-7b",
}

// paths are where chats and embeddings go.
var paths = map[string][2]string{
	llm.OpenAI:           {"/v1/chat/completions", "/v1/embeddings"},
	llm.Anthropic:        {"/v1/messages", "/v1/embeddings"},
	llm.Ollama:           {"/api/chat", "/api/embed"},
	llm.OpenAICompatible: {"/v1/chat/completions", "/v1/embeddings"},
}

// open makes a provider for a server, with a quiet log and quick retries.
func open(t testing.TB, dialect string, b *backend, change func(*llm.Config)) *llm.Provider {
	t.Helper()
	cfg := llm.Config{
		Service:      llm.Service{Backend: dialect, Model: models[dialect], EmbeddingModel: "text-embedding-3-small"},
		RetryDelayMs: 1,
		Log:          slog.New(slog.DiscardHandler),
	}
	if b != nil {
		cfg.BaseURL = b.URL
	}
	if dialect != llm.Ollama {
		cfg.APIKey = key
	}
	if change != nil {
		change(&cfg)
	}
	p, err := llm.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.Shutdown(context.Background()) })
	return p
}

// job makes an item of settings: a string stays one, everything else is JSON.
func job(t testing.TB, action string, settings map[string]any) *beacon.Job {
	t.Helper()
	s := beacon.Settings{}
	for name, value := range settings {
		raw, ok := value.(json.RawMessage)
		if !ok {
			var err error
			raw, err = json.Marshal(value)
			require.NoError(t, err)
		}
		s[name] = raw
	}
	dir, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, dir.Close()) })
	return &beacon.Job{
		Item:   beacon.WorkItem{Hash: "wi-1", Capability: "LLM", Action: action, Settings: s},
		Tenant: beacon.DefaultTenant, Dir: dir,
	}
}

// do runs an item that must come back with a result.
func do(t testing.TB, p *llm.Provider, action string, settings map[string]any) beacon.Result {
	t.Helper()
	result, err := p.Run(t.Context(), job(t, action, settings))
	require.NoError(t, err)
	_, err = json.Marshal(result.Outputs)
	require.NoError(t, err)
	return result
}

// ask is a plain question.
var ask = map[string]any{"Messages": "What is the capital of France?"}

// patient is longer than any test may take to do a thing that it waits for.
const patient = time.Minute

func await(t testing.TB, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patient):
		require.FailNow(t, "waited in vain")
	}
}
