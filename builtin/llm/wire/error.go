package wire

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/ultravisor/beacon"
)

// An Error is a request that did not bring what it was sent for. Its text may
// hold what a service said, as an excerpt.
type Error struct {
	// Message says what happened; for an answer with an error, in the service's
	// own words.
	Message string
	// Status is the HTTP status of the answer, 0 if there was none.
	Status int
	// Type and Code are the service's words for the kind of error, if any.
	Type, Code string
	// RequestID is what the service calls the request.
	RequestID string
	// RetryAfter is how long the service wants to be left alone; less than 0
	// means that it said nothing.
	RetryAfter time.Duration
	// Retry reports whether the same request may have better luck.
	Retry bool
	// Lost reports that the service may have done the work, and may charge for
	// it, although the answer was lost: the request had left us completely.
	Lost bool
	// Timeout reports that a time limit of ours ended the request.
	Timeout bool

	cause error
}

func (e *Error) Error() string {
	if e.Status >= 300 {
		return fmt.Sprintf("LLM API error (%d): %s", e.Status, e.Message)
	}
	return e.Message
}

// Unwrap returns the cause, which is for errors.Is.
func (e *Error) Unwrap() error { return e.cause }

// Limits of texts that are taken from answers.
const (
	maxErrorBody = 64 << 10
	maxMessage   = 2000
)

// StatusError makes an error of an answer that is not a success.
func StatusError(status int, header http.Header, body []byte) *Error {
	e := &Error{
		Status:     status,
		RequestID:  RequestID(header),
		RetryAfter: retryAfter(header, time.Now()),
	}
	e.read(body, header.Get("Content-Type"))
	switch header.Get("X-Should-Retry") {
	case "true":
		e.Retry = true
	case "false":
	default:
		e.Retry = status == http.StatusRequestTimeout || status == http.StatusConflict ||
			status == http.StatusTooManyRequests || status >= 500
	}
	if e.Code == "insufficient_quota" || e.Type == "insufficient_quota" {
		e.Retry = false // says 429, but means that the account is empty
	}
	// These are not the service's: a gateway has given up waiting for it.
	e.Lost = status == http.StatusGatewayTimeout || status == 524
	if status >= 300 && status < 400 {
		e.Message = fmt.Sprintf("the address redirects to %s, and keys are not sent on: set BaseURL to where the service is",
			beacon.Excerpt(withoutQuery(header.Get("Location")), 200))
	}
	return e
}

// StreamError makes an error of one that came in the middle of a stream, as
// JSON. Services send some of them where others answer with a status.
func StreamError(data []byte) *Error {
	e := &Error{Status: http.StatusInternalServerError, RetryAfter: -1}
	e.read(data, "application/json")
	kind := cmp.Or(e.Type, e.Code)
	switch {
	case e.Code != "" && regexp.MustCompile(`^[45]\d\d$`).MatchString(e.Code):
		e.Status, _ = strconv.Atoi(e.Code)
	case strings.Contains(kind, "overloaded"):
		e.Status = 529
	case strings.Contains(kind, "rate_limit"), strings.Contains(kind, "insufficient_quota"):
		e.Status = http.StatusTooManyRequests
	case strings.Contains(kind, "invalid_request"), strings.Contains(kind, "bad_request"):
		e.Status = http.StatusBadRequest
	case strings.Contains(kind, "authentication"):
		e.Status = http.StatusUnauthorized
	case strings.Contains(kind, "permission"):
		e.Status = http.StatusForbidden
	case strings.Contains(kind, "not_found"):
		e.Status = http.StatusNotFound
	case strings.Contains(kind, "timeout"):
		e.Status = http.StatusGatewayTimeout
	}
	e.Retry = e.Status == http.StatusRequestTimeout || e.Status == http.StatusConflict || e.Status == http.StatusTooManyRequests || e.Status >= 500
	return e
}

// read takes the service's words out of one of the many forms that errors have.
func (e *Error) read(body []byte, contentType string) {
	type detail struct {
		Message string          `json:"message"`
		Msg     string          `json:"msg"`
		Type    string          `json:"type"`
		Code    json.RawMessage `json:"code"`
	}
	var form struct {
		Error     json.RawMessage `json:"error"`
		Detail    json.RawMessage `json:"detail"`
		RequestID string          `json:"request_id"`
		detail
	}
	text := strings.TrimSpace(string(body))
	var mismatch *json.UnmarshalTypeError
	if err := json.Unmarshal(body, &form); err != nil && !errors.As(err, &mismatch) {
		e.Message = notJSON(text, contentType)
		return
	}
	e.RequestID = cmp.Or(e.RequestID, beacon.Excerpt(form.RequestID, 200))
	found := form.detail
	for _, raw := range []json.RawMessage{form.Error, form.Detail} {
		if len(raw) == 0 || string(raw) == "null" {
			continue
		}
		var words string
		var one detail
		var list []detail
		switch {
		case json.Unmarshal(raw, &words) == nil:
			found.Message = words
		case json.Unmarshal(raw, &one) == nil && cmp.Or(one.Message, one.Msg) != "":
			found = one
		case json.Unmarshal(raw, &list) == nil && len(list) > 0:
			found = list[0]
		default:
			found.Message = string(raw)
		}
		break
	}
	e.Message = beacon.Excerpt(cmp.Or(found.Message, found.Msg, text, "no reason given"), maxMessage)
	e.Type = beacon.Excerpt(found.Type, 100)
	if code := strings.Trim(string(found.Code), `"`); code != "null" {
		e.Code = beacon.Excerpt(code, 100)
	}
}

var title = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)

// notJSON words an answer that is not what services send: mostly a page of some
// proxy in between.
func notJSON(text, contentType string) string {
	switch {
	case text == "":
		return "no reason given"
	case strings.Contains(contentType, "html") || strings.HasPrefix(text, "<"):
		words := "a web page"
		if m := title.FindStringSubmatch(text); m != nil {
			words += fmt.Sprintf(" (%s)", beacon.Excerpt(strings.Join(strings.Fields(m[1]), " "), 200))
		}
		return "the answer is " + words + ", not the service's JSON; is BaseURL right?"
	}
	return beacon.Excerpt(text, maxMessage)
}

// RequestID finds what a service calls the request.
func RequestID(header http.Header) string {
	for _, name := range []string{"X-Request-Id", "Request-Id", "Apim-Request-Id", "Cf-Ray"} {
		if id := header.Get(name); id != "" {
			return beacon.Excerpt(id, 200)
		}
	}
	return ""
}

// retryAfter reads how long a service wants to be left alone, less than 0 if it
// does not say.
func retryAfter(header http.Header, now time.Time) time.Duration {
	for name, unit := range map[string]time.Duration{"Retry-After-Ms": time.Millisecond, "Retry-After": time.Second} {
		text := header.Get(name)
		if n, err := strconv.ParseFloat(text, 64); err == nil && n >= 0 && n < 1e7 {
			return time.Duration(n * float64(unit))
		}
		if at, err := http.ParseTime(text); err == nil {
			return max(0, at.Sub(now))
		}
	}
	return -1
}

func withoutQuery(location string) string {
	location, _, _ = strings.Cut(location, "?")
	return location
}

// Unreadable is the error of an answer that is not what the API says. It may
// have been charged for. The body, if there is one, helps to say what it is.
func Unreadable(err error, body []byte) *Error {
	why := err.Error()
	if text := strings.TrimSpace(string(body)); strings.HasPrefix(text, "<") {
		why = notJSON(text, "text/html")
	}
	return &Error{Message: "LLM request failed: the answer cannot be read: " + beacon.Excerpt(why, 400), RetryAfter: -1, Lost: true, cause: err}
}

// Cut is the error of a stream that ends before the answer does.
func Cut() *Error {
	return &Error{Message: "LLM request failed: the answer was cut off", RetryAfter: -1, Retry: true, Lost: true}
}

// After notes of an error that a part of the answer came before it: then the
// service has worked, and charges for it.
func After(err error, partial bool) error {
	var e *Error
	if !partial || !errors.As(err, &e) || e.Lost {
		return err
	}
	e = &Error{
		Message: e.Message, Status: e.Status, Type: e.Type, Code: e.Code, RequestID: e.RequestID,
		RetryAfter: e.RetryAfter, Retry: e.Retry, Timeout: e.Timeout, Lost: true, cause: e.cause,
	}
	return e
}
