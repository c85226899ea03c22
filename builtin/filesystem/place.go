package filesystem

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/ultravisor/beacon"
)

// A tree is where names of files are looked up: within a folder, or anywhere.
// *os.Root is one.
type tree interface {
	OpenFile(name string, flag int, perm os.FileMode) (*os.File, error)
	Stat(name string) (os.FileInfo, error)
	Lstat(name string) (os.FileInfo, error)
	MkdirAll(name string, perm os.FileMode) error
	Remove(name string) error
	RemoveAll(name string) error
	Rename(from, to string) error
}

// anywhere is the tree of all files; its names are absolute paths.
type anywhere struct{}

func (anywhere) OpenFile(name string, flag int, perm os.FileMode) (*os.File, error) {
	return os.OpenFile(name, flag, perm)
}
func (anywhere) Stat(name string) (os.FileInfo, error)        { return os.Stat(name) }
func (anywhere) Lstat(name string) (os.FileInfo, error)       { return os.Lstat(name) }
func (anywhere) MkdirAll(name string, perm os.FileMode) error { return os.MkdirAll(name, perm) }
func (anywhere) Remove(name string) error                     { return os.Remove(name) }
func (anywhere) RemoveAll(name string) error                  { return os.RemoveAll(name) }
func (anywhere) Rename(from, to string) error                 { return os.Rename(from, to) }

// A bound is a folder that may be named, or one file in it.
type bound struct {
	root  *os.Root
	paths []string // the folder, as it is written and as it is
	only  string   // the one file that is allowed, "" for all
}

func newBound(path string) (bound, error) {
	path = filepath.Clean(path)
	info, err := os.Stat(path)
	if err != nil {
		return bound{}, err
	}
	b := bound{}
	folder := path
	if !info.IsDir() {
		folder, b.only = filepath.Split(path)
	}
	if b.root, err = os.OpenRoot(folder); err != nil {
		return bound{}, err
	}
	b.paths = []string{filepath.Clean(folder)}
	if real, err := filepath.EvalSymlinks(folder); err == nil && real != b.paths[0] {
		b.paths = append(b.paths, real)
	}
	return b, nil
}

// within gives the name of a path in the bound's root.
func (b bound) within(path string) (name string, ok bool) {
	for _, folder := range b.paths {
		name, err := filepath.Rel(folder, path)
		if err == nil && filepath.IsLocal(name) && (b.only == "" || name == b.only) {
			return name, true
		}
	}
	return "", false
}

// A place is what a path in an item means.
type place struct {
	tree tree
	name string // in the tree
	path string // absolute, for people
	top  bool   // the folder that is a boundary itself
}

// find finds the place of a path. what is "" or begins the words that say that
// it is not allowed.
func (p *Provider) find(job *beacon.Job, what, text string) (*place, error) {
	// The files of an item are its own, wherever the configuration allows.
	switch {
	case text == "{SourcePath}" && job.Source != "":
		return &place{tree: job.Dir, name: job.Source, path: text}, nil
	case text == "{OutputPath}" && job.Output != "":
		return &place{tree: job.Dir, name: filepath.FromSlash(job.Output), path: text}, nil
	}
	path := text
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.folder, path)
	}
	path = filepath.Clean(path)
	if strings.ContainsRune(path, 0) {
		return nil, &failure{err: errors.New("the path contains a NUL character")}
	}
	if p.bounds == nil {
		return &place{tree: anywhere{}, name: path, path: path, top: path == filepath.Dir(path)}, nil
	}
	for _, b := range p.bounds {
		if name, ok := b.within(path); ok {
			return &place{tree: b.root, name: name, path: path, top: name == "."}, nil
		}
	}
	return nil, notAllowed(what, path)
}

func notAllowed(what, path string) error {
	path = beacon.Excerpt(path, 4096)
	if what == "" {
		return &refusal{"Path not allowed: " + path, "path not in AllowedPaths: " + path}
	}
	return &refusal{what + " path not allowed: " + path, lower(what) + " not in AllowedPaths: " + path}
}

// shown is the path, for people.
func (p *place) shown() string { return beacon.Excerpt(p.path, 4096) }

// sibling is another name in the same folder.
func (p *place) sibling(name string) *place {
	return &place{tree: p.tree, name: filepath.Join(filepath.Dir(p.name), name), path: filepath.Join(filepath.Dir(p.path), name)}
}

// parent is the folder of the place; nil if that is the boundary or beyond.
func (p *place) parent() *place {
	folder := filepath.Dir(p.name)
	if folder == p.name || folder == "." {
		return nil
	}
	return &place{tree: p.tree, name: folder, path: filepath.Dir(p.path)}
}

var (
	errNotRegular = errors.New("not a regular file")
	errDirectory  = errors.New("EISDIR: illegal operation on a directory")
)

// failed words an error of the system as the Node worker does. A link that leads
// out of a boundary is not allowed.
func (p *place) failed(doing string, err error) error {
	err = pathless(err)
	if isEscape(err) {
		return notAllowed("", p.path)
	}
	text := err.Error()
	var number syscall.Errno
	if errors.As(err, &number) {
		for _, known := range words {
			if errors.Is(number, known.errno) {
				text = known.text
				break
			}
		}
	}
	return &failure{err: fmt.Errorf("%s, %s '%s'", text, doing, p.shown())}
}

// isEscape recognises the error of an os.Root for a way out, which has no name.
func isEscape(err error) bool { return err != nil && err.Error() == "path escapes from parent" }

// words are the texts of Node.
var words = []struct {
	errno error
	text  string
}{
	{syscall.ENOTDIR, "ENOTDIR: not a directory"},
	{syscall.EISDIR, "EISDIR: illegal operation on a directory"},
	{syscall.ENOTEMPTY, "ENOTEMPTY: directory not empty"},
	{syscall.ENOSPC, "ENOSPC: no space left on device"},
	{syscall.ENAMETOOLONG, "ENAMETOOLONG: name too long"},
	{syscall.ELOOP, "ELOOP: too many symbolic links encountered"},
	{syscall.EROFS, "EROFS: read-only file system"},
	{syscall.EPERM, "EPERM: operation not permitted"},
	{syscall.EACCES, "EACCES: permission denied"},
	{fs.ErrNotExist, "ENOENT: no such file or directory"},
	{fs.ErrExist, "EEXIST: file already exists"},
	{fs.ErrPermission, "EACCES: permission denied"},
}

// pathless takes the paths out of an error, which may have several: what is said
// has one already.
func pathless(err error) error {
	for {
		var pe *fs.PathError
		var le *os.LinkError
		switch {
		case errors.As(err, &pe):
			err = pe.Err
		case errors.As(err, &le):
			err = le.Err
		default:
			return err
		}
	}
}
