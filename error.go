package beacon

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A Code says why something failed, in a word that is stable.
type Code string

// The codes. Those of limits say which limit; what raises it is in the message.
const (
	Invalid     Code = "invalid"      // the request is wrong; trying again cannot help
	NotFound    Code = "not_found"    // no such capability, action, file or item
	Denied      Code = "denied"       // outside what this beacon permits
	Refused     Code = "refused"      // a module that must not or cannot run
	Unreachable Code = "unreachable"  // the server does not answer
	Rejected    Code = "rejected"     // the server does not want this beacon
	Timeout     Code = "timeout"      // the item's own deadline
	Canceled    Code = "canceled"     // the server, an operator or a shutdown
	MemoryLimit Code = "memory_limit" // the guest wanted more memory than it may have
	StackLimit  Code = "stack_limit"  // the guest called too deeply
	FuelLimit   Code = "fuel_limit"   // the guest executed more instructions than it may
	OutputLimit Code = "output_limit" // too much on standard output, in logs or outputs
	FileLimit   Code = "file_limit"   // too many or too large files
	CallLimit   Code = "call_limit"   // too many host calls, too much progress
	WebLimit    Code = "web_limit"    // too many or too large requests over the network
	Trapped     Code = "trapped"      // the guest broke down
	Failed      Code = "failed"       // the provider ran and could not do it
	Internal    Code = "internal"     // our fault
)

// Limit reports whether the code names a limit that was hit.
func (c Code) Limit() bool {
	switch c {
	case Timeout, MemoryLimit, StackLimit, FuelLimit, OutputLimit, FileLimit, CallLimit, WebLimit:
		return true
	}
	return false
}

// An Error is a failure whose code and message may be shown to strangers.
type Error struct {
	Code    Code
	Message string
	cause   error
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the cause, which is for errors.Is and for logs only.
func (e *Error) Unwrap() error { return e.cause }

// Errorf makes an Error; an operand of %w becomes its cause.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// CodeOf gives the code of any error: "" for nil, Internal for the unknown.
func CodeOf(err error) Code {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Code
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled):
		return Canceled
	}
	return Internal
}

// Excerpt makes text from strangers fit for a message or a log line: at most
// max bytes of it, with control characters, invalid UTF-8 and characters that
// change the direction of text escaped, so that it can neither forge a line nor
// drive a terminal.
func Excerpt(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		for limit > 0 && !utf8.RuneStart(text[limit]) {
			limit--
		}
		text = text[:limit]
	}
	// Strangers choose how often this happens, so it is made to be fast, and to
	// leave no more behind than the result.
	size := 0
	for rest := text; len(rest) > 0; {
		r, n := utf8.DecodeRuneInString(rest)
		size += escaped(r, n)
		rest = rest[n:]
	}
	if size > len(text) {
		var b strings.Builder
		b.Grow(size)
		for len(text) > 0 {
			r, n := utf8.DecodeRuneInString(text)
			switch escaped(r, n) {
			case n:
				b.WriteString(text[:n])
			case 4:
				writeHex(&b, `\x`, uint32(text[0]), 2)
			case 6:
				writeHex(&b, `\u`, uint32(r), 4) //nolint:gosec // runes are not negative
			default:
				writeHex(&b, `\U`, uint32(r), 8) //nolint:gosec // runes are not negative
			}
			text = text[n:]
		}
		text = b.String()
	}
	if cut {
		text += "…"
	}
	return text
}

// escaped is how many bytes a character takes in an excerpt.
func escaped(r rune, size int) int {
	switch {
	case r == utf8.RuneError && size == 1:
		return 4
	case plain(r):
		return size
	case r < 0x10000:
		return 6
	}
	return 10
}

// writeHex writes a number of hexadecimal digits.
func writeHex(b *strings.Builder, prefix string, n uint32, digits int) {
	b.WriteString(prefix)
	for digits--; digits >= 0; digits-- {
		b.WriteByte("0123456789abcdef"[n>>(4*digits)&0xf])
	}
}

// plain reports whether a character may stand in a line as it is. Cf holds the
// marks that reverse text or join it invisibly.
func plain(r rune) bool {
	if r >= ' ' && r < 0x7f || r == '\t' {
		return true
	}
	return r != utf8.RuneError && !unicode.IsControl(r) && !unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp)
}
