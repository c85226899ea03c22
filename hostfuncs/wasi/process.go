package wasi

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// Config is what a guest gets. Its zero value is a guest without arguments,
// environment, input or files, whose output is dropped.
type Config struct {
	// Args are the arguments; the first is the program's name.
	Args []string
	// Env is the environment, each "NAME=value", and nothing else.
	Env []string
	// Stdin must not block: a reader of memory or of a file. nil is empty.
	Stdin io.Reader
	// Stdout and Stderr must not block, nor keep what is written. An error of
	// theirs stops the guest, with that error as the cause. nil drops.
	Stdout, Stderr io.Writer
	// FS has the files; nil means none.
	FS *guestfs.FS
	// Preopens are the guest's names for the root of FS, such as "/work" and "/".
	// They become descriptors from 3 on.
	Preopens []string
	// Resolution of the clocks, 1 ms by default.
	Resolution time.Duration
	// Random is the source of random bytes, by default crypto/rand.
	Random io.Reader
	// Clock, if any, is told what a clock (0 real, 1 monotonic) shows, in
	// nanoseconds, and returns what the guest is to see.
	Clock func(id uint32, now uint64) uint64
	// Descriptors is how many may be open, the standard streams and preopens
	// included; at most, and by default, 1,024. Files have the limit of FS besides.
	Descriptors int
}

// A Process is the state of one guest working on one item. A guest calls one
// function at a time, and so may use a Process without locks; nothing else may
// use it meanwhile.
type Process struct {
	cfg    Config
	table  []descriptor // nil until it is needed
	flags  []uint16     // that its first descriptors begin with
	exited bool
	code   uint32
}

// NewProcess returns the state of a guest that has not started.
func NewProcess(cfg Config) *Process {
	if cfg.Resolution <= 0 {
		cfg.Resolution = time.Millisecond
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Stdout == nil {
		cfg.Stdout = io.Discard
	}
	if cfg.Stderr == nil {
		cfg.Stderr = io.Discard
	}
	if cfg.FS == nil {
		cfg.Preopens = nil
	}
	if cfg.Descriptors <= 0 || cfg.Descriptors > maxDescriptors {
		cfg.Descriptors = maxDescriptors
	}
	return &Process{cfg: cfg}
}

// open makes the table of descriptors, if it is not there: many guests never
// look at one.
func (p *Process) open() {
	if p.table != nil {
		return
	}
	p.table = make([]descriptor, 3, 3+len(p.cfg.Preopens)+2)
	p.table[0] = descriptor{kind: kindStdin}
	p.table[1] = descriptor{kind: kindOutput, writer: p.cfg.Stdout}
	p.table[2] = descriptor{kind: kindOutput, writer: p.cfg.Stderr}
	for _, name := range p.cfg.Preopens {
		p.table = append(p.table, descriptor{kind: kindPreopen, preopen: name})
	}
	for i := range min(len(p.table), len(p.flags)) {
		p.table[i].flags = p.flags[i]
	}
}

// Continue gives the descriptors of a process that has not started the flags
// that another one's Flags returned.
func (p *Process) Continue(flags []uint16) {
	if p.table == nil {
		p.flags = flags
	}
}

// Attach gives the process other files than its Config had, for a guest that
// initialises before there are any. Files that are open stay open.
func (p *Process) Attach(files *guestfs.FS) { p.cfg.FS = files }

// Flags returns the flags of the standard descriptors and preopens, for a
// process that is to Continue where this one was. ok is false if the guest
// has opened, closed or moved descriptors, or has exited: no other process can
// go on from there.
func (p *Process) Flags() (flags []uint16, ok bool) {
	fresh := NewProcess(p.cfg)
	p.open()
	fresh.open()
	if len(p.table) < len(fresh.table) || p.exited {
		return nil, false
	}
	for i, d := range p.table {
		if i >= len(fresh.table) {
			if d.kind != kindNone {
				return nil, false
			}
			continue
		}
		if want := fresh.table[i]; d.kind != want.kind || d.preopen != want.preopen || d.file != nil {
			return nil, false
		}
		flags = append(flags, d.flags)
	}
	return flags, true
}

// Exited returns the code given to proc_exit, if the guest called it.
func (p *Process) Exited() (code uint32, ok bool) { return p.code, p.exited }

// Close closes the files that the guest left open.
func (p *Process) Close() error {
	var failed error
	for i := range p.table {
		if err := p.table[i].close(); err != nil && failed == nil {
			failed = err
		}
	}
	p.table = make([]descriptor, 0)
	return failed
}

// Exit is the cause with which a guest is stopped that calls proc_exit.
type Exit struct{ Code uint32 }

// Error gives the code.
func (e *Exit) Error() string { return fmt.Sprintf("the guest exited with code %d", e.Code) }

func procExit(p *Process, c *abi.Call) abi.Errno {
	if !p.exited {
		p.exited, p.code = true, c.U32(0)
	}
	panic(&abi.Stop{Cause: &Exit{c.U32(0)}})
}

func notImplemented(*Process, *abi.Call) abi.Errno { return eNotImplement }

func schedYield(*Process, *abi.Call) abi.Errno {
	runtime.Gosched()
	return success
}

// randomGet fills the buffer piece by piece. It does not refuse a large one:
// to Go's crypto/rand that is fatal.
func randomGet(p *Process, c *abi.Call) abi.Errno {
	b, ok := c.View(0, c.U32(1))
	if !ok {
		return eFault
	}
	for len(b) > 0 {
		if c.Ctx.Err() != nil {
			panic(&abi.Stop{Cause: context.Cause(c.Ctx)})
		}
		piece := b[:min(len(b), maxBuffer)]
		if _, err := io.ReadFull(p.cfg.Random, piece); err != nil {
			return eIO
		}
		b = b[len(piece):]
	}
	return success
}

func argsGet(p *Process, c *abi.Call) abi.Errno         { return putStrings(c, p.cfg.Args) }
func argsSizesGet(p *Process, c *abi.Call) abi.Errno    { return putSizes(c, p.cfg.Args) }
func environGet(p *Process, c *abi.Call) abi.Errno      { return putStrings(c, p.cfg.Env) }
func environSizesGet(p *Process, c *abi.Call) abi.Errno { return putSizes(c, p.cfg.Env) }

// sizesOf returns the number of strings and the bytes they take with a zero
// after each.
func sizesOf(strings []string) (count, bytes uint32, ok bool) {
	total := 0
	for _, s := range strings {
		total += len(s) + 1
		if total > maxArguments {
			return 0, 0, false
		}
	}
	return uint32(len(strings)), uint32(total), true //nolint:gosec // both at most maxArguments
}

func putSizes(c *abi.Call, strings []string) abi.Errno {
	count, bytes, ok := sizesOf(strings)
	if !ok {
		return eTooBig
	}
	c.PutU32(0, count)
	c.PutU32(1, bytes)
	return success
}

func putStrings(c *abi.Call, strings []string) abi.Errno {
	count, bytes, ok := sizesOf(strings)
	if !ok {
		return eTooBig
	}
	table, ok := c.View(0, count*4)
	if !ok {
		return eFault
	}
	text, ok := c.View(1, bytes)
	if !ok {
		return eFault
	}
	at := c.U32(1)
	for i, s := range strings {
		binary.LittleEndian.PutUint32(table[i*4:], at)
		n := copy(text, s)
		text[n] = 0
		text = text[n+1:]
		at += uint32(n + 1) //nolint:gosec // at most maxArguments
	}
	return success
}
