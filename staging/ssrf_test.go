package staging_test

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/nameserver"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/staging"
)

// S23: a tenant's source is not fetched from this machine, however it is
// written, whatever its name leads to, and wherever a redirect leads.
func TestS23Sources(t *testing.T) {
	var visits atomic.Int32
	inside := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		visits.Add(1)
		fmt.Fprint(w, "inside")
	}))
	t.Cleanup(inside.Close)
	_, port, err := net.SplitHostPort(inside.Listener.Addr().String())
	require.NoError(t, err)
	resolver := nameserver.Start(t, map[string][][]string{
		"inside.test": {{"127.0.0.1"}}, "any.test": {{"0.0.0.0"}}, "ten.test": {{"10.1.2.3"}}, "metadata.test": {{"169.254.169.254"}},
		"mapped.test": {{"::ffff:127.0.0.1"}}, "six.test": {{"::1"}}, "nat64.test": {{"64:ff9b::7f00:1"}}, "localhost": {{"127.0.0.1"}},
	})
	d := downloads(t, staging.DownloadConfig{Attempts: 1, Resolver: resolver})
	fetch := func(d *staging.Downloader, tenant, url string) error {
		dir := item(t)
		_, err := d.Fetch(t.Context(), dir, "f", staging.Source{URL: url, Tenant: tenant}, nil)
		if err != nil {
			require.Empty(t, entries(t, dir.Name()), "nothing of it is there")
			require.NotContains(t, err.Error(), "hidden")
		}
		return err
	}
	for _, host := range []string{
		"127.0.0.1", "localhost", "LOCALHOST", "0.0.0.0", "[::]", "[::1]", "[::1%25lo]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
		"[64:ff9b::7f00:1]", "[2002:7f00:1::]", "127.1", "2130706433", "0x7f.1", "0x7f000001", "0177.0.0.1", "017700000001", "0", "127.0.0.1.",
		"127。0。0。1", "①②⑦.⓪.⓪.①", "ⓛocalhost", "user:hidden@127.0.0.1", "example.com:hidden@127.0.0.1", "example.com%2f@127.0.0.1",
		"inside.test", "inside.test.", "INSIDE.test", "any.test", "ten.test", "mapped.test", "six.test", "nat64.test",
	} {
		err := fetch(d, "acme", "http://"+host+":"+port+"/?hidden")
		require.Error(t, err, host)
		require.NotEqual(t, beacon.Internal, beacon.CodeOf(err), "%s: %v", host, err)
	}
	// Where clouds keep credentials nobody's sources are fetched from.
	for _, tenant := range []string{"acme", ""} {
		err := fetch(d, tenant, "http://metadata.test:"+port+"/")
		require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%v", err)
	}
	require.Zero(t, visits.Load())
	require.NoError(t, fetch(d, "", "http://inside.test:"+port+"/"), "without tenants servers may be on this machine")
	require.EqualValues(t, 1, visits.Load())

	// A redirect is checked as the first URL was, and an address is that which is
	// dialled, not that which an earlier question was answered with.
	var to atomic.Pointer[string]
	open := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", *to.Load())
		w.WriteHeader(http.StatusFound)
	}))
	t.Cleanup(open.Close)
	_, openPort, err := net.SplitHostPort(open.Listener.Addr().String())
	require.NoError(t, err)
	visits.Store(0)
	d = downloads(t, staging.DownloadConfig{
		Attempts: 1, Resolver: nameserver.Start(t, map[string][][]string{"open.test": {{"127.0.0.1"}}, "rebinding.test": {{"10.1.2.3"}, {"127.0.0.1"}}, "metadata.test": {{"169.254.169.254"}}}),
		// One port of loopback is open, as if it were a public server.
		Policy: func(string) egress.Policy {
			rule, err := egress.ParseRule("*://open.test:" + openPort)
			require.NoError(t, err)
			return egress.Policy{Private: true, Allow: []egress.Rule{rule}}
		},
	})
	for _, location := range []string{
		inside.URL, "http://inside.test:" + port, "//127.0.0.1:" + port, "http://open.test:" + port, "http://open.test:hidden@127.0.0.1:" + port,
		"http://169.254.169.254/", "http://metadata.test/", "file:///etc/passwd", "gopher://127.0.0.1/", "http://2130706433:" + port, "http://①②⑦.⓪.⓪.①:" + port,
	} {
		to.Store(&location)
		err := fetch(d, "acme", "http://open.test:"+openPort)
		require.Error(t, err, location)
		require.NotEqual(t, beacon.Internal, beacon.CodeOf(err), "%s: %v", location, err)
	}
	same := "http://open.test:" + openPort
	to.Store(&same)
	require.ErrorContains(t, fetch(d, "acme", same), "more than 3 redirects")
	require.Zero(t, visits.Load())

	d = downloads(t, staging.DownloadConfig{
		Attempts: 1, Resolver: nameserver.Start(t, map[string][][]string{"rebinding.test": {{"127.0.0.3"}, {"127.0.0.1"}}}),
		Policy: func(string) egress.Policy {
			return egress.Policy{Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.3/32")}}
		},
	})
	for range 6 {
		require.Error(t, fetch(d, "acme", "http://rebinding.test:"+port+"/"))
	}
	require.Zero(t, visits.Load())
}
