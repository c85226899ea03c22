package egress

import (
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/ultravisor/beacon"
)

// A Policy says what may be requested. The zero value allows any public host by
// http and https, with any method. Link-local addresses, multicast and the
// metadata services of clouds are refused whatever a policy says.
type Policy struct {
	// Private allows private, loopback and other addresses that are not of the
	// public Internet. Networks allows some of them.
	Private  bool
	Networks []netip.Prefix
	// Allow lists what may be requested; nil means everything. It does not
	// open addresses: a host that is allowed by name and turns out to be private
	// takes Private or Networks, too.
	Allow []Rule
}

// Check says whether a request may be made, as far as that can be said of a
// URL: where its host leads is checked when it is dialled. The errors have code
// beacon.Invalid or beacon.Denied, and nothing in them of what may be secret in
// a URL.
func (p *Policy) Check(method string, u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return beacon.Errorf(beacon.Denied, "URL scheme %q: only http and https are requested", beacon.Excerpt(u.Scheme, 20))
	}
	if u.Opaque != "" {
		return beacon.Errorf(beacon.Invalid, "the URL has no host")
	}
	if err := checkHost(u.Hostname()); err != nil {
		return err
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return beacon.Errorf(beacon.Invalid, "port %q is not one", beacon.Excerpt(port, 20))
		}
	} else if strings.HasSuffix(u.Host, ":") {
		return beacon.Errorf(beacon.Invalid, "the URL has a colon but no port")
	}
	if p.Allow == nil {
		return nil
	}
	for _, r := range p.Allow {
		if r.matches(method, u) {
			return nil
		}
	}
	return beacon.Errorf(beacon.Denied, "%s %s is not among what the policy allows", beacon.Excerpt(methodOf(method), 20), Redact(u))
}

// checkHost refuses hosts that mean different things to different parsers.
func checkHost(host string) error {
	if host == "" {
		return beacon.Errorf(beacon.Invalid, "the URL has no host")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.Zone() != "" {
			return beacon.Errorf(beacon.Denied, "host %s names a network interface", beacon.Excerpt(host, 100))
		}
		return nil
	}
	if len(host) > 253 {
		return beacon.Errorf(beacon.Invalid, "a host of %d characters", len(host))
	}
	for _, r := range host {
		if !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_", r) {
			return beacon.Errorf(beacon.Denied, "host %s has characters other than letters, digits, dots and dashes: write it in Punycode", beacon.Excerpt(host, 100))
		}
	}
	// 2852039166, 0xa9fea9fe and 169.254.43518 are addresses to some resolvers
	// and names to others.
	name := strings.TrimSuffix(host, ".")
	last := name[strings.LastIndexByte(name, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || last == "" || strings.Trim(last, "0123456789") == "" {
		return beacon.Errorf(beacon.Denied, "host %s is a number: write the address as four numbers with dots", beacon.Excerpt(host, 100))
	}
	return nil
}

// A Rule allows requests. Parts that are not set allow whatever there is, but
// for Methods.
type Rule struct {
	// Scheme is "http" or "https"; "" means both.
	Scheme string
	// Host is a name, "*." and a name for everything below it, or an address;
	// "" or "*" means every host.
	Host string
	// Port is 0 for the usual one of the scheme, and -1 for any.
	Port int
	// Methods are those allowed; none means GET and HEAD, "*" any.
	Methods []string
	// Path is what the path begins with, whole segments only: /v1 allows /v1 and
	// /v1/x but not /v10. A path with dot segments or an encoded slash matches no
	// rule that has a Path.
	Path string
}

// ParseRule reads a rule: optional methods, separated by commas, and a space;
// then a URL whose scheme may be "*" or missing, whose host may begin with
// "*.", and whose port may be "*". Examples: "api.example.com",
// "GET,POST https://api.example.com:8443/v1", "*://*.example.com:*".
func ParseRule(text string) (Rule, error) {
	var r Rule
	target := strings.TrimSpace(text)
	if methods, rest, found := strings.Cut(target, " "); found {
		r.Methods, target = strings.Split(strings.ToUpper(methods), ","), strings.TrimSpace(rest)
	}
	wrong := func(why string) (Rule, error) {
		return Rule{}, beacon.Errorf(beacon.Invalid, "rule %q: %s; want something like \"GET,POST https://api.example.com:8443/v1\"", beacon.Excerpt(text, 200), why)
	}
	for _, m := range r.Methods {
		if m == "" || strings.Trim(m, "ABCDEFGHIJKLMNOPQRSTUVWXYZ*") != "" {
			return wrong("a method is not one")
		}
	}
	if scheme, rest, found := strings.Cut(target, "://"); found {
		r.Scheme, target = strings.ToLower(scheme), rest
	}
	switch r.Scheme {
	case "*":
		r.Scheme = ""
	case "", "http", "https":
	default:
		return wrong("the scheme is neither http nor https")
	}
	if i := strings.IndexByte(target, '/'); i >= 0 {
		r.Path, target = strings.TrimSuffix(target[i:], "/"), target[:i]
		if !plainPath(r.Path) || strings.ContainsAny(r.Path, "?#") {
			return wrong("the path has dot segments, an encoded slash or a query")
		}
	}
	host, port := target, ""
	if i := strings.LastIndexByte(target, ':'); i >= 0 && !strings.HasSuffix(target, "]") {
		host, port = target[:i], target[i+1:]
	}
	switch n, err := strconv.ParseUint(port, 10, 16); {
	case port == "*":
		r.Port = -1
	case port != "" && (err != nil || n == 0):
		return wrong("the port is not one")
	default:
		r.Port = int(n) //nolint:gosec // 16 bits
	}
	r.Host = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	if r.Host == "" {
		return wrong("there is no host")
	}
	if name := strings.TrimPrefix(r.Host, "*."); r.Host != "*" {
		if err := checkHost(name); err != nil {
			return wrong(err.Error())
		}
	}
	return r, nil
}

func (r Rule) matches(method string, u *url.URL) bool {
	return (r.Scheme == "" || r.Scheme == u.Scheme) && r.matchesHost(u.Hostname()) && r.matchesPort(u) &&
		r.matchesMethod(method) && r.matchesPath(u)
}

func (r Rule) matchesHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if r.Host == "" || r.Host == "*" {
		return true
	}
	if below, found := strings.CutPrefix(r.Host, "*"); found {
		_, err := netip.ParseAddr(host)
		return err != nil && strings.HasSuffix(host, below) && len(host) > len(below)
	}
	if allowed, err := netip.ParseAddr(r.Host); err == nil {
		ip, err := netip.ParseAddr(host)
		return err == nil && ip.Unmap() == allowed.Unmap()
	}
	return host == strings.ToLower(strings.TrimSuffix(r.Host, "."))
}

func (r Rule) matchesPort(u *url.URL) bool {
	usual := map[string]string{"http": "80", "https": "443"}[u.Scheme]
	port := u.Port()
	if port == "" {
		port = usual
	}
	switch r.Port {
	case -1:
		return true
	case 0:
		return port == usual
	}
	return port == strconv.Itoa(r.Port)
}

func (r Rule) matchesMethod(method string) bool {
	method = methodOf(method)
	if len(r.Methods) == 0 {
		return method == http.MethodGet || method == http.MethodHead
	}
	return slices.Contains(r.Methods, method) || slices.Contains(r.Methods, "*")
}

func (r Rule) matchesPath(u *url.URL) bool {
	prefix := strings.TrimSuffix(r.Path, "/")
	if prefix == "" {
		return true
	}
	path := u.EscapedPath()
	if !plainPath(path) {
		return false
	}
	rest, found := strings.CutPrefix(path, prefix)
	return found && (rest == "" || rest[0] == '/')
}

// plainPath reports whether every server reads the segments of an escaped path
// in the same way.
func plainPath(escaped string) bool {
	if strings.ContainsAny(escaped, "\\;") || strings.Contains(escaped, "//") {
		return false
	}
	for segment := range strings.SplitSeq(escaped, "/") {
		text, err := url.PathUnescape(segment)
		if err != nil || text == "." || text == ".." || strings.ContainsAny(text, "/\\;") || strings.Contains(text, "%") {
			return false
		}
	}
	return true
}

// methodOf is a method as net/http understands it.
func methodOf(method string) string {
	if method == "" {
		return http.MethodGet
	}
	return method
}

// Redact shows a URL without what may be secret in it: user, password, query
// and fragment.
func Redact(u *url.URL) string {
	// Without a host, what is behind the user could be read as another one.
	if u == nil || u.Opaque != "" || u.Host == "" && (u.User != nil || strings.HasPrefix(u.Path, "//")) {
		return "(not a URL)"
	}
	plain := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	return beacon.Excerpt(plain.String(), 500)
}
