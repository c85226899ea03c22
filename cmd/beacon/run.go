package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/audit"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/monitor"
	"github.com/ultravisor/beacon/protocol"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
	"github.com/ultravisor/beacon/staging"
	"github.com/ultravisor/beacon/submit"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/fallback"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
	"github.com/ultravisor/beacon/worker/outbox"
)

type runOptions struct {
	streams
	modules       []string
	capabilities  []string
	moduleFlags   moduleFlags
	server        string
	listen        string
	name          string
	maxConcurrent int
	waiting       int // items, besides
	staging       string
	user          string
	password      string
	joinSecret    string
	pollInterval  interval
	tls           tlsFlags
	nats          natsFlags
	secure        *tls.Config
	transport     string
	drain         time.Duration
	wait          bool
	once          bool
	exitIdle      time.Duration
	maxUptime     time.Duration
	isolation     string
	verbose       bool
	logFormat     string
	metrics       string // address
	figures       *monitor.Worker
	record        string // folder for items that fail
	dev           string // folder of the first module, which is watched
	configPath    string
	file          config
}

func newRunCommand(s streams) *cobra.Command {
	return newRunCommandOf(&runOptions{streams: s})
}

func newRunCommandOf(o *runOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "run [--module MODULE] [--capabilities NAME,...] [flags]",
		Short: "Run a worker: connect to a server and carry out its work items",
		Long: `Run a worker: connect to a server and carry out its work items.

MODULE is a .wasm file, or the folder of a provider's source, which is built first;
the flag may be repeated. NAME is a provider that is built in: ` + strings.Join(builtin.Names(), ", ") + `.
What is not said here comes from the configuration file; a file, or a call with
--server, that names no provider means Shell, as for the Node worker. Without --server the worker uses the server that answers on
` + defaultListen + `, or starts a hub of its own there, which ends with the worker.

The first SIGINT or SIGTERM stops taking work and lets running items finish, the
second cancels them. Results that the server has not confirmed are kept, and
delivered at the next start.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.configure(cmd.Flags()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.configPath, "config", "f", "", "configuration file (default "+configName+", if there is one)")
	f.StringArrayVarP(&o.modules, "module", "m", nil, "a provider: a .wasm file or a folder of source; may be repeated")
	f.StringSliceVar(&o.capabilities, "capabilities", nil, "built-in providers to offer: "+strings.Join(builtin.Names(), ", "))
	f.StringVarP(&o.server, "server", "s", "", "the server's URL, or those of a NATS cluster that hubs share (nats://a,nats://b), also BEACON_SERVER")
	f.StringVar(&o.listen, "listen", defaultListen, "without --server: where to look for a server, or else start a hub")
	f.StringVar(&o.name, "name", "beacon-worker", "the worker's name, also BEACON_NAME")
	f.IntVar(&o.maxConcurrent, "max-concurrent", 1, "how many items may run at once")
	f.StringVar(&o.staging, "staging", "", "folder for the files of work items, also BEACON_STAGING_PATH")
	f.StringVar(&o.staging, "staging-path", "", "the same, as the Node worker calls it")
	f.StringVar(&o.user, "user", "", "who logs in, also BEACON_USER_NAME (default the name)")
	f.StringVar(&o.password, "password", "", "the password; better BEACON_PASSWORD, $NAME for another variable, or file:PATH")
	f.StringVar(&o.joinSecret, "join-secret", "", "for servers that admit only workers that know it; better BEACON_JOIN_SECRET, $NAME or file:PATH")
	f.Var(&o.pollInterval, "poll-interval", "how often to ask for work while there is none: 5s, or in milliseconds")
	o.tls.register(f)
	o.nats.register(f)
	f.StringVar(&o.transport, "transport", "auto", "how to connect: auto, ws or http")
	f.DurationVar(&o.drain, "drain-timeout", worker.DefaultDrainTimeout, "how long running items may go on after a signal")
	f.BoolVar(&o.wait, "wait", false, "keep trying if the server is not there at the start")
	f.BoolVar(&o.once, "once", false, "carry out one item, then end")
	f.DurationVar(&o.exitIdle, "exit-idle", 0, "end when there was nothing to do for so long")
	f.DurationVar(&o.maxUptime, "max-uptime", 0, "after this time take no more, finish, and end")
	f.StringVar(&o.isolation, "isolation", "auto", "where modules work: process is one for each tenant, which the kernel confines, none is this process, auto is process on Linux, except with --record and in beacon dev")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every item")
	f.StringVar(&o.logFormat, "log-format", "text", "how to log: text or json")
	f.StringVar(&o.metrics, "metrics-listen", "", "address, such as 127.0.0.1:9464, for /healthz, /readyz and Prometheus' /metrics; whoever can reach it can read")
	f.StringVar(&o.record, "record", "", "write items of modules that fail to this folder, for beacon replay; every item then initialises its module itself, which is slower")
	o.moduleFlags.register(f)
	return cmd
}

// configure puts together what is said where: a flag counts before the
// environment, that before the file, and that before a default.
func (o *runOptions) configure(flags *pflag.FlagSet) (err error) {
	if o.file, err = readConfig(o.configPath); err != nil {
		return err
	}
	choose := func(flag string, into *string, environment, file string) {
		if !flags.Changed(flag) {
			*into = cmp.Or(os.Getenv(environment), file, *into)
		}
	}
	choose("server", &o.server, "BEACON_SERVER", o.file.ServerURL)
	choose("name", &o.name, "BEACON_NAME", o.file.Name)
	if !flags.Changed("staging-path") {
		choose("staging", &o.staging, "BEACON_STAGING_PATH", o.file.StagingPath)
	}
	choose("user", &o.user, "BEACON_USER_NAME", o.file.UserName)
	choose("password", &o.password, "BEACON_PASSWORD", o.file.Password)
	choose("join-secret", &o.joinSecret, "BEACON_JOIN_SECRET", o.file.JoinSecret)
	choose("metrics-listen", &o.metrics, "BEACON_METRICS_LISTEN", o.file.MetricsListen)
	for _, s := range []struct {
		flag  string
		value *string
	}{{"password", &o.password}, {"join-secret", &o.joinSecret}} {
		if !flags.Changed(s.flag) {
			continue
		}
		if *s.value, err = secret(*s.value); err != nil {
			return usagef("--%s: %w", s.flag, err)
		}
	}
	if !flags.Changed("poll-interval") {
		o.pollInterval = interval(milliseconds(o.file.PollIntervalMs))
	}
	o.tls.choose(flags, o.file)
	if o.file.MaxConcurrent > 0 && !flags.Changed("max-concurrent") {
		o.maxConcurrent = o.file.MaxConcurrent
	}
	if o.file.DrainTimeoutMs > 0 && !flags.Changed("drain-timeout") {
		o.drain = milliseconds(o.file.DrainTimeoutMs)
	}
	if o.file.ForceHTTPTransport && !flags.Changed("transport") {
		o.transport = "http"
	}

	// Providers on the command line replace those of the file.
	settings, err := o.moduleFlags.settings()
	if err != nil {
		return err
	}
	known := o.file.Providers
	for _, name := range o.capabilities {
		if !builtin.Is(name) && !slices.ContainsFunc(known, func(p providerConfig) bool { return p.Source == name }) {
			return usagef("--capabilities %s: built in are %s; a module is named by --module", beacon.Excerpt(name, 80), strings.Join(builtin.Names(), ", "))
		}
	}
	switch {
	case len(o.capabilities) > 0 || len(o.modules) == 0 && (o.file.found || o.server != ""):
		o.file.capable(o.capabilities)
	case len(o.modules) > 0:
		o.file.Providers = nil
	}
	for _, path := range o.modules {
		p := providerConfig{Source: path, Config: settings}
		// What the file says about one of them still counts.
		if i := slices.IndexFunc(known, func(k providerConfig) bool { return k.Source == path }); i >= 0 {
			p = known[i]
			if settings != nil {
				p.Config = settings
			}
		}
		p.Permissions, p.direct = append(p.Permissions, o.moduleFlags.grants...), true
		o.file.Providers = append(o.file.Providers, p)
	}
	if len(o.modules) == 0 && len(o.moduleFlags.grants) > 0 {
		return usagef("--grant goes with --module: the configuration's providers have their Permissions")
	}
	if o.file.GuestMemory != "" && !flags.Changed("guest-memory") {
		if err := o.moduleFlags.all.Set(o.file.GuestMemory); err != nil {
			return usagef("GuestMemory: %w", err)
		}
	}
	for i := range o.file.Providers {
		p := &o.file.Providers[i]
		if err := p.size(o.moduleFlags.memory); err != nil {
			return err
		}
		if p.Fuel < 0 {
			return usagef("provider %s: Fuel %d: want a number of instructions", p.Source, p.Fuel)
		}
		if p.Fuel == 0 || flags.Changed("fuel") {
			p.Fuel = o.moduleFlags.fuel
		}
	}
	return nil
}

// checkAddress finds out whether somebody could listen there, as far as it can be
// seen.
func checkAddress(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return err
}

// settleTime is from the first registration until what a worker does for the first
// time, and most of that only once, is done.
const settleTime = time.Second

func (o *runOptions) run(ctx context.Context) (err error) {
	switch {
	case len(o.file.Providers) == 0:
		return errNothing()
	case o.maxConcurrent < 1:
		return usagef("--max-concurrent %d: want at least 1", o.maxConcurrent)
	case o.exitIdle < 0 || o.maxUptime < 0:
		return usagef("--exit-idle and --max-uptime want a time above zero, such as 10m")
	case o.transport != "auto" && o.transport != "ws" && o.transport != "http":
		return usagef("--transport %q: want auto, ws or http", o.transport)
	}
	for flag, address := range map[string]string{"listen": o.listen, "metrics-listen": o.metrics} {
		if err := checkAddress(address); address != "" && err != nil {
			return usagef("--%s %q: want an address and a port, such as %s", flag, beacon.Excerpt(address, 100), defaultListen)
		}
	}
	isolated, err := o.isolates()
	if err != nil {
		return err
	}
	if o.secure, err = o.tls.config(); err != nil {
		return err
	}
	dirs, err := locate(o.staging)
	if err != nil {
		return err
	}
	if o.server != "" && natsURLs(o.server) == nil {
		if u, err := url.Parse(o.server); err != nil || u.Host == "" || !slices.Contains([]string{"http", "https", "ws", "wss"}, u.Scheme) {
			return usagef("--server %q is not a URL such as http://%s", beacon.Excerpt(o.server, 100), defaultListen)
		}
	}
	level := new(slog.LevelVar)
	level.Set(slog.LevelWarn)
	if o.verbose {
		level.Set(slog.LevelDebug) // that of the start and the end of an item
	}
	log, err := newLog(o.err, level, o.logFormat)
	if err != nil {
		return err
	}

	rules, err := readPolicy(o.moduleFlags.policy, o.file)
	if err != nil {
		return err
	}
	g, err := newGuard(rules, dirs, log)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.readLock(o.configPath); err != nil {
		return err
	}
	g.strict, g.serving, g.isolated = len(o.modules) == 0, true, isolated
	shares := 1
	if rules.Shared() {
		shares = o.maxConcurrent
	}
	var store *staging.Store // once modules are loaded
	if o.file.AuditLog != "" {
		if g.audit, err = audit.Open(o.file.AuditLog, log); err != nil {
			return usage(err)
		}
		defer func() { err = errors.Join(err, g.audit.Close()) }()
	}
	if err := o.recordFailures(log); err != nil {
		return err
	}
	var rt *wasmrt.Runtime
	openSandbox := func() (*sandbox.Sandbox, error) {
		box, err := o.moduleFlags.sandboxOf(dirs, log, shares, func(tenant string) (string, func() error, error) { return store.Folder(tenant) })
		if err == nil {
			rt = box.Runtime()
		}
		return box, err
	}
	all, closeAll, err := offers(ctx, o.file.Providers, openSandbox, dirs, g,
		builtin.Host{Owner: true, Folder: o.staging, DailyBudget: dailyBudget(rules), Log: log})
	defer func() { err = errors.Join(err, closeAll()) }()
	if err != nil {
		return err
	}
	if o.dev != "" {
		stop := o.develop(ctx, all, rt, dirs, g)
		defer func() { err = errors.Join(err, stop()) }()
	}
	registry, err := registryOf(all)
	if err != nil {
		return err
	}
	tenants, err := newTenancy(rules, all, o.maxConcurrent)
	if err != nil {
		return err
	}
	defer tenants.scheduler.Close()
	o.waiting = o.file.waiting(rules, o.maxConcurrent)
	if store, err = staging.Open(dirs.staging); err != nil {
		return usage(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if g.isolated {
		store.Separate()
		if !rules.Shared() {
			defer o.warm(ctx, all, log)()
		}
	}

	server, embedded, err := o.findServer(ctx, log)
	if err != nil {
		return err
	}
	if embedded != nil {
		defer func() { err = errors.Join(err, embedded.close()) }()
	}
	at, direct := server, natsURLs(o.server) != nil
	if direct {
		at = withoutPasswords(natsURLs(o.server)) // the hub's own address is another each time
	}
	results, err := o.openOutbox(dirs, at, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, results.Close()) }()
	if o.metrics != "" {
		o.figures = monitor.NewWorker(version, o.maxConcurrent, results.Len)
		tenants.figures = o.figures
		told, err := tell(ctx, o.out, o.metrics, o.figures.Handler(log), log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, told.Close()) }()
	}
	if err := registry.Initialize(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, registry.Shutdown(context.WithoutCancel(ctx))) }()
	o.announce(at, embedded != nil && !direct, all)
	if embedded != nil && !direct {
		fmt.Fprintf(o.out, "beacon: its dashboard is at %s\n", embedded.dashboard())
	}

	sources, err := o.file.SourcePolicy.download(log)
	if err != nil {
		return usage(err)
	}
	if sources.Cache = o.file.SourcePolicy.cache(store, log); sources.Cache != nil {
		defer sources.Cache.Close()
	}
	sources.Servers = o.trusted(server)
	download := staging.NewDownloader(sources)
	defer download.CloseIdle()
	link, err := o.session(server, registry, log)
	if err != nil {
		return err
	}
	where, err := newPlaces(o.file, link)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, where.close()) }()
	run := executor.New(registry, store, download, tenants.configure(executor.Config{
		Log: log, LenientActions: o.file.LenientActions, Resolve: where.Resolve, MaxOutput: o.file.MaxOutputBytes,
	}, g.audit))
	g.call = run.Call
	if !o.verbose && !o.wait {
		// Until the first registration there is one thing to say: why not.
		level.Set(slog.LevelError)
	}
	return o.serve(ctx, server, link, run.Run, results, where.registered, func() {
		if !o.verbose {
			level.Set(slog.LevelWarn)
		}
		o.invite(at, all)
	}, log)
}

// isolates reports whether modules work in processes of their tenants.
func (o *runOptions) isolates() (bool, error) {
	modules := slices.ContainsFunc(o.file.Providers, func(p providerConfig) bool { return !builtin.Is(p.Source) })
	records := o.record != "" || o.file.Record != nil
	switch o.isolation {
	case "none":
		return false, nil
	case "auto":
		return modules && goruntime.GOOS == "linux" && !records && o.dev == "", nil
	case "process":
	default:
		return false, usagef("--isolation %q: want auto, process or none", beacon.Excerpt(o.isolation, 40))
	}
	switch {
	case o.dev != "":
		return false, usagef("beacon dev needs --isolation none: it swaps modules in this process")
	case records:
		return false, usagef("--record, and Record in the configuration, need --isolation none: what a guest sees is recorded in this process")
	}
	return modules, nil
}

// warm has the process of the default tenant begin with its modules, so that its
// first item need not wait. stop gives that up.
func (o *runOptions) warm(ctx context.Context, all []offered, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() {
		for _, p := range all {
			m, ok := p.Provider.(*sandbox.Module)
			if !ok {
				continue
			}
			if err := m.Warm(ctx, beacon.DefaultTenant); err != nil && ctx.Err() == nil {
				log.Warn("a module cannot be made ready in advance", "module", m.Name(), "err", err)
			}
		}
	})
	return func() { cancel(); work.Wait() }
}

// recordFailures has the items of modules recorded, if that is wanted.
func (o *runOptions) recordFailures(log *slog.Logger) error {
	from := "Record"
	var wanted recordConfig
	if o.file.Record != nil {
		wanted = *o.file.Record
	}
	if o.record != "" {
		from, wanted.Folder = "--record "+o.record, o.record
	}
	switch {
	case wanted.Folder == "" && o.file.Record != nil:
		return usagef("Record has no Folder: name where recordings are kept")
	case wanted.Folder == "":
		return nil
	}
	folder, err := wanted.open()
	if err != nil {
		return usagef("%s: %w", from, unwrapPath(err))
	}
	kept := &recordings{folder, log}
	failed := func(result beacon.Result, err error) bool { return err != nil || result.ExitCode() != 0 }
	for i := range o.file.Providers {
		if p := &o.file.Providers[i]; !builtin.Is(p.Source) {
			p.record(failed, kept.keep)
		}
	}
	return nil
}

// findServer decides where the work comes from: the server that was named, one
// that answers in the usual place, or a hub of our own there.
func (o *runOptions) findServer(ctx context.Context, log *slog.Logger) (string, *runningHub, error) {
	if urls := natsURLs(o.server); urls != nil {
		l, err := o.nats.join(ctx, urls, hub.Worker, log)
		if err != nil {
			return "", nil, err
		}
		o.user, o.password, o.joinSecret = l.user, l.password, ""
		return l.url(), l.runningHub, nil
	}
	if o.server != "" {
		return o.server, nil, nil
	}
	usual := "http://" + o.listen
	client, err := submit.New(submit.Config{ServerURL: usual})
	if err != nil {
		return "", nil, err
	}
	defer client.CloseIdle()
	probe, cancel := context.WithTimeoutCause(ctx, 3*time.Second,
		beacon.Errorf(beacon.Unreachable, "%s takes connections but does not answer: something else has the port; name a server with --server, or another address with --listen", o.listen))
	defer cancel()
	err = client.Status(probe)
	switch {
	case err == nil:
		return usual, nil, nil
	case isRefused(err):
		h, err := startHub(ctx, hubConfig{Listen: o.listen, NATSPrefix: "beacon"}, log)
		if err != nil {
			return "", nil, err
		}
		return h.url(), h, nil
	case beacon.CodeOf(err) == beacon.Unreachable && probe.Err() == nil:
		return "", nil, beacon.Errorf(beacon.Unreachable, "something else has the address %s (%w); name a server with --server, or another address with --listen", o.listen, err)
	}
	return "", nil, err
}

// announce says what is on offer.
func (o *runOptions) announce(server string, embedded bool, all []offered) {
	where := "server at"
	if embedded {
		where = "hub listening on"
	}
	fmt.Fprintf(o.out, "beacon: %s %s\n", where, server)
	for _, m := range all {
		c := m.Capability()
		names := make([]string, len(c.Actions))
		for i, a := range c.Actions {
			names[i] = a.Name
		}
		fmt.Fprintf(o.out, "beacon: %s offers the capability %s with the actions %s\n", m.name, c.Name, strings.Join(names, ", "))
	}
}

// invite shows how to try it.
func (o *runOptions) invite(server string, all []offered) {
	for _, m := range all {
		if line := submitLine(o.reached(server), m); line != "" {
			fmt.Fprintf(o.out, "beacon: try it in another terminal:\n\n  %s\n\n", line)
			return
		}
	}
}

// reached is how submitters reach the server in the same way.
func (o *runOptions) reached(server string) []string {
	words := []string{"--server", server}
	if o.tls.fingerprint != "" {
		words = append(words, "--fingerprint", o.tls.fingerprint)
	}
	if natsURLs(server) != nil {
		if o.nats.creds != "" {
			words = append(words, "--creds", o.nats.creds)
		}
		if o.nats.prefix != defaultHubConfig().NATSPrefix {
			words = append(words, "--nats-prefix", o.nats.prefix)
		}
	}
	return words
}

// submitLine is a command that works when it is pasted: it shows the example
// of the first action that has one, or the plainest call there is.
func submitLine(reached []string, m offered) string {
	c := m.Capability()
	words := slices.Concat([]string{self(), "submit"}, reached, []string{"--capability", c.Name})
	for _, a := range c.Actions {
		if a.Example == nil {
			continue
		}
		words = append(words, "--action", a.Name)
		for name, value := range sorted(a.Example.Settings) {
			words = append(words, "--set", name+"="+value)
		}
		if a.Example.Source != "" {
			source := filepath.Join(m.folder, filepath.FromSlash(a.Example.Source))
			if !filepath.IsLocal(a.Example.Source) || !isFile(source) {
				continue
			}
			words = append(words, "--source", source)
		}
		if a.Example.Output != "" && filepath.IsLocal(a.Example.Output) {
			words = append(words, "--output", filepath.Base(a.Example.Output))
		}
		return quote(words)
	}
	return quote(append(words, "--action", c.Actions[0].Name))
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// self is how the user can call this program again: by name if the shell finds
// it, and the way that "go run" was called, since what that starts has a path
// that nobody wants to see.
func self() string {
	exe, err := os.Executable()
	if err != nil {
		return "beacon"
	}
	if found, err := exec.LookPath("beacon"); err == nil && sameFile(found, exe) {
		return "beacon"
	}
	if strings.Contains(filepath.ToSlash(exe), "go-build") {
		return "go run ./cmd/beacon"
	}
	return exe
}

func sameFile(a, b string) bool {
	ia, erra := os.Stat(a)
	ib, errb := os.Stat(b)
	return erra == nil && errb == nil && os.SameFile(ia, ib)
}

// openOutbox opens the place where results wait until this server has them,
// over restarts of the worker. It belongs to one name on one server.
func (o *runOptions) openOutbox(dirs folders, server string, log *slog.Logger) (*outbox.Dir, error) {
	key := sha256.Sum256([]byte(server + "\n" + o.name))
	results, err := outbox.Open(filepath.Join(dirs.outbox, hex.EncodeToString(key[:8])), log)
	if beacon.CodeOf(err) == beacon.Invalid {
		return nil, usagef("a worker named %s serves %s on this machine already; give this one another --name", o.name, server)
	}
	if err != nil {
		return nil, usage(err)
	}
	return results, nil
}

// session is how to talk with the server, and what to tell it.
func (o *runOptions) session(server string, registry *beacon.Registry, log *slog.Logger) (session.Config, error) {
	registration, err := o.registration(registry)
	return session.Config{
		ServerURL:         server,
		Registration:      registration,
		UserName:          o.user,
		Password:          o.password,
		HeartbeatInterval: milliseconds(o.file.HeartbeatIntervalMs),
		PollInterval:      time.Duration(o.pollInterval),
		RequestTimeout:    milliseconds(o.file.RequestTimeoutMs),
		PingInterval:      milliseconds(o.file.PingIntervalMs),
		PingTimeout:       milliseconds(o.file.PingTimeoutMs),
		TLS:               o.secure,
		Logger:            log,
	}, err
}

// trusted is how files of the server itself are fetched: by the certificates that
// its connection goes by.
func (o *runOptions) trusted(server string) map[string]*tls.Config {
	u, err := url.Parse(server)
	if err != nil || o.secure == nil {
		return nil
	}
	return map[string]*tls.Config{net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")): o.secure}
}

// serve is the worker's life.
func (o *runOptions) serve(ctx context.Context, server string, cfg session.Config, execute beacon.Execute, results worker.Outbox, known func(id string), ready func(), log *slog.Logger) (err error) {
	if o.tls.insecure {
		fmt.Fprintln(o.err, "beacon: warning: the server's certificate is not verified; whoever is on the way can read and change everything")
	}
	dial := ways(cfg, o.transport, log)

	// A worker that never got through to its server is a wrong call, not an
	// outage: whoever started it wants to know.
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	var registered atomic.Bool
	told := make(chan struct{})
	stopping := context.AfterFunc(ctx, func() {
		defer close(told)
		if registered.Load() {
			fmt.Fprintf(o.out, "beacon: stopping; what runs has %s to finish (interrupt again to end at once)\n", o.drain)
		}
	})
	defer func() {
		if !stopping() {
			<-told
		}
	}()
	abort, release := second()
	defer release()
	var settled *time.Timer
	defer func() {
		if settled != nil {
			settled.Stop()
		}
	}()
	held := slack()
	defer goruntime.KeepAlive(held)
	err = worker.Run(ctx, dial, execute, worker.Config{
		Abort:             abort,
		MaxConcurrent:     o.maxConcurrent + o.waiting,
		ReconnectInterval: milliseconds(o.file.ReconnectIntervalMs),
		ReconnectMax:      milliseconds(o.file.ReconnectMaxMs),
		DrainTimeout:      cmp.Or(o.drain, -1),
		Outbox:            results,
		Once:              o.once,
		ExitIdle:          o.exitIdle,
		MaxUptime:         o.maxUptime,
		Logger:            log,
		OnRegistered: func(id, transport string) {
			known(id)
			if o.figures != nil {
				o.figures.Registered(transport)
			}
			more := ""
			if o.waiting > 0 { // which a hub shows as slots, too
				more = fmt.Sprintf(", and %d that wait here", o.waiting)
			}
			fmt.Fprintf(o.out, "beacon: registered as %s over %s, ready for work (%d at once%s)\n", id, transport, o.maxConcurrent, more)
			if registered.CompareAndSwap(false, true) {
				ready()
				goruntime.GC() // what loading took is not needed any more
				settled = time.AfterFunc(settleTime, forgetProgram)
			}
		},
		OnDrain: func() {
			if o.figures != nil {
				o.figures.Draining()
			}
		},
		OnLost: func(err error) {
			if o.figures != nil {
				o.figures.Lost()
			}
			if !registered.Load() && !o.wait {
				giveUp(err)
				return
			}
			log.Warn("no link to the server; trying again", "err", err)
		},
	})
	if !registered.Load() {
		return never(server, cmp.Or(err, context.Cause(ctx)))
	}
	var left *worker.UndeliveredError
	switch {
	case isClosed(abort):
		return &coded{exitInterrupted, errors.New("ended at once; what ran was canceled")}
	case errors.As(err, &left) && beacon.CodeOf(err) == beacon.Internal:
		return &coded{exitServer, fmt.Errorf("%w; they are kept, and delivered at the next start", err)}
	case err == nil:
		fmt.Fprintln(o.out, "beacon: stopped")
	}
	return err
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// second is closed at the second signal to end. A third does what signals do.
func second() (abort <-chan struct{}, release func()) {
	signals := make(chan os.Signal, 2)
	closing, over := make(chan struct{}), make(chan struct{})
	var task sync.WaitGroup
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	task.Go(func() {
		defer signal.Stop(signals)
		for range 2 {
			select {
			case <-signals:
			case <-over:
				return
			}
		}
		close(closing)
	})
	return closing, func() { close(over); task.Wait() }
}

// never words why a worker never got through to its server.
func never(server string, err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return &coded{exitInterrupted, fmt.Errorf("stopped before %s had taken the registration", server)}
	}
	// That nobody is there is one thing to say, in however many ways it was tried.
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return &coded{exitServer, fmt.Errorf("server %s does not answer: %w; start it first, or wait for it with --wait", server, op)}
	}
	return &coded{exitServer, fmt.Errorf("cannot register with %s: %s", server, strings.ReplaceAll(err.Error(), "\n", "; "))}
}

// registration is what the worker tells about itself.
func (o *runOptions) registration(registry *beacon.Registry) (protocol.Registration, error) {
	r := protocol.NewRegistration(o.name, o.maxConcurrent+o.waiting, registry.Capabilities())
	maps.Copy(r.Tags, o.file.Tags)
	if r.Tags["Version"] == nil { // dashboards show it
		r.Tags["Version"] = "beacon " + version
	}
	r.Contexts, r.Operations, r.BindAddresses = o.file.Contexts, o.file.Operations, o.file.BindAddresses
	r.JoinSecret = o.joinSecret
	if r.HostID = o.file.HostID; r.HostID == "" {
		// A host without a name is none that a server could match.
		r.HostID, _ = os.Hostname()
	}
	wanted := make([]protocol.SharedMount, len(o.file.SharedMounts))
	for i, m := range o.file.SharedMounts {
		wanted[i] = protocol.SharedMount(m)
	}
	mounts, err := session.SharedMounts(wanted...)
	r.SharedMounts = mounts
	return r, err
}

// ways are how the worker may connect, the best first.
func ways(cfg session.Config, choice string, log *slog.Logger) transport.Dial {
	switch choice {
	case "ws":
		return ws.Dial(cfg)
	case "http":
		return poll.Dial(cfg)
	}
	return fallback.Dial(fallback.Config{Logger: log},
		fallback.Way{Name: "websocket", Dial: ws.Dial(cfg), Probe: ws.Probe(cfg)},
		fallback.Way{Name: "http", Dial: poll.Dial(cfg)},
	)
}
