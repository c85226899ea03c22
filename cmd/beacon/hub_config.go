package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/ultravisor/beacon/hub"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/jsonfile"
)

// A hubConfig says where a hub listens, where it keeps what it has, and whom it
// serves. The names of the exported fields are the keys of its configuration
// file.
type hubConfig struct {
	Listen     string
	Data       string
	NATS       []string
	NATSCreds  string
	NATSPrefix string
	Replicas   int
	URL        string // where other hubs, and beacons on NATS, reach this one

	AllowedHosts  []string
	TLSCertFile   string
	TLSKeyFile    string
	TLSSelfSigned bool

	Users      []hub.User
	JoinSecret string // $NAME reads the environment, file:/path a file
	Anonymous  hub.Anonymous

	RequestsPerSecond float64
	RequestBurst      int
	// Settings are shared by all hubs of a NATS cluster: bounds, times, tenants.
	Settings ledger.Settings

	MetricsListen string // see package monitor

	FileSize  int64
	FileBytes int64
	FileHours float64

	guest bool // takes part by the settings of others
}

func defaultHubConfig() hubConfig { return hubConfig{Listen: defaultListen, NATSPrefix: "beacon"} }

func (c *hubConfig) register(f *pflag.FlagSet) {
	f.StringVar(&c.Listen, "listen", defaultListen, "address and port to listen on")
	f.StringVar(&c.Data, "data", "", "folder for everything that the hub keeps, also BEACON_HUB_DATA (default one of the user's, by port; a temporary one for port 0)")
	f.StringSliceVar(&c.NATS, "nats", nil, "URLs of a NATS cluster with JetStream, which hubs may share, instead of the folder")
	f.StringVar(&c.NATSCreds, "creds", "", "with --nats: file with the credentials")
	f.StringVar(&c.NATSPrefix, "nats-prefix", "beacon", "with --nats: what the names of streams and subjects begin with")
	f.IntVar(&c.Replicas, "replicas", 0, "with --nats: on how many servers everything is kept (default 3, or 1 where there is one)")
	f.StringVar(&c.URL, "url", "", "with --nats: where other hubs reach this one (default what it listens on)")
	f.StringSliceVar(&c.AllowedHosts, "host", nil, "names, beside localhost and IP addresses, under which the hub may be addressed")
	f.StringVar(&c.TLSCertFile, "tls-cert", "", "certificate to show to workers and submitters, PEM")
	f.StringVar(&c.TLSKeyFile, "tls-key", "", "its key, PEM (default the file of the certificate)")
	f.BoolVar(&c.TLSSelfSigned, "tls-self-signed", false, "make a certificate, keep it with the data, and print its fingerprint")
	f.StringVar(&c.MetricsListen, "metrics-listen", "", "address, such as 127.0.0.1:9465, for /healthz, /readyz and Prometheus' /metrics; whoever can reach it can read")
	f.StringVar((*string)(&c.Anonymous), "anonymous", "", "whom to serve without a login: nobody, local or everyone (default local without users and join secret, or else nobody)")
}

// read fills in what is not said by flag from a file.
func (c *hubConfig) read(path string, flags *pflag.FlagSet) error {
	if path == "" {
		return nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return usagef("configuration %s: %w", path, unwrapPath(err))
	}
	file := defaultHubConfig()
	if err := decodeHubConfig(raw, &file); err != nil {
		return usagef("configuration %s: %w", path, err)
	}
	if file.JoinSecret, err = secret(file.JoinSecret); err != nil {
		return usagef("configuration %s: JoinSecret: %w", path, err)
	}
	said := *c
	*c = file
	for flag, keep := range map[string]func(){
		"listen": func() { c.Listen = said.Listen }, "data": func() { c.Data = said.Data }, "nats": func() { c.NATS = said.NATS },
		"creds": func() { c.NATSCreds = said.NATSCreds }, "nats-prefix": func() { c.NATSPrefix = said.NATSPrefix },
		"replicas": func() { c.Replicas = said.Replicas }, "url": func() { c.URL = said.URL }, "host": func() { c.AllowedHosts = said.AllowedHosts },
		"tls-cert": func() { c.TLSCertFile = said.TLSCertFile }, "tls-key": func() { c.TLSKeyFile = said.TLSKeyFile },
		"metrics-listen": func() { c.MetricsListen = said.MetricsListen }, "tls-self-signed": func() { c.TLSSelfSigned = said.TLSSelfSigned }, "anonymous": func() { c.Anonymous = said.Anonymous },
	} {
		if flags.Changed(flag) {
			keep()
		}
	}
	return nil
}

// decodeHubConfig is strict, as decodeConfig is.
func decodeHubConfig(raw []byte, into *hubConfig) error { return jsonfile.Decode(raw, into) }

// check refuses what cannot be meant.
func (c *hubConfig) check() error {
	if len(c.NATS) == 0 && (c.NATSCreds != "" || c.Replicas != 0) {
		return usagef("--creds and --replicas go with --nats: without it the hub has a server of its own")
	}
	if c.Replicas == 2 {
		return usagef("--replicas 2: with two servers the loss of either stops everything; use 1, 3 or 5")
	}
	if c.TLSSelfSigned && c.TLSCertFile != "" {
		return usagef("--tls-self-signed does not go with --tls-cert: there is a certificate already")
	}
	if err := (&hub.Config{Users: c.Users, Anonymous: c.Anonymous}).Check(); err != nil {
		return usage(err)
	}
	if len(c.Users) == 0 && c.JoinSecret == "" && (c.Anonymous == "" || c.Anonymous == hub.AnonymousLocal) && !loopback(c.Listen) {
		return usagef("--listen %s is for other machines, which nobody could use: add Users or a JoinSecret to --config, or serve everybody with --anonymous everyone", c.Listen)
	}
	return nil
}

// loopback reports whether only this machine can connect to an address.
func loopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return true // listening will say what is wrong
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// hub is the configuration of package hub.
func (c *hubConfig) hub() hub.Config {
	return hub.Config{
		Users: c.Users, JoinSecret: c.JoinSecret, Anonymous: c.Anonymous, AllowedHosts: c.AllowedHosts, Settings: c.Settings, Guest: c.guest,
		RequestRate: c.RequestsPerSecond, RequestBurst: c.RequestBurst,
		FileSize: c.FileSize, FileBytes: c.FileBytes, FileAge: time.Duration(c.FileHours * float64(time.Hour)),
	}
}

// newHubPasswordCommand makes what the configuration wants of a password.
func newHubPasswordCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "password",
		Short: "Make the PasswordHash of a user from a password on standard input",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			password, err := readPassword(s)
			if err != nil {
				return err
			}
			hash, err := hub.HashPassword(password)
			if err != nil {
				return fmt.Errorf("hash the password: %w", err)
			}
			_, err = fmt.Fprintln(s.out, hash)
			return err
		},
	}
}

// readPassword asks a person, and reads a line of anything else.
func readPassword(s streams) (string, error) {
	if f, ok := s.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(s.err, "Password: ")
		raw, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(s.err)
		return string(raw), err
	}
	line, err := bufio.NewReader(io.LimitReader(s.in, 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", usagef("there is no password on standard input")
	}
	return line, nil
}

// urlOf is where others reach the hub.
func (c *hubConfig) urlOf(r *runningHub) string { return cmp.Or(c.URL, r.url()) }
