// Package submit hands work items to an Ultravisor server, or to Beacon's hub,
// and brings their results back.
package submit

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// maxFrame bounds one frame of an answer: an output file may be one frame.
const maxFrame = 4 << 30

// maxAnswer bounds an answer that is JSON.
const maxAnswer = 256 << 20

// Config says which server to talk to. ServerURL is required.
type Config struct {
	// ServerURL is http or https, with an optional path prefix.
	ServerURL string
	// UserName and Password log in when the server asks for it.
	UserName string
	Password string
	// Transport defaults to one of its own with the environment's proxies.
	Transport http.RoundTripper
	// Timeout bounds the calls that wait for no work and carry no file; default
	// 30 seconds.
	Timeout time.Duration
}

// A Client talks to one server. It is safe for concurrent use. Its errors have
// code beacon.Unreachable where the server does not answer.
type Client struct {
	base *url.URL
	cfg  Config
	http *http.Client
}

// New checks the server's address; it does not connect.
func New(cfg Config) (*Client, error) {
	base, err := url.Parse(cfg.ServerURL)
	if err != nil || base.Hostname() == "" || base.RawQuery != "" || base.Fragment != "" || base.Scheme != "http" && base.Scheme != "https" {
		shown := "that was given" // it may hold a password, at a place that is not known
		host, port, herr := net.SplitHostPort(cfg.ServerURL)
		if _, perr := strconv.ParseUint(port, 10, 16); herr == nil && perr == nil && !strings.ContainsAny(host, "/@?#") {
			shown = strconv.Quote(beacon.Excerpt(cfg.ServerURL, 100)) // what is missing is the scheme
		} else if err == nil && base.User == nil && base.Opaque == "" {
			shown = strconv.Quote(beacon.Excerpt(cfg.ServerURL, 100))
		}
		return nil, beacon.Errorf(beacon.Invalid, "server %s is not a URL such as http://127.0.0.1:%d", shown, protocol.DefaultPort)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, fmt.Errorf("make a cookie jar: %w", err)
	}
	transport := cfg.Transport
	if transport == nil {
		transport = http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // the standard library's own
	}
	return &Client{base: base, cfg: cfg, http: &http.Client{
		Transport: transport, Jar: jar,
		// Work and passwords go to nobody but the server that was named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// CloseIdle frees connections that are kept for reuse.
func (c *Client) CloseIdle() { c.http.CloseIdleConnections() }

func (c *Client) url(path string) string {
	return strings.TrimSuffix(c.base.String(), "/") + path
}

// do sends a request and, if the server asks for it, logs in and sends it again.
// body makes the request's body anew for each try.
func (c *Client) do(ctx context.Context, method, path, contentType string, body func() (io.Reader, int64, error), header http.Header) (*http.Response, error) {
	for try := 0; ; try++ {
		reader, size, err := body()
		if err != nil {
			return nil, err
		}
		req, err := http.NewRequestWithContext(ctx, method, c.url(path), reader)
		if err != nil {
			return nil, fmt.Errorf("make a request for %s: %w", path, err)
		}
		req.ContentLength = size
		for name, values := range header {
			req.Header[name] = values
		}
		if contentType != "" {
			req.Header.Set("Content-Type", contentType)
		}
		res, err := c.http.Do(req)
		if err != nil {
			return nil, c.unreachable(ctx, err)
		}
		if res.StatusCode != http.StatusUnauthorized || try > 0 {
			return res, nil
		}
		_ = res.Body.Close() // its content says no more than its status
		if err := c.login(ctx); err != nil {
			return nil, err
		}
	}
}

func (c *Client) unreachable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return beacon.Errorf(beacon.Unreachable, "server %s does not answer: %w", c.base.Redacted(), err)
}

func (c *Client) login(ctx context.Context) error {
	ctx, cancel := c.brief(ctx)
	defer cancel()
	var answer struct {
		LoggedIn bool
		Error    string
	}
	credentials := map[string]string{"UserName": cmp.Or(c.cfg.UserName, "beacon-submit"), "Password": c.cfg.Password}
	raw, err := protocol.Encode(credentials)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url("/1.0/Authenticate"), bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("make a request to log in: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.http.Do(req)
	if err != nil {
		return c.unreachable(ctx, err)
	}
	defer res.Body.Close()
	if err := decode(res.Body, &answer); err != nil || !answer.LoggedIn {
		return beacon.Errorf(beacon.Rejected, "server %s does not accept the user name and password: %s",
			c.base.Redacted(), beacon.Excerpt(cmp.Or(answer.Error, res.Status), 200))
	}
	return nil
}

func (c *Client) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, c.cfg.Timeout, beacon.Errorf(beacon.Unreachable,
		"server %s does not answer within %s", c.base.Redacted(), c.cfg.Timeout))
}

// call is send for what the server answers at once.
func (c *Client) call(ctx context.Context, method, path string, in, out any, header http.Header) error {
	ctx, cancel := c.brief(ctx)
	defer cancel()
	return c.send(ctx, method, path, in, out, header)
}

// send sends JSON, or nothing, and decodes the JSON that comes back.
func (c *Client) send(ctx context.Context, method, path string, in, out any, header http.Header) error {
	var raw []byte
	contentType := ""
	if in != nil {
		var err error
		if raw, err = protocol.Encode(in); err != nil {
			return err
		}
		contentType = "application/json"
	}
	res, err := c.do(ctx, method, path, contentType, func() (io.Reader, int64, error) {
		return bytes.NewReader(raw), int64(len(raw)), nil
	}, header)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return c.refusal(path, res)
	}
	if err := decode(res.Body, out); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return beacon.Errorf(beacon.Unreachable, "server %s gave an answer to %s that is not the JSON that is expected: is it an Ultravisor server? (%w)", c.base.Redacted(), path, err)
	}
	return nil
}

func decode(r io.Reader, out any) error {
	return json.NewDecoder(io.LimitReader(r, maxAnswer)).Decode(out)
}

// A StatusError is an answer with an HTTP status that is not 200.
type StatusError struct {
	Status  int
	Path    string
	Message string
}

func (e *StatusError) Error() string {
	if e.Message != "" {
		return e.Message
	}
	return fmt.Sprintf("%s: HTTP status %d", e.Path, e.Status)
}

func (c *Client) refusal(path string, res *http.Response) error {
	var answer struct{ Error string }
	text := ""
	if kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); kind == "application/json" && decode(res.Body, &answer) == nil {
		text = beacon.Excerpt(answer.Error, 1000)
	}
	if res.StatusCode/100 == 3 {
		text = fmt.Sprintf("%s: the server redirects elsewhere; if that is right, give the address that it redirects to as the server's URL", path)
	}
	return &StatusError{res.StatusCode, path, text}
}

// Status asks whether an Ultravisor server answers there.
func (c *Client) Status(ctx context.Context) error {
	var answer struct{ Status string }
	if err := c.call(ctx, http.MethodGet, "/status", nil, &answer, nil); err != nil {
		var status *StatusError
		if errors.As(err, &status) {
			return beacon.Errorf(beacon.Unreachable, "server %s is not an Ultravisor server: %w", c.base.Redacted(), err)
		}
		return err
	}
	if answer.Status == "" {
		return beacon.Errorf(beacon.Unreachable, "server %s is not an Ultravisor server", c.base.Redacted())
	}
	return nil
}

// Capabilities lists what the connected beacons offer.
func (c *Client) Capabilities(ctx context.Context) ([]string, error) {
	var answer struct{ Capabilities []string }
	if err := c.call(ctx, http.MethodGet, "/Beacon/Capabilities", nil, &answer, nil); err != nil {
		return nil, err
	}
	if answer.Capabilities == nil {
		return nil, beacon.Errorf(beacon.Unreachable, "server %s is not an Ultravisor server: it does not list capabilities", c.base.Redacted())
	}
	slices.Sort(answer.Capabilities)
	return answer.Capabilities, nil
}

// Look reads what the server shows at a path of its API, such as
// /Beacon/Tenants; query may be nil.
func (c *Client) Look(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.call(ctx, http.MethodGet, path, nil, into, nil)
}

// Enqueue hands in an item without waiting for it, and returns its hash. The
// same key again is the same item.
func (c *Client) Enqueue(ctx context.Context, s protocol.Submission, key string) (string, error) {
	header := http.Header{}
	if key != "" {
		header.Set(protocol.IdempotencyHeader, key)
	}
	var answer protocol.Enqueued
	if err := c.call(ctx, http.MethodPost, "/Beacon/Work/Enqueue", s, &answer, header); err != nil {
		return "", fmt.Errorf("enqueue: %w", err)
	}
	if answer.WorkItemHash == "" {
		return "", beacon.Errorf(beacon.Unreachable, "server %s did not say that it took the item: is it an Ultravisor server?", c.base.Redacted())
	}
	return answer.WorkItemHash, nil
}

// Dispatch hands in an item and waits for its result. Progress comes as it
// happens, where the server can stream; the output file, if the item has one,
// is written to output.
//
// An error that the provider had has code beacon.Failed.
func (c *Client) Dispatch(ctx context.Context, s protocol.Submission, onProgress func(beacon.Progress), output io.Writer) (beacon.Result, error) {
	raw, err := protocol.Encode(s)
	if err != nil {
		return beacon.Result{}, err
	}
	res, err := c.do(ctx, http.MethodPost, "/Beacon/Work/DispatchStream", "application/json", func() (io.Reader, int64, error) {
		return bytes.NewReader(raw), int64(len(raw)), nil
	}, nil)
	if err != nil {
		return beacon.Result{}, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusMethodNotAllowed:
		return c.dispatchPlain(ctx, s, output) // a server of before the streams
	case res.StatusCode != http.StatusOK:
		return beacon.Result{}, c.refusal("/Beacon/Work/DispatchStream", res)
	}
	if kind, _, err := mime.ParseMediaType(res.Header.Get("Content-Type")); err != nil || kind != "application/octet-stream" {
		return beacon.Result{}, beacon.Errorf(beacon.Unreachable, "server %s is not an Ultravisor server: its answer is not a stream of frames", c.base.Redacted())
	}
	return c.follow(ctx, bufio.NewReaderSize(res.Body, 64<<10), onProgress, output)
}

func (c *Client) follow(ctx context.Context, r io.Reader, onProgress func(beacon.Progress), output io.Writer) (beacon.Result, error) {
	inside := output // where the file goes if it is inside of the result
	for {
		kind, payload, err := protocol.ReadFrame(r, maxFrame)
		if err != nil {
			if ctx.Err() != nil {
				return beacon.Result{}, context.Cause(ctx)
			}
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return beacon.Result{}, beacon.Errorf(beacon.Unreachable, "server %s ended the stream before the result: %w", c.base.Redacted(), err)
		}
		switch kind {
		case protocol.FrameProgress:
			var p protocol.Progress
			// Progress that cannot be read is no reason to lose the result.
			if json.Unmarshal(payload, &p) == nil && onProgress != nil {
				onProgress(p.Beacon())
			}
		case protocol.FrameOutput:
			inside = nil
			if output != nil {
				if _, err := output.Write(payload); err != nil {
					return beacon.Result{}, fmt.Errorf("write the output: %w", err)
				}
			}
		case protocol.FrameResult, protocol.FrameError:
			var d protocol.Dispatched
			if err := json.Unmarshal(payload, &d); err != nil {
				return beacon.Result{}, beacon.Errorf(beacon.Unreachable, "server %s gave a result that is not the JSON that is expected: %w", c.base.Redacted(), err)
			}
			return c.result(ctx, d, kind == protocol.FrameResult, inside)
		}
	}
}

func (c *Client) dispatchPlain(ctx context.Context, s protocol.Submission, output io.Writer) (beacon.Result, error) {
	var d protocol.Dispatched
	err := c.send(ctx, http.MethodPost, "/Beacon/Work/Dispatch", s, &d, nil)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusInternalServerError {
		return beacon.Result{}, beacon.Errorf(beacon.Failed, "%s", status.Error())
	}
	if err != nil {
		return beacon.Result{}, err
	}
	return c.result(ctx, d, true, output)
}

// result translates an answer. Where output is given, the file is still inside
// of the outputs, or was too large for that and is beside of them.
func (c *Client) result(ctx context.Context, d protocol.Dispatched, ok bool, output io.Writer) (beacon.Result, error) {
	if !ok || !d.Success {
		return beacon.Result{Log: d.Log}, beacon.Errorf(beacon.Failed, "%s", beacon.Excerpt(cmp.Or(d.Error, "the item failed"), 4096))
	}
	r := beacon.Result{Outputs: beacon.Outputs{}, Log: d.Log}
	if len(d.Outputs) > 0 {
		if err := json.Unmarshal(d.Outputs, &r.Outputs); err != nil {
			return r, beacon.Errorf(beacon.Unreachable, "server %s gave outputs that are not a JSON object: %w", c.base.Redacted(), err)
		}
	}
	if data, _ := r.Outputs["OutputData"].(string); data != "" {
		delete(r.Outputs, "OutputData")
		if output != nil {
			if _, err := io.Copy(output, base64.NewDecoder(base64.StdEncoding, strings.NewReader(data))); err != nil {
				var corrupt base64.CorruptInputError
				if errors.As(err, &corrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
					return r, beacon.Errorf(beacon.Unreachable, "server %s gave an output file that is not base64: %w", c.base.Redacted(), err)
				}
				return r, fmt.Errorf("write the output: %w", err)
			}
		}
		return r, nil
	}
	name, _ := r.Outputs["OutputFilename"].(string)
	if size, _ := r.Outputs["OutputSize"].(float64); output != nil && name != "" && size > 0 {
		return r, c.beside(ctx, d.WorkItemHash, name, output)
	}
	return r, nil
}

// beside writes an output file that the server keeps beside of a result.
func (c *Client) beside(ctx context.Context, hash, name string, output io.Writer) error {
	var item protocol.WorkRecord
	if err := c.call(ctx, http.MethodGet, "/Beacon/Work/"+url.PathEscape(hash), nil, &item, nil); err != nil {
		return fmt.Errorf("find the output %s: %w", beacon.Excerpt(name, 200), err)
	}
	for _, f := range slices.Backward(item.Files) {
		if f.Name != name || !strings.HasPrefix(f.URL, "/Beacon/File/") {
			continue
		}
		return c.fetch(ctx, f, output)
	}
	return beacon.Errorf(beacon.Unreachable, "server %s does not have the output %s", c.base.Redacted(), beacon.Excerpt(name, 200))
}

func (c *Client) fetch(ctx context.Context, f protocol.StoredFile, output io.Writer) error {
	res, err := c.do(ctx, http.MethodGet, f.URL, "", nothing, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return c.refusal("/Beacon/File", res)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(output, sum), io.LimitReader(res.Body, f.Size+1))
	switch {
	case err != nil:
		return fmt.Errorf("fetch the output %s after %d of %d bytes: %w", beacon.Excerpt(f.Name, 200), n, f.Size, err)
	case n != f.Size || hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return beacon.Errorf(beacon.Unreachable, "server %s gave an output %s that is not the one that it has listed", c.base.Redacted(), beacon.Excerpt(f.Name, 200))
	}
	return nil
}
