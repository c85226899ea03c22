// Package policy holds what an operator decides: what providers are permitted,
// which tenants there are, what each may use up, and how they share the worker.
// It has values and decisions, and no input or output of its own.
package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
)

// Wanted is the grant of everything that a module's manifest asks for. It is
// for modules whose bytes are pinned, so that what it grants cannot grow.
const Wanted = "wanted"

// A Permission is one thing that leads out of a work item. Its text is what
// manifests and configurations hold:
//
//	http GET,POST https://api.example.com/v1   requests; see egress.ParseRule
//	address 10.1.0.0/16                        private addresses that names may lead to
//	call LLM/ChatCompletion                    an action of another capability; call LLM: all of them
//	secret openai                              a secret in the headers of requests
type Permission struct {
	text    string
	kind    kind
	rule    egress.Rule  // of http
	network netip.Prefix // of address
	// name is a capability or a secret; action is "" for all of a capability's.
	name, action string
}

type kind uint8

const (
	kindHTTP kind = iota + 1
	kindAddress
	kindCall
	kindSecret
)

// ParsePermission reads a permission.
func ParsePermission(text string) (Permission, error) {
	word, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
	rest = strings.TrimSpace(rest)
	wrong := func(why string) (Permission, error) {
		return Permission{}, beacon.Errorf(beacon.Invalid, "permission %q: %s", beacon.Excerpt(text, 200), why)
	}
	p := Permission{text: word + " " + rest}
	switch word {
	case "http":
		rule, err := egress.ParseRule(rest)
		if err != nil {
			return wrong(err.Error())
		}
		p.kind, p.rule = kindHTTP, rule
	case "address":
		network, err := netip.ParsePrefix(rest)
		if ip, addrErr := netip.ParseAddr(rest); addrErr == nil {
			network, err = netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()), nil
		}
		if err != nil || network != network.Masked() || network.Addr().Zone() != "" || strings.Contains(rest, "%") {
			return wrong("want an address or a network, such as 10.1.0.0/16")
		}
		p.kind, p.network = kindAddress, network
	case "call":
		p.kind = kindCall
		p.name, p.action, _ = strings.Cut(rest, "/")
		if !isName(p.name) || strings.Contains(rest, "/") && !isName(p.action) {
			return wrong("want a capability, or a capability and an action, such as LLM/ChatCompletion")
		}
	case "secret":
		p.kind, p.name = kindSecret, rest
		if !isName(rest) {
			return wrong("want the name of a secret: letters, digits, '-', '_' and '.'")
		}
	default:
		return wrong("want http, address, call or secret, such as \"http GET https://api.example.com\"")
	}
	return p, nil
}

// isName reports whether a name can stand in a permission, a path and a message.
func isName(name string) bool {
	if name == "" || len(name) > 128 || name[0] == '.' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r)
	})
}

// String is the permission as it is written.
func (p Permission) String() string { return p.text }

// covers reports whether whoever has p has q, too.
func (p Permission) covers(q Permission) bool {
	if p.kind != q.kind {
		return false
	}
	switch p.kind {
	case kindHTTP:
		return coversRule(p.rule, q.rule)
	case kindAddress:
		return p.network.Bits() <= q.network.Bits() && p.network.Contains(q.network.Addr())
	case kindCall:
		return p.name == q.name && (p.action == "" || p.action == q.action)
	case kindSecret:
		return p.name == q.name
	}
	return false
}

func coversRule(p, q egress.Rule) bool {
	return (p.Scheme == "" || p.Scheme == q.Scheme) && coversHost(p.Host, q.Host) && coversPort(p, q) &&
		coversMethods(p.Methods, q.Methods) && coversPath(p.Path, q.Path)
}

func coversHost(p, q string) bool {
	if p == "" || p == "*" || p == q {
		return true
	}
	below, all := strings.CutPrefix(p, "*")
	if !all {
		return false
	}
	if _, err := netip.ParseAddr(q); err == nil {
		return false
	}
	return strings.HasSuffix(strings.TrimPrefix(q, "*"), below)
}

func coversPort(p, q egress.Rule) bool {
	if p.Port == -1 || p.Port == q.Port {
		return true
	}
	// 0 is the usual port of the scheme.
	usual := map[string]int{"http": 80, "https": 443}[q.Scheme]
	return usual != 0 && (p.Port == usual && q.Port == 0 || p.Port == 0 && q.Port == usual)
}

func coversMethods(p, q []string) bool {
	if slices.Contains(p, "*") {
		return true
	}
	if len(q) == 0 {
		q = []string{"GET", "HEAD"}
	}
	if len(p) == 0 {
		p = []string{"GET", "HEAD"}
	}
	return !slices.ContainsFunc(q, func(m string) bool { return !slices.Contains(p, m) })
}

func coversPath(p, q string) bool {
	rest, found := strings.CutPrefix(q, strings.TrimSuffix(p, "/"))
	return found && (rest == "" || rest[0] == '/')
}

// Grants are the permissions of one provider.
type Grants struct {
	list   []Permission
	wanted bool
}

// ParseGrants reads permissions, and the word [Wanted].
func ParseGrants(texts []string) (Grants, error) {
	g := Grants{}
	for _, text := range texts {
		if strings.TrimSpace(text) == Wanted {
			g.wanted = true
			continue
		}
		p, err := ParsePermission(text)
		if err != nil {
			return Grants{}, err
		}
		g.list = append(g.list, p)
	}
	return g, nil
}

// NewGrants are the permissions given.
func NewGrants(list ...Permission) Grants { return Grants{list: list} }

// GrantsWanted reports whether everything that a module wants is granted.
func (g Grants) GrantsWanted() bool { return g.wanted }

// Resolve grants to a module what it wants, if that was granted.
func (g Grants) Resolve(wants []Permission) Grants {
	if !g.wanted {
		return g
	}
	return Grants{list: append(slices.Clone(g.list), wants...)}
}

// Permissions lists what was granted.
func (g Grants) Permissions() []Permission { return slices.Clone(g.list) }

// Covers reports whether everything that p permits is granted. A private
// address that stands in a rule of its own is.
func (g Grants) Covers(p Permission) bool {
	return slices.ContainsFunc(g.list, func(have Permission) bool { return have.covers(p) })
}

// Missing lists the wants that are not granted.
func (g Grants) Missing(wants []Permission) []Permission {
	var missing []Permission
	for _, p := range wants {
		if !g.Covers(p) {
			missing = append(missing, p)
		}
	}
	return missing
}

// Secrets are the names of the secrets that are granted.
func (g Grants) Secrets() []string {
	var names []string
	for _, have := range g.list {
		if have.kind == kindSecret {
			names = append(names, have.name)
		}
	}
	return names
}

// Unwanted lists what is granted and was not asked for.
func (g Grants) Unwanted(wants []Permission) []Permission {
	var unwanted []Permission
	for _, have := range g.list {
		if !slices.ContainsFunc(wants, func(p Permission) bool { return have.covers(p) || p.covers(have) }) {
			unwanted = append(unwanted, have)
		}
	}
	return unwanted
}

// Call finds the permission to call an action; not ok when there is none.
func (g Grants) Call(capability, action string) (Permission, bool) {
	return g.find(Permission{kind: kindCall, name: capability, action: action})
}

// Secret finds the permission to use a secret; not ok when there is none.
func (g Grants) Secret(name string) (Permission, bool) {
	return g.find(Permission{kind: kindSecret, name: name})
}

// HTTP finds the permission to make a request; not ok when there is none.
func (g Grants) HTTP(allows func(egress.Rule) bool) (Permission, bool) {
	i := slices.IndexFunc(g.list, func(p Permission) bool { return p.kind == kindHTTP && allows(p.rule) })
	if i < 0 {
		return Permission{}, false
	}
	return g.list[i], true
}

func (g Grants) find(q Permission) (Permission, bool) {
	i := slices.IndexFunc(g.list, func(p Permission) bool { return p.covers(q) })
	if i < 0 {
		return Permission{}, false
	}
	return g.list[i], true
}

// Egress is the part of the grants that is about requests. Literal is true for
// requests whose URL has an address for a host: then an address that stands in a
// rule as its host is granted as an address, too, since nobody can have meant
// anything else. A name that leads to it is not: by a rule that allows many
// names, and a name of its own, a guest would get to all ports of that address.
func (g Grants) Egress(literal bool) egress.Policy {
	p := egress.Policy{Allow: []egress.Rule{}} // an empty list allows nothing, none would allow everything
	for _, have := range g.list {
		switch have.kind {
		case kindHTTP:
			p.Allow = append(p.Allow, have.rule)
			if ip, err := netip.ParseAddr(have.rule.Host); err == nil && literal {
				p.Networks = append(p.Networks, netip.PrefixFrom(ip.Unmap(), ip.Unmap().BitLen()))
			}
		case kindAddress:
			p.Networks = append(p.Networks, have.network)
		}
	}
	return p
}

// Within narrows the networks of an egress policy to those that a ceiling has,
// too. Rules are left as they are: both policies are asked about each request.
func Within(p, ceiling egress.Policy) egress.Policy {
	var networks []netip.Prefix
	for _, a := range p.Networks {
		for _, b := range ceiling.Networks {
			switch {
			case a.Bits() >= b.Bits() && b.Contains(a.Addr()):
				networks = append(networks, a)
			case b.Bits() > a.Bits() && a.Contains(b.Addr()):
				networks = append(networks, b)
			}
		}
	}
	p.Networks = networks
	p.Private = p.Private && ceiling.Private
	return p
}
