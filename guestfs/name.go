package guestfs

import (
	"io/fs"
	"path"
	"strings"
)

const (
	longestPath = 4096
	longestName = 255
)

// clean checks a guest's name and resolves it lexically, so that "a/../b" is
// "b". directory is set when only a directory may have the name: it ends in a
// slash or a dot.
func clean(name string, depth int) (cleaned string, directory bool, err error) {
	switch {
	case name == "":
		return "", false, fs.ErrNotExist
	case len(name) > longestPath:
		return "", false, ErrNameTooLong
	case name[0] == '/':
		return "", false, fs.ErrPermission
	case strings.IndexByte(name, 0) >= 0:
		return "", false, ErrInvalid
	}
	last := name[strings.LastIndexByte(name, '/')+1:]
	directory = last == "" || last == "." || last == ".."
	cleaned = path.Clean(name)
	if cleaned == "." {
		return cleaned, true, nil
	}
	parts := 0
	for rest, more := cleaned, true; more; parts++ {
		var part string
		part, rest, more = strings.Cut(rest, "/")
		switch {
		case part == "..": // after cleaning only in front
			return "", false, fs.ErrPermission
		case len(part) > longestName:
			return "", false, ErrNameTooLong
		case !nameable(part):
			return "", false, ErrInvalid
		}
	}
	if parts > depth {
		return "", false, &LimitError{LimitDepth, int64(depth)}
	}
	return cleaned, directory, nil
}

// isBelow reports whether name is dir or lies inside of it.
func isBelow(name, dir string) bool {
	return dir == "." || name == dir || len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

func depthOf(name string) int {
	if name == "." {
		return 0
	}
	return strings.Count(name, "/") + 1
}
