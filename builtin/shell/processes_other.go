//go:build !linux

package shell

import (
	"log/slog"
	"os/exec"
)

// processes has nothing to do where there are no subreapers.
type processes struct{}

type life struct{}

func newProcesses(bool, *slog.Logger) *processes { return &processes{} }

func (*processes) start() error { return nil }

func (*processes) stop() {}

func (*processes) begin(*exec.Cmd) *life { return nil }

func (*processes) launch(_ *life, cmd *exec.Cmd, out, errs *capture) (*process, error) {
	return start(cmd, out, errs)
}

func (*processes) end(*life) {}
