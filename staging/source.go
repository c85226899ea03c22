package staging

import (
	"encoding/hex"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/egress"
)

// A Source is a file that an item needs.
type Source struct {
	// URL is http or https, or a file: URL where that is allowed.
	URL string
	// SHA256 is the digest that the content must have, in hexadecimal; "" means
	// any.
	SHA256 string
	// AffinityKey, if there is one, keeps the file for later items of the same
	// tenant that say the same key and URL.
	AffinityKey string
	// Tenant is whose item it is; "" means beacon.DefaultTenant.
	Tenant string
}

// Fetched is what became of a source.
type Fetched struct {
	Size int64
	// Cached says that the content was here already. Stale says so, too, and that
	// the server could not be asked whether it is still right.
	Cached, Stale bool
}

// CheckSHA256 admits what a digest looks like.
func CheckSHA256(what, text string) error {
	if raw, err := hex.DecodeString(text); err != nil || len(raw) != 32 {
		return beacon.Errorf(beacon.Invalid, "%s %q is not a SHA-256 digest: want 64 hexadecimal digits", what, beacon.Excerpt(text, 80))
	}
	return nil
}

// DefaultPolicy is what sources may be fetched from unless a configuration says
// something else. Without tenants the servers of work items live on private
// addresses and loopback, so these are open; for a tenant they are closed.
func DefaultPolicy(tenant string) egress.Policy {
	return egress.Policy{Private: tenant == "" || tenant == beacon.DefaultTenant}
}

// Redact shows a URL without what may be secret in it: user, password, query
// and fragment.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	return egress.Redact(u)
}

// localPath finds the file that a file: URL means in one of the folders, as the
// folder and the name in it.
func localPath(u *url.URL, folders []string) (folder, name string, err error) {
	denied := beacon.Errorf(beacon.Denied, "a file: URL must lie in one of the folders that SourcePolicy names under AllowFiles")
	if u.Host != "" && u.Host != "localhost" || u.Path == "" {
		return "", "", denied
	}
	path := filepath.FromSlash(u.Path)
	if filepath.Separator == '\\' { // file:///C:/x
		path = strings.TrimPrefix(path, `\`)
	}
	for _, f := range folders {
		if name, err := filepath.Rel(f, path); err == nil && filepath.IsLocal(name) {
			return f, name, nil
		}
	}
	return "", "", denied
}
