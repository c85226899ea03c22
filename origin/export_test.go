package origin

import (
	"net/http"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Redirect decides about redirects.
var Redirect func(*http.Request, []*http.Request) error = redirect

// Layer finds the module in a manifest.
func (f *Fetcher) Layer(raw []byte) (ocispec.Descriptor, []byte, error) { return f.layer(raw) }

// Signed checks a signature.
func (f *Fetcher) Signed(binary, signature []byte) error {
	return f.signed(&Module{Binary: binary}, signature)
}
