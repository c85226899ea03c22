package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/golden"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/staging"
)

type testOptions struct {
	streams
	cases  string
	update bool
	junit  string
	match  string
	bound  moduleFlags
}

func newTestCommand(s streams) *cobra.Command {
	o := &testOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "test [FOLDER | MODULE]",
		Short: "Run a provider's cases in the sandbox, and compare what comes out",
		Long: `Run a provider's cases in the sandbox, and compare what comes out. The provider is a
folder of source, which is built first, or a .wasm file; the cases are the files
testdata/*` + golden.Suffix + ` beside it:

  {
    "Action": "Number", "Settings": {"First": "7"},
    "Source": "lines.txt", "Output": "numbered.txt",
    "Want": {
      "Outputs": {"Lines": 3},
      "Files": {"numbered.txt": "lines.want.txt"}
    }
  }

Want may have Outputs and Matches (regular expressions), Files, Log, Progress, Error
(Code, and a part of the Message) and Fuel, the instructions that the item may take.
What it does not mention may be anything, but the item must not fail. Requests and Calls
of a case answer what the provider asks for; nothing leaves the machine.

Exit codes: 0 all is as expected, 1 something is not, 2 usage or a case that is wrong.`,
		Example: `  beacon test
  beacon test hello --run greet --update
  beacon test resize.wasm --cases cases --junit report.xml`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usagef("test takes one folder or module")
			}
			return o.run(cmd.Context(), cmp.Or(strings.Join(args, ""), "."))
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.update, "update", "u", false, "write down what comes out as what is expected")
	f.StringVar(&o.match, "run", "", "run only the cases whose name matches this regular expression")
	f.StringVar(&o.cases, "cases", "", "the folder with the cases (default testdata beside the provider)")
	f.StringVar(&o.junit, "junit", "", "write a report in JUnit's format to this file")
	f.Var(&o.bound.memory, "memory", "memory that the module may use (default 256M)")
	return cmd
}

func (o *testOptions) run(ctx context.Context, source string) (err error) {
	var chosen *regexp.Regexp
	if chosen, err = regexp.Compile(o.match); err != nil {
		return usagef("--run: %w", err)
	}
	info, err := os.Stat(source)
	if err != nil {
		return usagef("provider %s: %w", source, unwrapPath(err))
	}
	folder := source
	if !info.IsDir() {
		folder = filepath.Dir(source)
	}
	o.cases = cmp.Or(o.cases, filepath.Join(folder, "testdata"))
	all, err := golden.Read(o.cases)
	if err != nil {
		return usage(err)
	}
	var cases []*golden.Case
	for _, c := range all {
		if chosen.MatchString(c.Name) {
			cases = append(cases, c)
		}
	}
	if len(cases) == 0 {
		return usagef("there are no cases to run: no file %s%s", filepath.Join(o.cases, "*"+golden.Suffix), map[bool]string{true: " matches --run"}[len(all) > 0])
	}
	bench, err := o.open(ctx, source)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bench.close(ctx)) }()
	return o.judge(ctx, bench, cases)
}

// judge runs the cases and says what came of them.
func (o *testOptions) judge(ctx context.Context, b *bench, cases []*golden.Case) error {
	var reports []golden.Report
	failed, updated := 0, 0
	for _, c := range cases {
		got, err := b.try(ctx, c)
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r := golden.Report{Name: c.Name, Took: got.Took}
		if o.update {
			changed, err := c.Update(got)
			if err != nil {
				return fmt.Errorf("case %s: %w", c.Name, err)
			}
			if changed {
				updated++
				fmt.Fprintf(o.out, "wrote %s\n", c.Name)
			}
		}
		r.Differences = c.Compare(got)
		reports = append(reports, r)
		verdict := "ok  "
		if len(r.Differences) > 0 {
			verdict = "FAIL"
			failed++
		}
		spent := ""
		if c.Want.Fuel > 0 {
			spent = fmt.Sprintf(", %d units of fuel", got.Fuel)
		}
		fmt.Fprintf(o.out, "%s  %s  (%.3g ms%s)\n", verdict, c.Name, float64(got.Took.Microseconds())/1000, spent)
		for _, d := range r.Differences {
			fmt.Fprintln(o.out, "      "+strings.ReplaceAll(d, "\n", "\n      "))
		}
	}
	if o.junit != "" {
		var report bytes.Buffer
		if err := golden.WriteJUnit(&report, b.name, reports); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
		if err := os.WriteFile(o.junit, report.Bytes(), 0o666); err != nil { //nolint:gosec // a file of the user's, by their umask
			return usagef("--junit %s: %w", o.junit, unwrapPath(err))
		}
	}
	if failed > 0 {
		return &coded{exitFailed, fmt.Errorf("%d of %d cases are not as expected", failed, len(cases))}
	}
	fmt.Fprintf(o.out, "%s: %d cases are as expected\n", b.name, len(cases))
	return nil
}

// A bench runs a provider's cases one after the other.
type bench struct {
	name     string
	memory   byteSize
	sandbox  *sandbox.Sandbox
	store    *staging.Store
	download *staging.Downloader
	log      *slog.Logger
	from     brought
	modules  map[string]*wasmrt.Module // by what they are loaded with

	standIn *golden.StandIn // of the case that runs
}

func (o *testOptions) open(ctx context.Context, source string) (*bench, error) {
	dirs, err := locate("")
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	g, err := newGuard(&policy.Policy{}, dirs, log)
	if err != nil {
		return nil, err
	}
	if _, err := o.bound.settings(); err != nil {
		return nil, err
	}
	from, err := g.bring(ctx, dirs, providerConfig{Source: source, direct: true})
	if err != nil {
		return nil, err
	}
	store, err := staging.Open(dirs.staging)
	if err != nil {
		return nil, usage(err)
	}
	box, err := o.bound.sandbox(dirs, log)
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return &bench{
		name: from.Name, memory: o.bound.memory, sandbox: box, store: store,
		download: staging.NewDownloader(staging.DownloadConfig{Log: log}), log: log, from: from, modules: map[string]*wasmrt.Module{},
	}, nil
}

func (b *bench) close(ctx context.Context) error {
	b.download.CloseIdle()
	err := b.store.Close()
	for _, m := range b.modules {
		err = errors.Join(err, m.Close(context.WithoutCancel(ctx)))
	}
	return errors.Join(err, b.sandbox.Close())
}

// module loads the provider as the case wants it: with its configuration, and
// with its instructions counted exactly if there is a budget.
func (b *bench) module(ctx context.Context, c *golden.Case) (*wasmrt.Module, error) {
	raw, err := json.Marshal(c.Config)
	if err != nil {
		return nil, fmt.Errorf("case %s: Config: %w", c.Name, err)
	}
	key := fmt.Sprintf("%t %s", c.Want.Fuel > 0, raw)
	if m := b.modules[key]; m != nil {
		return m, nil
	}
	limits := wasmrt.Limits{Memory: int64(b.memory)}
	if c.Want.Fuel > 0 {
		limits.Fuel = math.MaxInt64 / 2 // it is only counted
	}
	m, err := b.sandbox.Runtime().Load(ctx, wasmrt.Source{
		Name: b.from.Name, Binary: b.from.Binary, Config: c.Config, Limits: limits,
		Admit: func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(*beacon.Job) hostfuncs.Broker { return b.standIn }, nil
		},
	})
	if err != nil {
		return nil, err
	}
	b.modules[key] = m
	return m, nil
}

// try runs a case. An error means that it could not be tried.
func (b *bench) try(ctx context.Context, c *golden.Case) (golden.Got, error) {
	m, err := b.module(ctx, c)
	if err != nil {
		return golden.Got{}, err
	}
	texts := []string{policy.Wanted}
	if c.Permissions != nil {
		texts = *c.Permissions
	}
	grants, err := policy.ParseGrants(texts)
	if err != nil {
		return golden.Got{}, usagef("case %s: %w", c.Name, err)
	}
	b.standIn = golden.NewStandIn(c, grants.Resolve(parsed(wants(m.Manifest()))))

	watched := &watched{Module: m, test: c, files: map[string][]byte{}}
	registry, err := beacon.NewRegistry(watched)
	if err != nil {
		return golden.Got{}, err
	}
	capability := m.Capability().Name
	if _, _, err := registry.Resolve(capability, c.Action); err != nil {
		return golden.Got{}, usagef("case %s: %w", c.Name, err)
	}
	var record executor.Record
	run := executor.New(registry, b.store, b.download, executor.Config{Log: b.log, OnEnd: func(r executor.Record) { record = r }})
	item := beacon.WorkItem{
		Hash: "test-" + c.Name, Capability: capability, Action: c.Action, Settings: c.Settings, Timeout: c.Limit(), Attempt: 1,
	}
	if item.Settings == nil {
		item.Settings = beacon.Settings{}
	}
	source, output := "", ""
	if c.Source != "" {
		source = c.Path(c.Source)
	}
	var got golden.Got
	if c.Output != "" {
		folder, err := os.MkdirTemp("", "beacon-test-")
		if err != nil {
			return got, fmt.Errorf("make a folder for the output: %w", err)
		}
		defer os.RemoveAll(folder)
		output = filepath.Join(folder, path.Base(c.Output))
	}
	var reports sync.Mutex
	got.Result, got.Err = run.RunLocal(ctx, item, source, output, func(p beacon.Progress) {
		reports.Lock()
		defer reports.Unlock()
		if !onlyLog(p) {
			got.Progress = append(got.Progress, p)
		}
	})
	if watched.err != nil {
		return got, fmt.Errorf("case %s: %w", c.Name, watched.err)
	}
	got.Files, got.Took = watched.files, watched.took
	got.Fuel, got.Asked = record.Statement.Usage.Fuel, b.standIn.Asked()
	return got, nil
}

// onlyLog reports whether a message brings nothing but log lines, which come with
// the result again.
func onlyLog(p beacon.Progress) bool {
	return !p.HasPercent && p.Message == "" && p.Step == 0 && p.TotalSteps == 0
}

// watched is a module that is given more files, and whose directory is looked at
// when its item has ended.
type watched struct {
	*wasmrt.Module
	test  *golden.Case
	files map[string][]byte
	took  time.Duration
	err   error
}

func (w *watched) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	for inside, name := range sorted(w.test.Files) {
		if w.err = put(job.Dir, inside, w.test.Path(name)); w.err != nil {
			return beacon.Result{}, w.err
		}
	}
	started := time.Now()
	result, err := w.Module.Run(ctx, job)
	w.took = time.Since(started)
	for _, name := range w.test.Wanted() {
		f, openErr := job.Dir.Open(filepath.FromSlash(name))
		if errors.Is(openErr, fs.ErrNotExist) {
			continue
		}
		if openErr != nil {
			w.err = fmt.Errorf("look at the file %s: %w", name, unwrapPath(openErr))
			break
		}
		content, readErr := io.ReadAll(io.LimitReader(f, golden.MaxFile+1))
		f.Close()
		if readErr == nil && len(content) > golden.MaxFile {
			readErr = fmt.Errorf("more than %d bytes, which are too many to compare", golden.MaxFile)
		}
		if readErr != nil {
			w.err = fmt.Errorf("look at the file %s: %w", name, unwrapPath(readErr))
			break
		}
		w.files[name] = content
	}
	return result, err
}

// put copies a file into an item's directory.
func put(dir *os.Root, inside, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("file %s: %w", from, unwrapPath(err))
	}
	if err := dir.MkdirAll(path.Dir(inside), 0o700); err != nil {
		return fmt.Errorf("stage %s: %w", inside, unwrapPath(err))
	}
	if err := dir.WriteFile(filepath.FromSlash(inside), content, 0o600); err != nil {
		return fmt.Errorf("stage %s: %w", inside, unwrapPath(err))
	}
	return nil
}
