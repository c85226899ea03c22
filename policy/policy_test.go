package policy_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/policy"
)

func reveal(value string) (string, error) {
	if value == "$GONE" {
		return "", errors.New("the environment has no GONE")
	}
	return strings.TrimPrefix(value, "$"), nil
}

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse([]byte(text), reveal)
	require.NoError(t, err)
	return p
}

func TestParse(t *testing.T) {
	p := parse(t, `{
		"Tenants": {
			"acme": {"Weight": 3, "Concurrency": 2, "Memory": "1G", "FuelPerMinute": "60G", "Staged": "1.5GiB", "EgressPerMinute": 1000,
				"TokensPerDay": "2M", "CostPerDay": 5.5, "Permissions": ["http https://*.example.com"],
				"Secrets": {"key": {"Value": "$TEXT_OF_8_BYTES", "For": ["https://api.example.com/v1", "api.example.org:8443", "http://10.0.0.1"]}}},
			"*": {"Concurrency": 1}
		},
		"Secrets": {"own": {"Value": "xxxxxxxx", "For": ["a.example.com"]}},
		"RequireSignature": "warn", "Keys": ["RWQ"],
		"Prices": {"Second": 2}
	}`)
	acme, err := p.Tenant("acme")
	require.NoError(t, err)
	require.Equal(t, 3.0, acme.Weight)
	require.Equal(t, policy.Quota{
		Concurrency: 2, Memory: 1 << 30, FuelPerMinute: 60e9, Staged: 3 << 29, EgressPerMinute: 1000, TokensPerDay: 2e6, CostPerDay: 5.5,
	}, acme.Quota)
	ceiling, bounded := acme.Ceiling()
	require.True(t, bounded)
	require.True(t, ceiling.Covers(permission(t, "http https://a.example.com")))
	s, ok := acme.Secret("key")
	require.True(t, ok)
	require.Equal(t, "TEXT_OF_8_BYTES", s.Reveal())
	require.True(t, s.For(func(r egress.Rule) bool { return r.Host == "api.example.org" && r.Scheme == "https" && r.Port == 8443 }), "https unless it says otherwise")
	require.True(t, s.For(func(r egress.Rule) bool { return r.Host == "10.0.0.1" && r.Scheme == "http" }))
	require.Equal(t, []string{"key"}, acme.Secrets())
	_, ok = acme.Secret("own")
	require.False(t, ok, "one tenant's secret is never another's")

	someone, err := p.Tenant("someone")
	require.NoError(t, err)
	require.Equal(t, "someone", someone.Name)
	require.Equal(t, 1, someone.Quota.Concurrency)
	_, bounded = someone.Ceiling()
	require.False(t, bounded)
	own, err := p.Tenant(beacon.DefaultTenant)
	require.NoError(t, err)
	require.Equal(t, []string{"own"}, own.Secrets())
	require.True(t, p.Shared())
	require.Equal(t, []string{"acme", "default"}, p.Tenants())
	require.Equal(t, policy.Warn, p.Signatures)
	for _, bad := range []string{"", "a/b", "..", "a b", "\x1b", strings.Repeat("x", 65)} {
		_, err := p.Tenant(bad)
		require.Equal(t, beacon.Denied, beacon.CodeOf(err), bad)
		require.Equal(t, err.Error(), beacon.Excerpt(err.Error(), 200))
	}

	// Without a policy there is one tenant.
	var none policy.Policy
	own, err = none.Tenant(beacon.DefaultTenant)
	require.NoError(t, err)
	require.Zero(t, own.Quota)
	_, err = none.Tenant("acme")
	require.ErrorContains(t, err, `there is no tenant "acme" here`)
	require.False(t, none.Shared())
	require.Equal(t, policy.Never, parse(t, `{}`).Signatures)
	require.Equal(t, policy.Always, parse(t, `{"Keys":["RWQ"]}`).Signatures, "who names keys wants them used")
}

func TestPoliciesThatAreWrong(t *testing.T) {
	for text, want := range map[string]string{
		``:                                  "not the policy",
		`[]`:                                "not the policy",
		`{} {}`:                             "more than one",
		`{"Tenant": {}}`:                    `unknown key "Tenant"; the nearest known one is "Tenants"`,
		`{"Tenants": {"a b": {}}}`:          "a tenant is called by",
		`{"Tenants": {"a": {"Weight": 0}}}`: "tenant a: Weight is 0",
		`{"Tenants": {"a": {"Concurrency": -1}}}`:                                          "below zero",
		`{"Tenants": {"a": {"Memory": "1X"}}}`:                                             "is not a quantity",
		`{"Tenants": {"a": {"Memory": -1}}}`:                                               "is not a quantity",
		`{"Tenants": {"a": {"FuelPerMinute": "1GiB"}}}`:                                    "is not a quantity",
		`{"Tenants": {"a": {"Permissions": ["x"]}}}`:                                       "want http, address, call or secret",
		`{"Tenants": {"a": {"Permissions": ["wanted"]}}}`:                                  "is for providers",
		`{"Tenants": {"*": {"Secrets": {"k": {"Value": "vvvvvvvv","For":["a"]}}}}}`:        "they would share them",
		`{"Secrets": {"k": {"Value": "$GONE", "For": ["a"]}}}`:                             "secret k: the environment has no GONE",
		`{"Secrets": {"k": {"Value": "1234567", "For": ["a"]}}}`:                           "secret k: it has 7 bytes; fewer than 8",
		`{"Secrets": {"k": {"Value": "", "For": ["a"]}}}`:                                  "secret k: it is empty",
		`{"Secrets": {"k": {"Value": "vvvvvvvv"}}}`:                                        "say in For",
		`{"Secrets": {"k": {"Value": "vvvvvvvv", "For": ["*"]}}}`:                          "want a host",
		`{"Secrets": {"k": {"Value": "vvvvvvvv", "For": ["GET a"]}}}`:                      "without methods",
		`{"Secrets": {"k": {"Value": "vvvvvvvv", "For": ["a/../b"]}}}`:                     "rule",
		`{"Secrets": {"k\n": {"Value": "vvvvvvvv", "For": ["a"]}}}`:                        "a secret is called by",
		`{"Secrets": {"k": {"Value": "a\nb", "For": ["a"]}}}`:                              "more than one line",
		`{"Secrets": {"k": {"Value": "` + strings.Repeat("x", 9000) + `", "For": ["a"]}}}`: "limit 8192",
		`{"Tenants": {"default": {"Secrets": {"k": {"Value": "vvvvvvvv","For":["a"]}}}}, "Secrets": {"k": {"Value": "vvvvvvvv","For":["a"]}}}`: "stands twice",
		`{"RequireSignature": "sometimes"}`: "want never, warn or always",
		`{"RequireSignature": "always"}`:    "there are no Keys",
		`{"Prices": {"Second": -1}}`:        "below zero",
	} {
		_, err := policy.Parse([]byte(text), reveal)
		require.ErrorContains(t, err, want, text)
	}
}

// S26: a secret does not show, however it is printed.
func TestS26SecretsDoNotShow(t *testing.T) {
	s := policy.NewSecret("hunter2", egress.Rule{Host: "a"})
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "secret", s, "in", struct{ S policy.Secret }{s})
	raw, err := json.Marshal(map[string]any{"s": s, "p": &s})
	require.NoError(t, err)
	for _, text := range []string{s.String(), fmt.Sprint(s), fmt.Sprintf("%v %+v %#v %s %q", s, s, s, s, s), fmt.Sprintf("%+v", struct{ S policy.Secret }{s}), string(raw), log.String()} {
		require.NotContains(t, text, "hunter2")
	}
	require.Equal(t, "hunter2", s.Reveal())
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"Tenants": {"acme": {"Weight": 3, "Memory": "1G", "Permissions": ["call LLM"], "Secrets": {"k": {"Value": "vvvvvvvv", "For": ["a"]}}}, "*": {}}}`))
	f.Add([]byte(`{"RequireSignature": "always", "Keys": ["x"], "Prices": {"Second": 1e308}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := policy.Parse(raw, reveal)
		if err != nil {
			return
		}
		for _, name := range p.Tenants() {
			tenant, err := p.Tenant(name)
			require.NoError(t, err)
			require.Positive(t, tenant.Weight)
			require.GreaterOrEqual(t, min(tenant.Quota.Memory, tenant.Quota.FuelPerMinute, tenant.Quota.Staged, tenant.Quota.EgressPerMinute), int64(0))
		}
	})
}
