package origin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/ultravisor/beacon"
)

const ociScheme = "oci://"

// The media types of the Wasm OCI artifact layout of the CNCF's TAG Runtime.
const (
	configType = "application/vnd.wasm.config.v0+json"
	layerType  = "application/wasm"
)

// signatureAnnotation is the annotation of a manifest that holds the module's
// signature: the layout has one layer, the module, and this is read by whoever
// knows it.
const signatureAnnotation = "com.github.ultravisor.beacon.minisig"

// maxManifest is the largest manifest, as registries have it.
const maxManifest = 4 << 20

// artifactConfig is the config of the layout.
type artifactConfig struct {
	Created      *time.Time `json:"created,omitempty"`
	Architecture string     `json:"architecture"`
	OS           string     `json:"os"`
	LayerDigests []string   `json:"layerDigests"`
}

func parseReference(text string) (registry.Reference, error) {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return ref, beacon.Errorf(beacon.Invalid, "%s%s is not a reference, such as oci://registry.example.com/team/resize:1.0: %w", ociScheme, beacon.Excerpt(text, 200), err)
	}
	if ref.Reference == "" {
		ref.Reference = "latest"
	}
	return ref, nil
}

// repository opens the repository of a reference.
func repository(source string) (*remote.Repository, registry.Reference, error) {
	ref, err := parseReference(strings.TrimPrefix(source, ociScheme))
	if err != nil {
		return nil, ref, err
	}
	repo, err := remote.NewRepository(ref.Registry + "/" + ref.Repository)
	if err != nil {
		return nil, ref, beacon.Errorf(beacon.Invalid, "%s: %w", beacon.Excerpt(source, 200), err)
	}
	// A registry on this machine has no certificate, as Docker has it.
	host := ref.Host()
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if ip := net.ParseIP(host); host == "localhost" || ip != nil && ip.IsLoopback() {
		repo.PlainHTTP = true
	}
	client := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	client.SetUserAgent("beacon")
	if store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err == nil {
		client.Credential = credentials.Credential(store)
	}
	repo.Client = client
	return repo, ref, nil
}

// reached turns an error of a registry into ours.
func reached(ctx context.Context, source string, err error) error {
	shown := beacon.Excerpt(source, 200)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, errdef.ErrNotFound):
		hint := "" // a tag that is not said is one that may not be there
		if ref, perr := parseReference(strings.TrimPrefix(source, ociScheme)); perr == nil {
			if _, perr := ref.Digest(); perr == nil {
				hint = "; its digest is that of the manifest, which beacon push prints, not the module's SHA-256"
			} else {
				hint = fmt.Sprintf(" with the tag %s", beacon.Excerpt(ref.Reference, 128))
			}
		}
		return beacon.Errorf(beacon.NotFound, "%s: there is no such module in the registry%s", shown, hint)
	case errors.Is(err, content.ErrMismatchedDigest):
		return beacon.Errorf(beacon.Refused, "%s: what the registry sends is not what its digest says", shown)
	}
	var ours *beacon.Error
	if errors.As(err, &ours) {
		return beacon.Errorf(ours.Code, "%s: %w", shown, ours)
	}
	return beacon.Errorf(beacon.Unreachable, "%s: the registry cannot be reached, or does not do what it is asked: %s", shown, beacon.Excerpt(err.Error(), 500))
}

// pull brings a module from a registry. Everything is checked against its
// digest as it comes. With a pin, a manifest that names another module is
// refused before that is fetched.
func (f *Fetcher) pull(ctx context.Context, source, pin string) (fetched, error) {
	repo, ref, err := repository(source)
	if err != nil {
		return fetched{}, err
	}
	from := fetched{name: nameOf(path.Base(ref.Repository) + ".wasm")}
	described, err := repo.Resolve(ctx, ref.Reference)
	if err != nil {
		return from, reached(ctx, source, err)
	}
	if described.Size > maxManifest {
		return from, beacon.Errorf(beacon.Refused, "%s: a manifest of %d bytes, limit %d", beacon.Excerpt(source, 200), described.Size, maxManifest)
	}
	raw, err := fetch(ctx, repo.Manifests(), described)
	if err != nil {
		return from, reached(ctx, source, err)
	}
	layer, signature, err := f.layer(raw)
	if err != nil {
		return from, beacon.Errorf(beacon.Refused, "%s: %w", beacon.Excerpt(source, 200), err)
	}
	if pin != "" && layer.Digest.Algorithm() == digest.SHA256 && layer.Digest.Encoded() != pin {
		return from, beacon.Errorf(beacon.Refused, "module %s is not the one that is pinned: its SHA-256 is %s, want %s", beacon.Excerpt(source, 200), layer.Digest.Encoded(), pin)
	}
	from.signature = signature
	if from.binary, err = fetch(ctx, repo.Blobs(), layer); err != nil {
		return from, reached(ctx, source, err)
	}
	return from, nil
}

// layer finds the module in a manifest.
func (f *Fetcher) layer(raw []byte) (ocispec.Descriptor, []byte, error) {
	var m ocispec.Manifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return ocispec.Descriptor{}, nil, errors.New("its manifest is not the JSON that is expected")
	}
	if m.MediaType != "" && m.MediaType != ocispec.MediaTypeImageManifest {
		return ocispec.Descriptor{}, nil, fmt.Errorf("it is %q, not the manifest of a module", beacon.Excerpt(m.MediaType, 100))
	}
	var found []ocispec.Descriptor
	for _, l := range m.Layers {
		if l.MediaType == layerType {
			found = append(found, l)
		}
	}
	if len(found) != 1 {
		return ocispec.Descriptor{}, nil, fmt.Errorf("it has %d layers of type %s, want one: it is not a module in the layout of the CNCF", len(found), layerType)
	}
	l := found[0]
	if err := l.Digest.Validate(); err != nil {
		return l, nil, errors.New("its manifest has a digest that is none")
	}
	if l.Size < 0 || l.Size > f.cfg.MaxSize {
		return l, nil, fmt.Errorf("a module of %d bytes, limit %d", l.Size, f.cfg.MaxSize)
	}
	if text, ok := m.Annotations[signatureAnnotation]; ok {
		return l, []byte(text), nil
	}
	return l, nil, nil
}

// fetch reads all of what a descriptor names, and checks it.
func fetch(ctx context.Context, from content.Fetcher, d ocispec.Descriptor) ([]byte, error) {
	r, err := from.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return content.ReadAll(r, d)
}

// Push stores a module in a registry, with its signature if there is one, and
// returns the digest of its manifest. The same module makes the same manifest.
func Push(ctx context.Context, source string, binary, signature []byte, annotations map[string]string) (string, error) {
	repo, ref, err := repository(source)
	if err != nil {
		return "", err
	}
	layer := content.NewDescriptorFromBytes(layerType, binary)
	config, err := json.Marshal(artifactConfig{Architecture: "wasm", OS: "wasip1", LayerDigests: []string{layer.Digest.String()}})
	if err != nil {
		return "", fmt.Errorf("encode the config: %w", err)
	}
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: content.NewDescriptorFromBytes(configType, config), Layers: []ocispec.Descriptor{layer}, Annotations: map[string]string{},
	}
	for name, text := range annotations {
		if text != "" {
			m.Annotations[name] = text
		}
	}
	if signature != nil {
		m.Annotations[signatureAnnotation] = string(signature)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("encode the manifest: %w", err)
	}
	for _, blob := range []struct {
		described ocispec.Descriptor
		content   []byte
	}{{layer, binary}, {m.Config, config}} {
		there, err := repo.Blobs().Exists(ctx, blob.described)
		if err == nil && !there {
			err = repo.Blobs().Push(ctx, blob.described, bytes.NewReader(blob.content))
		}
		if err != nil {
			return "", reached(ctx, source, err)
		}
	}
	described := content.NewDescriptorFromBytes(ocispec.MediaTypeImageManifest, raw)
	if ref.ValidateReferenceAsDigest() == nil {
		return "", beacon.Errorf(beacon.Invalid, "%s names a digest: push to a tag", beacon.Excerpt(source, 200))
	}
	if err := repo.PushReference(ctx, described, bytes.NewReader(raw), ref.Reference); err != nil {
		return "", reached(ctx, source, err)
	}
	return described.Digest.String(), nil
}
