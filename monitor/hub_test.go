package monitor_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/monitor"
	"github.com/ultravisor/beacon/protocol"
)

func TestHub(t *testing.T) {
	census := protocol.Census{
		Backlog:  []protocol.BacklogRecord{{Capability: "Shell", Waiting: 3, Running: 2, FreeSlots: 1, Beacons: 4, OldestMs: 1500}},
		Tenants:  []protocol.TenantRecord{{Tenant: "acme", Queued: 3, Running: 2, Completed: 9, SlotMs: 2500, Usage: protocol.Usage{Fuel: 7}}},
		Beacons:  map[string]int{protocol.BeaconOnline: 4},
		Finished: 8, Dead: 1, Hubs: 2,
	}
	var broken error
	h := monitor.Hub("v1", func() protocol.Census { return census }, func() error { return broken }, quiet())
	_, figures := ask(t, h, "/metrics")
	for _, line := range []string{
		`beacon_hub_beacons{status="Online"} 4`,
		`beacon_hub_items_waiting{capability="Shell"} 3`,
		`beacon_hub_oldest_wait_seconds{capability="Shell"} 1.5`,
		`beacon_hub_tenant_items_completed_total{tenant="acme"} 9`,
		`beacon_hub_tenant_slot_seconds_total{tenant="acme"} 2.5`,
		`beacon_hub_tenant_fuel_total{tenant="acme"} 7`,
		`beacon_hub_items_finished 8`,
		`beacon_hub_hubs 2`,
	} {
		require.Contains(t, figures, line+"\n")
	}
	problems, err := promlint.New(strings.NewReader(figures)).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)

	census.Backlog = nil
	for n := range 300 {
		census.Backlog = append(census.Backlog, protocol.BacklogRecord{Capability: fmt.Sprint("capability ", n), Waiting: 1, OldestMs: int64(n) * 1000})
	}
	_, figures = ask(t, h, "/metrics")
	require.Equal(t, 200, strings.Count(figures, "\nbeacon_hub_items_waiting{"), "Shell was the first")
	require.Contains(t, figures, `beacon_hub_items_waiting{capability="(others)"} 101`+"\n")
	require.Contains(t, figures, `beacon_hub_oldest_wait_seconds{capability="(others)"} 299`+"\n")

	status, _ := ask(t, h, "/readyz")
	require.Equal(t, http.StatusOK, status)
	broken = errors.New("the journal is broken")
	status, body := ask(t, h, "/readyz")
	require.Equal(t, http.StatusServiceUnavailable, status)
	require.Equal(t, "the journal is broken\n", body)
}
