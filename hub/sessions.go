package hub

import (
	"crypto/rand"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/ultravisor/beacon/protocol"
)

const (
	sessionAge   = 24 * time.Hour
	mostSessions = 10_000
)

// sessions are handed to whoever asks: this hub knows no users. They tell
// callers apart, they permit nothing.
type sessions struct {
	mu    sync.Mutex
	known map[string]session
}

type session struct {
	user    string
	expires time.Time
}

func newSessions() *sessions { return &sessions{known: map[string]session{}} }

func (s *sessions) open(user string) string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= mostSessions { // any one: forgetting a session costs its owner nothing
		for other := range s.known {
			delete(s.known, other)
			break
		}
	}
	s.known[id] = session{user, time.Now().Add(sessionAge)}
	return id
}

func (s *sessions) user(id string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, ok := s.known[id]
	return found.user, ok && time.Now().Before(found.expires)
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.known, id)
}

func (s *sessions) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, found := range s.known {
		if !time.Now().Before(found.expires) {
			delete(s.known, id)
		}
	}
}

// sessionOf is the session a request claims; empty without one.
func sessionOf(r *http.Request) string {
	cookie, err := r.Cookie(protocol.SessionCookie)
	if err != nil || len(cookie.Value) > 100 {
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

func (h *Hub) authenticate(reply responder, r *http.Request, _ []string) {
	var body struct {
		UserName string `json:"UserName"`
		Password any    `json:"Password"` // not looked at
	}
	if !reply.body(r, mostBody, &body) {
		return
	}
	if body.UserName == "" {
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false, "Error": "UserName is required."})
		return
	}
	if len(body.UserName) > longestName {
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false, "Error": "UserName is too long."})
		return
	}
	id := h.sessions.open(body.UserName)
	reply.w.Header().Set("Set-Cookie", protocol.SessionCookie+"="+id+"; Path=/; HttpOnly")
	reply.json(http.StatusOK, loggedIn(id, body.UserName))
}

func (h *Hub) checkSession(reply responder, r *http.Request, _ []string) {
	id := sessionOf(r)
	user, ok := h.sessions.user(id)
	if !ok {
		reply.json(http.StatusOK, map[string]any{"LoggedIn": false})
		return
	}
	reply.json(http.StatusOK, loggedIn(id, user))
}

func (h *Hub) deauthenticate(reply responder, r *http.Request, _ []string) {
	h.sessions.end(sessionOf(r))
	reply.w.Header().Set("Set-Cookie", protocol.SessionCookie+"=; Path=/; HttpOnly; Max-Age=0")
	reply.json(http.StatusOK, map[string]any{"LoggedIn": false})
}
