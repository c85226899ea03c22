// Package llm is the provider of the capability LLM: one way to ask language
// models of different services. It has the settings, outputs and texts of the
// Node worker's, and looks after money: a request is never sent a second time
// when the first may have been charged for, tenants have budgets, and what was
// used is in every result.
package llm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin/llm/anthropic"
	"github.com/ultravisor/beacon/builtin/llm/model"
	"github.com/ultravisor/beacon/builtin/llm/ollama"
	"github.com/ultravisor/beacon/builtin/llm/openai"
	"github.com/ultravisor/beacon/builtin/llm/price"
	"github.com/ultravisor/beacon/builtin/llm/quota"
	"github.com/ultravisor/beacon/builtin/llm/secret"
	"github.com/ultravisor/beacon/builtin/llm/voyage"
	"github.com/ultravisor/beacon/builtin/llm/wire"
)

// The backends.
const (
	OpenAI           = "openai"
	Anthropic        = "anthropic"
	Ollama           = "ollama"
	OpenAICompatible = "openai-compatible"
)

// Defaults of Config.
const (
	DefaultTimeout    = 120 * time.Second
	DefaultMaxRetries = 2
	DefaultRetryDelay = 500 * time.Millisecond
	DefaultCooldown   = 30 * time.Second
	// DefaultEmbeddingBatch keeps an answer with large vectors at a few
	// megabytes; services allow more texts per request.
	DefaultEmbeddingBatch = 256
)

// A Service is one service that answers requests.
type Service struct {
	// Backend is openai (the default), anthropic, ollama or openai-compatible.
	Backend string
	// BaseURL is where the service is; a path in it counts, and so does a query.
	// The version, /v1, is added unless the path has one. Empty means the
	// service's own address; openai-compatible has none.
	BaseURL string
	// APIPath is added to BaseURL instead of /v1; "/" adds nothing.
	APIPath string
	// APIKey is the key; $NAME reads it from the environment, file:/path from a
	// file. The same holds for the values of Headers.
	APIKey string
	// Headers are sent with every request.
	Headers map[string]string
	// Model is the model for items that name none. A fallback that has one uses
	// it whatever the item names.
	Model string
	// EmbeddingModel, EmbeddingBaseURL and EmbeddingAPIKey are for the action
	// Embedding, if they differ. For the backend anthropic the defaults are
	// Voyage AI's address and $VOYAGE_API_KEY.
	EmbeddingModel   string
	EmbeddingBaseURL string
	EmbeddingAPIKey  string
}

// Parameters hold for items that say nothing else.
type Parameters struct {
	Temperature *float64
	MaxTokens   *float64
	TopP        *float64
}

// Config is the provider's part of a configuration. The zero value is OpenAI
// without a key.
type Config struct {
	Service
	DefaultParameters Parameters

	// TimeoutMs bounds the whole of an item: waiting for its turn, all attempts,
	// the answer; 0 means 120,000. An item's own TimeoutMs counts as well.
	TimeoutMs int64
	// ConnectTimeoutMs, FirstByteTimeoutMs and IdleTimeoutMs bound parts of one
	// attempt: the connection (0 means 10,000), from there to the first byte of
	// the answer (0 means no other bound than TimeoutMs), and the time between
	// two bytes after that (0 means 60,000).
	ConnectTimeoutMs   int64
	FirstByteTimeoutMs int64
	IdleTimeoutMs      int64

	// MaxRetries is how often a service is tried again after an error that may
	// pass; nil means 2. RetryDelayMs is the wait before the first, which doubles
	// up to 16 times that, less a random quarter; 0 means 500. A service that
	// says how long to wait is obeyed.
	MaxRetries   *int
	RetryDelayMs int64
	// RetryAmbiguous tries again even if a service may have worked, and charged,
	// for a request whose answer was lost.
	RetryAmbiguous bool
	// Fallbacks are tried in this order when a service fails and nothing was
	// charged. A service that failed is left alone for CooldownMs, or as long as
	// it said, while there is another; 0 means 30,000.
	Fallbacks  []Service
	CooldownMs int64

	// Stream has answers come in pieces, which are shown as progress; nil means
	// true. An item's setting Stream counts first.
	Stream *bool
	// EmbeddingBatch is how many texts go into one request; 0 means 256.
	EmbeddingBatch int

	// Prices are by model, in dollars per million tokens. They come before the
	// table that is built in.
	Prices price.Table
	// Limits are for each tenant, TenantLimits for the one that is named,
	// instead.
	Limits       quota.Limits
	TenantLimits map[string]quota.Limits
	// BudgetFile keeps what tenants have spent over restarts. Without one, a
	// restart begins the period anew.
	BudgetFile string

	// DailyBudget, if any, is what the program that the provider is part of lets
	// a tenant use in a day, in tokens and dollars; 0 is no bound. It replaces a
	// budget of the configuration.
	DailyBudget func(tenant string) (tokens int64, cost float64) `json:"-"`
	// Log defaults to slog.Default.
	Log *slog.Logger `json:"-"`
}

// A Provider asks language models. It is safe for concurrent use.
type Provider struct {
	services   []*service
	defaults   Parameters
	timeout    time.Duration
	retries    int
	retryDelay time.Duration
	cooldown   time.Duration
	ambiguous  bool
	stream     bool
	batch      int
	prices     price.Table
	meter      *quota.Meter
	redactor   *secret.Redactor
	log        *slog.Logger
}

// A service as it is used.
type service struct {
	name    string // its backend
	backend model.Backend
	clients []*wire.Client
	model   string
	vectors string // the model for embeddings
	// prices and vectorPrices are of the service's own models.
	prices, vectorPrices price.Table
	// broken is why no request can be sent, vectorless why none for embeddings.
	broken, vectorless error

	mu    sync.Mutex
	until time.Time // left alone until then
}

// New makes the provider. A configuration that cannot work is an error; a secret
// that is not there is one of the items that need it.
func New(cfg Config) (*Provider, error) {
	p := &Provider{
		defaults:   cfg.DefaultParameters,
		timeout:    cmp.Or(time.Duration(cfg.TimeoutMs)*time.Millisecond, DefaultTimeout),
		retries:    DefaultMaxRetries,
		retryDelay: cmp.Or(time.Duration(cfg.RetryDelayMs)*time.Millisecond, DefaultRetryDelay),
		cooldown:   cmp.Or(time.Duration(cfg.CooldownMs)*time.Millisecond, DefaultCooldown),
		ambiguous:  cfg.RetryAmbiguous,
		stream:     cfg.Stream == nil || *cfg.Stream,
		batch:      cmp.Or(cfg.EmbeddingBatch, DefaultEmbeddingBatch),
		prices:     cfg.Prices,
		log:        cmp.Or(cfg.Log, slog.Default()),
	}
	if cfg.MaxRetries != nil {
		p.retries = *cfg.MaxRetries
	}
	if min(cfg.TimeoutMs, cfg.ConnectTimeoutMs, cfg.FirstByteTimeoutMs, cfg.IdleTimeoutMs, cfg.RetryDelayMs, cfg.CooldownMs,
		int64(p.retries), int64(cfg.EmbeddingBatch)) < 0 {
		return nil, beacon.Errorf(beacon.Invalid, "times and numbers cannot be below zero")
	}
	if err := cfg.Prices.Validate(); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "Prices: %w", err)
	}
	all := maps.Clone(cfg.TenantLimits)
	if all == nil {
		all = map[string]quota.Limits{}
	}
	for tenant, l := range all {
		if err := l.Validate(); err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "TenantLimits of %s: %w", beacon.Excerpt(tenant, 80), err)
		}
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "Limits: %w", err)
	}
	tables, err := price.BuiltIn()
	if err != nil {
		return nil, err
	}
	p.meter = quota.New(cfg.BudgetFile, func(tenant string) quota.Limits {
		l, ok := all[tenant]
		if !ok {
			l = cfg.Limits
		}
		if cfg.DailyBudget != nil {
			if tokens, cost := cfg.DailyBudget(tenant); tokens > 0 || cost > 0 {
				l.BudgetTokens, l.BudgetCost, l.BudgetPeriod = tokens, cost, "day"
			}
		}
		return l
	})
	times := wire.Config{
		Connect:   time.Duration(cfg.ConnectTimeoutMs) * time.Millisecond,
		FirstByte: time.Duration(cfg.FirstByteTimeoutMs) * time.Millisecond,
		Idle:      time.Duration(cfg.IdleTimeoutMs) * time.Millisecond,
	}
	var secrets []secret.Value
	for i, s := range append([]Service{cfg.Service}, cfg.Fallbacks...) {
		made, found, err := open(s, times, tables)
		if err != nil {
			if i > 0 {
				err = fmt.Errorf("fallback %d: %w", i, err)
			}
			return nil, err
		}
		p.services = append(p.services, made)
		secrets = append(secrets, found...)
	}
	p.redactor = secret.NewRedactor(secrets...)
	return p, nil
}

// open makes one service, and returns the secrets that it uses.
func open(cfg Service, times wire.Config, tables map[string]price.Table) (*service, []secret.Value, error) {
	s := &service{name: cmp.Or(cfg.Backend, OpenAI), model: cfg.Model, vectors: cmp.Or(cfg.EmbeddingModel, cfg.Model)}
	if known := []string{OpenAI, Anthropic, Ollama, OpenAICompatible}; !slices.Contains(known, s.name) {
		return nil, nil, beacon.Errorf(beacon.Invalid, "Backend is %q: want %s", beacon.Excerpt(s.name, 80), strings.Join(known, ", "))
	}
	var secrets []secret.Value
	resolve := func(what, text string) secret.Value {
		v, err := secret.Resolve(text)
		if err != nil && s.broken == nil {
			s.broken = beacon.Errorf(beacon.Invalid, "%s: %w", what, err)
		}
		secrets = append(secrets, v)
		return v
	}
	standard := map[string]string{
		OpenAI: "https://api.openai.com", Anthropic: "https://api.anthropic.com", Ollama: "http://localhost:11434",
	}
	base, private, err := address("BaseURL", cmp.Or(cfg.BaseURL, standard[s.name]))
	if err != nil {
		return nil, nil, err
	}
	secrets = append(secrets, private...)
	key := resolve("APIKey", cfg.APIKey)
	header := http.Header{}
	for name, value := range cfg.Headers {
		if strings.EqualFold(name, "Idempotency-Key") || strings.EqualFold(name, "Host") {
			return nil, nil, beacon.Errorf(beacon.Invalid, "Headers: %s cannot be set", beacon.Excerpt(name, 80))
		}
		header.Set(name, resolve("Headers", value).Reveal())
	}
	plain := wire.NewClient(times)
	times.Header = header
	client := wire.NewClient(times)
	s.clients = []*wire.Client{plain, client}
	versioned := withVersion(base, cfg.APIPath)
	vectorBase := versioned
	vectorKey := key
	if cfg.EmbeddingAPIKey != "" {
		vectorKey = resolve("EmbeddingAPIKey", cfg.EmbeddingAPIKey)
	}
	if cfg.EmbeddingBaseURL != "" {
		u, private, err := address("EmbeddingBaseURL", cfg.EmbeddingBaseURL)
		if err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, private...)
		vectorBase = withVersion(u, "")
	}
	// Where embeddings come from elsewhere, the key and the headers do not go there.
	vectorClient := client
	if vectorBase.Host != base.Host {
		vectorClient = plain
		if cfg.EmbeddingAPIKey == "" {
			vectorKey = secret.Value{}
		}
	}
	split := func(chat, embed model.Backend) model.Backend {
		if cfg.EmbeddingBaseURL == "" && cfg.EmbeddingAPIKey == "" {
			return chat
		}
		return divided{chat, embed}
	}
	switch s.name {
	case OpenAI, OpenAICompatible:
		compatible := s.name == OpenAICompatible
		if !compatible {
			s.prices, s.vectorPrices = tables["openai"], tables["openai"]
		}
		s.backend = split(
			openai.New(openai.Config{BaseURL: versioned, Key: key, Compatible: compatible}, client),
			openai.New(openai.Config{BaseURL: vectorBase, Key: vectorKey, Compatible: compatible}, vectorClient))
	case Anthropic:
		s.prices, s.vectorPrices = tables["anthropic"], tables["voyage"]
		if cfg.EmbeddingBaseURL == "" && cfg.BaseURL == "" || cfg.EmbeddingBaseURL == "" && base.Host == "api.anthropic.com" {
			// Anthropic has no embeddings, and recommends Voyage.
			vectorBase, vectorClient = &url.URL{Scheme: "https", Host: "api.voyageai.com", Path: "/v1"}, plain
			if cfg.EmbeddingAPIKey == "" {
				if vectorKey, err = secret.Resolve("$VOYAGE_API_KEY"); err != nil || vectorKey.Empty() {
					s.vectorless = beacon.Errorf(beacon.Invalid, "Anthropic has no embeddings: set EmbeddingAPIKey (or VOYAGE_API_KEY in the worker's environment) "+
						"and EmbeddingModel to use Voyage AI's, or EmbeddingBaseURL for another service")
				}
				secrets = append(secrets, vectorKey)
			}
		}
		s.backend = anthropic.New(anthropic.Config{
			BaseURL: versioned, Key: key,
			Embedder: voyage.New(voyage.Config{BaseURL: vectorBase, Key: vectorKey}, vectorClient),
		}, client)
		if cfg.EmbeddingModel == "" && s.vectorless == nil && vectorBase.Host == "api.voyageai.com" {
			s.vectors = "" // the model of chats is none of theirs
		}
	default: // Ollama
		root := base
		if cfg.APIPath != "" {
			root = versioned
		}
		if cfg.EmbeddingBaseURL != "" {
			vectorBase, _, _ = address("EmbeddingBaseURL", cfg.EmbeddingBaseURL)
		} else {
			vectorBase = root
		}
		s.backend = split(ollama.New(ollama.Config{BaseURL: root, Key: key}, client),
			ollama.New(ollama.Config{BaseURL: vectorBase, Key: vectorKey}, vectorClient))
	}
	return s, secrets, nil
}

// divided asks one service for chats and another for embeddings.
type divided struct{ chat, embed model.Backend }

func (d divided) Chat(ctx context.Context, r *model.Chat, onDelta func(model.Delta)) (model.Answer, error) {
	return d.chat.Chat(ctx, r, onDelta)
}

func (d divided) Embed(ctx context.Context, r *model.Embedding) (model.Vectors, error) {
	return d.embed.Embed(ctx, r)
}

// address reads a URL, and what in it may be secret.
func address(name, text string) (*url.URL, []secret.Value, error) {
	if text == "" {
		return nil, nil, beacon.Errorf(beacon.Invalid, "%s is missing: openai-compatible needs to know where the service is, such as http://localhost:8000", name)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, nil, beacon.Errorf(beacon.Invalid, "%s is not a URL such as https://api.openai.com", name)
	}
	var secrets []secret.Value
	if password, ok := u.User.Password(); ok {
		secrets = append(secrets, secret.New(password))
	}
	for _, values := range u.Query() {
		for _, v := range values {
			secrets = append(secrets, secret.New(v))
		}
	}
	return u, secrets, nil
}

// version is a part of a path that names one: v1, v1beta.
var version = regexp.MustCompile(`^v\d+[a-z0-9]*$`)

// withVersion adds /v1 to the path, or what the configuration says, unless a
// version is there: people give both forms.
func withVersion(base *url.URL, path string) *url.URL {
	if path != "" {
		return base.JoinPath(path)
	}
	if slices.ContainsFunc(strings.Split(base.Path, "/"), version.MatchString) {
		return base.JoinPath("/")
	}
	return base.JoinPath("v1")
}

// Initialize implements beacon.Initializer. It looks for an Ollama server, and
// warns of what is missing; a server that is not there may come later. The file
// of the budgets must be there.
func (p *Provider) Initialize(ctx context.Context) error {
	if err := p.meter.Open(); err != nil {
		return err
	}
	for _, s := range p.services {
		if s.broken != nil {
			p.log.Warn("LLM: items of this service will fail", "backend", s.name, "err", s.broken)
		}
		if s.model == "" {
			p.log.Warn("LLM: no default Model is configured; items must name one", "backend", s.name)
		}
		pinger, ok := s.backend.(interface{ Ping(context.Context) error })
		if !ok {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		if err := pinger.Ping(ctx); err != nil {
			p.log.Warn("LLM: the Ollama server cannot be reached; it may come later", "err", p.redactor.Scrub(err.Error()))
		} else {
			p.log.Info("LLM: the Ollama server is there")
		}
		cancel()
	}
	p.log.Info("LLM: provider initialized", "backend", p.services[0].name, "model", p.services[0].model, "fallbacks", len(p.services)-1)
	return nil
}

// Shutdown implements beacon.Shutdowner.
func (p *Provider) Shutdown(context.Context) error {
	for _, s := range p.services {
		for _, c := range s.clients {
			c.CloseIdle()
		}
	}
	return p.meter.Close()
}

// Run implements beacon.Provider. What goes wrong is a result with a non-zero
// ExitCode, not an error: servers repeat items whose provider failed, and that
// would be charged again. Only an item that is canceled before anything can have
// been charged is an error.
func (p *Provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, errTimeout)
	defer cancel()
	switch job.Item.Action {
	case actionChat, actionTools:
		return p.chat(ctx, job)
	case actionEmbedding:
		return p.embedding(ctx, job)
	}
	return beacon.Result{}, beacon.Errorf(beacon.NotFound, "LLM Provider: unknown action %q.", beacon.Excerpt(job.Item.Action, 80))
}

// errTimeout is the cause of contexts that our own time limit ends.
var errTimeout = errors.New("the time of the request is over")
