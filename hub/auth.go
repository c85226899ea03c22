package hub

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alexedwards/argon2id"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/ledger"
	"github.com/ultravisor/beacon/protocol"
)

// A Role is what a user may do.
type Role string

// The roles. Each user sees and does things of the own tenant only, unless it
// has none, and then of all.
const (
	Viewer    Role = "viewer"    // look
	Submitter Role = "submitter" // and hand in, cancel and requeue
	Worker    Role = "worker"    // register beacons, take work and report
	Admin     Role = "admin"     // everything
)

// A User may log in.
type User struct {
	Name string
	// PasswordHash is of argon2id, in the usual form, as HashPassword makes it.
	PasswordHash string
	Role         Role
	// Tenant is whom the user acts for; empty means all.
	Tenant string
}

// Anonymous says whom a hub serves without a login.
type Anonymous string

// Whom a hub may serve without a login, and then everything. The zero value is
// AnonymousLocal without users and AnonymousNobody with users or a join secret.
const (
	AnonymousNobody   Anonymous = "nobody"
	AnonymousLocal    Anonymous = "local" // those on the same machine, by a loopback address
	AnonymousEveryone Anonymous = "everyone"
)

// HashPassword makes a User's PasswordHash.
func HashPassword(password string) (string, error) {
	return argon2id.CreateHash(password, &argon2id.Params{Memory: 19 << 10, Iterations: 2, Parallelism: 1, SaltLength: 16, KeyLength: 32})
}

var tenantPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Check reports what is wrong with the users of a configuration.
func (c *Config) Check() error {
	seen := map[string]bool{}
	for _, u := range c.Users {
		_, _, _, err := argon2id.DecodeHash(u.PasswordHash)
		switch {
		case u.Name == "" || len(u.Name) > longestName:
			return beacon.Errorf(beacon.Invalid, "a user without a name, or with one of more than %d bytes", longestName)
		case seen[u.Name]:
			return beacon.Errorf(beacon.Invalid, "two users have the name %s", beacon.Excerpt(u.Name, 80))
		case err != nil:
			return beacon.Errorf(beacon.Invalid, "the password hash of user %s is none of argon2id: make one with beacon hub password", beacon.Excerpt(u.Name, 80))
		case u.Role != Viewer && u.Role != Submitter && u.Role != Worker && u.Role != Admin:
			return beacon.Errorf(beacon.Invalid, "user %s has the role %q: want viewer, submitter, worker or admin", beacon.Excerpt(u.Name, 80), beacon.Excerpt(string(u.Role), 80))
		case u.Tenant != "" && !tenantPattern.MatchString(u.Tenant):
			return beacon.Errorf(beacon.Invalid, "user %s has the tenant %q: want letters, digits, dots, - and _", beacon.Excerpt(u.Name, 80), beacon.Excerpt(u.Tenant, 80))
		}
		seen[u.Name] = true
	}
	switch c.Anonymous {
	case "", AnonymousNobody, AnonymousLocal, AnonymousEveryone:
		return nil
	}
	return beacon.Errorf(beacon.Invalid, "Anonymous is %q: want nobody, local or everyone", beacon.Excerpt(string(c.Anonymous), 80))
}

// secured reports whether there is anything to log in with.
func (c *Config) secured() bool { return len(c.Users) > 0 || c.JoinSecret != "" }

// A permission is what a request needs.
type permission int

const (
	nothing permission = iota // not even a login
	look
	hand // hand in work
	serve
	administer
)

// may reports whether a role has a permission.
func (r Role) may(p permission) bool {
	switch p {
	case nothing:
		return true
	case look:
		return true
	case hand:
		return r == Submitter || r == Admin
	case serve:
		return r == Worker || r == Admin
	}
	return r == Admin
}

// A caller is who makes a request.
type caller struct {
	user   string // empty for nobody in particular
	role   Role
	tenant string // whose things it sees; empty for all
}

// sees reports whether a tenant's things are the caller's to see.
func (c caller) sees(tenant string) bool { return c.tenant == "" || c.tenant == tenant }

type callerKey struct{}

// callerOf is who makes a request that was let in.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// identify finds out who makes a request; it is false for somebody who has to
// log in.
func (h *Hub) identify(r *http.Request) (caller, bool) {
	if t, ok := h.verify(sessionOf(r)); ok {
		switch t.Kind {
		case kindJoin:
			return caller{user: t.User, role: Worker}, true
		case kindOperator:
			return caller{role: Admin}, true
		case kindUser:
			u := h.users[t.User]
			return caller{user: u.Name, role: u.Role, tenant: u.Tenant}, true
		}
	}
	if h.anonymous(r) {
		return caller{role: Admin}, true
	}
	return caller{}, false
}

// anonymous reports whether a request may come from nobody.
func (h *Hub) anonymous(r *http.Request) bool {
	switch h.cfg.Anonymous {
	case AnonymousEveryone:
		return true
	case AnonymousNobody:
		return false
	case "":
		if h.cfg.secured() {
			return false
		}
	}
	return local(r)
}

// local reports whether a request comes from the same machine. One that was
// passed on by a proxy does not.
func local(r *http.Request) bool {
	if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Forwarded") != "" {
		return false
	}
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	address, err := netip.ParseAddr(host)
	return err == nil && address.Unmap().IsLoopback()
}

// Kinds of tokens.
const (
	kindUser = "user"
	kindJoin = "join" // of a worker that knows the join secret
	kindNone = "none" // tells callers apart, permits nothing
	// kindOperator is of somebody who knows the hub's token.
	kindOperator = "operator"
)

// A token is what a session consists of. It is signed, so that every hub can
// read it and none has to keep it.
type token struct {
	Kind    string `json:"k"`
	User    string `json:"u"`
	Expires int64  `json:"e"` // in seconds since 1970
	Nonce   string `json:"n"`
	// Password is a digest of the hash of the user's password: a new one ends all
	// sessions.
	Password string `json:"p,omitempty"`
}

const sessionAge = 24 * time.Hour

// session makes a session.
func (h *Hub) session(kind, user string) string {
	t := token{Kind: kind, User: user, Expires: time.Now().Add(sessionAge).Unix(), Nonce: rand.Text()}
	if kind == kindUser {
		t.Password = passwordDigest(h.users[user].PasswordHash)
	}
	raw, err := json.Marshal(t)
	if err != nil {
		panic(fmt.Sprintf("hub: a token does not marshal: %v", err)) // it is four texts and a number
	}
	text := base64.RawURLEncoding.EncodeToString(raw)
	return text + "." + h.seal(text)
}

func passwordDigest(hash string) string {
	sum := sha256.Sum256([]byte(hash))
	return hex.EncodeToString(sum[:8])
}

func (h *Hub) seal(text string) string {
	mac := hmac.New(sha256.New, h.core.secret())
	mac.Write([]byte("session\n" + text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// verify reads a session; it is false for one that is not, or no longer, good.
func (h *Hub) verify(session string) (token, bool) {
	text, seal, ok := strings.Cut(session, ".")
	if !ok || len(h.core.secret()) == 0 || !hmac.Equal([]byte(seal), []byte(h.seal(text))) {
		return token{}, false
	}
	raw, err := base64.RawURLEncoding.DecodeString(text)
	var t token
	if err != nil || json.Unmarshal(raw, &t) != nil || time.Now().Unix() >= t.Expires {
		return token{}, false
	}
	if t.Kind == kindOperator && h.cfg.secured() {
		return token{}, false
	}
	if t.Kind == kindUser {
		u, known := h.users[t.User]
		if !known || t.Password != passwordDigest(u.PasswordHash) {
			return token{}, false
		}
	}
	h.core.mu.RLock()
	defer h.core.mu.RUnlock()
	return t, !h.core.ledger.Revoked(digest(session))
}

// longestSession is more than a token of ours takes.
const longestSession = 1000

// sessionOf is the session a request claims; empty without one.
func sessionOf(r *http.Request) string {
	cookie, err := r.Cookie(protocol.SessionCookie)
	if err != nil || len(cookie.Value) > longestSession {
		return ""
	}
	return cookie.Value
}

func loggedIn(id, user string) map[string]any {
	return map[string]any{
		"LoggedIn": true, "SessionID": id, "UserID": 0,
		"UserRecord": map[string]any{"LoginID": user, "IDUser": 0},
	}
}

// Logins are slow by design, so only some go on at a time, and each address has
// only some of them.
const (
	loginsAtOnce = 2
	loginRate    = 1 // per second
	loginBurst   = 20
)

func (h *Hub) authenticate(reply responder, r *http.Request, _ []string) {
	var body struct {
		UserName string `json:"UserName"`
		Password any    `json:"Password"`
		Token    string `json:"Token"` // ours
	}
	if !reply.body(r, mostBody, &body) {
		return
	}
	if body.Token != "" {
		h.authenticateToken(reply, r, body.Token)
		return
	}
	declined := func(why string) {
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false, "Error": why})
	}
	switch {
	case body.UserName == "":
		declined("UserName is required.")
		return
	case len(body.UserName) > longestName:
		declined("UserName is too long.")
		return
	}
	kind := kindNone
	if len(h.users) > 0 {
		if !h.logins.allow(addressOf(r), loginRate, loginBurst) {
			reply.tooMany("Too many logins. Try again later.", 5)
			return
		}
		password, _ := body.Password.(string)
		if !h.knows(r.Context(), body.UserName, password) {
			h.log.Warn("login refused", "user", beacon.Excerpt(body.UserName, 80), "address", addressOf(r))
			declined("Authentication failed.")
			return
		}
		kind = kindUser
	} else if !h.anonymous(r) {
		declined("Authentication failed.")
		return
	}
	id := h.session(kind, body.UserName)
	reply.setSession(r, id)
	reply.json(http.StatusOK, loggedIn(id, body.UserName))
}

// Token is what somebody logs in with at a hub that has neither users nor a
// join secret, to do everything; empty for one that has. It is the same for all
// hubs of a journal, over restarts, and of no use elsewhere. The hub must be
// Ready.
func (h *Hub) Token() string {
	secret := h.core.secret()
	if h.cfg.secured() || len(secret) == 0 {
		return ""
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("operator"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:18])
}

// authenticateToken is a login by the hub's token.
func (h *Hub) authenticateToken(reply responder, r *http.Request, given string) {
	if !h.logins.allow(addressOf(r), loginRate, loginBurst) {
		reply.tooMany("Too many logins. Try again later.", 5)
		return
	}
	want := h.Token()
	if want == "" || subtle.ConstantTimeCompare([]byte(given), []byte(want)) != 1 {
		h.log.Warn("login refused", "address", addressOf(r))
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false, "Error": "Authentication failed."})
		return
	}
	id := h.session(kindOperator, "")
	reply.setSession(r, id)
	reply.json(http.StatusOK, loggedIn(id, ""))
}

// setSession gives a session to whoever asked.
func (p responder) setSession(r *http.Request, id string) {
	cookie := protocol.SessionCookie + "=" + id + "; Path=/; HttpOnly; SameSite=Strict"
	if r.TLS != nil {
		cookie += "; Secure"
	}
	p.w.Header().Set("Set-Cookie", cookie)
}

// knows reports whether a password is the user's. It takes as long for a user
// that is not there.
func (h *Hub) knows(ctx context.Context, name, password string) bool {
	select {
	case h.hashing <- struct{}{}:
		defer func() { <-h.hashing }()
	case <-ctx.Done():
		return false
	}
	u, known := h.users[name]
	if !known {
		u.PasswordHash = h.nobody
	}
	right, err := argon2id.ComparePasswordAndHash(password, u.PasswordHash)
	return err == nil && right && known
}

// joins reports whether a worker knows the join secret.
func (h *Hub) joins(secret string) bool {
	return h.cfg.JoinSecret != "" && subtle.ConstantTimeCompare([]byte(secret), []byte(h.cfg.JoinSecret)) == 1
}

func (h *Hub) checkSession(reply responder, r *http.Request, _ []string) {
	id := sessionOf(r)
	t, ok := h.verify(id)
	if !ok {
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false})
		return
	}
	reply.json(http.StatusOK, loggedIn(id, t.User))
}

func (h *Hub) deauthenticate(reply responder, r *http.Request, _ []string) {
	if t, ok := h.verify(sessionOf(r)); ok && t.Kind != kindNone {
		err := h.core.propose(ledger.Entry{Revoke: &ledger.Revoke{Session: digest(sessionOf(r)), Until: t.Expires * 1000}}, nil)
		if err != nil {
			reply.error(http.StatusServiceUnavailable, "The session cannot be ended now.")
			return
		}
	}
	reply.w.Header().Set("Set-Cookie", protocol.SessionCookie+"=; Path=/; HttpOnly; Max-Age=0")
	reply.json(http.StatusOK, map[string]any{"LoggedIn": false})
}

// addressOf is where a request comes from.
func addressOf(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// tooMany asks to come back later.
func (p responder) tooMany(message string, seconds int) {
	p.w.Header().Set("Retry-After", strconv.Itoa(seconds))
	p.json(http.StatusTooManyRequests, map[string]any{"Success": false, "Error": message, "RetryAfterSeconds": seconds})
}
