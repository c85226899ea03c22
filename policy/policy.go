package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
	"github.com/ultravisor/beacon/jsonfile"
)

// A Policy is what the operator decides about the whole worker. The zero value
// has one tenant, without quotas and secrets.
type Policy struct {
	tenants map[string]*Tenant
	others  *Tenant // stands for tenants that are not listed; nil when there must be none

	// Prices say what an item costs when tenants share the worker.
	Prices Prices
	// Signatures says what becomes of modules without a valid signature by one
	// of Keys.
	Signatures Signatures
	Keys       []string // minisign public keys, base64
}

// Signatures is a rule about modules that nobody vouches for.
type Signatures string

// The rules.
const (
	Never  Signatures = "never"  // signatures are not looked at
	Warn   Signatures = "warn"   // a module without one is loaded, and the log says so
	Always Signatures = "always" // it is refused
)

// A Tenant is somebody whose work the worker does. What is one tenant's is
// never another's.
type Tenant struct {
	Name string
	// Weight is the tenant's share when there is not enough for all; 1 unless set.
	Weight float64
	Quota  Quota
	// secrets by name
	secrets map[string]Secret
	// ceiling bounds what providers are granted on this tenant's behalf; nil does
	// not.
	ceiling *Grants
}

// A Quota bounds what a tenant may use. 0 is no bound.
type Quota struct {
	// Concurrency is how many items may run at once. Others wait.
	Concurrency int
	// Memory is what the guests of all running items may have together, by their
	// limits, in bytes. Others wait.
	Memory int64
	// FuelPerMinute is in instructions. A guest that has used it up is slowed
	// down, and other items wait.
	FuelPerMinute int64
	// Staged is what the files of all running items may take, in bytes. More is
	// an error.
	Staged int64
	// EgressPerMinute is what is sent and received, in bytes. More waits.
	EgressPerMinute int64
	// TokensPerDay and CostPerDay bound the use of language models. More is an
	// error.
	TokensPerDay int64
	CostPerDay   float64
}

// A Secret is text that no guest, log, error or result may show.
type Secret struct {
	text string
	// rules say to whom requests may carry it.
	rules []egress.Rule
}

// NewSecret makes a secret for requests that a rule allows.
func NewSecret(text string, rules ...egress.Rule) Secret { return Secret{text, rules} }

// Reveal is the secret itself.
func (s Secret) Reveal() string { return s.text }

// For reports whether requests may carry the secret, by a function that says
// whether a rule allows them.
func (s Secret) For(allows func(egress.Rule) bool) bool { return slices.ContainsFunc(s.rules, allows) }

const hidden = "(secret)"

// String does not show the secret.
func (Secret) String() string { return hidden }

// GoString does not show the secret.
func (Secret) GoString() string { return hidden }

// LogValue does not show the secret.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON does not show the secret.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// Tenant finds a tenant. A name that is not listed is an error, unless the
// policy has an entry for all others.
func (p *Policy) Tenant(name string) (*Tenant, error) {
	if t := p.tenants[name]; t != nil {
		return t, nil
	}
	switch {
	case name == beacon.DefaultTenant:
		return &Tenant{Name: name, Weight: 1}, nil
	case p.others == nil || !isTenant(name):
		return nil, beacon.Errorf(beacon.Denied, "there is no tenant %q here", beacon.Excerpt(name, 80))
	}
	t := *p.others
	t.Name = name
	return &t, nil
}

// Tenants lists the names of those that the policy names, sorted.
func (p *Policy) Tenants() []string { return slices.Sorted(maps.Keys(p.tenants)) }

// Shared reports whether there may be more than one tenant.
func (p *Policy) Shared() bool { return p.others != nil || len(p.tenants) > 1 }

// isTenant reports whether a tenant can be called like that: it becomes a part
// of labels and messages.
func isTenant(name string) bool { return isName(name) && len(name) <= 64 }

// Secret finds a secret of the tenant.
func (t *Tenant) Secret(name string) (Secret, bool) {
	s, ok := t.secrets[name]
	return s, ok
}

// Secrets lists the names of the tenant's secrets, sorted.
func (t *Tenant) Secrets() []string { return slices.Sorted(maps.Keys(t.secrets)) }

// Ceiling bounds what providers are granted on the tenant's behalf, if it is
// bounded.
func (t *Tenant) Ceiling() (Grants, bool) {
	if t.ceiling == nil {
		return Grants{}, false
	}
	return *t.ceiling, true
}

// others is the name of the entry for tenants that are not listed.
const others = "*"

// Parse reads a policy: the object that the key Policy of the configuration, or
// the file it names, holds. Secrets are read by reveal, which finds what $NAME
// and file:/path stand for.
func Parse(raw []byte, reveal func(string) (string, error)) (*Policy, error) {
	var file struct {
		Tenants map[string]struct {
			Weight          *float64
			Concurrency     int
			Memory          Bytes
			FuelPerMinute   Count
			Staged          Bytes
			EgressPerMinute Bytes
			TokensPerDay    Count
			CostPerDay      float64
			Permissions     *[]string
			Secrets         map[string]secretEntry
		}
		Secrets          map[string]secretEntry // of the default tenant
		RequireSignature Signatures
		Keys             []string
		Prices           *Prices
	}
	if err := jsonfile.Decode(raw, &file); err != nil {
		return nil, fmt.Errorf("not the policy that is expected: %w", err)
	}
	p := &Policy{tenants: map[string]*Tenant{}, Signatures: file.RequireSignature, Keys: file.Keys}
	switch p.Signatures {
	case "":
		p.Signatures = Never
		if len(p.Keys) > 0 {
			p.Signatures = Always
		}
	case Never, Warn, Always:
	default:
		return nil, fmt.Errorf("RequireSignature is %q: want never, warn or always", beacon.Excerpt(string(p.Signatures), 40))
	}
	if p.Signatures != Never && len(p.Keys) == 0 {
		return nil, fmt.Errorf("RequireSignature is %q, but there are no Keys to check signatures with", p.Signatures)
	}
	if file.Prices != nil {
		p.Prices = *file.Prices
	}
	if p.Prices != (Prices{}) && p.Prices.lowest() < 0 {
		return nil, errors.New("Prices: a price is below zero") //nolint:revive // the name of a key
	}
	for _, name := range slices.Sorted(maps.Keys(file.Tenants)) {
		e := file.Tenants[name]
		in := func(format string, args ...any) error {
			return fmt.Errorf("tenant %s: %w", beacon.Excerpt(name, 80), fmt.Errorf(format, args...))
		}
		if !isTenant(name) && name != others {
			return nil, in("a tenant is called by up to 64 letters, digits, '-', '_' and '.'")
		}
		t := &Tenant{Name: name, Weight: 1, secrets: map[string]Secret{}, Quota: Quota{
			e.Concurrency, int64(e.Memory), int64(e.FuelPerMinute), int64(e.Staged), int64(e.EgressPerMinute), int64(e.TokensPerDay), e.CostPerDay,
		}}
		if e.Weight != nil {
			t.Weight = *e.Weight
		}
		if t.Weight <= 0 || t.Weight > 1e6 {
			return nil, in("Weight is %g: want a number above 0 and at most 1000000", t.Weight)
		}
		if e.Concurrency < 0 || e.CostPerDay < 0 {
			return nil, in("a quota is below zero")
		}
		if e.Permissions != nil {
			ceiling, err := ParseGrants(*e.Permissions)
			if err != nil {
				return nil, in("%w", err)
			}
			if ceiling.wanted {
				return nil, in("Permissions: %q is for providers; a tenant's list is a bound on what they are granted", Wanted)
			}
			t.ceiling = &ceiling
		}
		if err := t.read(e.Secrets, reveal); err != nil {
			return nil, in("%w", err)
		}
		if name == others {
			if len(e.Secrets) > 0 {
				return nil, in("tenants that are not listed have no secrets: they would share them")
			}
			p.others = t
			continue
		}
		p.tenants[name] = t
	}
	if len(file.Secrets) > 0 {
		t := p.tenants[beacon.DefaultTenant]
		if t == nil {
			t = &Tenant{Name: beacon.DefaultTenant, Weight: 1, secrets: map[string]Secret{}}
			p.tenants[t.Name] = t
		}
		if err := t.read(file.Secrets, reveal); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// A secretEntry is a secret in a policy: {"Value": "$NAME", "For": ["https://api.example.com"]}.
type secretEntry struct {
	Value string
	For   []string
}

func (t *Tenant) read(entries map[string]secretEntry, reveal func(string) (string, error)) error {
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		e := entries[name]
		in := func(format string, args ...any) error {
			return fmt.Errorf("secret %s: %w", beacon.Excerpt(name, 80), fmt.Errorf(format, args...))
		}
		if !isName(name) {
			return in("a secret is called by letters, digits, '-', '_' and '.'")
		}
		if _, twice := t.secrets[name]; twice {
			return in("it stands twice")
		}
		text, err := reveal(e.Value)
		switch {
		case err != nil:
			return in("%w", err)
		case text == "":
			return in("it is empty; give it a Value: \"$NAME\" for a variable of the environment, \"file:/path\" for a file")
		case strings.ContainsAny(text, "\r\n\x00"):
			return in("it has more than one line, and a header cannot")
		case len(text) < MinSecret:
			return in("it has %d bytes; fewer than %d would also be found where they are not meant, so it could not be kept from what comes back to a module: "+
				"use a longer one, or have it stand for the whole of the header, such as \"Basic …\"", len(text), MinSecret)
		case len(text) > maxSecret:
			return in("it has %d bytes, limit %d", len(text), maxSecret)
		case len(e.For) == 0:
			return in("say in For which requests may carry it, such as \"https://api.example.com\"")
		}
		s := Secret{text: text}
		for _, rule := range e.For {
			if strings.Contains(rule, " ") {
				return in("For %q: want a URL without methods", beacon.Excerpt(rule, 100))
			}
			r, err := egress.ParseRule("* " + rule)
			if err != nil {
				return in("%w", err)
			}
			if r.Host == "" || r.Host == "*" {
				return in("For %q: want a host, not all of them", beacon.Excerpt(rule, 100))
			}
			if r.Scheme == "" {
				r.Scheme = "https" // who wants it in clear text has to say so
			}
			s.rules = append(s.rules, r)
		}
		t.secrets[name] = s
	}
	return nil
}

// MinSecret is the shortest secret in bytes. Secrets are starred out of what comes
// back from whom they were sent to; a shorter one would star out much else.
const MinSecret = 8

// maxSecret is the longest secret in bytes: what servers take as a header.
const maxSecret = 8 << 10

// Bytes is a size in a policy: a number, or text such as "64M" or "1.5GiB".
type Bytes int64

// UnmarshalJSON implements json.Unmarshaler.
func (b *Bytes) UnmarshalJSON(raw []byte) error {
	n, err := quantity(raw, map[string]float64{
		"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40,
		"KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
	}, `"64M"`)
	*b = Bytes(n)
	return err
}

// Count is a number in a policy: a number, or text such as "60G" for 60
// thousand million.
type Count int64

// UnmarshalJSON implements json.Unmarshaler.
func (c *Count) UnmarshalJSON(raw []byte) error {
	n, err := quantity(raw, map[string]float64{"": 1, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}, `"60G"`)
	*c = Count(n)
	return err
}

func quantity(raw []byte, units map[string]float64, example string) (int64, error) {
	text := string(raw)
	if len(raw) > 0 && raw[0] == '"' {
		if err := json.Unmarshal(raw, &text); err != nil {
			return 0, err
		}
	}
	text = strings.ToUpper(strings.TrimSpace(text))
	digits := strings.TrimRight(text, "KMGTIB")
	unit, known := units[text[len(digits):]]
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if err != nil || !known || v < 0 || v*unit > 1<<62 {
		return 0, fmt.Errorf("%s is not a quantity: want a number, or text such as %s", beacon.Excerpt(string(raw), 40), example)
	}
	return int64(v * unit), nil
}
