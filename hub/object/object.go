// Package object is the contract for what is too large for a journal: files,
// kept where every hub of that journal finds them.
package object

import (
	"context"
	"io"
	"time"
)

// An Info is what is known of an object.
type Info struct {
	// ID names the object; it is made of letters and digits, and never used twice.
	ID string
	// Name is for people.
	Name    string
	Size    int64
	SHA256  string // in hexadecimal
	Created time.Time
}

// A Store keeps objects. All methods may be called concurrently. An object that
// is not there is an fs.ErrNotExist.
type Store interface {
	// Put keeps what comes from r, which is info.Size bytes; an object that was
	// not put in full does not exist.
	Put(ctx context.Context, info Info, r io.Reader) error
	// Open opens an object for reading, from any place in it.
	Open(ctx context.Context, id string) (io.ReadSeekCloser, Info, error)
	Delete(ctx context.Context, id string) error
	// List lists all objects, in no particular order.
	List(ctx context.Context) ([]Info, error)
	// Sweep removes what broken uploads have left.
	Sweep(ctx context.Context) error
}
