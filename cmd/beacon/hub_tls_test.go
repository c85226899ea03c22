package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A certificate that a hub made itself is the same at its next start, and its
// fingerprint is all that a worker needs.
func TestSelfSigned(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tls.pem")
	made, err := selfSigned(path, []string{"hub.example"})
	require.NoError(t, err)
	again, err := selfSigned(path, nil)
	require.NoError(t, err)
	require.Equal(t, made.Certificate, again.Certificate)
	require.NoError(t, made.Leaf.VerifyHostname("hub.example"))
	require.NoError(t, made.Leaf.VerifyHostname("127.0.0.1"))

	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*made}})
	require.NoError(t, err)
	server := &http.Server{Handler: http.NotFoundHandler()}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	ask := func(flags tlsFlags) error {
		cfg, err := flags.config()
		require.NoError(t, err)
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
		defer client.CloseIdleConnections()
		answer, err := client.Get("https://" + listener.Addr().String())
		if err == nil {
			answer.Body.Close()
		}
		return err
	}
	print := fingerprint(made.Certificate[0])
	require.NoError(t, ask(tlsFlags{fingerprint: print}))
	require.NoError(t, ask(tlsFlags{fingerprint: strings.ToUpper(print[:2] + ":" + print[2:])}))
	require.NoError(t, ask(tlsFlags{caFile: path}))
	require.ErrorContains(t, ask(tlsFlags{fingerprint: strings.Repeat("0", 64)}), "not the one that was named")
	require.Error(t, ask(tlsFlags{}))
	require.NoError(t, server.Close())
	<-served

	require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
	_, err = selfSigned(path, nil)
	require.ErrorContains(t, err, "remove it")
}
