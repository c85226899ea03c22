package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/ultravisor/beacon"
)

// tlsFlags say how to speak TLS with a server.
type tlsFlags struct {
	caFile, certFile, keyFile string
	insecure                  bool
	fingerprint               string
}

func (t *tlsFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&t.caFile, "ca-file", "", "trust only the authorities in this PEM file, also BEACON_CA_FILE")
	flags.StringVar(&t.certFile, "cert-file", "", "certificate to show the server, PEM, also BEACON_CERT_FILE")
	flags.StringVar(&t.keyFile, "key-file", "", "its key, PEM, also BEACON_KEY_FILE (default the file of the certificate)")
	flags.StringVar(&t.fingerprint, "fingerprint", "", "trust only the certificate with this SHA-256 digest, which a hub with --tls-self-signed prints, also BEACON_FINGERPRINT")
	flags.BoolVar(&t.insecure, "insecure", false, "do not verify the server's certificate: for experiments only")
}

// choose fills in what was not said by flag.
func (t *tlsFlags) choose(flags *pflag.FlagSet, file config) {
	for _, s := range []struct {
		flag, environment, file string
		into                    *string
	}{
		{"ca-file", "BEACON_CA_FILE", file.TLSCAFile, &t.caFile},
		{"cert-file", "BEACON_CERT_FILE", file.TLSCertFile, &t.certFile},
		{"key-file", "BEACON_KEY_FILE", file.TLSKeyFile, &t.keyFile},
	} {
		if !flags.Changed(s.flag) {
			*s.into = cmp.Or(os.Getenv(s.environment), s.file)
		}
	}
	if !flags.Changed("fingerprint") {
		t.fingerprint = os.Getenv("BEACON_FINGERPRINT")
	}
	if !flags.Changed("insecure") {
		t.insecure = file.TLSInsecure
	}
}

// config is nil where the system's authorities are enough.
func (t *tlsFlags) config() (*tls.Config, error) {
	if *t == (tlsFlags{}) {
		return nil, nil //nolint:nilnil // see above
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.insecure} //nolint:gosec // by request, with a warning
	if t.fingerprint != "" {
		want, err := hex.DecodeString(strings.ReplaceAll(t.fingerprint, ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, usagef("--fingerprint %s: want 64 hexadecimal digits", beacon.Excerpt(t.fingerprint, 100))
		}
		c.InsecureSkipVerify = true // names and authorities; the certificate itself is compared
		c.VerifyConnection = func(state tls.ConnectionState) error {
			if sum := sha256.Sum256(state.PeerCertificates[0].Raw); subtle.ConstantTimeCompare(sum[:], want) != 1 {
				return fmt.Errorf("the server's certificate has the fingerprint %x, which is not the one that was named", sum)
			}
			return nil
		}
	}
	if t.caFile != "" {
		raw, err := os.ReadFile(t.caFile)
		if err != nil {
			return nil, usagef("certificate authorities %s: %w", t.caFile, unwrapPath(err))
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(raw) {
			return nil, usagef("certificate authorities %s: no certificate in PEM form in there", t.caFile)
		}
	}
	switch {
	case t.certFile == "" && t.keyFile != "":
		return nil, usagef("there is a key, %s, but no certificate: name it with --cert-file", t.keyFile)
	case t.certFile != "":
		pair, err := tls.LoadX509KeyPair(t.certFile, cmp.Or(t.keyFile, t.certFile))
		if err != nil {
			return nil, usagef("certificate %s: %w", t.certFile, fmt.Errorf("with key %s: %w", cmp.Or(t.keyFile, t.certFile), err))
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
