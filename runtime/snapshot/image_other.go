//go:build !linux || beacon_portable

package snapshot

import "errors"

type store struct{}

func (i *Image) keep(pieces []Piece) error {
	i.bytes = make([]byte, i.size)
	fill(i.bytes, pieces)
	return nil
}

func (i *Image) free() error {
	i.bytes = nil
	return nil
}

func (s *space) discard(int, int) error { return errors.ErrUnsupported }

func (s *space) cool(*Image, int) error { return nil }

func (i *Image) supports(m Method) bool { return m == Compare }

// Methods lists the methods that work here, the most promising first.
func (i *Image) Methods() []Method { return []Method{Compare} }

// Prepare opens what memories need of the kernel, for a process that is about to
// give up opening anything: nothing here.
func Prepare() {}

func (s *space) register(int, int) error { return errors.ErrUnsupported }

func (s *space) track(int, int) error { return errors.ErrUnsupported }

func scan([]byte, func(from, to int) error) error    { return errors.ErrUnsupported }
func pagemap([]byte, func(from, to int) error) error { return errors.ErrUnsupported }
func present([]byte, func(from, to int) error) error { return errors.ErrUnsupported }
func marked([]byte, func(from, to int) error) error  { return errors.ErrUnsupported }
