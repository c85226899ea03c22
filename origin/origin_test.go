package origin_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/origin"
	"github.com/ultravisor/beacon/policy"
)

var module = []byte("\x00asm\x01\x00\x00\x00 and more")

func digestOf(b []byte) string {
	d := sha256.Sum256(b)
	return hex.EncodeToString(d[:])
}

// A signer is a pair of keys.
type signer struct {
	t              *testing.T
	secret, public []byte
}

func newSigner(t *testing.T) signer {
	secret, public, err := origin.GenerateKey("")
	require.NoError(t, err)
	return signer{t, secret, public}
}

func (s signer) sign(binary []byte) []byte {
	signature, err := origin.Sign(binary, s.secret, "", "a comment")
	require.NoError(s.t, err)
	return signature
}

func fetcher(t *testing.T, cfg origin.Config) *origin.Fetcher {
	t.Helper()
	f, err := origin.New(cfg)
	require.NoError(t, err)
	return f
}

func write(t *testing.T, file string, content []byte) string {
	t.Helper()
	require.NoError(t, os.WriteFile(file, content, 0o600))
	return file
}

func TestFile(t *testing.T) {
	file := write(t, filepath.Join(t.TempDir(), "re size.v2.wasm"), module)
	f := fetcher(t, origin.Config{})
	m, err := f.Fetch(t.Context(), file, "")
	require.NoError(t, err)
	require.Equal(t, origin.Module{Name: "re-size.v2", Binary: module, Digest: digestOf(module)}, m)
	for _, pin := range []string{digestOf(module), "sha256:" + digestOf(module), strings.ToUpper(digestOf(module))} {
		_, err = f.Fetch(t.Context(), file, pin)
		require.NoError(t, err)
	}
	_, err = f.Fetch(t.Context(), file, digestOf(nil))
	require.Equal(t, beacon.Refused, beacon.CodeOf(err))
	require.ErrorContains(t, err, "not the one that is pinned")
	for _, pin := range []string{"x", "sha256:", "abcd", digestOf(module) + "00"} {
		if _, err = f.Fetch(t.Context(), file, pin); pin != "sha256:" {
			require.Equal(t, beacon.Invalid, beacon.CodeOf(err), pin)
		}
	}
	_, err = f.Fetch(t.Context(), file+"x", "")
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = fetcher(t, origin.Config{MaxSize: 10}).Fetch(t.Context(), file, "")
	require.Equal(t, beacon.Refused, beacon.CodeOf(err))
	m, err = f.Verify("./folder", "made", module, digestOf(module))
	require.NoError(t, err)
	require.Equal(t, "made", m.Name)
	require.Equal(t, "made", m.Name)
}

// Signatures are looked at as the policy says, and when in doubt the answer is
// no.
func TestSignatures(t *testing.T) {
	us, them := newSigner(t), newSigner(t)
	other := append(bytes.Clone(module), 'x')
	for name, tt := range map[string]struct {
		binary    []byte
		signature []byte // nil for none
		want      string // why it is not trusted; "" when it is
	}{
		"signed":         {module, us.sign(module), ""},
		"not signed":     {module, nil, "is not signed"},
		"by another":     {module, them.sign(module), "not by any key that is trusted"},
		"changed":        {other, us.sign(module), "the module was changed"},
		"empty":          {module, []byte{}, "cannot be read"},
		"garbage":        {module, []byte("not a signature\n\x00"), "cannot be read"},
		"cut":            {module, us.sign(module)[:120], "cannot be read"},
		"comment forged": {module, bytes.Replace(us.sign(module), []byte("a comment"), []byte("b comment"), 1), "not by any key"},
	} {
		t.Run(name, func(t *testing.T) {
			file := write(t, filepath.Join(t.TempDir(), "m.wasm"), tt.binary)
			if tt.signature != nil {
				write(t, file+".minisig", tt.signature)
			}
			keys := []string{string(them.public[:0]) + string(us.public)}
			m, err := fetcher(t, origin.Config{Signatures: policy.Always, Keys: keys}).Fetch(t.Context(), file, "")
			if tt.want == "" {
				require.NoError(t, err)
				require.Equal(t, "a comment", m.Comment)
				key, err := origin.ParseKey(string(us.public))
				require.NoError(t, err)
				require.Equal(t, origin.KeyID(key), m.SignedBy)
			} else {
				require.Equal(t, beacon.Refused, beacon.CodeOf(err), "%v", err)
				require.ErrorContains(t, err, tt.want)
				require.ErrorContains(t, err, "RequireSignature")
			}
			var log strings.Builder
			m, err = fetcher(t, origin.Config{Signatures: policy.Warn, Keys: keys, Log: slog.New(slog.NewTextHandler(&log, nil))}).Fetch(t.Context(), file, "")
			require.NoError(t, err)
			require.Equal(t, tt.want == "", log.Len() == 0)
			require.Equal(t, tt.want == "", m.SignedBy != "")
			_, err = fetcher(t, origin.Config{Keys: keys}).Fetch(t.Context(), file, "")
			require.NoError(t, err, "never")
		})
	}
	_, err := origin.New(origin.Config{Signatures: policy.Always})
	require.Error(t, err, "without keys nothing can be verified")
	_, err = origin.New(origin.Config{Keys: []string{"RWQ"}})
	require.ErrorContains(t, err, "not a minisign public key")
}

// What minisign itself signed is good, in both directions.
func TestMinisign(t *testing.T) {
	public, err := os.ReadFile("testdata/minisign.pub")
	require.NoError(t, err)
	_, line, _ := strings.Cut(string(public), "\n")
	for _, key := range []string{string(public), line} {
		m, err := fetcher(t, origin.Config{Signatures: policy.Always, Keys: []string{key}}).Fetch(t.Context(), "testdata/empty.wasm", "")
		require.NoError(t, err)
		require.Equal(t, "A02CCD0056C14AAE", m.SignedBy)
		require.Equal(t, "by minisign itself", m.Comment)
	}

	secret, err := os.ReadFile("testdata/minisign.key")
	require.NoError(t, err)
	require.True(t, origin.IsEncrypted(secret))
	_, err = origin.Sign(module, []byte("no key"), "", "")
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	_, err = origin.Sign(module, newSigner(t).secret, "", "a\nb")
	require.ErrorContains(t, err, "one line")
	require.Contains(t, string(newSigner(t).sign(module)), "trusted comment: a comment")
}

// A password costs a gibibyte and seconds, on purpose; .ci/run does it once.
func TestEncryptedKey(t *testing.T) {
	if os.Getenv("BEACON_ENCRYPTED_KEY") == "" {
		t.Skip("set BEACON_ENCRYPTED_KEY=1 to run it")
	}
	secret, err := os.ReadFile("testdata/minisign.key")
	require.NoError(t, err)
	public, err := os.ReadFile("testdata/minisign.pub")
	require.NoError(t, err)
	_, err = origin.Sign(module, secret, "wrong", "")
	require.Equal(t, beacon.Invalid, beacon.CodeOf(err))
	require.ErrorContains(t, err, "does not open with this password")
	signature, err := origin.Sign(module, secret, "pw", "x")
	require.NoError(t, err)
	file := write(t, filepath.Join(t.TempDir(), "m.wasm"), module)
	write(t, file+".minisig", signature)
	m, err := fetcher(t, origin.Config{Signatures: policy.Always, Keys: []string{string(public)}}).Fetch(t.Context(), file, "")
	require.NoError(t, err)
	require.Equal(t, "A02CCD0056C14AAE", m.SignedBy)
}

func TestURL(t *testing.T) {
	us := newSigner(t)
	var gets atomic.Int64
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		gets.Add(1)
		switch r.URL.Path {
		case "/team/resize.wasm", "/unsigned.wasm":
			_, _ = w.Write(module)
		case "/team/resize.wasm.minisig":
			_, _ = w.Write(us.sign(module))
		case "/moved.wasm":
			http.Redirect(w, r, "/team/resize.wasm", http.StatusFound)
		case "/down.wasm":
			http.Redirect(w, r, "http://"+r.Host+"/team/resize.wasm", http.StatusFound)
		case "/broken.wasm":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = origin.Redirect
	cfg := origin.Config{HTTP: client, CacheDir: filepath.Join(t.TempDir(), "cache"), Signatures: policy.Always, Keys: []string{string(us.public)}}
	f := fetcher(t, cfg)
	url := server.URL + "/team/resize.wasm?token=secret"
	m, err := f.Fetch(t.Context(), url, "")
	require.NoError(t, err)
	require.Equal(t, "resize", m.Name)
	require.NotEmpty(t, m.SignedBy)
	_, err = f.Fetch(t.Context(), server.URL+"/moved.wasm", "")
	require.ErrorContains(t, err, "is not signed", "the signature is beside the URL that is named")

	for path, want := range map[string]beacon.Code{"/unsigned.wasm": beacon.Refused, "/broken.wasm": beacon.Unreachable, "/down.wasm": beacon.Unreachable, "/none.wasm": beacon.Internal} {
		_, err = f.Fetch(t.Context(), server.URL+path+"?token=secret", "")
		require.Equal(t, want, beacon.CodeOf(err), "%s: %v", path, err)
		require.NotContains(t, err.Error(), "token")
	}

	// What is pinned is fetched once, and there without a network, with its
	// signature.
	before := gets.Load()
	m, err = f.Fetch(t.Context(), url, digestOf(module))
	require.NoError(t, err)
	require.Equal(t, "resize", m.Name)
	require.Equal(t, before, gets.Load())
	m, ok := f.Cached(url, digestOf(module))
	require.True(t, ok)
	require.Equal(t, module, m.Binary)
	_, ok = f.Cached(url, "")
	require.False(t, ok)
	_, err = f.Fetch(t.Context(), url, "")
	require.NoError(t, err)
	require.Greater(t, gets.Load(), before, "what is not pinned may have changed")

	// The cache is not believed.
	place := filepath.Join(cfg.CacheDir, digestOf(module)+".wasm")
	write(t, place, []byte("changed"))
	_, ok = f.Cached(url, digestOf(module))
	require.False(t, ok)
	m, err = f.Fetch(t.Context(), url, digestOf(module))
	require.NoError(t, err)
	require.Equal(t, module, m.Binary)
	content, err := os.ReadFile(place)
	require.NoError(t, err)
	require.Equal(t, module, content, "and is repaired")
	require.NoError(t, os.Remove(place+".minisig"))
	_, ok = f.Cached(url, digestOf(module))
	require.False(t, ok, "nobody vouches for it any more")

	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.Fetch(canceled, url, "")
	require.ErrorIs(t, err, context.Canceled)
	for _, bad := range []string{"https://", "http://[::1", "https://%zz/"} {
		_, err = f.Fetch(t.Context(), bad, "")
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), bad)
	}
	require.Equal(t, "https://example.com/a", origin.Redact("https://u:p@example.com/a?b#c"))
	require.Equal(t, "oci://example.com/a:1", origin.Redact("oci://example.com/a:1"))
}

// oci serves a registry, whose answers tamper may change.
func oci(t *testing.T, tamper func(http.ResponseWriter, *http.Request, *httptest.ResponseRecorder) bool) string {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tamper == nil {
			handler.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		handler.ServeHTTP(rec, r)
		if tamper(w, r, rec) {
			return
		}
		for name, values := range rec.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	}))
	t.Cleanup(server.Close)
	return "oci://" + strings.TrimPrefix(server.URL, "http://")
}

func TestOCI(t *testing.T) {
	us := newSigner(t)
	base := oci(t, nil)
	ref := base + "/team/resize:1.0"
	digest, err := origin.Push(t.Context(), ref, module, us.sign(module), map[string]string{"org.opencontainers.image.title": "resize", "empty": ""})
	require.NoError(t, err)
	again, err := origin.Push(t.Context(), base+"/team/resize:2.0", module, nil, nil)
	require.NoError(t, err)
	require.NotEqual(t, digest, again)
	cfg := origin.Config{Signatures: policy.Always, Keys: []string{string(us.public)}, CacheDir: t.TempDir()}
	f := fetcher(t, cfg)
	for _, source := range []string{ref, base + "/team/resize@" + digest, base + "/team/resize:ignored@" + digest} {
		m, err := f.Fetch(t.Context(), source, digestOf(module))
		require.NoError(t, err, source)
		require.Equal(t, "resize", m.Name)
		require.Equal(t, module, m.Binary)
		require.Equal(t, "a comment", m.Comment)
	}
	_, ok := f.Cached(ref, digestOf(module))
	require.True(t, ok)
	fresh := fetcher(t, origin.Config{Signatures: policy.Always, Keys: []string{string(us.public)}})
	_, err = fresh.Fetch(t.Context(), base+"/team/resize:2.0", "")
	require.ErrorContains(t, err, "is not signed")
	_, err = fresh.Fetch(t.Context(), ref, digestOf(nil))
	require.ErrorContains(t, err, "not the one that is pinned")
	_, err = fresh.Fetch(t.Context(), base+"/team/resize:3.0", "")
	require.Equal(t, beacon.NotFound, beacon.CodeOf(err))
	for _, bad := range []string{"oci://", "oci://x", "oci://" + strings.Repeat("A", 300), "oci://a/../b:1", "oci://a b/c"} {
		_, err = fresh.Fetch(t.Context(), bad, "")
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), bad)
		_, err = origin.Push(t.Context(), bad, module, nil, nil)
		require.Equal(t, beacon.Invalid, beacon.CodeOf(err), bad)
	}
	_, err = origin.Push(t.Context(), base+"/a@sha256:"+digestOf(nil), module, nil, nil)
	require.ErrorContains(t, err, "push to a tag")
	_, err = fetcher(t, origin.Config{MaxSize: 3}).Fetch(t.Context(), ref, "")
	require.ErrorContains(t, err, "limit 3")
}

// The layout is that of the CNCF.
func TestLayout(t *testing.T) {
	var manifest, config []byte
	base := oci(t, func(_ http.ResponseWriter, r *http.Request, rec *httptest.ResponseRecorder) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/manifests/") {
			manifest = bytes.Clone(rec.Body.Bytes())
		}
		return false
	})
	_, err := origin.Push(t.Context(), base+"/a:1", module, nil, nil)
	require.NoError(t, err)
	_, err = fetcher(t, origin.Config{}).Fetch(t.Context(), base+"/a:1", "")
	require.NoError(t, err)
	var m struct {
		SchemaVersion int
		MediaType     string
		Config        struct{ MediaType, Digest string }
		Layers        []struct {
			MediaType, Digest string
			Size              int
		}
	}
	require.NoError(t, json.Unmarshal(manifest, &m))
	require.Equal(t, 2, m.SchemaVersion)
	require.Equal(t, "application/vnd.oci.image.manifest.v1+json", m.MediaType)
	require.Equal(t, "application/vnd.wasm.config.v0+json", m.Config.MediaType)
	require.Len(t, m.Layers, 1)
	require.Equal(t, "application/wasm", m.Layers[0].MediaType)
	require.Equal(t, "sha256:"+digestOf(module), m.Layers[0].Digest)
	res, err := http.Get("http" + strings.TrimPrefix(base, "oci") + "/v2/a/blobs/" + m.Config.Digest)
	require.NoError(t, err)
	config, err = io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.JSONEq(t, `{"architecture":"wasm","os":"wasip1","layerDigests":["sha256:`+digestOf(module)+`"]}`, string(config))
}

// A registry that lies is found out before anybody looks at what it sent.
func TestRegistriesThatLie(t *testing.T) {
	for name, tt := range map[string]struct {
		path   string
		change func(body []byte) []byte
		want   string
	}{
		"module": {"/blobs/", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, ""},
		"cut":    {"/blobs/", func(b []byte) []byte { return b[:len(b)-1] }, ""},
		"longer": {"/blobs/", func(b []byte) []byte { return append(b, 'x') }, ""},
		"manifest": {"/manifests/", func(b []byte) []byte {
			return bytes.Replace(b, []byte("application/wasm"), []byte("application/wasn"), 1)
		}, ""},
		"manifest, empty": {"/manifests/", func([]byte) []byte { return []byte("{}") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			lie := false
			base := oci(t, func(w http.ResponseWriter, r *http.Request, rec *httptest.ResponseRecorder) bool {
				if !lie || r.Method != http.MethodGet || !strings.Contains(r.URL.Path, tt.path) {
					return false
				}
				for name, values := range rec.Header() {
					w.Header()[name] = values
				}
				w.Header().Del("Content-Length")
				_, _ = w.Write(tt.change(rec.Body.Bytes()))
				return true
			})
			_, err := origin.Push(t.Context(), base+"/a:1", module, nil, nil)
			require.NoError(t, err)
			lie = true
			_, err = fetcher(t, origin.Config{}).Fetch(t.Context(), base+"/a:1", "")
			require.Error(t, err)
			require.Contains(t, []beacon.Code{beacon.Refused, beacon.Unreachable}, beacon.CodeOf(err), "%v", err)
		})
	}
	for name, manifest := range map[string]string{
		"an image":     `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:` + digestOf(nil) + `","size":0},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:` + digestOf(nil) + `","size":0}]}`,
		"two modules":  `{"layers":[{"mediaType":"application/wasm","digest":"sha256:` + digestOf(nil) + `","size":0},{"mediaType":"application/wasm","digest":"sha256:` + digestOf(nil) + `","size":0}]}`,
		"an index":     `{"mediaType":"application/vnd.oci.image.index.v1+json"}`,
		"no JSON":      `x`,
		"no digest":    `{"layers":[{"mediaType":"application/wasm","digest":"x","size":0}]}`,
		"endless":      `{"layers":[{"mediaType":"application/wasm","digest":"sha256:` + digestOf(nil) + `","size":9223372036854775807}]}`,
		"less than no": `{"layers":[{"mediaType":"application/wasm","digest":"sha256:` + digestOf(nil) + `","size":-1}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := fetcher(t, origin.Config{}).Layer([]byte(manifest))
			require.Error(t, err)
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[{"mediaType":"application/wasm","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0}],"annotations":{"a":"b"}}`))
	fetch, err := origin.New(origin.Config{})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, _, err := fetch.Layer(raw)
		if err == nil {
			require.NoError(t, d.Digest.Validate())
			require.LessOrEqual(t, d.Size, int64(origin.DefaultMaxSize))
		} else {
			require.LessOrEqual(t, len(err.Error()), 4096)
		}
	})
}

func FuzzSignature(f *testing.F) {
	secret, _, err := origin.GenerateKey("")
	require.NoError(f, err)
	signature, err := origin.Sign(module, secret, "", "comment")
	require.NoError(f, err)
	f.Add(signature)
	f.Add([]byte("untrusted comment: \nRU\ntrusted comment: \n"))
	_, public, err := origin.GenerateKey("") // another one
	require.NoError(f, err)
	fetch, err := origin.New(origin.Config{Signatures: policy.Always, Keys: []string{string(public)}})
	require.NoError(f, err)
	f.Fuzz(func(t *testing.T, raw []byte) {
		require.Error(t, fetch.Signed(module, raw))
	})
}
