package address_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/address"
	"github.com/ultravisor/beacon/protocol"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]address.Address{
		">RR-BCN-001/File/volume3/Sort/SomeSong.mp3":             {Beacon: "RR-BCN-001", Context: "File", Path: "volume3/Sort/SomeSong.mp3"},
		">ULTRAVISOR/Operation/0x732490df0/Stage/Transcoded.avi": {Beacon: "ULTRAVISOR", Context: "Operation", Path: "0x732490df0/Stage/Transcoded.avi"},
		">RF-BCN-001/Projection/Countries/*":                     {Beacon: "RF-BCN-001", Context: "Projection", Path: "Countries/*"},
		">*/Staging/input.jpg":                                   {Beacon: "*", Context: "Staging", Path: "input.jpg"},
		">b/Cache":                                               {Beacon: "b", Context: "Cache"},
		">b/Cache/":                                              {Beacon: "b", Context: "Cache"},
		">b/File/ a\nb":                                          {Beacon: "b", Context: "File", Path: " a\nb"},
	} {
		got, err := address.Parse(text)
		require.NoError(t, err, text)
		require.Equal(t, want, got)
		require.True(t, address.Is(text))
		again, err := address.Parse(got.String())
		require.NoError(t, err)
		require.Equal(t, got, again)
	}
	for _, text := range []string{"", ">", ">b", ">b/", ">/File/x", ">//x", "b/File/x", "http://b/File", ">b/File/" + strings.Repeat("x", 9000)} {
		_, err := address.Parse(text)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), text)
	}
	require.False(t, address.Is(">"))
	require.False(t, address.Is("x"))
}

// contexts has File with a file and ways out, and Empty without a directory.
func contexts(t *testing.T) (*address.Contexts, string) {
	dir := t.TempDir()
	inside, outside := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	require.NoError(t, os.MkdirAll(filepath.Join(inside, "sub"), 0o700))
	require.NoError(t, os.MkdirAll(outside, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(inside, "sub", "a b.txt"), []byte("inside"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("outside"), 0o600))
	require.NoError(t, os.Symlink(outside, filepath.Join(inside, "way")))
	require.NoError(t, os.Symlink(filepath.Join("..", "out", "secret"), filepath.Join(inside, "link")))
	require.NoError(t, os.Symlink(filepath.Join("sub", "a b.txt"), filepath.Join(inside, "near")))
	c, err := address.Open(map[string]any{
		"File":  map[string]any{"BasePath": inside, "BaseURL": "http://here/files/", "Writable": true, "Description": "files", "More": 1},
		"Other": map[string]any{"BaseURL": "http://here/other/"},
	}, nil)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c, inside
}

func TestContexts(t *testing.T) {
	c, inside := contexts(t)
	require.True(t, c.Has("File"))
	require.False(t, c.Has("Other"))
	for path, want := range map[string]string{"sub/a b.txt": "inside", "near": "inside", "sub/../near": "inside", "sub//a b.txt": "inside"} {
		f, err := c.File(address.Address{Beacon: "b", Context: "File", Path: path})
		require.NoError(t, err, path)
		content, err := io.ReadAll(f)
		require.NoError(t, err)
		require.Equal(t, want, string(content))
		require.NoError(t, f.Close())
	}
	for path, code := range map[string]beacon.Code{
		"": beacon.Denied, ".": beacon.Denied, "sub": beacon.Denied, "..": beacon.Denied, "../out/secret": beacon.Denied,
		"sub/../../out/secret": beacon.Denied, "/etc/passwd": beacon.Denied, inside + "/near": beacon.Denied,
		"way/secret": beacon.Denied, "link": beacon.Denied, "missing": beacon.NotFound, "near/x": beacon.Denied, "a\x00b": beacon.Denied,
	} {
		_, err := c.File(address.Address{Beacon: "b", Context: "File", Path: path})
		require.Error(t, err, path)
		if code == beacon.NotFound {
			require.Equal(t, code, beacon.CodeOf(err), "%s: %v", path, err)
		}
		if path != inside+"/near" {
			require.NotContains(t, err.Error(), inside, "it shows where the context is")
		}
	}
	_, err := c.File(address.Address{Beacon: "b", Context: "Other", Path: "x"})
	require.ErrorContains(t, err, "no context Other with a BasePath (it has File)")
}

func TestOpenRefuses(t *testing.T) {
	for want, configured := range map[string]map[string]any{
		"absent: no such file":      {"File": map[string]any{"BasePath": filepath.Join(t.TempDir(), "absent")}},
		"want BasePath":             {"File": 7},
		"no address can name it":    {"a/b": map[string]any{"BasePath": t.TempDir()}},
		"not representable in JSON": {"File": func() {}},
	} {
		_, err := address.Open(configured, nil)
		require.ErrorContains(t, err, want)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	}
	c, err := address.Open(nil, nil)
	require.NoError(t, err)
	require.NoError(t, c.Close())
	var left []string
	c, err = address.Open(map[string]any{"File": map[string]any{"BasePath": filepath.Join(t.TempDir(), "absent")}}, func(context string, _ error) { left = append(left, context) })
	require.NoError(t, err)
	require.Equal(t, []string{"File"}, left)
	require.False(t, c.Has("File"))
	require.NoError(t, c.Close())
}

func TestResolve(t *testing.T) {
	c, _ := contexts(t)
	asked := 0
	peers := []protocol.Peer{
		{BeaconID: "bcn-x-1", Name: "x", Contexts: map[string]protocol.Context{
			"File": {BaseURL: "http://x/files"}, "Query": {BaseURL: "https://x/q/?key=1"}, "Bare": {BasePath: "/x"}, "Odd": {BaseURL: "ftp://x/"},
		}},
		{BeaconID: "bcn-y-1", Name: "y", Contexts: map[string]protocol.Context{"Cache": {BaseURL: "http://y/cache/"}}},
	}
	r := &address.Resolver{
		Contexts: c, Self: func() []string { return []string{"me", "bcn-me-1"} },
		Peers: func(context.Context) ([]protocol.Peer, error) { asked++; return peers, nil },
	}
	for text, want := range map[string]string{
		">x/File/photos/a b.jpg": "http://x/files/photos/a%20b.jpg",
		">bcn-x-1/File/a?b#c":    "http://x/files/a%3Fb%23c",
		">x/File/100%":           "http://x/files/100%25",
		">x/Query/a":             "https://x/q/a?key=1",
		">y/Cache/a":             "http://y/cache/a",
		">*/Cache/a":             "http://y/cache/a",
	} {
		url, f, err := r.Resolve(t.Context(), beacon.DefaultTenant, text)
		require.NoError(t, err, text)
		require.Nil(t, f)
		require.Equal(t, want, url)
	}
	require.Equal(t, 1, asked, "the server is asked for each")
	for _, text := range []string{">me/File/near", ">bcn-me-1/File/near", ">*/File/near"} {
		url, f, err := r.Resolve(t.Context(), beacon.DefaultTenant, text)
		require.NoError(t, err, text)
		require.Empty(t, url)
		require.NoError(t, f.Close())
	}
	for text, want := range map[string]string{
		">x/File/../../admin": "leads upwards",
		">x/Bare/a":           "no context Bare that can be reached",
		">x/Odd/a":            "none of http or https",
		">z/File/a":           "the server knows no beacon z",
		">me/None/a":          "no context None",
		">me/File/../x":       "leads out of its context",
		"http://x":            "no universal address",
	} {
		_, _, err := r.Resolve(t.Context(), beacon.DefaultTenant, text)
		require.ErrorContains(t, err, want, text)
	}

	// A beacon that has come since the server was asked.
	peers = append(peers, protocol.Peer{Name: "new", Contexts: map[string]protocol.Context{"File": {BaseURL: "http://new/"}}})
	url, _, err := r.Resolve(t.Context(), beacon.DefaultTenant, ">new/File/a")
	require.NoError(t, err)
	require.Equal(t, "http://new/a", url)
}

// The contexts are the operator's: other tenants do not see them, unless they
// are told to.
func TestTenants(t *testing.T) {
	c, _ := contexts(t)
	r := &address.Resolver{Contexts: c, Self: func() []string { return []string{"me"} }}
	for _, text := range []string{">me/File/near", ">*/File/near"} {
		_, _, err := r.Resolve(t.Context(), "other", text)
		require.Error(t, err)
	}
	r.Tenants = []string{"other"}
	_, f, err := r.Resolve(t.Context(), "other", ">me/File/near")
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, _, err = r.Resolve(t.Context(), beacon.DefaultTenant, ">me/File/near")
	require.Equal(t, beacon.Denied, beacon.CodeOf(err))
}

func TestWithoutAServer(t *testing.T) {
	r := &address.Resolver{}
	_, _, err := r.Resolve(t.Context(), beacon.DefaultTenant, ">x/File/a")
	require.ErrorContains(t, err, "no server is there to ask")
	r.Peers = func(context.Context) ([]protocol.Peer, error) { return nil, errors.New("away") }
	_, _, err = r.Resolve(t.Context(), beacon.DefaultTenant, ">x/File/a")
	require.ErrorContains(t, err, "ask the server for beacon x: away")
}

func FuzzResolve(f *testing.F) {
	f.Add(">me/File/near", "http://x/files/")
	f.Add(">x/File/../..", "http://x?q")
	f.Add(">x/File/%2e%2e/a", "https://x/a/../b")
	dir := f.TempDir()
	c, err := address.Open(map[string]any{"File": map[string]any{"BasePath": dir}}, nil)
	require.NoError(f, err)
	f.Cleanup(func() { require.NoError(f, c.Close()) })
	f.Fuzz(func(t *testing.T, text, base string) {
		r := &address.Resolver{
			Contexts: c, Self: func() []string { return []string{"me"} },
			Peers: func(context.Context) ([]protocol.Peer, error) {
				return []protocol.Peer{{Name: "x", Contexts: map[string]protocol.Context{"File": {BaseURL: base}}}}, nil
			},
		}
		url, file, err := r.Resolve(t.Context(), beacon.DefaultTenant, text)
		require.Nil(t, file, "the folder is empty")
		if err == nil {
			require.True(t, strings.HasPrefix(url, "http://") || strings.HasPrefix(url, "https://"), url)
		}
	})
}
