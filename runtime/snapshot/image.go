// Package snapshot has memories of guests that start as copies of an image and
// go back to it, in as little time as the platform allows. It knows no engine.
//
// On Linux an image is a sealed file in memory, and a memory is a private
// mapping of it: what a guest does not write to, all share, and what it has
// written to, the kernel can tell. Elsewhere each memory is a copy of its own.
package snapshot

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
)

// A Piece is a part of a memory's content.
type Piece struct {
	Offset int
	Bytes  []byte
}

// An Image is the content that memories start from and go back to. It never
// changes. All methods may be called concurrently.
type Image struct {
	size  int
	bytes []byte // the content, only to be read
	store store
	// users are the owner and all memories; the last one frees it.
	users atomic.Int64
}

// NewImage makes an image of size bytes: the pieces, in order, on zeros. It
// keeps nothing of them. Close frees it.
func NewImage(size int, pieces ...Piece) (*Image, error) {
	for _, p := range pieces {
		if p.Offset < 0 || p.Offset > size || len(p.Bytes) > size-p.Offset {
			return nil, fmt.Errorf("%d bytes at %d are outside of an image of %d bytes", len(p.Bytes), p.Offset, size)
		}
	}
	i := &Image{size: size}
	i.users.Store(1)
	if size == 0 {
		return i, nil
	}
	if err := i.keep(pieces); err != nil {
		return nil, err
	}
	return i, nil
}

// Size is the image's size in bytes.
func (i *Image) Size() int { return i.size }

// Bytes is the image's content. It must not be written to, and not be used
// after Close.
func (i *Image) Bytes() []byte { return i.bytes }

// Retain makes the image last until Close was called once more. It must not be
// closed yet.
func (i *Image) Retain() { i.users.Add(1) }

// Close frees the image, once it was called as often as it was retained, and
// once more, and all memories that were made from it are closed.
func (i *Image) Close() error { return i.release() }

func (i *Image) release() error {
	if i.users.Add(-1) > 0 {
		return nil
	}
	return i.free()
}

// fill puts the pieces into memory that is zero. Pages of zeros it leaves
// alone: they take no memory until somebody writes there.
func fill(memory []byte, pieces []Piece) {
	for _, p := range pieces {
		for at := 0; at < len(p.Bytes); {
			// To the end of the page.
			n := min(pageSize-(p.Offset+at)%pageSize, len(p.Bytes)-at)
			from, to := p.Bytes[at:at+n], memory[p.Offset+at:p.Offset+at+n]
			if len(pieces) > 1 || !zero(from) {
				copy(to, from)
			}
			at += n
		}
	}
}

func zero(b []byte) bool {
	for len(b) > 0 {
		n := min(len(b), len(zeros))
		if !bytes.Equal(b[:n], zeros[:n]) {
			return false
		}
		b = b[n:]
	}
	return true
}

var zeros [4096]byte

var pageSize = os.Getpagesize()
