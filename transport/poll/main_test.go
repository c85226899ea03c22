package poll_test

import (
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
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
				cfg.PollInterval = 20 * time.Millisecond
				return poll.Dial(cfg), c
			})
		})
	}
}

func isRefused(err error) bool { return errors.Is(err, transport.ErrRefused) }
