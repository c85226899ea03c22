package hub

import (
	"sync"

	"github.com/ultravisor/beacon/hub/ledger"
)

// Bounds on what waits for a reader of a DispatchStream who is slower than the
// worker: progress beyond the first is dropped, bytes beyond the second end the
// stream, since a hole in them would not be noticed.
const (
	mostUpdates = 1024
	mostPending = 64 << 20
)

// A watcher is where somebody waits for an item. Who tells it never waits.
type watcher struct {
	live bool          // wants progress, too
	wake chan struct{} // holds one token when there is news

	mu       sync.Mutex
	updates  []progress
	bytes    int
	item     *ledger.Item
	aborted  bool
	overflow bool
}

func newWatcher(live bool) *watcher {
	return &watcher{live: live, wake: make(chan struct{}, 1)}
}

// news is what has happened since the last look.
type news struct {
	updates  []progress
	item     *ledger.Item // final
	aborted  bool         // the hub closes
	overflow bool         // bytes were lost
}

func (w *watcher) look() news {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := news{w.updates, w.item, w.aborted, w.overflow}
	w.updates, w.bytes = nil, 0
	return n
}

func (w *watcher) progress(p progress) {
	if !w.live {
		return
	}
	w.tell(func() {
		if w.bytes+len(p.binary) > mostPending {
			w.overflow = true
		}
		if w.overflow || len(w.updates) >= mostUpdates && p.binary == nil {
			return
		}
		w.updates = append(w.updates, p)
		w.bytes += len(p.binary)
	})
}

func (w *watcher) end(item ledger.Item) { w.tell(func() { w.item = &item }) }

func (w *watcher) abort() { w.tell(func() { w.aborted = true }) }

func (w *watcher) tell(change func()) {
	w.mu.Lock()
	change()
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}
