package sandbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
	"github.com/ultravisor/beacon/sandbox"
)

// A stub is what leads out of an item.
type stub struct {
	fetch func(context.Context, hostfuncs.Request) (*hostfuncs.Response, error)
	call  func(context.Context, beacon.Call) (beacon.Result, error)
}

func (s *stub) Fetch(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	return s.fetch(ctx, r)
}

func (s *stub) Call(ctx context.Context, r beacon.Call) (beacon.Result, error) { return s.call(ctx, r) }

func (*stub) HasSecret(string) bool { return false }

// reaching loads a module whose items reach the stub.
func reaching(t *testing.T, s *sandbox.Sandbox, name string, b *stub) *sandbox.Module {
	return load(t, s, name, func(src *wasmrt.Source) {
		src.Admit = func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(*beacon.Job) hostfuncs.Broker { return b }, nil
		}
	})
}

const part = 64 << 10

// parts is so much of a stream.
func parts(n int) []byte { return bytes.Repeat([]byte("0123456789abcdef"), n*part/16) }

// An answerBody is the body of a response.
type answerBody struct {
	io.Reader
	closed chan struct{}
}

func (b *answerBody) Close() error { close(b.closed); return nil }

// A request's body goes out of the process in pieces, and the answer's comes in.
func TestRequestStreams(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	b := &stub{}
	m := reaching(t, s, "streams", b)
	run := func(length, sends string) result {
		return resultOf(m.Run(t.Context(), jobOf(t, beacon.Settings{
			"Request": []byte(`{"URL": "http://a.test/x", "Method": "POST", "Headers": {"A": ["b", "c"]}, "BodyLength": ` + length + `}`),
			"Parts":   []byte(`"` + sends + `"`),
		})))
	}
	for _, length := range []string{"-1", fmt.Sprint(20 * part)} {
		closed := make(chan struct{})
		var got []byte
		b.fetch = func(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
			require.Equal(t, "POST http://a.test/x", r.Method+" "+r.URL)
			require.Equal(t, map[string][]string{"A": {"b", "c"}}, r.Header)
			require.Equal(t, length, fmt.Sprint(r.BodyLength))
			var err error
			if got, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
			return &hostfuncs.Response{Status: 200, Length: -1, Body: &answerBody{bytes.NewReader(parts(30)), closed}}, nil
		}
		answer := run(length, strings.Repeat("x", 20))
		require.Empty(t, answer.Code, answer.Message)
		require.EqualValues(t, `"`+strings.Repeat("+", 30)+`"`, answer.Result.Outputs["Read"])
		require.Equal(t, 20*part, len(got))
		require.Equal(t, "part", string(got[:4]))
		<-closed
	}

	// Who answers before the end of the body has no more of it, and the guest goes on.
	closed := make(chan struct{})
	b.fetch = func(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
		_, err := r.Body.Read(make([]byte, 1))
		return &hostfuncs.Response{Status: 413, Length: -1, Body: &answerBody{strings.NewReader(""), closed}}, err
	}
	answer := run("-1", "*")
	require.Empty(t, answer.Code, answer.Message)
	require.EqualValues(t, `""`, answer.Result.Outputs["Read"])
	<-closed

	// Errors of both ends come to the guest, with the code that they have.
	b.fetch = func(context.Context, hostfuncs.Request) (*hostfuncs.Response, error) {
		return nil, beacon.Errorf(beacon.Denied, "not there")
	}
	require.Equal(t, "not there", run("-1", "*").Message)
	closed = make(chan struct{})
	b.fetch = func(context.Context, hostfuncs.Request) (*hostfuncs.Response, error) {
		broken := io.MultiReader(bytes.NewReader(parts(1)), &failing{beacon.Errorf(beacon.Unreachable, "it broke off")})
		return &hostfuncs.Response{Status: 200, Length: -1, Body: &answerBody{broken, closed}}, nil
	}
	require.Equal(t, "it broke off", run("0", "").Message)
	<-closed
	require.NotContains(t, said.String(), "has ended")
	require.Zero(t, s.Stats().Running)
}

type failing struct{ err error }

func (f *failing) Read([]byte) (int, error) { return 0, f.err }

// A call has its source and its output in the item's directory, and tells of its
// progress in between.
func TestCallStreams(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	b := &stub{}
	m := reaching(t, s, "calls", b)
	b.call = func(_ context.Context, c beacon.Call) (beacon.Result, error) {
		require.Equal(t, "Other Do in.bin out.bin", c.Capability+" "+c.Action+" "+c.SourceName+" "+c.OutputName)
		require.Equal(t, "1", c.Settings.Text("A"))
		w, err := c.Output()
		if err != nil {
			return beacon.Result{}, err
		}
		buf := make([]byte, 100_000)
		for n := 1; ; n++ {
			read, err := io.ReadFull(c.Source, buf)
			if _, werr := w.Write(bytes.ToUpper(buf[:read])); werr != nil {
				return beacon.Result{}, werr
			}
			c.OnProgress(beacon.Progress{Message: "read on", Step: n, Log: []string{"line"}})
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return beacon.Result{}, err
			}
		}
		return beacon.Result{Outputs: beacon.Outputs{"Result": "done"}, Log: []string{"said"}}, w.Close()
	}
	dir := t.TempDir()
	source := parts(10)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "in.bin"), source, 0o600))
	run := func() result {
		job := jobAt(t, dir)
		job.Item.Settings = beacon.Settings{"Call": []byte(
			`{"Capability": "Other", "Action": "Do", "Settings": {"A": 1}, "Source": "in.bin", "Output": "out.bin", "Progress": "keep"}`)}
		return resultOf(m.Run(t.Context(), job))
	}
	got := run()
	require.Empty(t, got.Code, got.Message)
	require.Contains(t, fmt.Sprintf("%s", got.Result.Outputs["Answer"]), `"Outputs":{"Result":"done"},"Log":["said"]`)
	require.Len(t, got.Result.Log, 7)
	require.Equal(t, `{"Message":"read on","Step":1,"Log":["line"]}`, got.Result.Log[0])
	written, err := os.ReadFile(filepath.Join(dir, "out.bin"))
	require.NoError(t, err)
	require.Equal(t, bytes.ToUpper(source), written)

	b.call = func(context.Context, beacon.Call) (beacon.Result, error) {
		return beacon.Result{}, beacon.Errorf(beacon.NotFound, "there is no Other")
	}
	require.Equal(t, "there is no Other", run().Message)
	require.NotContains(t, said.String(), "has ended")
	require.Zero(t, s.Stats().Running)
}

// Whatever an item may say fits through, however it is encoded on the way.
func TestLargestMessages(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	b := &stub{call: func(_ context.Context, c beacon.Call) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"Angles": c.Settings.Text("A")}}, nil
	}}
	m := load(t, s, "angles", func(src *wasmrt.Source) {
		src.Limits.Item = hostfuncs.Limits{Output: 4 << 20, Log: 64 << 10} // so that six times as much would be too much
		src.Admit = func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(*beacon.Job) hostfuncs.Broker { return b }, nil
		}
	})
	got := resultOf(m.Run(t.Context(), jobOf(t, nil)))
	require.Empty(t, got.Code, got.Message)
	require.Equal(t, 3_600_002, len(got.Result.Outputs["Angles"].(json.RawMessage)))
	require.NotContains(t, said.String(), "has ended")
}

// The results of calls count with what they take here.
func TestResultsAreHeldAsTheyCome(t *testing.T) {
	s, said := open(t, sandbox.Config{})
	var list json.RawMessage
	b := &stub{call: func(context.Context, beacon.Call) (beacon.Result, error) {
		return beacon.Result{Outputs: beacon.Outputs{"A": list}}, nil
	}}
	m := load(t, s, "calls", func(src *wasmrt.Source) {
		src.Limits.Item = hostfuncs.Limits{Output: 8 << 10}
		src.Admit = func(wasmrt.Candidate) (wasmrt.Brokers, error) {
			return func(*beacon.Job) hostfuncs.Broker { return b }, nil
		}
	})
	for n, want := range map[int]beacon.Code{1000: "", 15_000: beacon.CallLimit} {
		list = json.RawMessage("[" + strings.Repeat("{},", n) + "{}]")
		got := resultOf(m.Run(t.Context(), jobOf(t, beacon.Settings{"Call": []byte(`{"Capability": "Other", "Progress": "keep"}`)})))
		require.Equal(t, want, got.Code, got.Message)
	}
	require.NotContains(t, said.String(), "has ended")
}

// midway are things that an item does outside of its process, and that go on
// until their context ends once begun is called.
func midway(begun func()) map[string]struct {
	module   string
	settings beacon.Settings
	stub     stub
} {
	type way = struct {
		module   string
		settings beacon.Settings
		stub     stub
	}
	until := func(ctx context.Context) error {
		begun()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	request := func(length string) beacon.Settings {
		return beacon.Settings{"Request": []byte(`{"URL": "http://a.test", "BodyLength": ` + length + `}`), "Parts": []byte(`"` + strings.Trim(length, "-01") + `"`)}
	}
	call := beacon.Settings{"Call": []byte(`{"Capability": "Other", "Source": "in.bin", "Output": "out.bin", "Progress": "keep"}`)}
	called := func(do func(context.Context, beacon.Call) error) way {
		return way{"calls", call, stub{call: func(ctx context.Context, c beacon.Call) (beacon.Result, error) {
			return beacon.Result{}, do(ctx, c)
		}}}
	}
	sending := request("-1")
	sending["Parts"] = []byte(`"*"`)
	return map[string]way{
		"a request's head": {"streams", request("0"), stub{fetch: func(ctx context.Context, _ hostfuncs.Request) (*hostfuncs.Response, error) {
			return nil, until(ctx)
		}}},
		"a request's body": {"streams", sending, stub{fetch: func(ctx context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
			for n := 0; ; n++ {
				if _, err := io.ReadFull(r.Body, make([]byte, part)); err != nil {
					return nil, err
				}
				if n == 2 {
					return nil, until(ctx)
				}
			}
		}}},
		"a body that is awaited": {"streams", request("0"), stub{fetch: func(ctx context.Context, _ hostfuncs.Request) (*hostfuncs.Response, error) {
			silent, end := io.Pipe()
			go func() { _ = end.CloseWithError(until(ctx)) }()
			return &hostfuncs.Response{Status: 200, Length: -1, Body: io.NopCloser(io.MultiReader(bytes.NewReader(parts(3)), silent))}, nil
		}}},
		"a call's source": called(func(ctx context.Context, c beacon.Call) error {
			if _, err := io.ReadFull(c.Source, make([]byte, 3*part)); err != nil {
				return err
			}
			return until(ctx)
		}),
		"a call's output": called(func(ctx context.Context, c beacon.Call) error {
			w, err := c.Output()
			if err != nil {
				return err
			}
			if _, err := w.Write(parts(3)); err != nil {
				return err
			}
			return errors.Join(until(ctx), w.Close())
		}),
		"its own progress": {"loops", nil, stub{}},
		"a call's progress": called(func(ctx context.Context, c beacon.Call) error {
			for n := range 100 {
				c.OnProgress(beacon.Progress{Message: "on", Step: n})
			}
			return until(ctx)
		}),
	}
}

// Whatever an item is doing outside of its process, it ends there when the item is
// canceled, its time is over, or its process dies, and with the code of that.
func TestStreamsEnd(t *testing.T) {
	s, _ := open(t, sandbox.Config{Grace: time.Minute})
	good := load(t, s, "order", nil)
	for _, end := range []string{"canceled", "overdue", "killed"} {
		for name := range midway(nil) {
			t.Run(end+", "+name, func(t *testing.T) {
				began := make(chan struct{}, 1)
				begun := func() {
					select {
					case began <- struct{}{}:
					default: // of a flood of progress
					}
				}
				way := midway(begun)[name]
				m := reaching(t, s, way.module, &way.stub)
				dir := t.TempDir()
				require.NoError(t, os.WriteFile(filepath.Join(dir, "in.bin"), parts(10), 0o600))
				_, err := good.Run(t.Context(), jobOf(t, nil)) // in the process for the items of this test
				require.NoError(t, err)
				before := openFiles(t, s)
				var got result
				want, processes := beacon.Timeout, int64(0)
				for timeout, again := time.Second/2, true; again; timeout *= 2 {
					job := jobAt(t, dir)
					job.Item.Settings = way.settings
					if way.module == "loops" {
						job.OnProgress = func(beacon.Progress) { begun() }
					}
					ctx, cancel := context.WithCancelCause(t.Context())
					defer cancel(nil)
					if end == "overdue" {
						var stop context.CancelFunc
						ctx, stop = context.WithTimeoutCause(ctx, timeout, beacon.Errorf(beacon.Timeout, "too long"))
						defer stop()
					}
					ended := make(chan result, 1)
					go func() { ended <- resultOf(m.Run(ctx, job)) }()
					select {
					case <-began:
					case got = <-ended: // it was over before it came so far
						require.Equal(t, "overdue", end, got)
						continue
					}
					again, processes = false, s.Stats().Started
					switch end {
					case "canceled":
						want = beacon.Canceled
						cancel(beacon.Errorf(beacon.Canceled, "nobody wants it"))
					case "killed":
						want = beacon.Internal
						s.Kill(beacon.DefaultTenant)
					}
					got = <-ended
				}
				require.Equal(t, want, got.Code, got.Message)
				require.Zero(t, s.Stats().Running)
				_, err = good.Run(t.Context(), jobOf(t, nil))
				require.NoError(t, err)
				if end == "killed" {
					require.Contains(t, got.Message, "was lost")
					require.Equal(t, processes+1, s.Stats().Started, "it has begun, and is not run again")
					return
				}
				require.Equal(t, processes, s.Stats().Started, "nobody else has to suffer for it")
				require.NoError(t, m.Close(context.Background())) // which has files there, too
				require.Eventually(t, func() bool { return openFiles(t, s) <= before }, time.Minute, time.Millisecond, "a descriptor is left")
			})
		}
	}
}

// openFiles is how many descriptors the process of the default tenant has, as far
// as that can be seen.
func openFiles(t *testing.T, s *sandbox.Sandbox) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/" + itoa(s.PID(beacon.DefaultTenant)) + "/fd")
	if err != nil {
		return 0 // other systems, and processes that may not be looked into
	}
	return len(fds)
}
