package dashboard

import (
	"io"
	"mime/multipart"
	"net/http"
	"time"
)

// newMultipart reads a form that may hold a large file: each part of it has to
// come in time, all of it may take as long as it likes.
func newMultipart(w http.ResponseWriter, body io.Reader, boundary string) *multipart.Reader {
	return multipart.NewReader(&patient{body, http.NewResponseController(w)}, boundary)
}

type patient struct {
	body    io.Reader
	control *http.ResponseController
}

func (p *patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(partTimeout)) // where there are none, there is none
	n, err := p.body.Read(b)
	_ = p.control.SetReadDeadline(time.Time{})
	return n, err
}
