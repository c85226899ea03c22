package llm_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/builtin/llm"
	"github.com/ultravisor/beacon/builtin/llm/price"
	"github.com/ultravisor/beacon/builtin/llm/quota"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

// A service that fails without having charged is followed by the next; it is
// left alone for a while.
func TestFallback(t *testing.T) {
	for status, passes := range map[int]bool{401: true, 403: true, 404: true, 429: true, 500: true, 529: true, 400: false, 422: false, 504: false} {
		first := serve(t, reply{status: status, body: `{"error":{"message":"no"}}`})
		second := serve(t, reply{body: fixture(t, llm.Anthropic, "chat.stream")})
		none := 0
		p := open(t, llm.OpenAI, first, func(c *llm.Config) {
			c.MaxRetries = &none
			c.Fallbacks = []llm.Service{{Backend: llm.Anthropic, BaseURL: second.URL, Model: "claude-sonnet-4-20250514", APIKey: "sk-ant-fallback"}}
		})
		for range 3 {
			result := do(t, p, "ChatCompletion", map[string]any{"Messages": "What is the capital of France?", "Model": "gpt-4.1"})
			if !passes {
				require.Equal(t, -1, result.Outputs["ExitCode"], status)
				continue
			}
			require.Equal(t, paris, result.Outputs["Content"], status)
			require.Equal(t, llm.Anthropic, result.Outputs["Backend"])
			require.Equal(t, "claude-sonnet-4-20250514", result.Outputs["Model"])
			require.InDelta(t, (8*3+16*0.3+8*15)/1e6, result.Outputs["Usage"].(map[string]any)["Cost"], 1e-12)
		}
		if passes {
			require.Len(t, first.got(), 1, "%d: it is left alone", status)
			require.Len(t, second.got(), 3)
			require.Equal(t, "claude-sonnet-4-20250514", second.got()[0].body["model"])
			require.Equal(t, "gpt-4.1", first.got()[0].body["model"])
			require.Equal(t, "sk-ant-fallback", second.got()[0].header.Get("X-Api-Key"))
		} else {
			require.Len(t, first.got(), 3)
			require.Empty(t, second.got())
		}
	}
}

// After its rest a service is asked again; a service that rests is better than
// none.
func TestCooldown(t *testing.T) {
	first := serve(t, reply{status: 500}, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	second := serve(t, reply{status: 500})
	none := 0
	p := open(t, llm.OpenAI, first, func(c *llm.Config) {
		c.MaxRetries, c.CooldownMs = &none, 1
		c.Fallbacks = []llm.Service{{BaseURL: second.URL, Model: "gpt-4o"}}
	})
	require.Equal(t, -1, do(t, p, "ChatCompletion", ask).Outputs["ExitCode"])
	require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
}

// With another service at hand, one that wants to be left alone is.
func TestFallbackInsteadOfWaiting(t *testing.T) {
	first := serve(t, reply{status: 429, header: map[string]string{"Retry-After": "30"}})
	second := serve(t, reply{body: fixture(t, llm.Ollama, "chat.stream")})
	p := open(t, llm.OpenAI, first, func(c *llm.Config) {
		c.Fallbacks = []llm.Service{{Backend: llm.Ollama, BaseURL: second.URL, Model: "llama3"}}
	})
	result := do(t, p, "ChatCompletion", ask)
	require.Equal(t, paris, result.Outputs["Content"])
	require.Contains(t, result.Log[0], "openai failed (LLM API error (429): no reason given), ollama is next")
	require.Len(t, first.got(), 1)
}

// A request whose answer is lost is sent to nobody else either.
func TestNoFallbackAfterLoss(t *testing.T) {
	first := serve(t, reply{mute: true})
	second := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	change := func(c *llm.Config) { c.Fallbacks = []llm.Service{{BaseURL: second.URL, Model: "gpt-4o"}} }
	out := do(t, open(t, llm.OpenAI, first, change), "ChatCompletion", ask).Outputs
	require.Contains(t, out["Error"], "may have been charged")
	require.EqualValues(t, 1, out["Usage"].(map[string]any)["PossiblyCharged"])
	require.Empty(t, second.got())
	require.Len(t, first.got(), 1)

	result := do(t, open(t, llm.OpenAI, first, func(c *llm.Config) { change(c); c.RetryAmbiguous = true }), "ChatCompletion", ask)
	require.Equal(t, paris, result.Outputs["Content"])
	require.EqualValues(t, 4, result.Outputs["Usage"].(map[string]any)["Attempts"])
	require.EqualValues(t, 3, result.Outputs["Usage"].(map[string]any)["PossiblyCharged"])
}

// A service whose key is missing is no obstacle.
func TestFallbackWithoutKey(t *testing.T) {
	second := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	p := open(t, llm.OpenAI, second, func(c *llm.Config) {
		c.APIKey = "$LLM_TEST_NO_SUCH_KEY"
		c.Fallbacks = []llm.Service{{BaseURL: second.URL, Model: "gpt-4o"}}
	})
	require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
}

// A batch of embeddings that one service began is not finished by another.
func TestEmbeddingStaysWithItsService(t *testing.T) {
	first := serve(t, reply{body: fixture(t, llm.OpenAI, "batch.whole")}, reply{status: 500, body: `{"error":"gone"}`})
	second := serve(t, reply{body: fixture(t, llm.OpenAI, "batch.whole")})
	p := open(t, llm.OpenAI, first, func(c *llm.Config) {
		c.EmbeddingBatch = 2
		c.Fallbacks = []llm.Service{{BaseURL: second.URL, EmbeddingModel: "text-embedding-3-small"}}
	})
	out := do(t, p, "Embedding", map[string]any{"Text": `["a","b","c","d"]`}).Outputs
	require.Contains(t, out["Error"], "gone")
	require.EqualValues(t, 4, out["Usage"].(map[string]any)["TotalTokens"]) // what was paid for
	require.Empty(t, second.got())
}

// Vectors of another model are not what was asked for.
func TestEmbeddingFallback(t *testing.T) {
	first := serve(t, reply{status: 401, body: `{"error":"no"}`})
	second := serve(t, reply{body: fixture(t, llm.OpenAI, "embed.whole")})
	for model, stands := range map[string]bool{"text-embedding-3-small": true, "mxbai-embed": false} {
		p := open(t, llm.OpenAI, first, func(c *llm.Config) {
			c.Fallbacks = []llm.Service{{BaseURL: second.URL, EmbeddingModel: model}}
		})
		require.Equal(t, stands, do(t, p, "Embedding", map[string]any{"Text": "x"}).Outputs["ExitCode"] == 0, model)
	}
	require.Len(t, second.got(), 1)
}

// An empty account stays empty: there is no sense in trying again.
func TestInsufficientQuota(t *testing.T) {
	first := serve(t, reply{status: 429, body: `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`})
	second := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	require.Equal(t, 429, do(t, open(t, llm.OpenAI, first, nil), "ChatCompletion", ask).Outputs["Status"])
	require.Len(t, first.got(), 1)
	p := open(t, llm.OpenAI, first, func(c *llm.Config) { c.Fallbacks = []llm.Service{{BaseURL: second.URL, Model: "gpt-4o"}} })
	require.Equal(t, paris, do(t, p, "ChatCompletion", ask).Outputs["Content"])
}

func TestPrices(t *testing.T) {
	cheap := 0.5
	for name, test := range map[string]struct {
		dialect string
		prices  price.Table
		want    any
	}{
		"of the list":                {llm.OpenAI, nil, (8*2.5 + 16*1.25 + 8*10) / 1e6},
		"of the configuration":       {llm.OpenAI, price.Table{"gpt-4o": {Input: 1, Output: 2, CachedInput: &cheap}}, (8*1 + 16*0.5 + 8*2) / 1e6},
		"for a server of one's own":  {llm.Ollama, price.Table{"llama3": {Input: 1, Output: 2}}, (24*1 + 8*2) / 1e6},
		"for nothing":                {llm.Ollama, price.Table{"llama3": {}}, 0.0},
		"a name without its version": {llm.Anthropic, price.Table{"claude-sonnet-4": {Input: 1, Output: 1}}, 32 / 1e6},
		"unknown":                    {llm.OpenAICompatible, nil, nil},
	} {
		b := serve(t, reply{body: fixture(t, test.dialect, "chat.stream")})
		p := open(t, test.dialect, b, func(c *llm.Config) { c.Prices = test.prices })
		usage := do(t, p, "ChatCompletion", ask).Outputs["Usage"].(map[string]any)
		if test.want == nil {
			require.NotContains(t, usage, "Cost", name)
			continue
		}
		require.InDelta(t, test.want, usage["Cost"], 1e-12, name)
	}
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "embed.whole")})
	usage := do(t, open(t, llm.OpenAI, b, nil), "Embedding", map[string]any{"Text": "x"}).Outputs["Usage"].(map[string]any)
	require.InDelta(t, 9*0.02/1e6, usage["Cost"], 1e-15)
	_, err := llm.New(llm.Config{Prices: price.Table{"x": {Input: -1}}})
	require.ErrorContains(t, err, "Prices: the price of model")
}

func as(t testing.TB, tenant string, settings map[string]any) *beacon.Job {
	j := job(t, "ChatCompletion", settings)
	j.Tenant = tenant
	return j
}

// Each tenant has its own budget, over restarts, and is told when it is used up;
// nothing is sent then.
func TestBudgets(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	file := filepath.Join(t.TempDir(), "budgets.json")
	change := func(c *llm.Config) {
		c.BudgetFile = file
		c.Limits = quota.Limits{BudgetTokens: 100}
		c.TenantLimits = map[string]quota.Limits{"rich": {}, "dollars": {BudgetCost: 0.0003, BudgetPeriod: "total"}}
	}
	run := func(dialect, tenant string, change func(*llm.Config)) beacon.Outputs {
		p := open(t, dialect, b, change)
		result, err := p.Run(t.Context(), as(t, tenant, map[string]any{"Messages": "x", "MaxTokens": 10}))
		require.NoError(t, err)
		require.NoError(t, p.Shutdown(t.Context()))
		return result.Outputs
	}
	for range 3 { // 32 tokens each
		require.Equal(t, 0, run(llm.OpenAI, "acme", change)["ExitCode"])
	}
	out := run(llm.OpenAI, "acme", change)
	require.Equal(t, "call_limit", out["ErrorCode"])
	require.Contains(t, out["Error"], "tenant acme has a budget of 100 tokens, of which 96 are spent or reserved")
	require.Len(t, b.got(), 3)
	for range 5 {
		require.Equal(t, 0, run(llm.OpenAI, "rich", change)["ExitCode"])
		require.Equal(t, 0, run(llm.OpenAI, "other", func(c *llm.Config) { change(c); c.BudgetFile = "" })["ExitCode"])
	}
	for range 2 { // 120 millionths of a dollar each
		require.Equal(t, 0, run(llm.OpenAI, "dollars", change)["ExitCode"])
	}
	out = run(llm.OpenAI, "dollars", change)
	require.Contains(t, out["Error"], "budget of 0.0003 dollars, of which 0.0002 are spent or reserved")
	out = run(llm.OpenAICompatible, "dollars", change)
	require.Contains(t, out["Error"], "the model has no price: put it into Prices")
	p := open(t, llm.OpenAI, b, change)
	defer func() { require.NoError(t, p.Shutdown(t.Context())) }()
	require.NoError(t, p.Initialize(t.Context()))
	require.ErrorContains(t, open(t, llm.OpenAI, b, change).Initialize(t.Context()), "belongs to another worker")
	require.Contains(t, run(llm.OpenAI, "acme", change)["Error"], "belongs to another worker")
}

// The program that the provider is part of has the last word on what a tenant
// may use in a day, and what was used is charged to the item's account.
func TestDailyBudget(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	p := open(t, llm.OpenAI, b, func(c *llm.Config) {
		c.Limits = quota.Limits{BudgetTokens: 1, BudgetPeriod: "total"}
		c.DailyBudget = func(tenant string) (int64, float64) {
			return map[string]int64{"acme": 60}[tenant], 0
		}
	})
	for _, tenant := range []string{"acme", "acme", "other"} {
		j := as(t, tenant, map[string]any{"Messages": "x", "MaxTokens": 10})
		j.Account = beacon.NewAccount(nil)
		result, err := p.Run(t.Context(), j)
		require.NoError(t, err)
		if tenant == "other" {
			require.Contains(t, result.Outputs["Error"], "budget of 1 tokens", "the configuration's own counts where there is no other")
			require.Zero(t, j.Account.Statement().Usage.Tokens)
			continue
		}
		require.Equal(t, 0, result.Outputs["ExitCode"])
		require.EqualValues(t, 32, j.Account.Statement().Usage.Tokens)
		require.Positive(t, j.Account.Statement().Usage.Cost)
	}
	result, err := p.Run(t.Context(), as(t, "acme", map[string]any{"Messages": "x", "MaxTokens": 10}))
	require.NoError(t, err)
	require.Contains(t, result.Outputs["Error"], "tenant acme has a budget of 60 tokens")
}

// Requests whose fate is unknown count as if they had been answered; those that
// were refused do not count.
func TestBudgetOfFailures(t *testing.T) {
	none := 0
	lost := serve(t, reply{mute: true})
	change := func(c *llm.Config) { c.MaxRetries, c.Limits = &none, quota.Limits{BudgetTokens: 25} }
	p := open(t, llm.OpenAI, lost, change)
	settings := map[string]any{"Messages": "x", "MaxTokens": 10} // 11 expected
	for range 2 {
		require.Contains(t, do(t, p, "ChatCompletion", settings).Outputs["Error"], "may have been charged")
	}
	require.Contains(t, do(t, p, "ChatCompletion", settings).Outputs["Error"], "of which 22 are spent")
	refused := serve(t, reply{status: 500})
	p = open(t, llm.OpenAI, refused, change)
	for range 10 {
		require.Equal(t, 500, do(t, p, "ChatCompletion", settings).Outputs["Status"])
	}
}

// A rate is waited for, within the item's time.
func TestRates(t *testing.T) {
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream")})
	p := open(t, llm.OpenAI, b, func(c *llm.Config) { c.Limits, c.TimeoutMs = quota.Limits{RequestsPerMinute: 1}, 20_000 })
	require.Equal(t, 0, do(t, p, "ChatCompletion", ask).Outputs["ExitCode"])
	out := do(t, p, "ChatCompletion", ask).Outputs
	require.Contains(t, out["Error"], "tenant default has used its RequestsPerMinute of 1: there is room again in")
	require.Equal(t, "call_limit", out["ErrorCode"])
	result, err := p.Run(t.Context(), as(t, "other", ask))
	require.NoError(t, err)
	require.Equal(t, 0, result.Outputs["ExitCode"])
}

// What has been paid for is on the disk before it is on its way: a worker that
// dies, or whose link does, does not pay again when the item comes again.
func TestRedelivery(t *testing.T) {
	gate := make(chan struct{})
	b := serve(t, reply{body: fixture(t, llm.OpenAI, "chat.stream"), gate: gate})
	p := open(t, llm.OpenAI, b, nil)
	path, quiet := t.TempDir(), slog.New(slog.DiscardHandler)
	start := func(server *beacontest.Server) (box *outbox.Dir, end func()) {
		box, err := outbox.Open(path, quiet)
		require.NoError(t, err)
		ctx, stop := context.WithTimeout(t.Context(), patient)
		abort := make(chan struct{})
		var run sync.WaitGroup
		run.Go(func() {
			_ = worker.Run(ctx, server.Dial, func(ctx context.Context, item beacon.WorkItem, onProgress func(beacon.Progress)) (beacon.Result, error) {
				j := job(t, item.Action, ask)
				j.OnProgress = onProgress
				return p.Run(ctx, j)
			}, worker.Config{Outbox: box, Abort: abort, Logger: quiet})
		})
		return box, func() {
			close(abort)
			stop()
			run.Wait()
			require.NoError(t, box.Close())
		}
	}
	item := beacon.WorkItem{Hash: "wi-paid", Capability: "LLM", Action: "ChatCompletion"}

	first := beacontest.NewServer()
	box, end := start(first)
	first.Push(item)
	await(t, b.arrived)
	first.Refuse(errors.New("down"))
	first.Drop()
	close(gate)
	require.Eventually(t, func() bool {
		waits, err := box.Pending()
		return err == nil && len(waits) == 1
	}, patient, time.Millisecond)
	end()

	second := beacontest.NewServer()
	second.Push(item)
	_, end = start(second)
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	report, err := second.Report(ctx)
	require.NoError(t, err)
	require.Equal(t, item.Hash, report.Hash)
	require.Equal(t, paris, report.Result.Outputs["Content"])
	end()
	require.Len(t, b.got(), 1)
}

// A service that cannot be connected to is given up in time.
func TestConnectTimeout(t *testing.T) {
	// The queue of connections is full, and further ones get no answer. Where a
	// system lets them in all the same, the first byte is what is missing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	none := 0
	p := open(t, llm.OpenAI, nil, func(c *llm.Config) {
		c.BaseURL, c.MaxRetries, c.ConnectTimeoutMs, c.FirstByteTimeoutMs = "http://"+l.Addr().String(), &none, 50, 50
	})
	out := do(t, p, "ChatCompletion", ask).Outputs
	require.Equal(t, -1, out["ExitCode"])
	require.Equal(t, "timeout", out["ErrorCode"])
}
