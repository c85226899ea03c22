package origin

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/ultravisor/beacon/policy"
)

// cached finds a module that was fetched before: only one whose digest is known
// beforehand, since what a name stands for may have changed. The content is
// verified again by whoever asked.
func (f *Fetcher) cached(source, pin string) (fetched, bool) {
	if f.cfg.CacheDir == "" || pin == "" || !IsRemote(source) {
		return fetched{}, false
	}
	binary, err := f.readFile(f.place(pin), f.cfg.MaxSize)
	if err != nil {
		return fetched{}, false
	}
	if digest := sha256.Sum256(binary); hex.EncodeToString(digest[:]) != pin {
		// A file that was cut off or changed; what comes takes its place.
		f.cfg.Log.Warn("a module in the cache is not what it was, and is fetched again", "file", f.place(pin))
		return fetched{}, false
	}
	from := fetched{name: remoteName(source), binary: binary}
	if signature, err := f.readFile(f.place(pin)+SignatureExtension, maxSignature); err == nil {
		from.signature = signature
	} else if f.cfg.Signatures != policy.Never {
		return fetched{}, false // it was fetched when nobody asked for signatures
	}
	return from, true
}

func (f *Fetcher) place(digest string) string {
	return filepath.Join(f.cfg.CacheDir, digest+".wasm")
}

// remoteName is what the module of a URL or a reference is called.
func remoteName(source string) string {
	if rest, oci := strings.CutPrefix(source, ociScheme); oci {
		if ref, err := parseReference(rest); err == nil {
			return nameOf(path.Base(ref.Repository) + ".wasm")
		}
	}
	if u, err := url.Parse(source); err == nil {
		return nameOf(path.Base(u.Path))
	}
	return "module"
}

// keep writes what was fetched into the cache. Without it the next start is
// slower, nothing else.
func (f *Fetcher) keep(m Module, signature []byte) {
	if f.cfg.CacheDir == "" {
		return
	}
	err := os.MkdirAll(f.cfg.CacheDir, 0o700)
	if err == nil && signature != nil {
		err = write(f.place(m.Digest)+SignatureExtension, signature)
	}
	if err == nil {
		err = write(f.place(m.Digest), m.Binary)
	}
	if err != nil {
		f.cfg.Log.Warn("a module cannot be kept in the cache", "err", err)
	}
}

// write puts a file into its place all at once.
func write(file string, content []byte) error {
	temporary := filepath.Join(filepath.Dir(file), ".beacon-"+rand.Text())
	err := os.WriteFile(temporary, content, 0o600)
	if err == nil {
		err = os.Rename(temporary, file)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", filepath.Base(file), pathless(err)), ignoreMissing(os.Remove(temporary)))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
