// Package fallback connects by the best way that works.
package fallback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// DefaultProbeInterval is how often a better way is tried.
const DefaultProbeInterval = time.Minute

// A Way is one way to connect.
type Way struct {
	Name string // for people: "websocket"
	Dial transport.Dial
	// Probe finds out whether the way works, without registering; nil means
	// that nobody comes back to this way while a later one works.
	Probe func(ctx context.Context) error
}

// Config holds what has a sensible default.
type Config struct {
	ProbeInterval time.Duration // 0 means one minute
	Logger        *slog.Logger  // nil means slog.Default()
}

// Dial tries ways in order until one connects. A server that rejects the
// beacon, and a configuration that is wrong, end the attempt at once. If all
// fail, the error tells of each.
//
// While a later way is in use the earlier ones are probed; when one works
// again, the session ends with ErrDisconnected, so that its user dials again.
// It ends once every item that it gave out has been reported, or else at the
// second probe that works.
func Dial(cfg Config, ways ...Way) transport.Dial {
	if cfg.ProbeInterval <= 0 {
		cfg.ProbeInterval = DefaultProbeInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return func(ctx context.Context) (transport.Session, error) {
		var errs []error
		for i, way := range ways {
			s, err := way.Dial(ctx)
			if err == nil {
				return watch(s, cfg, ways[:i]), nil
			}
			if code := beacon.CodeOf(err); code == beacon.Rejected || code == beacon.Invalid || ctx.Err() != nil {
				return nil, err
			}
			errs = append(errs, err)
			if i+1 < len(ways) {
				cfg.Logger.Warn("cannot connect this way; trying another", "way", way.Name, "next", ways[i+1].Name, "err", err)
			}
		}
		return nil, errors.Join(errs...)
	}
}

// watch wraps a session that was not the first choice.
func watch(s transport.Session, cfg Config, better []Way) transport.Session {
	var probed []Way
	for _, way := range better {
		if way.Probe != nil {
			probed = append(probed, way)
		}
	}
	if len(probed) == 0 {
		return s
	}
	w := &watched{Session: s, cfg: cfg, better: probed, open: map[string]bool{}, idle: make(chan struct{}, 1), done: make(chan struct{})}
	w.life, w.end = context.WithCancel(context.Background())
	w.tasks.Go(w.watch)
	return w
}

// watched is a session that ends when a better way works.
type watched struct {
	transport.Session
	cfg    Config
	better []Way

	life  context.Context
	end   context.CancelFunc
	tasks sync.WaitGroup
	done  chan struct{}
	idle  chan struct{} // the last open item may have been reported

	mu      sync.Mutex
	open    map[string]bool // hashes given out and not yet reported
	leaving string          // the way that works again
}

func (w *watched) Done() <-chan struct{} { return w.done }

// watch probes, and closes done when the session is over.
func (w *watched) watch() {
	defer close(w.done)
	tick := time.NewTicker(w.cfg.ProbeInterval)
	defer tick.Stop()
	worked := 0
	for {
		select {
		case <-w.life.Done():
			return
		case <-w.Session.Done():
			return
		case <-w.idle:
		case <-tick.C:
			if name := w.probe(); name != "" {
				worked++
				w.mu.Lock()
				w.leaving = name
				w.mu.Unlock()
			} else {
				worked = 0
				w.mu.Lock()
				w.leaving = ""
				w.mu.Unlock()
			}
		}
		w.mu.Lock()
		over := w.leaving != "" && (len(w.open) == 0 || worked >= 2)
		name := w.leaving
		w.mu.Unlock()
		if over {
			w.cfg.Logger.Info("a better way to connect works again; connecting anew", "way", name)
			return
		}
	}
}

func (w *watched) probe() string {
	for _, way := range w.better {
		err := way.Probe(w.life)
		if err == nil {
			return way.Name
		}
		w.cfg.Logger.Debug("a better way to connect still does not work", "way", way.Name, "err", err)
	}
	return ""
}

func (w *watched) Next(ctx context.Context) (beacon.WorkItem, error) {
	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-w.done:
			cancel()
		case <-stop:
		}
	})
	item, err := w.Session.Next(inner)
	close(stop)
	watch.Wait()
	var malformed *transport.ItemError
	switch {
	case err == nil:
		w.opened(item.Hash)
	case errors.As(err, &malformed):
		w.opened(malformed.Hash)
	case ctx.Err() == nil && inner.Err() != nil:
		err = w.ended()
	}
	return item, err
}

func (w *watched) ended() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.leaving == "" {
		return transport.ErrDisconnected
	}
	return fmt.Errorf("%w: %s available again", transport.ErrDisconnected, w.leaving)
}

func (w *watched) opened(hash string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.open[hash] = true
}

func (w *watched) reported(hash string, err error) error {
	if err == nil || errors.Is(err, transport.ErrRefused) {
		w.mu.Lock()
		delete(w.open, hash)
		last := len(w.open) == 0 && w.leaving != ""
		w.mu.Unlock()
		if last {
			select {
			case w.idle <- struct{}{}:
			default:
			}
		}
	}
	return err
}

func (w *watched) Complete(ctx context.Context, hash string, r beacon.Result) error {
	return w.reported(hash, w.Session.Complete(ctx, hash, r))
}

func (w *watched) Fail(ctx context.Context, hash, message string, log []string) error {
	return w.reported(hash, w.Session.Fail(ctx, hash, message, log))
}

// Deliver implements transport.Deliverer.
func (w *watched) Deliver(ctx context.Context, reports []transport.Report, sent func()) []error {
	errs := transport.Deliver(ctx, w.Session, reports, sent)
	for i, r := range reports {
		errs[i] = w.reported(r.Hash, errs[i])
	}
	return errs
}

func (w *watched) Close(ctx context.Context) error {
	w.end()
	err := w.Session.Close(ctx)
	w.tasks.Wait()
	return err
}
