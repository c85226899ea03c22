//go:build unix

package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/beacontest/coordinator"
)

// writePEM keeps blocks in one file.
func writePEM(t *testing.T, name string, blocks ...*pem.Block) string {
	path := filepath.Join(t.TempDir(), name)
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	require.NoError(t, os.WriteFile(path, text, 0o600))
	return path
}

// identity makes a certificate for a client that vouches for itself.
func identity(t *testing.T) (certificate *x509.Certificate, key *pem.Block) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	form := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "worker"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, form, form, private.Public(), private)
	require.NoError(t, err)
	certificate, err = x509.ParseCertificate(raw)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	require.NoError(t, err)
	return certificate, &pem.Block{Type: "PRIVATE KEY", Bytes: der}
}

// A server's certificate is verified, by the authorities that are named, and
// the worker shows its own.
func TestTLS(t *testing.T) {
	mine, key := identity(t)
	clients := x509.NewCertPool()
	clients.AddCert(mine)
	c := coordinator.Start(t, coordinator.Config{TLS: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}})
	authority := writePEM(t, "ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate().Raw})
	both := writePEM(t, "both.pem", &pem.Block{Type: "CERTIFICATE", Bytes: mine.Raw}, key)
	keyFile := writePEM(t, "key.pem", key)
	certFile := writePEM(t, "cert.pem", &pem.Block{Type: "CERTIFICATE", Bytes: mine.Raw})
	garbage := writePEM(t, "garbage.pem")
	module, err := filepath.Abs("testdata/modules/hello.wasm")
	require.NoError(t, err)
	dir := t.TempDir()

	tests := map[string]struct {
		args  []string
		code  int
		wants string
	}{
		"one file":             {[]string{"--ca-file", authority, "--cert-file", both}, exitOK, ""},
		"two files":            {[]string{"--ca-file", authority, "--cert-file", certFile, "--key-file", keyFile}, exitOK, ""},
		"insecure":             {[]string{"--insecure", "--cert-file", both}, exitOK, "warning: the server's certificate is not verified"},
		"by HTTP":              {[]string{"--ca-file", authority, "--cert-file", both, "--transport", "http"}, exitOK, ""},
		"unknown authority":    {[]string{"--cert-file", both}, exitServer, "certificate signed by unknown authority"},
		"without certificate":  {[]string{"--ca-file", authority}, exitServer, "certificate required"},
		"no authorities":       {[]string{"--ca-file", garbage}, exitUsage, "no certificate in PEM form"},
		"missing file":         {[]string{"--ca-file", "absent.pem"}, exitUsage, "absent.pem: no such file"},
		"key alone":            {[]string{"--key-file", keyFile}, exitUsage, "no certificate: name it with --cert-file"},
		"certificate of a key": {[]string{"--cert-file", keyFile}, exitUsage, "failed to find"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			args := append([]string{"run", "--server", c.URL(), "--module", module, "--once"}, tt.args...)
			if tt.code == exitOK {
				c.Push(beacon.WorkItem{Hash: name, Capability: "hello", Settings: beacon.Settings{}})
			}
			cmd := beaconCommand(t, dir, args...)
			var said bytes.Buffer
			cmd.Stdout, cmd.Stderr = &said, &said
			_ = cmd.Run() // the exit code says it
			require.Equal(t, tt.code, cmd.ProcessState.ExitCode(), said.String())
			require.Contains(t, said.String(), tt.wants)
			require.NotContains(t, said.String(), "PRIVATE")
		})
	}
}
