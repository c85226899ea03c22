package guestfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strconv"
)

// Empty removes everything in a directory of the host, whatever a guest or
// anybody else left there, and follows no link. Deep trees are taken apart from
// the top: each directory is moved up before it is emptied, so that neither the
// stack, nor descriptors, nor the length of a path limit the depth. Nothing else
// should use the directory meanwhile.
func Empty(root *os.Root) error {
	e := emptier{root: root}
	for {
		left, err := e.clear(".", "")
		if err != nil {
			return fmt.Errorf("empty the directory: %w", err)
		}
		if !left {
			return nil
		}
	}
}

type emptier struct {
	root  *os.Root
	moves int
}

// clear removes what is in dir but its directories. Those in the root it
// empties and removes; those below it moves to the root. left is true when
// directories were moved.
func (e *emptier) clear(dir, prefix string) (left bool, err error) {
	d, err := e.open(dir)
	if err != nil {
		return false, err
	}
	defer d.Close() //nolint:errcheck // only read
	for {
		names, err := d.Readdirnames(1024)
		for n, name := range names {
			if n%16 == 15 {
				runtime.Gosched() // there may be very many, and others wait
			}
			moved, err := e.remove(prefix+name, prefix != "")
			if err != nil {
				return left, err
			}
			left = left || moved
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return left, nil
		}
		if err != nil {
			return left, classify(err)
		}
	}
}

// open opens a directory, also one whose owner may not.
func (e *emptier) open(dir string) (*os.File, error) {
	d, err := e.root.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		if err := e.root.Chmod(dir, 0o700); err != nil {
			return nil, classify(err)
		}
		d, err = e.root.Open(dir)
	}
	return d, classify(err)
}

func (e *emptier) remove(name string, below bool) (moved bool, err error) {
	// A file, a link or an empty directory is gone with one call.
	failed := e.root.Remove(name)
	if failed == nil || errors.Is(failed, fs.ErrNotExist) {
		return false, nil
	}
	info, err := e.root.Lstat(name)
	if err != nil {
		return false, classify(err)
	}
	if !info.IsDir() {
		return false, classify(failed)
	}
	if below {
		return true, e.moveUp(name)
	}
	// Without these rights of its owner it cannot be emptied.
	if info.Mode().Perm()&0o700 != 0o700 {
		if err := e.root.Chmod(name, 0o700); err != nil {
			return false, classify(err)
		}
	}
	if moved, err = e.clear(name, name+"/"); err != nil {
		return moved, err
	}
	return moved, classify(e.root.Remove(name))
}

// moveUp gives a directory a new name in the root.
func (e *emptier) moveUp(name string) error {
	for {
		e.moves++
		to := ".empty-" + strconv.Itoa(e.moves)
		_, err := e.root.Lstat(to)
		if err == nil {
			continue // somebody has such a name
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return classify(err)
		}
		err = e.root.Rename(name, to)
		var link *os.LinkError
		if errors.As(err, &link) {
			err = link.Err
		}
		if errors.Is(err, fs.ErrPermission) && e.root.Chmod(name, 0o700) == nil {
			err = e.root.Rename(name, to) // moving writes its ".."
		}
		return classify(err)
	}
}
