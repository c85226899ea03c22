// Package filesystem is the provider of the capability FileSystem: it reads and
// writes files of the worker's machine on behalf of items, within the folders
// that its configuration allows.
package filesystem

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ultravisor/beacon"
)

// DefaultMaxFileSize is the Node worker's.
const DefaultMaxFileSize = 100 << 20

// Config is the provider's part of a configuration. The zero value works, and
// allows all that the worker's user may do.
type Config struct {
	// AllowedPaths are the folders, or single files, that items may name; none
	// means everything. A folder is a boundary: neither "..", nor a link, nor a
	// race leads out of it.
	AllowedPaths []string
	// MaxFileSizeBytes bounds what is read and written at a time; 0 means 100 MiB.
	MaxFileSizeBytes int64
	// Actions are the actions on offer; none means Read, Write, List and Copy.
	// There are also Stat, Hash, Move, MakeDirectory and Delete.
	Actions []string
	// Folder is what relative paths are relative to; "" means the working
	// directory.
	Folder string `json:"-"`
}

// A Provider works on files. It is safe for concurrent use.
type Provider struct {
	cfg     Config
	folder  string
	bounds  []bound // nil allows everything
	actions []action
}

// An action is one that a provider may offer.
type action struct {
	beacon.Action
	run func(p *Provider, ctx context.Context, job *beacon.Job) (done, error)
}

// usual is how many of the actions are on offer unless a configuration says
// something else.
const usual = 4

func actions() []action {
	text := func(name, description string, required bool) beacon.Setting {
		return beacon.Setting{Name: name, DataType: "String", Required: required, Description: description}
	}
	encoding := beacon.Setting{Name: "Encoding", DataType: "String", Default: "utf8", Description: "utf8, base64, base64url, hex, latin1, ascii or utf16le"}
	return []action{
		{beacon.Action{Name: "Read", Description: "Read a file from disk.", Settings: []beacon.Setting{
			text("FilePath", "Path to the file to read", true), encoding,
		}}, (*Provider).read},
		{beacon.Action{Name: "Write", Description: "Write content to a file on disk.", Settings: []beacon.Setting{
			text("FilePath", "Path to the output file", true), text("Content", "Content to write", true), encoding,
		}}, (*Provider).write},
		{beacon.Action{Name: "List", Description: "List files in a directory.", Settings: []beacon.Setting{
			text("Folder", "Directory path to list", true), text("Pattern", "Glob-style pattern filter (e.g. *.txt, or **/*.txt for all folders below)", false),
		}}, (*Provider).list},
		{beacon.Action{Name: "Copy", Description: "Copy a file from source to target.", Settings: []beacon.Setting{
			text("Source", "Source file path", true), text("TargetFile", "Target file path", true),
		}}, (*Provider).copy},
		{beacon.Action{Name: "Stat", Description: "Describe a file or directory, as JSON.", Settings: []beacon.Setting{
			text("FilePath", "Path to describe", true),
		}}, (*Provider).stat},
		{beacon.Action{Name: "Hash", Description: "Compute the digest of a file.", Settings: []beacon.Setting{
			text("FilePath", "Path to the file", true),
			{Name: "Algorithm", DataType: "String", Default: "sha256", Description: "sha256, sha512, sha1 or md5"},
		}}, (*Provider).hash},
		{beacon.Action{Name: "Move", Description: "Move a file or directory.", Settings: []beacon.Setting{
			text("Source", "Path to move", true), text("TargetFile", "Where it goes", true),
		}}, (*Provider).move},
		{beacon.Action{Name: "MakeDirectory", Description: "Make a directory, and those above it.", Settings: []beacon.Setting{
			text("Folder", "Directory path to make", true),
		}}, (*Provider).makeDirectory},
		{beacon.Action{Name: "Delete", Description: "Delete a file or an empty directory.", Settings: []beacon.Setting{
			text("FilePath", "Path to delete", true),
			{Name: "Recursive", DataType: "Boolean", Description: "Delete a directory with all that is in it"},
		}}, (*Provider).delete},
	}
}

// New makes the provider. A folder that is not there is an error: it would have
// to be a boundary.
func New(cfg Config) (*Provider, error) {
	if cfg.MaxFileSizeBytes < 0 {
		return nil, beacon.Errorf(beacon.Invalid, "MaxFileSizeBytes is below zero")
	}
	cfg.MaxFileSizeBytes = cmp.Or(cfg.MaxFileSizeBytes, DefaultMaxFileSize)
	p := &Provider{cfg: cfg, actions: actions()[:usual]}
	if len(cfg.Actions) > 0 {
		p.actions = nil
		for _, name := range cfg.Actions {
			i := slices.IndexFunc(actions(), func(a action) bool { return a.Name == name })
			if i < 0 {
				return nil, beacon.Errorf(beacon.Invalid, "in Actions, there is no action %q", beacon.Excerpt(name, 80))
			}
			p.actions = append(p.actions, actions()[i])
		}
	}
	var err error
	if p.folder, err = filepath.Abs(cfg.Folder); err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "find the working directory: %w", err)
	}
	for _, path := range cfg.AllowedPaths {
		if path == "" {
			return nil, beacon.Errorf(beacon.Invalid, "an entry of AllowedPaths is empty")
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(p.folder, path)
		}
		b, err := newBound(path)
		if err != nil {
			return nil, errors.Join(beacon.Errorf(beacon.Invalid, "in AllowedPaths, %s: %w", path, pathless(err)), p.Shutdown(context.Background()))
		}
		p.bounds = append(p.bounds, b)
	}
	return p, nil
}

// Shutdown implements beacon.Shutdowner.
func (p *Provider) Shutdown(context.Context) error {
	var err error
	for _, b := range p.bounds {
		err = errors.Join(err, b.root.Close())
	}
	return err
}

// Capability implements beacon.Provider.
func (p *Provider) Capability() beacon.Capability {
	c := beacon.Capability{Name: "FileSystem", Description: "Works on files of the worker's machine."}
	for _, a := range p.actions {
		c.Actions = append(c.Actions, a.Action)
	}
	return c
}

// OutputResultBase64 is the output that holds what was read if it is not text.
const OutputResultBase64 = "ResultBase64"

// done is what an action has to say: for people, for the log, and for whoever
// goes on with the result.
type done struct {
	text, log string
	result    string
	more      beacon.Outputs
}

// A refusal is a request that is not carried out.
type refusal struct{ text, log string }

func (r *refusal) Error() string { return r.text }

// A failure is a request that did not work. Both are results for people.
type failure struct {
	path string // for the log, if it names one
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// Run implements beacon.Provider. What cannot be done is a result with a
// non-zero ExitCode: -1 for what is missing or not allowed, 1 for what the
// system refuses.
func (p *Provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	i := slices.IndexFunc(p.actions, func(a action) bool { return a.Name == job.Item.Action })
	if i < 0 {
		name := beacon.Excerpt(job.Item.Action, 80)
		return beacon.Failure("Unknown FileSystem action: "+name, "FileSystem Provider: unsupported action ["+name+"]."), nil
	}
	if err := context.Cause(ctx); err != nil {
		return beacon.Result{}, err
	}
	a := p.actions[i]
	d, err := a.run(p, ctx, job)
	var refused *refusal
	var failed *failure
	switch {
	case ctx.Err() != nil && err != nil:
		return beacon.Result{}, context.Cause(ctx)
	case errors.As(err, &refused):
		return beacon.Failure(refused.text, fmt.Sprintf("FileSystem %s: %s", a.Name, refused.log)), nil
	case errors.As(err, &failed):
		r := beacon.Failure(a.Name+" failed: "+failed.Error(), fmt.Sprintf("FileSystem %s: failed%s: %s", a.Name, failed.path, failed.Error()))
		r.Outputs[beacon.OutputExitCode] = 1
		return r, nil
	case err != nil:
		return beacon.Result{}, err
	}
	out := beacon.Outputs{beacon.OutputStdOut: d.text, beacon.OutputExitCode: 0, beacon.OutputResult: d.result}
	for name, value := range d.more {
		out[name] = value
	}
	return beacon.Result{Outputs: out, Log: []string{fmt.Sprintf("FileSystem %s: %s", a.Name, d.log)}}, nil
}

// said makes what most actions say: the same for people and for the log.
func said(result, format string, args ...any) done {
	text := fmt.Sprintf(format, args...)
	return done{text: text, log: lower(text), result: result}
}

// lower begins a line of the log as the Node worker does.
func lower(text string) string {
	if text == "" || text[0] < 'A' || text[0] > 'Z' {
		return text
	}
	return string(text[0]+'a'-'A') + text[1:]
}

// required reads settings that an action cannot do without.
func required(job *beacon.Job, names ...string) ([]string, error) {
	values := make([]string, len(names))
	for i, name := range names {
		values[i] = job.Item.Settings.Text(name)
		if values[i] == "" {
			if len(names) > 1 {
				text := fmt.Sprintf("%s and %s are required.", names[0], names[1])
				return nil, &refusal{text, text}
			}
			return nil, &refusal{"No " + name + " specified.", "no " + name + " specified."}
		}
	}
	return values, nil
}

// fileInfo opens what is to be a regular file, without waiting for the other end
// of a pipe.
func openFile(p *place) (*os.File, os.FileInfo, error) {
	f, err := p.tree.OpenFile(p.name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, nil, p.failed("open", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errNotRegular
		if info.IsDir() {
			err = errDirectory
		}
	}
	if err != nil {
		_ = f.Close() // nothing was read
		return nil, nil, p.failed("read", err)
	}
	return f, info, nil
}
