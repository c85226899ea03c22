// Package executor carries out one work item: it finds the provider, stages the
// sources, runs the provider within the item's time, recovers its panics and
// collects the outputs.
package executor

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// Config has the executor's limits. The zero value works.
type Config struct {
	// Timeout is the time of an item that brings none; default 5 minutes, as on
	// Ultravisor servers.
	Timeout time.Duration
	// MaxOutput is how many bytes of output files are returned with a result;
	// default 256 MiB, which as base64 still fits into a string of the
	// JavaScript engine that servers run on.
	MaxOutput int64
	// LenientActions runs the first action of a capability when an item asks
	// for one that does not exist, as the Node worker does.
	LenientActions bool
	// Resolve finds out what a universal address (>Beacon/Context/Path) as a
	// source means on behalf of a tenant: a URL, or a file of this machine, which
	// the executor closes. nil means that such sources are refused.
	Resolve func(ctx context.Context, tenant, address string) (url string, local *os.File, err error)
	// Tenant says whose an item is; nil means that all are the default tenant's.
	// Its error is the item's result.
	Tenant func(item beacon.WorkItem) (string, error)
	// Shared reports whether an item of a tenant may call a capability; nil means
	// every one.
	Shared func(tenant, capability string) bool
	// Enter waits until an item of a tenant may run, as long as the item may take
	// at most, and returns who pays for it and what to call when it has ended. Its
	// error is the item's result. nil lets all in.
	Enter func(ctx context.Context, tenant string, item beacon.WorkItem) (payer beacon.Payer, leave func(), err error)
	// OnEnd, if any, is told of every item that has ended, but for those that
	// nobody here could carry out.
	OnEnd func(Record)
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// A Record says what became of an item and what was done on its behalf.
type Record struct {
	Item   beacon.WorkItem
	Tenant string
	// Began is when the item had its turn; it waited for that before.
	Began        time.Time
	Waited, Took time.Duration
	Statement    beacon.Statement
	ExitCode     int
	// Code is that of the provider's error, "" when it had none.
	Code beacon.Code
}

// An Executor is safe for concurrent use.
type Executor struct {
	registry *beacon.Registry
	store    *staging.Store
	download *staging.Downloader
	cfg      Config
}

// New makes an executor for the providers of a registry.
func New(registry *beacon.Registry, store *staging.Store, download *staging.Downloader, cfg Config) *Executor {
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Minute)
	cfg.MaxOutput = cmp.Or(cfg.MaxOutput, 256<<20)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	return &Executor{registry, store, download, cfg}
}

// Run is a beacon.Execute. What is wrong with an item, and a download or an
// output that fails, is a result with exit code -1; an error is the provider's.
func (e *Executor) Run(ctx context.Context, item beacon.WorkItem, onProgress func(beacon.Progress)) (beacon.Result, error) {
	return e.run(ctx, item, remote{e}, onProgress)
}

// RunLocal runs an item whose files are local: the source is copied from a
// path, and the output goes to one. Either may be "".
func (e *Executor) RunLocal(ctx context.Context, item beacon.WorkItem, source, output string, onProgress func(beacon.Progress)) (beacon.Result, error) {
	return e.run(ctx, item, local{source, output}, onProgress)
}

// files is where an item's sources come from and its outputs go to.
type files interface {
	// request decides what sources and outputs are called in the item's
	// directory.
	request(item beacon.WorkItem) (request, error)
	// stage brings the sources; notes go to the item's log.
	stage(ctx context.Context, job *staged, r request) (notes []string, err error)
	// wants reports whether outputs of a result are wanted.
	wants(result beacon.Result) bool
	// collect takes the outputs away. When it fails, what it took is back.
	collect(ctx context.Context, job *staged, r request, found []file, out beacon.Outputs) (notes []string, err error)
}

// A staged item has its directory.
type staged struct {
	item       beacon.WorkItem
	tenant     string
	account    *beacon.Account
	dir        *staging.Dir
	onProgress func(beacon.Progress)
}

// defaultCapability is that of an item that names none.
const defaultCapability = "Shell"

func (e *Executor) run(ctx context.Context, item beacon.WorkItem, files files, onProgress func(beacon.Progress)) (result beacon.Result, err error) {
	item.Capability = cmp.Or(item.Capability, defaultCapability)
	provider, action, err := e.resolve(item)
	if err != nil {
		return beacon.Failure(err.Error(), "Beacon Executor: no provider for ["+named(item)+"]."), nil
	}
	item.Action = action.Name
	item.Timeout = cmp.Or(item.Timeout, e.cfg.Timeout)
	turn, err := e.enter(ctx, item)
	if err != nil {
		return refused(ctx, err)
	}
	defer func() { result.Usage = e.leave(turn, result, err) }()
	return e.carryOut(ctx, provider, turn.job(item, onProgress), files)
}

// carryOut runs a job whose turn it is: it gets a directory and its time.
func (e *Executor) carryOut(ctx context.Context, provider beacon.Provider, run *beacon.Job, files files) (result beacon.Result, err error) {
	item := run.Item
	ctx, cancel := context.WithTimeoutCause(ctx, item.Timeout, beacon.Errorf(beacon.Timeout,
		"the item ran longer than its limit of %s; raise its TimeoutMs", item.Timeout))
	defer cancel()

	request, err := files.request(item)
	if err != nil {
		return transferFailed(err), nil
	}
	dir, err := e.store.CreateFor(run.Tenant)
	if err != nil {
		return transferFailed(err), nil
	}
	defer func() {
		if cerr := dir.Close(); cerr != nil {
			e.cfg.Log.Error("the item's directory stays behind", "item", item.Hash, "tenant", run.Tenant, "err", cerr)
		}
	}()
	job := &staged{item: item, tenant: run.Tenant, account: run.Account, dir: dir, onProgress: run.OnProgress}
	notes, err := files.stage(ctx, job, request)
	if err == nil {
		err = hold(dir, request, run.Account)
	}
	if err == nil {
		err = makeFolders(dir, request)
	}
	if err != nil {
		if c, ok := files.(*called); ok {
			c.failure = err // which a caller gets as it is
		}
		failure := transferFailed(err)
		failure.Log = append(notes, failure.Log...)
		return failure, nil
	}
	sources, outputs := request.sourceNames(), request.outputNames()
	run.Dir = dir.Root
	run.Source, run.Output, run.Sources, run.Outputs = first(sources), first(outputs), sources, outputs
	result, err = e.call(ctx, provider, run)
	result.Log = append(notes, result.Log...)
	result = tidied(result)
	if err != nil || len(request.outputs) == 0 || !files.wants(result) {
		return result, err
	}
	return collected(ctx, files, job, request, result), nil
}

// named is what an item asks for, as the Node worker writes it.
func named(item beacon.WorkItem) string {
	name := beacon.Excerpt(item.Capability, 80)
	if item.Action != "" {
		name += "/" + beacon.Excerpt(item.Action, 80)
	}
	return name
}

func (e *Executor) resolve(item beacon.WorkItem) (beacon.Provider, beacon.Action, error) {
	provider, action, err := e.registry.Resolve(item.Capability, item.Action)
	if err != nil && e.cfg.LenientActions {
		if p, first, err := e.registry.Resolve(item.Capability, ""); err == nil {
			return p, first, nil
		}
	}
	return provider, action, err
}

// transferFailed words a failure as the Node worker does; servers show it.
func transferFailed(err error) beacon.Result {
	return beacon.Failure("File transfer preparation failed: "+err.Error(), "File transfer error: "+err.Error())
}

// collected adds the outputs to the result of a provider that has run. One that
// is missing makes the result a failure, unless it is one already: then its own
// exit code says more.
func collected(ctx context.Context, files files, job *staged, r request, result beacon.Result) beacon.Result {
	// The provider may have kept its outputs.
	result.Outputs = maps.Clone(result.Outputs)
	if result.Outputs == nil {
		result.Outputs = beacon.Outputs{}
	}
	found, err := find(ctx, job.dir, r)
	defer closeAll(found)
	if err == nil {
		var notes []string
		if notes, err = files.collect(ctx, job, r, found, result.Outputs); err == nil {
			result.Log = append(result.Log, notes...)
			return result
		}
	}
	result.Log = append(result.Log, err.Error())
	if result.ExitCode() == 0 {
		result.Outputs[beacon.OutputExitCode] = -1
		printed, _ := result.Outputs[beacon.OutputStdOut].(string)
		result.Outputs[beacon.OutputStdOut] = printed + "\nOutput collection failed: " + err.Error()
	}
	return result
}

// call runs the provider. A panic is the item's failure, not the worker's.
func (e *Executor) call(ctx context.Context, p beacon.Provider, job *beacon.Job) (result beacon.Result, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			e.cfg.Log.Error("a provider panicked", "item", job.Item.Hash, "tenant", job.Tenant, "capability", job.Item.Capability,
				"panic", fmt.Sprint(fault), "stack", string(debug.Stack()))
			result, err = beacon.Result{}, beacon.Errorf(beacon.Internal, "provider %s panicked", job.Item.Capability)
		}
	}()
	result, err = p.Run(ctx, job)
	if err != nil && ctx.Err() != nil && beacon.CodeOf(err) == beacon.CodeOf(ctx.Err()) {
		err = context.Cause(ctx) // which says whose deadline it was
	}
	return result, err
}

// Size words a number of bytes as the Node worker does: 149 B, 97.7 KB.
func Size(n int64) string {
	const kilo, mega, giga = 1 << 10, 1 << 20, 1 << 30
	tenths := func(unit float64) float64 { return math.Round(float64(n)/unit*10) / 10 }
	switch {
	case n < kilo:
		return fmt.Sprintf("%d B", n)
	case n < mega:
		return fmt.Sprintf("%.1f KB", tenths(kilo))
	case n < giga:
		return fmt.Sprintf("%.1f MB", tenths(mega))
	}
	return fmt.Sprintf("%.2f GB", float64(n)/giga)
}
