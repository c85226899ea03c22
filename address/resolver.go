package address

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// A Resolver finds what addresses name: a file of this beacon, or where another
// beacon has it. It is safe for concurrent use once it is configured.
type Resolver struct {
	// Contexts are this beacon's; nil means that it has none.
	Contexts *Contexts
	// Self lists the names and ids of this beacon; nil means that it has none.
	Self func() []string
	// Peers asks the server which beacons there are; nil means that nobody does.
	Peers func(ctx context.Context) ([]protocol.Peer, error)
	// Tenants are those whose items may read this beacon's contexts; empty means
	// beacon.DefaultTenant alone. Contexts hold files of the operator.
	Tenants []string

	mu    sync.Mutex
	peers []protocol.Peer
	asked time.Time
}

// fresh is for how long a server's word on its beacons holds.
const fresh = 10 * time.Second

// Resolve finds the file, or the URL of it, on behalf of a tenant's item. It is
// what executor.Config.Resolve wants; whoever calls it closes the file.
func (r *Resolver) Resolve(ctx context.Context, tenant, text string) (url string, local *os.File, err error) {
	a, err := Parse(text)
	if err != nil {
		return "", nil, err
	}
	mine := r.Self != nil && slices.Contains(r.Self(), a.Beacon)
	here := r.Contexts != nil && r.Contexts.Has(a.Context) && r.may(tenant)
	switch {
	case mine && !r.may(tenant):
		return "", nil, beacon.Errorf(beacon.Denied, "the contexts of this beacon are not for this tenant")
	case here && (mine || a.Beacon == Any):
		local, err = r.Contexts.File(a)
		return "", local, err
	case mine && r.Contexts != nil:
		_, err = r.Contexts.File(a) // says what there is
		return "", nil, err
	case mine:
		return "", nil, beacon.Errorf(beacon.NotFound, "this beacon has no contexts")
	}
	url, err = r.elsewhere(ctx, a)
	return url, nil, err
}

func (r *Resolver) may(tenant string) bool {
	if len(r.Tenants) == 0 {
		return tenant == beacon.DefaultTenant
	}
	return slices.Contains(r.Tenants, tenant)
}

// elsewhere asks the server who has the context.
func (r *Resolver) elsewhere(ctx context.Context, a Address) (string, error) {
	if r.Peers == nil {
		return "", beacon.Errorf(beacon.NotFound, "beacon %s is not this one, and no server is there to ask for it", beacon.Excerpt(a.Beacon, 80))
	}
	for again := false; ; again = true {
		peers, recent, err := r.known(ctx, again)
		if err != nil {
			return "", fmt.Errorf("ask the server for beacon %s: %w", beacon.Excerpt(a.Beacon, 80), err)
		}
		found := false
		for _, p := range peers {
			if a.Beacon != Any && a.Beacon != p.Name && a.Beacon != p.BeaconID {
				continue
			}
			found = true
			if at, ok := p.Contexts[a.Context]; ok && at.BaseURL != "" {
				return a.on(at.BaseURL)
			}
		}
		switch {
		case !recent && !again: // it may have come since
		case found:
			return "", beacon.Errorf(beacon.NotFound, "beacon %s has no context %s that can be reached (with a BaseURL)",
				beacon.Excerpt(a.Beacon, 80), beacon.Excerpt(a.Context, 80))
		default:
			return "", beacon.Errorf(beacon.NotFound, "the server knows no beacon %s", beacon.Excerpt(a.Beacon, 80))
		}
	}
}

// known are the beacons as of now, or as of a moment ago.
func (r *Resolver) known(ctx context.Context, anew bool) (peers []protocol.Peer, recent bool, err error) {
	r.mu.Lock()
	peers, asked := r.peers, r.asked
	r.mu.Unlock()
	if !anew && !asked.IsZero() && time.Since(asked) < fresh {
		return peers, false, nil
	}
	if peers, err = r.Peers(ctx); err != nil {
		return nil, false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers, r.asked = peers, time.Now()
	return peers, true, nil
}
