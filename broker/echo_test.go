package broker_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/broker"
	"github.com/ultravisor/beacon/hostfuncs"
)

// saying is a server that answers every request with the same bytes.
func saying(t *testing.T, answer string) (port string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer conn.Close() //nolint:errcheck // the client has what there is, or does not want it
				if _, err := http.ReadRequest(bufio.NewReader(conn)); err == nil {
					_, _ = io.WriteString(conn, answer)
				}
			})
		}
	})
	t.Cleanup(func() {
		require.NoError(t, l.Close())
		all.Wait()
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// seen is all that anybody gets to see of an exchange.
func seen(t *testing.T, w *world, b hostfuncs.Broker, account *beacon.Account, r hostfuncs.Request) string {
	res, body, err := fetch(t, b, r)
	text := fmt.Sprintf("error %v\nbody %s\nlog %s\nbooks %+v\n", err, body, w.log, account.Statement())
	if res != nil {
		head, err := json.Marshal(res.Header)
		require.NoError(t, err)
		text += fmt.Sprintf("%d %s %s\n%s\n%v", res.Status, res.Proto, res.URL, head, res.Header)
	}
	return text
}

func zipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, text)
	_ = z.Close()
	return b.String()
}

// S26: wherever in its answer a server says a secret again that it was sent, the
// guest, errors, logs and the books do not show it.
func TestS26Echo(t *testing.T) {
	const whole, closed = "HTTP/1.1 200 OK\r\n", "Connection: close\r\n\r\n"
	stars := strings.Repeat("*", len(key))
	quoted := base64.StdEncoding.EncodeToString([]byte(`{"headers":{"authorization":"Bearer ` + key + `"}}`))
	for name, tt := range map[string]struct{ answer, want string }{
		"value":             {whole + "X: a " + key + "\r\n" + closed, "a " + stars},
		"name":              {whole + key + ": x\r\n" + closed, stars},
		"part of a name":    {whole + "X-" + strings.ToUpper(key) + "-y: x\r\n" + closed, "X-" + stars + "-Y"},
		"reason":            {"HTTP/1.1 200 " + key + "\r\n" + closed, "200 HTTP/1.1"},
		"reason of errors":  {"HTTP/1.1 401 bad key " + key + "\r\n" + closed, "401 HTTP/1.1"},
		"interim":           {"HTTP/1.1 103 " + key + "\r\nX: " + key + "\r\nLink: <" + key + ">\r\n\r\n" + whole + closed, "200 HTTP/1.1"},
		"trailer":           {whole + "Trailer: X, " + key + "\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: " + key + "\r\n" + key + ": x\r\n\r\n", "body a\n"},
		"chunks":            {whole + "Transfer-Encoding: chunked\r\n\r\n5\r\n" + key[:5] + "\r\n" + "e;" + key + "\r\n" + key[5:] + "\r\n0\r\n\r\n", "body " + stars + "\n"},
		"cookie":            {whole + "Set-Cookie: a=" + key + "; Path=/" + key + "\r\n" + closed, "a=" + stars + "; Path=/" + stars},
		"location":          {"HTTP/1.1 302 Found\r\nLocation: /a?b=" + key + "#" + key + "\r\n" + closed, "/a?b=" + stars + "#" + stars},
		"location's host":   {"HTTP/1.1 302 Found\r\nLocation: http://" + key + ".example.com:1/\r\n" + closed, stars + ".example.com"},
		"location's user":   {"HTTP/1.1 302 Found\r\nLocation: http://" + key + ":" + key + "@other.example.com:1/\r\n" + closed, "error"},
		"location's scheme": {"HTTP/1.1 302 Found\r\nLocation: " + key + "://x/\r\n" + closed, "error"},
		"no location":       {"HTTP/1.1 302 Found\r\nLocation: http://a b/" + key + "%zz\r\n" + closed, "error"},
		"no status":         {"HTTP/1.1 " + key + "\r\n\r\n", stars},
		"no protocol":       {key + " 200 OK\r\n\r\n", stars},
		"no header":         {whole + key + "\r\n\r\n", stars},
		"no name":           {whole + key + " x : y\r\n" + closed, "error"},
		"no length":         {whole + "Content-Length: " + key + "\r\n\r\n", stars},
		"two lengths":       {whole + "Content-Length: 1\r\nContent-Length: " + key + "\r\n\r\n", "error"},
		"no such encoding":  {whole + "Transfer-Encoding: " + key + "\r\n\r\n", stars},
		"no chunk":          {whole + "Transfer-Encoding: chunked\r\n\r\n" + key + "\r\n", "error"},
		"cut off":           {"HTTP/1.1 " + strings.Repeat("x", 410) + key + "\r\n\r\n", "***…"},
		"gzip":              {whole + "Content-Encoding: gzip\r\n" + closed + zipped("a "+key), "body a " + stars + "\n"},
		"brotli":            {whole + "Content-Encoding: br\r\n" + closed + key, "error"},
		"gzip twice":        {whole + "Content-Encoding: gzip\r\nContent-Encoding: gzip\r\n" + closed + zipped(zipped(key)), "error"},
		"encoding":          {whole + "Content-Encoding: " + key + "\r\n" + closed, "error"},
		"base64":            {whole + closed + `{"isBase64Encoded":true,"body":"` + quoted + `"}`, "***"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, echo)
			port := saying(t, tt.answer)
			w.allow(`{"Secrets": {"key": {"Value": "` + key + `", "For": ["http://api.example.com:` + port + `"]}}}`)
			p := w.provider(broker.Limits{}, "http http://*.example.com:"+port, "http http://*.example.com:1", "address 127.0.0.1", "secret key")
			all := ""
			for _, redirects := range []int{0, 3} {
				account := beacon.NewAccount(nil)
				r := with(get("http://api.example.com:"+port+"/"), "Authorization", "Bearer {{secret:key}}")
				r.Redirects = redirects
				text := seen(t, w, p.Job(&beacon.Job{Account: account}), account, r)
				lower := strings.ToLower(text)
				for _, secret := range []string{strings.ToLower(key), strings.ToLower(key[:12]), strings.ToLower(key[8:]), quoted} {
					require.NotContains(t, lower, secret)
				}
				all += text
			}
			require.Contains(t, all, tt.want)
		})
	}
}

// S26: HTTP/2 has names of headers in lower case, and trailers of its own.
func TestS26EchoHTTP2(t *testing.T) {
	w := newWorld(t, echo)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Trailer", "X-"+r.Header.Get("X-Key"))
		rw.Header().Set(r.Header.Get("X-Key"), "x")
		rw.WriteHeader(http.StatusEarlyHints)
		_, _ = io.WriteString(rw, r.Proto)
		rw.Header().Set("X-"+r.Header.Get("X-Key"), r.Header.Get("X-Key"))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	require.NoError(t, err)
	w.allow(`{"Secrets": {"key": {"Value": "` + key + `", "For": ["https://api.example.com:` + port + `"]}}}`)
	account := beacon.NewAccount(nil)
	b := w.provider(broker.Limits{}, "http https://api.example.com:"+port, "address 127.0.0.1", "secret key").Job(&beacon.Job{Account: account})
	text := seen(t, w, b, account, with(get("https://api.example.com:"+port+"/"), "X-Key", "{{secret:key}}"))
	require.Contains(t, text, "body HTTP/2.0")
	require.Contains(t, text, strings.Repeat("*", len(key)))
	require.NotContains(t, strings.ToLower(text), key)
}

// S26: a certificate can have a secret as a name, which the error would show.
func TestS26EchoTLS(t *testing.T) {
	w := newWorld(t, echo)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: key}, DNSNames: []string{key + ".example.com"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificate(raw)
	require.NoError(t, err)
	w.tls.RootCAs.AddCert(parsed)
	w.server.TLS.Certificates = []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: private}}
	b := w.provider(broker.Limits{}, "http https://*.example.com:{port}", "address 127.0.0.1", "secret key")
	account := beacon.NewAccount(nil)
	text := seen(t, w, b.Job(&beacon.Job{Account: account}), account, with(get(w.url("api.example.com", "/")), "Authorization", "{{secret:key}}"))
	require.Contains(t, text, "certificate is valid for "+strings.Repeat("*", len(key))+".example.com")
	require.NotContains(t, strings.ToLower(text), key)
}

// S26: a server that was sent a secret once may say it later, or to others who were
// not granted it. What no server of the secret's has said is left as it is: whoever
// guesses could ask whether that is the secret.
func TestS26EchoLater(t *testing.T) {
	var w *world
	w = newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(rw, r, w.url("api.example.com", "/"+key), http.StatusFound)
			return
		}
		rw.Header().Set("Content-Encoding", r.Header.Get("Accept-Encoding"))
		_, _ = io.WriteString(rw, r.URL.Path+" "+key)
	})
	stars := strings.Repeat("*", len(key))
	for name, grants := range map[string][]string{"granted": {"secret key"}, "not granted": nil} {
		b := w.provider(broker.Limits{}, append(grants, "http *://*.example.com:*", "address 127.0.0.1")...).Job(&beacon.Job{})
		for url, want := range map[string]string{
			w.url("api.example.com", "/a"):                    "/a " + stars,
			"http://api.example.com:" + w.plainPort + "/b":    "/b " + stars,
			w.url("other.example.com", "/c"):                  "/c " + key,
			"http://other.example.com:" + w.plainPort + "/d/": "/d/ " + key,
			w.url("other.example.com", "/away"):               "/" + stars + " " + stars,
		} {
			_, body, err := fetch(t, b, get(url))
			require.NoError(t, err)
			require.Equal(t, want, body, name)
		}
		res, _, err := fetch(t, b, with(get(w.url("api.example.com", "/")), "Accept-Encoding", "br"))
		require.NoError(t, err, name)
		require.Equal(t, []string{"identity"}, res.Header["Content-Encoding"], name)
		_, _, err = fetch(t, b, with(get(w.url("other.example.com", "/")), "Accept-Encoding", "br"))
		require.NoError(t, err, name)
	}
}
