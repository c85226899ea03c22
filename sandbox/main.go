package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/runtime/snapshot"
	"github.com/ultravisor/beacon/sandbox/confine"
	"github.com/ultravisor/beacon/sandbox/wire"
)

// processName is the first argument of a process of the sandbox.
const processName = "beacon-sandbox"

// ready is true once Main has let the program go on.
var ready atomic.Bool

// Main makes the program a process of a sandbox if it was started as one: then it
// does not return. Otherwise it returns at once. It comes first in main, and in
// the TestMain of tests that make a Sandbox.
func Main() {
	if len(os.Args) != 1 || os.Args[0] != processName {
		ready.Store(true)
		return
	}
	stream, err := supervisor()
	if err != nil {
		fmt.Fprintln(os.Stderr, "a process of a sandbox is not started by hand:", err)
		os.Exit(2)
	}
	c := &child{conn: wire.New(stream)}
	err = c.conn.Serve(c)
	// The supervisor has gone, or has not kept to the protocol. What still runs here
	// is for nobody.
	if !errors.Is(err, wire.ErrClosed) {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(0)
}

// The methods of a process.
const (
	methodHello wire.Method = 1 + iota
	methodPing
	methodRegister
	methodLoad
	methodRun
	methodPull
	methodPush
)

const (
	noticeCancel wire.Method = 32 + iota
	noticeUnload
	noticeCallProgress
	noticeAside
)

// The methods of a supervisor.
const (
	noticeLog wire.Method = 64 + iota
	noticeProgress
	noticeClose
	noticeHold
	methodSpend
	methodHold
	methodRead
	methodSecret
	methodFetch
	methodCall
)

// A role is what a process is for.
type role int

const (
	roleRegister role = 1 + iota
	roleItems
)

// hello says what a process is for.
type hello struct {
	Role role
	// Dir is the folder of the process: what it reads is there, and in its folder
	// for temporary files it may write.
	Dir string
	// Write is one more folder that it may write to.
	Write string `json:",omitempty"`
	// Memory bounds what it has of memory for its guests, Extra what it has besides.
	// It gets CPU of time on the processors, 0 for no limit.
	Memory, Extra int64
	CPU           time.Duration
	Level         slog.Level // of log lines that anybody wants
	Lanes         int        // that came with the process, for items
}

// registerRequest is a wasmrt.Registration whose binary is in a file of the
// process's folder.
type registerRequest struct {
	Source source
	Dir    string
	Key    []byte
}

// binaryFile is the name of that file.
const binaryFile = "module.wasm"

// source is a wasmrt.Source without the binary and what cannot be handed over.
type source struct {
	Name   string
	Config beacon.Settings
	Limits wasmrt.Limits
	Pool   wasmrt.Pool
	WarmUp *hostfuncs.WarmUp
}

func sourceOf(s wasmrt.Source) source {
	return source{s.Name, s.Config, s.Limits, s.Pool, s.WarmUp}
}

func (s source) source() wasmrt.Source {
	return wasmrt.Source{Name: s.Name, Config: s.Config, Limits: s.Limits, Pool: s.Pool, WarmUp: s.WarmUp}
}

// maxRequest is how long a request to a process may be: a configuration may be
// long.
const maxRequest = 64 << 20

// maxReply is how long the reply to a request or call of an item may be: the
// outputs of an action, of which a character may take six bytes.
const maxReply = 128 << 20

// A child is this process, which holds modules for its supervisor.
type child struct {
	conn    *wire.Conn
	log     *slog.Logger
	memory  int64
	greeted bool
	items   *items // nil in a process that makes a module ready
}

// Most implements wire.Handler.
func (c *child) Most(method wire.Method, notice bool) int {
	switch {
	case notice && (method == noticeCancel || method == noticeUnload || method == noticeCallProgress || method == noticeAside):
		return maxRequest
	case notice:
	case method == methodPing:
		return 0
	case method == methodHello || method == methodRegister || method == methodLoad || method == methodRun || method == methodPush || method == methodPull:
		return maxRequest
	}
	return -1
}

// Request implements wire.Handler.
func (c *child) Request(id uint64, method wire.Method, payload []byte) error {
	if (method == methodHello) == c.greeted {
		return fmt.Errorf("%w: method %d now", wire.ErrProtocol, method)
	}
	switch method {
	case methodHello:
		var h hello
		if err := decode(payload, &h); err != nil {
			return err
		}
		c.greeted = true
		return c.answer(id, func() (any, error) { return c.begin(h) })
	case methodPing:
		c.conn.Reply(id, nil)
	case methodRegister:
		var r registerRequest
		if err := decode(payload, &r); err != nil {
			return err
		}
		go func() { _ = c.answer(id, func() (any, error) { return nil, c.register(r) }) }()
	case methodLoad:
		var r loadRequest
		if err := decode(payload, &r); err != nil {
			return err
		}
		go func() { _ = c.answer(id, func() (any, error) { return nil, c.items.load(r) }) }()
	case methodRun:
		r, err := parseRun(payload)
		if err != nil {
			return err
		}
		c.items.run(id, r)
	case methodPull:
		a, err := parseAmount(payload)
		if err != nil {
			return err
		}
		go c.items.pull(id, uint64(a.n)) //nolint:gosec // only a name
	case methodPush:
		d := wire.NewDecoder(payload)
		number, what, part := d.Uint(), d.Uint(), bytes.Clone(d.Bytes())
		if err := d.End(); err != nil {
			return err
		}
		go c.items.push(id, number, what, part)
	}
	return nil
}

// Notice implements wire.Handler.
func (c *child) Notice(method wire.Method, payload []byte) error {
	switch method {
	case noticeCancel:
		a, err := parseAmount(payload)
		if err != nil {
			return err
		}
		c.items.cancel(a.flight)
	case noticeUnload:
		d := wire.NewDecoder(payload)
		number := d.Uint()
		if err := d.End(); err != nil {
			return err
		}
		go c.items.unload(number)
	case noticeAside:
		d := wire.NewDecoder(payload)
		on := d.Bool()
		if err := d.End(); err != nil {
			return err
		}
		c.items.runtime.GiveWay(on)
	case noticeCallProgress:
		number, progress, err := parseProgress(payload)
		if err != nil {
			return err
		}
		c.items.called(number, progress)
	}
	return nil
}

func decode(payload []byte, into any) error {
	if err := json.Unmarshal(payload, into); err != nil {
		return fmt.Errorf("%w: %w", wire.ErrProtocol, err)
	}
	return nil
}

// answer replies with what do returns.
func (c *child) answer(id uint64, do func() (any, error)) error {
	reply, err := do()
	var raw []byte
	if err == nil && reply != nil {
		raw, err = json.Marshal(reply)
	}
	if err != nil {
		c.conn.Fail(id, failureOf(err))
		return nil
	}
	c.conn.Reply(id, raw)
	return nil
}

// failureOf is an error on its way to the supervisor. Only a *beacon.Error keeps
// its code: the others are of the host.
func failureOf(err error) wire.Failure {
	var ours *beacon.Error
	if errors.As(err, &ours) {
		return wire.Failure{Code: string(ours.Code), Message: short(ours.Message)}
	}
	return wire.Failure{Message: short(err.Error())}
}

// short is a message that fits into a failure: escaping makes text longer.
func short(text string) string {
	const most = 4 << 10
	if text = beacon.Excerpt(text, most); len(text) > most {
		text = beacon.Excerpt(text, most-len("…"))
	}
	return text
}

// begin prepares for what this process is for, and gives up all that it does not
// need for that.
func (c *child) begin(h hello) (confine.Report, error) {
	temporary := filepath.Join(h.Dir, temporary)
	for _, name := range []string{"TMPDIR", "TMP", "TEMP"} {
		if err := os.Setenv(name, temporary); err != nil {
			return confine.Report{}, fmt.Errorf("set the folder for temporary files: %w", err)
		}
	}
	c.memory, c.log = h.Memory, slog.New(&logHandler{conn: c.conn, level: h.Level, lines: new(atomic.Int64)})
	snapshot.Prepare() // opens what cannot be opened any more
	rules := confine.Rules{Read: []string{h.Dir}, Write: []string{temporary}, CPU: h.CPU, OpenFiles: 1 << 16}
	if h.Write != "" {
		rules.Write = append(rules.Write, h.Write)
	}
	if h.Extra > 0 {
		rules.Memory = h.Memory + h.Extra
		// It should rather collect garbage than end.
		debug.SetMemoryLimit(h.Extra / 4 * 3)
	}
	endAtLimit()
	if h.Role == roleItems {
		rt, err := wasmrt.New(wasmrt.Config{Memory: h.Memory, Budget: budget{c.conn}, Log: c.log})
		if err != nil {
			return confine.Report{}, err
		}
		c.items = newItems(c.conn, rt)
		for n := range h.Lanes {
			lane, err := openLane(n)
			if err != nil {
				return confine.Report{}, err
			}
			go c.items.serve(lane)
		}
	}
	closeInherited()
	return confine.Apply(rules), nil
}

// register makes a module ready: all that is to be known of it is in r.Dir then.
func (c *child) register(r registerRequest) error {
	binary, err := os.ReadFile(filepath.Join(filepath.Dir(os.TempDir()), binaryFile))
	if err != nil {
		return fmt.Errorf("read the module: %w", err)
	}
	rt, err := wasmrt.New(wasmrt.Config{CacheDir: r.Dir, CacheKey: r.Key, Memory: c.memory, Log: c.log})
	if err != nil {
		return err
	}
	src := r.Source.source()
	src.Binary = binary
	_, err = rt.Register(context.Background(), src)
	return err
}
