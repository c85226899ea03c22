package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/monitor"
)

// newLog makes the log of a command that goes on: as text for people, as JSON for
// what collects logs.
func newLog(w io.Writer, level slog.Leveler, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usagef("--log-format %q: want text or json", beacon.Excerpt(format, 40))
}

// tell serves how this process fares at an address, and says where that is.
func tell(ctx context.Context, w io.Writer, address string, handler http.Handler, log *slog.Logger) (*monitor.Server, error) {
	s, err := monitor.Listen(ctx, address, handler, log)
	if err != nil {
		return nil, usagef("--metrics-listen %s: %w", beacon.Excerpt(address, 100), withoutAddress(err))
	}
	fmt.Fprintf(w, "beacon: figures for Prometheus are at %s/metrics\n", s.URL())
	return s, nil
}
