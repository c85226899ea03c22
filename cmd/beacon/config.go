package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/builtin"
	"github.com/ultravisor/beacon/hostfuncs"
	"github.com/ultravisor/beacon/jsonfile"
	"github.com/ultravisor/beacon/policy"
	"github.com/ultravisor/beacon/protocol"
	"github.com/ultravisor/beacon/replay"
	wasmrt "github.com/ultravisor/beacon/runtime"
)

// configName is the file of the Node worker, which is read unchanged.
const configName = ".ultravisor-beacon.json"

// A config is the configuration file of a worker. The names of the fields are
// its keys. A key means what it means to the Node worker.
type config struct {
	ServerURL  string
	Name       string
	UserName   string // Name, if empty
	Password   string // $NAME reads the environment, file:/path a file
	JoinSecret string // the same

	Providers    []providerConfig
	Capabilities []string // sources without a configuration; counts if there are no Providers
	GuestMemory  string   // that all modules together may use, such as "8G"

	MaxConcurrent       int
	PollIntervalMs      int64
	HeartbeatIntervalMs int64
	ReconnectIntervalMs int64
	ReconnectMaxMs      int64
	RequestTimeoutMs    int64
	PingIntervalMs      int64
	PingTimeoutMs       int64
	DrainTimeoutMs      int64
	ForceHTTPTransport  bool

	TLSCAFile      string // authorities instead of the system's, PEM
	TLSCertFile    string // what this worker shows the server, PEM
	TLSKeyFile     string
	TLSInsecure    bool // any certificate will do
	LenientActions bool

	StagingPath    string
	SourcePolicy   *sourcePolicy
	MaxOutputBytes int64 // of the output files of one item; default 256 MiB
	Tags           map[string]any
	Contexts       map[string]any
	// ContextTenants are those whose items may read files of the Contexts that
	// have a BasePath; without it the default tenant alone.
	ContextTenants []string
	Operations     []json.RawMessage
	BindAddresses  []json.RawMessage
	HostID         string
	SharedMounts   []sharedMount

	// Policy is the operator's, or the name of a file that holds it; see package
	// policy.
	Policy json.RawMessage
	// Record keeps what items of modules that fail were given; nil for no records.
	Record *recordConfig
	// AuditLog is a file to which it is added who ran what.
	AuditLog string
	// MetricsListen is an address where the worker tells how it fares; see package
	// monitor.
	MetricsListen string
	// MaxWaiting is how many items may wait for their tenant's turn, besides those
	// that run; default three times MaxConcurrent if there are tenants.
	MaxWaiting int

	found  bool   // there is a file
	folder string // that the file is in
}

// A sharedMount is an object with Root and, if need be, MountID, or the root
// alone.
type sharedMount protocol.SharedMount

// UnmarshalJSON implements json.Unmarshaler.
func (m *sharedMount) UnmarshalJSON(raw []byte) error {
	if err := json.Unmarshal(raw, &m.Root); err == nil {
		return nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode((*protocol.SharedMount)(m)); err != nil {
		return fmt.Errorf("SharedMounts: want {\"Root\": \"/path\"} or \"/path\": %w", err)
	}
	return nil
}

// A providerConfig names a built-in provider, a module, or the folder of a
// module's source.
type providerConfig struct {
	Source string
	Config beacon.Settings
	// Memory bounds a module's memory, such as "64M".
	Memory string
	// Fuel bounds the instructions that a module may execute for an item; 0 is no
	// limit. They are counted exactly, which makes the module slower.
	Fuel int64
	// SHA256 pins a module.
	SHA256 string
	// Permissions are what a module may do; see package policy. The word "wanted"
	// grants what its manifest asks for, if the module is pinned.
	Permissions []string
	// Network bounds what an item does with them.
	Network networkLimits
	// Tenant is whose the provider is: its items are that tenant's, and no other
	// tenant's providers can call it. TenantFrom names a setting of items that
	// says whose they are instead.
	Tenant     string
	TenantFrom string
	// Instances says how many instances of a module there are.
	Instances instanceConfig
	// WarmUp takes the place of the module's own.
	WarmUp *hostfuncs.WarmUp

	memory byteSize
	direct bool // named on the command line, by whoever runs it
	// recorder records its items; nil for none.
	recorder *replay.Provider
	// profiled gets the module whose items' fuel is profiled; nil for none.
	profiled func(*wasmrt.Module)
}

// An instanceConfig is wasmrt.Pool in the words of a file.
type instanceConfig struct {
	Ready int    // made before an item asks; 1 if 0, none if negative
	Most  int    // at work at a time; as many as memory allows if 0
	Idle  string // how long one is kept that no item needs, such as "5m"
	Fresh bool   // every item gets a new one, which initialises itself
}

func (c instanceConfig) pool() (wasmrt.Pool, error) {
	p := wasmrt.Pool{Ready: c.Ready, Most: c.Most, Fresh: c.Fresh}
	if c.Most < 0 {
		return p, fmt.Errorf("Instances.Most is %d: want a number, or 0 for as many as memory allows", c.Most) //nolint:staticcheck // the name of a key
	}
	if c.Idle != "" {
		var err error
		if p.Idle, err = time.ParseDuration(c.Idle); err != nil || p.Idle <= 0 {
			return p, fmt.Errorf("Instances.Idle is %q: want a duration, such as 90s or 5m", c.Idle) //nolint:staticcheck // the name of a key
		}
	}
	return p, nil
}

// networkLimits bound requests and calls of one item.
type networkLimits struct {
	Requests       int          // and calls; default 1000
	Sent, Received policy.Bytes // default 1G each
	MinRate        int64        // bytes a second; default 1024, less than 0 any
	Depth          int          // of calls; default 4
	Parallel       int          // calls; default 4
}

func (n networkLimits) limits() broker.Limits {
	return broker.Limits{Requests: n.Requests, Sent: int64(n.Sent), Received: int64(n.Received), MinRate: n.MinRate, Depth: n.Depth, Parallel: n.Parallel}
}

// size reads how much memory the provider may have; a flag comes first.
func (p *providerConfig) size(flag byteSize) error {
	p.memory = flag
	if p.Memory != "" && flag == 0 {
		if err := p.memory.Set(p.Memory); err != nil {
			return usagef("provider %s: Memory: %w", p.Source, err)
		}
	}
	return nil
}

func (p providerConfig) limits() wasmrt.Limits {
	return wasmrt.Limits{Memory: int64(p.memory), Fuel: p.Fuel, Profile: p.profiled != nil}
}

// readConfig reads the file that is named, or the usual one if there is one.
func readConfig(path string) (config, error) {
	var c config
	raw, err := os.ReadFile(cmp.Or(path, configName))
	if path == "" && errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	c.found = true
	path = cmp.Or(path, configName)
	c.folder = filepath.Dir(path)
	if err != nil {
		return c, usagef("configuration %s: %w", path, unwrapPath(err))
	}
	if err := decodeConfig(raw, &c); err != nil {
		return c, usagef("configuration %s: %w", path, err)
	}
	for name, value := range map[string]*string{"Password": &c.Password, "JoinSecret": &c.JoinSecret} {
		if *value, err = secret(*value); err != nil {
			return c, usagef("configuration %s: %s: %w", path, name, err)
		}
	}
	return c, nil
}

// decodeConfig is strict: a key that nobody reads is a setting that does not
// work, and whoever wrote it wants to know.
func decodeConfig(raw []byte, into *config) error {
	if err := jsonfile.Decode(raw, into); err != nil {
		return err
	}
	switch {
	case into.MaxConcurrent < 0:
		return fmt.Errorf("MaxConcurrent is %d: want at least 1", into.MaxConcurrent)
	case min(into.PollIntervalMs, into.HeartbeatIntervalMs, into.ReconnectIntervalMs, into.ReconnectMaxMs,
		into.RequestTimeoutMs, into.PingIntervalMs, into.PingTimeoutMs, into.DrainTimeoutMs) < 0:
		return errors.New("an interval is below zero")
	}
	if into.MaxOutputBytes < 0 {
		return fmt.Errorf("MaxOutputBytes is %d: want a number of bytes", into.MaxOutputBytes)
	}
	if _, err := into.SourcePolicy.download(nil); err != nil {
		return fmt.Errorf("SourcePolicy: %w", err)
	}
	if into.MaxWaiting < 0 {
		return fmt.Errorf("MaxWaiting is %d: want at least 0", into.MaxWaiting)
	}
	for i, p := range into.Providers {
		if p.Source == "" {
			return fmt.Errorf("in Providers, entry %d has no Source: name %s, a .wasm file or a folder of source", i, strings.Join(builtin.Names(), ", "))
		}
		if _, err := p.Instances.pool(); err != nil {
			return fmt.Errorf("provider %s: %w", p.Source, err)
		}
	}
	return nil
}

// secret reads a value that is kept elsewhere.
func secret(value string) (string, error) {
	if name, ok := strings.CutPrefix(value, "$"); ok {
		text, present := os.LookupEnv(name)
		if !present {
			return "", fmt.Errorf("the environment has no %s", name)
		}
		return text, nil
	}
	if path, ok := strings.CutPrefix(value, "file:"); ok {
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", fmt.Errorf("read %s: %w", path, unwrapPath(err))
		}
		return strings.TrimRight(string(raw), "\r\n"), nil
	}
	return value, nil
}

// plainText is the content of a JSON string.
func plainText(raw json.RawMessage) (text string, err error) {
	err = json.Unmarshal(raw, &text)
	return text, err
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
