// Package shell is the provider of the capability Shell: it runs commands on
// the worker's machine, with the worker's rights. Whoever may submit items may
// do there what the worker's user may do, unless AllowedCommands says otherwise.
//
// A command is a process group of its own, which ends as a whole: when its
// first process has ended, when the item's time is over or the item is
// canceled, and when it prints too much. What it leaves behind is killed.
package shell

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
	// KillGraceMs is how long a command may go on after it was asked to end
	// (SIGTERM), in milliseconds, before it is killed; 0 means 2 s.
	KillGraceMs int64
	// AllowedCommands, if there are any, are the only programs that items can
	// run, by name or absolute path, and no shell is run for them: Command and
	// Parameters are taken apart at spaces and quotes, and nothing in them is
	// expanded.
	AllowedCommands []string
	// Env names variables of the worker's environment that commands see, beside
	// those that every program expects (PATH, HOME, LANG and so on). An asterisk
	// at the end stands for any ending; "*" alone means all but the worker's own
	// secrets.
	Env []string
	// WorkDir is the folder that commands start in; "" means each in its item's
	// own directory.
	WorkDir string
	// Limits are those of each process of a command. Not on Windows.
	Limits Limits
	// User is the uid that commands run as, or uid:gid; the worker must be root,
	// and its staging folder be where that user can get to. Not on Windows.
	User string

	// Owner is set by a program whose only children are those that it waits for
	// itself: then orphans of commands become its children (a subreaper of
	// Linux), and it ends and reaps those that tried to get away. Commands also
	// end with the program, even if it is killed. In such a program no goroutine may
	// end while it is locked to its thread (runtime.LockOSThread): the commands that were
	// started by that thread would be killed with it.
	Owner bool `json:"-"`
	// Log defaults to slog.Default.
	Log *slog.Logger `json:"-"`
}

// Limits bound a process; 0 means what the worker itself has.
type Limits struct {
	CPUSeconds  int64
	MemoryBytes int64 // address space
	FileBytes   int64 // of each file that it writes
	OpenFiles   int64
	Processes   int64 // of the user, all together
}

// A Provider runs commands. It is safe for concurrent use.
type Provider struct {
	cfg       Config
	maxBuffer int64
	grace     time.Duration
	env       environment
	allowed   map[string]string // what items may say, and the program it means
	identity  *identity         // of Config.User
	processes *processes
}

// New makes the provider.
func New(cfg Config) (*Provider, error) {
	limits := cfg.Limits
	if min(cfg.MaxBufferBytes, cfg.KillGraceMs, limits.CPUSeconds, limits.MemoryBytes, limits.FileBytes, limits.OpenFiles, limits.Processes) < 0 {
		return nil, beacon.Errorf(beacon.Invalid, "a limit is below zero")
	}
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	p := &Provider{
		cfg:       cfg,
		maxBuffer: cmp.Or(cfg.MaxBufferBytes, DefaultMaxBuffer),
		grace:     cmp.Or(time.Duration(cfg.KillGraceMs)*time.Millisecond, DefaultKillGrace),
		env:       newEnvironment(os.Environ(), cfg.Env),
	}
	if cfg.WorkDir != "" {
		if info, err := os.Stat(cfg.WorkDir); err != nil || !info.IsDir() || !filepath.IsAbs(cfg.WorkDir) {
			return nil, beacon.Errorf(beacon.Invalid, "WorkDir %s is not a folder with an absolute path", cfg.WorkDir)
		}
	}
	if err := supported(cfg); err != nil {
		return nil, err
	}
	var err error
	if p.identity, err = identityOf(cfg.User); err != nil {
		return nil, err
	}
	if len(cfg.AllowedCommands) > 0 {
		p.allowed = map[string]string{}
	}
	for _, name := range cfg.AllowedCommands {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "in AllowedCommands: %w", err)
		}
		if path, err = filepath.Abs(path); err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "in AllowedCommands: %w", err)
		}
		p.allowed[name], p.allowed[path] = path, path
	}
	p.processes = newProcesses(cfg.Owner, cfg.Log)
	return p, nil
}

// Initialize implements beacon.Initializer: it ends what commands of workers
// that were killed have left.
func (p *Provider) Initialize(context.Context) error { return p.processes.start() }

// Shutdown implements beacon.Shutdowner.
func (p *Provider) Shutdown(context.Context) error {
	p.processes.stop()
	return nil
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
				{Name: "Command", DataType: "String", Required: true, Description: "The command to run; {SourcePath} and {OutputPath} stand for the item's files"},
				{Name: "Parameters", DataType: "String", Description: "Command-line arguments, appended to Command"},
				{Name: "Args", DataType: "String", Description: "Instead of Parameters: a JSON array of arguments that no shell sees; with Command as the program, or the first as that"},
				{Name: "Stdin", DataType: "String", Description: "\"source\" gives the command the source as standard input"},
				{Name: "Env", DataType: "String", Description: "A JSON object of environment variables to set"},
				{Name: "WorkDir", DataType: "String", Description: "A folder in the item's directory to start in"},
			},
		}},
	}
}

// Names of outputs beside those that every provider has. They are there when
// there is something to say.
const (
	OutputStdErr       = "StdErr"       // what the command printed to standard error
	OutputStdOutBase64 = "StdOutBase64" // standard output that is not UTF-8, as it was
	OutputStdErrBase64 = "StdErrBase64"
)

// maxLogged bounds the command in the item's log.
const maxLogged = 4096

// Run implements beacon.Provider. That a command fails, ends by a signal, takes
// too long or prints too much is a result with a non-zero ExitCode; an error
// says that it could not be run, or that the item was canceled.
func (p *Provider) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	c, err := p.command(job)
	switch {
	case errors.Is(err, errNoCommand):
		return beacon.Failure("No command specified.", "Shell Provider: no command specified."), nil
	case err != nil:
		return beacon.Failure("Shell: "+err.Error(), "Shell Provider: "+err.Error()), nil
	}
	defer c.close()
	if err := p.identity.own(job); err != nil {
		return beacon.Result{}, err
	}
	ran, err := p.run(ctx, job, c)
	switch {
	case err == nil:
		return ran.result(c.shown), nil
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return notRun(c, 127, "not found"), nil
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC), errors.Is(err, exec.ErrDot):
		return notRun(c, 126, "cannot be executed"), nil
	case errors.Is(err, syscall.E2BIG):
		return notRun(c, 126, "the arguments and the environment are too long"), nil
	}
	return beacon.Result{}, err
}

// notRun words a program that could not be started as a shell does.
func notRun(c *command, code int, why string) beacon.Result {
	text := fmt.Sprintf("%s: %s\n", beacon.Excerpt(c.argv[0], 200), why)
	return beacon.Result{
		Outputs: beacon.Outputs{beacon.OutputStdOut: text, beacon.OutputExitCode: code, beacon.OutputResult: "", OutputStdErr: text},
		Log:     []string{"Command failed: " + c.shown, text},
	}
}

// An outcome is what a command has done.
type outcome struct {
	stdout, stderr []byte
	code           int
	reason         string // why it was ended, if it was
}

// result words an outcome as the Node worker does: standard output alone after
// success, with standard error behind it after a failure.
func (o outcome) result(shown string) beacon.Result {
	out := beacon.Outputs{beacon.OutputExitCode: o.code, beacon.OutputResult: ""}
	errText := text(out, OutputStdErr, OutputStdErrBase64, o.stderr)
	if errText == "" {
		delete(out, OutputStdErr)
	}
	if o.code == 0 {
		out[beacon.OutputResult] = text(out, beacon.OutputStdOut, OutputStdOutBase64, o.stdout)
		return beacon.Result{Outputs: out, Log: []string{"Command executed: " + shown}}
	}
	printed := text(out, beacon.OutputStdOut, OutputStdOutBase64, o.stdout)
	out[beacon.OutputStdOut] = printed + errText
	line := "Command failed: " + shown
	switch {
	case o.reason != "":
		line += " (" + o.reason + ")"
	case o.code > 128:
		line += fmt.Sprintf(" (exit code %d: signal %d)", o.code, o.code-128)
	default:
		line += fmt.Sprintf(" (exit code %d)", o.code)
	}
	log := []string{line}
	if errText != "" {
		log = append(log, cut(errText, maxLogged))
	}
	return beacon.Result{Outputs: out, Log: log}
}

// cut shortens text that stays as it is otherwise: it is in the outputs, too.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + "…"
}

// text makes an output of bytes: as they are if that is text, and otherwise
// readable as far as that goes, with the bytes themselves beside it.
func text(out beacon.Outputs, name, base64Name string, raw []byte) string {
	var s string
	if utf8.Valid(raw) {
		s = string(raw)
	} else {
		s = strings.ToValidUTF8(string(raw), "\ufffd")
		out[base64Name] = base64.StdEncoding.EncodeToString(raw)
	}
	out[name] = s
	return s
}
