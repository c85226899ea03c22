package shell

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
)

// run runs a command to its end, whatever the reason: all of its process group
// is gone by then, or about to be.
func (p *Provider) run(ctx context.Context, job *beacon.Job, c *command) (outcome, error) {
	if err := context.Cause(ctx); err != nil {
		return outcome{}, err
	}
	cmd := &exec.Cmd{Path: c.argv[0], Args: c.argv, Env: c.env, Dir: c.dir}
	if c.stdin != nil {
		cmd.Stdin = c.stdin
	}
	if !hasFolder(cmd.Path) {
		// As the command itself would find it, and not the worker.
		path, err := lookPath(cmd.Path, c.env)
		if err != nil {
			return outcome{}, err
		}
		cmd.Path = path
	}
	p.cfg.Limits.apply(cmd)
	p.identity.apply(cmd)
	life := p.processes.begin(cmd)
	defer p.processes.end(life)
	attributes(cmd, c.line)

	last := &lastLine{report: job.Progress}
	out := &capture{what: "standard output", limit: p.maxBuffer, last: last}
	errs := &capture{what: "standard error", limit: p.maxBuffer, last: last}
	first, err := p.processes.launch(life, cmd, out, errs)
	if err != nil {
		return outcome{}, err
	}
	defer first.close()
	// Three things end a command from outside; the first of them says why.
	g := &group{first: first, grace: p.grace}
	defer context.AfterFunc(ctx, func() { g.terminate(context.Cause(ctx)) })()
	out.full, errs.full = g.terminate, g.terminate
	first.wait()
	code, err := g.reap()
	if err != nil {
		return outcome{}, fmt.Errorf("wait for the command: %w", err)
	}
	// All that the group has written is in the pipes by now. Somebody who left
	// the group may still have one of them open.
	first.finish()

	reason := g.why()
	if reason != nil && beacon.CodeOf(reason) == beacon.Canceled {
		return outcome{}, reason
	}
	ran := outcome{stdout: out.content(), stderr: errs.content(), code: code}
	if reason != nil {
		ran.reason = reason.Error()
		if ran.code == 0 { // it was asked to end, and did so in order
			ran.code = endedCode
		}
	}
	return ran, nil
}

// endedCode is the exit code of a command that was ended and says that all is
// well: that of timeout(1).
const endedCode = 124

// A group is the processes of one command.
type group struct {
	first *process
	grace time.Duration

	mu     sync.Mutex
	reason error
	reaped bool // its number may be another's
	timer  *time.Timer
}

// terminate asks the group to end, and kills it after the grace period.
func (g *group) terminate(why error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.reason != nil || g.reaped {
		return
	}
	g.reason = why
	g.first.signal(false)
	g.timer = time.AfterFunc(g.grace, func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.reaped {
			g.first.signal(true)
		}
	})
}

func (g *group) why() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.reason
}

// reap kills what is left of the group and takes leave of its first process,
// which has ended. It returns the exit code.
func (g *group) reap() (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.timer != nil {
		g.timer.Stop()
	}
	g.first.signal(true)
	g.reaped = true
	return g.first.take()
}

// A capture keeps what a command writes to one of its two pipes.
type capture struct {
	what  string
	limit int64
	last  *lastLine
	full  func(error) // called once, when there is more than the limit
	kept  bytes.Buffer
	over  bool
}

// take keeps bytes. What is over the limit is read and thrown away, until the
// command is gone.
func (c *capture) take(b []byte) {
	if len(b) == 0 {
		return
	}
	c.last.note(b)
	if room := c.limit - int64(c.kept.Len()); int64(len(b)) > room {
		b = b[:room]
		if !c.over {
			c.over = true
			c.full(beacon.Errorf(beacon.OutputLimit, "more than %d bytes on %s, which is the limit (MaxBufferBytes)", c.limit, c.what))
		}
	}
	c.kept.Write(b)
}

// strayTime is how long the end of a pipe is waited for after the command has
// ended. Only somebody who left its group can hold it open; what the group has
// written is read in any case.
const strayTime = 50 * time.Millisecond

// content is what was kept. Where it was cut off, no character is left in parts.
func (c *capture) content() []byte {
	b := c.kept.Bytes()
	if !c.over || utf8.Valid(b) {
		return b
	}
	for i := range min(utf8.UTFMax-1, len(b)) {
		if head := b[:len(b)-i-1]; utf8.Valid(head) {
			return head
		}
	}
	return b
}

// A lastLine reports the newest whole line of a command's output, from time to
// time.
type lastLine struct {
	report func(beacon.Progress)
	mu     sync.Mutex
	rest   []byte // of a line that goes on
	told   time.Time
}

const (
	lineInterval = 200 * time.Millisecond
	maxLine      = 200
)

func (l *lastLine) note(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	end := bytes.LastIndexAny(b, "\n\r")
	if end < 0 {
		l.rest = append(l.rest, b[:min(len(b), max(0, maxLine-len(l.rest)))]...)
		return
	}
	if time.Since(l.told) >= lineInterval {
		head := bytes.TrimRight(b[:end], "\r\n")
		begin := bytes.LastIndexAny(head, "\n\r") + 1
		line := head[begin:]
		if begin == 0 {
			line = append(l.rest, line[:min(len(line), maxLine)]...)
		}
		if text := beacon.Excerpt(string(bytes.TrimSpace(line[:min(len(line), maxLine)])), maxLine); text != "" {
			l.told = time.Now()
			l.report(beacon.Progress{Message: text})
		}
	}
	l.rest = append(l.rest[:0], b[end+1:][:min(len(b)-end-1, maxLine)]...)
}
