package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/ultravisor/beacon"
)

// A bar shows progress: a line that is rewritten on a terminal, now and then a
// line of its own elsewhere. It may be updated from several goroutines.
type bar struct {
	w        io.Writer
	terminal bool
	quiet    bool
	width    int

	mu    sync.Mutex
	last  time.Time
	shown string
	text  string
}

func newBar(w io.Writer, quiet bool) *bar {
	b := &bar{w: w, quiet: quiet, terminal: isTerminal(w), width: 80}
	if f, ok := w.(*os.File); ok && b.terminal {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
			b.width = width
		}
	}
	return b
}

func (b *bar) update(p beacon.Progress) {
	if b.quiet {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text = line(p)
	pause := 100 * time.Millisecond
	if !b.terminal {
		pause = 2 * time.Second
	}
	if time.Since(b.last) >= pause {
		b.last = time.Now()
		b.draw()
	}
}

// end shows the last state and leaves the line.
func (b *bar) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.text == "" {
		return
	}
	b.draw()
	if b.terminal {
		fmt.Fprintln(b.w)
	}
	b.text, b.shown = "", ""
}

func (b *bar) draw() {
	if b.text == b.shown {
		return
	}
	b.shown = b.text
	if !b.terminal {
		fmt.Fprintln(b.w, b.text)
		return
	}
	text := []rune(b.text)
	if len(text) >= b.width {
		text = text[:b.width-1]
	}
	fmt.Fprintf(b.w, "\r%s\x1b[K", string(text))
}

// line words progress: [#####.....]  50% message (step 2 of 4).
func line(p beacon.Progress) string {
	const cells = 24
	var parts []string
	if p.HasPercent {
		full := min(max(int(p.Percent/100*cells), 0), cells)
		parts = append(parts, fmt.Sprintf("[%s%s] %3.0f%%", strings.Repeat("#", full), strings.Repeat(".", cells-full), p.Percent))
	}
	if p.Message != "" {
		parts = append(parts, beacon.Excerpt(p.Message, 200))
	}
	if p.TotalSteps > 0 {
		parts = append(parts, fmt.Sprintf("(step %d of %d)", p.Step, p.TotalSteps))
	}
	return strings.Join(parts, " ")
}
