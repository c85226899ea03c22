package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon/hub"
)

// defaultListen is where the hub listens, and where a worker looks for one.
const defaultListen = "127.0.0.1:54321"

type hubOptions struct {
	streams
	listen string
	data   string
}

func newHubCommand(s streams) *cobra.Command {
	o := &hubOptions{streams: s}
	cmd := &cobra.Command{
		Use:   "hub",
		Short: "Run a small coordinator that hands work items to beacons",
		Long: `Run a small coordinator: it speaks the worker's and the submitter's part of
Ultravisor's protocol. It is not Ultravisor's workflow engine.

State is in memory: it ends with the process.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context()) },
	}
	cmd.Flags().StringVar(&o.listen, "listen", defaultListen, "address and port to listen on")
	cmd.Flags().StringVar(&o.data, "data", "", "folder for files on their way to beacons (default a temporary one)")
	return cmd
}

func (o *hubOptions) run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(o.err, nil))
	h, err := startHub(ctx, o.listen, o.data, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(o.err, "beacon: hub on %s\n", h.url())
	select {
	case <-ctx.Done():
		err = nil
	case err = <-h.failed:
	}
	return errors.Join(err, h.close())
}

// A running hub.
type runningHub struct {
	hub      *hub.Hub
	server   *http.Server
	listener net.Listener
	failed   chan error // receives once, if serving ends by itself
	done     chan struct{}
}

func startHub(ctx context.Context, listen, data string, log *slog.Logger) (*runningHub, error) {
	if data != "" {
		if err := os.MkdirAll(data, 0o700); err != nil {
			return nil, usagef("--data %s: cannot keep files there: %w", data, unwrapPath(err))
		}
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return nil, usagef("cannot listen on %s: %w; choose another with --listen", listen, withoutAddress(err))
	}
	coordinator := hub.New(hub.Config{DataDir: data, Log: log})
	r := &runningHub{
		hub:      coordinator,
		listener: listener,
		failed:   make(chan error, 1),
		done:     make(chan struct{}),
		server: &http.Server{
			Handler:           coordinator,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		},
	}
	go func() {
		defer close(r.done)
		if err := r.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			r.failed <- fmt.Errorf("serve the hub: %w", err)
		}
	}()
	return r, nil
}

func (r *runningHub) url() string { return "http://" + r.listener.Addr().String() }

// close ends the hub: beacons and submitters that are still there are cut off
// after a moment.
func (r *runningHub) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	// The hub first: it ends the long calls that the server would wait for.
	err := r.hub.Close(ctx)
	if serr := r.server.Shutdown(ctx); serr != nil {
		err = errors.Join(err, r.server.Close())
	}
	<-r.done
	return err
}

// withoutAddress takes the address out of an error whose message names it.
func withoutAddress(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}
