package runtime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

func TestMemoryBudgetWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemoryBudget(100)
		ctx := t.Context()
		require.NoError(t, b.enter(ctx, 60))
		require.Equal(t, beacon.MemoryLimit, beacon.CodeOf(b.enter(ctx, 101)), "more than there will ever be")

		var order []string
		var mu sync.Mutex
		wait := func(name string, bytes int64) {
			go func() {
				err := b.enter(ctx, bytes)
				mu.Lock()
				defer mu.Unlock()
				order = append(order, fmt.Sprint(name, err))
			}()
			synctest.Wait()
		}
		wait("large", 50)
		wait("small", 10) // fits, but comes after
		require.Empty(t, order)
		require.Contains(t, b.String(), "used by 1 items; 0 wait to grow, 2 to begin")
		b.leave(60)
		synctest.Wait()
		require.Len(t, order, 2)
		b.leave(50)
		b.leave(10)

		// Who gives up makes room for those behind.
		require.NoError(t, b.enter(ctx, 60))
		short, cancel := context.WithCancelCause(ctx)
		gone := errors.New("gone")
		failed := make(chan error, 1)
		go func() { failed <- b.enter(short, 50) }()
		synctest.Wait()
		order = nil
		wait("small", 10)
		require.Empty(t, order)
		cancel(gone)
		require.ErrorIs(t, <-failed, gone)
		synctest.Wait()
		require.Len(t, order, 1)
		b.leave(60)
		b.leave(10)
		require.Zero(t, b.used)
		require.Zero(t, b.running)
	})
}

func TestMemoryBudgetGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newMemoryBudget(100)
		ctx := t.Context()
		require.NoError(t, b.enter(ctx, 40))
		require.NoError(t, b.enter(ctx, 40))
		require.True(t, b.grow(ctx, 20))
		// The first waits for the second, the second cannot wait for the first: it is
		// refused, and when it ends there is enough.
		first := make(chan bool, 1)
		go func() { first <- b.grow(ctx, 30) }()
		synctest.Wait()
		require.False(t, b.grow(ctx, 30))
		b.leave(60)
		require.True(t, <-first)
		b.leave(70)

		// An item that ends without being able to give back enough leaves one that
		// waits for nobody.
		require.NoError(t, b.enter(ctx, 90))
		require.NoError(t, b.enter(ctx, 5))
		go func() { first <- b.grow(ctx, 50) }()
		synctest.Wait()
		b.leave(5)
		require.False(t, <-first)

		// Growing ends with its item.
		require.NoError(t, b.enter(ctx, 5))
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		require.False(t, b.grow(short, 50))
		b.leave(90)
		b.leave(5)
		require.Zero(t, b.used)
	})
}

// What is idle gives way to what is needed.
func TestMemoryBudgetReclaims(t *testing.T) {
	b := newMemoryBudget(100)
	p := &pool{}
	require.True(t, b.keep(70))
	b.join(p, func() { b.give(70) })
	require.False(t, b.keep(40))
	require.NoError(t, b.enter(t.Context(), 80))
	b.part(p)
	b.leave(80)
	require.Zero(t, b.used)
}

// S15: many at once, never more than there is, and all come through.
func TestMemoryBudgetUnderLoad(t *testing.T) {
	b := newMemoryBudget(1000)
	var all sync.WaitGroup
	for n := range 32 {
		all.Go(func() {
			for round := range 200 {
				bytes := int64((n*31+round*17)%300 + 1)
				if err := b.enter(t.Context(), bytes); err != nil {
					t.Error(err)
					return
				}
				if more := int64((n + round) % 100); b.grow(t.Context(), more) {
					bytes += more
				}
				b.mu.Lock()
				if b.used > b.total {
					t.Errorf("%d used", b.used)
				}
				b.mu.Unlock()
				b.leave(bytes)
			}
		})
	}
	all.Wait()
	require.Zero(t, b.used)
	require.Zero(t, b.running)
}
