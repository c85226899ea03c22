package session

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"sync"
)

// A jar keeps cookies as their attributes demand, but no more of them than an
// honest server sets: the session's, and those of load balancers before it.
type jar struct {
	mu    sync.Mutex
	names map[string]bool
	jar   *cookiejar.Jar
}

const (
	maxCookies = 32
	maxCookie  = 4096 // bytes of a value, as in browsers
)

func newJar() *jar {
	inner, _ := cookiejar.New(nil) // never fails without options
	return &jar{names: map[string]bool{}, jar: inner}
}

func (j *jar) SetCookies(u *url.URL, cookies []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, c := range cookies {
		if len(c.Value) > maxCookie || !j.names[c.Name] && len(j.names) >= maxCookies {
			continue
		}
		j.names[c.Name] = true
		j.jar.SetCookies(u, []*http.Cookie{c})
	}
}

func (j *jar) Cookies(u *url.URL) []*http.Cookie { return j.jar.Cookies(u) }
