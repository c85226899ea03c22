package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// Bounds on requests. Results may be large, since their output files travel in
// them.
const (
	mostBody   = 1 << 20
	mostResult = 128 << 20
)

// A route is one endpoint. In its pattern a segment that starts with a colon
// stands for any one segment of a path; the handler gets those, decoded.
type route struct {
	method  string
	pattern []string
	needs   permission
	serve   func(reply responder, r *http.Request, args []string)
}

func (h *Hub) table() []route {
	on := func(needs permission, methodAndPath string, serve func(responder, *http.Request, []string)) route {
		method, path, _ := strings.Cut(methodAndPath, " ")
		return route{method, strings.Split(path, "/")[1:], needs, serve}
	}
	// Earlier routes win where two fit.
	return []route{
		on(nothing, "POST /1.0/Authenticate", h.authenticate),
		on(nothing, "GET /1.0/CheckSession", h.checkSession),
		on(nothing, "GET /1.0/Deauthenticate", h.deauthenticate),
		on(nothing, "POST /1.0/Deauthenticate", h.deauthenticate),
		on(nothing, "GET /status", h.status),

		on(nothing, "POST /Beacon/Register", h.registerPoller), // the join secret is in its body
		on(serve, "POST /Beacon/Work/Poll", h.poll),
		on(serve, "POST /Beacon/Work/Complete/Batch", h.completeBatch),
		on(serve, "POST /Beacon/Work/Progress/Batch", h.progressBatch),
		on(serve, "POST /Beacon/Work/:hash/Complete", h.complete),
		on(serve, "POST /Beacon/Work/:hash/Error", h.fail),
		on(serve, "POST /Beacon/Work/:hash/Progress", h.progress),
		on(serve, "POST /Beacon/Work/:hash/Upload", h.uploadResult),
		on(serve, "POST /Beacon/:id/Heartbeat", h.heartbeatPoller),

		on(hand, "POST /Beacon/Work/Dispatch", h.dispatch),
		on(hand, "POST /Beacon/Work/DispatchStream", h.dispatchStream),
		on(hand, "POST /Beacon/Work/Enqueue", h.enqueue),
		on(hand, "POST /Beacon/Work/:hash/Cancel", h.cancel),
		on(hand, "POST /Beacon/Work/DeadLetters/Requeue", h.requeueAll),
		on(hand, "POST /Beacon/Work/:hash/Requeue", h.requeue),
		on(look, "GET /Beacon/Work/DeadLetters", h.deadLetters),
		on(look, "GET /Beacon/Work/:hash/Events", h.events),
		on(look, "GET /Beacon/Work/:hash", h.work),
		on(hand, "DELETE /Beacon/Work/:hash", h.forget),
		on(look, "GET /Beacon/Work", h.listWork),
		on(look, "GET /Beacon/Capabilities", h.capabilities),
		on(look, "GET /Beacon/Actions", h.listActions),
		on(look, "GET /Beacon/Affinity", h.affinity),
		on(look, "GET /Beacon/Queue", h.queueView),
		on(look, "GET /Beacon/Backlog", h.backlog),
		on(look, "GET /Beacon/Tenants", h.tenants),
		on(look, "GET /Beacon/Hubs", h.hubs),
		on(look, "GET /Beacon/Items", h.items),
		on(look, "GET /Beacon/Viewer", h.viewer),
		on(look, "GET /Beacon/Changes", h.changes),
		on(look, "GET /Beacon/Series", h.showSeries),

		on(hand, "POST /Beacon/File", h.upload),
		on(hand, "PUT /Beacon/File", h.upload),
		on(nothing, "GET /Beacon/File/:id/:name", h.download), // which asks for a signature or a login
		on(hand, "GET /Beacon/Upload/:id", h.uploadProgress),
		on(hand, "PATCH /Beacon/Upload/:id", h.uploadPiece),
		on(hand, "DELETE /Beacon/Upload/:id", h.uploadAborted),

		on(look, "GET /Beacon", h.listBeacons),
		on(look, "GET /Beacon/:id", h.beacon),
		on(serve, "DELETE /Beacon/:id", h.deregister),
	}
}

// route finds the endpoint. Segments are decoded one by one, so that a hash may
// hold slashes and dots.
func (h *Hub) route(reply responder, r *http.Request) {
	path := strings.Split(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/")
	if len(path) > 1 && path[len(path)-1] == "" {
		path = path[:len(path)-1]
	}
	for i, segment := range path {
		decoded, err := url.PathUnescape(segment)
		if err != nil || !utf8.ValidString(decoded) {
			reply.problem(http.StatusBadRequest, "BadRequest", "The path is not percent-encoded UTF-8.")
			return
		}
		path[i] = decoded
	}
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var allowed []string
	for _, route := range h.routes {
		args, ok := match(route.pattern, path)
		switch {
		case !ok:
		case route.method == method:
			if r, ok := h.admit(reply, r, route.needs); ok {
				route.serve(reply, r, args)
			}
			return
		case !slices.Contains(allowed, route.method):
			allowed = append(allowed, route.method)
		}
	}
	if allowed != nil {
		reply.w.Header().Set("Allow", strings.Join(allowed, ", "))
		reply.problem(http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method+" is not allowed")
		return
	}
	reply.problem(http.StatusNotFound, "ResourceNotFound", beacon.Excerpt(r.URL.Path, 200)+" does not exist")
}

// admit lets a request in, or answers it.
func (h *Hub) admit(reply responder, r *http.Request, needs permission) (*http.Request, bool) {
	who, known := h.identify(r)
	if h.cfg.RequestRate > 0 && !local(r) {
		name := addressOf(r)
		if who.user != "" {
			name = "user " + who.user
		}
		if !h.requests.allow(name, h.cfg.RequestRate, h.cfg.RequestBurst) {
			reply.tooMany("Too many requests. Try again later.", 1)
			return r, false
		}
	}
	switch {
	case !known && needs != nothing:
		reply.unauthorized()
		return r, false
	case known && !who.role.may(needs):
		reply.error(http.StatusForbidden, "The role "+string(who.role)+" may not do this.")
		return r, false
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, who)), true
}

// unauthorized asks for a login, in the real server's words.
func (p responder) unauthorized() {
	p.json(http.StatusUnauthorized, map[string]any{"Error": "Authentication required.", "LoggedIn": false})
}

func match(pattern, path []string) ([]string, bool) {
	if len(pattern) != len(path) {
		return nil, false
	}
	var args []string
	for i, want := range pattern {
		switch {
		case strings.HasPrefix(want, ":") && path[i] != "":
			args = append(args, path[i])
		case want != path[i]:
			return nil, false
		}
	}
	return args, true
}

// foreign says why a request may not have been meant by whoever's browser sent
// it: it came for a name that is not this hub's, or from another site's page.
func (h *Hub) foreign(r *http.Request) string {
	host := hostname(r.Host)
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" && !strings.HasSuffix(host, ".localhost") && !h.hosts[host] {
		return fmt.Sprintf("This hub does not go by the name %q. Use its IP address, or add the name to its allowed hosts.", beacon.Excerpt(host, 100))
	}
	if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
		return "Requests from pages of other sites are refused."
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || !strings.EqualFold(u.Host, r.Host) {
			return "Requests from pages of other sites are refused."
		}
	}
	return ""
}

// hostname is a Host header without port, brackets and final dot.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// A responder answers one request.
type responder struct {
	w       http.ResponseWriter
	control *http.ResponseController
	log     *slog.Logger
}

// write sends a part of an answer, to somebody who takes it in time.
func (p responder) write(raw []byte) error {
	pace.Limit(p.w, int64(len(raw)))
	_, err := p.w.Write(raw)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.log.Warn("a client reads its answer too slowly and is cut off", "bytes", len(raw))
	}
	return err
}

// slow answers somebody whose body came too slowly.
func (p responder) slow(r *http.Request) {
	p.log.Warn("a client sends its request too slowly and is cut off", "address", addressOf(r), "path", beacon.Excerpt(r.URL.Path, 200))
	p.problem(http.StatusRequestTimeout, "RequestTimeout", fmt.Sprintf("The body came too slowly: after the first %s it has to come at %d bytes per second.", pace.Grace, pace.Slowest))
}

func (p responder) json(status int, body any) {
	raw, err := protocol.Encode(body)
	if err != nil {
		status, raw = http.StatusInternalServerError, []byte(`{"Error":"The answer cannot be encoded."}`)
	}
	p.w.Header().Set("Content-Type", "application/json")
	p.w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	p.w.Header().Set("X-Content-Type-Options", "nosniff")
	p.w.WriteHeader(status)
	_ = p.write(raw) // who does not wait for the answer does not get it
}

func (p responder) error(status int, message string) {
	p.json(status, map[string]any{"Error": message})
}

// problem answers in the form of the real server's framework, which is not that
// of its endpoints, and theirs.
func (p responder) problem(status int, code, message string) {
	p.json(status, map[string]any{"code": code, "message": message, "Error": message})
}

// body reads a JSON object. An empty body is an empty object; bytes that are
// not UTF-8 are replaced. When it returns false the request is answered.
func (p responder) body(r *http.Request, most int64, into any) bool {
	if r.ContentLength > most { // or else all up to the limit would be read first
		p.problem(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("The body is over the limit of %d bytes.", most))
		return false
	}
	raw, err := io.ReadAll(http.MaxBytesReader(p.w, r.Body, most))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		p.problem(http.StatusRequestEntityTooLarge, "RequestEntityTooLarge", fmt.Sprintf("The body is over the limit of %d bytes.", most))
		return false
	case errors.Is(err, pace.ErrSlow):
		p.slow(r)
		return false
	case err != nil:
		p.problem(http.StatusBadRequest, "BadRequest", "The body did not arrive in full.")
		return false
	case len(raw) == 0:
		return true
	}
	if !utf8.Valid(raw) {
		raw = []byte(strings.ToValidUTF8(string(raw), "\uFFFD"))
	}
	if err := json.Unmarshal(raw, into); err != nil {
		var mistyped *json.UnmarshalTypeError
		text := "Invalid JSON: " + err.Error()
		if errors.As(err, &mistyped) {
			name := "The body"
			if mistyped.Field != "" {
				name = beacon.Excerpt(mistyped.Field, 100)
			}
			text = fmt.Sprintf("Invalid JSON: %s cannot be of the type %s.", name, mistyped.Value)
		}
		p.problem(http.StatusBadRequest, "InvalidContent", text)
		return false
	}
	return true
}
