package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/cork"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport"
)

// ErrUnknownBeacon says that the server has no beacon of this id: it restarted,
// or dropped the beacon. Register again.
var ErrUnknownBeacon = errors.New("the server does not know this beacon")

// A StatusError is an answer that is no success.
type StatusError struct {
	Method, Path string
	Status       int
	Message      string // of the server; an excerpt
}

func (e *StatusError) Error() string {
	text := fmt.Sprintf("%s %s: %d %s", e.Method, beacon.Excerpt(e.Path, 200), e.Status, http.StatusText(e.Status))
	if e.Message != "" {
		text += ": " + e.Message
	}
	switch {
	case e.Status == http.StatusUnauthorized:
		text += " (check user name and password)"
	case e.Status >= 300 && e.Status < 400:
		text += " (redirects are not followed: use that address as the server URL)"
	case e.Status == http.StatusNotFound && e.Message == "":
		text += " (is the server URL right, its path included?)"
	}
	return text
}

// A Client speaks the HTTP endpoints of a server for one beacon. It logs in
// again by itself when the server wants that. It is safe for concurrent use.
type Client struct {
	cfg   Config
	base  *url.URL
	http  *http.Client
	up    *http.Client // for upgrades
	close func()

	// Renewed, if set before the first call, is called after the client had to
	// log in again, before the call that found out is repeated. It may call
	// the client.
	Renewed func(ctx context.Context) error
	// Canceled, if set before the first call, is called with the items that an
	// answer says are no longer wanted.
	Canceled func([]protocol.Cancellation)

	single    atomic.Bool   // the server takes no batches
	noUploads atomic.Bool   // nor files beside of results
	renewing  chan struct{} // held while logging in, or registering, again

	mu           sync.Mutex
	beaconID     string
	earlier      []string // ids that the server may still know
	registration protocol.Registration
	logins       int // counts successful answers to Authenticate
}

// NewClient makes a client. It connects to nothing yet; its errors are those
// of the configuration.
func NewClient(cfg Config) (*Client, error) {
	cfg, base, err := cfg.normal()
	if err != nil {
		return nil, err
	}
	c := &Client{renewing: make(chan struct{}, 1), cfg: cfg, base: base, registration: cfg.Registration}
	own, up := http.Client{}, http.Client{}
	if cfg.HTTPClient != nil {
		own, up = *cfg.HTTPClient, *cfg.HTTPClient
		c.close = func() {}
	} else {
		t := &http.Transport{}
		if standard, ok := http.DefaultTransport.(*http.Transport); ok {
			t = standard.Clone() // with its timeouts and proxies
		}
		if t.DialContext == nil {
			t.DialContext = new(net.Dialer).DialContext
		}
		t.TLSClientConfig = cfg.TLS.Clone()
		t.MaxIdleConnsPerHost = 32
		// The server of March 2026 closes idle connections after 5 s; a
		// request that meets the closing fails.
		t.IdleConnTimeout = 4 * time.Second
		t.MaxResponseHeaderBytes = 1 << 20
		tunnels := t.Clone()
		if base.Scheme == "http" {
			tunnels = tunneling(t)
		}
		dial := tunnels.DialContext
		tunnels.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return &cork.Conn{Conn: conn}, nil
		}
		own.Transport, up.Transport = t, tunnels
		c.close = func() { t.CloseIdleConnections(); tunnels.CloseIdleConnections() }
	}
	jar := newJar()
	for _, h := range []*http.Client{&own, &up} {
		h.Jar = jar
		h.Timeout = 0 // each call has its own
		h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	c.http, c.up = &own, &up
	return c, nil
}

// Config returns the configuration, defaults filled in.
func (c *Client) Config() Config { return c.cfg }

// Upgrader returns the client that carries the session's cookie and can have
// its connection upgraded. URL is what to ask.
func (c *Client) Upgrader() *http.Client { return c.up }

// URL returns the server's address; its path ends in a slash.
func (c *Client) URL() *url.URL { return c.base }

// Close frees idle connections.
func (c *Client) Close() { c.close() }

// BeaconID returns the id that the server gave last.
func (c *Client) BeaconID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beaconID
}

// SetBeaconID stores an id that was given on another way.
func (c *Client) SetBeaconID(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beaconID = id
}

// Registration returns what the beacon tells about itself at present: that of
// the configuration, unless SetRegistration has replaced it.
func (c *Client) Registration() protocol.Registration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.registration
}

// SetRegistration replaces what later registrations tell.
func (c *Client) SetRegistration(r protocol.Registration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.registration = r
}

// smallAnswer is ample for answers without a work item; a beacon's record
// holds its whole registration.
const smallAnswer = 8 << 20

// Authenticate logs in. That the server declines is no error: a server that
// asks nobody for credentials answers so, too.
func (c *Client) Authenticate(ctx context.Context) error {
	body, err := protocol.Encode(protocol.Credentials{UserName: c.cfg.UserName, Password: c.cfg.Password})
	if err != nil {
		return err
	}
	status, answer, err := c.do(ctx, http.MethodPost, protocol.PathAuthenticate, protocol.TextBody(body), smallAnswer)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	switch status {
	case http.StatusOK:
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		answer = nil // a server without logins
	default:
		return fmt.Errorf("log in: %w", c.statusError(http.MethodPost, protocol.PathAuthenticate, status, answer))
	}
	login := protocol.DecodeLogin(answer)
	if !login.LoggedIn {
		c.cfg.Logger.Warn("the server did not log this beacon in; going on without a session",
			"user", c.cfg.UserName, "reason", beacon.Excerpt(login.Error, 200))
	}
	if login.LoggedIn && !c.hasSession() {
		c.SetSession(login.SessionID) // a proxy that strips Set-Cookie leaves the id in the body
	}
	c.mu.Lock()
	c.logins++
	c.mu.Unlock()
	return nil
}

// SetSession uses a session that came on another way than by a cookie; "" changes
// nothing.
func (c *Client) SetSession(id string) {
	if id != "" {
		c.http.Jar.SetCookies(c.base, []*http.Cookie{{Name: protocol.SessionCookie, Value: id, Path: "/"}})
	}
}

func (c *Client) hasSession() bool {
	for _, cookie := range c.http.Jar.Cookies(c.base) {
		if cookie.Name == protocol.SessionCookie {
			return true
		}
	}
	return false
}

// Register introduces the beacon and keeps the id that it gets.
func (c *Client) Register(ctx context.Context) error {
	body, err := protocol.EncodeRegistration(c.Registration())
	if err != nil {
		return beacon.Errorf(beacon.Invalid, "register: %w", err)
	}
	path := protocol.PathRegister
	status, answer, err := c.do(ctx, http.MethodPost, path, protocol.TextBody(body), smallAnswer)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if status != http.StatusOK {
		return fmt.Errorf("register: %w", c.statusError(http.MethodPost, path, status, answer))
	}
	id, err := protocol.DecodeRegistered(answer)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	c.SetBeaconID(id)
	return nil
}

func (c *Client) hold(ctx context.Context) error {
	select {
	case c.renewing <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Settle is for the end of a session: it waits until a registration that is
// under way has its answer, or ctx is done, and lets no other begin. One that is
// cut off can leave an identity behind that nobody here knows.
func (c *Client) Settle(ctx context.Context) {
	_ = c.hold(ctx) // in the end the server forgets who is silent
}

// RegisterAgain is for a server that does not know the beacon of that id. It does
// nothing if the beacon has had another one since: a login that was renewed at
// the same time has registered it, and a second identity would stay behind.
func (c *Client) RegisterAgain(ctx context.Context, unknown string) error {
	if err := c.hold(ctx); err != nil {
		return err
	}
	defer func() { <-c.renewing }()
	if c.BeaconID() != unknown {
		return nil
	}
	return c.Register(ctx)
}

// StarvesPollers asks whether the server is one that gives work to beacons that
// poll only if they ask quickly. A server that does not say is none.
func (c *Client) StarvesPollers(ctx context.Context) bool {
	status, answer, err := c.do(ctx, http.MethodGet, protocol.PathStatus, nil, smallAnswer)
	return err == nil && status == http.StatusOK && protocol.StarvesPollers(answer)
}

// Peers asks the server for all beacons that it has.
func (c *Client) Peers(ctx context.Context) ([]protocol.Peer, error) {
	for attempt := 1; ; attempt++ {
		c.mu.Lock()
		login := c.logins
		c.mu.Unlock()
		status, answer, err := c.do(ctx, http.MethodGet, protocol.PathBeacons, nil, c.cfg.MaxMessage)
		switch {
		case err != nil:
			return nil, err
		case status == http.StatusUnauthorized && attempt == 1:
			if err := c.renew(ctx, login); err != nil {
				return nil, err
			}
		case status != http.StatusOK:
			return nil, c.statusError(http.MethodGet, protocol.PathBeacons, status, answer)
		default:
			return protocol.DecodePeers(answer)
		}
	}
}

// Current is what a server thinks that a beacon works on.
type Current struct {
	Hashes []string
	Known  bool // the server says it at all
}

// Heartbeat says that the beacon is alive and learns whether the server still
// knows it: if not, the error is ErrUnknownBeacon.
func (c *Client) Heartbeat(ctx context.Context, h protocol.Heartbeat) (Current, error) {
	body, err := protocol.Encode(h)
	if err != nil {
		return Current{}, fmt.Errorf("heartbeat: %w", err)
	}
	path := func(id string) string { return protocol.PathHeartbeat(url.PathEscape(id)) }
	status, answer, err := c.call(ctx, path, fixed(body), smallAnswer)
	switch {
	case err != nil:
		return Current{}, fmt.Errorf("heartbeat: %w", err)
	case status == http.StatusNotFound && protocol.DecodeError(answer) != "":
		return Current{}, ErrUnknownBeacon
	case status != http.StatusOK:
		return Current{}, fmt.Errorf("heartbeat: %w", c.statusError(http.MethodPost, path("…"), status, answer))
	}
	c.canceled(answer)
	var current Current
	current.Hashes, current.Known = protocol.DecodeCurrent(answer)
	return current, nil
}

// canceled passes on what an answer says of items that are not wanted.
func (c *Client) canceled(answer []byte) {
	if c.Canceled == nil {
		return
	}
	if list := protocol.DecodeCanceled(answer); len(list) > 0 {
		c.Canceled(list)
	}
}

// Poll asks for one work item; nil means that there is none. The item is for
// protocol.DecodeWorkItem.
func (c *Client) Poll(ctx context.Context) ([]byte, error) {
	path := func(string) string { return protocol.PathPoll }
	body := func(id string) (*protocol.Body, error) {
		text, err := protocol.Encode(struct {
			BeaconID string `json:"BeaconID"`
		}{id})
		return protocol.TextBody(text), err
	}
	status, answer, err := c.call(ctx, path, body, c.cfg.MaxMessage)
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("poll: %w", c.statusError(http.MethodPost, protocol.PathPoll, status, answer))
	}
	item, err := protocol.DecodePoll(answer)
	if err != nil {
		return nil, fmt.Errorf("poll: %w", err)
	}
	c.canceled(answer)
	return item, nil
}

// Progress reports progress.
func (c *Client) Progress(ctx context.Context, hash string, p beacon.Progress) error {
	body, err := protocol.Encode(protocol.NewProgress(p))
	if err != nil {
		return fmt.Errorf("progress: %w", err)
	}
	path := protocol.PathProgress(escape(hash))
	status, answer, err := c.call(ctx, func(string) string { return path }, fixed(body), smallAnswer)
	switch {
	case err != nil:
		return fmt.Errorf("progress: %w", err)
	case status == http.StatusNotFound && protocol.DecodeError(answer) != "":
		return nil // the server keeps no progress of this item
	case status != http.StatusOK:
		return fmt.Errorf("progress: %w", c.statusError(http.MethodPost, path, status, answer))
	}
	c.canceled(answer)
	return nil
}

// Bounds on what is reported in one batch.
const (
	maxBatchBytes = 4 << 20
	maxBatched    = 256 << 10 // of one report; a larger one goes alone
)

// Deliver reports what became of items, of many in one request where the server
// can do that; see transport.Deliverer.
func (c *Client) Deliver(ctx context.Context, reports []transport.Report) []error {
	errs := make([]error, len(reports))
	alone := make([]int, 0, len(reports)) // indices
	var batch batch
	send := func() {
		if len(batch.entries) == 1 || !c.deliver(ctx, batch, reports, errs) {
			alone = append(alone, batch.indices...)
		}
		batch.clear()
	}
	if len(reports) > 1 && !c.single.Load() {
		for i, r := range reports {
			if r.Failed || len(r.Result.Outputs.Files()) > 0 {
				alone = append(alone, i)
				continue
			}
			entry, err := protocol.EncodeBatchEntry(r.Hash, r.Result, r.Attempt)
			if err != nil || len(entry) > maxBatched {
				alone = append(alone, i)
				continue
			}
			if len(batch.entries) == protocol.MaxBatch || batch.bytes+len(entry) > maxBatchBytes {
				send()
			}
			batch.add(i, entry)
		}
		if len(batch.entries) > 0 {
			send()
		}
	} else {
		for i := range reports {
			alone = append(alone, i)
		}
	}
	rest := make([]transport.Report, len(alone))
	for k, i := range alone {
		rest[k] = reports[i]
	}
	for k, err := range transport.Each(rest, func(r transport.Report) error { return c.Report(ctx, r) }) {
		errs[alone[k]] = err
	}
	return errs
}

// A batch is reports on their way, by their index.
type batch struct {
	indices []int
	entries [][]byte
	bytes   int
}

func (b *batch) add(i int, entry []byte) {
	b.indices, b.entries = append(b.indices, i), append(b.entries, entry)
	b.bytes += len(entry)
}

func (b *batch) clear() { *b = batch{} }

// deliver sends one batch. It is false if the server takes no batches; then, and
// wherever the answer leaves doubts, the reports are to be sent alone.
func (c *Client) deliver(ctx context.Context, b batch, reports []transport.Report, errs []error) bool {
	path := func(string) string { return protocol.PathCompleteBatch }
	status, answer, err := c.call(ctx, path, fixed(protocol.EncodeBatch(b.entries)), smallAnswer)
	if err != nil {
		for _, i := range b.indices {
			errs[i] = fmt.Errorf("report: %w", err)
		}
		return true
	}
	refused, err := protocol.DecodeBatch(answer, len(b.entries))
	switch {
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed || status == http.StatusOK && err != nil:
		c.single.Store(true)
		return false
	case status != http.StatusOK:
		return false
	}
	for k, text := range refused {
		i := b.indices[k]
		if protocol.Finalized(text) {
			c.unwanted(reports[i].Hash, text)
			continue
		}
		// Alone the server says what it has against it.
		errs[i] = c.Report(ctx, reports[i])
	}
	return true
}

// unwanted notes that a report came too late.
func (c *Client) unwanted(hash, reason string) {
	c.cfg.Logger.Info("the server no longer wants this report", "item", beacon.Excerpt(hash, 200), "reason", beacon.Excerpt(reason, 200))
}

// Report reports what became of an item; see transport.Session.
func (c *Client) Report(ctx context.Context, r transport.Report) error {
	if r.Failed {
		body, err := protocol.Encode(protocol.NewWorkFailure(r.Message, r.Result, r.Attempt))
		if err != nil {
			return fmt.Errorf("%w: %w", transport.ErrRefused, err)
		}
		return c.report(ctx, protocol.PathError(escape(r.Hash)), protocol.TextBody(body))
	}
	for all := false; ; all = true {
		result, err := c.upload(ctx, r, all)
		if err != nil {
			return fmt.Errorf("report: %w", err)
		}
		body, err := protocol.EncodeCompletion(result, r.Attempt)
		if err != nil {
			return fmt.Errorf("%w: %w", transport.ErrRefused, err)
		}
		err = c.report(ctx, protocol.PathComplete(escape(r.Hash)), body)
		var status *StatusError
		if all || !errors.As(err, &status) || status.Status != http.StatusRequestEntityTooLarge || len(result.Outputs.Files()) == 0 {
			return err
		}
		// What is too large inside of a result may be welcome beside of it.
		r.Result = result
	}
}

// upload sends the files of a result that are wanted beside of it, or all, where
// the server takes them. What remains is the result without those.
func (c *Client) upload(ctx context.Context, r transport.Report, all bool) (beacon.Result, error) {
	result := r.Result
	files := result.Outputs.Files()
	for _, output := range slices.Sorted(maps.Keys(files)) {
		f := files[output]
		if !all && !f.Upload || c.noUploads.Load() {
			continue
		}
		path := protocol.PathUpload(escape(r.Hash))
		status, answer, err := c.call(ctx, func(string) string { return path },
			func(string) (*protocol.Body, error) { return protocol.FileBody(f), nil }, smallAnswer)
		if err != nil {
			return result, err
		}
		if status != http.StatusOK {
			message := protocol.DecodeError(answer)
			c.cfg.Logger.Info("the server does not take an output file by HTTP; it goes inside of its result", "status", status, "reason", beacon.Excerpt(message, 200))
			// The servers of Ultravisor have no such endpoint, or one that says this
			// to every body.
			if status == http.StatusNotFound && message == "" || status == http.StatusMethodNotAllowed || message == "Binary body required" {
				c.noUploads.Store(true)
			}
			continue
		}
		result.Outputs = maps.Clone(result.Outputs)
		delete(result.Outputs, output)
	}
	return result, nil
}

func (c *Client) report(ctx context.Context, path string, body *protocol.Body) error {
	status, answer, err := c.call(ctx, func(string) string { return path }, func(string) (*protocol.Body, error) { return body, nil }, smallAnswer)
	if err != nil {
		return fmt.Errorf("report: %w", err)
	}
	message := protocol.DecodeError(answer)
	switch {
	case status >= 200 && status < 300:
		return nil
	case (status == http.StatusBadRequest || status == http.StatusNotFound || status == http.StatusConflict) && protocol.Finalized(message):
		c.unwanted(path, message)
		return nil
	}
	err = fmt.Errorf("report: %w", c.statusError(http.MethodPost, path, status, answer))
	switch status {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", transport.ErrRefused, err)
	}
	return err
}

// Deregister takes the beacon's leave.
func (c *Client) Deregister(ctx context.Context) error {
	return c.deregister(ctx, c.BeaconID())
}

// Retire removes the record of an earlier registration of this beacon, if the
// server has given it another id since: the server of March 2026 keeps both,
// and would go on to offer the earlier one work.
func (c *Client) Retire(ctx context.Context, earlier string) error {
	if earlier == "" || earlier == c.BeaconID() {
		return nil
	}
	return c.deregister(ctx, earlier)
}

// Supersede registers anew, and notes the earlier identity if the server has
// given another one: Leave removes it.
func (c *Client) Supersede(ctx context.Context) error {
	earlier := c.BeaconID()
	if err := c.Register(ctx); err != nil {
		return err
	}
	if earlier != "" && earlier != c.BeaconID() {
		c.mu.Lock()
		c.earlier = append(c.earlier, earlier)
		c.mu.Unlock()
	}
	return nil
}

// Identities are all that the server may know this beacon by.
func (c *Client) Identities() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(slices.Clone(c.earlier), c.beaconID)
}

// Inherit has Leave remove identities of lost sessions, but for the present one.
func (c *Client) Inherit(ids []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		if id != "" && id != c.beaconID {
			c.earlier = append(c.earlier, id)
		}
	}
}

// Leave removes the earlier identities of this beacon. What they were given the
// server gives out again, so it is for when nothing is left of that.
func (c *Client) Leave(ctx context.Context) error {
	c.mu.Lock()
	earlier := c.earlier
	c.earlier = nil
	c.mu.Unlock()
	for i, id := range earlier {
		if err := c.Retire(ctx, id); err != nil {
			c.mu.Lock()
			c.earlier = append(c.earlier, earlier[i:]...)
			c.mu.Unlock()
			return err
		}
	}
	return nil
}

func (c *Client) deregister(ctx context.Context, id string) error {
	path := protocol.PathBeacon(url.PathEscape(id))
	status, answer, err := c.do(ctx, http.MethodDelete, path, nil, smallAnswer)
	if err != nil {
		return fmt.Errorf("deregister: %w", err)
	}
	if status != http.StatusOK && status != http.StatusNotFound {
		return fmt.Errorf("deregister: %w", c.statusError(http.MethodDelete, path, status, answer))
	}
	return nil
}

func fixed(body []byte) func(string) (*protocol.Body, error) {
	return func(string) (*protocol.Body, error) { return protocol.TextBody(body), nil }
}

// call posts what needs a login. The parts that hold the beacon's id
// are functions of it, since another login may bring another one.
func (c *Client) call(ctx context.Context, path func(id string) string, body func(id string) (*protocol.Body, error), limit int64) (int, []byte, error) {
	for attempt := 1; ; attempt++ {
		c.mu.Lock()
		id, login := c.beaconID, c.logins
		c.mu.Unlock()
		raw, err := body(id)
		if err != nil {
			return 0, nil, err
		}
		status, answer, err := c.do(ctx, http.MethodPost, path(id), raw, limit)
		if err != nil || status != http.StatusUnauthorized || attempt == 2 {
			return status, answer, err
		}
		if err := c.renew(ctx, login); err != nil {
			return 0, nil, err
		}
	}
}

// renew logs in again, unless somebody else has since the login of that
// number.
func (c *Client) renew(ctx context.Context, login int) error {
	if err := c.hold(ctx); err != nil {
		return err
	}
	defer func() { <-c.renewing }()
	c.mu.Lock()
	current := c.logins
	c.mu.Unlock()
	if current != login {
		return nil
	}
	c.cfg.Logger.Info("the session has ended; logging in again")
	if err := c.Authenticate(ctx); err != nil {
		return err
	}
	if c.Renewed != nil {
		return c.Renewed(ctx)
	}
	return nil
}

// do makes one request and reads the whole answer, limit bytes at most.
func (c *Client) do(ctx context.Context, method, path string, body *protocol.Body, limit int64) (int, []byte, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timeout := c.cfg.RequestTimeout
	if body != nil {
		timeout += Allowance(body.Size())
	}
	timer := time.AfterFunc(timeout, func() { cancel(fmt.Errorf("no answer within %v", timeout)) })
	defer timer.Stop()

	address := strings.TrimSuffix(c.base.String(), "/") + "/" + path
	request, err := http.NewRequestWithContext(ctx, method, address, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("%s %s: malformed path", method, path)
	}
	if body != nil {
		if request.Body, err = body.Open(); err != nil {
			return 0, nil, damaged(err)
		}
		request.GetBody, request.ContentLength = body.Open, body.Size()
		request.Header.Set("Content-Type", "application/json")
		if body.FileName != "" {
			request.Header.Set("Content-Type", "application/octet-stream")
			request.Header.Set(protocol.HeaderOutputFilename, body.FileName)
		}
	}
	request.Header.Set("Accept", "application/json")
	answer, err := c.http.Do(request)
	if err != nil {
		return 0, nil, damaged(c.failed(ctx, method, path, err))
	}
	defer answer.Body.Close()
	if answer.ContentLength > 0 {
		timer.Reset(c.cfg.RequestTimeout + Allowance(min(answer.ContentLength, limit)))
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return 0, nil, c.failed(ctx, method, path, err)
	}
	if int64(len(raw)) > limit {
		return 0, nil, fmt.Errorf("%s %s: the answer is larger than the limit of %d bytes", method, path, limit)
	}
	return answer.StatusCode, raw, nil
}

// damaged has a body that cannot be read any more count as refused: sending it
// again cannot help.
func damaged(err error) error {
	if errors.Is(err, protocol.ErrDamaged) {
		return fmt.Errorf("%w: %w", transport.ErrRefused, err)
	}
	return err
}

func (c *Client) failed(ctx context.Context, method, path string, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return fmt.Errorf("%s %s at %s: %w", method, beacon.Excerpt(path, 200), c.base.Host, err)
}

func (c *Client) statusError(method, path string, status int, answer []byte) error {
	return &StatusError{Method: method, Path: path, Status: status, Message: beacon.Excerpt(protocol.DecodeError(answer), 200)}
}

// escape makes a hash one segment of a path. Dots alone would be taken for a
// way up, so they are escaped as well.
func escape(hash string) string {
	if hash == "." || hash == ".." {
		return strings.ReplaceAll(hash, ".", "%2E")
	}
	return url.PathEscape(hash)
}
