// Package session is what every way to connect to an Ultravisor server shares:
// the configuration, the HTTP endpoints, and the intake of work items.
//
// Programs use its Config; the rest serves packages ws and poll.
package session

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
)

// Defaults of Config.
const (
	DefaultHeartbeatInterval = 30 * time.Second
	DefaultPollInterval      = 5 * time.Second
	DefaultRequestTimeout    = 30 * time.Second
	DefaultPingInterval      = 15 * time.Second
	DefaultPingTimeout       = 20 * time.Second
	DefaultMaxMessage        = 256 << 20
	DefaultQueue             = 1024
)

// Config says which server to serve and how. ServerURL and Registration.Name
// are required; the zero value of everything else is usable. A Config is
// copied by those who take it and may be shared by several dials.
type Config struct {
	// ServerURL is http, https, ws or wss, with an optional path prefix.
	ServerURL string
	// Registration is what the beacon tells about itself, its join secret
	// included.
	Registration protocol.Registration
	// UserName logs in; "" means Registration.Name, as in the seed. Password
	// may be empty.
	UserName string
	Password string

	HeartbeatInterval time.Duration // 0 means 30 s
	// PollInterval is how often a server is asked for work while it has none.
	// It is asked at once after it gave an item and after a report. On
	// WebSocket, too: servers of March 2026 never push what had to wait.
	PollInterval time.Duration // 0 means 5 s
	// RequestTimeout bounds each request and each handshake. Bodies get more
	// time, in proportion to their size.
	RequestTimeout time.Duration // 0 means 30 s
	// PingInterval and PingTimeout find peers that are gone without a word: a
	// link is lost when nothing arrives for PingTimeout after a ping.
	PingInterval time.Duration // 0 means 15 s
	PingTimeout  time.Duration // 0 means 20 s
	// MaxMessage is the largest message that is read, in bytes; 0 means
	// 256 MiB, the limit of the real server. A WebSocket link ends at a larger
	// one.
	MaxMessage int64
	// MaxFrame is the largest frame that is sent on a WebSocket, in bytes; a
	// larger report goes by HTTP. 0 means protocol.MaxFrame, which is also the
	// most: real servers die of much larger ones.
	MaxFrame int
	// Queue is how many pushed items wait here at most, for a server that
	// pushes more than was asked for; 0 means 1024. Beyond it nothing is read
	// from the link until there is room; nothing is ever dropped.
	Queue int

	// TLS holds own authorities and client certificates; nil means the
	// system's. Certificates are verified unless it says otherwise.
	TLS *tls.Config
	// HTTPClient replaces the client that is made from TLS, with proxies from
	// the environment. Its cookie jar and its redirects are not used.
	HTTPClient *http.Client
	Logger     *slog.Logger // nil means slog.Default()
}

// String names the server and the beacon and no secret.
func (c Config) String() string {
	server := "invalid URL"
	if u, err := url.Parse(c.ServerURL); err == nil {
		server = u.Redacted()
	}
	return fmt.Sprintf("beacon %s at %s", beacon.Excerpt(c.Registration.Name, 80), server)
}

// GoString is String, so that %#v shows no secret either.
func (c Config) GoString() string { return c.String() }

// LogValue is String, so that a logger shows no secret either.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// normal fills in the defaults and checks the rest; its errors are Invalid.
func (c Config) normal() (Config, *url.URL, error) {
	if c.Registration.Name == "" {
		return c, nil, beacon.Errorf(beacon.Invalid, "the beacon needs a name")
	}
	u, err := url.Parse(c.ServerURL)
	if err != nil { // the error quotes the URL, which may hold a password
		return c, nil, beacon.Errorf(beacon.Invalid, "the server URL cannot be parsed: want something like http://localhost:%d", protocol.DefaultPort)
	}
	switch u.Scheme {
	case "ws":
		u.Scheme = "http"
	case "wss":
		u.Scheme = "https"
	case "http", "https":
	default:
		return c, nil, beacon.Errorf(beacon.Invalid, "server URL %s does not begin with http://, https://, ws:// or wss://", beacon.Excerpt(u.Redacted(), 120))
	}
	if u.Host == "" || u.RawQuery != "" || u.Fragment != "" {
		return c, nil, beacon.Errorf(beacon.Invalid, "server URL %s must have a host and neither query nor fragment", beacon.Excerpt(u.Redacted(), 120))
	}
	if !strings.HasSuffix(u.Path, "/") {
		u = u.JoinPath("/")
	}
	c.UserName = or(c.UserName, c.Registration.Name)
	c.HeartbeatInterval = positive(c.HeartbeatInterval, DefaultHeartbeatInterval)
	c.PollInterval = positive(c.PollInterval, DefaultPollInterval)
	c.RequestTimeout = positive(c.RequestTimeout, DefaultRequestTimeout)
	c.PingInterval = positive(c.PingInterval, DefaultPingInterval)
	c.PingTimeout = positive(c.PingTimeout, DefaultPingTimeout)
	c.MaxMessage = positive(c.MaxMessage, DefaultMaxMessage)
	c.MaxFrame = min(positive(c.MaxFrame, protocol.MaxFrame), protocol.MaxFrame)
	c.Queue = positive(c.Queue, DefaultQueue)
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, u, nil
}

func or(value, fallback string) string {
	if value == "" {
		return fallback
	}
	return value
}

func positive[T int | int64 | time.Duration](value, fallback T) T {
	if value <= 0 {
		return fallback
	}
	return value
}

// transferRate is the slowest link, in bytes per second, that a large message
// is given time for.
const transferRate = 64 << 10

// Allowance is the time that a message of so many bytes may take beyond the
// usual timeout.
func Allowance(bytes int64) time.Duration {
	return time.Duration(bytes/transferRate) * time.Second
}
