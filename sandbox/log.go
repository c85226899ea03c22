package sandbox

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync/atomic"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// A logLine is one line of a process's log.
type logLine struct {
	Level   slog.Level
	Message string
	// Args are names and values.
	Args []string `json:",omitempty"`
}

// maxLines is how many lines a process may write to its supervisor's log, and
// maxLine how long one may be on its way there.
const (
	maxLines = 1000
	maxLine  = 64 << 10
)

// A logHandler hands lines to the supervisor.
type logHandler struct {
	conn  *wire.Conn
	level slog.Level
	args  []string
	lines *atomic.Int64
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool { return level >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	if h.lines.Add(1) > maxLines {
		return nil
	}
	line := logLine{Level: r.Level, Message: beacon.Excerpt(r.Message, 1<<10), Args: h.args[:len(h.args):len(h.args)]}
	r.Attrs(func(a slog.Attr) bool {
		line.Args = appendAttr(line.Args, a)
		return true
	})
	raw, err := json.Marshal(line)
	if err != nil || len(raw) > maxLine {
		return err
	}
	h.conn.Notify(noticeLog, raw)
	return nil
}

func appendAttr(args []string, a slog.Attr) []string {
	return append(args, beacon.Excerpt(a.Key, 100), beacon.Excerpt(a.Value.Resolve().String(), 1<<10))
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := *h
	more.args = more.args[:len(more.args):len(more.args)]
	for _, a := range attrs {
		more.args = appendAttr(more.args, a)
	}
	return &more
}

func (h *logHandler) WithGroup(string) slog.Handler { return h }

// logged writes a line of a process to the supervisor's log. It is a stranger's
// word.
func (p *process) logged(payload []byte) error {
	var line logLine
	if err := decode(payload, &line); err != nil {
		return err
	}
	if p.lines++; p.lines > maxLines { // only Serve calls this
		return nil
	}
	var args []any
	for _, text := range line.Args {
		args = append(args, beacon.Excerpt(text, 2<<10))
	}
	if len(args)%2 != 0 {
		args = append(args, "")
	}
	p.sandbox.log.Log(context.Background(), min(line.Level, slog.LevelError), beacon.Excerpt(line.Message, 2<<10), args...)
	return nil
}
