package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/policy"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/staging"
	"github.com/ultravisor/beacon/submit"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
)

// Outcomes of a check.
const (
	checkOK   = "ok"
	checkWarn = "warn"
	checkFail = "fail"
)

// A finding is what a check has found.
type finding struct {
	Check   string
	Outcome string
	Text    string

	err error // of one that failed
}

// A doctor finds out whether beacon run would work.
type doctor struct {
	run      *runOptions
	asJSON   bool
	findings []finding
}

func newDoctorCommand(s streams) *cobra.Command {
	d := &doctor{run: &runOptions{streams: s}}
	cmd := newRunCommandOf(d.run)
	cmd.Use = "doctor [flags]"
	cmd.Short = "Find out whether a worker would work here: folders, sandbox, providers, server"
	cmd.Long = `Find out whether beacon run with the same flags, configuration and environment would
work here. Nothing is registered and no work is taken; modules are compiled, and one
item runs in the sandbox.

The exit code is that of the first check that failed; a warning is none.`
	cmd.Example = `  beacon doctor
  beacon doctor --config beacon.json --server https://ultravisor.example.com`
	cmd.Flags().BoolVar(&d.asJSON, "json", false, "print the findings as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return d.examine(cmd) }
	return cmd
}

// found notes a finding, and prints it.
func (d *doctor) found(check, outcome, text string, err error) {
	d.findings = append(d.findings, finding{check, outcome, text, err})
	if !d.asJSON {
		fmt.Fprintf(d.run.out, "%-5s %-13s %s\n", outcome, check, strings.ReplaceAll(text, "\n", "; "))
	}
}

// check runs one, and reports whether it has not failed.
func (d *doctor) check(name string, look func() (string, error)) bool {
	text, err := look()
	if err != nil {
		d.found(name, checkFail, err.Error(), err)
		return false
	}
	d.found(name, checkOK, text, nil)
	return true
}

func (d *doctor) examine(cmd *cobra.Command) error {
	ctx, o := cmd.Context(), d.run
	log := slog.New(slog.DiscardHandler)
	d.found("program", checkOK, fmt.Sprintf("beacon %s, %s/%s, %d processors", version, goruntime.GOOS, goruntime.GOARCH, goruntime.GOMAXPROCS(0)), nil)

	var rules *policy.Policy
	configured := d.check("configuration", func() (text string, err error) {
		if err := o.configure(cmd.Flags()); err != nil {
			return "", err
		}
		if rules, err = readPolicy(o.moduleFlags.policy, o.file); err != nil {
			return "", err
		}
		if o.secure, err = o.tls.config(); err != nil {
			return "", err
		}
		from := "no configuration file"
		if o.file.found {
			from = "configuration file in " + o.file.folder
		}
		return fmt.Sprintf("%s, providers: %d, tenants: %s", from, len(o.file.Providers), cmp.Or(strings.Join(rules.Tenants(), ", "), beacon.DefaultTenant)), nil
	})
	dirs, err := locate(o.staging)
	if err != nil {
		d.found("folders", checkFail, err.Error(), err)
		return d.conclude()
	}
	if d.check("folders", func() (string, error) { return d.folders(dirs) }) {
		d.sandboxed(ctx, dirs, log)
	}
	if !configured {
		return d.conclude()
	}
	if len(o.file.Providers) > 0 {
		d.check("providers", func() (string, error) { return d.providers(ctx, dirs, rules, log) })
	}
	d.server(ctx, log)
	return d.conclude()
}

// conclude prints what is still to be printed, and fails like the first check that
// did.
func (d *doctor) conclude() error {
	if d.asJSON {
		enc := json.NewEncoder(d.run.out)
		enc.SetIndent("", "  ")
		if err := enc.Encode(d.findings); err != nil {
			return fmt.Errorf("print the findings: %w", err)
		}
	}
	for _, f := range d.findings {
		if f.err != nil {
			return &coded{exitCode(f.err), errSaid}
		}
	}
	return nil
}

// folders writes into each folder that a worker needs.
func (d *doctor) folders(dirs folders) (string, error) {
	for _, dir := range []string{dirs.compiled, dirs.staging, dirs.outbox} {
		if err := writable(dir); err != nil {
			return "", usagef("%s cannot be written to: %w; choose others with BEACON_CACHE_DIR and --staging", dir, unwrapPath(err))
		}
	}
	return fmt.Sprintf("can be written to: %s, %s", filepath.Dir(dirs.compiled), dirs.staging), nil
}

func writable(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "doctor-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.WriteString("beacon")
	return errors.Join(err, f.Sync(), f.Close())
}

// smallest is a module that does nothing: a memory of one page, and _start.
func smallest() []byte {
	return []byte("\x00asm\x01\x00\x00\x00" +
		"\x01\x04\x01\x60\x00\x00" + // type: func
		"\x03\x02\x01\x00" +
		"\x05\x03\x01\x00\x01" +
		"\x07\x13\x02\x06memory\x02\x00\x06_start\x00\x00" +
		"\x0a\x04\x01\x02\x00\x0b")
}

// sandboxed runs items of the smallest module as a worker would.
func (d *doctor) sandboxed(ctx context.Context, dirs folders, log *slog.Logger) {
	var box *sandbox.Sandbox
	d.check("sandbox", func() (text string, err error) {
		if box, err = d.run.moduleFlags.sandbox(dirs, log); err != nil {
			return "", err
		}
		m, err := box.Load(ctx, wasmrt.Source{Name: "doctor", Binary: smallest()})
		if err != nil {
			return "", err
		}
		defer func() { err = errors.Join(err, m.Close(context.WithoutCancel(ctx))) }()
		first, next, err := d.times(ctx, dirs, m, log)
		return fmt.Sprintf("a module works in a process of its own: its first item took %s, another one %s", first.Round(100*time.Microsecond), next.Round(time.Microsecond)), err
	})
	if box == nil {
		return
	}
	report, err := box.Confinement(ctx)
	switch {
	case err != nil:
		d.found("confinement", checkFail, err.Error(), err)
	case report.Complete():
		d.found("confinement", checkOK, "the kernel keeps such processes from files, network, programs and memory that are not theirs", nil)
	default:
		d.found("confinement", checkWarn, "without "+strings.Join(report.Missing, "; ")+"; the first wall, the engine's, stands alone there", nil)
	}
	if err := box.Close(); err != nil {
		d.found("sandbox", checkFail, err.Error(), err)
	}
}

// times are those of a module's first item and of a later one.
func (d *doctor) times(ctx context.Context, dirs folders, m beacon.Provider, log *slog.Logger) (first, next time.Duration, err error) {
	store, err := staging.Open(dirs.staging)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	registry, err := beacon.NewRegistry(m)
	if err != nil {
		return 0, 0, err
	}
	download := staging.NewDownloader(staging.DownloadConfig{Log: log})
	defer download.CloseIdle()
	run := executor.New(registry, store, download, executor.Config{Log: log})
	const items = 10
	for n := range items {
		began := time.Now()
		item := beacon.WorkItem{Hash: fmt.Sprint("doctor-", n), Capability: m.Capability().Name, Timeout: time.Minute}
		result, err := run.RunLocal(ctx, item, "", "", nil)
		took := time.Since(began)
		switch {
		case err != nil:
			return 0, 0, err
		case result.ExitCode() != 0:
			return 0, 0, beacon.Errorf(beacon.Internal, "an item of a module that does nothing ends with %d", result.ExitCode())
		case n == 0:
			first = took
		case next == 0 || took < next:
			next = took
		}
	}
	return first, next, nil
}

// providers brings all of them to life.
func (d *doctor) providers(ctx context.Context, dirs folders, rules *policy.Policy, log *slog.Logger) (text string, err error) {
	o := d.run
	g, err := newGuard(rules, dirs, log)
	if err != nil {
		return "", err
	}
	defer g.close()
	if err := g.readLock(o.configPath); err != nil {
		return "", err
	}
	g.strict = len(o.modules) == 0
	if g.isolated, err = o.isolates(); err != nil {
		return "", err
	}
	all, closeAll, err := offers(ctx, o.file.Providers, func() (*sandbox.Sandbox, error) { return o.moduleFlags.sandbox(dirs, log) }, dirs, g, builtin.Host{Log: log})
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return "", err
	}
	if _, err := registryOf(all); err != nil {
		return "", err
	}
	tenants, err := newTenancy(rules, all, o.maxConcurrent)
	if err != nil {
		return "", err
	}
	tenants.scheduler.Close()
	var names []string
	for _, p := range all {
		names = append(names, beacon.Excerpt(p.Capability().Name, 80))
	}
	where := "in this process"
	if g.isolated {
		where = "in processes of their tenants"
	}
	return fmt.Sprintf("%s (modules work %s)", strings.Join(names, ", "), where), nil
}

// server finds out whether the one that the worker is to use lets it in.
func (d *doctor) server(ctx context.Context, log *slog.Logger) {
	o := d.run
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, beacon.Errorf(beacon.Unreachable, "no answer within 30s"))
	defer cancel()
	if urls := natsURLs(o.server); urls != nil {
		d.check("server", func() (string, error) {
			l, err := o.nats.join(ctx, urls, hub.Worker, log)
			if err != nil {
				return "", &coded{exitServer, err}
			}
			return "NATS at " + withoutPasswords(urls) + " has what hubs share", l.close()
		})
		return
	}
	server := o.server
	if server == "" {
		server = "http://" + o.listen
		client, err := submit.New(submit.Config{ServerURL: server})
		if err == nil {
			err = client.Status(ctx)
			client.CloseIdle()
		}
		if isRefused(err) {
			d.found("server", checkOK, "none is named, and none is at "+o.listen+": beacon run starts a hub of its own there", nil)
			return
		}
	}
	nothing, err := beacon.NewRegistry()
	if err != nil {
		d.found("server", checkFail, err.Error(), err)
		return
	}
	var said strings.Builder // by a login that is declined, and by nothing else
	cfg, err := o.session(server, nothing, slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{Level: slog.LevelWarn})))
	if err == nil {
		err = d.login(ctx, cfg)
	}
	switch {
	case err != nil:
		d.found("server", checkFail, server+": "+err.Error(), &coded{exitServer, err})
		return
	case said.Len() > 0:
		d.found("server", checkWarn, server+" answers, and does not log "+beacon.Excerpt(cmp.Or(cfg.UserName, o.name), 80)+" in: it asks nobody, or the user or the password is wrong", nil)
	default:
		d.found("server", checkOK, server+" answers, and lets "+beacon.Excerpt(cmp.Or(cfg.UserName, o.name), 80)+" in", nil)
	}
	if o.transport == "http" {
		return
	}
	if err := ws.Probe(cfg)(ctx); err != nil {
		if o.transport == "ws" {
			d.found("websocket", checkFail, err.Error(), &coded{exitServer, err})
			return
		}
		d.found("websocket", checkWarn, "work has to be asked for by HTTP: "+err.Error(), nil)
		return
	}
	d.found("websocket", checkOK, "the server can push work", nil)
}

func (d *doctor) login(ctx context.Context, cfg session.Config) error {
	client, err := session.NewClient(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Authenticate(ctx)
}
