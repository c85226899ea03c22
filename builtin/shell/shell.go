// Package shell is the provider of the capability Shell: it runs commands on
// the worker's machine, with the worker's rights. Whoever may submit items may
// do there what the worker's user may.
package shell

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
)

// Defaults of Config.
const (
	// DefaultMaxBuffer is the Node worker's.
	DefaultMaxBuffer = 10 << 20
	DefaultKillGrace = 2 * time.Second
)

// Config is the provider's part of a configuration. The zero value works.
type Config struct {
	// MaxBufferBytes bounds standard output and standard error, each; 0 means
	// 10 MiB. A command that prints more is killed.
	MaxBufferBytes int64
	// KillGraceMs is how long a command may go on after the signal to end
	// (SIGTERM), in milliseconds, before it is killed; 0 means 2 s.
	KillGraceMs int64
}

// A Provider runs commands. It is safe for concurrent use.
type Provider struct {
	maxBuffer int64
	grace     time.Duration
}

// New makes the provider.
func New(cfg Config) (*Provider, error) {
	if cfg.MaxBufferBytes < 0 || cfg.KillGraceMs < 0 {
		return nil, beacon.Errorf(beacon.Invalid, "MaxBufferBytes and KillGraceMs cannot be below zero")
	}
	return &Provider{
		maxBuffer: cmp.Or(cfg.MaxBufferBytes, DefaultMaxBuffer),
		grace:     cmp.Or(time.Duration(cfg.KillGraceMs)*time.Millisecond, DefaultKillGrace),
	}, nil
}

// Capability implements beacon.Provider.
func (p *Provider) Capability() beacon.Capability {
	return beacon.Capability{
		Name:        "Shell",
		Description: "Runs commands on the worker's machine.",
		Actions: []beacon.Action{{
			Name:        "Execute",
			Description: "Execute a shell command.",
			Settings: []beacon.Setting{
				{Name: "Command", DataType: "String", Required: true, Description: "The command to run"},
				{Name: "Parameters", DataType: "String", Description: "Command-line arguments"},
			},
		}},
	}
}

// Run implements beacon.Provider.
func (p *Provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	s := job.Item.Settings
	line := s.Text("Command")
	if !s.Has("Command") {
		return beacon.Failure("No command specified.", "Shell Provider: no command specified."), nil
	}
	if s.Has("Parameters") {
		line += " " + s.Text("Parameters")
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", line)
	cmd.Dir = job.Dir.Name()
	cmd.Env = os.Environ()
	cmd.WaitDelay = p.grace
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	code := 0
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		return beacon.Result{}, fmt.Errorf("run the command: %w", err)
	}
	out := beacon.Outputs{beacon.OutputStdOut: "", beacon.OutputExitCode: code, beacon.OutputResult: "", "StdErr": ""}
	text(out, beacon.OutputStdOut, stdout.Bytes())
	text(out, "StdErr", stderr.Bytes())
	if code != 0 {
		text(out, beacon.OutputStdOut, append(stdout.Bytes(), stderr.Bytes()...))
		return beacon.Result{Outputs: out, Log: []string{"Command failed: " + line}}, nil
	}
	out[beacon.OutputResult] = out[beacon.OutputStdOut]
	return beacon.Result{Outputs: out, Log: []string{"Command executed: " + beacon.Excerpt(line, 4096)}}, nil
}

func text(out beacon.Outputs, name string, raw []byte) {
	if utf8.Valid(raw) {
		out[name] = string(raw)
		return
	}
	out[name] = strings.ToValidUTF8(string(raw), "\ufffd")
	out[name+"Base64"] = base64.StdEncoding.EncodeToString(raw)
}
