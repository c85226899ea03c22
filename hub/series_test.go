package hub_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
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

// What beacons say that items have used is counted for the tenant, attempt by
// attempt, and a hub that was started again still knows it.
func TestUsage(t *testing.T) {
	dir := t.TempDir()
	open := func() hub.Config {
		store, err := jetstream.Embed(t.Context(), dir, jetstream.Config{Log: slog.New(slog.DiscardHandler)})
		require.NoError(t, err)
		return hub.Config{Journal: store.Journal()}
	}
	s := start(t, open())
	w := s.join("w", 1, "A")
	first := s.enqueue(`{"Capability":"A","Tenant":"red","Settings":{"maxRetries":"2","retryBackoffMs":"1"}}`)
	require.Equal(t, first, w.item().WorkItemHash)
	w.send(`{"Action":"WorkError","WorkItemHash":"` + first + `","ErrorMessage":"no","Log":[],"Usage":{"Fuel":5,"Memory":70,"Tokens":3,"Cost":0.5}}`)
	require.Equal(t, first, w.item().WorkItemHash)
	w.send(`{"Action":"WorkComplete","WorkItemHash":"` + first + `","Outputs":{},"Log":[],"Usage":{"Fuel":7,"Memory":60,"Staged":1,"Sent":2,"Received":"three"}}`)
	s.eventually("done", func() bool { return s.record(first).Status == protocol.StatusComplete })
	sum := protocol.Usage{Fuel: 12, Memory: 70, Staged: 1, Sent: 2, Tokens: 3, Cost: 0.5}
	require.Equal(t, &sum, s.record(first).Usage)

	// By HTTP, one and many; and what makes no sense harms nobody.
	for _, report := range []struct{ path, body string }{
		{"/Beacon/Work/%s/Complete", `{"Outputs":{},"Log":[],"Usage":{"Fuel":100}}`},
		{"/Beacon/Work/%s/Error", `{"ErrorMessage":"no","Log":[],"Usage":{"Fuel":1000}}`},
		{"/Beacon/Work/Complete/Batch", `{"Items":[{"WorkItemHash":"%s","Outputs":{},"Log":[],"Usage":{"Fuel":10000}}]}`},
		{"/Beacon/Work/%s/Complete", `{"Outputs":{},"Log":[],"Usage":"much"}`},
		{"/Beacon/Work/%s/Complete", `{"Outputs":{},"Log":[],"Usage":{"Fuel":-5,"Cost":-1}}`},
	} {
		hash := s.enqueue(`{"Capability":"A","Tenant":"blue"}`)
		require.Equal(t, hash, w.item().WorkItemHash)
		a := s.post(strings.ReplaceAll(report.path, "%s", hash), strings.ReplaceAll(report.body, "%s", hash))
		require.Equal(t, http.StatusOK, a.status, "%s", a.raw)
		s.eventually("ended", func() bool { return protocol.Final(s.record(hash).Status) })
	}
	check := func(s *testServer) {
		t.Helper()
		var list struct{ Tenants []protocol.TenantRecord }
		require.NoError(t, json.Unmarshal(s.get("/Beacon/Tenants").raw, &list))
		require.Len(t, list.Tenants, 2)
		require.Equal(t, protocol.Usage{Fuel: 11_100}, list.Tenants[0].Usage)
		require.Equal(t, sum, list.Tenants[1].Usage)
		var fuel int64
		var all protocol.Series
		require.NoError(t, json.Unmarshal(s.get("/Beacon/Series?tenant=red").raw, &all))
		for _, step := range all.Steps {
			fuel += step.Usage.Fuel
		}
		require.EqualValues(t, 12, fuel)
	}
	check(s)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	require.NoError(t, s.hub.Close(ctx))
	check(start(t, open()))
}
