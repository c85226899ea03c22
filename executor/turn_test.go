package executor_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/executor"
	"github.com/ultravisor/beacon/staging"
)

// A payer notes what it pays for, up to a limit.
type payer struct{ held, limit, fuel atomic.Int64 }

func (p *payer) Used(u beacon.Usage)            { p.fuel.Add(int64(u.Fuel)) } //nolint:gosec // small
func (p *payer) Pace(ctx context.Context) error { return ctx.Err() }
func (p *payer) Hold(n int64) error {
	if p.held.Load()+n > p.limit.Load() {
		return beacon.Errorf(beacon.FileLimit, "the tenant has no room")
	}
	p.held.Add(n)
	return nil
}

// An item is a tenant's, waits for its turn, is charged, and is told of.
func TestS22Turn(t *testing.T) {
	var records []executor.Record
	paying := &payer{}
	paying.limit.Store(10)
	left := 0
	var job *beacon.Job
	folder := ""
	b := prepare(t, func(_ context.Context, j *beacon.Job) (beacon.Result, error) {
		job, folder = j, j.Dir.Name()
		j.Account.Add(beacon.Usage{Fuel: 7})
		j.Account.Contacted("example.com:443")
		return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 3}}, nil
	}, executor.Config{
		Tenant: func(item beacon.WorkItem) (string, error) {
			if name := item.Settings.Text("Tenant"); name != "" {
				return name, nil
			}
			return "", beacon.Errorf(beacon.Denied, "there is no such tenant here")
		},
		Enter: func(ctx context.Context, tenant string, item beacon.WorkItem) (beacon.Payer, func(), error) {
			if tenant == "full" {
				<-ctx.Done()
				return nil, nil, beacon.Errorf(beacon.Timeout, "it waited too long")
			}
			require.Equal(t, "0xabc", item.Hash)
			return paying, func() { left++ }, nil
		},
		OnEnd: func(r executor.Record) { records = append(records, r) },
	})
	settings := func(text ...string) beacon.Settings {
		s := beacon.Settings{}
		for i := 0; i < len(text); i += 2 {
			s.SetText(text[i], text[i+1])
		}
		return s
	}
	item := beacon.WorkItem{Hash: "0xabc", Capability: "Test", Settings: settings("Tenant", "acme")}
	result, err := b.Run(t.Context(), item, nil)
	require.NoError(t, err)
	require.Equal(t, 3, result.ExitCode())
	require.Equal(t, "acme", job.Tenant)
	require.Equal(t, 1, left)
	require.EqualValues(t, 7, paying.fuel.Load())
	require.Len(t, records, 1)
	require.Equal(t, "acme", records[0].Tenant)
	require.Equal(t, "0xabc", records[0].Item.Hash)
	require.Equal(t, 3, records[0].ExitCode)
	require.Equal(t, []string{"example.com:443"}, records[0].Statement.Hosts)
	require.WithinDuration(t, time.Now(), records[0].Began, time.Hour)
	acme := filepath.Dir(folder)
	_, err = b.Run(t.Context(), beacon.WorkItem{Hash: "0xabc", Capability: "Test", Settings: settings("Tenant", "other")}, nil)
	require.NoError(t, err)
	require.NotEqual(t, acme, filepath.Dir(folder), "S22: each tenant has a folder of its own")
	require.NotContains(t, folder, "other", "S22: whose name says nothing")

	// Refused items are results, and nobody runs.
	records, job = nil, nil
	result, err = b.Run(t.Context(), beacon.WorkItem{Hash: "0xabc", Capability: "Test"}, nil)
	require.NoError(t, err)
	require.Equal(t, -1, result.ExitCode())
	require.Contains(t, result.Outputs["StdOut"], "no such tenant")
	result, err = b.Run(t.Context(), beacon.WorkItem{Hash: "0xabc", Capability: "Test", Timeout: time.Millisecond, Settings: settings("Tenant", "full")}, nil)
	require.NoError(t, err)
	require.Contains(t, result.Outputs["StdOut"], "waited too long")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = b.Run(ctx, beacon.WorkItem{Hash: "0xabc", Capability: "Test", Settings: settings("Tenant", "full")}, nil)
	require.Error(t, err, "when the worker ends, it is no result")
	require.Nil(t, job)
	require.Empty(t, records)

	// The source is held for the item.
	source := filepath.Join(t.TempDir(), "source")
	require.NoError(t, os.WriteFile(source, []byte("0123456789abcdef"), 0o600))
	result, err = b.RunLocal(t.Context(), item, source, "", nil)
	require.NoError(t, err)
	require.Contains(t, result.Outputs["StdOut"], "the tenant has no room")
	paying.limit.Store(16)
	result, err = b.RunLocal(t.Context(), item, source, "", nil)
	require.NoError(t, err)
	require.Equal(t, 3, result.ExitCode())
	require.EqualValues(t, 16, records[len(records)-1].Statement.Usage.Staged)
}

type buffer struct {
	strings.Builder
	closed bool
}

func (b *buffer) Close() error { b.closed = true; return nil }

// registry has two capabilities; Outer calls Inner.
func calls(t *testing.T, cfg executor.Config, inner provider, use func(e *executor.Executor, job *beacon.Job) (beacon.Result, error)) (beacon.Result, error) {
	t.Helper()
	var e *executor.Executor
	registry, err := beacon.NewRegistry(
		named{"Outer", func(_ context.Context, job *beacon.Job) (beacon.Result, error) { return use(e, job) }},
		named{"Inner", inner},
	)
	require.NoError(t, err)
	store, err := staging.Open(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	e = executor.New(registry, store, staging.NewDownloader(staging.DownloadConfig{}), cfg)
	return e.Run(t.Context(), beacon.WorkItem{Hash: "0xabc", RunID: "run", Capability: "Outer"}, nil)
}

// A named provider has two actions.
type named struct {
	name string
	run  provider
}

func (n named) Capability() beacon.Capability {
	return beacon.Capability{Name: n.name, Actions: []beacon.Action{{Name: "First"}, {Name: "Second"}}}
}

func (n named) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	return n.run(ctx, job)
}

func all(string, string) error { return nil }

func TestCall(t *testing.T) {
	var seen *beacon.Job
	var content string
	var progress []beacon.Progress
	inner := func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
		seen = job
		if job.Source != "" {
			b, err := job.Dir.ReadFile(job.Source)
			if err != nil {
				return beacon.Result{}, err
			}
			content = string(b)
		}
		job.Progress(beacon.Progress{Message: "half"})
		job.Account.Add(beacon.Usage{Fuel: 5})
		if job.Output != "" {
			if err := job.Dir.WriteFile(job.Output, []byte("made of "+content), 0o600); err != nil {
				return beacon.Result{}, err
			}
		}
		return beacon.Result{Outputs: beacon.Outputs{"Result": "inner"}, Log: []string{"line"}}, nil
	}
	out := &buffer{}
	var outer *beacon.Job
	var records []executor.Record
	asked := []string{}
	result, err := calls(t, executor.Config{OnEnd: func(r executor.Record) { records = append(records, r) }}, inner, func(e *executor.Executor, job *beacon.Job) (beacon.Result, error) {
		outer = job
		return e.Call(t.Context(), job, beacon.Call{
			Capability: "Inner", SourceName: "same", Source: strings.NewReader("the source"), OutputName: "same",
			Output:     func() (io.WriteCloser, error) { return out, nil },
			OnProgress: func(p beacon.Progress) { progress = append(progress, p) },
			Timeout:    time.Minute,
		}, func(capability, action string) error {
			asked = append(asked, capability+"/"+action)
			return nil
		})
	})
	require.NoError(t, err)
	require.Equal(t, []string{"Inner/First"}, asked, "what it comes to")
	require.Equal(t, "inner", result.Outputs["Result"])
	require.Equal(t, []string{"line"}, result.Log)
	require.Equal(t, "made of the source", out.String())
	require.True(t, out.closed)
	require.Equal(t, "same", result.Outputs["OutputFilename"])
	require.Len(t, progress, 1)
	require.Equal(t, "0xabc", seen.Item.Hash)
	require.Equal(t, "run", seen.Item.RunID)
	require.Equal(t, 1, seen.Depth)
	require.Equal(t, time.Minute, seen.Item.Timeout)
	require.Equal(t, outer.Tenant, seen.Tenant)
	require.Same(t, outer.Account, seen.Account)
	require.NotEqual(t, outer.Dir.Name(), seen.Dir.Name())
	require.Len(t, records, 1, "the item's, with what was done on its behalf")
	require.EqualValues(t, 5, records[0].Statement.Usage.Fuel)
}

func TestCallsThatAreRefused(t *testing.T) {
	broken := errors.New("broken")
	setting := beacon.Settings{}
	setting.SetText("SourceURL", "http://127.0.0.1/")
	for name, tt := range map[string]struct {
		call   beacon.Call
		permit func(string, string) error
		cfg    executor.Config
		want   string
	}{
		"not permitted":   {beacon.Call{Capability: "Inner", Action: "Second"}, func(c, a string) error { return beacon.Errorf(beacon.Denied, "not %s/%s", c, a) }, executor.Config{}, "not Inner/Second"},
		"unknown":         {beacon.Call{Capability: "Nothing"}, all, executor.Config{}, "Unknown capability"},
		"unknown, denied": {beacon.Call{Capability: "Nothing"}, func(string, string) error { return beacon.Errorf(beacon.Denied, "no") }, executor.Config{}, "no"},
		"unknown action":  {beacon.Call{Capability: "Inner", Action: "Third"}, all, executor.Config{}, "Unknown action"},
		"other tenant's":  {beacon.Call{Capability: "Inner"}, all, executor.Config{Shared: func(string, string) bool { return false }}, "belongs to another tenant"},
		"a URL":           {beacon.Call{Capability: "Inner", Settings: setting}, all, executor.Config{}, "SourceURL means nothing in a call"},
		"bad source":      {beacon.Call{Capability: "Inner", SourceName: "..", Source: strings.NewReader("")}, all, executor.Config{}, "is not a file name"},
		"bad output":      {beacon.Call{Capability: "Inner", OutputName: "../x", Output: func() (io.WriteCloser, error) { return nil, broken }}, all, executor.Config{}, "Output \"../x\" must be a plain file name"},
		"source breaks":   {beacon.Call{Capability: "Inner", SourceName: "a", Source: io.MultiReader(strings.NewReader("x"), failing{broken})}, all, executor.Config{}, "broken"},
		"output breaks":   {beacon.Call{Capability: "Inner", OutputName: "a", Output: func() (io.WriteCloser, error) { return nil, broken }}, all, executor.Config{}, "broken"},
		"no room": {beacon.Call{Capability: "Inner", SourceName: "a", Source: strings.NewReader("xx")}, all, executor.Config{Enter: func(context.Context, string, beacon.WorkItem) (beacon.Payer, func(), error) {
			return &payer{}, func() {}, nil
		}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			inner := func(_ context.Context, job *beacon.Job) (beacon.Result, error) {
				if job.Output != "" {
					return beacon.Result{}, job.Dir.WriteFile(job.Output, nil, 0o600)
				}
				return beacon.Result{}, nil
			}
			_, err := calls(t, tt.cfg, inner, func(e *executor.Executor, job *beacon.Job) (beacon.Result, error) {
				return e.Call(t.Context(), job, tt.call, tt.permit)
			})
			require.ErrorContains(t, err, tt.want)
		})
	}
	// The caller's time is the callee's.
	_, err := calls(t, executor.Config{}, func(ctx context.Context, _ *beacon.Job) (beacon.Result, error) {
		<-ctx.Done()
		return beacon.Result{}, ctx.Err()
	}, func(e *executor.Executor, job *beacon.Job) (beacon.Result, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
		defer cancel()
		return e.Call(ctx, job, beacon.Call{Capability: "Inner"}, all)
	})
	require.Equal(t, beacon.Timeout, beacon.CodeOf(err))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Where a source came from, and how much of it, is the item's to account for.
func TestSourcesAreCharged(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "0123456789") }))
	defer server.Close()
	var records []executor.Record
	b := prepare(t, func(context.Context, *beacon.Job) (beacon.Result, error) { return done(), nil },
		executor.Config{OnEnd: func(r executor.Record) { records = append(records, r) }})
	settings := beacon.Settings{}
	settings.SetText("SourceURL", server.URL+"/file?token=secret")
	_, err := b.Run(t.Context(), beacon.WorkItem{Hash: "0xabc", Capability: "Test", Settings: settings}, nil)
	require.NoError(t, err)
	require.Len(t, records, 1)
	s := records[0].Statement
	require.Equal(t, []string{strings.TrimPrefix(server.URL, "http://")}, s.Hosts)
	require.EqualValues(t, 10, s.Usage.Received)
	require.EqualValues(t, 10, s.Usage.Staged)
}

// What an item has used is part of its result, however it ends.
func TestResultsTellWhatWasUsed(t *testing.T) {
	for _, failure := range []error{nil, beacon.Errorf(beacon.Failed, "no")} {
		b := prepare(t, func(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
			require.NoError(t, job.Account.Spend(ctx, beacon.Usage{Fuel: 7, Tokens: 2}))
			return beacon.Result{Usage: beacon.Usage{Fuel: 1}}, failure // who is paid does not write the bill
		}, executor.Config{})
		result, err := b.Run(t.Context(), work(nil), nil)
		require.ErrorIs(t, err, failure)
		require.Equal(t, beacon.Usage{Fuel: 7, Tokens: 2}, result.Usage)
	}
}
