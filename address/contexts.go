package address

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// Contexts are the places of this beacon: directories of this machine, out of
// which no address leads. They are safe for concurrent use.
type Contexts struct {
	places map[string]*os.Root
}

// Open opens the contexts of a configuration that have a BasePath, which is what
// they are on this machine; the others are for the server alone. Missing is called
// for a directory that cannot be opened, whose context is then left out; nil makes
// it an error.
func Open(configured map[string]any, missing func(context string, err error)) (_ *Contexts, err error) {
	c := &Contexts{places: map[string]*os.Root{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	for _, name := range slices.Sorted(maps.Keys(configured)) {
		raw, err := json.Marshal(configured[name])
		if err != nil {
			return c, beacon.Errorf(beacon.Invalid, "context %s is not representable in JSON: %w", name, err)
		}
		var described protocol.Context
		if err := json.Unmarshal(raw, &described); err != nil {
			return c, beacon.Errorf(beacon.Invalid, "context %s: want BasePath, BaseURL, Writable and Description: %w", name, err)
		}
		if described.BasePath == "" {
			continue
		}
		if name == "" || strings.Contains(name, "/") {
			return c, beacon.Errorf(beacon.Invalid, "context %q: no address can name it", name)
		}
		path, err := filepath.Abs(described.BasePath)
		if err != nil {
			return c, beacon.Errorf(beacon.Invalid, "context %s: BasePath: %w", name, err)
		}
		root, err := os.OpenRoot(path)
		switch {
		case err == nil:
			c.places[name] = root
		case missing != nil:
			missing(name, err)
		default:
			return c, beacon.Errorf(beacon.Invalid, "context %s: BasePath %s: %w", name, path, pathless(err))
		}
	}
	return c, nil
}

// Close closes the directories; files that were opened stay open.
func (c *Contexts) Close() (err error) {
	for name, root := range c.places {
		err = errors.Join(err, root.Close())
		delete(c.places, name)
	}
	return err
}

// Has reports whether there is a context of that name.
func (c *Contexts) Has(name string) bool { return c.places[name] != nil }

// File opens a file for reading. Links are followed as long as they stay inside
// of the context; what is no regular file is refused.
func (c *Contexts) File(a Address) (*os.File, error) {
	root := c.places[a.Context]
	if root == nil {
		return nil, beacon.Errorf(beacon.NotFound, "this beacon has no context %s with a BasePath (it has %s)",
			beacon.Excerpt(a.Context, 80), strings.Join(slices.Sorted(maps.Keys(c.places)), ", "))
	}
	shown := beacon.Excerpt(a.String(), 200)
	name := filepath.FromSlash(a.Path)
	if !filepath.IsLocal(name) {
		return nil, beacon.Errorf(beacon.Denied, "%s leads out of its context", shown)
	}
	f, err := root.OpenFile(name, os.O_RDONLY|nonblock, 0)
	if err != nil {
		code := beacon.Denied // what leads out of a root has no error of its own
		if errors.Is(err, fs.ErrNotExist) {
			code = beacon.NotFound
		}
		return nil, beacon.Errorf(code, "open %s: %w", shown, pathless(err))
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = beacon.Errorf(beacon.Denied, "%s is not a regular file", shown)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", shown, pathless(err)), f.Close())
	}
	return f, nil
}

// pathless takes the host's paths out of an error that a tenant may see.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
