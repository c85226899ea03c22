// Package address is Ultravisor's universal addresses: names for files that
// beacons have, wherever that may be. ">Media-1/File/photos/a.jpg" is photos/a.jpg
// in the context File of the beacon Media-1.
package address

import (
	"net/url"
	"strings"

	"github.com/ultravisor/beacon"
)

// An Address names a file of a beacon.
type Address struct {
	// Beacon is the name or the id of a beacon; Any is one that has it.
	Beacon string
	// Context is a place of that beacon, such as File, Staging or Cache.
	Context string
	// Path is relative to it, with slashes; "" is the place itself.
	Path string
}

// Any stands for any beacon that has the context.
const Any = "*"

// mark is what every address begins with.
const mark = ">"

// Is reports whether text is meant as an address.
func Is(text string) bool { return len(text) > 1 && strings.HasPrefix(text, mark) }

// longest is far above any path that a system has.
const longest = 8 << 10

// Parse takes an address apart. It fails for text that does not name a beacon and
// a context; what the path is good for is not its business.
func Parse(text string) (Address, error) {
	rest, ok := strings.CutPrefix(text, mark)
	shown := beacon.Excerpt(text, 200)
	if !ok {
		return Address{}, beacon.Errorf(beacon.Invalid, "%q is no universal address: want >Beacon/Context/Path", shown)
	}
	if len(text) > longest {
		return Address{}, beacon.Errorf(beacon.Invalid, "the universal address %q has %d bytes, limit %d", shown, len(text), longest)
	}
	var a Address
	a.Beacon, rest, _ = strings.Cut(rest, "/")
	a.Context, a.Path, _ = strings.Cut(rest, "/")
	if a.Beacon == "" || a.Context == "" {
		return Address{}, beacon.Errorf(beacon.Invalid, "the universal address %q names no context of a beacon: want >Beacon/Context/Path", shown)
	}
	return a, nil
}

// String is the address as text. Parse of it gives the same address again.
func (a Address) String() string {
	text := mark + a.Beacon + "/" + a.Context
	if a.Path != "" {
		text += "/" + a.Path
	}
	return text
}

// on is where the file is, given where its context can be reached.
func (a Address) on(base string) (string, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", beacon.Errorf(beacon.Failed, "context %s of beacon %s has the address %q, which is none of http or https",
			beacon.Excerpt(a.Context, 80), beacon.Excerpt(a.Beacon, 80), beacon.Excerpt(base, 200))
	}
	parts := strings.Split(a.Path, "/")
	for i, part := range parts {
		if part == "." || part == ".." {
			return "", beacon.Errorf(beacon.Denied, "the path of %s leads upwards", beacon.Excerpt(a.String(), 200))
		}
		parts[i] = url.PathEscape(part)
	}
	// As text: a server's query and its escapes stay as they are.
	base, query, _ := strings.Cut(base, "?")
	if query != "" {
		query = "?" + query
	}
	return strings.TrimSuffix(base, "/") + "/" + strings.Join(parts, "/") + query, nil
}
