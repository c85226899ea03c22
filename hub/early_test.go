package hub_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/protocol"
)

// A diary counts what is written into a journal, and can refuse it.
type diary struct {
	journal.Journal

	records atomic.Int64
	full    atomic.Bool
}

func (d *diary) Append(ctx context.Context, id string, data []byte) error {
	if d.full.Load() {
		return errors.Join(journal.ErrFull, errors.New("no room in the diary"))
	}
	d.records.Add(1)
	return d.Journal.Append(ctx, id, data)
}

// What a submitter waits for is written down with its result, and by itself
// when that takes a while; everything else before anybody hears of it.
func TestWhatIsAwaitedIsWrittenWithItsResult(t *testing.T) {
	d := &diary{Journal: journal.NewMemory()}
	onStreet(t, hub.Config{Journal: d}, func(t *testing.T, s street) {
		w, _ := s.worker()
		w.register("w", 2, "A")
		synctest.Wait()
		written := func(what func()) int64 {
			before := d.records.Load()
			what()
			synctest.Wait()
			return d.records.Load() - before
		}
		dispatch := func() chan answer {
			out := make(chan answer, 1)
			go func() { out <- s.post("/Beacon/Work/Dispatch", `{"Capability":"A","Settings":{"Text":"<&>"}}`) }()
			return out
		}
		var hash string
		var got chan answer
		require.EqualValues(t, 0, written(func() {
			got = dispatch()
			hash = w.item().WorkItemHash
		}))
		require.Equal(t, protocol.StatusRunning, s.get("/Beacon/Work/" + hash).json(t)["Status"])
		require.EqualValues(t, 1, written(func() {
			w.complete(hash)
			require.Equal(t, http.StatusOK, (<-got).status)
		}), "both at once")

		require.EqualValues(t, 1, written(func() {
			got = dispatch()
			hash = w.item().WorkItemHash
			time.Sleep(20 * time.Millisecond)
		}), "one that takes a while")
		require.EqualValues(t, 1, written(func() {
			w.complete(hash)
			require.Equal(t, http.StatusOK, (<-got).status)
		}))

		var waiting string
		require.EqualValues(t, 2, written(func() {
			waiting = s.enqueue(`{"Capability":"A"}`)
			require.Equal(t, waiting, w.item().WorkItemHash)
			w.complete(waiting)
		}), "nobody waits for it")

		// Where something else is due, or waits, order is kept.
		s.enqueue(`{"Capability":"B"}`)
		require.EqualValues(t, 2, written(func() {
			got = dispatch()
			hash = w.item().WorkItemHash
			w.complete(hash)
			require.Equal(t, http.StatusOK, (<-got).status)
		}), "something waits")

		// Nothing is lost in a hub that finds no room for a result.
		w.register("w", 2, "A", "B")
		w.complete(w.item().WorkItemHash)
		synctest.Wait()
		got = dispatch()
		hash = w.item().WorkItemHash
		d.full.Store(true)
		w.complete(hash)
		_, err := w.raw()
		require.Error(t, err, "its connection is closed, so that it reports again")
		require.Contains(t, s.log.String(), "no room in the diary")
		d.full.Store(false)
		time.Sleep(time.Minute)
		require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+hash+"/Complete", `{"Outputs":{"Result":"late"}}`).status)
		require.Contains(t, string((<-got).raw), "late")
		_ = w.conn.CloseNow()

		// What is written down leads the next hub to the same.
		items := string(s.get("/Beacon/Items?list=finished").raw)
		require.Equal(t, 6, strings.Count(items, `"Status":"Complete"`))
		require.NoError(t, s.hub.Close(context.Background()))
		next := direct{t, hub.New(hub.Config{Log: silent, Journal: d.Journal})}
		require.Equal(t, items, string(next.get("/Beacon/Items?list=finished").raw))
		require.NoError(t, next.hub.Close(context.Background()))
	})
}

// A hub that ends before it has written down what a submitter waits for has told
// nobody of it; the next one knows nothing, and says so to the worker.
func TestWhatNobodyWasToldOfMayBeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := journal.NewMemory()
		var hash string
		first := direct{t, hub.New(hub.Config{Log: silent, Journal: memory})}
		id := first.register("p", "1")
		got := make(chan answer, 1)
		durable := first.enqueue(`{"Capability":"A"}`)
		require.Equal(t, durable, first.poll(id))
		synctest.Wait()
		go func() { got <- first.post("/Beacon/Work/Dispatch", `{"Capability":"B"}`) }()
		synctest.Wait()
		for _, it := range strings.Split(string(first.get("/Beacon/Items").raw), `"WorkItemHash":"`)[1:] {
			if at, _, _ := strings.Cut(it, `"`); at != durable {
				hash = at
			}
		}
		require.NotEmpty(t, hash)

		second := direct{t, hub.New(hub.Config{Log: silent, Journal: memory})}
		require.Equal(t, http.StatusNotFound, second.get("/Beacon/Work/"+hash).status)
		require.Equal(t, http.StatusServiceUnavailable, (<-got).status)
		a := second.post("/Beacon/Work/"+hash+"/Complete", `{}`)
		require.Equal(t, http.StatusBadRequest, a.status)
		require.Contains(t, a.json(t)["Error"], "not found")
		require.Equal(t, http.StatusOK, second.post("/Beacon/Work/"+durable+"/Complete", `{}`).status)
		require.NoError(t, first.hub.Close(context.Background()))
		require.NoError(t, second.hub.Close(context.Background()))
	})
}
