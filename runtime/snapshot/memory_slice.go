//go:build !unix || beacon_portable

package snapshot

// A space is an ordinary slice where there is no mmap. The build tag
// beacon_portable has it everywhere, for tests.
type space struct{ slice []byte }

func (s *space) open(i *Image, _ int) error {
	s.slice = append([]byte(nil), i.bytes...)
	return nil
}

func (s *space) bytes(size int) []byte { return s.slice[:size:size] }

// extend may move the memory.
func (s *space) extend(_, to int) error {
	if grown := to - len(s.slice); grown > 0 {
		s.slice = append(s.slice, make([]byte, grown)...)
	}
	return nil
}

func (s *space) shrink(from, _ int) error {
	s.slice = s.slice[:from:from]
	return nil
}

func (s *space) close() error {
	s.slice = nil
	return nil
}
