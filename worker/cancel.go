package worker

import (
	"time"

	"github.com/ultravisor/beacon/transport"
)

// An owner is the worker as its sessions see it.
type owner struct{ w *worker }

func (o owner) Active() []string {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()
	hashes := make([]string, 0, len(o.w.known))
	for hash := range o.w.known {
		hashes = append(hashes, hash)
	}
	return hashes
}

func (o owner) Cancel(hash string, attempt int, reason string) {
	w := o.w
	w.mu.Lock()
	defer w.mu.Unlock()
	err := transport.Canceled(reason)
	switch j := w.known[hash]; {
	case j == nil:
		w.remember(hash, attempt, err)
	case attempt != 0 && j.attempt > attempt: // an earlier delivery is meant
	case j.running:
		w.log.Info("the server canceled the item", "item", tag(hash), "reason", tag(reason))
		j.cancel(err)
	default: // its report is on the way
	}
}

// An unwanted item was canceled while it was on its way here.
type unwanted struct {
	hash    string
	attempt int // and those before; 0 means all
	err     error
	before  time.Time // later it is another attempt
}

// Bounds on what is remembered of items that never arrive.
const (
	mostUnwanted = 1024
	unwantedTime = time.Minute
)

// remember notes that an item is not wanted any more; mu is held.
func (w *worker) remember(hash string, attempt int, err error) {
	if len(w.unwanted) == mostUnwanted {
		w.unwanted = w.unwanted[1:]
	}
	w.unwanted = append(w.unwanted, unwanted{hash, attempt, err, time.Now().Add(unwantedTime)})
}

// recall gives the reason why an item that arrives is not wanted any more, nil
// if it is; mu is held.
func (w *worker) recall(hash string, attempt int) error {
	for i, u := range w.unwanted {
		if u.hash != hash {
			continue
		}
		w.unwanted = append(w.unwanted[:i:i], w.unwanted[i+1:]...)
		if time.Now().Before(u.before) && (u.attempt == 0 || attempt <= u.attempt) {
			return u.err
		}
		return w.recall(hash, attempt)
	}
	return nil
}
