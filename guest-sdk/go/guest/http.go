package guest

import (
	"errors"
	"io"
	"slices"
	"strconv"
	"time"
)

// A Request is an HTTP request. The operator decides which are permitted; a
// provider declares those that it makes in its Permissions:
//
//	{Permission: "http GET,POST https://api.example.com/v1", Reason: "to translate the text"}
type Request struct {
	Method string // "" is GET
	URL    string
	// Header values may hold [Secret].
	Header map[string]string
	// Body is sent to its end; nil is none. Length is its size in bytes; left
	// out, it is found out of a Body that can tell (those of bytes and strings,
	// and [Reader]), and otherwise stays open.
	Body   io.Reader
	Length int64
	// Timeout bounds the exchange, reading the response included; 0 is no bound
	// but the item's.
	Timeout time.Duration
	// NoRedirects makes a redirect a response like any other.
	NoRedirects bool
}

// Secret stands for a secret that the operator granted, in the value of a
// request's header: "Bearer " + guest.Secret("openai"). The host puts the secret
// in its place, for the hosts that it is meant for; a provider never sees it.
func Secret(name string) string { return "{{secret:" + name + "}}" }

// An Exchange is the host's side of a request. Providers have [Pending] and
// [Response].
type Exchange interface {
	// Write sends on the body. The number is 0 once the server has answered and
	// wants no more.
	Write(b []byte) (int, error)
	// Wait ends the body and returns the status when the response is there.
	Wait() (status int, err error)
	// Response is the response's description, JSON as ABI.md has it.
	Response() (JSON, error)
	Header(name string) (string, bool, error)
	Read(b []byte) (int, error)
	Close() error
}

// json is the request as the host reads it.
func (r *Request) json(length int64) JSON {
	b := []byte(`{"URL":`)
	b = appendString(b, r.URL)
	if r.Method != "" {
		b = appendMember(b, "Method", r.Method)
	}
	if len(r.Header) > 0 {
		b = append(b, `,"Headers":{`...)
		for i, name := range sorted(r.Header) {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, name)
			b = append(b, ':')
			b = appendString(b, r.Header[name])
		}
		b = append(b, '}')
	}
	if r.Body != nil {
		b = append(b, `,"BodyLength":`...)
		b = strconv.AppendInt(b, length, 10)
	}
	b = appendTimeout(b, r.Timeout)
	if r.NoRedirects {
		b = append(b, `,"Redirects":0`...)
	}
	return JSON(append(b, '}'))
}

// sorted makes what is sent the same every time.
func sorted[V any](m map[string]V) []string {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// appendTimeout writes a bound, rounded up: 0 would be none.
func appendTimeout(b []byte, d time.Duration) []byte {
	if d <= 0 {
		return b
	}
	b = append(b, `,"TimeoutMs":`...)
	return strconv.AppendInt(b, int64((d+time.Millisecond-1)/time.Millisecond), 10)
}

// length is that of the body, -1 when it is not known.
func (r *Request) length() int64 {
	switch body := r.Body.(type) {
	case nil:
		return 0
	case interface{ Len() int }:
		if r.Length == 0 {
			return int64(body.Len())
		}
	case *Reader:
		if r.Length == 0 {
			return body.size - body.count
		}
	}
	if r.Length == 0 {
		return -1
	}
	return r.Length
}

// Send starts a request and sends its body. The response comes meanwhile; many
// requests can be under way. What is left open ends with the item.
func (it *Item) Send(r Request) (*Pending, error) {
	length := r.length()
	x, err := it.host.Send(&r, r.json(length))
	if err != nil {
		return nil, &reachError{"request " + excerpt(r.URL), err}
	}
	p := &Pending{x, r.URL}
	if err := send(x, r.Body, length); err != nil {
		return nil, p.fail(errors.Join(err, x.Close()))
	}
	return p, nil
}

// send copies a body. Nobody wants what is left when the server has answered.
func send(x Exchange, body io.Reader, length int64) error {
	if body == nil || length == 0 {
		return nil
	}
	buf := make([]byte, 32<<10)
	for left := length; left != 0; {
		part := buf
		if left > 0 && left < int64(len(part)) {
			part = part[:left]
		}
		n, err := body.Read(part)
		for sent := 0; sent < n; {
			m, err := x.Write(part[sent:n])
			if err != nil {
				return err
			}
			if m == 0 {
				return nil
			}
			sent += m
		}
		if left > 0 {
			left -= int64(n)
		}
		if errors.Is(err, io.EOF) {
			if left > 0 {
				return errors.New("the body ended " + strconv.FormatInt(left, 10) + " bytes before its length")
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Fetch makes a request and returns its response, whatever its status. Close it
// when done with it.
func (it *Item) Fetch(r Request) (*Response, error) {
	p, err := it.Send(r)
	if err != nil {
		return nil, err
	}
	return p.Response()
}

// A Pending is a request that is under way.
type Pending struct {
	exchange Exchange
	url      string
}

func (p *Pending) fail(err error) error {
	return &reachError{"request " + excerpt(p.url), err}
}

// Response waits for the response.
func (p *Pending) Response() (*Response, error) {
	status, err := p.exchange.Wait()
	if err != nil {
		return nil, p.fail(errors.Join(err, p.exchange.Close()))
	}
	return &Response{Status: status, pending: p}, nil
}

// Close ends the request, and the response with it.
func (p *Pending) Close() error { return p.exchange.Close() }

// A Response is the answer to a request; reading it reads its body.
type Response struct {
	Status  int
	pending *Pending
}

// Header returns the values of a header, joined with ", "; "" when there is
// none.
func (r *Response) Header(name string) string {
	value, _, err := r.pending.exchange.Header(name)
	if err != nil {
		return ""
	}
	return value
}

// Description is the whole head of the response, JSON: Status, URL, Proto,
// Headers, Length.
func (r *Response) Description() (JSON, error) { return r.pending.exchange.Response() }

// Read reads on in the body.
func (r *Response) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := r.pending.exchange.Read(b)
	if err != nil {
		return n, r.pending.fail(err)
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Text reads the rest of the body, as text, and closes the response.
func (r *Response) Text() (string, error) {
	b, err := io.ReadAll(r)
	return string(b), errors.Join(err, r.Close())
}

// Close ends the exchange.
func (r *Response) Close() error { return r.pending.Close() }

// A reachError says what was attempted; errors.Is finds the [Errno].
type reachError struct {
	what  string
	cause error
}

func (e *reachError) Error() string { return e.what + ": " + e.cause.Error() }
func (e *reachError) Unwrap() error { return e.cause }
