//go:build unix && !linux && !beacon_portable

package snapshot

// Where the kernel does not tell which pages were written to, memories are
// copies.

func (s *space) mapImage(*Image) (bool, error) { return false, nil }
