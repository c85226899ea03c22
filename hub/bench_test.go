package hub_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/jetstream"
	"github.com/ultravisor/beacon/hub/journal"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	beaconworker "github.com/ultravisor/beacon/worker"
)

// BenchmarkDispatch is the way of an item that does nothing: from a submitter
// over HTTP to a worker on a WebSocket and back, everything durable that has to be.
func BenchmarkDispatch(b *testing.B) {
	journals := map[string]func(b *testing.B) journal.Journal{
		"memory": func(*testing.B) journal.Journal { return journal.NewMemory() },
		"embedded": func(b *testing.B) journal.Journal {
			store, err := jetstream.Embed(b.Context(), b.TempDir(), jetstream.Config{Log: slog.New(slog.DiscardHandler)})
			require.NoError(b, err)
			return store.Journal()
		},
	}
	for _, name := range []string{"memory", "embedded"} {
		for _, flight := range []int{1, 8, 64} {
			b.Run(fmt.Sprintf("%s/in flight %d", name, flight), func(b *testing.B) {
				benchDispatch(b, journals[name](b), flight)
			})
		}
	}
}

func benchDispatch(b *testing.B, j journal.Journal, flight int) {
	quiet := slog.New(slog.DiscardHandler)
	h := hub.New(hub.Config{Journal: j, Log: quiet})
	server := httptest.NewServer(h)
	ctx, stop := context.WithCancel(context.Background())
	registered := make(chan struct{}, 1)
	var work sync.WaitGroup
	work.Go(func() {
		dial := ws.Dial(session.Config{
			ServerURL: server.URL, Logger: quiet,
			Registration: protocol.NewRegistration("bench", flight, []beacon.Capability{{Name: "Nothing", Actions: []beacon.Action{{Name: "Do"}}}}),
		})
		_ = beaconworker.Run(ctx, dial, func(context.Context, beacon.WorkItem, func(beacon.Progress)) (beacon.Result, error) {
			return beacon.Result{Outputs: beacon.Outputs{"ExitCode": 0}}, nil
		}, beaconworker.Config{MaxConcurrent: flight, Logger: quiet, OnRegistered: func(string, string) { registered <- struct{}{} }})
	})
	<-registered
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: flight}}
	took := make([]time.Duration, b.N)
	next := make(chan int)
	var submitters sync.WaitGroup
	b.ResetTimer()
	for range flight {
		submitters.Go(func() {
			for i := range next {
				began := time.Now()
				answer, err := client.Post(server.URL+"/Beacon/Work/Dispatch", "application/json", strings.NewReader(`{"Capability":"Nothing","Action":"Do","Settings":{"N":"1"}}`))
				if err != nil {
					b.Error(err)
					continue
				}
				var d protocol.Dispatched
				err = json.NewDecoder(answer.Body).Decode(&d)
				_, _ = io.Copy(io.Discard, answer.Body)
				_ = answer.Body.Close()
				if err != nil || !d.Success {
					b.Error(err, d.Error)
				}
				took[i] = time.Since(began)
			}
		})
	}
	for i := range b.N {
		next <- i
	}
	close(next)
	submitters.Wait()
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "items/s")
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
	stop()
	work.Wait()
	client.CloseIdleConnections()
	server.Close()
	require.NoError(b, h.Close(context.Background()))
}
