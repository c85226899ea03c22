package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
	"github.com/ultravisor/beacon/worker"
)

// Hub and worker meet only on the wire.
func TestWithTheHub(t *testing.T) {
	ways := map[string]func(session.Config) transport.Dial{"websocket": ws.Dial, "http": poll.Dial}
	for name, dial := range ways {
		t.Run(name, func(t *testing.T) {
			h := hub.New(hub.Config{Log: quiet})
			defer func() { require.NoError(t, h.Close(within(t))) }()
			server := httptest.NewServer(h)
			defer server.Close()
			registered := make(chan struct{})
			stop := serve(t, dial(session.Config{
				ServerURL:    server.URL,
				Registration: protocol.NewRegistration("n", 2, []beacon.Capability{{Name: "Test", Actions: []beacon.Action{{Name: "Run"}}}}),
				PollInterval: 10 * time.Millisecond, Logger: quiet,
			}), func(_ context.Context, item beacon.WorkItem, progress func(beacon.Progress)) (beacon.Result, error) {
				progress(beacon.Progress{Percent: 50, HasPercent: true, Log: []string{"halfway"}})
				if item.Settings.Has("Fail") {
					return beacon.Result{}, beacon.Errorf(beacon.Failed, "provider says no")
				}
				return beacon.Result{Outputs: beacon.Outputs{"Result": item.Settings.Text("N"), "ExitCode": 0}, Log: []string{"done"}}, nil
			}, worker.Config{MaxConcurrent: 2, OnRegistered: func(string, string) { close(registered) }})
			<-registered
			dispatch := func(settings string) (int, map[string]any) {
				answer, err := http.Post(server.URL+"/Beacon/Work/Dispatch", "application/json",
					strings.NewReader(`{"Capability":"Test","Action":"Run","Settings":`+settings+`}`))
				if err != nil {
					t.Error(err)
					return 0, nil
				}
				defer answer.Body.Close()
				var body map[string]any
				if err := json.NewDecoder(answer.Body).Decode(&body); err != nil {
					t.Error(err)
				}
				return answer.StatusCode, body
			}
			var all sync.WaitGroup
			for i := range 20 {
				all.Go(func() {
					status, body := dispatch(fmt.Sprintf(`{"N":"%d"}`, i))
					if outputs, ok := body["Outputs"].(map[string]any); status != http.StatusOK || !ok || outputs["Result"] != fmt.Sprint(i) || fmt.Sprint(body["Log"]) != "[halfway done]" {
						t.Errorf("dispatch %d: %d %v", i, status, body)
					}
				})
			}
			all.Wait()
			status, body := dispatch(`{"Fail":"yes"}`)
			require.Equal(t, http.StatusInternalServerError, status)
			require.Contains(t, fmt.Sprint(body["Error"]), "provider says no")
			require.NoError(t, stop())
			http.DefaultClient.CloseIdleConnections()
		})
	}
}
