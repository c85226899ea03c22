package ws_test

import (
	"io"
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func config(c *coordinator.Coordinator) session.Config {
	return session.Config{
		ServerURL:    c.URL(),
		Registration: protocol.Registration{Name: "n002", Capabilities: []string{"Shell", "FileSystem", "Bench"}, MaxConcurrent: 1},
		Logger:       quiet,
	}
}

func TestConformance(t *testing.T) {
	for _, flavour := range []coordinator.Flavour{coordinator.ERA, coordinator.HEAD} {
		t.Run(string(flavour), func(t *testing.T) {
			beacontest.TestTransport(t, func(t *testing.T) (transport.Dial, beacontest.Coordinator) {
				c := coordinator.Start(t, coordinator.Config{Flavour: flavour, Prefix: "/ultra%20visor", Sessions: flavour == coordinator.ERA})
				cfg := config(c)
				cfg.Registration.MaxConcurrent = 8
				return ws.Dial(cfg), c
			})
		})
	}
}
