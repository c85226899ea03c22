package jetstream_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon/hub/jetstream"
)

// cluster starts so many NATS servers that are one.
func cluster(t *testing.T, n int) (urls []string) {
	t.Helper()
	var routes []string
	var ports []int
	for range n { // a cluster knows how large it is by its routes
		port := freePort(t)
		ports, routes = append(ports, port), append(routes, fmt.Sprint("nats://127.0.0.1:", port))
	}
	var servers []*server.Server
	for i, port := range ports {
		srv, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprint("node-", i), Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true,
			Cluster: server.ClusterOpts{Name: "cluster", Host: "127.0.0.1", Port: port}, Routes: server.RoutesFromStr(strings.Join(routes, ",")),
		})
		require.NoError(t, err)
		srv.Start()
		t.Cleanup(func() {
			srv.Shutdown()
			srv.WaitForShutdown()
		})
		servers = append(servers, srv)
	}
	for _, srv := range servers {
		require.True(t, srv.ReadyForConnections(5*time.Minute))
		urls = append(urls, srv.ClientURL())
	}
	require.Eventually(t, func() bool {
		for _, srv := range servers {
			if srv.JetStreamIsLeader() { // who knows the others
				return len(srv.JetStreamClusterPeers()) == n
			}
		}
		return false
	}, 5*time.Minute, 10*time.Millisecond, "the servers find each other")
	return urls
}

// freePort is one on which nothing listens, below those that the system gives to
// outgoing connections.
func freePort(t *testing.T) int {
	t.Helper()
	for range 1000 {
		port := 12000 + rand.IntN(18000)
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err == nil {
			require.NoError(t, l.Close())
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// Hubs that begin together create everything once, whichever is faster, and none
// gives up because another's bucket is not everywhere yet.
func TestHubsBeginTogether(t *testing.T) {
	urls := cluster(t, 3)
	for turn := range 3 {
		var hubs sync.WaitGroup
		for i := range 6 {
			hubs.Go(func() {
				s, err := jetstream.Connect(within(t), urls[i%3:i%3+1], "", jetstream.Config{Prefix: fmt.Sprint("turn", turn), Log: quiet})
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := s.Objects(within(t)); err != nil {
					t.Error(err)
				}
				if err := s.Journal().Close(within(t)); err != nil {
					t.Error(err)
				}
			})
		}
		hubs.Wait()
	}
}

func TestTwoServersAreRefused(t *testing.T) {
	urls := cluster(t, 2)
	var err error
	for wait := 2 * time.Second; !errors.Is(err, jetstream.ErrTwoNodes) && wait < 2*time.Minute; wait *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), wait) // until then the third may be about to start
		_, err = jetstream.Connect(ctx, urls, "", jetstream.Config{Log: quiet})
		cancel()
	}
	require.ErrorIs(t, err, jetstream.ErrTwoNodes)
	_, err = jetstream.Connect(within(t), urls, "", jetstream.Config{Replicas: 2, Log: quiet})
	require.ErrorIs(t, err, jetstream.ErrTwoNodes)
}

// What the list of pitfalls says is tested is.
func TestPitfallsNameTests(t *testing.T) {
	list, err := os.ReadFile("PITFALLS.md")
	require.NoError(t, err)
	var sources strings.Builder
	for _, pattern := range []string{"*_test.go", "../*_test.go", "../ledger/*_test.go", "../../cmd/beacon/*_test.go"} {
		paths, err := filepath.Glob(pattern)
		require.NoError(t, err)
		for _, path := range paths {
			source, err := os.ReadFile(path)
			require.NoError(t, err)
			sources.Write(source)
		}
	}
	names := regexp.MustCompile(`Test\w+`).FindAllString(string(list), -1)
	require.NotEmpty(t, names)
	for _, name := range names {
		require.True(t, strings.Contains(sources.String(), "func "+name+"("), "there is no %s", name)
	}
}
