package executor

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// Call carries out a call of a provider on behalf of the job that it works on:
// in a directory of its own, within the job's time, for the same tenant, charged
// to the same account, and in the job's own turn. permit is asked about the
// action that the call comes to. What the callee could not do is an error.
func (e *Executor) Call(ctx context.Context, caller *beacon.Job, c beacon.Call, permit func(capability, action string) error) (beacon.Result, error) {
	provider, action, err := e.registry.Resolve(c.Capability, c.Action)
	if err != nil {
		// What there is here is not for everybody to know.
		if denied := permit(c.Capability, c.Action); denied != nil {
			err = denied
		}
		return beacon.Result{}, err
	}
	if err := permit(c.Capability, action.Name); err != nil {
		return beacon.Result{}, err
	}
	if e.cfg.Shared != nil && !e.cfg.Shared(caller.Tenant, c.Capability) {
		return beacon.Result{}, beacon.Errorf(beacon.Denied, "capability %s belongs to another tenant", c.Capability)
	}
	for _, name := range Settings() {
		if c.Settings.Has(name) {
			return beacon.Result{}, beacon.Errorf(beacon.Invalid, "setting %s means nothing in a call: name files of your own as its Source and Output", name)
		}
	}
	item := beacon.WorkItem{
		Hash: caller.Item.Hash, Capability: c.Capability, Action: action.Name, Settings: c.Settings,
		OperationHash: caller.Item.OperationHash, RunID: caller.Item.RunID, Attempt: caller.Item.Attempt,
		Timeout: e.cfg.Timeout,
	}
	if deadline, bounded := ctx.Deadline(); bounded {
		item.Timeout = time.Until(deadline)
	}
	if c.Timeout > 0 {
		item.Timeout = min(item.Timeout, c.Timeout)
	}
	if item.Settings == nil {
		item.Settings = beacon.Settings{}
	}
	files := &called{call: c}
	result, err := e.carryOut(ctx, provider, &beacon.Job{
		Item: item, Tenant: caller.Tenant, Account: caller.Account, Depth: caller.Depth + 1, OnProgress: c.OnProgress,
	}, files)
	if err == nil {
		err = files.failure // an item gets a result for that; a caller wants to know
	}
	return result, err
}

// called are the files of a call: the caller's.
type called struct {
	call    beacon.Call
	failure error
}

func (c *called) request(beacon.WorkItem) (request, error) {
	r, err := c.names()
	c.failure = err
	return r, err
}

func (c *called) names() (r request, err error) {
	if c.call.Source != nil {
		if err := staging.CheckName("Source", c.call.SourceName); err != nil {
			return r, err
		}
		r.sources = []source{{name: c.call.SourceName}}
	}
	if c.call.Output != nil {
		name := c.call.OutputName
		if err := staging.CheckName("Output", name); err != nil {
			return r, err
		}
		if name == first(r.sourceNames()) { // the caller may call both the same
			name = "output-" + name
			if len(name) > 255 {
				name = "output"
			}
		}
		r.outputs = []output{{name: name}}
	}
	return r, nil
}

func (c *called) stage(ctx context.Context, job *staged, r request) ([]string, error) {
	if len(r.sources) == 0 {
		return nil, nil
	}
	f, err := job.dir.OpenFile(r.sources[0].name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = io.Copy(f, reader{ctx, c.call.Source})
		err = errors.Join(err, f.Close())
	}
	c.failure = hostless(err)
	return nil, c.failure
}

// A reader ends with its context.
type reader struct {
	ctx  context.Context
	from io.Reader
}

func (r reader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}

// wants is for success only, as with a user's own files.
func (c *called) wants(result beacon.Result) bool { return result.ExitCode() == 0 }

func (c *called) collect(ctx context.Context, _ *staged, _ request, found []file, out beacon.Outputs) ([]string, error) {
	if len(found) == 0 {
		return nil, nil
	}
	w, err := c.call.Output()
	if err == nil {
		_, err = io.Copy(w, io.LimitReader(reader{ctx, found[0].open}, found[0].info.Size()))
		err = errors.Join(err, w.Close())
	}
	if c.failure = err; err != nil {
		return nil, err
	}
	out[outputName], out[outputSize] = c.call.OutputName, found[0].info.Size()
	return nil, nil
}
