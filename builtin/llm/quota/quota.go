// Package quota keeps tenants within what they may use of language models: so
// many requests and tokens per minute, for which they wait, and so much per day
// or month, after which they are refused.
package quota

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
)

// Limits are those of one tenant. 0 means no limit.
type Limits struct {
	RequestsPerMinute int64
	TokensPerMinute   int64
	// BudgetCost, in US dollars, and BudgetTokens are for one BudgetPeriod: hour,
	// day, month (of UTC) or total; empty means day.
	BudgetCost   float64
	BudgetTokens int64
	BudgetPeriod string
}

// Validate reports limits that make no sense.
func (l Limits) Validate() error {
	if l.RequestsPerMinute < 0 || l.TokensPerMinute < 0 || !(l.BudgetCost >= 0) || l.BudgetTokens < 0 {
		return errors.New("limits cannot be below zero")
	}
	if _, ok := periods[l.BudgetPeriod]; !ok {
		return fmt.Errorf("BudgetPeriod is %q: want hour, day, month or total", beacon.Excerpt(l.BudgetPeriod, 40))
	}
	return nil
}

func (l Limits) budget() bool { return l.BudgetCost > 0 || l.BudgetTokens > 0 }

// periods give the name of the period that a time is in.
var periods = map[string]string{"": "2006-01-02", "day": "2006-01-02", "hour": "2006-01-02 15h", "month": "2006-01", "total": "total"}

// A Use is what a request uses, or is expected to.
type Use struct {
	Tokens int64
	Cost   float64 // in US dollars
	// Priced says that Cost is known.
	Priced bool
}

// A Meter counts what tenants use. It is safe for concurrent use.
type Meter struct {
	limits func(tenant string) Limits
	path   string
	lock   *os.File // nil while the file is not open
	now    func() time.Time

	mu       sync.Mutex
	requests map[string]*bucket
	tokens   map[string]*bucket
	spent    map[string]account
}

// An account is what a tenant has spent in a period, with what requests under
// way are expected to use.
type account struct {
	Period string
	Tokens int64
	Cost   float64
}

// New makes a meter. What is spent of budgets is kept in the file, so that a
// restart does not forget it: a request is in there before it is sent, and at
// its expected size if the process dies before its end. An empty path keeps it
// in memory. The file is opened by Open, or by the first Admit.
func New(path string, limits func(tenant string) Limits) *Meter {
	return &Meter{
		limits: limits, path: path, now: time.Now,
		requests: map[string]*bucket{}, tokens: map[string]*bucket{}, spent: map[string]account{},
	}
}

// Open reads what was spent, and takes the file for this meter alone: if another
// has it, the error has code beacon.Invalid. Close ends that.
func (m *Meter) Open() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open()
}

func (m *Meter) open() error {
	if m.path == "" || m.lock != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(m.path), 0o700); err != nil {
		return fmt.Errorf("keep what was spent of budgets: %w", err)
	}
	lock, err := os.OpenFile(m.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("keep what was spent of budgets: %w", err)
	}
	if err := m.load(lock); err != nil {
		return errors.Join(err, lock.Close())
	}
	m.lock = lock
	return nil
}

func (m *Meter) load(lock *os.File) error {
	switch mine, err := tryLock(lock); {
	case err != nil:
		return fmt.Errorf("keep what was spent of budgets: lock: %w", err)
	case !mine:
		return beacon.Errorf(beacon.Invalid, "BudgetFile %s belongs to another worker that runs: give each its own", m.path)
	}
	raw, err := os.ReadFile(m.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &m.spent)
	}
	if err != nil {
		return fmt.Errorf("read what was spent of budgets: %w (remove %s to begin anew)", err, m.path)
	}
	return nil
}

// Close gives the file free.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.lock == nil {
		return nil
	}
	lock := m.lock
	m.lock = nil
	return lock.Close()
}

// An Admission is leave to send a request. It must be settled.
type Admission struct {
	meter    *Meter
	tenant   string
	expected Use
	period   string
	settled  bool
}

// Admit waits until the tenant's rates allow for a request of the expected size,
// and books it on the tenant's budget. The error has code beacon.CallLimit and
// says which limit is in the way: a budget that is used up, or a rate whose wait
// would be longer than ctx lasts.
func (m *Meter) Admit(ctx context.Context, tenant string, expected Use) (*Admission, error) {
	l := m.limits(tenant)
	m.mu.Lock()
	a := &Admission{meter: m, tenant: tenant, expected: expected}
	err := m.open()
	if err == nil {
		err = m.book(l, a)
	}
	if err != nil {
		m.mu.Unlock()
		return nil, err
	}
	now := m.now()
	wait, name, limit := time.Duration(0), "", int64(0)
	for _, b := range []struct {
		buckets map[string]*bucket
		limit   int64
		n       int64
		name    string
	}{
		{m.requests, l.RequestsPerMinute, 1, "RequestsPerMinute"},
		{m.tokens, l.TokensPerMinute, expected.Tokens, "TokensPerMinute"},
	} {
		if b.limit <= 0 {
			continue
		}
		if b.buckets[tenant] == nil {
			b.buckets[tenant] = newBucket(b.limit, now)
		}
		if w := b.buckets[tenant].take(now, float64(b.n)); w > wait {
			wait, name, limit = w, b.name, b.limit
		}
	}
	m.mu.Unlock()
	if wait == 0 {
		return a, nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
		return nil, errors.Join(beacon.Errorf(beacon.CallLimit, "tenant %s has used its %s of %d: there is room again in %s, after the item's time is over",
			beacon.Excerpt(tenant, 80), name, limit, wait.Round(time.Second)), a.refund())
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return a, nil
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), a.refund())
	}
}

// book puts the expected use on the budget; mu is held.
func (m *Meter) book(l Limits, a *Admission) error {
	if !l.budget() {
		return nil
	}
	a.period = m.now().UTC().Format(periods[l.BudgetPeriod])
	account := m.account(a.tenant, a.period)
	over := func(what, limit, spent string) error {
		return beacon.Errorf(beacon.CallLimit, "tenant %s has a budget of %s %s, of which %s are spent or reserved (BudgetPeriod %s)",
			beacon.Excerpt(a.tenant, 80), limit, what, spent, a.period)
	}
	if l.BudgetCost > 0 {
		if !a.expected.Priced {
			return beacon.Errorf(beacon.CallLimit, "tenant %s has a budget in dollars, but the model has no price: put it into Prices, or give a budget in tokens",
				beacon.Excerpt(a.tenant, 80))
		}
		if account.Cost+a.expected.Cost > l.BudgetCost {
			return over("dollars", fmt.Sprint(l.BudgetCost), fmt.Sprintf("%.4f", account.Cost))
		}
	}
	if l.BudgetTokens > 0 && account.Tokens+a.expected.Tokens > l.BudgetTokens {
		return over("tokens", fmt.Sprint(l.BudgetTokens), fmt.Sprint(account.Tokens))
	}
	account.Tokens += a.expected.Tokens
	account.Cost += a.expected.Cost
	m.spent[a.tenant] = account
	return m.save()
}

// account is what the tenant has spent in the period; mu is held.
func (m *Meter) account(tenant, period string) account {
	if a := m.spent[tenant]; a.Period == period {
		return a
	}
	return account{Period: period}
}

// refund settles a request that was not sent.
func (a *Admission) refund() error {
	a.meter.mu.Lock()
	if b := a.meter.requests[a.tenant]; b != nil {
		b.take(a.meter.now(), -1)
	}
	a.meter.mu.Unlock()
	return a.Settle(Use{})
}

// Settle replaces the expected use by what was really used. Only the first call
// counts.
func (a *Admission) Settle(used Use) error {
	m := a.meter
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.settled {
		return nil
	}
	a.settled = true
	if b := m.tokens[a.tenant]; b != nil {
		b.take(m.now(), float64(used.Tokens-a.expected.Tokens))
	}
	if a.period == "" {
		return nil
	}
	account := m.account(a.tenant, a.period)
	if m.spent[a.tenant].Period > a.period {
		return nil // a period that is over
	}
	account.Tokens += used.Tokens - a.expected.Tokens
	account.Cost += used.Cost - a.expected.Cost
	m.spent[a.tenant] = account
	return m.save()
}

// save writes the accounts; mu is held.
func (m *Meter) save() error {
	if m.lock == nil { // in memory, or closed
		return nil
	}
	raw, err := json.MarshalIndent(m.spent, "", "\t")
	if err == nil {
		err = replace(m.path, raw)
	}
	if err != nil {
		return fmt.Errorf("keep what was spent of budgets: %w", err)
	}
	return nil
}

// replace puts a new file in the place of the old one, which is there until the
// new one is on the disk.
func replace(path string, raw []byte) error {
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// A bucket fills with what a minute allows, up to that much. It can be in debt:
// what a request really uses is known only afterwards.
type bucket struct {
	level, perSecond, full float64
	at                     time.Time
}

func newBucket(perMinute int64, now time.Time) *bucket {
	return &bucket{level: float64(perMinute), full: float64(perMinute), perSecond: float64(perMinute) / 60, at: now}
}

// take takes out n and says how long to wait until it would have been there.
func (b *bucket) take(now time.Time, n float64) time.Duration {
	b.level = min(b.full, b.level+max(0, now.Sub(b.at).Seconds())*b.perSecond)
	b.at = now
	// What is larger than the bucket waits for a full one.
	room := b.level - min(n, b.full)
	b.level = min(b.full, b.level-n)
	if room >= 0 {
		return 0
	}
	return time.Duration(-room / b.perSecond * float64(time.Second))
}
