// Package dashboard is the hub in a browser: pages that are rendered on the
// server and kept up to date by server-sent events.
//
// It knows no more of the hub than its API, which it calls in the same process
// on behalf of whoever sent the request, with that sender's session and address.
// So nobody sees or does by way of a page what the API would refuse, and what a
// page shows anybody else can ask for, too; beacon top does.
//
// Whom the hub serves without a login may look. To write, one logs in.
package dashboard

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"time"

	"github.com/ultravisor/beacon"
	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets
var assetFiles embed.FS

// A Dashboard shows a hub. It is an http.Handler, safe for concurrent use, that
// passes on to the hub's own all requests that are not for a page.
type Dashboard struct {
	hub       http.Handler
	log       *slog.Logger
	mux       *http.ServeMux
	templates *template.Template
	assets    map[string]asset
	streams   chan struct{} // holds a token for each that is open
}

type asset struct {
	kind, version string
	data          []byte
}

// mostStreams bounds the pages that are kept up to date at once.
const mostStreams = 200

// New makes the dashboard of a hub; a nil log means slog.Default().
func New(hub http.Handler, log *slog.Logger) *Dashboard {
	if log == nil {
		log = slog.Default()
	}
	d := &Dashboard{hub: hub, log: log, mux: http.NewServeMux(), assets: map[string]asset{}, streams: make(chan struct{}, mostStreams)}
	entries, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		panic(fmt.Sprintf("dashboard: %v", err)) // they are embedded
	}
	for _, entry := range entries {
		data, err := assetFiles.ReadFile("assets/" + entry.Name())
		if err != nil {
			panic(fmt.Sprintf("dashboard: %v", err))
		}
		sum := sha256.Sum256(data)
		d.assets[entry.Name()] = asset{mime.TypeByExtension(path.Ext(entry.Name())), hex.EncodeToString(sum[:6]), data}
	}
	d.templates = template.Must(template.New("").Funcs(d.functions()).ParseFS(templateFiles, "templates/*.html"))
	for pattern, show := range d.pages() {
		d.mux.HandleFunc("GET "+pattern, func(w http.ResponseWriter, r *http.Request) { d.show(w, r, show) })
	}
	for pattern, serve := range map[string]http.HandlerFunc{
		"GET /assets/{name}": d.asset,
		"GET /live":          d.live,
		"GET /chart/{name}":  d.picture,
		"GET /item/output":   d.itemOutput,
		"GET /item/file":     d.itemFile,
		"GET /login":         d.loginPage,
		"POST /login":        d.login,
		"POST /logout":       d.logout,
	} {
		d.mux.HandleFunc(pattern, serve)
	}
	for pattern, serve := range d.acts() {
		d.mux.HandleFunc(pattern, serve)
	}
	return d
}

// pages are those that can be kept up to date, by their path.
func (d *Dashboard) pages() map[string]view {
	return map[string]view{
		"/{$}":     d.overview,
		"/items":   d.items,
		"/item":    d.item,
		"/beacons": d.beacons,
		"/submit":  d.newItem,
	}
}

// ServeHTTP implements http.Handler.
func (d *Dashboard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// A WebSocket upgrade is a worker's, whatever its path.
	if _, pattern := d.mux.Handler(r); pattern == "" || r.Header.Get("Upgrade") != "" {
		d.hub.ServeHTTP(w, r)
		return
	}
	pace.Watch(r.Context(), w, r)
	header := w.Header()
	// Nothing comes from elsewhere, and nothing that strangers have written is
	// ever run, even if it got into a page.
	header.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	header.Set("Referrer-Policy", "same-origin") // with none, browsers would not say where a form came from
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("X-Frame-Options", "DENY")
	header.Set("Cross-Origin-Opener-Policy", "same-origin")
	header.Set("Cross-Origin-Resource-Policy", "same-origin")
	header.Set("Cache-Control", "no-store")
	if r.Method == http.MethodPost {
		// Browsers that the pages work in say where a form came from.
		if r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
			d.problem(w, r, http.StatusForbidden, "A form has to come from a page of this hub, and the request does not say where it came from.")
			return
		}
		if err := sameOrigin.Check(r); err != nil {
			d.problem(w, r, http.StatusForbidden, "Forms of other sites are refused.")
			return
		}
	}
	d.mux.ServeHTTP(w, r)
}

var sameOrigin = http.NewCrossOriginProtection()

func (d *Dashboard) asset(w http.ResponseWriter, r *http.Request) {
	a, ok := d.assets[r.PathValue("name")]
	if !ok {
		d.problem(w, r, http.StatusNotFound, "There is no such page.")
		return
	}
	w.Header().Set("Content-Type", a.kind)
	if r.URL.Query().Get("v") == a.version {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	}
	pace.Limit(w, int64(len(a.data)))
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.data))
}

// A view makes the parts of a page. The query is that of the page's address.
type view func(c *client, query url.Values) (page, error)

// A page is a title and parts, from top to bottom.
type page struct {
	title string
	parts []part
}

// A part of a page. One that is live is sent again when it has changed.
type part struct {
	id   string // also the name of its template
	live bool
	data any
}

// frame is what the template around every page is given.
type frame struct {
	Title  string
	Path   string
	Viewer protocol.Viewer
	Known  bool // Viewer says who is looking
	Write  bool
	Live   bool
	Said   string
	Parts  []rendered
}

type rendered struct {
	ID   string
	Live bool
	HTML template.HTML
}

// show answers with a page.
func (d *Dashboard) show(w http.ResponseWriter, r *http.Request, v view) {
	c, err := d.client(w, r)
	if err != nil {
		d.failed(w, r, err)
		return
	}
	if token := r.URL.Query().Get("token"); token != "" && r.URL.Path == "/" {
		// It must not stay in the address.
		if err := c.login(w, map[string]string{"Token": token}); err != nil {
			d.failed(w, r, err)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	p, err := v(c, r.URL.Query())
	if err != nil {
		d.failed(w, r, err)
		return
	}
	d.render(w, r, c, http.StatusOK, p, said[r.URL.Query().Get("said")])
}

// said are messages after something was done, by the word in the address.
var said = map[string]string{
	"canceled":  "The work item is canceled, or its beacon was asked to stop.",
	"requeued":  "The work item waits again.",
	"all":       "The dead letters wait again.",
	"forgotten": "The work item is gone.",
	"submitted": "The work item was taken.",
}

func (d *Dashboard) render(w http.ResponseWriter, r *http.Request, c *client, status int, p page, message string) {
	f := frame{Title: p.title, Path: r.URL.Path, Said: message}
	if c != nil {
		f.Viewer, f.Known, f.Write = c.viewer, true, c.writes()
	}
	for _, part := range p.parts {
		html, err := d.part(part)
		if err != nil {
			d.log.Error("a page cannot be shown", "page", r.URL.Path, "error", err)
			http.Error(w, "The page cannot be shown; the hub's log says why.", http.StatusInternalServerError)
			return
		}
		f.Live = f.Live || part.live
		f.Parts = append(f.Parts, rendered{part.id, part.live, template.HTML(html)}) //nolint:gosec // made by a template
	}
	var out bytes.Buffer
	if err := d.templates.ExecuteTemplate(&out, "frame", f); err != nil {
		d.log.Error("a page cannot be shown", "page", r.URL.Path, "error", err)
		http.Error(w, "The page cannot be shown; the hub's log says why.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	pace.Limit(w, int64(out.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes()) // who does not wait for the page does not get it
}

func (d *Dashboard) part(p part) (string, error) {
	var out bytes.Buffer
	err := d.templates.ExecuteTemplate(&out, p.id, p.data)
	return out.String(), err
}

// failed answers with what went wrong. Who has to log in is sent there.
func (d *Dashboard) failed(w http.ResponseWriter, r *http.Request, err error) {
	var refused *refusal
	switch {
	case errors.As(err, &refused) && refused.status == http.StatusUnauthorized:
		http.Redirect(w, r, "/login?to="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
	case errors.As(err, &refused):
		d.problem(w, r, refused.status, refused.message)
	default:
		d.log.Error("a page cannot be shown", "page", r.URL.Path, "error", err)
		d.problem(w, r, http.StatusInternalServerError, "The page cannot be shown; the hub's log says why.")
	}
}

// problem is a page that says why there is no other.
func (d *Dashboard) problem(w http.ResponseWriter, r *http.Request, status int, message string) {
	c, err := d.client(w, r)
	if err != nil {
		c = nil
	}
	d.render(w, r, c, status, page{http.StatusText(status), []part{{"problem", false, beacon.Excerpt(message, 2000)}}}, "")
}
