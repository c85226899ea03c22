package broker_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/policy"
)

// A tenant's Permissions bound all that a provider was granted: addresses, secrets,
// and whom it calls, too.
func TestCeiling(t *testing.T) {
	var sent string
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) { sent = r.Header.Get("Authorization") })
	secrets := `"Secrets": {"key": {"Value": "key-0123456789", "For": ["https://api.example.com:` + w.port + `"]},
		"other": {"Value": "other-0123456789", "For": ["https://api.example.com:` + w.port + `"]}}`
	w.allow(`{"Tenants": {"free": {` + secrets + `},
		"bound": {` + secrets + `, "Permissions": ["http https://*.example.com:` + w.port + `", "address 127.0.0.1", "secret other", "call Files"]},
		"walled": {` + secrets + `, "Permissions": ["http https://*.example.com:` + w.port + `", "address 10.0.0.0/8"]}}}`)
	grants, err := policy.ParseGrants([]string{"http https://*.example.com:" + w.port, "address 127.0.0.0/8", "secret key", "secret other", "call LLM", "call Files"})
	require.NoError(t, err)
	p := broker.New(broker.Config{
		Name: "test", Grants: grants, Tenant: w.policy.Tenant, TLS: w.tls, Resolver: w.resolver,
		Call: func(_ context.Context, _ *beacon.Job, c beacon.Call, permit func(string, string) error) (beacon.Result, error) {
			return beacon.Result{}, permit(c.Capability, "Do")
		},
	})
	defer p.Close()
	for tenant, may := range map[string]struct{ request, key, other, llm, files bool }{
		"free": {true, true, true, true, true}, "bound": {true, false, true, false, true}, "walled": {},
	} {
		t.Run(tenant, func(t *testing.T) {
			b := p.Job(&beacon.Job{Tenant: tenant})
			check := func(ok bool, err error) {
				t.Helper()
				if ok {
					require.NoError(t, err)
				} else {
					require.Equal(t, beacon.Denied, beacon.CodeOf(err), "%v", err)
				}
			}
			url := w.url("api.example.com", "/")
			_, _, err := fetch(t, b, get(url))
			check(may.request, err)
			for secret, ok := range map[string]bool{"key": may.key, "other": may.other} {
				require.Equal(t, ok, b.HasSecret(secret), secret)
				sent = ""
				_, _, err = fetch(t, b, with(get(url), "Authorization", "{{secret:"+secret+"}}"))
				check(ok, err)
				require.Equal(t, ok, sent == secret+"-0123456789", secret)
			}
			for capability, ok := range map[string]bool{"LLM": may.llm, "Files": may.files} {
				_, err = b.Call(t.Context(), beacon.Call{Capability: capability})
				check(ok, err)
			}
		})
	}
}
