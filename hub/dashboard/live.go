package dashboard

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon/hub/pace"
	"github.com/ultravisor/beacon/protocol"
)

// pause is the least time between two updates of one page.
const pause = 500 * time.Millisecond

// live sends the parts of a page that have changed, as they change. An event
// "part" is the part's id, a line break and its HTML; "reload" says that
// the page is to be asked for again.
func (d *Dashboard) live(w http.ResponseWriter, r *http.Request) {
	u, err := url.ParseRequestURI(r.URL.Query().Get("page"))
	var show view
	if err == nil {
		path := u.Path
		if path == "/" {
			path = "/{$}"
		}
		show = d.pages()[path]
	}
	if show == nil {
		http.Error(w, "There is no such page.", http.StatusNotFound)
		return
	}
	select {
	case d.streams <- struct{}{}:
		defer func() { <-d.streams }()
	default:
		http.Error(w, "Too many pages are open.", http.StatusServiceUnavailable)
		return
	}
	c, err := d.client(w, r)
	if err != nil {
		http.Error(w, "Log in first.", http.StatusUnauthorized)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := stream{w, http.NewResponseController(w)}
	if !out.send("hello", "") {
		return
	}
	sent := map[string]string{}
	var version uint64
	for first := true; ; first = false {
		began := time.Now()
		p, err := show(c, u.Query())
		if err != nil { // the item is gone, say, or the session has ended
			out.send("reload", "")
			return
		}
		for _, part := range p.parts {
			if !part.live {
				continue
			}
			html, err := d.part(part)
			switch {
			case err != nil:
				d.log.Error("a page cannot be shown", "page", u.Path, "error", err)
				return
			case html == sent[part.id]:
			case !out.send("part", part.id+"\n"+html):
				return
			}
			sent[part.id] = html
		}
		if !first && !sleep(r.Context(), pause-time.Since(began)) {
			return
		}
		var changes protocol.Changes
		query := url.Values{"after": {strconv.FormatUint(version, 10)}}
		if first {
			query = nil // only asks for the version
		}
		if err := c.get("/Beacon/Changes", query, &changes); err != nil {
			return
		}
		version = changes.Version
		if r.Context().Err() != nil || !out.send("", "") { // who went away is noticed
			return
		}
	}
}

// sleep waits, and reports whether ctx is still not done.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// A stream is one of server-sent events.
type stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// send reports whether the reader is still there. Without a kind it sends a
// comment.
func (s stream) send(kind, data string) bool {
	var b strings.Builder
	if kind == "" {
		b.WriteString(":\n\n")
	} else {
		b.WriteString("event: " + kind + "\n")
		data = strings.ReplaceAll(strings.ReplaceAll(data, "\r\n", "\n"), "\r", "\n")
		for line := range strings.SplitSeq(data, "\n") {
			b.WriteString("data: " + line + "\n")
		}
		b.WriteString("\n")
	}
	pace.Limit(s.w, int64(b.Len()))
	if _, err := s.w.Write([]byte(b.String())); err != nil {
		return false
	}
	return s.control.Flush() == nil
}
