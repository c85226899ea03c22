// Package broker stands between a guest and the world. It decides by the
// operator's grants whether a request, a call or a secret is permitted, puts
// secrets where they belong and takes them out of what comes back, and books
// what was used.
package broker

import (
	"cmp"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
)

// Limits bound what one item may do. Zero fields mean the defaults, negative
// ones nothing.
type Limits struct {
	// Requests is how many requests and calls, with those of whom it calls; default
	// 1,000.
	Requests int
	// Sent and Received are bytes of bodies, over all requests, also of those whom it
	// calls; default 1 GiB each.
	Sent, Received int64
	// MinRate is how many bytes a second a response must bring on average over a
	// minute, while the guest waits for them; default 1 KiB/s.
	MinRate int64
	// Depth is how many calls may lead to each other; default 4.
	Depth int
	// Parallel is how many calls may run at once, others wait; default 4. They run
	// in their item's turn, and would otherwise be a way around it. Whoever is
	// called may make one call at a time: otherwise there would be more on each level.
	Parallel int
}

func (l Limits) withDefaults() Limits {
	return Limits{
		cmp.Or(l.Requests, 1000), cmp.Or(l.Sent, 1<<30), cmp.Or(l.Received, 1<<30), cmp.Or(l.MinRate, 1<<10), cmp.Or(l.Depth, 4), max(1, cmp.Or(l.Parallel, 4)),
	}
}

// Config is what a provider may reach.
type Config struct {
	// Name is the provider's, for messages.
	Name   string
	Grants policy.Grants
	Limits Limits
	// Tenant finds the tenant that a job belongs to.
	Tenant func(name string) (*policy.Tenant, error)
	// Call carries out a call of the job's provider, after asking permit about
	// the action that it comes to; nil means that there is nobody to call.
	Call func(ctx context.Context, job *beacon.Job, c beacon.Call, permit func(capability, action string) error) (beacon.Result, error)
	// Log defaults to slog.Default.
	Log *slog.Logger
	// TLS and Resolver replace those of the system; nil keeps them.
	TLS      *tls.Config
	Resolver *net.Resolver
}

// A Provider is what the jobs of one provider reach through. It is safe for
// concurrent use; close it after the last job.
type Provider struct {
	cfg Config

	mu      sync.Mutex
	clients map[string]*client // by tenant: they share no connection
}

// A client makes the requests of one tenant.
type client struct {
	tenant *policy.Tenant
	// names makes requests to hosts that have a name, literals to addresses.
	names, literals *egress.Client
	ceiling         *egress.Policy // nil when the tenant has none
	grants          policy.Grants  // the tenant's ceiling; counts if ceiling is set
}

// web is the client for a URL.
func (c *client) web(u *url.URL) *egress.Client {
	if _, err := netip.ParseAddr(u.Hostname()); err == nil {
		return c.literals
	}
	return c.names
}

func (c *client) closeIdle() {
	c.names.CloseIdle()
	c.literals.CloseIdle()
}

// New makes the broker of a provider.
func New(cfg Config) *Provider {
	cfg.Limits = cfg.Limits.withDefaults()
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.Tenant == nil {
		cfg.Tenant = new(policy.Policy).Tenant
	}
	return &Provider{cfg: cfg, clients: map[string]*client{}}
}

// Close frees what is kept for reuse.
func (p *Provider) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.clients {
		c.closeIdle()
	}
	clear(p.clients)
}

// client finds that of a tenant.
func (p *Provider) client(name string) (*client, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.clients[name]; c != nil {
		return c, nil
	}
	tenant, err := p.cfg.Tenant(name)
	if err != nil {
		return nil, err
	}
	const many = 256
	if len(p.clients) >= many { // tenants that are not listed can be any number
		for _, c := range p.clients {
			c.closeIdle()
		}
		clear(p.clients)
	}
	c := &client{tenant: tenant}
	grants, bounded := tenant.Ceiling()
	if bounded {
		ceiling := grants.Egress(true)
		c.grants, c.ceiling = grants, &ceiling
	}
	open := func(literal bool) *egress.Client {
		web := p.cfg.Grants.Egress(literal)
		if bounded {
			web = policy.Within(web, grants.Egress(literal))
		}
		return egress.New(egress.Config{
			Policy: web, MaxBody: max(p.cfg.Limits.Received, 1), MinRate: p.cfg.Limits.MinRate, RateWindow: time.Minute,
			HeaderTimeout: -1, // the item's time is what counts: a model may think for long
			TLS:           p.cfg.TLS, Resolver: p.cfg.Resolver,
		})
	}
	c.names, c.literals = open(false), open(true)
	p.clients[name] = c
	return c, nil
}

// Job is the broker of one job.
func (p *Provider) Job(job *beacon.Job) hostfuncs.Broker {
	parallel := p.cfg.Limits.Parallel
	if job.Depth > 0 {
		parallel = 1
	}
	return &broker{provider: p, job: job, calls: make(chan struct{}, parallel)}
}

// A broker is that of one job.
type broker struct {
	provider *Provider
	job      *beacon.Job

	requests       atomic.Int64
	sent, received atomic.Int64
	calls          chan struct{} // a token for each that runs
}

func (b *broker) tenant() string { return cmp.Or(b.job.Tenant, beacon.DefaultTenant) }

// count takes one of the requests.
func (b *broker) count() error {
	if most := b.provider.cfg.Limits.Requests; max(b.requests.Add(1), b.job.Account.Ask(beacon.Traffic{Requests: 1}).Requests) > int64(most) {
		return beacon.Errorf(beacon.WebLimit, "more than %d requests and calls; raise the provider's Requests limit", most)
	}
	return nil
}

// HasSecret implements hostfuncs.Broker.
func (b *broker) HasSecret(name string) bool {
	c, err := b.provider.client(b.tenant())
	if err != nil {
		return false
	}
	_, _, err = b.secret(c, name)
	return err == nil
}

// secret finds a secret that the job may use, and the permission to.
func (b *broker) secret(c *client, name string) (policy.Secret, policy.Permission, error) {
	granted, ok := b.provider.cfg.Grants.Secret(name)
	if ok && c.ceiling != nil {
		_, ok = c.grants.Secret(name)
	}
	if !ok {
		return policy.Secret{}, granted, beacon.Errorf(beacon.Denied, "the secret %s is not permitted: grant \"secret %s\" to provider %s",
			beacon.Excerpt(name, 80), beacon.Excerpt(name, 80), b.provider.cfg.Name)
	}
	secret, ok := c.tenant.Secret(name)
	if !ok {
		return secret, granted, beacon.Errorf(beacon.Denied, "there is no secret %s: give it a value among the policy's Secrets", name)
	}
	return secret, granted, nil
}

// Call implements hostfuncs.Broker.
func (b *broker) Call(ctx context.Context, c beacon.Call) (beacon.Result, error) {
	cfg := &b.provider.cfg
	if cfg.Call == nil {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "calling %s is not possible here", beacon.Excerpt(c.Capability, 80))
	}
	if err := b.count(); err != nil {
		return beacon.Result{}, err
	}
	if b.job.Depth >= cfg.Limits.Depth {
		return beacon.Result{}, beacon.Errorf(beacon.CallLimit, "calls lead to calls more than %d deep; raise the provider's Depth limit", cfg.Limits.Depth)
	}
	client, err := b.provider.client(b.tenant())
	if err != nil {
		return beacon.Result{}, err
	}
	select {
	case b.calls <- struct{}{}:
		defer func() { <-b.calls }()
	case <-ctx.Done():
		return beacon.Result{}, context.Cause(ctx)
	}
	return cfg.Call(ctx, b.job, c, func(capability, action string) error {
		granted, ok := cfg.Grants.Call(capability, action)
		if ok && client.ceiling != nil {
			_, ok = client.grants.Call(capability, action)
		}
		if !ok {
			what := beacon.Excerpt(capability, 80)
			if action != "" { // or else it is the first of that capability
				what += "/" + beacon.Excerpt(action, 80)
			}
			return beacon.Errorf(beacon.Denied, "calling %s is not permitted: grant \"call %s\" to provider %s", what, what, cfg.Name)
		}
		b.job.Account.Used(granted.String())
		return nil
	})
}

// permitted decides about a request for first, and about each that redirects make
// of it, which carry its secrets as long as they stay with its origin.
func (b *broker) permitted(c *client, first *url.URL, secrets carried, known *known) func(method string, u *url.URL) error {
	return func(method string, u *url.URL) error {
		known.server(u)
		if u.Scheme != first.Scheme || !strings.EqualFold(u.Host, first.Host) {
			secrets = nil // nothing gets them back
		}
		for name, secret := range secrets {
			if !secret.For(allows(method, u)) {
				return notFor(name, u)
			}
		}
		granted, ok := b.provider.cfg.Grants.HTTP(allows(method, u))
		if !ok {
			return b.refused(method, u)
		}
		if c.ceiling != nil && c.ceiling.Check(method, u) != nil {
			return beacon.Errorf(beacon.Denied, "%s %s is not among the Permissions of the tenant", beacon.Excerpt(method, 20), egress.Redact(u))
		}
		b.job.Account.Used(granted.String())
		b.job.Account.Contacted(known.masks().mask(hostOf(u)))
		return nil
	}
}

// refused words the denial of a request, and what would permit it.
func (b *broker) refused(method string, u *url.URL) error {
	origin := u.Scheme + "://" + u.Host
	return beacon.Errorf(beacon.Denied, "%s %s is not permitted: grant \"http %s %s\" to provider %s",
		beacon.Excerpt(method, 20), egress.Redact(u), beacon.Excerpt(method, 20), beacon.Excerpt(origin, 300), b.provider.cfg.Name)
}

// allows reports whether a rule alone allows a request.
func allows(method string, u *url.URL) func(egress.Rule) bool {
	return func(r egress.Rule) bool {
		p := egress.Policy{Allow: []egress.Rule{r}}
		return p.Check(method, u) == nil
	}
}

// hostOf is the host and port of a URL, for the books.
func hostOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	host := strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		host = ip.Unmap().String()
	}
	return net.JoinHostPort(beacon.Excerpt(host, 253), port)
}

// forbidden are headers of requests that are not a guest's to set: those of the
// connection, which the host speaks, and those that make a request another one
// than the one that was permitted.
var forbidden = []string{
	"Connection", "Content-Length", "Expect", "Host", "Http2-Settings", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade", "X-Http-Method", "X-Http-Method-Override", "X-Method-Override",
}

func isForbidden(name string) bool { return slices.Contains(forbidden, name) }
