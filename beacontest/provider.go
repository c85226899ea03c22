package beacontest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ultravisor/beacon"
)

// A Case is a piece of work that TestProvider has a provider do.
type Case struct {
	// Action is one of the capability's; "" is the first.
	Action   string
	Settings map[string]any
	// Source, if not nil, is staged under SourceName, or "source_file".
	Source     []byte
	SourceName string
	// Output is the name of the file that is expected; "" is none.
	Output string
	// Fails says that the case ends with an error or an exit code other than 0.
	Fails bool
	// Check looks at the result, and at the item's directory.
	Check func(t *testing.T, result beacon.Result, dir *os.Root)
}

// A Suite is what TestProvider needs to know of a provider.
type Suite struct {
	// Cases are pieces of work by name; there is at least one that succeeds.
	Cases map[string]Case
	// Endless is a piece of work that goes on until it is canceled, or for an
	// hour at least. Without an Action it is left out: a provider may be too
	// quick for that.
	Endless Case
}

// TestProvider checks that a provider keeps the contract of beacon.Provider:
// whatever it is asked, it hands back something that can be reported, and ends
// when it is to. It calls start for each of its subtests; providers that are an
// Initializer or a Shutdowner are initialised and shut down. Each action gets each
// of its settings empty, and with nonsense in it: start makes a provider that can
// do no harm with that.
func TestProvider(t *testing.T, start func(t *testing.T) beacon.Provider, suite Suite) {
	tests := map[string]func(t *testing.T, p beacon.Provider, suite Suite){
		"describes itself":        testDescription,
		"does its work":           testCases,
		"does it many at once":    testParallel,
		"needs nothing":           testNoSettings,
		"is asked nonsense":       testNonsense,
		"ends before it begins":   testCanceledBefore,
		"ends when it is to":      testCanceledMeanwhile,
		"ends with its time":      testDeadline,
		"leaves nothing running":  testGoroutines,
		"is silent after its end": testSilence,
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			if i, ok := p.(beacon.Initializer); ok {
				if err := i.Initialize(within(t)); err != nil {
					t.Fatalf("Initialize: %v", err)
				}
			}
			if s, ok := p.(beacon.Shutdowner); ok {
				t.Cleanup(func() {
					ctx, cancel := context.WithTimeout(context.Background(), patience)
					defer cancel()
					if err := s.Shutdown(ctx); err != nil {
						t.Errorf("Shutdown: %v", err)
					}
				})
			}
			test(t, p, suite)
		})
	}
}

// An outcome is what came of a case.
type outcome struct {
	result beacon.Result
	err    error
	dir    *os.Root
	late   *atomic.Int32 // progress after the end
}

func (o outcome) failed() bool { return o.err != nil || o.result.ExitCode() != 0 }

// job makes the job of a case, in a directory of its own.
func job(t *testing.T, p beacon.Provider, c Case) *beacon.Job {
	t.Helper()
	settings := beacon.Settings{}
	for name, value := range c.Settings {
		raw, err := json.Marshal(value)
		if err != nil {
			t.Fatalf("setting %s of the case: %v", name, err)
		}
		settings[name] = raw
	}
	capability := p.Capability()
	if c.Action == "" {
		c.Action = capability.Actions[0].Name
	}
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dir.Close() })
	j := &beacon.Job{
		Item:   beacon.WorkItem{Hash: "wi-case", Capability: capability.Name, Action: c.Action, Settings: settings, Timeout: patience},
		Tenant: beacon.DefaultTenant, Dir: dir, Output: c.Output,
	}
	if c.Output != "" {
		j.Outputs = []string{c.Output}
	}
	if c.Source != nil {
		if c.SourceName == "" {
			c.SourceName = "source_file"
		}
		if err := os.WriteFile(filepath.Join(dir.Name(), c.SourceName), c.Source, 0o600); err != nil {
			t.Fatal(err)
		}
		j.Source, j.Sources = c.SourceName, []string{c.SourceName}
	}
	return j
}

// carry has a provider carry out a case, and checks what is true of every
// outcome.
func carry(ctx context.Context, t *testing.T, p beacon.Provider, c Case) outcome {
	t.Helper()
	j := job(t, p, c)
	o := outcome{dir: j.Dir, late: new(atomic.Int32)}
	var over atomic.Bool
	j.OnProgress = func(n beacon.Progress) {
		if over.Load() {
			o.late.Add(1)
		}
		if n.HasPercent && (n.Percent != n.Percent || n.Percent < 0 || n.Percent > 100) {
			t.Errorf("progress of %v percent", n.Percent)
		}
	}
	func() {
		defer func() {
			if v := recover(); v != nil {
				t.Errorf("%s panicked: %v", j.Item.Action, v)
				o.err = errors.New("panic")
			}
		}()
		o.result, o.err = p.Run(ctx, j)
	}()
	over.Store(true)
	for name, value := range o.result.Outputs {
		if _, isFile := value.(beacon.File); isFile {
			continue
		}
		if _, err := json.Marshal(value); err != nil {
			t.Errorf("output %s of %s is not representable in JSON: %v", name, j.Item.Action, err)
		}
	}
	switch code := o.result.Outputs[beacon.OutputExitCode].(type) {
	case nil, int, int32, int64, float64:
	default:
		t.Errorf("the ExitCode of %s is %v, of type %T: want a number", j.Item.Action, code, code)
	}
	if o.err != nil && o.err.Error() == "" {
		t.Errorf("%s failed without a word", j.Item.Action)
	}
	return o
}

func testDescription(t *testing.T, p beacon.Provider, _ Suite) {
	c := p.Capability()
	if _, err := beacon.NewRegistry(p); err != nil {
		t.Fatalf("no registry takes it: %v", err)
	}
	if again := p.Capability(); !reflect.DeepEqual(c, again) {
		t.Errorf("it describes itself as\n%+v, and then as\n%+v", c, again)
	}
	for _, a := range c.Actions {
		seen := map[string]bool{}
		for _, s := range a.Settings {
			if s.Name == "" || seen[s.Name] {
				t.Errorf("%s declares the setting %q twice or without a name", a.Name, s.Name)
			}
			seen[s.Name] = true
			if !slices.Contains([]string{"String", "Number", "Boolean"}, s.DataType) {
				t.Errorf("setting %s of %s has the type %q: want String, Number or Boolean", s.Name, a.Name, s.DataType)
			}
			if _, err := json.Marshal(s.Default); err != nil {
				t.Errorf("the default of setting %s of %s is not representable in JSON: %v", s.Name, a.Name, err)
			}
		}
	}
}

func testCases(t *testing.T, p beacon.Provider, suite Suite) {
	for name, c := range suite.Cases {
		t.Run(name, func(t *testing.T) {
			o := carry(within(t), t, p, c)
			if o.failed() != c.Fails {
				t.Fatalf("it ended with %v, exit code %d: %+v", o.err, o.result.ExitCode(), o.result)
			}
			if c.Output != "" && !c.Fails {
				if _, err := o.dir.Lstat(c.Output); err != nil {
					t.Errorf("the output is not there: %v", err)
				}
			}
			if c.Check != nil {
				c.Check(t, o.result, o.dir)
			}
		})
	}
}

// good is one of the cases that succeed, always the same.
func good(t *testing.T, suite Suite) Case {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(suite.Cases)) {
		if !suite.Cases[name].Fails {
			return suite.Cases[name]
		}
	}
	t.Fatal("the suite has no case that succeeds")
	return Case{}
}

func testParallel(t *testing.T, p beacon.Provider, suite Suite) {
	c := good(t, suite)
	ctx := within(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if o := carry(ctx, t, p, c); o.failed() {
				t.Errorf("together with others it ended with %v: %+v", o.err, o.result)
			} else if c.Check != nil {
				c.Check(t, o.result, o.dir)
			}
		})
	}
	all.Wait()
}

// testNoSettings gives an item that has nothing but an action: servers send that.
func testNoSettings(t *testing.T, p beacon.Provider, _ Suite) {
	for _, a := range p.Capability().Actions {
		for _, settings := range []map[string]any{nil, empty(a)} {
			ctx, cancel := context.WithTimeout(within(t), brief)
			carry(ctx, t, p, Case{Action: a.Name, Settings: settings}) // what comes of it is its affair
			cancel()
		}
	}
}

// brief is for work whose outcome does not matter.
const brief = 2 * time.Second

func empty(a beacon.Action) map[string]any {
	settings := map[string]any{}
	for _, s := range a.Settings {
		settings[s.Name] = ""
	}
	return settings
}

// testNonsense gives every setting every kind of value.
func testNonsense(t *testing.T, p beacon.Provider, suite Suite) {
	values := []any{nil, 7, -1.5, true, []any{1, "a"}, map[string]any{"a": []any{nil}}, "\x00", "../../etc/passwd", "-", strings.Repeat("x", 100_000), "\u202e\u2028"}
	usual := good(t, suite)
	for _, a := range p.Capability().Actions {
		for _, s := range a.Settings {
			for _, value := range values {
				c := Case{Action: a.Name, Settings: map[string]any{s.Name: value}}
				if a.Name == usual.Action || usual.Action == "" && a.Name == p.Capability().Actions[0].Name {
					c.Settings = maps.Clone(usual.Settings)
					if c.Settings == nil {
						c.Settings = map[string]any{}
					}
					c.Settings[s.Name] = value
				}
				ctx, cancel := context.WithTimeout(within(t), brief)
				carry(ctx, t, p, c)
				cancel()
			}
		}
	}
	if o := carry(within(t), t, p, usual); o.failed() {
		t.Errorf("after that it no longer does its work: %v, %+v", o.err, o.result)
	}
}

func testCanceledBefore(t *testing.T, p beacon.Provider, suite Suite) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := suite.Endless
	if c.Action == "" {
		c = good(t, suite)
	}
	ends(t, func() { carry(ctx, t, p, c) })
}

// ends fails the test if f does not end.
func ends(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("it does not end although its context is done")
	}
}

func testCanceledMeanwhile(t *testing.T, p beacon.Provider, suite Suite) {
	if suite.Endless.Action == "" {
		t.Skip("the suite has no endless case")
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	timer := time.AfterFunc(50*time.Millisecond, func() { cancel(beacon.Errorf(beacon.Canceled, "canceled: enough")) })
	defer timer.Stop()
	ends(t, func() {
		if o := carry(ctx, t, p, suite.Endless); !o.failed() {
			t.Errorf("canceled in the middle, it ended with success: %+v", o.result)
		}
	})
}

func testDeadline(t *testing.T, p beacon.Provider, suite Suite) {
	if suite.Endless.Action == "" {
		t.Skip("the suite has no endless case")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	ends(t, func() {
		if o := carry(ctx, t, p, suite.Endless); !o.failed() {
			t.Errorf("after its time it ended with success: %+v", o.result)
		}
	})
}

func testGoroutines(t *testing.T, p beacon.Provider, suite Suite) {
	c := good(t, suite)
	carry(within(t), t, p, c) // what it starts once and for all
	before := runtime.NumGoroutine()
	for range 20 {
		carry(within(t), t, p, c)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		after := runtime.NumGoroutine()
		if after < before+10 {
			return
		}
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<20)
			t.Fatalf("%d goroutines before 20 items, %d after:\n%s", before, after, stacks[:runtime.Stack(stacks, true)])
		}
	}
}

func testSilence(t *testing.T, p beacon.Provider, suite Suite) {
	var outcomes []outcome
	for range 5 {
		outcomes = append(outcomes, carry(within(t), t, p, good(t, suite)))
	}
	for i, o := range outcomes {
		if n := o.late.Load(); n > 0 {
			t.Errorf("item %d reported progress %d times after its end", i, n)
		}
	}
}
