package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/ultravisor/beacon"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

func newDevCommand(s streams) *cobra.Command {
	o := &runOptions{streams: s}
	cmd := newRunCommandOf(o)
	cmd.Use = "dev [FOLDER] [flags]"
	cmd.Short = "Run a worker with a provider that is built again whenever its source changes"
	cmd.Long = `Run a worker, as beacon run does, with the provider in FOLDER. Whenever a file there
changes it is built again, and takes the place of the version before: items that run
finish on that, the next ones begin on the new one. What does not build is said, and
the version before goes on.

Actions and settings that are new are known to the server after a restart.`
	cmd.Example = `  beacon dev hello`
	cmd.Args = nil
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return usagef("dev takes one folder")
		}
		folder := "."
		if len(args) == 1 {
			folder = args[0]
		}
		o.modules = append([]string{folder}, o.modules...)
		if err := o.configure(cmd.Flags()); err != nil {
			return err
		}
		o.dev = folder
		return o.run(cmd.Context())
	}
	return cmd
}

// A swap is a provider whose place another one can take while items run.
type swap struct {
	mu      sync.Mutex
	current *edition
	retired sync.WaitGroup // the editions that finish their items
}

// An edition is one version of a provider, and the items on it.
type edition struct {
	beacon.Provider
	items sync.WaitGroup
	count int // guarded by the swap's mutex
	close func() error
}

func newSwap(p beacon.Provider, closeProvider func() error) *swap {
	return &swap{current: &edition{Provider: p, close: closeProvider}}
}

// Capability is that of the current version.
func (s *swap) Capability() beacon.Capability {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current.Capability()
}

// Run runs an item on the version that is current when it begins.
func (s *swap) Run(ctx context.Context, job *beacon.Job) (beacon.Result, error) {
	s.mu.Lock()
	e := s.current
	e.items.Add(1)
	e.count++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		e.count--
		s.mu.Unlock()
		e.items.Done()
	}()
	return e.Run(ctx, job)
}

// replace puts another version in place. The one before is closed once its items,
// whose number is returned, have ended; failed is told if that goes wrong.
func (s *swap) replace(p beacon.Provider, closeProvider func() error, failed func(error)) int {
	s.mu.Lock()
	old := s.current
	s.current = &edition{Provider: p, close: closeProvider}
	running := old.count
	s.mu.Unlock()
	s.retired.Go(func() {
		old.items.Wait()
		if err := old.close(); err != nil {
			failed(err)
		}
	})
	return running
}

// end closes the current version, when no more items come, and waits for those
// before.
func (s *swap) end() error {
	s.retired.Wait()
	return s.current.close()
}

// watchEvery is how often the source is looked at.
const watchEvery = 300 * time.Millisecond

// develop puts a swap in the place of the provider that is developed, and keeps
// it up to date until the returned function is called.
func (o *runOptions) develop(ctx context.Context, all []offered, rt *wasmrt.Runtime, dirs folders, g *guard) (stop func() error) {
	config := all[0].config
	hot := newSwap(all[0].Provider, func() error { return nil }) // the first one is closed with all others
	all[0].Provider = hot
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		seen, _ := state(o.dev) // what cannot be read now may be, later
		tick := time.NewTicker(watchEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			now, err := state(o.dev)
			if err != nil || now == seen {
				continue
			}
			seen = now
			o.rebuild(ctx, hot, config, rt, dirs, g)
		}
	})
	return func() error {
		cancel()
		watching.Wait()
		return hot.end()
	}
}

// rebuild builds the provider and puts it in place.
func (o *runOptions) rebuild(ctx context.Context, hot *swap, p providerConfig, rt *wasmrt.Runtime, dirs folders, g *guard) {
	started := time.Now()
	m, err := load(ctx, rt, dirs, p, g)
	if ctx.Err() != nil {
		if err == nil {
			_ = m.Close(context.WithoutCancel(ctx)) // nobody is there to be told
		}
		return
	}
	if err != nil {
		fmt.Fprintf(o.out, "beacon: %s\nbeacon: the version before goes on\n", err)
		return
	}
	before := hot.Capability()
	running := hot.replace(p.recorded(m), func() error { return m.Close(context.WithoutCancel(ctx)) }, func(err error) {
		fmt.Fprintf(o.err, "beacon: closing the version before: %s\n", err)
	})
	note := ""
	if running > 0 {
		note = fmt.Sprintf("; %d items finish on the version before", running)
	}
	fmt.Fprintf(o.out, "beacon: %s is new since now, built in %s%s\n", m.Name(), time.Since(started).Round(time.Millisecond), note)
	if !reflect.DeepEqual(before, m.Capability()) {
		fmt.Fprintln(o.out, "beacon: what it offers has changed: start again to tell the server")
	}
}

// state is a digest of the names, sizes and times of a folder's files, without
// what is built there and what is hidden.
func state(folder string) ([sha256.Size]byte, error) {
	h := sha256.New()
	err := filepath.WalkDir(folder, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) { // it went while we were looking
				return nil
			}
			return err
		}
		name := e.Name()
		hidden := strings.HasPrefix(name, ".") && path != folder
		if e.IsDir() {
			if hidden || name == "node_modules" || name == "target" || name == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if hidden || strings.HasSuffix(name, ".wasm") {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return nil //nolint:nilerr // it went while we were looking
		}
		fmt.Fprintf(h, "%s\x00%d\x00%d\x00", path, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return [sha256.Size]byte(h.Sum(nil)), err
}
