// Package origin says where modules come from, and whether they are what they
// should be: files, URLs and OCI registries, digests, signatures, and the lock
// file that pins them. Whatever it returns has been verified, and not been
// looked into.
package origin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"aead.dev/minisign"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/policy"
)

// DefaultMaxSize is the largest module in bytes unless told otherwise.
const DefaultMaxSize = 256 << 20

// Config is how modules are fetched and verified. The zero value works.
type Config struct {
	// CacheDir keeps what was fetched, by digest: a module whose digest is pinned
	// is fetched once. Empty means no cache. It belongs to this user alone.
	CacheDir string
	// Signatures says what becomes of modules that none of Keys vouches for; ""
	// is policy.Never.
	Signatures policy.Signatures
	Keys       []string
	// MaxSize of a module in bytes; 0 means DefaultMaxSize.
	MaxSize int64
	// HTTP makes requests for URLs; nil means a client with the proxies of the
	// environment. Registries are always reached like that, with the credentials
	// of Docker's configuration.
	HTTP *http.Client
	// Log defaults to slog.Default.
	Log *slog.Logger
}

// A Fetcher brings modules. It is safe for concurrent use.
type Fetcher struct {
	cfg  Config
	keys []minisign.PublicKey
}

// New makes a fetcher. A key that is none is an error.
func New(cfg Config) (*Fetcher, error) {
	cfg.Signatures = cmp.Or(cfg.Signatures, policy.Never)
	cfg.MaxSize = cmp.Or(cfg.MaxSize, DefaultMaxSize)
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	if cfg.HTTP == nil {
		cfg.HTTP = &http.Client{Timeout: 10 * time.Minute, CheckRedirect: redirect}
	}
	f := &Fetcher{cfg: cfg}
	for _, text := range cfg.Keys {
		key, err := ParseKey(text)
		if err != nil {
			return nil, err
		}
		f.keys = append(f.keys, key)
	}
	if cfg.Signatures != policy.Never && len(f.keys) == 0 {
		return nil, beacon.Errorf(beacon.Invalid, "signatures are required, but there are no keys to check them with")
	}
	return f, nil
}

func redirect(r *http.Request, via []*http.Request) error {
	if len(via) >= 5 {
		return errors.New("more than 5 redirects")
	}
	if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
		return errors.New("a redirect from https to http")
	}
	return nil
}

// A Module is a module as it came, verified.
type Module struct {
	// Name is what it is called where it comes from, without an extension.
	Name   string
	Binary []byte
	// Digest is the SHA-256 of Binary in hexadecimal.
	Digest string
	// SignedBy is the number of the key that vouches for it, and Comment what the
	// signer said with it; "" when nobody looked.
	SignedBy string
	Comment  string
}

// IsRemote reports whether a source is a URL or in a registry, and not a path.
func IsRemote(source string) bool {
	return strings.HasPrefix(source, ociScheme) || strings.HasPrefix(source, "https://") || strings.HasPrefix(source, "http://")
}

// fetched is what comes from somewhere, not verified yet.
type fetched struct {
	name      string
	binary    []byte
	signature []byte // nil when there is none
}

// Fetch brings the module of a source: a path, a URL, or oci:// and a reference.
// pin, if it is not "", is the digest that it must have, in hexadecimal, with or
// without "sha256:". Errors have code beacon.Refused when the module is not what
// it should be.
func (f *Fetcher) Fetch(ctx context.Context, source, pin string) (Module, error) {
	pin, err := parsePin(pin)
	if err != nil {
		return Module{}, err
	}
	if from, cached := f.cached(source, pin); cached {
		return f.verify(source, pin, from)
	}
	var from fetched
	switch {
	case strings.HasPrefix(source, ociScheme):
		from, err = f.pull(ctx, source, pin)
	case IsRemote(source):
		from, err = f.download(ctx, source)
	default:
		from, err = f.read(source)
	}
	if err != nil {
		return Module{}, err
	}
	m, err := f.verify(source, pin, from)
	if err != nil {
		return Module{}, err
	}
	if IsRemote(source) {
		f.keep(m, from.signature)
	}
	return m, nil
}

// Cached is the module of a source as it was when it had a digest, if that is
// still in the cache: what was accepted goes on working while something newer is
// waiting to be.
func (f *Fetcher) Cached(source, digest string) (Module, bool) {
	pin, err := parsePin(digest)
	if err != nil {
		return Module{}, false
	}
	from, cached := f.cached(source, pin)
	if !cached {
		return Module{}, false
	}
	m, err := f.verify(source, pin, from)
	return m, err == nil
}

// Verify verifies a module that was made here, out of a folder of source.
func (f *Fetcher) Verify(source, name string, binary []byte, pin string) (Module, error) {
	pin, err := parsePin(pin)
	if err != nil {
		return Module{}, err
	}
	return f.verify(source, pin, fetched{name: name, binary: binary})
}

func parsePin(pin string) (string, error) {
	pin = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(pin), "sha256:"))
	if raw, err := hex.DecodeString(pin); pin != "" && (err != nil || len(raw) != sha256.Size) {
		return "", beacon.Errorf(beacon.Invalid, "SHA256 %q: want 64 hexadecimal digits", beacon.Excerpt(pin, 100))
	}
	return pin, nil
}

// verify looks at digest and signature, before anybody looks at the module.
func (f *Fetcher) verify(source, pin string, from fetched) (Module, error) {
	digest := sha256.Sum256(from.binary)
	m := Module{Name: from.name, Binary: from.binary, Digest: hex.EncodeToString(digest[:])}
	shown := beacon.Excerpt(Redact(source), 200)
	if pin != "" && pin != m.Digest {
		return Module{}, beacon.Errorf(beacon.Refused, "module %s is not the one that is pinned: its SHA-256 is %s, want %s", shown, m.Digest, pin)
	}
	if f.cfg.Signatures == policy.Never {
		return m, nil
	}
	err := f.signed(&m, from.signature)
	switch {
	case err == nil:
		return m, nil
	case f.cfg.Signatures == policy.Warn:
		f.cfg.Log.Warn("a module is not signed by a key that is trusted", "module", shown, "sha256", m.Digest, "err", err)
		return m, nil
	}
	return Module{}, beacon.Errorf(beacon.Refused, "module %s: %w; the policy's RequireSignature is always", shown, err)
}

// signed finds the key that vouches for a module.
func (f *Fetcher) signed(m *Module, signature []byte) error {
	if signature == nil {
		return errors.New("it is not signed")
	}
	s, err := parseSignature(signature)
	if err != nil {
		return err
	}
	for _, key := range f.keys {
		// The number of a key in a signature is a hint that anybody can write.
		if minisign.Verify(key, m.Binary, signature) {
			m.SignedBy, m.Comment = KeyID(key), beacon.Excerpt(s.TrustedComment, 200)
			return nil
		}
	}
	return fmt.Errorf("its signature by key %X is not by any key that is trusted, or the module was changed since", s.KeyID)
}

// read brings a file, and the signature beside it.
func (f *Fetcher) read(file string) (fetched, error) {
	from := fetched{name: nameOf(filepath.Base(file))}
	var err error
	if from.binary, err = f.readFile(file, f.cfg.MaxSize); err != nil {
		return from, fmt.Errorf("module %s: %w", file, err)
	}
	if f.cfg.Signatures == policy.Never {
		return from, nil
	}
	from.signature, err = f.readFile(file+SignatureExtension, maxSignature)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return from, fmt.Errorf("the signature of module %s: %w", file, err)
	}
	return from, nil
}

func (f *Fetcher) readFile(file string, limit int64) ([]byte, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, pathless(err)
	}
	defer opened.Close()
	return bounded(opened, limit)
}

// pathless takes the path out of an error whose message names it already.
func pathless(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// bounded reads all there is, up to a limit.
func bounded(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		return nil, beacon.Errorf(beacon.Refused, "more than %d bytes", limit)
	}
	return b, pathless(err)
}

// download brings a module from a URL, and the signature that is beside it.
func (f *Fetcher) download(ctx context.Context, source string) (fetched, error) {
	u, err := url.Parse(source)
	if err != nil || u.Host == "" {
		return fetched{}, beacon.Errorf(beacon.Invalid, "%q is not a URL", beacon.Excerpt(Redact(source), 200))
	}
	from := fetched{name: nameOf(path.Base(u.Path))}
	if from.binary, err = f.get(ctx, u, f.cfg.MaxSize); err != nil {
		return from, fmt.Errorf("module %s: %w", Redact(source), err)
	}
	if f.cfg.Signatures == policy.Never {
		return from, nil
	}
	beside := *u
	beside.Path, beside.RawPath = u.Path+SignatureExtension, ""
	from.signature, err = f.get(ctx, &beside, maxSignature)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return from, fmt.Errorf("the signature of module %s: %w", Redact(source), err)
	}
	return from, nil
}

// get brings what a URL names; fs.ErrNotExist when there is nothing.
func (f *Fetcher) get(ctx context.Context, u *url.URL, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, beacon.Errorf(beacon.Invalid, "it is not a URL")
	}
	res, err := f.cfg.HTTP.Do(req)
	if err != nil {
		var ue *url.Error // which repeats the URL, and what is secret in it
		if errors.As(err, &ue) {
			err = ue.Err
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, beacon.Errorf(beacon.Unreachable, "cannot be fetched: %w", err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
		return bounded(res.Body, limit)
	case http.StatusNotFound, http.StatusGone:
		return nil, fmt.Errorf("HTTP status %d: %w", res.StatusCode, fs.ErrNotExist)
	}
	return nil, beacon.Errorf(beacon.Unreachable, "cannot be fetched: HTTP status %d", res.StatusCode)
}

// Redact shows a source without what may be secret in it.
func Redact(source string) string {
	if strings.HasPrefix(source, ociScheme) || !IsRemote(source) {
		return source
	}
	u, err := url.Parse(source)
	if err != nil {
		return "(not a URL)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment = nil, "", "", ""
	return u.String()
}

// nameOf makes a name out of a file's.
func nameOf(base string) string {
	name := strings.TrimSuffix(base, path.Ext(base))
	clean := strings.Map(func(r rune) rune {
		if strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.", r) {
			return r
		}
		return '-'
	}, name)
	if clean = strings.Trim(clean, ".-"); clean == "" {
		return "module"
	}
	return clean[:min(len(clean), 128)]
}
