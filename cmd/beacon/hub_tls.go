package main

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/ultravisor/beacon/hub/jetstream"
)

// certificate is what a hub shows to its callers; nil for a hub without TLS.
func (c *hubConfig) certificate(data string) (*tls.Certificate, error) {
	switch {
	case c.TLSCertFile != "":
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, cmp.Or(c.TLSKeyFile, c.TLSCertFile))
		if err != nil {
			return nil, usagef("certificate %s: %w", c.TLSCertFile, err)
		}
		return &pair, nil
	case c.TLSKeyFile != "":
		return nil, usagef("there is a key, %s, but no certificate: name it with --tls-cert", c.TLSKeyFile)
	case c.TLSSelfSigned:
		return selfSigned(filepath.Join(data, jetstream.TLSName), c.AllowedHosts)
	}
	return nil, nil //nolint:nilnil // see above
}

// selfSigned reads the certificate of an earlier start, or makes one. It is good
// for long, since what workers go by is its fingerprint.
func selfSigned(path string, names []string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(path, path)
	if err == nil {
		return &pair, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, usagef("certificate %s: %w; remove it to have a new one made", path, err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "beacon hub"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(10, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
		DNSNames: append([]string{"localhost"}, names...), IPAddresses: ownAddresses(),
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		template.DNSNames = append(template.DNSNames, host)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, usagef("keep the certificate in %s: %w", path, unwrapPath(err))
	}
	pair, err = tls.X509KeyPair(text, text)
	if err != nil {
		return nil, fmt.Errorf("use the certificate: %w", err)
	}
	return &pair, nil
}

// ownAddresses are those of this machine.
func ownAddresses() []net.IP {
	list := []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return list
	}
	for _, address := range addresses {
		if network, ok := address.(*net.IPNet); ok && !network.IP.IsLoopback() && !network.IP.IsLinkLocalUnicast() {
			list = append(list, network.IP)
		}
	}
	return list
}

// fingerprint is the SHA-256 digest of a certificate, in hexadecimal.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}
