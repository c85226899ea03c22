package dashboard

import (
	"net/http"
	"strings"

	"github.com/ultravisor/beacon/protocol"
)

// loginForm is what the page for logging in shows.
type loginForm struct {
	By    string // a protocol.Login
	To    string
	Error string
}

// mostForm bounds a form without files, in bytes.
const mostForm = 64 << 10

func (d *Dashboard) loginPage(w http.ResponseWriter, r *http.Request) {
	d.askLogin(w, r, http.StatusOK, loginForm{To: r.URL.Query().Get("to")})
}

func (d *Dashboard) askLogin(w http.ResponseWriter, r *http.Request, status int, form loginForm) {
	c, err := d.client(w, r)
	if form.By = protocol.LoginUser; err == nil { // only a hub with users refuses to say
		form.By = c.viewer.Logins
	} else {
		c = nil
	}
	d.render(w, r, c, status, page{"Log in", []part{{"login", false, form}}}, "")
}

func (d *Dashboard) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, mostForm)
	if err := r.ParseForm(); err != nil {
		d.problem(w, r, http.StatusBadRequest, "The form cannot be read.")
		return
	}
	c := &client{hub: d.hub, w: w, r: r}
	credentials := map[string]string{"UserName": r.PostForm.Get("user"), "Password": r.PostForm.Get("password")}
	if token := strings.TrimSpace(r.PostForm.Get("token")); token != "" {
		credentials = map[string]string{"Token": token}
	}
	to := r.PostForm.Get("to")
	if err := c.login(w, credentials); err != nil {
		d.askLogin(w, r, http.StatusForbidden, loginForm{To: to, Error: "That is not right. Try again."})
		return
	}
	// Only to a page of this hub.
	if !strings.HasPrefix(to, "/") || strings.HasPrefix(to, "//") || strings.ContainsAny(to, "\\\r\n") {
		to = "/"
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (d *Dashboard) logout(w http.ResponseWriter, r *http.Request) {
	c := &client{hub: d.hub, w: w, r: r}
	answer, err := c.do(r.Context(), http.MethodPost, "/1.0/Deauthenticate", nil, nil)
	if err == nil {
		err = answer.read(nil)
	}
	if err != nil {
		d.failed(w, r, err)
		return
	}
	w.Header()["Set-Cookie"] = answer.header["Set-Cookie"]
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
