package session_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/transport/session"
)

func TestNothingIsCalledAfterTheEnd(t *testing.T) {
	life, end := context.WithCancel(t.Context())
	gone := errors.New("gone")
	call := func() error {
		return session.During(t.Context(), life, func() error { return gone }, func(ctx context.Context) error {
			if life.Err() != nil {
				t.Error("called after the end")
			}
			end()
			<-ctx.Done()
			return ctx.Err()
		})
	}
	require.ErrorIs(t, call(), gone, "the end ends the call")
	require.ErrorIs(t, call(), gone)
}
