package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// A registrar does it in this process, as one in another process does there.
type registrar struct {
	times int
	fail  error
	after func(folder string)
}

func (r *registrar) Register(ctx context.Context, reg wasmrt.Registration) error {
	r.times++
	if r.fail != nil {
		return r.fail
	}
	rt, err := wasmrt.New(wasmrt.Config{CacheDir: reg.Dir, CacheKey: reg.Key, Log: quiet()})
	if err != nil {
		return err
	}
	kept, err := rt.Register(ctx, reg.Source)
	if err == nil && r.after != nil {
		r.after(filepath.Join(reg.Dir, kept.Digest))
	}
	return err
}

// Whatever a module is like, what a registrar leaves of it is enough to run it,
// and it is asked once.
func TestRegistered(t *testing.T) {
	for name, module := range map[string]struct {
		binary []byte
		change func(*wasmrt.Source)
		code   beacon.Code
	}{
		"initialises":        {binary: guest(t, "order")},
		"cannot initialise":  {binary: guest(t, "initialize"), code: beacon.Failed},
		"a command":          {binary: guest(t, "exit")},
		"keeps random state": {binary: guest(t, "init_random")},
		"changes its table":  {binary: guest(t, "init_table")},
		"opens a file":       {binary: guest(t, "init_open")},
		"vector global":      {binary: guest(t, "vector_global")},
		"no memory":          {binary: guest(t, "no_memory")},
		"fresh":              {binary: guest(t, "order"), change: func(s *wasmrt.Source) { s.Pool.Fresh = true }},
		"tells lines":        {binary: guest(t, "trap"), code: beacon.Trapped},
		"counts exactly":     {binary: guest(t, "order"), change: func(s *wasmrt.Source) { s.Limits.Fuel = 1e9 }},
	} {
		t.Run(name, func(t *testing.T) {
			src := wasmrt.Source{Name: "subject", Binary: module.binary}
			if module.change != nil {
				module.change(&src)
			}
			want := outcomeOf(t, wasmrt.Config{Log: quiet()}, src)
			for where, dir := range map[string]string{"in a cache": filepath.Join(t.TempDir(), "cache"), "without a cache": ""} {
				r := &registrar{}
				for range 2 {
					require.Equal(t, want, outcomeOf(t, wasmrt.Config{CacheDir: dir, Registrar: r, Log: quiet()}, src), where)
				}
				times := 1
				if dir == "" {
					times = 2
				}
				require.Equal(t, times, r.times, where)
			}
			require.Equal(t, module.code, want.code)
		})
	}
}

type outcome struct {
	code    beacon.Code
	message string
	log     []string
	outputs int
	offers  beacon.Capability
	reason  string
	initial bool // instances begin initialised
}

func outcomeOf(t *testing.T, cfg wasmrt.Config, src wasmrt.Source) (o outcome) {
	t.Helper()
	m := loadWith(t, cfg, src)
	job, _ := newJob(t, `{"Code": "7"}`)
	result, err := m.Run(t.Context(), job)
	found, ierr := m.Instances(t.Context())
	require.NoError(t, ierr)
	o = outcome{code: beacon.CodeOf(err), log: result.Log, outputs: len(result.Outputs), offers: m.Capability(), reason: found.Reason, initial: found.Initialized}
	if err != nil {
		o.message = err.Error()
	}
	require.NoError(t, m.Close(context.Background()))
	return o
}

// S9: what could not be registered is remembered, and so is why; that something
// else went wrong is not.
func TestS9FailuresAreRemembered(t *testing.T) {
	cfg := wasmrt.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Log: quiet()}
	r := &registrar{fail: beacon.Errorf(beacon.Timeout, "it took longer than 30s")}
	cfg.Registrar = r
	load := func(name string) error {
		rt, err := wasmrt.New(cfg)
		require.NoError(t, err)
		m, err := rt.Load(t.Context(), wasmrt.Source{Name: name, Binary: guest(t, "exit")})
		if err == nil {
			require.NoError(t, m.Close(context.Background()))
		}
		return err
	}
	requireFailure(t, load("subject"), beacon.Timeout, "it took longer than 30s")
	r.fail = nil
	requireFailure(t, load("subject"), beacon.Timeout, "it took longer than 30s (found 1s ago, and remembered for an hour; --no-cache tries again)")
	require.Equal(t, 1, r.times)
	require.NoError(t, load("other"), "what differs is another module")
	require.Equal(t, 2, r.times)

	// A refusal that nobody vouches for does not count.
	refusals, err := filepath.Glob(filepath.Join(cfg.CacheDir, "*", "refused-*"))
	require.NoError(t, err)
	require.Len(t, refusals, 1)
	content, err := os.ReadFile(refusals[0])
	require.NoError(t, err)
	content[len(content)-1] ^= 1
	require.NoError(t, os.WriteFile(refusals[0], content, 0o600))
	require.NoError(t, load("subject"))

	r.fail = beacon.Errorf(beacon.Internal, "no process can be started")
	requireFailure(t, load("third"), beacon.Internal, "no process")
	r.fail = nil
	require.NoError(t, load("third"))
}

// S9: a module that could not initialise itself when it was registered does not
// try that again where its items run, where it would be at nobody's cost.
func TestS9InitialisationIsNotTriedAgain(t *testing.T) {
	log := &recorder{}
	rt, err := wasmrt.New(wasmrt.Config{
		CacheDir: filepath.Join(t.TempDir(), "cache"), Registrar: &registrar{}, Log: log.logger(),
	})
	require.NoError(t, err)
	for range 2 {
		m, err := rt.Load(t.Context(), wasmrt.Source{Name: "subject", Binary: guest(t, "initialize")})
		require.NoError(t, err)
		job, _ := newJob(t, `{}`)
		_, err = m.Run(t.Context(), job)
		requireFailure(t, err, beacon.Failed, "no licence")
		m.Await()
		require.NoError(t, m.Close(context.Background()))
	}
	require.NotContains(t, log.String(), "cannot be had initialised")
}

// S27: whatever happens to what was left, it is noticed and made again; what a
// registrar's process leaves besides is not taken.
func TestS27KeptModules(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	r := &registrar{}
	cfg := wasmrt.Config{CacheDir: dir, Registrar: r, Log: quiet()}
	src := wasmrt.Source{Name: "subject", Binary: guest(t, "order")}
	want := outcomeOf(t, cfg, src)
	times := r.times
	damaged := func(name string, damage func(path string)) {
		t.Run(name, func(t *testing.T) {
			for path := range files(t, dir) {
				if _, err := os.Lstat(path); err != nil {
					continue
				}
				damage(path)
				require.Equal(t, want, outcomeOf(t, cfg, src), path)
				times++
				require.Equal(t, times, r.times, path)
				require.Equal(t, want, outcomeOf(t, cfg, src), path)
				require.Equal(t, times, r.times, "%s: once", path)
			}
		})
	}
	damaged("flipped", func(path string) {
		content, err := os.ReadFile(path)
		require.NoError(t, err)
		content[len(content)/2] ^= 1
		require.NoError(t, os.WriteFile(path, content, 0o600))
	})
	damaged("gone", func(path string) { require.NoError(t, os.Remove(path)) })
	damaged("empty", func(path string) {
		if filepath.Base(path) == "key" {
			require.NoError(t, os.Remove(path)) // of another length, it is refused
			return
		}
		require.NoError(t, os.Truncate(path, 0))
	})

	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("x"), 0o600))
	r.after = func(folder string) { require.NoError(t, os.Symlink(outside, filepath.Join(folder, "snapshot-link"))) }
	rt, err := wasmrt.New(cfg)
	require.NoError(t, err)
	src.Name = "other"
	_, err = rt.Load(t.Context(), src)
	require.ErrorContains(t, err, "it has left something else than files")
	left, err := filepath.Glob(filepath.Join(dir, "register-*"))
	require.NoError(t, err)
	require.Empty(t, left)
}

// Workers that start together share a cache: the module is made ready once for
// each configuration, and nobody finds it half made.
func TestRegisterTogether(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	const workers, configurations = 8, 4
	errs := make([]error, workers)
	registrars := make([]registrar, workers)
	var together sync.WaitGroup
	for n := range workers {
		folder := t.TempDir()
		together.Go(func() {
			errs[n] = func() error {
				rt, err := wasmrt.New(wasmrt.Config{CacheDir: dir, Registrar: &registrars[n], Log: quiet()})
				if err != nil {
					return err
				}
				src := wasmrt.Source{Name: fmt.Sprint("subject ", n%configurations), Binary: guest(t, "order")}
				kept, err := rt.Register(t.Context(), src)
				if err != nil {
					return err
				}
				there, err := kept.Link(t.Context(), folder)
				if err != nil {
					return err
				}
				m, err := rt.Open(t.Context(), there, src)
				if err != nil {
					return err
				}
				return m.Close(context.Background())
			}()
		})
	}
	together.Wait()
	require.NoError(t, errors.Join(errs...))
	times := 0
	for n := range registrars {
		times += registrars[n].times
	}
	require.Equal(t, configurations, times)
}

// A kept module can be opened from another folder, and there by its own key only.
func TestLink(t *testing.T) {
	rt, err := wasmrt.New(wasmrt.Config{CacheDir: filepath.Join(t.TempDir(), "cache"), Log: quiet()})
	require.NoError(t, err)
	src := wasmrt.Source{Name: "subject", Binary: guest(t, "trap")}
	kept, err := rt.Register(t.Context(), src)
	require.NoError(t, err)
	there, err := kept.Link(t.Context(), t.TempDir())
	require.NoError(t, err)
	require.NoError(t, rt.Forget(t.Context(), kept.Kept))
	_, err = rt.Open(t.Context(), kept.Kept, src)
	require.ErrorIs(t, err, wasmrt.ErrDamaged)
	src.Binary = nil
	m, err := rt.Open(t.Context(), there, src)
	require.NoError(t, err)
	job, _ := newJob(t, "{}")
	_, err = m.Run(t.Context(), job)
	require.Equal(t, beacon.Trapped, beacon.CodeOf(err))
	require.NoError(t, m.Close(context.Background()))
	there.Key = make([]byte, 32)
	_, err = rt.Open(t.Context(), there, src)
	require.ErrorIs(t, err, wasmrt.ErrDamaged)
}
