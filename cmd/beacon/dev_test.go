package main

import (
	"context"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

// A held provider ends its items when it is told to.
type held struct {
	name   string
	began  chan struct{}
	finish chan struct{}
	closed atomic.Bool
}

func hold(name string) *held {
	return &held{name: name, began: make(chan struct{}), finish: make(chan struct{})}
}

func (h *held) Capability() beacon.Capability { return beacon.Capability{Name: h.name} }

func (h *held) Run(context.Context, *beacon.Job) (beacon.Result, error) {
	h.began <- struct{}{}
	<-h.finish
	if h.closed.Load() {
		return beacon.Result{}, beacon.Errorf(beacon.Internal, "closed")
	}
	return beacon.Result{Outputs: beacon.Outputs{"Result": h.name}}, nil
}

func (h *held) close() error { h.closed.Store(true); return nil }

// Items end on the version that they began on, which is closed after them.
func TestSwap(t *testing.T) {
	one, two := hold("one"), hold("two")
	s := newSwap(one, one.close)
	results := make(chan string)
	run := func() {
		go func() {
			r, err := s.Run(t.Context(), nil)
			if err != nil {
				results <- err.Error()
				return
			}
			results <- textOf(r.Outputs["Result"])
		}()
	}
	run()
	<-one.began
	require.Equal(t, 1, s.replace(two, two.close, func(err error) { t.Error(err) }))
	require.Equal(t, "two", s.Capability().Name)
	run()
	<-two.began
	close(two.finish)
	require.Equal(t, "two", <-results, "the new one does not wait for the old one")
	require.False(t, one.closed.Load())
	close(one.finish)
	require.Equal(t, "one", <-results)
	require.NoError(t, s.end())
	require.True(t, one.closed.Load())
	require.True(t, two.closed.Load())
}

func TestState(t *testing.T) {
	folder := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		require.NoError(t, os.MkdirAll(filepath.Dir(filepath.Join(folder, name)), 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600))
	}
	look := func() any {
		t.Helper()
		s, err := state(folder)
		require.NoError(t, err)
		return s
	}
	write("main.go", "a")
	before := look()
	for _, name := range []string{"main.wasm", ".git/index", "testdata/x.json", ".main.go.swp", "target/debug/x"} {
		write(name, "x")
		require.Equal(t, before, look(), name)
	}
	write("main.go", "longer")
	require.NotEqual(t, before, look())
	before = look()
	write("sub/other.go", "b")
	require.NotEqual(t, before, look())
}
