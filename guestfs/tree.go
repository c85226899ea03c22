package guestfs

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// A key tells files of one host apart. Guests never see it.
type key struct{ device, file uint64 }

// Facts are what the host knows of a name or an open file. Times are in
// nanoseconds since 1970.
type facts struct {
	key                       key
	mode                      fs.FileMode // its type bits count
	links                     uint64
	size                      int64
	accessed, changed, edited int64
}

// A place is a cleaned name whose directory has been found.
type place struct {
	name string
	base string // its last part
	dir  int    // a descriptor of the directory; used by some trees only
	// above has the directories on the way, in trees that look at each.
	above []key
}

// A tree is access to a directory and what is below it, and to nothing else,
// without any policy. Errors are classified.
type tree interface {
	// at finds the directory of a cleaned name. Symbolic links on the way are
	// not followed. The place must be released.
	at(name string) (place, error)
	release(place)
	lstat(place) (facts, error)
	// open never blocks, and does not follow a link in the last part. With
	// os.O_CREATE and os.O_EXCL it makes a file. The caller checks what it got.
	open(p place, flags int) (handle, error)
	mkdir(place) error
	unlink(place) error
	rmdir(place) error
	// rename replaces a file or, when directory, an empty directory.
	rename(from, to place, directory, replaces bool) error
	// chtimes leaves a time that is zero as it is.
	chtimes(p place, accessed, edited time.Time) error
	close() error
}

// A handle is an open file or directory.
type handle interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
	stat() (facts, error)
	// names calls visit for the names in a directory, from the start.
	names(visit func(name string) error) error
	// child looks at a name in a directory, whose own name is dir.
	child(dir, name string) (facts, error)
	chtimes(name string, accessed, edited time.Time) error
}

// rootTree is the tree that works everywhere. It looks at every directory on
// the way, because os.Root follows symbolic links that stay inside. Where a
// name is exchanged for such a link meanwhile, it is followed: it cannot leave
// the root, and inputs are protected by identity as well as by name.
type rootTree struct{ root *os.Root }

func (t rootTree) at(name string) (place, error) {
	p := place{name: name, base: path.Base(name)}
	for i := 0; ; {
		next := strings.IndexByte(name[i:], '/')
		if next < 0 {
			return p, nil
		}
		i += next
		info, err := t.look(name[:i])
		if err != nil {
			return p, err
		}
		if info.mode&fs.ModeSymlink != 0 {
			return p, ErrLoop
		}
		if !info.mode.IsDir() {
			return p, ErrNotDirectory
		}
		p.above = append(p.above, info.key)
		i++
	}
}

func (t rootTree) release(place) {}

func (t rootTree) look(name string) (facts, error) {
	info, err := t.root.Lstat(name)
	if err != nil {
		return facts{}, classify(err)
	}
	f, err := identify(t.root, name, info)
	return f, classify(err)
}

func (t rootTree) lstat(p place) (facts, error) { return t.look(p.name) }

func (t rootTree) open(p place, flags int) (handle, error) {
	f, err := t.root.OpenFile(p.name, flags|safeFlags, 0o600)
	if err != nil {
		return nil, classify(err)
	}
	return &rootHandle{File: f, tree: t}, nil
}

func (t rootTree) mkdir(p place) error { return classify(t.root.Mkdir(p.name, 0o700)) }

func (t rootTree) unlink(p place) error { return classify(t.root.Remove(p.name)) }

func (t rootTree) rmdir(p place) error { return classify(t.root.Remove(p.name)) }

func (t rootTree) rename(from, to place, directory, replaces bool) error {
	if directory && replaces { // which os.Root refuses, even where it is empty
		if err := t.rmdir(to); err != nil {
			return err
		}
	}
	err := t.root.Rename(from.name, to.name)
	var link *os.LinkError
	if errors.As(err, &link) {
		err = link.Err
	}
	return classify(err)
}

func (t rootTree) chtimes(p place, accessed, edited time.Time) error {
	return classify(t.root.Chtimes(p.name, accessed, edited))
}

func (t rootTree) close() error { return nil } // the root is the caller's

type rootHandle struct {
	*os.File
	tree rootTree
}

func (h *rootHandle) stat() (facts, error) {
	info, err := h.Stat()
	if err != nil {
		return facts{}, classify(err)
	}
	f, err := identifyOpen(h.File, info)
	return f, classify(err)
}

func (h *rootHandle) ReadAt(b []byte, offset int64) (int, error) {
	n, err := h.File.ReadAt(b, offset)
	if !errors.Is(err, io.EOF) {
		err = classify(err)
	}
	return n, err
}

func (h *rootHandle) WriteAt(b []byte, offset int64) (int, error) {
	n, err := h.File.WriteAt(b, offset)
	return n, classify(err)
}

func (h *rootHandle) Truncate(size int64) error { return classify(h.File.Truncate(size)) }

func (h *rootHandle) Sync() error { return classify(h.File.Sync()) }

func (h *rootHandle) Close() error { return classify(h.File.Close()) }

func (h *rootHandle) names(visit func(string) error) error {
	if _, err := h.Seek(0, io.SeekStart); err != nil {
		return classify(err)
	}
	for {
		names, err := h.Readdirnames(512)
		for _, name := range names {
			if err := visit(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || err == nil && len(names) == 0 {
			return nil
		}
		if err != nil {
			return classify(err)
		}
	}
}

func (h *rootHandle) child(dir, name string) (facts, error) {
	if dir == "" {
		return facts{}, fs.ErrNotExist
	}
	return h.tree.look(path.Join(dir, name))
}

// chtimes works by name: there is no portable way by descriptor.
func (h *rootHandle) chtimes(name string, accessed, edited time.Time) error {
	if name == "" {
		return fs.ErrNotExist
	}
	return h.tree.chtimes(place{name: name}, accessed, edited)
}
