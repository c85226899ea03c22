package egress_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
)

func TestAddresses(t *testing.T) {
	const public, private, never = "public", "private", "never"
	tests := map[string]string{
		"8.8.8.8": public, "1.1.1.1": public, "172.32.0.1": public, "100.128.0.1": public, "198.17.0.1": public,
		"2606:4700::1111": public, "2a00::1": public,

		"127.0.0.1": private, "127.255.1.2": private, "0.0.0.0": private, "0.1.2.3": private, "10.1.2.3": private,
		"172.16.0.1": private, "172.31.255.255": private, "192.168.1.1": private, "100.64.0.1": private,
		"198.18.0.1": private, "192.0.2.1": private, "240.0.0.1": private, "192.0.0.8": private,
		"::1": private, "::": private, "fd00::1": private, "fc00::1": private, "fec0::1": private,
		"2001:db8::1": private, "100::1": private,

		"169.254.169.254": never, "169.254.1.1": never, "fe80::1": never, "fe80::1%eth0": never,
		"224.0.0.1": never, "ff02::1": never, "255.255.255.255": never,
		"100.100.100.200": never, "168.63.129.16": never, "192.0.0.192": never, "fd00:ec2::254": never, "fd20:ce::254": never,

		// IPv4 inside of IPv6.
		"::ffff:8.8.8.8": public, "::ffff:127.0.0.1": private, "::ffff:169.254.169.254": never,
		"64:ff9b::8.8.8.8": public, "64:ff9b::10.0.0.1": private, "64:ff9b::169.254.169.254": never,
		"64:ff9b:1::169.254.169.254": never,
		"::ffff:0:169.254.169.254":   never, "::ffff:0:127.0.0.1": private,
		"2002:808:808::": public, "2002:7f00:1::": private, "2002:a9fe:a9fe::": never,
		"2001::5601:5601": never, // Teredo, the client's address inverted: 169.254.169.254
		"::127.0.0.1":     private, "::169.254.169.254": never,
		"2a00::5efe:169.254.169.254": never, // ISATAP
	}
	for text, want := range tests {
		ip := netip.MustParseAddr(text)
		strict := (&egress.Policy{}).CheckAddress(ip)
		lenient := (&egress.Policy{Private: true}).CheckAddress(ip)
		got := public
		switch {
		case lenient != nil:
			got = never
			require.Equal(t, beacon.Denied, beacon.CodeOf(lenient), text)
			require.Error(t, strict, text)
		case strict != nil:
			got = private
			require.Equal(t, beacon.Denied, beacon.CodeOf(strict), text)
		}
		require.Equal(t, want, got, text)
	}
	granted := &egress.Policy{Networks: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("169.254.0.0/16")}}
	require.NoError(t, granted.CheckAddress(netip.MustParseAddr("10.1.2.3")))
	require.NoError(t, granted.CheckAddress(netip.MustParseAddr("::ffff:10.1.2.3")))
	require.Error(t, granted.CheckAddress(netip.MustParseAddr("10.2.0.1")))
	require.Error(t, granted.CheckAddress(netip.MustParseAddr("169.254.169.254")), "no grant opens these")
}

func TestCheckURL(t *testing.T) {
	tests := map[string]beacon.Code{
		"http://example.com/a?b":  "",
		"https://example.com.:8":  "",
		"http://127.0.0.1/":       "", // the address is the dialer's business
		"http://[::1]:80/":        "",
		"http://under_score.test": "",

		"ftp://example.com/":                         beacon.Denied,
		"file:///etc/passwd":                         beacon.Denied,
		"gopher://example.com":                       beacon.Denied,
		"//example.com/":                             beacon.Denied,
		"http:example.com":                           beacon.Invalid,
		"http:///path":                               beacon.Invalid,
		"http://example.com:0/":                      beacon.Invalid,
		"http://example.com:65536/":                  beacon.Invalid,
		"http://example.com:/":                       beacon.Invalid,
		"http://2130706433/":                         beacon.Denied,
		"http://0x7f000001/":                         beacon.Denied,
		"http://0x7f.1/":                             beacon.Denied,
		"http://127.1/":                              beacon.Denied,
		"http://0177.0.0.1/":                         beacon.Denied,
		"http://127.0.0.08/":                         beacon.Denied,
		"http://0/":                                  beacon.Denied,
		"http://./":                                  beacon.Denied,
		"http://127.0.0.1./":                         beacon.Denied,
		"http://127。0。0。1/":                          beacon.Denied,
		"http://①②⑦.⓪.⓪.①/":                          beacon.Denied,
		"http://ｅxample.com/":                        beacon.Denied,
		"http://[::1%25lo]/":                         beacon.Denied,
		"http://exa%6dple.com/":                      beacon.Invalid,
		"http://exa%2fmple.com/":                     beacon.Denied,
		"http://" + strings.Repeat("a.", 130) + "b/": beacon.Invalid,
	}
	for raw, want := range tests {
		u, err := url.Parse(raw)
		if err != nil {
			require.NotEqual(t, beacon.Code(""), want, raw)
			continue
		}
		require.Equal(t, want, beacon.CodeOf((&egress.Policy{}).Check("GET", u)), raw)
	}
}

func TestRules(t *testing.T) {
	tests := map[string]struct {
		rule    string
		allowed []string
		refused []string
	}{
		"host only": {"api.example.com",
			[]string{"GET https://api.example.com/x", "HEAD http://API.example.com", "GET http://api.example.com.:80/"},
			[]string{"POST https://api.example.com/", "GET https://example.com/", "GET https://xapi.example.com", "GET https://api.example.com:8443/"}},
		"below": {"*.example.com",
			[]string{"GET https://a.example.com/", "GET https://a.b.example.com/"},
			[]string{"GET https://example.com/", "GET https://evilexample.com/", "GET https://example.com.evil.test/"}},
		"everything of a port": {"* *://*:*",
			[]string{"DELETE http://a.test:99/x", "GET https://10.0.0.1/"}, nil},
		"methods, scheme, port and path": {"get,POST https://api.example.com:8443/v1/",
			[]string{"GET https://api.example.com:8443/v1", "POST https://api.example.com:8443/v1/a?b=/../"},
			[]string{"PUT https://api.example.com:8443/v1", "GET http://api.example.com:8443/v1", "GET https://api.example.com/v1",
				"GET https://api.example.com:8443/v10", "GET https://api.example.com:8443/", "GET https://api.example.com:8443/v1/../admin",
				"GET https://api.example.com:8443/v1/%2e%2e/admin", "GET https://api.example.com:8443/v1/..%2fadmin",
				"GET https://api.example.com:8443/v1/a%5c..%5cadmin", "GET https://api.example.com:8443//v1",
				"GET https://api.example.com:8443/v1//x", "GET https://api.example.com:8443/v1/%252e%252e/x",
				"GET https://api.example.com:8443/v1/..;/x"}},
		"address": {"10.0.0.1",
			[]string{"GET http://10.0.0.1/", "GET http://[::ffff:10.0.0.1]/"}, []string{"GET http://10.0.0.2/", "GET http://a.test/"}},
		"IPv6":             {"http://[2001:db8::1]:8080/a", []string{"GET http://[2001:db8:0::1]:8080/a"}, []string{"GET http://[2001:db8::2]:8080/a"}},
		"no address below": {"*.1", nil, []string{"GET http://10.0.0.1/"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rule, err := egress.ParseRule(tt.rule)
			if name == "no address below" {
				require.Error(t, err)
				rule = egress.Rule{Host: "*.1"}
			} else {
				require.NoError(t, err)
			}
			p := &egress.Policy{Allow: []egress.Rule{rule}}
			check := func(request string) error {
				method, raw, _ := strings.Cut(request, " ")
				u, err := url.Parse(raw)
				require.NoError(t, err)
				return p.Check(method, u)
			}
			for _, request := range tt.allowed {
				require.NoError(t, check(request), request)
			}
			for _, request := range tt.refused {
				err := check(request)
				require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%s: %v", request, err)
				require.NotContains(t, err.Error(), "b=")
			}
		})
	}
	u, err := url.Parse("http://a.test/")
	require.NoError(t, err)
	require.Error(t, (&egress.Policy{Allow: []egress.Rule{}}).Check("GET", u), "a list that is empty allows nothing")

	for _, text := range []string{"", "GET", "ftp://a.test", "a.test:99999", "a.test:x", "http://", "G-T a.test", "a.test/../b", "a.test/b?c", "12", "GET,, a.test", "a b c"} {
		_, err := egress.ParseRule(text)
		if text == "GET" {
			require.NoError(t, err, "a host may be called GET")
			continue
		}
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), text)
	}
}

func TestRedact(t *testing.T) {
	u, err := url.Parse("https://user:pass@example.com:1/a%2Fb?token=x#y")
	require.NoError(t, err)
	require.Equal(t, "https://example.com:1/a%2Fb", egress.Redact(u))
	require.Equal(t, "(not a URL)", egress.Redact(nil))
	require.Equal(t, "(not a URL)", egress.Redact(&url.URL{Opaque: "secret"}))
}

func FuzzRule(f *testing.F) {
	f.Add("GET,POST https://api.example.com:8443/v1", "GET", "https://api.example.com:8443/v1/x")
	f.Add("*://*.example.com:*", "POST", "http://a.example.com:1/../x")
	f.Add("http://[::1]:80", "", "http://[::1]/%2e%2e")
	f.Fuzz(func(t *testing.T, text, method, raw string) {
		rule, err := egress.ParseRule(text)
		if err != nil {
			return
		}
		u, err := url.Parse(raw)
		if err != nil {
			return
		}
		if (&egress.Policy{Allow: []egress.Rule{rule}}).Check(method, u) != nil {
			return
		}
		// What is allowed is a request that everybody reads in the same way.
		require.NotEmpty(t, u.Hostname())
		for _, r := range u.Hostname() {
			require.Less(t, r, rune(0x80))
		}
		if rule.Path != "" {
			decoded, err := url.PathUnescape(u.EscapedPath())
			require.NoError(t, err)
			require.NotContains(t, "/"+decoded+"/", "/../")
			require.True(t, strings.HasPrefix(u.EscapedPath(), rule.Path))
		}
	})
}
