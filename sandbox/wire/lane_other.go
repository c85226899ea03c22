//go:build !linux

package wire

import (
	"errors"
	"os"
)

// NewLanes makes none: there are packets that keep their order on Linux.
func NewLanes(int) (*Lanes, []*os.File, error) { return &Lanes{}, nil, nil }

// OpenLane is for lanes that there are.
func OpenLane(int) (*Lane, error) { return nil, errNoLanes }

var errNoLanes = errors.New("there are no lanes on this system")

func (*Lane) read() (int, error) { return 0, errNoLanes }
func (*Lane) write([]byte) error { return errNoLanes }
func (*Lane) shutdown() error    { return nil }
func (*Lane) close() error       { return nil }
