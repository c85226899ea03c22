package executor

import (
	"context"
	"path/filepath"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// A turn is the time that an item has here, from the moment it may run.
type turn struct {
	item    beacon.WorkItem
	tenant  string
	account *beacon.Account
	arrived time.Time
	began   time.Time
	end     func()
}

// enter finds out whose an item is and waits for its turn.
func (e *Executor) enter(ctx context.Context, item beacon.WorkItem) (*turn, error) {
	t := &turn{item: item, tenant: beacon.DefaultTenant, arrived: time.Now(), end: func() {}}
	var err error
	if e.cfg.Tenant != nil {
		if t.tenant, err = e.cfg.Tenant(item); err != nil {
			return nil, err
		}
	}
	var payer beacon.Payer
	if e.cfg.Enter != nil {
		// Whoever asked has given up by then.
		waiting, cancel := context.WithTimeout(ctx, item.Timeout)
		payer, t.end, err = e.cfg.Enter(waiting, t.tenant, item)
		cancel()
		if err != nil {
			return nil, err
		}
	}
	t.account, t.began = beacon.NewAccount(payer), time.Now()
	return t, nil
}

// refused is the outcome of an item that has had no turn: a result, unless the
// worker itself is ending.
func refused(ctx context.Context, err error) (beacon.Result, error) {
	if ctx.Err() != nil {
		return beacon.Result{}, err
	}
	return beacon.Failure(err.Error(), "Beacon Executor: "+err.Error()), nil
}

func (t *turn) job(item beacon.WorkItem, onProgress func(beacon.Progress)) *beacon.Job {
	return &beacon.Job{Item: item, Tenant: t.tenant, Account: t.account, OnProgress: onProgress}
}

// leave ends the turn, tells of it and says what was used.
func (e *Executor) leave(t *turn, result beacon.Result, err error) beacon.Usage {
	took, statement := time.Since(t.began), t.account.Statement()
	t.end()
	if e.cfg.OnEnd == nil {
		return statement.Usage
	}
	e.cfg.OnEnd(Record{
		Item: t.item, Tenant: t.tenant, Began: t.began, Waited: t.began.Sub(t.arrived), Took: took,
		Statement: statement, ExitCode: result.ExitCode(), Code: beacon.CodeOf(err),
	})
	return statement.Usage
}

// hold asks for the space that the sources take. It is given back with the turn.
func hold(dir *staging.Dir, r request, account *beacon.Account) error {
	var total int64
	for _, name := range r.sourceNames() {
		info, err := dir.Lstat(filepath.FromSlash(name))
		if err != nil {
			return hostless(err)
		}
		total += info.Size()
	}
	return account.Hold(total)
}
