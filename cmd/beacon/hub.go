package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/dashboard"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/monitor"
)

// defaultListen is where the hub listens, and where a worker looks for one.
const defaultListen = "127.0.0.1:54321"

type hubOptions struct {
	streams
	hub        hubConfig
	configPath string
	verbose    bool
	logFormat  string
}

func newHubCommand(s streams) *cobra.Command {
	o := &hubOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run a coordinator that hands work items to beacons",
		Long: `Run a coordinator: it speaks the worker's and the submitter's part of
Ultravisor's protocol. It is not Ultravisor's workflow engine.

What it takes is synced to the disk before it answers, in a folder of its own. Any
number of hubs may share a NATS cluster instead, and each of them may die.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.hub.read(o.configPath, cmd.Flags()); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	o.hub.register(cmd.Flags())
	cmd.Flags().StringVarP(&o.configPath, "config", "f", "", "configuration file: users, join secret, tenants, limits, and what the flags say")
	cmd.AddCommand(newHubPasswordCommand(s))
	cmd.Flags().BoolVarP(&o.verbose, "verbose", "v", false, "log beacons that come and go")
	cmd.Flags().StringVar(&o.logFormat, "log-format", "text", "how to log: text or json")
	return cmd
}

func (o *hubOptions) run(ctx context.Context) (err error) {
	level := slog.LevelWarn
	if o.verbose {
		level = slog.LevelInfo
	}
	log, err := newLog(o.err, level, o.logFormat)
	if err != nil {
		return err
	}
	h, err := startHub(ctx, o.hub, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.err, "beacon: hub on %s keeps what it has in %s\n", h.url(), h.keeps)
	if h.certificate != nil && o.hub.TLSSelfSigned {
		fmt.Fprintf(o.err, "beacon: its certificate has the fingerprint %s (for --fingerprint of workers and submitters)\n", fingerprint(h.certificate.Certificate[0]))
	}
	fmt.Fprintf(o.err, "beacon: its dashboard is at %s\n", h.dashboard())
	defer func() { err = errors.Join(err, h.close()) }()
	if o.hub.MetricsListen != "" {
		figures := monitor.Hub(version, h.hub.Census, h.ready, log)
		told, err := tell(ctx, o.err, o.hub.MetricsListen, figures, log)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, told.Close()) }()
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.failed:
		return err
	}
}

// A running hub.
type runningHub struct {
	hub      *hub.Hub
	server   *http.Server
	listener net.Listener
	keeps    string     // where, for people
	temp     string     // folder to remove at the end
	failed   chan error // receives once, if serving ends by itself
	done     chan struct{}
	closing  chan struct{}

	certificate *tls.Certificate // nil without TLS
}

func startHub(ctx context.Context, cfg hubConfig, log *slog.Logger) (_ *runningHub, err error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, usagef("cannot listen on %s: %w; choose another with --listen", cfg.Listen, withoutAddress(err))
	}
	r := &runningHub{listener: listener, failed: make(chan error, 2), done: make(chan struct{}), closing: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, listener.Close(), r.removeTemp())
		}
	}()
	store, data, err := r.open(ctx, cfg, log)
	if err != nil {
		return nil, err
	}
	objects, err := store.Objects(ctx)
	if err != nil {
		return nil, errors.Join(unusable(err), store.Journal().Close(context.WithoutCancel(ctx)))
	}
	if r.certificate, err = cfg.certificate(data); err != nil {
		return nil, errors.Join(err, store.Journal().Close(context.WithoutCancel(ctx)))
	}
	options := cfg.hub()
	options.Journal, options.Objects, options.DataDir, options.URL, options.Log = store.Journal(), objects, data, cfg.urlOf(r), log
	r.hub = hub.New(options)
	if err := r.hub.Ready(ctx); err != nil {
		return nil, errors.Join(unusable(err), r.hub.Close(context.WithoutCancel(ctx)))
	}
	r.server = &http.Server{
		Handler:           dashboard.New(r.hub, log),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	if r.certificate != nil {
		r.server.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*r.certificate}}
		listener = tls.NewListener(listener, r.server.TLSConfig)
	}
	go func() {
		defer close(r.done)
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			r.failed <- fmt.Errorf("serve the hub: %w", err)
		}
	}()
	go func() {
		select {
		case <-r.hub.Failed():
			r.failed <- unusable(r.hub.Ready(context.Background()))
		case <-r.closing:
		}
	}()
	return r, nil
}

// ready says why the hub cannot be used; nil if it can.
func (r *runningHub) ready() error {
	select {
	case <-r.hub.Failed():
		return unusable(r.hub.Ready(context.Background()))
	default:
		return nil
	}
}

// unusable is why a hub cannot use what it keeps.
func unusable(err error) error {
	if beacon.CodeOf(err) != beacon.Internal {
		return err
	}
	return beacon.Errorf(beacon.Refused, "the hub cannot use its journal: %w", err)
}

// open opens what the hub keeps.
func (r *runningHub) open(ctx context.Context, cfg hubConfig, log *slog.Logger) (store *jetstream.Store, data string, err error) {
	port := 0
	if address, ok := r.listener.Addr().(*net.TCPAddr); ok {
		port = address.Port
	}
	_, asked, _ := net.SplitHostPort(cfg.Listen)
	data = cmp.Or(cfg.Data, os.Getenv("BEACON_HUB_DATA"))
	if data == "" && asked == "0" {
		if data, err = os.MkdirTemp("", "beacon-hub-"); err != nil {
			return nil, "", usagef("no temporary folder can be made: %w; choose one with --data", err)
		}
		r.temp = data
	}
	if data == "" {
		base, err := dataFolder()
		if err != nil {
			return nil, "", err
		}
		data = filepath.Join(base, fmt.Sprintf("hub-%d", port))
	}
	options := jetstream.Config{Prefix: cfg.NATSPrefix, Replicas: cfg.Replicas, Log: log}
	if len(cfg.NATS) > 0 {
		r.keeps = "NATS"
		if err := os.MkdirAll(data, 0o700); err != nil {
			return nil, "", usagef("--data %s: cannot keep files there: %w", data, unwrapPath(err))
		}
		store, err = jetstream.Connect(ctx, cfg.NATS, cfg.NATSCreds, options)
	} else {
		r.keeps = data
		store, err = jetstream.Embed(ctx, data, options)
	}
	return store, data, err
}

// dataFolder is where what must not be lost is kept.
func dataFolder() (string, error) {
	if dir := os.Getenv("BEACON_DATA_DIR"); dir != "" {
		return dir, nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "beacon"), nil
	}
	var base string
	var err error
	switch goruntime.GOOS {
	case "windows", "darwin":
		base, err = os.UserConfigDir()
	default:
		if base, err = os.UserHomeDir(); err == nil {
			base = filepath.Join(base, ".local", "share")
		}
	}
	if err != nil {
		return "", usagef("there is no place for data: %w; choose one with --data", err)
	}
	return filepath.Join(base, "beacon"), nil
}

func (r *runningHub) url() string {
	if r.certificate != nil {
		return "https://" + r.listener.Addr().String()
	}
	return "http://" + r.listener.Addr().String()
}

// dashboard is where to see what goes on. With the token, if the hub has one, one
// may do something about it, too.
func (r *runningHub) dashboard() string {
	if token := r.hub.Token(); token != "" {
		return r.url() + "/?token=" + token
	}
	return r.url() + "/"
}

// close ends the hub: beacons and submitters that are still there are cut off
// after a moment.
func (r *runningHub) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	close(r.closing)
	// The hub first: it ends the long calls that the server would wait for.
	err := r.hub.Close(ctx)
	if serr := r.server.Shutdown(ctx); serr != nil {
		err = errors.Join(err, r.server.Close())
	}
	<-r.done
	return errors.Join(err, r.removeTemp())
}

func (r *runningHub) removeTemp() error {
	if r.temp == "" {
		return nil
	}
	return os.RemoveAll(r.temp)
}

// withoutAddress takes the address out of an error whose message names it.
func withoutAddress(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
