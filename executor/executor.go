// Package executor carries out one work item: it finds the provider, stages the
// source, runs the provider within the item's time, recovers its panics and
// collects the output.
package executor

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/staging"
)

// Settings that the executor reads, whatever the provider.
const (
	settingSourceURL    = "SourceURL"
	settingSourceName   = "SourceFilename"
	settingOutputName   = "OutputFilename"
	settingOutputFile   = "OutputFile" // the name of the same in workflows
	settingReturnOutput = "ReturnOutputAsBase64"
)

// Outputs that the executor adds.
const (
	outputData = "OutputData"
	outputName = "OutputFilename"
	outputSize = "OutputSize"
)

// inline is the largest output file that is held in memory as part of a result;
// what is larger stays a file until it is sent.
const inline = 256 << 10

const defaultSourceName = "source_file"

// Config has the executor's limits. The zero value works.
type Config struct {
	// Timeout is the time of an item that brings none; default 5 minutes, as on
	// Ultravisor servers.
	Timeout time.Duration
	// MaxOutput is the largest output file that is returned with a result, in
	// bytes; default 256 MiB, which as base64 still fits into a string of the
	// JavaScript engine that servers run on.
	MaxOutput int64
	// LenientActions runs the first action of a capability when an item asks
	// for one that does not exist, as the Node worker does.
	LenientActions bool
	// Log defaults to slog.Default.
	Log *slog.Logger
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

// files is where an item's source comes from and its output goes to.
type files interface {
	// names decides what source and output are called in the item's directory.
	names(item beacon.WorkItem) (source, output string, err error)
	// stage brings the source; notes go to the item's log.
	stage(ctx context.Context, dir *staging.Dir, item beacon.WorkItem, name string, onProgress func(beacon.Progress)) (notes []string, err error)
	// collect takes the output away.
	collect(ctx context.Context, dir *staging.Dir, item beacon.WorkItem, output *os.File, info fs.FileInfo, out beacon.Outputs) (note string, err error)
}

func (e *Executor) run(ctx context.Context, item beacon.WorkItem, files files, onProgress func(beacon.Progress)) (result beacon.Result, err error) {
	provider, action, err := e.resolve(item)
	if err != nil {
		return beacon.Failure(err.Error(), fmt.Sprintf("Beacon Executor: no provider for [%s/%s].",
			beacon.Excerpt(item.Capability, 80), beacon.Excerpt(item.Action, 80))), nil
	}
	item.Action = action.Name
	item.Timeout = cmp.Or(item.Timeout, e.cfg.Timeout)
	ctx, cancel := context.WithTimeoutCause(ctx, item.Timeout, beacon.Errorf(beacon.Timeout,
		"the item ran longer than its limit of %s; raise its TimeoutMs", item.Timeout))
	defer cancel()

	source, output, err := files.names(item)
	if err != nil {
		return transferFailed(err), nil
	}
	dir, err := e.store.Create()
	if err != nil {
		return transferFailed(err), nil
	}
	defer func() {
		if cerr := dir.Close(); cerr != nil {
			e.cfg.Log.Error("the item's directory stays behind", "item", item.Hash, "err", cerr)
		}
	}()
	var notes []string
	if source != "" {
		if notes, err = files.stage(ctx, dir, item, source, onProgress); err != nil {
			failure := transferFailed(err)
			failure.Log = append(notes, failure.Log...)
			return failure, nil
		}
	}
	result, err = e.call(ctx, provider, &beacon.Job{
		Item: item, Tenant: beacon.DefaultTenant, Dir: dir.Root, Source: source, Output: output, OnProgress: onProgress,
	})
	result.Log = append(notes, result.Log...)
	if err != nil {
		return result, err
	}
	if output != "" && result.ExitCode() == 0 {
		result = collected(ctx, files, dir, item, output, result)
	}
	return result, nil
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

func collected(ctx context.Context, files files, dir *staging.Dir, item beacon.WorkItem, name string, result beacon.Result) beacon.Result {
	// The provider may have kept its outputs.
	result.Outputs = maps.Clone(result.Outputs)
	if result.Outputs == nil {
		result.Outputs = beacon.Outputs{}
	}
	var text string
	f, info, err := dir.Output(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		text = "Output file not found: " + name
	case err == nil:
		var note string
		note, err = files.collect(ctx, dir, item, f, info, result.Outputs)
		f.Close()
		if err == nil {
			if note != "" {
				result.Log = append(result.Log, note)
			}
			return result
		}
		fallthrough
	default:
		text = fmt.Sprintf("Output file %s cannot be collected: %v", name, err)
	}
	result.Log = append(result.Log, text)
	result.Outputs[beacon.OutputExitCode] = -1
	if printed, _ := result.Outputs[beacon.OutputStdOut].(string); printed == "" {
		result.Outputs[beacon.OutputStdOut] = text
	}
	return result
}

// call runs the provider. A panic is the item's failure, not the worker's.
func (e *Executor) call(ctx context.Context, p beacon.Provider, job *beacon.Job) (result beacon.Result, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			e.cfg.Log.Error("a provider panicked", "item", job.Item.Hash, "capability", job.Item.Capability,
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

// remote items name a URL and get their output back inside of the result.
type remote struct{ e *Executor }

func (remote) names(item beacon.WorkItem) (source, output string, err error) {
	s := item.Settings
	if s.Has(settingSourceURL) {
		source = cmp.Or(s.Text(settingSourceName), defaultSourceName)
		if err := staging.CheckName(settingSourceName, source); err != nil {
			return "", "", err
		}
	}
	if _, err := s.Bool(settingReturnOutput); err != nil {
		return "", "", err
	}
	output = cmp.Or(s.Text(settingOutputName), s.Text(settingOutputFile))
	if output == "" {
		return source, "", nil
	}
	if err := staging.CheckName(settingOutputName, output); err != nil {
		return "", "", err
	}
	if output == source {
		return "", "", beacon.Errorf(beacon.Invalid, "%s and %s are both %q: the source is read-only, give the output another name",
			settingSourceName, settingOutputName, output)
	}
	return source, output, nil
}

func (r remote) stage(ctx context.Context, dir *staging.Dir, item beacon.WorkItem, name string, onProgress func(beacon.Progress)) ([]string, error) {
	from := item.Settings.Text(settingSourceURL)
	notes := []string{"Downloading source: " + staging.Redact(from)}
	size, err := r.e.download.Fetch(ctx, dir, name, from, func(done, total int64) {
		if onProgress == nil {
			return
		}
		text := "Downloading source: " + Size(done)
		if total > 0 {
			text += " of " + Size(total)
		}
		onProgress(beacon.Progress{Message: text})
	})
	if err != nil {
		return notes, err
	}
	return append(notes, fmt.Sprintf("Downloaded: %s (%s)", name, Size(size))), nil
}

func (r remote) collect(ctx context.Context, dir *staging.Dir, item beacon.WorkItem, output *os.File, info fs.FileInfo, out beacon.Outputs) (string, error) {
	name, size := filepath.Base(output.Name()), info.Size()
	if !returns(item.Settings) {
		return fmt.Sprintf("Output not returned: %s (%s), because %s is false", name, Size(size), settingReturnOutput), nil
	}
	if size > r.e.cfg.MaxOutput {
		return "", beacon.Errorf(beacon.OutputLimit, "%s, the limit for a result is %s", Size(size), Size(r.e.cfg.MaxOutput))
	}
	if size > inline {
		path, err := dir.Keep(output, info)
		if err != nil {
			return "", err
		}
		out[outputData] = beacon.File{Path: path, Size: size, Name: name}
	} else {
		content, err := io.ReadAll(io.LimitReader(output, size)) // it may still grow
		if err := errors.Join(err, context.Cause(ctx)); err != nil {
			return "", err
		}
		size = int64(len(content))
		out[outputData] = base64.StdEncoding.EncodeToString(content)
	}
	out[outputName], out[outputSize] = name, size
	return fmt.Sprintf("Output collected: %s (%s)", name, Size(size)), nil
}

// returns reports whether an output is wanted inside of the result: unless it is
// refused, since otherwise the provider's work would be lost.
func returns(s beacon.Settings) bool {
	wanted, err := s.Bool(settingReturnOutput)
	return wanted || err != nil || !s.Has(settingReturnOutput)
}

// local items move files of this machine.
type local struct{ source, output string }

func (l local) names(beacon.WorkItem) (source, output string, err error) {
	if l.source != "" {
		source = filepath.Base(l.source)
		if staging.CheckName("source", source) != nil {
			source = defaultSourceName
		}
	}
	if l.output == "" {
		return source, "", nil
	}
	for _, name := range []string{filepath.Base(l.output), "output_file", "output_file_2"} {
		if staging.CheckName("output", name) == nil && name != source {
			return source, name, nil
		}
	}
	return "", "", beacon.Errorf(beacon.Internal, "no name for the output is left")
}

func (l local) stage(ctx context.Context, dir *staging.Dir, _ beacon.WorkItem, name string, _ func(beacon.Progress)) ([]string, error) {
	f, err := os.Open(l.source)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return nil, dir.Import(ctx, name, f)
}

func (l local) collect(_ context.Context, _ *staging.Dir, _ beacon.WorkItem, output *os.File, info fs.FileInfo, out beacon.Outputs) (string, error) {
	if err := deliver(output, l.output); err != nil {
		return "", err
	}
	out[outputName], out[outputSize] = filepath.Base(l.output), info.Size()
	return "", nil
}

// deliver moves a file to its place, which it takes all at once.
func deliver(f *os.File, to string) error {
	old, err := os.Lstat(to)
	if err == nil && !old.Mode().IsRegular() {
		// A pipe, a terminal or a link: written through, as a shell would.
		return writeThrough(f, to)
	}
	// The file that holds the place shows which permissions the user's new files
	// have.
	place := filepath.Join(filepath.Dir(to), ".beacon-"+rand.Text())
	temporary, err := os.OpenFile(place, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	mode := fs.FileMode(0)
	if old != nil {
		mode = old.Mode().Perm()
	} else if info, err := temporary.Stat(); err == nil {
		mode = info.Mode().Perm()
	}
	moved := mode != 0 && os.Chmod(f.Name(), mode) == nil && os.Rename(f.Name(), place) == nil
	if !moved { // another file system, or a system that moves no open file
		_, err = io.Copy(temporary, f)
		if mode != 0 {
			err = errors.Join(err, temporary.Chmod(mode))
		}
	}
	if err = errors.Join(err, temporary.Close()); err == nil {
		err = os.Rename(place, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", to, hostless(err)), os.Remove(place))
	}
	return nil
}

// hostless takes the paths out of an error: those of temporary files tell the
// user nothing.
func hostless(err error) error {
	var pe *fs.PathError
	var le *os.LinkError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case errors.As(err, &le):
		return le.Err
	}
	return err
}

func writeThrough(f *os.File, to string) error {
	w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|nonblock, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	_, err = io.Copy(w, f)
	if err := errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("write %s: %w", to, hostless(err))
	}
	return nil
}

// Size words a number of bytes as the Node worker does: 149 B, 97.7 KB.
func Size(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < 3 {
		v /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %cB", math.Round(v*10)/10, "KMGT"[unit])
}
