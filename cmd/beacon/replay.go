package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/origin"
	"github.com/ultravisor/beacon/policy"
	"github.com/ultravisor/beacon/replay"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

type replayOptions struct {
	streams
	module string
	// fuelProfile is the file to write; "" for none.
	fuelProfile string
	asJSON      bool
	quiet       bool
}

func newReplayCommand(s streams) *cobra.Command {
	o := &replayOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run a recorded item again: the same files, answers, clocks and random numbers",
		Long: `Run a recorded item again: with the same files, answers to requests and calls, clocks
and random numbers. Nothing leaves the machine. FILE is what "beacon exec --record", or
"beacon run --record" of an item that failed, has written.

The module is the one that was recorded, if it is still where it was; --module names
another place, or another version of it, to see whether a change helps.

--fuel-profile shows where the module's instructions went, by function, with the calls
that led there, and by source line where the module tells lines (DWARF). They are counted
exactly, which takes several times as long. What a module does to initialise itself is not
the item's, and not in it. The file is for "go tool pprof".

Exit codes are those of beacon exec.`,
		Example: `  beacon exec --module resize --source broken.png --record broken.replay.json
  beacon replay broken.replay.json
  beacon replay broken.replay.json --module ./resize
  beacon replay slow.replay.json --fuel-profile fuel.pprof; go tool pprof -top fuel.pprof`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("replay takes one file")
			}
			return o.run(cmd.Context(), args[0])
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.module, "module", "m", "", "the module: a .wasm file or a folder of source (default the one that was recorded)")
	f.StringVar(&o.fuelProfile, "fuel-profile", "", "file to write where the module's instructions went, for go tool pprof")
	f.BoolVar(&o.asJSON, "json", false, "print the whole result as JSON")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "print neither progress nor log")
	return cmd
}

func (o *replayOptions) run(ctx context.Context, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return usagef("recording %s: %w", path, unwrapPath(err))
	}
	r, err := replay.Read(f)
	f.Close()
	if err != nil {
		return usagef("recording %s: %w", path, err)
	}
	dirs, err := locate("")
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(o.err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	g, err := newGuard(&policy.Policy{}, dirs, log)
	if err != nil {
		return err
	}
	source := cmp.Or(o.module, r.Module.Source)
	from, err := g.bring(ctx, dirs, providerConfig{Source: source, direct: true})
	if err != nil {
		return err
	}
	if from.Digest != r.Module.SHA256 {
		if o.module == "" {
			return usagef("module %s has changed since the recording (sha256 %.12s, then %.12s): --module %s runs it all the same", source, from.Digest, r.Module.SHA256, source)
		}
		fmt.Fprintf(o.err, "beacon: this is another module than the one that was recorded (sha256 %.12s, then %.12s)\n", from.Digest, r.Module.SHA256)
	}
	flags := moduleFlags{}
	box, err := flags.sandbox(dirs, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, box.Close()) }()
	player := replay.NewPlayer(r)
	m, err := box.Runtime().Load(ctx, wasmrt.Source{
		Name: r.Module.Name, Binary: from.Binary, Config: r.Module.Config, Limits: wasmrt.Limits{Memory: r.Module.Memory, Fuel: r.Module.Fuel, Profile: o.fuelProfile != ""},
		Pool: wasmrt.Pool{Fresh: true, Ready: -1},
		Admit: func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(*beacon.Job) hostfuncs.Broker { return player }, nil
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
	bar := newBar(o.err, o.quiet || o.asJSON)
	started := time.Now()
	result, failure := player.Run(ctx, m, bar.update)
	bar.end()
	if o.fuelProfile != "" {
		if err := writeProfile(m, o.fuelProfile); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	took := time.Since(started)
	ended, err := replay.OutcomeOf(result, failure)
	if err != nil {
		return err
	}
	err = outcome{o.streams, o.asJSON, o.quiet, false}.show(result, failure, took)
	for _, text := range player.Diverged() {
		fmt.Fprintln(o.err, "beacon: not as recorded: "+beacon.Excerpt(text, 500))
	}
	if ended.Equal(r.Outcome) {
		fmt.Fprintln(o.err, "beacon: it ended as recorded")
	} else {
		for _, text := range differences(r.Outcome, ended) {
			fmt.Fprintln(o.err, "beacon: it ended otherwise than recorded: "+text)
		}
	}
	return err
}

// writeProfile writes where the fuel of a module's items went.
func writeProfile(m *wasmrt.Module, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return usagef("--fuel-profile %s: %w", path, unwrapPath(err))
	}
	if err := errors.Join(m.FuelProfile().Write(f), f.Close()); err != nil {
		return fmt.Errorf("--fuel-profile %s: %w", path, err)
	}
	return nil
}

// differences says in what two outcomes differ.
func differences(then, now replay.Outcome) (list []string) {
	failure := func(e *replay.Error) string {
		if e == nil {
			return "well"
		}
		return fmt.Sprintf("with %s: %s", e.Code, beacon.Excerpt(e.Message, 300))
	}
	if a, b := failure(then.Error), failure(now.Error); a != b {
		list = append(list, fmt.Sprintf("then %s, now %s", a, b))
	}
	names := slices.Sorted(maps.Keys(then.Outputs))
	for name := range now.Outputs {
		if _, ok := then.Outputs[name]; !ok {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if a, b := string(then.Outputs[name]), string(now.Outputs[name]); a != b {
			list = append(list, fmt.Sprintf("output %s was %s, and is %s", beacon.Excerpt(name, 80), beacon.Excerpt(cmp.Or(a, "not there"), 200), beacon.Excerpt(cmp.Or(b, "not there"), 200)))
		}
	}
	if !slices.Equal(then.Log, now.Log) {
		list = append(list, "the log is another")
	}
	return list
}

// record prepares a provider for being recorded.
func (p *providerConfig) record(wants func(beacon.Result, error) bool, keep func(*replay.Recording, error)) {
	p.Instances.Fresh = true // what an instance has brought along cannot be replayed
	p.recorder = &replay.Provider{Wants: wants, Keep: keep}
}

// recorded puts the recorder in the place of the module.
func (p providerConfig) recorded(m loaded) beacon.Provider {
	if p.recorder == nil {
		return m.Module
	}
	source := p.Source
	if origin.IsRemote(source) {
		source = origin.Redact(source)
	} else if abs, err := filepath.Abs(source); err == nil {
		source = abs
	}
	p.recorder.Provider = m.Module
	p.recorder.What.Beacon = version
	p.recorder.What.Module = replay.Module{
		Source: source, Name: m.Name(), SHA256: m.Digest(), Config: p.Config, Memory: int64(p.memory), Fuel: p.Fuel,
	}
	return p.recorder
}

// A recordConfig has items of modules recorded that fail.
type recordConfig struct {
	// Folder keeps the recordings, for beacon replay.
	Folder string
	// Count and Bytes bound them, the oldest go first; default 20 and "256M".
	Count int
	Bytes string
}

// open makes the folder.
func (c recordConfig) open() (*replay.Folder, error) {
	var size byteSize
	if c.Bytes != "" {
		if err := size.Set(c.Bytes); err != nil {
			return nil, fmt.Errorf("its Bytes: %w", err)
		}
	}
	return replay.OpenFolder(c.Folder, c.Count, int64(size))
}

// recordings keep items that failed.
type recordings struct {
	folder *replay.Folder
	log    *slog.Logger
}

func (r *recordings) keep(recording *replay.Recording, err error) {
	file := ""
	if err == nil {
		file, err = r.folder.Keep(recording)
	}
	if file != "" {
		r.log.Warn("an item failed, and was recorded for beacon replay", "item", recording.Item.Hash, "file", file)
	}
	if err != nil {
		r.log.Warn("recording an item that failed", "err", err)
	}
}
