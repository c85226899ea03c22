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
	w    *worker
	hash string
	end  chan struct{}
	kick chan struct{}
	task sync.WaitGroup

	mu    sync.Mutex
	ended bool
	fresh bool            // latest holds something that was not sent
	begun bool            // latest holds something at all
	last  beacon.Progress // the values that hold, without log lines
	lines []string        // log lines that were not sent
}

func newProgress(w *worker, hash string) *progress {
	p := &progress{w: w, hash: hash, end: make(chan struct{}), kick: make(chan struct{}, 1)}
	p.task.Go(p.run)
	return p
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
	p.mu.Unlock()
	select {
	case p.kick <- struct{}{}:
	default:
	}
}

// finish sends what was not sent and returns the log lines that could not be.
func (p *progress) finish() []string {
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	close(p.end)
	p.task.Wait()
	return p.lines
}

// offline is how long to wait before trying again to send.
const offline = time.Second

// progressTimeout bounds one report of progress.
const progressTimeout = 10 * time.Second

func (p *progress) run() {
	cfg := &p.w.cfg
	sent := time.Now() // the keep-alive counts from here
	earliest := sent
	timer := time.NewTimer(cfg.KeepAlive)
	defer timer.Stop()
	for {
		due, kick := sent.Add(cfg.KeepAlive), p.kick
		if p.unsent() {
			due, kick = earliest, nil
		}
		timer.Reset(time.Until(due))
		select {
		case <-p.end:
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
