package guestfs

import "os"

// NewPortable returns a file system that uses os.Root, as on systems without
// openat2.
func NewPortable(root *os.Root, cfg Config) *FS {
	f := New(root, cfg)
	f.openTree = func(r *os.Root) (tree, error) { return rootTree{r}, nil }
	return f
}
