package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/monitor"
)

// newLog makes the log of a command that goes on: as text for people, as JSON for
// what collects logs.
func newLog(w io.Writer, level slog.Leveler, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler
	switch format {
	case "text":
		handler = slog.NewTextHandler(w, options)
	case "json":
		handler = slog.NewJSONHandler(w, options)
	default:
		return nil, usagef("--log-format %q: want text or json", beacon.Excerpt(format, 40))
	}
	own := slog.New(handler)
	log.SetFlags(0)
	log.SetOutput(standard{own})
	return own, nil
}

// standard takes what is said to Go's own logger, which the client of net/http does,
// and nobody can tell it not to: up to 4 KB of what a server has sent unasked, be it
// a secret that it was sent. That is left out.
type standard struct{ log *slog.Logger }

// Write implements io.Writer.
func (s standard) Write(line []byte) (int, error) {
	text, _, _ := strings.Cut(strings.TrimSpace(string(line)), `"`)
	s.log.Debug(beacon.Excerpt(text, 200))
	return len(line), nil
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
