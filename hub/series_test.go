package hub_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/protocol"
)

func (s *testServer) series(path string) (total protocol.Step) {
	s.t.Helper()
	var all protocol.Series
	a := s.get(path)
	require.Equal(s.t, http.StatusOK, a.status)
	require.NoError(s.t, json.Unmarshal(a.raw, &all))
	require.Len(s.t, all.Steps, 180)
	for i, step := range all.Steps {
		if i > 0 {
			require.Equal(s.t, all.StepMs, step.At.Sub(all.Steps[i-1].At.Time).Milliseconds())
		}
		total.Completed += step.Completed
		total.Failed += step.Failed
		total.Canceled += step.Canceled
		total.RunMs95 = max(total.RunMs95, step.RunMs95)
	}
	return total
}

// What ended is counted, for each tenant apart, and still is by a hub that was
// started again.
func TestSeries(t *testing.T) {
	dir := t.TempDir()
	open := func() hub.Config {
		store, err := jetstream.Embed(t.Context(), dir, jetstream.Config{Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return hub.Config{Journal: store.Journal()}
	}
	s := start(t, open())
	require.Zero(t, s.series("/Beacon/Series"))
	for _, tenant := range []string{"red", "red", "blue"} {
		hash := s.enqueue(`{"Capability":"Nobody","Tenant":"` + tenant + `"}`)
		require.Equal(t, http.StatusOK, s.post("/Beacon/Work/"+hash+"/Cancel", "{}").status)
	}
	require.Equal(t, 3, s.series("/Beacon/Series").Canceled)
	require.Equal(t, 2, s.series("/Beacon/Series?tenant=red").Canceled)
	require.Zero(t, s.series("/Beacon/Series?tenant=green"))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.hub.Close(ctx))
	again := start(t, open())
	require.Equal(t, 3, again.series("/Beacon/Series").Canceled)
}
