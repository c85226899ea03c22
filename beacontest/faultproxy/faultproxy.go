// Package faultproxy stands between a beacon and its server and does to what
// passes what networks, proxies and servers do on bad days. It knows HTTP and
// WebSocket, so that it can hit requests, answers and frames.
package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// A Fault is something that goes wrong.
type Fault string

// The faults. Those of frames happen on WebSockets, in both directions unless
// it says otherwise; those of requests on all other traffic.
const (
	Cut          Fault = "cut"           // a connection ends instead of a frame or an answer
	Truncate     Fault = "truncated"     // the same in the middle of a frame or an answer
	HalfOpen     Fault = "half-open"     // nothing passes any more, and nobody is told
	Delay        Fault = "delayed"       // frame, request
	Duplicate    Fault = "duplicated"    // a work item that is pushed arrives twice
	Reorder      Fault = "reordered"     // a work item that is pushed arrives after the next one
	Unauthorized Fault = "401"           // the request does not arrive
	Unavailable  Fault = "503"           // the same
	BadGateway   Fault = "502, answered" // the request arrives, its answer does not
)

// Rates say how many of all frames or requests suffer a fault, from 0 to 1.
type Rates map[Fault]float64

// Config is what a Proxy needs to know. The zero value lets everything pass.
type Config struct {
	// Seed decides what happens: to the n-th connection and to the n-th frame of
	// it happens the same in every run.
	Seed uint64
	// Frames and Requests are the rates of their faults.
	Frames, Requests Rates
	// MaxDelay bounds a delay; 0 means 50 ms.
	MaxDelay time.Duration
	// HalfOpenTime is after how long the far end of a half-open connection is
	// closed; 0 means 10 s.
	HalfOpenTime time.Duration
}

// A Proxy is a server on a port of this machine. It is safe for concurrent use.
type Proxy struct {
	cfg      Config
	listener net.Listener
	server   *http.Server
	client   *http.Transport
	tasks    sync.WaitGroup
	closed   chan struct{}

	mu       sync.Mutex
	target   *url.URL // nil: the server is down
	calm     bool
	serial   uint64 // counts connections and requests
	counts   map[Fault]int
	sockets  map[net.Conn]bool
	accepted map[net.Conn]bool
}

// Start starts a proxy to the server at a URL, which must be http.
func Start(target string, cfg Config) (*Proxy, error) {
	if cfg.MaxDelay <= 0 {
		cfg.MaxDelay = 50 * time.Millisecond
	}
	if cfg.HalfOpenTime <= 0 {
		cfg.HalfOpenTime = 10 * time.Second
	}
	p := &Proxy{
		cfg: cfg, client: &http.Transport{MaxIdleConnsPerHost: 16, DisableCompression: true}, closed: make(chan struct{}),
		counts: map[Fault]int{}, sockets: map[net.Conn]bool{}, accepted: map[net.Conn]bool{},
	}
	if err := p.Retarget(target); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start a proxy: %w", err)
	}
	p.listener = listener
	p.server = &http.Server{
		Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: time.Minute,
		ErrorLog: log.New(io.Discard, "", 0), // it is made of errors
		ConnState: func(conn net.Conn, state http.ConnState) {
			p.mu.Lock()
			defer p.mu.Unlock()
			switch state {
			case http.StateNew:
				p.accepted[conn] = true
			case http.StateClosed, http.StateHijacked:
				delete(p.accepted, conn)
			}
		},
	}
	p.tasks.Go(func() { _ = p.server.Serve(listener) }) // ends with Close
	return p, nil
}

// URL is where the proxy is.
func (p *Proxy) URL() string { return "http://" + p.listener.Addr().String() }

// Retarget leads what comes from now on to another server; "" is one that is
// down.
func (p *Proxy) Retarget(target string) error {
	var u *url.URL
	if target != "" {
		var err error
		if u, err = url.Parse(target); err != nil || u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("the target %q of a proxy must be http://host:port", target)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = u
	return nil
}

// Calm ends all faults, and all that is half open.
func (p *Proxy) Calm() {
	p.mu.Lock()
	p.calm = true
	p.mu.Unlock()
	p.CutAll()
}

// CutAll cuts every connection that is open.
func (p *Proxy) CutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.sockets {
		conn.Close()
	}
	for conn := range p.accepted {
		conn.Close()
	}
	p.client.CloseIdleConnections()
}

// Counts says how often each fault has happened.
func (p *Proxy) Counts() map[Fault]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Close ends the proxy and all connections through it.
func (p *Proxy) Close() error {
	p.mu.Lock()
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	p.mu.Unlock()
	err := p.server.Close()
	p.CutAll()
	p.tasks.Wait()
	p.client.CloseIdleConnections()
	return err
}

// enter numbers a connection or request; without a target it is not to be
// served.
func (p *Proxy) enter() (serial uint64, target *url.URL) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.closed:
		return 0, nil
	default:
	}
	p.serial++
	if p.target != nil {
		p.tasks.Add(1)
	}
	return p.serial, p.target
}

// draw picks what happens next to somebody.
func (p *Proxy) draw(dice *rand.Rand, rates Rates, order []Fault) Fault {
	x := dice.Float64()
	for _, f := range order {
		if x -= rates[f]; x < 0 {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.calm {
				return ""
			}
			p.counts[f]++
			return f
		}
	}
	return ""
}

// Orders in which faults are drawn, so that a seed always means the same.
var (
	frameFaults   = []Fault{Cut, Truncate, HalfOpen, Delay}
	itemFaults    = []Fault{Cut, Truncate, HalfOpen, Delay, Duplicate, Reorder}
	requestFaults = []Fault{Cut, Truncate, HalfOpen, Delay, Unauthorized, Unavailable, BadGateway}
)

func (p *Proxy) pause(ctx context.Context, dice *rand.Rand) {
	p.wait(ctx, time.Duration(dice.Int64N(int64(p.cfg.MaxDelay))))
}

func (p *Proxy) wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	case <-p.closed:
	}
}

// abort ends a connection without an answer.
func abort() { panic(http.ErrAbortHandler) }

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	serial, target := p.enter()
	if target == nil {
		abort()
	}
	defer p.tasks.Done()
	if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		p.socket(w, r, serial, target)
		return
	}
	dice := rand.New(rand.NewPCG(p.cfg.Seed, serial)) //nolint:gosec // repeatable on purpose
	fault := p.draw(dice, p.cfg.Requests, requestFaults)
	switch fault {
	case Cut:
		if dice.IntN(2) == 0 {
			_, _ = p.forward(r, target) // it arrives, and nobody hears of it
		}
		abort()
	case HalfOpen:
		p.wait(r.Context(), p.cfg.HalfOpenTime)
		abort()
	case Delay:
		p.pause(r.Context(), dice)
	case Unauthorized:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"Error":"Authentication required.","LoggedIn":false}`)
		return
	case Unavailable:
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<html>down for a moment</html>")
		return
	}
	answer, err := p.forward(r, target)
	if err != nil {
		abort()
	}
	if fault == BadGateway {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	maps.Copy(w.Header(), answer.header)
	if fault == Truncate && len(answer.body) > 1 {
		w.Header().Set("Content-Length", fmt.Sprint(len(answer.body)))
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body[:len(answer.body)/2])
		_ = http.NewResponseController(w).Flush()
		abort()
	}
	w.WriteHeader(answer.status)
	_, _ = w.Write(answer.body) // the client may be gone
}

type answer struct {
	status int
	header http.Header
	body   []byte
}

// forward has the server answer a request.
func (p *Proxy) forward(r *http.Request, target *url.URL) (answer, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return answer{}, err
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = target.Scheme, target.Host
	out.RequestURI, out.Body, out.ContentLength = "", io.NopCloser(bytes.NewReader(body)), int64(len(body))
	in, err := p.client.RoundTrip(out)
	if err != nil {
		return answer{}, err
	}
	defer in.Body.Close()
	raw, err := io.ReadAll(in.Body)
	return answer{in.StatusCode, in.Header, raw}, err
}

// socket leads a WebSocket through.
func (p *Proxy) socket(w http.ResponseWriter, r *http.Request, serial uint64, target *url.URL) {
	up, err := new(net.Dialer).DialContext(r.Context(), "tcp", target.Host)
	if err != nil {
		abort()
	}
	defer up.Close()
	out := r.Clone(r.Context())
	out.RequestURI = ""
	if err := out.Write(up); err != nil {
		abort()
	}
	fromServer := bufio.NewReaderSize(up, 64<<10)
	answer, err := http.ReadResponse(fromServer, r)
	if err != nil {
		abort()
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		defer answer.Body.Close()
		w.WriteHeader(answer.StatusCode)
		_, _ = io.Copy(w, answer.Body)
		return
	}
	down, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer down.Close()
	l := &link{proxy: p, down: down, up: up, ended: make(chan struct{})}
	p.keep(l, true)
	defer p.keep(l, false)
	if err := answer.Write(down); err != nil {
		return
	}
	var pumps sync.WaitGroup
	pumps.Go(func() {
		l.pump(buffered.Reader, down, up, rand.New(rand.NewPCG(p.cfg.Seed, serial<<8|1)), false) //nolint:gosec // repeatable on purpose
	})
	pumps.Go(func() {
		l.pump(fromServer, up, down, rand.New(rand.NewPCG(p.cfg.Seed, serial<<8|2)), true) //nolint:gosec // repeatable on purpose
	})
	pumps.Wait()
}

// keep notes which connections there are.
func (p *Proxy) keep(l *link, open bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range []net.Conn{l.down, l.up} {
		if open {
			p.sockets[conn] = true
		} else {
			delete(p.sockets, conn)
		}
	}
}

// A link is one WebSocket on its way through the proxy.
type link struct {
	proxy    *Proxy
	down, up net.Conn // to the beacon, to the server

	mu    sync.Mutex
	over  bool
	ended chan struct{}
	mute  bool // half open
}

// end closes both ends; of a half-open link only the one that is gone anyway.
func (l *link) end(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mute && !l.over {
		conn.Close()
		return
	}
	if !l.over {
		l.over = true
		close(l.ended)
	}
	l.down.Close()
	l.up.Close()
}

// halve makes the link half open; after a while it ends.
func (l *link) halve() {
	l.mu.Lock()
	already := l.mute || l.over
	l.mute = true
	l.mu.Unlock()
	if already {
		return
	}
	l.proxy.tasks.Go(func() {
		timer := time.NewTimer(l.proxy.cfg.HalfOpenTime)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.proxy.closed:
		case <-l.ended:
		}
		l.mu.Lock()
		l.mute = false
		l.mu.Unlock()
		l.end(nil)
	})
}

func (l *link) muted() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mute
}

// patience is how long a frame that is to change places waits for the next.
const patience = 30 * time.Millisecond

// pump passes frames on in one direction.
func (l *link) pump(from *bufio.Reader, in, out net.Conn, dice *rand.Rand, pushed bool) {
	defer l.end(in)
	p := l.proxy
	var held []byte // the frame that changes places
	send := func(frame []byte) bool {
		if l.muted() {
			return true
		}
		_, err := out.Write(frame)
		return err == nil
	}
	release := func() bool {
		frame := held
		held = nil
		return frame == nil || send(frame)
	}
	for {
		if held != nil {
			_ = in.SetReadDeadline(time.Now().Add(patience))
			_, err := from.Peek(2)
			_ = in.SetReadDeadline(time.Time{})
			var late net.Error
			if errors.As(err, &late) && late.Timeout() {
				if !release() {
					return
				}
				continue
			}
		}
		frame, text, err := readFrame(from)
		if err != nil {
			if held != nil {
				release()
			}
			return
		}
		item := pushed && text && bytes.Contains(frame, []byte(`"EventType":"WorkItem"`))
		order := frameFaults
		if item {
			order = itemFaults
		}
		fault := Fault("")
		if !l.muted() {
			fault = p.draw(dice, p.cfg.Frames, order)
		}
		if held != nil && !item && !release() { // only items overtake each other
			return
		}
		switch fault {
		case Cut:
			return
		case Truncate:
			send(frame[:dice.IntN(len(frame))])
			return
		case HalfOpen:
			l.halve()
			continue
		case Delay:
			p.pause(context.Background(), dice)
		case Reorder:
			if held == nil {
				held = frame
				continue
			}
		}
		if !send(frame) || fault == Duplicate && !send(frame) || held != nil && !release() {
			return
		}
	}
}

// maxFrame bounds what is kept of one frame, in bytes.
const maxFrame = 512 << 20

// readFrame reads one frame as it is on the wire. Text says that it is a whole
// text message.
func readFrame(r *bufio.Reader) (frame []byte, text bool, err error) {
	head, err := r.Peek(2)
	if err != nil {
		return nil, false, err
	}
	text = head[0] == 0x81
	size := 2
	var length uint64
	switch n := head[1] & 0x7f; n {
	case 126:
		size += 2
		if head, err = r.Peek(size); err == nil {
			length = uint64(head[2])<<8 | uint64(head[3])
		}
	case 127:
		size += 8
		if head, err = r.Peek(size); err == nil {
			for _, b := range head[2:10] {
				length = length<<8 | uint64(b)
			}
		}
	default:
		length = uint64(n)
	}
	if err != nil {
		return nil, false, err
	}
	if head[1]&0x80 != 0 {
		size += 4 // the mask
	}
	if length > maxFrame {
		return nil, false, fmt.Errorf("a frame of %d bytes", length)
	}
	frame, err = io.ReadAll(io.LimitReader(r, int64(size)+int64(length))) //nolint:gosec // bounded above
	if err == nil && uint64(len(frame)) < uint64(size)+length {           //nolint:gosec // not negative
		err = io.ErrUnexpectedEOF
	}
	return frame, text, err
}
