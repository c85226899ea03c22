package replay_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/replay"
)

// A guest stands for a module: what it does with its broker is its result.
type guest struct {
	brokers func(*beacon.Job) hostfuncs.Broker
	do      func(ctx context.Context, job *beacon.Job, b hostfuncs.Broker) (beacon.Result, error)
}

func (g *guest) Capability() beacon.Capability { return beacon.Capability{Name: "Guest"} }

func (g *guest) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	return g.do(ctx, job, g.brokers(job))
}

// A world answers once; whoever asks again is told that it is gone.
type world struct{ asked int }

func (w *world) Fetch(_ context.Context, r hostfuncs.Request) (*hostfuncs.Response, error) {
	if w.asked++; strings.Contains(r.URL, "denied") {
		return nil, beacon.Errorf(beacon.Denied, "no")
	}
	return &hostfuncs.Response{Status: 200, URL: r.URL, Length: -1, Body: io.NopCloser(strings.NewReader("the body"))}, nil
}

func (w *world) Call(_ context.Context, c beacon.Call) (beacon.Result, error) {
	w.asked++
	c.OnProgress(beacon.Progress{Message: "half"})
	out, err := c.Output()
	if err != nil {
		return beacon.Result{}, err
	}
	_, err = io.WriteString(out, "made by the callee")
	if err := out.Close(); err != nil {
		return beacon.Result{}, err
	}
	return beacon.Result{Outputs: beacon.Outputs{"Result": 42}, Log: []string{"a line"}}, err
}

func (w *world) HasSecret(name string) bool { w.asked++; return name == "key" }

// record runs a guest with a recorder and hands back the recording and the result.
func record(t *testing.T, g *guest, w *world) (*replay.Recording, beacon.Result, error) {
	t.Helper()
	var kept *replay.Recording
	var problem error
	p := &replay.Provider{
		Provider: g, What: replay.Recording{Beacon: "test"},
		Wants: func(beacon.Result, error) bool { return true },
		Keep:  func(r *replay.Recording, err error) { kept, problem = r, err },
	}
	g.brokers = p.Brokers(func(*beacon.Job) hostfuncs.Broker { return w })
	dir, err := os.OpenRoot(t.TempDir())
	require.NoError(t, err)
	defer dir.Close()
	require.NoError(t, dir.WriteFile("in.txt", []byte("source"), 0o600))
	result, err := p.Run(t.Context(), &beacon.Job{Item: beacon.WorkItem{Hash: "h", Settings: beacon.Settings{"A": json.RawMessage(`1`)}}, Dir: dir, Source: "in.txt", Sources: []string{"in.txt"}})
	require.NoError(t, err)
	return kept, result, problem
}

// everything asks for all that there is to be asked for.
func everything(ctx context.Context, job *beacon.Job, b hostfuncs.Broker) (beacon.Result, error) {
	tape := b.(hostfuncs.Tape)
	out := beacon.Outputs{}
	random := make([]byte, 8)
	if err := tape.Random(random); err != nil {
		return beacon.Result{}, err
	}
	source, err := job.Dir.ReadFile(job.Source)
	if err != nil {
		return beacon.Result{}, err
	}
	out["Random"], out["Source"] = random, string(source)
	out["Wall"] = tape.Number(hostfuncs.TapeWall, 17)
	out["Choice"] = tape.Choice(func() uint64 { return 1 })
	out["Key"], out["Other"] = b.HasSecret("key"), b.HasSecret("other")
	res, err := b.Fetch(ctx, hostfuncs.Request{Method: "GET", URL: "https://example.com/"})
	if err != nil {
		return beacon.Result{}, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return beacon.Result{}, err
	}
	_, denied := b.Fetch(ctx, hostfuncs.Request{Method: "GET", URL: "https://denied.example.com/"})
	out["Body"], out["Denied"] = string(body), denied.Error()
	called, err := b.Call(ctx, beacon.Call{
		Capability: "Other", Action: "Do", Settings: beacon.Settings{"X": json.RawMessage(`{"b": 1}`)},
		OnProgress: job.Progress,
		Output:     func() (io.WriteCloser, error) { return job.Dir.Create("made.txt") },
	})
	if err != nil {
		return beacon.Result{}, err
	}
	made, err := job.Dir.ReadFile("made.txt")
	out["Called"], out["Made"] = called.Outputs["Result"], string(made)
	return beacon.Result{Outputs: out, Log: called.Log}, err
}

func TestReplay(t *testing.T) {
	w := &world{}
	recording, result, problem := record(t, &guest{do: everything}, w)
	require.NoError(t, problem)
	path := filepath.Join(t.TempDir(), "a"+replay.Suffix)
	require.NoError(t, recording.WriteFile(path))
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Zero(t, info.Mode().Perm()&0o077, "it is its owner's alone")
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	read, err := replay.Read(file)
	require.NoError(t, err)

	asked := w.asked
	for range 2 { // as often as one likes
		player := replay.NewPlayer(read)
		var progress []beacon.Progress
		again, err := player.Run(t.Context(), &guest{do: everything, brokers: func(*beacon.Job) hostfuncs.Broker { return player }}, func(p beacon.Progress) { progress = append(progress, p) })
		require.NoError(t, err)
		require.Empty(t, player.Diverged())
		was, err := replay.OutcomeOf(result, nil)
		require.NoError(t, err)
		is, err := replay.OutcomeOf(again, nil)
		require.NoError(t, err)
		require.Equal(t, was, is)
		require.True(t, is.Equal(read.Outcome))
		require.Equal(t, []beacon.Progress{{Message: "half"}}, progress)
	}
	require.Equal(t, asked, w.asked, "nobody was asked again")
}

// A guest that does something else is told so, and nobody else is asked.
func TestDiverged(t *testing.T) {
	recording, _, problem := record(t, &guest{do: func(_ context.Context, _ *beacon.Job, b hostfuncs.Broker) (beacon.Result, error) {
		b.(hostfuncs.Tape).Number(hostfuncs.TapeWall, 17)
		return beacon.Result{}, nil
	}}, &world{})
	require.NoError(t, problem)
	player := replay.NewPlayer(recording)
	_, err := player.Fetch(t.Context(), hostfuncs.Request{Method: "GET", URL: "https://elsewhere.example.com/"})
	require.Equal(t, beacon.Failed, beacon.CodeOf(err))
	_, err = player.Call(t.Context(), beacon.Call{Capability: "Other"})
	require.Equal(t, beacon.Failed, beacon.CodeOf(err))
	require.Equal(t, uint64(5), player.Number(hostfuncs.TapeMonotonic, 5), "another kind of number than was recorded")
	require.Equal(t, uint64(6), player.Number(hostfuncs.TapeWall, 6), "what follows means nothing any more")
	random := []byte{1, 2}
	require.NoError(t, player.Random(random))
	require.Equal(t, []byte{0, 0}, random)
	require.Len(t, player.Diverged(), 4)
}

// What is too large is not recorded, and the item is none the worse for it.
func TestTooLarge(t *testing.T) {
	recording, result, problem := record(t, &guest{do: func(_ context.Context, _ *beacon.Job, b hostfuncs.Broker) (beacon.Result, error) {
		big := make([]byte, 1<<20)
		for range replay.MaxSize>>20 + 1 {
			if err := b.(hostfuncs.Tape).Random(big); err != nil {
				return beacon.Result{}, err
			}
		}
		return beacon.Result{Outputs: beacon.Outputs{"Result": "done"}}, nil
	}}, &world{})
	require.Nil(t, recording)
	require.ErrorContains(t, problem, "cannot be recorded")
	require.Equal(t, "done", result.Outputs["Result"])
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"Format": "beacon replay", "Version": 1, "Tape": {"Kinds": "w", "Values": [1], "Random": "AAAA"}, "Sources": [{"Name": "../x", "Content": ""}], "Exchanges": [{"Method": "GET", "URL": "u", "Error": {"Code": "x"}}], "Calls": [{"Capability": "C"}]}`))
	f.Add([]byte(`{"Format": "beacon replay", "Version": 2}`))
	f.Add([]byte(`{"Format": "beacon replay", "Version": 1, "Sources": [{"Name": "a/b", "Content": "YQ=="}, {"Name": "a", "Content": "YQ=="}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := replay.Read(bytes.NewReader(raw))
		if err != nil {
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			return
		}
		player := replay.NewPlayer(r)
		_, _ = player.Run(t.Context(), &guest{
			brokers: func(*beacon.Job) hostfuncs.Broker { return player },
			do: func(ctx context.Context, _ *beacon.Job, b hostfuncs.Broker) (beacon.Result, error) {
				player.Number(hostfuncs.TapeWall, 1)
				player.Choice(func() uint64 { return 0 })
				for _, x := range r.Exchanges {
					if res, err := b.Fetch(ctx, hostfuncs.Request{Method: x.Method, URL: x.URL}); err == nil {
						_, _ = io.Copy(io.Discard, res.Body)
					}
				}
				for _, c := range r.Calls {
					_, _ = b.Call(ctx, beacon.Call{Capability: c.Capability, Action: c.Action, Settings: c.Settings})
				}
				return beacon.Result{}, nil
			},
		}, nil)
	})
}
