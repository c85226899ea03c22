package service

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/transport/session"
	"github.com/ultravisor/beacon/worker"
)

// Transport says how a Service connects.
type Transport string

// The transports. Auto prefers WebSocket, polls by HTTP where that does not
// work, and goes back to WebSocket as soon as it does.
const (
	Auto      Transport = "auto"
	WebSocket Transport = "ws"
	HTTP      Transport = "http"
)

// DefaultCancelGrace is how long a handler may go on after its item is over.
const DefaultCancelGrace = 3 * time.Second

// Config says which server to serve, and how. ServerURL and Name are required;
// the zero value of everything else is usable.
type Config struct {
	// ServerURL is http, https, ws or wss, with an optional path prefix.
	ServerURL string
	// Name is what the beacon is called on the server. Two that are connected
	// at a time need two names.
	Name string
	// UserName and Password log in; UserName defaults to Name. JoinSecret is
	// for servers that admit only beacons that know it.
	UserName   string
	Password   string
	JoinSecret string
	// TLS holds own authorities and client certificates; nil means the
	// system's.
	TLS *tls.Config
	// Transport defaults to Auto.
	Transport Transport

	// MaxConcurrent is how many items run at once; 0 means 1.
	MaxConcurrent int
	// Tags, Contexts, Operations, BindAddresses and SharedMounts are passed on
	// to the server when the beacon registers. HostID defaults to the name of
	// this machine. A context that has a BasePath is a directory out of which
	// items may have sources, by universal addresses: ">Name/Context/path".
	Tags          map[string]any
	Contexts      map[string]any
	Operations    []json.RawMessage
	BindAddresses []json.RawMessage
	SharedMounts  []protocol.SharedMount
	HostID        string

	// StagingPath is the folder for the files of work items, made if need be;
	// it may be shared. It defaults to one in the user's cache.
	StagingPath string
	// MaxDownload is the largest source in bytes, MaxOutput the largest output
	// inside of a result; 0 means the defaults of packages staging and executor.
	MaxDownload int64
	MaxOutput   int64
	// ItemTimeout is the time of an item that brings none; 0 means 5 minutes.
	ItemTimeout time.Duration
	// LenientActions runs the first action of a capability for an item that
	// asks for one that does not exist, as the Node worker does.
	LenientActions bool
	// CancelGrace is how long a handler may go on after its item was canceled
	// or its time was over; then the item is reported as failed, its directory
	// is removed, and the handler is left behind. 0 means DefaultCancelGrace.
	CancelGrace time.Duration

	// DrainTimeout is how long running items may go on after Disable; 0 means
	// 30 s, less than 0 that they are canceled at once.
	DrainTimeout time.Duration
	// Outbox keeps results until the server has them; nil keeps them in memory,
	// where the end of the process loses them. See worker/outbox.
	Outbox worker.Outbox

	// ReconnectInterval and ReconnectMax bound the waits between attempts to
	// connect again; 0 means the defaults of package worker.
	ReconnectInterval time.Duration
	ReconnectMax      time.Duration
	// HeartbeatInterval, PollInterval and RequestTimeout default to those of
	// package session: 30 s, 5 s and 30 s.
	HeartbeatInterval time.Duration
	PollInterval      time.Duration
	RequestTimeout    time.Duration

	Logger *slog.Logger // nil means slog.Default()
}

// String names the server and the beacon and no secret.
func (c Config) String() string {
	return session.Config{ServerURL: c.ServerURL, Registration: protocol.Registration{Name: c.Name}}.String()
}

// GoString is String, so that %#v shows no secret either.
func (c Config) GoString() string { return c.String() }

// LogValue is String, so that a logger shows no secret either.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// normal fills in the defaults and checks the rest; its errors are Invalid.
func (c Config) normal() (Config, error) {
	c.Logger = cmp.Or(c.Logger, slog.Default())
	c.Transport = cmp.Or(c.Transport, Auto)
	switch {
	case !slices.Contains([]Transport{Auto, WebSocket, HTTP}, c.Transport):
		return c, beacon.Errorf(beacon.Invalid, "transport %q: want %s, %s or %s", beacon.Excerpt(string(c.Transport), 40), Auto, WebSocket, HTTP)
	case c.MaxConcurrent < 0:
		return c, beacon.Errorf(beacon.Invalid, "MaxConcurrent is %d: want at least 1", c.MaxConcurrent)
	}
	c.MaxConcurrent = max(c.MaxConcurrent, 1)
	if c.CancelGrace <= 0 {
		c.CancelGrace = DefaultCancelGrace
	}
	if c.StagingPath == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return c, beacon.Errorf(beacon.Invalid, "there is no folder for the files of work items: %w; set StagingPath", err)
		}
		c.StagingPath = filepath.Join(cache, "beacon", "staging")
	}
	if c.HostID == "" {
		if host, err := os.Hostname(); err == nil {
			c.HostID = host
		}
	}
	c.Tags, c.Contexts = maps.Clone(c.Tags), maps.Clone(c.Contexts)
	c.Operations, c.BindAddresses = slices.Clone(c.Operations), slices.Clone(c.BindAddresses)
	c.SharedMounts = slices.Clone(c.SharedMounts)

	client, err := session.NewClient(c.session(nil))
	if err != nil {
		return c, err
	}
	client.Close()
	if _, err := protocol.EncodeRegistration(c.registration(nil)); err != nil {
		return c, beacon.Errorf(beacon.Invalid, "what the beacon tells about itself is not representable in JSON: %w", err)
	}
	return c, nil
}

// registration is what the server is told.
func (c Config) registration(capabilities []beacon.Capability) protocol.Registration {
	r := protocol.NewRegistration(c.Name, c.MaxConcurrent, capabilities)
	r.JoinSecret, r.HostID = c.JoinSecret, c.HostID
	r.Contexts, r.Operations, r.BindAddresses = c.Contexts, c.Operations, c.BindAddresses
	if c.Tags != nil {
		r.Tags = c.Tags
	}
	if c.SharedMounts != nil {
		r.SharedMounts = c.SharedMounts
	}
	return r
}

func (c Config) session(capabilities []beacon.Capability) session.Config {
	return session.Config{
		ServerURL: c.ServerURL, Registration: c.registration(capabilities),
		UserName: c.UserName, Password: c.Password, TLS: c.TLS, Logger: c.Logger,
		HeartbeatInterval: c.HeartbeatInterval, PollInterval: c.PollInterval, RequestTimeout: c.RequestTimeout,
	}
}
