package guest

import (
	"context"
	"errors"
	"math"
	"runtime"
	"strconv"
	"time"
)

// An Item is one piece of work, as the Run of an action sees it. It must not be
// used after Run has returned, nor from two goroutines at once.
type Item struct {
	// WorkItem is the request.
	WorkItem
	host    Host
	action  *Action
	values  []string // by action.Settings; defaults filled in
	outputs []string // names that were set
	files   []closer
	err     error // the first output that could not be set
}

type closer interface {
	path() string
	finish() error
}

// Execute carries out the item that host holds: it finds the action, checks the
// settings, runs it, and turns panics into errors. A nil error means that the
// outputs count; any other is the message the item fails with.
func (p *Provider) Execute(host Host) error {
	item, err := p.item(host)
	if err != nil {
		return err
	}
	err = item.run()
	for _, f := range item.files {
		// A file that Run left open is closed here: what was written must not
		// get lost without a word.
		if ferr := f.finish(); ferr != nil && err == nil {
			err = errors.New("close " + f.path() + ": " + ferr.Error())
		}
	}
	var exit *exitError
	if errors.As(err, &exit) {
		item.Set("ExitCode", exit.code)
		if !item.isSet("StdOut") {
			item.Set("StdOut", exit.message)
		}
		err = nil
	}
	if err == nil {
		err = item.err
	}
	return err
}

func (p *Provider) item(host Host) (*Item, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	work, err := host.WorkItem()
	if err != nil {
		return nil, errors.New("read the work item: " + err.Error())
	}
	action := p.action(work.Action)
	if action == nil {
		names := make([]string, len(p.Actions))
		for i := range p.Actions {
			names[i] = p.Actions[i].Name
		}
		return nil, errors.New("unknown action " + excerpt(work.Action) + ": " + p.Capability + " has " + list(names))
	}
	work.Action = action.Name
	item := &Item{WorkItem: work, host: host, action: action, values: make([]string, len(action.Settings))}
	for i := range action.Settings {
		s := &action.Settings[i]
		value, ok, err := host.Setting(s.Name)
		switch {
		case err != nil:
			return nil, errors.New("read setting " + s.Name + ": " + err.Error())
		case ok && value != "":
			if err := s.check(value); err != nil {
				return nil, err
			}
		case s.Required:
			return nil, errors.New("setting " + s.Name + " is missing: " + s.Description)
		default:
			value = s.Default
		}
		item.values[i] = value
	}
	return item, nil
}

func (it *Item) run() (err error) {
	defer func() {
		if r := recover(); r != nil {
			trace := make([]byte, 8<<10)
			it.host.Log(Error, string(trace[:runtime.Stack(trace, false)]))
			err = errors.New("panic in action " + it.action.Name + ": " + panicText(r))
		}
	}()
	return it.action.Run(it)
}

func panicText(r any) string {
	switch v := r.(type) {
	case error:
		return v.Error()
	case string:
		return v
	case interface{ String() string }:
		return v.String()
	}
	if b, err := appendValue(nil, r); err == nil {
		return string(b)
	}
	return "a value that has no text"
}

// value finds a declared setting. Another name is a mistake in the provider.
func (it *Item) value(name string) string {
	i := it.action.setting(name)
	if i < 0 {
		panic("setting " + name + " is not among the Settings of action " + it.action.Name + ": declare it, or use Lookup")
	}
	return it.values[i]
}

// Declares reports whether the item's action declares a setting, for code that
// serves several actions.
func (it *Item) Declares(name string) bool { return it.action.setting(name) >= 0 }

// Text returns a declared setting, or its default.
func (it *Item) Text(name string) string { return it.value(name) }

// Bool returns a declared setting of type Boolean, or its default.
func (it *Item) Bool(name string) bool {
	text := it.value(name)
	if text == "" {
		return false
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		panic("setting " + name + " is not of type Boolean")
	}
	return v
}

// Int returns a declared setting of type Integer, or its default.
func (it *Item) Int(name string) int64 {
	text := it.value(name)
	if text == "" {
		return 0
	}
	v, err := parseInt(text)
	if err != nil {
		panic("setting " + name + " is not of type Integer")
	}
	return v
}

// Float returns a declared setting of type Number or Integer, or its default.
func (it *Item) Float(name string) float64 {
	text := it.value(name)
	if text == "" {
		return 0
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		panic("setting " + name + " is not of type Number")
	}
	return v
}

// Lookup returns any setting, declared or not, as text: the content of a JSON
// string, the JSON of anything else. Absent and null settings are not ok.
func (it *Item) Lookup(name string) (value string, ok bool, err error) { return it.host.Setting(name) }

// Settings returns all settings as a JSON object, each as the server sent it.
func (it *Item) Settings() (JSON, error) { return it.host.Settings() }

// Config returns a value of the configuration that the operator gave to the
// provider, in the form of [Item.Lookup]. The empty name means all of it.
func (it *Item) Config(name string) (value string, ok bool, err error) { return it.host.Config(name) }

// Progress reports how far the item has come, in percent. Call it as often as
// you like: the host throttles. [Unknown] is a percentage, too.
func (it *Item) Progress(percent float64, message string) {
	it.host.Progress(Progress{Percent: percent, Message: message})
}

// Unknown is the percentage of work whose end is not known.
var Unknown = math.NaN()

// Step reports the step, of total, that begins.
func (it *Item) Step(step, total int, message string) {
	percent := Unknown
	if total > 0 {
		percent = float64(step-1) / float64(total) * 100
	}
	it.host.Progress(Progress{Percent: percent, Step: step, Total: total, Message: message})
}

// Log adds lines to the item's log, which the server gets.
func (it *Item) Log(text string) { it.host.Log(Info, text) }

// Debug adds to the log what only somebody looking for a fault wants to see.
func (it *Item) Debug(text string) { it.host.Log(Debug, text) }

// Warn adds a warning to the log.
func (it *Item) Warn(text string) { it.host.Log(Warning, text) }

// Set sets an output. The value is text, a truth value, a number, nil, []byte
// (base64), []string, or [JSON] for anything else. Setting it again replaces
// it. An output that cannot be set fails the item.
func (it *Item) Set(name string, value any) {
	b, err := appendValue(nil, value)
	if err == nil {
		err = it.host.Output(name, JSON(b))
	}
	if err != nil {
		if it.err == nil {
			it.err = errors.New("set output " + name + ": " + err.Error())
		}
		return
	}
	if !it.isSet(name) {
		it.outputs = append(it.outputs, name)
	}
}

func (it *Item) isSet(name string) bool {
	for _, set := range it.outputs {
		if set == name {
			return true
		}
	}
	return false
}

// Result sets the primary output, Result.
func (it *Item) Result(value any) { it.Set("Result", value) }

// StdOut sets the output StdOut: text for people. Without it, StdOut is what
// the provider printed.
func (it *Item) StdOut(text string) { it.Set("StdOut", text) }

// Remaining is the time left until the item's deadline; not ok without one. When
// it is over the item is ended, wherever it is.
func (it *Item) Remaining() (left time.Duration, ok bool) { return it.host.Remaining() }

// Cancelled reports whether the host wants the item to end and leaves it a
// moment to do so. Items that run for long ask now and then.
func (it *Item) Cancelled() bool { return it.host.Cancelled() }

// Context returns a context for code that wants one. Its Err asks the host, so
// it is up to date even in a loop that never yields; Done is closed at the
// deadline, or when Err has found the item cancelled. The caller calls the
// function returned when done with it.
func (it *Item) Context() (context.Context, context.CancelFunc) {
	var ctx context.Context
	var cancel context.CancelFunc
	if left, ok := it.host.Remaining(); ok {
		ctx, cancel = context.WithTimeout(context.Background(), left)
	} else {
		ctx, cancel = context.WithCancel(context.Background())
	}
	return &itemContext{ctx, it.host, cancel}, cancel
}

type itemContext struct {
	context.Context
	host   Host
	cancel context.CancelFunc
}

func (c *itemContext) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	// Timers only run when goroutines yield, and in a module there is one thread.
	if left, ok := c.host.Remaining(); ok && left <= 0 {
		return context.DeadlineExceeded
	}
	if c.host.Cancelled() {
		c.cancel()
		return context.Canceled
	}
	return nil
}
