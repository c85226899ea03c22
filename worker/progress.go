package worker

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// A progress passes on what one item reports, as often as it should.
type progress struct {
	w     *worker
	hash  string
	timer *time.Timer // until the first sign of life

	mu    sync.Mutex
	began time.Time
	task  *sending // nil until there is something to send
	ended bool
	fresh bool            // latest holds something that was not sent
	begun bool            // latest holds something at all
	last  beacon.Progress // the values that hold, without log lines
	lines []string        // log lines that were not sent
}

// A sending is the goroutine that passes on, and how to reach it. Most items
// never need one.
type sending struct {
	end  chan struct{}
	kick chan struct{}
	done sync.WaitGroup
}

func newProgress(w *worker, hash string) *progress {
	p := &progress{w: w, hash: hash, began: time.Now()}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timer = time.AfterFunc(w.cfg.KeepAlive, p.start)
	return p
}

// start begins to pass on.
func (p *progress) start() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.startLocked()
}

// startLocked is start; mu is held. It gives nil after the end of the item.
func (p *progress) startLocked() *sending {
	if p.task == nil && !p.ended {
		p.timer.Stop()
		task := &sending{end: make(chan struct{}), kick: make(chan struct{}, 1)}
		task.done.Go(func() { p.run(task) })
		p.task = task
	}
	return p.task
}

// note merges what an item reports. It may be called from any goroutine of the
// provider, as often as it likes; after the end of the item it does nothing.
func (p *progress) note(n beacon.Progress) {
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return
	}
	if n.HasPercent && !math.IsNaN(n.Percent) {
		percent := min(max(n.Percent, 0), 100)
		if p.last.HasPercent {
			percent = max(percent, p.last.Percent)
		}
		p.last.Percent, p.last.HasPercent = percent, true
	}
	if n.Message != "" {
		p.last.Message = n.Message
	}
	if n.Step > 0 {
		p.last.Step = n.Step
	}
	if n.TotalSteps > 0 {
		p.last.TotalSteps = n.TotalSteps
	}
	p.lines = append(p.lines, n.Log...)
	p.fresh, p.begun = true, true
	task := p.startLocked()
	p.mu.Unlock()
	signal(task.kick)
}

// finish sends what was not sent and returns the log lines that could not be.
func (p *progress) finish() []string {
	p.timer.Stop()
	p.mu.Lock()
	p.ended = true
	task := p.task
	p.mu.Unlock()
	if task == nil {
		return nil
	}
	close(task.end)
	task.done.Wait()
	return p.lines
}

// offline is how long to wait before trying again to send.
const offline = time.Second

// progressTimeout bounds one report of progress.
const progressTimeout = 10 * time.Second

func (p *progress) run(task *sending) {
	cfg := &p.w.cfg
	sent := p.began // the keep-alive counts from here
	earliest := sent
	timer := time.NewTimer(cfg.KeepAlive)
	defer timer.Stop()
	for {
		due, kick := sent.Add(cfg.KeepAlive), task.kick
		if p.unsent() {
			due, kick = earliest, nil
		}
		timer.Reset(time.Until(due))
		select {
		case <-task.end:
			if p.unsent() {
				p.send() // what cannot be sent stays in lines
			}
			return
		case <-kick:
			continue
		case <-timer.C:
		}
		pause := cfg.ProgressInterval
		if !p.send() {
			pause = max(pause, offline)
		}
		sent = time.Now()
		earliest = sent.Add(pause)
	}
}

func (p *progress) unsent() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fresh
}

// send passes on what there is, or a sign of life.
func (p *progress) send() bool {
	p.mu.Lock()
	n := p.last
	if !p.begun {
		n.Message = "running"
	}
	lines := p.lines
	p.fresh, p.lines = false, nil
	p.mu.Unlock()
	n.Log = lines

	err := transport.ErrDisconnected
	if s := p.w.session(); s != nil {
		ctx, cancel := context.WithTimeout(context.Background(), progressTimeout)
		err = s.Progress(ctx, p.hash, n)
		cancel()
	}
	if err == nil {
		return true
	}
	if !errors.Is(err, transport.ErrDisconnected) {
		p.w.log.Warn("progress could not be sent", "item", tag(p.hash), "err", err)
	}
	p.mu.Lock()
	p.fresh, p.lines = true, append(lines, p.lines...)
	p.mu.Unlock()
	return false
}
