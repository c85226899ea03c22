package fallback_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/beacontest/coordinator"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
	"github.com/ultravisor/beacon/transport/fallback"
	"github.com/ultravisor/beacon/transport/poll"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/transport/ws"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func dial(c *coordinator.Coordinator, probe time.Duration) transport.Dial {
	cfg := session.Config{
		ServerURL:    c.URL(),
		Registration: protocol.Registration{Name: "n", Capabilities: []string{"Test"}, MaxConcurrent: 8},
		PollInterval: 20 * time.Millisecond,
		Logger:       quiet,
	}
	return fallback.Dial(fallback.Config{ProbeInterval: probe, Logger: quiet},
		fallback.Way{Name: "websocket", Dial: ws.Dial(cfg), Probe: ws.Probe(cfg)},
		fallback.Way{Name: "http", Dial: poll.Dial(cfg)},
	)
}

func TestConformance(t *testing.T) {
	for name, upgrade := range map[string]bool{"websocket": true, "http": false} {
		t.Run(name, func(t *testing.T) {
			beacontest.TestTransport(t, func(t *testing.T) (transport.Dial, beacontest.Coordinator) {
				c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
				c.AllowUpgrade(upgrade)
				return dial(c, time.Hour), c
			})
		})
	}
}

func TestReturnsToTheBetterWay(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Flavour: coordinator.ERA, Sessions: true})
	c.AllowUpgrade(false)
	d := dial(c, 10*time.Millisecond)
	s, err := d(within(t))
	require.NoError(t, err)
	require.Equal(t, "http", s.Transport())
	require.Len(t, c.Beacons(), 1)
	c.AllowUpgrade(true)
	_, err = s.Next(within(t))
	require.ErrorIs(t, err, transport.ErrDisconnected)
	require.ErrorContains(t, err, "websocket available again")
	<-s.Done()
	require.NoError(t, s.Close(within(t)))

	s, err = d(within(t))
	require.NoError(t, err)
	require.Equal(t, "websocket", s.Transport())
	require.Len(t, c.Beacons(), 1, "one identity at a time")
	require.NoError(t, s.Close(within(t)))
}

// While an item is out the session stays, but not for ever.
func TestLeavesWhenIdle(t *testing.T) {
	server := beacontest.NewServer()
	probes := make(chan error)
	d := fallback.Dial(fallback.Config{ProbeInterval: time.Millisecond, Logger: quiet},
		fallback.Way{
			Name: "better",
			Dial: func(context.Context) (transport.Session, error) { return nil, errors.New("refused") },
			Probe: func(ctx context.Context) error {
				select {
				case err := <-probes:
					return err
				case <-ctx.Done():
					return ctx.Err()
				}
			},
		},
		fallback.Way{Name: "memory", Dial: server.Dial},
	)
	for name, last := range map[string]func(s transport.Session){
		"reported":     func(s transport.Session) { require.NoError(t, s.Complete(within(t), "a", beacon.Result{})) },
		"failed":       func(s transport.Session) { require.NoError(t, s.Fail(within(t), "a", "no", nil)) },
		"second probe": func(transport.Session) { probes <- nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, err := d(within(t))
			require.NoError(t, err)
			server.Push(beacon.WorkItem{Hash: "a"})
			_, err = s.Next(within(t))
			require.NoError(t, err)
			probes <- errors.New("still not")
			probes <- nil
			select {
			case <-s.Done():
				t.Fatal("left while an item is out")
			default:
			}
			last(s)
			<-s.Done()
			require.NoError(t, s.Close(within(t)))
		})
	}
}

func TestRejectionIsFinal(t *testing.T) {
	c := coordinator.Start(t, coordinator.Config{Reject: "no"})
	_, err := dial(c, time.Hour)(within(t))
	require.Equal(t, beacon.Rejected, beacon.CodeOf(err))
	require.NotContains(t, c.Requests(), "POST /Beacon/Register", "the rejected beacon came in by another door")
}

func TestAllFail(t *testing.T) {
	refuse := func(text string) transport.Dial {
		return func(context.Context) (transport.Session, error) { return nil, errors.New(text) }
	}
	d := fallback.Dial(fallback.Config{Logger: quiet}, fallback.Way{Name: "a", Dial: refuse("no a")}, fallback.Way{Name: "b", Dial: refuse("no b")})
	_, err := d(within(t))
	require.ErrorContains(t, err, "no a")
	require.ErrorContains(t, err, "no b")
}
