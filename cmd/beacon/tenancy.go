package main

import (
	"cmp"
	"context"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/audit"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/monitor"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// A tenancy knows whose items are, and lets them run when it is their turn.
type tenancy struct {
	policy    *policy.Policy
	scheduler *policy.Scheduler
	providers map[string]providerConfig // by capability
	figures   *monitor.Worker           // nil if nobody wants them
}

// newTenancy makes one for so many items at once. A provider of a tenant that
// there is none of is an error.
func newTenancy(p *policy.Policy, all []offered, slots int) (*tenancy, error) {
	t := &tenancy{policy: p, scheduler: policy.NewScheduler(p, slots), providers: map[string]providerConfig{}}
	for _, o := range all {
		if o.config.Tenant != "" {
			if _, err := p.Tenant(o.config.Tenant); err != nil {
				return nil, usagef("provider %s: %w; name it among the policy's Tenants", o.config.Source, err)
			}
		}
		t.providers[o.Capability().Name] = o.config
	}
	return t, nil
}

// configure has an executor work like that.
func (t *tenancy) configure(cfg executor.Config, log *audit.Log) executor.Config {
	cfg.Tenant, cfg.Shared, cfg.Enter = t.of, t.shared, t.enter
	cfg.OnEnd = func(r executor.Record) {
		u := r.Statement.Usage
		log.Item(audit.Item{
			Tenant: r.Tenant, WorkItemHash: r.Item.Hash, RunID: r.Item.RunID, Attempt: r.Item.Attempt,
			Capability: r.Item.Capability, Action: r.Item.Action,
			Began: r.Began, WaitedMs: r.Waited.Milliseconds(), TookMs: r.Took.Milliseconds(), ExitCode: r.ExitCode, Error: r.Code,
			Modules: r.Statement.Modules, Permissions: r.Statement.Permissions, Hosts: r.Statement.Hosts,
			Fuel: u.Fuel, Memory: u.Memory, Staged: u.Staged, Sent: u.Sent, Received: u.Received, Tokens: u.Tokens, Cost: u.Cost,
		})
		if t.figures != nil {
			t.figures.Ended(monitor.Item{
				Tenant: r.Tenant, Capability: r.Item.Capability, Waited: r.Waited, Took: r.Took, Usage: u, ExitCode: r.ExitCode, Code: r.Code,
			})
		}
	}
	return cfg
}

// of says whose an item is: its provider's tenant, or the one that a setting of
// the server's names.
func (t *tenancy) of(item beacon.WorkItem) (string, error) {
	p := t.providers[item.Capability]
	name := cmp.Or(p.Tenant, beacon.DefaultTenant)
	if p.TenantFrom != "" {
		if name = cmp.Or(item.Settings.Text(p.TenantFrom), p.Tenant); name == "" {
			return "", beacon.Errorf(beacon.Denied, "the item does not say whose it is: its setting %s is missing", p.TenantFrom)
		}
	}
	if _, err := t.policy.Tenant(name); err != nil {
		return "", err
	}
	return name, nil
}

// shared reports whether a tenant's items may call a capability: its own, and
// those that belong to nobody.
func (t *tenancy) shared(tenant, capability string) bool {
	p := t.providers[capability]
	return p.Tenant == "" || p.Tenant == tenant
}

func (t *tenancy) enter(ctx context.Context, tenant string, item beacon.WorkItem) (beacon.Payer, func(), error) {
	p, memory := t.providers[item.Capability], int64(0)
	if !builtin.Is(p.Source) {
		memory = cmp.Or(int64(p.memory), wasmrt.DefaultMemory)
	}
	ended := func() {}
	begin := func(error) func() { return ended }
	if t.figures != nil {
		begin = t.figures.Arrived(tenant, item.Capability)
	}
	turn, err := t.scheduler.Enter(ctx, tenant, memory)
	ended = begin(err)
	if err != nil {
		return nil, nil, err
	}
	return turn, func() { turn.Leave(); ended() }, nil
}

// dailyBudget is what a tenant may use of language models.
func dailyBudget(p *policy.Policy) func(tenant string) (tokens int64, cost float64) {
	return func(tenant string) (int64, float64) {
		t, err := p.Tenant(tenant)
		if err != nil {
			return 0, 0 // whose items are refused
		}
		return t.Quota.TokensPerDay, t.Quota.CostPerDay
	}
}

// waiting is how many items a worker takes besides those that run, so that there
// is a choice when a slot is free.
func (c *config) waiting(p *policy.Policy, slots int) int {
	switch {
	case c.MaxWaiting > 0:
		return c.MaxWaiting
	case p.Shared():
		return 3 * slots
	}
	return 0
}
