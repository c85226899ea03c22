package policy_test

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/policy"
)

func permission(t testing.TB, text string) policy.Permission {
	t.Helper()
	p, err := policy.ParsePermission(text)
	require.NoError(t, err, text)
	return p
}

func grants(t testing.TB, texts ...string) policy.Grants {
	t.Helper()
	g, err := policy.ParseGrants(texts)
	require.NoError(t, err)
	return g
}

func TestPermissionsThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                                   "want http, address, call or secret",
		"https://example.com":                "want http, address, call or secret",
		"http":                               "there is no host",
		"http https://[::1":                  "",
		"http https://a/../b":                "dot segments",
		"http ftp://a":                       "neither http nor https",
		"address":                            "such as 10.1.0.0/16",
		"address example.com":                "such as 10.1.0.0/16",
		"address 10.1.2.3/8":                 "such as 10.1.0.0/16",
		"address fe80::1%eth0":               "such as 10.1.0.0/16",
		"call":                               "such as LLM/ChatCompletion",
		"call LLM/":                          "such as LLM/ChatCompletion",
		"call /Chat":                         "such as LLM/ChatCompletion",
		"call A/B/C":                         "such as LLM/ChatCompletion",
		"call A B":                           "such as LLM/ChatCompletion",
		"secret":                             "the name of a secret",
		"secret ../x":                        "the name of a secret",
		"secret a\x1b[31m":                   "the name of a secret",
		"env HOME":                           "want http, address, call or secret",
		"secret " + strings.Repeat("x", 200): "the name of a secret",
	} {
		_, err := policy.ParsePermission(text)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), text)
		require.ErrorContains(t, err, want, text)
		require.Equal(t, err.Error(), beacon.Excerpt(err.Error(), 1000), "control characters")
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		grant string
		yes   []string
		no    []string
	}{
		{"http https://api.example.com/v1", []string{
			"http https://api.example.com/v1", "http GET https://api.example.com/v1/x", "http HEAD,GET https://api.example.com:443/v1",
		}, []string{
			"http https://api.example.com", "http https://api.example.com/v10", "http POST https://api.example.com/v1",
			"http http://api.example.com/v1", "http api.example.com/v1", "http https://api.example.com:8443/v1",
			"http https://api.example.com:*/v1", "http https://x.api.example.com/v1", "http * https://api.example.com/v1",
			"http https://*/v1", "call https", "secret v1",
		}},
		{"http * *://*.example.com:*", []string{
			"http POST https://a.example.com", "http a.b.example.com:99/x", "http DELETE http://*.example.com", "http *.b.example.com",
		}, []string{"http https://example.com", "http https://badexample.com", "http https://*", "http https://10.0.0.1"}},
		{"http *", []string{"http a.example.com", "http 10.0.0.1", "http *"}, []string{"http POST a.example.com", "http a.example.com:99"}},
		{"http https://a:443", []string{"http https://a"}, []string{"http a"}},
		{"http a", []string{"http http://a:80", "http https://a:443"}, []string{"http http://a:443", "http a:443"}},
		{"call LLM", []string{"call LLM", "call LLM/ChatCompletion"}, []string{"call LLM2", "call llm"}},
		{"call LLM/ChatCompletion", []string{"call LLM/ChatCompletion"}, []string{"call LLM", "call LLM/Embedding"}},
		{"secret openai", []string{"secret openai"}, []string{"secret OpenAI", "secret other"}},
		{"address 10.0.0.0/8", []string{"address 10.1.2.3", "address 10.1.0.0/16", "address ::ffff:10.1.2.3"}, []string{"address 0.0.0.0/0", "address 11.0.0.0/8", "address fd00::/8"}},
	} {
		for _, text := range tt.yes {
			require.True(t, grants(t, tt.grant).Covers(permission(t, text)), "%s covers %s", tt.grant, text)
		}
		for _, text := range tt.no {
			require.False(t, grants(t, tt.grant).Covers(permission(t, text)), "%s covers %s", tt.grant, text)
		}
	}
}

func TestGrants(t *testing.T) {
	g := grants(t, " http https://api.example.com ", "http http://10.1.2.3:8080", "address fd00::/8", "call LLM", "secret openai")
	wants := []policy.Permission{permission(t, "http GET https://api.example.com/v1"), permission(t, "http POST https://api.example.com/v1"), permission(t, "call LLM/ChatCompletion")}
	require.Equal(t, []policy.Permission{wants[1]}, g.Missing(wants))
	unwanted := []string{}
	for _, p := range g.Unwanted(wants) {
		unwanted = append(unwanted, p.String())
	}
	require.Equal(t, []string{"http http://10.1.2.3:8080", "address fd00::/8", "secret openai"}, unwanted)

	p, ok := g.Call("LLM", "ChatCompletion")
	require.True(t, ok)
	require.Equal(t, "call LLM", p.String())
	_, ok = g.Call("Shell", "Execute")
	require.False(t, ok)
	_, ok = g.Secret("openai")
	require.True(t, ok)
	_, ok = g.Secret("other")
	require.False(t, ok)

	require.False(t, g.GrantsWanted())
	all := grants(t, policy.Wanted, "secret x")
	require.True(t, all.GrantsWanted())
	require.Len(t, all.Missing(wants), 3, "nothing before it is resolved")
	require.Empty(t, all.Resolve(wants).Missing(wants))
	_, err := policy.ParseGrants([]string{"call LLM", "everything"})
	require.ErrorContains(t, err, "everything")
}

// Without a grant nothing may be requested: an egress policy without a list
// would allow everything.
func TestEgress(t *testing.T) {
	check := func(g policy.Grants, method, address string) beacon.Code {
		u, err := url.Parse(address)
		require.NoError(t, err)
		p := g.Egress(true)
		return beacon.CodeOf(p.Check(method, u))
	}
	for _, none := range []policy.Grants{{}, grants(t), grants(t, "call LLM", "address 10.0.0.0/8"), grants(t, policy.Wanted)} {
		require.Equal(t, beacon.Denied, check(none, "GET", "https://example.com/"))
	}
	g := grants(t, "http https://api.example.com/v1", "http POST http://10.1.2.3:8080", "http [fd00::1]")
	require.Empty(t, check(g, "GET", "https://api.example.com/v1/x?y"))
	require.Equal(t, beacon.Denied, check(g, "POST", "https://api.example.com/v1/x"))
	require.Equal(t, beacon.Denied, check(g, "GET", "https://api.example.com/v1/../x"))
	require.Empty(t, check(g, "POST", "http://10.1.2.3:8080/"))
	require.Empty(t, g.Egress(false).Networks, "a name that leads there is something else")
	networks := g.Egress(true).Networks
	require.Len(t, networks, 2)
	require.Equal(t, "10.1.2.3/32", networks[0].String())
	require.Equal(t, "fd00::1/128", networks[1].String())
}

func FuzzPermission(f *testing.F) {
	for _, text := range []string{"http GET https://a.example.com/v1", "address 10.0.0.0/8", "call LLM/Chat", "secret a", "wanted", "http *"} {
		f.Add(text, text)
	}
	f.Add("http a:443", "http https://a")
	f.Fuzz(func(t *testing.T, a, b string) {
		p, err := policy.ParsePermission(a)
		if err != nil {
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
			require.LessOrEqual(t, len(err.Error()), 4096)
			return
		}
		again, err := policy.ParsePermission(p.String())
		require.NoError(t, err, "what is shown can be read")
		require.True(t, policy.NewGrants(p).Covers(again) && policy.NewGrants(again).Covers(p))
		if q, err := policy.ParsePermission(b); err == nil && policy.NewGrants(p).Covers(q) {
			// What is covered permits no more: its rules allow nothing that p's do not.
			for _, address := range []string{"http://a/", "https://a/", "https://a.example.com/v1/x", "http://10.0.0.1:8080/", "https://x.a.example.com:99/"} {
				u, err := url.Parse(address)
				require.NoError(t, err)
				for _, method := range []string{"GET", "POST"} {
					wide, narrow := policy.NewGrants(p).Egress(true), policy.NewGrants(q).Egress(true)
					if narrow.Check(method, u) == nil {
						require.NoError(t, wide.Check(method, u), "%s covers %s", p, q)
					}
				}
			}
		}
	})
}

// What a ceiling does not have, nothing below it has.
func TestWithin(t *testing.T) {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, p := range list {
			all = append(all, netip.MustParsePrefix(p))
		}
		return all
	}
	for _, tt := range []struct{ have, ceiling, want egress.Policy }{
		{egress.Policy{Private: true}, egress.Policy{}, egress.Policy{}},
		{egress.Policy{}, egress.Policy{Private: true}, egress.Policy{}},
		{egress.Policy{Private: true}, egress.Policy{Private: true}, egress.Policy{Private: true}},
		{egress.Policy{Networks: prefixes("10.0.0.0/8")}, egress.Policy{}, egress.Policy{}},
		{egress.Policy{Networks: prefixes("10.0.0.0/8", "192.168.0.0/16")}, egress.Policy{Networks: prefixes("10.1.0.0/16")}, egress.Policy{Networks: prefixes("10.1.0.0/16")}},
		{egress.Policy{Networks: prefixes("10.1.2.3/32")}, egress.Policy{Networks: prefixes("10.0.0.0/8")}, egress.Policy{Networks: prefixes("10.1.2.3/32")}},
		{egress.Policy{Networks: prefixes("10.1.2.3/32")}, egress.Policy{Networks: prefixes("10.1.2.4/32")}, egress.Policy{}},
	} {
		require.Equal(t, tt.want, policy.Within(tt.have, tt.ceiling))
	}
}
