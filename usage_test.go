package beacon_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
)

var errBroke = errors.New("broke")

// A payer has nothing left.
type payer struct {
	mu   sync.Mutex
	last beacon.Usage
	held int64
}

func (p *payer) Used(u beacon.Usage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = u
}

func (p *payer) Pace(context.Context) error { return errBroke }

func (p *payer) Hold(n int64) error {
	if n > 0 {
		return errBroke
	}
	p.held += n
	return nil
}

func TestAccount(t *testing.T) {
	p := &payer{}
	a := beacon.NewAccount(p)
	a.Add(beacon.Usage{Fuel: 1, Memory: 10, Sent: 2, Cost: 0.5})
	a.Add(beacon.Usage{Fuel: 2, Memory: 5, Received: 3, Tokens: 4, Staged: 5})
	require.Equal(t, beacon.Usage{Fuel: 2, Memory: 5, Received: 3, Tokens: 4, Staged: 5}, p.last)
	require.ErrorIs(t, a.Spend(t.Context(), beacon.Usage{}), errBroke)
	require.ErrorIs(t, a.Hold(7), errBroke)
	require.NoError(t, a.Hold(-7))
	require.Equal(t, int64(-7), p.held)
	a.Contacted("a:443")
	a.Contacted("b:443")
	a.Contacted("a:443")
	a.Used("http https://a/")
	a.Ran("digest")
	s := a.Statement()
	require.Equal(t, beacon.Usage{Fuel: 3, Memory: 10, Staged: 5, Sent: 2, Received: 3, Tokens: 4, Cost: 0.5}, s.Usage)
	require.Equal(t, []string{"a:443", "b:443"}, s.Hosts)
	require.Equal(t, []string{"http https://a/"}, s.Permissions)
	require.Equal(t, []string{"digest"}, s.Modules)

	for n := range 1000 {
		a.Contacted(fmt.Sprint(n))
	}
	hosts := a.Statement().Hosts
	require.Len(t, hosts, 65)
	require.Equal(t, "…", hosts[64])

	var tasks sync.WaitGroup
	for range 100 {
		tasks.Go(func() { a.Add(beacon.Usage{Fuel: 1}) })
	}
	tasks.Wait()
	require.EqualValues(t, 103, a.Statement().Usage.Fuel)

	var none *beacon.Account
	none.Add(beacon.Usage{Fuel: 1})
	none.Contacted("a")
	require.NoError(t, none.Spend(t.Context(), beacon.Usage{Fuel: 1}))
	require.NoError(t, none.Hold(5))
	require.Zero(t, none.Statement())
}

// What guests ask for is added up, and charged to nobody; a nil account knows
// only what it is told.
func TestTraffic(t *testing.T) {
	a := beacon.NewAccount(nil)
	a.Add(beacon.Usage{Received: 1 << 40}) // a source
	require.Equal(t, beacon.Traffic{Requests: 1}, a.Ask(beacon.Traffic{Requests: 1}))
	require.Equal(t, beacon.Traffic{Requests: 1, Sent: 2, Received: 3}, a.Ask(beacon.Traffic{Sent: 2, Received: 3}))
	require.Equal(t, beacon.Usage{Received: 1 << 40}, a.Statement().Usage)
	require.Equal(t, beacon.Traffic{Sent: 5}, (*beacon.Account)(nil).Ask(beacon.Traffic{Sent: 5}))
}
