package runtime_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/guestfs"
	"github.com/ultravisor/beacon/hostfuncs"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// Who is canceled gets a second, but not beyond the deadline.
func TestGraceEndsAtTheDeadline(t *testing.T) {
	for name, tt := range map[string]struct{ deadline, canceled, ends time.Duration }{
		"long before it": {time.Hour, time.Minute, time.Minute + time.Second},
		"just before it": {time.Hour, time.Hour - time.Millisecond, time.Hour},
		"after it":       {time.Minute, time.Hour, time.Minute},
		"without one":    {0, time.Minute, time.Minute + time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.deadline > 0 {
					var end context.CancelFunc
					ctx, end = context.WithTimeout(ctx, tt.deadline)
					defer end()
				}
				item := hostfuncs.NewItem(nil, guestfs.None(), nil, time.Time{}, hostfuncs.Limits{})
				inner, release := wasmrt.Graceful(ctx, item)
				defer release()
				began := time.Now()
				defer time.AfterFunc(tt.canceled, cancel).Stop()
				<-inner.Done()
				require.Equal(t, tt.ends, time.Since(began))
				require.Equal(t, tt.canceled < tt.ends, item.Canceled())
			})
		})
	}
}
