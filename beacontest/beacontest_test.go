package beacontest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/ultravisor/beacon/beacontest"
	"github.com/ultravisor/beacon/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The server in memory passes the suite that real transports pass.
func TestServer(t *testing.T) {
	beacontest.TestTransport(t, func(*testing.T) (transport.Dial, beacontest.Coordinator) {
		s := beacontest.NewServer()
		return s.Dial, s
	})
}
