package beacontest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/transport"
)

// A Coordinator is a server's end of a transport, as TestTransport needs it.
// Server is one.
type Coordinator interface {
	// Push makes the server give out items, to whomever asks or is connected.
	Push(items ...beacon.WorkItem)
	// Report waits for the next report that was not returned yet.
	Report(ctx context.Context) (Report, error)
	// Progress returns what was reported about an item so far.
	Progress(hash string) []beacon.Progress
	// Cancel takes back an item that the beacon has.
	Cancel(hash, reason string)
	// Active lists, sorted, what the beacon's last sign of life says that it
	// has. Drained reports whether it has said that it wants no more.
	Active() []string
	Drained() bool
	// Drop cuts the link; it can be opened again at once.
	Drop()
	// Connected reports whether a beacon is registered.
	Connected() bool
}

// patience is for what should happen at once, on a machine that is slow and busy:
// only what hangs takes so long.
const patience = 2 * time.Minute

// TestTransport checks that a transport keeps the contract of package
// transport. It calls start for each of its subtests, for a server of its own.
func TestTransport(t *testing.T, start func(t *testing.T) (transport.Dial, Coordinator)) {
	tests := map[string]func(t *testing.T, dial transport.Dial, c Coordinator){
		"registers and leaves":      testLeave,
		"passes items on whole":     testItem,
		"reports":                   testReport,
		"reports many at once":      testDeliver,
		"drops no item":             testBacklog,
		"Next ends with its ctx":    testNextContext,
		"reports twice":             testTwice,
		"passes cancellations on":   testCancel,
		"says what it has":          testActive,
		"refuses what is not JSON":  testNotJSON,
		"escapes hashes":            testHashes,
		"loses its link":            testDrop,
		"is safe for many at once":  testConcurrent,
		"carries a large result":    testLarge,
		"carries text of any bytes": testBytes,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dial, c := start(t)
			test(t, dial, c)
		})
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	t.Cleanup(cancel)
	return ctx
}

func open(t *testing.T, dial transport.Dial) transport.Session {
	t.Helper()
	s, err := dial(within(t))
	if err != nil {
		t.Fatalf("dial: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		_ = s.Close(ctx) // tests that mean something by it close before
	})
	return s
}

func next(t *testing.T, s transport.Session) beacon.WorkItem {
	t.Helper()
	item, err := s.Next(within(t))
	if err != nil {
		t.Fatalf("Next: %v", err)
	}
	return item
}

func reported(t *testing.T, c Coordinator) Report {
	t.Helper()
	r, err := c.Report(within(t))
	if err != nil {
		t.Fatalf("no report arrived: %v", err)
	}
	return r
}

func item(hash string) beacon.WorkItem {
	return beacon.WorkItem{Hash: hash, Capability: "Test", Action: "Run", Settings: beacon.Settings{}}
}

func testLeave(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	if s.BeaconID() == "" || s.Transport() == "" {
		t.Errorf("BeaconID %q, Transport %q; want neither empty", s.BeaconID(), s.Transport())
	}
	if !c.Connected() {
		t.Error("the server knows no beacon after Dial")
	}
	select {
	case <-s.Done():
		t.Error("Done is closed although the session is open")
	default:
	}
	if err := s.Close(within(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	if c.Connected() {
		t.Error("the server still knows the beacon after Close")
	}
	<-s.Done()
	if _, err := s.Next(within(t)); !isDisconnected(err) {
		t.Errorf("Next after Close: %v; want ErrDisconnected", err)
	}
	if err := s.Close(within(t)); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testItem(t *testing.T, dial transport.Dial, c Coordinator) {
	want := beacon.WorkItem{
		Hash: "wi-run-node-1", Capability: "Shell", Action: "Execute", OperationHash: "OPR-1", Timeout: 90 * time.Second,
		Settings: beacon.Settings{"Command": []byte(`"echo hi"`), "Big": []byte(`12345678901234567890`), "Nested": []byte(`{"a":[1,null]}`)},
	}
	s := open(t, dial)
	c.Push(want)
	got := next(t, s)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("item arrived as\n%+v, want\n%+v", got, want)
	}
}

func testReport(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("ok"), item("bad"))
	next(t, s)
	p := beacon.Progress{Percent: 33, HasPercent: true, Message: "step 1", Step: 1, TotalSteps: 3, Log: []string{"log 1"}}
	if err := s.Progress(within(t), "ok", p); err != nil {
		t.Fatalf("Progress: %v", err)
	}
	if err := s.Complete(within(t), "ok", beacon.Result{Outputs: beacon.Outputs{"StdOut": "hi\n", "ExitCode": 0}, Log: []string{"a", "b"}}); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	r := reported(t, c)
	if r.Hash != "ok" || r.Failed || r.Result.Outputs["StdOut"] != "hi\n" || r.Result.Outputs["ExitCode"] != 0.0 || fmt.Sprint(r.Result.Log) != "[a b]" {
		t.Errorf("the result arrived as %+v", r)
	}
	if got := c.Progress("ok"); len(got) != 1 || fmt.Sprint(got[0]) != fmt.Sprint(p) {
		t.Errorf("progress arrived as %+v before the result, want %+v", got, p)
	}
	next(t, s)
	if err := s.Fail(within(t), "bad", "provider says no", []string{"c"}); err != nil {
		t.Fatalf("Fail: %v", err)
	}
	if r := reported(t, c); r.Hash != "bad" || !r.Failed || r.Message != "provider says no" || fmt.Sprint(r.Result.Log) != "[c]" {
		t.Errorf("the failure arrived as %+v", r)
	}
}

func testDeliver(t *testing.T, dial transport.Dial, c Coordinator) {
	const n = 300
	s := open(t, dial)
	var reports []transport.Report
	sent, calls := 0, 0
	for i := range n {
		hash := fmt.Sprint("wi-", i)
		c.Push(item(hash))
		r := transport.Report{Hash: next(t, s).Hash, Result: beacon.Result{Outputs: beacon.Outputs{"Result": hash}, Log: []string{"a"}}}
		switch i % 10 {
		case 3:
			r.Failed, r.Message = true, "provider says no"
		case 7:
			r.Result.Outputs = beacon.Outputs{"Result": func() {}}
		}
		reports = append(reports, r)
		if len(reports) == 8 || i == n-1 { // as many as the beacon registered for
			reports = append(reports, transport.Report{Hash: "unheard of"})
			for k, err := range transport.Deliver(within(t), s, reports, func() { sent++ }) {
				if _, odd := reports[k].Result.Outputs["Result"].(func()); isRefused(err) != odd || err != nil && !odd {
					t.Errorf("delivery of %s: %v", reports[k].Hash, err)
				} else if odd {
					if err := s.Fail(within(t), reports[k].Hash, "not JSON", nil); err != nil {
						t.Errorf("Fail after that: %v", err)
					}
				}
			}
			reports = nil
			if calls++; sent != calls {
				t.Fatalf("%d calls of Deliver, %d of sent", calls, sent)
			}
		}
	}
	for range n {
		r := reported(t, c)
		for r.Hash == "unheard of" { // a server may keep it or not
			r = reported(t, c)
		}
		var i int
		if _, err := fmt.Sscanf(r.Hash, "wi-%d", &i); err != nil {
			t.Fatalf("report of %s", r.Hash)
		}
		if r.Failed != (i%10 == 3 || i%10 == 7) || !r.Failed && (r.Result.Outputs["Result"] != r.Hash || fmt.Sprint(r.Result.Log) != "[a]") {
			t.Errorf("report of %s: %+v", r.Hash, r)
		}
	}
}

func testBacklog(t *testing.T, dial transport.Dial, c Coordinator) {
	const n = 50
	s := open(t, dial)
	for i := range n {
		c.Push(item(fmt.Sprint("wi-", i)))
	}
	seen := map[string]bool{}
	for len(seen) < n {
		hash := next(t, s).Hash
		if seen[hash] {
			t.Fatalf("%s arrived twice", hash)
		}
		seen[hash] = true
		if err := s.Complete(within(t), hash, beacon.Result{}); err != nil {
			t.Fatalf("Complete: %v", err)
		}
	}
}

func testNextContext(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := s.Next(ctx)
		ended <- err
	}()
	cancel()
	if err := <-ended; err == nil || isDisconnected(err) {
		t.Errorf("Next with a canceled context: %v; want its error", err)
	}
	c.Push(item("later"))
	if got := next(t, s); got.Hash != "later" {
		t.Errorf("got %q", got.Hash)
	}
}

// An owner notes what it is told.
type owner struct {
	active   []string
	canceled chan [2]string
}

func (o *owner) Active() []string                         { return o.active }
func (o *owner) Cancel(hash string, _ int, reason string) { o.canceled <- [2]string{hash, reason} }

func testCancel(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	o := &owner{active: []string{"taken"}, canceled: make(chan [2]string, 16)}
	s.Attend(o)
	c.Push(item("taken"))
	next(t, s)
	waiting, stop := context.WithCancel(within(t))
	var task sync.WaitGroup
	defer task.Wait()
	defer stop()
	task.Go(func() { _, _ = s.Next(waiting) }) // what polls learns of it that way
	c.Cancel("taken", "enough")
	select {
	case got := <-o.canceled:
		if got != [2]string{"taken", "enough"} {
			t.Errorf("canceled: %q", got)
		}
	case <-within(t).Done():
		t.Fatal("the owner did not learn that an item was canceled")
	}
}

func testActive(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	s.Attend(&owner{active: []string{"b", "a"}})
	if c.Drained() {
		t.Error("the beacon is drained from the start")
	}
	if err := s.Drain(within(t)); err != nil {
		t.Fatalf("Drain: %v", err)
	}
	for deadline := within(t); !c.Drained() || fmt.Sprint(c.Active()) != "[a b]"; time.Sleep(time.Millisecond) {
		if deadline.Err() != nil {
			t.Fatalf("the server knows of %q and that it is drained: %v", c.Active(), c.Drained())
		}
	}
	if err := s.Complete(within(t), "a", beacon.Result{}); err != nil {
		t.Errorf("Complete while draining: %v", err)
	}
}

func testTwice(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("once"))
	next(t, s)
	for range 2 {
		if err := s.Complete(within(t), "once", beacon.Result{Outputs: beacon.Outputs{"Result": "x"}}); err != nil {
			t.Errorf("Complete: %v", err)
		}
	}
	if err := s.Fail(within(t), "once", "too late", nil); err != nil {
		t.Errorf("Fail: %v", err)
	}
	if r := reported(t, c); r.Failed {
		t.Errorf("the first report does not count: %+v", r)
	}
}

func testNotJSON(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("odd"))
	next(t, s)
	if err := s.Complete(within(t), "odd", beacon.Result{Outputs: beacon.Outputs{"Result": func() {}}}); !isRefused(err) {
		t.Errorf("Complete with a function: %v; want ErrRefused", err)
	}
	if err := s.Fail(within(t), "odd", "no", nil); err != nil {
		t.Errorf("Fail after that: %v", err)
	}
	if r := reported(t, c); !r.Failed {
		t.Errorf("report: %+v", r)
	}
}

func testHashes(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	for _, hash := range []string{"a/b", "../../etc", "a?b=c#d", "a b", "é%2F", "\"quoted\"", "{}"} {
		c.Push(item(hash))
		if got := next(t, s); got.Hash != hash {
			t.Fatalf("hash %q arrived as %q", hash, got.Hash)
		}
		if err := s.Progress(within(t), hash, beacon.Progress{Message: hash}); err != nil {
			t.Errorf("Progress of %q: %v", hash, err)
		}
		if err := s.Complete(within(t), hash, beacon.Result{}); err != nil {
			t.Errorf("Complete of %q: %v", hash, err)
		}
		if r := reported(t, c); r.Hash != hash {
			t.Errorf("hash %q was reported as %q", hash, r.Hash)
		}
		if got := c.Progress(hash); len(got) != 1 {
			t.Errorf("%d progress reports of %q", len(got), hash)
		}
	}
}

func testDrop(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("a"))
	next(t, s)
	ended := make(chan error)
	go func() {
		_, err := s.Next(within(t))
		ended <- err
	}()
	c.Drop()
	if err := <-ended; !isDisconnected(err) {
		t.Fatalf("Next on a lost link: %v; want ErrDisconnected", err)
	}
	<-s.Done()
	if err := s.Complete(within(t), "a", beacon.Result{}); err == nil {
		t.Error("Complete on a lost link: no error")
	}
	if d, ok := s.(transport.Deliverer); ok {
		if errs := d.Deliver(within(t), []transport.Report{{Hash: "a"}}, func() {}); len(errs) != 1 || errs[0] == nil {
			t.Errorf("Deliver on a lost link: %v", errs)
		}
	}
	_ = s.Close(within(t))

	s = open(t, dial)
	if err := s.Complete(within(t), "a", beacon.Result{Outputs: beacon.Outputs{"Result": "late"}}); err != nil {
		t.Errorf("Complete on the next link: %v", err)
	}
	if r := reported(t, c); r.Hash != "a" || r.Result.Outputs["Result"] != "late" {
		t.Errorf("report: %+v", r)
	}
}

func testConcurrent(t *testing.T, dial transport.Dial, c Coordinator) {
	const n = 64
	s := open(t, dial)
	for i := range n {
		c.Push(item(fmt.Sprint("wi-", i)))
	}
	ctx := within(t)
	var reports sync.WaitGroup
	slots := make(chan struct{}, 8)
	for range n {
		slots <- struct{}{}
		got := next(t, s)
		reports.Go(func() {
			defer func() { <-slots }()
			if err := s.Progress(ctx, got.Hash, beacon.Progress{Message: "here"}); err != nil {
				t.Errorf("Progress: %v", err)
			}
			if err := s.Complete(ctx, got.Hash, beacon.Result{Outputs: beacon.Outputs{"Result": got.Hash}}); err != nil {
				t.Errorf("Complete: %v", err)
			}
		})
	}
	reports.Wait()
	for range n {
		if r := reported(t, c); r.Result.Outputs["Result"] != r.Hash {
			t.Errorf("report of %s has the result of %v", r.Hash, r.Result.Outputs["Result"])
		}
	}
}

func testLarge(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("large"))
	next(t, s)
	text := make([]byte, 5<<20)
	for i := range text {
		text[i] = 'a' + byte(i%26)
	}
	if err := s.Complete(within(t), "large", beacon.Result{Outputs: beacon.Outputs{"Result": string(text)}}); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	if r := reported(t, c); r.Result.Outputs["Result"] != string(text) {
		t.Error("the result arrived changed")
	}
}

func testBytes(t *testing.T, dial transport.Dial, c Coordinator) {
	s := open(t, dial)
	c.Push(item("bytes"))
	next(t, s)
	if err := s.Complete(within(t), "bytes", beacon.Result{Outputs: beacon.Outputs{"Result": "a\xff\x00\u2028z"}, Log: []string{"\xc3"}}); err != nil {
		t.Fatalf("Complete: %v", err)
	}
	if r := reported(t, c); r.Result.Outputs["Result"] != "a\ufffd\x00\u2028z" {
		t.Errorf("the result arrived as %q", r.Result.Outputs["Result"])
	}
}
