package session

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"

	"github.com/ultravisor/beacon"
)

// tunneling makes a transport for plain http that goes through proxies by
// CONNECT: most proxies pass no upgrade on, but let tunnels through. For https,
// and through SOCKS proxies, the standard library does so by itself.
func tunneling(t *http.Transport) *http.Transport {
	choose := t.Proxy
	t = t.Clone()
	if choose == nil {
		return t
	}
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		proxy, err := choose(r)
		if err == nil && proxy != nil && (proxy.Scheme == "http" || proxy.Scheme == "https") {
			return nil, nil //nolint:nilnil // the dialer below takes care of it
		}
		return proxy, err
	}
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		target := &http.Request{URL: &url.URL{Scheme: "http", Host: address}}
		proxy, err := choose(target)
		if err != nil {
			return nil, fmt.Errorf("choose a proxy: %w", err)
		}
		if proxy == nil || proxy.Scheme != "http" && proxy.Scheme != "https" {
			return dial(ctx, network, address)
		}
		return tunnel(ctx, dial, t.TLSClientConfig, network, proxy, address)
	}
	return t
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// tunnel asks a proxy for a connection to an address.
func tunnel(ctx context.Context, dial func(context.Context, string, string) (net.Conn, error), secure *tls.Config, network string, proxy *url.URL, address string) (_ net.Conn, err error) {
	raw, err := dial(ctx, network, hostPort(proxy))
	if err != nil {
		return nil, fmt.Errorf("connect to proxy %s: %w", proxy.Host, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("tunnel through proxy %s: %w", proxy.Host, err), ctx.Err())
			raw.Close()
		}
	}()
	defer context.AfterFunc(ctx, func() { raw.Close() })()
	conn := raw
	if proxy.Scheme == "https" {
		cfg := secure.Clone()
		if cfg == nil {
			cfg = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		cfg.ServerName = proxy.Hostname()
		conn = tls.Client(conn, cfg)
	}
	request := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		request.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(proxy.User.Username()+":"+password)))
	}
	if err := request.Write(conn); err != nil {
		return nil, err
	}
	// What the proxy sends after its answer is the server's, which speaks only
	// when asked: nothing is left in the reader.
	answer, err := http.ReadResponse(bufio.NewReader(conn), request) //nolint:bodyclose // a tunnel has no body
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("refused with status %s", beacon.Excerpt(answer.Status, 100))
	}
	return conn, nil
}
