package hostfuncs

import (
	"context"
	"io"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hostfuncs/abi"
)

// A Broker does for one item what leads out of it. It decides whether the item
// may, and what a guest asks of it is a stranger's word. Errors are *beacon.Error
// with text that is fit for the guest: Denied, Invalid, a limit, Unreachable,
// Timeout, Failed; anything else is the host's fault. All methods may be called
// concurrently, and return soon after ctx is done.
type Broker interface {
	// Fetch carries out a request and returns when the head of the response is
	// there. The exchange, reading of the body included, ends with ctx.
	Fetch(ctx context.Context, r Request) (*Response, error)
	// Call has another capability carry out an action and returns when it has
	// ended. The result is valid with an error, too.
	Call(ctx context.Context, r beacon.Call) (beacon.Result, error)
	// HasSecret reports whether the item may use a secret.
	HasSecret(name string) bool
}

// A Request is an HTTP request as a guest asks for it.
type Request struct {
	Method string
	URL    string
	Header map[string][]string
	// Body is nil for a request without one. It need not be read to its end, and
	// it must not be read any more once the exchange is over.
	Body io.ReadCloser
	// BodyLength is -1 when it is not known.
	BodyLength int64
	// Redirects is how many are followed.
	Redirects int
}

// A Response is the head of a response, and its body to be read and closed.
type Response struct {
	Status int
	URL    string // of the last request
	Proto  string
	Header map[string][]string
	Length int64 // of the body, -1 when it is not known
	Body   io.ReadCloser
}

// nobody is the broker of an item that was granted nothing.
type nobody struct{}

func (nobody) Fetch(context.Context, Request) (*Response, error) {
	return nil, beacon.Errorf(beacon.Denied, "HTTP is not permitted: nothing was granted to this provider")
}

func (nobody) Call(_ context.Context, r beacon.Call) (beacon.Result, error) {
	return beacon.Result{}, beacon.Errorf(beacon.Denied, "calling %s is not permitted: nothing was granted to this provider", beacon.Excerpt(r.Capability, 80))
}

func (nobody) HasSecret(string) bool { return false }

// Reach gives the item a broker. Without one, or with nil, nothing leads out of
// it.
func (i *Item) Reach(b Broker) {
	if b != nil {
		i.broker = b
	}
}

func secret(i *Item, c *abi.Call) abi.Errno {
	if i.job == nil {
		return notNow
	}
	if !i.broker.HasSecret(text(c, 0)) {
		return i.refuse(beacon.Errorf(beacon.NotFound, "no secret %s was granted to this provider", beacon.Excerpt(text(c, 0), 80)))
	}
	return ok
}
