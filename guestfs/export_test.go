package guestfs

import "os"

// NewPortable returns a file system that uses os.Root, as on systems without
// openat2.
func NewPortable(root *os.Root, cfg Config) *FS {
	f := New(root, cfg)
	f.openTree = func(r *os.Root) (tree, error) { return rootTree{r}, nil }
	return f
}

// NewHooked returns a file system that calls opened between the opening of a
// file on the host and all that it does then.
func NewHooked(root *os.Root, cfg Config, opened func()) *FS {
	f := New(root, cfg)
	f.openTree = func(r *os.Root) (tree, error) {
		t, err := openTree(r)
		return hooked{t, opened}, err
	}
	return f
}

type hooked struct {
	tree
	opened func()
}

func (t hooked) open(p place, flags int) (handle, error) {
	h, err := t.tree.open(p, flags)
	t.opened()
	return h, err
}
