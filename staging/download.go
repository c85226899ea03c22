package staging

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ultravisor/beacon"
)

// DefaultMaxDownload is the largest source in bytes unless told otherwise.
const DefaultMaxDownload = 16 << 30

// maxRedirects is how often a server may send a download elsewhere.
const maxRedirects = 3

// A Downloader brings sources over HTTP. Link-local addresses, where clouds
// keep their credentials, are refused whatever the configuration; the address
// is checked when it is dialled, so that no name and no redirect gets around
// it. It is safe for concurrent use; close it with CloseIdle.
type Downloader struct {
	client *http.Client
	limit  int64
}

// NewDownloader makes a downloader. A limit of 0 means DefaultMaxDownload.
func NewDownloader(limit int64) *Downloader {
	if limit <= 0 {
		limit = DefaultMaxDownload
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, Control: func(_, address string, _ syscall.RawConn) error {
		return checkAddress(address)
	}}
	return &Downloader{limit: limit, client: &http.Client{
		Transport: checkedRedirects{&http.Transport{
			// No proxy: through one, the address that is dialled says nothing.
			DialContext:           dialer.DialContext,
			TLSHandshakeTimeout:   15 * time.Second,
			ResponseHeaderTimeout: 60 * time.Second,
			IdleConnTimeout:       30 * time.Second,
			ForceAttemptHTTP2:     true,
			// The bytes that are counted are the bytes that are written.
			DisableCompression: true,
		}},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("more than %d redirects", maxRedirects)
			}
			if via[len(via)-1].URL.Scheme == "https" && r.URL.Scheme != "https" {
				return errors.New("a redirect from https to http")
			}
			// It would show the first server's query to the second.
			r.Header.Del("Referer")
			return checkURL(r.URL)
		},
	}}
}

// CloseIdle frees connections that are kept for reuse.
func (d *Downloader) CloseIdle() { d.client.CloseIdleConnections() }

// checkedRedirects keeps net/http from putting a location that it cannot parse,
// and what is secret in it, into an error.
type checkedRedirects struct{ *http.Transport }

func (c checkedRedirects) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := c.Transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if _, err := res.Location(); err != nil && !errors.Is(err, http.ErrNoLocation) {
		_ = res.Body.Close() // nothing of it is wanted
		return nil, errors.New("a redirect to something that is not a URL")
	}
	return res, nil
}

func checkAddress(address string) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %s: %w", address, err)
	}
	ip := ap.Addr().Unmap()
	if translated.Contains(ip) {
		b := ip.As16()
		ip = netip.AddrFrom4([4]byte(b[12:]))
	}
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsInterfaceLocalMulticast() || metadata[ip.WithZone("")] {
		return beacon.Errorf(beacon.Denied, "address %s is link-local or a metadata service: never fetched", ip)
	}
	return nil
}

// metadata holds the addresses of cloud metadata services that are not
// link-local: of AWS and Google Cloud over IPv6, of Alibaba Cloud, Azure and
// Oracle Cloud.
var metadata = map[netip.Addr]bool{
	netip.MustParseAddr("fd00:ec2::254"):   true,
	netip.MustParseAddr("fd20:ce::254"):    true,
	netip.MustParseAddr("100.100.100.200"): true,
	netip.MustParseAddr("168.63.129.16"):   true,
	netip.MustParseAddr("192.0.0.192"):     true,
}

// translated are IPv6 addresses that a NAT64 gateway turns into IPv4.
var translated = netip.MustParsePrefix("64:ff9b::/96")

func checkURL(u *url.URL) error {
	if u.Scheme != "http" && u.Scheme != "https" {
		return beacon.Errorf(beacon.Denied, "URL scheme %q: only http and https are fetched", beacon.Excerpt(u.Scheme, 20))
	}
	host := u.Hostname()
	if host == "" {
		return beacon.Errorf(beacon.Invalid, "the URL has no host")
	}
	// 2852039166, 0xa9fea9fe and 169.254.43518 are addresses to some resolvers
	// and names to others.
	if _, err := netip.ParseAddr(host); err != nil {
		last := host[strings.LastIndexByte(host, '.')+1:]
		if _, err := strconv.ParseUint(last, 0, 64); err == nil {
			return beacon.Errorf(beacon.Denied, "host %s is a number: write the address as four numbers with dots", beacon.Excerpt(host, 100))
		}
	}
	return nil
}

// Redact shows a URL without what may be secret in it: user, password, query
// and fragment.
func Redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Opaque != "" {
		return "(not a URL)"
	}
	u.User, u.RawQuery, u.Fragment, u.RawFragment = nil, "", "", ""
	return beacon.Excerpt(u.String(), 500)
}

// Fetch downloads a URL into the directory under name, which appears when all
// of it is there. It reports the bytes so far, and the total or -1, from time
// to time.
func (d *Downloader) Fetch(ctx context.Context, dir *Dir, name, rawURL string, report func(done, total int64)) (size int64, err error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return 0, beacon.Errorf(beacon.Invalid, "SourceURL is not a URL")
	}
	if err := checkURL(u); err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil {
		return 0, beacon.Errorf(beacon.Invalid, "SourceURL is not a URL")
	}
	res, err := d.client.Do(req)
	if err != nil {
		return 0, fetchError(ctx, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return 0, beacon.Errorf(beacon.Failed, "HTTP status %d", res.StatusCode)
	}
	if res.ContentLength > d.limit {
		return 0, beacon.Errorf(beacon.FileLimit, "source of %d bytes, limit %d", res.ContentLength, d.limit)
	}
	const part = ".part"
	temporary := name + part
	if len(temporary) > 255 {
		temporary = part
	}
	f, err := dir.OpenFile(temporary, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return 0, fmt.Errorf("create the file: %w", hostless(err))
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, hostless(dir.Remove(temporary)))
		}
	}()
	counted := &counter{report: report, total: res.ContentLength}
	size, err = io.Copy(f, io.TeeReader(io.LimitReader(res.Body, d.limit+1), counted))
	if err = errors.Join(err, f.Close()); err != nil {
		return 0, fetchError(ctx, err)
	}
	if size > d.limit {
		return 0, beacon.Errorf(beacon.FileLimit, "source of more than %d bytes, which is the limit", d.limit)
	}
	if err := dir.Rename(temporary, name); err != nil {
		return 0, fmt.Errorf("name the file: %w", hostless(err))
	}
	return size, nil
}

// fetchError keeps URLs, which may hold secrets, and paths out of errors.
func fetchError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return hostless(err)
}

type counter struct {
	report      func(done, total int64)
	done, total int64
	told        int64
}

func (c *counter) Write(p []byte) (int, error) {
	const step = 1 << 20
	c.done += int64(len(p))
	if c.report != nil && (c.done-c.told >= step || c.done == c.total) {
		c.told = c.done
		c.report(c.done, c.total)
	}
	return len(p), nil
}
