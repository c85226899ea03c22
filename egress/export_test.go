package egress

import (
	"context"
	"io"
	"net/netip"
	"time"
)

// CheckAddress is what the dialer asks.
func (p *Policy) CheckAddress(ip netip.Addr) error { return p.checkAddress(ip) }

// WatchedBody is a body with its limits, without a network.
func WatchedBody(ctx context.Context, from io.ReadCloser, cancel context.CancelCauseFunc, limit, rate int64, window time.Duration) io.ReadCloser {
	return &body{from: from, cancel: cancel, cause: func() error { return context.Cause(ctx) }, limit: limit, rate: rate, window: window}
}
