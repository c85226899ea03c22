package guestfs

import (
	"io/fs"
	"os"
)

// None returns a file system in which there is nothing, not even its root:
// every operation answers that. It is for a guest that has no item yet.
func None() *FS {
	return &FS{
		limits:   Limits{}.withDefaults(),
		openTree: func(*os.Root) (tree, error) { return nil, fs.ErrNotExist },
	}
}
