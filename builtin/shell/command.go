package shell

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
)

// errNoCommand says that an item does not say what to run.
var errNoCommand = errors.New("no command specified")

// The most that an item may say, in bytes; systems allow some more.
const (
	maxArguments = 1 << 20
	maxVariables = 1000
)

// A command is a process to be.
type command struct {
	argv  []string // the first is the program
	line  string   // for cmd.exe, which takes its arguments apart itself
	env   []string
	dir   string
	stdin *os.File // nil is nothing
	shown string   // in logs: without paths of this machine
}

func (c *command) close() {
	if c.stdin != nil {
		_ = c.stdin.Close() // it was only read
	}
}

// command makes a process of what an item says.
func (p *Provider) command(job *beacon.Job) (*command, error) {
	s := job.Item.Settings
	if !s.Has("Command") && !s.Has("Args") {
		return nil, errNoCommand
	}
	names := placeholders(job)
	c := &command{}
	var err error
	switch {
	case s.Has("Args"):
		err = p.program(c, names, s)
	case p.allowed != nil:
		err = p.words(c, names, s)
	default:
		err = p.shell(c, names, s)
	}
	if err != nil {
		return nil, err
	}
	total := len(c.line)
	for _, word := range c.argv {
		if total += len(word) + 1; strings.ContainsRune(word, 0) {
			return nil, beacon.Errorf(beacon.Invalid, "the command contains a NUL character")
		}
	}
	if total > maxArguments {
		return nil, beacon.Errorf(beacon.Invalid, "the command takes %d bytes, limit %d: hand over long texts in a file", total, maxArguments)
	}
	if c.env, err = p.variables(job, names); err != nil {
		return nil, err
	}
	if c.dir, err = p.workDir(job); err != nil {
		return nil, err
	}
	switch stdin := s.Text("Stdin"); stdin {
	case "", "none":
	case "source":
		if job.Source == "" {
			return nil, beacon.Errorf(beacon.Invalid, "Stdin is \"source\", but the item has no SourceURL")
		}
		if c.stdin, err = job.Dir.Open(job.Source); err != nil {
			return nil, beacon.Errorf(beacon.Invalid, "the source cannot be opened")
		}
	default:
		return nil, beacon.Errorf(beacon.Invalid, "Stdin is %q: want source or none", beacon.Excerpt(stdin, 80))
	}
	return c, nil
}

// shell has a shell run Command and Parameters.
func (p *Provider) shell(c *command, names paths, s beacon.Settings) error {
	line := s.Text("Command")
	if s.Has("Parameters") {
		line += " " + s.Text("Parameters")
	}
	c.shown = beacon.Excerpt(line, maxLogged)
	if strings.ContainsRune(line, 0) {
		return beacon.Errorf(beacon.Invalid, "the command contains a NUL character")
	}
	line, err := substitute(line, names)
	if err != nil {
		return err
	}
	c.argv, c.line = shellOf(line)
	return nil
}

// program runs Args, or Command with Args, without a shell.
func (p *Provider) program(c *command, names paths, s beacon.Settings) error {
	if s.Has("Parameters") {
		return beacon.Errorf(beacon.Invalid, "Parameters and Args are both given: Args has all arguments")
	}
	var args []string
	if err := json.Unmarshal([]byte(s.Text("Args")), &args); err != nil {
		return beacon.Errorf(beacon.Invalid, "setting Args is not a JSON array of texts")
	}
	if s.Has("Command") {
		args = append([]string{s.Text("Command")}, args...)
	}
	return p.direct(c, names, args)
}

// words runs Command and Parameters without a shell.
func (p *Provider) words(c *command, names paths, s beacon.Settings) error {
	args, err := split(s.Text("Command") + " " + s.Text("Parameters"))
	if err != nil {
		return err
	}
	return p.direct(c, names, args)
}

// direct runs words. A path is put into each by itself, after they were taken
// apart, so it is always one argument or a part of one.
func (p *Provider) direct(c *command, names paths, args []string) error {
	if len(args) == 0 || args[0] == "" {
		return errNoCommand
	}
	c.shown = beacon.Excerpt(strings.Join(args, " "), maxLogged)
	if p.allowed != nil {
		program, ok := p.allowed[args[0]]
		if !ok {
			return beacon.Errorf(beacon.Denied, "%s is not among the programs that this beacon runs (AllowedCommands)", beacon.Excerpt(args[0], 80))
		}
		args[0] = program
	}
	for i := range args {
		args[i] = names.inWord(args[i])
	}
	c.argv = args
	return nil
}

// paths are what placeholders stand for. The same paths are in the environment.
type paths []struct{ placeholder, variable, path string }

// placeholders of an item: {SourcePath} and {OutputPath} are those of the first
// source and output, {SourcePath2} and {OutputPath2} of the second, and so on.
// {WorkPath} is the item's directory.
func placeholders(job *beacon.Job) (all paths) {
	add := func(name, variable string, number int, file string) {
		if number > 1 {
			name, variable = fmt.Sprint(name, number), fmt.Sprint(variable, "_", number)
		}
		all = append(all, struct{ placeholder, variable, path string }{
			"{" + name + "}", variable, filepath.Join(job.Dir.Name(), filepath.FromSlash(file)),
		})
	}
	for i, name := range job.Sources {
		add("SourcePath", "BEACON_SOURCE_PATH", i+1, name)
	}
	for i, name := range job.Outputs {
		add("OutputPath", "BEACON_OUTPUT_PATH", i+1, name)
	}
	add("WorkPath", "BEACON_WORK_PATH", 1, ".")
	return all
}

// inWord replaces the placeholders in one argument.
func (all paths) inWord(word string) string {
	if !strings.ContainsRune(word, '{') {
		return word
	}
	pairs := make([]string, 0, 2*len(all))
	for _, p := range all {
		pairs = append(pairs, p.placeholder, p.path)
	}
	return strings.NewReplacer(pairs...).Replace(word)
}

// variables are the environment of a command: what commands see of the
// worker's, where the item's files are, and what the item sets.
func (p *Provider) variables(job *beacon.Job, names paths) ([]string, error) {
	env := slices.Clip(slices.Clone(p.env.base))
	if hash := job.Item.Hash; len(hash) <= 1024 && !strings.ContainsRune(hash, 0) {
		env = append(env, "BEACON_WORK_ITEM="+hash)
	}
	for _, n := range names {
		env = append(env, n.variable+"="+n.path)
	}
	if !job.Item.Settings.Has("Env") {
		return env, nil
	}
	var set map[string]string
	if err := json.Unmarshal([]byte(job.Item.Settings.Text("Env")), &set); err != nil || len(set) > maxVariables {
		return nil, beacon.Errorf(beacon.Invalid, "setting Env is not a JSON object of at most %d texts", maxVariables)
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		value := set[name]
		switch {
		case name == "" || strings.ContainsAny(name, "=\x00") || strings.ContainsRune(value, 0):
			return nil, beacon.Errorf(beacon.Invalid, "setting Env: %q cannot be a variable", beacon.Excerpt(name, 80))
		case strings.HasPrefix(strings.ToUpper(name), "BEACON_"):
			return nil, beacon.Errorf(beacon.Denied, "setting Env: %s is the beacon's to set", beacon.Excerpt(name, 80))
		case p.allowed != nil && !matches(name, p.cfg.Env):
			// Variables such as LD_PRELOAD have any program do anything.
			return nil, beacon.Errorf(beacon.Denied, "setting Env: %s is not among the variables that this beacon lets items set (Env in its configuration)", beacon.Excerpt(name, 80))
		}
		env = append(env, name+"="+value)
	}
	return env, nil
}

// workDir is where a command starts.
func (p *Provider) workDir(job *beacon.Job) (string, error) {
	name := job.Item.Settings.Text("WorkDir")
	switch {
	case name == "" && p.cfg.WorkDir != "":
		return p.cfg.WorkDir, nil
	case name == "" || name == ".":
		return job.Dir.Name(), nil
	}
	local := filepath.FromSlash(name)
	if !filepath.IsLocal(local) || len(name) > 1024 || strings.ContainsRune(name, 0) {
		return "", beacon.Errorf(beacon.Invalid, "WorkDir %q must be a folder inside of the item's directory", beacon.Excerpt(name, 80))
	}
	if err := job.Dir.MkdirAll(local, 0o700); err != nil {
		return "", beacon.Errorf(beacon.Invalid, "WorkDir %q cannot be made in the item's directory", beacon.Excerpt(name, 80))
	}
	return filepath.Join(job.Dir.Name(), local), nil
}

// split takes text apart at spaces, outside of quotes. What a shell would act
// on is refused: here nobody would.
func split(text string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord, escaped := false, false
	quote := byte(0)
	for i := range len(text) {
		c := text[i]
		switch {
		case escaped:
			word.WriteByte(c)
			escaped = false
		case c == '\\' && quote != '\'' && !isWindows:
			escaped, inWord = true, true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			if quote == '"' && (c == '$' || c == '`') {
				return nil, shellNeeded(c)
			}
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		case strings.IndexByte("$`;&|<>()*?[]#~!\n\r", c) >= 0:
			return nil, shellNeeded(c)
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 || escaped {
		return nil, beacon.Errorf(beacon.Invalid, "the command has a quote that does not end")
	}
	if inWord {
		words = append(words, word.String())
	}
	return words, nil
}

func shellNeeded(c byte) error {
	return beacon.Errorf(beacon.Denied, "%q takes a shell, and this beacon runs single programs only (AllowedCommands): quote it, or give Args", string(rune(c)))
}
